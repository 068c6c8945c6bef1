//! Opening, appending, compacting.

use std::fmt;
use std::io;
use std::path::Path;

use crate::disk::{Disk, Folder};
use crate::format::{self, BadHeader, FORMAT_VERSION, MAX_PAYLOAD, Record};

const NAME: &str = "journal";
const NEW: &str = "journal.new";
/// Above this many bytes nothing more is appended: compact earlier.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;
const MAX_ASIDE: u32 = 1_000;
/// Set aside behind the end, so that what must be written down can be while the disk is full: some hundred records.
const RESERVE: u64 = 128 * 1024;
/// Set aside anew when so much of it is used.
const STEP: u64 = 16 * 1024;

/// A journal with what it held.
#[derive(Debug)]
pub struct Opened<D = Folder> {
    pub journal: Journal<D>,
    /// In order of sequence.
    pub records: Vec<Record>,
    /// What people should know.
    pub notes: Vec<Note>,
}

/// Something happened to the file before or while it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// There was none.
    Created,
    /// The end of the last write was missing or wrong, as after a power cut, and was cut off. It had never been
    /// acknowledged.
    TornEnd { bytes: u64 },
    /// Damaged in the middle; kept aside, and its good records written anew.
    Salvaged { aside: String, records: usize },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("a new journal was made"),
            Self::TornEnd { bytes } => {
                write!(
                    f,
                    "an unfinished write of {bytes} bytes at the journal's end was cut off, as after a power cut"
                )
            }
            Self::Salvaged { aside, records } => {
                write!(
                    f,
                    "the journal was damaged: it is kept as {aside}, and its {records} good records are used"
                )
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the journal is in use by another process: is an agent already running?")]
    InUse,
    #[error("{doing} the journal failed")]
    Io {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the file is not a journal; it was left alone: move it away, or give another state directory")]
    NotAJournal,
    #[error(
        "the journal has format version {found}, this program reads up to {FORMAT_VERSION}; it was left alone: install the newer version again"
    )]
    NewerVersion { found: u32 },
    #[error(
        "the journal belongs to machine `{found}`; it was left alone: give this machine a state directory of its own"
    )]
    OtherMachine { found: String },
    /// `intact`: the good records before and after the damage.
    #[error("the journal is damaged at byte {at}; it is kept as {aside} and {} records of it are good", intact.len())]
    Damaged { at: u64, aside: String, intact: Vec<Record> },
}

/// Nothing that was acknowledged before is lost, and the same append may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("a record of {0} bytes is longer than {MAX_PAYLOAD}")]
    TooLong(usize),
    #[error("the journal has {0} bytes and may not grow: compact it")]
    Full(u64),
    #[error("the record could not be written down; check the free space and health of the disk")]
    Io(#[source] io::Error),
}

#[derive(Debug)]
pub struct Journal<D = Folder> {
    disk: D,
    machine: String,
    /// Of the good part; a failed write may have left more.
    length: u64,
    next_sequence: u64,
    /// The file may be longer than `length`.
    ragged: bool,
    /// A rename may not be durable: nothing counts before the folder is synced.
    name_unsynced: bool,
    /// Up to this length an append does not fail for want of space; 0: nothing is promised.
    room_until: u64,
}

impl Journal<Folder> {
    /// Opens or makes `folder/journal`. `machine`: of which machine the journal is.
    pub fn open(folder: &Path, machine: &str) -> Result<Opened, OpenError> {
        let disk = folder_of(folder)?;
        Self::open_on(disk, machine).map_err(|(error, _)| error)
    }

    /// Like [`Journal::open`]; where that finds damage, goes on with the good records in a new file, the old one kept
    /// aside.
    pub fn open_or_salvage(folder: &Path, machine: &str) -> Result<Opened, OpenError> {
        let disk = folder_of(folder)?;
        Self::salvage_on(disk, machine)
    }

    /// [`Journal::open_or_salvage`] with something left out that keeps a journal whole.
    #[cfg(feature = "sabotage")]
    pub fn open_without(folder: &Path, machine: &str, without: crate::Without) -> Result<Opened, OpenError> {
        let disk = Folder::open_without(folder, without).map_err(not_opened)?;
        Self::salvage_on(disk, machine)
    }
}

impl<D: Disk> Journal<D> {
    /// [`Journal::open`] on any disk, which is handed back with an error.
    pub fn open_on(disk: D, machine: &str) -> Result<Opened<D>, (OpenError, D)> {
        Self::open_with(disk, machine, Damage::PutAside)
    }

    /// [`Journal::open_or_salvage`] on any disk.
    pub fn salvage_on(disk: D, machine: &str) -> Result<Opened<D>, OpenError> {
        match Self::open_with(disk, machine, Damage::Salvage) {
            Ok(opened) => Ok(opened),
            Err((error, _)) => Err(error),
        }
    }

    fn open_with(mut disk: D, machine: &str, damage: Damage) -> Result<Opened<D>, (OpenError, D)> {
        match prepare(&mut disk, machine, damage) {
            Ok(Ready { length, next_sequence, records, notes }) => {
                let machine = machine.to_owned();
                let mut journal = Self {
                    disk,
                    machine,
                    length,
                    next_sequence,
                    ragged: false,
                    name_unsynced: false,
                    room_until: 0,
                };
                journal.set_room_aside();
                Ok(Opened { journal, records, notes })
            }
            Err(error) => Err((error, disk)),
        }
    }

    /// On disk and synced when this returns; gives the record's sequence number.
    pub fn append(&mut self, kind: u16, payload: &[u8]) -> Result<u64, AppendError> {
        let sequence = self.next_sequence;
        let bytes = format::record(sequence, kind, payload).ok_or(AppendError::TooLong(payload.len()))?;
        if self.length + bytes.len() as u64 > MAX_BYTES {
            return Err(AppendError::Full(self.length));
        }
        self.mend().map_err(AppendError::Io)?;
        // Until the sync came back the file is not to be trusted beyond `length`: after a failed sync the kernel may
        // have forgotten what it did not write.
        self.ragged = true;
        let written = self.disk.append(NAME, &bytes).and_then(|()| self.disk.sync(NAME));
        if let Err(error) = written {
            // At best the space is free again at once; else the next append mends it.
            self.mend().ok();
            return Err(AppendError::Io(error));
        }
        self.ragged = false;
        self.length += bytes.len() as u64;
        self.next_sequence += 1;
        self.set_room_aside();
        Ok(sequence)
    }

    /// Without it everything works, until the disk is full.
    fn set_room_aside(&mut self) {
        let wanted = self.length + RESERVE;
        if self.room_until + STEP < wanted && self.disk.reserve(NAME, RESERVE).is_ok() {
            self.room_until = wanted;
        }
    }

    /// Replaces all records by these (kind and payload), which get new sequence numbers. After an error either the old
    /// records are there or these, never a mixture. A disk with no room to set aside is an error, too, where room is set aside
    /// now.
    pub fn compact(&mut self, records: &[(u16, Vec<u8>)]) -> Result<(), AppendError> {
        let (bytes, next_sequence) = image(&self.machine, self.next_sequence, records)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(AppendError::Full(bytes.len() as u64));
        }
        let has_room = self.room_until > self.length;
        let mut room = 0;
        let replaced = write_new(&mut self.disk, &bytes)
            .and_then(|()| match self.disk.reserve(NEW, RESERVE) {
                Ok(()) => {
                    room = bytes.len() as u64 + RESERVE;
                    Ok(())
                }
                Err(error) if has_room => Err(error),
                Err(_) => Ok(()),
            })
            .and_then(|()| self.disk.rename(NEW, NAME));
        if let Err(error) = replaced {
            // A half-written file must not keep the disk full.
            self.disk.create(NEW).ok();
            return Err(AppendError::Io(error));
        }
        self.length = bytes.len() as u64;
        self.next_sequence = next_sequence;
        self.room_until = room;
        self.ragged = false;
        self.name_unsynced = true;
        self.mend().map_err(AppendError::Io)
    }

    /// Length of the file.
    pub fn bytes(&self) -> u64 {
        self.length
    }

    /// Bytes that are free on its disk.
    pub fn free(&mut self) -> io::Result<u64> {
        self.disk.free()
    }

    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    pub fn into_disk(self) -> D {
        self.disk
    }

    /// Makes good what a failed write or sync left behind.
    fn mend(&mut self) -> io::Result<()> {
        if self.name_unsynced {
            self.disk.sync_folder()?;
            self.name_unsynced = false;
        }
        if self.ragged {
            self.room_until = 0;
            self.disk.truncate(NAME, self.length)?;
            self.disk.sync(NAME)?;
            self.ragged = false;
            self.set_room_aside();
        }
        Ok(())
    }
}

fn folder_of(path: &Path) -> Result<Folder, OpenError> {
    Folder::open(path).map_err(not_opened)
}

fn not_opened(source: io::Error) -> OpenError {
    if source.kind() == io::ErrorKind::WouldBlock {
        OpenError::InUse
    } else {
        OpenError::Io { doing: "opening", source }
    }
}

/// What to do with a file whose middle is damaged.
#[derive(Clone, Copy)]
enum Damage {
    /// Rename it and say so.
    PutAside,
    /// Copy it, and go on with what is good.
    Salvage,
}

struct Ready {
    length: u64,
    next_sequence: u64,
    records: Vec<Record>,
    notes: Vec<Note>,
}

fn image(machine: &str, first: u64, records: &[(u16, Vec<u8>)]) -> Result<(Vec<u8>, u64), AppendError> {
    let mut bytes = format::header(machine, first);
    let mut next = first;
    for (kind, payload) in records {
        bytes.extend(format::record(next, *kind, payload).ok_or(AppendError::TooLong(payload.len()))?);
        next += 1;
    }
    Ok((bytes, next))
}

/// Under the other name, synced.
fn write_new(disk: &mut impl Disk, bytes: &[u8]) -> io::Result<()> {
    disk.create(NEW)?;
    disk.append(NEW, bytes)?;
    disk.sync(NEW)
}

fn prepare(disk: &mut impl Disk, machine: &str, damage: Damage) -> Result<Ready, OpenError> {
    let failed = |doing| move |source| OpenError::Io { doing, source };
    if disk.exists(NEW).map_err(failed("reading"))? {
        // Unfinished; it must not take up space.
        disk.create(NEW).map_err(failed("clearing"))?;
    }
    let Some(bytes) = disk.read(NAME).map_err(failed("reading"))? else {
        let header = format::header(machine, 1);
        let made = write_new(disk, &header).and_then(|()| disk.rename(NEW, NAME));
        made.and_then(|()| disk.sync_folder()).map_err(failed("making"))?;
        let length = header.len() as u64;
        return Ok(Ready { length, next_sequence: 1, records: Vec::new(), notes: vec![Note::Created] });
    };
    let parsed = match format::parse(&bytes) {
        Ok(parsed) => parsed,
        Err(BadHeader::NotAJournal) => return Err(OpenError::NotAJournal),
        Err(BadHeader::Newer(found)) => return Err(OpenError::NewerVersion { found }),
        Err(BadHeader::Damaged) => {
            if let Damage::Salvage = damage {
                return salvage(disk, machine, &bytes, 1, Vec::new()).map_err(failed("salvaging"));
            }
            let aside = put_aside(disk).map_err(failed("putting aside"))?;
            return Err(OpenError::Damaged { at: 0, aside, intact: Vec::new() });
        }
    };
    if parsed.machine != machine {
        return Err(OpenError::OtherMachine { found: parsed.machine });
    }
    if !parsed.beyond.is_empty() {
        let mut intact = parsed.records;
        intact.extend(parsed.beyond);
        if let Damage::Salvage = damage {
            let next = intact.last().map_or(parsed.next_sequence, |last| last.sequence + 1);
            return salvage(disk, machine, &bytes, next, intact).map_err(failed("salvaging"));
        }
        let aside = put_aside(disk).map_err(failed("putting aside"))?;
        return Err(OpenError::Damaged { at: parsed.good as u64, aside, intact });
    }
    let mut notes = Vec::new();
    let torn = bytes.len() - parsed.good;
    if torn > 0 {
        disk.truncate(NAME, parsed.good as u64).map_err(failed("cutting"))?;
        notes.push(Note::TornEnd { bytes: torn as u64 });
    }
    // What was read may be in the page cache only, and the name too: a process that died between write and sync left it so.
    disk.sync(NAME).and_then(|()| disk.sync_folder()).map_err(failed("syncing"))?;
    Ok(Ready {
        length: parsed.good as u64,
        next_sequence: parsed.next_sequence,
        records: parsed.records,
        notes,
    })
}

/// The damaged file stays in place until the new one replaces it, so that a power cut in between loses nothing.
fn salvage(
    disk: &mut impl Disk,
    machine: &str,
    damaged: &[u8],
    first: u64,
    intact: Vec<Record>,
) -> io::Result<Ready> {
    let aside = free_name(disk)?;
    disk.create(&aside)?;
    disk.append(&aside, damaged)?;
    disk.sync(&aside)?;
    disk.sync_folder()?;
    let records: Vec<(u16, Vec<u8>)> = intact.into_iter().map(|r| (r.kind, r.payload)).collect();
    let (bytes, next_sequence) = image(machine, first, &records).map_err(io::Error::other)?;
    write_new(disk, &bytes)?;
    disk.rename(NEW, NAME)?;
    disk.sync_folder()?;
    let notes = vec![Note::Salvaged { aside, records: records.len() }];
    let records = (first..)
        .zip(records)
        .map(|(sequence, (kind, payload))| Record { sequence, kind, payload })
        .collect();
    Ok(Ready { length: bytes.len() as u64, next_sequence, records, notes })
}

fn put_aside(disk: &mut impl Disk) -> io::Result<String> {
    let aside = free_name(disk)?;
    disk.rename(NAME, &aside)?;
    disk.sync_folder()?;
    Ok(aside)
}

fn free_name(disk: &mut impl Disk) -> io::Result<String> {
    for n in 1..=MAX_ASIDE {
        let aside = format!("{NAME}.bad-{n}");
        if !disk.exists(&aside)? {
            return Ok(aside);
        }
    }
    Err(io::Error::other("too many damaged journals have been kept aside; move them away"))
}
