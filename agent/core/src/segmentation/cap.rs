//! How much an emergency line carries: each group of each zone has so many bytes a second each way, and what is more is
//! dropped, so that senders slow down. Nothing of it where the plan has no such line.
//!
//! ```text
//!  between ─ group and path in @capped? ─▶ cap_<group>_<path> ─ within the rate ─▶ back to between, as everybody
//! ```

use std::collections::BTreeMap;

use seimon_plan::Metered;

use super::builder::Builder;
use crate::network_plan::{
    CompileError, Key, KeyPart, KeyType, Mark, PathIndex, Terrain, Value, ValueType, Verdict, ZoneGroupIndex,
};

const CAPPED: &str = "capped";
/// Bytes that may come at once: a quarter of a second, and never fewer than make a window of some segments.
const LEAST_BURST: u32 = 24_000;

fn chain_name(group: ZoneGroupIndex, path: PathIndex) -> String {
    format!("cap_{}_{}", group.0, path.0)
}

fn has_any(terrain: &Terrain<'_>) -> bool {
    terrain.routes.iter().flat_map(|route| &route.paths).any(|path| terrain.plan.is_emergency(path))
}

/// The rule that leads there, before anything is accepted.
pub(super) fn entry(terrain: &Terrain<'_>) -> Option<(String, String)> {
    let rule = format!("ct mark & {:#x} vmap @{CAPPED}", Mark::OURS);
    has_any(terrain).then(|| (rule, "emergency lines carry so much a second".to_owned()))
}

pub(super) fn chains(terrain: &Terrain<'_>, builder: &mut Builder) -> Result<(), CompileError> {
    if !has_any(terrain) {
        return Ok(());
    }
    let mut capped = BTreeMap::new();
    for route in &terrain.routes {
        for id in &route.paths {
            let Some(Metered { up_kbit, down_kbit, .. }) = terrain.plan.metered(id) else { continue };
            let path = terrain.path(id)?;
            let name = chain_name(route.index, path.index);
            let key = Key(vec![KeyPart::Mark(Mark(route.index.mark().0 | path.index.mark().0))]);
            capped.insert(key, Value::Verdict(Verdict::Jump(name.clone())));
            let mut chain = builder.chain(name);
            for (direction, way, kbit) in [("original", "sends", up_kbit), ("reply", "receives", down_kbit)] {
                let rate = kbit.saturating_mul(125);
                let burst = (rate / 4).max(LEAST_BURST);
                chain.rule(
                    format!("ct direction {direction} limit rate over {rate} bytes/second burst {burst} bytes drop"),
                    format!(
                        "zone {}, group {} {way} at most {kbit} kbit/s over path {id}",
                        route.zone, route.group
                    ),
                );
            }
        }
    }
    builder.map(CAPPED, &[KeyType::Mark], ValueType::Verdict, capped);
    Ok(())
}
