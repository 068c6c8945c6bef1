//! What happens to gateways, and what must be seen of it.

pub mod bad_images;
pub mod power;
pub mod rescue;
pub mod secure_boot;
pub mod slots;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use seimon_boot::{Reason, Slot, Status};

use crate::disk::{Content, Disk};
use crate::image::{Image, Recipe};
use crate::programs::Programs;
use crate::vm::{Entropy, Firmware, Network, Setup, Vm};

/// From power-on to anything, on a machine that has other things to do.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A story: on its own disk, with its own machine.
#[derive(Clone, Copy)]
pub struct Story {
    pub name: &'static str,
    pub firmware: &'static [Firmware],
    /// Also within `cargo test`.
    pub quick: Quick,
    pub tell: fn(&Stage<'_>) -> Result<Numbers>,
}

impl std::fmt::Debug for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quick {
    Yes,
    No,
}

/// What a story counted: (name, number). Those of the same name are added up.
pub type Numbers = Vec<(&'static str, u64)>;

/// Where a story is told.
#[derive(Clone, Debug)]
pub struct Stage<'a> {
    pub programs: &'a Programs,
    pub firmware: Firmware,
    /// Power cuts of this story.
    pub cuts: u64,
    /// A folder of its own.
    pub folder: std::path::PathBuf,
}

const BOTH: &[Firmware] = &[Firmware::Edk2, Firmware::UBoot];

pub fn all() -> Vec<Story> {
    [slots::STORIES, rescue::STORIES, bad_images::STORIES, secure_boot::STORIES, power::STORIES].concat()
}

/// How it came out.
#[derive(Debug)]
pub struct Told {
    pub story: &'static str,
    pub firmware: Firmware,
    pub seconds: f64,
    pub outcome: Result<Numbers>,
}

/// Tells one story on one firmware.
pub fn tell(story: &Story, firmware: Firmware, programs: &Programs, cuts: u64) -> Told {
    let start = Instant::now();
    let folder = programs.folder.join(format!("{}-{}", story.name, firmware.name()));
    let outcome = (|| {
        // What an earlier failure left.
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        let stage = Stage { programs, firmware, cuts, folder: folder.clone() };
        let numbers = (story.tell)(&stage).with_context(|| format!("see {}", folder.display()))?;
        std::fs::remove_dir_all(&folder)?;
        Ok(numbers)
    })();
    Told { story: story.name, firmware, seconds: start.elapsed().as_secs_f64(), outcome }
}

impl Stage<'_> {
    /// A small signed image; `told`: what its payload is to do.
    pub(crate) fn image(&self, version: &str, told: &str) -> Result<Image> {
        Recipe::new(version, &self.programs.payload, told).signed(&self.programs.key)
    }

    /// The story's disk, with these in slots A and B.
    pub(crate) fn disk(&self, a: Option<(&Image, Status)>, b: Option<(&Image, Status)>) -> Result<Disk> {
        Content::new(&self.programs.guardian, a, b).write_to(&self.file("disk"))
    }

    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.join(name)
    }

    pub fn setup<'d>(&self, disk: &'d Disk) -> Setup<'d> {
        Setup {
            firmware: self.firmware,
            disks: vec![disk],
            network: Network::None,
            entropy: Entropy::Device,
            serial_log: self.file("serial.log"),
        }
    }

    /// Starts a machine and has `watch` look at it. When that fails, the serial log is kept.
    pub fn watched<T>(&self, setup: &Setup<'_>, watch: impl FnOnce(&mut Vm) -> Result<T>) -> Result<T> {
        let mut vm = Vm::start(setup)?;
        let outcome = watch(&mut vm);
        if outcome.is_err() {
            vm.cut_power();
            vm.keep_log()?;
        }
        outcome
    }

    pub fn on(&self, disk: &Disk, watch: impl FnOnce(&mut Vm) -> Result<()>) -> Result<()> {
        self.watched(&self.setup(disk), watch)
    }
}

/// Fails with what was expected, what was found, and the machine's words.
/// The slot was left for the reason, and the agent will find that out.
pub(crate) fn fell(disk: &Disk, slot: Slot, reason: Reason) -> Result<()> {
    let state = disk.state()?;
    let fall = state.and_then(|state| state.last_fall).map(|fall| (fall.slot, fall.reason));
    check(fall == Some((slot, reason)), || format!("the fall is kept for the agent: {state:?}"))
}

pub(crate) fn check(holds: Holds, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { anyhow::bail!("{}", what()) }
}

/// Whether what is checked holds.
pub(crate) type Holds = bool;
