//! What migration is told about one path, for one zone and group.

use std::collections::BTreeMap;
use std::time::Duration;

use seimon_plan::ServiceId;

use super::egress::EgressVerdict;
use super::liveness::Liveness;
use super::passive::FlowCount;
use super::quality::Ailment;
use super::service::{ServiceFacts, ServiceVerdict};
use crate::proxy::ProxyUse;

#[derive(Clone, Debug, PartialEq)]
pub struct PathFacts {
    pub liveness: Liveness,
    /// It carries packets, but badly.
    pub ailment: Option<Ailment>,
    /// Share of liveness packets lost lately, 0 to 1.
    pub loss: Option<f64>,
    pub round_trip: Option<Duration>,
    /// Against what this group's services have registered.
    pub egress: EgressVerdict,
    /// Strangers have the same egress address, and a service of this group admits people by it.
    pub shared: bool,
    /// This group's services that have a health check.
    pub services: BTreeMap<ServiceId, ServiceFacts>,
    /// Clients of this zone and group that keep this path; `None`: not counted yet.
    pub clients: Option<u32>,
    /// Users' new flows of this zone and group on this path, lately.
    pub flows: FlowCount,
    /// The share of them that is usually answered, 0 to 1; `None`: not known yet.
    pub usual_flows: Option<f64>,
    /// Clients of the zone who reach services through the town hall's proxy, and so by another path than this one,
    /// whatever path the group is on. `None`: nobody, or the proxy is on this path, or a PAC of ours tells them.
    pub bypassed: Option<ProxyUse>,
}

impl Default for PathFacts {
    /// Nothing known.
    fn default() -> Self {
        Self {
            liveness: Liveness::Unknown,
            ailment: None,
            loss: None,
            round_trip: None,
            egress: EgressVerdict::Unknown,
            shared: false,
            services: BTreeMap::new(),
            clients: None,
            flows: FlowCount::default(),
            usual_flows: None,
            bypassed: None,
        }
    }
}

impl PathFacts {
    /// The services that are ill over this path.
    pub fn ill(&self) -> impl Iterator<Item = &ServiceId> {
        self.services.iter().filter(|(_, facts)| facts.verdict == ServiceVerdict::Ill).map(|(id, _)| id)
    }

    pub fn service(&self, service: &ServiceId) -> ServiceVerdict {
        self.services.get(service).map_or(ServiceVerdict::Unknown, |facts| facts.verdict)
    }

    /// The slowest service's median time of a check.
    pub fn latency(&self) -> Option<Duration> {
        self.services.values().filter_map(|facts| facts.median).max()
    }
}
