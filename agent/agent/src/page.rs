//! The status page: what it says, and the process that serves it.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use seimon_core::health::{Liveness, ServiceVerdict};
use seimon_core::migration::State;
use seimon_core::status::{self, Colour};
use seimon_core::status_page::{Matter, PageView, page};
use seimon_ipc::page::{FromPage, LISTENERS_ENV, ToPage};
use seimon_plan::{ValidSitePlan, ZoneId, ZoneRole};

use crate::agent::Agent;
use crate::children::{Program, Supervised, beside};
use crate::clock::Reading;

/// Where browsers look when somebody types nothing but an address.
const PORT: u16 = 80;

/// The page's server, and what it was told last.
#[derive(Debug)]
pub(crate) struct StatusPage {
    pub(crate) server: Supervised,
    program: Option<Program>,
    /// Minute and number of events for which the page was made: it changes with nothing else.
    made_for: Option<(i64, u64)>,
    /// Number of the PAC files that it was told last.
    pub(crate) pacs: u64,
    /// Said once, not at every attempt.
    complained: Option<String>,
}

impl StatusPage {
    pub(crate) fn new() -> Self {
        Self {
            server: Supervised::new("seimon-page"),
            program: None,
            made_for: None,
            pacs: 0,
            complained: None,
        }
    }

    fn lose(&mut self, error: &anyhow::Error, now: Reading) {
        tracing::warn!(error = format!("{error:#}"), "the status page's server is started again");
        self.server.stop(now.mono);
        (self.made_for, self.pacs) = (None, 0);
    }

    /// The zones have changed: other addresses.
    pub(crate) fn restart(&mut self, now: Reading) {
        self.server.stop(now.mono);
        self.server.hurry(now.mono);
        self.program = None;
        (self.made_for, self.pacs) = (None, 0);
    }

    /// What it says besides its greeting.
    pub(crate) fn listen(&mut self, now: Reading) -> Vec<FromPage> {
        let (mut messages, outcome) = self.server.receive::<FromPage>();
        if messages.iter().any(|message| matches!(message, FromPage::Hello { .. })) {
            (self.made_for, self.pacs) = (None, 0);
        }
        if let Err(error) = outcome {
            self.lose(&error, now);
        }
        messages.retain(|message| !matches!(message, FromPage::Hello { .. }));
        messages
    }

    pub(crate) fn flush(&mut self, now: Reading) {
        if let Err(error) = self.server.flush() {
            self.lose(&error, now);
        }
    }
}

/// The gateway's addresses in the zones, in the order of the listening sockets.
pub(crate) fn addresses(plan: &ValidSitePlan) -> impl Iterator<Item = (&ZoneId, SocketAddr)> {
    plan.zones.iter().flat_map(|(id, zone)| {
        let both = [Some(IpAddr::V4(zone.ipv4.addr())), zone.ipv6.map(|net| IpAddr::V6(net.addr()))];
        both.into_iter().flatten().map(move |address| (id, SocketAddr::new(address, PORT)))
    })
}

impl Agent {
    /// Keeps the server running. That it does not is a nuisance for readers and nothing else: traffic goes on.
    pub(crate) fn tend_page(&mut self, now: Reading) {
        if self.page.server.start_due().is_none_or(|at| at > now.mono) {
            return;
        }
        let started = self.prepare_page().and_then(|()| match &self.page.program {
            Some(program) => self.page.server.start(program, now.mono),
            None => anyhow::bail!("no listening sockets"),
        });
        match started {
            Ok(()) => self.page.complained = None,
            Err(error) => {
                self.page.server.postpone(now.mono);
                let text = format!("{error:#}");
                if self.page.complained.as_ref() != Some(&text) {
                    self.note(
                        "agent",
                        format!("学校向けの「ネットワークの様子」のページを出せません。自動でやり直します（{text}）"),
                        format!("the status page cannot be served, trying again: {text}"),
                        now,
                    );
                    self.page.complained = Some(text);
                }
            }
        }
    }

    fn prepare_page(&mut self) -> Result<()> {
        if self.page.program.is_some() {
            return Ok(());
        }
        let mut inherited = Vec::<OwnedFd>::new();
        for (_, address) in addresses(self.network.plan()) {
            let socket =
                TcpListener::bind(address).with_context(|| format!("TCP port {PORT} on {}", address.ip()))?;
            inherited.push(socket.into());
        }
        let mut environment = crate::conduct::child_environment();
        environment.push((LISTENERS_ENV.to_owned(), inherited.len().to_string()));
        let executable = beside(&self.executable, "seimon-page");
        self.page.program = Some(Program { executable, environment, inherited });
        Ok(())
    }

    /// Tells the server the page of the moment: at every event, and once a minute.
    pub(crate) fn show_page(&mut self, now: Reading) {
        if !self.page.server.is_running() {
            return;
        }
        let made_for = (now.wall.as_second().div_euclid(60), self.events.next());
        if self.page.made_for == Some(made_for) {
            return;
        }
        let plan = self.network.plan();
        let time = now.trusted.then(|| {
            let local = now.wall.to_zoned(plan.time_zone().clone());
            format!("{}月{}日 {}時{:02}分", local.month(), local.day(), local.hour(), local.minute())
        });
        let view = PageView {
            school: &plan.site.name,
            matter: self.matter(now),
            contacts: &plan.school.contacts,
            time,
        };
        let html = page(&view);
        self.page.server.send(&ToPage::Show { html });
        self.page.made_for = Some(made_for);
    }

    pub(crate) fn matter(&self, now: Reading) -> Matter {
        let plan = self.network.plan();
        let unknown = |path| self.health.liveness(path) == Liveness::Unknown;
        if !self.network.is_verified() {
            return Matter::NotSure;
        }
        if plan.paths.keys().all(unknown) {
            return Matter::Starting;
        }
        let (mut cut_off, mut reserve): (Vec<ZoneRole>, Vec<ZoneRole>) = Default::default();
        let (mut ill, mut putting_right) = (Vec::new(), !self.network.problems().is_empty());
        for (zone_group, machine) in &self.machines {
            let role = plan.zones.get(&zone_group.zone).map(|zone| zone.role);
            if let (State::Blocked { .. }, Some(role)) = (machine.state(), role) {
                if !cut_off.contains(&role) {
                    cut_off.push(role);
                }
                continue;
            }
            if let Some(role) = role
                .filter(|role| machine.config().is_emergency(machine.current()) && !reserve.contains(role))
            {
                reserve.push(role);
            }
            let colour = status::report(zone_group, machine.state(), machine.home()).colour;
            putting_right |= colour != Colour::Green;
            let view = self.view(zone_group, now);
            let facts = view.paths.get(machine.state().current());
            for (service, facts) in facts.into_iter().flat_map(|facts| &facts.services) {
                let word = seimon_core::acceptance::service_word(plan, service).ja;
                if facts.verdict == ServiceVerdict::Ill && !ill.contains(&word) {
                    ill.push(word);
                }
            }
        }
        if !reserve.is_empty() {
            cut_off.retain(|role| !reserve.contains(role));
            Matter::OnReserve { served: reserve, cut_off }
        } else if !cut_off.is_empty() {
            Matter::CutOff(cut_off)
        } else if !ill.is_empty() {
            Matter::ServiceIll(ill)
        } else if putting_right {
            Matter::PuttingRight
        } else {
            Matter::Fine
        }
    }
}
