//! Late answers: what a handler's answer becomes after its interaction was deferred.

use bytes::Bytes;

/// A message for Discord's REST API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which requests bring it to the user.
    pub way: Way,
    /// `Content-Type` of the body.
    pub content_type: String,
    /// The bare message as JSON, or as a form with files.
    pub body: Bytes,
}

/// Which requests bring a message to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `PATCH …/messages/@original`.
    Edit,
    /// `DELETE …/messages/@original`, then a follow-up that only the user sees: what is private never becomes public.
    Replace,
    /// `POST`: a follow-up.
    FollowUp,
}
