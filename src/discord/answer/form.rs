//! Answers with files: a form with the callback in one part, and a file in each other.

use std::convert::Infallible;
use std::future;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{FutureExt, stream};
use http::{HeaderMap, HeaderName};
use multer::{Error as Malformed, Field, Multipart};
use thiserror::Error;

/// The part that holds the callback.
const PAYLOAD: &str = "payload_json";
/// The callback, the ten files that Discord takes, and some room for those who send too many.
pub(super) const MAX_PARTS: usize = 64;
/// Bytes of one part's headers.
pub(super) const MAX_PART_HEADERS: usize = 8 * 1024;
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
    boundary: String,
    /// All but `payload_json`.
    others: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    headers: HeaderMap,
    content: Bytes,
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
        let parts = Multipart::new(whole, boundary.clone());
        // All of it is in memory: nothing is ever waited for.
        let form = walk(parts).now_or_never().unwrap_or(Err(FormError::Broken(1)))?;
        Ok(Self { boundary, ..form })
    }

    /// The form with this JSON in the part `payload_json`, the others as they came behind it.
    ///
    /// The boundary stays: no part's content holds it after a line's end, and neither does any JSON.
    pub(super) fn with_payload(&self, payload: &[u8]) -> Bytes {
        let mut form = BytesMut::new();
        let mut part = |head: &[u8], content: &[u8]| {
            let pieces = [b"--", self.boundary.as_bytes(), b"\r\n", head, b"\r\n", content, b"\r\n"];
            form.reserve(pieces.iter().map(|piece| piece.len()).sum());
            pieces.iter().for_each(|piece| form.put_slice(piece));
        };
        let head = format!(
            "Content-Disposition: form-data; name=\"{PAYLOAD}\"\r\nContent-Type: application/json\r\n"
        );
        part(head.as_bytes(), payload);
        for Part { headers, content } in &self.others {
            let lines = headers
                .iter()
                .map(|(name, value)| [titled(name).as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
            part(&lines.collect::<Vec<_>>().concat(), content);
        }
        form.put_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        form.freeze()
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
            if payload.replace(content(part).await.ok_or(FormError::Broken(nth))?).is_some() {
                return Err(FormError::TwoPayloads);
            }
            continue;
        }
        let number: Option<u64> =
            name.strip_prefix("files[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
        form.numbers.extend(number);
        form.files += usize::from(number.is_some() || part.file_name().is_some());
        names.push(name);
        let headers = part.headers().clone();
        form.others.push(Part { headers, content: content(part).await.ok_or(FormError::Broken(nth))? });
    }
    form.payload = payload.ok_or_else(|| FormError::NoPayload(listed(&names)))?;
    Ok(form)
}

/// A part's content, without a copy: as all of the form is there, it comes in one piece.
async fn content(mut part: Field<'_>) -> Option<Bytes> {
    let mut content = Bytes::new();
    while let Some(piece) = part.chunk().await.ok()? {
        content = if content.is_empty() { piece } else { [content, piece].concat().into() };
    }
    Some(content)
}

/// A header's name as most programs write it: not everybody who reads forms knows that case does not matter.
fn titled(name: &HeaderName) -> String {
    let word = |word: &str| {
        let (first, rest) = word.split_at_checked(1).unwrap_or_default();
        first.to_ascii_uppercase() + rest
    };
    name.as_str().split('-').map(word).collect::<Vec<_>>().join("-")
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
