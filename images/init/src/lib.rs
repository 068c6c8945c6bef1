//! What a gateway does between its kernel and systemd, and the data partition after that.
//!
//! Two programs: `seimon-init` is the initramfs's `/init` and brings up the root file system of one slot; `seimon-data`
//! runs as a systemd unit and opens the data partition. Both read the boot state and the device key, which share the
//! partition `boot-state`:
//!
//! | bytes of the partition | what |
//! |---|---|
//! | 0, 64 KiB | the boot state's two copies (`seimon-boot`) |
//! | 256 KiB, 320 KiB | the device key's two copies ([`device_key`]) |

pub mod boot_state;
pub mod command_line;
pub mod device_key;
pub mod disk;
pub mod dm;
pub mod facts;
pub mod modules;

/// What went wrong, in words for the console.
pub type Result<T> = std::result::Result<T, String>;

/// Adds what was being done to an error.
pub trait Doing<T> {
    /// # Errors
    /// The same, in words.
    fn doing(self, what: &str) -> Result<T>;
}

impl<T, E: std::fmt::Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: &str) -> Result<T> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}
