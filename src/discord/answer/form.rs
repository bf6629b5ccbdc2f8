//! Answers with files: a form with the callback in one part, and a file in each other.

use std::convert::Infallible;
use std::future;

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use multer::{Error as Malformed, Field, Multipart};
use thiserror::Error;

/// The part that holds the callback.
const PAYLOAD: &str = "payload_json";
/// The callback, the ten files that Discord takes, and some room for those who send too many.
const MAX_PARTS: usize = 64;
/// Bytes of one part's headers.
const MAX_PART_HEADERS: usize = 8 * 1024;
/// RFC 2046, 5.1.1.
const MAX_BOUNDARY: usize = 70;

/// What matters of a form.
#[derive(Debug, Default)]
pub(super) struct Form {
    /// The part `payload_json`.
    pub(super) payload: Bytes,
    /// How many files it brings.
    pub(super) files: usize,
    /// Every n for which there is a part `files[n]`.
    pub(super) numbers: Vec<u64>,
}

/// Why a form does not do.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum FormError {
    #[error(
        "its content type is multipart/form-data without a boundary; it must be the one that the parts are divided by \
         (an HTTP library that writes the form sets both)"
    )]
    NoBoundary,
    #[error("no part begins with the boundary that its content type, multipart/form-data, names")]
    NoParts,
    #[error(
        "part {0} of its form is broken or breaks off; each part is headers, an empty line and its content, lines end \
         with CRLF, and the last boundary with --"
    )]
    Broken(usize),
    #[error("its form has more than {MAX_PARTS} parts; Discord takes payload_json and 10 files")]
    TooManyParts,
    #[error("the headers of part {0} of its form have more than {MAX_PART_HEADERS} bytes")]
    LargeHeaders(usize),
    #[error("its form has no part named payload_json, which holds the callback; there is {0}")]
    NoPayload(String),
    #[error("its form has the part payload_json twice; Discord needs one callback")]
    TwoPayloads,
}

impl Form {
    /// Reads a form whose content type has these parameters.
    pub(super) fn read(parameters: &str, body: &Bytes) -> Result<Self, FormError> {
        let boundary = boundary(parameters).ok_or(FormError::NoBoundary)?;
        let whole = stream::once(future::ready(Ok::<_, Infallible>(body.clone())));
        // All of it is in memory: nothing is ever waited for.
        walk(Multipart::new(whole, boundary)).now_or_never().unwrap_or(Err(FormError::Broken(1)))
    }
}

async fn walk(mut parts: Multipart<'_>) -> Result<Form, FormError> {
    let (mut form, mut payload, mut names) = (Form::default(), None, Vec::new());
    for nth in 1.. {
        let part = match parts.next_field().await {
            Ok(Some(part)) => part,
            Ok(None) => break,
            Err(
                Malformed::ReadHeaderFailed(_)
                | Malformed::DecodeHeaderName { .. }
                | Malformed::DecodeHeaderValue { .. },
            ) => {
                return Err(FormError::Broken(nth));
            }
            Err(_) if nth == 1 => return Err(FormError::NoParts),
            // Only now it shows how the part before ends.
            Err(_) => return Err(FormError::Broken(nth - 1)),
        };
        if nth > MAX_PARTS {
            return Err(FormError::TooManyParts);
        }
        if size_of_headers(&part) > MAX_PART_HEADERS {
            return Err(FormError::LargeHeaders(nth));
        }
        let name = part.name().unwrap_or_default().to_owned();
        if name == PAYLOAD {
            let content = part.bytes().await.map_err(|_| FormError::Broken(nth))?;
            if payload.replace(content).is_some() {
                return Err(FormError::TwoPayloads);
            }
            continue;
        }
        let number: Option<u64> =
            name.strip_prefix("files[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
        form.numbers.extend(number);
        form.files += usize::from(number.is_some() || part.file_name().is_some());
        names.push(name);
    }
    form.payload = payload.ok_or_else(|| FormError::NoPayload(listed(&names)))?;
    Ok(form)
}

fn size_of_headers(part: &Field<'_>) -> usize {
    part.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Names of parts, for people.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 3;
    if names.is_empty() {
        return "no part at all".to_owned();
    }
    let short = |name: &String| format!("{:?}", name.chars().take(40).collect::<String>());
    let mut shown: Vec<_> = names.iter().take(SHOWN).map(short).collect();
    if let Some(more) = names.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}

/// The boundary among a content type's parameters. Lenient in what an unquoted one may hold: bots' libraries are.
fn boundary(parameters: &str) -> Option<String> {
    let mut parameters = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    let (_, value) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"))?;
    let value = value.trim();
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    (1..=MAX_BOUNDARY).contains(&value.len()).then(|| value.to_owned())
}
