//! A machine in QEMU: its serial port is read as it speaks, its power can be cut at any instant.

use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::disk::Disk;

pub const QEMU: &str = "qemu-system-aarch64";
const EDK2_CODE: &str = "/usr/share/AAVMF/AAVMF_CODE.fd";
const EDK2_CODE_SECURE: &str = "/usr/share/AAVMF/AAVMF_CODE.snakeoil.fd";
const EDK2_VARS: &str = "/usr/share/AAVMF/AAVMF_VARS.fd";
const EDK2_VARS_SNAKEOIL: &str = "/usr/share/AAVMF/AAVMF_VARS.snakeoil.fd";
const U_BOOT: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";

/// Programs and files that the lab needs, and the Debian packages that carry them.
pub const NEEDED: [(&str, &str); 5] = [
    ("/usr/bin/qemu-system-aarch64", "qemu-system-arm"),
    (EDK2_CODE, "qemu-efi-aarch64"),
    (U_BOOT, "u-boot-qemu"),
    ("/usr/bin/mformat", "mtools"),
    ("/usr/bin/mcopy", "mtools"),
];

/// Packages that are not there.
pub fn missing() -> Vec<&'static str> {
    let mut packages: Vec<&str> =
        NEEDED.iter().filter(|(file, _)| !Path::new(file).is_file()).map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Firmware {
    Edk2,
    /// EDK2 with Secure Boot on, and the snakeoil keys enrolled.
    Edk2Secure,
    UBoot,
}

impl Firmware {
    pub fn name(self) -> &'static str {
        match self {
            Self::Edk2 => "edk2",
            Self::Edk2Secure => "edk2-secure",
            Self::UBoot => "u-boot",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// No adapter.
    None,
    /// QEMU's own, with DHCP; our port 80 is on loopback.
    User,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entropy {
    None,
    Device,
}

/// How a machine is made.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    pub firmware: Firmware,
    /// The first is started from.
    pub disks: Vec<&'a Disk>,
    pub network: Network,
    pub entropy: Entropy,
    /// Written when a story fails.
    pub serial_log: PathBuf,
}

/// A machine, running. Its power is cut when dropped.
#[derive(Debug)]
pub struct Vm {
    child: Child,
    started: Instant,
    serial: Arc<(Mutex<Serial>, Condvar)>,
    /// Up to where the log has been looked through.
    seen: usize,
    port: Option<u16>,
    log: PathBuf,
}

#[derive(Debug, Default)]
struct Serial {
    text: String,
    ended: bool,
}

fn locked(serial: &Mutex<Serial>) -> MutexGuard<'_, Serial> {
    serial.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vm {
    pub fn start(setup: &Setup<'_>) -> Result<Self> {
        let mut command = Command::new(QEMU);
        command.args(["-M", "virt", "-cpu", "cortex-a72", "-smp", "1", "-m", "512"]);
        command.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
        let flash =
            |file: &str, unit: u8| format!("if=pflash,format=raw,unit={unit},snapshot=on,file={file}");
        match setup.firmware {
            Firmware::Edk2 => {
                command.args(["-drive", &flash(EDK2_CODE, 0), "-drive", &flash(EDK2_VARS, 1)]);
            }
            Firmware::Edk2Secure => {
                command.args([
                    "-drive",
                    &flash(EDK2_CODE_SECURE, 0),
                    "-drive",
                    &flash(EDK2_VARS_SNAKEOIL, 1),
                ]);
            }
            Firmware::UBoot => {
                command.args(["-bios", U_BOOT]);
            }
        }
        for (number, disk) in setup.disks.iter().enumerate() {
            let file = disk.file.display();
            command
                .args(["-drive", &format!("if=none,id=disk{number},format=raw,cache=writeback,file={file}")]);
            command.args(["-device", &format!("virtio-blk-pci,drive=disk{number},bootindex={number}")]);
        }
        let port = match setup.network {
            Network::None => {
                command.args(["-nic", "none"]);
                None
            }
            Network::User => {
                let port = free_port()?;
                let pcap = setup.serial_log.with_extension("pcap");
                command
                    .args(["-netdev", &format!("user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:80")]);
                command.args(["-device", "virtio-net-pci,netdev=net0,romfile="]);
                command
                    .args(["-object", &format!("filter-dump,id=dump0,netdev=net0,file={}", pcap.display())]);
                Some(port)
            }
        };
        if setup.entropy == Entropy::Device {
            command.args(["-device", "virtio-rng-pci"]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{QEMU} (Debian package qemu-system-arm)"))?;
        let mut output = child.stdout.take().context("no serial port")?;
        let serial = Arc::new((Mutex::new(Serial::default()), Condvar::new()));
        let hears = Arc::clone(&serial);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                let read = output.read(&mut bytes).unwrap_or(0);
                let (serial, changed) = &*hears;
                let mut serial = locked(serial);
                serial.text.push_str(&String::from_utf8_lossy(&bytes[..read]));
                serial.ended = read == 0;
                changed.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        Ok(Self { child, started: Instant::now(), serial, seen: 0, port, log: setup.serial_log.clone() })
    }

    /// Waits until the serial port has said one of these since what was last waited for; which one. The machine must still
    /// run.
    pub fn first_of(&mut self, words: &[&str], patience: Duration) -> Result<usize> {
        let until = Instant::now() + patience;
        let (serial, changed) = &*self.serial;
        let mut serial = locked(serial);
        loop {
            let new = serial.text.get(self.seen..).unwrap_or_default();
            let found = words.iter().enumerate().filter_map(|(which, word)| Some((new.find(word)?, which)));
            if let Some((at, which)) = found.min() {
                self.seen += at + words[which].len();
                return Ok(which);
            }
            let left = until.saturating_duration_since(Instant::now());
            if serial.ended || left.is_zero() {
                let how = if serial.ended { "the machine stopped" } else { "nothing came" };
                bail!("waited {} s for `{}`: {how}", patience.as_secs(), words.join("` or `"));
            }
            serial = changed.wait_timeout(serial, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub fn expect(&mut self, words: &str, patience: Duration) -> Result<()> {
        self.first_of(&[words], patience).map(|_| ())
    }

    /// Waits until the machine has powered off by itself.
    pub fn off(&mut self, patience: Duration) -> Result<()> {
        let until = Instant::now() + patience;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > until {
                bail!("waited {} s for the machine to power off", patience.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Everything that the serial port has said.
    pub fn said(&self) -> String {
        locked(&self.serial.0).text.clone()
    }

    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Of loopback, where the machine's port 80 is.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// SIGKILL: what QEMU had not yet written is gone.
    pub fn cut_power(&mut self) {
        // An error: it has ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }

    /// For whoever looks into a failure.
    pub fn keep_log(&self) -> Result<&Path> {
        std::fs::write(&self.log, self.said()).with_context(|| self.log.display().to_string())?;
        Ok(&self.log)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.cut_power();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
