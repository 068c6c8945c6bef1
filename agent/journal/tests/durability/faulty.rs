//! A disk in memory that knows what was synced, and can fail at any operation after any number of bytes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use seimon_journal::Disk;

/// What happens at the operation of this number, after so many of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// That operation fails, and all after it.
    Power {
        operation: usize,
        bytes: usize,
    },
    /// That operation fails, later ones work.
    Error {
        operation: usize,
        bytes: usize,
    },
    /// No more than so many bytes in all files.
    Full {
        capacity: usize,
    },
}

#[derive(Clone, Debug, Default)]
struct Inode {
    synced: Vec<u8>,
    now: Vec<u8>,
    /// Set aside up to this length.
    room: usize,
}

impl Inode {
    /// Bytes that it takes up.
    fn size(&self) -> usize {
        self.now.len().max(self.room)
    }
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    operations: usize,
    dead: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct FaultyDisk {
    state: Rc<RefCell<State>>,
    fault: Fault,
}

/// What a power cut leaves.
pub(crate) type Image = BTreeMap<String, Vec<u8>>;

impl FaultyDisk {
    pub(crate) fn new(fault: Fault) -> Self {
        Self { state: Rc::default(), fault }
    }

    pub(crate) fn from_image(image: &Image, fault: Fault) -> Self {
        let disk = Self::new(fault);
        {
            let mut state = disk.state.borrow_mut();
            for (n, (name, bytes)) in image.iter().enumerate() {
                state.inodes.push(Inode { synced: bytes.clone(), now: bytes.clone(), room: 0 });
                state.names.insert(name.clone(), n);
            }
            state.synced_names = state.names.clone();
        }
        disk
    }

    pub(crate) fn with_fault(&self, fault: Fault) -> Self {
        Self { state: Rc::clone(&self.state), fault }
    }

    pub(crate) fn operations(&self) -> usize {
        self.state.borrow().operations
    }

    /// Everything as the running system sees it.
    pub(crate) fn now(&self) -> Image {
        let state = self.state.borrow();
        state.names.iter().map(|(name, &n)| (name.clone(), state.inodes[n].now.clone())).collect()
    }

    /// Every way in which a power cut now may leave the disk: names synced or newer; contents as synced, newer, or any
    /// part of the newer end.
    pub(crate) fn images(&self) -> Vec<Image> {
        let state = self.state.borrow();
        let contents = |inode: &Inode| {
            let shared = inode.synced.iter().zip(&inode.now).take_while(|(a, b)| a == b).count();
            let mut all = vec![inode.synced.clone()];
            all.extend((shared..=inode.now.len()).map(|length| inode.now[..length].to_vec()));
            // The length was written, the bytes were not.
            let mut hole = inode.now.clone();
            hole[shared..].fill(0);
            all.push(hole);
            all.sort();
            all.dedup();
            all
        };
        let mut images = Vec::new();
        for names in [&state.names, &state.synced_names] {
            let mut partial = vec![Image::new()];
            for (name, &n) in names {
                let mut longer = Vec::new();
                for bytes in contents(&state.inodes[n]) {
                    longer.extend(partial.iter().cloned().map(|mut image| {
                        image.insert(name.clone(), bytes.clone());
                        image
                    }));
                }
                partial = longer;
            }
            images.extend(partial);
        }
        images
    }

    fn operation(&self, bytes: usize) -> (usize, io::Result<()>) {
        self.operation_within(bytes, 0)
    }

    /// How many bytes of this operation are done, and how it ends. For so many `set_aside` no space is wanted.
    fn operation_within(&self, bytes: usize, set_aside: usize) -> (usize, io::Result<()>) {
        let mut state = self.state.borrow_mut();
        let number = state.operations;
        state.operations += 1;
        let failure = || Err(io::Error::other("input/output error"));
        if state.dead {
            return (0, failure());
        }
        match self.fault {
            Fault::Power { operation, bytes: done } if operation == number => {
                state.dead = true;
                (done.min(bytes), failure())
            }
            Fault::Error { operation, bytes: done } if operation == number => (done.min(bytes), failure()),
            Fault::Full { capacity } => {
                let free = Self::free_of(&state, capacity) + set_aside;
                if bytes > free {
                    (free, Err(io::Error::from(io::ErrorKind::StorageFull)))
                } else {
                    (bytes, Ok(()))
                }
            }
            Fault::None | Fault::Power { .. } | Fault::Error { .. } => (bytes, Ok(())),
        }
    }

    fn free_of(state: &State, capacity: usize) -> usize {
        let used: usize = state.names.values().map(|&n| state.inodes[n].size()).sum();
        capacity.saturating_sub(used)
    }

    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Inode) -> T) -> io::Result<T> {
        let mut state = self.state.borrow_mut();
        let n = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(act(&mut state.inodes[n]))
    }
}

impl Disk for FaultyDisk {
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.with(name, |inode| inode.now.clone()).ok())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.operation(0).1?;
        let emptied = self.with(name, |inode| {
            inode.now.clear();
            inode.room = 0;
        });
        if emptied.is_err() {
            let mut state = self.state.borrow_mut();
            let n = state.inodes.len();
            state.inodes.push(Inode::default());
            state.names.insert(name.to_owned(), n);
        }
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let set_aside = self.with(name, |inode| inode.size() - inode.now.len())?;
        let (done, outcome) = self.operation_within(bytes.len(), set_aside);
        self.with(name, |inode| inode.now.extend(&bytes[..done]))?;
        outcome
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.operation(0).1?;
        self.with(name, |inode| {
            inode.now.resize(usize::try_from(length).expect("small"), 0);
            inode.room = 0;
        })
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.operation(0).1?;
        self.with(name, |inode| inode.synced.clone_from(&inode.now))
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.operation(0).1?;
        let mut state = self.state.borrow_mut();
        let n = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), n);
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.operation(0).1?;
        let mut state = self.state.borrow_mut();
        state.synced_names = state.names.clone();
        Ok(())
    }

    fn exists(&mut self, name: &str) -> io::Result<bool> {
        Ok(self.state.borrow().names.contains_key(name))
    }

    fn reserve(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        let Fault::Full { capacity } = self.fault else { return Err(io::ErrorKind::Unsupported.into()) };
        let free = Self::free_of(&self.state.borrow(), capacity);
        let bytes = usize::try_from(bytes).expect("small");
        self.with(name, |inode| {
            let wanted = inode.now.len() + bytes;
            if wanted.saturating_sub(inode.size()) > free {
                return Err(io::ErrorKind::StorageFull.into());
            }
            inode.room = inode.room.max(wanted);
            Ok(())
        })?
    }

    fn free(&mut self) -> io::Result<u64> {
        let Fault::Full { capacity } = self.fault else { return Ok(u64::MAX) };
        Ok(Self::free_of(&self.state.borrow(), capacity) as u64)
    }
}
