//! Browsers: each gets the page of the moment and is hung up on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use seimon_ipc::page::STALE_MS;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// For a request to come and the page to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// A browser's request is far shorter.
const MOST_REQUEST: usize = 8 << 10;
const MOST_CONNECTIONS: usize = 128;
const MOST_PER_CLIENT: usize = 8;

/// Shown when the agent has not said anything for too long.
const NOTHING_KNOWN: &str = "<!doctype html>\n<html lang=\"ja\">\n<meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
<meta http-equiv=\"refresh\" content=\"10\">\n<title>ネットワークの様子</title>\n\
<body style=\"font-family:sans-serif;line-height:1.7;max-width:40rem;margin:2rem auto;padding:0 1rem\">\n\
<h1>ネットワークの様子を確かめています。</h1>\n<p>少しお待ちください。このページは自動で新しくなります。</p>\n\
<p lang=\"en\">Just a moment, please. This page looks for news by itself.</p>\n</body>\n</html>\n";

/// The page of the moment, and who is connected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown(Rc<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    page: Option<(String, Instant)>,
    clients: BTreeMap<IpAddr, usize>,
}

impl Shown {
    pub(crate) fn show(&self, html: String) {
        self.0.borrow_mut().page = Some((html, Instant::now()));
    }

    fn page(&self) -> Option<String> {
        let state = self.0.borrow();
        let (html, since) = state.page.as_ref()?;
        (since.elapsed() < Duration::from_millis(STALE_MS)).then(|| html.clone())
    }

    fn admit(&self, client: IpAddr) -> Option<Place> {
        let mut state = self.0.borrow_mut();
        let all: usize = state.clients.values().sum();
        let own = state.clients.entry(client).or_default();
        if all >= MOST_CONNECTIONS || *own >= MOST_PER_CLIENT {
            return None;
        }
        *own += 1;
        Some(Place(self.clone(), client))
    }
}

/// One connection's place; given back when dropped.
struct Place(Shown, IpAddr);

impl Drop for Place {
    fn drop(&mut self) {
        let Self(Shown(state), client) = self;
        let mut state = state.borrow_mut();
        if let Some(count) = state.clients.get_mut(client) {
            *count -= 1;
            if *count == 0 {
                state.clients.remove(client);
            }
        }
    }
}

/// Serves one address for ever.
pub(crate) async fn listen(listener: TcpListener, shown: Shown) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of descriptors, say: a lasting error must not become a busy loop.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Some(place) = shown.admit(peer.ip().to_canonical()) else { continue };
        let shown = shown.clone();
        tokio::task::spawn_local(async move {
            // Whoever hangs up or is too slow does not want the page.
            let _ = timeout(PATIENCE, converse(stream, &shown)).await;
            drop(place);
        });
    }
}

async fn converse(mut stream: TcpStream, shown: &Shown) -> io::Result<()> {
    let mut request = Vec::new();
    let mut chunk = [0; 2048];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let length = stream.read(&mut chunk).await?;
        if length == 0 || request.len() + length > MOST_REQUEST {
            return Ok(());
        }
        request.extend_from_slice(&chunk[..length]);
    }
    let answer = answer(&request, shown.page());
    stream.write_all(&answer).await?;
    stream.shutdown().await
}

/// The whole answer to a request's first line.
fn answer(request: &[u8], page: Option<String>) -> Vec<u8> {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let head_only = method == b"HEAD";
    if !head_only && method != b"GET" {
        return http("405 Method Not Allowed", "Allow: GET, HEAD\r\n", "only to be read\n", head_only);
    }
    match (path, page) {
        (b"/" | b"/index.html", Some(html)) => http("200 OK", "", &html, head_only),
        (b"/" | b"/index.html", None) => {
            http("503 Service Unavailable", "Retry-After: 10\r\n", NOTHING_KNOWN, head_only)
        }
        _ => http("404 Not Found", "", "there is only one page: /\n", head_only),
    }
}

fn http(status: &str, more: &str, body: &str, head_only: bool) -> Vec<u8> {
    let kind = if body.starts_with('<') { "text/html" } else { "text/plain" };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\n{more}\
         Cache-Control: no-store\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n\
         X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if !head_only {
        answer.push_str(body);
    }
    answer.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(request: &str, page: Option<&str>) -> String {
        String::from_utf8(answer(request.as_bytes(), page.map(str::to_owned))).unwrap()
    }

    #[test]
    fn there_is_one_page_and_it_can_only_be_read() {
        let page = Some("<p>緑</p>");
        let shown = text("GET / HTTP/1.1\r\nHost: x\r\n\r\n", page);
        assert!(shown.starts_with("HTTP/1.1 200 OK\r\n") && shown.ends_with("\r\n\r\n<p>緑</p>"), "{shown}");
        assert!(shown.contains("Content-Length: 10\r\n") && shown.contains("Connection: close\r\n"));
        let head = text("HEAD /?x=1 HTTP/1.0\r\n\r\n", page);
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
        for (request, status) in [
            ("POST / HTTP/1.1\r\n\r\n", "405"),
            ("GET /../etc/passwd HTTP/1.1\r\n\r\n", "404"),
            ("\r\n\r\n", "405"),
            ("\u{0}\u{1} \r\n\r\n", "405"),
        ] {
            assert!(text(request, page).starts_with(&format!("HTTP/1.1 {status}")), "{request:?}");
        }
    }

    #[test]
    fn without_news_the_page_says_that_nothing_is_known_and_not_that_all_is_well() {
        let shown = text("GET / HTTP/1.1\r\n\r\n", None);
        assert!(shown.starts_with("HTTP/1.1 503") && shown.contains("確かめています"), "{shown}");
    }

    #[test]
    fn one_client_cannot_take_every_place() {
        let shown = Shown::default();
        let greedy: IpAddr = "10.20.1.100".parse().unwrap();
        let places: Vec<Option<Place>> = (0..20).map(|_| shown.admit(greedy)).collect();
        assert_eq!(places.iter().flatten().count(), MOST_PER_CLIENT);
        assert!(shown.admit("10.20.1.101".parse().unwrap()).is_some());
        drop(places);
        assert!(shown.admit(greedy).is_some());
        let many: Vec<Place> = (0..=255).filter_map(|i| shown.admit(IpAddr::from([10, 20, 2, i]))).collect();
        assert!(many.len() <= MOST_CONNECTIONS && many.len() > MOST_CONNECTIONS / 2, "{}", many.len());
    }
}
