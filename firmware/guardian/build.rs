//! Takes the public keys that the guardian is to believe from the file that `SEIMON_ANCHORS` names.

use std::path::PathBuf;

fn main() -> Result<(), String> {
    println!("cargo:rerun-if-env-changed=SEIMON_ANCHORS");
    let file = std::env::var_os("SEIMON_ANCHORS").map(PathBuf::from).ok_or(
        "SEIMON_ANCHORS is not set: it must name a file with the one or two ed25519 public keys (32 or 64 bytes) that \
         the guardian is to believe; `cargo xtask guardian build --anchors FILE` sets it",
    )?;
    println!("cargo:rerun-if-changed={}", file.display());
    let keys =
        std::fs::read(&file).map_err(|error| format!("SEIMON_ANCHORS: {}: {error}", file.display()))?;
    if !matches!(keys.len(), 32 | 64) {
        return Err(format!(
            "SEIMON_ANCHORS: {} has {} bytes; one or two ed25519 public keys have 32 or 64",
            file.display(),
            keys.len()
        ));
    }
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from).ok_or("cargo sets OUT_DIR")?;
    std::fs::write(out.join("anchors"), keys).map_err(|error| error.to_string())
}
