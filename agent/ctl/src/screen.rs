//! Text on a terminal: width (a Japanese character takes two columns), wrapping, colour, and no foreign escapes.

use std::io::IsTerminal;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns where nobody says how many there are.
const USUAL: usize = 80;
const NARROWEST: usize = 40;
/// Lines longer than this are hard to read.
const WIDEST: usize = 110;

/// How output is to look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) columns: usize,
    pub(crate) colour: Colour,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Yes,
    No,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Paint {
    Green,
    Yellow,
    Red,
    Bold,
}

impl Look {
    pub(crate) fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return Self { columns: USUAL, colour: Colour::No };
        }
        let columns = rustix::termios::tcgetwinsize(&stdout).map_or(USUAL, |size| usize::from(size.ws_col));
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            columns: if columns == 0 { USUAL } else { columns.clamp(NARROWEST, WIDEST) },
            colour: if plain { Colour::No } else { Colour::Yes },
        }
    }

    pub(crate) fn paint(self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Green => "30;42",
            Paint::Yellow => "30;43",
            Paint::Red => "97;41",
            Paint::Bold => "1",
        };
        match self.colour {
            Colour::Yes => format!("\x1b[{code}m{text}\x1b[0m"),
            Colour::No => text.to_owned(),
        }
    }

    /// Text broken into lines of this screen, each behind so many blanks.
    pub(crate) fn indented(self, blanks: usize, text: &str) -> String {
        self.hanging(blanks, "", text)
    }

    /// An item of a list: its further lines begin below the first one's words.
    pub(crate) fn item(self, blanks: usize, text: &str) -> String {
        self.hanging(blanks, "- ", text)
    }

    fn hanging(self, blanks: usize, mark: &str, text: &str) -> String {
        let blanks = blanks + width(mark);
        let indent = " ".repeat(blanks);
        wrap(&clean(text), self.columns.saturating_sub(blanks).max(NARROWEST / 2))
            .into_iter()
            .enumerate()
            .map(|(i, line)| match i {
                0 => format!("{}{mark}{line}\n", " ".repeat(blanks - width(mark))),
                _ => format!("{indent}{line}\n"),
            })
            .collect()
    }
}

pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// Filled up with blanks to so many columns.
pub(crate) fn pad(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// Columns as wide as their widest cell, two blanks between them. All rows have equally many cells.
pub(crate) fn table(indent: usize, rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|i| rows.iter().filter_map(|row| row.get(i)).map(|c| width(c)).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| pad(cell, width)).collect();
        text.push_str(&" ".repeat(indent));
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Without control characters and those that turn the direction of writing: what others wrote must not steer the
/// terminal.
pub(crate) fn clean(text: &str) -> String {
    let steers = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()
}

/// Lines of at most `columns`. Latin words stay whole where they fit in a line; Japanese may break anywhere but before
/// closing signs.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for piece in pieces(text) {
        let fits = width(&line) + width(piece.trim_end()) <= columns;
        if !fits && !line.is_empty() {
            lines.push(line.trim_end().to_owned());
            line = String::new();
        }
        for c in piece.chars() {
            if width(&line) + c.width().unwrap_or(0) > columns && c != ' ' {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    lines.push(line.trim_end().to_owned());
    lines
}

/// Pieces between which a line may be broken.
fn pieces(text: &str) -> Vec<&str> {
    let is_wide = |c: char| c.width() == Some(2);
    let must_follow = |c: char| "、。，．」』）】！？・ーぁぃぅぇぉっゃゅょァィゥェォッャュョ".contains(c);
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut before: Option<char> = None;
    for (at, c) in text.char_indices() {
        let may_break = match before {
            None => false,
            Some(' ') => c != ' ',
            Some(b) => (is_wide(b) || is_wide(c)) && c != ' ' && !must_follow(c) && !"「『（【".contains(b),
        };
        if may_break {
            pieces.push(&text[start..at]);
            start = at;
        }
        before = Some(c);
    }
    pieces.push(&text[start..]);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn japanese_counts_double_and_does_not_begin_a_line_with_a_full_stop() {
        assert_eq!(width("校務系 ok"), 9);
        assert_eq!(wrap("校務系を移行していま、す", 10), ["校務系を移", "行してい", "ま、す"]);
        for columns in 4..30 {
            for line in wrap("回線 direct を確認しています。あと 3 分です。", columns) {
                assert!(width(&line) <= columns && !line.starts_with('。'), "{columns}: {line}");
            }
        }
    }

    #[test]
    fn words_stay_whole_and_endless_ones_are_cut() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("", 4), [""]);
    }

    #[test]
    fn what_others_wrote_cannot_steer_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\u{202e}c\nd"), "a [2Jb c d");
    }
}
