//! The town hall's proxy: who uses it, what the zones' browsers are told, and what that means for whoever is at work.
//!
//! Where the gateway serves the PAC files, somebody in the middle of a log-in may learn from a new one that the service is now
//! to be reached directly. The service knows that log-in by the town hall's address. So a client that has worked through the
//! proxy is on the proxy's path for the gateway, too, until it has taken a file that sends it elsewhere: from then on it is
//! treated as anybody who is logged in on that path.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use seimon_core::health::PathFacts;
use seimon_core::migration::{Machine, State, ZoneGroup};
use seimon_core::network_plan::{Flow, PathIndex, ZoneGroupIndex};
use seimon_core::proxy::{PacFile, Proxied, ProxyUse, Watch};
use seimon_core::segmentation::zone_of;
use seimon_core::status::{self, Report};
use seimon_ipc::control::{Bilingual, ProxyStatus, Response};
use seimon_ipc::page::{FromPage, ToPage};
use seimon_plan::{GroupId, Pac, PathId, Proxy, ServiceId, ZoneId};

use crate::agent::Agent;
use crate::clock::Reading;
use crate::conduct::Look;
use crate::requests::bilingual;

const TCP: u8 = 6;

/// What is known about the proxy's use.
#[derive(Debug, Default)]
pub(crate) struct ProxyWatch {
    pub(crate) watch: Watch,
}

type Way = (ZoneGroupIndex, PathIndex);

impl Agent {
    /// The plan's proxy and the path on which it is.
    fn proxy(&self) -> Option<(&Proxy, &PathId)> {
        let plan = self.network.plan();
        Some((plan.proxy.as_ref()?, &plan.hub.as_ref()?.path))
    }

    fn serves_pac(&self) -> bool {
        self.proxy().is_some_and(|(proxy, _)| proxy.pac == Pac::Serve) && !self.sabotage.off("pac")
    }

    /// Takes note of the flows to the proxy. What comes back: who is at work there, as seen by the gateway's paths.
    pub(crate) fn watch_proxy(
        &mut self,
        flows: &[Flow],
        ours: impl Fn(IpAddr) -> bool,
        now: Reading,
    ) -> BTreeSet<(Way, IpAddr)> {
        let plan = self.network.plan();
        let Some(proxy) = &plan.proxy else { return BTreeSet::new() };
        let to_proxy = |flow: &&Flow| {
            flow.protocol == TCP
                && (flow.destination, flow.destination_port) == (proxy.address, proxy.port)
                && flow.answered
                && !ours(flow.source)
        };
        let proxied: Vec<Proxied> = flows
            .iter()
            .filter(to_proxy)
            .filter_map(|flow| {
                let zone = zone_of(plan, flow.source)?;
                Some(Proxied { id: flow.id, zone, client: flow.source, bytes: flow.bytes })
            })
            .collect();
        let at_work = self.proxy.watch.look(&proxied, now.mono);
        if !self.serves_pac() {
            return BTreeSet::new();
        }
        let Some((_, over)) = self.proxy() else { return BTreeSet::new() };
        let mut behind = BTreeSet::new();
        for (zone, client) in at_work {
            for zone_group in self.machines.keys().filter(|zone_group| zone_group.zone == zone) {
                if !self.proxy.watch.knows(&zone, &zone_group.group, client)
                    && let Some(way) = self.way(zone_group, over)
                {
                    behind.insert((way, client));
                }
            }
        }
        behind
    }

    /// A look out of turn, before something is decided. Whoever is at work is on the proxy's path from now on.
    pub(crate) fn look_at_proxy(&mut self, now: Reading) {
        if self.network.plan().proxy.is_none() {
            return;
        }
        if let Err(error) = self.count(Look::Now, now) {
            tracing::warn!(error = format!("{error:#}"), "flows to the proxy");
        }
    }

    /// Who would not be moved by moving to `path`.
    pub(crate) fn bypassed(&self, zone: &ZoneId, path: &PathId, now: Reading) -> Option<ProxyUse> {
        let (proxy, over) = self.proxy()?;
        if proxy.pac == Pac::Serve || over == path {
            return None;
        }
        Some(self.proxy.watch.used(zone, now.mono)).filter(|used| !used.is_none())
    }

    /// How a group is, in the words that people get.
    pub(crate) fn report(&self, zone_group: &ZoneGroup, machine: &Machine, now: Reading) -> Report {
        let emergency = match machine.state() {
            State::Steady { path } => Some(path).filter(|path| machine.config().is_emergency(path)),
            State::Qualifying { .. }
            | State::Canary { .. }
            | State::CuttingOver { .. }
            | State::Soaking { .. }
            | State::RollingBack { .. }
            | State::Blocked { .. } => None,
        };
        let report = match emergency {
            Some(path) => status::on_emergency_line(zone_group, path),
            None => status::report(zone_group, machine.state(), machine.home()),
        };
        let ill = self.ill(zone_group, machine.current(), now);
        let report = status::with_ill(report, zone_group, machine.state(), &ill);
        let Some((_, over)) = self.proxy() else { return report };
        // On the proxy's own path everybody is seen from the same place.
        if machine.current() == over {
            return report;
        }
        let mut used = self.proxy.watch.used(&zone_group.zone, now.mono);
        if self.serves_pac() {
            used.clients = self.proxy.watch.uninformed(&zone_group.zone, &zone_group.group, now.mono);
            if used.clients == 0 {
                return report;
            }
        }
        status::with_proxy(report, &zone_group.zone, used)
    }

    /// Services of the group that are known not to work over `path`.
    fn ill(&self, zone_group: &ZoneGroup, path: &PathId, now: Reading) -> Vec<ServiceId> {
        let view = self.view(zone_group, now);
        view.paths.get(path).into_iter().flat_map(PathFacts::ill).cloned().collect()
    }

    /// Groups that the zone's browsers are to reach directly: those whose new flows take another path than the proxy's.
    fn direct_groups(&self, zone: &ZoneId) -> BTreeSet<GroupId> {
        let Some((_, over)) = self.proxy() else { return BTreeSet::new() };
        let moved = |machine: &Machine| match machine.state() {
            // Not before the kernel has it.
            State::CuttingOver { from, .. } => from != over,
            State::Steady { .. }
            | State::Qualifying { .. }
            | State::Canary { .. }
            | State::Soaking { .. }
            | State::RollingBack { .. }
            | State::Blocked { .. } => machine.current() != over,
        };
        self.machines
            .iter()
            .filter(|(zone_group, machine)| zone_group.zone == *zone && moved(machine))
            .map(|(zone_group, _)| zone_group.group.clone())
            .collect()
    }

    fn pac_file(&self, zone: &ZoneId, now: Reading) -> Option<PacFile> {
        PacFile::of_zone(self.network.plan(), zone, &self.direct_groups(zone), now.calendar)
    }

    /// Tells the page's server the PAC files of the moment, whenever they are others.
    pub(crate) fn show_pacs(&mut self, now: Reading) {
        if !self.serves_pac() || !self.page.server.is_running() {
            return;
        }
        let Some((proxy, _)) = self.proxy() else { return };
        let direct: BTreeMap<ZoneId, BTreeSet<GroupId>> =
            proxy.zones.iter().map(|zone| (zone.clone(), self.direct_groups(zone))).collect();
        let serial = self.proxy.watch.serve(&direct);
        if self.page.pacs == serial {
            return;
        }
        let files: BTreeMap<&ZoneId, String> =
            direct.keys().filter_map(|zone| Some((zone, self.pac_file(zone, now)?.to_string()))).collect();
        let by_listener =
            crate::page::addresses(self.network.plan()).map(|(zone, _)| files.get(zone).cloned()).collect();
        self.page.server.send(&ToPage::Pacs { serial, files: by_listener });
        self.page.pacs = serial;
    }

    /// Clients that are about to get PAC files. What they did until now they did without knowing them.
    pub(crate) fn hear_of_pacs(&mut self, words: Vec<FromPage>, now: Reading) {
        let zones: Vec<ZoneId> =
            crate::page::addresses(self.network.plan()).map(|(zone, _)| zone.clone()).collect();
        let mut takers = Vec::new();
        for word in words {
            let FromPage::TookPac { listener, client, serial } = word else { continue };
            takers.extend(zones.get(listener).map(|zone| (zone, client, serial)));
        }
        if takers.iter().any(|(zone, client, serial)| self.proxy.watch.is_news(zone, *client, *serial)) {
            self.look_at_proxy(now);
        }
        for (zone, client, serial) in takers {
            self.proxy.watch.took(zone, client, serial, now.mono);
            self.page.server.send(&ToPage::Noted { client, serial });
        }
    }

    pub(crate) fn answer_pac(&self, zone: &ZoneId, now: Reading) -> Response {
        match self.pac_file(zone, now) {
            Some(file) => Response::Pac { text: file.to_string() },
            None => Response::Refused {
                reasons: vec![Bilingual {
                    ja: format!(
                        "計画では、ゾーン「{zone}」に庁舎のプロキシがありません（[proxy] の `zones`）。"
                    ),
                    en: format!("the plan sets no proxy for zone `{zone}`: see `zones` under [proxy]"),
                }],
            },
        }
    }

    pub(crate) fn proxy_statuses(&self, now: Reading) -> Vec<ProxyStatus> {
        let Some((proxy, _)) = self.proxy() else { return Vec::new() };
        let status = |zone: &ZoneId| {
            let watch = &self.proxy.watch;
            let ProxyUse { clients, flows } = watch.used(zone, now.mono);
            let direct = self.direct_groups(zone);
            let uninformed = direct.iter().map(|group| watch.uninformed(zone, group, now.mono)).max();
            let mut status = ProxyStatus {
                zone: zone.clone(),
                clients,
                flows,
                looked_for_pac: watch.asking(zone, now.mono),
                pac_served: self.serves_pac(),
                uninformed: uninformed.unwrap_or(0),
                sentence: Bilingual::default(),
            };
            status.sentence = bilingual(sentence(&status));
            status
        };
        proxy.zones.iter().map(status).collect()
    }
}

fn sentence(status: &ProxyStatus) -> status::Sentence {
    let ProxyStatus { zone, clients, flows, looked_for_pac, pac_served, uninformed, sentence: _ } = status;
    let (mut ja, mut en) = if *clients == 0 {
        (
            format!("「{zone}」では、この 1 時間、庁舎のプロキシは使われていません。"),
            format!("Nobody in zone {zone} has used the town's proxy in the last hour."),
        )
    } else {
        (
            format!(
                "「{zone}」の端末が、まだ庁舎のプロキシを使っています（この 1 時間に {clients} 台、{flows} 件）。"
            ),
            format!(
                "Clients of zone {zone} still use the town's proxy: {clients} clients, {flows} flows in the last hour."
            ),
        )
    };
    if *looked_for_pac > 0 && !pac_served {
        ja += &format!("{looked_for_pac} 台が自動設定（WPAD）を探しました。");
        en += &format!(" {looked_for_pac} clients looked for a PAC file (WPAD).");
    }
    if *pac_served {
        if *uninformed > 0 {
            ja += &format!(
                "そのうち {uninformed} 台は、移行済みのサービスへ直接つなぐ設定（PAC）をまだ読んでいません。"
            );
            en += &format!(" {uninformed} of them have not read the PAC file that sends them directly.");
        } else {
            ja += "移行済みのサービスへは直接つながります（PAC を配布中）。";
            en += " A PAC file is served: services that have moved are reached directly.";
        }
    }
    status::Sentence::new(ja, en)
}
