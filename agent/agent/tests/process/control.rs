//! The control and metrics sockets, and peers who do not behave.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use seimon_ipc::control::{Command, Follow, Response, Status};

use crate::harness::agent::{Agent, Setup};
use crate::harness::control::{Control, Sockets};
use crate::harness::traffic::echo_service;
use crate::harness::world::in_world;
use crate::harness::{secs, until};

fn answers(agent: &Agent) -> Result<()> {
    let begun = std::time::Instant::now();
    agent.sockets.status()?;
    ensure!(begun.elapsed() < secs(2), "an answer took {:?}", begun.elapsed());
    Ok(())
}

#[test]
fn garbage_is_answered_with_what_is_wrong_and_harms_nobody_else() -> Result<()> {
    in_world(|world| {
        let agent = Setup::new(world).start()?;
        let mut control = agent.sockets.connect()?;
        for line in [
            "\n",
            "hello\n",
            "{}\n",
            "[[[[[[\n",
            "{\"version\":1}\n",
            "{\"version\":1,\"request\":{\"command\":\"format_disk\"}}\n",
            "{\"version\":1,\"request\":{\"command\":\"status\",\"force\":true}}\n",
            "{\"version\":1,\"request\":{\"command\":\"migrate\",\"zone\":\"NO ZONE\",\"group\":\"x\",\"action\":\"pause\"}}\n",
            "\u{0}\u{1}\u{2}\n",
        ] {
            control.send(line.as_bytes())?;
            let answer = control.response()?;
            ensure!(
                matches!(&answer, Response::Malformed { reason } if !reason.is_empty()),
                "{line:?}: {answer:?}"
            );
        }
        control.send(b"\xff\xfe\n")?;
        ensure!(matches!(control.response()?, Response::Malformed { .. }));
        control.send(&[b"[".repeat(100_000), b"\n".to_vec()].concat())?;
        ensure!(matches!(control.response()?, Response::Malformed { .. }));
        // The same connection is good for a good question.
        ensure!(matches!(control.ask(Command::Status)?, Response::Status(_)));
        // A question in two pieces, and two in one piece.
        control.send(b"{\"version\":1,\"request\":")?;
        answers(&agent)?;
        control
            .send(b"{\"command\":\"status\"}}\n{\"version\":1,\"request\":{\"command\":\"plan_show\"}}\n")?;
        ensure!(matches!(control.response()?, Response::Status(_)));
        ensure!(matches!(control.response()?, Response::Plan { .. }));
        agent.stop()
    })
}

#[test]
fn another_version_is_told_which_one_is_spoken() -> Result<()> {
    in_world(|world| {
        let agent = Setup::new(world).start()?;
        let mut control = agent.sockets.connect()?;
        control.send(b"{\"version\":2,\"request\":{\"command\":\"status\"}}\n")?;
        let answer = control.response()?;
        ensure!(
            matches!(&answer, Response::Malformed { reason } if reason.contains("version 1") && reason.contains('2')),
            "{answer:?}"
        );
        agent.stop()
    })
}

#[test]
fn an_endless_line_is_cut_off_and_costs_no_memory() -> Result<()> {
    in_world(|world| {
        let agent = Setup::new(world).start()?;
        let mut control = agent.sockets.connect()?;
        let chunk = vec![b'x'; 1 << 20];
        // The agent may hang up before all is sent.
        let sent = (0..10).take_while(|_| control.send(&chunk).is_ok()).count();
        ensure!(sent >= 7, "only {sent} MiB were taken");
        let said = control.line();
        ensure!(said.as_ref().is_ok_and(|line| line.contains("longer")) || said.is_err(), "{said:?}");
        ensure!(control.send(b"\n").is_err() || control.line().is_err(), "the connection is still open");
        answers(&agent)?;
        agent.stop()
    })
}

#[test]
fn followers_who_do_not_read_hold_up_nobody() -> Result<()> {
    in_world(|world| {
        let agent = Setup::new(world).start()?;
        let mut deaf = Vec::new();
        for _ in 0..20 {
            let mut control = agent.sockets.connect()?;
            let follow = seimon_ipc::control::Request {
                version: seimon_ipc::control::VERSION,
                request: Command::Events { follow: Follow::Yes, since: 0 },
            };
            control.send(&seimon_ipc::frame::encode(&follow)?)?;
            deaf.push(control);
        }
        // And one who asks and never reads the answers.
        let mut rude = agent.sockets.connect()?;
        for _ in 0..200 {
            if rude.send(b"{\"version\":1,\"request\":{\"command\":\"plan_show\"}}\n").is_err() {
                break;
            }
        }
        for _ in 0..5 {
            world.gw("nft flush ruleset")?;
            answers(&agent)?;
        }
        until(secs(5), "repairs", || Ok(agent.sockets.status()?.dataplane.repairs > 0))?;
        let mut listener = deaf.pop().context("a follower")?;
        let first: seimon_ipc::control::Event = serde_json::from_str(&listener.line()?)?;
        ensure!(first.seq == 1, "{first:?}");
        agent.stop()
    })
}

#[test]
fn a_hundred_connections_are_survived() -> Result<()> {
    in_world(|world| {
        let agent = Setup::new(world).start()?;
        let mut crowd = Vec::new();
        for _ in 0..100 {
            crowd.push(agent.sockets.connect()?);
        }
        let served = crowd.iter_mut().filter_map(|control| control.ask(Command::Status).ok()).count();
        ensure!((32..100).contains(&served), "{served} were served");
        drop(crowd);
        until(secs(3), "the next one is served", || Ok(agent.sockets.status().is_ok()))?;
        agent.stop()
    })
}

/// Asks as somebody else: the kernel names the user of the thread that connects.
fn ask_as(user: u32, sockets: &Sockets) -> Result<Option<Response>> {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let user = rustix::thread::Uid::from_raw(user);
                let group = rustix::thread::Gid::from_raw(user.as_raw());
                if rustix::thread::set_thread_groups(&[]).is_err()
                    || rustix::thread::set_thread_res_gid(group, group, group).is_err()
                    || rustix::thread::set_thread_res_uid(user, user, user).is_err()
                {
                    return Ok(None);
                }
                let mut control = Control::connect(&sockets.control())?;
                Ok(Some(control.ask(Command::Status)?))
            })
            .join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))?
    })
}

#[test]
fn a_stranger_is_refused_even_where_the_file_lets_everybody_in() -> Result<()> {
    in_world(|world| {
        let agent = Setup::new(world).start()?;
        let socket = agent.sockets.control();
        let mode = std::fs::metadata(&socket)?.permissions().mode() & 0o777;
        ensure!(mode == 0o660, "{mode:o}");
        let kept_out = match ask_as(65_534, &agent.sockets) {
            Ok(None) => {
                eprintln!("skipped: no other user can be had here");
                return agent.stop();
            }
            answer => answer.is_err(),
        };
        ensure!(kept_out, "the file's mode does not keep a stranger out");
        world.sh(&format!("chmod 755 {0} {0}/run; chmod 666 {0}/run/*.sock", world.path("").display()))?;
        let answer = ask_as(65_534, &agent.sockets)?;
        ensure!(
            matches!(&answer, Some(Response::NotAllowed { reason }) if reason.contains("65534")),
            "{answer:?}"
        );
        answers(&agent)?;
        agent.stop()
    })
}

/// The exposition format, as far as we use it: families with help and type, samples without doubles.
fn check_exposition(text: &str) -> Result<()> {
    ensure!(text.ends_with('\n'));
    let (mut family, mut families, mut samples) = (String::new(), BTreeMap::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').context("help")?;
            ensure!(!help.is_empty());
            ensure!(families.insert(name.to_owned(), "").is_none(), "{name} comes twice");
            family = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').context("type")?;
            ensure!(name == family && ["gauge", "counter"].contains(&kind), "{line}");
            ensure!(kind != "counter" || name.ends_with("_total"), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
            ensure!(value == "NaN" || value.parse::<f64>().is_ok(), "{line}");
            ensure!(samples.insert(sample), "twice: {sample}");
            let name = sample.split('{').next().unwrap_or_default();
            ensure!(name == family, "{line} is not of {family}");
            let good = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
            ensure!(name.chars().all(good), "{line}");
            if let Some(labels) = sample.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                let inner = labels.strip_prefix('{').and_then(|l| l.strip_suffix('}')).context("labels")?;
                for pair in inner.split("\",") {
                    let (key, value) = pair.split_once("=\"").with_context(|| line.to_owned())?;
                    ensure!(!key.is_empty() && key.chars().all(good) && !value.contains('\n'), "{line}");
                }
            }
        }
    }
    ensure!(samples.len() > 20, "{text}");
    Ok(())
}

/// Both open zones use the learning group: everything about it is there twice.
const SHARED: &str = "
[[permits]]
from = \"affairs\"
to = \"service:learning\"
who = \"教育委員会\"
why = \"授業の準備\"
until = \"2029-03-31\"

[[migration.routes]]
zone = \"affairs\"
group = \"learning\"
paths = [\"closed\", \"direct\"]

[[migration.routes]]
zone = \"affairs\"
";

#[test]
fn metrics_are_text_that_a_collector_reads() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        let plan =
            crate::harness::world::PLAN.replacen("\n[[migration.routes]]\nzone = \"affairs\"\n", SHARED, 1);
        std::fs::write(world.path("plan.toml"), plan)?;
        let agent = Setup::new(world).start()?;
        check_exposition(&agent.sockets.metrics()?)?;
        until(secs(10), "services are looked at", || Ok(!agent.sockets.status()?.services.is_empty()))?;
        check_exposition(&agent.sockets.metrics()?)?;
        agent.stop()
    })
}

#[test]
fn a_status_has_exactly_the_documented_fields() -> Result<()> {
    in_world(|world| {
        let agent = Setup::new(world).start()?;
        let mut control = agent.sockets.connect()?;
        control.send(b"{\"version\":1,\"request\":{\"command\":\"status\"}}\n")?;
        let raw: serde_json::Value = serde_json::from_str(&control.line()?)?;
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../../../docs/control.schema.json"))?;
        let documented = schema.pointer("/$defs/Status/properties").context("Status in the schema")?;
        let documented: BTreeSet<&String> = documented.as_object().context("an object")?.keys().collect();
        let object = raw.as_object().context("an object")?;
        let sent: BTreeSet<&String> = object.keys().filter(|key| *key != "result").collect();
        let required = schema.pointer("/$defs/Status/required").and_then(|keys| keys.as_array());
        let required = required.context("what a status must have")?;
        let missing: Vec<_> =
            required.iter().filter(|key| raw.get(key.as_str().unwrap_or("?")).is_none()).collect();
        ensure!(missing.is_empty() && !required.is_empty(), "not sent: {missing:?}");
        ensure!(sent.is_subset(&documented), "{sent:?} {documented:?}");
        // And nothing in it gets lost on the way through our own types.
        let status: Status = serde_json::from_value(raw.clone())?;
        let again = serde_json::to_value(Response::Status(Box::new(status)))?;
        ensure!(again == raw, "{again}\n{raw}");
        agent.stop()
    })
}
