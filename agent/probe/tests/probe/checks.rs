//! Checks end in time and name the stage that failed, whatever the servers do.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use seimon_ipc::frame::{self, LineBuffer};
use seimon_ipc::probe::{
    CheckJob, CheckOutcome, EchoOutcome, EchoWatch, FromProbe, Host, Stage, ToProbe, Watched,
};
use seimon_plan::{PathId, ServiceId, ZoneId};
use seimon_probe::check::{Trust, check};
use seimon_probe::{End, Source, session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::lab::{Namespace, possible};
use crate::servers::{Authority, Web, names, web};

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nall is well\n";
const LIMIT: Duration = Duration::from_millis(1_500);

/// Runs on a network that has nothing but a loopback interface and a name server.
fn on_a_network_of_its_own<F: Future<Output = Result<()>>>(
    act: impl FnOnce() -> F + Send + 'static,
) -> Result<()> {
    if !possible() {
        return Ok(());
    }
    Namespace::new()?.inside(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            names().await?;
            act().await
        })
    })
}

fn source() -> Source {
    Source { ipv4: [127, 0, 0, 1].into(), ipv6: None, interface: "lo".parse().expect("a name") }
}

fn job(name: &str, connect: SocketAddr, ca: &Authority) -> CheckJob {
    CheckJob {
        job: 1,
        zone: ZoneId::new("affairs").expect("an id"),
        path: PathId::new("direct").expect("an id"),
        service: ServiceId::new("saas").expect("an id"),
        resolvers: vec![[127, 0, 0, 1].into()],
        connect,
        name: name.to_owned(),
        http_path: "/health".to_owned(),
        status: 200,
        body: "well".to_owned(),
        ca_pem: Some(ca.pem.clone()),
        timeout_ms: 1_500,
    }
}

async fn outcome(job: &CheckJob) -> Result<CheckOutcome> {
    let started = Instant::now();
    let outcome = check(&source(), job, &Trust::load(), LIMIT).await;
    // Loading the authorities and a busy machine included.
    anyhow::ensure!(started.elapsed() < LIMIT + Duration::from_secs(2), "{}: too slow", job.name);
    Ok(outcome)
}

fn failed(outcome: &CheckOutcome) -> Option<(Stage, &str)> {
    match outcome {
        CheckOutcome::Good { .. } => None,
        CheckOutcome::Failed { stage, reason } => Some((*stage, reason)),
    }
}

#[test]
fn a_service_that_works_is_good() -> Result<()> {
    on_a_network_of_its_own(|| async {
        let ca = Authority::new()?;
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwell\r\n0\r\n\r\n";
        for behaviour in [Web::Says(GOOD), Web::SaysAndStalls(GOOD), Web::SaysAndStalls(chunked)] {
            let address = web(ca.acceptor("good.example")?, behaviour).await?;
            let outcome = outcome(&job("good.example", address, &ca)).await?;
            assert!(matches!(outcome, CheckOutcome::Good { total_us: 1.. }), "{outcome:?}");
        }
        Ok(())
    })
}

#[test]
fn each_way_to_be_ill_is_found_at_its_stage() -> Result<()> {
    on_a_network_of_its_own(|| async {
        let ca = Authority::new()?;
        for (behaviour, stage, says) in [
            (Web::Silent, Stage::Tls, "in time"),
            (Web::NotTls, Stage::Tls, ""),
            (Web::Closes, Stage::Tls, ""),
            (Web::Resets, Stage::Http, "reset"),
            (Web::Drips, Stage::Http, "in time"),
            (Web::Endless, Stage::Body, "64 KiB"),
            (Web::Says("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"), Stage::Http, "503"),
            (
                Web::Says("HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"),
                Stage::Http,
                "302",
            ),
            (Web::Says("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsorry.\n"), Stage::Body, "`well`"),
            (Web::Says("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nwell"), Stage::Body, "complete"),
            (Web::SaysAndStalls("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nwell"), Stage::Body, "in time"),
            (Web::Says("hello\r\n\r\n"), Stage::Http, "not an HTTP"),
        ] {
            let address = web(ca.acceptor("good.example")?, behaviour).await?;
            let outcome = outcome(&job("good.example", address, &ca)).await?;
            let (found, reason) = failed(&outcome).context("found to be good")?;
            assert!(found == stage && reason.contains(says), "{stage:?} {says}: {outcome:?}");
        }
        let nobody: SocketAddr = "127.0.0.1:1".parse()?;
        let outcome = outcome(&job("good.example", nobody, &ca)).await?;
        assert_eq!(failed(&outcome), Some((Stage::Tcp, "refused by the other end")));
        Ok(())
    })
}

#[test]
fn only_the_right_certificate_for_the_right_name_will_do() -> Result<()> {
    on_a_network_of_its_own(|| async {
        let (ca, stranger) = (Authority::new()?, Authority::new()?);
        for (acceptor, says) in [
            (stranger.acceptor("good.example")?, "invalid peer certificate"),
            (ca.acceptor("other.example")?, "not valid for"),
        ] {
            let address = web(acceptor, Web::Says(GOOD)).await?;
            let outcome = outcome(&job("good.example", address, &ca)).await?;
            let (stage, reason) = failed(&outcome).context("found to be good")?;
            assert!(stage == Stage::Tls && reason.contains(says), "{says}: {outcome:?}");
        }
        let address = web(ca.acceptor("good.example")?, Web::Says(GOOD)).await?;
        for ca_pem in [Some("nonsense".to_owned()), Some(String::new()), None] {
            let job = CheckJob { ca_pem, ..job("good.example", address, &ca) };
            let outcome = outcome(&job).await?;
            assert_eq!(failed(&outcome).map(|(stage, _)| stage), Some(Stage::Tls), "{outcome:?}");
        }
        Ok(())
    })
}

#[test]
fn a_captive_portal_and_another_site_that_answer_200_are_never_good() -> Result<()> {
    on_a_network_of_its_own(|| async {
        let (ca, stranger) = (Authority::new()?, Authority::new()?);
        let portal = "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\nplease sign in\n";
        for (acceptor, says, stage) in [
            // A portal with a certificate that it made itself, whatever page it shows.
            (stranger.acceptor("good.example")?, portal, Stage::Tls),
            (stranger.acceptor("good.example")?, GOOD, Stage::Tls),
            // Another site, with a good certificate of its own.
            (ca.acceptor("other.example")?, GOOD, Stage::Tls),
            // One that has the service's certificate (a CDN's edge, a parked name): its page is another.
            (ca.acceptor("good.example")?, portal, Stage::Body),
        ] {
            let address = web(acceptor, Web::Says(says)).await?;
            let outcome = outcome(&job("good.example", address, &ca)).await?;
            assert_eq!(failed(&outcome).map(|(stage, _)| stage), Some(stage), "{says:?}: {outcome:?}");
        }
        Ok(())
    })
}

#[test]
fn a_name_server_may_say_anything() -> Result<()> {
    on_a_network_of_its_own(|| async {
        let ca = Authority::new()?;
        for (name, fails) in [
            ("noisy.example", None),
            ("cut.example", None),
            ("v6only.example", None),
            ("nodata.example", Some("no address")),
            ("nx.example", Some("does not exist")),
            ("servfail.example", Some("Server Failure")),
            ("silent.example", Some("no answer")),
            ("garbage.example", Some("no answer")),
        ] {
            let address = web(ca.acceptor(name)?, Web::Says(GOOD)).await?;
            let outcome = outcome(&job(name, address, &ca)).await?;
            match (failed(&outcome), fails) {
                (None, None) => {}
                (Some((Stage::Dns, reason)), Some(says)) if reason.contains(says) => {}
                _ => panic!("{name}: {outcome:?}"),
            }
        }
        let address = web(ca.acceptor("good.example")?, Web::Says(GOOD)).await?;
        let dead = CheckJob { resolvers: vec![[127, 0, 0, 2].into()], ..job("good.example", address, &ca) };
        assert!(matches!(failed(&outcome(&dead).await?), Some((Stage::Dns, _))));
        let first_dead =
            CheckJob { resolvers: vec![[127, 0, 0, 2].into(), [127, 0, 0, 1].into()], ..dead.clone() };
        assert_eq!(failed(&outcome(&first_dead).await?), None);
        for name in ["", "..", "a b", "x\r\ny", &"a".repeat(300)] {
            let outcome = outcome(&job(name, address, &ca)).await?;
            assert!(failed(&outcome).is_some(), "{name:?}");
        }
        Ok(())
    })
}

#[test]
fn checks_that_hang_do_not_hold_up_echoes_and_each_job_is_answered_once() -> Result<()> {
    on_a_network_of_its_own(|| async {
        let ca = Authority::new()?;
        let stalling = web(ca.acceptor("good.example")?, Web::Silent).await?;
        let echo = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
        let echo_address = echo.local_addr()?;
        tokio::spawn(async move {
            let mut packet = [0; 64];
            while let Ok((length, from)) = echo.recv_from(&mut packet).await {
                if let Some(nonce) = seimon_ipc::echo::parse_request(&packet[..length]) {
                    let _ = echo.send_to(&seimon_ipc::echo::answer(nonce, from), from).await;
                }
            }
        });
        let host = Host {
            zone: ZoneId::new("affairs")?,
            path: PathId::new("direct")?,
            interface: "lo".parse()?,
            mac: "02:00:00:00:00:01".parse()?,
            ipv4: [127, 0, 0, 1].into(),
            ipv6: "::1".parse()?,
            gateway4: "127.0.0.1/8".parse()?,
            gateway6: None,
        };
        let (mut agent, probe) = tokio::net::UnixStream::pair()?;
        let serving =
            tokio::spawn(session::serve(probe, LineBuffer::default(), vec![host.clone()], Trust::load()));

        let most = u64::try_from(session::MOST_CHECKS)?;
        let mut said = Vec::new();
        for number in 0..most + 6 {
            let job = CheckJob { job: number, timeout_ms: 3_000, ..job("good.example", stalling, &ca) };
            said.extend(frame::encode(&ToProbe::Check(job))?);
        }
        let echo = EchoWatch {
            watch: 1_000,
            zone: host.zone.clone(),
            path: host.path.clone(),
            target: echo_address,
            every_ms: 60_000,
            timeout_ms: 3_000,
            length: 32,
            silence: Some(5),
        };
        let in_ipv6 = EchoWatch { watch: 1_001, target: "[::1]:7".parse()?, ..echo.clone() };
        let nowhere = EchoWatch { watch: 1_002, path: PathId::new("unknown")?, ..echo.clone() };
        said.extend(frame::encode(&ToProbe::Watch { echoes: vec![echo, in_ipv6, nowhere] })?);
        agent.write_all(&said).await?;

        let mut lines = LineBuffer::default();
        let (mut echoed_before, mut hung, mut refused, mut refused_echoes) = (None, 0, 0, 0);
        let mut numbers = std::collections::BTreeSet::new();
        while numbers.len() < usize::try_from(most)? + 9 {
            let Some(line) = lines.next_line()? else {
                let mut chunk = [0; 4096];
                let length = agent.read(&mut chunk).await?;
                anyhow::ensure!(length > 0, "the probe has hung up");
                lines.push(&chunk[..length]);
                continue;
            };
            let number = match frame::decode(&line)? {
                FromProbe::Watched { results } => {
                    for Watched { watch, outcomes } in results {
                        match outcomes.as_slice() {
                            [EchoOutcome::Answered { seen, rtt_us }] => {
                                assert!(seen.ip().is_loopback() && rtt_us.is_some());
                                echoed_before = Some(hung);
                            }
                            [EchoOutcome::Refused { .. }] => refused_echoes += 1,
                            others => anyhow::bail!("{others:?}"),
                        }
                        assert!(numbers.insert(watch), "watch {watch} was answered twice");
                    }
                    continue;
                }
                FromProbe::Checked { job, outcome: CheckOutcome::Failed { stage: Stage::Tls, .. } } => {
                    hung += 1;
                    job
                }
                FromProbe::Checked { job, outcome: CheckOutcome::Failed { stage: Stage::Dns, reason } } => {
                    assert!(reason.contains("too much"), "{reason}");
                    refused += 1;
                    job
                }
                other => anyhow::bail!("{other:?}"),
            };
            assert!(numbers.insert(number), "job {number} was answered twice");
        }
        assert_eq!((echoed_before, hung, refused, refused_echoes), (Some(0), most, 6, 2));
        drop(agent);
        assert_eq!(serving.await??, End::AgentGone);
        Ok(())
    })
}
