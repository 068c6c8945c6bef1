//! Where schools were last, kept beside the journal: a hub that is started again calls them, instead of waiting until each
//! notices that its session is gone. It is a cache: whoever takes it away loses half a minute.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use seimon_plan::WireguardKey;

type Endpoints = BTreeMap<WireguardKey, SocketAddr>;

const FILE: &str = "hub-endpoints.json";
const OWNER_ONLY: u32 = 0o600;

#[derive(Debug)]
pub(super) struct Whereabouts {
    file: PathBuf,
    written: Option<Endpoints>,
}

impl Whereabouts {
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self { file: folder.join(FILE), written: None }
    }

    /// What was written last; nothing where there is none, or it is of no use.
    pub(super) fn read(&self) -> Endpoints {
        let text = fs::read(&self.file).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Writes what differs from the last time. That it cannot be written is no reason for anything.
    pub(super) fn write(&mut self, endpoints: &Endpoints) {
        if self.written.as_ref() == Some(endpoints) {
            return;
        }
        match self.replace(endpoints) {
            Ok(()) => self.written = Some(endpoints.clone()),
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "where schools are was not written down")
            }
        }
    }

    /// Whole or not at all; not synced, for it is worth nothing after a while.
    fn replace(&self, endpoints: &Endpoints) -> Result<()> {
        let new = self.file.with_extension("new");
        let mut file = File::options().write(true).create(true).truncate(true).mode(OWNER_ONLY).open(&new)?;
        file.write_all(&serde_json::to_vec(endpoints)?)?;
        Ok(fs::rename(&new, &self.file)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_of_no_use_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut whereabouts = Whereabouts::in_folder(folder.path());
        assert!(whereabouts.read().is_empty());
        let endpoints = Endpoints::from([(WireguardKey([3; 32]), "[2001:db8::1]:51820".parse().unwrap())]);
        whereabouts.write(&endpoints);
        assert_eq!(Whereabouts::in_folder(folder.path()).read(), endpoints);
        fs::write(folder.path().join(FILE), "no JSON").unwrap();
        assert!(whereabouts.read().is_empty());
    }
}
