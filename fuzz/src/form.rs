//! Forms, read part by part.

use std::convert::Infallible;
use std::future;

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::HeaderMap;
use multer::Multipart;

/// The callback of an answer, and the other parts where it is a form.
pub struct Answer {
    pub callback: Bytes,
    pub others: Vec<Part>,
}

#[derive(Debug, PartialEq)]
pub struct Part {
    /// Of a part that is named `files[n]`: n.
    pub number: Option<u64>,
    pub headers: HeaderMap,
    pub content: Bytes,
}

/// An answer that was found to be sound.
pub fn read(content_type: &str, body: &Bytes) -> Answer {
    let (essence, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !essence.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Answer { callback: body.clone(), others: Vec::new() };
    }
    let boundary = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    let boundary = boundary.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"));
    let boundary = boundary.unwrap().1.trim();
    let quoted = boundary.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let boundary = quoted.unwrap_or(boundary);
    let whole = stream::once(future::ready(Ok::<_, Infallible>(body.clone())));
    let mut form = Multipart::new(whole, boundary);
    let (mut callbacks, mut others) = (Vec::new(), Vec::new());
    while let Some(part) = form.next_field().now_or_never().unwrap().unwrap() {
        let (name, headers) = (part.name().unwrap_or_default().to_owned(), part.headers().clone());
        let content = part.bytes().now_or_never().unwrap().unwrap();
        if name == "payload_json" {
            callbacks.push(content);
        } else {
            let number = name.strip_prefix("files[").and_then(|name| name.strip_suffix(']')?.parse().ok());
            others.push(Part { number, headers, content });
        }
    }
    assert_eq!(callbacks.len(), 1);
    Answer { callback: callbacks.remove(0), others }
}
