//! What the control socket's requests mean.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use seimon_board::MacAddress;
use seimon_core::health::{Liveness, Registration};
use seimon_core::migration::{self, State};
use seimon_core::network_plan::{bridge_name, tunnel_name};
use seimon_core::segmentation::{Outcome, Question, Target, explain, zone_of};
use seimon_core::status::{Colour, Sentence};
use seimon_ipc::control::{
    Bilingual, Command, DataplaneStatus, Explanation, GroupStatus, Light, MigrateAction, PathStatus,
    Response, ServiceStatus, Status, TunnelStatus, VERSION, WireguardAction,
};
use seimon_plan::{GroupId, PathId, Protocol, ServiceId, ZoneId};

use crate::agent::{Agent, health_config, restore_machines};
use crate::clock::Reading;
use crate::metrics::{self, Counters};
use crate::network::Choices;
use crate::plans::{self, LoadedPlan};
use crate::wording;

impl Agent {
    pub(crate) fn answer(&mut self, command: Command) -> Response {
        self.clock.look();
        let now = self.clock.now();
        match command {
            Command::Status => Response::Status(Box::new(self.status(now))),
            Command::PlanShow => {
                Response::Plan { toml: self.loaded.toml.clone(), generation: self.network.generation().0 }
            }
            Command::PlanDiff { plan, file } => self.plan_diff(&plan, &file, now),
            Command::Apply { plan, file } => self.apply(&plan, &file, now),
            Command::Explain { from, to } => self.explain(&from, &to, now),
            Command::Migrate { zone, group, action } => self.migrate(zone, group, action, now),
            Command::EgressLetter { service } => self.egress_letter(&service, now),
            Command::Wireguard { path, action } => self.wireguard(&path, action, now),
            Command::Events { follow: _, since } => Response::Events { events: self.events.since(since) },
            Command::Acceptance { run } => self.answer_acceptance(run, now),
            Command::LineUse { line, days } => self.answer_line_use(&line, days, now),
            Command::Pac { zone } => self.answer_pac(&zone, now),
            Command::Diagnostics => self.answer_diagnostics(now),
            Command::Hub { .. } => Response::Refused {
                reasons: vec![Bilingual {
                    ja: "これは学校のゲートウェイで、センター（ハブ）ではありません。".to_owned(),
                    en: "this is a school's gateway and no hub".to_owned(),
                }],
            },
        }
    }

    fn plan_diff(&mut self, plan: &str, file: &str, now: Reading) -> Response {
        let loaded = match self.load(plan, file) {
            Ok(loaded) => loaded,
            Err(reasons) => return Response::Refused { reasons },
        };
        let choices = self.choices_under(&loaded, now);
        match self.network.preview(&loaded.plan, &choices, now.calendar) {
            Ok(changes) => Response::Diff { changes },
            Err(error) => refused(format!("{error:#}")),
        }
    }

    fn load(&self, plan: &str, file: &str) -> Result<LoadedPlan, Vec<Bilingual>> {
        if seimon_plan::role_of(plan) == seimon_plan::Role::Hub {
            return Err(vec![Bilingual {
                ja: "これはセンター（ハブ）の計画です。学校のゲートウェイには適用できません。".to_owned(),
                en: "this is a hub's plan: it cannot be put in force at a school's gateway".to_owned(),
            }]);
        }
        let folder = match Path::new(file).parent() {
            Some(folder) if Path::new(file).is_absolute() => folder.to_owned(),
            _ => self.loaded.folder.clone(),
        };
        plans::load(plan.as_bytes(), file, &folder, &self.board).map_err(|error| defects(&error))
    }

    /// Where every group would be under another plan: where it is now, if the plan still allows that.
    fn choices_under(&self, loaded: &LoadedPlan, now: Reading) -> Choices {
        let (_, choices, _) = restore_machines(
            &loaded.plan,
            self.sabotage.mechanisms(),
            |zone_group| self.store.checkpoint(zone_group).cloned(),
            &self.boot,
            now,
        );
        choices
    }

    fn apply(&mut self, plan: &str, file: &str, now: Reading) -> Response {
        let loaded = match self.load(plan, file) {
            Ok(loaded) => loaded,
            Err(reasons) => return Response::Refused { reasons },
        };
        if let Some(busy) = self.machines.iter().find(|(_, machine)| machine.state().is_moving()) {
            return Response::Refused {
                reasons: vec![Bilingual {
                    ja: format!(
                        "{} の切り替えの途中です。終わってから適用するか、先に戻してください。",
                        busy.0
                    ),
                    en: format!(
                        "{} is being moved: apply the plan after that, or roll the move back first",
                        busy.0
                    ),
                }],
            };
        }
        let before = (self.loaded.clone(), self.network.choices().clone());
        let (machines, choices, _) = restore_machines(
            &loaded.plan,
            self.sabotage.mechanisms(),
            |zone_group| self.store.checkpoint(zone_group).cloned(),
            &self.boot,
            now,
        );
        let adopted = self
            .network
            .adopt_plan(loaded.plan.clone(), choices, now.calendar)
            .and_then(|()| self.store.save_allocation(self.network.allocation()))
            .and_then(|()| self.network.converge(now.mono))
            // A plan that a restart would not find is not in force.
            .and_then(|_| self.store.save_plan(self.to_remember(&loaded)));
        if let Err(error) = adopted {
            let text = format!("{error:#}");
            let back = self
                .network
                .adopt_plan(before.0.plan.clone(), before.1, now.calendar)
                .and_then(|()| self.network.converge(now.mono));
            if let Err(error) = back {
                tracing::error!(error = format!("{error:#}"), "going back to the plan before");
                self.converge_at = Some(now.mono);
            }
            return refused(format!("not applied, the plan before stays in force: {text}"));
        }
        self.loaded = loaded;
        self.machines = machines;
        self.health.reconfigure(health_config(&self.loaded.plan, &self.sabotage), now.mono);
        self.restart_children(now);
        let generation = self.network.generation().0;
        let message = Bilingual {
            ja: format!("計画（第 {generation} 版）を適用しました。"),
            en: format!("the plan is in force as generation {generation}"),
        };
        self.note("dataplane", message.ja.clone(), message.en.clone(), now);
        Response::Done { message }
    }

    fn wireguard(&mut self, path: &PathId, action: WireguardAction, now: Reading) -> Response {
        let outcome = match action {
            WireguardAction::Rotate => self.network.next_key(path).map(|public| Bilingual {
                ja: format!(
                    "経路 {path} の次の公開鍵は {public} です。今の鍵に加えてセンターに登録し、そのあと `seimonctl wireguard switch {path}` を実行してください。"
                ),
                en: format!(
                    "the next public key of path {path} is {public}: register it at the hub beside the present one, then \
                     run `seimonctl wireguard switch {path}`"
                ),
            }),
            WireguardAction::Switch => self.network.switch_key(path, now.mono).map(|()| {
                self.converge_at = Some(now.mono);
                Bilingual {
                    ja: format!("経路 {path} で新しい鍵を試しています。15 秒以内にセンターが応答しなければ前の鍵に戻します（`seimonctl events`）。"),
                    en: format!(
                        "trying the new key of path {path}; back to the one before if the hub does not answer within 15 s \
                         (`seimonctl events`)"
                    ),
                }
            }),
        };
        match outcome {
            Ok(message) => Response::Done { message },
            Err(error) => refused(format!("{error:#}")),
        }
    }

    fn tunnel_status(&self, path: &PathId, now: Reading) -> Option<TunnelStatus> {
        let (own, state) = self.network.tunnel(path, now.mono)?;
        let name = tunnel_name(path).ok()?;
        let hub = state.peers.values().next();
        Some(TunnelStatus {
            public_key: own.map(|key| key.to_string()),
            endpoint: hub.and_then(|hub| hub.endpoint),
            handshake_s: hub.and_then(|hub| hub.handshake).map(|age| age.as_secs()),
            received: hub.map_or(0, |hub| hub.received),
            sent: hub.map_or(0, |hub| hub.sent),
            problem: self.network.unusable_tunnels().get(&name).cloned(),
        })
    }

    fn migrate(&mut self, zone: ZoneId, group: GroupId, action: MigrateAction, now: Reading) -> Response {
        let zone_group = migration::ZoneGroup { zone, group };
        let command = match action {
            MigrateAction::Start { to } => migration::Command::Start { to },
            MigrateAction::Pause => migration::Command::Pause,
            MigrateAction::Resume => migration::Command::Resume,
            MigrateAction::Rollback => migration::Command::Rollback,
        };
        match self.command(&zone_group, command, now) {
            None => {
                let known: Vec<String> = self.machines.keys().map(ToString::to_string).collect();
                Response::Refused {
                    reasons: vec![Bilingual {
                        ja: format!("{zone_group} は計画にありません。あるのは {} です。", known.join("、")),
                        en: format!("the plan has no route for {zone_group}; it has {}", known.join(", ")),
                    }],
                }
            }
            Some(Err(vetoes)) => {
                Response::Refused { reasons: vetoes.iter().map(|veto| bilingual(veto.sentence())).collect() }
            }
            Some(Ok(())) => {
                let now_is = self
                    .machines
                    .get(&zone_group)
                    .map(|m| self.report(&zone_group, m, now).sentence)
                    .unwrap_or_default();
                Response::Done {
                    message: Bilingual {
                        ja: format!("{zone_group}：受け付けました。{}", now_is.ja),
                        en: format!("{zone_group}: accepted. {}", now_is.en),
                    },
                }
            }
        }
    }

    fn egress_letter(&self, service: &ServiceId, now: Reading) -> Response {
        let plan = self.network.plan();
        let Some(spec) = plan.services.get(service) else {
            let known: Vec<&str> = plan.services.keys().map(ServiceId::as_str).collect();
            return refused(format!("the plan has no service {service}; it has {}", known.join(", ")));
        };
        let routes = plan.routes().iter().filter(|route| route.group == spec.group);
        let registration = Registration {
            site: plan.site.name.clone(),
            service: service.to_string(),
            names: spec.names.clone(),
            registered: spec.registered_egress.iter().copied().collect(),
            seen: routes
                .flat_map(|route| &route.paths)
                .flat_map(|path| self.health.egress(path, now.mono))
                .collect(),
        };
        Response::Done { message: bilingual(registration.letter()) }
    }

    pub(crate) fn metrics(&mut self) -> String {
        let now = self.clock.now();
        let counters = Counters {
            child_starts: vec![
                (self.resolver.name(), self.resolver.starts()),
                (self.probe.name(), self.probe.starts()),
                (self.page.server.name(), self.page.server.starts()),
            ],
            resolver: self.resolver_stats.clone(),
            journal_bytes: self.store.bytes(),
            events: self.events.recorded(),
        };
        metrics::render(&self.status(now), &counters)
    }

    pub(crate) fn status(&self, now: Reading) -> Status {
        let groups: Vec<GroupStatus> = self.machines.keys().map(|zg| self.group_status(zg, now)).collect();
        let dataplane = DataplaneStatus {
            verified: self.network.is_verified(),
            verified_ms_ago: self
                .network
                .verified_at()
                .map(|at| u64::try_from(now.mono.since(at).as_millis()).unwrap_or(u64::MAX)),
            repairs: self.network.repairs(),
            problems: self.network.problems().to_vec(),
        };
        let mut overall = groups.iter().map(|group| group.light).max().unwrap_or(Light::Green);
        if !dataplane.problems.is_empty() {
            overall = overall.max(Light::Yellow);
        }
        if !dataplane.verified {
            overall = Light::Red;
        }
        let sentence = if dataplane.verified {
            wording::overall(overall)
        } else {
            Bilingual {
                ja: "通信の規則が計画どおりになっていません。自動でやり直しています。続くときは担当者に知らせてください。".to_owned(),
                en: "The network is not as the plan says. This is being retried; tell your IT contact if it stays so."
                    .to_owned(),
            }
        };
        Status {
            version: VERSION,
            site: self.network.plan().site.id.clone(),
            site_name: self.network.plan().site.name.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.network.generation().0,
            wall_ms: now.wall.as_millisecond(),
            clock_trusted: now.trusted,
            overall,
            sentence,
            paths: self.path_statuses(now),
            groups,
            services: self.service_statuses(now),
            dataplane,
            proxy: self.proxy_statuses(now),
            metered: self.metered_statuses(now),
        }
    }

    fn path_statuses(&self, now: Reading) -> Vec<PathStatus> {
        let paths = self.network.plan().paths.keys();
        paths
            .map(|path| {
                let liveness = self.health.path(path);
                PathStatus {
                    path: path.clone(),
                    health: match self.health.liveness(path) {
                        Liveness::Up => "up",
                        Liveness::Down => "down",
                        Liveness::Unknown => "unknown",
                    }
                    .to_owned(),
                    loss: liveness.and_then(|l| l.loss()).unwrap_or(0.0),
                    rtt_ms: liveness.and_then(|l| l.round_trip()).map(|rtt| rtt.as_secs_f64() * 1_000.0),
                    egress: self.health.egress(path, now.mono).into_iter().collect(),
                    tunnel: self.tunnel_status(path, now),
                }
            })
            .collect()
    }

    fn group_status(&self, zone_group: &migration::ZoneGroup, now: Reading) -> GroupStatus {
        let view = self.view(zone_group, now);
        let machine = self.machines.get(zone_group);
        let state = machine.map(migration::Machine::state);
        let route = self.network.plan().route(&zone_group.zone, &zone_group.group);
        let count = |of: &dyn Fn(&seimon_plan::PathId) -> u64| {
            route
                .into_iter()
                .flat_map(|r| r.all_paths())
                .map(|path| (path.clone(), of(path)))
                .collect::<Vec<_>>()
        };
        let clients = count(&|path| {
            self.way(zone_group, path).and_then(|(zg, way)| self.census.clients(zg, way)).unwrap_or(0)
        });
        let flows =
            count(&|path| self.way(zone_group, path).map_or(0, |(zg, way)| self.census.flows(zg, way)));
        let blocked = matches!(state, Some(State::Blocked { .. }));
        let remaining = machine
            .and_then(migration::Machine::poll_timeout)
            .filter(|_| state.is_some_and(State::is_moving))
            .map(|(at, _)| u64::try_from(at.since(now.mono).as_millis()).unwrap_or(u64::MAX));
        let vetoes = machine
            .filter(|m| match m.state() {
                State::Steady { path } => route.and_then(|r| r.paths.last()) != Some(path),
                State::Canary { .. } => true,
                State::Qualifying { .. }
                | State::CuttingOver { .. }
                | State::Soaking { .. }
                | State::RollingBack { .. }
                | State::Blocked { .. } => false,
            })
            .map(|m| m.vetoes(None, &view, now.mono))
            .unwrap_or_default();
        let report = machine.map(|m| self.report(zone_group, m, now));
        GroupStatus {
            zone: zone_group.zone.clone(),
            group: zone_group.group.clone(),
            state: state.map(|s| s.name().to_string()).unwrap_or_default(),
            path: state.filter(|_| !blocked).map(|s| s.current().clone()),
            target: state.and_then(|s| s.target().cloned()),
            clients,
            flows,
            paused: state.is_some_and(State::is_paused),
            forced_by_deadline: machine.map_or(0, migration::Machine::forced_by_deadline),
            remaining_ms: remaining,
            light: report.as_ref().map_or(Light::Yellow, |r| light(r.colour)),
            sentence: report.map(|r| bilingual(r.sentence)).unwrap_or_default(),
            vetoes: vetoes.iter().map(|veto| bilingual(veto.sentence())).collect(),
        }
    }

    fn service_statuses(&self, now: Reading) -> Vec<ServiceStatus> {
        let mut all = Vec::new();
        for zone_group in self.machines.keys() {
            for (path, facts) in self.view(zone_group, now).paths {
                for (service, facts) in facts.services {
                    let health = match facts.verdict {
                        seimon_core::health::ServiceVerdict::Well => "good",
                        seimon_core::health::ServiceVerdict::Ill => "ill",
                        seimon_core::health::ServiceVerdict::Unknown => "unknown",
                    };
                    all.push(ServiceStatus {
                        zone: zone_group.zone.clone(),
                        service,
                        path: path.clone(),
                        health: health.to_owned(),
                        median_ms: facts.median.map(|m| m.as_secs_f64() * 1_000.0),
                        failing: facts.failing.map(|(stage, detail)| format!("{stage:?}: {detail}")),
                    });
                }
            }
        }
        all
    }

    fn explain(&mut self, from: &str, to: &str, now: Reading) -> Response {
        let Ok(source) = from.parse::<IpAddr>() else {
            return refused(format!(
                "`{from}` is not an address: give the host's IPv4 or IPv6 address in the school, as in 10.20.1.100"
            ));
        };
        let plan = self.network.plan().in_force_at(now.calendar);
        let Some(zone) = zone_of(&plan, source) else {
            return refused(format!(
                "{source} is in none of the plan's zones, so nothing of it is forwarded"
            ));
        };
        let question = match question(&zone, to) {
            Ok(question) => question,
            Err(reason) => return refused(reason),
        };
        let client = self.client(&zone, source);
        let plugged = client.and_then(|client| self.port_of(&zone, client));
        let affinity = match self.network.refresh_affinity() {
            Ok(affinity) => affinity.to_vec(),
            Err(error) => return refused(format!("{error:#}")),
        };
        let told = explain(
            &plan,
            self.network.compiled(),
            &affinity,
            &Question { address: Some(source), client, plugged, ..question },
        );
        let egress = told
            .path
            .as_ref()
            .map(|path| self.health.egress(path, now.mono).into_iter().collect())
            .unwrap_or_default();
        let mut why: Vec<Bilingual> = told.why.into_iter().map(bilingual).collect();
        if let Some(group) = &told.group {
            let zone_group = migration::ZoneGroup { zone: zone.clone(), group: group.clone() };
            if let Some(machine) = self.machines.get(&zone_group) {
                why.push(bilingual(self.report(&zone_group, machine, now).sentence));
            }
        }
        Response::Explanation(Box::new(Explanation {
            allowed: told.outcome != Outcome::Refused,
            rule: told.rule,
            zone: Some(zone),
            service: told.service,
            group: told.group,
            path: told.path,
            inside: told.inside,
            real: told.real,
            egress,
            why,
        }))
    }

    /// The gateway's port, as printed on the case, by which the host was heard last.
    fn port_of(&mut self, zone: &ZoneId, client: MacAddress) -> Option<String> {
        let interface = self.network.heard_at(&bridge_name(zone).ok()?).remove(&client)?;
        let plan = self.network.plan();
        let zone = plan.zones.get(zone)?;
        let mut ports = zone.ports.iter().chain(&zone.trunks);
        ports.find(|port| plan.interface_of(port) == Some(&interface)).cloned()
    }

    /// The host's MAC address, if the gateway has heard from it lately: what it has learnt goes by that.
    fn client(&mut self, zone: &ZoneId, source: IpAddr) -> Option<MacAddress> {
        let bridge = bridge_name(zone).ok()?;
        match self.network.neighbours(&bridge) {
            Ok(neighbours) => neighbours.get(&source).copied(),
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "neighbours");
                None
            }
        }
    }
}

/// `NAME`, `ADDRESS`, `NAME:PORT`, `ADDRESS:PORT`, `[V6]:PORT`, each with `/tcp` or `/udp` after it if need be.
fn question(zone: &ZoneId, to: &str) -> Result<Question, String> {
    let (rest, protocol) = match to.rsplit_once('/') {
        None | Some((_, "tcp")) => (to.strip_suffix("/tcp").unwrap_or(to), Protocol::Tcp),
        Some((rest, "udp")) => (rest, Protocol::Udp),
        Some((_, other)) => return Err(format!("`{other}` is not a protocol: write tcp or udp")),
    };
    let (host, port) = if rest.parse::<IpAddr>().is_ok() {
        (rest, None)
    } else if let Ok(socket) = rest.parse::<SocketAddr>() {
        return Ok(asked(zone, Target::Address(socket.ip()), protocol, Some(socket.port())));
    } else {
        match rest.rsplit_once(':') {
            None => (rest, None),
            Some((host, port)) => {
                let port = port.parse().map_err(|_| format!("`{port}` is not a port: write 1 to 65535"))?;
                (host, Some(port))
            }
        }
    };
    let target = match host.trim_matches(['[', ']']).parse() {
        Ok(address) => Target::Address(address),
        Err(_) if host.is_empty() => return Err("where to? Give a name or an address".to_owned()),
        Err(_) => Target::Name(host.trim_end_matches('.').to_ascii_lowercase()),
    };
    Ok(asked(zone, target, protocol, port))
}

fn asked(zone: &ZoneId, to: Target, protocol: Protocol, port: Option<u16>) -> Question {
    Question { from: zone.clone(), address: None, client: None, plugged: None, to, protocol, port }
}

/// What is wrong with a plan, one reason a defect.
pub(crate) fn defects(error: &anyhow::Error) -> Vec<Bilingual> {
    let Some(errors) = error.downcast_ref::<seimon_plan::PlanErrors>() else {
        return vec![both(format!("{error:#}"))];
    };
    let more = (errors.omitted > 0).then(|| Bilingual {
        ja: format!("ほかに {} 件の誤りがあります。", errors.omitted),
        en: format!("and {} more errors", errors.omitted),
    });
    errors.iter().map(|e| Bilingual { ja: e.ja(), en: e.to_string() }).chain(more).collect()
}

fn both(text: String) -> Bilingual {
    Bilingual { ja: text.clone(), en: text }
}

pub(crate) fn refused(text: String) -> Response {
    Response::Refused { reasons: vec![both(text)] }
}

pub(crate) fn bilingual(sentence: Sentence) -> Bilingual {
    Bilingual { ja: sentence.ja, en: sentence.en }
}

pub(crate) fn light(colour: Colour) -> Light {
    match colour {
        Colour::Green => Light::Green,
        Colour::Yellow => Light::Yellow,
        Colour::Red => Light::Red,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read_in_every_form_that_people_write() {
        let zone = ZoneId::new("affairs").unwrap();
        let name = |n: &str| Target::Name(n.to_owned());
        let address = |a: &str| Target::Address(a.parse().unwrap());
        for (text, to, protocol, port) in [
            ("Affairs.School.example.", name("affairs.school.example"), Protocol::Tcp, None),
            ("affairs.school.example:8443", name("affairs.school.example"), Protocol::Tcp, Some(8443)),
            ("drill.school.example:7000/udp", name("drill.school.example"), Protocol::Udp, Some(7000)),
            ("10.50.0.10:445", address("10.50.0.10"), Protocol::Tcp, Some(445)),
            ("2001:db8::7", address("2001:db8::7"), Protocol::Tcp, None),
            ("[2001:db8::7]:53/udp", address("2001:db8::7"), Protocol::Udp, Some(53)),
        ] {
            assert_eq!(question(&zone, text), Ok(asked(&zone, to, protocol, port)), "{text}");
        }
        for bad in ["", "name:port", "name:70000", "name/icmp"] {
            assert!(question(&zone, bad).is_err(), "{bad}");
        }
    }
}
