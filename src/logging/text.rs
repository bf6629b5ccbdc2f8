//! The fields of a line of text: the message first, then `name=value`.
//!
//! Much as the library writes them without colours, in fewer steps: a line for each interaction is a good part of what an
//! interaction costs. A message stays on its line, whatever is in it.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use super::lines::escaped;

/// Writes the fields of lines.
pub(super) struct Fields;

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = Line { writer, is_empty: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'writer> {
    writer: Writer<'writer>,
    is_empty: bool,
    result: fmt::Result,
}

impl Line<'_> {
    fn write(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.result.is_ok() {
            self.result = self.try_to_write(field.name(), value);
        }
    }

    fn try_to_write(
        &mut self,
        name: &str,
        value: impl FnOnce(&mut Writer<'_>) -> fmt::Result,
    ) -> fmt::Result {
        if !std::mem::take(&mut self.is_empty) {
            self.writer.write_char(' ')?;
        }
        if name != MESSAGE {
            self.writer.write_str(name)?;
            self.writer.write_char('=')?;
        }
        value(&mut self.writer)
    }
}

const MESSAGE: &str = "message";

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let is_message = field.name() == MESSAGE;
        self.write(field, |writer| {
            if is_message { write!(OneLine(writer), "{value:?}") } else { write!(writer, "{value:?}") }
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            return self.record_debug(field, &format_args!("{value}"));
        }
        self.write(field, |writer| {
            if !is_plain(value) {
                return write!(writer, "{value:?}");
            }
            writer.write_char('"')?;
            writer.write_str(value)?;
            writer.write_char('"')
        });
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, |writer| write!(writer, "{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.write(field, |writer| match tenths(value) {
            Some(tenths) => write!(writer, "{}.{}", tenths / 10, tenths % 10),
            None => write!(writer, "{value:?}"),
        });
    }
}

/// Whether a text in quotes is the text itself.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\')
}

/// A number with at most one digit behind the point, as most times are, in tenths.
fn tenths(value: f64) -> Option<u32> {
    let tenths = (value * 10.0).round();
    if !(0.0..=f64::from(u32::MAX)).contains(&tenths) || value.is_sign_negative() {
        return None;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole, and in range")]
    let whole = tenths as u32;
    #[allow(clippy::float_cmp, reason = "exactly that number")]
    (f64::from(whole) / 10.0 == value).then_some(whole)
}

/// Escapes what would end the line, or do something to a terminal: a message has others' words in it.
struct OneLine<'a, 'writer>(&'a mut Writer<'writer>);

impl Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !text.chars().any(char::is_control) {
            return self.0.write_str(text);
        }
        text.chars().try_for_each(|c| escaped(c).try_for_each(|c| self.0.write_char(c)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracing::info;

    use super::super::tests::captured_text;

    #[test]
    fn each_kind_of_value_is_written_as_such() {
        let text = captured_text(|| {
            info!(
                whole = 7_u64,
                below = -7_i64,
                ms = 12.3,
                none = None::<u64>,
                some = Some("x"),
                name = "größer \"🎵\" \\ \u{1b}[31m",
                shown = %"a b",
                is = true,
                "said {}", "so\u{1b}[31m\nand so"
            );
        });
        let (_, line) = text.split_once(": ").unwrap();
        assert_eq!(
            line,
            "said so\\u{1b}[31m\\nand so whole=7 below=-7 ms=12.3 some=\"x\" name=\"größer \\\"🎵\\\" \\\\ \\u{1b}[31m\" shown=a b is=true\n"
        );
    }

    #[test]
    fn a_message_that_is_a_value_has_no_quotes() {
        let text = captured_text(|| info!(message = "so\nit is", app = "x"));
        assert!(text.ends_with(": so\\nit is app=\"x\"\n"), "{text}");
    }

    proptest! {
        #[test]
        fn numbers_and_texts_are_written_as_the_library_does(
            number in prop_oneof![any::<f64>(), (0..100_000_u32).prop_map(|n| f64::from(n) / 10.0)], text in any::<String>(),
        ) {
            let line = captured_text(|| info!(number, text = text.as_str(), "said"));
            let expected = format!("said number={number:?} text={text:?}\n");
            prop_assert!(line.ends_with(&expected), "{line}, not {expected}");
        }
    }
}
