//! Writing lines in batches: to wake a thread for each line would cost more than to make it.

use std::io::{self, BufWriter, Write};
use std::time::Duration;

/// How long the writing thread rests when it has written all that there was. Meanwhile lines gather; nobody notices that
/// they are so much later.
const REST: Duration = Duration::from_millis(20);

/// What goes to a file: many lines in one piece.
pub(super) fn buffered(writer: impl Write) -> Batches<impl Write> {
    Batches(BufWriter::with_capacity(64 * 1024, writer))
}

/// For a thread that writes until nothing is left, and then flushes: it does both less often.
pub(super) struct Batches<W>(pub(super) W);

impl<W: Write> Write for Batches<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    #[allow(clippy::disallowed_methods, reason = "the thread is there for nothing else")]
    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.0.flush();
        std::thread::sleep(REST);
        flushed
    }
}
