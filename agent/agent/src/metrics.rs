//! Metrics as Prometheus text (exposition format 0.0.4), served on a Unix socket only.

use std::fmt::Write as _;

use seimon_ipc::control::{GroupStatus, Light, Status};
use seimon_ipc::resolver::ResolverStats;
use seimon_plan::PathId;

/// Counters that the status does not hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) child_starts: Vec<(&'static str, u64)>,
    pub(crate) resolver: ResolverStats,
    pub(crate) journal_bytes: u64,
    pub(crate) events: u64,
}

pub(crate) struct Text(pub(crate) String);

impl Text {
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _infallible = write!(self.0, "# HELP seimon_{name} {help}\n# TYPE seimon_{name} {kind}\n");
    }

    pub(crate) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _infallible = writeln!(self.0, "seimon_{name}{labels} {value}");
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

pub(crate) fn render(status: &Status, counters: &Counters) -> String {
    let mut text = Text(String::new());
    text.family("light", "gauge", "0 green, 1 yellow, 2 red.");
    text.sample("light", &[], light(status.overall));
    text.family("generation", "gauge", "Generation of the network plan in force.");
    text.sample("generation", &[], status.generation as f64);
    text.family("clock_trusted", "gauge", "1 if the wall clock is relied on.");
    text.sample("clock_trusted", &[], f64::from(u8::from(status.clock_trusted)));
    text.family("dataplane_verified", "gauge", "1 if the kernel has what the plan says.");
    text.sample("dataplane_verified", &[], f64::from(u8::from(status.dataplane.verified)));
    text.family("dataplane_repairs_total", "counter", "Times that a foreign change was put right.");
    text.sample("dataplane_repairs_total", &[], status.dataplane.repairs as f64);
    text.family("path_up", "gauge", "1 up, 0 down, NaN unknown.");
    for path in &status.paths {
        let up = match path.health.as_str() {
            "up" => 1.0,
            "down" => 0.0,
            _ => f64::NAN,
        };
        text.sample("path_up", &[("path", path.path.as_str())], up);
    }
    text.family("path_loss_ratio", "gauge", "Share of liveness packets lost.");
    for path in &status.paths {
        text.sample("path_loss_ratio", &[("path", path.path.as_str())], path.loss);
    }
    text.family("path_rtt_seconds", "gauge", "Median round trip of liveness packets.");
    for path in &status.paths {
        if let Some(rtt) = path.rtt_ms {
            text.sample("path_rtt_seconds", &[("path", path.path.as_str())], rtt / 1_000.0);
        }
    }
    text.family("group_state", "gauge", "1 for the state that the zone's group is in.");
    for group in &status.groups {
        let labels =
            [("zone", group.zone.as_str()), ("group", group.group.as_str()), ("state", &group.state)];
        text.sample("group_state", &labels, 1.0);
    }
    for (name, help, pick) in [
        ("group_clients", "Clients with affinity.", clients as Pick),
        ("group_flows", "Live flows.", flows as Pick),
    ] {
        text.family(name, "gauge", help);
        for group in &status.groups {
            for (path, count) in pick(group) {
                let labels =
                    [("zone", group.zone.as_str()), ("group", group.group.as_str()), ("path", path.as_str())];
                text.sample(name, &labels, *count as f64);
            }
        }
    }
    text.family(
        "group_forced_by_deadline_total",
        "counter",
        "Clients moved because the drain deadline passed.",
    );
    for group in &status.groups {
        let labels = [("zone", group.zone.as_str()), ("group", group.group.as_str())];
        text.sample("group_forced_by_deadline_total", &labels, group.forced_by_deadline as f64);
    }
    text.family("service_good", "gauge", "1 good, 0 ill, NaN unknown, by zone, service and path.");
    for service in &status.services {
        let good = match service.health.as_str() {
            "good" => 1.0,
            "ill" => 0.0,
            _ => f64::NAN,
        };
        let labels = [
            ("zone", service.zone.as_str()),
            ("service", service.service.as_str()),
            ("path", service.path.as_str()),
        ];
        text.sample("service_good", &labels, good);
    }
    text.family("child_starts_total", "counter", "Starts of the agent's child processes.");
    for (child, starts) in &counters.child_starts {
        text.sample("child_starts_total", &[("child", child)], *starts as f64);
    }
    text.family("dns_queries_total", "counter", "DNS queries, by what became of them.");
    let dns = &counters.resolver;
    for (outcome, count) in [
        ("answered", dns.answered),
        ("refused", dns.refused),
        ("failed", dns.failed),
        ("stale", dns.stale),
        ("malformed", dns.malformed),
    ] {
        text.sample("dns_queries_total", &[("outcome", outcome)], count as f64);
    }
    text.family("journal_bytes", "gauge", "Size of the journal.");
    text.sample("journal_bytes", &[], counters.journal_bytes as f64);
    text.family("events_total", "counter", "Events recorded.");
    text.sample("events_total", &[], counters.events as f64);
    text.0
}

type Pick = fn(&GroupStatus) -> &[(PathId, u64)];

fn clients(group: &GroupStatus) -> &[(PathId, u64)] {
    &group.clients
}

fn flows(group: &GroupStatus) -> &[(PathId, u64)] {
    &group.flows
}

fn light(light: Light) -> f64 {
    match light {
        Light::Green => 0.0,
        Light::Yellow => 1.0,
        Light::Red => 2.0,
    }
}
