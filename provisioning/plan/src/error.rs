//! What is wrong with a plan: where, which rule, in the administrator's own words, and what to do.

use std::fmt;

/// The same sentence in English and Japanese.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub en: String,
    pub ja: String,
}

pub(crate) fn text(en: impl Into<String>, ja: impl Into<String>) -> Text {
    Text { en: en.into(), ja: ja.into() }
}

/// One defect of a plan. `Display` is English; [`PlanError::ja`] says the same in Japanese.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// As given to the parser.
    pub file: String,
    /// Counted from 1; 0 where the defect is the file's as a whole.
    pub line: usize,
    /// In characters, counted from 1; 0 with line 0.
    pub column: usize,
    /// The line as the administrator wrote it, without white space at its ends; long lines are cut.
    pub quoted: String,
    /// Stable id, e.g. `plan/overlap`. [`crate::rules`] lists all.
    pub rule: &'static str,
    /// What is wrong.
    pub what: Text,
    /// What to do.
    pub fix: Text,
}

impl PlanError {
    /// The error in Japanese, laid out as `Display` does.
    pub fn ja(&self) -> String {
        self.lay_out("エラー", &self.what.ja, "対処", &self.fix.ja)
    }

    fn lay_out(&self, error: &str, what: &str, to_do: &str, fix: &str) -> String {
        let Self { file, line, column, quoted, rule, what: _, fix: _ } = self;
        let place = match line {
            0 => file.clone(),
            _ => format!("{file}:{line}:{column}"),
        };
        let quote = if quoted.is_empty() { String::new() } else { format!("\n  {line} | {quoted}") };
        format!("{place}: {error}[{rule}]: {what}{quote}\n  {to_do}: {fix}")
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lay_out("error", &self.what.en, "to do", &self.fix.en))
    }
}

impl std::error::Error for PlanError {}

/// All defects that could be found, in order of line. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanErrors {
    pub errors: Vec<PlanError>,
    /// Defects beyond the [`PlanErrors::MOST`] that are listed.
    pub omitted: usize,
}

impl PlanErrors {
    /// At most so many errors are listed: beyond that the file is something else than a plan.
    pub const MOST: usize = 200;

    pub(crate) fn new(mut errors: Vec<PlanError>) -> Self {
        errors.sort_by(|a, b| {
            (a.line, a.column, a.rule, &a.what.en).cmp(&(b.line, b.column, b.rule, &b.what.en))
        });
        errors.dedup();
        let omitted = errors.len().saturating_sub(Self::MOST);
        errors.truncate(Self::MOST);
        Self { errors, omitted }
    }

    /// All errors in Japanese.
    pub fn ja(&self) -> String {
        let mut lines: Vec<String> = self.errors.iter().map(PlanError::ja).collect();
        if self.omitted > 0 {
            lines.push(format!("ほかに {} 件のエラーがあります", self.omitted));
        }
        lines.join("\n")
    }

    pub fn iter(&self) -> std::slice::Iter<'_, PlanError> {
        self.errors.iter()
    }
}

impl<'a> IntoIterator for &'a PlanErrors {
    type Item = &'a PlanError;
    type IntoIter = std::slice::Iter<'a, PlanError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for PlanErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        if self.omitted > 0 {
            write!(f, "\n{} more errors", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for PlanErrors {}

/// The file as the administrator wrote it, for quoting.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) file: &'a str,
    text: &'a str,
    line_starts: Vec<usize>,
}

/// Characters of a quoted line.
const LONGEST_QUOTE: usize = 120;

impl<'a> Source<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        let newlines = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n').map(|(at, _)| at + 1);
        Self { file, text, line_starts: std::iter::once(0).chain(newlines).collect() }
    }

    /// An error at a byte offset.
    pub(crate) fn error(&self, offset: usize, rule: &'static str, what: Text, fix: Text) -> PlanError {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.line_starts.partition_point(|&start| start <= offset);
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let end = self.line_starts.get(line).copied().unwrap_or(self.text.len());
        let whole = self.text[start..end].trim();
        let mut quoted: String = whole.chars().filter(|c| !c.is_control()).take(LONGEST_QUOTE).collect();
        if whole.chars().nth(LONGEST_QUOTE).is_some() {
            quoted.push('…');
        }
        let column = self.text[start..offset].chars().count() + 1;
        PlanError { file: self.file.to_owned(), line, column, quoted, rule, what, fix }
    }
}

/// An error of the file as a whole.
pub(crate) fn of_file(file: &str, rule: &'static str, what: Text, fix: Text) -> PlanError {
    PlanError { file: file.to_owned(), line: 0, column: 0, quoted: String::new(), rule, what, fix }
}
