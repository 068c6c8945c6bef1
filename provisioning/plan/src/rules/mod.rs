//! The rules across fields: one function a rule, each with a stable id.

pub(crate) mod addresses;
mod calendar;
mod emergency;
mod migration;
mod others;
mod paths;
mod proxy;
mod school;
mod services;

use std::collections::BTreeMap;

use jiff::Timestamp;
use seimon_board::Board;

use crate::calendar::Calendar;
use crate::error::{PlanError, Source, Text, text};
use crate::model::{GroupId, MigrationRoute, PathId, PermitTarget, ServiceId, SitePlan, ZoneId};
use crate::shape::nearest;
use crate::tree::Node;

/// What the rules look at.
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a SitePlan,
    pub(crate) board: &'a Board,
    pub(crate) calendar: Option<&'a Calendar>,
    /// Absent: what is past cannot be told.
    pub(crate) now: Option<Timestamp>,
}

impl Context<'_> {
    pub(crate) fn route(&self, zone: &ZoneId, group: &GroupId) -> Option<&MigrationRoute> {
        self.plan.migration.routes.iter().find(|route| route.zone == *zone && route.group == *group)
    }

    /// Permits to services that exist: index in the file, zone, service.
    pub(crate) fn service_permits(&self) -> impl Iterator<Item = (usize, &ZoneId, &ServiceId)> {
        self.plan.permits.iter().enumerate().filter_map(|(i, permit)| match &permit.to {
            PermitTarget::Service(id) if self.plan.services.contains_key(id) => Some((i, &permit.from, id)),
            PermitTarget::Service(_) | PermitTarget::Zone(_) => None,
        })
    }

    pub(crate) fn has_ipv6(&self, path: &PathId) -> bool {
        self.plan.paths.get(path).is_some_and(|path| path.ipv6 != crate::model::PathIpv6::None)
    }
}

/// Collects what the rules find.
pub(crate) struct Report<'a> {
    source: &'a Source<'a>,
    tree: &'a Node,
    rule: &'static str,
    errors: Vec<PlanError>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(source: &'a Source<'a>, tree: &'a Node) -> Self {
        Self { source, tree, rule: "", errors: Vec::new() }
    }

    /// The rule that speaks from now on.
    pub(crate) fn begin(&mut self, rule: &'static str) {
        self.rule = rule;
    }

    pub(crate) fn into_errors(self) -> Vec<PlanError> {
        self.errors
    }

    /// An error at `zones.affairs.ipv4` or `permits[2].to`.
    pub(crate) fn at(&mut self, path: &str, what: Text, fix: Text) {
        self.errors.push(self.source.error(self.tree.locate(path), self.rule, what, fix));
    }
}

struct Rule {
    id: &'static str,
    check: fn(&Context<'_>, &mut Report<'_>),
}

const RULES: &[Rule] = &[
    Rule { id: "plan/board", check: others::board },
    Rule { id: "plan/port-unknown", check: others::port_unknown },
    Rule { id: "plan/port-twice", check: others::port_twice },
    Rule { id: "plan/vlan", check: others::vlan },
    Rule { id: "plan/empty", check: others::empty },
    Rule { id: "plan/unknown-reference", check: others::unknown_reference },
    Rule { id: "plan/hub", check: others::hub },
    Rule { id: "plan/echo", check: others::echo },
    Rule { id: "plan/forward", check: others::forward },
    Rule { id: "plan/gateway-paths", check: others::gateway_paths },
    Rule { id: "plan/overlap", check: addresses::overlap },
    Rule { id: "plan/address", check: addresses::address },
    Rule { id: "plan/inside", check: addresses::inside },
    Rule { id: "plan/gateway", check: addresses::gateway },
    Rule { id: "plan/mtu", check: addresses::mtu },
    Rule { id: "plan/not-supported", check: paths::not_supported },
    Rule { id: "plan/path-ipv6", check: paths::ipv6 },
    Rule { id: "plan/path-ipv4", check: paths::ipv4 },
    Rule { id: "plan/wireguard", check: paths::wireguard },
    Rule { id: "plan/resolvers", check: paths::resolvers },
    Rule { id: "plan/service-empty", check: services::empty },
    Rule { id: "plan/name-twice", check: services::name_twice },
    Rule { id: "plan/reserved-group", check: services::reserved_group },
    Rule { id: "plan/health", check: services::health },
    Rule { id: "plan/permit-self", check: services::permit_self },
    Rule { id: "plan/permit-twice", check: services::permit_twice },
    Rule { id: "plan/permit-ports", check: services::permit_ports },
    Rule { id: "plan/permit-words", check: services::permit_words },
    Rule { id: "plan/permit-without-route", check: migration::permit_without_route },
    Rule { id: "plan/permit-uncarriable", check: migration::permit_uncarriable },
    Rule { id: "plan/route-without-permit", check: migration::route_without_permit },
    Rule { id: "plan/route-paths", check: migration::route_paths },
    Rule { id: "plan/route-twice", check: migration::route_twice },
    Rule { id: "plan/open-without-internet", check: migration::open_without_internet },
    Rule { id: "plan/listed-with-internet", check: migration::listed_with_internet },
    Rule { id: "plan/canary", check: migration::canary },
    Rule { id: "plan/threshold", check: migration::thresholds },
    Rule { id: "plan/times", check: migration::times },
    Rule { id: "plan/window", check: calendar::window },
    Rule { id: "plan/window-never", check: calendar::window_never },
    Rule { id: "plan/freeze", check: calendar::freeze },
    Rule { id: "plan/school", check: school::school },
    Rule { id: "plan/proxy", check: proxy::proxy },
    Rule { id: "plan/emergency", check: emergency::emergency },
];

/// Rules that are checked before a plan can be read at all.
const EARLIER: &[&str] = &[
    "plan/unreadable",
    "plan/too-large",
    "plan/not-utf8",
    "plan/syntax",
    "plan/version",
    "plan/time-zone",
    crate::shape::UNKNOWN_KEY,
    crate::shape::MISSING_KEY,
    crate::shape::WRONG_TYPE,
    crate::shape::BAD_VALUE,
    crate::shape::IPV6_UNSAID,
];

/// Rules whose finding may change with a path's `ipv6`.
pub(crate) const RESTS_ON_IPV6_WORD: &[&str] = &[
    "plan/path-ipv6",
    "plan/path-ipv4",
    "plan/resolvers",
    "plan/hub",
    "plan/forward",
    "plan/permit-uncarriable",
];

/// The ids of all rules.
pub fn rules() -> impl Iterator<Item = &'static str> {
    EARLIER.iter().copied().chain(RULES.iter().map(|rule| rule.id))
}

pub(crate) fn check(context: &Context<'_>, source: &Source<'_>, tree: &Node) -> Vec<PlanError> {
    let mut report = Report::new(source, tree);
    for rule in RULES {
        report.begin(rule.id);
        (rule.check)(context, &mut report);
    }
    report.into_errors()
}

/// `did you mean` for a reference, or what there is.
pub(crate) fn suggestion<'w>(written: &str, known: impl IntoIterator<Item = &'w str>) -> Text {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(written, known.iter().copied()) {
        Some(meant) => text(format!("did you mean `{meant}`?"), format!("「{meant}」のことですか？")),
        None if known.is_empty() => {
            text("define it, or remove this", "定義するか、この記述を削除してください")
        }
        None => {
            let list = known.join(", ");
            text(
                format!("define it, or use one of: {list}"),
                format!("定義するか、次のいずれかを使ってください: {list}"),
            )
        }
    }
}

/// Index of the first occurrence of each value that comes again, with the index of the later one.
pub(crate) fn repeated<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<(usize, usize)> {
    let mut first: BTreeMap<T, usize> = BTreeMap::new();
    let mut repeated = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        match first.get(&item) {
            Some(&earlier) => repeated.push((earlier, index)),
            None => {
                first.insert(item, index);
            }
        }
    }
    repeated
}
