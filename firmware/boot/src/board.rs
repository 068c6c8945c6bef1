//! On which board we are, read from what the boot firmware hands over: a flattened device tree or SMBIOS tables.
//!
//! Both come from outside what we sign, so both are read with care: nothing here can panic or run on for ever.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

/// A board that an image is for, by what it says of itself. The same words as in its board file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoardId {
    pub id: String,
    /// Values of the device tree root's `compatible`, any of which is enough.
    #[serde(default)]
    pub compatible: Vec<String>,
    /// SMBIOS type 1, both of which must agree.
    #[serde(default)]
    pub smbios: Option<Smbios>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smbios {
    pub manufacturer: String,
    pub product: String,
}

/// What the hardware says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub compatible: Vec<String>,
    pub smbios: Option<Smbios>,
}

impl Seen {
    pub fn is(&self, board: &BoardId) -> bool {
        let by_tree = board.compatible.iter().any(|known| self.compatible.contains(known));
        by_tree || (board.smbios.is_some() && board.smbios == self.smbios)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compatible, smbios } = self;
        if compatible.is_empty() && smbios.is_none() {
            return f
                .write_str("says nothing of itself (no device tree, no SMBIOS): update its boot firmware");
        }
        f.write_str(&compatible.join(", "))?;
        if let Some(Smbios { manufacturer, product }) = smbios {
            let comma = if compatible.is_empty() { "" } else { "; " };
            write!(f, "{comma}{manufacturer} {product}")?;
        }
        Ok(())
    }
}

const FDT_MAGIC: u32 = 0xd00d_feed;
const FDT_BEGIN_NODE: u32 = 1;
const FDT_PROP: u32 = 3;
const FDT_NOP: u32 = 4;

/// Length that a device tree blob says it has (`totalsize`), from its first eight bytes.
pub fn device_tree_length(head: &[u8]) -> Option<usize> {
    if be32(head, 0)? != FDT_MAGIC {
        return None;
    }
    usize::try_from(be32(head, 4)?).ok()
}

/// The root node's `compatible` (Devicetree Specification 0.4, chapter 5). Empty: none, or no device tree.
pub fn device_tree_compatible(blob: &[u8]) -> Vec<String> {
    compatible(blob).unwrap_or_default()
}

fn compatible(blob: &[u8]) -> Option<Vec<String>> {
    if be32(blob, 0)? != FDT_MAGIC {
        return None;
    }
    let structure = blob.get(usize::try_from(be32(blob, 8)?).ok()?..)?;
    let strings = blob.get(usize::try_from(be32(blob, 12)?).ok()?..)?;
    // The root node: its name is empty, which is one word of zero.
    let mut at = 0;
    while be32(structure, at)? == FDT_NOP {
        at += 4;
    }
    if be32(structure, at)? != FDT_BEGIN_NODE || be32(structure, at + 4)? != 0 {
        return None;
    }
    at += 8;
    // Properties come before child nodes.
    loop {
        match be32(structure, at)? {
            FDT_NOP => at += 4,
            FDT_PROP => {
                let length = usize::try_from(be32(structure, at + 4)?).ok()?;
                let name = strings.get(usize::try_from(be32(structure, at + 8)?).ok()?..)?;
                let start = at.checked_add(12)?;
                let value = structure.get(start..start.checked_add(length)?)?;
                if name.starts_with(b"compatible\0") {
                    let each = value.split(|byte| *byte == 0).filter(|name| !name.is_empty());
                    return each.map(|name| core::str::from_utf8(name).ok().map(String::from)).collect();
                }
                at = start.checked_add(length.checked_next_multiple_of(4)?)?;
            }
            _ => return None,
        }
    }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(word.try_into().ok()?))
}

/// Manufacturer and product of the first "System Information" (DMTF DSP0134, type 1) in a table of structures.
pub fn smbios_system(table: &[u8]) -> Option<Smbios> {
    let mut rest = table;
    loop {
        let (kind, length) = (*rest.first()?, usize::from(*rest.get(1)?));
        if length < 4 {
            return None;
        }
        let formatted = rest.get(..length)?;
        let after = rest.get(length..)?;
        // Strings, each ended by a zero; one more zero ends them. Without any: two zeros.
        let end = after.windows(2).position(|pair| pair == [0, 0])?;
        let strings = &after[..end];
        if kind == 1 {
            return Some(Smbios {
                manufacturer: string(strings, *formatted.get(4)?)?,
                product: string(strings, *formatted.get(5)?)?,
            });
        }
        if kind == 127 {
            return None;
        }
        rest = after.get(end + 2..)?;
    }
}

/// String number `index`, counted from 1.
fn string(strings: &[u8], index: u8) -> Option<String> {
    let bytes = strings.split(|byte| *byte == 0).nth(usize::from(index.checked_sub(1)?))?;
    core::str::from_utf8(bytes).ok().map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn tree(properties: &[(&str, &[u8])]) -> Vec<u8> {
        let mut strings = Vec::new();
        let mut structure = [1_u32.to_be_bytes(), 0_u32.to_be_bytes()].concat();
        for (name, value) in properties {
            structure.extend(4_u32.to_be_bytes());
            structure.extend(3_u32.to_be_bytes());
            structure.extend((value.len() as u32).to_be_bytes());
            structure.extend((strings.len() as u32).to_be_bytes());
            structure.extend(*value);
            structure.resize(structure.len().next_multiple_of(4), 0);
            strings.extend(name.bytes().chain([0]));
        }
        structure.extend([0, 0, 0, 2, 0, 0, 0, 9]);
        let total = 40 + structure.len() + strings.len();
        let mut blob = Vec::new();
        for word in [FDT_MAGIC, total as u32, 40, 40 + structure.len() as u32, 0, 17, 16, 0, 0, 0] {
            blob.extend(word.to_be_bytes());
        }
        blob.extend(structure);
        blob.extend(strings);
        blob
    }

    #[test]
    fn a_device_trees_root_says_what_it_is() {
        let blob = tree(&[("model", b"a board\0"), ("compatible", b"maker,board\0maker,chip\0")]);
        assert_eq!(device_tree_compatible(&blob), ["maker,board", "maker,chip"]);
        assert_eq!(device_tree_length(&blob), Some(blob.len()));
        assert!(device_tree_compatible(&tree(&[("model", b"x\0")])).is_empty());
        for cut in 0..blob.len() {
            let _whatever_but_no_panic = device_tree_compatible(&blob[..cut]);
        }
    }

    fn tables() -> Vec<u8> {
        let mut table = vec![0, 8, 0, 0, 1, 2, 0, 0];
        table.extend(b"EDK II\0unknown\0\0");
        table.extend([1, 27, 0, 1, 1, 2, 0]);
        table.resize(table.len() + 20, 0);
        table.extend(b"QEMU\0QEMU Virtual Machine\0\0");
        table.extend([127, 4, 0, 2, 0, 0]);
        table
    }

    #[test]
    fn smbios_says_maker_and_product() {
        let table = tables();
        let found = smbios_system(&table).expect("type 1");
        assert_eq!((found.manufacturer.as_str(), found.product.as_str()), ("QEMU", "QEMU Virtual Machine"));
        for cut in 0..table.len() {
            let _whatever_but_no_panic = smbios_system(&table[..cut]);
        }
        assert_eq!(smbios_system(&[127, 4, 0, 0, 0, 0]), None);
        assert_eq!(smbios_system(&[5, 0, 0, 0]), None, "a length of nothing never ends");
    }

    #[test]
    fn either_the_tree_or_both_fields_of_smbios_are_enough() {
        let board = BoardId {
            id: "b".into(),
            compatible: vec!["maker,board".into()],
            smbios: Some(Smbios { manufacturer: "M".into(), product: "P".into() }),
        };
        let tree = |name: &str| Seen { compatible: vec![name.into()], smbios: None };
        let smbios = |m: &str, p: &str| Seen {
            compatible: vec![],
            smbios: Some(Smbios { manufacturer: m.into(), product: p.into() }),
        };
        assert!(tree("maker,board").is(&board));
        assert!(!tree("maker,other").is(&board));
        assert!(smbios("M", "P").is(&board));
        assert!(!smbios("M", "Q").is(&board));
        assert!(!Seen::default().is(&BoardId { id: "b".into(), compatible: vec![], smbios: None }));
    }
}
