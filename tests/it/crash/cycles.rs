//! The bar: killed at random moments with many deferrals in flight, again and again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shardless::rehearsal::rest::{Api, Message, Script, View};
use shardless::rehearsal::{Author, Payload};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::late::{original, token};
use crate::support::restarts::{Scene, Sender, TOO_LONG, follow_ups, is_deferral};
use crate::support::{Handler, Response, is_full, json, until};

/// Deferrals that are in flight when the daemon is killed.
const IN_FLIGHT: usize = 50;
/// Interactions that are sent at once in each cycle, and then one after another until the daemon is killed.
const AT_ONCE: usize = 110;
const PAUSE: Duration = Duration::from_millis(25);

/// What there is to ask for: the handler is fast, slow or dead, and its answer is for all or for one, in the first message
/// or beside it.
const COMMANDS: [&str; 7] = ["fast", "slow", "slow", "secret", "itself", "fails", "never"];
const BUTTONS: [&str; 4] = ["update", "beside", "secret", "never"];

/// Numbers that are the same in each run with the same seed.
#[derive(Clone, Copy)]
struct Lots(u64);

impl Lots {
    fn draw(self, of: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.0, of).hash(&mut hasher);
        hasher.finish()
    }
}

/// What became of those who were told to wait.
#[derive(Debug, Default)]
struct Account {
    deferred: usize,
    answered: usize,
    fell_back: usize,
    /// Follow-ups beyond one, of which Discord's answer was lost with the daemon.
    duplicates: usize,
    /// Nothing came.
    lost: Vec<String>,
    /// What was for one was seen by all.
    public: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_it_loses_no_deferral() {
    let cycles = if is_full() { 100 } else { 6 };
    let seed = std::env::var("SHARDLESS_SEED").ok().and_then(|seed| seed.parse().ok());
    let lots = Lots(seed.unwrap_or_else(|| getrandom::u64().unwrap()));
    println!("SHARDLESS_SEED={}", lots.0);
    let handler = Handler::start(move |got| answer(got.body, lots)).await;
    let app = "give_up_after = \"4s\"\n";
    let script = Script::default().without_bodies();
    let mut scene = Scene::following(script, "", app, handler).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (mut least, start) = (usize::MAX, Instant::now());
    for cycle in 0..cycles {
        scene.until_open().await;
        least = least.min(one_cycle(&mut scene, &seen, lots, cycle).await);
        scene.binary.restart();
    }
    println!("{cycles} cycles in {:.1?}, at least {least} deferrals in flight at each kill", start.elapsed());
    scene.until_entries("", 0).await;
    let mut account = Account::default();
    for payload in &*seen.lock().unwrap() {
        account.take(payload, &scene.view(payload));
    }
    println!("{account:#?}");
    assert!(account.lost.is_empty() && account.public.is_empty(), "see above");
    assert_eq!(scene.api.loading(), 0);
    assert!(least >= IN_FLIGHT, "{least}");
    assert_eq!(account.answered + account.fell_back, account.deferred);
}

/// From a start to a kill. How many deferrals were in flight then.
async fn one_cycle(scene: &mut Scene, seen: &Arc<Mutex<Vec<Payload>>>, lots: Lots, cycle: usize) -> usize {
    let before = seen.lock().unwrap().len();
    let mut sending = JoinSet::new();
    let mut send = |nth: usize| {
        let payload = scene.write(|author| interaction(author, lots.draw((cycle, nth))));
        sending.spawn(tell(scene.sender(), Arc::clone(&scene.api), payload, Arc::clone(seen)));
    };
    (0..AT_ONCE).for_each(&mut send);
    until("deferrals", || async { seen.lock().unwrap().len() >= before + IN_FLIGHT }).await;
    let end = Instant::now() + Duration::from_millis(lots.draw(cycle) % 2500);
    for nth in AT_ONCE.. {
        let pause = end.saturating_duration_since(Instant::now()).min(PAUSE);
        if pause.is_zero() {
            break;
        }
        tokio::time::sleep(pause).await;
        send(nth);
    }
    let in_flight = {
        let seen = seen.lock().unwrap();
        seen[before..].iter().filter(|payload| texts(&scene.view(payload)).is_empty()).count()
    };
    scene.binary.kill();
    sending.join_all().await;
    in_flight
}

fn interaction(author: &mut Author, lot: u64) -> Payload {
    let pick = |of: &[&'static str]| of[usize::try_from(lot / 3).unwrap() % of.len()];
    if lot.is_multiple_of(3) { author.button(pick(&BUTTONS)) } else { author.command(pick(&COMMANDS), &[]) }
}

/// Sends an interaction, and keeps it if its user is told to wait.
async fn tell(sender: Sender, api: Arc<Api>, payload: Payload, seen: Arc<Mutex<Vec<Payload>>>) {
    match sender.send(&api, &payload).await {
        Some(exchange) if is_deferral(&exchange) => seen.lock().unwrap().push(payload),
        Some(_) => {}
        // Discord takes no answer after 3 s; here it does not take so long.
        None => api.expire(&token(&payload)),
    }
}

/// What it asks for, and its id.
fn read(body: &[u8]) -> (String, String) {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap();
    let name = json["data"]["name"].as_str().or(json["data"]["custom_id"].as_str()).unwrap();
    (name.to_owned(), json["id"].as_str().unwrap().to_owned())
}

async fn answer(body: bytes::Bytes, lots: Lots) -> Response {
    let (name, id) = read(&body);
    let lot = lots.draw(&id);
    let time = if name == "fast" { lot % 600 } else { 300 + lot % 2700 };
    tokio::time::sleep(Duration::from_millis(time)).await;
    let callback = |kind, flags| {
        json(&format!(r#"{{"type":{kind},"data":{{"content":"answer {id}","flags":{flags}}}}}"#))
    };
    match &*name {
        "secret" => callback(4, 64),
        "update" => callback(7, 0),
        "itself" => http::Response::builder().status(202).body(http_body_util::Full::default()).unwrap(),
        "fails" => http::Response::builder().status(500).body(http_body_util::Full::default()).unwrap(),
        "never" => std::future::pending().await,
        _ => callback(4, 0),
    }
}

impl Account {
    fn take(&mut self, payload: &Payload, view: &View) {
        let (name, id) = read(&payload.body);
        let (answer, texts) = (format!("answer {id}"), texts(view));
        self.deferred += 1;
        if texts.contains(&&*answer) {
            self.answered += 1;
        } else if texts.contains(&TOO_LONG) {
            self.fell_back += 1;
        } else {
            self.lost.push(format!("{name} {id}: {view:?}"));
        }
        self.duplicates += texts.len().saturating_sub(1);
        let messages = view.original.iter().chain(&view.follow_ups);
        let is_public = |message: &Message| message.content == answer && !message.is_private();
        if name == "secret" && messages.into_iter().any(is_public) {
            self.public.push(format!("{name} {id}: {view:?}"));
        }
    }
}

/// What the user can read, but for what was there before.
fn texts(view: &View) -> Vec<&str> {
    let original = original(view);
    let is_new = original.deleted.is_none() && !original.is_loading() && original.content != "Pick one:";
    is_new.then_some(&*original.content).into_iter().chain(follow_ups(view)).collect()
}
