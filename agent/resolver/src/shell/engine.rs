//! The loop around the decisions.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use seimon_board::Instant;
use seimon_ipc::resolver::{FromResolver, ToResolver, Transport, VERSION};
use seimon_plan::ZoneId;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::ask;
use crate::names::{Action, Limits, NoAnswer, Resolver, Without};

const STATS_EVERY: Duration = Duration::from_secs(10);

/// What the other tasks tell the engine.
#[derive(Debug)]
pub(super) enum Event {
    Query {
        zone: ZoneId,
        client: IpAddr,
        bytes: Vec<u8>,
        reply: ReplyTo,
    },
    Upstream {
        job: u64,
        outcome: Result<Vec<u8>, NoAnswer>,
    },
    Agent(ToResolver),
    /// With the reason when it was not an orderly end.
    AgentGone(Option<String>),
}

/// Where the answer to a query goes.
#[derive(Debug)]
pub(super) enum ReplyTo {
    Udp(Arc<UdpSocket>, SocketAddr),
    /// `None` sent: there will be no answer to one of the connection's queries.
    Tcp(mpsc::UnboundedSender<Option<Vec<u8>>>),
}

impl ReplyTo {
    fn transport(&self) -> Transport {
        match self {
            Self::Udp(..) => Transport::Udp,
            Self::Tcp(_) => Transport::Tcp,
        }
    }

    fn send(self, message: Option<Vec<u8>>) {
        match self {
            Self::Udp(socket, client) => {
                if let Some(message) = message.filter(|message| !message.is_empty())
                    && let Err(error) = socket.try_send_to(&message, client)
                {
                    tracing::debug!(%error, "an answer could not be sent");
                }
            }
            Self::Tcp(connection) => {
                // A closed connection wants no answer.
                let _ = connection.send(message);
            }
        }
    }
}

pub(super) async fn run(
    limits: Limits,
    without: Without,
    events: mpsc::Sender<Event>,
    mut queue: mpsc::Receiver<Event>,
    words: mpsc::UnboundedSender<FromResolver>,
) -> anyhow::Result<()> {
    let started = tokio::time::Instant::now();
    let now = || {
        let micros = started.elapsed().as_micros();
        Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    };
    let mut names = Resolver::new(limits, without);
    let mut replies: HashMap<u64, ReplyTo> = HashMap::new();
    let mut stats = tokio::time::interval_at(started + STATS_EVERY, STATS_EVERY);
    let tell = |word| {
        // When nobody writes any more, the agent is gone: the reader's last event says so.
        let _ = words.send(word);
    };
    tell(FromResolver::Hello { version: VERSION });
    loop {
        let timer = async {
            match names.poll_timeout() {
                Some(at) => tokio::time::sleep_until(started + Duration::from_micros(at.as_micros())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Receiving, sleeping and ticking lose nothing when another branch wins.
            event = queue.recv() => match event {
                Some(Event::Query { zone, client, bytes, reply }) => {
                    match names.handle_query(&zone, client, reply.transport(), &bytes, now()) {
                        Some(query) => { replies.insert(query, reply); }
                        None => reply.send(None),
                    }
                }
                Some(Event::Upstream { job, outcome }) => names.handle_upstream(job, outcome, now()),
                Some(Event::Agent(message)) => names.handle_agent(message, now()),
                Some(Event::AgentGone(None)) | None => return Ok(()),
                Some(Event::AgentGone(Some(reason))) => {
                    anyhow::bail!("the agent's socket failed: {reason}");
                }
            },
            () = timer => names.handle_timeout(now()),
            _ = stats.tick() => tell(FromResolver::Stats(names.stats())),
        }
        while let Some(action) = names.poll_action() {
            match action {
                Action::Answer { query, message } => {
                    if let Some(reply) = replies.remove(&query) {
                        reply.send(Some(message));
                    }
                }
                Action::Ask(ask) => {
                    let events = events.clone();
                    tokio::spawn(async move {
                        let job = ask.job;
                        let outcome = ask::ask(ask).await;
                        // A closed queue means that the program is ending.
                        let _ = events.send(Event::Upstream { job, outcome }).await;
                    });
                }
                Action::Tell(word) => tell(word),
            }
        }
    }
}
