//! Which plan to begin with: the command line's file, or the one that was last verified.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use seimon_board::Board;
use seimon_board::hardware::Seen;
use seimon_plan::{Role, ValidSitePlan};

use crate::agent::Authorities;
use crate::cli;
use crate::sabotage::Sabotage;
use crate::store::{Store, StoredPlan, digest};

/// A plan, its text, and the files that it names.
#[derive(Clone, Debug)]
pub(crate) struct LoadedPlan {
    pub(crate) plan: ValidSitePlan,
    pub(crate) toml: String,
    pub(crate) file: String,
    pub(crate) folder: PathBuf,
    pub(crate) authorities: Authorities,
}

/// What to begin with; `L` is the plan of a school or of a hub, with what belongs to it.
#[derive(Debug)]
pub(crate) struct Chosen<L> {
    pub(crate) loaded: L,
    /// Not the plan that was last verified.
    pub(crate) is_new: bool,
    pub(crate) command_line_digest: u64,
    pub(crate) notes: Vec<String>,
}

/// In place of a board file.
pub(crate) const AUTO: &str = "auto";

pub(crate) fn load_board(file: &Path) -> Result<Board> {
    if file == Path::new(AUTO) {
        return recognised(Path::new("/"));
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("board file {}", file.display()))?;
    Ok(Board::parse(&text, &file.display().to_string())?)
}

/// The shipped board that the machine is, by what its firmware says below `root`.
fn recognised(root: &Path) -> Result<Board> {
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_default();
    let tree = read("proc/device-tree/compatible");
    let compatible: Vec<&str> = tree.split('\0').filter(|word| !word.is_empty()).collect();
    let (vendor, product) = (read("sys/class/dmi/id/sys_vendor"), read("sys/class/dmi/id/product_name"));
    let (vendor, product) = (vendor.trim(), product.trim());
    let smbios = (!vendor.is_empty() || !product.is_empty()).then_some((vendor, product));
    let seen = Seen { compatible, smbios };
    if let Some(board) = Board::recognise(&seen) {
        tracing::info!(board = board.id, "recognised");
        return Ok(board);
    }
    let tree = match seen.compatible.as_slice() {
        [] => "there is no device tree".to_owned(),
        words => format!("the device tree says {}", words.join(", ")),
    };
    let smbios = match smbios {
        None => "there is no SMBIOS".to_owned(),
        Some((vendor, product)) => format!("SMBIOS says manufacturer `{vendor}`, product `{product}`"),
    };
    anyhow::bail!(
        "this machine is none of the boards that come with the program ({}): {tree}; {smbios}. Name its board file with --board",
        Board::shipped_ids().collect::<Vec<_>>().join(", ")
    )
}

/// The file on the command line is a new intention when it is another than the one that was last taken over; otherwise
/// the plan that was last in force counts, which `seimonctl apply` may have changed since. A new intention that is not
/// valid leaves the last verified plan in force.
pub(crate) fn choose<L>(
    args: &cli::Run,
    stored: Option<&StoredPlan>,
    load: impl Fn(&[u8], &str, &Path) -> Result<L>,
) -> Result<Chosen<L>> {
    let given = given(args);
    let given_digest = given.as_ref().map_or(0, |bytes| digest(bytes));
    let folder = args.plan.parent().map(Path::to_owned).unwrap_or_default();
    let file = args.plan.display().to_string();
    let stored_matches = stored.is_some_and(|stored| stored.command_line_digest == given_digest);
    let load_stored = |stored: &StoredPlan| load(stored.toml.as_bytes(), &stored.file, &stored.folder);
    let mut notes = Vec::new();
    if let (Some(stored), true) = (stored, stored_matches || given.is_err()) {
        match load_stored(stored) {
            Ok(loaded) => {
                if let Err(error) = given {
                    notes.push(format!("{error:#}; the plan last in force is used"));
                }
                let command_line_digest = stored.command_line_digest;
                return Ok(Chosen { loaded, is_new: false, command_line_digest, notes });
            }
            Err(error) => notes.push(format!("the plan last in force cannot be used any more: {error:#}")),
        }
        let bytes = self::given(args)?;
        let loaded = load(&bytes, &file, &folder)?;
        return Ok(Chosen { loaded, is_new: true, command_line_digest: digest(&bytes), notes });
    }
    match (given.and_then(|bytes| load(&bytes, &file, &folder)), stored) {
        (Ok(loaded), _) => Ok(Chosen { loaded, is_new: true, command_line_digest: given_digest, notes }),
        (Err(error), None) => Err(error),
        (Err(error), Some(stored)) => {
            notes.push(format!("the new plan is not used, the last verified one stays: {error:#}"));
            let loaded = load_stored(stored).context("nor can the last verified plan be used")?;
            Ok(Chosen { loaded, is_new: false, command_line_digest: stored.command_line_digest, notes })
        }
    }
}

fn given(args: &cli::Run) -> Result<Vec<u8>> {
    std::fs::read(&args.plan).with_context(|| format!("site plan {}", args.plan.display()))
}

/// What the agent is to be: as the file on the command line says, or, where that cannot be read, the plan last in force.
pub(crate) fn role(args: &cli::Run) -> Role {
    let of = |bytes: Vec<u8>| seimon_plan::role_of(&String::from_utf8_lossy(&bytes));
    let stored = || {
        // Nobody else is to be writing there.
        let _alone = crate::agent::alone(&args.runtime_dir).ok()?;
        let (store, _) =
            Store::open(&args.state_dir, &crate::clock::machine_id(), &Sabotage::from_args(args).ok()?)
                .ok()?;
        store.plan().map(|plan| seimon_plan::role_of(&plan.toml))
    };
    match given(args) {
        Ok(bytes) => of(bytes),
        Err(_) if args.state_dir.is_dir() => stored().unwrap_or(Role::School),
        Err(_) => Role::School,
    }
}

/// Parses and validates; reads the certificate files that the plan names.
pub(crate) fn load(bytes: &[u8], file: &str, folder: &Path, board: &Board) -> Result<LoadedPlan> {
    let plan = seimon_plan::parse_bytes(bytes, file, board)?;
    let mut authorities = Authorities::new();
    for (id, service) in &plan.services {
        let Some(name) = service.health.as_ref().and_then(|health| health.ca_file.as_ref()) else { continue };
        let path = folder.join(name);
        let pem = std::fs::read_to_string(&path).with_context(|| {
            format!("{file}: services.{id}.health.ca_file: {} cannot be read", path.display())
        })?;
        authorities.insert(id.clone(), pem);
    }
    let toml = String::from_utf8_lossy(bytes).into_owned();
    Ok(LoadedPlan { plan, toml, file: file.to_owned(), folder: folder.to_owned(), authorities })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Result<Board> {
        let root = tempfile::tempdir()?;
        for (name, text) in files {
            let file = root.path().join(name);
            std::fs::create_dir_all(file.parent().context("a folder")?)?;
            std::fs::write(file, text)?;
        }
        recognised(root.path())
    }

    #[test]
    fn a_machine_is_recognised_by_its_firmware_and_a_stranger_is_told_what_was_seen() {
        const TREE: &str = "proc/device-tree/compatible";
        let id = |files: &[(&str, &str)]| {
            machine(files).map(|board| board.id).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(id(&[(TREE, "bananapi,bpi-r3\0mediatek,mt7986a\0")]).as_deref(), Ok("bananapi-bpi-r3"));
        let dmi = [
            ("sys/class/dmi/id/sys_vendor", "QEMU\n"),
            ("sys/class/dmi/id/product_name", "QEMU Virtual Machine\n"),
        ];
        assert_eq!(id(&dmi).as_deref(), Ok("qemu-virt-edk2"));
        let stranger = id(&[(TREE, "acme,box\0mediatek,mt7986a\0")]).expect_err("a stranger");
        for word in ["acme,box, mediatek,mt7986a", "no SMBIOS", "--board", "bananapi-bpi-r3"] {
            assert!(stranger.contains(word), "{word}: {stranger}");
        }
        let nothing = id(&[]).expect_err("nothing seen");
        assert!(nothing.contains("no device tree"), "{nothing}");
    }
}
