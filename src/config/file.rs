//! Every key that exists, with its default: the schema.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;

use super::error::Mistake;
use super::reader::{Notes, Table};
use super::value::{
    AbsolutePath, Address, AnswerWithin, ApiUrl, Count, EndpointPath, GiveUpAfter, HandlerRef, HandlerUrl,
    HandlerUrls, OnSlow, Size, is_name,
};
use super::{
    App, Config, Discord, Handler, HandlerBounds, Limits, Listen, Replay, Route, StateDir, Tls, admin, log,
    route,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

const NAMES: &str = "expected 1 to 64 letters, digits, - or _";

/// Keys of an application that people put at the top.
const APP_KEYS: [&str; 9] = [
    "public_key",
    "handler",
    "path",
    "in_flight",
    "answer_within",
    "on_slow",
    "ephemeral",
    "give_up_after",
    "error_message",
];

/// Reads the whole text.
///
/// # Errors
///
/// All mistakes in it.
pub(super) fn parse(text: &str) -> Result<Config, Vec<Mistake>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let notes = Notes::default();
    let config = read(&notes, document.into_inner(), text.len());
    match config {
        Some(config) if errors.is_empty() && notes.is_clean() => Ok(config),
        _ => Err(with_syntax_errors(text, errors, notes.into_mistakes())),
    }
}

/// Where the syntax is broken, what is said of the same line or of missing keys may be a mere consequence.
fn with_syntax_errors(text: &str, errors: Vec<toml::de::Error>, mistakes: Vec<Mistake>) -> Vec<Mistake> {
    if errors.is_empty() {
        return mistakes;
    }
    let line = |span: &Range<usize>| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count();
    let mut all: Vec<Mistake> = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or_default();
        if all.iter().all(|earlier| line(&earlier.span) != line(&span)) {
            let what = "this is not TOML".to_owned();
            all.push(Mistake { span, what, advice: error.message().to_owned(), is_missing: false });
        }
    }
    let broken: Vec<_> = all.iter().map(|mistake| line(&mistake.span)).collect();
    let sure = |mistake: &Mistake| !mistake.is_missing && !broken.contains(&line(&mistake.span));
    all.extend(mistakes.into_iter().filter(sure));
    all
}

/// `None` only where a mistake was noted.
fn read(notes: &Notes, document: DeTable<'_>, end: usize) -> Option<Config> {
    let mut top = Table::new(notes, String::new(), end..end, document);
    let listen = Listen {
        address: top.or("address", Address::Localhost),
        port: top.or("port", 3000),
        unix_socket: top.optional("unix_socket").map(path),
    };
    let has_admin = top.has_table("admin");
    let admin = admin::read(notes, top.table("admin"), has_admin, &listen);
    let own: Vec<_> = std::iter::once(&listen).chain(admin.iter().map(|admin| &admin.listen)).collect();
    let state_dir = StateDir(top.optional("state_dir").map(path));
    let has_tls = top.has_table("tls");
    let tls = read_tls(notes, top.table("tls"), has_tls);
    let limits = read_limits(top.table("limits"));
    let replay = read_replay(top.table("replay"));
    let discord = read_discord(top.table("discord"));
    let log = log::read(top.table("log"));
    let handlers = read_handlers(notes, top.table("handlers"), &own);
    let apps = read_apps(notes, top.table("apps"), &own, &handlers);
    top.finish(|key| {
        let belongs_to_an_app = APP_KEYS.contains(&key);
        belongs_to_an_app
            .then(|| format!("put it under [apps.NAME], as in [apps.mybot] with {key} = … below"))
    });
    Some(Config { listen, admin, tls, state_dir, limits, replay, discord, log, apps: apps? })
}

fn path(path: Spanned<AbsolutePath>) -> PathBuf {
    path.into_inner().0
}

fn read_tls(notes: &Notes, mut table: Table<'_, '_>, is_there: bool) -> Option<Tls> {
    let span = table.span.clone();
    let has_files = table.has("certificate") || table.has("key");
    let names_self_signed = table.has("self_signed");
    let given = table.optional::<bool>("self_signed").map(Spanned::into_inner);
    // A value of the wrong type is a mistake that was noted; that nothing was chosen does not follow.
    let is_readable = !names_self_signed || given.is_some();
    let self_signed = given.unwrap_or_default();
    let tls = if has_files {
        let certificate = table.required("certificate", "the certificate that belongs to `key`").map(path);
        let key = table.required("key", "the private key that belongs to `certificate`").map(path);
        certificate.zip(key).map(|(certificate, key)| Tls::Files { certificate, key })
    } else {
        _ = (table.optional::<AbsolutePath>("certificate"), table.optional::<AbsolutePath>("key"));
        self_signed.then_some(Tls::SelfSigned)
    };
    table.finish(|_| None);
    let choice =
        "write self_signed = true, or certificate and key; without [tls] the port is plain HTTP, for a proxy";
    if is_there && self_signed && has_files {
        notes.wrong(span, "`tls` names a certificate, and asks for a self-signed one too", choice);
    } else if is_there && !self_signed && !has_files && is_readable {
        notes.missing(span, "`tls` says nothing of a certificate", choice);
    }
    tls
}

/// By name; `None` for one that has a mistake.
type Handlers = HashMap<String, Option<Handler>>;

fn read_handlers(notes: &Notes, table: Table<'_, '_>, own: &[&Listen]) -> Handlers {
    let read = |(name, mut table): (Spanned<String>, Table<'_, '_>)| {
        if !is_name(name.get_ref()) {
            notes.wrong(name.span(), format!("a handler cannot be named {:?}", name.get_ref()), NAMES);
        }
        let advice = "where it listens: urls = [\"http://127.0.0.1:8080/interactions\"]";
        let urls = table.required::<HandlerUrls>("urls", advice);
        let ca = table.optional("ca");
        let secret_file = table.optional("secret_file").map(path);
        let bounds = read_handler_bounds(&mut table);
        table.finish(|_| None);
        let is_https = urls.as_ref().is_none_or(|urls| urls.get_ref().iter().any(HandlerUrl::is_https));
        if let Some(ca) = ca.as_ref().filter(|_| !is_https) {
            let what = format!("`handlers.{}.ca` has nothing to check", name.get_ref());
            notes.wrong(ca.span(), what, "it is for handlers over https://, and this one has none");
        }
        let ca = ca.map(path);
        let key = format!("handlers.{}.urls", name.get_ref());
        let urls =
            urls.filter(|urls| urls.get_ref().iter().all(|url| is_other(notes, &key, url, urls.span(), own)));
        let name = name.into_inner();
        let own_name = Some(name.as_str().into());
        let handler =
            urls.map(|urls| Handler { name: own_name, urls: urls.into_inner(), ca, secret_file, bounds });
        (name, handler)
    };
    table.into_tables().into_iter().map(read).collect()
}

fn read_handler_bounds(table: &mut Table<'_, '_>) -> HandlerBounds {
    let default = HandlerBounds::default();
    let size = "expected from \"1KiB\" to \"100MiB\"";
    HandlerBounds {
        max_in_flight: table.or("max_in_flight", Count(256)).0,
        max_deferred: table.or("max_deferred", Count(1000)).0,
        connect_timeout: table.or("connect_timeout", default.connect_timeout),
        idle_timeout: table.or("idle_timeout", default.idle_timeout),
        max_response: table
            .or_fitting("max_response", Size(default.max_response), size, |size| {
                (KIB..=100 * MIB).contains(&size.0)
            })
            .0,
    }
}

/// Whether a handler is a program other than this one, which listens on its `own`.
fn is_other(notes: &Notes, key: &str, url: &HandlerUrl, span: Range<usize>, own: &[&Listen]) -> bool {
    let is_other = !own.iter().any(|listen| url.is_at(listen));
    if !is_other {
        let advice = "your bot needs a port of its own, such as 8080";
        notes.wrong(span, format!("`{key}` is shardless itself"), advice);
    }
    is_other
}

fn read_limits(mut table: Table<'_, '_>) -> Limits {
    let headers = table.or_fitting("headers", Size(16 * KIB), "expected from \"8KiB\" to \"1MiB\"", |size| {
        (8 * KIB..=MIB).contains(&size.0)
    });
    let body = table.or_fitting("body", Size(MIB), "expected from \"1KiB\" to \"100MiB\"", |size| {
        (KIB..=100 * MIB).contains(&size.0)
    });
    let needed = format!("expected at least limits.body, {}", bytesize::ByteSize(body.0 as u64));
    let limits = Limits {
        headers: headers.0,
        body: body.0,
        buffered: table.or_fitting("buffered", Size(64 * MIB), &needed, |size| size.0 >= body.0).0,
        connections: table.or("connections", Count(4096)).0,
        in_flight: table.or("in_flight", Count(2048)).0,
        deferred: table.or("deferred", Count(10_000)).0,
        read_timeout: table.or("read_timeout", Duration::from_secs(2)),
        write_timeout: table.or("write_timeout", Duration::from_secs(5)),
        handshake_timeout: table.or("handshake_timeout", Duration::from_secs(5)),
        idle_timeout: table.or("idle_timeout", Duration::from_secs(75)),
        drain_timeout: table.or("drain_timeout", Duration::from_secs(10)),
    };
    table.finish(|_| None);
    limits
}

fn read_replay(mut table: Table<'_, '_>) -> Replay {
    let window = "expected from \"1s\" to \"1h\"";
    let replay = Replay {
        enabled: table.or("enabled", true),
        window: table.or_fitting("window", Duration::from_secs(5 * 60), window, |window| {
            (Duration::from_secs(1)..=Duration::from_secs(60 * 60)).contains(window)
        }),
    };
    table.finish(|_| None);
    replay
}

fn read_discord(mut table: Table<'_, '_>) -> Discord {
    let discord = Discord { api: table.or("api", ApiUrl::default()) };
    table.finish(|_| None);
    discord
}

fn read_apps(notes: &Notes, table: Table<'_, '_>, own: &[&Listen], handlers: &Handlers) -> Option<Vec<App>> {
    let span = table.span.clone();
    let is_empty = table.is_empty();
    let tables = table.into_tables();
    if is_empty {
        let advice =
            "add [apps.mybot] with public_key = \"…\" and handler = \"http://127.0.0.1:8080/interactions\"";
        notes.missing(span, "there is no application", advice);
        return None;
    }
    let mut paths = HashMap::new();
    let read = |(name, table)| read_app(notes, name, table, own, handlers, &mut paths);
    // All are read before the first failure counts, so that every mistake is noted.
    let apps: Vec<_> = tables.into_iter().map(read).collect();
    apps.into_iter().collect()
}

fn read_app(
    notes: &Notes,
    name: Spanned<String>,
    mut table: Table<'_, '_>,
    own: &[&Listen],
    handlers: &Handlers,
    paths: &mut HashMap<EndpointPath, String>,
) -> Option<App> {
    if !is_name(name.get_ref()) {
        notes.wrong(name.span(), format!("an application cannot be named {:?}", name.get_ref()), NAMES);
    }
    let public_key = table.required("public_key", "copy it from the Developer Portal (General Information)");
    let path_is_given = table.has("path");
    let path = table.optional::<EndpointPath>("path");
    let handler = table
        .required::<HandlerRef>("handler", "where your bot listens: handler = \"http://127.0.0.1:8080/…\"");
    let in_flight = table.or("in_flight", Count(1024)).0;
    let answer_within = table.or("answer_within", AnswerWithin(Duration::from_millis(2200))).0;
    let on_slow = table.or("on_slow", OnSlow::Defer);
    let ephemeral = table.or("ephemeral", false);
    let give_up_after = table.optional::<GiveUpAfter>("give_up_after");
    let routes = table.array("routes");
    let error_message = table.optional::<String>("error_message");
    table.finish(|_| None);

    if let Some(text) =
        error_message.as_ref().filter(|text| !(1..=2000).contains(&text.get_ref().chars().count()))
    {
        let what = format!("`apps.{}.error_message` cannot have this value", name.get_ref());
        notes.wrong(text.span(), what, "expected 1 to 2000 characters, as Discord takes them");
    }
    let find = |key: &str, handler| find_handler(notes, key, handler, own, handlers);
    let handler = handler.and_then(|handler| find(&format!("apps.{}.handler", name.get_ref()), handler));
    let read = |(index, table)| {
        let key = format!("apps.{}.routes[{index}].handler", name.get_ref());
        route::read(notes, table, |handler| find(&key, handler))
    };
    // All are read before the first failure counts, so that every mistake is noted.
    let routes: Vec<_> = routes.into_iter().enumerate().map(read).collect();
    let routes: Option<Vec<_>> = routes.into_iter().collect();
    if let Some(routes) = &routes {
        route::require_reachable(notes, routes);
        if let Some(give_up_after) = &give_up_after {
            require_later(notes, name.get_ref(), give_up_after, answer_within, routes);
        }
    }
    let (span, path) = match path {
        Some(path) => (path.span(), path.into_inner()),
        None if path_is_given => return None,
        None => (name.span(), EndpointPath::default()),
    };
    if let Some(other) = paths.insert(path.clone(), name.get_ref().clone()) {
        let what =
            format!("`apps.{}` and `apps.{other}` have the same path {}", name.get_ref(), path.as_str());
        notes.wrong(span, what, format!("give this one its own: path = \"/{}\"", name.get_ref()));
    }
    Some(App {
        name: name.into_inner().into(),
        public_key: public_key?.into_inner(),
        path,
        handler: handler?,
        routes: routes?.into_iter().map(|(_, route)| route).collect(),
        in_flight,
        answer_within,
        on_slow,
        ephemeral,
        give_up_after: give_up_after.map_or(GiveUpAfter::DEFAULT, |after| after.into_inner().0),
        error_message: error_message.map(Spanned::into_inner),
    })
}

/// Notes that nothing is left between a deferral and the time to give up.
fn require_later(
    notes: &Notes,
    app: &str,
    give_up_after: &Spanned<GiveUpAfter>,
    answer_within: Duration,
    routes: &[(Range<usize>, Route)],
) {
    let latest =
        routes.iter().filter_map(|(_, route)| route.answer_within).fold(answer_within, Duration::max);
    if give_up_after.get_ref().0 <= latest {
        let what = format!("`apps.{app}.give_up_after` cannot have this value");
        let latest = humantime::format_duration(latest);
        notes.wrong(give_up_after.span(), what, format!("expected more than answer_within, {latest}"));
    }
}

/// What an application's `handler` stands for.
fn find_handler(
    notes: &Notes,
    key: &str,
    handler: Spanned<HandlerRef>,
    own: &[&Listen],
    handlers: &Handlers,
) -> Option<Handler> {
    let span = handler.span();
    match handler.into_inner() {
        HandlerRef::Url(url) => is_other(notes, key, &url, span, own).then(|| Handler {
            name: None,
            urls: HandlerUrls::one(url),
            ca: None,
            secret_file: None,
            bounds: HandlerBounds::default(),
        }),
        HandlerRef::Name(name) => match handlers.get(&name) {
            Some(handler) => handler.clone(),
            None => {
                let advice = format!(
                    "expected a URL such as \"http://127.0.0.1:8080/interactions\", or the name of a table [handlers.{name}]"
                );
                notes.wrong(span, format!("`{key}` names no handler"), advice);
                None
            }
        },
    }
}

#[cfg(test)]
pub(super) fn keys_of(text: &str) -> std::collections::BTreeSet<String> {
    let notes = Notes::default();
    let (document, _) = DeTable::parse_recoverable(text);
    read(&notes, document.into_inner(), text.len());
    notes.keys.into_inner()
}
