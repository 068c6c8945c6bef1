//! The targets. Each says what must hold besides not panicking.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;

use seimon_board::Instant;
use seimon_boot::board::{self, Seen};
use seimon_boot::disk::{Disk as BootDisk, DiskError};
use seimon_boot::guardian::{Guardian, Next};
use seimon_boot::image::Here;
use seimon_boot::rescue::{Report, Trouble, answer, asked, page};
use seimon_boot::{Anchors, BootState, SignedHead};
use seimon_core::hub::{self, Roster, Today};
use seimon_core::migration::{
    Action, BootId, Checkpoint, ClockTrust, Config, DiskRoom, Event, Machine, Mechanisms, View, WindowState,
};
use seimon_core::network_plan::{Allocation, Generation, PathChoice, compile};
use seimon_ipc::resolver::{FromResolver, ToResolver, Transport};
use seimon_ipc::{control, echo, frame, probe};
use seimon_journal::{Disk as _, Journal};
use seimon_plan::{ZoneId, parse_bytes, parse_hub};
use seimon_resolver::names::{Action as Dns, How, Limits, NoAnswer, Resolver, Without, upstream};
use seimon_sim::disk::Disk;
use seimon_sim::town::{Town, TownKind};

use crate::seeds;

/// The simulation's town with two lines.
pub fn town() -> Option<&'static Town> {
    static TOWN: OnceLock<Option<Town>> = OnceLock::new();
    TOWN.get_or_init(|| Town::build(TownKind::TwoLines).ok()).as_ref()
}

/// Any bytes as a plan: errors that can be read, or a plan that can be compiled (or says why not).
pub fn plan(bytes: &[u8]) {
    let Some(town) = town() else { return };
    match parse_bytes(bytes, "fuzz.toml", town.plan.board()) {
        Err(errors) => assert!(!errors.to_string().is_empty(), "an error without a word"),
        Ok(plan) => {
            let Ok(allocation) = Allocation::default().extend(&plan) else { return };
            let choices = plan
                .routes()
                .iter()
                .filter_map(|route| {
                    let first = PathChoice::On(route.paths.first()?.clone());
                    Some(((route.zone.clone(), route.group.clone()), first))
                })
                .collect();
            // Either way is good: what counts is that it comes back.
            compile(&plan, &allocation, &choices, None, Generation(1)).ok();
        }
    }
}

/// Any bytes as a hub's plan, likewise.
pub fn hub(bytes: &[u8]) {
    let Some(town) = town() else { return };
    match parse_hub(bytes, "fuzz.toml", town.plan.board()) {
        Err(errors) => assert!(!errors.to_string().is_empty(), "an error without a word"),
        Ok(plan) => {
            let today = Today { date: jiff::civil::date(2027, 1, 20), trusted: true };
            hub::compile(&plan, &Roster::default(), today, None, Generation(1)).ok();
        }
    }
}

/// Any bytes as a checkpoint: a machine that goes on, or rests; and what was read can be written and read again.
pub fn checkpoint(bytes: &[u8]) {
    let Ok(checkpoint) = serde_json::from_slice::<Checkpoint>(bytes) else { return };
    if let Ok(text) = serde_json::to_vec(&checkpoint) {
        let again = serde_json::from_slice::<Checkpoint>(&text);
        assert!(again.is_ok_and(|again| again == checkpoint), "does not read as it was written");
    }
    let Some(town) = town() else { return };
    let Some(route) = town.plan.routes().first() else { return };
    let config = Config::from_plan(&town.plan, route, Mechanisms::default());
    let view = View {
        disk: DiskRoom::Enough,
        window: WindowState::Open,
        clock: ClockTrust::Trusted,
        paths: std::collections::BTreeMap::new(),
        boot: BootId("boot-2".into()),
        wall_ms: 0,
    };
    let now = Instant::from_millis(5_000);
    let restored = Machine::restore_or_rest(config, &checkpoint, &view, now);
    let Some((mut machine, _)) = restored else { panic!("a group without a machine") };
    assert!(route.paths.contains(machine.current()), "a path outside the route: {}", machine.current());
    let mut at = now;
    for _ in 0..200 {
        while let Some(action) = machine.poll_action() {
            let event = if let Action::WriteCheckpoint { id, .. } = action {
                Some(Event::CheckpointDurable { id })
            } else if let Action::SetCurrent { id, path, .. } = action {
                assert!(route.paths.contains(&path), "a path outside the route: {path}");
                Some(Event::ChangeInForce { id })
            } else {
                None
            };
            if let Some(event) = event {
                machine.handle_event(event, &view, at);
            }
        }
        let Some((next, _)) = machine.poll_timeout() else { return };
        assert!(next > at, "the driver would spin");
        at = next;
        machine.handle_timeout(&view, at);
    }
}

/// The first byte says which way the message comes: from a client, or as the answer to a question of ours.
pub fn dns(bytes: &[u8]) {
    let Some((&way, message)) = bytes.split_first() else { return };
    let now = Instant::from_millis(5_000);
    let Ok(zone) = ZoneId::new(if way & 1 == 0 { "affairs" } else { "learning" }) else { return };
    let transport = if way & 2 == 0 { Transport::Udp } else { Transport::Tcp };
    let mut resolver = Resolver::new(Limits::default(), Without::default());
    if let Some(config) = seeds::resolver_config() {
        resolver.handle_agent(ToResolver::Configure(config), now);
    }
    let mut answers = 0;
    let mut asked = Vec::new();
    let mut drain = |resolver: &mut Resolver, asked: &mut Vec<_>| {
        while let Some(action) = resolver.poll_action() {
            match action {
                Dns::Answer { message, .. } => {
                    answers += 1;
                    assert!(transport == Transport::Tcp || message.len() <= 65_535);
                }
                Dns::Ask(ask) => asked.push(ask),
                Dns::Tell(FromResolver::Bind { token, ipv4, .. }) => {
                    assert!(ipv4 != Some(Ipv4Addr::UNSPECIFIED), "a name at no address");
                    resolver.handle_agent(ToResolver::InForce { token }, now);
                }
                Dns::Tell(
                    FromResolver::Hello { .. } | FromResolver::Stats(_) | FromResolver::Wpad { .. },
                ) => {}
            }
        }
    };
    drain(&mut resolver, &mut asked);
    if way & 4 == 0 {
        let client = IpAddr::from([10, 20, 1, 100]);
        let query = resolver.handle_query(&zone, client, transport, message, now);
        drain(&mut resolver, &mut asked);
        resolver.handle_timeout(now + std::time::Duration::from_secs(5));
        drain(&mut resolver, &mut asked);
        assert!(query.is_none() || answers == 1, "{answers} answers to one question");
        return;
    }
    for ask in asked.into_iter().take(4) {
        let mut sent = ask.message.clone();
        upstream::set_id(&mut sent, 0x1234);
        // What a liar near us can do: it has seen our question.
        let mut received = message.to_vec();
        upstream::set_id(&mut received, 0x1234);
        let judged = match ask.how {
            How::Own => upstream::judge(&sent, &received),
            How::Raw(_) => upstream::judge_raw(&sent, &received),
        };
        let outcome = match judged {
            upstream::Received::Answer => Ok(received),
            upstream::Received::Ignore
            | upstream::Received::CaseLost
            | upstream::Received::Truncated
            | upstream::Received::Plainer
            | upstream::Received::Ill => Err(NoAnswer::Ill),
        };
        resolver.handle_upstream(ask.job, outcome, now);
        while resolver.poll_action().is_some() {}
    }
}

/// Lines as they come to the agent's control socket.
pub fn control(bytes: &[u8]) {
    let mut lines = frame::LineBuffer::default();
    for part in bytes.chunks(7) {
        lines.push(part);
        while let Ok(Some(line)) = lines.next_line() {
            let Ok(request) = frame::decode::<control::Request>(&line) else { continue };
            round_trip(&request);
        }
    }
}

/// What the unprivileged processes may send to the privileged one, and the other way round; and echoes from the network.
pub fn frames(bytes: &[u8]) {
    let mut lines = frame::LineBuffer::default();
    lines.push(bytes);
    while let Ok(Some(line)) = lines.next_line() {
        if let Ok(message) = frame::decode::<probe::FromProbe>(&line) {
            round_trip(&message);
        }
        if let Ok(message) = frame::decode::<probe::ToProbe>(&line) {
            round_trip(&message);
        }
        if let Ok(message) = frame::decode::<FromResolver>(&line) {
            round_trip(&message);
        }
        if let Ok(message) = frame::decode::<ToResolver>(&line) {
            round_trip(&message);
        }
    }
    let seen = std::net::SocketAddr::from(([192, 0, 2, 2], 7));
    echo::parse_answer(bytes);
    if let Some(answer) = echo::answer_to(bytes, seen) {
        assert!(answer.len() <= bytes.len().max(echo::ANSWER_LEN), "an amplifier");
        assert_eq!(echo::parse_answer(&answer).map(|(_, seen)| seen), Some(seen));
    }
}

fn round_trip<M>(message: &M)
where
    M: serde::Serialize + serde::de::DeserializeOwned + PartialEq,
{
    let Ok(mut line) = frame::encode(message) else { return };
    assert_eq!(line.pop(), Some(b'\n'));
    assert!(!line.contains(&b'\n'), "a message of two lines");
    assert!(
        frame::decode::<M>(&line).is_ok_and(|again| again == *message),
        "does not read as it was written"
    );
}

/// Any bytes as the file of the journal: what is good is used, and then the file is whole.
pub fn journal(bytes: &[u8]) {
    let mut disk = Disk::default();
    let made = disk.create("journal").and_then(|()| disk.append("journal", bytes));
    if made.and_then(|()| disk.sync("journal")).and_then(|()| disk.sync_folder()).is_err() {
        return;
    }
    let Ok(opened) = Journal::salvage_on(disk.clone(), "sim") else { return };
    let first: Vec<Vec<u8>> = opened.records.into_iter().map(|record| record.payload).collect();
    let mut journal = opened.journal;
    let added = journal.append(1, b"one more").is_ok();
    drop(journal);
    let Ok(again) = Journal::salvage_on(disk, "sim") else { panic!("opened once and not again") };
    let second: Vec<Vec<u8>> = again.records.into_iter().map(|record| record.payload).collect();
    assert_eq!(second.len(), first.len() + usize::from(added), "records lost or made up");
    assert!(second.starts_with(&first), "records changed");
}

/// What the boot guardian reads before it trusts anything. The first byte says what the rest is taken for.
pub fn boot(bytes: &[u8]) {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    let Some(anchors) = Anchors::new(&seeds::boot_key()) else { panic!("the seeds' key is none") };
    match kind % 6 {
        0 => {
            let seen = seeds::boot_board();
            let here = Here { anchors: &anchors, seen: &seen, epoch: 1, slot_length: 1 << 20 };
            if let Ok(head) = SignedHead::verify(rest, here) {
                // Nobody but the seeds can sign.
                assert!(
                    seeds::boot_head().starts_with(rest)
                        || rest.starts_with(&seeds::boot_head()[..seeds::boot_head_used()])
                );
                assert!(head.manifest().length() <= here.slot_length, "larger than its slot");
            }
        }
        1 => {
            if let Some(state) = BootState::decode(rest) {
                assert_eq!(
                    BootState::decode(&state.encode()),
                    Some(state),
                    "does not read as it was written"
                );
            }
        }
        2 => {
            board::device_tree_length(rest);
            board::device_tree_compatible(rest);
        }
        3 => drop(board::smbios_system(rest)),
        4 => {
            let seen = Seen { compatible: vec![String::from_utf8_lossy(rest).into_owned()], smbios: None };
            let (trouble, lines) = (Trouble::Disk(seen.to_string()), [seen.to_string()]);
            let report = Report { guardian: "1", seen: &seen, trouble: &trouble, state: None, lines: &lines };
            let html = page(&report);
            let tags = html.iter().filter(|byte| **byte == b'<').count();
            let quiet = Seen::default();
            let plain = page(&Report {
                seen: &quiet,
                trouble: &Trouble::Disk(String::new()),
                lines: &[String::new()],
                ..report
            });
            assert_eq!(
                tags,
                plain.iter().filter(|byte| **byte == b'<').count(),
                "what was read became a tag"
            );
            answer(asked(rest), &html);
        }
        _ => {
            let mut disk = Sectors(rest.to_vec());
            let seen = seeds::boot_board();
            let mut say = |_: std::fmt::Arguments<'_>| {};
            if let Ok(mut guardian) = Guardian::open(&mut disk, &anchors, &seen, &mut say)
                && let Next::Start(ready) = guardian.next(&mut say)
            {
                assert!(
                    ready.command_line.starts_with(seeds::BOOT_COMMAND_LINE),
                    "unsigned words for the kernel"
                );
            }
        }
    }
}

/// A disk of these bytes.
struct Sectors(Vec<u8>);

impl BootDisk for Sectors {
    fn sector(&self) -> u64 {
        512
    }

    fn length(&self) -> u64 {
        self.0.len() as u64 / 512 * 512
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let at = usize::try_from(offset).map_err(|_| DiskError::PastTheEnd)?;
        let end = at.checked_add(into.len()).ok_or(DiskError::PastTheEnd)?;
        into.copy_from_slice(self.0.get(at..end).ok_or(DiskError::PastTheEnd)?);
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let at = usize::try_from(offset).map_err(|_| DiskError::PastTheEnd)?;
        let end = at.checked_add(bytes.len()).ok_or(DiskError::PastTheEnd)?;
        self.0.get_mut(at..end).ok_or(DiskError::PastTheEnd)?.copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}
