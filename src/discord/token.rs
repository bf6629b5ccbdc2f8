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
        // By ranges and single bytes alone: it is asked of each byte of each interaction's token.
        let is_plain = |byte: u8| {
            matches!(byte,
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' | b'~' | b'=' | b'+' | b':' | b'@'
                | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b',' | b';')
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::all_that_a_segment_may_hold("aZ09-_.~=+:@!$&'()*,;", true)]
    #[case::as_long_as_it_may_be(&"t".repeat(MAX_TOKEN), true)]
    #[case::one_more(&"t".repeat(MAX_TOKEN + 1), false)]
    #[case::dots_among_others("..a", true)]
    #[case::this_folder(".", false)]
    #[case::the_one_above("..", false)]
    #[case::empty("", false)]
    #[case::two_segments("a/b", false)]
    #[case::backslash("a\\b", false)]
    #[case::query("a?b", false)]
    #[case::fragment("a#b", false)]
    #[case::escape("a%2fb", false)]
    #[case::space("a b", false)]
    #[case::end_of_line("a\n", false)]
    #[case::not_ascii("é", false)]
    fn a_token_is_one_segment_of_a_path_as_it_is(#[case] text: &str, #[case] is_token: bool) {
        let token = Token::new(text);
        assert_eq!(token.as_ref().map(Token::expose), is_token.then_some(text));
    }

    #[test]
    fn a_token_does_not_show_itself() {
        assert_eq!(format!("{:?}", Token::new("SECRET")), "Some(Token(…))");
    }
}
