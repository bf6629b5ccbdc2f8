//! A whole answer: what its content type makes of its body. The daemon and `send` judge by this alone.

mod form;

use bytes::Bytes;
use thiserror::Error;

use super::callback::{self, CallbackError, CallbackType, Question};
use super::interaction::Kind;
use form::Form;
pub use form::FormError;

/// Bytes of an answer with files beyond which users report that Discord fails to take it as an answer to its request.
const LARGE_FORM: usize = 150_000;
/// Source: Discord's documentation, "Create Message".
const MAX_FILES: usize = 10;
/// The content type of an answer with files.
const FORM: &str = "multipart/form-data";

/// What a sound answer was found to be.
#[derive(Debug)]
pub struct Checked {
    /// Its type, which may answer the interaction.
    pub callback: CallbackType,
    /// Files that come along.
    pub files: usize,
    /// What is documented, and not kept; Discord refuses such an answer.
    pub broken_limits: Vec<String>,
    /// Why Discord may fail to take it, without being documented.
    pub doubt: Option<String>,
}

/// Why an answer is none for its interaction.
#[derive(Debug, Error)]
pub enum AnswerError {
    /// Neither JSON nor a form.
    #[error(
        "its content type is {0}; Discord needs application/json, or multipart/form-data with a boundary"
    )]
    ContentType(String),
    /// No form, or one without its callback.
    #[error("{0}")]
    Form(#[from] FormError),
    /// No callback, or one that does not fit.
    #[error("{0}")]
    Callback(#[from] CallbackError),
    /// The same, inside a form.
    #[error("in its part payload_json, {0}")]
    Payload(CallbackError),
}

/// Looks at an answer with status 200 without changing it.
///
/// # Errors
///
/// An [`AnswerError`] that tells the bot's author what to change.
pub fn check(content_type: &str, body: &Bytes, question: Question) -> Result<Checked, AnswerError> {
    let (essence, parameters) = parted(content_type);
    match essence.as_str() {
        "application/json" => {
            let callback::Checked { callback, broken_limits, .. } = callback::check(body, question)?;
            Ok(Checked { callback, files: 0, broken_limits, doubt: None })
        }
        FORM if question.kind != Kind::Ping => check_form(parameters, body, question),
        "" => Err(AnswerError::ContentType("missing".to_owned())),
        _ => {
            let shown: String = content_type.trim().chars().take(100).collect();
            Err(AnswerError::ContentType(shown.escape_debug().to_string()))
        }
    }
}

/// An answer that was checked, with another text in the place of its callback: files stay as they came. Its content
/// type stays too.
///
/// # Errors
///
/// What `change` makes of the callback, or as [`check`].
pub(super) fn with_payload<E: From<AnswerError>>(
    content_type: &str,
    body: &Bytes,
    change: impl FnOnce(&[u8], &[u64]) -> Result<Vec<u8>, E>,
) -> Result<Bytes, E> {
    let (essence, parameters) = parted(content_type);
    if essence != FORM {
        return change(body, &[]).map(Bytes::from);
    }
    let form = Form::read(parameters, body).map_err(AnswerError::from)?;
    let payload = change(&form.payload, &form.numbers)?;
    Ok(form.with_payload(&payload))
}

/// A content type, and its parameters.
fn parted(content_type: &str) -> (String, &str) {
    let (essence, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    (essence.trim().to_ascii_lowercase(), parameters)
}

fn check_form(parameters: &str, body: &Bytes, question: Question) -> Result<Checked, AnswerError> {
    let form = Form::read(parameters, body)?;
    let checked = callback::check(&form.payload, question).map_err(AnswerError::Payload)?;
    let (callback, mut broken_limits) = (checked.callback, checked.broken_limits);
    if form.files > MAX_FILES {
        broken_limits.push(format!("there are {} files; Discord takes at most {MAX_FILES}", form.files));
    }
    // A message that is updated may keep attachments that it has already.
    if callback == CallbackType::ChannelMessageWithSource {
        let missing = checked.attachments.iter().find(|id| !form.numbers.contains(id));
        broken_limits.extend(
            missing.map(|id| format!("attachment {id} has no file; its part must have the name files[{id}]")),
        );
    }
    let doubt = (body.len() > LARGE_FORM).then(|| {
        format!(
            "it has {} kB, and with more than {} kB Discord is reported to fail; answer without the files, and add \
             them over Discord's REST API",
            body.len() / 1000,
            LARGE_FORM / 1000
        )
    });
    Ok(Checked { callback, files: form.files, broken_limits, doubt })
}

#[cfg(test)]
mod tests;
