//! What the administrator does: commands of `seimonctl`, and plans that change what is permitted.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use seimon_board::Board;
use seimon_plan::WireguardKey;

use super::permits::between_zones;
use super::plan_text::plan_text;
use crate::capture::PermittedFlow;
use crate::scenario::{EventSpec, Scenario};
use crate::world::World;
use crate::world::gateway::{CtlOutput, SecondRuntime};

/// How long a second agent may take to see that it is not alone.
const SECOND: Duration = Duration::from_secs(5);

/// Runs seimonctl as the administrator would.
pub(super) fn command(world: &World, scenario: &Scenario, event: &EventSpec) -> Result<(i32, String)> {
    let gateway = world.gateway()?;
    let output = match event.what.as_str() {
        "plan.apply" => {
            let file = event.keys.get("file").and_then(|f| f.as_str()).unwrap_or(&scenario.plan.file);
            let own: BTreeMap<String, toml::Value> = event
                .keys
                .get("set")
                .and_then(toml::Value::as_table)
                .map(|t| t.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
                .unwrap_or_default();
            let text = world.fill_in(&plan_text(file, &scenario.file, &[&scenario.plan.set, &own])?);
            let path = gateway.put_plan(&event.id, &text)?;
            apply(world, &text, || gateway.ctl(&["apply", &path]))?
        }
        "migrate.start" => {
            let group = event.target.as_deref().unwrap_or_default();
            match event.keys.get("to").and_then(|to| to.as_str()) {
                Some(to) => gateway.ctl(&["migrate", "start", group, "--to", to])?,
                None => gateway.ctl(&["migrate", "start", group])?,
            }
        }
        "gateway.second" => {
            let runtime = match event.keys.get("runtime").and_then(|runtime| runtime.as_str()) {
                Some("own") => SecondRuntime::Own,
                Some(_) | None => SecondRuntime::Same,
            };
            gateway.second(runtime, SECOND)?
        }
        "wireguard.rotate" => {
            let output =
                gateway.ctl(&["wireguard", "rotate", event.target.as_deref().unwrap_or_default()])?;
            // The hub learns it beside the present one, as its administrator would from the same words.
            if let Some(key) = output.stdout.split_whitespace().find_map(key_in) {
                world.hub()?.learn(key)?;
            }
            output
        }
        "wireguard.switch" => {
            gateway.ctl(&["wireguard", "switch", event.target.as_deref().unwrap_or_default()])?
        }
        other => {
            let Some(action) = other.strip_prefix("migrate.") else { bail!("no command `{other}`") };
            gateway.ctl(&["migrate", action, event.target.as_deref().unwrap_or_default()])?
        }
    };
    Ok((output.code, format!("{}{}", output.stdout, output.stderr)))
}

/// A public key among other words.
fn key_in(word: &str) -> Option<WireguardKey> {
    word.trim_end_matches([':', '.', ',']).parse().ok()
}

/// While a plan is being applied, what the old or the new one permits is no leak.
fn apply(world: &World, plan: &str, apply: impl FnOnce() -> Result<CtlOutput>) -> Result<CtlOutput> {
    let new = permitted_by(plan);
    let old = world.permitted();
    world.permit(old.iter().chain(new.iter().flatten()).cloned().collect());
    let output = apply();
    let done = output.as_ref().is_ok_and(|output| output.code == 0);
    world.permit(new.filter(|_| done).unwrap_or(old));
    output
}

/// Flows between zones that a plan permits today.
pub(super) fn permitted_by(plan: &str) -> Option<Vec<PermittedFlow>> {
    between_zones(plan, &Board::shipped("lab-namespace")?, SystemTime::now())
}
