//! An https server that knows ranges and breaks off.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use rustls::pki_types::PrivateKeyDer;

use crate::world::World;

pub(crate) struct Server {
    pub(crate) url: String,
    ranges: Arc<Mutex<Vec<u64>>>,
}

impl Server {
    /// Serves `body` on loopback; the first answers that are longer than a head break off after so many bytes each.
    pub(crate) fn start(body: Vec<u8>, world: &World, cuts: &[usize]) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(world.path("ca.pem"), made.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("localhost:0").unwrap();
        let url = format!("https://localhost:{}/image.simg", listener.local_addr().unwrap().port());
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&ranges);
        let mut cuts = cuts.to_vec();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = rustls::StreamOwned::new(tls, stream.unwrap());
                while let Some((first, last)) = request(&mut stream) {
                    seen.lock().unwrap().push(first as u64);
                    let last = last.min(body.len() - 1);
                    let part = &body[first..=last];
                    let cut =
                        if part.len() > 1 << 20 && !cuts.is_empty() { Some(cuts.remove(0)) } else { None };
                    let head = format!(
                        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{last}/{}\r\n\r\n",
                        part.len(),
                        body.len()
                    );
                    let sent = &part[..cut.unwrap_or(part.len()).min(part.len())];
                    if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(sent)).is_err() {
                        break;
                    }
                    let _flushed = stream.flush();
                    if cut.is_some() {
                        break;
                    }
                }
            }
        });
        Self { url, ranges }
    }

    /// Where each request began.
    pub(crate) fn ranges(&self) -> Vec<u64> {
        self.ranges.lock().unwrap().clone()
    }
}

/// First and last byte of a request's range; `None`: there is none any more.
fn request(stream: &mut impl std::io::Read) -> Option<(usize, usize)> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        text.push(byte[0]);
    }
    let text = String::from_utf8(text).ok()?.to_ascii_lowercase();
    let range = text.lines().find_map(|line| line.strip_prefix("range: bytes="))?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

#[test]
fn ranges_are_read() {
    let mut text: &[u8] = b"GET / HTTP/1.1\r\nRange: bytes=5-9\r\n\r\n";
    assert_eq!(request(&mut text), Some((5, 9)));
    let mut rest = Vec::new();
    assert_eq!(text.read_to_end(&mut rest).ok(), Some(0));
}
