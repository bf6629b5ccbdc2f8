//! Routes: which handler, or which ready answer, an interaction gets.

use std::process::Command;

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

#[test]
fn every_mistake_in_routes_is_told_at_its_line() {
    let config = format!(
        "{APP}[[apps.mybot.routes]]\nhandler = \"http://127.0.0.1:8081/\"\n\
         [[apps.mybot.routes]]\ncommand = \"/music\"\nhandler = \"http://127.0.0.1:8081/\"\n\
         [[apps.mybot.routes]]\ncommand = \"music\"\n\
         [[apps.mybot.routes]]\ncommand = \"music\"\ncustom_id = \"a*b\"\nhandler = \"nobody\"\n\
         [[apps.mybot.routes]]\ncustom_id = \"a\"\nkind = \"command\"\nhandler = \"http://127.0.0.1:8081/\"\n\
         [[apps.mybot.routes]]\ncommand = \"a\"\nreply = {{ type = 7, data = {{ content = \"No.\" }} }}\n\
         [[apps.mybot.routes]]\ncommand = \"b\"\nguild = 5\nreply = \"No.\"\n"
    );
    insta::assert_snapshot!(check(&config, None).1);
}

#[test]
fn a_route_that_nothing_comes_to_is_a_mistake() {
    let route = |conditions: &str| {
        format!("[[apps.mybot.routes]]\n{conditions}\nhandler = \"http://127.0.0.1:8081/\"\n")
    };
    let config = |first: &str, second: &str| format!("{APP}{}{}", route(first), route(second));
    for (first, second) in [
        ("command = \"music\"", "command = \"music\""),
        ("command = \"music\"", "command = \"music play\"\nguild = \"1\""),
        ("custom_id = \"a*\"", "custom_id = \"ab*\""),
        ("custom_id = \"a*\"", "custom_id = \"abc\"\nkind = \"modal\""),
        ("kind = \"command\"", "command = \"music\"\nkind = \"command\""),
        ("guild = \"1\"", "custom_id = \"a\"\nguild = \"1\""),
    ] {
        let (code, said) = check(&config(first, second), None);
        assert!(
            code == Some(78)
                && said.contains("config.toml:")
                && said.contains("an earlier one takes them all"),
            "{said}"
        );
    }
    for (first, second) in [
        ("command = \"music play\"", "command = \"music\""),
        ("command = \"music\"", "command = \"musicians\""),
        ("command = \"music\"\nkind = \"command\"", "command = \"music\""),
        ("custom_id = \"a\"", "custom_id = \"a*\""),
        ("guild = \"1\"", "guild = \"2\""),
        ("custom_id = \"a*\"\nguild = \"1\"", "custom_id = \"a*\""),
    ] {
        let (code, said) = check(&config(first, second), None);
        assert_eq!(code, Some(0), "{said}");
    }
}
