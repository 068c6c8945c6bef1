//! The real program in a real network namespace, with the test as agent, gateway and echo service.

use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use command_fds::{CommandFdExt, FdMapping};
use seimon_ipc::frame;
use seimon_ipc::probe::{
    CheckJob, CheckOutcome, EchoOutcome, EchoWatch, FromProbe, Host, SOCKET_FD, Stage, ToProbe, VERSION,
};
use seimon_plan::{PathId, ServiceId, ZoneId};

use crate::lab::{Namespace, possible};

struct Probe {
    child: Child,
    socket: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Probe {
    /// As the agent starts it; in the rootless form without any capability.
    fn start(unprivileged: bool) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(Duration::from_secs(10)))?;
        let program = env!("CARGO_BIN_EXE_seimon-probe");
        let mut command = if unprivileged {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--bounding-set=-all",
                program,
            ]);
            command
        } else {
            Command::new(program)
        };
        command.fd_mappings(vec![FdMapping { parent_fd: OwnedFd::from(theirs), child_fd: SOCKET_FD }])?;
        let child = command.spawn()?;
        drop(command);
        let lines = BufReader::new(ours.try_clone()?);
        Ok(Self { child, socket: ours, lines })
    }

    fn say(&mut self, message: &ToProbe) -> Result<()> {
        Ok(self.socket.write_all(&frame::encode(message)?)?)
    }

    fn hear(&mut self) -> Result<FromProbe> {
        let mut line = Vec::new();
        self.lines.read_until(b'\n', &mut line)?;
        ensure!(!line.is_empty(), "the probe has hung up");
        Ok(frame::decode(&line)?)
    }

    /// How the first echo of a watch ends.
    fn first_echo(&mut self, echo: EchoWatch) -> Result<EchoOutcome> {
        let watch = echo.watch;
        self.say(&ToProbe::Watch { echoes: vec![echo] })?;
        loop {
            match self.hear()? {
                FromProbe::Watched { results } => {
                    let outcome =
                        results.into_iter().find(|result| result.watch == watch).map(|r| r.outcomes);
                    if let Some(first) = outcome.and_then(|outcomes| outcomes.into_iter().next()) {
                        return Ok(first);
                    }
                }
                other => anyhow::bail!("{other:?}"),
            }
        }
    }

    fn hello(&mut self) -> Result<u32> {
        match self.hear()? {
            FromProbe::Hello { version: VERSION, pid } => Ok(pid),
            other => anyhow::bail!("not a hello: {other:?}"),
        }
    }

    /// Hangs up.
    fn end(mut self) -> Result<ExitStatus> {
        self.socket.shutdown(std::net::Shutdown::Both)?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One echo, for the next comes after the test.
fn watch(number: u64, host: &Host, target: &str) -> Result<EchoWatch> {
    Ok(EchoWatch {
        watch: number,
        zone: host.zone.clone(),
        path: host.path.clone(),
        target: target.parse()?,
        every_ms: 60_000,
        timeout_ms: 3_000,
        length: 32,
        silence: None,
    })
}

fn host(n: u8) -> Host {
    Host {
        zone: ZoneId::new("affairs").expect("an id"),
        path: PathId::new(format!("path{n}")).expect("an id"),
        interface: format!("probe{n}").parse().expect("a name"),
        mac: format!("02:00:00:00:00:{n:02x}").parse().expect("a MAC address"),
        ipv4: [10, 1, 0, 240 + n].into(),
        ipv6: format!("fd00:1::f{n}").parse().expect("an address"),
        gateway4: "10.1.0.1/24".parse().expect("a prefix"),
        gateway6: Some("fd00:1::1/64".parse().expect("a prefix")),
    }
}

/// A gateway with one zone's bridge, and veth pairs whose far ends are the hosts'.
fn gateway(hosts: &[Host]) -> Result<Namespace> {
    let gateway = Namespace::new()?;
    for command in [
        "link add zone type bridge",
        "addr add 10.1.0.1/24 dev zone",
        "addr add fd00:1::1/64 dev zone nodad",
        "link set zone up",
        "addr add 203.0.113.9/32 dev lo",
        "addr add 2001:db8::9/128 dev lo nodad",
    ] {
        gateway.ip(command)?;
    }
    for host in hosts {
        gateway.ip(&format!("link add g-{0} type veth peer name {0}", host.interface))?;
        gateway.ip(&format!("link set g-{} master zone up", host.interface))?;
    }
    Ok(gateway)
}

/// Answers until the test ends, each time after nonsense and somebody else's answer.
fn echo_service(gateway: &Namespace, address: &'static str) -> Result<()> {
    let socket = gateway.inside(move || Ok(UdpSocket::bind(address)?))?;
    thread::spawn(move || {
        let mut packet = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            if let Some(nonce) = seimon_ipc::echo::parse_request(&packet[..length]) {
                let _ = socket.send_to(b"nonsense", from);
                let somebody = std::net::SocketAddr::from(([192, 0, 2, 1], 1));
                let _ = socket.send_to(&seimon_ipc::echo::answer(nonce ^ 1, somebody), from);
                if let Some(answer) = seimon_ipc::echo::answer_to(&packet[..length], from) {
                    // Where it was long, a short answer does not count.
                    if length > 32 {
                        let _ = socket.send_to(&seimon_ipc::echo::answer(nonce, somebody), from);
                    }
                    let _ = socket.send_to(&answer, from);
                }
            }
        }
    });
    Ok(())
}

fn answers_from_its_own_address(unprivileged: bool) -> Result<()> {
    let hosts = vec![host(1), host(2)];
    let gateway = gateway(&hosts)?;
    echo_service(&gateway, "203.0.113.9:7007")?;
    echo_service(&gateway, "[2001:db8::9]:7007")?;
    let mut probe = Probe::start(unprivileged)?;
    let pid = probe.hello()?;
    // The probe must wait for the second.
    gateway.ip(&format!("link set {} netns {pid}", hosts[0].interface))?;
    probe.say(&ToProbe::Configure { hosts: hosts.clone() })?;
    gateway.ip(&format!("link set {} netns {pid}", hosts[1].interface))?;
    assert_eq!(probe.hear()?, FromProbe::Configured { error: None });

    let mut job = 0;
    for host in &hosts {
        for (target, own) in [
            ("203.0.113.9:7007", std::net::IpAddr::from(host.ipv4)),
            ("[2001:db8::9]:7007", host.ipv6.into()),
        ] {
            job += 1;
            match probe.first_echo(watch(job, host, target)?)? {
                EchoOutcome::Answered { seen, .. } => assert_eq!(seen.ip(), own),
                other => anyhow::bail!("{target}: {other:?}"),
            }
        }
    }

    // As long as packets may be, there and back.
    for (target, length) in [("203.0.113.9:7007", 1_472), ("[2001:db8::9]:7007", 1_452)] {
        job += 1;
        let long = EchoWatch { length, ..watch(job, &hosts[0], target)? };
        let seen = match probe.first_echo(long)? {
            EchoOutcome::Answered { seen, .. } => seen.ip(),
            other => anyhow::bail!("{target} with {length} bytes: {other:?}"),
        };
        assert_ne!(seen, std::net::IpAddr::from([192, 0, 2, 1]), "a short answer counts for nothing");
    }

    // Every host has its own MAC on the wire, also where the bridge is shared.
    let neighbours = Command::new("nsenter")
        .args(["-t", &gateway.pid().to_string(), "-n", "ip", "-4", "neigh", "show", "dev", "zone"])
        .output()?;
    let neighbours = String::from_utf8(neighbours.stdout)?;
    for host in &hosts {
        assert!(neighbours.contains(&format!("{} lladdr {}", host.ipv4, host.mac)), "{neighbours}");
    }

    // A port that nobody listens on, and an address that nobody has.
    for (target, refused) in [("203.0.113.9:7008", true), ("10.1.0.77:7007", false)] {
        job += 1;
        let asked = Instant::now();
        let outcome = probe.first_echo(EchoWatch { timeout_ms: 300, ..watch(job, &hosts[0], target)? })?;
        assert!(asked.elapsed() < Duration::from_millis(1_500), "a loss is told when its time is over");
        match outcome {
            EchoOutcome::Refused { .. } => assert!(refused, "{target}"),
            EchoOutcome::Lost => assert!(!refused, "{target}"),
            other => anyhow::bail!("{target}: {other:?}"),
        }
    }

    // A check whose name server does not exist.
    probe.say(&ToProbe::Watch { echoes: Vec::new() })?;
    probe.say(&ToProbe::Check(CheckJob {
        job: 99,
        zone: hosts[0].zone.clone(),
        path: hosts[0].path.clone(),
        service: ServiceId::new("saas")?,
        resolvers: vec!["203.0.113.9".parse()?],
        connect: "203.0.113.9:443".parse()?,
        name: "saas.example".to_owned(),
        http_path: "/".to_owned(),
        status: 200,
        body: String::new(),
        ca_pem: None,
        timeout_ms: 1_000,
    }))?;
    match probe.hear()? {
        FromProbe::Checked { job: 99, outcome: CheckOutcome::Failed { stage: Stage::Dns, reason } } => {
            assert!(reason.contains("refused"), "{reason}");
        }
        other => anyhow::bail!("{other:?}"),
    }

    confined(pid)?;
    nobody_answers_for_another(&gateway, &hosts)?;
    // The same hosts again are no news; others are.
    probe.say(&ToProbe::Configure { hosts: hosts.clone() })?;
    assert_eq!(probe.hear()?, FromProbe::Configured { error: None });
    probe.say(&ToProbe::Configure { hosts: hosts[..1].to_vec() })?;
    assert!(probe.hear().is_err());
    assert_eq!(probe.child.wait()?.code(), Some(10));
    Ok(())
}

/// With the second host's link down, the first sees the question for the second's address, and must keep silent.
fn nobody_answers_for_another(gateway: &Namespace, hosts: &[Host]) -> Result<()> {
    gateway.ip(&format!("link set g-{} down", hosts[1].interface))?;
    gateway.ip("neigh flush dev zone")?;
    let absent = hosts[1].ipv4;
    gateway.inside(move || {
        let sent = UdpSocket::bind("10.1.0.1:0")?.send_to(b"who has you?", (absent, 9))?;
        ensure!(sent > 0);
        Ok(())
    })?;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let neighbours = Command::new("nsenter")
            .args(["-t", &gateway.pid().to_string(), "-n", "ip", "-4", "neigh", "show", &absent.to_string()])
            .output()?;
        let neighbours = String::from_utf8(neighbours.stdout)?;
        ensure!(!neighbours.contains("lladdr"), "somebody else answered: {neighbours}");
        if neighbours.contains("FAILED") {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "never asked: {neighbours}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn confined(pid: u32) -> Result<()> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    for (key, value) in [
        ("CapEff", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Threads", "1"),
    ] {
        let found = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        assert_eq!(found.map(str::trim), Some(value), "{key}");
    }
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    eprintln!("probe: resident memory {}", resident.trim());
    Ok(())
}

#[test]
fn each_host_asks_from_its_own_address_and_interface() -> Result<()> {
    if possible() { answers_from_its_own_address(false) } else { Ok(()) }
}

#[test]
fn it_works_the_same_without_any_privilege() -> Result<()> {
    let user_namespaces = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "-Un", "true"])
        .status()
        .is_ok_and(|status| status.success());
    if !user_namespaces {
        eprintln!("skipped: no unprivileged user namespaces here");
        return Ok(());
    }
    if possible() { answers_from_its_own_address(true) } else { Ok(()) }
}

#[test]
fn an_interface_that_never_comes_is_reported_and_ends_the_probe() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut probe = Probe::start(false)?;
    probe.hello()?;
    probe.say(&ToProbe::Configure { hosts: vec![host(1)] })?;
    match probe.hear()? {
        FromProbe::Configured { error: Some(error) } => assert!(error.contains("probe1"), "{error}"),
        other => anyhow::bail!("{other:?}"),
    }
    assert_eq!(probe.end()?.code(), Some(1));
    Ok(())
}

#[test]
fn it_ends_when_the_agent_hangs_up_and_without_an_agent_does_nothing() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut probe = Probe::start(false)?;
    probe.hello()?;
    assert_eq!(probe.end()?.code(), Some(0));
    let alone = Command::new(env!("CARGO_BIN_EXE_seimon-probe")).output()?;
    assert_eq!(alone.status.code(), Some(1));
    assert!(String::from_utf8(alone.stderr)?.contains("seimon-agent"));
    Ok(())
}
