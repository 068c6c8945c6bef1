//! The witness of validation, and the questions that other crates ask of a plan.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use seimon_board::{Board, InterfaceName};

use crate::calendar::Calendar;
use crate::model::{
    GroupId, INTERNET_GROUP, Internet, MigrationRoute, PathId, PathKind, Permit, PermitTarget, PlanDuration,
    Service, ServiceId, SitePlan, ZoneId,
};

/// A plan that has passed every rule, together with the board that its ports were checked against.
///
/// There is no other way to make one than to validate: [`crate::parse`].
#[derive(Clone, Debug, PartialEq)]
pub struct ValidSitePlan {
    pub(crate) plan: SitePlan,
    pub(crate) board: Board,
    pub(crate) calendar: Calendar,
}

impl std::ops::Deref for ValidSitePlan {
    type Target = SitePlan;

    fn deref(&self) -> &SitePlan {
        &self.plan
    }
}

impl ValidSitePlan {
    /// The board that the plan was checked against.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The kernel's name for a port as printed on the case; `None` only for words that the plan does not use.
    pub fn interface_of(&self, port: &str) -> Option<&InterfaceName> {
        self.board.interface_of(port)
    }

    /// The site's time zone.
    pub fn time_zone(&self) -> &TimeZone {
        &self.calendar.zone
    }

    pub(crate) fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    /// The group's services in order of id. Empty for `internet`.
    pub fn group_services<'a>(
        &'a self,
        group: &GroupId,
    ) -> impl Iterator<Item = (&'a ServiceId, &'a Service)> + use<'a> {
        let group = group.clone();
        self.plan.services.iter().filter(move |(_, service)| service.group == group)
    }

    /// Groups that have a route for this zone, `internet` among them for an open zone.
    pub fn groups_of_zone(&self, zone: &ZoneId) -> BTreeSet<GroupId> {
        self.routes().iter().filter(|route| route.zone == *zone).map(|route| route.group.clone()).collect()
    }

    /// How long a client must be quiet before its log-in to this group may be thought over: the longest of its
    /// services; 15 minutes for `internet`.
    pub fn session_idle(&self, group: &GroupId) -> PlanDuration {
        self.group_services(group)
            .map(|(_, service)| service.session_idle)
            .max()
            .unwrap_or(PlanDuration(std::time::Duration::from_secs(15 * 60)))
    }

    /// All migration routes, as written.
    pub fn routes(&self) -> &[MigrationRoute] {
        &self.plan.migration.routes
    }

    /// The route of one zone and group.
    pub fn route(&self, zone: &ZoneId, group: &GroupId) -> Option<&MigrationRoute> {
        self.routes().iter().find(|route| route.zone == *zone && route.group == *group)
    }

    /// Whether the zone reaches more than its permits.
    pub fn is_open(&self, zone: &ZoneId) -> bool {
        self.plan.zones.get(zone).is_some_and(|zone| zone.internet == Internet::Open)
    }

    /// Services that the zone has a permit to which has not run out at `now`.
    pub fn services_of_zone<'a>(
        &'a self,
        zone: &ZoneId,
        now: Timestamp,
    ) -> impl Iterator<Item = (&'a ServiceId, &'a Service)> + use<'a> {
        let zone = zone.clone();
        let ids: BTreeSet<&ServiceId> = self
            .permits
            .iter()
            .filter(|permit| permit.from == zone && self.is_in_force(permit, now))
            .filter_map(|permit| match &permit.to {
                PermitTarget::Service(id) => Some(id),
                PermitTarget::Zone(_) => None,
            })
            .collect();
        self.plan.services.iter().filter(move |(id, _)| ids.contains(id))
    }

    /// Whether `now` is not after the permit's last day, in the site's time zone.
    pub fn is_in_force(&self, permit: &Permit, now: Timestamp) -> bool {
        let today = now.to_zoned(self.calendar.zone.clone()).date();
        permit.until.parse::<Date>().is_ok_and(|last| today <= last)
    }

    /// Permits whose last day has passed at `now`, in the order of the file.
    pub fn expired(&self, now: Timestamp) -> Vec<&Permit> {
        self.permits.iter().filter(|permit| !self.is_in_force(permit, now)).collect()
    }

    /// The same plan without the permits whose last day has passed at `now`: what is to be in force.
    pub fn in_force_at(&self, now: Timestamp) -> Self {
        let mut plan = self.clone();
        plan.plan.permits.retain(|permit| self.is_in_force(permit, now));
        plan
    }

    /// Who is asked for the name of a tunnel's far end: over the tunnel's line, never through the tunnel.
    pub fn endpoint_resolvers(&self, path: &PathId) -> &[IpAddr] {
        endpoint_resolvers(&self.plan, path)
    }

    /// The group `internet`.
    pub fn is_internet(group: &GroupId) -> bool {
        group.as_str() == INTERNET_GROUP
    }
}

/// The tunnel's own, or those of the first plain path on its line.
pub(crate) fn endpoint_resolvers<'a>(plan: &'a SitePlan, path: &PathId) -> &'a [IpAddr] {
    let Some((line, tunnel)) = plan.paths.get(path).and_then(|p| Some((&p.line, p.wireguard.as_ref()?)))
    else {
        return &[];
    };
    if !tunnel.resolvers.is_empty() {
        return &tunnel.resolvers;
    }
    let plain = plan.paths.values().find(|p| p.kind == PathKind::Plain && p.line == *line);
    plain.map_or(&[], |path| &path.resolvers)
}
