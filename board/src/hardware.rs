//! What a box is made of, besides its network ports: what firmware, image and agent need to know of it, and nothing else.
//!
//! Words are those of the kernel and the device tree, so that a porter can copy them from there.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The section `[hardware]`. A board without it is no box: a namespace of the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    pub proven: Proven,
    pub identity: Identity,
    /// `None`: every port is an interface of its own.
    pub switch: Option<Switch>,
    /// By the word printed beside it, or the colour where nothing is.
    #[serde(default)]
    pub leds: BTreeMap<String, Led>,
    /// By the word printed beside it.
    #[serde(default)]
    pub buttons: BTreeMap<String, Button>,
    pub storage: Storage,
    pub boot: Boot,
    pub console: Console,
    /// `None`: nothing resets a box that hangs.
    pub watchdog: Option<Watchdog>,
    pub rng: Rng,
    pub rtc: Rtc,
    pub tpm: Tpm,
    pub mac: MacSource,
    #[serde(default)]
    pub offloads: BTreeSet<Offload>,
}

/// By what this description was held against reality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Proven {
    /// Boots and works so in QEMU.
    Qemu,
    /// Written from the kernel's public device tree; not run on hardware.
    DeviceTree,
    /// Boots and works so on the hardware itself.
    Hardware,
}

/// By what a running system knows that it is this board. At least one of both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Values of the device tree root's `compatible`, any of which is enough.
    #[serde(default)]
    pub compatible: Vec<String>,
    /// Fields of SMBIOS type 1, all of which must agree.
    pub smbios: Option<Smbios>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Smbios {
    pub manufacturer: String,
    pub product: String,
}

/// What a running system says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen<'a> {
    /// `/proc/device-tree/compatible`, split at NUL bytes.
    pub compatible: Vec<&'a str>,
    /// `/sys/class/dmi/id/sys_vendor` and `product_name`.
    pub smbios: Option<(&'a str, &'a str)>,
}

impl Identity {
    /// Whether that is this board.
    pub fn matches(&self, seen: &Seen<'_>) -> bool {
        let by_tree = self.compatible.iter().any(|known| seen.compatible.contains(&known.as_str()));
        let by_smbios = self
            .smbios
            .as_ref()
            .is_some_and(|known| seen.smbios == Some((known.manufacturer.as_str(), known.product.as_str())));
        by_tree || by_smbios
    }
}

/// A switch between some of the ports and the processor, driven by the kernel's DSA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// The driver's name of it, as in the device tree.
    pub chip: String,
    /// Interface of the processor's end.
    pub conduit: crate::InterfaceName,
    pub vlan_filtering: VlanFiltering,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum VlanFiltering {
    /// Frames of other VLANs do not even reach the processor.
    Hardware,
    /// The kernel's bridge does it.
    Software,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Led {
    /// Its folder in `/sys/class/leds`.
    pub sysfs: String,
    pub colour: Colour,
    pub shows: Shows,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Colour {
    White,
    Red,
    Green,
    Blue,
    Amber,
}

/// What we show by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Shows {
    /// How the gateway is: the same as its status page.
    Status,
    /// The kernel's own affair: power, links.
    Kernel,
}

/// A button that can be held while the box starts, and while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Button {
    /// `linux,code` of the key (`input-event-codes.h`).
    pub code: u16,
    /// Held for so many seconds while the box starts: rescue.
    pub rescue_s: u16,
    /// Held for so many seconds: factory reset, which keeps the box's identity. More than `rescue_s`.
    pub reset_s: u16,
}

/// Where the image lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Storage {
    pub class: StorageClass,
    /// The whole disk, e.g. `/dev/mmcblk0`.
    pub device: String,
    /// The smallest disk that is sold with it, in MiB.
    pub size_mib: u32,
    /// The disk's first so many MiB are the boot firmware's own and are left alone.
    #[serde(default)]
    pub reserved_mib: u32,
    pub esp_mib: u32,
    /// Each of the slots A and B.
    pub slot_mib: u32,
}

/// Two copies of 4 KiB, and room around them for the flash's erase blocks.
pub const BOOT_STATE_MIB: u32 = 1;
/// What both classes need for journal, logs and update downloads, in MiB.
pub const DATA_LEAST_MIB: u32 = 512;

impl Storage {
    /// What is left for data, in MiB; `None`: less than is needed.
    pub fn data_mib(&self) -> Option<u32> {
        let Self { class: _, device: _, size_mib, reserved_mib, esp_mib, slot_mib } = self;
        // One MiB each for the two partition tables and their alignment.
        let taken = [*reserved_mib, *esp_mib, *slot_mib, *slot_mib, BOOT_STATE_MIB, 2];
        let taken = taken.into_iter().try_fold(0_u32, u32::checked_add)?;
        size_mib.checked_sub(taken).filter(|left| *left >= DATA_LEAST_MIB)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum StorageClass {
    /// 4 GB flash: no file cache.
    Base,
    /// An SSD: the file server's data can be cached.
    Files,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Boot {
    pub firmware: BootFirmware,
    pub secure_boot: SecureBoot,
}

/// Both start `EFI/BOOT/BOOTAA64.EFI`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum BootFirmware {
    Edk2,
    UBoot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SecureBoot {
    /// The firmware can be given our keys.
    Possible,
    None,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Console {
    /// As in `console=`, e.g. `ttyS0`.
    pub device: String,
    pub baud: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Watchdog {
    /// The kernel's driver.
    pub driver: String,
    /// Whether it already runs while the boot firmware does.
    pub from: WatchdogFrom,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum WatchdogFrom {
    Firmware,
    Kernel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Rng {
    Hardware,
    None,
}

/// Whether the time survives without power. Without it a start knows no earlier than the journal's last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Rtc {
    Battery,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Tpm {
    #[serde(rename = "2.0")]
    V2,
    #[serde(rename = "none")]
    None,
}

/// Where the ports' MAC addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum MacSource {
    /// The boot firmware writes them into the device tree.
    Firmware,
    /// In the network chips.
    Chip,
    /// Nowhere: made from the box's identity.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Offload {
    /// Flows under way are forwarded by the network chip (nf_flow_table with `flags offload`).
    Flows,
    /// Segmentation and checksums.
    Segments,
}

/// What makes no sense, with the key it is about.
pub(crate) fn nonsense(hardware: &Hardware) -> Option<(&'static str, String)> {
    let Hardware { identity, buttons, storage, console, leds, switch: _, proven: _, boot: _, .. } = hardware;
    if identity.compatible.is_empty() && identity.smbios.is_none() {
        return Some((
            "identity",
            "nothing says how the board is recognised: give `compatible` or `smbios`".into(),
        ));
    }
    for (name, button) in buttons {
        let Button { code: _, rescue_s, reset_s } = button;
        if *rescue_s == 0 || reset_s <= rescue_s {
            let why = format!(
                "button {name}: `reset_s` ({reset_s}) must be longer than `rescue_s` ({rescue_s}), and that longer than 0"
            );
            return Some(("reset_s", why));
        }
    }
    let status = leds.values().filter(|led| led.shows == Shows::Status).count();
    if !leds.is_empty() && status == 0 {
        return Some(("leds", "no LED shows the status: mark one with `shows = \"status\"`".into()));
    }
    if !storage.device.starts_with("/dev/") {
        return Some(("device", format!("`{}` is no disk: give its path in /dev", storage.device)));
    }
    if storage.data_mib().is_none() {
        let why = format!(
            "the disk of {} MiB is too small: two slots of {} MiB, the rest of the layout and {DATA_LEAST_MIB} MiB of data do not fit",
            storage.size_mib, storage.slot_mib
        );
        return Some(("size_mib", why));
    }
    if storage.esp_mib < 33 {
        // FAT32 begins at 65,525 clusters.
        return Some(("esp_mib", "the EFI system partition needs 33 MiB for FAT32".into()));
    }
    if console.device.contains('/') {
        return Some(("console", format!("`{}`: as in `console=`, without /dev", console.device)));
    }
    None
}
