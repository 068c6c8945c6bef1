//! Good inputs to begin with.

use std::net::{IpAddr, Ipv4Addr};

use ed25519_dalek::{Signer as _, SigningKey};
use seimon_boot::board::{BoardId, Seen};
use seimon_boot::image::{HEAD, Part, Root, assemble_head, to_be_signed};
use seimon_boot::{BootState, Digest, Manifest};
use seimon_ipc::probe::{EchoOutcome, FromProbe, ToProbe, Watched};
use seimon_ipc::resolver::{
    Family6, Forward, FromResolver, NamedService, PathUp, PathView, ResolverConfig, ToResolver, ZoneView,
};
use seimon_ipc::{control, echo, frame};
use seimon_journal::{Disk as _, Journal};
use seimon_plan::{PathId, ZoneId};
use seimon_sim::dice::Dice;
use seimon_sim::disk::Disk;
use seimon_sim::schedule::Schedule;

use crate::targets::town;

pub fn plan() -> Vec<Vec<u8>> {
    [
        include_str!("../../../provisioning/plan/examples/two-line-town.toml"),
        include_str!("../../../provisioning/plan/examples/one-line-town.toml"),
        include_str!("../../../provisioning/plan/examples/behind-leased-router.toml"),
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub fn hub() -> Vec<Vec<u8>> {
    vec![include_bytes!("../../../provisioning/plan/examples/town-hall-hub.toml").to_vec()]
}

pub fn checkpoint() -> Vec<Vec<u8>> {
    let states = [
        r#"{"state":"steady","path":"direct"}"#,
        r#"{"state":"qualifying","from":"closed","to":"direct","left_ms":4000,"paused":true}"#,
        r#"{"state":"canary","from":"closed","to":"direct","left_ms":4000,"paused":false,"tried":1}"#,
        r#"{"state":"cutting_over","from":"closed","to":"direct"}"#,
        r#"{"state":"soaking","from":"closed","to":"direct","soak_left_ms":1,"drain_left_ms":2,"drained":"underway"}"#,
        r#"{"state":"soaking","from":"closed","to":"direct","soak_left_ms":1,"drain_left_ms":2,"drained":{"forced":{"clients":3}}}"#,
        r#"{"state":"rolling_back","leaving":"direct","to":"closed","cause":{"kind":"path_down","path":"direct"},"drain_left_ms":null}"#,
        r#"{"state":"rolling_back","leaving":"direct","to":"closed","cause":{"kind":"service_ill","path":"direct","service":"affairs","stage":"http_status"},"drain_left_ms":9}"#,
        r#"{"state":"blocked","path":"closed","reason":{"kind":"no_living_path"}}"#,
        r#"{"state":"blocked","path":"closed","reason":{"kind":"not_registered","living":["direct"]}}"#,
    ];
    states
        .iter()
        .map(|state| {
            format!(
                r#"{{"version":1,"zone_group":{{"zone":"affairs","group":"affairs"}},"home":"closed","previous":"direct","state":{state},"holds":[{{"path":"direct","left_ms":5,"failures":2}}],"boot":"boot-0","at":77,"wall_ms":1800000000000}}"#
            )
            .into_bytes()
        })
        .collect()
}

/// A question for a name, as the wire has it.
fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap_or(0));
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// An answer to it with an alias and an address.
fn answer(name: &str) -> Vec<u8> {
    let mut message = question(name, 1);
    message[2] = 0x81;
    message[3] = 0x80;
    message[7] = 2;
    message.extend([0xc0, 0x0c, 0, 5, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 0x0c]);
    message.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 10]);
    message
}

pub fn dns() -> Vec<Vec<u8>> {
    let names = ["affairs.school.example", "learning.school.example", "www.town.example", "other.example"];
    let mut all = Vec::new();
    for name in names {
        for way in 0..4 {
            for kind in [1, 28, 5, 65, 255] {
                all.push([&[way][..], &question(name, kind)].concat());
            }
            all.push([&[way | 4][..], &answer(name)].concat());
        }
    }
    all
}

pub fn control() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        r#"{"version":1,"request":{"command":"status"}}"#,
        r#"{"version":1,"request":{"command":"plan_show"}}"#,
        r#"{"version":1,"request":{"command":"migrate","zone":"affairs","group":"affairs","action":{"start":{"to":"direct"}}}}"#,
        r#"{"version":1,"request":{"command":"explain","from":"affairs","to":"https://affairs.school.example"}}"#,
    ]
    .iter()
    .map(|line| format!("{line}\n").into_bytes())
    .collect();
    if let Ok(line) = frame::encode(&control::Request { version: 1, request: control::Command::Status }) {
        all.push(line);
    }
    all
}

pub fn frames() -> Vec<Vec<u8>> {
    let mut all = vec![echo::request(7).to_vec(), echo::request_of(7, 1400)];
    let seen = std::net::SocketAddr::from(([192, 0, 2, 2], 7));
    all.push(echo::answer(7, seen).to_vec());
    let outcomes = vec![
        EchoOutcome::Answered { rtt_us: Some(5_000), seen },
        EchoOutcome::Lost,
        EchoOutcome::Refused { reason: "no route".into() },
    ];
    let messages = [
        frame::encode(&FromProbe::Hello { version: 2, pid: 77 }),
        frame::encode(&FromProbe::Configured { error: None }),
        frame::encode(&FromProbe::Watched { results: vec![Watched { watch: 1, outcomes }] }),
        frame::encode(&ToProbe::Watch { echoes: Vec::new() }),
        frame::encode(&FromResolver::Hello { version: 1 }),
        frame::encode(&ToResolver::InForce { token: 9 }),
    ];
    all.extend(messages.into_iter().flatten());
    if let Some(line) =
        resolver_config().and_then(|config| frame::encode(&ToResolver::Configure(config)).ok())
    {
        all.push(line);
    }
    all
}

pub fn journal() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for records in 0..6_u8 {
        let mut disk = Disk::default();
        let Ok(opened) = Journal::salvage_on(disk.clone(), "sim") else { continue };
        let mut journal = opened.journal;
        for n in 0..records {
            journal.append(1, &vec![n; usize::from(n) * 9]).ok();
        }
        drop(journal);
        all.extend(disk.read("journal").ok().flatten());
    }
    // With a checkpoint in it, as on a gateway.
    if let Some(town) = town() {
        let schedule = Schedule::roll(town, Dice::new(1).next());
        all.extend(serde_json::to_vec(&schedule).ok());
    }
    all
}

/// As the agent gives it to the resolver.
pub fn resolver_config() -> Option<ResolverConfig> {
    let town = town()?;
    let paths = town.plan.paths.iter().filter_map(|(id, path)| {
        let &(source4, source6) = town.allocation.path_sources.get(id)?;
        let ipv6 = match path.ipv6 {
            seimon_plan::PathIpv6::None => Family6::Withheld,
            seimon_plan::PathIpv6::Native | seimon_plan::PathIpv6::Nat66 | seimon_plan::PathIpv6::Nptv6 => {
                Family6::Carried
            }
        };
        let view = PathView { servers: path.resolvers.clone(), source4, source6, ipv6, up: PathUp::Up };
        Some((id.clone(), view))
    });
    let direct = PathId::new("direct").ok()?;
    let mut zones: std::collections::BTreeMap<ZoneId, ZoneView> = town
        .plan
        .zones
        .keys()
        .map(|zone| (zone.clone(), ZoneView { others: None, ..ZoneView::default() }))
        .collect();
    for ((zone, name), &(inside4, inside6)) in &town.allocation.inside {
        let view = zones.get_mut(zone)?;
        let service =
            NamedService { inside4, inside6, current: Some(direct.clone()), paths: vec![direct.clone()] };
        view.services.insert(name.clone(), service);
    }
    if let Some(learning) = ZoneId::new("learning").ok().and_then(|zone| zones.get_mut(&zone)) {
        learning.others = Some(direct.clone());
    }
    if let Some(affairs) = ZoneId::new("affairs").ok().and_then(|zone| zones.get_mut(&zone)) {
        let servers = vec![IpAddr::V4(Ipv4Addr::new(10, 50, 0, 53))];
        affairs.forwards.push(Forward { domain: "town.example".into(), servers, path: Some(direct) });
    }
    Some(ResolverConfig { paths: paths.collect(), zones })
}

pub const BOOT_COMMAND_LINE: &str = "console=ttyAMA0 quiet";

fn boot_signer() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

pub fn boot_key() -> [u8; 32] {
    boot_signer().verifying_key().to_bytes()
}

pub fn boot_board() -> Seen {
    Seen { compatible: vec!["maker,board".into()], smbios: None }
}

/// A slot of three small parts, its head signed.
fn boot_slot() -> Vec<u8> {
    let mut slot = vec![0; HEAD];
    let mut part = |fill: u8, length: usize| {
        slot.resize(slot.len().next_multiple_of(4096), 0);
        let (offset, bytes) = (slot.len() as u64, vec![fill; length]);
        slot.extend_from_slice(&bytes);
        Part { offset, length: length as u64, sha256: Digest::of(&bytes) }
    };
    let manifest = Manifest {
        format: 1,
        version: "1.0.0".into(),
        epoch: 1,
        guardian: 1,
        boards: vec![BoardId { id: "board".into(), compatible: vec!["maker,board".into()], smbios: None }],
        command_line: BOOT_COMMAND_LINE.into(),
        kernel: part(1, 600),
        initramfs: part(2, 600),
        root: Root {
            part: part(3, 8192),
            data_length: 4096,
            verity_root: Digest([4; 32]),
            verity_salt: Digest([5; 32]),
        },
    };
    let json = serde_json::to_vec(&manifest).unwrap_or_default();
    let signature = boot_signer().sign(&to_be_signed(&json)).to_bytes();
    let head = assemble_head(&json, &[(boot_key(), signature)]).unwrap_or_default();
    slot[..head.len()].copy_from_slice(&head);
    slot
}

pub fn boot_head() -> Vec<u8> {
    boot_slot()[..HEAD].to_vec()
}

pub fn boot_head_used() -> usize {
    boot_head().iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// With a table, a boot state whose tail is cut off, and one slot.
fn boot_disk() -> Vec<u8> {
    let slot = boot_slot();
    let sectors = 64 + slot.len().div_ceil(512);
    let mut disk = vec![0; sectors * 512];
    let mut entries = [0_u8; 256];
    for (entry, (name, first, last)) in
        entries.chunks_exact_mut(128).zip([("boot-state", 8, 63), ("slot-a", 64, sectors as u64 - 1)])
    {
        entry[0] = 1;
        entry[32..40].copy_from_slice(&u64::to_le_bytes(first));
        entry[40..48].copy_from_slice(&last.to_le_bytes());
        for (unit, character) in entry[56..].chunks_exact_mut(2).zip(name.encode_utf16()) {
            unit.copy_from_slice(&character.to_le_bytes());
        }
    }
    let mut header = [0_u8; 92];
    header[..8].copy_from_slice(b"EFI PART");
    for (at, word) in [(12, 92), (24, 1), (72, 2), (80, 2), (84, 128), (88, crc32fast::hash(&entries))] {
        header[at..at + 4].copy_from_slice(&u32::to_le_bytes(word));
    }
    let crc = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    disk[512..604].copy_from_slice(&header);
    disk[1024..1280].copy_from_slice(&entries);
    disk[64 * 512..][..slot.len()].copy_from_slice(&slot);
    disk
}

pub fn boot() -> Vec<Vec<u8>> {
    let head = &boot_head()[..boot_head_used()];
    let mut tree = Vec::new();
    for word in [0xd00d_feed_u32, 84, 40, 73, 0, 17, 16, 0, 0, 0, 1, 0, 3, 12, 0] {
        tree.extend(word.to_be_bytes());
    }
    tree.extend(b"maker,board\0\0compatible\0");
    let mut smbios = vec![1, 27, 0, 1, 1, 2];
    smbios.resize(27, 0);
    smbios.extend(b"QEMU\0QEMU Virtual Machine\0\0");
    let state = BootState::fresh().encode();
    let request: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    [head, &state, &tree, &smbios, request, &boot_disk()]
        .into_iter()
        .zip(0..)
        .map(|(bytes, kind)| [&[kind], bytes].concat())
        .collect()
}
