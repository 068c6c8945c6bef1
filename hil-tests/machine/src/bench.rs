//! The file that says how a bench of real boards is wired: which board, where its maintenance line is, which interface of
//! the lab's host each of its ports is plugged into, and how its power is switched. See `docs/bench.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use seimon_board::Board;
use serde::Deserialize;

/// A place with one board.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bench {
    /// Board file's id.
    pub board: String,
    /// The maintenance port: a Unix socket, or a serial device whose speed is set already.
    pub maintenance: PathBuf,
    /// By the lab's port (`wan1`, `wan2`, `lan1`, `lan2`, `lan3`).
    pub ports: BTreeMap<String, Plug>,
    #[serde(default)]
    pub power: Option<Power>,
}

/// One cable.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plug {
    /// As printed on the board's case.
    pub port: String,
    /// Of the lab's host, at the cable's other end.
    pub interface: String,
}

/// Commands, run on the lab's host; without them scenarios that cut the power are refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Power {
    pub on: Vec<String>,
    pub off: Vec<String>,
}

/// The town's ports that a gateway must have.
pub const PORTS: [&str; 5] = ["wan1", "wan2", "lan1", "lan2", "lan3"];

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("the bench file {} cannot be read", .file.display())]
    Unreadable {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}: {}", .file.display(), .problems.join("; "))]
    Wrong { file: PathBuf, problems: Vec<String> },
}

impl Bench {
    /// # Errors
    /// There is no such file, or it says something that cannot be; every mistake is named.
    pub fn read(file: &Path) -> Result<Self, BenchError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| BenchError::Unreadable { file: file.to_owned(), source })?;
        Self::parse(&text).map_err(|problems| BenchError::Wrong { file: file.to_owned(), problems })
    }

    fn parse(text: &str) -> Result<Self, Vec<String>> {
        let bench: Self = toml::from_str(text).map_err(|error| vec![error.to_string()])?;
        let mut problems = Vec::new();
        let board = Board::shipped(&bench.board);
        if board.is_none() {
            let known: Vec<&str> = Board::shipped_ids().collect();
            problems.push(format!("there is no board `{}`; there are {}", bench.board, known.join(", ")));
        }
        if bench.maintenance.starts_with("/run") || bench.maintenance.starts_with("/var/run") {
            let place = bench.maintenance.display();
            problems.push(format!("maintenance: the lab has a /run of its own, {place} has to be elsewhere"));
        }
        for (name, plug) in &bench.ports {
            if !PORTS.contains(&name.as_str()) {
                problems.push(format!("the town has no port `{name}`; it has {}", PORTS.join(", ")));
            }
            let missing = board.as_ref().is_some_and(|board| board.interface_of(&plug.port).is_none());
            if missing {
                problems.push(format!("ports.{name}: board `{}` has no port `{}`", bench.board, plug.port));
            }
        }
        for (what, of) in [("port", Plug::port as fn(&Plug) -> &str), ("interface", Plug::interface)] {
            let mut seen = BTreeSet::new();
            for plug in bench.ports.values().filter(|plug| !seen.insert(of(plug))) {
                problems.push(format!("{what} `{}` is plugged in twice", of(plug)));
            }
        }
        if let Some(power) = &bench.power
            && (power.on.is_empty() || power.off.is_empty())
        {
            problems.push("power.on and power.off are a program and its arguments each".to_owned());
        }
        if problems.is_empty() { Ok(bench) } else { Err(problems) }
    }
}

impl Plug {
    fn port(&self) -> &str {
        &self.port
    }

    fn interface(&self) -> &str {
        &self.interface
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
board = "bananapi-bpi-r3"
maintenance = "/srv/bench/serial.sock"
[ports]
wan1 = { port = "WAN", interface = "enp1s0f0" }
wan2 = { port = "SFP1", interface = "enp1s0f1" }
lan1 = { port = "LAN1", interface = "enp1s0f2" }
[power]
on = ["labgrid-client", "-p", "r3", "power", "on"]
off = ["labgrid-client", "-p", "r3", "power", "off"]
"#;

    #[test]
    fn a_bench_file_is_read() {
        let bench = Bench::parse(TEXT).unwrap();
        assert_eq!(bench.ports["wan2"].port, "SFP1");
        assert_eq!(bench.power.unwrap().off[4], "off");
    }

    #[test]
    fn every_mistake_is_named() {
        let wrong = TEXT
            .replace("wan2 =", "wan9 =")
            .replace("\"SFP1\"", "\"SFP9\"")
            .replace("f2", "f0")
            .replace("/srv/bench", "/run/bench")
            .replace("[\"labgrid-client\", \"-p\", \"r3\", \"power\", \"off\"]", "[]");
        let problems = Bench::parse(&wrong).unwrap_err().join("\n");
        for part in [
            "no port `wan9`",
            "no port `SFP9`",
            "`enp1s0f0` is plugged in twice",
            "power.on and",
            "/run of its own",
        ] {
            assert!(problems.contains(part), "{part} in {problems}");
        }
        assert!(Bench::parse(&TEXT.replace("board =", "bord =")).is_err());
        assert!(
            Bench::parse(&TEXT.replace("bananapi-bpi-r3", "unknown")).unwrap_err()[0].contains("there are")
        );
    }
}
