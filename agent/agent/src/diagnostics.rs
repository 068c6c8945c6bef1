//! The diagnostic pack: what whoever helps from afar needs, without anything that leads to a person. Put together and
//! cleaned here, so that nothing else ever leaves the agent.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Result;
use seimon_core::scrub::Scrubber;
use seimon_ipc::control::Response;
use seimon_ipc::report::Diagnostics;
use seimon_plan::{SitePlan, ValidSitePlan};

use crate::agent::Agent;
use crate::clock::Reading;
use crate::requests::refused;

const REMOVED: &str = "[removed]";

impl Agent {
    pub(crate) fn answer_diagnostics(&mut self, now: Reading) -> Response {
        match self.diagnostics(now) {
            Ok(files) => Response::Diagnostics(Diagnostics { files }),
            Err(error) => refused(format!("{error:#}")),
        }
    }

    fn diagnostics(&mut self, now: Reading) -> Result<BTreeMap<String, String>> {
        let status = self.status(now);
        let mut known = addresses_of(self.network.plan());
        known.extend(status.paths.iter().flat_map(|path| path.egress.iter().copied()));
        let allocation = self.network.allocation();
        known.extend(allocation.inside.values().flat_map(|(v4, v6)| [IpAddr::V4(*v4), IpAddr::V6(*v6)]));
        known
            .extend(allocation.path_sources.values().flat_map(|(v4, v6)| [IpAddr::V4(*v4), IpAddr::V6(*v6)]));
        known.extend(
            allocation.probes.values().flat_map(|host| [IpAddr::V4(host.ipv4), IpAddr::V6(host.ipv6)]),
        );
        let mut scrubber = Scrubber::new(known, words_of(self.network.plan()));
        let metrics = self.metrics();
        let mut events = String::new();
        for event in self.events.since(0) {
            events.push_str(&serde_json::to_string(&event)?);
            events.push('\n');
        }
        let mut use_of_lines = Vec::new();
        for (line, date, day) in self.line_use.ledger.records() {
            use_of_lines.push(serde_json::json!({ "line": line, "date": date.to_string(), "day": day }));
        }
        let plan = without_people(self.network.plan());
        let mut files = BTreeMap::from([
            ("about.txt".to_owned(), self.about(now)),
            ("status.json".to_owned(), serde_json::to_string_pretty(&status)?),
            ("events.jsonl".to_owned(), events),
            ("metrics.txt".to_owned(), metrics),
            ("plan.json".to_owned(), serde_json::to_string_pretty(&plan)?),
            ("lines.json".to_owned(), serde_json::to_string_pretty(&use_of_lines)?),
            ("ports.txt".to_owned(), self.ports()),
        ]);
        for text in files.values_mut() {
            *text = scrubber.scrub(text);
        }
        Ok(files)
    }

    fn about(&self, now: Reading) -> String {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        format!(
            "seimon-agent {}\nsite {}\nboard {}\ngeneration {}\nwall {} (trusted: {})\nsince boot {} s\nload {}\nkernel {}\n\
             \nAddresses of machines in the school, MAC addresses, names and telephone numbers have been taken out;\n\
             校内の端末のアドレス、機器の固有番号、名前、電話番号は取り除いてあります。\n",
            env!("CARGO_PKG_VERSION"),
            self.network.plan().site.id,
            self.board.id,
            self.network.generation().0,
            now.wall,
            now.trusted,
            now.mono.as_micros() / 1_000_000,
            read("/proc/loadavg"),
            read("/proc/sys/kernel/osrelease"),
        )
    }

    /// Signal and counters of every port on the case.
    fn ports(&self) -> String {
        let mut text = String::new();
        for (name, port) in &self.board.ports {
            let interface = port.interface.as_str();
            let read = |file: &str| {
                let value = std::fs::read_to_string(format!("/sys/class/net/{interface}/{file}"));
                value.map_or_else(|_| "-".to_owned(), |value| value.trim().to_owned())
            };
            text.push_str(&format!("{name} {interface} carrier={} speed={}", read("carrier"), read("speed")));
            for counter in ["rx_bytes", "tx_bytes", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped"] {
                text.push_str(&format!(" {counter}={}", read(&format!("statistics/{counter}"))));
            }
            text.push('\n');
        }
        text
    }
}

/// What the plan itself names: equipment, not people.
fn addresses_of(plan: &SitePlan) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = Vec::new();
    for line in plan.lines.values() {
        all.extend(line.ipv4.map(|net| IpAddr::V4(net.addr())));
        all.extend(line.ipv6.map(|net| IpAddr::V6(net.addr())));
        all.extend(line.gateway4.map(IpAddr::V4));
        all.extend(line.gateway6.map(IpAddr::V6));
        all.extend(line.ipv4.map(|net| IpAddr::V4(net.network())));
        all.extend(line.ipv6.map(|net| IpAddr::V6(net.network())));
    }
    for zone in plan.zones.values() {
        all.extend([IpAddr::V4(zone.ipv4.addr()), IpAddr::V4(zone.ipv4.network())]);
        all.extend(zone.ipv6.iter().flat_map(|net| [IpAddr::V6(net.addr()), IpAddr::V6(net.network())]));
    }
    all.extend(plan.paths.values().flat_map(|path| path.resolvers.iter().copied()));
    all.extend(plan.services.values().flat_map(|service| service.registered_egress.iter().copied()));
    all.extend(plan.services.values().flat_map(|service| service.prefixes.iter().map(|net| net.addr())));
    all.extend(plan.hub.iter().flat_map(|hub| hub.prefixes.iter().map(|net| net.addr())));
    all.extend(plan.dns.forward.iter().flat_map(|forward| forward.servers.iter().copied()));
    all.push(IpAddr::V4(plan.echo.ipv4));
    all.extend(plan.echo.ipv6.map(IpAddr::V6));
    all.extend([IpAddr::V4(plan.inside.ipv4.addr()), IpAddr::V6(plan.inside.ipv6.addr())]);
    all
}

/// What the plan says about people and offices.
fn words_of(plan: &SitePlan) -> Vec<String> {
    let permits = plan.permits.iter().flat_map(|permit| [permit.who.clone(), permit.why.clone()]);
    let contacts = plan.school.contacts.iter();
    permits
        .chain(contacts.flat_map(|contact| [contact.who.clone(), contact.phone.clone()]))
        .chain(plan.school.devices.iter().map(|device| device.name.clone()))
        .collect()
}

/// The plan as data: comments are gone with the text, words about people are replaced.
fn without_people(plan: &ValidSitePlan) -> SitePlan {
    let mut plan: SitePlan = (**plan).clone();
    for permit in &mut plan.permits {
        permit.who = REMOVED.to_owned();
        permit.why = REMOVED.to_owned();
    }
    plan.school.contacts.clear();
    for device in &mut plan.school.devices {
        device.name = REMOVED.to_owned();
    }
    for freeze in &mut plan.migration.freezes {
        freeze.reason = REMOVED.to_owned();
    }
    plan
}
