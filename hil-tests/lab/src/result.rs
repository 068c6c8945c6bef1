//! Results, format 1: the same for lab, demo, bench and simulation. One number a check.

use std::fmt;
use std::path::Path;

use serde::Serialize;

/// What came of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// 1.
    pub format: u32,
    /// `lab`, `demo` or `bench`.
    pub run: &'static str,
    pub scenario: String,
    /// Of the sources; ends in `-dirty` if they were changed since.
    pub commit: String,
    pub seed: u64,
    /// Which gateway was played with (`namespace`, a board); none where there is but one kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// It was not played, and why. Then there are no checks, and it is neither good nor bad.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    pub checks: Vec<Check>,
    /// The single runs, where several scenarios were played; their checks are also in `checks`, with the scenario's
    /// name before theirs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<Results>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: String,
    /// None: it could not be measured; then the status is never `pass`.
    pub value: Option<f64>,
    /// 95 % interval of a ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ci: Option<[f64; 2]>,
    /// Pairs behind a ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<usize>,
    pub unit: String,
    pub goal: String,
    pub status: Status,
    /// Why a value is missing or a pair was thrown away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pass,
    Fail,
    Unclear,
}

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    Equal(f64),
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(goal) => write!(f, ">={goal}"),
            Self::AtMost(goal) => write!(f, "<={goal}"),
            Self::Equal(goal) => write!(f, "=={goal}"),
        }
    }
}

impl Goal {
    pub fn met_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(goal) => value >= goal,
            Self::AtMost(goal) => value <= goal,
            // Counts are whole and shares come from counts: what is meant is the same number, not a near one.
            Self::Equal(goal) => (value - goal).abs() < 1e-9,
        }
    }
}

impl Check {
    /// A number that decides by itself. None: `unclear`.
    pub fn number(name: impl Into<String>, value: Option<f64>, unit: &str, goal: Goal) -> Self {
        let value = value.filter(|v| v.is_finite());
        let status = match value {
            Some(value) if goal.met_by(value) => Status::Pass,
            Some(_) => Status::Fail,
            None => Status::Unclear,
        };
        Self {
            name: name.into(),
            value,
            ci: None,
            n: None,
            unit: unit.to_owned(),
            goal: goal.to_string(),
            status,
            note: None,
        }
    }

    /// A ratio with its interval: `unclear` where the interval holds both values that pass and values that fail and is
    /// wider than the margin it has to decide.
    pub fn ratio(name: impl Into<String>, median: f64, ci: [f64; 2], n: usize, goal: Goal) -> Self {
        let status = match (goal.met_by(ci[0]), goal.met_by(ci[1])) {
            (true, true) => Status::Pass,
            (false, false) => Status::Fail,
            // The interval straddles the goal.
            _ => Status::Unclear,
        };
        Self { ci: Some(ci), n: Some(n), status, ..Self::number(name, Some(median), "ratio", goal) }
    }

    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }
}

impl Results {
    pub fn new(run: &'static str, scenario: impl Into<String>, seed: u64, checks: Vec<Check>) -> Self {
        Self {
            format: 1,
            run,
            scenario: scenario.into(),
            commit: commit(),
            seed,
            gateway: None,
            skipped: None,
            checks,
            runs: Vec::new(),
        }
    }

    /// Whether there was something to check and all of it passed.
    pub fn good(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|c| c.status == Status::Pass)
    }

    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        write_json(file, &serde_json::to_value(self)?)
    }

    /// The table for people: check, value, goal, status.
    pub fn table(&self) -> String {
        let width = self.checks.iter().map(|c| c.name.chars().count()).max().unwrap_or(0).max(5);
        let mut out =
            format!("{:<width$}  {:>12}  {:>10}  {:<10}  status\n", "check", "value", "goal", "unit");
        for check in &self.checks {
            let value = check.value.map_or_else(|| "-".to_owned(), readable);
            let status = match check.status {
                Status::Pass => "pass",
                Status::Fail => "FAIL",
                Status::Unclear => "UNCLEAR",
            };
            out.push_str(&format!(
                "{:<width$}  {value:>12}  {:>10}  {:<10}  {status}",
                check.name, check.goal, check.unit
            ));
            if let Some([low, high]) = check.ci {
                out.push_str(&format!(" [{low:.3}, {high:.3}] n={}", check.n.unwrap_or(0)));
            }
            if let Some(note) = &check.note {
                out.push_str(&format!(" ({note})"));
            }
            out.push('\n');
        }
        out
    }
}

/// Creates the folder, too.
pub fn write_json(file: &Path, value: &serde_json::Value) -> anyhow::Result<()> {
    if let Some(folder) = file.parent().filter(|f| !f.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(file, serde_json::to_string_pretty(value)? + "\n")?;
    Ok(())
}

/// As few digits as say it.
pub fn readable(value: f64) -> String {
    if (value - value.round()).abs() < 1e-9 { format!("{value:.0}") } else { format!("{value:.3}") }
}

fn commit() -> String {
    let output = std::process::Command::new("git")
        .args([
            "-C",
            env!("CARGO_MANIFEST_DIR"),
            "describe",
            "--always",
            "--dirty",
            "--abbrev=40",
            "--exclude=*",
        ])
        .output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_never_passes() {
        assert_eq!(Check::number("a", None, "count", Goal::AtLeast(0.0)).status, Status::Unclear);
        assert_eq!(Check::number("a", Some(f64::NAN), "count", Goal::AtLeast(0.0)).status, Status::Unclear);
    }

    #[test]
    fn a_ratio_whose_interval_straddles_the_goal_is_unclear() {
        let goal = Goal::AtLeast(0.97);
        assert_eq!(Check::ratio("r", 0.98, [0.975, 0.99], 15, goal).status, Status::Pass);
        assert_eq!(Check::ratio("r", 0.98, [0.96, 0.99], 15, goal).status, Status::Unclear);
        assert_eq!(Check::ratio("r", 0.90, [0.88, 0.92], 15, goal).status, Status::Fail);
    }

    #[test]
    fn a_run_without_checks_is_not_good() {
        assert!(!Results::new("lab", "empty", 1, Vec::new()).good());
    }

    #[test]
    fn the_written_form_is_format_1() {
        let check = Check::number("teachers.logouts", Some(0.0), "count", Goal::Equal(0.0));
        let json = serde_json::to_value(Results::new("lab", "s", 1, vec![check])).unwrap();
        assert_eq!(json["format"], 1);
        assert_eq!(
            json["checks"][0],
            serde_json::json!({"name": "teachers.logouts", "value": 0.0, "unit": "count", "goal": "==0", "status": "pass"})
        );
    }
}
