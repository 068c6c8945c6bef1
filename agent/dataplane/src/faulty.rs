//! A data plane that fails when it is told to, around one that works.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;

use seimon_board::{InterfaceName, MacAddress};
use seimon_core::network_plan::{AffinityEntry, ApplyError, ChangeSet, Dataplane, Flow, Observed, PathIndex};

/// When an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nothing of it has been done.
    Before,
    /// It has been done, and the answer is lost.
    After,
}

/// What is done to an observation before it is handed out.
type Corruption = Box<dyn FnMut(&mut Observed) + Send>;

/// Counts operations (each change of a change set, each look) from 1, and fails those that it was told to fail.
pub struct Faulty<D> {
    inner: D,
    done: u64,
    failures: BTreeMap<u64, Moment>,
    corruptions: BTreeMap<u64, Corruption>,
}

impl<D: fmt::Debug> fmt::Debug for Faulty<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inner, done, failures, corruptions } = self;
        f.debug_struct("Faulty")
            .field("inner", inner)
            .field("done", done)
            .field("failures", failures)
            .field("corruptions", &corruptions.keys())
            .finish()
    }
}

impl<D> Faulty<D> {
    pub const fn new(inner: D) -> Self {
        Self { inner, done: 0, failures: BTreeMap::new(), corruptions: BTreeMap::new() }
    }

    /// Fails the `n`-th operation from now (the next is 1), once.
    pub fn fail_in(&mut self, n: u64, moment: Moment) {
        self.failures.insert(self.done + n, moment);
    }

    /// Changes what the `n`-th operation from now observes, once; nothing happens when that is no observation.
    pub fn corrupt_in(&mut self, n: u64, corruption: impl FnMut(&mut Observed) + Send + 'static) {
        self.corruptions.insert(self.done + n, Box::new(corruption));
    }

    /// Operations so far, failed ones included.
    pub const fn operations(&self) -> u64 {
        self.done
    }

    pub const fn inner(&self) -> &D {
        &self.inner
    }

    pub const fn inner_mut(&mut self) -> &mut D {
        &mut self.inner
    }

    pub fn into_inner(self) -> D {
        self.inner
    }

    fn operation<T>(&mut self, run: impl FnOnce(&mut D) -> Result<T, ApplyError>) -> Result<T, ApplyError> {
        self.done += 1;
        let failure = || ApplyError::Kernel {
            doing: "go on (a fault was asked for)".into(),
            source: io::ErrorKind::Interrupted.into(),
        };
        match self.failures.remove(&self.done) {
            Some(Moment::Before) => Err(failure()),
            Some(Moment::After) => run(&mut self.inner).and_then(|_| Err(failure())),
            None => run(&mut self.inner),
        }
    }
}

impl<D: Dataplane> Dataplane for Faulty<D> {
    fn observe(&mut self, sysctls: &[String]) -> Result<Observed, ApplyError> {
        let mut observed = self.operation(|inner| inner.observe(sysctls))?;
        if let Some(mut corrupt) = self.corruptions.remove(&self.done) {
            corrupt(&mut observed);
        }
        Ok(observed)
    }

    fn apply(&mut self, changes: &ChangeSet) -> Result<(), ApplyError> {
        for change in &changes.changes {
            let one = ChangeSet { changes: vec![change.clone()] };
            self.operation(|inner| inner.apply(&one))?;
        }
        Ok(())
    }

    fn flows(&mut self) -> Result<Vec<Flow>, ApplyError> {
        self.operation(D::flows)
    }

    fn affinity(&mut self, paths: &[PathIndex]) -> Result<Vec<AffinityEntry>, ApplyError> {
        self.operation(|inner| inner.affinity(paths))
    }

    fn neighbours(&mut self, interface: &InterfaceName) -> Result<BTreeMap<IpAddr, MacAddress>, ApplyError> {
        self.operation(|inner| inner.neighbours(interface))
    }
}
