//! `[admin]`.

use toml::Spanned;

use super::reader::{Notes, Table};
use super::value::{Address, Count};
use super::{Admin, Listen};

/// Reads it; `main` is where the daemon itself listens.
pub(super) fn read(notes: &Notes, mut table: Table<'_, '_>, is_there: bool, main: &Listen) -> Option<Admin> {
    let span = table.span.clone();
    let address = table.or("address", Address::Localhost);
    let port = table.optional("port");
    let span = port.as_ref().map_or(span, Spanned::span);
    let port = port.map_or(3001, Spanned::into_inner);
    let connections = table.or("connections", Count(256)).0;
    table.finish(|_| None);
    if !is_there {
        return None;
    }
    let listen = Listen { address, port, unix_socket: None };
    if meet(&listen, main) {
        let what = format!("`admin.port` is {port}, as `port` is");
        notes.wrong(span, what, "the admin listener needs a port of its own, such as 3001");
    }
    Some(Admin { listen, connections })
}

/// Whether both would have the same port of the same address. A port that the system chooses is nobody else's.
fn meet(one: &Listen, other: &Listen) -> bool {
    let (ones, others) = (one.addresses(), other.addresses());
    let mut pairs = ones.iter().flat_map(|one| others.iter().map(move |other| (one, other)));
    one.port != 0
        && one.port == other.port
        && pairs.any(|(one, other)| {
            let is_for_all = one.is_unspecified() || other.is_unspecified();
            one == other || is_for_all && one.is_ipv4() == other.is_ipv4()
        })
}
