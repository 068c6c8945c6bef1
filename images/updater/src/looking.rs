//! How users are now: what the agent says, and which cables are in.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use seimon_board::Board;
use seimon_boot::board::{Seen, Smbios};
use seimon_ipc::control::{Command, Request, Response, Status, VERSION};
use seimon_ipc::frame::{self, LineBuffer};
use seimon_update::trial::{Health, Link, Picture, Policy};

const PATIENCE: Duration = Duration::from_secs(10);

/// Where to look.
#[derive(Clone, Debug)]
pub(crate) struct Eyes {
    pub(crate) agent_socket: PathBuf,
    pub(crate) plan: PathBuf,
    pub(crate) board: Option<Board>,
    /// `/sys`.
    pub(crate) sys: PathBuf,
}

impl Eyes {
    pub(crate) fn picture(&self) -> Picture {
        let links = self.links();
        if !self.plan.exists() {
            return Picture { policy: Policy::NoPlan, services: BTreeMap::new(), links };
        }
        match ask(&self.agent_socket) {
            Ok(status) => Picture {
                policy: if status.dataplane.verified { Policy::InForce } else { Policy::NotInForce },
                services: services(&status),
                links,
            },
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the agent does not answer");
                Picture { policy: Policy::NoAnswer, services: BTreeMap::new(), links }
            }
        }
    }

    fn links(&self) -> BTreeMap<String, Link> {
        let ports = self.board.iter().flat_map(|board| &board.ports);
        ports
            .map(|(word, port)| {
                let folder = self.sys.join("class/net").join(port.interface.as_str());
                let link = if !folder.exists() {
                    Link::Missing
                } else {
                    // An interface that is down says EINVAL.
                    match std::fs::read_to_string(folder.join("carrier")) {
                        Ok(text) if text.trim() == "1" => Link::Up,
                        Ok(_) | Err(_) => Link::NoCarrier,
                    }
                };
                (word.clone(), link)
            })
            .collect()
    }
}

/// Every service of every zone over the path that its group is on.
fn services(status: &Status) -> BTreeMap<String, Health> {
    let mut all = BTreeMap::new();
    for group in &status.groups {
        // A blocked group has no path: its services are ill, whatever path they would be on.
        let of_group = |path: &seimon_plan::PathId| group.path.as_ref() == Some(path);
        for service in
            status.services.iter().filter(|service| service.zone == group.zone && of_group(&service.path))
        {
            let health = match service.health.as_str() {
                "good" => Health::Well,
                "ill" => Health::Ill,
                _ => Health::Unknown,
            };
            all.insert(format!("{}/{}", service.zone, service.service), health);
        }
        if group.path.is_none() {
            for service in status.services.iter().filter(|service| service.zone == group.zone) {
                all.insert(format!("{}/{}", service.zone, service.service), Health::Ill);
            }
        }
    }
    all
}

fn ask(socket: &Path) -> Result<Status> {
    let mut stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&frame::encode(&Request { version: VERSION, request: Command::Status })?)?;
    let (mut lines, mut chunk) = (LineBuffer::default(), vec![0; 64 << 10]);
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(line) = lines.next_line()? {
            let Response::Status(status) = frame::decode(&line)? else {
                bail!("the agent answered another question")
            };
            return Ok(*status);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("no answer within {PATIENCE:?}");
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => bail!("it hung up"),
            length => lines.push(&chunk[..length]),
        }
    }
}

/// On which board we are, in the words of its firmware.
pub(crate) fn seen(root: &Path) -> Seen {
    let tree = std::fs::read(root.join("proc/device-tree/compatible")).unwrap_or_default();
    let text = |name: &str| {
        let text = std::fs::read_to_string(root.join("sys/class/dmi/id").join(name)).ok()?;
        Some(text.trim_end_matches('\n').to_owned())
    };
    Seen {
        compatible: tree
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect(),
        smbios: text("sys_vendor")
            .zip(text("product_name"))
            .map(|(manufacturer, product)| Smbios { manufacturer, product }),
    }
}

/// The slot that runs, as the guardian said on the kernel's command line.
pub(crate) fn running(command_line: &str) -> Option<seimon_boot::Slot> {
    let word = command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix("seimon.slot="))?;
    seimon_boot::Slot::BOTH.into_iter().find(|slot| word == slot.letter().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guardian_says_which_slot_runs() {
        use seimon_boot::Slot;
        assert_eq!(running("console=ttyAMA0 seimon.slot=b"), Some(Slot::B));
        assert_eq!(running("seimon.slot=a quiet"), Some(Slot::A));
        assert_eq!(running("seimon.slot=c"), None);
        assert_eq!(running("quiet"), None);
    }

    #[test]
    fn cables_are_seen_by_the_words_on_the_case() {
        let folder = tempfile::tempdir().unwrap();
        let net = folder.path().join("class/net");
        for (name, carrier) in [("wan1", "1\n"), ("wan2", "0\n")] {
            std::fs::create_dir_all(net.join(name)).unwrap();
            std::fs::write(net.join(name).join("carrier"), carrier).unwrap();
        }
        let board = "id = 'b'\ndescription = 'b'\n[ports]\nWAN1 = { interface = 'wan1', role = 'wan' }\n\
                     WAN2 = { interface = 'wan2', role = 'wan' }\nLAN1 = { interface = 'lan1', role = 'lan' }\n";
        let eyes = Eyes {
            agent_socket: folder.path().join("none"),
            plan: folder.path().join("none"),
            board: Some(Board::parse(board, "b").unwrap()),
            sys: folder.path().to_owned(),
        };
        let picture = eyes.picture();
        let links: Vec<(&str, Link)> =
            picture.links.iter().map(|(word, link)| (word.as_str(), *link)).collect();
        assert_eq!(links, [("LAN1", Link::Missing), ("WAN1", Link::Up), ("WAN2", Link::NoCarrier)]);
        assert_eq!(picture.policy, Policy::NoPlan);
        std::fs::write(folder.path().join("plan.toml"), "").unwrap();
        let eyes = Eyes { plan: folder.path().join("plan.toml"), ..eyes };
        assert_eq!(eyes.picture().policy, Policy::NoAnswer);
    }
}
