//! The acceptance test in the lab's town: how long it takes, and whether it names exactly what is broken and whose job that is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use seimon_ipc::control::{Command, Response};
use seimon_ipc::report::{AcceptanceReport, AcceptanceRow, SignedReport, Topic, Verdict, Whose};

use super::Bench;
use super::lived::{READY, Say};
use crate::result::{Check, Goal};
use crate::runner::{self, ask};
use crate::world::gateway::{GatewayConfig, Trust};
use crate::world::params::Topology;
use crate::world::{Happening, Undo, World};

/// Until the gateway has seen what happened to a line.
const NOTICED: Duration = Duration::from_secs(20);
/// So slow that no machine's slowness is mistaken for the line's: bits a second, of both lines.
const RATE: i64 = 60_000_000;
const LONGEST: f64 = 120.0;

/// Event, target, further keys.
type Broken = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// What is done to the town, and what the test must find wrong.
struct Case {
    name: &'static str,
    happens: &'static [Broken],
    printer: Printer,
    /// The health of the direct path that is waited for.
    direct: &'static str,
    /// Rows that fail besides the lines' speed: topic, what the subject says, whose job.
    failed: &'static [(Topic, &'static str, Whose)],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Printer {
    On,
    Off,
}

const LINE: &str = "新しいインターネット回線";
const PRINTER: &str = "職員室のプリンター";

const CASES: [Case; 7] = [
    Case { name: "nothing is broken", happens: &[], printer: Printer::On, direct: "up", failed: &[] },
    Case {
        name: "a dead line",
        happens: &[("line.blackhole", "internet", &[])],
        printer: Printer::On,
        direct: "down",
        failed: &[(Topic::Line, LINE, Whose::Carrier)],
    },
    Case {
        name: "a cable that is out, and the printer is off",
        happens: &[("line.cut", "internet", &[])],
        printer: Printer::Off,
        direct: "down",
        failed: &[(Topic::Line, LINE, Whose::School), (Topic::Printer, PRINTER, Whose::School)],
    },
    Case {
        name: "the printer is off",
        happens: &[],
        printer: Printer::Off,
        direct: "up",
        failed: &[(Topic::Printer, PRINTER, Whose::School)],
    },
    Case {
        name: "an address that is not registered",
        happens: &[("service.register", "affairs", &[("egress", "closed")])],
        printer: Printer::On,
        direct: "up",
        failed: &[(Topic::Service, LINE, Whose::Municipality)],
    },
    Case {
        name: "a log-in window that is ill",
        happens: &[("service.ill", "idp", &[("how", "500")])],
        printer: Printer::On,
        direct: "up",
        failed: &[
            (Topic::Identity, "これまでの専用の回線", Whose::Provider),
            (Topic::Identity, LINE, Whose::Provider),
        ],
    },
    Case {
        name: "a service that accepts connections and says nothing",
        happens: &[("service.ill", "affairs", &[("how", "no-answer")])],
        printer: Printer::On,
        direct: "up",
        failed: &[
            (Topic::Service, "これまでの専用の回線", Whose::Provider),
            (Topic::Service, LINE, Whose::Provider),
        ],
    },
];

/// Plays every case in one town; the longest test and the number of cases that were judged wrongly decide.
pub(super) fn acceptance(bench: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    let world = town(bench)?;
    world.gateway()?.start(READY)?;
    let (mut longest, mut wrong, mut times) = (0.0_f64, Vec::new(), Vec::new());
    for case in &CASES {
        let undos = happen(&world, case)?;
        wait_for(&world, case.direct).with_context(|| case.name)?;
        let begun = Instant::now();
        let report = test(&world)?;
        let seconds = begun.elapsed().as_secs_f64();
        let mistakes = mistakes(case, &report);
        say(&format!(
            "   {}: {seconds:.1} s, {} rows, {}",
            case.name,
            report.rows.len(),
            if mistakes.is_empty() { "as it is".to_owned() } else { mistakes.join("; ") }
        ));
        longest = longest.max(seconds);
        times.push(format!("{} {seconds:.0}", case.name));
        wrong.extend(mistakes.iter().map(|mistake| format!("{}: {mistake}", case.name)));
        take_back(&world, case, undos)?;
    }
    let time = Check::number("acceptance_s", Some(longest), "s", Goal::AtMost(LONGEST));
    let rows = Check::number("acceptance.wrong_rows", Some(wrong.len() as f64), "count", Goal::Equal(0.0));
    let rows = if wrong.is_empty() { rows } else { rows.with_note(wrong.join("; ")) };
    Ok(vec![time.with_note(times.join(", ")), rows])
}

fn town(bench: &Bench<'_>) -> Result<World> {
    let mut topology = Topology::new("two-line-town")?;
    for line in ["carrier", "internet"] {
        topology.set(&format!("lines.{line}.rate"), &RATE.into())?;
    }
    let world = World::raise(&topology, 1)?;
    world.use_agent(GatewayConfig {
        agent: bench.bin_dir.join("seimon-agent"),
        plan: runner::plan_text("town.toml", Path::new("town.toml"), &[&BTreeMap::new()])?,
        board: runner::board_file(),
        without: Vec::new(),
        clock_trusted: Trust::Trusted,
    })?;
    Ok(world)
}

fn happen(world: &World, case: &Case) -> Result<Vec<Undo>> {
    if case.printer == Printer::Off {
        printer(world, "link set port down")?;
    }
    let events = case.happens.iter().map(|(what, target, keys)| {
        let event = Happening::new(what, Some(target));
        world.perform(&keys.iter().fold(event, |event, (key, value)| event.with(key, *value)))
    });
    events.collect()
}

fn take_back(world: &World, case: &Case, undos: Vec<Undo>) -> Result<()> {
    if case.printer == Printer::Off {
        printer(world, "link set port up")?;
        // It went with the link.
        printer(world, "route replace default via 10.20.3.1")?;
    }
    undos.into_iter().try_for_each(|undo| world.undo(undo))?;
    wait_for(world, "up")
}

fn printer(world: &World, line: &str) -> Result<()> {
    let status = world.command("printers", "ip")?.args(line.split(' ')).status()?;
    if !status.success() {
        bail!("ip {line}: {status}");
    }
    Ok(())
}

/// The closed path is always up.
fn wait_for(world: &World, direct: &str) -> Result<()> {
    let socket = world.gateway()?.control_socket();
    let begun = Instant::now();
    loop {
        if let Response::Status(status) = ask(&socket, Command::Status)?
            && status
                .paths
                .iter()
                .all(|path| path.health == if path.path.as_str() == "direct" { direct } else { "up" })
        {
            return Ok(());
        }
        if begun.elapsed() > NOTICED {
            bail!("the direct path does not get {direct}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// As somebody at the gateway runs it.
fn test(world: &World) -> Result<AcceptanceReport> {
    let told = world.gateway()?.ctl(&["--json", "acceptance"])?;
    // 1: a row has failed.
    if !matches!(told.code, 0 | 1) {
        bail!("seimonctl acceptance: {} {}", told.code, told.stderr);
    }
    let signed: SignedReport = serde_json::from_str(&told.stdout)
        .with_context(|| format!("seimonctl acceptance: {} {}", told.stdout, told.stderr))?;
    serde_json::from_str(&signed.report).context("the report")
}

/// What the report says and the town is not, and the other way round.
fn mistakes(case: &Case, report: &AcceptanceReport) -> Vec<String> {
    let mut mistakes = Vec::new();
    let failed: Vec<&AcceptanceRow> =
        report.rows.iter().filter(|row| row.verdict == Verdict::Failed).collect();
    let is = |row: &AcceptanceRow, (topic, subject, whose): &(Topic, &str, Whose)| {
        row.topic == *topic && row.subject.ja.contains(subject) && row.whose == Some(*whose)
    };
    for wanted in case.failed {
        if failed.iter().filter(|row| is(row, wanted)).count() != 1 {
            mistakes.push(format!("{} is not named once as the job of {:?}", wanted.1, wanted.2));
        }
    }
    for row in &failed {
        // The lines are slow on purpose.
        let slow = row.topic == Topic::Speed && row.whose == Some(Whose::Carrier);
        if !slow && !case.failed.iter().any(|wanted| is(row, wanted)) {
            mistakes.push(format!("named: {} ({}, {:?})", row.subject.ja, row.found.ja, row.whose));
        }
    }
    // What cannot be told is what needs the dead line, and nothing else.
    let unsure: BTreeSet<&str> = report
        .rows
        .iter()
        .filter(|row| {
            row.verdict == Verdict::CannotTell && !(case.direct == "down" && row.subject.ja.contains(LINE))
        })
        .map(|row| row.subject.ja.as_str())
        .collect();
    mistakes.extend(unsure.into_iter().map(|subject| format!("cannot tell: {subject}")));
    let slow =
        report.rows.iter().filter(|row| row.topic == Topic::Speed && row.verdict == Verdict::Failed).count();
    let lines = if case.direct == "down" { 1 } else { 2 };
    if slow != lines {
        mistakes.push(format!("{slow} of {lines} slow lines were found slow"));
    }
    mistakes
}
