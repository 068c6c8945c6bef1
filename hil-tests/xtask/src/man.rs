//! `cargo xtask man`: the manual pages of `docs/man` in the form that man(1) reads.
//!
//! The pages use little of Markdown: headings, paragraphs, terms with `: ` below them, tables, lines indented by four,
//! `**bold**`, `*italic*` and `` `code` ``. What is anything else is an error, so that no page is printed wrongly.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use crate::{build, say};

/// Writes every page as `FOLDER/man1/NAME.1`, `FOLDER/man8/NAME.8`.
pub(crate) fn write(arguments: &[String]) -> Result<ExitCode> {
    let folder = match arguments {
        [] => build::target_dir()?.join("man"),
        [option, folder] if option == "--out" => PathBuf::from(folder),
        _ => bail!("man [--out FOLDER]"),
    };
    for (name, section, page) in pages(&build::root()?)? {
        let into = folder.join(format!("man{section}"));
        fs::create_dir_all(&into).with_context(|| into.display().to_string())?;
        let file = into.join(format!("{name}.{section}"));
        let text = roff(&page).with_context(|| format!("docs/man/{name}.{section}.md"))?;
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        say::line(&file.display().to_string());
    }
    Ok(ExitCode::SUCCESS)
}

/// (name, section, text) of every page.
fn pages(root: &Path) -> Result<Vec<(String, String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join("docs/man")).context("docs/man")? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let (name, section) = stem.split_once('.').with_context(|| format!("docs/man/{stem}: no section"))?;
        found.push((name.to_owned(), section.to_owned(), fs::read_to_string(&path)?));
    }
    found.sort();
    Ok(found)
}

/// One page for man(1).
fn roff(page: &str) -> Result<String> {
    let mut out = String::from("'\\\" t\n");
    let (mut section, mut table) = ("", Vec::new());
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with('|') {
            table.push(line);
            if lines.peek().is_none_or(|next| !next.starts_with('|')) {
                out.push_str(&rows(&std::mem::take(&mut table))?);
            }
        } else if let Some(title) = line.strip_prefix("# ") {
            let (name, number) =
                title.trim_end_matches(')').split_once('(').context("the title is not NAME(SECTION)")?;
            out.push_str(&format!(".TH {} {number} \"\" Seimon\n", name.to_uppercase()));
        } else if let Some(title) = line.strip_prefix("## ") {
            section = title;
            out.push_str(&format!(".SH {}\n", inline(title)?));
        } else if let Some(code) = line.strip_prefix("    ") {
            out.push_str(&format!(".PP\n.nf\n.RS 4\n{}\n", no_request(literal(code))));
            while let Some(code) = lines.next_if(|next| next.starts_with("    ")) {
                out.push_str(&format!("{}\n", no_request(literal(&code[4..]))));
            }
            out.push_str(".RE\n.fi\n");
        } else if line.is_empty() {
            continue;
        } else if lines.peek().is_some_and(|next| next.starts_with(": ")) {
            out.push_str(&format!(".TP\n{}\n", inline(line)?));
            let text = lines.next().and_then(|next| next.strip_prefix(": ")).unwrap_or_default();
            out.push_str(&format!("{}\n", inline(text)?));
            while let Some(more) = lines.next_if(|next| !next.is_empty()) {
                out.push_str(&format!("{}\n", inline(more)?));
            }
        } else {
            ensure!(!line.starts_with(['#', '-', '>', '`', '!']), "not understood: {line}");
            // NAME is read by apropos(1), which knows one kind of dash.
            let text = if section == "NAME" { line.replacen('–', "-", 1) } else { line.to_owned() };
            out.push_str(&format!(".PP\n{}\n", inline(&text)?));
            while let Some(more) = lines.next_if(|next| !next.is_empty() && !next.starts_with('|')) {
                // A synopsis has one line for each way of calling it.
                if section == "SYNOPSIS" {
                    out.push_str(".br\n");
                }
                out.push_str(&format!("{}\n", inline(more)?));
            }
        }
    }
    Ok(out)
}

fn rows(lines: &[&str]) -> Result<String> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split(" |").map(|cell| cell.trim().to_owned()).collect()
    };
    let body: Vec<Vec<String>> = lines
        .iter()
        .filter(|line| !line.starts_with("|-"))
        .map(|line| cells(line))
        .filter(|row| row.iter().any(|cell| !cell.is_empty()))
        .collect();
    let columns = body.iter().map(Vec::len).max().unwrap_or(0);
    ensure!(
        columns > 0 && body.iter().all(|row| row.len() == columns),
        "a table whose rows differ: {lines:?}"
    );
    let mut form = vec!["l"; columns];
    form[columns - 1] = "lx";
    let mut out = format!(".PP\n.TS\ntab(\t) allbox;\n{}.\n", form.join(" "));
    for row in body {
        let row: Result<Vec<String>> =
            row.iter().map(|cell| Ok(format!("T{{\n{}\nT}}", inline(cell)?))).collect();
        out.push_str(&format!("{}\n", row?.join("\t")));
    }
    out.push_str(".TE\n");
    Ok(out)
}

/// A line that begins with a full stop or an apostrophe would be a request.
fn no_request(line: String) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

/// As it stands: nothing in it is an escape.
fn literal(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\\' => "\\e".to_owned(),
            '-' => "\\-".to_owned(),
            '\'' => "\\(aq".to_owned(),
            '`' => "\\(ga".to_owned(),
            '^' => "\\(ha".to_owned(),
            '~' => "\\(ti".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

/// Bold, italics and code; `[text](link)` becomes its text.
fn inline(text: &str) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['*', '`', '[']) {
        out.push_str(&literal(&rest[..at]));
        rest = &rest[at..];
        let (mark, font) = match rest.as_bytes() {
            [b'*', b'*', ..] => ("**", "\\fB"),
            [b'*', ..] => ("*", "\\fI"),
            [b'`', ..] => ("`", "\\fB"),
            _ => {
                match rest.split_once("](").and_then(|(label, link)| Some((label, link.split_once(')')?.1))) {
                    Some((label, after)) if !label[1..].contains(['[', ']']) => {
                        out.push_str(&inline(&label[1..])?);
                        rest = after;
                    }
                    Some(_) | None => {
                        out.push('[');
                        rest = &rest[1..];
                    }
                }
                continue;
            }
        };
        let (inside, after) = rest[mark.len()..]
            .split_once(mark)
            .with_context(|| format!("`{mark}` is not closed in: {text}"))?;
        out.push_str(&format!("{font}{}\\fR", literal(inside)));
        rest = after;
    }
    out.push_str(&literal(rest));
    Ok(no_request(out))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const PAGE: &str = "# x(8)\n\n## NAME\n\nx – does\n\n## SYNOPSIS\n\n**x** *FILE*\n**x** [**-h**]\n\n## OPTIONS\n\n\
                        **-h**, **--help**\n: Print `help`, see\n[there](a.md).\n\n| a | b |\n|---|---|\n| 1 | two |\n\n    $ x 'y'\n";

    #[test]
    fn a_page_becomes_requests_of_the_man_macros() {
        let text = roff(PAGE).unwrap();
        for part in [
            ".TH X 8",
            ".SH NAME\n.PP\nx \\- does\n",
            "\\fBx\\fR \\fIFILE\\fR\n.br\n\\fBx\\fR [\\fB\\-h\\fR]\n",
            ".TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nPrint \\fBhelp\\fR, see\nthere.\n",
            "T{\n1\nT}\tT{\ntwo\nT}\n",
            "$ x \\(aqy\\(aq\n",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for page in ["# x\n", "# x(8)\n\n- a list\n", "# x(8)\n\n**open\n", "# x(8)\n\n| a | b |\n| c |\n"] {
            assert!(roff(page).is_err(), "{page}");
        }
    }

    #[test]
    fn every_page_of_the_repository_is_printed_without_a_warning() {
        for (name, section, page) in pages(&build::root().unwrap()).unwrap() {
            let text = roff(&page).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            let folder = std::env::temp_dir().join(format!("seimon-man-{}-{name}", std::process::id()));
            fs::write(&folder, &text).unwrap();
            let printed = Command::new("man")
                .args(["--warnings=w", "-E", "UTF-8", "-l"])
                .arg(&folder)
                .env("MANWIDTH", "100")
                .env("LC_ALL", "C.UTF-8")
                .stdin(Stdio::null())
                .output();
            let _ = fs::remove_file(&folder);
            let Ok(printed) = printed else {
                say::line("skipped: man is not to be had here");
                return;
            };
            let (out, err) =
                (String::from_utf8_lossy(&printed.stdout), String::from_utf8_lossy(&printed.stderr));
            assert!(printed.status.success() && err.is_empty(), "{name}({section}): {err}");
            assert!(out.contains("SYNOPSIS") && out.contains(&name), "{name}: {out}");
            assert!(!out.contains("**") && !out.contains("\\f"), "{name}: marks are left: {out}");
        }
    }

    #[test]
    fn pages_that_a_page_sends_to_are_there() {
        let all = pages(&build::root().unwrap()).unwrap();
        let known: Vec<String> =
            all.iter().map(|(name, section, _)| format!("**{name}**({section})")).collect();
        for (name, _, page) in &all {
            for words in page.split("**seimon").skip(1) {
                let reference = format!("**seimon{}", words.split(')').next().unwrap_or_default());
                if reference.contains("**(") {
                    assert!(known.contains(&format!("{reference})")), "{name}: {reference})");
                }
            }
        }
    }
}
