//! What the parts of the request path cost that are this project's own: verification, envelope, callback.
//!
//! `cargo bench --bench parts`.

#![allow(missing_docs, clippy::unwrap_used, reason = "criterion's macros; the inputs are sound")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ed25519_dalek::{Signature, VerifyingKey};
use shardless::config::{Conditions, Selector};
use shardless::discord::callback::{self, Question};
use shardless::discord::interaction::{Interaction, Kind};
use shardless::discord::signature::{
    Method, SIGNATURE_HEADER, SignatureHeaders, UnverifiedBody, Verifier, backend,
};
use shardless::rehearsal::payload::CommandOption;
use shardless::rehearsal::{Author, Signer};
use shardless::routes::{Routes, Subject};

fn parts(criterion: &mut Criterion) {
    let unix_time = Duration::from_secs(1_700_000_000);
    let option = CommandOption::parse("query=never gonna give you up").unwrap();
    let body = Author::new(unix_time, 0).command("music play", &[option]).body;
    let signer = Signer::generate().unwrap();
    let headers = signer.sign(unix_time.as_secs(), &body);

    let plain = VerifyingKey::from_bytes(signer.public_key().as_bytes()).unwrap();
    let mut signature = [0; Signature::BYTE_SIZE];
    hex::decode_to_slice(headers.get(SIGNATURE_HEADER).unwrap(), &mut signature).unwrap();
    let (signature, message) = (Signature::from_bytes(&signature), [b"1700000000", &*body].concat());
    criterion.bench_function(&format!("verify a command by verify_strict, {}", backend()), |bencher| {
        bencher.iter(|| plain.verify_strict(black_box(&message), &signature).unwrap());
    });
    for method in [Method::Windows, Method::Combs] {
        let verifier = Verifier::by(method, signer.public_key().clone());
        criterion.bench_function(&format!("verify a command by {method:?}"), |bencher| {
            let received = || {
                let mut received =
                    UnverifiedBody::new(SignatureHeaders::parse(&headers).unwrap(), body.len());
                received.extend(&body);
                received
            };
            let verify = |received: UnverifiedBody| received.verify(&verifier).unwrap();
            bencher.iter_batched(received, verify, BatchSize::SmallInput);
        });
    }
    criterion.bench_function("parse its envelope", |bencher| {
        bencher.iter(|| Interaction::parse(black_box(&body)).unwrap().id);
    });
    criterion.bench_function("check its answer", |bencher| {
        let answer = br#"{"type":4,"data":{"content":"ok"}}"#;
        let question = Question { kind: Kind::Command, has_message: false };
        bencher.iter(|| callback::check(black_box(answer), question).unwrap().callback);
    });
}

/// As many routes for commands, for custom_ids and for what they begin with; what is looked for is the last of them.
fn routes(criterion: &mut Criterion) {
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
            criterion.bench_function(
                &format!("look up a {} among {count} routes", kind.as_str()),
                |bencher| {
                    bencher.iter(|| routes.find(black_box(subject)).unwrap());
                },
            );
        }
    }
}

criterion_group!(benches, parts, routes);
criterion_main!(benches);
