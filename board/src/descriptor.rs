//! Board descriptors: what is printed on a case, and which kernel interface each word stands for.
//!
//! A descriptor is data about hardware and nothing else. It may grow sections (LEDs, buttons, slots); unknown keys
//! stay errors, so that a word that this version does not know is never silently ignored.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::InterfaceName;
use crate::hardware::{self, Hardware, Seen};

/// One kind of hardware.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// What a site plan names in `site.board`.
    pub id: String,
    /// For people: maker and model.
    pub description: String,
    /// Network ports by the word printed on the case.
    pub ports: BTreeMap<String, Port>,
    /// `None`: no box, but a namespace of the lab.
    pub hardware: Option<Hardware>,
}

/// A network port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The kernel's name for it.
    pub interface: InterfaceName,
    /// What the case suggests. A hint for people and tools: a site plan may use any port for anything.
    pub role: PortRole,
    /// Where the kernel finds it (the target of `/sys/class/net/…/device`, from `devices/` on, or the device tree's node),
    /// for interfaces whose names the kernel gives out in no fixed order.
    pub path: Option<String>,
    /// Behind the board's switch.
    #[serde(default)]
    pub via: Via,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Via {
    #[default]
    Own,
    Switch,
}

/// What a port is meant for according to the case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
const SHIPPED: &[(&str, &str)] = &[
    ("lab-namespace", include_str!("../boards/lab-namespace.toml")),
    ("qemu-virt-edk2", include_str!("../boards/qemu-virt-edk2.toml")),
    ("qemu-virt-uboot", include_str!("../boards/qemu-virt-uboot.toml")),
    ("bananapi-bpi-r3", include_str!("../boards/bananapi-bpi-r3.toml")),
    ("friendlyelec-nanopi-r5s", include_str!("../boards/friendlyelec-nanopi-r5s.toml")),
    ("globalscale-mochabin", include_str!("../boards/globalscale-mochabin.toml")),
];

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
        let switch = board.hardware.as_ref().and_then(|hardware| hardware.switch.as_ref());
        if let Some((name, _)) =
            board.ports.iter().find(|(_, port)| port.via == Via::Switch && switch.is_none())
        {
            let offset = text.find(&format!("\n{name} ")).map_or(0, |newline| newline + 1);
            let why = format!("port {name} is behind a switch that the board does not have");
            return Err(at(offset, why));
        }
        if let Some((key, why)) = board.hardware.as_ref().and_then(hardware::nonsense) {
            let hardware = text.find("[hardware").unwrap_or_default();
            let offset = text[hardware..].find(key).map_or(hardware, |offset| hardware + offset);
            return Err(at(offset, why));
        }
        Ok(board)
    }

    /// The shipped board that a running system is.
    pub fn recognise(seen: &Seen<'_>) -> Option<Self> {
        let boards = SHIPPED.iter().filter_map(|(id, text)| Self::parse(text, id).ok());
        boards.into_iter().find(|board| board.hardware.as_ref().is_some_and(|h| h.identity.matches(seen)))
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

    /// A box with everything, as text.
    fn whole() -> String {
        SHIPPED.iter().find(|(id, _)| *id == "bananapi-bpi-r3").expect("shipped").1.to_owned()
    }

    #[test]
    fn a_running_system_is_recognised_and_nothing_else_is() {
        let compatible = |words: &[&'static str]| Seen { compatible: words.to_vec(), smbios: None };
        let id = |seen: &Seen<'_>| Board::recognise(seen).map(|board| board.id);
        assert_eq!(
            id(&compatible(&["bananapi,bpi-r3", "mediatek,mt7986a"])).as_deref(),
            Some("bananapi-bpi-r3")
        );
        assert_eq!(id(&compatible(&["linux,dummy-virt"])).as_deref(), Some("qemu-virt-uboot"));
        let acpi = Seen { compatible: Vec::new(), smbios: Some(("QEMU", "QEMU Virtual Machine")) };
        assert_eq!(id(&acpi).as_deref(), Some("qemu-virt-edk2"));
        assert_eq!(id(&compatible(&["mediatek,mt7986a"])), None, "the same chip is not the same board");
        assert_eq!(id(&Seen { smbios: Some(("QEMU", "another")), ..Seen::default() }), None);
        assert_eq!(id(&Seen::default()), None);
    }

    #[test]
    fn each_wrong_word_of_the_hardware_is_told_with_its_line() {
        let good = whole();
        let board = Board::parse(&good, "b.toml").expect("valid");
        let storage = board.hardware.expect("a box").storage;
        assert_eq!(storage.data_mib(), Some(7296 - 16 - 64 - 2 * 768 - 1 - 2));
        for (from, to, says) in [
            ("proven = \"device-tree\"", "proven = \"certainly\"", "certainly"),
            ("compatible = [\"bananapi,bpi-r3\"]", "compatible = []", "recognised"),
            ("via = \"switch\"", "via = \"air\"", "air"),
            ("vlan_filtering = \"hardware\"", "vlan_filtering = \"maybe\"", "maybe"),
            ("conduit = \"eth0\"", "conduit = \"eth/0\"", "interface name"),
            ("colour = \"blue\"", "colour = \"pink\"", "pink"),
            ("shows = \"status\"", "shows = \"kernel\"", "no LED shows the status"),
            ("code = 408", "code = 70000", "70000"),
            ("reset_s = 15", "reset_s = 5", "longer than `rescue_s`"),
            ("rescue_s = 5", "rescue_s = 0", "longer than 0"),
            ("class = \"base\"", "class = \"huge\"", "huge"),
            ("device = \"/dev/mmcblk0\"", "device = \"mmcblk0\"", "in /dev"),
            ("size_mib = 7296", "size_mib = 2000", "too small"),
            ("slot_mib = 768", "slot_mib = 4294967295", "too small"),
            ("esp_mib = 64", "esp_mib = 16", "FAT32"),
            ("firmware = \"u-boot\"", "firmware = \"bios\"", "bios"),
            ("secure_boot = \"none\"", "secure_boot = true", "wanted string"),
            ("device = \"ttyS0\"", "device = \"/dev/ttyS0\"", "without /dev"),
            ("baud = 115200", "baud = \"fast\"", "fast"),
            ("from = \"firmware\"", "from = \"hope\"", "hope"),
            ("rng = \"hardware\"", "rng = \"dice\"", "dice"),
            ("rtc = \"none\"", "rtc = \"sundial\"", "sundial"),
            ("tpm = \"none\"", "tpm = \"1.2\"", "1.2"),
            ("mac = \"firmware\"", "mac = \"sticker\"", "sticker"),
            ("\"flows\"", "\"dreams\"", "dreams"),
            ("baud = 115200", "baud = 115200\nparity = 1", "parity"),
        ] {
            assert!(good.contains(from), "{from}");
            let wrong = good.replacen(from, to, 1);
            let error = Board::parse(&wrong, "b.toml").expect_err(to);
            assert!(error.to_string().contains(says), "{to}: {error}");
            let line = wrong.lines().nth(error.line.saturating_sub(1)).unwrap_or_default();
            assert!(error.line > 0 && !line.is_empty(), "{to}: {error}");
        }
        let no_switch = good.replace("[hardware.switch]", "[hardware.console-of-old]");
        assert!(Board::parse(&no_switch, "b.toml").is_err());
    }

    #[test]
    fn a_port_behind_a_switch_needs_one() {
        let start = whole().find("[hardware.switch]").expect("there");
        let end = whole().find("[hardware.leds]").expect("there");
        let text = whole()[..start].to_owned() + &whole()[end..];
        let error = Board::parse(&text, "b.toml").expect_err("no switch");
        assert!(error.to_string().contains("behind a switch") && error.line > 0, "{error}");
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
