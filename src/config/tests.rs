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
fn the_full_example_shows_every_key_with_its_default() {
    let full = Config::parse("shardless.toml", &filled(FULL)).unwrap();
    assert_eq!(full, Config::parse("minimal.toml", &filled(MINIMAL)).unwrap());

    let shown = |key: &&String| {
        let key = key.rsplit('.').next().unwrap();
        FULL.lines().any(|line| {
            let line = line.trim_start_matches("# ");
            line.starts_with(&format!("{key} = ")) || line.starts_with(&format!("[{key}"))
        })
    };
    let keys = file::keys_of(FULL);
    assert!(keys.len() > 20, "{keys:?}");
    let hidden: Vec<_> = keys.iter().filter(|key| !shown(key)).collect();
    assert!(hidden.is_empty(), "config/shardless.toml does not show {hidden:?}");
}

#[test]
fn keys_that_are_commented_out_in_the_full_example_exist() {
    let uncommented: String = FULL
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_ne!(uncommented, FULL);
    let config = Config::parse("shardless.toml", &filled(&uncommented)).unwrap();
    assert_eq!(config.apps[0].error_message.as_deref(), Some("Something went wrong."));
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
#[case::port_too_large("port = 65536", "expected a number from 0 to 65535")]
#[case::negative_port("port = -1", "expected a number from 0 to 65535")]
#[case::host_name("address = \"example.com\"", "expected \"localhost\" or an IP address")]
#[case::window("[replay]\nwindow = \"2h\"", "expected from \"1s\" to \"1h\"")]
#[case::zero_time("[limits]\nread_timeout = \"0s\"", "expected between \"1ms\" and \"1day\"")]
#[case::small_headers("[limits]\nheaders = \"1KiB\"", "expected from \"8KiB\" to \"1MiB\"")]
#[case::buffered_below_body("[limits]\nbuffered = \"1KiB\"", "expected at least limits.body, 1.0 MiB")]
#[case::upper_case_level("[log]\nlevel = \"INFO\"", "expected \"error\", \"warn\"")]
fn mistakes_say_what_to_do(#[case] text: &str, #[case] words: &str) {
    let mistakes = mistakes(text);
    assert!(mistakes.contains(words), "{mistakes}");
}

#[rstest]
#[case::relative("path = \"interactions\"", "expected a path such as")]
#[case::query("path = \"/a?b\"", "expected a path such as")]
#[case::space("path = \"/a b\"", "expected a path such as")]
#[case::late("answer_within = \"3s\"", "Discord gives up after 3 s")]
#[case::empty_message("error_message = \"\"", "expected 1 to 2000 characters")]
#[case::misspelt("eror_message = \"\"", "did you mean `error_message`?")]
fn mistakes_in_an_application_say_what_to_do(#[case] line: &str, #[case] words: &str) {
    let mistakes = mistakes(&format!("{}{line}\n", filled(MINIMAL)));
    assert!(mistakes.contains(words) && mistakes.contains(line), "{mistakes}");
    assert!(mistakes.contains("1 mistake in config.toml"), "{mistakes}");
}

#[rstest]
#[case("http://127.0.0.1:3000/interactions", "is shardless itself")]
#[case("http://localhost:3000", "is shardless itself")]
#[case("http://[::1]:3000/", "is shardless itself")]
#[case("http://user:secret@127.0.0.1:8080/", "no user name or password")]
#[case("http://127.0.0.1:8080/#top", "expected a URL such as")]
#[case("http://", "expected a URL such as")]
#[case("/interactions", "expected a URL such as")]
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
