//! Every target for a moment, and on everything that was once found.

use std::path::Path;
use std::time::Duration;

use seimon_fuzz::mutate::Outcome;
use seimon_fuzz::{TARGETS, mutate};

#[test]
fn every_target_takes_its_seeds_and_what_can_be_made_of_them() {
    for target in TARGETS {
        assert!(!(target.seeds)().is_empty(), "{target:?}");
        let Outcome { inputs, found } = mutate::fuzz(target, 1, Duration::from_secs(1));
        assert_eq!(found.map(|found| String::from_utf8_lossy(&found).into_owned()), None, "{target:?}");
        assert!(inputs > 30, "{target:?}: {inputs}");
    }
}

#[test]
fn what_was_once_found_stays_repaired() {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
    for target in TARGETS {
        let Ok(files) = std::fs::read_dir(found.join(target.name)) else { continue };
        for file in files {
            (target.run)(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }
}

/// A fuzzer that cannot find a thing is none.
#[test]
fn an_input_that_does_harm_is_found_and_made_small() {
    fn fragile(bytes: &[u8]) {
        assert!(bytes.len() < 8 || bytes.is_ascii(), "found");
    }
    fn seeds() -> Vec<Vec<u8>> {
        vec![b"some words to begin with".to_vec()]
    }
    let target = seimon_fuzz::Target { name: "fragile", run: fragile, seeds };
    let found = mutate::fuzz(target, 1, Duration::from_secs(5)).found.unwrap();
    assert_eq!(found.len(), 8, "{found:?}");
    assert!(!found.is_ascii());
}

#[test]
fn seeds_are_good_inputs() {
    let checkpoints = seimon_fuzz::seeds::checkpoint();
    let good = checkpoints
        .iter()
        .filter(|bytes| serde_json::from_slice::<seimon_core::migration::Checkpoint>(bytes).is_ok())
        .count();
    assert_eq!(good, checkpoints.len());
    let town = seimon_fuzz::targets::town().unwrap();
    let plans = seimon_fuzz::seeds::plan();
    let good =
        plans.iter().filter(|b| seimon_plan::parse_bytes(b, "seed", town.plan.board()).is_ok()).count();
    assert!(good >= 2, "{good} of {}", plans.len());
    let hubs = seimon_fuzz::seeds::hub();
    assert!(hubs.iter().all(|b| seimon_plan::parse_hub(b, "seed", town.plan.board()).is_ok()));
    assert!(seimon_fuzz::seeds::resolver_config().is_some_and(|config| !config.paths.is_empty()));
}
