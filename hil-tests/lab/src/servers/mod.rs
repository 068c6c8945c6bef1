//! What the school talks to: SaaS, identity provider, sites, DNS, echo, drill, the town hall, a printer.

mod datagram;
pub(crate) mod http;
mod proxy;
pub(crate) mod site;
pub(crate) mod tls;
mod web;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result};

pub(crate) use datagram::{DRILL_NAME, DRILL_NAME_LEN, DnsFault, View};
use site::{Illness, Log, Site};
use tls::Authority;

use crate::capture::lock;
use crate::world::params::Topology;
use crate::world::town::{HUB, PORTAL, Town};

/// Handles to everything that serves.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) authority: Authority,
    pub(crate) log: Arc<Log>,
    pub(crate) sites: BTreeMap<&'static str, Arc<Site>>,
    /// DNS views by path.
    pub(crate) views: BTreeMap<&'static str, Arc<View>>,
    pub(crate) echo_silent: Arc<AtomicBool>,
}

/// Names of the public sites with the last part of their addresses.
const NAMES: [(&str, u8); 7] = [
    ("affairs.school.example", 10),
    ("login.school.example", 11),
    ("learning.school.example", 20),
    ("other.example", 20),
    ("drill.school.example", 21),
    ("www.example", 80),
    ("echo.example", 7),
];

/// The far end of tunnels, as the internet's DNS knows it.
pub(crate) const HUB_NAME: &str = "hub.town.example";
/// Services that only benches with many services ask for.
pub(crate) fn many_names() -> impl Iterator<Item = &'static str> {
    MANY.iter().copied()
}

const MANY: [&str; 20] = [
    "svc01.school.example",
    "svc02.school.example",
    "svc03.school.example",
    "svc04.school.example",
    "svc05.school.example",
    "svc06.school.example",
    "svc07.school.example",
    "svc08.school.example",
    "svc09.school.example",
    "svc10.school.example",
    "svc11.school.example",
    "svc12.school.example",
    "svc13.school.example",
    "svc14.school.example",
    "svc15.school.example",
    "svc16.school.example",
    "svc17.school.example",
    "svc18.school.example",
    "svc19.school.example",
    "svc20.school.example",
];

fn v4(host: u8) -> IpAddr {
    IpAddr::from([203, 0, 113, host])
}

/// The last part is written with the same digits: `2001:db8:113::10` for `203.0.113.10`.
fn v6(host: u8) -> Result<IpAddr> {
    format!("2001:db8:113::{host}").parse().context("an address of the plan")
}

/// What the closed network's DNS answers for the school-affairs SaaS.
pub(crate) fn affairs_addresses(word: &str) -> Result<Vec<IpAddr>> {
    Ok(match word {
        "private" => vec![IpAddr::from([10, 60, 0, 10])],
        "public" => vec![v4(10), v6(10)?],
        other => anyhow::bail!("answer must be private or public, not `{other}`"),
    })
}

/// Where another site than the one asked for answers.
pub(crate) fn other_site() -> Result<Vec<IpAddr>> {
    Ok(vec![v4(20), v6(20)?])
}

impl Servers {
    /// Starts every server on its node.
    pub(crate) fn raise(town: &Town, topology: &Topology, start: Instant) -> Result<Self> {
        let authority = Authority::new("Seimon lab CA")?;
        let stranger = Authority::new("Nobody's CA")?;
        let log = Arc::new(Log::new(start));
        let mut sites = BTreeMap::new();
        for name in ["affairs", "idp", "learning", "other", "www", "portal", "many"] {
            sites.insert(name, Arc::new(Site::new(name, Arc::clone(&log))));
        }
        sites["affairs"].register(topology.word("saas.registered"))?;
        // Whatever is asked for, it answers 200 and a page of its own.
        sites["portal"].set_illness(Some((Illness::WrongBody, None)));
        let mut public = BTreeMap::new();
        for name in many_names() {
            public.insert(name.to_owned(), vec![v4(22), v6(22)?]);
        }
        for (name, host) in NAMES {
            public.insert(name.to_owned(), vec![v4(host), v6(host)?]);
        }
        public.insert(HUB_NAME.to_owned(), vec![HUB.parse()?]);
        let mut closed = public.clone();
        closed
            .insert("affairs.school.example".into(), affairs_addresses(topology.word("dns.closed.affairs"))?);
        for name in ["files.town.example", "www.town.example"] {
            closed.insert(name.into(), vec![IpAddr::from([10, 50, 0, 10])]);
        }
        if topology.word("cdn.learning") == "by-path" {
            closed.insert("learning.school.example".into(), vec![v4(30)]);
            public.insert("learning.school.example".into(), vec![v4(31)]);
        }
        let ttl = u32::try_from(topology.integer("dns.ttl_s"))?;
        let view = |names| Arc::new(View { names: Mutex::new(names), ttl, fault: Mutex::new(None) });
        let views = BTreeMap::from([("closed", view(closed)), ("direct", view(public))]);
        let servers = Self { authority, log, sites, views, echo_silent: Arc::new(AtomicBool::new(false)) };
        servers.start(town, &stranger)?;
        Ok(servers)
    }

    fn start(&self, town: &Town, stranger: &Authority) -> Result<()> {
        let inet = town.node("inet")?;
        let content = Arc::new(web::Content::new());
        let site = |host: &'static str, name: &str| (host, Arc::clone(&self.sites[name]));
        let houses: [(u8, Vec<_>); 7] = [
            (10, vec![site("affairs.school.example", "affairs")]),
            (11, vec![site("login.school.example", "idp")]),
            (20, vec![site("learning.school.example", "learning"), site("other.example", "other")]),
            (80, vec![site("www.example", "www")]),
            (22, many_names().map(|name| site(name, "many")).collect()),
            (30, vec![site("learning.school.example", "learning")]),
            (31, vec![site("learning.school.example", "learning")]),
        ];
        for (host, sites) in houses {
            let names: Vec<&'static str> = sites.iter().map(|(name, _)| *name).collect();
            let (good, bad) = (self.authority.server(&names)?, stranger.server(&names)?);
            let mut addresses = vec![v4(host), v6(host)?];
            if host == 10 {
                addresses.push(IpAddr::from([10, 60, 0, 10]));
            }
            for address in addresses {
                let (good, bad, content) = (Arc::clone(&good), Arc::clone(&bad), Arc::clone(&content));
                let sites = sites.clone();
                inet.run(web::serve(SocketAddr::new(address, 443), sites, good, bad, content))??;
            }
        }
        self.start_portal(town, stranger, &content)?;
        for address in [v4(80), v6(80)?] {
            inet.run(web::serve_plain(SocketAddr::new(address, 80), "www"))??;
        }
        for address in [v4(53), v6(53)?] {
            inet.run(datagram::serve_dns(SocketAddr::new(address, 53), Arc::clone(&self.views["direct"])))??;
        }
        for address in [v4(7), v6(7)?] {
            inet.run(datagram::serve_echo(SocketAddr::new(address, 7007), Arc::clone(&self.echo_silent)))??;
        }
        for address in [v4(21), v6(21)?] {
            inet.run(datagram::serve_drill(SocketAddr::new(address, 7000), Arc::clone(&self.log)))??;
        }
        let hall = town.node("hall")?;
        let dns = SocketAddr::from(([10, 50, 0, 53], 53));
        hall.run(datagram::serve_dns(dns, Arc::clone(&self.views["closed"])))??;
        hall.run(proxy::serve(
            SocketAddr::from(([10, 50, 0, 80], 8080)),
            Arc::clone(&self.views["closed"]),
        ))??;
        for port in [80, 445] {
            hall.run(web::serve_plain(SocketAddr::from(([10, 50, 0, 10], port)), "town hall"))??;
        }
        let printers = town.node("printers")?;
        for port in [631, 9100] {
            printers.run(web::serve_plain(SocketAddr::from(([10, 20, 3, 10], port)), "printer"))??;
        }
        Ok(())
    }

    /// On the provider's router: nobody is led there before [`crate::world::town::portal`].
    fn start_portal(&self, town: &Town, stranger: &Authority, content: &Arc<web::Content>) -> Result<()> {
        let names = NAMES.map(|(name, _)| name);
        let sites: Vec<_> = names.iter().map(|name| (*name, Arc::clone(&self.sites["portal"]))).collect();
        let config = stranger.server(&names)?;
        let mut addresses = vec![SocketAddr::from(([0, 0, 0, 0], PORTAL))];
        if town.has_ipv6_on_internet {
            addresses.push(SocketAddr::from(([0x2001, 0xdb8, 2, 0, 0, 0, 0, 1], PORTAL)));
        }
        for address in addresses {
            let (config, content) = (Arc::clone(&config), Arc::clone(content));
            town.node("isp")?.run(web::serve(
                address,
                sites.clone(),
                Arc::clone(&config),
                config,
                content,
            ))??;
        }
        Ok(())
    }

    /// Changes what a view answers for a name; returns what it was.
    pub(crate) fn set_name(&self, view: &str, name: &str, addresses: Vec<IpAddr>) -> Option<Vec<IpAddr>> {
        lock(&self.views.get(view)?.names).insert(name.to_owned(), addresses)
    }
}
