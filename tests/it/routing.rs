//! Routes: which handler, or which ready answer, an interaction gets.

use std::process::Command;

use rstest::rstest;

use crate::support::{Binary, Handler, TestDaemon, command, json, until};
use shardless::clock::{Clock, SystemClock};
use shardless::rehearsal::{Author, Exchange, Payload, StandIn};

fn author(salt: u64) -> Author {
    Author::new(SystemClock.unix_time(), salt << 12)
}

async fn ask(daemon: &TestDaemon, payload: &Payload) -> Exchange {
    daemon.send(&daemon.discord.sign(payload)).await
}

async fn content(daemon: &TestDaemon, payload: &Payload) -> String {
    let exchange = ask(daemon, payload).await;
    assert_eq!(exchange.status, 200, "{exchange:?}");
    let answer: serde_json::Value = serde_json::from_slice(&exchange.body).unwrap();
    answer["data"]["content"].as_str().unwrap_or_default().to_owned()
}

async fn named(name: &'static str) -> Handler {
    Handler::start(move |_| async move { json(&format!(r#"{{"type":4,"data":{{"content":"{name}"}}}}"#)) })
        .await
}

#[tokio::test]
async fn each_interaction_goes_where_its_first_route_says() {
    let (music, tickets, rest) = (named("music").await, named("tickets").await, named("rest").await);
    let settings = format!("[handlers.music]\nurls = [\"{}\"]", music.url());
    let routes = format!(
        "[[apps.mybot.routes]]\ncommand = \"music stop\"\nreply = {{ type = 4, data = {{ content = \"Stopped.\" }} }}\n\
         [[apps.mybot.routes]]\ncommand = \"music\"\nhandler = \"music\"\n\
         [[apps.mybot.routes]]\ncustom_id = \"ticket:*\"\nguild = \"1\"\nhandler = \"http://127.0.0.1:9/\"\n\
         [[apps.mybot.routes]]\ncustom_id = \"ticket:*\"\nkind = \"component\"\nhandler = \"{}\"\n",
        tickets.url()
    );
    let daemon = TestDaemon::with(&settings, &routes, rest).await;
    for (salt, path, expected) in [
        (1, "music play", "music"),
        (2, "music", "music"),
        (3, "music stop", "Stopped."),
        (4, "musicians", "rest"),
        (5, "roll", "rest"),
    ] {
        assert_eq!(content(&daemon, &author(salt).command(path, &[])).await, expected, "{path}");
    }
    assert_eq!(content(&daemon, &author(6).button("ticket:7")).await, "tickets");
    assert_eq!(content(&daemon, &author(7).button("tick")).await, "rest");
    assert_eq!(content(&daemon, &author(8).modal("ticket:7", &[])).await, "rest");
    assert_eq!((music.calls(), tickets.calls(), daemon.handler.calls()), (2, 1, 4));
    assert_eq!(daemon.interactions("command", "replied"), 1.0);
    assert_eq!(daemon.interactions("command", "answered"), 4.0);
}

/// What is typed for a command that is closed gets no suggestions; a duplicate gets the same answer; PINGs take no route.
#[tokio::test]
async fn a_reply_needs_no_handler() {
    let daemon = TestDaemon::with(
        "",
        "[[apps.mybot.routes]]\nkind = \"modal\"\nreply = { type = 7, data = { content = \"Done.\" } }\n\
         [[apps.mybot.routes]]\ncommand = \"music\"\nreply = { type = 4, data = { content = \"Closed.\", flags = 64 } }\n\
         [[apps.mybot.routes]]\ncommand = \"play\"\nkind = \"autocomplete\"\nreply = { type = 8, data = { choices = [{ name = \"One\", value = \"1\" }] } }",
        Handler::none().await,
    )
    .await;
    let closed = daemon.discord.sign(&author(1).command("music play", &[]));
    for _ in 0..2 {
        let exchange = daemon.send(&closed).await;
        assert_eq!(exchange.content_type, "application/json");
        assert_eq!(exchange.body, r#"{"data":{"content":"Closed.","flags":64},"type":4}"#);
    }
    let typed = ask(&daemon, &author(2).autocomplete("music play", &[], "song", "ne")).await;
    assert_eq!(typed.body, r#"{"data":{"choices":[]},"type":8}"#);
    let typed = ask(&daemon, &author(3).autocomplete("play", &[], "song", "ne")).await;
    assert_eq!(typed.body, r#"{"data":{"choices":[{"name":"One","value":"1"}]},"type":8}"#);
    assert_eq!(ask(&daemon, &author(4).ping()).await.body, r#"{"type":1}"#);
    // Only a modal that comes with a message can update it.
    assert_eq!(ask(&daemon, &author(5).modal("feedback", &[])).await.status, 502);
}

/// A name of a user or message command is no path, whatever spaces it has.
#[tokio::test]
async fn user_and_message_commands_are_taken_by_their_whole_name() {
    let reply = |name: &str| {
        format!(
            "[[apps.mybot.routes]]\ncommand = \"{name}\"\nreply = {{ type = 4, data = {{ content = \"{name}\" }} }}\n"
        )
    };
    let routes = reply("Report") + &reply("Report Message") + &reply("music");
    let daemon = TestDaemon::with("", &routes, named("rest").await).await;
    for (salt, kind, name, expected) in [
        (1, 3, "Report Message", "Report Message"),
        (2, 3, "Report", "Report"),
        (3, 2, "Report User", "rest"),
        (4, 2, "music player", "rest"),
        (5, 1, "music", "music"),
    ] {
        let body = format!(r#"{{"id":"{salt}","type":2,"data":{{"type":{kind},"name":"{name}"}}}}"#);
        let now = daemon.clock.unix_time().as_secs();
        let exchange = daemon.send(&daemon.discord.sign_at(now, body.as_bytes())).await;
        let answer: serde_json::Value = serde_json::from_slice(&exchange.body).unwrap();
        assert_eq!(answer["data"]["content"], expected, "{name}");
    }
}

/// What a reply was not checked for is the handler's.
#[tokio::test]
async fn a_route_takes_no_kind_that_it_was_not_checked_for() {
    let fine = Handler::start(|_| async { json(r#"{"type":13,"data":{}}"#) }).await;
    let route =
        "[[apps.mybot.routes]]\nguild = \"7\"\nreply = { type = 4, data = { content = \"Closed.\" } }";
    let daemon = TestDaemon::with("", route, fine).await;
    for kind in [6, 99] {
        let body = format!(r#"{{"id":"{kind}","type":{kind},"guild_id":"7"}}"#);
        let now = daemon.clock.unix_time().as_secs();
        let exchange = daemon.send(&daemon.discord.sign_at(now, body.as_bytes())).await;
        assert_eq!(exchange.body, r#"{"type":13,"data":{}}"#, "{kind}");
    }
}

#[tokio::test]
async fn a_route_has_its_own_deadline() {
    let slow = Handler::start(|_| async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        json(r#"{"type":4}"#)
    })
    .await;
    let routes = "answer_within = \"200ms\"\non_slow = \"fail\"\n[[apps.mybot.routes]]\ncommand = \"report\"\nanswer_within = \"2500ms\"\nhandler = \"HANDLER\"";
    let daemon = TestDaemon::with("", &routes.replace("HANDLER", &slow.url()), slow).await;
    assert_eq!(ask(&daemon, &author(1).command("report", &[])).await.status, 200);
    assert_eq!(ask(&daemon, &author(2).command("roll", &[])).await.status, 504);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_route_stands_in_the_log_and_changes_with_a_reload() {
    let handler = Handler::fine().await;
    let closed =
        "[[apps.mybot.routes]]\ncommand = \"roll\"\nreply = { type = 4, data = { content = \"Closed.\" } }";
    let daemon = Binary::serve("", closed, &handler.url()).await;
    let discord = StandIn::new(daemon.signer.clone(), std::sync::Arc::new(SystemClock)).unwrap();
    let roll = async |salt| {
        let signed = discord.sign(&author(salt).command("roll", &[]));
        discord.send(&daemon.url(), &signed).await.unwrap().body
    };
    assert!(roll(1).await.starts_with(br#"{"data":{"content":"Closed."#));
    daemon.until_log("interaction answered by its route's reply").await;
    assert!(daemon.log().contains("route=\"command roll\""), "{}", daemon.log());
    daemon.rewrite("", "", &handler.url());
    daemon.signal("HUP");
    daemon.until_log("is in force now").await;
    assert_eq!(roll(2).await, r#"{"type":4}"#);
    until("it was asked", || async { handler.calls() == 1 }).await;
}

/// Routes come and go while Discord asks: every interaction gets an answer, by the one config or by the other.
#[tokio::test(flavor = "multi_thread")]
async fn routes_come_and_go_under_load() {
    let (own, other) = (named("own").await, named("other").await);
    let daemon = Binary::serve("", "", &own.url()).await;
    let discord = StandIn::new(daemon.signer.clone(), std::sync::Arc::new(SystemClock)).unwrap();
    let route = format!("[[apps.mybot.routes]]\ncommand = \"roll\"\nhandler = \"{}\"", other.url());
    let asking = async {
        for salt in 0..400 {
            let signed = discord.sign(&author(salt).command("roll", &[]));
            assert_eq!(discord.send(&daemon.url(), &signed).await.unwrap().status, 200);
        }
    };
    let reloading = async {
        for n in 1..=20 {
            daemon.rewrite("", if n % 2 == 1 { &route } else { "" }, &own.url());
            daemon.signal("HUP");
            let done = || async { daemon.log().matches("is in force now").count() == n };
            until("it is in force", done).await;
        }
    };
    tokio::join!(asking, reloading);
    assert_eq!(own.calls() + other.calls(), 400);
    assert!(own.calls() > 0 && other.calls() > 0, "{} and {}", own.calls(), other.calls());
}

fn check(config: &str, payload: Option<&Payload>) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let (file, json) = (folder.path().join("config.toml"), folder.path().join("payload.json"));
    std::fs::write(&file, config).unwrap();
    let mut check: Command = command();
    check.current_dir(&folder).args(["check", "--config", "config.toml"]);
    if let Some(payload) = payload {
        std::fs::write(json, &payload.body).unwrap();
        check.args(["--explain", "payload.json"]);
    }
    let output = check.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn send_says_the_route_too() {
    let handler = Handler::fine().await;
    let route =
        "[[apps.mybot.routes]]\ncommand = \"roll\"\nreply = { type = 4, data = { content = \"Closed.\" } }";
    let daemon = Binary::serve("", route, &handler.url()).await;
    let mut send = command();
    send.args(["send", &daemon.url(), "--command", "roll", "--key"]).arg(daemon.key_file());
    let output = send.arg("--explain").arg(daemon.config()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(
        said.starts_with("  it is: command \"roll\"\n  mybot: route 1, command roll: it is answered {"),
        "{said}"
    );
}

const APP: &str = "[apps.mybot]\npublic_key = \"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\"\nhandler = \"http://127.0.0.1:8080/\"\n";

#[test]
fn check_explains_which_route_is_taken_and_why() {
    let config = format!(
        "{APP}[[apps.mybot.routes]]\ncustom_id = \"ticket:*\"\nhandler = \"http://127.0.0.1:8081/\"\n\
         [[apps.mybot.routes]]\ncommand = \"music play\"\nguild = \"1\"\nhandler = \"http://127.0.0.1:8082/\"\n\
         [[apps.mybot.routes]]\ncommand = \"music\"\nkind = \"autocomplete\"\nhandler = \"http://127.0.0.1:8083/\"\n\
         [[apps.mybot.routes]]\ncommand = \"music\"\nreply = {{ type = 4, data = {{ content = \"Closed.\" }} }}\n"
    );
    let (code, said) = check(&config, Some(&author(1).command("music play", &[])));
    assert_eq!(code, Some(0), "{said}");
    insta::assert_snapshot!(said);
    let (_, said) = check(&config, Some(&author(1).command("roll", &[])));
    assert!(
        said.ends_with("  mybot: it goes to the application's own handler, http://127.0.0.1:8080/\n"),
        "{said}"
    );
}

/// What is told is what the daemon does.
#[test]
fn check_explains_what_the_daemon_does_by_itself() {
    let config = format!(
        "{}error_message = \"Sorry.\"\n[handlers.bot]\nurls = [\"http://127.0.0.1:8080/\", \"http://127.0.0.1:8081/\"]\n\
         [[apps.mybot.routes]]\ncommand = \"music\"\nreply = {{ type = 4, data = {{ content = \"Closed.\" }} }}\n\
         [[apps.mybot.routes]]\nkind = \"modal\"\nreply = {{ type = 7, data = {{ content = \"Done.\" }} }}\n\
         [[apps.mybot.routes]]\nguild = \"290926798626357999\"\nhandler = \"bot\"\n",
        APP.replace("http://127.0.0.1:8080/", "bot")
    );
    let explained = |payload: &Payload| {
        let (_, said) = check(&config, Some(payload));
        said.split_once("payload.json:\n").unwrap().1.to_owned()
    };
    let typed = author(1).autocomplete("music", &[], "song", "ne");
    let all = [author(1).ping(), typed, author(1).modal("x", &[]), author(1).command("roll", &[])];
    insta::assert_snapshot!(all.iter().map(explained).collect::<String>());
}

#[test]
fn every_mistake_in_routes_is_told_at_its_line() {
    let config = format!(
        "{APP}[[apps.mybot.routes]]\nhandler = \"http://127.0.0.1:8081/\"\n\
         [[apps.mybot.routes]]\ncommand = \"/music\"\nhandler = \"http://127.0.0.1:8081/\"\n\
         [[apps.mybot.routes]]\ncommand = \"music\"\n\
         [[apps.mybot.routes]]\ncommand = \"music\"\ncustom_id = \"a*b\"\nhandler = \"nobody\"\n\
         [[apps.mybot.routes]]\ncustom_id = \"a\"\nkind = \"command\"\nhandler = \"http://127.0.0.1:8081/\"\n\
         [[apps.mybot.routes]]\ncommand = \"a\"\nreply = {{ type = 7, data = {{ content = \"No.\" }} }}\n\
         [[apps.mybot.routes]]\ncommand = \"b\"\nguild = 5\nreply = \"No.\"\n\
         [[apps.mybot.routes]]\ncommand = \"c\"\nreply = {{ type = 5 }}\n\
         [[apps.mybot.routes]]\ncommand = \"d\"\nreply = {{ type = 4, data = {{ content = \"\", flags = 64 }} }}\n\
         [[apps.mybot.routes]]\ncommand = \"e\"\nanswer_within = \"1s\"\non_slow = \"fail\"\nephemeral = true\nreply = {{ type = 4, data = {{ content = \"No.\" }} }}\n"
    );
    insta::assert_snapshot!(check(&config, None).1);
}

fn routes(all: &[&str]) -> String {
    let route = |conditions: &&str| {
        format!("[[apps.mybot.routes]]\n{conditions}\nhandler = \"http://127.0.0.1:8081/\"\n")
    };
    format!("{APP}{}", all.iter().map(route).collect::<String>())
}

#[rstest]
#[case::same(&["command = \"music\"", "command = \"music\""])]
#[case::below(&["command = \"music\"", "command = \"music play\"\nguild = \"1\""])]
#[case::longer(&["custom_id = \"a*\"", "custom_id = \"ab*\""])]
#[case::one_of_them(&["custom_id = \"a*\"", "custom_id = \"abc\"\nkind = \"modal\""])]
#[case::kind(&["kind = \"command\"", "command = \"music\"\nkind = \"command\""])]
#[case::guild(&["guild = \"1\"", "custom_id = \"a\"\nguild = \"1\""])]
#[case::each_kind(&["kind = \"command\"", "kind = \"autocomplete\"", "command = \"music\""])]
#[case::all_custom_ids(&["custom_id = \"*\"", "kind = \"modal\""])]
#[case::all(&["kind = \"command\"", "kind = \"autocomplete\"", "custom_id = \"*\"", "guild = \"1\""])]
#[case::two_prefixes(&["custom_id = \"a*\"\nkind = \"modal\"", "kind = \"component\"", "custom_id = \"ab*\""])]
fn a_route_that_nothing_comes_to_is_a_mistake(#[case] all: &[&str]) {
    let (code, said) = check(&routes(all), None);
    assert!(code == Some(78) && said.contains("no interaction comes to this route"), "{said}");
    let last = 4 + 3 * (all.len() - 1) + all[..all.len() - 1].join("").matches('\n').count();
    assert!(said.contains(&format!("config.toml:{last}:1\n")) && said.contains("1 mistake in"), "{said}");
}

#[rstest]
#[case(&["command = \"music play\"", "command = \"music\""])]
#[case(&["command = \"music\"", "command = \"musicians\""])]
#[case(&["command = \"music\"\nkind = \"command\"", "command = \"music\""])]
#[case(&["custom_id = \"a\"", "custom_id = \"a*\""])]
#[case(&["guild = \"1\"", "guild = \"2\""])]
#[case(&["custom_id = \"a*\"\nguild = \"1\"", "custom_id = \"a*\""])]
#[case(&["kind = \"command\"", "kind = \"component\"", "command = \"music\""])]
#[case(&["kind = \"command\"", "kind = \"autocomplete\"\nguild = \"1\"", "command = \"music\""])]
#[case::user_or_message(&["command = \"Delete\"", "command = \"Delete and ban\""])]
#[case::no_path(&["command = \"delete\"", "command = \"delete all of this\""])]
fn a_route_that_something_is_left_for_is_none(#[case] all: &[&str]) {
    let (code, said) = check(&routes(all), None);
    assert_eq!(code, Some(0), "{said}");
}
