//! What is promised of the parts that take bytes of others, for the corpus and for changes of it. A fuzzer looks further:
//! `fuzz/README.md`.

use std::fs;
use std::panic;
use std::path::Path;

use rstest::rstest;

// The fuzzers' own file, so that both mean the same.
#[allow(missing_docs, unreachable_pub, reason = "it is a crate of its own besides")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

type Target = fn(&[u8]);

#[rstest]
#[case::callback("callback", targets::callback::check, 20_000)]
#[case::config("config", targets::config::check, 1500)]
#[case::envelope("envelope", targets::envelope::check, 30_000)]
#[case::intake("intake", targets::intake::check, 300)]
#[case::late("late", targets::late::check, 15_000)]
#[case::records("records", targets::records::check, 60)]
#[case::signature("signature", targets::signature::check, 6000)]
fn promises_hold_for_the_corpus_and_for_changes_of_it(
    #[case] name: &str,
    #[case] target: Target,
    #[case] rounds: usize,
) {
    let corpus = corpus(name);
    corpus.iter().for_each(|input| hold(name, target, input));
    let mut numbers = Numbers(7);
    for _ in 0..rounds {
        hold(name, target, &numbers.changed(&corpus));
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "{files:?}");
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn hold(name: &str, target: Target, input: &[u8]) {
    let result = panic::catch_unwind(|| target(input));
    assert!(result.is_ok(), "{name}, for this input: \"{}\"", input.escape_ascii());
}

/// Numbers that look random, and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end).unwrap()).unwrap()
    }

    fn one<'c>(&mut self, corpus: &'c [Vec<u8>]) -> &'c [u8] {
        &corpus[self.below(corpus.len())]
    }

    /// A range of that, not longer than some.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        start..length.min(start + self.below(12))
    }

    /// One of the corpus, changed in a few places.
    fn changed(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        const TELLING: &[u8] = b"\0\t\n\r \"'{}[]:;,=-+.0189eEuU\\/\x7f\x80\xc3\xff";
        let mut input = self.one(corpus).to_vec();
        for _ in 0..=self.below(4) {
            let place = self.range(input.len());
            match self.below(6) {
                0 => _ = input.drain(place),
                1 => input.insert(place.start, TELLING[self.below(TELLING.len())]),
                2 => input.insert(place.start, u8::try_from(self.below(256)).unwrap()),
                3 => {
                    let copied = input[place].to_vec();
                    let to = self.below(input.len() + 1);
                    input.splice(to..to, copied);
                }
                4 => {
                    let other = self.one(corpus);
                    let from = self.range(other.len()).start;
                    let to = other.len().min(from + self.below(40));
                    input.splice(place, other[from..to].iter().copied());
                }
                _ => {
                    if let Some(byte) = input.get_mut(place.start) {
                        *byte ^= 1 << self.below(8);
                    }
                }
            }
        }
        input
    }
}
