//! Connections through the gateway: an echo server at the hub, clients in the school.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
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
