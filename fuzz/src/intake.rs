//! Whatever a stranger sends, through a whole daemon: from the socket to the handler.
//!
//! An input is what is sent. In it, `{sig}`, `{time}`, `{len}`, `{hexlen}` and `{body}` stand for parts of one good
//! command, which was never sent before; at `{pause}` it stops for a moment.

mod scene;

use scene::Scene;

/// What a stranger, or Discord, can be answered while nothing is wrong on this side.
const STATUSES: [&str; 10] = ["200", "400", "401", "404", "405", "413", "414", "415", "417", "431"];
const CONTINUE: &str = "100";

thread_local! {
    static SCENE: Scene = Scene::start();
}

/// The connection is answered from the table, or ends; the handler gets what was signed, as it was signed, once; and
/// the next good request works.
pub fn check(bytes: &[u8]) {
    SCENE.with(|scene| {
        let (was_called, statuses) = scene.send(bytes);
        let finals: Vec<_> = statuses.iter().filter(|status| *status != CONTINUE).collect();
        assert!(finals.iter().all(|status| STATUSES.contains(&&***status)), "{statuses:?}");
        // The handler may be called for somebody who does not read the answer; nobody else can answer 200.
        assert!(was_called || finals.iter().all(|status| *status != "200"), "{statuses:?}");
        let (was_called, statuses) = scene.send(GOOD);
        assert!(was_called && statuses == ["200"], "the next good request: {statuses:?}");
    });
}

const GOOD: &[u8] = b"POST /interactions HTTP/1.1\r\nhost: a\r\nx-signature-ed25519: {sig}\r\n\
    x-signature-timestamp: {time}\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\
    connection: close\r\n\r\n{body}";
