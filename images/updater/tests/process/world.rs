//! A disk made of files, images signed with keys made here, and the updater's process.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use ed25519_dalek::{Signer as _, SigningKey};
use seimon_boot::board::BoardId;
use seimon_boot::image::{HEAD, Manifest, Part, Root, assemble_head, to_be_signed};
use seimon_boot::state::{COPY_DISTANCE, RECORD, newest};
use seimon_boot::{BootState, Choice, Digest, SignedHead, Slot, Status};
use seimon_ipc::frame::{self, LineBuffer};
use seimon_update::wire::{Command, Request, Response, VERSION};
use tempfile::TempDir;

pub(crate) const BOARD: &str = "test,board";
const SLOT_LENGTH: usize = 64 << 20;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// An image's bytes.
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
    /// Offsets of kernel, initramfs and root.
    pub(crate) parts: [usize; 3],
    manifest: Manifest,
}

impl Image {
    pub(crate) fn new(version: &str, epoch: u32) -> Self {
        Self::make(version, epoch, BOARD, 1, 100 << 10, 0)
    }

    pub(crate) fn with_root(version: &str, epoch: u32, root: usize) -> Self {
        Self::make(version, epoch, BOARD, 1, root, 0)
    }

    pub(crate) fn signed_by(seed: u8, version: &str, epoch: u32) -> Self {
        Self::make(version, epoch, BOARD, seed, 100 << 10, 0)
    }

    pub(crate) fn for_board(version: &str, board: &str) -> Self {
        Self::make(version, 2, board, 1, 100 << 10, 0)
    }

    /// Its manifest says that the root is so much longer than it is.
    pub(crate) fn claiming(version: &str, more: u64) -> Self {
        Self::make(version, 2, BOARD, 1, 100 << 10, more)
    }

    fn make(version: &str, epoch: u32, board: &str, seed: u8, root: usize, more: u64) -> Self {
        let mut bytes = vec![0; HEAD];
        let mut part = |length: usize, seed: u32| {
            bytes.resize(bytes.len().next_multiple_of(4096), 0);
            let offset = bytes.len();
            // No two stretches alike, so that one in the wrong place shows.
            bytes.extend(
                (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed as u8),
            );
            let digest = Digest::of(&bytes[offset..]);
            (offset, Part { offset: offset as u64, length: length as u64, sha256: digest })
        };
        let (kernel_at, kernel) = part(50_000, epoch);
        let (initramfs_at, initramfs) = part(9_000, epoch + 1);
        let (root_at, mut root) = part(root, epoch + 2);
        root.length += more;
        let manifest = Manifest {
            format: 1,
            version: version.into(),
            epoch,
            guardian: 1,
            boards: vec![BoardId { id: board.into(), compatible: vec![board.into()], smbios: None }],
            command_line: "quiet".into(),
            kernel,
            initramfs,
            root: Root {
                part: root,
                data_length: 4096,
                verity_root: Digest([0; 32]),
                verity_salt: Digest([0; 32]),
            },
        };
        let json = serde_json::to_vec(&manifest).unwrap();
        let key = key(seed);
        let signature = (key.verifying_key().to_bytes(), key.sign(&to_be_signed(&json)).to_bytes());
        bytes[..HEAD].copy_from_slice(&assemble_head(&json, &[signature]).unwrap());
        Self { bytes, parts: [kernel_at, initramfs_at, root_at], manifest }
    }
}

/// A box: its disk, its firmware's word, its files.
pub(crate) struct World {
    folder: TempDir,
    pub(crate) first: Image,
}

impl World {
    /// Slot A runs a confirmed image of version 1.0.0, epoch 1; slot B is empty.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let first = Image::new("1.0.0", 1);
        let world = Self { folder, first };
        for slot in Slot::BOTH {
            let mut bytes = vec![0; SLOT_LENGTH];
            if slot == Slot::A {
                bytes[..world.first.bytes.len()].copy_from_slice(&world.first.bytes);
            }
            fs::write(world.path(slot.partition()), bytes).unwrap();
        }
        let mut state = BootState::fresh();
        state.a.status = Status::Confirmed;
        state.a.epoch = 1;
        state.a.version = seimon_boot::state::Version::new("1.0.0");
        state.epoch = world.first.manifest.epoch;
        let mut bytes = vec![0; 1 << 20];
        bytes[..RECORD].copy_from_slice(&state.encode());
        fs::write(world.path("boot-state"), bytes).unwrap();
        fs::write(world.path("anchors"), key(1).verifying_key().to_bytes()).unwrap();
        fs::create_dir_all(world.path("root/proc/device-tree")).unwrap();
        fs::write(world.path("root/proc/device-tree/compatible"), format!("{BOARD}\0")).unwrap();
        fs::create_dir_all(world.path("root/sys/class/net/wan1")).unwrap();
        fs::create_dir(world.path("run")).unwrap();
        let board = "id = 'b'\ndescription = 'b'\n[ports]\nWAN1 = { interface = 'wan1', role = 'wan' }\n";
        fs::write(world.path("board.toml"), board).unwrap();
        world.cable("0");
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn cable(&self, carrier: &str) {
        fs::write(self.path("root/sys/class/net/wan1/carrier"), format!("{carrier}\n")).unwrap();
    }

    pub(crate) fn slot(&self, slot: Slot) -> Vec<u8> {
        fs::read(self.path(slot.partition())).unwrap()
    }

    fn copies(&self) -> Vec<u8> {
        fs::read(self.path("boot-state")).unwrap()
    }

    pub(crate) fn state(&self) -> BootState {
        let bytes = self.copies();
        newest(&bytes, &bytes[COPY_DISTANCE as usize..]).state.expect("one copy is whole")
    }

    /// What the boot guardian does when the box restarts.
    pub(crate) fn guardian(&self) -> Slot {
        let _gone = fs::remove_file(self.path("run/restart"));
        let mut bytes = self.copies();
        let found = newest(&bytes, &bytes[COPY_DISTANCE as usize..]);
        let mut state = found.state.expect("one copy is whole");
        let Choice::Verify { slot, .. } = state.choose() else { panic!("nothing to start") };
        state.starting(slot);
        let at = found.write_to.offset() as usize;
        bytes[at..at + RECORD].copy_from_slice(&state.advanced().encode());
        fs::write(self.path("boot-state"), bytes).unwrap();
        slot
    }

    pub(crate) fn guardian_would_start(&self) -> Slot {
        match self.state().choose() {
            Choice::Verify { slot, .. } => slot,
            Choice::Rescue { .. } => panic!("nothing to start"),
        }
    }

    pub(crate) fn restart_is_wanted(&self) -> bool {
        self.path("run/restart").exists()
    }

    pub(crate) fn wait(&self, what: &str, is_so: impl Fn(&BootState) -> bool) {
        let begun = Instant::now();
        while !is_so(&self.state()) {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "not {what} within a minute: {:?}",
                self.state()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub(crate) fn start(&self, slot: Slot) -> Updater {
        fs::write(self.path("root/proc/cmdline"), format!("quiet seimon.slot={}\n", slot.letter())).unwrap();
        let mut command = Process::new(env!("CARGO_BIN_EXE_seimon-updater"));
        for (option, name) in [
            ("--boot-state", "boot-state"),
            ("--slot-a", "slot-a"),
            ("--slot-b", "slot-b"),
            ("--anchors", "anchors"),
            ("--board", "board.toml"),
            ("--plan", "plan.toml"),
            ("--agent-socket", "no-agent.sock"),
            ("--state-dir", "state"),
            ("--runtime-dir", "run"),
            ("--root", "root"),
        ] {
            command.arg(option).arg(self.path(name));
        }
        if self.path("ca.pem").exists() {
            command.arg("--ca").arg(self.path("ca.pem"));
        }
        command.args(["--soak", "2", "--patience", "2"]).stdin(Stdio::null());
        let socket = self.path("run/update.sock");
        let _gone = fs::remove_file(&socket);
        let child = command.spawn().unwrap();
        let stream = connect(&socket);
        Updater { child, stream, lines: LineBuffer::default() }
    }
}

fn connect(socket: &Path) -> UnixStream {
    let begun = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return stream,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(30), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) struct Updater {
    child: Child,
    stream: UnixStream,
    lines: LineBuffer,
}

impl Updater {
    pub(crate) fn send(&mut self, command: &Command) {
        let request = Request { version: VERSION, request: command.clone() };
        self.stream.write_all(&frame::encode(&request).unwrap()).unwrap();
    }

    pub(crate) fn ask(&mut self, command: &Command) -> Response {
        self.ask_watching(command, |_, _| ())
    }

    pub(crate) fn ask_watching(&mut self, command: &Command, mut watch: impl FnMut(u64, u64)) -> Response {
        self.send(command);
        self.stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let mut chunk = [0; 4096];
        loop {
            while let Some(line) = self.lines.next_line().unwrap() {
                let answer = frame::decode::<Response>(&line).unwrap();
                let Response::Progress { done, total } = answer else { return answer };
                watch(done, total);
            }
            let length = self.stream.read(&mut chunk).unwrap();
            assert!(length > 0, "it hung up");
            self.lines.push(&chunk[..length]);
        }
    }

    /// As a cut of the power, as far as the process goes.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Updater {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// What an answer says in English.
pub(crate) fn message(response: &Response) -> String {
    if let Response::Done { message: text } | Response::Refused { reason: text } = response {
        return text.en.clone();
    }
    panic!("{response:?}")
}

/// The head of an image is taken by the guardian's own code.
#[test]
fn these_images_are_what_the_guardian_takes() {
    let anchors = seimon_boot::Anchors::new(key(1).verifying_key().as_bytes()).unwrap();
    let seen = seimon_boot::board::Seen { compatible: vec![BOARD.into()], smbios: None };
    let here = seimon_boot::image::Here {
        anchors: &anchors,
        seen: &seen,
        epoch: 0,
        slot_length: SLOT_LENGTH as u64,
    };
    assert!(SignedHead::verify(&Image::new("1", 1).bytes[..HEAD], here).is_ok());
}
