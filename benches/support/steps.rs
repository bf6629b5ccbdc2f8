//! The parts of the request path that are this project's own: verification, envelope, callback, routes.

use std::hint::black_box;
use std::time::Duration;

use ed25519_dalek::{Signature, VerifyingKey};
use shardless::config::{Conditions, Selector};
use shardless::discord::callback::{self, Question};
use shardless::discord::interaction::{Interaction, Kind};
use shardless::discord::signature::{
    Method, SIGNATURE_HEADER, SignatureHeaders, UnverifiedBody, Verifier, from_hex,
};
use shardless::rehearsal::payload::CommandOption;
use shardless::rehearsal::{Author, Signer};
use shardless::routes::{Routes, Subject};

/// Commands that are verified in turn: how much one takes depends on its signature.
const COMMANDS: usize = 16;

/// What measures each of them.
pub(crate) trait Meter {
    /// A step that can be taken again and again.
    fn step<O>(&mut self, name: &str, step: impl FnMut() -> O);

    /// A step that uses up what is prepared for it, which is not part of it.
    fn prepared_step<I, O>(&mut self, name: &str, prepare: impl FnMut() -> I, step: impl FnMut(I) -> O);
}

/// All of them.
pub(crate) fn measure(meter: &mut impl Meter) {
    let unix_time = Duration::from_secs(1_700_000_000);
    let option = [CommandOption::parse("query=never gonna give you up").unwrap()];
    let mut author = Author::new(unix_time, 0);
    let bodies: Vec<_> = (0..COMMANDS).map(|_| author.command("music play", &option).body).collect();
    // The same one each time, so that two counts are of the same work.
    let signer = Signer::from_seed(&[7; 32]).unwrap();
    let signed: Vec<_> = bodies.iter().map(|body| (signer.sign(unix_time.as_secs(), body), body)).collect();
    let plain = VerifyingKey::from_bytes(signer.public_key().as_bytes()).unwrap();
    let mut turns = signed.iter().cycle();
    let message = || {
        let (headers, body) = turns.next().unwrap();
        let signature = from_hex(headers[SIGNATURE_HEADER].as_bytes()).unwrap();
        ([b"1700000000", body.as_slice()].concat(), Signature::from_bytes(&signature))
    };
    meter.prepared_step("verify a command by verify_strict", message, |(message, signature)| {
        plain.verify_strict(&message, &signature).unwrap();
    });
    for method in [Method::Windows, Method::Combs] {
        let verifier = Verifier::by(method, signer.public_key().clone());
        let mut turns = signed.iter().cycle();
        let receive = || {
            let (headers, body) = turns.next().unwrap();
            let mut received = UnverifiedBody::new(SignatureHeaders::parse(headers).unwrap(), body.len());
            received.extend(body);
            received
        };
        let verify = |received: UnverifiedBody| received.verify(&verifier).unwrap();
        meter.prepared_step(&format!("verify a command by {method:?}").to_lowercase(), receive, verify);
    }
    meter.step("parse its envelope", || Interaction::parse(black_box(&bodies[0])).unwrap().id);
    let answer = br#"{"type":4,"data":{"content":"ok"}}"#;
    let question = Question { kind: Kind::Command, has_message: false };
    meter.step("check its answer", || callback::check(black_box(answer), question).unwrap().callback);
    lookups(meter);
}

/// As many routes for commands, for custom_ids and for what they begin with; what is looked for is the last of them.
fn lookups(meter: &mut impl Meter) {
    for count in [10, 1000] {
        let selectors = (0..count / 2).flat_map(|n| {
            [Selector::Command(format!("music play{n}")), Selector::CustomIdPrefix(format!("ticket:{n}:"))]
        });
        let conditions: Vec<_> =
            selectors.map(|selector| Conditions { selector, kind: None, guild: Some(1) }).collect();
        let routes = Routes::new(&conditions);
        let (command, custom_id) =
            (format!("music play{}", count / 2 - 1), format!("ticket:{}:7", count / 2 - 1));
        for (kind, name) in [(Kind::Command, &command), (Kind::Component, &custom_id)] {
            let subject = Subject { kind, name: Some(name), name_is_whole: false, guild: Some(1) };
            let name = format!("look up a {} among {count} routes", kind.as_str());
            meter.step(&name, || routes.find(black_box(subject)).unwrap());
        }
    }
}
