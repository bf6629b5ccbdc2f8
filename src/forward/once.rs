//! A body that is handed over once at most.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// A request's body. Its copies share the bytes: the connection that writes them takes them from all. So what one
/// replica may have read can be sent to no other, and it takes up memory no longer than it must.
#[derive(Clone)]
pub(super) struct Once(Arc<Mutex<Option<Bytes>>>);

impl Once {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(Arc::new(Mutex::new(Some(bytes))))
    }

    /// Whether it may have been read.
    pub(super) fn is_taken(&self) -> bool {
        self.lock().is_none()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body for Once {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.lock().take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_taken()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.lock().as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn who_takes_it_takes_it_from_all() {
        let body = Once::new(Bytes::from_static(b"{}"));
        let other = body.clone();
        assert!(!other.is_taken());
        assert_eq!(body.size_hint().exact(), Some(2));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "{}");
        assert!(other.is_taken() && other.collect().await.unwrap().to_bytes().is_empty());
    }
}
