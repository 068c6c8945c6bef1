//! Users: log-ins that are many short connections, as browsers make them.

use std::net::IpAddr;

use seimon_board::MacAddress;
use seimon_core::health::Stage;
use seimon_core::migration::ZoneGroup;
use seimon_plan::{ServiceId, ValidSitePlan};

use crate::border;
use crate::dice::Dice;
use crate::gateway::Gateway;
use crate::ground::Ground;
use crate::kernel::Way;
use crate::town::Town;

/// Of each zone and group, every day and in a rush.
const USUAL: usize = 3;
const IN_A_RUSH: usize = 8;

#[derive(Debug)]
struct Client {
    mac: MacAddress,
    /// Last byte of its address.
    host: u8,
    zone_group: ZoneGroup,
    service: Option<ServiceId>,
    only_in_a_rush: bool,
    next: u64,
    session: u64,
    until: u64,
    /// Where the name server said that the service is; asked again with each session.
    known: Option<IpAddr>,
    query: Option<u64>,
    asked: u64,
}

#[derive(Debug)]
pub struct People {
    clients: Vec<Client>,
    dice: Dice,
    last_session: u64,
    pub rush_until: u64,
}

impl People {
    pub fn new(town: &Town, mut dice: Dice) -> Self {
        let mut clients = Vec::new();
        let mut number = 0_u8;
        for route in town.plan.routes() {
            let zone_group = ZoneGroup { zone: route.zone.clone(), group: route.group.clone() };
            let services = town.plan.group_services(&route.group);
            let service = services.filter(|(_, spec)| spec.health.is_some()).map(|(id, _)| id.clone()).next();
            for n in 0..IN_A_RUSH {
                number = number.wrapping_add(1);
                clients.push(Client {
                    mac: MacAddress([2, 0, 0, 0, 1, number]),
                    host: town.host(&route.zone, n),
                    zone_group: zone_group.clone(),
                    service: service.clone(),
                    only_in_a_rush: n >= USUAL,
                    next: dice.between(1_000, 5_000),
                    session: 0,
                    until: 0,
                    known: None,
                    query: None,
                    asked: 0,
                });
            }
        }
        Self { clients, dice, last_session: 0, rush_until: 0 }
    }

    pub fn turn(&mut self, ground: &mut Ground<'_, '_>, mut gateway: Option<&mut Gateway>) {
        let now = ground.now;
        for client in &mut self.clients {
            if client.next > now || (client.only_in_a_rush && self.rush_until <= now) {
                continue;
            }
            if client.until <= now {
                ground.reference.ended(client.session);
                self.last_session += 1;
                client.session = self.last_session;
                client.until = now + self.dice.between(15_000, 90_000);
                client.known = None;
                // Some time between two log-ins, longer than the gateway remembers the one before.
                if client.session > 1 && self.dice.one_in(2) {
                    client.next = now + crate::town::IDLE_MS + self.dice.between(1_000, 5_000);
                    continue;
                }
            }
            if client.known.is_none() && !find(client, ground, gateway.as_deref_mut()) {
                client.next = now + 100;
                continue;
            }
            client.next = now + self.dice.between(700, 2_500);
            request(client, ground);
        }
    }
}

/// Asks the name server; true once the address is known.
fn find(client: &mut Client, ground: &mut Ground<'_, '_>, gateway: Option<&mut Gateway>) -> bool {
    let Some((inside, ..)) = border::destination(ground.town, &client.zone_group) else { return false };
    let Some(name) = border::name(ground.town, &client.zone_group) else {
        client.known = Some(inside);
        return true;
    };
    let Some(gateway) = gateway else {
        client.query = None;
        return false;
    };
    let zone = &client.zone_group.zone;
    match client.query.and_then(|query| gateway.told(query)) {
        Some(Some(told)) => {
            client.query = None;
            if IpAddr::V4(told) != inside {
                let detail = format!("{name} at {told} instead of {inside}");
                ground.reference.complain(ground.now, "a named service at another address", detail);
            }
            client.known = Some(told.into());
            true
        }
        Some(None) => {
            client.query = None;
            false
        }
        // Patience, and again: the one who was asked may be dead.
        None if client.query.is_some() && ground.now < client.asked + 5_000 => false,
        None => {
            let own = IpAddr::from([10, 20, client.mac.0[4], client.mac.0[5]]);
            client.query = gateway.ask(zone, own, &name, ground);
            client.asked = ground.now;
            false
        }
    }
}

fn request(client: &Client, ground: &mut Ground<'_, '_>) {
    let Some((_, protocol, port)) = border::destination(ground.town, &client.zone_group) else { return };
    let Some(known) = client.known else { return };
    let to = (known, protocol, port);
    let zone = &client.zone_group.zone;
    let way = ground.kernel.begin(&mut ground.lore.memory, zone, (client.mac, client.host), to);
    let Way::Out { path, to: real, .. } = way else { return };
    let Some(path) = border::path_of(ground.town, path) else { return };
    let outcome = match &client.service {
        Some(service) => ground.world.ask(&path, service, real).1,
        None if ground.world.passes(&path) => Ok(()),
        None => Err(Stage::Tcp),
    };
    let group = client.zone_group.group.clone();
    let count = ground.flows.entry((zone.clone(), group.clone(), path.clone())).or_default();
    count.total += 1;
    count.answered += u64::from(outcome != Err(Stage::Tcp));
    // What has no log-in cannot lose it.
    if outcome.is_ok() && !ValidSitePlan::is_internet(&group) {
        let who = (zone.as_str(), group.as_str());
        ground.reference.served(ground.now, client.session, who, path.as_str());
    }
}
