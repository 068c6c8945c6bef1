//! An initramfs: a cpio archive in the format "newc" (kernel: Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Folder,
    File {
        mode: u32,
        content: Vec<u8>,
    },
    /// /dev/console, before there is a /dev.
    CharacterDevice {
        major: u32,
        minor: u32,
    },
}

/// Everything belongs to root and has no time.
pub(crate) fn archive(entries: &BTreeMap<String, Entry>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, (name, entry)) in (1..).zip(entries) {
        let (mode, content, device): (u32, &[u8], _) = match entry {
            Entry::Folder => (0o040_755, &[], (0, 0)),
            Entry::File { mode, content } => (0o100_000 | mode, content, (0, 0)),
            Entry::CharacterDevice { major, minor } => (0o020_600, &[], (*major, *minor)),
        };
        put(&mut bytes, name, number, mode, content, device);
    }
    put(&mut bytes, "TRAILER!!!", 0, 0, &[], (0, 0));
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn put(bytes: &mut Vec<u8>, name: &str, number: u32, mode: u32, content: &[u8], device: (u32, u32)) {
    let links = 1;
    let fields = [
        number,
        mode,
        0,
        0,
        links,
        0,
        content.len() as u32,
        0,
        0,
        device.0,
        device.1,
        name.len() as u32 + 1,
        0,
    ];
    bytes.extend_from_slice(b"070701");
    for field in fields {
        bytes.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_read_back_by_its_own_fields() {
        let entries = BTreeMap::from([
            ("dev".to_owned(), Entry::Folder),
            ("dev/console".to_owned(), Entry::CharacterDevice { major: 5, minor: 1 }),
            ("init".to_owned(), Entry::File { mode: 0o755, content: b"#!ELF".to_vec() }),
        ]);
        let bytes = archive(&entries);
        assert!(bytes.len().is_multiple_of(512));
        let mut at = 0;
        let mut seen = Vec::new();
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + 8 * n..at + 14 + 8 * n]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_length) = (field(1), field(6) as usize, field(11) as usize);
            let name = std::str::from_utf8(&bytes[at + 110..at + 110 + name_length - 1]).unwrap().to_owned();
            let start = (at + 110 + name_length).next_multiple_of(4);
            if name == "TRAILER!!!" {
                break;
            }
            seen.push((name, mode, bytes[start..start + size].to_vec(), (field(9), field(10))));
            at = (start + size).next_multiple_of(4);
        }
        assert_eq!(
            seen,
            [
                ("dev".to_owned(), 0o040_755, vec![], (0, 0)),
                ("dev/console".to_owned(), 0o020_600, vec![], (5, 1)),
                ("init".to_owned(), 0o100_755, b"#!ELF".to_vec(), (0, 0)),
            ]
        );
    }
}
