//! Flows that have left the rules. Needs a kernel with flowtables.

use std::io::ErrorKind;
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use seimon_core::network_plan::{Change, Dataplane as _, FlowKill, PathChoice, diff, end_flows};
use seimon_core::segmentation::ended;
use seimon_dataplane::Linux;

use crate::probing::{connect, who};
use crate::schools;
use crate::world::{FAR, FAR6, HUB, World, compiled, in_namespaces, path, sh, zone};

const AFFAIRS: &str = "affairs.school.example";
/// A flow may be asked so often before all of it has left: its first packets make it known.
const FIRST: usize = 3;
const MORE: usize = 20;
const TIGHTENED_WITHIN: Duration = Duration::from_secs(1);

/// Says `skipped` and tells `false` where the kernel lacks them.
fn has_flowtables() -> Result<bool> {
    let has = Linux::open()?.has_flowtables()?;
    if !has {
        eprintln!("skipped: this kernel has no flowtables");
    }
    Ok(has)
}

/// Counts what meets the rules between interfaces.
fn count_forwarded() -> Result<()> {
    sh(
        "gw",
        "nft 'table inet others { counter seen { }; chain last { type filter hook forward priority 300; counter name seen; }; }'",
    )?;
    Ok(())
}

fn forwarded() -> Result<u64> {
    let listing = sh("gw", "nft list counter inet others seen")?;
    let words: Vec<&str> = listing.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "packets").context("a counter")?;
    Ok(words[at + 1].parse()?)
}

/// How many packets met the rules while the flow was asked many times; who answers is always the same.
fn met_rules(stream: &mut TcpStream, by: &str) -> Result<u64> {
    for _ in 0..FIRST {
        ensure!(who(stream)? == by, "not {by}");
    }
    let before = forwarded()?;
    for _ in 0..MORE {
        ensure!(who(stream)? == by, "not {by}");
    }
    Ok(forwarded()? - before)
}

fn bytes(world: &mut World, stream: &TcpStream) -> Result<u64> {
    let port = stream.local_addr()?.port();
    let flows = world.linux.flows()?;
    Ok(flows.iter().find(|flow| flow.source_port == port).context("the flow is not known any more")?.bytes)
}

/// Until the other end is gone, which must be told by a reset.
fn reset_after(stream: &mut TcpStream) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        match who(stream) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(begun.elapsed()),
            Err(error) => return Err(error).context("no reset"),
            Ok(_) => ensure!(begun.elapsed() < Duration::from_secs(5), "it goes on"),
        }
    }
}

#[test]
fn a_flow_under_way_leaves_the_rules_keeps_its_path_through_a_move_and_is_counted() -> Result<()> {
    if !has_flowtables()? {
        return Ok(());
    }
    in_namespaces(|| {
        let mut world = World::raise(schools::two_line_town()?)?;
        count_forwarded()?;
        let service = world.inside4("affairs", AFFAIRS)?;
        let mut old = connect("affairs", (service, 443).into())?;
        let met = met_rules(&mut old, "carrier")?;
        ensure!(met == 0, "{met} packets of a flow under way met the rules");
        world.choose("affairs", "affairs", &PathChoice::On(path("direct")))?;
        let before = bytes(&mut world, &old)?;
        let met = met_rules(&mut old, "carrier")?;
        ensure!(met == 0, "{met} packets after the move");
        let carried = bytes(&mut world, &old)? - before;
        ensure!(carried > 40 * MORE as u64, "{carried} bytes were counted");
        let closed = world.net.allocation.paths[&path("closed")];
        let mark = |world: &mut World| -> Result<_> {
            Ok(world.linux.flows()?.iter().find(|flow| flow.mark.path() == Some(closed)).cloned())
        };
        ensure!(mark(&mut world)?.is_some_and(|flow| flow.answered));
        // A path that has died: its flows end, and are told so.
        let mut other = connect("learning", (FAR, 443).into())?;
        let direct = met_rules(&mut other, "carrier").or_else(|_| met_rules(&mut other, "internet"))?;
        ensure!(direct == 0, "{direct} packets of the other flow");
        let group = world
            .net
            .allocation
            .zone_groups
            .iter()
            .find(|((z, _), _)| *z == zone("affairs"))
            .context("a group")?;
        let kill = FlowKill { path: Some(closed), zone_group: Some(*group.1), ..FlowKill::default() };
        end_flows(&mut world.linux, &world.net.ruleset, &kill)?;
        let took = reset_after(&mut old)?;
        ensure!(took < TIGHTENED_WITHIN, "{took:?}");
        for _ in 0..MORE {
            who(&mut other).context("another zone's flow")?;
        }
        let before = forwarded()?;
        who(&mut other)?;
        ensure!(forwarded()? == before, "it has not found its way back into the flowtable");
        Ok(())
    })
}

#[test]
fn what_is_taken_out_of_the_plan_ends_within_a_second_and_nothing_else_does() -> Result<()> {
    if !has_flowtables()? {
        return Ok(());
    }
    in_namespaces(|| {
        let mut world = World::raise(schools::six_zones()?)?;
        count_forwarded()?;
        let mut flows: Vec<(&str, TcpStream)> = Vec::new();
        for (node, to, by) in [
            ("staff", "10.20.3.100".parse::<IpAddr>()?, "printers"),
            ("staff", "fd20:0:0:3::100".parse()?, "printers"),
            ("affairs", "10.20.3.100".parse()?, "printers"),
            ("affairs", HUB.into(), "carrier"),
            ("guest", FAR.into(), "internet"),
            ("guest", FAR6.into(), "internet"),
        ] {
            let port = if by == "printers" { 631 } else { 443 };
            let mut stream = connect(node, (to, port).into())?;
            let met = met_rules(&mut stream, by)?;
            ensure!(met == 0, "{node} → {to}: {met} packets met the rules");
            flows.push((by, stream));
        }
        let tightened = schools::six_zones_without("staff", "printers")?;
        let mut next = compiled(&tightened, 0)?;
        next.generation.0 += 1;
        // As the agent does it: the difference, then the flows.
        let sysctls: Vec<String> = next.sysctls.iter().map(|sysctl| sysctl.path.clone()).collect();
        let changes = diff(&world.linux.observe(&sysctls)?, Some(&world.net), &next);
        ensure!(!changes.changes.is_empty());
        world.linux.apply(&changes)?;
        // From the moment when the plan is in force.
        let begun = Instant::now();
        let ids = ended(&tightened, &next, &world.linux.flows()?);
        ensure!(ids.len() == 2, "{ids:?} of {:?}", world.linux.flows()?);
        end_flows(&mut world.linux, &next.ruleset, &FlowKill { ids: Some(ids), ..FlowKill::default() })?;
        for (number, (by, stream)) in flows.iter_mut().enumerate() {
            if number < 2 {
                reset_after(stream).with_context(|| format!("flow {number}"))?;
                ensure!(begun.elapsed() < TIGHTENED_WITHIN, "flow {number}: {:?}", begun.elapsed());
            } else {
                ensure!(who(stream)? == *by, "flow {number}");
            }
        }
        for (by, stream) in flows.iter_mut().skip(2) {
            let met = met_rules(stream, by)?;
            ensure!(met == 0, "{met} packets of what stays permitted meet the rules");
        }
        ensure!(ended(&tightened, &next, &world.linux.flows()?).is_empty());
        Ok(())
    })
}

#[test]
fn a_foreign_flush_takes_the_flowtable_with_it_and_its_repair_brings_it_back() -> Result<()> {
    if !has_flowtables()? {
        return Ok(());
    }
    in_namespaces(|| {
        let mut world = World::raise(schools::six_zones()?)?;
        let mut stream = connect("guest", (FAR, 443).into())?;
        for _ in 0..FIRST {
            ensure!(who(&mut stream)? == "internet");
        }
        // Somebody else's flush takes the flowtable with it: in that moment nothing passes.
        sh("gw", "nft flush ruleset")?;
        ensure!(who(&mut stream).is_err(), "past a table that is gone");
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        world.converge()?;
        ensure!(who(&mut stream)? == "internet", "and goes on after the repair");
        world.apply(Change::Nft { script: "delete flowtable inet seimon fast { hook ingress priority 0; devices = { \"wan2\" }; counter; }".into() })?;
        ensure!(
            !diff(&world.linux.observe(&[])?, Some(&world.net), &world.net).changes.is_empty(),
            "not noticed"
        );
        world.converge()
    })
}
