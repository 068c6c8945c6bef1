//! One UDP echo: is the path alive, how long does it take, and which source address does the outside see.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use seimon_ipc::echo::{ANSWER_LEN, parse_answer, request_of};
use seimon_ipc::probe::EchoOutcome;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::source::{Source, in_words};

/// Sends one request and waits for its answer; other packets are passed over. Soft ICMP errors (a router on the way
/// that has lost its neighbour) are not told to sockets by Linux and so end as [`EchoOutcome::Lost`].
/// `length`: bytes of the request.
pub async fn echo(source: &Source, target: SocketAddr, length: usize, limit: Duration) -> EchoOutcome {
    match timeout(limit, exchange(source, target, length)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => EchoOutcome::Refused { reason: in_words(&error) },
        Err(_) => EchoOutcome::Lost,
    }
}

async fn exchange(source: &Source, target: SocketAddr, length: usize) -> io::Result<EchoOutcome> {
    let socket = source.udp(target).await?;
    let nonce = nonce()?;
    let sent = Instant::now();
    socket.send(&request_of(nonce, length)).await?;
    answer(&socket, nonce, length, sent).await
}

async fn answer(socket: &UdpSocket, nonce: u64, asked: usize, sent: Instant) -> io::Result<EchoOutcome> {
    let mut packet = LONGEST_PACKET;
    loop {
        let length = socket.recv(&mut packet).await?;
        if let Some(seen) = is_answer(&packet[..length], nonce, asked) {
            let rtt_us = Some(u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX));
            return Ok(EchoOutcome::Answered { rtt_us, seen });
        }
    }
}

/// The answer, if it has come; other packets are thrown away. The socket must not block.
pub(crate) fn take_answer(
    socket: &std::net::UdpSocket,
    nonce: u64,
    asked: usize,
) -> io::Result<Option<SocketAddr>> {
    let mut packet = LONGEST_PACKET;
    loop {
        match socket.recv(&mut packet) {
            Ok(length) => {
                if let Some(seen) = is_answer(&packet[..length], nonce, asked) {
                    return Ok(Some(seen));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// Longer than any answer, so that a longer packet is seen to be one.
const LONGEST_PACKET: [u8; 2048] = [0; 2048];

fn is_answer(packet: &[u8], nonce: u64, asked: usize) -> Option<SocketAddr> {
    let (echoed, seen) = parse_answer(packet)?;
    (echoed == nonce && packet.len() == asked.max(ANSWER_LEN)).then_some(seen)
}

pub(crate) fn nonce() -> io::Result<u64> {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if filled == bytes.len() { Ok(u64::from_ne_bytes(bytes)) } else { Err(io::Error::other("no randomness")) }
}
