//! Single trials of an acceptance test: is a name answered, does a page come, is a machine there, how fast is a line.

use std::io;

use seimon_ipc::probe::{CheckOutcome, Trial, TrialOutcome};
use tokio::time::{Duration, Instant, timeout};

use crate::check::{self, Trust};
use crate::source::Source;

/// Says within `limit` how it went.
pub(crate) async fn attempt(source: &Source, trial: &Trial, trust: &Trust, limit: Duration) -> TrialOutcome {
    match trial {
        Trial::Name { server, name } => said(check::name(source, *server, name, limit).await),
        Trial::Check { check } => said(check::check(source, check, trust, limit).await),
        Trial::Connect { target, hops } => {
            let begun = Instant::now();
            let tried = timeout(limit, source.tcp_within(*target, *hops)).await;
            let took_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            match tried {
                Err(_) => TrialOutcome::Silent,
                Ok(Ok(_)) => TrialOutcome::Connected { took_us },
                Ok(Err(error)) => not_connected(&error, took_us),
            }
        }
        Trial::Load { check, for_ms } => {
            match check::load(source, check, trust, limit, Duration::from_millis(*for_ms)).await {
                Ok((bytes, took)) => TrialOutcome::Loaded {
                    bytes,
                    took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                },
                Err(outcome) => said(outcome),
            }
        }
    }
}

fn said(outcome: CheckOutcome) -> TrialOutcome {
    match outcome {
        CheckOutcome::Good { total_us } => TrialOutcome::Well { took_us: total_us },
        CheckOutcome::Failed { stage, reason } => TrialOutcome::Stopped { stage, reason },
    }
}

fn not_connected(error: &io::Error, took_us: u64) -> TrialOutcome {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, PermissionDenied, TimedOut,
    };
    let kind = error.kind();
    if matches!(kind, ConnectionRefused | ConnectionReset | PermissionDenied) {
        TrialOutcome::Refused { took_us }
    } else if matches!(kind, HostUnreachable | NetworkUnreachable) {
        TrialOutcome::NobodyThere { took_us }
    } else if kind == TimedOut {
        TrialOutcome::Silent
    } else {
        TrialOutcome::NotTried { reason: crate::source::in_words(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seimon_board::InterfaceName;

    fn here() -> Source {
        Source {
            ipv4: std::net::Ipv4Addr::LOCALHOST,
            ipv6: None,
            interface: "lo".parse::<InterfaceName>().unwrap(),
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn connect(target: std::net::SocketAddr, limit: Duration) -> TrialOutcome {
        let trial = Trial::Connect { target, hops: Some(2) };
        runtime().block_on(attempt(&here(), &trial, &Trust::load(), limit))
    }

    #[test]
    fn somebody_who_listens_is_connected_to_and_a_closed_port_refuses() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let outcome = connect(target, Duration::from_secs(5));
        assert!(matches!(outcome, TrialOutcome::Connected { .. }), "{outcome:?}");
        drop(listener);
        let outcome = connect(target, Duration::from_secs(5));
        assert!(matches!(outcome, TrialOutcome::Refused { .. }), "{outcome:?}");
    }

    #[test]
    fn a_trial_that_cannot_be_made_says_so_and_is_not_taken_for_a_refusal() {
        let target = "[2001:db8::1]:80".parse().unwrap();
        let outcome = connect(target, Duration::from_secs(5));
        assert!(matches!(outcome, TrialOutcome::NotTried { .. }), "the zone has no IPv6: {outcome:?}");
    }
}
