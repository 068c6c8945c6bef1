//! QEMU's machine `virt`, as a board file describes it: its cards in the board's order at the board's places, a disk that is
//! a layer over the image, the maintenance port, the console in a file.
//!
//! Its power is the process: [`Qemu::cut_power`] kills it, and a start after that finds the disk as it was left. What
//! the guest had sent to the disk is on it; what it had not is gone.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use seimon_board::Board;
use serde_json::{Value, json};

const PROGRAM: &str = "qemu-system-aarch64";
/// How long QEMU may take to open its sockets, and to answer one command.
const OPENS: Duration = Duration::from_secs(10);
const ANSWERS: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    #[error(
        "`{program}` cannot be run (Debian packages qemu-system-arm, qemu-utils, qemu-efi-aarch64, u-boot-qemu)"
    )]
    NotRun {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("{what}")]
    File {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("board `{board}` is none of QEMU's machine virt: port {port} has no PCI place")]
    NotVirt { board: String, port: String },
    #[error("`{command}` failed: {said}")]
    Failed { command: String, said: String },
    #[error("QEMU ended at once ({status}): {said}")]
    Ended { status: ExitStatus, said: String },
    #[error("QEMU's monitor: {0}")]
    Monitor(String),
}

/// What starts the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// AAVMF; it keeps its variables in the machine's folder.
    Edk2,
    UBoot,
}

const AAVMF: [&str; 2] = ["/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"];
const U_BOOT: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";

/// How the kernel gets to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    /// By the firmware, from the disk.
    Firmware(Firmware),
    /// By QEMU itself: quicker, without firmware and boot guardian.
    Kernel { kernel: PathBuf, initramfs: PathBuf, command_line: String },
}

/// What a machine is started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub boot: Boot,
    /// A raw disk, which stays as it is.
    pub disk: PathBuf,
}

impl Image {
    /// A file is a whole disk and starts by the firmware; a folder is what `cargo xtask image` leaves, with a disk in it.
    ///
    /// # Errors
    /// Something is missing, and how it is made.
    pub fn open(place: &Path, firmware: Firmware) -> Result<Self, QemuError> {
        if !place.is_dir() {
            return Ok(Self { boot: Boot::Firmware(firmware), disk: place.to_owned() });
        }
        let manifest = place.join("manifest.json");
        let file = |what: String| move |source| QemuError::File { what, source };
        let text = fs::read(&manifest).map_err(file(format!(
            "{}: make the image by `cargo xtask image --board NAME`",
            manifest.display()
        )))?;
        let line = serde_json::from_slice::<Value>(&text).unwrap_or_default();
        let line = line["command_line"].as_str().ok_or_else(|| QemuError::File {
            what: manifest.display().to_string(),
            source: io::Error::other("it has no command_line"),
        })?;
        let disk = place.join("disk");
        fs::metadata(&disk).map_err(file(format!(
            "{}: `cargo xtask vm run --board NAME --disk {} --exit-when-ready` makes it",
            disk.display(),
            disk.display()
        )))?;
        let command_line = format!("{line} seimon.slot=a");
        let boot =
            Boot::Kernel { kernel: place.join("kernel"), initramfs: place.join("initramfs"), command_line };
        Ok(Self { boot, disk })
    }
}

/// One network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// The board's word for the port.
    pub port: String,
    /// On the PCI bus.
    pub slot: u8,
    pub cable: Cable,
}

/// Where a card's other end is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cable {
    /// A TAP interface that exists in QEMU's network namespace.
    Tap(String),
    /// Datagram sockets, a frame each: the machine's end and the far one's.
    Frames { machine: PathBuf, far: PathBuf },
    /// No carrier.
    Unplugged,
}

/// A machine that can be switched on.
#[derive(Clone, Debug)]
pub struct Plan {
    pub boot: Boot,
    pub cards: Vec<Card>,
    /// The raw disk that the machine's own is a layer over.
    pub disk: PathBuf,
    /// For the disk, sockets, console and firmware variables. Exists.
    pub folder: PathBuf,
    /// Network namespace to run in (`ip netns`); `None`: this process's.
    pub namespace: Option<String>,
    pub memory_mib: u32,
    pub processors: u8,
}

/// The board's cards in the order of its interfaces, unplugged.
///
/// # Errors
/// A port of the board has no place on the PCI bus.
pub fn cards(board: &Board) -> Result<Vec<Card>, QemuError> {
    let mut ports: Vec<_> = board.ports.iter().collect();
    ports.sort_by_key(|(_, port)| port.interface.as_str().to_owned());
    ports
        .into_iter()
        .map(|(name, port)| {
            let slot = port
                .path
                .as_deref()
                .and_then(slot_of)
                .ok_or_else(|| QemuError::NotVirt { board: board.id.clone(), port: name.clone() })?;
            Ok(Card { port: name.clone(), slot, cable: Cable::Unplugged })
        })
        .collect()
}

/// `pci0000:00/0000:00:03.0` → 3.
fn slot_of(path: &str) -> Option<u8> {
    let (_, function) = path.rsplit_once('/')?;
    let slot = function.rsplit_once(':')?.1.split_once('.')?.0;
    u8::from_str_radix(slot, 16).ok()
}

impl Plan {
    pub fn maintenance(&self) -> PathBuf {
        self.folder.join("maintenance.sock")
    }

    /// What the firmware, the kernel and the image say on the serial line.
    pub fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The layer and the firmware's variables, as new.
    ///
    /// # Errors
    /// There is no such image or firmware, or no room.
    pub fn make_disk(&self) -> Result<(), QemuError> {
        let file = |what: String| move |source| QemuError::File { what, source };
        let image =
            fs::canonicalize(&self.disk).map_err(file(format!("the disk {}", self.disk.display())))?;
        let mut command = Command::new("qemu-img");
        command
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .arg(image)
            .arg(self.at("disk.qcow2"));
        let output = command
            .stdin(Stdio::null())
            .output()
            .map_err(|source| QemuError::NotRun { program: "qemu-img".to_owned(), source })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(QemuError::Failed { command: "qemu-img create".to_owned(), said });
        }
        if self.boot == Boot::Firmware(Firmware::Edk2) {
            fs::copy(AAVMF[1], self.at("variables.fd"))
                .map_err(file(format!("{} (Debian package qemu-efi-aarch64)", AAVMF[1])))?;
        }
        Ok(())
    }

    /// QEMU's command line.
    pub fn command(&self) -> Command {
        let mut command = match &self.namespace {
            None => Command::new(PROGRAM),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, PROGRAM]);
                command
            }
        };
        command.args(["-M", "virt", "-cpu", "cortex-a72", "-accel", "tcg,thread=multi"]);
        command.args(["-smp", &self.processors.to_string(), "-m", &self.memory_mib.to_string()]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        let socket = |name: &str| format!("unix:{},server=on,wait=off", self.at(name).display());
        command.arg("-serial").arg(format!("file:{}", self.console().display()));
        command.arg("-qmp").arg(socket("monitor.sock"));
        match &self.boot {
            Boot::Firmware(Firmware::Edk2) => {
                let drive = |unit: u8, file: &str, more: &str| {
                    format!("if=pflash,unit={unit},format=raw,file={file}{more}")
                };
                command.arg("-drive").arg(drive(0, AAVMF[0], ",readonly=on"));
                command.arg("-drive").arg(drive(1, &self.at("variables.fd").display().to_string(), ""));
            }
            Boot::Firmware(Firmware::UBoot) => {
                command.args(["-bios", U_BOOT]);
            }
            Boot::Kernel { kernel, initramfs, command_line } => {
                command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
                command.args(["-append", command_line]);
            }
        }
        for (number, card) in self.cards.iter().enumerate() {
            self.card(&mut command, number, card);
        }
        let disk = self.at("disk.qcow2");
        command.arg("-drive").arg(format!("if=none,id=disk,format=qcow2,file={}", disk.display()));
        command.args(["-device", "virtio-blk-pci,drive=disk,bootindex=0"]);
        command.args(["-device", "virtio-rng-pci", "-device", "i6300esb"]);
        let maintenance =
            format!("socket,id=maintenance,path={},server=on,wait=off", self.maintenance().display());
        command.args(["-device", "virtio-serial-pci", "-chardev", &maintenance]);
        let name = seimon_maintenance::PORT;
        command.arg("-device").arg(format!("virtserialport,chardev=maintenance,name={name}"));
        command
    }

    fn card(&self, command: &mut Command, number: usize, card: &Card) {
        let id = monitor_id(&card.port);
        let netdev = match &card.cable {
            Cable::Tap(interface) => format!("tap,id={id},ifname={interface},script=no,downscript=no"),
            Cable::Frames { machine, far } => format!(
                "dgram,id={id},local.type=unix,local.path={},remote.type=unix,remote.path={}",
                machine.display(),
                far.display()
            ),
            Cable::Unplugged => format!("hubport,id={id},hubid={number}"),
        };
        command.arg("-netdev").arg(netdev);
        // No boot by network unless the disk cannot be started; nothing to look for on the card.
        command.arg("-device").arg(format!(
            "virtio-net-pci,netdev={id},mac=52:54:00:53:4d:{:02x},addr={:#x},romfile=",
            number + 1,
            card.slot
        ));
    }
}

/// QEMU's ids begin with a letter and have no `+`.
fn monitor_id(port: &str) -> String {
    let letters: String = port.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("port-{}", letters.to_lowercase())
}

/// A machine with its power on.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    folder: PathBuf,
}

impl Qemu {
    /// Switches it on and waits until its sockets are there.
    ///
    /// # Errors
    /// QEMU is missing, or does not like something.
    pub fn start(plan: &Plan) -> Result<Self, QemuError> {
        for name in ["monitor.sock", "maintenance.sock"] {
            // Left by one whose power was cut.
            let _ = fs::remove_file(plan.at(name));
        }
        for card in &plan.cards {
            if let Cable::Frames { machine, .. } = &card.cable {
                let _ = fs::remove_file(machine);
            }
        }
        let errors = plan.at("qemu.log");
        let log = File::create(&errors)
            .map_err(|source| QemuError::File { what: errors.display().to_string(), source })?;
        let mut command = plan.command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(log));
        let child =
            command.spawn().map_err(|source| QemuError::NotRun { program: PROGRAM.to_owned(), source })?;
        let mut machine = Self { child, folder: plan.folder.clone() };
        let begun = Instant::now();
        while !plan.maintenance().exists() || !plan.at("monitor.sock").exists() {
            if let Ok(Some(status)) = machine.child.try_wait() {
                let said = fs::read_to_string(&errors).unwrap_or_default().trim().to_owned();
                return Err(QemuError::Ended { status, said });
            }
            if begun.elapsed() > OPENS {
                return Err(QemuError::Monitor(format!("no socket within {OPENS:?}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(machine)
    }

    /// Whether its power is on.
    pub fn is_on(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Pulls a card's cable, or plugs it in.
    ///
    /// # Errors
    /// QEMU does not answer, or has no such card.
    pub fn set_cable(&self, port: &str, carrier: Carrier) -> Result<(), QemuError> {
        let is_up = carrier == Carrier::Up;
        self.monitor("set_link", &json!({ "name": monitor_id(port), "up": is_up })).map(drop)
    }

    fn monitor(&self, command: &str, arguments: &Value) -> Result<Value, QemuError> {
        let wrong = |error: &dyn std::fmt::Display| QemuError::Monitor(format!("{command}: {error}"));
        let stream = UnixStream::connect(self.folder.join("monitor.sock")).map_err(|e| wrong(&e))?;
        stream.set_read_timeout(Some(ANSWERS)).map_err(|e| wrong(&e))?;
        let mut lines = BufReader::new(&stream).lines();
        let mut answer = || -> Result<Value, QemuError> {
            loop {
                let line = lines.next().ok_or_else(|| wrong(&"it hung up"))?.map_err(|e| wrong(&e))?;
                let value: Value = serde_json::from_str(&line).map_err(|e| wrong(&e))?;
                // Events come in between.
                if value.get("event").is_none() {
                    return Ok(value);
                }
            }
        };
        let greeting = answer()?;
        if greeting.get("QMP").is_none() {
            return Err(wrong(&"it does not greet"));
        }
        let mut result = Value::Null;
        for (execute, arguments) in [("qmp_capabilities", &json!({})), (command, arguments)] {
            let line = json!({ "execute": execute, "arguments": arguments });
            writeln!(&stream, "{line}").map_err(|e| wrong(&e))?;
            result = answer()?;
            if let Some(error) = result.get("error") {
                return Err(wrong(error));
            }
        }
        Ok(result)
    }

    /// The power goes, at once.
    ///
    /// # Errors
    /// The process cannot be ended.
    pub fn cut_power(&mut self) -> Result<(), QemuError> {
        let what = || "the machine's process".to_owned();
        self.child.kill().map_err(|source| QemuError::File { what: what(), source })?;
        self.child.wait().map_err(|source| QemuError::File { what: what(), source })?;
        Ok(())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.cut_power();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Up,
    Down,
}

/// Whether the firmware of a board is one that can be had here.
pub fn firmware_of(board: &Board) -> Option<Firmware> {
    match board.id.as_str() {
        "qemu-virt-edk2" => Some(Firmware::Edk2),
        "qemu-virt-uboot" => Some(Firmware::UBoot),
        _ => None,
    }
}

/// The last lines of what a machine said on its serial line.
pub fn last_words(console: &Path, most: usize) -> String {
    let text =
        fs::read(console).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(most)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(firmware: Firmware) -> Plan {
        let board = Board::shipped("qemu-virt-edk2").unwrap();
        Plan {
            boot: Boot::Firmware(firmware),
            cards: cards(&board).unwrap(),
            disk: "gateway.img".into(),
            folder: "/tmp/machine".into(),
            namespace: Some("gw".into()),
            memory_mib: 768,
            processors: 2,
        }
    }

    fn line(plan: &Plan) -> String {
        let command = plan.command();
        let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn cards_are_where_the_board_file_says() {
        let mut plan = plan(Firmware::Edk2);
        plan.cards[1].cable = Cable::Tap("t-wan2".into());
        let ports: Vec<(&str, u8)> = plan.cards.iter().map(|card| (card.port.as_str(), card.slot)).collect();
        assert_eq!(ports[..3], [("WAN1", 1), ("WAN2", 2), ("LAN1", 3)]);
        let line = line(&plan);
        assert!(line.contains("tap,id=port-wan2,ifname=t-wan2"), "{line}");
        assert!(line.contains("virtio-net-pci,netdev=port-wan2,mac=52:54:00:53:4d:02,addr=0x2"), "{line}");
        assert!(line.starts_with("netns exec gw qemu-system-aarch64 -M virt"), "{line}");
    }

    #[test]
    fn an_image_is_a_disk_or_a_folder_and_what_is_missing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Image::open(folder.path(), Firmware::Edk2);
        assert!(open().unwrap_err().to_string().contains("cargo xtask image"));
        fs::write(folder.path().join("manifest.json"), r#"{"command_line":"quiet"}"#).unwrap();
        assert!(open().unwrap_err().to_string().contains("cargo xtask vm run"));
        fs::write(folder.path().join("disk"), "").unwrap();
        let Boot::Kernel { command_line, .. } = open().unwrap().boot else { panic!("by the firmware") };
        assert_eq!(command_line, "quiet seimon.slot=a");
        let file = Image::open(&folder.path().join("disk"), Firmware::UBoot).unwrap();
        assert_eq!(file.boot, Boot::Firmware(Firmware::UBoot));
    }

    #[test]
    fn each_board_has_its_firmware() {
        assert!(line(&plan(Firmware::Edk2)).contains("AAVMF_CODE.fd,readonly=on"));
        assert!(line(&plan(Firmware::UBoot)).contains("-bios /usr/lib/u-boot/qemu_arm64/u-boot.bin"));
        let kernel = Boot::Kernel {
            kernel: "k".into(),
            initramfs: "i".into(),
            command_line: "quiet seimon.slot=a".to_owned(),
        };
        let kernel = line(&Plan { boot: kernel, ..plan(Firmware::Edk2) });
        assert!(kernel.contains("-kernel k -initrd i -append quiet seimon.slot=a"), "{kernel}");
        let none = Board::shipped("globalscale-mochabin").unwrap();
        assert_eq!(firmware_of(&none), None);
        assert!(matches!(cards(&none), Err(QemuError::NotVirt { .. })));
    }
}
