use std::path::Path;

use rstest::rstest;

use super::*;

const MINIMAL: &str = include_str!("../../config/minimal.toml");
const FULL: &str = include_str!("../../config/shardless.toml");
const PLACEHOLDER: &str = "PASTE YOURS HERE";

/// An example with its placeholder replaced, as its reader would.
fn filled(example: &str) -> String {
    example.replace(PLACEHOLDER, "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
}

fn mistakes(text: &str) -> String {
    Config::parse("config.toml", text).unwrap_err().to_string()
}

#[test]
fn a_name_in_a_mistake_breaks_no_line_and_commands_no_terminal() {
    let error = Config::parse("config.toml", "\"a\\nb\\u001b[31m\" = 1").unwrap_err();
    assert!(
        error.brief().starts_with(r"config.toml:1: unknown key `a\nb\u{1b}[31m`: known here"),
        "{}",
        error.brief()
    );
    assert!(!error.to_string().contains('\u{1b}'), "{error}");
}

#[test]
fn what_is_missing_at_the_end_is_missing_on_a_line_that_there_is() {
    let error = Config::parse("config.toml", "port = 0\n").unwrap_err();
    assert!(error.brief().starts_with("config.toml:1: there is no application"), "{}", error.brief());
    assert!(error.to_string().contains("--> config.toml:1:"), "{error}");
}

#[test]
fn the_full_example_shows_every_key_with_its_default() {
    let full = Config::parse("shardless.toml", &filled(FULL)).unwrap();
    assert_eq!(full, Config::parse("minimal.toml", &filled(MINIMAL)).unwrap());

    let shown = |path: &&String| {
        let key = path.rsplit('.').next().unwrap();
        FULL.lines().any(|line| {
            let line = line.trim_start_matches("# ");
            line.starts_with(&format!("{key} = "))
                || line.starts_with(&format!("[{key}"))
                || line == format!("[{path}]")
                || line.ends_with(&format!(".{key}]]"))
        })
    };
    let keys = file::keys_of(&uncommented(""));
    assert!(keys.len() > 30, "{keys:?}");
    let hidden: Vec<_> = keys.iter().filter(|key| !shown(key)).collect();
    assert!(hidden.is_empty(), "config/shardless.toml does not show {hidden:?}");
}

#[test]
fn keys_that_are_commented_out_in_the_full_example_exist() {
    let own = Config::parse("shardless.toml", &filled(&uncommented("self_signed"))).unwrap();
    assert_eq!(own.apps[0].error_message.as_deref(), Some("Something went wrong."));
    assert_eq!(own.listen.unix_socket.as_deref(), Some(Path::new("/run/shardless/http.sock")));
    assert!(matches!(own.tls, Some(Tls::Files { .. })));
    let route = &own.apps[0].routes[0];
    assert_eq!((route.on_slow, route.ephemeral), (Some(OnSlow::Defer), Some(true)));
    let text = uncommented("self_signed").replace("certificate = ", "# ").replace("\nkey = ", "\n# ");
    let own = Config::parse("shardless.toml", &filled(&text.replace("[tls]", "[tls]\nself_signed = true")))
        .unwrap();
    assert_eq!(own.tls, Some(Tls::SelfSigned));
}

/// The full example with every commented key and table in force, but for one.
fn uncommented(except: &str) -> String {
    let is_code = |rest: &str| {
        rest.starts_with('[') || rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
    };
    let line = |line: &'static str| match line.strip_prefix("# ").filter(|rest| is_code(rest)) {
        Some(rest) if except.is_empty() || !rest.starts_with(except) => rest,
        _ => line,
    };
    FULL.lines().map(line).flat_map(|line| [line, "\n"]).collect()
}

#[rstest]
#[case(MINIMAL)]
#[case(FULL)]
fn an_example_as_it_is_shipped_asks_for_the_key_and_for_nothing_else(#[case] example: &str) {
    let mistakes = mistakes(example);
    assert!(
        mistakes.contains("paste yours from the Developer Portal") && mistakes.contains("1 mistake"),
        "{mistakes}"
    );
}

#[test]
fn all_mistakes_are_told_at_once_each_at_its_place() {
    insta::assert_snapshot!(mistakes(
        r#"
prot = 3000
port = "3000"
public_key = "abc"

[limit]
body = "1MiB"

[limits]
body = "lots"
in_flight = 0
idle_timeout = 75

[apps."my bot"]
public_key = "YOUR_PUBLIC_KEY"
handler = "127.0.0.1:8080"

[apps.second]
public_key = "0100000000000000000000000000000000000000000000000000000000000000"
handler = "https://127.0.0.1:8080/"
answer_within = "5s"
reply = 4

[apps.third]
path = "interactions"

[log]
format = "xml"
level = "loud"
"#
    ));
}

#[test]
fn broken_syntax_does_not_hide_other_mistakes() {
    insta::assert_snapshot!(mistakes("port = = 3\n[limits]\nbody = 5\nbdoy = \"1MiB\"\n[apps.a\n"));
}

#[rstest]
#[case::empty("", "there is no application")]
#[case::no_apps("port = 1", "[apps.mybot]")]
#[case::app_as_value("apps = 3", "write [apps] on a line of its own")]
#[case::one_app_as_value("apps.mybot = 3", "`apps.mybot` must be a table, but has a value: integer")]
#[case::top_level_key("public_key = \"x\"", "put it under [apps.NAME]")]
#[case::top_level_time("give_up_after = \"1s\"", "put it under [apps.NAME]")]
#[case::port_too_large("port = 65536", "expected a number from 0 to 65535")]
#[case::negative_port("port = -1", "expected a number from 0 to 65535")]
#[case::host_name("address = \"example.com\"", "expected \"localhost\" or an IP address")]
#[case::window("[replay]\nwindow = \"2h\"", "expected from \"1s\" to \"1h\"")]
#[case::zero_time("[limits]\nread_timeout = \"0s\"", "expected between \"1ms\" and \"1day\"")]
#[case::small_headers("[limits]\nheaders = \"1KiB\"", "expected from \"8KiB\" to \"1MiB\"")]
#[case::buffered_below_body("[limits]\nbuffered = \"1KiB\"", "expected at least limits.body, 1.0 MiB")]
#[case::api_in_the_clear(
    "[discord]\napi = \"http://discord.com/api\"",
    "expected https:// to any other machine"
)]
#[case::api_without_scheme(
    "[discord]\napi = \"discord.com/api\"",
    "expected a URL such as \"https://discord.com/api/v10\""
)]
#[case::upper_case_level("[log]\nlevel = \"INFO\"", "expected \"error\", \"warn\"")]
#[case::empty_level("[log]\nlevel = \"\"", "\"trace\" or \"off\"")]
#[case::part_of_the_log("[log.levels]\ndelivry = \"debug\"", "did you mean `delivery`?")]
#[case::no_part_of_the_log(
    "[log.levels]\nhyper = \"trace\"",
    "known here: interactions, refusals, connections,"
)]
#[case::level_of_a_part("[log.levels]\noutbox = 3", "`log.levels.outbox` cannot have this value")]
fn mistakes_say_what_to_do(#[case] text: &str, #[case] words: &str) {
    let mistakes = mistakes(text);
    assert!(mistakes.contains(words), "{mistakes}");
}

#[rstest]
#[case::relative("path = \"interactions\"", "expected a path such as")]
#[case::query("path = \"/a?b\"", "expected a path such as")]
#[case::space("path = \"/a b\"", "expected a path such as")]
#[case::late("answer_within = \"3s\"", "Discord gives up after 3 s")]
#[case::slow("on_slow = \"wait\"", "expected \"defer\" or \"fail\"")]
#[case::ephemeral("ephemeral = 64", "expected true or false")]
#[case::given_up_at_once("give_up_after = \"999ms\"", "expected from \"1s\" to \"14m50s\"")]
#[case::given_up_too_late("give_up_after = \"15min\"", "Discord takes late answers for 15 minutes")]
#[case::given_up_at_the_deadline("give_up_after = \"2200ms\"", "expected more than answer_within, 2s 200ms")]
#[case::empty_message("error_message = \"\"", "expected 1 to 2000 characters")]
#[case::misspelt("eror_message = \"\"", "did you mean `error_message`?")]
fn mistakes_in_an_application_say_what_to_do(#[case] line: &str, #[case] words: &str) {
    let mistakes = mistakes(&format!("{}{line}\n", filled(MINIMAL)));
    assert!(mistakes.contains(words) && mistakes.contains(line), "{mistakes}");
    assert!(mistakes.contains("1 mistake in config.toml"), "{mistakes}");
}

#[test]
fn what_happens_to_slow_ones_is_said_for_all_or_for_a_route() {
    let text = format!(
        "{}on_slow = \"fail\"\nephemeral = true\ngive_up_after = \"14m50s\"\n\
         [[apps.mybot.routes]]\ncommand = \"a\"\nhandler = \"http://127.0.0.1:1/\"\non_slow = \"fail\"\n\
         [[apps.mybot.routes]]\ncommand = \"b\"\nhandler = \"http://127.0.0.1:1/\"\nephemeral = false\nanswer_within = \"2500ms\"\n\
         [discord]\napi = \"http://localhost:1/\"\n",
        filled(MINIMAL)
    );
    let config = Config::parse("config.toml", &text).unwrap();
    assert_eq!(config.discord.api.as_str(), "http://localhost:1");
    let app = &config.apps[0];
    let give_up_after = Duration::from_secs(14 * 60 + 50);
    assert_eq!((app.on_slow, app.ephemeral, app.give_up_after), (OnSlow::Fail, true, give_up_after));
    let routes: Vec<_> = app.routes.iter().map(|route| (route.on_slow, route.ephemeral)).collect();
    assert_eq!(routes, [(Some(OnSlow::Fail), None), (None, Some(false))]);
    let early = mistakes(&text.replace("14m50s", "2500ms"));
    assert!(early.contains("expected more than answer_within, 2s 500ms"), "{early}");
}

#[test]
fn handlers_are_reached_over_tcp_tls_and_unix_sockets() {
    let first = |url: &str| {
        let text = filled(MINIMAL).replace("http://127.0.0.1:8080/interactions", url);
        Config::parse("config.toml", &text).unwrap().apps[0].handler.urls.first.clone()
    };
    let url = first("unix:/run/bot.sock:/interactions?x=1");
    assert_eq!(url.socket(), Some(Path::new("/run/bot.sock")));
    assert_eq!(
        (url.uri().path(), url.to_string().as_str()),
        ("/interactions", "unix:/run/bot.sock:/interactions")
    );
    assert_eq!(first("unix:/run/bot.sock").uri().path(), "/");
    assert!(first("https://bot.example.com/interactions").is_https());
    assert!(!first("http://bot.example.com").is_https());
}

#[test]
fn a_handler_by_name_has_its_replicas() {
    let named = filled(MINIMAL).replace("http://127.0.0.1:8080/interactions", "music");
    let text = format!("{named}[handlers.music]\nurls = [\"http://127.0.0.1:1/\", \"unix:/b.sock\"]\n");
    let config = Config::parse("config.toml", &text).unwrap();
    assert_eq!(config.apps[0].handler.urls.others.len(), 1);
    assert!(mistakes(&named).contains("`apps.mybot.handler` names no handler"));
    for (table, words) in [
        ("[handlers.music]\n", "`handlers.music.urls` is missing"),
        ("[handlers.music]\nurls = []\n", "expected a list of URLs"),
        ("[handlers.music]\nurls = [\"x\"]\n", "`handlers.music.urls` cannot have this value"),
        ("[handlers.music]\nurls = [\"http://127.0.0.1:3000/\"]\n", "is shardless itself"),
        (
            "[handlers.music]\nurls = [\"https://127.0.0.1:1/\"]\nca = \"ca.pem\"\n",
            "expected an absolute path",
        ),
        (
            "[handlers.music]\nurls = [\"http://127.0.0.1:1/\"]\nca = \"/ca.pem\"\n",
            "it is for handlers over https://",
        ),
    ] {
        let mistakes = mistakes(&format!("{named}{table}"));
        assert!(mistakes.contains(words) && mistakes.contains("1 mistake"), "{mistakes}");
    }
}

#[rstest]
#[case::nothing("[tls]\n", "`tls` says nothing of a certificate")]
#[case::off("[tls]\nself_signed = false\n", "`tls` says nothing of a certificate")]
#[case::half("[tls]\ncertificate = \"/a.pem\"\n", "`tls.key` is missing")]
#[case::both(
    "[tls]\nself_signed = true\ncertificate = \"/a.pem\"\nkey = \"/a.key\"\n",
    "asks for a self-signed one too"
)]
#[case::no_bool("[tls]\nself_signed = \"yes\"\n", "expected true or false")]
#[case::relative("[tls]\ncertificate = \"a.pem\"\nkey = \"/a.key\"\n", "expected an absolute path")]
fn tls_has_exactly_one_certificate(#[case] table: &str, #[case] words: &str) {
    let mistakes = mistakes(&format!("{}{table}", filled(MINIMAL)));
    assert!(mistakes.contains(words) && mistakes.contains("1 mistake"), "{mistakes}");
}

#[rstest]
#[case("http://127.0.0.1:3000/interactions", "is shardless itself")]
#[case("http://localhost:3000", "is shardless itself")]
#[case("http://[::1]:3000/", "is shardless itself")]
#[case("http://user:secret@127.0.0.1:8080/", "no user name or password")]
#[case("http://127.0.0.1:8080/#top", "expected a URL such as")]
#[case("http://", "expected a URL such as")]
#[case("/interactions", "expected a URL such as")]
#[case("unix:bot.sock", "expected an absolute path and a route")]
#[case("unix:/bot.sock:interactions", "expected an absolute path and a route")]
fn handlers_that_cannot_work_are_refused(#[case] url: &str, #[case] words: &str) {
    let mistakes = mistakes(&filled(MINIMAL).replace("http://127.0.0.1:8080/interactions", url));
    assert!(mistakes.contains(words), "{mistakes}");
}

#[test]
fn a_handler_on_the_same_port_of_another_address_is_another_program() {
    let text = format!("address = \"192.0.2.7\"\n{}", filled(MINIMAL).replace(":8080", ":3000"));
    assert!(Config::parse("config.toml", &text).is_ok());
    let itself = text.replace("127.0.0.1", "192.0.2.7");
    assert!(mistakes(&itself).contains("is shardless itself"));
}

#[rstest]
#[case::default("port = 3000", "", None)]
#[case::same_port("port = 3000", "port = 3000", Some("port = 3000"))]
#[case::main_on_its_default("port = 3001", "", Some("[admin]"))]
#[case::all_addresses("port = 1\naddress = \"0.0.0.0\"", "port = 1", Some("port = 1"))]
#[case::another_address("port = 1\naddress = \"192.0.2.7\"", "port = 1", None)]
#[case::another_family("port = 1\naddress = \"::\"", "port = 1\naddress = \"127.0.0.1\"", None)]
#[case::chosen_by_the_system("port = 0", "port = 0", None)]
fn the_admin_listener_has_a_port_of_its_own(
    #[case] main: &str,
    #[case] admin: &str,
    #[case] marked: Option<&str>,
) {
    let text = format!("{}[admin]\n{admin}\n", filled(MINIMAL).replace("port = 3000", main));
    match (marked, Config::parse("config.toml", &text)) {
        (None, read) => assert_eq!(read.unwrap().admin.unwrap().connections, 256),
        (Some(line), read) => {
            let mistakes = read.unwrap_err().to_string();
            assert!(mistakes.contains("the admin listener needs a port of its own"), "{mistakes}");
            assert!(mistakes.contains(line) && mistakes.contains("1 mistake"), "{mistakes}");
        }
    }
}

#[test]
fn no_handler_is_the_admin_listener() {
    let text = filled(MINIMAL).replace(":8080", ":3001");
    assert_eq!(Config::parse("config.toml", &text).unwrap().admin, None);
    let mistakes = mistakes(&format!("{text}[admin]\n"));
    assert!(mistakes.contains("is shardless itself") && mistakes.contains("1 mistake"), "{mistakes}");
}

#[test]
fn a_value_in_the_place_of_a_table_is_one_mistake() {
    let mistakes = mistakes(&format!("tls = true\n{}", filled(MINIMAL)));
    assert!(mistakes.contains("`tls` must be a table") && mistakes.contains("1 mistake"), "{mistakes}");
}

#[test]
fn several_applications_stand_side_by_side_but_not_on_one_path() {
    let first = filled(MINIMAL);
    let second = first.split_once("[apps.mybot]").unwrap().1;
    let clash = format!("{first}[apps.other]{second}");
    assert!(mistakes(&clash).contains("`apps.other` and `apps.mybot` have the same path /interactions"));
    let apart = Config::parse("config.toml", &format!("{clash}path = \"/other\"\n")).unwrap();
    assert_eq!(apart.apps.iter().map(|app| &*app.name).collect::<Vec<_>>(), ["mybot", "other"]);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/no/such/config.toml")).unwrap_err().to_string();
    assert!(error.contains("/no/such/config.toml") && error.contains("--config FILE"), "{error}");
}
