//! The maker's signing key. Without one of the maker's own, one is made for trying things out, in `target/images/keys`.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use ed25519_dalek::SigningKey;

use crate::say;

/// The key in the file: 32 bytes, readable by its owner only.
pub(crate) fn read(file: &Path) -> Result<SigningKey> {
    let name = file.display();
    let about = fs::metadata(file).with_context(|| name.to_string())?;
    ensure!(
        about.mode() & 0o077 == 0,
        "{name} can be read by others: chmod 600 {name}, and think of who has read it"
    );
    let bytes = fs::read(file).with_context(|| name.to_string())?;
    let bytes = <[u8; 32]>::try_from(bytes.as_slice())
        .map_err(|_| anyhow::anyhow!("{name} is no ed25519 key: 32 bytes, e.g. of /dev/urandom"))?;
    Ok(SigningKey::from_bytes(&bytes))
}

/// The key for trying things out, made if it is not there yet; beside it the anchors that a guardian for it needs.
pub(crate) fn for_trying(work: &Path) -> Result<SigningKey> {
    let folder = work.join("keys");
    let file = folder.join("try.key");
    if !file.exists() {
        fs::create_dir_all(&folder)?;
        let mut secret = [0; 32];
        fs::File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut secret))
            .context("randomness")?;
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?;
        out.write_all(&secret)?;
        out.sync_all()?;
        say::line(&format!("   a key for trying things out was made: {}", file.display()));
    }
    let key = read(&file)?;
    fs::write(folder.join("try.anchors"), key.verifying_key().to_bytes())?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_only() {
        let work = tempfile::tempdir().unwrap();
        let key = for_trying(work.path()).unwrap();
        assert_eq!(for_trying(work.path()).unwrap().to_bytes(), key.to_bytes());
        let file = work.path().join("keys/try.key");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read(work.path().join("keys/try.anchors")).unwrap(), key.verifying_key().to_bytes());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("chmod 600"));
    }
}
