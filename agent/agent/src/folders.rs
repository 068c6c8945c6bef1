//! The folders that the agent is given. What is in the state directory decides which network is put in force, so nobody
//! else may write there; who may only read there learns what the plan says, and is shut out from then on.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::process::geteuid;
use seimon_ipc::control::Bilingual;

const OWNER_ONLY: u32 = 0o700;
const OTHERS_WRITE: u32 = 0o022;
const OTHERS: u32 = 0o077;

/// Makes the state directory, or looks at it. An error if others can write there; the words say what was put right.
pub(crate) fn state(folder: &Path) -> Result<Option<Bilingual>> {
    let name = folder.display();
    DirBuilder::new()
        .recursive(true)
        .mode(OWNER_ONLY)
        .create(folder)
        .with_context(|| format!("the state directory {name}"))?;
    let facts = fs::metadata(folder).with_context(|| format!("the state directory {name}"))?;
    let own = geteuid().as_raw();
    anyhow::ensure!(
        facts.uid() == own || facts.uid() == 0,
        "the state directory {name} belongs to user {}, who could change what is put in force: look through what is in \
         it, then chown it to user {own}, or remove it to begin anew",
        facts.uid()
    );
    let mode = facts.mode() & 0o777;
    anyhow::ensure!(
        mode & OTHERS_WRITE == 0,
        "the state directory {name} can be written by others (mode {mode:o}), who could change what is put in force: \
         look through what is in it, then chmod 700 {name}, or remove it to begin anew"
    );
    if mode & OTHERS == 0 {
        return Ok(None);
    }
    Ok(Some(match fs::set_permissions(folder, Permissions::from_mode(OWNER_ONLY)) {
        Ok(()) => Bilingual {
            ja: format!("保存場所 {name} をほかの利用者が読めたため（{mode:o}）、読めないようにしました。"),
            en: format!("others could read the state directory {name} (mode {mode:o}); now they cannot"),
        },
        Err(error) => Bilingual {
            ja: format!(
                "保存場所 {name} をほかの利用者が読めます（{mode:o}）。chmod 700 してください（{error}）"
            ),
            en: format!("others can read the state directory {name} (mode {mode:o}); chmod 700 it ({error})"),
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_mode(mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let around = tempfile::tempdir().unwrap();
        let folder = around.path().join("state");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
        (around, folder)
    }

    fn mode(folder: &Path) -> u32 {
        fs::metadata(folder).unwrap().mode() & 0o777
    }

    #[test]
    fn a_folder_that_is_made_is_for_its_owner_only() {
        let around = tempfile::tempdir().unwrap();
        let folder = around.path().join("a/b");
        assert_eq!(state(&folder).unwrap(), None);
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(state(&folder).unwrap(), None, "nothing to say the second time");
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused_and_left_as_it_is() {
        for open in [0o777, 0o770, 0o720, 0o702] {
            let (_around, folder) = with_mode(open);
            let error = state(&folder).unwrap_err().to_string();
            assert!(error.contains(&format!("{open:o}")) && error.contains("chmod 700"), "{error}");
            assert_eq!(mode(&folder), open);
        }
    }

    #[test]
    fn a_folder_that_others_can_read_is_closed_and_that_is_said() {
        for open in [0o755, 0o750, 0o705, 0o711] {
            let (_around, folder) = with_mode(open);
            let said = state(&folder).unwrap().unwrap();
            assert!(said.en.contains(&format!("{open:o}")), "{said:?}");
            assert_eq!(mode(&folder), 0o700);
            assert_eq!(state(&folder).unwrap(), None);
        }
    }
}
