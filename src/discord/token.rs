//! An interaction's token: whoever has it may answer in the bot's name, for 15 minutes.

use std::fmt;
use std::sync::Arc;

/// Bytes of a token; Discord's have a few hundred.
const MAX_TOKEN: usize = 4096;

/// A bearer secret. It shows itself to nobody by accident: it has no `Display`, and its `Debug` is a word.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

impl Token {
    /// A token, if the text can be one segment of a URL's path as it is.
    pub fn new(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~=+:@!$&'()*,;".contains(&byte);
        let is_token = (1..=MAX_TOKEN).contains(&text.len())
            && text.bytes().all(is_plain)
            && text.bytes().any(|byte| byte != b'.');
        is_token.then(|| Self(text.into()))
    }

    /// The secret itself: for a request to Discord, and for the outbox.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
