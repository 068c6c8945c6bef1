//! The program itself, as the agent starts it: inherited sockets, pages told to it, a browser's requests.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use seimon_ipc::page::{FromPage, LISTENERS_ENV, SOCKET_FD, ToPage, VERSION};

const PATIENCE: Duration = Duration::from_secs(10);

/// Ends with the test, whatever becomes of it.
struct Page(Child);

impl Drop for Page {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seimon-page"));
    command.env_remove(LISTENERS_ENV).stdin(Stdio::null());
    command
}

fn get(port: u16, target: &str) -> String {
    let mut browser = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    browser.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    browser.write_all(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("it reads");
    let mut answer = String::new();
    browser.read_to_string(&mut answer).expect("it answers and hangs up");
    answer
}

#[test]
fn what_the_agent_says_is_what_a_browser_sees_until_the_agent_is_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its number").port();
    let (mut agent, end) = UnixStream::pair().expect("a socket pair");
    agent.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let mappings = vec![
        FdMapping { parent_fd: OwnedFd::from(end), child_fd: SOCKET_FD },
        FdMapping { parent_fd: OwnedFd::from(listener), child_fd: SOCKET_FD + 1 },
    ];
    let mut command = program();
    command.env(LISTENERS_ENV, "1").fd_mappings(mappings).expect("distinct descriptors");
    let mut page = Page(command.spawn().expect("it starts"));
    drop(command);

    let mut hello = String::new();
    BufReader::new(agent.try_clone().expect("a copy")).read_line(&mut hello).expect("it says hello");
    let hello: FromPage = serde_json::from_str(&hello).expect("a message");
    assert_eq!(hello, FromPage::Hello { version: VERSION });
    let before = get(port, "/");
    assert!(!before.contains("緑です"), "it was told nothing yet: {before}");

    let told = ToPage::Show { html: "<p>緑です</p>".to_owned() };
    agent.write_all(&seimon_ipc::frame::encode(&told).expect("short")).expect("it reads");
    let since = Instant::now();
    let shown = loop {
        let shown = get(port, "/");
        if shown.contains("緑です") || since.elapsed() > PATIENCE {
            break shown;
        }
    };
    assert!(shown.starts_with("HTTP/1.1 200 ") && shown.ends_with("<p>緑です</p>"), "{shown}");
    assert!(get(port, "/proxy.pac").starts_with("HTTP/1.1 404 "), "this zone has none");

    drop(agent);
    let status = loop {
        if let Some(status) = page.0.try_wait().expect("its status") {
            break Some(status);
        }
        if since.elapsed() > PATIENCE {
            break None;
        }
        std::thread::yield_now();
    };
    assert!(status.is_some(), "it goes on without an agent");
}

#[test]
fn started_by_hand_it_says_who_starts_it() {
    let output = program().output().expect("it runs");
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("started by seimon-agent"), "{words}");
}
