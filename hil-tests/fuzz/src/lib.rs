//! What anybody may send us, sent: each target takes any bytes at all and must neither panic nor keep a promise only half.
//!
//! The same functions serve two drivers: libFuzzer (in `fuzz/`, guided by coverage, also by `cargo fuzz`) and the [`mutate`]r
//! of this crate, which needs nothing but seeds, within the tests.
//!
//! Of signed things there are the heads of images (`boot`); envelopes are not there yet.

pub mod mutate;
pub mod seeds;
pub mod targets;

/// One kind of input.
#[derive(Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

pub const TARGETS: [Target; 8] = [
    Target { name: "plan", run: targets::plan, seeds: seeds::plan },
    Target { name: "hub", run: targets::hub, seeds: seeds::hub },
    Target { name: "checkpoint", run: targets::checkpoint, seeds: seeds::checkpoint },
    Target { name: "dns", run: targets::dns, seeds: seeds::dns },
    Target { name: "control", run: targets::control, seeds: seeds::control },
    Target { name: "frames", run: targets::frames, seeds: seeds::frames },
    Target { name: "journal", run: targets::journal, seeds: seeds::journal },
    Target { name: "boot", run: targets::boot, seeds: seeds::boot },
];
