//! The guardian that believes the lab's key, and the program that stands in for a kernel.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::image::Key;

/// Built, with the key that signs.
#[derive(Clone, Debug)]
pub struct Programs {
    pub guardian: PathBuf,
    pub payload: Vec<u8>,
    pub payload_file: PathBuf,
    pub key: Key,
    /// Where stories leave what they leave.
    pub folder: PathBuf,
}

impl Programs {
    /// Builds them with `cargo xtask guardian build` where `folder` is.
    pub fn build(root: &Path, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let key = Key::kept_in(&folder.join("test-key"))?;
        let anchors = folder.join("test-anchors");
        if std::fs::read(&anchors).ok().as_deref() != Some(&key.public()) {
            std::fs::write(&anchors, key.public())?;
        }
        let guardian = folder.join("BOOTAA64.EFI");
        let payload_file = folder.join("payload.efi");
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(root)
            .args(["run", "--quiet", "--package", "xtask", "--", "guardian", "build", "--anchors"])
            .arg(&anchors)
            .arg("--out")
            .arg(&guardian)
            .arg("--payload")
            .arg(&payload_file)
            .stdin(Stdio::null())
            .output()
            .context("cargo")?;
        if !output.status.success() {
            bail!("cargo xtask guardian build: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let payload = std::fs::read(&payload_file).with_context(|| payload_file.display().to_string())?;
        Ok(Self { guardian, payload, payload_file, key, folder: folder.to_path_buf() })
    }
}
