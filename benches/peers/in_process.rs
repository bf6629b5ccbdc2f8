//! The least that a bot in Rust can do by itself: hyper, strict verification, and the answer that the other bots give.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, VerifyingKey};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Tells this program to be that bot, by `PORT` and `PUBLIC_KEY` of its environment.
pub(crate) const ARGUMENT: &str = "in-process-bot";

/// What the bot reads of a command, or of a PING.
#[derive(Deserialize)]
struct Interaction<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: u8,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    options: Vec<CommandOption>,
}

#[derive(Deserialize)]
struct CommandOption {
    value: Value,
}

/// Until the process is ended.
pub(crate) async fn serve() -> Result<()> {
    let port = std::env::var("PORT")?.parse()?;
    let key = HEXLOWER.decode(std::env::var("PUBLIC_KEY")?.as_bytes())?;
    let key = VerifyingKey::try_from(&*key).map_err(|_| anyhow::anyhow!("PUBLIC_KEY is no key"))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = service_fn(async |request| anyhow::Ok(respond(&key, request).await));
            // Its end, whatever it is, shows at the other end.
            _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn respond(key: &VerifyingKey, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let refuse = |status| {
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        response
    };
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return refuse(StatusCode::BAD_REQUEST) };
    let body = body.to_bytes();
    if verify(key, &head.headers, &body).is_none() {
        return refuse(StatusCode::UNAUTHORIZED);
    }
    let Ok(callback) = answer(&body) else { return refuse(StatusCode::BAD_REQUEST) };
    let mut response = Response::new(Full::from(callback.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn verify(key: &VerifyingKey, headers: &HeaderMap, body: &[u8]) -> Option<()> {
    let signature = HEXLOWER.decode(headers.get("x-signature-ed25519")?.as_bytes()).ok()?;
    let message = [headers.get("x-signature-timestamp")?.as_bytes(), body].concat();
    key.verify_strict(&message, &Signature::try_from(&*signature).ok()?).ok()
}

fn answer(body: &[u8]) -> Result<Value> {
    let Interaction { id, kind, data } = serde_json::from_slice(body)?;
    if kind == 1 {
        return Ok(json!({ "type": 1 }));
    }
    let options = data.context("no data")?.options;
    let value = options.first().and_then(|option| option.value.as_str()).context("no option")?;
    Ok(json!({ "type": 4, "data": { "content": format!("{id}: {value}") } }))
}
