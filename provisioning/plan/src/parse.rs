//! From text to a valid plan, or to everything that is wrong with it.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use seimon_board::Board;
use serde::de::DeserializeOwned;
use toml::de::DeTable;

use crate::calendar::Calendar;
use crate::error::{PlanError, PlanErrors, Source, of_file, text};
use crate::model::SitePlan;
use crate::rules::{self, Context};
use crate::shape;
use crate::tree::{Content, Node};
use crate::valid::ValidSitePlan;

/// The format that this version reads.
pub const VERSION: u32 = 1;

/// Bytes of the largest plan that is read: room for more than 10,000 permits and their services.
pub const LARGEST: usize = 4 * 1024 * 1024;

/// Reads and validates a plan for a board. `file` is only named in errors; all of them are returned.
///
/// What depends on the date (a window that lies in the past, an expired permit) is no error here: see
/// [`parse_at`] and [`ValidSitePlan::expired`].
pub fn parse(text: &str, file: &str, board: &Board) -> Result<ValidSitePlan, PlanErrors> {
    Reader { file, board, now: None }.read(text)
}

/// As [`parse`], and a window that can never open again after `now` is an error: for a plan that is about to be
/// signed or applied by hand, not for one that has been in force for a year.
pub fn parse_at(text: &str, file: &str, board: &Board, now: Timestamp) -> Result<ValidSitePlan, PlanErrors> {
    Reader { file, board, now: Some(now) }.read(text)
}

/// As [`parse`], from a file's bytes.
pub fn parse_bytes(bytes: &[u8], file: &str, board: &Board) -> Result<ValidSitePlan, PlanErrors> {
    parse(utf8(bytes, file)?, file, board)
}

/// The text of a file that may be a plan.
pub(crate) fn utf8<'a>(bytes: &'a [u8], file: &str) -> Result<&'a str, PlanErrors> {
    if bytes.len() > LARGEST {
        return Err(PlanErrors::new(vec![too_large(bytes.len(), file)]));
    }
    match std::str::from_utf8(bytes) {
        Ok(utf8) => Ok(utf8),
        Err(error) => {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let what = text(
                format!("the file is not UTF-8 text: byte {} fits nowhere", error.valid_up_to() + 1),
                format!("UTF-8 のテキストではありません（{} バイト目が不正です）", error.valid_up_to() + 1),
            );
            let fix = text(
                "save it as UTF-8 (an editor may have written Shift_JIS)",
                "UTF-8 で保存し直してください（Shift_JIS で保存されている可能性があります）",
            );
            let error = Source::new(file, &before).error(before.len(), "plan/not-utf8", what, fix);
            Err(PlanErrors::new(vec![error]))
        }
    }
}

fn too_large(bytes: usize, file: &str) -> PlanError {
    let what = text(
        format!("the file has {bytes} bytes; a site plan has at most {LARGEST}"),
        format!("ファイルが {bytes} バイトあります。計画は {LARGEST} バイトまでです"),
    );
    let fix = text("is this the right file?", "正しいファイルか確認してください");
    of_file(file, "plan/too-large", what, fix)
}

struct Reader<'a> {
    file: &'a str,
    board: &'a Board,
    now: Option<Timestamp>,
}

impl Reader<'_> {
    fn read(&self, text: &str) -> Result<ValidSitePlan, PlanErrors> {
        let Draft { source, tree, plan, mut errors } = draft::<SitePlan>(text, self.file, &shape::schema())?;
        let calendar =
            TimeZone::get(&plan.site.timezone).ok().map(|zone| Calendar::new(zone, &plan.migration));
        let context = Context { plan: &plan, board: self.board, calendar: calendar.as_ref(), now: self.now };
        // Where a path's word on IPv6 is missing, what hangs on it cannot be judged.
        let unsaid = errors.iter().any(|error| error.rule == shape::IPV6_UNSAID);
        let judged = |error: &PlanError| !(unsaid && rules::RESTS_ON_IPV6_WORD.contains(&error.rule));
        errors.extend(rules::check(&context, &source, &tree).into_iter().filter(judged));
        match calendar {
            Some(calendar) if errors.is_empty() => {
                Ok(ValidSitePlan { plan, board: self.board.clone(), calendar })
            }
            _ => Err(PlanErrors::new(errors)),
        }
    }
}

/// A file whose keys and values are those of `T`, as far as could be read.
pub(crate) struct Draft<'a, T> {
    pub(crate) source: Source<'a>,
    pub(crate) tree: Node,
    pub(crate) plan: T,
    /// What is wrong with its shape; the rules across fields find more.
    pub(crate) errors: Vec<PlanError>,
}

/// Reads the text against the schema of `T`. `Err`: so much is wrong that the rules across fields would only guess.
pub(crate) fn draft<'a, T: DeserializeOwned>(
    text: &'a str,
    file: &'a str,
    schema: &serde_json::Value,
) -> Result<Draft<'a, T>, PlanErrors> {
    if text.len() > LARGEST {
        return Err(PlanErrors::new(vec![too_large(text.len(), file)]));
    }
    // A byte order mark is no part of the first key.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Source::new(file, text);
    let (table, syntax) = DeTable::parse_recoverable(text);
    let mut tree = Node::from_table(&table);
    let mut errors: Vec<PlanError> = syntax.iter().map(|error| syntax_error(&source, error)).collect();
    if let Some(error) = version(&source, &tree, errors.is_empty()) {
        errors.push(error);
        return Err(PlanErrors::new(errors));
    }
    let shape = shape::check(&source, &mut tree, schema);
    if !errors.is_empty() {
        // After a syntax error, what seems to be missing or odd may be what the parser skipped.
        let on_sound_line = |error: &PlanError| errors.iter().all(|syntax| syntax.line != error.line);
        let sure = |error: &PlanError| error.rule == shape::UNKNOWN_KEY || error.rule == shape::BAD_VALUE;
        let mut more: Vec<PlanError> =
            shape.into_iter().filter(|error| sure(error) && on_sound_line(error)).collect();
        errors.append(&mut more);
        return Err(PlanErrors::new(errors));
    }
    errors.extend(shape);
    match T::deserialize(tree.to_value()) {
        Ok(plan) => Ok(Draft { source, tree, plan, errors }),
        Err(error) => {
            if errors.is_empty() {
                errors.push(unreadable::<T>(&source, text, &error));
            }
            Err(PlanErrors::new(errors))
        }
    }
}

fn syntax_error(source: &Source<'_>, error: &toml::de::Error) -> PlanError {
    let what = text(
        format!("this is not TOML: {}", error.message()),
        format!("TOML の書式ではありません: {}", error.message()),
    );
    let fix = text(
        "correct the line; a text stands in quotes, a list in [ ], a key before `=`",
        "行を直してください。文字列は引用符、一覧は [ ] で囲み、キーは `=` の前に書きます",
    );
    source.error(error.span().map_or(0, |span| span.start), "plan/syntax", what, fix)
}

/// A reading error that the schema did not foresee.
fn unreadable<T: DeserializeOwned>(source: &Source<'_>, text_: &str, error: &toml::de::Error) -> PlanError {
    let placed = toml::from_str::<T>(text_).err().and_then(|error| error.span());
    let what = text(
        format!("this cannot be read: {}", error.message()),
        format!("読み取れません: {}", error.message()),
    );
    let fix = text("correct the value", "値を直してください");
    source.error(placed.map_or(0, |span| span.start), "plan/unreadable", what, fix)
}

/// A version that is not ours makes everything else that could be said meaningless.
fn version(source: &Source<'_>, tree: &Node, sound: bool) -> Option<PlanError> {
    let Content::Table(table) = &tree.content else { return None };
    let known = i64::from(VERSION);
    let (offset, what, fix) = match table.get("version") {
        None if sound => {
            let what = text("the file does not say its `version`", "ファイルに `version` がありません");
            let fix = text("begin it with `version = 1`", "先頭に `version = 1` と書いてください");
            return Some(of_file(source.file, "plan/version", what, fix));
        }
        None => return None,
        Some(node) => match &node.content {
            Content::Scalar(toml::Value::Integer(number)) if *number == known => return None,
            Content::Scalar(toml::Value::Integer(number)) if *number > known => (
                node.value,
                text(
                    format!("version {number} is newer than this program, which reads version {known}"),
                    format!(
                        "バージョン {number} は、このプログラムが読めるバージョン {known} より新しいものです"
                    ),
                ),
                text("update this program first", "先にこのプログラムを更新してください"),
            ),
            Content::Scalar(toml::Value::Integer(number)) => (
                node.value,
                text(format!("there is no version {number}"), format!("バージョン {number} はありません")),
                text("write `version = 1`", "`version = 1` と書いてください"),
            ),
            Content::Scalar(_) | Content::Array(_) | Content::Table(_) => (
                node.offset(),
                text("`version` is not a whole number", "`version` が整数ではありません"),
                text("write `version = 1`", "`version = 1` と書いてください"),
            ),
        },
    };
    Some(source.error(offset, "plan/version", what, fix))
}
