//! An initramfs: the `newc` archive that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const DIRECTORY: u32 = 0o040_755;
const SYMLINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Writes entries; parent folders come by themselves.
pub(crate) struct Archive<W: Write> {
    out: W,
    written: usize,
    inode: u32,
    folders: BTreeSet<String>,
}

struct Entry<'a> {
    name: &'a str,
    mode: u32,
    device: (u32, u32),
    content: &'a [u8],
}

impl<W: Write> Archive<W> {
    pub(crate) const fn new(out: W) -> Self {
        Self { out, written: 0, inode: 1, folders: BTreeSet::new() }
    }

    pub(crate) fn folder(&mut self, name: &str) -> io::Result<()> {
        let name = name.trim_matches('/');
        if name.is_empty() || !self.folders.insert(name.to_owned()) {
            return Ok(());
        }
        self.parents(name)?;
        self.entry(&Entry { name, mode: DIRECTORY, device: (0, 0), content: &[] })
    }

    /// `mode`: permission bits.
    pub(crate) fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let name = name.trim_matches('/');
        self.parents(name)?;
        self.entry(&Entry { name, mode: 0o100_000 | mode & 0o7777, device: (0, 0), content })
    }

    pub(crate) fn symlink(&mut self, name: &str, target: &str) -> io::Result<()> {
        let name = name.trim_matches('/');
        self.parents(name)?;
        self.entry(&Entry { name, mode: SYMLINK, device: (0, 0), content: target.as_bytes() })
    }

    pub(crate) fn console(&mut self) -> io::Result<()> {
        self.parents("dev/console")?;
        self.entry(&Entry { name: "dev/console", mode: CHARACTER_DEVICE, device: (5, 1), content: &[] })
    }

    /// Everything below `folder`, at the archive's top. Links to folders stay links.
    pub(crate) fn tree(&mut self, folder: &Path, keep: &dyn Fn(&str) -> bool) -> io::Result<()> {
        self.below(folder, "", keep)
    }

    fn below(&mut self, folder: &Path, prefix: &str, keep: &dyn Fn(&str) -> bool) -> io::Result<()> {
        let mut children: Vec<_> = std::fs::read_dir(folder)?.collect::<io::Result<_>>()?;
        children.sort_by_key(std::fs::DirEntry::file_name);
        for child in children {
            let name = format!("{prefix}{}", child.file_name().to_string_lossy());
            if !keep(&name) {
                continue;
            }
            let kind = child.file_type()?;
            if kind.is_dir() {
                self.folder(&name)?;
                self.below(&child.path(), &format!("{name}/"), keep)?;
            } else if kind.is_symlink() {
                let target = std::fs::read_link(child.path())?;
                self.symlink(&name, &target.to_string_lossy())?;
            } else if kind.is_file() {
                self.file(&name, child.metadata()?.mode(), &std::fs::read(child.path())?)?;
            }
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.entry(&Entry { name: "TRAILER!!!", mode: 0, device: (0, 0), content: &[] })?;
        // Another archive may follow.
        self.pad(512)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parents(&mut self, name: &str) -> io::Result<()> {
        match name.rsplit_once('/') {
            Some((parent, _)) => self.folder(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let Entry { name, mode, device: (major, minor), content } = *entry;
        let too_long = |_| io::Error::other(format!("{name} is too long for an initramfs"));
        let size = u32::try_from(content.len()).map_err(too_long)?;
        let name_size = u32::try_from(name.len() + 1).map_err(too_long)?;
        let links = if mode & 0o170_000 == DIRECTORY & 0o170_000 { 2 } else { 1 };
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0]
            .map(|f| format!("{f:08x}"));
        self.put(format!("070701{}{name}\0", fields.concat()).as_bytes())?;
        self.pad(4)?;
        self.put(content)?;
        self.pad(4)?;
        self.inode += 1;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    fn pad(&mut self, to: usize) -> io::Result<()> {
        let missing = self.written.next_multiple_of(to) - self.written;
        self.put(&vec![0; missing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_the_format_says() {
        let mut archive = Archive::new(Vec::new());
        archive.file("a/b", 0o755, b"xyz").expect("written");
        archive.symlink("/c", "a/b").expect("written");
        archive.folder("a").expect("there already");
        let bytes = archive.finish().expect("finished");
        assert_eq!(bytes.len() % 512, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 4, "a folder, a file, a link, the end");
        // A header is 110 bytes; name and content begin at multiples of four.
        let file = text.find("a/b\0").expect("the file");
        assert_eq!((file - 110) % 4, 0);
        assert_eq!(&bytes[file - 110 + 14..file - 110 + 22], b"000081ed");
        assert_eq!(&bytes[(file + 4).next_multiple_of(4)..][..3], b"xyz");
        assert!(text.contains("TRAILER!!!"));
    }
}
