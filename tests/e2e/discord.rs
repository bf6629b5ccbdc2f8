//! Discord's side: interactions, and what each is to be answered with.

use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use shardless::clock::{Clock, SystemClock};
use shardless::rehearsal::payload::CommandOption;
use shardless::rehearsal::stand_in::{SendError, Signed};
use shardless::rehearsal::{Author, Exchange, Expectation, Payload, Signer, StandIn, Verdict};

/// Plays Discord, with a key of its own.
pub(crate) struct Discord {
    stand_in: StandIn,
    signer: Signer,
    author: Arc<Mutex<Author>>,
}

/// An interaction, and the answer that is right for it and for no other.
pub(crate) struct Interaction {
    /// What is sent.
    pub(crate) payload: Payload,
    answer: Value,
}

impl Discord {
    pub(crate) fn new() -> Self {
        let signer = Signer::generate().unwrap();
        let stand_in = StandIn::new(signer.clone(), Arc::new(SystemClock)).unwrap();
        let author = Arc::new(Mutex::new(Author::new(SystemClock.unix_time(), 0)));
        Self { stand_in, signer, author }
    }

    /// From now on, a certificate that is signed by one of these is trusted too.
    pub(crate) fn trust(&mut self, pem: &str) {
        let certificates = rustls_pemfile::certs(&mut pem.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
        assert!(!certificates.is_empty(), "no certificate in {pem:?}");
        self.stand_in = StandIn::trusting(certificates, self.signer.clone(), Arc::new(SystemClock)).unwrap();
    }

    /// The same one, without the connections that are open already.
    pub(crate) fn anew(&self) -> Self {
        let stand_in = StandIn::new(self.signer.clone(), Arc::new(SystemClock)).unwrap();
        Self { stand_in, signer: self.signer.clone(), author: Arc::clone(&self.author) }
    }

    pub(crate) fn public_key(&self) -> String {
        self.signer.public_key().to_string()
    }

    pub(crate) fn ping(&self) -> Payload {
        self.author().ping()
    }

    /// A command with that text in its option.
    pub(crate) fn command(&self, text: &str) -> Interaction {
        self.named_command("play", text)
    }

    /// The same, for a command of that name.
    pub(crate) fn named_command(&self, name: &str, text: &str) -> Interaction {
        let option = CommandOption::parse(&format!("query:string={text}")).unwrap();
        let payload = self.author().command(name, &[option]);
        let answer = message(4, &id(&payload), text);
        Interaction { payload, answer }
    }

    /// A button with that `custom_id`.
    pub(crate) fn button(&self, custom_id: &str) -> Interaction {
        let payload = self.author().button(custom_id);
        let answer = message(7, &id(&payload), custom_id);
        Interaction { payload, answer }
    }

    /// A command, a suggestion, a button and a modal by turns, each with a text that no other has.
    pub(crate) fn nth(&self, n: usize) -> Interaction {
        let text = format!("№{n} 🎵 “größer” 👩‍🚀\\\"\u{2028}漢字");
        if n.is_multiple_of(4) {
            return self.command(&text);
        }
        let (payload, answer): (_, fn(&str, &str) -> Value) = match n % 4 {
            1 => (
                self.author().autocomplete("play", &[], "query", &text),
                |id, text| json!({ "type": 8, "data": { "choices": [{ "name": text, "value": id }] } }),
            ),
            2 => return self.button(&text),
            _ => {
                let field = ("opinion".to_owned(), text.clone());
                (self.author().modal("feedback", &[field]), |id, text| message(4, id, text))
            }
        };
        let answer = answer(&id(&payload), &text);
        Interaction { payload, answer }
    }

    fn author(&self) -> MutexGuard<'_, Author> {
        self.author.lock().unwrap()
    }

    pub(crate) fn sign(&self, payload: &Payload) -> Signed {
        self.stand_in.sign(payload)
    }

    pub(crate) async fn send(&self, url: &str, signed: &Signed) -> Exchange {
        self.try_send(url, signed).await.unwrap()
    }

    pub(crate) async fn try_send(&self, url: &str, signed: &Signed) -> Result<Exchange, SendError> {
        self.stand_in.send(url, signed).await
    }

    /// Sends an interaction; an error says what was wrong with the answer.
    pub(crate) async fn try_ask(&self, url: &str, interaction: &Interaction) -> Result<(), String> {
        let signed = self.sign(&interaction.payload);
        let title = &interaction.payload.title;
        let exchange = self.stand_in.send(url, &signed).await.map_err(|error| format!("{title}: {error}"))?;
        interaction.check(&exchange)
    }
}

impl Interaction {
    /// Its id.
    pub(crate) fn id(&self) -> String {
        id(&self.payload)
    }

    /// Whether Discord would take the answer, and it is the one for this interaction.
    pub(crate) fn check(&self, exchange: &Exchange) -> Result<(), String> {
        let title = &self.payload.title;
        if let Verdict::Refused(reasons) = Verdict::of(&self.payload, Expectation::Callback, exchange) {
            return Err(format!("{title}: {}", reasons.join("; ")));
        }
        let mut answer: Value = serde_json::from_slice(&exchange.body).unwrap();
        // hikari says with each message whom it may mention: nobody.
        if let Some(data) = answer["data"].as_object_mut() {
            data.remove("allowed_mentions");
        }
        if answer == self.answer {
            Ok(())
        } else {
            Err(format!("{title}: the answer is another's: {answer}"))
        }
    }
}

/// The answer of a bot that tells what it was asked.
pub(crate) fn message(callback: u64, id: &str, text: &str) -> Value {
    json!({ "type": callback, "data": { "content": format!("{id}: {text}") } })
}

fn id(payload: &Payload) -> String {
    let body: Value = serde_json::from_slice(&payload.body).unwrap();
    body["id"].as_str().unwrap().to_owned()
}
