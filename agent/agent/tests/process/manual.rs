//! The manual pages of the gateway's programs against what the programs say about themselves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::harness::agent::BINARY;

/// With the folder of their sources.
const PROGRAMS: [(&str, &str); 5] = [
    ("seimon-agent", "agent"),
    ("seimon-resolver", "resolver"),
    ("seimon-probe", "probe"),
    ("seimon-page", "page"),
    ("seimon-tunnel", "tunnel"),
];
const SECTIONS: [&str; 10] = [
    "NAME",
    "SYNOPSIS",
    "DESCRIPTION",
    "OPTIONS",
    "ENVIRONMENT",
    "FILES",
    "EXIT STATUS",
    "SECURITY",
    "EXAMPLES",
    "SEE ALSO",
];
/// Of builds for tests, and of the tests.
const NOT_FOR_PEOPLE: [&str; 2] = ["--without", "SEIMON_WITHOUT"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page(program: &str) -> Result<String> {
    let file = repository().join(format!("docs/man/{program}.8.md"));
    fs::read_to_string(&file).with_context(|| file.display().to_string())
}

fn section<'a>(page: &'a str, title: &str) -> Result<&'a str> {
    let (_, rest) = page.split_once(&format!("\n## {title}\n")).with_context(|| format!("no {title}"))?;
    Ok(rest.split("\n## ").next().unwrap_or(rest).trim())
}

fn help(program: &str, arguments: &[&str]) -> Result<String> {
    let file = Path::new(BINARY).with_file_name(program);
    ensure!(file.exists(), "{program} is not built: run `cargo build` for the whole workspace first");
    let output = Command::new(&file).args(arguments).arg("--help").stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{program} --help: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Without marks, in small letters, on one line.
fn plain(text: &str) -> String {
    let bare: String = text.chars().filter(|c| !matches!(c, '*' | '`' | '<' | '>')).collect();
    bare.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// `--plan` with what help says about it.
fn options(help: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let listed = help.lines().skip_while(|line| *line != "Options:").skip(1);
    for line in listed.take_while(|line| line.is_empty() || line.starts_with(' ')).map(str::trim) {
        let words = if line.starts_with('-') {
            line.split([' ', ',']).find(|word| word.starts_with("--"))
        } else {
            None
        };
        if let Some(name) = words {
            let short = line.split_once("  ").map(|(_, text)| text.trim().to_owned());
            found.push((name.to_owned(), short.unwrap_or_default()));
        } else if let Some((_, text)) = found.last_mut() {
            text.push(' ');
            text.push_str(line);
        }
    }
    found
}

#[test]
fn every_page_has_all_sections_and_the_synopsis_that_the_program_prints() -> Result<()> {
    for (program, _) in PROGRAMS {
        let page = page(program)?;
        let titles = page.lines().filter_map(|line| line.strip_prefix("## "));
        // Only the agent has something to say about them.
        let titles: Vec<&str> = titles.filter(|title| *title != "SIGNALS").collect();
        ensure!(titles == SECTIONS, "{program}: {titles:?}");
        ensure!(section(&page, "NAME")?.starts_with(&format!("{program} – ")), "{program}: NAME");
        let synopsis = plain(section(&page, "SYNOPSIS")?);
        let runs: &[&[&str]] = if program == "seimon-agent" { &[&["run"], &["lockdown"]] } else { &[&[]] };
        for run in runs {
            let help = help(program, run)?;
            let usage = help.lines().find_map(|line| line.strip_prefix("Usage: ")).context("Usage")?;
            ensure!(
                synopsis.contains(&plain(usage)),
                "{program}: `{usage}` is not in the synopsis: {synopsis}"
            );
        }
    }
    Ok(())
}

#[test]
fn every_option_of_every_program_is_described_as_its_help_does_and_none_is_left_over() -> Result<()> {
    for (program, _) in PROGRAMS {
        let page = page(program)?;
        let described = section(&page, "OPTIONS")?;
        let mut known = BTreeSet::new();
        let runs: &[&[&str]] = if program == "seimon-agent" { &[&[], &["run"]] } else { &[&[]] };
        for run in runs {
            for (option, text) in options(&help(program, run)?) {
                known.insert(option.clone());
                if NOT_FOR_PEOPLE.contains(&option.as_str()) {
                    continue;
                }
                let paragraph = described
                    .split("\n\n")
                    .find(|paragraph| paragraph.contains(&format!("**{option}**")))
                    .with_context(|| format!("{program}: {option} is not described"))?;
                let text = text.split(['[', '\u{2028}']).next().unwrap_or_default();
                let text = text.split("Possible values:").next().unwrap_or_default();
                for sentence in plain(text).split(". ").map(|sentence| sentence.trim_end_matches('.')) {
                    // "Print help" may have a remark behind it.
                    let sentence = sentence.split(" (see").next().unwrap_or_default();
                    ensure!(
                        plain(paragraph).contains(sentence),
                        "{program} {option}: the page lacks \"{sentence}\" in: {paragraph}"
                    );
                }
            }
        }
        for words in described.split("**--").skip(1) {
            let option = format!("--{}", words.split('*').next().unwrap_or_default());
            ensure!(
                known.contains(&option) || NOT_FOR_PEOPLE.contains(&option.as_str()),
                "{program}: {option} is no option"
            );
        }
    }
    Ok(())
}

fn sources(folder: &Path, text: &mut String) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, text)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path)?);
        }
    }
    Ok(())
}

#[test]
fn every_variable_that_a_program_reads_is_on_its_page() -> Result<()> {
    let mut count = 0;
    for (program, folder) in PROGRAMS {
        let mut text = String::new();
        sources(&repository().join("agent").join(folder).join("src"), &mut text)?;
        let environment = page(program)?;
        let environment = section(&environment, "ENVIRONMENT")?;
        for literal in text.split('"').filter(|literal| literal.starts_with("SEIMON_")) {
            let is_name = literal.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
            if is_name && !NOT_FOR_PEOPLE.contains(&literal) {
                count += 1;
                ensure!(environment.contains(literal), "{program}: {literal} is not under ENVIRONMENT");
            }
        }
    }
    ensure!(count >= 3, "hardly any variable was found: {count}");
    Ok(())
}
