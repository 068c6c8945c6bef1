//! The town hall's web proxy: CONNECT, by names as the closed network knows them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::datagram::View;
use super::http::{Reader, respond};
use crate::capture::lock;

/// For a request to come, and for its destination to answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn serve(address: SocketAddr, names: Arc<View>) -> Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let names = Arc::clone(&names);
            tokio::spawn(async move {
                // A client that breaks off is no event of the proxy's.
                let _ = carry(stream, &names).await;
            });
        }
    });
    Ok(())
}

async fn carry(mut client: TcpStream, names: &View) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut reader = Reader::default();
    let Some(head) = tokio::time::timeout(PATIENCE, reader.head(&mut client)).await?? else { return Ok(()) };
    let wanted =
        head.request().filter(|(method, _)| *method == "CONNECT").and_then(|(_, to)| to.rsplit_once(':'));
    let Some((host, port)) = wanted else {
        return respond(&mut client, "405 Method Not Allowed", "", "only CONNECT").await;
    };
    let known = lock(&names.names).get(host).and_then(|all| all.iter().find(|a| a.is_ipv4()).copied());
    let (Some(address), Ok(port)) = (known.or_else(|| host.parse().ok()), port.parse()) else {
        return respond(&mut client, "502 Bad Gateway", "", "no such host").await;
    };
    let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(SocketAddr::new(address, port))).await;
    let Ok(Ok(mut server)) = connected else {
        return respond(&mut client, "504 Gateway Timeout", "", "no answer").await;
    };
    server.set_nodelay(true)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
