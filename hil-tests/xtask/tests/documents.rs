//! What documents name is there: the witnesses of the security properties, and whatever a link leads to.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The properties of docs/security.md, each with its number, in one line.
fn properties(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("- **S") {
            let number = rest.split('*').next().unwrap_or_default();
            found.push((format!("S{number}"), rest.to_owned()));
            inside = true;
        } else if let Some(more) = line.strip_prefix("  ").filter(|_| inside) {
            if let Some((_, property)) = found.last_mut() {
                property.push(' ');
                property.push_str(more);
            }
        } else {
            inside = false;
        }
    }
    found
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// `a_name_of_a_test`: nothing else that is quoted has so many underscores.
fn is_test_name(word: &str) -> bool {
    word.matches('_').count() >= 3
        && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn has_test(file: &Path, name: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("fn {name}(")))
}

#[test]
fn every_witness_that_the_security_properties_name_is_there() -> Result<()> {
    let text = fs::read_to_string(root().join("docs/security.md"))?;
    let folders: Vec<&str> = quoted(&text).filter(|word| word.ends_with("tests/segmentation/")).collect();
    let (mut missing, mut tests, mut scenarios) = (Vec::new(), 0, 0);
    for (number, property) in properties(&text) {
        let mut file = None;
        for word in quoted(&property) {
            let name = match word.split_once(": ") {
                Some((written, name)) if written.ends_with(".rs") => {
                    // Some are written without the folder that their section names.
                    let near = folders.iter().map(|folder| root().join(folder).join(written));
                    file = std::iter::once(root().join(written)).chain(near).find(|path| path.exists());
                    name
                }
                Some(_) | None if is_test_name(word) => word,
                Some(_) | None => {
                    if word.ends_with(".toml") && !word.contains(['/', '*']) {
                        scenarios += 1;
                        if !root().join("hil-tests/scenarios").join(word).exists() {
                            missing.push(format!("{number}: {word}"));
                        }
                    }
                    continue;
                }
            };
            tests += 1;
            if !file.as_deref().is_some_and(|file| has_test(file, name)) {
                missing.push(format!("{number}: {word}"));
            }
        }
    }
    ensure!(missing.is_empty(), "docs/security.md names what is not there: {missing:#?}");
    ensure!(tests > 60 && scenarios > 10, "hardly anything was found: {tests} tests, {scenarios} scenarios");
    Ok(())
}

fn markdown_below(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() && name != "target" && !name.starts_with('.') {
            markdown_below(&path, found)?;
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
    Ok(())
}

#[test]
fn every_link_between_documents_leads_somewhere() -> Result<()> {
    let mut documents = Vec::new();
    markdown_below(&root(), &mut documents)?;
    let (mut broken, mut count) = (Vec::new(), 0);
    for document in documents {
        let text = fs::read_to_string(&document)?;
        let folder = document.parent().context("a folder")?;
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if !link.is_empty() && !link.contains("://") {
                count += 1;
                if !folder.join(link).exists() {
                    broken.push(format!("{} → {link}", document.display()));
                }
            }
        }
    }
    ensure!(broken.is_empty(), "{broken:#?}");
    ensure!(count > 20, "hardly any link was found: {count}");
    Ok(())
}

/// Words at the begin of the lines of a help: `  bench [--only …]  measure`.
fn words_of_help(source: &str) -> Vec<&str> {
    let help = source.split("const HELP: &str = \"").nth(1).unwrap_or_default();
    let help = help.split("\";").next().unwrap_or_default();
    let lines = help.lines().filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    let mut words: Vec<&str> = lines.filter_map(|line| line.split_whitespace().next()).collect();
    words.dedup();
    words
}

#[test]
fn the_readme_names_every_command() -> Result<()> {
    let readme = fs::read_to_string(root().join("README.md"))?;
    let xtask = fs::read_to_string(root().join("hil-tests/xtask/src/main.rs"))?;
    let mut missing = Vec::new();
    let commands = words_of_help(&xtask);
    ensure!(commands.len() > 7, "hardly any command of xtask was found: {commands:?}");
    for command in commands {
        if command != "deps" && !readme.contains(&format!("cargo xtask {command}")) {
            missing.push(format!("cargo xtask {command}"));
        }
    }
    // The manual page is compared with the tool itself elsewhere.
    let manual = fs::read_to_string(root().join("docs/man/seimonctl.1.md"))?;
    let mut commands: Vec<&str> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("**seimonctl** [*OPTIONS*] **")?.split([' ', '*']).next())
        .collect();
    commands.dedup();
    ensure!(commands.len() > 10, "hardly any command of seimonctl was found: {commands:?}");
    for command in commands {
        let in_list = readme
            .lines()
            .filter(|line| line.starts_with("| `seimonctl`: "))
            .any(|line| line.split([':', ',', '|']).any(|word| word.trim() == command));
        let wanted = format!("seimonctl {command}");
        if !in_list && !quoted(&readme).any(|words| words.starts_with(&wanted)) {
            missing.push(format!("seimonctl {command}"));
        }
    }
    ensure!(missing.is_empty(), "README.md does not name {missing:?}");
    Ok(())
}
