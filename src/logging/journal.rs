//! Lines for systemd's journal, which keeps their fields: `journalctl -u shardless SHARDLESS_APP=mybot`.
//!
//! Source: systemd.io/JOURNAL_NATIVE_PROTOCOL, "Journal Native Protocol".

use std::fmt::{Debug, Write as _};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer};

const SOCKET: &str = "/run/systemd/journal/socket";

/// Makes one entry of each event, and writes it in one piece.
pub(super) struct Journal<W>(pub(super) W);

impl<S, W> Layer<S> for Journal<W>
where
    S: Subscriber,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut entry = Entry::default();
        event.record(&mut entry);
        // There is nobody to tell that the log is lost.
        _ = self.0.make_writer().write_all(&entry.finish(event.metadata()));
    }
}

/// One entry. The message ends with the fields, so that a plain `journalctl` shows them too.
#[derive(Default)]
struct Entry {
    message: String,
    fields_as_text: String,
    fields: Vec<u8>,
}

impl Entry {
    fn finish(mut self, metadata: &Metadata<'_>) -> Vec<u8> {
        let priority = match *metadata.level() {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            _ => "7",
        };
        self.message.push_str(&self.fields_as_text);
        add(&mut self.fields, "MESSAGE", self.message.as_bytes());
        add(&mut self.fields, "PRIORITY", priority.as_bytes());
        add(&mut self.fields, "SYSLOG_IDENTIFIER", env!("CARGO_PKG_NAME").as_bytes());
        add(&mut self.fields, "SHARDLESS_TARGET", metadata.target().as_bytes());
        self.fields
    }

    fn field(&mut self, field: &Field, value: &str, as_text: &dyn Debug) {
        if field.name() == "message" {
            self.message.push_str(value);
            return;
        }
        // Writing to a string does not fail.
        _ = write!(self.fields_as_text, " {}={as_text:?}", field.name());
        add(&mut self.fields, &format!("SHARDLESS_{}", field.name().to_ascii_uppercase()), value.as_bytes());
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, value, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.field(field, &format!("{value:?}"), value);
    }
}

/// Adds a field in the form that holds any value, line ends included.
fn add(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

/// Takes one entry a write.
pub(super) struct JournalSocket(UnixDatagram);

impl JournalSocket {
    /// # Errors
    ///
    /// If there is no journal here.
    pub(super) fn open() -> io::Result<Self> {
        UnixDatagram::unbound()?.connect(SOCKET)?;
        // Not connected itself, so that it outlives a restart of the journal.
        Ok(Self(UnixDatagram::unbound()?))
    }
}

impl Write for JournalSocket {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        self.0.send_to(entry, SOCKET)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
