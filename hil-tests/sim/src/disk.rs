//! A disk in memory. What was not synced is gone, or torn, when the power goes; what was written stays when only the
//! process dies.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use crate::dice::Dice;

/// How the disk takes what it is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Well,
    /// No byte more.
    Full,
    /// Says that it has synced and has not: a mutation, which must be found out.
    Lying,
}

#[derive(Clone, Debug, Default)]
struct File {
    synced: Vec<u8>,
    now: Vec<u8>,
}

#[derive(Debug, Default)]
struct Platter {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    mood: Mood,
    /// The power goes after so many further bytes (an operation without bytes counts as one).
    fuse: Option<u64>,
    dark: bool,
}

/// Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Rc<RefCell<Platter>>);

impl Disk {
    pub fn set_mood(&self, mood: Mood) {
        self.0.borrow_mut().mood = mood;
    }

    pub fn is_full(&self) -> bool {
        self.0.borrow().mood == Mood::Full
    }

    /// Cuts the power within the next operations, after so many bytes.
    pub fn light_fuse(&self, bytes: u64) {
        self.0.borrow_mut().fuse = Some(bytes);
    }

    /// The fuse has burnt down: nothing works until [`Self::power_comes_back`].
    pub fn is_dark(&self) -> bool {
        self.0.borrow().dark
    }

    /// A process died in the middle of a write; the next one finds the disk as it is.
    pub fn process_died(&self) {
        let mut platter = self.0.borrow_mut();
        platter.fuse = None;
        platter.dark = false;
    }

    pub fn remove_fuse(&self) {
        self.0.borrow_mut().fuse = None;
    }

    /// What a power cut may leave: names as synced or newer, contents as synced, with some of what came after, or with a
    /// hole where that was to be.
    pub fn power_comes_back(&self, dice: &mut Dice) {
        let mut platter = self.0.borrow_mut();
        if platter.mood != Mood::Lying && dice.one_in(2) {
            platter.synced_names = platter.names.clone();
        }
        platter.names = platter.synced_names.clone();
        for file in &mut platter.files {
            let shared = file.synced.iter().zip(&file.now).take_while(|(a, b)| a == b).count();
            let unsynced = file.now.len().saturating_sub(shared) as u64;
            let kept = usize::try_from(dice.between(0, unsynced)).unwrap_or(0);
            match dice.roll(3) {
                0 => file.now.clone_from(&file.synced),
                1 => file.now.truncate(shared + kept),
                _ => {
                    file.now.truncate(shared + kept);
                    file.now[shared..].fill(0);
                }
            }
            file.synced.clone_from(&file.now);
        }
        platter.fuse = None;
        platter.dark = false;
    }

    /// The worst that a power cut now would leave: what was synced and nothing else.
    pub fn survivors(&self) -> Self {
        let platter = self.0.borrow();
        let files = platter.files.iter().map(|f| File { synced: f.synced.clone(), now: f.synced.clone() });
        let names = platter.synced_names.clone();
        Self(Rc::new(RefCell::new(Platter {
            files: files.collect(),
            synced_names: names.clone(),
            names,
            ..Platter::default()
        })))
    }

    /// How many of `bytes` are done, and how it ends.
    fn operation(&self, bytes: usize) -> (usize, io::Result<()>) {
        let mut platter = self.0.borrow_mut();
        let failed = || Err(io::Error::other("input/output error"));
        if platter.dark {
            return (0, failed());
        }
        if let Some(left) = platter.fuse {
            let cost = (bytes as u64).max(1);
            if cost > left {
                platter.dark = true;
                return (usize::try_from(left).unwrap_or(0).min(bytes), failed());
            }
            platter.fuse = Some(left - cost);
        }
        if platter.mood == Mood::Full && bytes > 0 {
            return (0, Err(io::ErrorKind::StorageFull.into()));
        }
        (bytes, Ok(()))
    }

    fn with<T>(&self, name: &str, act: impl FnOnce(&mut File) -> T) -> io::Result<T> {
        let mut platter = self.0.borrow_mut();
        let at = *platter.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        platter.files.get_mut(at).map(act).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl seimon_journal::Disk for Disk {
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.with(name, |file| file.now.clone()).ok())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.operation(0).1?;
        if self.with(name, |file| file.now.clear()).is_err() {
            let mut platter = self.0.borrow_mut();
            let at = platter.files.len();
            platter.files.push(File::default());
            platter.names.insert(name.to_owned(), at);
        }
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let (done, outcome) = self.operation(bytes.len());
        self.with(name, |file| file.now.extend(&bytes[..done]))?;
        outcome
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.operation(0).1?;
        self.with(name, |file| file.now.resize(usize::try_from(length).unwrap_or(usize::MAX), 0))
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.operation(0).1?;
        if self.0.borrow().mood == Mood::Lying {
            return Ok(());
        }
        self.with(name, |file| file.synced.clone_from(&file.now))
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.operation(0).1?;
        let mut platter = self.0.borrow_mut();
        let at = platter.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        platter.names.insert(to.to_owned(), at);
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.operation(0).1?;
        let mut platter = self.0.borrow_mut();
        if platter.mood != Mood::Lying {
            platter.synced_names = platter.names.clone();
        }
        Ok(())
    }

    fn exists(&mut self, name: &str) -> io::Result<bool> {
        Ok(self.0.borrow().names.contains_key(name))
    }

    /// What is full here has used up whatever was set aside, too: every write is to be refused once.
    fn reserve(&mut self, _: &str, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn free(&mut self) -> io::Result<u64> {
        Ok(if self.is_full() { 0 } else { u64::MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seimon_journal::Journal;

    fn payloads(disk: Disk) -> Vec<Vec<u8>> {
        let opened = Journal::salvage_on(disk, "sim").unwrap();
        opened.records.into_iter().map(|record| record.payload).collect()
    }

    #[test]
    fn what_was_acknowledged_survives_a_power_cut_after_any_byte() {
        for bytes in 0..200 {
            for seed in 0..8 {
                let disk = Disk::default();
                let mut journal = Journal::salvage_on(disk.clone(), "sim").unwrap().journal;
                journal.append(1, b"first").unwrap();
                disk.light_fuse(bytes);
                let second = journal.append(1, b"second").is_ok();
                let third = journal.append(1, b"third").is_ok();
                disk.power_comes_back(&mut Dice::new(seed));
                let kept = payloads(disk);
                let least = 1 + usize::from(second) + usize::from(third);
                assert!(kept.len() >= least, "{bytes} {seed}: {kept:?}");
                let all: [&[u8]; 3] = [b"first", b"second", b"third"];
                assert!(kept.iter().zip(all).all(|(kept, all)| kept == all), "{bytes} {seed}: {kept:?}");
            }
        }
    }

    #[test]
    fn a_disk_that_only_says_it_synced_loses_what_was_acknowledged() {
        let disk = Disk::default();
        let mut journal = Journal::salvage_on(disk.clone(), "sim").unwrap().journal;
        disk.set_mood(Mood::Lying);
        journal.append(1, b"first").unwrap();
        assert!(payloads(disk.survivors()).is_empty());
    }
}
