//! Plan and board files: reading, and checking without an agent.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use schemars::JsonSchema;
use seimon_board::Board;
use seimon_ipc::control::Bilingual;
use seimon_plan::{PlanErrors, Text};
use serde::{Deserialize, Serialize};

use crate::args::Lang;

/// Bytes of a board descriptor that are read.
const LARGEST_BOARD: usize = 1 << 20;

/// What `seimonctl --json plan check` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckedPlan {
    pub valid: bool,
    pub errors: Vec<Defect>,
    /// Defects beyond the ones listed.
    pub omitted: usize,
}

/// One defect of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Defect {
    pub file: String,
    /// Counted from 1; 0 where the defect is the file's as a whole.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// The line as it was written.
    pub quoted: String,
    /// Stable id of the rule.
    pub rule: String,
    pub what: Bilingual,
    /// What to do.
    pub fix: Bilingual,
}

/// A file that cannot be read at all.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) file: String,
    pub(crate) why: Why,
}

#[derive(Debug)]
pub(crate) enum Why {
    Io(io::Error),
    NotText,
    TooLarge(usize),
    Board(seimon_board::InvalidBoard),
}

/// `Ok(Err(…))`: read, and found wanting.
pub(crate) fn check(file: &Path, board: &Path) -> Result<Result<(), PlanErrors>, Unreadable> {
    let board = self::board(board)?;
    // One byte more than is allowed, so that the plan's own rule speaks.
    let bytes = bytes_of(file, seimon_plan::LARGEST + 1)?;
    let name = file.display().to_string();
    let checked = match std::str::from_utf8(&bytes) {
        Ok(text) if seimon_plan::role_of(text) == seimon_plan::Role::Hub => {
            return Ok(seimon_plan::parse_hub(&bytes, &name, &board).map(|_| ()));
        }
        Ok(text) => seimon_plan::parse_at(text, &name, &board, jiff::Timestamp::now()),
        Err(_) => seimon_plan::parse_bytes(&bytes, &name, &board),
    };
    Ok(checked.map(|_| ()))
}

/// A board file.
pub(crate) fn board(file: &Path) -> Result<Board, Unreadable> {
    let text = text_of(file, LARGEST_BOARD)?;
    let file = file.display().to_string();
    Board::parse(&text, &file).map_err(|error| Unreadable { file, why: Why::Board(error) })
}

/// A plan's text.
pub(crate) fn text(file: &Path) -> Result<String, Unreadable> {
    text_of(file, seimon_plan::LARGEST)
}

/// A plan's text to be sent, and its absolute path: files that it names lie beside it.
pub(crate) fn to_send(file: &Path) -> Result<(String, String), Unreadable> {
    let text = self::text(file)?;
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    Ok((text, absolute.display().to_string()))
}

fn text_of(file: &Path, most: usize) -> Result<String, Unreadable> {
    let unreadable = |why| Unreadable { file: file.display().to_string(), why };
    let bytes = bytes_of(file, most + 1)?;
    if bytes.len() > most {
        return Err(unreadable(Why::TooLarge(most)));
    }
    String::from_utf8(bytes).map_err(|_| unreadable(Why::NotText))
}

fn bytes_of(file: &Path, most: usize) -> Result<Vec<u8>, Unreadable> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    File::open(file)
        .and_then(|opened| opened.take(limit).read_to_end(&mut bytes))
        .map_err(|error| Unreadable { file: file.display().to_string(), why: Why::Io(error) })?;
    Ok(bytes)
}

impl CheckedPlan {
    pub(crate) fn of(checked: &Result<(), PlanErrors>) -> Self {
        let both = |text: &Text| Bilingual { ja: text.ja.clone(), en: text.en.clone() };
        let (errors, omitted) = match checked {
            Ok(()) => (Vec::new(), 0),
            Err(errors) => {
                let listed = errors.iter().map(|error| Defect {
                    file: error.file.clone(),
                    line: error.line,
                    column: error.column,
                    quoted: error.quoted.clone(),
                    rule: error.rule.to_owned(),
                    what: both(&error.what),
                    fix: both(&error.fix),
                });
                (listed.collect(), errors.omitted)
            }
        };
        Self { valid: checked.is_ok(), errors, omitted }
    }
}

impl Unreadable {
    pub(crate) fn in_words(&self, lang: Lang) -> String {
        let Self { file, why } = self;
        match (lang, why) {
            (Lang::Ja, Why::Io(error)) => {
                format!("{file} を読めません（{error}）。ファイル名と読む権限を確かめてください。")
            }
            (Lang::En, Why::Io(error)) => {
                format!("{file} cannot be read ({error}): check its name and your right to read it")
            }
            (Lang::Ja, Why::NotText) => {
                format!("{file} は UTF-8 の文書ではありません。UTF-8 で保存し直してください。")
            }
            (Lang::En, Why::NotText) => format!("{file} is not UTF-8 text: save it again as UTF-8"),
            (Lang::Ja, Why::TooLarge(most)) => {
                format!("{file} は {most} バイトを超えています。別のファイルではありませんか。")
            }
            (Lang::En, Why::TooLarge(most)) => {
                format!("{file} is larger than {most} bytes: is it the right file?")
            }
            (Lang::Ja, Why::Board(error)) => format!("機種定義に誤りがあります: {error}"),
            (Lang::En, Why::Board(error)) => format!("the board descriptor is wrong: {error}"),
        }
    }
}
