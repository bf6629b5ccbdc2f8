//! What is promised of the parts that take bytes of others, whatever these bytes are.
//!
//! Each target is a plain function that panics where a promise is broken. The programs in `targets/` give it what a
//! fuzzer comes up with; `tests/it/fuzz.rs` has this file too, and gives it the corpus and changes of it, with the
//! stable compiler, in every run of the tests.

pub mod callback;
pub mod config;
pub mod envelope;
mod form;
pub mod intake;
mod json;
pub mod late;
pub mod records;
pub mod signature;

/// What holds of every text that tells people what is wrong: it is short, and one line.
fn assert_is_a_sentence(text: &str) {
    assert!(!text.is_empty() && text.chars().count() < 1000, "{text}");
    assert!(!text.contains(char::is_control), "{text:?}");
}
