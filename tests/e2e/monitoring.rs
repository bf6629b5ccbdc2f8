//! What ships for Prometheus and Grafana: the alerts by promtool's own tests, and every query of them and of the dashboard by
//! a real Prometheus that asks a real daemon.

mod live;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::process::{folder, program, source};

const RULES: &str = "deploy/monitoring/prometheus-rules.yml";
const DASHBOARD: &str = "deploy/monitoring/grafana-dashboard.json";
const TESTS: [&str; 2] = ["tests/e2e/monitoring/rules.test.yml", "tests/e2e/monitoring/rules-days.test.yml"];

fn read(path: &str) -> String {
    fs::read_to_string(source(path)).unwrap()
}

/// Runs promtool, which must succeed.
fn promtool(arguments: &[&str]) -> String {
    let output = Command::new(program("promtool")).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {}\n{said}", output.status);
    said.into_owned()
}

/// A rule that alerts, as the file has it.
struct Alert {
    name: String,
    severity: String,
    text: String,
}

fn alerts() -> Vec<Alert> {
    let rules = read(RULES);
    let parts = rules.split("\n      - alert: ").skip(1);
    let alerts = parts.map(|part| {
        // What follows the last alert of a group is another group's.
        let text = part.split("\n  - name: ").next().unwrap().to_owned();
        let name = text.lines().next().unwrap().to_owned();
        let severity = value(&text, "          severity: ").to_owned();
        Alert { name, severity, text }
    });
    let alerts: Vec<_> = alerts.collect();
    assert!(alerts.len() > 15, "{} alerts", alerts.len());
    assert_eq!(alerts.len(), rules.matches("- alert:").count(), "one is written otherwise");
    alerts
}

/// What stands behind `key` in its line.
fn value<'a>(text: &'a str, key: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key} in {text}"))
}

/// A query of the dashboard, with values in the place of its variables.
struct Query {
    title: String,
    expr: String,
}

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).unwrap()
}

fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels.filter(|panel| panel["type"] != "row").collect()
}

fn queries() -> Vec<Query> {
    let dashboard = dashboard();
    let targets = panels(&dashboard).into_iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().unwrap().iter();
        targets.map(|target| (text(&panel["title"]), text(&target["expr"])))
    });
    let annotations = dashboard["annotations"]["list"].as_array().unwrap().iter();
    let annotations = annotations.filter(|annotation| annotation["expr"].is_string());
    let annotations = annotations.map(|annotation| (text(&annotation["name"]), text(&annotation["expr"])));
    // The values that a variable can have: label_values(SERIES, LABEL).
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let variables = variables.filter_map(|variable| {
        let query = variable["query"]["query"].as_str()?;
        let (series, label) = query.strip_prefix("label_values(")?.strip_suffix(')')?.rsplit_once(", ")?;
        Some((text(&variable["name"]), format!("count by ({label}) ({series})")))
    });
    let all = targets.chain(annotations).chain(variables);
    let queries: Vec<_> = all.map(|(title, expr)| Query { title, expr: filled_in(&expr) }).collect();
    assert!(queries.len() > 50, "{} queries", queries.len());
    queries
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// As Grafana does.
fn filled_in(expr: &str) -> String {
    let values = [
        ("$__rate_interval", "5s"),
        ("$__range", "60s"),
        ("$job", "shardless"),
        ("$instance", ".*"),
        ("$app", "mybot|other"),
    ];
    let filled_in =
        values.iter().fold(expr.to_owned(), |expr, (variable, value)| expr.replace(variable, value));
    assert!(!filled_in.contains("[$") && !filled_in.contains("\"$"), "{filled_in} has a variable");
    filled_in
}

#[test]
fn prometheus_takes_the_rules_and_the_example() {
    promtool(&["check", "rules", "--lint-fatal", source(RULES).to_str().unwrap()]);
    // It looks for the rules beside itself.
    let example = source("deploy/monitoring/prometheus.yml");
    let said = promtool(&["check", "config", "--lint-fatal", example.to_str().unwrap()]);
    assert!(said.contains("1 rule files found"), "{said}");
}

#[test]
fn the_alerts_fire_when_they_should_and_keep_silent_when_not() {
    let [minutes, days] = TESTS.map(source);
    promtool(&["test", "rules", minutes.to_str().unwrap(), days.to_str().unwrap()]);
}

#[test]
fn each_alert_has_tests_a_runbook_line_and_a_section_in_the_guide() {
    let (tests, guide) = (TESTS.map(read).concat(), read("deploy/monitoring/README.md"));
    let (_, guide) = guide.split_once("\n## What to do\n").unwrap();
    for Alert { name, severity, text } in alerts() {
        assert!(["critical", "warning", "info"].contains(&&*severity), "{name}: {severity}");
        for key in ["summary", "description", "runbook"] {
            let value = value(&text, &format!("          {key}: "));
            assert!(value.len() > 20, "{name}: {key}: {value}");
        }
        let fires = tests.lines().any(|line| {
            let mut parts = [format!("alertname=\"{name}\""), format!("severity=\"{severity}\"")].into_iter();
            line.contains("- labels: ALERTS{") && parts.all(|part| line.contains(&part))
        });
        assert!(fires, "no test has {name} fire as {severity}");
        let silent = format!("ALERTS{{alertname=\"{name}\", alertstate=\"firing\"}}");
        let mut checks = tests.split("      - expr: ").filter(|check| check.starts_with(&silent));
        assert!(checks.any(|check| check.contains("exp_samples: []")), "no test has {name} keep silent");
        let section = guide.split("\n### ").find_map(|section| section.strip_prefix(&format!("{name}\n")));
        assert!(section.is_some_and(|section| section.len() > 100), "{name} has no section in the guide");
    }
    let names: BTreeSet<_> = alerts().into_iter().map(|alert| alert.name).collect();
    let sections: BTreeSet<_> =
        guide.split("\n### ").skip(1).map(|section| section.lines().next().unwrap().to_owned()).collect();
    assert_eq!(sections, names, "sections, and alerts");
}

#[test]
fn each_panel_says_what_it_shows_and_has_a_place_of_its_own() {
    let dashboard = dashboard();
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = text(&panel["title"]);
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(x + w <= 24, "{title} is too wide");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{title} lies on another");
        }
        if panel["type"] == "row" {
            continue;
        }
        let kinds = ["heatmap", "stat", "state-timeline", "timeseries"];
        assert!(kinds.contains(&&*text(&panel["type"])), "{title} takes a plugin");
        assert!(text(&panel["description"]).len() > 5, "{title}");
        assert!(!text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(), "{title}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}

/// promtool parses the queries of rules, so each becomes one.
#[test]
fn each_query_of_the_dashboard_parses() {
    let rules: Vec<_> = queries()
        .into_iter()
        .enumerate()
        .map(|(n, query)| json!({ "record": format!("dashboard:query{n}"), "expr": query.expr }))
        .collect();
    let folder = folder();
    let file = folder.path().join("dashboard.yml");
    // YAML takes JSON.
    fs::write(&file, json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string()).unwrap();
    let said = promtool(&["check", "rules", "--lint=none", file.to_str().unwrap()]);
    assert!(said.contains(&format!("{} rules found", queries().len())), "{said}");
}
