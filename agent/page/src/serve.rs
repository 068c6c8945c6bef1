//! Browsers: each gets the page of the moment, or its zone's PAC file, and is hung up on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use seimon_ipc::page::{FromPage, STALE_MS};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};

/// For a request to come and the page to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// A browser's request is far shorter.
const MOST_REQUEST: usize = 8 << 10;
const MOST_CONNECTIONS: usize = 128;
const MOST_PER_CLIENT: usize = 8;
/// How long a PAC file waits for the agent's word.
const AGENTS_WORD: Duration = Duration::from_millis(1_500);
/// Clients that are remembered to have been told of to the agent.
const MOST_NOTED: usize = 4_096;

/// Shown when the agent has not said anything for too long.
const NOTHING_KNOWN: &str = "<!doctype html>\n<html lang=\"ja\">\n<meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
<meta http-equiv=\"refresh\" content=\"10\">\n<title>ネットワークの様子</title>\n\
<body style=\"font-family:sans-serif;line-height:1.7;max-width:40rem;margin:2rem auto;padding:0 1rem\">\n\
<h1>ネットワークの様子を確かめています。</h1>\n<p>少しお待ちください。このページは自動で新しくなります。</p>\n\
<p lang=\"en\">Just a moment, please. This page looks for news by itself.</p>\n</body>\n</html>\n";

/// The page and the PAC files of the moment, and who is connected.
#[derive(Clone, Debug)]
pub(crate) struct Shown(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    page: Option<(String, Instant)>,
    serial: u64,
    /// By listening socket.
    pacs: Vec<Option<String>>,
    clients: BTreeMap<IpAddr, usize>,
    tell: mpsc::Sender<FromPage>,
    /// The number of the files that the agent knows each client to have.
    noted: BTreeMap<IpAddr, u64>,
    news: Rc<Notify>,
}

impl Shown {
    /// `tell`: where it is said who took a PAC file.
    pub(crate) fn new(tell: mpsc::Sender<FromPage>) -> Self {
        Self(Rc::new(RefCell::new(State {
            page: None,
            serial: 0,
            pacs: Vec::new(),
            clients: BTreeMap::new(),
            tell,
            noted: BTreeMap::new(),
            news: Rc::default(),
        })))
    }

    pub(crate) fn serve_pacs(&self, serial: u64, files: Vec<Option<String>>) {
        let mut state = self.0.borrow_mut();
        (state.serial, state.pacs) = (serial, files);
    }

    fn pac(&self, listener: usize) -> Option<String> {
        self.0.borrow().pacs.get(listener).cloned().flatten()
    }

    /// The agent knows that the client has, or gets, the files of this number.
    pub(crate) fn note(&self, client: IpAddr, serial: u64) {
        let mut state = self.0.borrow_mut();
        if state.noted.len() >= MOST_NOTED {
            state.noted.clear();
        }
        state.noted.insert(client, serial);
        state.news.notify_waiters();
    }

    /// The file, once the agent knows that the client gets it, or is too busy to say so.
    async fn give_pac(&self, listener: usize, client: IpAddr) -> Option<String> {
        let serial = self.0.borrow().serial;
        let file = self.pac(listener)?;
        let is_noted = || self.0.borrow().noted.get(&client) == Some(&serial);
        if !is_noted() {
            let news = Rc::clone(&self.0.borrow().news);
            // Not told where the agent is busy: the client will come again.
            let _full = self.0.borrow().tell.try_send(FromPage::TookPac { listener, client, serial });
            let word = async {
                loop {
                    let next = news.notified();
                    if is_noted() {
                        return;
                    }
                    next.await;
                }
            };
            let _late = timeout(AGENTS_WORD, word).await;
        }
        Some(file)
    }

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
pub(crate) async fn listen(number: usize, listener: TcpListener, shown: Shown) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of descriptors, say: a lasting error must not become a busy loop.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let client = peer.ip().to_canonical();
        let Some(place) = shown.admit(client) else { continue };
        let shown = shown.clone();
        tokio::task::spawn_local(async move {
            // Whoever hangs up or is too slow does not want the page.
            let _gone = timeout(PATIENCE, converse(stream, number, client, &shown)).await;
            drop(place);
        });
    }
}

async fn converse(mut stream: TcpStream, listener: usize, client: IpAddr, shown: &Shown) -> io::Result<()> {
    let mut request = Vec::new();
    let mut chunk = [0; 2048];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let length = stream.read(&mut chunk).await?;
        if length == 0 || request.len() + length > MOST_REQUEST {
            return Ok(());
        }
        request.extend_from_slice(&chunk[..length]);
    }
    let pac = match wanted(&request) {
        Wanted::Pac => shown.give_pac(listener, client).await,
        Wanted::Other => shown.pac(listener),
    };
    stream.write_all(&answer(&request, shown.page(), pac)).await?;
    stream.shutdown().await
}

/// What somebody is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Pac,
    Other,
}

fn wanted(request: &[u8]) -> Wanted {
    match words(request) {
        (b"GET", b"/proxy.pac" | b"/wpad.dat") => Wanted::Pac,
        _ => Wanted::Other,
    }
}

/// Method and path of a request's first line.
fn words(request: &[u8]) -> (&[u8], &[u8]) {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    (method, target.split(|byte| *byte == b'?').next().unwrap_or_default())
}

/// As browsers want it, or they do not read the file.
const PAC_TYPE: &str = "application/x-ns-proxy-autoconfig";

/// The whole answer to a request's first line.
fn answer(request: &[u8], page: Option<String>, pac: Option<String>) -> Vec<u8> {
    let (method, path) = words(request);
    let head_only = method == b"HEAD";
    if !head_only && method != b"GET" {
        return http("405 Method Not Allowed", "Allow: GET, HEAD\r\n", TEXT, "only to be read\n", head_only);
    }
    match (path, page, pac) {
        (b"/proxy.pac" | b"/wpad.dat", _, Some(pac)) => http("200 OK", "", PAC_TYPE, &pac, head_only),
        (b"/" | b"/index.html", Some(html), _) => http("200 OK", "", HTML, &html, head_only),
        (b"/" | b"/index.html", None, _) => {
            http("503 Service Unavailable", "Retry-After: 10\r\n", HTML, NOTHING_KNOWN, head_only)
        }
        _ => http("404 Not Found", "", TEXT, "there is only one page: /\n", head_only),
    }
}

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

fn http(status: &str, more: &str, kind: &str, body: &str, head_only: bool) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{more}\
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
        String::from_utf8(answer(request.as_bytes(), page.map(str::to_owned), None)).unwrap()
    }

    fn shown() -> (Shown, mpsc::Receiver<FromPage>) {
        let (tell, news) = mpsc::channel(4);
        (Shown::new(tell), news)
    }

    #[test]
    fn a_zones_browsers_get_its_pac_file_and_others_get_none() {
        let (shown, mut news) = shown();
        shown.serve_pacs(7, vec![Some("function A".to_owned()), None]);
        for path in ["/proxy.pac", "/wpad.dat", "/proxy.pac?x"] {
            let request = format!("GET {path} HTTP/1.1\r\n\r\n");
            let text = String::from_utf8(answer(request.as_bytes(), None, shown.pac(0))).unwrap();
            assert_eq!(wanted(request.as_bytes()), Wanted::Pac);
            assert!(
                text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nfunction A"),
                "{text}"
            );
            assert!(text.contains("Content-Type: application/x-ns-proxy-autoconfig\r\n"), "{text}");
            for listener in [1, 2] {
                assert!(answer(request.as_bytes(), None, shown.pac(listener)).starts_with(b"HTTP/1.1 404"));
            }
        }
        assert_eq!(wanted(b"HEAD /proxy.pac HTTP/1.1\r\n\r\n"), Wanted::Other, "whoever only looks");
        assert_eq!(news.try_recv().ok(), None);
    }

    #[tokio::test]
    async fn a_file_waits_until_the_agent_knows_who_gets_it_but_not_for_long() {
        let (shown, mut news) = shown();
        shown.serve_pacs(7, vec![Some("function A".to_owned())]);
        let client: IpAddr = "10.20.1.100".parse().unwrap();
        let told = FromPage::TookPac { listener: 0, client, serial: 7 };
        let other = "10.20.1.101".parse().unwrap();

        let began = Instant::now();
        let agent = async {
            assert_eq!(news.recv().await, Some(told));
            tokio::time::sleep(Duration::from_millis(300)).await;
            shown.note(other, 7);
            tokio::time::sleep(Duration::from_millis(300)).await;
            shown.note(client, 7);
        };
        let (file, ()) = tokio::join!(shown.give_pac(0, client), agent);
        assert_eq!(file.as_deref(), Some("function A"));
        assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());

        let began = Instant::now();
        assert!(shown.give_pac(0, client).await.is_some());
        assert!(began.elapsed() < AGENTS_WORD && news.try_recv().is_err(), "it is known already");

        shown.serve_pacs(8, vec![Some("function B".to_owned())]);
        assert_eq!(shown.give_pac(0, client).await.as_deref(), Some("function B"));
        assert!(
            began.elapsed() >= AGENTS_WORD,
            "for this long, and an agent that is silent is not waited for"
        );
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
        let (shown, _news) = shown();
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
