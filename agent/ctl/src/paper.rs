//! Pages for people to read, print and keep: one description, two forms.
//!
//! ```text
//! acceptance, sheet ──▶ Document ──┬─▶ html (one file, nothing loaded, prints on A4)
//!                                  └─▶ pdf  (A4, the font's glyphs inside)
//! ```

pub(crate) mod font;
pub(crate) mod html;
mod layout;
pub(crate) mod pdf;

use crate::args::Lang;

/// A page or several, from top to bottom.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) lang: Lang,
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) blocks: Vec<Block>,
    /// Data for programs, kept in the page: one line of JSON.
    pub(crate) attachment: Option<String>,
    /// Milliseconds since 1970, for the file's own notes about itself.
    pub(crate) made_ms: i64,
}

#[derive(Clone, Debug)]
pub(crate) enum Block {
    /// The conclusion, seen from the other end of the room.
    Banner {
        tone: Tone,
        text: String,
        small: String,
    },
    Heading(String),
    Paragraph(String),
    /// Small print.
    Note(String),
    /// Key and signature: to be compared, not read.
    Code(String),
    List {
        numbered: Numbered,
        items: Vec<String>,
    },
    Table {
        widths: Vec<f32>,
        head: Vec<String>,
        rows: Vec<Vec<Cell>>,
    },
    /// The row of sockets of a case.
    Ports(Vec<PortBox>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbered {
    Yes,
    No,
}

#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) tone: Tone,
    pub(crate) weight: Weight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    Normal,
    Bold,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain, weight: Weight::Normal }
    }

    pub(crate) fn bold(text: impl Into<String>) -> Self {
        Self { weight: Weight::Bold, ..Self::new(text) }
    }

    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { tone, weight: Weight::Bold, ..Self::new(text) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Unsure,
    Bad,
    /// Neither good nor bad: set apart.
    Calm,
}

/// One socket of the case.
#[derive(Clone, Debug)]
pub(crate) struct PortBox {
    /// As printed on the case.
    pub(crate) name: String,
    /// What its cable leads to.
    pub(crate) leads_to: String,
    pub(crate) tone: Tone,
}
