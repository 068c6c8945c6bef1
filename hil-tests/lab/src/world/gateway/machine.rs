//! The gateway as a box: an image in QEMU, or a board on a bench. Everything inside it is asked over its maintenance port.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use seimon_board::Board;
use seimon_ipc::control::{Command as Ask, Response};
use seimon_machine::bench::{Bench, PORTS, Power};
use seimon_machine::control::Control;
use seimon_machine::port::{Port, PortError, other_answer};
use seimon_machine::qemu::{self, Cable, Qemu};
use seimon_maintenance::{Act, Answer, FileFor, Process, Request};
use seimon_plan::WireguardKey;
use tempfile::TempDir;

use super::board_plan::{PortMap, Socket, on_board, same_words};
use super::{
    Carrier, CtlOutput, Flush, Gateway, ProcessUsage, SecondRuntime, Trust, Writer, not_here, wiring,
};
use crate::capture::lock;
use crate::netns;
use crate::nodes::Node;
use crate::runner::ask_within;
use crate::wire::trunk::{Ends, Trunk};

/// From power on until the maintenance port answers: all of it is emulated.
const BOOTS: Duration = Duration::from_secs(180);
/// From there until the agent's policy is in force.
const READY: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_secs(20);
const CTL: Duration = Duration::from_secs(60);
const MEMORY_MIB: u32 = 1024;
const PROCESSORS: u8 = 2;
/// Of the agent's log, at a time.
const LINES: u32 = 20_000;

/// A machine and what it is given.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    pub how: How,
    /// For the lab's board; the machine gets it for its own.
    pub plan: String,
    pub clock_trusted: Trust,
    /// Where what it said on its console is kept.
    pub console: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub enum How {
    /// Started here.
    Qemu { board: Board, image: PathBuf, zones: Zones },
    /// Somebody else's.
    Bench(Bench),
}

/// How the school's zones reach a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zones {
    /// Each by a port of its own.
    #[default]
    Ports,
    /// All by one cable, told apart by tags.
    Trunk,
}

/// The board's word for the port that the trunk is plugged into.
const TRUNK: &str = "TRUNK";
/// Tags on the trunk, by the lab's port.
const TAGS: [(&str, u16); 3] = [("lan1", 10), ("lan2", 20), ("lan3", 30)];

impl How {
    pub(in crate::world) fn has_trunk(&self) -> bool {
        matches!(self, Self::Qemu { zones: Zones::Trunk, .. })
    }

    pub fn board(&self) -> &str {
        match self {
            Self::Qemu { board, .. } => &board.id,
            Self::Bench(bench) => &bench.board,
        }
    }

    /// The lab's words for ports, and this board's.
    pub fn ports(&self) -> PortMap {
        match self {
            Self::Qemu { board, zones: Zones::Ports, .. } => same_words(board),
            Self::Qemu { board, zones: Zones::Trunk, .. } => {
                let tagged = TAGS
                    .map(|(port, tag)| (port.to_uppercase(), Socket::Vlan { trunk: TRUNK.to_owned(), tag }));
                same_words(board).into_iter().chain(tagged).collect()
            }
            Self::Bench(bench) => {
                let ports = bench.ports.iter();
                ports.map(|(port, plug)| (port.to_uppercase(), Socket::Port(plug.port.clone()))).collect()
            }
        }
    }
}

#[derive(Debug)]
pub struct Machine {
    config: MachineConfig,
    node: Arc<Node>,
    authority: String,
    power: Mutex<Supply>,
    _trunk: Option<Trunk>,
    control: Control,
    port: Arc<Port>,
    log: Mutex<(Option<String>, String)>,
    seconds_ahead: Mutex<i64>,
    /// Dropped last: sockets, disk and console of the machine.
    _folder: TempDir,
}

/// Where its power comes from.
#[derive(Debug)]
enum Supply {
    Qemu { plan: Box<qemu::Plan>, on: Option<Qemu>, unplugged: Vec<String> },
    Bench(Option<Power>),
}

impl Machine {
    /// Wires it up and, if it is started here, switches it on: it starts while the rest is being prepared.
    pub(in crate::world) fn new(node: Arc<Node>, config: MachineConfig, ca_pem: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("seimon-lab-").tempdir()?;
        wiring::be_silent(&node)?;
        let mut trunk = None;
        let (place, supply) = match &config.how {
            How::Qemu { board, image, zones } => {
                let plan = wired(&node, board, image, *zones, &folder)?;
                trunk = plan.cards.iter().find_map(|card| match &card.cable {
                    Cable::Frames { machine, far } => {
                        Some(Ends { machine: machine.clone(), far: far.clone() })
                    }
                    Cable::Tap(_) | Cable::Unplugged => None,
                });
                plan.make_disk()?;
                let on = Some(Qemu::start(&plan)?);
                (plan.maintenance(), Supply::Qemu { plan: Box::new(plan), on, unplugged: Vec::new() })
            }
            How::Bench(bench) => {
                for (port, plug) in &bench.ports {
                    netns::take_interface(&plug.interface, node.name())?;
                    wiring::join(&node, port, &plug.interface)?;
                }
                (bench.maintenance.clone(), Supply::Bench(bench.power.clone()))
            }
        };
        let trunk = trunk.map(|ends| wiring::trunk(&node, &ends, &TAGS)).transpose()?;
        let port = Arc::new(Port::new(&place));
        let control = Control::listen(&folder.path().join("control.sock"), Arc::clone(&port))?;
        Ok(Self {
            config,
            node,
            authority: ca_pem.to_owned(),
            power: Mutex::new(supply),
            _trunk: trunk,
            control,
            port,
            log: Mutex::default(),
            seconds_ahead: Mutex::default(),
            _folder: folder,
        })
    }

    fn order(&self, request: Request, patience: Duration) -> Result<()> {
        Ok(self.port.order(request, patience)?)
    }

    fn agent(&self, act: Act, patience: Duration) -> Result<()> {
        let patience_ms = millis(patience);
        self.order(Request::Agent { act, patience_ms }, patience + SHORT)
    }

    fn put(&self, file: FileFor, content: &str) -> Result<()> {
        self.order(Request::Put { file, content: content.to_owned() }, SHORT)
    }

    fn for_this_board(&self, plan: &str) -> Result<String> {
        on_board(plan, self.config.how.board(), &self.config.how.ports())
    }

    /// Power on, if it is off.
    fn switch_on(&self) -> Result<()> {
        match &mut *lock(&self.power) {
            Supply::Qemu { plan, on, unplugged } => {
                if !on.as_mut().is_some_and(Qemu::is_on) {
                    let machine = Qemu::start(plan)?;
                    for port in unplugged.iter() {
                        machine.set_cable(port, qemu::Carrier::Down)?;
                    }
                    *on = Some(machine);
                }
            }
            Supply::Bench(Some(power)) => netns::on_host(&power.on)?,
            // It is on, or somebody has to see to it.
            Supply::Bench(None) => {}
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        match &*lock(&self.power) {
            Supply::Qemu { plan, .. } => qemu::last_words(&plan.console(), 20),
            Supply::Bench(_) => String::new(),
        }
    }

    /// Until a question for the status is answered.
    fn answers(&self, within: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            let asked = ask_within(self.control.socket(), Ask::Status, self.patience());
            if let Ok(Response::Status(_)) = &asked {
                return Ok(());
            }
            if begun.elapsed() > within {
                bail!("the agent does not tell its status: {asked:?}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// TAPs and bridges, and the machine that stands on them.
fn wired(
    node: &Node,
    board: &Board,
    image: &std::path::Path,
    zones: Zones,
    folder: &TempDir,
) -> Result<qemu::Plan> {
    let firmware = qemu::firmware_of(board)
        .with_context(|| format!("board `{}` is none that QEMU is here", board.id))?;
    let qemu::Image { boot, disk } = qemu::Image::open(image, firmware)?;
    let mut cards = qemu::cards(board)?;
    for card in &mut cards {
        let port = card.port.to_lowercase();
        let is_zone = TAGS.iter().any(|(zone, _)| *zone == port);
        if card.port == TRUNK && zones == Zones::Trunk {
            let at = |name: &str| folder.path().join(name);
            card.cable = Cable::Frames { machine: at("trunk-machine.sock"), far: at("trunk.sock") };
        } else if is_zone && zones == Zones::Trunk {
            card.cable = Cable::Unplugged;
        } else if PORTS.contains(&port.as_str()) {
            wiring::make_tap(node, &port)?;
            wiring::join(node, &port, &wiring::tap(&port))?;
            card.cable = Cable::Tap(wiring::tap(&port));
        }
    }
    Ok(qemu::Plan {
        boot,
        cards,
        disk,
        folder: folder.path().to_owned(),
        namespace: Some(node.name().to_owned()),
        memory_mib: MEMORY_MIB,
        processors: PROCESSORS,
    })
}

impl Gateway for Machine {
    /// Every machine has one.
    fn use_own_disk(&self) -> Result<()> {
        Ok(())
    }

    fn use_own_clock(&self) -> Result<()> {
        Ok(())
    }

    fn start(&self, ready: Duration) -> Result<()> {
        self.switch_on()?;
        self.port.wait(BOOTS).with_context(|| {
            format!("the machine did not start; its console ends:\n{}", self.last_words())
        })?;
        self.put(FileFor::Authority, &self.authority)?;
        if self.config.clock_trusted == Trust::Trusted {
            self.put(FileFor::ClockTrust, "")?;
        }
        self.put(FileFor::Plan, &self.for_this_board(&self.config.plan)?)?;
        // A dead agent stays dead until the scenario starts it.
        self.order(Request::Revival { is_on: false }, SHORT)?;
        self.agent(Act::Start, ready.max(READY))?;
        self.answers(SHORT)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn terminate(&self, patience: Duration) -> Result<()> {
        self.agent(Act::Stop, patience.max(SHORT))
    }

    fn kill_process(&self, name: &str) -> Result<()> {
        let process = Process::ALL.into_iter().find(|process| process.program() == name);
        let process = process.with_context(|| format!("`{name}` is no program of the gateway"))?;
        let answer = self.port.ask(Request::Kill { process }, SHORT)?;
        let Answer::Killed { .. } = answer else { return Err(other_answer("kill", &answer).into()) };
        Ok(())
    }

    fn kill_all(&self) -> Result<()> {
        self.kill_process(Process::Agent.program())?;
        for process in [Process::Resolver, Process::Probe, Process::Page] {
            match self.port.ask(Request::Kill { process }, SHORT) {
                // The service's end was theirs, too.
                Ok(_) | Err(PortError::Failed(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn power_cut(&self) -> Result<()> {
        match &mut *lock(&self.power) {
            Supply::Qemu { on, .. } => on.take().context("its power is off")?.cut_power()?,
            Supply::Bench(Some(power)) => netns::on_host(&power.off)?,
            Supply::Bench(None) => return not_here("nothing switches this bench's power (`[power]`)"),
        }
        self.port.hang_up();
        lock(&self.log).0 = None;
        Ok(())
    }

    fn fill_disk(&self) -> Result<()> {
        self.order(Request::Ballast { is_there: true }, CTL)
    }

    fn free_disk(&self) -> Result<()> {
        self.order(Request::Ballast { is_there: false }, CTL)
    }

    fn clock_ahead(&self) -> Result<i64> {
        Ok(*lock(&self.seconds_ahead))
    }

    fn set_clock_ahead(&self, seconds: i64) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("this host's clock")?;
        let unix_ms = i64::try_from(now.as_millis())?.saturating_add(seconds.saturating_mul(1000));
        self.order(Request::SetClock { unix_ms }, SHORT)?;
        *lock(&self.seconds_ahead) = seconds;
        Ok(())
    }

    fn second(&self, _: SecondRuntime, _: Duration) -> Result<CtlOutput> {
        not_here("a second agent can be started beside processes only")
    }

    fn rewrite_journal(&self, _: Writer) -> Result<()> {
        not_here("nobody reaches the journal inside a machine")
    }

    fn flush(&self, _: Flush) -> Result<()> {
        not_here("an image has no program but ours that reaches the kernel's tables")
    }

    /// A bridge hides it from the machine, so its own end is pulled, too.
    fn carrier(&self, port: &str, carrier: Carrier) -> Result<()> {
        match (&mut *lock(&self.power), &self.config.how) {
            (Supply::Qemu { on, unplugged, .. }, _) => {
                let port = port.to_uppercase();
                unplugged.retain(|other| *other != port);
                let carrier = match carrier {
                    Carrier::Up => qemu::Carrier::Up,
                    Carrier::Down => qemu::Carrier::Down,
                };
                if carrier == qemu::Carrier::Down {
                    unplugged.push(port.clone());
                }
                if let Some(machine) = on {
                    machine.set_cable(&port, carrier)?;
                }
                Ok(())
            }
            (Supply::Bench(_), How::Bench(bench)) => {
                let interface = &bench.ports.get(port).context("no such port")?.interface;
                let state = match carrier {
                    Carrier::Up => "up",
                    Carrier::Down => "down",
                };
                self.node.ip(&format!("link set {interface} {state}\n"))
            }
            (Supply::Bench(_), How::Qemu { .. }) => bail!("a bench that is none"),
        }
    }

    fn ctl(&self, args: &[&str]) -> Result<CtlOutput> {
        let arguments = args.iter().map(|word| (*word).to_owned()).collect();
        let request = Request::Ctl { arguments, input: String::new(), patience_ms: millis(CTL) };
        let answer = self.port.ask(request, CTL + SHORT)?;
        let Answer::Ctl { code, stdout, stderr } = answer else {
            return Err(other_answer("ctl", &answer).into());
        };
        Ok(CtlOutput { code, stdout, stderr })
    }

    fn put_plan(&self, _: &str, plan: &str) -> Result<String> {
        self.put(FileFor::NextPlan, &self.for_this_board(plan)?)?;
        Ok("/run/seimon-maintenance/next-plan.toml".to_owned())
    }

    fn control_socket(&self) -> PathBuf {
        self.control.socket().to_owned()
    }

    /// Made in there, and told in the status when the agent runs.
    fn school_key(&self, _: &str) -> Result<Option<WireguardKey>> {
        let asked = ask_within(self.control.socket(), Ask::Status, self.patience());
        // Not before it runs.
        let Ok(Response::Status(status)) = asked else { return Ok(None) };
        let keys = status.paths.into_iter().filter_map(|path| path.tunnel?.public_key);
        keys.map(|key| key.parse().context("the tunnel's public key")).next().transpose()
    }

    fn log(&self) -> String {
        let mut log = lock(&self.log);
        let after = log.0.clone();
        match self.port.ask(Request::Log { after, most: LINES }, CTL) {
            Ok(Answer::Log { lines, cursor }) => {
                log.0 = cursor.or(log.0.take());
                for line in lines {
                    log.1.push_str(&line);
                    log.1.push('\n');
                }
            }
            Ok(other) => log.1.push_str(&format!("{}\n", other_answer("log", &other))),
            Err(error) => {
                log.1.push_str(&format!("(what the agent said since could not be read: {error})\n"))
            }
        }
        log.1.clone()
    }

    fn usage(&self) -> Vec<ProcessUsage> {
        match self.port.ask(Request::Usage, SHORT) {
            Ok(Answer::Usage { processes, .. }) => processes
                .into_iter()
                .map(|usage| ProcessUsage {
                    name: usage.process.program().to_owned(),
                    pid: usage.pid,
                    rss_bytes: usage.rss_bytes,
                    cpu: Duration::from_millis(usage.cpu_ms),
                })
                .collect(),
            // As from /proc: what cannot be read is not there, and no check on it passes.
            Ok(_) | Err(_) => Vec::new(),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let (Some(keep), Supply::Qemu { plan, .. }) = (&self.config.console, &*lock(&self.power)) {
            let _ = std::fs::copy(plan.console(), keep);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
