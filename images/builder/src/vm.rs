//! An image in QEMU: six network ports, a disk, chance, a watchdog, and the maintenance port.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use seimon_boot::image::{HEAD, Here};
use seimon_boot::{Anchors, Manifest, SignedHead};
use seimon_maintenance::client::Client;
use seimon_maintenance::{Act, Answer, FileFor, PORT, Request};
use serde_json::json;

use crate::arguments::Vm;
use crate::{Places, disk, image, make, say};

/// Software emulation takes its time.
const PATIENCE: Duration = Duration::from_secs(180);
const FIRMWARE: [&str; 2] =
    ["/usr/share/qemu-efi-aarch64/QEMU_EFI.fd", "/usr/share/edk2/aarch64/QEMU_EFI.fd"];
const PORTS: u8 = 6;

/// Ends the machine when it is dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

pub(crate) fn run(places: &Places, arguments: &Vm) -> Result<ExitCode> {
    let Vm { board: id, image: folder, .. } = arguments;
    let board = make::board(&places.root, id)?;
    let folder = folder.clone().unwrap_or_else(|| places.work.join(id));
    let image = image_in(&folder)?;
    let own = places.work.join(format!("vm-{}", std::process::id()));
    fs::create_dir_all(&own)?;
    let kept = arguments.disk.clone();
    let disk_file = kept.unwrap_or_else(|| own.join("disk"));
    if !disk_file.exists() {
        say::step("making the disk");
        let bytes = fs::read(&image).with_context(|| image.display().to_string())?;
        let head = trusted(&bytes, &folder, &board)?;
        let guardian = arguments.guardian.as_ref().map(fs::read).transpose().context("the boot guardian")?;
        disk::write(&disk_file, id, &board.hardware.storage, &bytes, &head, guardian.as_deref())?;
    }
    let result = drive(arguments, &folder, &disk_file, &own.join("maintenance.sock"));
    fs::remove_dir_all(&own)?;
    result
}

fn image_in(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| {
        format!("{}: make an image first: cargo xtask image --board NAME", folder.display())
    })?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "simg"))
        .collect();
    found.sort();
    found.pop().with_context(|| format!("{}: no image (*.simg) is here", folder.display()))
}

/// The head as its maker's own box would see it: this disk is for us to try.
fn trusted(bytes: &[u8], folder: &Path, board: &make::Board) -> Result<SignedHead> {
    let anchors = folder.parent().map(|work| work.join("keys/try.anchors")).filter(|file| file.is_file());
    let anchors =
        anchors.context("the image was not signed with the key for trying things out; give --disk")?;
    let anchors = Anchors::new(&fs::read(anchors)?).context("keys/try.anchors")?;
    let seen = image::seen(&image::board_id("", &board.hardware));
    let slot_length = u64::from(board.hardware.storage.slot_mib) << 20;
    let here = Here { anchors: &anchors, seen: &seen, epoch: 0, slot_length };
    ensure!(bytes.len() > HEAD, "the image is cut off");
    SignedHead::verify(&bytes[..HEAD], here).map_err(|refusal| anyhow::anyhow!("{refusal}"))
}

fn drive(arguments: &Vm, folder: &Path, disk: &Path, socket: &Path) -> Result<ExitCode> {
    say::step("starting QEMU (Ctrl-C ends it)");
    let mut command = qemu(arguments, folder, disk, socket)?;
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("qemu-system-aarch64")?;
    let console = child.stdout.take().context("no console")?;
    let mut machine = Machine(child);
    std::thread::spawn(move || {
        // Firmware and kernel write what they like.
        let mut lines = BufReader::new(console).split(b'\n');
        while let Some(Ok(line)) = lines.next() {
            say::line(String::from_utf8_lossy(&line).trim_end());
        }
    });
    let (mut gateway, _) = Client::wait_for(socket, PATIENCE).context("the gateway did not come up")?;
    let mut done = |request: Request| -> Result<Answer> { Ok(gateway.ask(request)?) };
    if let Some(plan) = &arguments.plan {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?;
        done(Request::SetClock { unix_ms: i64::try_from(now.as_millis())? })?;
        done(Request::Put { file: FileFor::ClockTrust, content: String::new() })?;
        if let Some(authority) = &arguments.authority {
            let content = fs::read_to_string(authority).with_context(|| authority.display().to_string())?;
            done(Request::Put { file: FileFor::Authority, content })?;
        }
        let content = fs::read_to_string(plan).with_context(|| plan.display().to_string())?;
        done(Request::Put { file: FileFor::Plan, content })?;
        done(Request::Agent { act: Act::Start, patience_ms: 120_000 }).context("the agent")?;
    }
    let Answer::Status(status) = done(Request::Status)? else { bail!("an answer to another question") };
    say::line(&match (status.agent, status.boot.policy_ms) {
        (Some(_), Some(ms)) => format!(
            "== ready: the agent runs, its policy has been in force since {ms} ms after the kernel's start"
        ),
        _ => "== ready: the gateway is up and closed; it has no plan (give one with --plan)".to_owned(),
    });
    let Answer::Usage { memory, processes } = done(Request::Usage)? else {
        bail!("an answer to another question")
    };
    if arguments.json {
        let result = json!({ "status": status, "memory": memory, "processes": processes });
        say::result(&serde_json::to_string_pretty(&result)?);
    }
    if arguments.exit_when_ready {
        done(Request::PowerOff)?;
        return Ok(ExitCode::SUCCESS);
    }
    let ended = machine.0.wait()?;
    Ok(if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn qemu(arguments: &Vm, folder: &Path, disk: &Path, socket: &Path) -> Result<Command> {
    let mut command = Command::new("qemu-system-aarch64");
    command.args([
        "-M",
        "virt",
        "-cpu",
        "cortex-a72",
        "-smp",
        "2",
        "-nographic",
        "-nodefaults",
        "-no-reboot",
    ]);
    command.args(["-m", &arguments.memory.to_string(), "-serial", "stdio"]);
    for port in 0..PORTS {
        let device = format!("virtio-net-pci,netdev=port{port},addr={},romfile=", port + 1);
        // The first line leads out, by QEMU's own router; the others are not plugged in anywhere.
        let backend = if port == 0 { "user,restrict=off" } else { "hubport,hubid=" };
        let hub = if port == 0 { String::new() } else { port.to_string() };
        command.args(["-netdev", &format!("{backend}{hub},id=port{port}"), "-device", &device]);
    }
    command.args(["-drive", &format!("file={},if=none,id=disk,format=raw,cache=writeback", disk.display())]);
    command.args(["-device", "virtio-blk-pci,drive=disk,addr=8", "-device", "virtio-rng-pci,addr=9"]);
    command.args(["-device", "i6300esb,addr=10", "-device", "virtio-serial-pci,addr=11"]);
    command
        .args(["-chardev", &format!("socket,id=maintenance,path={},server=on,wait=off", socket.display())]);
    command.args(["-device", &format!("virtserialport,chardev=maintenance,name={PORT}")]);
    if arguments.guardian.is_some() {
        let firmware = FIRMWARE.into_iter().find(|file| Path::new(file).is_file());
        command.args(["-bios", firmware.context("EDK2 for aarch64 (Debian package qemu-efi-aarch64)")?]);
    } else {
        let manifest = fs::read_to_string(folder.join("manifest.json")).context("manifest.json")?;
        let manifest: Manifest = serde_json::from_str(&manifest).context("manifest.json")?;
        command.arg("-kernel").arg(folder.join("kernel")).arg("-initrd").arg(folder.join("initramfs"));
        command.args(["-append", &format!("{} seimon.slot=a", manifest.command_line)]);
    }
    Ok(command)
}
