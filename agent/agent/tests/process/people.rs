//! What the people at the school see and take away: the status page, the acceptance test, the use of a line, the
//! diagnostic pack.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, Result, bail, ensure};
use ring::signature::{ED25519, UnparsedPublicKey};
use seimon_ipc::control::{Command, Response};
use seimon_ipc::report::{AcceptanceReport, AcceptanceRun, LineUse, SignedReport, Topic, Verdict};
use seimon_plan::LineId;

use crate::harness::agent::{Agent, Setup, process_fact, processes};
use crate::harness::traffic::{Sender, Sink, at_work, echo_service, name_service};
use crate::harness::world::{in_world, inside};
use crate::harness::{eventually, millis, secs, until};

/// What a browser at the node is shown; `None`: nobody answers there.
fn browse(node: &str, address: &str) -> Result<Option<String>> {
    let address: SocketAddr = address.parse()?;
    inside(node, || {
        let Ok(mut stream) = TcpStream::connect_timeout(&address, millis(500)) else { return Ok(None) };
        stream.set_read_timeout(Some(secs(5)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: seimon\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(Some(text))
    })
}

#[test]
fn every_zone_sees_the_status_page_over_both_families_and_no_line_does() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        let agent = Setup::new(world).start()?;
        for (node, address) in [
            ("affairs", "10.20.1.1:80"),
            ("affairs", "[fd20:0:0:1::1]:80"),
            ("learning", "10.20.2.1:80"),
            ("printers", "10.20.3.1:80"),
        ] {
            until(secs(20), "the page says that all is well", || {
                let page = browse(node, address)?.unwrap_or_default();
                Ok(page.starts_with("HTTP/1.1 200")
                    && page.contains("今あなたがすることはありません。")
                    && page.contains("lamp green"))
            })
            .with_context(|| format!("{node} {address}: {:?}\n{}", browse(node, address), agent.log()))?;
        }
        ensure!(browse("carrier", "10.10.0.1:80")?.is_none(), "shown to a line");
        ensure!(browse("learning", "10.20.1.1:80")?.is_none(), "another zone's address");
        let [pid] = processes("seimon-page")[..] else { bail!("not one server") };
        for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            let held = process_fact(pid, set)?;
            ensure!(held.chars().all(|digit| digit == '0'), "{set} {held}");
        }
        // Killed, it is back; the network does not notice.
        world.sh(&format!("kill -9 {pid}"))?;
        until(secs(5), "the page is back", || Ok(browse("affairs", "10.20.1.1:80")?.is_some()))?;
        agent.stop()?;
        ensure!(processes("seimon-page").is_empty());
        Ok(())
    })
}

fn finished_test(agent: &Agent) -> Result<SignedReport> {
    agent.sockets.ask(Command::Acceptance { run: AcceptanceRun::Begin })?;
    eventually(secs(115), "the acceptance test is over", || {
        let answer = agent.sockets.ask(Command::Acceptance { run: AcceptanceRun::Look })?;
        let Response::Acceptance(progress) = answer else { bail!("{answer:?}") };
        Ok(progress.report)
    })
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    (0..hex.len()).step_by(2).map(|at| Ok(u8::from_str_radix(&hex[at..at + 2], 16)?)).collect()
}

#[test]
fn an_acceptance_test_is_over_in_time_signed_and_true_about_what_is_not_there() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        name_service(std::net::Ipv4Addr::new(203, 0, 113, 10))?;
        let agent = Setup::new(world).start()?;
        until(secs(15), "paths up", || {
            Ok(agent.sockets.status()?.paths.iter().all(|path| path.health == "up"))
        })?;
        let signed = finished_test(&agent).with_context(|| agent.log())?;
        UnparsedPublicKey::new(&ED25519, bytes(&signed.public_key)?)
            .verify(signed.report.as_bytes(), &bytes(&signed.signature)?)
            .map_err(|_| anyhow::anyhow!("the signature does not fit"))?;
        let report: AcceptanceReport = serde_json::from_str(&signed.report)?;
        ensure!(report.took_ms < 105_000, "{} ms", report.took_ms);
        let of = |topic| report.rows.iter().filter(move |row| row.topic == topic);
        for topic in [Topic::Line, Topic::Names, Topic::Separation] {
            ensure!(of(topic).count() > 1, "{topic:?}");
            for row in of(topic) {
                ensure!(row.verdict == Verdict::Ok, "{row:?}\n{}", agent.log());
            }
        }
        // There are no services, no printer and no file server in this town.
        for topic in [Topic::Service, Topic::Identity, Topic::Printer, Topic::FileServer] {
            ensure!(of(topic).count() > 0, "{topic:?}");
            for row in of(topic) {
                ensure!(row.verdict == Verdict::Failed && row.whose.is_some(), "{row:?}");
            }
        }
        ensure!(of(Topic::Speed).all(|row| row.verdict == Verdict::CannotTell));
        // Traffic and moves go on as before.
        ensure!(agent.sockets.status()?.dataplane.verified);
        agent.stop()?;
        Ok(())
    })
}

fn line_use(agent: &Agent) -> Result<LineUse> {
    let line = LineId::new("carrier")?;
    let answer = agent.sockets.ask(Command::LineUse { line, days: 35 })?;
    let Response::LineUse(line_use) = answer else { bail!("{answer:?}") };
    Ok(*line_use)
}

#[test]
fn who_uses_a_line_is_counted_and_remembered() -> Result<()> {
    in_world(|world| {
        let setup = Setup::new(world);
        let (agent, _sink, sender) = at_work(&setup)?;
        let seen = |answer: &LineUse| {
            answer.stragglers.iter().any(|straggler| {
                straggler.kind.en.contains("udp/9999")
                    && straggler.zone.as_ref().is_some_and(|zone| zone.as_str() == "learning")
            })
        };
        until(secs(40), "the sender is counted", || Ok(seen(&line_use(&agent)?)))?;
        let answer = line_use(&agent)?;
        ensure!(!answer.may_cancel && !answer.reasons.is_empty(), "{answer:?}");
        drop(sender);
        agent.stop()?;
        let agent = setup.start()?;
        ensure!(seen(&line_use(&agent)?), "{:?}", line_use(&agent));
        agent.stop()?;
        Ok(())
    })
}

/// Where an adapter registers that makes an internet telephone line of a fax machine.
const TELEPHONY: &str = "203.0.113.99:5060";

#[test]
fn a_fax_adapter_on_the_old_line_keeps_it_and_is_named_without_its_address() -> Result<()> {
    in_world(|world| {
        let sink = Sink::listen("carrier", TELEPHONY)?;
        let agent = Setup::new(world).start()?;
        let adapter = Sender::start("learning", TELEPHONY)?;
        sink.wait_more(secs(5))?;
        let answer = eventually(secs(40), "the adapter is counted", || {
            let answer = line_use(&agent)?;
            Ok((!answer.stragglers.is_empty()).then_some(answer))
        })?;
        drop(adapter);
        let [straggler] = answer.stragglers.as_slice() else { bail!("{answer:?}") };
        ensure!(straggler.kind.ja == "FAX や電話の変換機" && !answer.may_cancel, "{answer:?}");
        ensure!(straggler.zone.as_ref().is_some_and(|zone| zone.as_str() == "learning"), "{answer:?}");
        ensure!(
            answer.last_flow.is_some() && answer.sentence.ja.contains("まだ解約できません"),
            "{answer:?}"
        );
        // The line that it does not use is not held by it.
        let other = agent.sockets.ask(Command::LineUse { line: LineId::new("internet")?, days: 35 })?;
        let Response::LineUse(other) = other else { bail!("{other:?}") };
        ensure!(other.stragglers.is_empty() && other.last_flow.is_none(), "{other:?}");
        // Neither the answer nor what is kept says which machine it was.
        let told = serde_json::to_string(&answer)?;
        agent.stop()?;
        let journal = std::fs::read(world.path("state").join("journal"))?;
        let kept = String::from_utf8_lossy(&journal);
        ensure!(kept.contains("fax"), "nothing was written down");
        for text in [told.as_str(), &kept] {
            ensure!(!text.contains("10.20.2.100") && !text.contains("203.0.113.99"), "an address: {text}");
        }
        Ok(())
    })
}

#[test]
fn a_diagnostic_pack_leads_to_nobody() -> Result<()> {
    in_world(|world| {
        let (agent, _sink, _sender) = at_work(&Setup::new(world))?;
        let Response::Diagnostics(pack) = agent.sockets.ask(Command::Diagnostics)? else { bail!("no pack") };
        for name in [
            "about.txt",
            "status.json",
            "events.jsonl",
            "metrics.txt",
            "plan.json",
            "lines.json",
            "ports.txt",
        ] {
            ensure!(pack.files.get(name).is_some_and(|text| !text.is_empty()), "{name} is missing or empty");
        }
        let mut secrets: Vec<String> =
            ["10.20.1.100", "10.20.2.100", "教育委員会", "事務室", "0000-00-0000"].map(str::to_owned).into();
        for node in ["affairs", "learning", "printers"] {
            secrets.push(world.at(node, "cat /sys/class/net/eth0/address")?.trim().to_owned());
        }
        for (name, text) in &pack.files {
            for secret in &secrets {
                ensure!(!text.contains(secret.as_str()), "{secret} in {name}:\n{text}");
            }
        }
        // The plan as it was written has what must not be in the pack.
        let (plan, _) = agent.sockets.plan()?;
        ensure!(plan.contains("教育委員会"), "nothing was proven");
        agent.stop()?;
        Ok(())
    })
}
