//! Connections through the gateway: an echo server at the hub, clients in the school.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::world::{SERVER, inside};

/// Sends back whatever it gets, for ever.
pub(crate) fn serve() -> Result<()> {
    let listener = inside("hub", || Ok(TcpListener::bind(SERVER)?))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || echo(stream));
        }
    });
    Ok(())
}

fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// A connection from the affairs zone.
pub(crate) fn connect(patience: Duration) -> Result<TcpStream> {
    let address: SocketAddr = SERVER.parse()?;
    inside("affairs", || {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        Ok(stream)
    })
}

/// So many bytes there and back, checked.
pub(crate) fn exchange(stream: &mut TcpStream, bytes: usize) -> Result<()> {
    let data: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
    let (mut reader, sent) = (stream.try_clone()?, data.clone());
    let answer = std::thread::spawn(move || -> Result<Vec<u8>> {
        let mut answer = vec![0; sent.len()];
        reader.read_exact(&mut answer)?;
        ensure!(answer == sent, "other bytes came back");
        Ok(answer)
    });
    stream.write_all(&data)?;
    answer.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?.context("the answer").map(|_| ())
}

/// Sends every datagram back, for ever.
pub(crate) fn echo_datagrams() -> Result<()> {
    let socket = inside("hub", || Ok(UdpSocket::bind(SERVER)?))?;
    std::thread::spawn(move || {
        let mut room = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut room) {
            let _lost = socket.send_to(&room[..count], from);
        }
    });
    Ok(())
}

/// Five hundred datagrams a second from the affairs zone, which nobody sends again.
pub(crate) struct Datagrams {
    socket: UdpSocket,
    sent: u32,
    received: u32,
}

impl Datagrams {
    pub(crate) fn begin() -> Result<Self> {
        let socket = inside("affairs", || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(SERVER)?;
            Ok(socket)
        })?;
        let mut traffic = Self { socket, sent: 0, received: 0 };
        // The first one waits for the tunnel's first session.
        traffic.socket.set_read_timeout(Some(Duration::from_secs(8)))?;
        traffic.send();
        traffic.socket.recv(&mut [0; 64]).context("the first datagram")?;
        traffic.received += 1;
        traffic.socket.set_nonblocking(true)?;
        Ok(traffic)
    }

    fn send(&mut self) {
        self.sent += u32::from(self.socket.send(&self.sent.to_be_bytes()).is_ok());
    }

    fn take_in(&mut self) {
        let mut room = [0; 64];
        while self.socket.recv(&mut room).is_ok() {
            self.received += 1;
        }
    }

    pub(crate) fn go_on(&mut self, time: Duration) {
        let begun = std::time::Instant::now();
        while begun.elapsed() < time {
            self.send();
            std::thread::sleep(Duration::from_millis(2));
            self.take_in();
        }
    }

    /// Sent and lost. What is late is waited for.
    pub(crate) fn end(mut self) -> Result<(u32, u32)> {
        self.socket.set_nonblocking(false)?;
        self.socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        while self.received < self.sent && self.socket.recv(&mut [0; 64]).is_ok() {
            self.received += 1;
        }
        Ok((self.sent, self.sent - self.received))
    }
}
