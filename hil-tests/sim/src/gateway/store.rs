//! What the agent remembers, on the journal: the last checkpoint of each group, and the floor of the clock.

use std::collections::BTreeMap;

use seimon_core::migration::{Checkpoint, ZoneGroup};
use seimon_journal::Journal;
use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::ground::Ground;
use crate::versions::{Writer, rewritten};

/// Small, so that compactions are a part of most schedules.
const COMPACT_ABOVE: u64 = 8 * 1024;
const CLOCK_FLOOR_EVERY: u64 = 60_000;
const KIND: u16 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Record {
    Checkpoint(Box<Checkpoint>),
    ClockFloor { wall_ms: i64 },
}

/// What is done with records that this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    PassedOver,
    Refused,
}

#[derive(Debug)]
pub(super) struct Store {
    journal: Journal<Disk>,
    pub(super) checkpoints: BTreeMap<ZoneGroup, Checkpoint>,
    pub(super) clock_floor: i64,
    floor_at: u64,
}

impl Store {
    pub(super) fn open(disk: Disk, others: Others) -> Option<Self> {
        let opened = Journal::salvage_on(disk, "sim").ok()?;
        let mut store =
            Self { journal: opened.journal, checkpoints: BTreeMap::new(), clock_floor: 0, floor_at: 0 };
        for record in opened.records {
            match (serde_json::from_slice(&record.payload), others) {
                (Ok(record), _) => store.remember(record),
                (Err(_), Others::PassedOver) => {}
                (Err(_), Others::Refused) => return None,
            }
        }
        Some(store)
    }

    fn remember(&mut self, record: Record) {
        match record {
            Record::Checkpoint(checkpoint) => {
                self.clock_floor = self.clock_floor.max(checkpoint.wall_ms);
                self.checkpoints.insert(checkpoint.zone_group.clone(), *checkpoint);
            }
            Record::ClockFloor { wall_ms } => self.clock_floor = self.clock_floor.max(wall_ms),
        }
    }

    fn append(&mut self, record: Record) -> bool {
        let Ok(payload) = serde_json::to_vec(&record) else { return false };
        if self.journal.append(KIND, &payload).is_err() {
            return false;
        }
        self.remember(record);
        if self.journal.bytes() > COMPACT_ABOVE {
            self.compact();
        }
        true
    }

    /// What fails is tried again with the next record.
    fn compact(&mut self) {
        let checkpoints = self.checkpoints.values().cloned().map(Box::new).map(Record::Checkpoint);
        let records = checkpoints.chain([Record::ClockFloor { wall_ms: self.clock_floor }]);
        let payloads: Vec<(u16, Vec<u8>)> =
            records.filter_map(|record| Some((KIND, serde_json::to_vec(&record).ok()?))).collect();
        self.journal.compact(&payloads).ok();
    }

    /// On disk, synced, where this is true.
    pub(super) fn save_checkpoint(&mut self, checkpoint: Checkpoint) -> bool {
        self.append(Record::Checkpoint(Box::new(checkpoint)))
    }

    pub(super) fn keep_clock(&mut self, ground: &Ground<'_, '_>) {
        let trusted = ground.clocks.untrusted_until <= ground.now;
        let wall_ms = ground.clocks.wall(ground.now);
        if trusted && wall_ms >= self.clock_floor && self.floor_at <= ground.now {
            self.floor_at = ground.now + CLOCK_FLOOR_EVERY;
            self.append(Record::ClockFloor { wall_ms });
        }
    }
}

/// The journal, as another version of the agent would have left it.
pub(crate) fn rewrite(disk: &Disk, writer: Writer) {
    let Ok(opened) = Journal::salvage_on(disk.clone(), "sim") else { return };
    let records = opened.records.into_iter().map(|record| (record.kind, record.payload));
    let mut journal = opened.journal;
    journal.compact(&rewritten(records, writer)).ok();
}

/// The latest time that would be known after a power cut, read without the agent's own types.
pub(crate) fn time_on(disk: Disk) -> Option<i64> {
    let opened = Journal::salvage_on(disk, "sim").ok()?;
    let values = opened.records.iter().filter_map(|r| serde_json::from_slice(&r.payload).ok());
    values.filter_map(|record: serde_json::Value| record["wall_ms"].as_i64()).max()
}

/// The paths that the newest surviving record of the group allows new flows, read without the migration's own types. Two
/// while a change is being made: it may or may not have been.
pub(crate) fn current_on(disk: Disk, zone: &str, group: &str) -> Vec<String> {
    paths_on(disk, zone, group, &["from"])
}

/// ...and those that the few who try first may take.
pub(crate) fn trial_on(disk: Disk, zone: &str, group: &str) -> Vec<String> {
    paths_on(disk, zone, group, &["from", "to"])
}

fn paths_on(disk: Disk, zone: &str, group: &str, in_a_canary: &[&str]) -> Vec<String> {
    let Ok(opened) = Journal::salvage_on(disk, "sim") else { return Vec::new() };
    let records = opened.records.iter().rev();
    let mut texts = records.filter_map(|r| serde_json::from_slice::<serde_json::Value>(&r.payload).ok());
    let is_ours = |record: &serde_json::Value| {
        record["record"] == "checkpoint"
            && record["zone_group"]["zone"] == zone
            && record["zone_group"]["group"] == group
    };
    let Some(record) = texts.find(is_ours) else { return Vec::new() };
    let state = &record["state"];
    let keys: &[&str] = match state["state"].as_str().unwrap_or_default() {
        "steady" | "blocked" => &["path"],
        "qualifying" => &["from"],
        "canary" => in_a_canary,
        "cutting_over" => &["from", "to"],
        _ => &["to"],
    };
    keys.iter().filter_map(|key| state[*key].as_str().map(str::to_owned)).collect()
}
