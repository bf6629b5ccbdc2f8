//! What a call brings: a message as JSON, or as a form with files.

use std::convert::Infallible;
use std::future;

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use multer::Multipart;
use serde_json::{Map, Value};

use super::reply::Problem;

/// The body of a call.
#[derive(Clone, Debug, Default)]
pub struct Post {
    /// The JSON object, or that of the form's part `payload_json`.
    pub payload: Map<String, Value>,
    /// The files.
    pub files: Vec<Upload>,
}

/// A file in a form.
#[derive(Clone, Debug)]
pub struct Upload {
    /// n of `files[n]`.
    pub number: u64,
    /// Its name.
    pub name: String,
    /// What it holds.
    pub content: Bytes,
}

impl Post {
    pub(super) fn read(content_type: &str, body: &Bytes) -> Result<Self, Problem> {
        if let Ok(boundary) = multer::parse_boundary(content_type) {
            let whole = stream::once(future::ready(Ok::<_, Infallible>(body.clone())));
            // All of it is in memory: nothing is ever waited for.
            return form(Multipart::new(whole, boundary))
                .now_or_never()
                .unwrap_or(Err(Problem::INVALID_FORM));
        }
        if body.is_empty() {
            return Ok(Self::default());
        }
        let essence = content_type.split(';').next().unwrap_or_default();
        if !essence.trim().eq_ignore_ascii_case("application/json") {
            return Err(Problem::INVALID_FORM);
        }
        Ok(Self { payload: object(body)?, files: Vec::new() })
    }
}

async fn form(mut parts: Multipart<'_>) -> Result<Post, Problem> {
    let mut post = Post::default();
    while let Some(part) = parts.next_field().await.map_err(|_| Problem::INVALID_FORM)? {
        let name = part.name().unwrap_or_default().to_owned();
        let file_name = part.file_name().unwrap_or_default().to_owned();
        let content = part.bytes().await.map_err(|_| Problem::INVALID_FORM)?;
        let number = name.strip_prefix("files[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
        if name == "payload_json" {
            post.payload = object(&content)?;
        } else if let Some(number) = number {
            post.files.push(Upload { number, name: file_name, content });
        }
    }
    Ok(post)
}

fn object(json: &[u8]) -> Result<Map<String, Value>, Problem> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Problem::INVALID_FORM),
        Err(_) => Err(Problem::INVALID_JSON),
    }
}
