//! How soon and how surely lines are judged, in the lab's town with the real programs, and what the judging costs others.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use seimon_ipc::control::{Command, Response};
use seimon_sim::runs::losses;
use seimon_sim::town::{Town, TownKind};

use super::Bench;
use super::lived::{READY, Say, town, town_with};
use crate::capture::{packet, pcap};
use crate::load::spec::{Family, Kind, LoadSpec};
use crate::result::{Check, Goal};
use crate::runner::{self, ask};
use crate::world::{Happening, World};

/// How often the line dies, and ails in each way.
const DEATHS: usize = 5;
/// For a move without anybody at work: qualifying and soak of the lab's plan, with time to spare.
const MOVE: Duration = Duration::from_secs(60);
/// An ailment that is not found by then is not found.
const AILING: Duration = Duration::from_secs(90);
/// A payload, not only a hand-shake.
const SERVED: usize = 200;
const SERVICES: usize = 20;
/// After the start, until only steady checks are left; and how long they are counted.
/// Until services are checked as at rest: with 20 over two paths each has its next turn after four minutes or so.
const SETTLE: Duration = Duration::from_secs(210);
const COUNTED: Duration = Duration::from_secs(120);
const HOURS: u64 = 100;

/// A town whose school affairs have moved to the direct line.
fn moved(bench: &Bench<'_>) -> Result<World> {
    let world = town(bench)?;
    let gateway = world.gateway()?;
    gateway.start(READY)?;
    std::thread::sleep(Duration::from_secs(6));
    let begun = Instant::now();
    loop {
        let said = gateway.ctl(&["migrate", "start", "affairs/affairs"])?;
        if said.code == 0 {
            break;
        }
        if begun.elapsed() > MOVE {
            bail!("the move was refused: {}{}", said.stdout, said.stderr);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    wait_for(&world, MOVE, |state, path| state == "Steady" && path == "direct")?;
    Ok(world)
}

/// Until the group is so; the time that it took.
fn wait_for(world: &World, most: Duration, so: impl Fn(&str, &str) -> bool) -> Result<Duration> {
    let (begun, socket) = (Instant::now(), world.gateway()?.control_socket());
    loop {
        if let Ok(Response::Status(status)) = ask(&socket, Command::Status) {
            let group = status.groups.iter().find(|g| g.zone.as_str() == "affairs");
            let path = group.and_then(|g| g.path.as_ref()).map(ToString::to_string).unwrap_or_default();
            if group.is_some_and(|group| so(&group.state, &path)) {
                return Ok(begun.elapsed());
            }
        }
        if begun.elapsed() > most {
            bail!("the group was not where it should be within {most:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The time from the line's silent death to the first page over the other line, by packets, against what the plan's numbers
/// make unavoidable: an echo's interval times the number of echoes, and a round trip.
pub(super) fn death_limit(bench: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    let mut ratios = Vec::new();
    for run in 1..=DEATHS {
        say(&format!("   a line dies silently, {run} of {DEATHS}"));
        ratios.push(die(bench)?);
    }
    let words: Vec<String> = ratios.iter().map(|r| format!("{r:.3}")).collect();
    let worst = ratios.into_iter().reduce(f64::max);
    let note = format!("the worst of {DEATHS}: {}", words.join(", "));
    Ok(vec![Check::number("silent_death_vs_limit", worst, "ratio", Goal::AtMost(1.2)).with_note(note)])
}

fn die(bench: &Bench<'_>) -> Result<f64> {
    let world = moved(bench)?;
    // Somebody new every ten milliseconds: who waits for a dead line's answer is no measure of when the other one serves.
    world.start_load(LoadSpec {
        count: 100,
        service: Some("affairs".into()),
        every: Some(Duration::from_millis(1_000)),
        family: Family::V4,
        ..LoadSpec::new("people", "affairs", Kind::Request)
    })?;
    std::thread::sleep(Duration::from_secs(4));
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("carrier.pcap");
    world.pcap("wan.carrier", &file)?;
    let died = SystemTime::now().duration_since(UNIX_EPOCH)?;
    world.perform(&Happening::new("line.blackhole", Some("internet")))?;
    std::thread::sleep(Duration::from_secs(5));
    let round_trip = world.wire("internet")?.config().delay * 2;
    let still_to_go = world.wire("carrier")?.config().delay;
    drop(world);
    let first = pcap::read(&file)?.into_iter().find(|(at, frame)| *at >= died && serves(frame));
    let (served, _) = first.context("nobody was served over the other line within five seconds")?;
    let thresholds = seimon_plan::Thresholds::default();
    let limit = thresholds.liveness_interval.0 * thresholds.down_lost + round_trip;
    Ok((served + still_to_go - died).as_secs_f64() / limit.as_secs_f64())
}

/// A page's packet to a client of the school, not to the gateway's own checks.
fn serves(frame: &[u8]) -> bool {
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 20, 1, 1);
    packet::parse(frame).is_some_and(|seen| {
        let to_client = match seen.destination {
            IpAddr::V4(to) => to.octets()[..3] == [10, 20, 1] && to != GATEWAY,
            IpAddr::V6(_) => false,
        };
        to_client && seen.source_port == 443 && seen.length > SERVED
    })
}

/// Twenty per cent lost, or long packets lost: until the group has left the line.
pub(super) fn brownout(bench: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    let lossy = Happening::new("line.set", Some("internet")).with("loss", 0.2);
    let stalls = Happening::new("line.set", Some("internet")).with("mtu", 1300).with("pmtu", "silent");
    let mut checks = Vec::new();
    for (name, happening) in [("brownout_s.loss", lossy), ("brownout_s.stall", stalls)] {
        say(&format!("   {name}"));
        let world = moved(bench)?;
        // Until the usual is known.
        std::thread::sleep(Duration::from_secs(10));
        world.perform(&happening)?;
        let took = wait_for(&world, AILING, |_, path| path == "closed").ok();
        let seconds = took.map(|took| took.as_secs_f64());
        checks.push(Check::number(name, seconds, "s", Goal::AtMost(60.0)));
    }
    let each: Option<Vec<f64>> = checks.iter().map(|check| check.value).collect();
    let worst = each.and_then(|each| each.into_iter().reduce(f64::max));
    checks.push(Check::number("brownout_s", worst, "s", Goal::AtMost(60.0)).with_note("the worse of both"));
    Ok(checks)
}

/// Packets that the gateway sends on the lines towards what is neither ours nor the municipality's, at rest.
pub(super) fn probes(bench: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    say(&format!("   {SERVICES} services, at rest for {} s", (SETTLE + COUNTED).as_secs()));
    let world = town_with(bench, &with_services()?)?;
    world.gateway()?.start(READY)?;
    std::thread::sleep(SETTLE);
    let folder = tempfile::tempdir()?;
    let files = ["carrier", "internet"].map(|line| (line, folder.path().join(line)));
    for (line, file) in &files {
        world.pcap(line, file)?;
    }
    std::thread::sleep(COUNTED);
    let (mut to, mut begun): (BTreeMap<&str, u64>, u64) = Default::default();
    for (_, file) in &files {
        for (_, frame) in pcap::read(file)? {
            if let Some(whose) = sent_to(&frame) {
                *to.entry(whose).or_default() += 1;
                begun += u64::from(whose == OTHERS && begins(&frame));
            }
        }
    }
    let (well, of) = services_well(&world)?;
    drop(world);
    let a_minute = |whose: &str| to.get(whose).copied().unwrap_or(0) as f64 * 60.0 / COUNTED.as_secs_f64();
    let note = format!(
        "{:.1} a minute, {begun} checks in {} s, {well} of {of} services over a path are well; to ours and the town's besides: {:.0}",
        a_minute(OTHERS),
        COUNTED.as_secs(),
        a_minute(OURS)
    );
    // No check at all would be cheap, and one that fails early.
    let value = (begun > 0 && well == of).then_some(a_minute(OTHERS));
    let goal = Goal::AtMost(200.0);
    Ok(vec![Check::number("probe_packets_per_site_per_min", value, "packets", goal).with_note(note)])
}

/// By the agent's word: how many services are known to be well, each over each path, and of how many.
fn services_well(world: &World) -> Result<(usize, usize)> {
    let socket = world.gateway()?.control_socket();
    let Response::Status(status) = ask(&socket, Command::Status)? else { bail!("no status") };
    let well = status.services.iter().filter(|service| service.health == "good").count();
    Ok((well, status.services.len()))
}

/// The first packet of a TCP connection.
fn begins(frame: &[u8]) -> bool {
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    let ip = frame.get(14..).unwrap_or_default();
    let tcp = match ip.first().map(|first| first >> 4) {
        Some(4) if ip.get(9) == Some(&6) => ip.get(usize::from(ip[0] & 0x0f) * 4..),
        Some(6) if ip.get(6) == Some(&6) => ip.get(40..),
        Some(_) | None => None,
    };
    tcp.and_then(|tcp| tcp.get(13)).is_some_and(|flags| flags & (SYN | ACK) == SYN)
}

const OURS: &str = "ours";
const OTHERS: &str = "others";

/// Whose is what this frame, sent by the gateway, goes to? None: the gateway did not send it, or to a neighbour.
fn sent_to(frame: &[u8]) -> Option<&'static str> {
    let seen = packet::parse(frame).filter(|_| !packet::is_between_neighbours(frame))?;
    let of_school = |address: IpAddr| match address {
        IpAddr::V4(a) => matches!(a.octets(), [10, 10, 0, 1] | [192, 0, 2, 2] | [10, 20, ..]),
        IpAddr::V6(a) => a.segments()[..4] == [0x2001, 0xdb8, 2, 0] && a.segments()[7] == 2,
    };
    // The municipality's echo service and its servers in the town hall.
    let of_town = |address: IpAddr| match address {
        IpAddr::V4(a) => a == Ipv4Addr::new(203, 0, 113, 7) || a.octets()[..2] == [10, 50],
        IpAddr::V6(a) => a.segments() == [0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 7],
    };
    let multicast = seen.destination.is_multicast();
    (of_school(seen.source) && !multicast).then_some(if of_town(seen.destination) { OURS } else { OTHERS })
}

/// The lab's plan with so many services that have a health check.
fn with_services() -> Result<String> {
    let text = runner::plan_text("town.toml", Path::new("town.toml"), &[&BTreeMap::new()])?;
    let mut plan: toml::Table = text.parse()?;
    let services = plan.get_mut("services").and_then(|s| s.as_table_mut()).context("services")?;
    let checked = services.values().filter(|service| service.get("health").is_some()).count();
    let more: Vec<String> = (1..=SERVICES - checked).map(|n| format!("svc{n:02}")).collect();
    for id in &more {
        let name = format!("{id}.school.example");
        let table = format!(
            "group = \"learning\"\nnames = [\"{name}\"]\nports = [\"tcp/443\"]\n\
             health = {{ name = \"{name}\", path = \"/health\", body = \"healthy\", ca_file = \"lab-ca.pem\" }}"
        );
        services.insert(id.clone(), table.parse::<toml::Table>()?.into());
    }
    let permits = plan.get_mut("permits").and_then(|p| p.as_array_mut()).context("permits")?;
    for id in &more {
        let table = format!(
            "from = \"learning\"\nto = \"service:{id}\"\nwho = \"bench\"\nwhy = \"bench\"\nuntil = \"2029-03-31\""
        );
        permits.push(table.parse::<toml::Table>()?.into());
    }
    Ok(toml::to_string(&plan)?)
}

/// A hundred hours with five per cent of all packets lost on every path, through health and the machine that moves, in virtual
/// time with the default thresholds.
pub(super) fn false_moves(_: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    say(&format!("   {HOURS} hours of loss in virtual time, four times"));
    let seen = losses(&Town::build(TownKind::TwoLines)?, HOURS, 1);
    let words: Vec<String> =
        seen.iter().map(|(name, w)| format!("{name}: {} of {} echoes lost", w.lost, w.echoes)).collect();
    let whole = seen.len() == 4 && seen.iter().all(|(_, w)| w.lost * 25 > w.echoes);
    let moves = seen.iter().map(|(_, w)| w.moves).sum::<u64>() as f64;
    let check = Check::number("false_moves_100h", whole.then_some(moves), "count", Goal::Equal(0.0));
    Ok(vec![check.with_note(words.join("; "))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_benchs_plan_is_valid_and_has_so_many_services_to_check() {
        let board = seimon_board::Board::shipped("lab-namespace").unwrap();
        let plan = seimon_plan::parse(&with_services().unwrap(), "plan.toml", &board).unwrap();
        assert_eq!(plan.services.values().filter(|s| s.health.is_some()).count(), SERVICES);
    }

    #[test]
    fn only_what_the_gateway_sends_to_strangers_counts() {
        let frame = |from: [u8; 4], to: [u8; 4]| {
            let mut frame = vec![0; 12];
            frame.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
            frame.extend(from);
            frame.extend(to);
            frame.extend([0; 8]);
            frame
        };
        assert_eq!(sent_to(&frame([192, 0, 2, 2], [203, 0, 113, 10])), Some(OTHERS));
        assert_eq!(sent_to(&frame([10, 20, 1, 1], [203, 0, 113, 53])), Some(OTHERS));
        assert_eq!(sent_to(&frame([192, 0, 2, 2], [203, 0, 113, 7])), Some(OURS));
        assert_eq!(sent_to(&frame([10, 10, 0, 1], [10, 50, 0, 53])), Some(OURS));
        assert_eq!(sent_to(&frame([203, 0, 113, 10], [192, 0, 2, 2])), None);
    }
}
