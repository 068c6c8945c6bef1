//! A client's PAC file: fetched from the gateway, and obeyed.
//!
//! The file's rules that name a host are read line by line, which is enough for the town's services. That engines of browsers
//! come to the same answers is tested where the file is made.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::servers::http::Reader;

/// Browsers look again when they are started; the lab's are started often.
const OLD_AFTER: Duration = Duration::from_secs(2);

/// What one client knows.
#[derive(Debug, Default)]
pub(crate) struct PacFile {
    text: Option<String>,
    fetched: Option<Instant>,
}

impl PacFile {
    pub(crate) fn is_old(&self) -> bool {
        self.fetched.is_none_or(|at| at.elapsed() >= OLD_AFTER)
    }

    /// `None`: there is none to be had now; the one before stays.
    pub(crate) fn renew(&mut self, text: Option<String>) {
        self.fetched = Some(Instant::now());
        if let Some(text) = text {
            self.text = Some(text);
        }
    }

    /// The proxy to use; `None`: none. `otherwise`: while there is no file, or it makes no sense.
    pub(crate) fn way_to(&self, host: &str, port: u16, otherwise: SocketAddr) -> Option<SocketAddr> {
        let Some(text) = &self.text else { return Some(otherwise) };
        let answer = read(text, host, port);
        match answer.strip_prefix("PROXY ") {
            Some(proxy) => Some(proxy.parse().unwrap_or(otherwise)),
            None if answer == "DIRECT" => None,
            None => Some(otherwise),
        }
    }
}

/// The file that the gateway serves.
pub(crate) async fn fetch(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"GET /proxy.pac HTTP/1.1\r\nhost: wpad\r\nconnection: close\r\n\r\n").await?;
    let mut reader = Reader::default();
    let head = reader.head(stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let is_pac = head.header("content-type") == Some("application/x-ns-proxy-autoconfig");
    if head.status() != Some(200) || !is_pac {
        return Err(io::Error::other(head.first));
    }
    let mut text = vec![0; usize::try_from(head.content_length()).unwrap_or(0).min(1 << 20)];
    let mut at = 0;
    while at < text.len() {
        let count = reader.body(stream, &mut text[at..]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        at += count;
    }
    String::from_utf8(text).map_err(io::Error::other)
}

/// Rules that name the host, and what is said of the rest.
fn read(text: &str, host: &str, port: u16) -> String {
    let wanted = format!("h == \"{host}\"");
    let on_port = |line: &str| !line.contains("(p ") || line.contains(&format!("p == {port}"));
    let rule = text.lines().find(|line| line.contains(&wanted) && on_port(line));
    let rest = || text.lines().find(|line| line.starts_with("  return \""));
    let line = rule.or_else(rest).unwrap_or_default();
    line.rsplit("return \"").next().and_then(|end| end.split('"').next()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_by_name_are_read() {
        let text = "function FindProxyForURL(url, host) {\n  if (h == \"a.example\" && (p == 443)) return \"DIRECT\";\n  \
                    return \"PROXY 10.50.0.80:8080\";\n}\n";
        assert_eq!(read(text, "a.example", 443), "DIRECT");
        assert_eq!(read(text, "a.example", 80), "PROXY 10.50.0.80:8080");
        assert_eq!(read(text, "b.example", 443), "PROXY 10.50.0.80:8080");
    }
}
