//! `shardless outbox`: what operators see of deferred interactions, and what they must not.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rstest::rstest;
use shardless::budget::Budget;
use shardless::clock::{Clock, SystemClock};
use shardless::discord::Token;
use shardless::discord::deferral::Deferral;
use shardless::discord::late::{Message, Way};
use shardless::metrics::Metrics;
use shardless::outbox::{Deferred, Health, Outbox, Ticket};
use tokio::time::Instant;

use crate::support::{command, until};

/// An outbox in that folder, open as a daemon has it.
async fn open(folder: &Path) -> Outbox {
    let (outbox, _) = Outbox::new(Arc::new(SystemClock), Arc::new(Metrics::default()));
    outbox.keep_in(folder.to_owned());
    until("the outbox is open", async || outbox.health() == Health::Durable).await;
    outbox
}

async fn begin(outbox: &Outbox, id: u64, deferral: Deferral) -> Ticket {
    let now = Instant::now();
    let deferred = Deferred {
        app: "mybot".into(),
        id,
        application: 4,
        token: Token::new(&format!("secret-{id}-secret")).unwrap(),
        deferral,
        route: (id == 2).then(|| "command play".into()),
        arrived: SystemClock.unix_time().saturating_sub(Duration::from_secs(65)),
        give_up: now + Duration::from_secs(100),
        expires: now + Duration::from_secs(600),
        asleep: Duration::ZERO,
        fallback: "Too late.".into(),
    };
    let mut ticket = outbox.begin(deferred, Budget::new(1).try_one().unwrap());
    ticket.defer();
    assert!(ticket.committed().await);
    ticket
}

/// One in each state; the one that is returned waits.
async fn fill(outbox: &Outbox) -> Ticket {
    begin(outbox, 5, Deferral::Update).await.withdraw();
    let body = "secret-body".repeat(100).into();
    let message = Message { way: Way::FollowUp, content_type: "application/json".to_owned(), body };
    begin(outbox, 2, Deferral::Update).await.answered(message);
    begin(outbox, 3, Deferral::Message { private: false }).await.failed();
    begin(outbox, 4, Deferral::Message { private: false }).await.edits_itself();
    // Once it is on disk, so is what was said before.
    begin(outbox, 6, Deferral::Message { private: true }).await
}

fn outbox(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = command();
    let output = command.arg("outbox").args(arguments).arg("--state-dir").arg(folder).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// All that can be changed about the files of a folder.
fn state(folder: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    let files = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let of = |path: &Path| (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), of(&file.path()))).collect()
}

const LIST: &str = "\
INTERACTION  APP    STATE         DEFERRED AS      AGE    TOKEN LEFT  ANSWER
2            mybot  answered      update           1m 5s  9m 59s      1.1 KiB
3            mybot  failed        message          1m 5s  9m 59s      -
4            mybot  edits itself  message          1m 5s  9m 59s      -
6            mybot  waiting       private message  1m 5s  9m 59s      -
";

/// The list, whatever second it is.
fn assert_lists(folder: &Path) {
    let (code, stdout, stderr) = outbox(folder, &["list"]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (expected, found) = (words(LIST), words(&stdout));
    let is_time = |word: &str| word.ends_with(['s', 'm']) && word.starts_with(|c: char| c.is_ascii_digit());
    let timeless = |words: Vec<String>| words.into_iter().filter(|word| !is_time(word)).collect::<Vec<_>>();
    assert_eq!(timeless(found), timeless(expected), "{stdout}");
    assert!(!stdout.contains("secret"), "{stdout}");
}

#[rstest]
#[case::while_the_daemon_runs(false, false)]
#[case::while_it_runs_and_rests(false, true)]
#[case::after_a_crash(true, false)]
#[tokio::test(flavor = "multi_thread")]
async fn the_list_shows_all_and_touches_nothing(#[case] crash: bool, #[case] rest: bool) {
    let (folder, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let live = open(folder.path()).await;
    let _waits = fill(&live).await;
    if rest {
        let log = folder.path().join("outbox.sqlite3-wal");
        // Nothing to write for longer than it takes to cut the log.
        let is_quiet = async || {
            let before = state(folder.path());
            tokio::time::sleep(Duration::from_millis(1500)).await;
            state(folder.path()) == before
        };
        until("the log is cut", async || is_quiet().await && fs::metadata(&log).unwrap().len() == 0).await;
    }
    let folder = if crash {
        for (name, (bytes, _)) in state(folder.path()) {
            fs::write(image.path().join(name), bytes).unwrap();
        }
        image.path()
    } else {
        folder.path()
    };
    let before = if crash || rest { Some(state(folder)) } else { None };
    assert_lists(folder);
    if let Some(before) = before {
        assert!(state(folder) == before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_shown_with_everything_but_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let live = open(folder.path()).await;
    let waits = fill(&live).await;
    live.close().await;
    drop(waits);
    let before = state(folder.path());
    assert_eq!(before.len(), 1);
    assert_lists(folder.path());
    let (code, stdout, stderr) = outbox(folder.path(), &["show", "2"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let fields: BTreeMap<_, _> =
        stdout.lines().map(|line| line.split_at(14)).map(|(name, value)| (name.trim(), value)).collect();
    for (name, value) in [
        ("interaction", "2"),
        ("app", "mybot"),
        ("application", "4"),
        ("route", "command play"),
        ("state", "answered"),
        ("deferred as", "update"),
        ("fallback", "\"Too late.\""),
        ("answer", "follow-up"),
        ("content type", "application/json"),
        ("size", "1100 bytes"),
    ] {
        assert_eq!(fields[name], value, "{stdout}");
    }
    assert!(
        fields["arrived"].contains("(1m 5s ago)") || fields["arrived"].contains("(1m 6s ago)"),
        "{stdout}"
    );
    assert!(fields["expires"].contains("(in 9m 5"), "{stdout}");
    assert!(!stdout.contains("secret"), "{stdout}");

    let (code, stdout, stderr) = outbox(folder.path(), &["show", "77"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("has no interaction 77"), "{stderr}");
    assert!(state(folder.path()) == before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_shown_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let live = open(folder.path()).await;
    let waits = begin(&live, 1, Deferral::Update).await;
    live.close().await;
    drop(waits);
    let path = folder.path().join("outbox.sqlite3");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(9).position(|part| part == b"Too late.").unwrap();
    bytes[at] = b'X';
    fs::write(&path, bytes).unwrap();
    for found in ["just now", "0s ago"] {
        let (code, stdout, _) = outbox(folder.path(), &["list"]);
        assert!(code == 0 && stdout.contains("1            -    damaged"), "{stdout}");
        let (code, stdout, _) = outbox(folder.path(), &["show", "1"]);
        assert!(code == 0 && stdout.contains("damaged: it cannot be read"), "{stdout}");
        assert!(stdout.contains(found) || stdout.contains("s ago"), "{stdout}");
        open(folder.path()).await.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_that_is_empty_or_absent_or_no_outbox_is_called_so() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, _) = outbox(folder.path(), &["list"]);
    assert!(code == 0 && stdout.contains("There is no outbox in"), "{stdout}");
    assert!(state(folder.path()).is_empty());
    assert_eq!(outbox(folder.path(), &["show", "1"]).0, 1);

    open(folder.path()).await.close().await;
    let (code, stdout, _) = outbox(folder.path(), &["list"]);
    assert!(code == 0 && stdout.contains("is empty"), "{stdout}");

    fs::write(folder.path().join("outbox.sqlite3"), "no database ".repeat(100)).unwrap();
    let (code, stdout, stderr) = outbox(folder.path(), &["list"]);
    assert!(code == 1 && stdout.is_empty() && stderr.contains("not a database"), "{stderr}");
}

/// Each folder is the one that is meant where those before it are not given.
#[tokio::test(flavor = "multi_thread")]
async fn the_folder_is_the_daemons() {
    let folders = tempfile::tempdir().unwrap();
    let mut tickets = Vec::new();
    for (id, name) in [(1, "argument"), (2, "config"), (3, "environment"), (4, "home/.local/state/shardless")]
    {
        let folder = folders.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        let live = open(&folder).await;
        tickets.push(begin(&live, id, Deferral::Update).await);
        live.close().await;
    }
    let config = folders.path().join("config.toml");
    let app = "[apps.mybot]\npublic_key = \"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\"\nhandler = \"http://127.0.0.1:9/\"\n";
    let write = |state_dir: &str| fs::write(&config, format!("{state_dir}\n{app}")).unwrap();
    let ids = |with_argument: bool, with_environment: bool| {
        let mut command = command();
        command.env_remove("STATE_DIRECTORY").env_remove("XDG_STATE_HOME");
        command.env("HOME", folders.path().join("home")).args(["outbox", "list", "--config"]).arg(&config);
        if with_argument {
            command.arg("--state-dir").arg(folders.path().join("argument"));
        }
        if with_environment {
            command.env("STATE_DIRECTORY", folders.path().join("environment"));
        }
        let stdout = String::from_utf8(command.output().unwrap().stdout).unwrap();
        stdout.lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    write(&format!("state_dir = {:?}", folders.path().join("config")));
    assert_eq!((ids(true, true), ids(false, true)), (vec!["1".to_owned()], vec!["2".to_owned()]));
    write("");
    assert_eq!((ids(false, true), ids(false, false)), (vec!["3".to_owned()], vec!["4".to_owned()]));
    fs::write(&config, "prot = 1").unwrap();
    assert_eq!(ids(false, true), Vec::<String>::new());
}
