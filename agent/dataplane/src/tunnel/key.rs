//! Private keys: files that nobody but their owner can read, made where there is none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::process::geteuid;
use seimon_core::network_plan::ApplyError;
use seimon_plan::WireguardKey;
use wireguard_control::Key;

const OWNER_ONLY: u32 = 0o600;
const OTHERS: u32 = 0o077;
/// A key is 44 characters and a line's end.
const LONGEST: u64 = 256;

/// A WireGuard private key. It cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Key);

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey")
    }
}

/// Whether a key was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    Now,
    Before,
}

impl PrivateKey {
    pub fn generate() -> Self {
        Self(Key::generate_private())
    }

    pub fn public(&self) -> WireguardKey {
        WireguardKey(self.0.get_public().0)
    }

    pub(crate) fn key(&self) -> &Key {
        &self.0
    }

    /// Reads a key as `wg genkey` writes it. Refuses a file that others than its owner can read or write, or that belongs
    /// to somebody else than us or root.
    pub fn load(file: &Path) -> Result<Self, ApplyError> {
        let unusable = |why: String| ApplyError::PrivateKey { file: file.to_owned(), why };
        let open = File::open(file).map_err(|error| unusable(error.to_string()))?;
        let facts = open.metadata().map_err(|error| unusable(error.to_string()))?;
        if !facts.is_file() {
            return Err(unusable("it is not a file".to_owned()));
        }
        let owner = facts.uid();
        if owner != geteuid().as_raw() && owner != 0 {
            return Err(unusable(format!("it belongs to user {owner}, who could replace it")));
        }
        let mode = facts.mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(unusable(format!(
                "others than its owner have access (mode {mode:o}): make another with `seimonctl wireguard keygen FILE`, for \
                 this one may be known, or chmod 600 it"
            )));
        }
        let mut text = String::new();
        open.take(LONGEST).read_to_string(&mut text).map_err(|error| unusable(error.to_string()))?;
        // In the plan's words for keys: one spelling only.
        let bytes: WireguardKey = text
            .trim()
            .parse()
            .map_err(|_| unusable("it holds no key: 44 characters in base64".to_owned()))?;
        Ok(Self(Key(bytes.0)))
    }

    /// As [`Self::load`]; where there is no file, a key is made, and is on disk when this returns.
    pub fn load_or_make(file: &Path) -> Result<(Self, Made), ApplyError> {
        match fs::symlink_metadata(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Self::generate();
                key.save(file)?;
                Ok((key, Made::Now))
            }
            Ok(_) | Err(_) => Ok((Self::load(file)?, Made::Before)),
        }
    }

    /// Writes the key in place of what is there; on disk when this returns.
    pub fn save(&self, file: &Path) -> Result<(), ApplyError> {
        let unusable = |error: io::Error| ApplyError::PrivateKey {
            file: file.to_owned(),
            why: format!("not written: {error}"),
        };
        let mut beside = file.as_os_str().to_owned();
        beside.push(".new");
        let written = || -> io::Result<()> {
            match fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut new = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(&beside)?;
            writeln!(new, "{}", self.0.to_base64())?;
            new.sync_all()?;
            fs::rename(&beside, file)?;
            match file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                Some(folder) => File::open(folder)?.sync_all(),
                None => File::open(".")?.sync_all(),
            }
        };
        written().map_err(unusable)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("seimon-key-{name}-{}", std::process::id()));
        let _gone = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_key_is_made_once_and_only_its_owner_can_read_it() {
        let folder = folder("made");
        let file = folder.join("k");
        let (key, made) = PrivateKey::load_or_make(&file).unwrap();
        assert_eq!(made, Made::Now);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let (again, made) = PrivateKey::load_or_make(&file).unwrap();
        assert_eq!((again.public(), made), (key.public(), Made::Before));
        assert_eq!(format!("{again:?}"), "PrivateKey");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_public_half_is_the_one_that_others_compute() {
        let folder = folder("known");
        let file = folder.join("k");
        // From the documentation of `wg pubkey`'s implementation in Rust.
        fs::write(&file, "SGb+ojrRNDuMePufwtIYhXzA//k6wF3R21tEBgKlzlM=\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        let key = PrivateKey::load(&file).unwrap();
        assert_eq!(key.public().to_string(), "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_none_is_refused_and_the_error_does_not_tell_it() {
        let folder = folder("refused");
        let file = folder.join("k");
        let text = PrivateKey::generate().0.to_base64();
        fs::write(&file, &text).unwrap();
        for mode in [0o644, 0o640, 0o660, 0o602, 0o604] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let error = PrivateKey::load(&file).unwrap_err().to_string();
            assert!(error.contains(&format!("{mode:o}")) && !error.contains(&text), "{error}");
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(PrivateKey::load(&file).is_ok());
        for bad in ["", "no key", &text[..43]] {
            fs::write(&file, bad).unwrap();
            let error = PrivateKey::load_or_make(&file).unwrap_err().to_string();
            assert!(error.contains("holds no key"), "{error}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
