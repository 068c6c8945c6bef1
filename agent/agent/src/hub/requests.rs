//! What the control socket's requests mean at a hub.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use seimon_core::hub::{self, HubOutcome, egress4, egress6, hub_sentence, school_end};
use seimon_core::status::Colour;
use seimon_ipc::control::{Bilingual, Command, DataplaneStatus, Response};
use seimon_ipc::hub::{HubAsk, HubExplanation, HubStatus, SchoolEnd};
use seimon_plan::{HubSchool, SiteId};

use super::{Hub, Loaded, load};
use crate::clock::Reading;
use crate::requests::{bilingual, defects, light, refused};

impl Hub {
    pub(super) fn answer(&mut self, command: Command) -> Response {
        self.clock.look();
        let now = self.clock.now();
        match command {
            Command::Hub { ask: HubAsk::Status } => {
                self.look(now);
                Response::Hub(Box::new(self.status(now)))
            }
            Command::Hub { ask: HubAsk::Explain { from, to } } => self.explain(&from, &to),
            Command::PlanShow => {
                Response::Plan { toml: self.loaded.toml.clone(), generation: self.network.generation().0 }
            }
            Command::PlanDiff { plan, file } => match self.load(&plan, &file) {
                Err(reasons) => Response::Refused { reasons },
                Ok(loaded) => match self.network.preview(&loaded.plan, now) {
                    Ok(changes) => Response::Diff { changes },
                    Err(error) => refused(format!("{error:#}")),
                },
            },
            Command::Apply { plan, file } => self.apply(&plan, &file, now),
            Command::Events { follow: _, since } => Response::Events { events: self.events.since(since) },
            Command::Status | Command::Explain { .. } => {
                of_schools("`seimonctl hub status`", "`seimonctl hub explain`")
            }
            Command::Migrate { .. }
            | Command::Wireguard { .. }
            | Command::EgressLetter { .. }
            | Command::Pac { .. }
            | Command::Acceptance { .. }
            | Command::LineUse { .. }
            | Command::Diagnostics => of_schools("`seimonctl hub --help`", "`seimonctl apply`"),
        }
    }

    fn load(&self, plan: &str, file: &str) -> Result<Loaded, Vec<Bilingual>> {
        if seimon_plan::role_of(plan) == seimon_plan::Role::School {
            return Err(vec![Bilingual {
                ja: "これは学校の計画です。センター（ハブ）の計画には、先頭に role = \"hub\" と書きます。"
                    .to_owned(),
                en: "this is a school's plan: a hub's says role = \"hub\" at its top".to_owned(),
            }]);
        }
        let folder = match Path::new(file).parent() {
            Some(folder) if Path::new(file).is_absolute() => folder.to_owned(),
            _ => self.loaded.folder.clone(),
        };
        load(plan.as_bytes(), file, &folder, &self.board).map_err(|error| defects(&error))
    }

    fn apply(&mut self, plan: &str, file: &str, now: Reading) -> Response {
        let loaded = match self.load(plan, file) {
            Ok(loaded) => loaded,
            Err(reasons) => return Response::Refused { reasons },
        };
        let before = self.loaded.plan.clone();
        let adopted = self
            .network
            .adopt_plan(loaded.plan.clone(), now)
            .and_then(|()| self.network.converge(now))
            // A plan that a restart would not find is not in force.
            .and_then(|_| self.store.save_plan(self.to_remember(&loaded)));
        if let Err(error) = adopted {
            let text = format!("{error:#}");
            let back = self.network.adopt_plan(before, now).and_then(|()| self.network.converge(now));
            if let Err(error) = back {
                tracing::error!(error = format!("{error:#}"), "going back to the plan before");
                self.converge_at = now.mono;
            }
            return refused(format!("not applied, the plan before stays in force: {text}"));
        }
        self.loaded = loaded;
        self.look_at = now.mono;
        let generation = self.network.generation().0;
        let message = Bilingual {
            ja: format!("計画（第 {generation} 版）を適用しました。"),
            en: format!("the plan is in force as generation {generation}"),
        };
        self.note("dataplane", message.ja.clone(), message.en.clone(), now);
        Response::Done { message }
    }

    pub(super) fn status(&self, now: Reading) -> HubStatus {
        let plan = self.network.plan();
        let ends: Vec<(Colour, SchoolEnd)> =
            plan.schools.iter().map(|(id, school)| self.school_end(id, school, now)).collect();
        let colours: Vec<Colour> = ends.iter().map(|(colour, _)| *colour).collect();
        let trouble = self.network.trouble();
        let (overall, sentence) = hub_sentence(&colours, trouble.as_deref());
        HubStatus {
            hub: plan.hub.id.clone(),
            name: plan.hub.name.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.network.generation().0,
            wall_ms: now.wall.as_millisecond(),
            clock_trusted: now.trusted,
            overall: light(overall),
            sentence: bilingual(sentence),
            public_key: self.network.own_key().map(|key| key.to_string()),
            listen_port: plan.tunnel.listen_port,
            problem: self.network.unusable().map(str::to_owned),
            schools: ends.into_iter().map(|(_, end)| end).collect(),
            dataplane: DataplaneStatus {
                verified: self.network.is_verified(),
                verified_ms_ago: self
                    .network
                    .verified_at()
                    .map(|at| u64::try_from(now.mono.since(at).as_millis()).unwrap_or(u64::MAX)),
                repairs: self.network.repairs(),
                problems: self.network.problems().to_vec(),
            },
        }
    }

    fn school_end(&self, id: &SiteId, school: &HubSchool, now: Reading) -> (Colour, SchoolEnd) {
        let plan = self.network.plan();
        let mut standing = self.network.roster().standing(id, school);
        let today = self.network.today();
        let counting: Vec<_> = today.keys(school).collect();
        standing.key =
            standing.key.or_else(|| counting.first().copied()).filter(|key| counting.contains(key));
        let (colour, sentence) = school_end(&standing, now.mono);
        let ago = |at: Option<seimon_board::Instant>| at.map(|at| now.mono.since(at).as_secs());
        let egress = [
            egress4(plan, id, school).map(IpAddr::V4),
            egress6(plan, id).filter(|_| school.ipv6.is_some()).map(IpAddr::V6),
        ];
        let end = SchoolEnd {
            school: id.clone(),
            name: school.name.clone(),
            light: light(colour),
            sentence: bilingual(sentence),
            key: standing.key.map(|key| key.to_string()),
            keys: u32::try_from(counting.len()).unwrap_or(u32::MAX),
            endpoint: standing.endpoint,
            handshake_s: ago(standing.handshake),
            heard_s: ago(standing.heard),
            received: standing.received,
            sent: standing.sent,
            egress: egress.into_iter().flatten().collect(),
            cap_kbit: school.cap.map(|cap| cap.kbit),
        };
        (colour, end)
    }

    fn explain(&self, from: &str, to: &str) -> Response {
        let plan = self.network.plan();
        let of_school = plan.schools.get(from).map(|school| IpAddr::V4(school.ipv4));
        let Some(source) = of_school.or_else(|| from.parse().ok()) else {
            return not_understood(
                format!(
                    "「{from}」は、学校の名前でも IP アドレスでもありません。学校の名前は `seimonctl hub status` で見られます。"
                ),
                format!(
                    "`{from}` is neither a school of the plan nor an IP address; `seimonctl hub status` lists the schools"
                ),
            );
        };
        let target = to.parse::<SocketAddr>().map(|to| (to.ip(), Some(to.port())));
        let Ok((destination, port)) = target.or_else(|_| to.parse::<IpAddr>().map(|ip| (ip, None))) else {
            return not_understood(
                format!(
                    "「{to}」は IP アドレスではありません。10.50.0.53 や 10.60.0.1:53 のように書いてください。"
                ),
                format!("`{to}` is no IP address: write it as in 10.50.0.53 or 10.60.0.1:53"),
            );
        };
        let answer = hub::explain(plan, source, destination, port);
        let name =
            answer.school.as_ref().and_then(|id| plan.schools.get(id)).map(|school| school.name.clone());
        let way = match answer.outcome {
            HubOutcome::ToTown => Some("town"),
            HubOutcome::ToInternet => Some("internet"),
            HubOutcome::ToHub => Some("hub"),
            HubOutcome::Refused => None,
        };
        Response::HubExplanation(Box::new(HubExplanation {
            allowed: way.is_some(),
            school: answer.school,
            school_name: name,
            way: way.map(str::to_owned),
            rule: answer.rule.to_owned(),
            seen_as: answer.seen_as,
            why: answer.why.into_iter().map(bilingual).collect(),
        }))
    }
}

fn not_understood(ja: String, en: String) -> Response {
    Response::Refused { reasons: vec![Bilingual { ja, en }] }
}

fn of_schools(first: &str, second: &str) -> Response {
    not_understood(
        format!(
            "これはセンター（ハブ）です。この操作は学校のゲートウェイで使います。ハブでは {first} か {second} を使ってください。"
        ),
        format!("this is a hub, and that is asked of schools' gateways: use {first} or {second} here"),
    )
}
