//! `demo`: four acts, played live, then a table and a report.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use seimon_lab::demo::{self, ACTS};
use seimon_lab::netns;
use seimon_lab::report::{self, Act};
use seimon_lab::result::Results;
use seimon_lab::runner::{self, Choice, Options, Played, suitable_screen};
use seimon_lab::scenario::Scenario;

use super::{bin_dir, exit, line, out_dir};
use crate::DemoArgs;

pub(crate) fn demo(args: &DemoArgs) -> Result<ExitCode> {
    let bin_dir = bin_dir(args.bin_dir.as_deref())?;
    let out = out_dir("demo")?;
    let json = args.json.as_deref().map(std::path::absolute).transpose()?;
    netns::enter_or_reexec()?;
    let begun = Instant::now();
    let japanese = args.lang == "ja";
    let mut played: Vec<(&demo::ActInfo, Played)> = Vec::new();
    for (number, act) in ACTS.iter().enumerate() {
        let scenario = Scenario::read(&runner::scenario_file(act.file))?;
        let (title, about) =
            if japanese { (act.title_ja, act.about_ja) } else { (act.title_en, act.about_en) };
        line(&format!(
            "\n{}/{}  {title}  ({} s)\n     {about}",
            number + 1,
            ACTS.len(),
            scenario.duration.as_secs()
        ));
        let options = Options {
            bin_dir: bin_dir.clone(),
            without: Vec::new(),
            run: "demo",
            log: Some(out.join(format!("act-{}.log", number + 1))),
            gateway: Choice::Namespace,
        };
        let mut screen = suitable_screen();
        let judge = act.judge;
        let mut act_played = runner::play_with(&scenario, &options, screen.as_mut(), &|record, measure| {
            judge(record, measure)
        })?;
        for check in &mut act_played.results.checks {
            // Several acts expect the same of the same load; a name must say whose it is.
            if check.name != "silent_death_ms" && !check.name.starts_with(&format!("{}.", act.key)) {
                check.name = format!("{}.{}", act.key, check.name);
            }
        }
        played.push((act, act_played));
    }
    finish(&played, &out, json.as_deref(), begun.elapsed())
}

fn finish(
    played: &[(&demo::ActInfo, Played)],
    out: &Path,
    json: Option<&Path>,
    took: Duration,
) -> Result<ExitCode> {
    let checks = played.iter().flat_map(|(_, p)| p.results.checks.iter().cloned()).collect();
    let total = Results::new("demo", "demo", 1, checks);
    let acts: Vec<Act<'_>> = played
        .iter()
        .map(|(info, played)| Act {
            title_ja: info.title_ja,
            title_en: info.title_en,
            about_ja: info.about_ja,
            about_en: info.about_en,
            record: &played.record,
            results: &played.results,
        })
        .collect();
    let file = out.join("report.html");
    report::write(
        &file,
        ("正門 Seimon: 誰にも気づかれない引っ越し", "Seimon: the move that nobody noticed"),
        &acts,
        &total,
    )?;
    line("");
    line(total.table().trim_end());
    if let Some(json) = json {
        total.write(json)?;
    }
    line(&format!("\ntook {} s; report: {}", took.as_secs(), file.display()));
    Ok(exit(total.good()))
}
