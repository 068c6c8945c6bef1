//! The guides against the tool: whoever types what they say is understood.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use seimon_board::Board;
use seimonctl::args::Args;

const GUIDES: [&str; 6] = [
    "docs/operations/README.md",
    "docs/operations/migration.md",
    "docs/operations/running.md",
    "docs/operations/running.en.md",
    "docs/lab.md",
    "README.md",
];

fn read(name: &str) -> Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    fs::read_to_string(&file).with_context(|| name.to_owned())
}

/// Lines of code blocks that call the tool: what stands behind `$ `, or a line that begins with its name.
fn called(guide: &str) -> Vec<&str> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in guide.lines() {
        let line = line.trim();
        if line.starts_with("```") {
            inside = !inside;
        }
        let line = line.strip_prefix("$ ").unwrap_or(line);
        if inside && line.starts_with("seimonctl ") {
            found.push(line);
        }
    }
    found
}

#[test]
fn every_command_in_the_guides_is_understood() -> Result<()> {
    let mut count = 0;
    for name in GUIDES {
        for line in called(&read(name)?) {
            // Up to what is the shell's or a remark; `$SEIMON_SOCKET` is a word like any other.
            let own = line
                .split([' ', '|', '>', '#', '('])
                .take_while(|word| !word.is_empty() && !word.contains('…'));
            Args::try_parse_from(own).with_context(|| format!("{name}: {line}"))?;
            count += 1;
        }
    }
    ensure!(count > 20, "only {count} commands were found");
    Ok(())
}

/// Code blocks of TOML, in order.
fn plans(guide: &str) -> Vec<String> {
    let blocks = guide.split("```toml\n").skip(1);
    blocks.filter_map(|rest| Some(rest.split_once("\n```")?.0.to_owned())).collect()
}

#[test]
fn the_way_over_the_tunnel_that_the_guide_shows_is_a_plan() -> Result<()> {
    let guide = read("docs/operations/migration.md")?;
    let [tunnel, paths] = plans(&guide).try_into().map_err(|blocks| anyhow::anyhow!("{blocks:?}"))?;
    let example = read("provisioning/plan/examples/two-line-town.toml")?;
    let before = "paths = [\"closed\", \"direct\"]";
    ensure!(example.matches(before).count() == 3, "the example has other routes");
    let plan = example.replace(before, &paths) + "\n" + &tunnel;
    let board = Board::shipped("lab-namespace").context("the lab's board")?;
    let plan =
        seimon_plan::parse(&plan, "guide.toml", &board).map_err(|errors| anyhow::anyhow!("{errors}"))?;
    ensure!(plan.migration.routes.iter().all(|route| route.paths.len() == 3), "{:?}", plan.migration.routes);
    Ok(())
}
