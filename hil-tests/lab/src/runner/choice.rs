//! Which gateway a scenario is played with, and which scenarios do not suit it.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use seimon_board::Board;
use seimon_machine::bench::Bench;
use seimon_machine::qemu;

use crate::scenario::Scenario;
use crate::world::gateway::{How, UnknownPort, Zones, on_board};

use super::plan_text::plan_text;

/// `--gateway`.
#[derive(Clone, Debug, Default)]
pub enum Choice {
    /// The agent's programs in a namespace.
    #[default]
    Namespace,
    /// A whole gateway.
    Machine(Box<How>),
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace => f.write_str("namespace"),
            Self::Machine(how) => match how.as_ref() {
                How::Qemu { board, zones: Zones::Ports, .. } => f.write_str(&board.id),
                How::Qemu { board, zones: Zones::Trunk, .. } => write!(f, "{}:trunk", board.id),
                How::Bench(bench) => write!(f, "bench:{}", bench.board),
            },
        }
    }
}

impl Choice {
    /// `namespace`, the id of a board that QEMU is, alone or with `:trunk`, or a bench file (`….toml`). `image`: a whole
    /// disk, or the folder that `cargo xtask image` leaves; by default the one in `images`.
    ///
    /// # Errors
    /// Says what there is.
    pub fn parse(word: &str, image: Option<&Path>, images: &Path) -> Result<Self> {
        if word == "namespace" {
            return Ok(Self::Namespace);
        }
        if Path::new(word).extension().is_some_and(|extension| extension == "toml") {
            return Ok(Self::Machine(Box::new(How::Bench(Bench::read(Path::new(word))?))));
        }
        let (word, zones) = match word.strip_suffix(":trunk") {
            Some(word) => (word, Zones::Trunk),
            None => (word, Zones::Ports),
        };
        let board = Board::shipped(word).filter(|board| qemu::firmware_of(board).is_some());
        let Some(board) = board else {
            let ids = Board::shipped_ids().filter_map(Board::shipped);
            let known: Vec<String> =
                ids.filter(|board| qemu::firmware_of(board).is_some()).map(|board| board.id).collect();
            bail!("no gateway `{word}`; there are namespace, {}, and bench files (*.toml)", known.join(", "));
        };
        let image = image.map_or_else(|| images.join(word), Path::to_path_buf);
        if !image.exists() {
            bail!("there is no image {}: `cargo xtask image --board {word}` makes one", image.display());
        }
        Ok(Self::Machine(Box::new(How::Qemu { board, image, zones })))
    }

    /// Why the scenario cannot be played with this gateway, if so. `without`: mechanisms to be switched off.
    ///
    /// # Errors
    /// The scenario's plan is not to be had.
    pub fn unsuited(&self, scenario: &Scenario, without: &[String]) -> Result<Option<String>> {
        let Self::Machine(how) = self else { return Ok(None) };
        let why = |what: &str| Ok(Some(format!("not on this gateway: {what}")));
        if !without.is_empty() {
            return why("mechanisms can be switched off in a build for it only, and the image has none");
        }
        for event in &scenario.events {
            let what = match (event.what.as_str(), event.target.as_deref()) {
                ("gateway.second", _) => "a second agent can be started beside processes only",
                ("gateway.upgrade", _) => "nobody reaches the journal inside a machine",
                ("gateway.flush", _) => "an image has no program but ours that reaches the kernel's tables",
                ("gateway.kill", Some("tunnel")) => {
                    "its kernel carries the tunnel, there is no process to kill"
                }
                ("clock.set" | "clock.jump", _) => {
                    "in a machine the checks' clock moves with the agent's, and the servers' certificates with it"
                }
                ("gateway.power-cut", _) if has_no_switch(how) => "nothing switches this bench's power",
                _ => continue,
            };
            return why(what);
        }
        let plan = plan_text(&scenario.plan.file, &scenario.file, &[&scenario.plan.set])?;
        match on_board(&plan, how.board(), &how.ports()) {
            Ok(_) => Ok(None),
            Err(error) if error.is::<UnknownPort>() => why(&error.to_string()),
            Err(error) => Err(error),
        }
    }
}

fn has_no_switch(how: &How) -> bool {
    matches!(how, How::Bench(Bench { power: None, .. }))
}

/// The folder that images are left in, beside the lab's own program in `target`.
pub fn images(target: &Path) -> PathBuf {
    target.join("images")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::scenario_file;

    fn machine() -> Choice {
        let board = Board::shipped("qemu-virt-edk2").unwrap();
        Choice::Machine(Box::new(How::Qemu { board, image: "none.img".into(), zones: Zones::Ports }))
    }

    fn unsuited(choice: &Choice, name: &str) -> Option<String> {
        choice.unsuited(&Scenario::read(&scenario_file(name)).unwrap(), &[]).unwrap()
    }

    #[test]
    fn what_a_machine_cannot_do_is_refused_before_and_with_its_reason() {
        for (name, part) in [
            ("two-agents.toml", "second agent"),
            ("upgrade-in-soak.toml", "journal"),
            ("clock-jump.toml", "clock"),
            ("foreign-flush.toml", "no program but ours"),
            ("vpn-tunnel-killed.toml", "kernel carries the tunnel"),
            ("emergency-uplink.toml", "USB1"),
        ] {
            let why = unsuited(&machine(), name).unwrap_or_default();
            assert!(why.starts_with("not on this gateway: ") && why.contains(part), "{name}: {why}");
            assert_eq!(unsuited(&Choice::Namespace, name), None);
        }
        for name in ["plain-move.toml", "power-cut.toml", "disk-full.toml", "vpn-to-direct.toml"] {
            assert_eq!(unsuited(&machine(), name), None, "{name}");
        }
    }

    #[test]
    fn nothing_can_be_switched_off_in_an_image() {
        let scenario = Scenario::read(&scenario_file("plain-move.toml")).unwrap();
        let why = machine().unsuited(&scenario, &["affinity".to_owned()]).unwrap().unwrap();
        assert!(why.contains("switched off"), "{why}");
    }

    #[test]
    fn an_unknown_gateway_is_refused_with_what_there_is() {
        let refused = Choice::parse("qemu", None, Path::new("/nowhere")).unwrap_err().to_string();
        assert!(refused.contains("qemu-virt-edk2") && refused.contains("namespace"), "{refused}");
        let none = Choice::parse("qemu-virt-edk2", None, Path::new("/nowhere")).unwrap_err().to_string();
        assert!(none.contains("cargo xtask image"), "{none}");
    }
}
