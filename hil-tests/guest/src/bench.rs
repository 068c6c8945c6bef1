//! What the flowtable gains under our table, against what it gains under the least table that does the same.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::image::Job;
use crate::qemu::{self, Counted, Machine};
use crate::{cross, say};

/// Of the gain of a bare flowtable ruleset.
const WANTED: f64 = 0.95;
const LEAST_ROUNDS: usize = 4;

pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let (mut rounds, mut file) = (8_usize, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match (argument.as_str(), rest.next()) {
            ("--pairs", Some(number)) => rounds = number.parse().context("--pairs: a number")?,
            ("--json", Some(name)) => file = Some(name.clone()),
            (other, _) => bail!("bench [--pairs N] [--json FILE], not `{other}`"),
        }
    }
    ensure!(rounds >= LEAST_ROUNDS, "--pairs: at least {LEAST_ROUNDS}");
    let program = cross::example("seimon-dataplane", "flowtable_gain")?;
    let name = "/job/flowtable_gain".to_owned();
    let script = format!(
        "unshare -n -m -p --fork --kill-child --mount-proc env SEIMON_TEST_SLOW=20 {name} {rounds}\n"
    );
    let job = Job { script, files: vec![(name, 0o755, program)] };
    let machine = Machine {
        counted: Counted::Instructions,
        patience: Duration::from_secs(1_500),
        ..Machine::default()
    };
    let outcome = qemu::boot(&job, &machine)?;
    ensure!(outcome.status == Some(0), "the measurement failed in the guest (see above)");
    let arms = arms(&outcome.lines);
    let result = judge(&arms, rounds)?;
    let text = serde_json::to_string_pretty(&result)?;
    say::out(&format!("{text}\n"));
    if let Some(file) = file {
        std::fs::write(&file, text).with_context(|| file.clone())?;
    }
    Ok(if result["checks"][0]["status"] == "pass" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Nanoseconds of guest time (instructions) a packet, by arm, in the order of rounds.
fn arms(lines: &[String]) -> BTreeMap<String, Vec<f64>> {
    let mut arms: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for line in lines {
        let mut words = line.split_whitespace();
        if let (Some("arm"), Some(name), Some(Ok(value))) =
            (words.next(), words.next(), words.next().map(str::parse))
        {
            arms.entry(name.to_owned()).or_default().push(value);
        }
    }
    arms
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Each round's share, from its own four arms.
fn judge(arms: &BTreeMap<String, Vec<f64>>, rounds: usize) -> Result<serde_json::Value> {
    let arm = |name: &str| {
        let found = arms.get(name).map(Vec::as_slice).unwrap_or_default();
        ensure!(found.len() == rounds, "arm {name}: {} runs of {rounds}", found.len());
        Ok(found)
    };
    let (ours_slow, ours_fast) = (arm("ours-slow")?, arm("ours-fast")?);
    let (bare_slow, bare_fast) = (arm("bare-slow")?, arm("bare-fast")?);
    let mut shares = Vec::new();
    // Against the most that could be gained under our rules: that flows cost as little as in the bare table's flowtable.
    let mut of_possible = Vec::new();
    for round in 0..rounds {
        let gain = ours_slow[round] - ours_fast[round];
        let bare_gain = bare_slow[round] - bare_fast[round];
        ensure!(bare_gain > 0.0, "round {round}: a bare flowtable gains nothing: is anything offloaded?");
        shares.push(gain / bare_gain);
        of_possible.push(gain / (ours_slow[round] - bare_fast[round]));
    }
    // The stricter of the two: a slow path that is slower would make the first look good.
    let stricter: Vec<f64> = shares.iter().zip(&of_possible).map(|(a, b)| a.min(*b)).collect();
    let (low, high) = (least(&stricter), -least(&stricter.iter().map(|x| -x).collect::<Vec<_>>()));
    let value = median(&stricter);
    let status = if low >= WANTED {
        "pass"
    } else if high < WANTED {
        "fail"
    } else {
        "unclear"
    };
    Ok(json!({
        "bench": "flowtable",
        "unit": "nanoseconds of guest time (instructions) a packet, source and sink included",
        "arms": arms.iter().map(|(name, runs)| (name.clone(), json!({"median": median(runs), "runs": runs}))).collect::<serde_json::Map<_, _>>(),
        "gain_to_bare_gain": median(&shares),
        "gain_of_possible": median(&of_possible),
        "checks": [{"name": "flowtable_gain_share", "value": value, "least": low, "most": high, "wanted": WANTED, "status": status}],
    }))
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arms_of(values: [(&str, f64); 4]) -> BTreeMap<String, Vec<f64>> {
        values.into_iter().map(|(name, value)| (name.to_owned(), vec![value; 4])).collect()
    }

    #[test]
    fn the_stricter_of_both_shares_decides() {
        let good = arms_of([("ours-slow", 9.0), ("ours-fast", 4.0), ("bare-slow", 8.0), ("bare-fast", 4.0)]);
        assert_eq!(judge(&good, 4).expect("four arms")["checks"][0]["status"], "pass");
        // The slow path makes up for a fast one that is slower than a bare one's.
        let bad = arms_of([("ours-slow", 20.0), ("ours-fast", 6.0), ("bare-slow", 8.0), ("bare-fast", 4.0)]);
        assert_eq!(judge(&bad, 4).expect("four arms")["checks"][0]["status"], "fail");
        let nothing =
            arms_of([("ours-slow", 9.0), ("ours-fast", 9.0), ("bare-slow", 8.0), ("bare-fast", 8.0)]);
        assert!(judge(&nothing, 4).is_err());
    }
}
