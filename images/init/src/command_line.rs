//! The kernel's command line: what the image's maker signed, and the slot that the guardian added.
//!
//! | word | what |
//! |---|---|
//! | `seimon.disk=/dev/vda` | the disk whose partitions are ours |
//! | `seimon.root=OFFSET:DATA:LENGTH:HASH:SALT` | the root file system's bytes within the slot: where it begins, how long it is without and with its hash tree; root hash and salt of dm-verity, hexadecimal |
//! | `seimon.slot=a` | the guardian's |

use seimon_boot::{Digest, Slot};

use crate::Result;

/// dm-verity's and erofs's blocks.
pub const BLOCK: u64 = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// `vda`: its folder in /sys/class/block.
    pub disk: String,
    pub slot: Slot,
    pub root: Root,
}

/// Where the root file system is within the slot, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    pub offset: u64,
    pub data: u64,
    /// With the hash tree.
    pub length: u64,
    pub hash: Digest,
    pub salt: Digest,
}

impl CommandLine {
    /// # Errors
    /// Says which word is missing or wrong. Of a word that is given twice the last one counts, as with the kernel: the
    /// guardian's comes last.
    pub fn parse(text: &str) -> Result<Self> {
        let word = |name: &str| {
            text.split_ascii_whitespace()
                .rev()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
                .ok_or_else(|| {
                    format!("the kernel's command line has no `{name}=`: start through the boot guardian")
                })
        };
        let disk = word("seimon.disk")?;
        let name = disk.strip_prefix("/dev/").filter(|name| !name.is_empty() && !name.contains(['/', '.']));
        let slot = match word("seimon.slot")? {
            "a" => Slot::A,
            "b" => Slot::B,
            other => return Err(format!("`seimon.slot={other}`: there are the slots a and b")),
        };
        Ok(Self {
            disk: name.ok_or_else(|| format!("`seimon.disk={disk}` is no disk in /dev"))?.to_owned(),
            slot,
            root: Root::parse(word("seimon.root")?)
                .ok_or("`seimon.root=` is not OFFSET:DATA:LENGTH:HASH:SALT, in whole blocks")?,
        })
    }
}

impl Root {
    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let [offset, data, length, hash, salt] = parts.as_slice() else { return None };
        let whole = |text: &str| text.parse::<u64>().ok().filter(|bytes| bytes.is_multiple_of(BLOCK));
        let root = Self {
            offset: whole(offset)?,
            data: whole(data)?,
            length: whole(length)?,
            hash: Digest::parse(hash).ok()?,
            salt: Digest::parse(salt).ok()?,
        };
        (root.data > 0 && root.data < root.length && root.offset.checked_add(root.length).is_some())
            .then_some(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn line(root: &str) -> String {
        format!("console=ttyAMA0 seimon.disk=/dev/vda seimon.root={root} quiet seimon.slot=b\n")
    }

    #[test]
    fn a_whole_line_is_read() {
        let read = CommandLine::parse(&line(&format!("69632:8192:12288:{HASH}:{HASH}"))).unwrap();
        assert_eq!((read.disk.as_str(), read.slot), ("vda", Slot::B));
        assert_eq!((read.root.offset, read.root.data, read.root.length), (69_632, 8192, 12_288));
        assert_eq!(read.root.hash.to_string(), HASH);
    }

    #[test]
    fn the_guardians_slot_is_the_last() {
        let text = format!("seimon.slot=a {}", line(&format!("4096:8192:12288:{HASH}:{HASH}")));
        assert_eq!(CommandLine::parse(&text).unwrap().slot, Slot::B);
    }

    #[test]
    fn half_a_line_is_refused_with_the_word_that_is_wrong() {
        for (text, word) in [
            (line(&format!("1:8192:12288:{HASH}:{HASH}")), "seimon.root"),
            (line(&format!("4096:8192:8192:{HASH}:{HASH}")), "seimon.root"),
            (line(&format!("4096:8192:12288:{HASH}")), "seimon.root"),
            (line(&format!("4096:8192:12288:{HASH}:zz")), "seimon.root"),
            (line(&format!("18446744073709547520:8192:12288:{HASH}:{HASH}")), "seimon.root"),
            ("seimon.root=1".to_owned(), "seimon.disk"),
            ("seimon.disk=/dev/../etc seimon.slot=a".to_owned(), "seimon.disk"),
            ("seimon.disk=/dev/vda seimon.slot=c".to_owned(), "seimon.slot"),
        ] {
            let error = CommandLine::parse(&text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
