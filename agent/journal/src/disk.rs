//! What the journal needs of a file system, and the real one.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, statvfs};

/// One folder. Nothing is durable before the `sync` that covers it: contents and lengths by [`Disk::sync`], names by
/// [`Disk::sync_folder`].
pub trait Disk: fmt::Debug {
    /// The whole file; `None` when there is none of this name.
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// A new, empty file, in place of any of this name.
    fn create(&mut self, name: &str) -> io::Result<()>;
    /// At the end. After an error any prefix may have been written.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Atomic, in place of any file of the new name.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    fn sync_folder(&mut self) -> io::Result<()>;
    /// Whether a file of this name exists.
    fn exists(&mut self, name: &str) -> io::Result<bool>;
    /// Sets room aside behind the file's end: appending so many bytes does not fail for want of space. The file's length
    /// stays. `Unsupported` where that cannot be promised. Truncating the file gives the room back.
    fn reserve(&mut self, name: &str, bytes: u64) -> io::Result<()>;
    /// Bytes that are free for anybody.
    fn free(&mut self) -> io::Result<u64>;
}

/// A folder of the operating system. Locked against other processes while it exists.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
    /// The file written to last.
    open: Option<(String, File)>,
    #[cfg(feature = "sabotage")]
    without: Without,
}

/// What keeps a journal whole, left out on purpose.
#[cfg(feature = "sabotage")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Without {
    /// Nothing is synced: what the kernel has not written back by itself is lost with the power.
    pub sync: bool,
    /// Another process may have the same folder.
    pub lock: bool,
    /// No room is set aside for when the disk is full.
    pub reserve: bool,
}

impl Folder {
    /// Makes the folder where it is missing, durably. `WouldBlock` when another process has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let lock = Self::lock_file(path)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
            open: None,
            #[cfg(feature = "sabotage")]
            without: Without::default(),
        })
    }

    /// As [`Self::open`], but for what is left out.
    #[cfg(feature = "sabotage")]
    pub fn open_without(path: &Path, without: Without) -> io::Result<Self> {
        let lock = Self::lock_file(path)?;
        if !without.lock {
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        }
        Ok(Self { path: path.to_owned(), _lock: lock, open: None, without })
    }

    #[cfg(feature = "sabotage")]
    const fn syncs(&self) -> bool {
        !self.without.sync
    }

    #[cfg(not(feature = "sabotage"))]
    const fn syncs(&self) -> bool {
        true
    }

    #[cfg(feature = "sabotage")]
    const fn reserves(&self) -> bool {
        !self.without.reserve
    }

    #[cfg(not(feature = "sabotage"))]
    const fn reserves(&self) -> bool {
        true
    }

    fn lock_file(path: &Path) -> io::Result<File> {
        if !path.is_dir() {
            fs::create_dir_all(path)?;
            for made in path.ancestors().skip(1).take_while(|a| !a.as_os_str().is_empty()) {
                File::open(made)?.sync_all()?;
            }
        }
        OpenOptions::new().write(true).create(true).truncate(false).open(path.join("journal.lock"))
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        let cached = self.open.take().filter(|(open, _)| open == name);
        let file = match cached {
            Some((_, file)) => file,
            None => OpenOptions::new().read(true).write(true).open(self.path.join(name))?,
        };
        Ok(&mut self.open.insert((name.to_owned(), file)).1)
    }
}

impl Disk for Folder {
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match File::open(self.path.join(name)) {
            Ok(mut file) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        self.open = Some((name.to_owned(), file));
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let file = self.file(name)?;
        file.seek(SeekFrom::End(0))?;
        file.write_all(bytes)
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.file(name)?.set_len(length)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        if self.syncs() { self.file(name)?.sync_data() } else { Ok(()) }
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.open = None;
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        if self.syncs() { File::open(&self.path)?.sync_all() } else { Ok(()) }
    }

    fn exists(&mut self, name: &str) -> io::Result<bool> {
        self.path.join(name).try_exists()
    }

    fn reserve(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        if !self.reserves() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let file = self.file(name)?;
        let length = file.metadata()?.len();
        Ok(fallocate(&*file, FallocateFlags::KEEP_SIZE, length, bytes)?)
    }

    fn free(&mut self) -> io::Result<u64> {
        let about = statvfs(&self.path)?;
        Ok(about.f_bavail.saturating_mul(about.f_frsize))
    }
}
