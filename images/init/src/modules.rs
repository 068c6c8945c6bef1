//! Loads the kernel's modules that lead to the root file system, in the order of `/modules.list`.

use std::fs::{self, File};

use rustix::io::Errno;
use rustix::system::finit_module;

use crate::{Doing as _, Result};

pub const LIST: &str = "/modules.list";

/// # Errors
/// The list cannot be read. A module that the kernel does not take is among the words that come back: the box may do without it.
pub fn load_all() -> Result<Vec<String>> {
    let list = fs::read_to_string(LIST).doing(LIST)?;
    Ok(list.lines().filter_map(|path| load(path).err()).collect())
}

fn load(path: &str) -> Result<()> {
    let file = File::open(path).doing(path)?;
    match finit_module(&file, c"", 0) {
        // Built in, or loaded by another.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(format!("{path}: {error}")),
    }
}
