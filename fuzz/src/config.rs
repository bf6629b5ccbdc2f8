//! Config files of people in a hurry.

use std::collections::HashSet;
use std::time::Duration;

use shardless::config::{App, Config, ConfigError};

const FILE: &str = "a/config.toml";

/// Mistakes are named at lines that exist, by all texts alike; what is accepted is within its bounds, and no key in it is
/// overlooked.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Config::parse(FILE, text) {
        Err(error) => assert_names_lines(&error, text),
        Ok(config) => {
            assert_is_sound(&config);
            assert_eq!(Config::parse(FILE, &format!("# A remark.\n{text}\n# Another.\n")).unwrap(), config);
            let above = Config::parse(FILE, &format!("zzzz = 1\n{text}")).unwrap_err();
            assert_eq!(line(&above.brief()), 1);
            assert!(Config::parse(FILE, &format!("{text}\nzzzz = 1")).is_err(), "a key is overlooked");
        }
    }
}

fn assert_names_lines(error: &ConfigError, text: &str) {
    let lines = 1 + text.bytes().filter(|byte| *byte == b'\n').count();
    let (brief, plain, styled) = (error.brief(), error.render(false), error.render(true));
    assert!(!brief.contains(char::is_control), "not one line: {brief:?}");
    assert!((1..=lines).contains(&line(&brief)), "{brief}");
    assert_eq!(plain, error.to_string());
    assert!(styled.len() > plain.len());
    let (_, count) = plain.rsplit_once("\n\n").unwrap();
    let count: usize = count.split(' ').next().unwrap().parse().unwrap();
    let places: Vec<_> = plain.lines().filter_map(|line| line.trim_start().strip_prefix("--> ")).collect();
    // A text in the file may look like a place.
    assert!(count >= 1 && places.len() >= count, "{plain}");
    assert!(places.iter().any(|place| place.starts_with(&format!("{FILE}:{}:", line(&brief)))), "{plain}");
}

fn line(brief: &str) -> usize {
    let rest = brief.strip_prefix(FILE).unwrap().strip_prefix(':').unwrap();
    rest.split_once(": ").unwrap().0.parse().unwrap()
}

fn assert_is_sound(config: &Config) {
    const MIB: usize = 1024 * 1024;
    let limits = &config.limits;
    assert!((8192..=MIB).contains(&limits.headers) && (1024..=100 * MIB).contains(&limits.body));
    assert!(limits.buffered >= limits.body);
    assert!([limits.connections, limits.in_flight, limits.deferred].iter().all(|count| is_count(*count)));
    let times = [limits.read_timeout, limits.write_timeout, limits.handshake_timeout, limits.idle_timeout];
    assert!(times.iter().chain([&limits.drain_timeout]).all(|time| is_time(*time)));
    assert!((1..=3600).contains(&config.replay.window.as_secs()));
    assert!(!config.apps.is_empty());
    let (mut paths, mut names) = (HashSet::new(), HashSet::new());
    for app in &config.apps {
        assert!(paths.insert(app.path.as_str()) && names.insert(&app.name));
        assert_is_sound_app(app);
    }
}

fn assert_is_sound_app(app: &App) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    assert!((1..=64).contains(&app.name.len()) && app.name.bytes().all(is_plain));
    let path = app.path.as_str();
    assert!(
        path.starts_with('/')
            && path.bytes().all(|byte| byte.is_ascii_graphic())
            && !path.contains(['?', '#'])
    );
    assert!(is_count(app.in_flight));
    let answer_within = app.routes.iter().filter_map(|route| route.answer_within).chain([app.answer_within]);
    for answer_within in answer_within {
        assert!((100..=2900).contains(&answer_within.as_millis()) && answer_within < app.give_up_after);
    }
    assert!(app.give_up_after <= Duration::from_secs(890));
    assert!(app.error_message.as_ref().is_none_or(|text| (1..=2000).contains(&text.chars().count())));
    for url in app.handler.urls.iter() {
        assert!(url.uri().host().is_some_and(|host| !host.is_empty()), "{url}");
        assert!(!url.to_string().contains(char::is_control), "{url}");
    }
    assert!(app.handler.name.is_none() || is_count(app.handler.bounds.max_in_flight));
}

fn is_count(count: usize) -> bool {
    (1..=1_000_000).contains(&count)
}

fn is_time(time: Duration) -> bool {
    (Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60)).contains(&time)
}
