//! The processes beside the agent: heard, told, started again.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use seimon_core::health::Liveness;
use seimon_ipc::probe::{FromProbe, ToProbe};
use seimon_ipc::resolver::{FromResolver, LISTENERS_ENV, Listener, PathUp, ToResolver, Transport};

use super::examining::ground;
use crate::agent::{Agent, ProbeState};
use crate::children::Program;
use crate::clock::Reading;
use crate::views;

/// First inherited descriptor after the socket pair.
const FIRST_LISTENER_FD: i32 = 4;

impl Agent {
    pub(crate) fn listen_to_children(&mut self, now: Reading) {
        let (messages, outcome) = self.resolver.receive::<FromResolver>();
        for message in messages {
            self.hear_resolver(message, now);
        }
        if let Err(error) = outcome {
            self.lose_resolver(&error, now);
        }
        let words = self.page.listen(now);
        self.hear_of_pacs(words, now);
        let (messages, outcome) = self.probe.receive::<FromProbe>();
        for message in messages {
            if let Err(error) = self.hear_probe(message, now) {
                self.lose_probe(&error, now);
            }
        }
        if let Err(error) = outcome {
            self.lose_probe(&error, now);
        }
    }

    fn lose_resolver(&mut self, error: &anyhow::Error, now: Reading) {
        tracing::warn!(error = format!("{error:#}"), "the resolver is started again");
        self.resolver.stop(now.mono);
        self.resolver_config = None;
    }

    pub(super) fn lose_probe(&mut self, error: &anyhow::Error, now: Reading) {
        tracing::warn!(error = format!("{error:#}"), "the probe is started again");
        self.probe.stop(now.mono);
        self.probe_state = ProbeState::Off;
        self.probing.abandon();
        self.acceptance.abandon();
    }

    fn hear_resolver(&mut self, message: FromResolver, now: Reading) {
        match message {
            FromResolver::Hello { version } => {
                tracing::info!(version, "the resolver is there");
                self.resolver_config = None;
                self.resolver_outdated = true;
            }
            FromResolver::Bind { token, zone, name, path, ipv4, ipv6 } => {
                let reply = match self.network.bind(&zone, &name, &path, ipv4, ipv6) {
                    Ok(()) => ToResolver::InForce { token },
                    Err(error) => {
                        let reason = format!("{error:#}");
                        self.note(
                            "dataplane",
                            format!("名前の宛先を設定できません（{reason}）"),
                            format!("an address could not be put in force: {reason}"),
                            now,
                        );
                        ToResolver::NotInForce { token, reason }
                    }
                };
                self.resolver.send(&reply);
            }
            FromResolver::Stats(stats) => self.resolver_stats = stats,
            FromResolver::Wpad { zone, client } => self.proxy.watch.asked(&zone, client, now.mono),
        }
    }

    fn hear_probe(&mut self, message: FromProbe, now: Reading) -> Result<()> {
        match message {
            FromProbe::Hello { version: _, pid } => {
                // The far ends of these died with the probe before it, or are about to.
                self.network.remove_probe_links()?;
                self.converge(now);
                self.network.hand_over_probe_links(pid)?;
                let hosts = views::probe_hosts(self.network.plan(), self.network.allocation());
                self.probe.send(&ToProbe::Configure { hosts });
                self.probe_state = ProbeState::Greeted;
            }
            FromProbe::Configured { error: Some(error) } => {
                anyhow::bail!("it could not set itself up: {error}")
            }
            FromProbe::Configured { error: None } => {
                tracing::info!("the probe is ready");
                self.probe_state = ProbeState::Ready;
                self.send_watch(now);
            }
            FromProbe::Tried { job, outcome } => self.acceptance.take(job, outcome),
            report @ (FromProbe::Watched { .. } | FromProbe::Checked { .. }) => {
                for finished in self.probing.finish(report, now.mono) {
                    self.take(finished, now);
                }
            }
        }
        Ok(())
    }

    /// Which echoes the probe is to send from now on.
    pub(crate) fn send_watch(&mut self, now: Reading) {
        let orders = self.health.echo_orders();
        let watch = self.probing.watch(orders, ground(&self.network, &self.loaded), now.mono);
        self.probe.send(&watch);
    }

    /// Starts what is not running and due.
    pub(crate) fn tend_children(&mut self, now: Reading) {
        self.tend_page(now);
        if self.resolver.start_due().is_some_and(|at| at <= now.mono) {
            let started = self.prepare_resolver().and_then(|()| match &self.resolver_program {
                Some(program) => self.resolver.start(program, now.mono),
                None => anyhow::bail!("no listening sockets"),
            });
            if let Err(error) = started {
                self.complain_of_child(self.resolver.name(), &error, now);
                self.resolver.postpone(now.mono);
            }
        }
        if self.probe.start_due().is_some_and(|at| at <= now.mono) {
            self.probe_state = ProbeState::Off;
            let program = Program {
                executable: self.probe_executable(),
                environment: child_environment(),
                inherited: Vec::new(),
            };
            if let Err(error) = self.probe.start(&program, now.mono) {
                self.complain_of_child(self.probe.name(), &error, now);
                self.probe.postpone(now.mono);
            }
        }
    }

    fn complain_of_child(&mut self, child: &str, error: &anyhow::Error, now: Reading) {
        self.note(
            "agent",
            format!("{child} を起動できません。自動でやり直します（{error:#}）"),
            format!("{child} could not be started, trying again: {error:#}"),
            now,
        );
    }

    /// Sockets on port 53 of every zone, kept open while resolvers come and go.
    fn prepare_resolver(&mut self) -> Result<()> {
        if self.resolver_program.is_some() {
            return Ok(());
        }
        let (mut listeners, mut inherited) = (Vec::new(), Vec::<OwnedFd>::new());
        for (zone, address) in views::dns_addresses(self.network.plan()) {
            let udp = UdpSocket::bind(address).with_context(|| format!("UDP port 53 on {}", address.ip()))?;
            let tcp =
                TcpListener::bind(address).with_context(|| format!("TCP port 53 on {}", address.ip()))?;
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            for (protocol, fd) in [(Transport::Udp, OwnedFd::from(udp)), (Transport::Tcp, OwnedFd::from(tcp))]
            {
                let number = FIRST_LISTENER_FD + i32::try_from(inherited.len())?;
                listeners.push(Listener { fd: number, zone: zone.clone(), protocol, address });
                inherited.push(fd);
            }
        }
        let mut environment = child_environment();
        environment.push((LISTENERS_ENV.to_owned(), serde_json::to_string(&listeners)?));
        environment.push(("SEIMON_WITHOUT".to_owned(), self.sabotage.names()));
        let executable = self.resolver_executable();
        self.resolver_program = Some(Program { executable, environment, inherited });
        Ok(())
    }

    /// The plan's zones or probe hosts have changed: both children begin anew.
    pub(crate) fn restart_children(&mut self, now: Reading) {
        self.resolver.stop(now.mono);
        self.resolver.hurry(now.mono);
        self.resolver_program = None;
        self.resolver_config = None;
        self.resolver_outdated = true;
        self.page.restart(now);
        self.probe.stop(now.mono);
        self.probe.hurry(now.mono);
        self.probe_state = ProbeState::Off;
        self.probing.abandon();
        self.acceptance.abandon();
    }

    /// Sends the resolver its configuration if it is another than the one it has.
    pub(crate) fn tell_resolver(&mut self, now: Reading) {
        if !self.resolver.is_running() {
            return;
        }
        let current = self
            .machines
            .iter()
            .map(|(zg, machine)| ((zg.zone.clone(), zg.group.clone()), Some(machine.current().clone())))
            .collect();
        let up = self
            .network
            .plan()
            .paths
            .keys()
            .map(|path| {
                let up = match self.health.liveness(path) {
                    Liveness::Down => PathUp::Down,
                    Liveness::Up | Liveness::Unknown => PathUp::Up,
                };
                (path.clone(), up)
            })
            .collect();
        let paths = self.network.plan().paths.keys();
        let apart = !self.sabotage.off("families-apart");
        let without_ipv6 =
            paths.filter(|path| apart && self.health.ipv6(path) == Liveness::Down).cloned().collect();
        let config = views::resolver_config(
            self.network.plan(),
            self.network.allocation(),
            &current,
            &up,
            &without_ipv6,
            &self.metering.needed,
            now.calendar,
        );
        if self.resolver_config.as_ref() != Some(&config) {
            self.resolver.send(&ToResolver::Configure(config.clone()));
            self.resolver_config = Some(config);
        }
    }

    pub(crate) fn flush_children(&mut self, now: Reading) {
        if let Err(error) = self.resolver.flush() {
            self.lose_resolver(&error, now);
        }
        self.page.flush(now);
        if let Err(error) = self.probe.flush() {
            self.lose_probe(&error, now);
        }
    }
}

pub(crate) fn child_environment() -> Vec<(String, String)> {
    // Where to find the system's certificate authorities, and how much to log; nothing else is inherited.
    ["SEIMON_LOG", "SSL_CERT_FILE", "SSL_CERT_DIR"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
        .collect()
}
