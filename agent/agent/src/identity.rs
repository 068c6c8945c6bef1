//! The gateway's own key: made on first use, kept in the state directory, for signing what people take away on paper.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

const FILE: &str = "identity.key";
const OWNER_ONLY: u32 = 0o600;
const OTHERS: u32 = 0o077;

/// An Ed25519 key pair.
#[derive(Debug)]
pub(crate) struct Identity(Ed25519KeyPair);

impl Identity {
    /// Reads the key, or makes it. A key that others can read is refused: whoever has it can sign in the school's name.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let name = path.display();
        if !path.exists() {
            make(folder).with_context(|| format!("a key could not be made: {name}"))?;
        }
        let mode = fs::metadata(&path).with_context(|| format!("{name}"))?.mode() & 0o777;
        anyhow::ensure!(
            mode & OTHERS == 0,
            "{name} can be read by others (mode {mode:o}): remove it, and a new key is made; reports signed with the old \
             one are no longer proof"
        );
        let bytes = fs::read(&path).with_context(|| format!("{name}"))?;
        let pair = Ed25519KeyPair::from_pkcs8(&bytes).map_err(|error| {
            anyhow::anyhow!("{name} is not a key: {error}; remove it, and a new one is made")
        })?;
        Ok(Self(pair))
    }

    /// 64 bytes, hexadecimal.
    pub(crate) fn sign(&self, message: &[u8]) -> String {
        hex(self.0.sign(message).as_ref())
    }

    /// 32 bytes, hexadecimal.
    pub(crate) fn public_key(&self) -> String {
        hex(self.0.public_key().as_ref())
    }
}

/// Whole or not at all, and on disk before anything is signed with it.
fn make(folder: &Path) -> Result<()> {
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| anyhow::anyhow!("no random numbers"))?;
    let new = folder.join(format!("{FILE}.new"));
    let mut file = File::options().write(true).create(true).truncate(true).mode(OWNER_ONLY).open(&new)?;
    file.write_all(key.as_ref())?;
    file.sync_all()?;
    fs::rename(&new, folder.join(FILE))?;
    Ok(File::open(folder)?.sync_all()?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<char> = hex.chars().collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
            .collect()
    }

    #[test]
    fn the_key_is_made_once_for_its_owner_only_and_signs() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::open(folder.path()).unwrap();
        assert_eq!(fs::metadata(folder.path().join(FILE)).unwrap().mode() & 0o777, OWNER_ONLY);
        let again = Identity::open(folder.path()).unwrap();
        assert_eq!(identity.public_key(), again.public_key());
        let key = UnparsedPublicKey::new(&ED25519, bytes(&identity.public_key()));
        let signature = bytes(&again.sign(b"report"));
        assert!(key.verify(b"report", &signature).is_ok());
        assert!(key.verify(b"rep0rt", &signature).is_err());
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Identity::open(folder.path()).unwrap();
        let path = folder.path().join(FILE);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(Identity::open(folder.path()).unwrap_err().to_string().contains("640"));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "no key").unwrap();
        assert!(Identity::open(folder.path()).unwrap_err().to_string().contains("not a key"));
    }
}
