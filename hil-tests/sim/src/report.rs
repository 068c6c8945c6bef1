//! Results in the format of the lab, the demo and the benches: one number a check.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub format: u32,
    pub run: &'static str,
    pub scenario: String,
    pub commit: String,
    pub seed: u64,
    pub checks: Vec<Check>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    pub goal: String,
    pub status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtLeast(u64),
    Exactly(u64),
}

impl Check {
    pub fn new(name: &str, value: u64, goal: Goal, note: Option<String>) -> Self {
        let (met, goal) = match goal {
            Goal::AtLeast(least) => (value >= least, format!(">={least}")),
            Goal::Exactly(exactly) => (value == exactly, format!("=={exactly}")),
        };
        let status = if met { "pass" } else { "fail" };
        Self { name: name.to_owned(), value: value as f64, unit: "count", goal, status, note }
    }
}

impl Report {
    pub fn new(scenario: &str, seed: u64, checks: Vec<Check>) -> Self {
        Self { format: 1, run: "simulation", scenario: scenario.to_owned(), commit: commit(), seed, checks }
    }

    pub fn good(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.status == "pass")
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        for Check { name, value, goal, status, note, .. } in &self.checks {
            out.push_str(&format!("{name:<34} {value:>9} {goal:>9}  {status}"));
            if let Some(note) = note {
                out.push_str(&format!("  ({note})"));
            }
            out.push('\n');
        }
        out
    }
}

/// Of the sources.
fn commit() -> String {
    let output = std::process::Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR")])
        .args(["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"])
        .output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Ok(_) | Err(_) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_good_only_when_something_was_checked_and_all_of_it_passed() {
        let check = |value| Check::new("sim.violations", value, Goal::Exactly(0), None);
        assert!(!Report::new("s", 1, Vec::new()).good());
        assert!(Report::new("s", 1, vec![check(0)]).good());
        assert!(!Report::new("s", 1, vec![check(0), check(1)]).good());
        let json = serde_json::to_value(Report::new("s", 1, vec![check(0)])).unwrap();
        assert_eq!(json["format"], 1);
        assert_eq!(
            json["checks"][0],
            serde_json::json!({"name": "sim.violations", "value": 0.0, "unit": "count", "goal": "==0", "status": "pass"})
        );
    }
}
