//! Board descriptors: what is printed on a case, and which kernel interface each word stands for.
//!
//! A descriptor is data about hardware and nothing else. It may grow sections (LEDs, buttons, slots); unknown keys
//! stay errors, so that a word that this version does not know is never silently ignored.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::InterfaceName;

/// One kind of hardware.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// What a site plan names in `site.board`.
    pub id: String,
    /// For people: maker and model.
    pub description: String,
    /// Network ports by the word printed on the case.
    pub ports: BTreeMap<String, Port>,
}

/// A network port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The kernel's name for it.
    pub interface: InterfaceName,
    /// What the case suggests. A hint for people and tools: a site plan may use any port for anything.
    pub role: PortRole,
}

/// What a port is meant for according to the case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortRole {
    Wan,
    Lan,
}

/// A descriptor that cannot be used. Board files are written by developers: the first defect is enough.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InvalidBoard {
    pub file: String,
    /// Counted from 1; 0 where the defect is the file's as a whole.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    pub message: String,
}

impl fmt::Display for InvalidBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message } = self;
        match line {
            0 => write!(f, "{file}: {message}"),
            _ => write!(f, "{file}:{line}:{column}: {message}"),
        }
    }
}

/// Descriptors that come with the program, by id.
const SHIPPED: &[(&str, &str)] = &[("lab-namespace", include_str!("../boards/lab-namespace.toml"))];

impl Board {
    /// Reads a descriptor. `file` is only named in errors.
    pub fn parse(text: &str, file: &str) -> Result<Self, InvalidBoard> {
        let at = |offset: usize, message: String| {
            let before = text.get(..offset).unwrap_or(text);
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            InvalidBoard {
                file: file.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before[line_start..].chars().count() + 1,
                message,
            }
        };
        let whole = |message: String| InvalidBoard { file: file.to_owned(), line: 0, column: 0, message };
        let board: Self = toml::from_str(text).map_err(|error| match error.span() {
            Some(span) => at(span.start, error.message().to_owned()),
            None => whole(error.message().to_owned()),
        })?;
        if board.id.is_empty() {
            return Err(whole("`id` is empty: give the board the name that site plans use".to_owned()));
        }
        if board.ports.is_empty() {
            return Err(whole("the board has no ports: list them under [ports]".to_owned()));
        }
        let mut seen: BTreeMap<&InterfaceName, &str> = BTreeMap::new();
        for (name, port) in &board.ports {
            if let Some(other) = seen.insert(&port.interface, name) {
                let offset = text.rfind(port.interface.as_str()).unwrap_or_default();
                return Err(at(
                    offset,
                    format!(
                        "ports {other} and {name} are both interface {}: one word, one interface",
                        port.interface
                    ),
                ));
            }
        }
        Ok(board)
    }

    /// A descriptor that comes with the program.
    pub fn shipped(id: &str) -> Option<Self> {
        let (_, text) = SHIPPED.iter().find(|(name, _)| *name == id)?;
        Self::parse(text, id).ok()
    }

    /// Ids that [`Board::shipped`] knows.
    pub fn shipped_ids() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|(id, _)| *id)
    }

    /// The kernel's name for a printed port.
    pub fn interface_of(&self, port: &str) -> Option<&InterfaceName> {
        self.ports.get(port).map(|port| &port.interface)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_board_is_valid_and_carries_its_own_id() {
        assert!(SHIPPED.len() == Board::shipped_ids().count());
        for (id, text) in SHIPPED {
            let board = Board::parse(text, id).expect("a shipped board is valid");
            assert_eq!(board.id, *id);
        }
    }

    #[test]
    fn printed_words_lead_to_kernel_names() {
        let board = Board::shipped("lab-namespace").expect("shipped");
        assert_eq!(board.interface_of("WAN2").map(InterfaceName::as_str), Some("wan2"));
        assert_eq!(board.interface_of("WAN3"), None);
        assert_eq!(Board::shipped("no-such-board"), None);
    }

    #[test]
    fn defects_name_file_line_and_column() {
        let good = "id = \"b\"\ndescription = \"\"\n[ports]\nA = { interface = \"eth0\", role = \"wan\" }\n";
        assert!(Board::parse(good, "b.toml").is_ok());
        for (from, to, line, says) in [
            ("eth0", "eth/0", 4, "interface name"),
            ("\"wan\"", "\"dmz\"", 4, "dmz"),
            ("[ports]", "[leds]\n[ports]", 3, "leds"),
            ("id = \"b\"", "id = ", 1, ""),
            ("id = \"b\"", "id = \"\"", 0, "id"),
            ("A = { interface = \"eth0\", role = \"wan\" }\n", "", 0, "no ports"),
            ("[ports]\n", "[ports]\nB = { interface = \"eth0\", role = \"lan\" }\n", 5, "A and B"),
        ] {
            let error = Board::parse(&good.replace(from, to), "b.toml").expect_err(to);
            assert_eq!((error.file.as_str(), error.line), ("b.toml", line), "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
