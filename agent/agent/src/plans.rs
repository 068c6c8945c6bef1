//! Which plan to begin with: the command line's file, or the one that was last verified.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use seimon_board::Board;
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

pub(crate) fn load_board(file: &Path) -> Result<Board> {
    let text = std::fs::read_to_string(file).with_context(|| format!("board file {}", file.display()))?;
    Ok(Board::parse(&text, &file.display().to_string())?)
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
