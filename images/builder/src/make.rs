//! From a board's name to an image in a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use seimon_board::hardware::{Hardware, StorageClass};
use seimon_boot::{Digest, GUARDIAN_VERSION};
use serde_json::{Value, json};

use crate::apt::Apt;
use crate::arguments::Make;
use crate::contents::Contents;
use crate::image::{Decided, Image};
use crate::settings::{Lock, Packages};
use crate::system::{self, Ingredients, System};
use crate::{Places, check, cross, disk, image, keys, say, sbom};

/// A board that an image can be for.
pub(crate) struct Board {
    pub(crate) file: PathBuf,
    pub(crate) hardware: Hardware,
}

pub(crate) fn board(root: &Path, id: &str) -> Result<Board> {
    let file = root.join("board/boards").join(format!("{id}.toml"));
    let text =
        fs::read_to_string(&file).with_context(|| format!("{}: cargo xtask board list", file.display()))?;
    let board = seimon_board::Board::parse(&text, &file.display().to_string())?;
    let hardware =
        board.hardware.with_context(|| format!("{id} is no hardware that an image could run on"))?;
    Ok(Board { file, hardware })
}

pub(crate) fn make(places: &Places, arguments: &Make) -> Result<ExitCode> {
    let begun = Instant::now();
    let Places { root, work, build } = places;
    let Make { board: id, version, .. } = arguments;
    ensure!(
        (1..=24).contains(&version.len()) && version.bytes().all(|byte| byte.is_ascii_graphic()),
        "--version: 1 to 24 printable ASCII characters"
    );
    fs::create_dir_all(work)?;
    let board = board(root, id)?;
    let (packages, lock) = (Packages::read(root)?, Lock::read(root)?);
    let crates = sbom::crates(root)?;
    if arguments.sbom {
        let document = sbom::spdx(&lock, &crates, id, version, &Digest::of(&[]).to_string());
        say::result(&serde_json::to_string_pretty(&document)?);
        return Ok(ExitCode::SUCCESS);
    }
    let built = match &arguments.built {
        Some(folder) => cross::Built { programs: folder.clone(), init_programs: folder.join("static") },
        None => cross::build(root, build)?,
    };
    let apt = Apt::open(work)?;
    let storage = storage_kind(&board.hardware.storage.device)?;
    let key = match &arguments.key {
        Some(file) => keys::read(file)?,
        None => keys::for_trying(work)?,
    };
    let believed = key.verifying_key();
    let given = Ingredients {
        anchors: believed.as_bytes(),
        root,
        work,
        apt: &apt,
        packages: &packages,
        lock: &lock,
        programs: &built.programs,
        init_programs: &built.init_programs,
        board_file: &board.file,
        board: id,
        version,
    };
    let system = system::assemble(&given, storage)?;
    for missing in &system.missing {
        say::line(&format!("   the kernel {} has no module {missing}", system.kernel_version));
    }
    let problems = check::problems(&system.tree);
    if arguments.check || !problems.is_empty() {
        for problem in &problems {
            say::result(problem);
        }
        ensure!(
            problems.is_empty(),
            "{} things must not be in an image (see above); none was written",
            problems.len()
        );
        say::result("nothing is in the image that must not be");
        return Ok(ExitCode::SUCCESS);
    }
    let decided =
        Decided { board: id, hardware: &board.hardware, version, epoch: arguments.epoch, key: &key };
    let init = fs::read(built.init_programs.join("seimon-init")).context("seimon-init")?;
    let image = image::assemble(&system, init, lock.epoch, &decided, work)?;
    let out = arguments.out.clone().unwrap_or_else(|| work.join(id));
    let mut result = write(&out, arguments, &image, &system, &lock, &crates)?;
    if let Some(guardian) = &arguments.guardian {
        let guardian = fs::read(guardian).with_context(|| guardian.display().to_string())?;
        let file = out.join(format!("seimon-{id}-{version}.disk"));
        disk::write(&file, id, &board.hardware.storage, &image.bytes, &image.head, Some(&guardian))?;
        result["disk"] = json!(file);
    }
    result["seconds"] = json!(begun.elapsed().as_secs());
    if board.hardware.storage.class == StorageClass::Files {
        say::line("   class `files`: the layout only; the file cache does not exist yet");
    }
    tell(&result, arguments.json)?;
    Ok(ExitCode::SUCCESS)
}

/// `/dev/mmcblk0` → `mmcblk`: a section of images/initramfs.list.
fn storage_kind(device: &str) -> Result<&'static str> {
    let name = device.strip_prefix("/dev/").unwrap_or(device);
    match ["vd", "mmcblk", "nvme"].into_iter().find(|kind| name.starts_with(kind)) {
        Some(kind) => Ok(kind),
        None => {
            bail!("no kernel modules are known that lead to {device}: add a section to images/initramfs.list")
        }
    }
}

fn write(
    out: &Path,
    arguments: &Make,
    image: &Image,
    system: &System,
    lock: &Lock,
    crates: &[sbom::Crate],
) -> Result<Value> {
    let Make { board, version, epoch, .. } = arguments;
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let name = format!("seimon-{board}-{version}");
    let file = out.join(format!("{name}.simg"));
    fs::write(&file, &image.bytes).with_context(|| file.display().to_string())?;
    let sha256 = Digest::of(&image.bytes).to_string();
    let manifest = image.head.manifest();
    let part = |part: &seimon_boot::image::Part| -> Result<&[u8]> {
        Ok(&image.bytes[usize::try_from(part.offset)?..usize::try_from(part.offset + part.length)?])
    };
    // For starting it without a guardian.
    fs::write(out.join("kernel"), part(&manifest.kernel)?)?;
    fs::write(out.join("initramfs"), part(&manifest.initramfs)?)?;
    fs::write(out.join("manifest.json"), serde_json::to_string_pretty(manifest)? + "\n")?;
    let contents = Contents {
        board: board.clone(),
        version: version.clone(),
        epoch: *epoch,
        kernel: system.kernel_version.clone(),
        ..Contents::of(&system.tree, lock, crates)
    };
    fs::write(out.join("contents.json"), serde_json::to_string_pretty(&contents)? + "\n")?;
    let document = sbom::spdx(lock, crates, board, version, &sha256);
    fs::write(out.join("sbom.spdx.json"), serde_json::to_string_pretty(&document)? + "\n")?;
    let mut result = json!({
        "board": board,
        "version": version,
        "epoch": epoch,
        "guardian": GUARDIAN_VERSION,
        "kernel_version": system.kernel_version,
        "image": file,
        "sha256": sha256,
        "bytes": image.bytes.len(),
        "kernel_bytes": manifest.kernel.length,
        "initramfs_bytes": manifest.initramfs.length,
        "root_bytes": image.root_length,
        "packages": lock.package.len(),
        "crates": crates.len(),
        "missing_modules": system.missing,
    });
    if !arguments.quick {
        let compressed = compress(&file)?;
        result["compressed"] = json!(compressed);
        result["compressed_bytes"] = json!(fs::metadata(&compressed)?.len());
        result["compressed_sha256"] = json!(crate::digest_of_file(&compressed)?.to_string());
    }
    Ok(result)
}

/// What is shipped.
fn compress(file: &Path) -> Result<PathBuf> {
    say::step("compressing");
    let compressed = PathBuf::from(format!("{}.zst", file.display()));
    let status = Command::new("zstd")
        // The result does not depend on how many threads there are, as long as there is one.
        .args(["--quiet", "--force", "-19", "-T0", "--long=27", "--no-progress"])
        .arg(file)
        .arg("-o")
        .arg(&compressed)
        .status()
        .context("zstd could not be started")?;
    ensure!(status.success(), "zstd failed");
    Ok(compressed)
}

fn tell(result: &Value, as_json: bool) -> Result<()> {
    if as_json {
        say::result(&serde_json::to_string_pretty(result)?);
        return Ok(());
    }
    let mib = |key: &str| {
        result[key].as_f64().map_or("-".to_owned(), |bytes| format!("{:.1} MiB", bytes / 1_048_576.0))
    };
    say::result(&format!(
        "{}\n  {} (kernel {}, initramfs {}, root {}), compressed {}\n  sha256 {}",
        result["image"].as_str().unwrap_or_default(),
        mib("bytes"),
        mib("kernel_bytes"),
        mib("initramfs_bytes"),
        mib("root_bytes"),
        mib("compressed_bytes"),
        result["sha256"].as_str().unwrap_or_default(),
    ));
    Ok(())
}
