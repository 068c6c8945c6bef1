//! A PAC file: JavaScript that browsers run for every address, made from the plan and from where each group is.
//!
//! Whatever stands in a plan, the file is plain ASCII, texts in it are escaped letter by letter, and nothing in it looks up a
//! name. It keeps to the JavaScript of 1999, which the oldest readers of such files know.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use seimon_plan::{GroupId, INTERNET_GROUP, Protocol, Service, ValidSitePlan, ZoneId};

/// How a browser reaches something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Direct,
    Proxy,
}

/// What an address in a browser is compared with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// This name and no other.
    Name(String),
    /// Every name that ends in this, a dot before it: `*.school.example`.
    Below(String),
    /// Addresses written as such. Names are never looked up for it.
    Prefix(IpNet),
}

impl Destination {
    /// As a plan writes names: `*.` stands for everything below.
    pub fn of_name(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        match name.strip_prefix("*.") {
            Some(below) => Self::Below(below.to_owned()),
            None => Self::Name(name),
        }
    }
}

/// The first that fits decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub to: Destination,
    /// First and last; empty: every port.
    pub ports: Vec<(u16, u16)>,
    pub way: Way,
}

/// What the browsers of one zone are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacFile {
    pub zone: ZoneId,
    pub proxy: SocketAddr,
    pub rules: Vec<Rule>,
    /// Everything else. Names without a dot are always reached directly.
    pub rest: Way,
}

impl PacFile {
    /// What the zone's browsers are told while the groups in `direct` go directly; `None` where no proxy is set for the zone.
    ///
    /// The school's own machines, the hub's prefixes and the town's domains are no business of the proxy's. Where the group
    /// `internet` goes directly, so does the rest.
    pub fn of_zone(
        plan: &ValidSitePlan,
        zone: &ZoneId,
        direct: &BTreeSet<GroupId>,
        now: Timestamp,
    ) -> Option<Self> {
        let proxy = plan.proxy.as_ref().filter(|proxy| proxy.zones.contains(zone))?;
        let mut rules = Vec::new();
        for (_, service) in plan.services_of_zone(zone, now) {
            let way = if direct.contains(&service.group) { Way::Direct } else { Way::Proxy };
            rules.extend(of_service(service, way));
        }
        let any = |to, way| Rule { to, ports: Vec::new(), way };
        for forward in plan.dns.forward.iter().filter(|forward| forward.zones.contains(zone)) {
            let domain = forward.domain.to_ascii_lowercase();
            rules.push(any(Destination::Name(domain.clone()), Way::Direct));
            rules.push(any(Destination::Below(domain), Way::Direct));
        }
        let mut own: Vec<IpNet> = Vec::new();
        for zone in plan.zones.values() {
            own.push(IpNet::V4(zone.ipv4.trunc()));
            own.extend(zone.ipv6.map(|net| IpNet::V6(net.trunc())));
        }
        own.extend([IpNet::V4(plan.inside.ipv4.trunc()), IpNet::V6(plan.inside.ipv6.trunc())]);
        let hub = plan.hub.iter().filter(|hub| hub.zones.contains(zone));
        own.extend(hub.flat_map(|hub| &hub.prefixes).map(IpNet::trunc));
        rules.extend(own.into_iter().map(|net| any(Destination::Prefix(net), Way::Direct)));
        // Names before prefixes, the nearest first: what is said of a part is said of that part.
        rules.sort_by_key(|rule| match &rule.to {
            Destination::Name(_) => (0, 0),
            Destination::Below(domain) => (1, usize::MAX - domain.len()),
            Destination::Prefix(net) => (2, 255 - usize::from(net.prefix_len())),
        });
        let internet = direct.iter().any(|group| group.as_str() == INTERNET_GROUP);
        let rest = if internet { Way::Direct } else { Way::Proxy };
        Some(Self { zone: zone.clone(), proxy: proxy.socket(), rules, rest })
    }
}

fn of_service(service: &Service, way: Way) -> Vec<Rule> {
    let tcp = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    let ports: Vec<(u16, u16)> = tcp.map(|port| (port.first, port.last)).collect();
    if ports.is_empty() {
        return Vec::new();
    }
    let names = service.names.iter().map(|name| Destination::of_name(name));
    let prefixes = service.prefixes.iter().map(|net| Destination::Prefix(net.trunc()));
    names.chain(prefixes).map(|to| Rule { to, ports: ports.clone(), way }).collect()
}

/// A text as JavaScript reads it: ASCII, and nothing that could end it or a line, or begin a comment or a tag.
fn quoted(text: &str) -> String {
    let mut safe = String::from("\"");
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | ' ' | '[' | ']') {
            safe.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                // Writing to a String cannot fail.
                let _infallible = write!(safe, "\\u{unit:04x}");
            }
        }
    }
    safe.push('"');
    safe
}

const HEAD: &str = "\
function FindProxyForURL(url, host) {
  var h = String(host).toLowerCase().replace(/^\\[|\\]$/g, \"\").replace(/\\.$/, \"\");
  var p = seimonPort(String(url));
  var four = /^[0-9]{1,3}(\\.[0-9]{1,3}){3}$/.test(h);
  var six = four ? null : seimonSix(h);
  if (!four && !six && h.indexOf(\".\") < 0) return \"DIRECT\";
";

/// Helpers: the port of an address, an IPv6 address as eight numbers, and whether it lies in a prefix.
const TAIL: &str = "\
}
function seimonPort(url) {
  var m = /^([a-z][a-z0-9+.-]*):\\/\\/(?:[^\\/?#]*@)?(?:\\[[^\\]]*\\]|[^\\/?#:]*)(?::([0-9]+))?/i.exec(url);
  if (!m) return 0;
  if (m[2]) return parseInt(m[2], 10);
  var s = m[1].toLowerCase();
  return s == \"https\" || s == \"wss\" ? 443 : s == \"ftp\" ? 21 : 80;
}
function seimonBelow(h, domain) {
  var at = h.length - domain.length - 1;
  return at > 0 && h.charAt(at) == \".\" && h.substring(at + 1) == domain;
}
function seimonSix(h) {
  if (h.indexOf(\":\") < 0) return null;
  var t = h.replace(/%.*$/, \"\");
  var m = /^(.*:)([0-9]{1,3})\\.([0-9]{1,3})\\.([0-9]{1,3})\\.([0-9]{1,3})$/.exec(t);
  if (m) t = m[1] + (m[2] * 256 + 1 * m[3]).toString(16) + \":\" + (m[4] * 256 + 1 * m[5]).toString(16);
  var halves = t.split(\"::\");
  if (halves.length > 2) return null;
  var a = halves[0] == \"\" ? [] : halves[0].split(\":\");
  var b = halves.length < 2 || halves[1] == \"\" ? [] : halves[1].split(\":\");
  var gap = 8 - a.length - b.length;
  if (halves.length == 2 ? gap < 1 : gap != 0) return null;
  while (gap-- > 0) a.push(\"0\");
  a = a.concat(b);
  for (var i = 0; i < 8; i++) {
    if (!/^[0-9a-f]{1,4}$/.test(a[i])) return null;
    a[i] = parseInt(a[i], 16);
  }
  return a;
}
function seimonIn(six, net, bits) {
  for (var i = 0; i < 8 && bits > 0; i++, bits -= 16) {
    var mask = bits >= 16 ? 65535 : (65535 << (16 - bits)) & 65535;
    if ((six[i] & mask) != net[i]) return false;
  }
  return true;
}
";

impl fmt::Display for PacFile {
    /// The file's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An identifier: a-z, 0-9, - and _.
        writeln!(f, "// Zone {}. Made by the gateway; it changes when services move.", self.zone)?;
        f.write_str(HEAD)?;
        let way = |way| match way {
            Way::Direct => "\"DIRECT\"".to_owned(),
            // Brackets around IPv6, as in addresses.
            Way::Proxy => quoted(&format!("PROXY {}", self.proxy)),
        };
        for Rule { to, ports, way: chosen } in &self.rules {
            let mut test = match to {
                Destination::Name(name) => format!("h == {}", quoted(name)),
                Destination::Below(domain) => format!("seimonBelow(h, {})", quoted(domain)),
                Destination::Prefix(IpNet::V4(net)) => {
                    format!("four && isInNet(h, \"{}\", \"{}\")", net.network(), net.netmask())
                }
                Destination::Prefix(IpNet::V6(net)) => {
                    let parts = net.network().segments().map(|part| part.to_string()).join(", ");
                    format!("six && seimonIn(six, [{parts}], {})", net.prefix_len())
                }
            };
            if !ports.is_empty() {
                let one = |&(first, last): &(u16, u16)| {
                    if first == last {
                        format!("p == {first}")
                    } else {
                        format!("p >= {first} && p <= {last}")
                    }
                };
                let any: Vec<String> = ports.iter().map(one).collect();
                let _infallible = write!(test, " && ({})", any.join(" || "));
            }
            writeln!(f, "  if ({test}) return {};", way(*chosen))?;
        }
        writeln!(f, "  return {};", way(self.rest))?;
        f.write_str(TAIL)
    }
}
