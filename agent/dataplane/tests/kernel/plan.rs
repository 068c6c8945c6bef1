//! A whole site plan: compiled, carried out, read back, moved, damaged, mended.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, ensure};
use seimon_board::Board;
use seimon_core::network_plan::{
    Allocation, ApplyError, Change, ChangeSet, Dataplane, Flow, FlowKill, Generation, Mark, NetworkPlan,
    PathChoice, compile, diff, end_flows, lockdown, verify,
};
use seimon_dataplane::{Fake, Faulty, Linux, Moment};
use seimon_plan::{GroupId, PathId, ValidSitePlan, ZoneId, parse};

use crate::{in_fresh_namespace, interface, sh};

const PORTS: [&str; 6] = ["wan1", "wan2", "lan1", "lan2", "lan3", "lan4"];

fn town() -> Result<ValidSitePlan> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../provisioning/plan/examples/two-line-town.toml");
    let board = Board::shipped("lab-namespace").context("the lab's board")?;
    parse(&std::fs::read_to_string(file)?, "two-line-town.toml", &board).map_err(|errors| anyhow!("{errors}"))
}

/// Every group on its route's path number `which`, or the last.
fn compiled(plan: &ValidSitePlan, which: usize, generation: u64) -> Result<NetworkPlan> {
    let on = |paths: &[PathId]| PathChoice::On(paths[which.min(paths.len() - 1)].clone());
    let routes = plan.routes().iter();
    let choice: BTreeMap<(ZoneId, GroupId), _> =
        routes.map(|route| ((route.zone.clone(), route.group.clone()), on(&route.paths))).collect();
    let allocation = Allocation::default().extend(plan)?;
    let parent = (generation > 1).then_some(Generation(generation - 1));
    Ok(compile(plan, &allocation, &choice, parent, Generation(generation))?)
}

fn sysctls(plan: &NetworkPlan) -> Vec<String> {
    plan.sysctls.iter().map(|sysctl| sysctl.path.clone()).collect()
}

/// One round: what was done.
fn converge(
    dataplane: &mut impl Dataplane,
    parent: Option<&NetworkPlan>,
    plan: &NetworkPlan,
) -> Result<ChangeSet> {
    let changes = diff(&dataplane.observe(&sysctls(plan))?, parent, plan);
    dataplane.apply(&changes)?;
    let left = verify(&dataplane.observe(&sysctls(plan))?, plan);
    ensure!(left.is_empty(), "{}", left.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    Ok(changes)
}

fn lives_through_a_plan(dataplane: &mut impl Dataplane, has_flowtables: bool) -> Result<()> {
    let site = town()?;
    let (mut first, mut second) = (compiled(&site, 0, 1)?, compiled(&site, 1, 2)?);
    for plan in [&mut first, &mut second].into_iter().filter(|_| !has_flowtables) {
        plan.ruleset = plan.ruleset.clone().without_flowtable();
    }
    converge(dataplane, None, &first)?;
    let again = converge(dataplane, Some(&first), &first)?;
    ensure!(again.changes.is_empty(), "nothing differs, yet {again:?}");
    let moved = converge(dataplane, Some(&first), &second)?;
    ensure!(
        matches!(moved.changes.as_slice(), [Change::Elements { .. }]),
        "a move is elements only: {moved:?}"
    );
    let table = dataplane.observe(&[])?.table.context("our table")?;
    dataplane.apply(&ChangeSet { changes: vec![Change::Nft { script: lockdown(&table) }] })?;
    converge(dataplane, Some(&second), &first)?;
    Ok(())
}

#[test]
fn a_plan_is_carried_out_moved_and_locked_down_in_the_kernel() -> Result<()> {
    in_fresh_namespace("plan::a_plan_is_carried_out_moved_and_locked_down_in_the_kernel", || {
        for port in PORTS {
            sh(&format!("ip link add {port} type veth peer x-{port}; ip link set x-{port} up"))?;
        }
        let mut linux = Linux::open()?;
        let has_flowtables = linux.has_flowtables()?;
        lives_through_a_plan(&mut linux, has_flowtables)
    })
}

#[test]
fn a_plan_is_carried_out_moved_and_locked_down_in_the_fake() -> Result<()> {
    lives_through_a_plan(&mut Fake::new(PORTS.map(interface)), true)
}

#[test]
fn whatever_others_break_is_mended() -> Result<()> {
    in_fresh_namespace("plan::whatever_others_break_is_mended", || {
        for port in PORTS {
            sh(&format!("ip link add {port} type veth peer x-{port}; ip link set x-{port} up"))?;
        }
        let mut plan = compiled(&town()?, 0, 1)?;
        let mut linux = Linux::open()?;
        if !linux.has_flowtables()? {
            plan.ruleset = plan.ruleset.without_flowtable();
        }
        converge(&mut linux, None, &plan)?;
        let bridge = sh("ip -o link show type bridge | head -1 | cut -d: -f2")?;
        for damage in [
            "nft flush ruleset",
            "nft flush table inet seimon",
            "nft flush map inet seimon current",
            "nft insert rule inet seimon $(nft list chains inet | grep -m1 chain | tr -d ' \\t{' | sed s/chain//) accept",
            "ip rule flush; ip -6 rule flush",
            "ip route flush table 0x5e01",
            "ip link set wan1 down",
            "ip link set lan1 nomaster",
            "ip addr flush dev wan1",
            &format!("ip link del {bridge}"),
            "sysctl -qw net.ipv4.ip_forward=0",
        ] {
            sh(damage)?;
            let seen = linux.observe(&sysctls(&plan))?;
            ensure!(!verify(&seen, &plan).is_empty(), "not noticed: {damage}");
            converge(&mut linux, Some(&plan), &plan).with_context(|| damage.to_owned())?;
        }
        Ok(())
    })
}

#[test]
fn a_fault_at_any_step_is_made_good_by_the_next_round() -> Result<()> {
    let plan = compiled(&town()?, 0, 1)?;
    let mut operations = 0;
    for moment in [Moment::Before, Moment::After] {
        for step in 1.. {
            let mut faulty = Faulty::new(Fake::new(PORTS.map(interface)));
            faulty.fail_in(step, moment);
            if converge(&mut faulty, None, &plan).is_ok() {
                break;
            }
            operations = operations.max(step);
            converge(&mut faulty, None, &plan).with_context(|| format!("{moment:?} step {step}"))?;
        }
    }
    ensure!(operations > 20, "only {operations} operations were tried");
    Ok(())
}

#[test]
fn where_the_kernel_keeps_flows_in_the_flowtable_that_is_taken_away_for_a_moment() -> Result<()> {
    let plan = compiled(&town()?, 0, 1)?;
    let mut fake = Fake::new(PORTS.map(interface));
    converge(&mut fake, None, &plan)?;
    let flow = |id| -> Result<Flow> {
        Ok(Flow {
            id,
            mark: Mark(0x101),
            protocol: 6,
            source: "10.20.1.100".parse()?,
            source_port: 40_000,
            destination: "203.0.113.99".parse()?,
            destination_port: 443,
            reply_source: "203.0.113.99".parse()?,
            reply_destination: "10.20.1.100".parse()?,
            stage: seimon_core::network_plan::FlowStage::Open,
            answered: true,
            bytes: 1,
        })
    };
    let (first, second) = (flow(1)?, flow(2)?);
    fake.with(|kernel| {
        kernel.keeps_offloaded = true;
        kernel.flows = vec![first, second.clone()];
    });
    let kill = FlowKill { ids: Some([1].into()), ..FlowKill::default() };
    let refused = fake.apply(&ChangeSet { changes: vec![Change::Kill(kill.clone())] });
    ensure!(matches!(refused, Err(ApplyError::Offloaded { flows: 1 })), "{refused:?}");
    end_flows(&mut fake, &plan.ruleset, &kill)?;
    ensure!(fake.flows()? == [second], "{:?}", fake.flows()?);
    ensure!(converge(&mut fake, Some(&plan), &plan)?.changes.is_empty(), "everything is back");
    Ok(())
}
