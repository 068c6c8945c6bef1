//! The scenario format: what a stranger's file may say, and what a mistake in it is answered with.

use std::path::Path;
use std::time::Duration;

use seimon_lab::runner::shipped_scenarios;
use seimon_lab::scenario::{Moment, Op, Scenario, ScenarioError};
use seimon_lab::vocabulary;

const GOOD: &str = r#"
format = 1
name = "direct line dies silently in the soak"
needs = ["N1", "N7"]
seed = 1
duration = "120s"

[topology]
base = "two-line-town"
set = { "lines.internet.mtu" = 1454, "paths.closed.ipv6" = "none", "dns.closed.affairs" = "private" }

[plan]
file = "town.toml"
set = { "services.affairs.session_idle" = "5s" }

[[load]]
id = "teachers"
zone = "affairs"
kind = "session"
count = 100
service = "affairs"
every = "200ms"
life = "20s"

[[event]]
id = "dark"
after = "state:affairs/affairs=Soaking"
plus = "2s"
do = "line.blackhole"
target = "internet"
for = "20s"

[[expect]]
metric = "teachers.logouts"
op = "=="
value = 0
from = "0s"
to = "120s"

[[expect]]
metric = "teachers.max_gap_ms"
op = "within"
value = [0, 3000]
from = "event:dark+1s"
"#;

fn parse(text: &str) -> Result<Scenario, ScenarioError> {
    Scenario::parse(text, Path::new("test.toml"))
}

/// (line, what) of every problem.
fn problems(text: &str) -> Vec<(usize, String)> {
    match parse(text) {
        Err(ScenarioError::Wrong { problems, .. }) => {
            problems.into_iter().map(|p| (p.line, p.what)).collect()
        }
        other => panic!("expected problems, not {other:?}"),
    }
}

/// The good file with one edit; the problem it must give, and the line as found in the edited text.
fn mistake(from: &str, to: &str, expected: &str) {
    assert!(GOOD.contains(from), "the good scenario no longer contains `{from}`");
    let text = GOOD.replacen(from, to, 1);
    let found = problems(&text);
    assert!(
        found.iter().any(|(_, what)| what.contains(expected)),
        "`{from}` → `{to}`: expected `{expected}` among {found:?}"
    );
    let line = text.lines().position(|l| l.contains(to.lines().next().unwrap_or(to))).map(|l| l + 1);
    if let Some(line) = line.filter(|_| !to.is_empty()) {
        assert!(
            found.iter().any(|(at, what)| *at == line && what.contains(expected)),
            "`{to}` is on line {line}, but: {found:?}"
        );
    }
}

#[test]
fn the_documented_example_is_read_as_written() {
    let scenario = parse(GOOD).unwrap();
    assert_eq!(scenario.duration, Duration::from_secs(120));
    assert_eq!(scenario.loads[0].count, 100);
    assert_eq!(scenario.events[0].lasts, Some(Duration::from_secs(20)));
    assert_eq!(
        scenario.events[0].when,
        Moment::AfterState {
            group: "affairs/affairs".to_owned(),
            state: "Soaking".to_owned(),
            plus: Duration::from_secs(2)
        }
    );
    assert_eq!(scenario.expectations[0].op, Op::Equal(0.0));
    assert_eq!(scenario.expectations[1].op, Op::Within(0.0, 3000.0));
}

#[test]
fn every_unknown_word_is_an_error_on_its_line() {
    mistake("seed = 1", "sead = 1", "unknown key `sead` in the scenario; did you mean `seed`?");
    mistake("base = \"two-line-town\"", "bases = \"two-line-town\"", "unknown key `bases`");
    mistake("base = \"two-line-town\"", "base = \"three-line-town\"", "three-line-town");
    mistake("\"lines.internet.mtu\" = 1454", "\"lines.internet.mtus\" = 1454", "lines.internet.mtus");
    mistake("\"lines.internet.mtu\" = 1454", "\"lines.internet.mtu\" = \"big\"", "lines.internet.mtu");
    mistake("kind = \"session\"", "kind = \"sessions\"", "did you mean `session`?");
    mistake("zone = \"affairs\"", "zone = \"afairs\"", "did you mean `affairs`?");
    mistake("every = \"200ms\"", "evry = \"200ms\"", "unknown key `evry`");
    mistake("service = \"affairs\"", "service = \"afairs\"", "did you mean `affairs`?");
    mistake("do = \"line.blackhole\"", "do = \"line.blackholes\"", "did you mean `line.blackhole`?");
    mistake("target = \"internet\"", "target = \"moon\"", "no target `moon`");
    mistake("=Soaking", "=Soking", "did you mean `Soaking`?");
    mistake("teachers.logouts", "teachers.log_outs", "no metric `log_outs`");
    mistake("teachers.logouts", "pupils.logouts", "no metric `pupils.logouts`");
    mistake("op = \"==\"", "op = \"=\"", "`op` cannot be `=`");
    mistake("needs = [\"N1\", \"N7\"]", "needs = [\"N1\", \"seven\"]", "rows of the inventory");
}

#[test]
fn values_of_the_wrong_kind_are_errors() {
    mistake("duration = \"120s\"", "duration = 120", "must be a text");
    mistake("duration = \"120s\"", "duration = \"two minutes\"", "is not a duration");
    mistake("count = 100", "count = \"many\"", "[[load]]");
    mistake("value = 0\n", "value = \"none\"\n", "must be a number");
    mistake("value = [0, 3000]", "value = [3000, 0]", "within");
    mistake("format = 1", "format = 2", "format 2 is not known");
    mistake("from = \"event:dark+1s\"", "from = \"soon\"", "neither a duration nor event:ID");
}

#[test]
fn what_is_missing_is_named() {
    for (line, expected) in [
        ("format = 1", "`format` is missing"),
        ("duration = \"120s\"", "`duration` is missing"),
        ("id = \"teachers\"", "`id` is missing"),
        ("do = \"line.blackhole\"", "`do` is missing"),
        ("target = \"internet\"", "needs a target"),
        ("op = \"==\"", "`op` is missing"),
    ] {
        mistake(line, "", expected);
    }
    let found = problems(
        "format = 1\nname = \"x\"\nduration = \"1s\"\n[topology]\nbase = \"two-line-town\"\n[plan]\nfile = \"town.toml\"\n",
    );
    assert!(found.iter().any(|(_, what)| what.contains("proves nothing")), "{found:?}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = GOOD
        .replace("seed = 1", "sead = 1")
        .replace("kind = \"session\"", "kind = \"x\"")
        .replace("=Soaking", "=S");
    let found = problems(&text);
    assert!(found.len() >= 3, "{found:?}");
    assert!(found.is_sorted(), "{found:?}");
}

#[test]
fn an_event_that_is_over_at_once_takes_no_duration() {
    let text = GOOD
        .replace("do = \"line.blackhole\"", "do = \"migrate.start\"")
        .replace("target = \"internet\"", "target = \"affairs/affairs\"");
    let found = problems(&text);
    assert!(
        found.iter().any(|(line, what)| *line == 31 && what.contains("does not take `for`")),
        "{found:?}"
    );
}

#[test]
fn broken_toml_is_a_problem_with_a_line_not_a_panic() {
    for cut in (0..GOOD.len()).filter(|at| GOOD.is_char_boundary(*at)) {
        let _ = parse(&GOOD[..cut]);
    }
    assert!(problems("format = = 1\n").iter().any(|(line, _)| *line == 1));
}

#[test]
fn every_shipped_scenario_is_valid_and_names_what_must_break_it() {
    let files = shipped_scenarios().unwrap();
    assert!(files.len() >= 10, "only {} scenarios are shipped", files.len());
    for file in files {
        let scenario = Scenario::read(&file).unwrap_or_else(|e| panic!("{e}"));
        assert!(scenario.sabotage.is_some(), "{} names no mechanism that must make it fail", file.display());
        assert!(!scenario.needs.is_empty(), "{} names no need", file.display());
        assert!(
            scenario.expectations.iter().any(|e| !e.metric.starts_with("agent.")),
            "{} rests on the agent's own word alone",
            file.display()
        );
    }
}

#[test]
fn the_vocabulary_names_every_word_the_parser_takes() {
    let text = vocabulary::as_text();
    for event in vocabulary::events() {
        assert!(text.contains(event.name), "{} is not in the printed vocabulary", event.name);
    }
    let json = vocabulary::as_json();
    assert_eq!(json["loads"]["kinds"].as_array().map(Vec::len), Some(8));
}
