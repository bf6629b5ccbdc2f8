//! The HTTP server around it.

use std::error::Error as _;
use std::future;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::fault::Fault;
use super::state::{Request, State};

/// Bytes of a call's body.
const MAX_BODY: usize = 25 << 20;

/// Why a call is not answered.
#[derive(Debug, Error)]
enum Broken {
    #[error("the script asks for it")]
    AsAsked,
    #[error("the call broke off")]
    Unfinished,
}

pub(super) async fn serve(listener: TcpListener, state: Arc<State>) {
    // Dropped with this task, and then its connections are too.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(connection(stream, Arc::clone(&state)));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, state: Arc<State>) {
    _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(request, Arc::clone(&state)));
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let Err(error) = (&mut connection).await else { return };
    if matches!(error.source().and_then(|source| source.downcast_ref()), Some(Broken::AsAsked)) {
        // Closed so, a connection is reset instead of ended.
        _ = connection.into_parts().io.inner().set_zero_linger();
    }
}

async fn answer(
    request: http::Request<Incoming>,
    state: Arc<State>,
) -> Result<Response<Full<Bytes>>, Broken> {
    let (head, body) = request.into_parts();
    let text = |name: HeaderName| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (content_type, user_agent) = (text(header::CONTENT_TYPE), text(header::USER_AGENT));
    let body = read(body).await?;
    let (method, path) = (head.method, head.uri.path().to_owned());
    let request = Request { method, path, content_type, user_agent, body };
    let call = state.note(&request);
    let fault = state.fault(&call);
    let reply = match fault {
        Some(Fault::Reset) => return Err(Broken::AsAsked),
        // Until the caller hangs up, which drops this.
        Some(Fault::Hang) => future::pending().await,
        None => state.process(&request),
        Some(fault) => state.refusal(fault).unwrap_or_else(|| state.process(&request)),
    };
    match fault {
        Some(Fault::ResetAfter) => return Err(Broken::AsAsked),
        Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
        _ => {}
    }
    state.conclude(&call, reply.status());
    Ok(reply.into_response())
}

/// The body, unless it is too large. It is read to its end all the same: a caller that is still sending would not get to
/// see the answer.
async fn read(mut body: Incoming) -> Result<Option<Bytes>, Broken> {
    let mut whole = Some(BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Broken::Unfinished)?.into_data() else { continue };
        whole = whole.filter(|whole| whole.len() + data.len() <= MAX_BODY);
        if let Some(whole) = &mut whole {
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.map(BytesMut::freeze))
}
