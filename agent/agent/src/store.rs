//! What the agent remembers across restarts and power cuts, as records of the journal. The last record of a kind (and key)
//! counts; compaction writes one of each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use jiff::civil::Date;
use seimon_core::line_use::{Day, Ledger};
use seimon_core::metering::{Meter, MeteredDay};
use seimon_core::migration::{Checkpoint, DiskRoom, ZoneGroup};
use seimon_core::network_plan::{Allocation, Generation};
use seimon_ipc::control::Bilingual;
use seimon_journal::{Journal, Note, Opened};
use seimon_plan::LineId;
use serde::{Deserialize, Serialize};

use crate::sabotage::Sabotage;

/// Compacted when larger than this, in bytes.
const COMPACT_ABOVE: u64 = 512 * 1024;
/// Free space, in bytes, below which nothing begins: about what a compaction and a day in a soak take.
const ROOM_FOR_A_MOVE: u64 = 2 * COMPACT_ABOVE;

/// The plan that was last verified, with what is needed to parse it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredPlan {
    pub(crate) toml: String,
    /// Name for messages.
    pub(crate) file: String,
    /// Files that the plan names are relative to this folder.
    pub(crate) folder: PathBuf,
    pub(crate) generation: Generation,
    /// Of the file given on the command line when it was last taken over; another one means a new intention.
    pub(crate) command_line_digest: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Record {
    Plan(StoredPlan),
    Allocation(Allocation),
    Checkpoint(Box<Checkpoint>),
    /// Milliseconds since 1970: the clock cannot rightly be earlier.
    ClockFloor {
        wall_ms: i64,
    },
    /// Events below this number may have been told.
    EventNumbers {
        taken: u64,
    },
    /// What an emergency line carried on a day (at the site).
    Metered(MeteredDay),
    /// Who used a line on a day (at the site).
    LineDay {
        line: LineId,
        date: Date,
        day: Day,
    },
}

impl Record {
    const KIND: u16 = 1;

    /// Nobody loses a connection, nor the way back, for want of it.
    const fn can_wait(&self) -> bool {
        match self {
            Self::ClockFloor { .. } | Self::Metered(_) | Self::LineDay { .. } => true,
            Self::Plan(_) | Self::Allocation(_) | Self::Checkpoint(_) | Self::EventNumbers { .. } => false,
        }
    }
}

/// The remembered state, and the journal that it lives in.
#[derive(Debug)]
pub(crate) struct Store {
    journal: Journal,
    plan: Option<StoredPlan>,
    allocation: Option<Allocation>,
    checkpoints: BTreeMap<ZoneGroup, Checkpoint>,
    clock_floor: Option<i64>,
    event_numbers: u64,
    line_days: Ledger,
    meter: Meter,
}

impl Store {
    /// Opens or creates the journal. The second value: what people should know about it (a torn end, say).
    pub(crate) fn open(folder: &Path, machine: &str, sabotage: &Sabotage) -> Result<(Self, Vec<Bilingual>)> {
        let Opened { journal, records, notes } =
            sabotage.open_journal(folder, machine).context("the journal")?;
        let mut store = Self {
            journal,
            plan: None,
            allocation: None,
            checkpoints: BTreeMap::new(),
            clock_floor: None,
            event_numbers: 1,
            line_days: Ledger::default(),
            meter: Meter::default(),
        };
        let mut notes: Vec<Bilingual> = notes.iter().map(told).collect();
        for record in records {
            match serde_json::from_slice::<Record>(&record.payload) {
                Ok(record) => store.remember(record),
                Err(error) => notes.push(Bilingual {
                    ja: format!("別の版が書いた記録（{}）を読み飛ばしました（{error}）", record.sequence),
                    en: format!(
                        "record {} was written by another version and is passed over ({error})",
                        record.sequence
                    ),
                }),
            }
        }
        Ok((store, notes))
    }

    pub(crate) fn plan(&self) -> Option<&StoredPlan> {
        self.plan.as_ref()
    }

    pub(crate) fn allocation(&self) -> Allocation {
        self.allocation.clone().unwrap_or_default()
    }

    pub(crate) fn checkpoint(&self, zone_group: &ZoneGroup) -> Option<&Checkpoint> {
        self.checkpoints.get(zone_group)
    }

    pub(crate) fn clock_floor(&self) -> Option<Timestamp> {
        self.clock_floor.and_then(|ms| Timestamp::from_millisecond(ms).ok())
    }

    /// Whether a move has room to be written down. A disk that does not say is asked by writing to it.
    pub(crate) fn room(&mut self) -> DiskRoom {
        match self.journal.free() {
            Ok(free) if free < ROOM_FOR_A_MOVE => DiskRoom::Short,
            Ok(_) | Err(_) => DiskRoom::Enough,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.journal.bytes()
    }

    fn remember(&mut self, record: Record) {
        match record {
            Record::Plan(plan) => self.plan = Some(plan),
            Record::Allocation(allocation) => self.allocation = Some(allocation),
            Record::Checkpoint(checkpoint) => {
                self.clock_floor = self.clock_floor.max(Some(checkpoint.wall_ms));
                self.checkpoints.insert(checkpoint.zone_group.clone(), *checkpoint);
            }
            Record::ClockFloor { wall_ms } => self.clock_floor = self.clock_floor.max(Some(wall_ms)),
            Record::EventNumbers { taken } => self.event_numbers = self.event_numbers.max(taken),
            Record::LineDay { line, date, day } => self.line_days.restore(line, date, day),
            Record::Metered(day) => self.meter.restore(&day),
        }
    }

    /// On disk, synced, when this returns.
    fn append(&mut self, record: Record) -> Result<()> {
        if record.can_wait() && self.room() == DiskRoom::Short {
            anyhow::bail!("the disk is full: what is set aside is kept for what leads back");
        }
        let payload = serde_json::to_vec(&record).context("record")?;
        self.journal.append(Record::KIND, &payload).context("the journal")?;
        self.remember(record);
        if self.journal.bytes() > COMPACT_ABOVE {
            // What was appended is safe already; a compaction that fails is tried again with the next record.
            if let Err(error) = self.compact() {
                tracing::warn!(error = format!("{error:#}"), "the journal was not compacted");
            }
        }
        Ok(())
    }

    fn compact(&mut self) -> Result<()> {
        let mut records = Vec::new();
        records.extend(self.plan.clone().map(Record::Plan));
        records.extend(self.allocation.clone().map(Record::Allocation));
        records.extend(self.checkpoints.values().cloned().map(Box::new).map(Record::Checkpoint));
        records.extend(self.clock_floor.map(|wall_ms| Record::ClockFloor { wall_ms }));
        records.push(Record::EventNumbers { taken: self.event_numbers });
        records.extend(self.meter.records().map(Record::Metered));
        records.extend(self.line_days.records().map(|(line, date, day)| Record::LineDay {
            line: line.clone(),
            date,
            day: day.clone(),
        }));
        let payloads: Result<Vec<_>, _> = records
            .iter()
            .map(|record| serde_json::to_vec(record).map(|bytes| (Record::KIND, bytes)))
            .collect();
        self.journal.compact(&payloads?)?;
        Ok(())
    }

    /// No event had this number yet.
    pub(crate) fn event_numbers(&self) -> u64 {
        self.event_numbers
    }

    /// Takes numbers up to this one, so that none is used twice.
    pub(crate) fn take_event_numbers(&mut self, taken: u64) -> Result<()> {
        self.append(Record::EventNumbers { taken })
    }

    /// The use of lines, as it was last written down.
    pub(crate) fn line_days(&self) -> Ledger {
        self.line_days.clone()
    }

    pub(crate) fn save_line_day(&mut self, line: &LineId, date: Date, day: Day) -> Result<()> {
        if self.line_days.day(line, date) == Some(&day) {
            return Ok(());
        }
        self.append(Record::LineDay { line: line.clone(), date, day })
    }

    /// What emergency lines have carried, as it was last written down.
    pub(crate) fn meter(&self) -> Meter {
        self.meter.clone()
    }

    pub(crate) fn save_metered(&mut self, day: MeteredDay) -> Result<()> {
        self.append(Record::Metered(day))
    }

    pub(crate) fn save_plan(&mut self, plan: StoredPlan) -> Result<()> {
        if self.plan.as_ref() == Some(&plan) { Ok(()) } else { self.append(Record::Plan(plan)) }
    }

    pub(crate) fn save_allocation(&mut self, allocation: &Allocation) -> Result<()> {
        if self.allocation.as_ref() == Some(allocation) {
            return Ok(());
        }
        self.append(Record::Allocation(allocation.clone()))
    }

    pub(crate) fn save_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.append(Record::Checkpoint(Box::new(checkpoint)))
    }

    pub(crate) fn save_clock_floor(&mut self, wall: Timestamp) -> Result<()> {
        self.append(Record::ClockFloor { wall_ms: wall.as_millisecond() })
    }
}

fn told(note: &Note) -> Bilingual {
    let ja = match note {
        Note::Created => "記録を新しく作りました。".to_owned(),
        Note::TornEnd { bytes } => {
            format!("記録の末尾に書きかけの {bytes} バイトがあり、取り除きました。電源断のあとなら正常です。")
        }
        Note::Salvaged { aside, records } => {
            format!("記録が壊れていました。元のものを {aside} に残し、無事な {records} 件を使います。")
        }
    };
    Bilingual { ja, en: note.to_string() }
}

/// FNV-1a, to notice that a file is another than before.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
