//! Packets through the gateway: a sender that never pauses, a sink that counts, and the servers of the town.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use seimon_ipc::echo;

use super::agent::{Agent, Setup};
use super::world::inside;

/// The permitted destination of open zones in these tests, and what the sinks listen on.
pub(crate) const FAR: &str = "203.0.113.99:9999";
const PACE: Duration = Duration::from_millis(2);

/// Counts datagrams at a node.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    count: Arc<AtomicU64>,
}

impl Sink {
    pub(crate) fn listen(node: &str, address: &str) -> Result<Self> {
        let socket = inside(node, || UdpSocket::bind(address).with_context(|| address.to_owned()))?;
        let count = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&count);
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            // Answered, so that the flow counts as alive.
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                counter.fetch_add(1, Ordering::Relaxed);
                let _lost = socket.send_to(&buffer[..length], peer);
            }
        });
        Ok(Self { count })
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits for more datagrams than there are now.
    pub(crate) fn wait_more(&self, within: Duration) -> Result<()> {
        let before = self.count();
        super::until(within, "more datagrams arrive", || Ok(self.count() > before))
    }

    /// That none arrives for so long, while `sender` goes on sending.
    pub(crate) fn stays_silent(&self, sender: &Sender, duration: Duration) -> Result<()> {
        // What was under way when the gate closed.
        std::thread::sleep(Duration::from_millis(20));
        let (before, sent) = (self.count(), sender.sent());
        std::thread::sleep(duration);
        ensure!(sender.sent() > sent + 5, "nothing was sent");
        ensure!(self.count() == before, "{} datagrams were forwarded", self.count() - before);
        Ok(())
    }
}

/// Sends a datagram every few milliseconds, each second one as a new flow, until dropped.
#[derive(Debug)]
pub(crate) struct Sender {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Sender {
    pub(crate) fn start(node: &str, to: &str) -> Result<Self> {
        let to: SocketAddr = to.parse()?;
        let node = node.to_owned();
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
            let _ended = inside(&node, || {
                let steady = UdpSocket::bind(any)?;
                while !stopped.load(Ordering::Relaxed) {
                    let fresh = UdpSocket::bind(any)?;
                    for socket in [&steady, &fresh] {
                        // Refusals come back as errors; the next one is sent all the same.
                        let _refused = socket.send_to(b"hello", to);
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(PACE);
                }
                Ok(())
            });
        });
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// An agent that forwards what a sender in the learning zone sends, to a sink beyond the closed line.
pub(crate) fn at_work(setup: &Setup) -> Result<(Agent, Sink, Sender)> {
    let sink = Sink::listen("carrier", FAR)?;
    let agent = setup.start()?;
    let sender = Sender::start("learning", FAR)?;
    sink.wait_more(super::secs(5))?;
    Ok((agent, sink, sender))
}

/// The echo service on both lines, so that paths come up.
pub(crate) fn echo_service() -> Result<()> {
    for (node, address) in [
        ("carrier", "203.0.113.7:7007"),
        ("internet", "203.0.113.7:7007"),
        ("internet", "[2001:db8:113::7]:7007"),
    ] {
        let socket = inside(node, || Ok(UdpSocket::bind(address)?))?;
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                if let Some(nonce) = echo::parse_request(&buffer[..length]) {
                    let _lost = socket.send_to(&echo::answer(nonce, peer), peer);
                }
            }
        });
    }
    Ok(())
}

/// DNS on both lines: every A question is answered with this address, others with nothing.
pub(crate) fn name_service(answer: Ipv4Addr) -> Result<()> {
    for (node, address) in [("carrier", "10.50.0.53:53"), ("internet", "203.0.113.53:53")] {
        let socket = inside(node, || Ok(UdpSocket::bind(address)?))?;
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                if let Some(reply) = dns_reply(&buffer[..length], answer) {
                    let _lost = socket.send_to(&reply, peer);
                }
            }
        });
    }
    Ok(())
}

/// End of the question section of a message with one question.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        match *message.get(at)? {
            0 => return Some(at + 5).filter(|end| *end <= message.len()),
            length => at += 1 + usize::from(length),
        }
    }
}

fn dns_reply(question: &[u8], answer: Ipv4Addr) -> Option<Vec<u8>> {
    let end = question_end(question)?;
    let is_a = question[end - 4..end - 2] == [0, 1];
    let mut reply = question[..end].to_vec();
    reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    if is_a {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(answer.octets());
    }
    Some(reply)
}

/// Asks the gateway for a name's IPv4 address from a node; the answer's code and its addresses, or `None` after a while.
pub(crate) fn look_up(node: &str, server: &str, name: &str) -> Result<Option<(u8, Vec<Ipv4Addr>)>> {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len())?);
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let mut buffer = [0; 512];
    let length = inside(node, || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        socket.send_to(&question, (server, 53))?;
        Ok(socket.recv(&mut buffer).ok())
    })?;
    let Some(length) = length else { return Ok(None) };
    let message = &buffer[..length];
    let start = question_end(message).context("a reply without a question")?;
    // Answers have names of two bytes (pointers) or whole names: look for the fixed part of an A record.
    let addresses = message[start..]
        .windows(14)
        .filter(|window| window[..4] == [0, 1, 0, 1] && window[8..10] == [0, 4])
        .map(|window| Ipv4Addr::new(window[10], window[11], window[12], window[13]))
        .collect();
    Ok(Some((message[3] & 0xf, addresses)))
}
