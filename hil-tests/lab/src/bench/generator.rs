//! Frames as fast as a gateway takes them, and no faster.
//!
//! ```text
//!   CPU 0: generator ──veth── [CPU 1: gateway] ──veth── CPU 0: counted by the kernel, dropped at once
//! ```
//!
//! The gateway works on a processor of its own. Its queue never runs empty, and never over: so many frames are under way
//! that it always has the next one, and the generator waits for it. What is counted behind the gateway is therefore what
//! the gateway can do, nothing is lost, and no user-space receiver takes part. How long the generator waited shows that it
//! was not the limit.
//!
//! [`Mode::Together`] has one processor do everything, one frame after the other, within the generator's own thread. The
//! thread's processor time (stolen time and other programs are no part of it), less what generator and links take when
//! the gateway drops everything at its door, is what the gateway takes for a frame: the same ratio on a busy machine.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::pairs::Sample;
use super::steal::{Stolen, Watch};
use crate::nodes::{Node, enter};
use crate::wire::packet_socket::{BATCH, PacketSocket, Sees};

/// Frames under way at most: fewer than a processor's queue (`net.core.netdev_max_backlog`, 1000) and a socket hold.
const WINDOW: u64 = 512;
/// Frames that have not arrived for so long never will.
const LOST: Duration = Duration::from_millis(200);
/// Frames that must have arrived before counting begins.
const WARM_UP: u64 = 4096;
const GENERATOR_CPU: usize = 0;
/// Masks of receive packet steering.
const GENERATOR_MASK: &str = "1";
const GATEWAY_MASK: &str = "2";
const NO_MASK: &str = "0";

/// Who does the work, and what a rate is a rate of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The gateway on a processor of its own; frames a second.
    Apart,
    /// All on one; frames a second of processor time.
    Together,
}

/// From where frames go, and where they come out behind the gateway.
pub(super) struct Lane<'a> {
    pub(super) from: (&'a Node, &'static str),
    pub(super) to: (&'a Node, &'static str),
}

/// When a round is over: whichever comes first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    pub(super) frames: u64,
    pub(super) time: Duration,
}

/// What came of a round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// Frames a second that arrived.
    pub(super) rate: f64,
    /// Share of what was offered that arrived.
    pub(super) arrived: f64,
    /// Share of the time in which the generator waited for the gateway.
    pub(super) waited: f64,
    stolen: Stolen,
}

impl Round {
    pub(super) fn sample(self) -> Sample {
        Sample { value: self.rate, stolen: self.stolen }
    }
}

/// Gives generator and gateway their processors, on the links into the gateway and behind it.
///
/// # Errors
/// This machine has one processor only, or no receive packet steering.
pub(super) fn steer(mode: Mode, gateway: (&Node, &[&str]), ends: &[(&Node, &str)]) -> Result<()> {
    let (inner, outer) = match mode {
        Mode::Apart => (GATEWAY_MASK, GENERATOR_MASK),
        Mode::Together => (NO_MASK, NO_MASK),
    };
    if mode == Mode::Apart && std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        bail!("the generator and the gateway need a processor each; this machine has one");
    }
    for interface in gateway.1 {
        receive_on(gateway.0, interface, inner)?;
    }
    ends.iter().try_for_each(|(node, interface)| receive_on(node, interface, outer))
}

fn receive_on(node: &Node, interface: &str, mask: &str) -> Result<()> {
    let script = format!("echo {mask} > /sys/class/net/{interface}/queues/rx-0/rps_cpus");
    let done = node.command("sh").args(["-c", &script]).output()?;
    if !done.status.success() {
        bail!("no packet steering here: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

/// On the calling thread: the generator's processor, and before others who want it.
pub(super) fn take_processor() -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(GENERATOR_CPU);
    rustix::thread::sched_setaffinity(None, &set)?;
    // A wish: without the right to it, the bench is only noisier.
    let _ = rustix::process::setpriority_process(None, -20);
    Ok(())
}

/// Sends the batches of the lanes in turn (batches of at most [`BATCH`] frames), until they or the round are over.
pub(super) fn pump<'f>(
    mode: Mode,
    lanes: &[Lane<'_>],
    batches: impl Iterator<Item = (usize, &'f [Vec<u8>])> + Send,
    until: Until,
) -> Result<Round> {
    std::thread::scope(|scope| {
        let generator = scope.spawn(|| -> Result<Round> {
            take_processor()?;
            let mut ends = Vec::new();
            for lane in lanes {
                enter(lane.to.0.name())?;
                let counter = Counter::open(lane.to.1)?;
                enter(lane.from.0.name())?;
                ends.push((PacketSocket::open(lane.from.1, Sees::Nothing)?, counter));
            }
            Pump::begin(ends)?.run(mode, batches, until)
        });
        generator.join().map_err(|_| anyhow::anyhow!("the generator died"))?
    })
}

struct Pump {
    lanes: Vec<(PacketSocket, Counter)>,
    /// What the counters said at the beginning.
    base: u64,
    sent: u64,
    arrived: u64,
    /// Given up.
    lost: u64,
    waited: Duration,
}

/// How things stood when counting began.
struct Mark {
    at: Instant,
    processor: Duration,
    watch: Watch,
    sent: u64,
    arrived: u64,
    waited: Duration,
}

impl Pump {
    fn begin(lanes: Vec<(PacketSocket, Counter)>) -> Result<Self> {
        let mut pump = Self { lanes, base: 0, sent: 0, arrived: 0, lost: 0, waited: Duration::ZERO };
        pump.look()?;
        pump.base = pump.arrived;
        pump.arrived = 0;
        Ok(pump)
    }

    fn look(&mut self) -> Result<()> {
        let mut sum = 0;
        for (_, counter) in &mut self.lanes {
            sum += counter.read()?;
        }
        self.arrived = sum.saturating_sub(self.base);
        Ok(())
    }

    fn under_way(&self) -> u64 {
        self.sent.saturating_sub(self.arrived + self.lost)
    }

    fn run<'f>(
        mut self,
        mode: Mode,
        batches: impl Iterator<Item = (usize, &'f [Vec<u8>])>,
        until: Until,
    ) -> Result<Round> {
        let mut mark: Option<Mark> = None;
        for (lane, batch) in batches {
            self.make_room()?;
            if let Some(mark) = &mark {
                if mark.at.elapsed() >= until.time || self.arrived - mark.arrived >= until.frames {
                    break;
                }
            } else if self.arrived >= WARM_UP {
                self.look()?;
                mark = Some(Mark {
                    at: Instant::now(),
                    processor: processor_time(),
                    watch: Watch::begin(),
                    sent: self.sent,
                    arrived: self.arrived,
                    waited: self.waited,
                });
            } else if self.lost > 4 * WINDOW.max(self.arrived) {
                bail!("the gateway lets nothing pass: {} of {} frames arrived", self.arrived, self.sent);
            }
            self.sent += self.lanes[lane].0.send(batch) as u64;
        }
        let mark = mark.with_context(|| {
            format!("only {} of {} frames arrived; {} given up", self.arrived, self.sent, self.lost)
        })?;
        self.look()?;
        let (took, stolen) = (mark.at.elapsed().as_secs_f64(), mark.watch.end());
        let (time, stolen) = match mode {
            Mode::Apart => (took, stolen),
            // Not in the thread's time, wherever it went.
            Mode::Together => ((processor_time() - mark.processor).as_secs_f64(), Stolen::default()),
        };
        let arrived = (self.arrived - mark.arrived) as f64;
        let under_way = self.under_way();
        self.settle()?;
        Ok(Round {
            rate: arrived / time,
            arrived: (arrived / (self.sent - mark.sent).saturating_sub(under_way).max(1) as f64).min(1.0),
            waited: (self.waited - mark.waited).as_secs_f64() / took,
            stolen,
        })
    }

    /// Waits until a batch fits into the window.
    fn make_room(&mut self) -> Result<()> {
        if self.under_way() + BATCH as u64 <= WINDOW {
            return Ok(());
        }
        self.look()?;
        let mut progress = (Instant::now(), self.arrived);
        let begin = progress.0;
        while self.under_way() + BATCH as u64 > WINDOW {
            self.look()?;
            if self.arrived > progress.1 {
                progress = (Instant::now(), self.arrived);
            } else if progress.0.elapsed() > LOST {
                self.lost += self.under_way();
            }
        }
        self.waited += begin.elapsed();
        Ok(())
    }

    /// What still waits in the gateway's queue must be gone before anything else is measured.
    fn settle(&mut self) -> Result<()> {
        let begin = Instant::now();
        while self.under_way() > 0 && begin.elapsed() < LOST {
            std::thread::sleep(Duration::from_millis(1));
            self.look()?;
        }
        Ok(())
    }
}

/// Of the calling thread.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Packets that an interface of the namespace of its opening received.
struct Counter {
    file: File,
    interface: &'static str,
    text: Vec<u8>,
}

impl Counter {
    fn open(interface: &'static str) -> Result<Self> {
        Ok(Self { file: File::open("/proc/thread-self/net/dev")?, interface, text: Vec::new() })
    }

    fn read(&mut self) -> Result<u64> {
        self.file.seek(SeekFrom::Start(0))?;
        self.text.clear();
        self.file.read_to_end(&mut self.text)?;
        received(&String::from_utf8_lossy(&self.text), self.interface)
            .with_context(|| format!("no interface {}", self.interface))
    }
}

/// `  name: bytes packets …`
fn received(text: &str, interface: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        (name.trim() == interface).then(|| numbers.split_whitespace().nth(1)?.parse().ok())?
    })
}

/// The address of an interface's link.
pub(super) fn mac(node: &Node, interface: &str) -> Result<[u8; 6]> {
    let output = node.command("cat").arg(format!("/sys/class/net/{interface}/address")).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let bytes: Vec<u8> =
        text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("`{}` is no address of {interface}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_packets_are_the_second_number_after_the_name() {
        let text = "Inter-|   Receive\n face |bytes    packets\n    w1: 10 1 0\n    w2: 4096 64 0 0\n";
        assert_eq!(received(text, "w2"), Some(64));
        assert_eq!(received(text, "w"), None);
    }
}
