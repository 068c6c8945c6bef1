//! Scenarios: what town, what plan, what load, what happens when, and what must hold.
//!
//! The format is data that anybody can write from its description and `lab vocabulary`; unknown words are errors, and
//! all errors are reported, each with its line.

mod parse;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use tree::Problem;

use crate::load::spec::LoadSpec;
use crate::world::params::Topology;

/// A scenario file, read and checked against the vocabulary.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Where it was read from; files it names are looked for beside it.
    pub file: PathBuf,
    pub name: String,
    /// Rows of the requirement inventory that it is evidence for.
    pub needs: Vec<String>,
    pub seed: u64,
    pub duration: Duration,
    /// The mechanism whose absence must make this scenario fail (`--without`). Not part of what is played.
    pub sabotage: Option<String>,
    /// Runs in the short subset of the test command.
    pub short: bool,
    pub topology: Topology,
    pub plan: PlanChoice,
    pub loads: Vec<LoadSpec>,
    pub events: Vec<EventSpec>,
    pub expectations: Vec<Expectation>,
}

/// Which plan the gateway gets, and what is changed in it.
#[derive(Clone, Debug)]
pub struct PlanChoice {
    pub file: String,
    /// Dotted keys of the plan.
    pub set: BTreeMap<String, toml::Value>,
}

/// One `[[event]]`.
#[derive(Clone, Debug)]
pub struct EventSpec {
    /// Named by other events and by expectations; `event<n>` (from 1) unless given.
    pub id: String,
    pub when: Moment,
    /// One of the vocabulary's events.
    pub what: String,
    pub target: Option<String>,
    /// How long it lasts; absent: to the end.
    pub lasts: Option<Duration>,
    /// The event's own keys.
    pub keys: BTreeMap<String, toml::Value>,
    pub line: usize,
}

/// A point in time of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Since the start.
    At(Duration),
    /// When the group enters the state (first time after the events before it), and then a while.
    AfterState { group: String, state: String, plus: Duration },
    /// When another event has been done, and then a while.
    AfterEvent { id: String, plus: Duration },
}

/// One `[[expect]]`.
#[derive(Clone, Debug)]
pub struct Expectation {
    pub metric: String,
    pub op: Op,
    pub from: Moment,
    /// Absent: the end.
    pub to: Option<Moment>,
    pub line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    Equal(f64),
    NotEqual(f64),
    AtMost(f64),
    AtLeast(f64),
    /// Both ends included.
    Within(f64, f64),
}

/// Why a scenario cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("{} cannot be read", .file.display())]
    Unreadable {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}:\n{}", .file.display(), listed(.problems))]
    Wrong { file: PathBuf, problems: Vec<Problem> },
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(|p| format!("  {p}")).collect::<Vec<_>>().join("\n")
}

impl Scenario {
    pub fn read(file: &Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ScenarioError::Unreadable { file: file.to_owned(), source })?;
        Self::parse(&text, file)
    }

    /// `file` is where the text is from: for messages and for the files it names.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ScenarioError> {
        parse::parse(text, file).map_err(|mut problems| {
            problems.sort();
            problems.dedup();
            ScenarioError::Wrong { file: file.to_owned(), problems }
        })
    }
}
