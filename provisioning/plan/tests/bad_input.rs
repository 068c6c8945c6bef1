//! One edit on a good plan → the rule that is broken, on the line where the administrator wrote it. Every rule appears.

use std::collections::BTreeSet;

use seimon_board::Board;
use seimon_plan::{PlanErrors, parse, parse_at, parse_bytes};

const GOOD: &str = include_str!("../examples/two-line-town.toml");
const TUNNEL: &str = include_str!("../examples/one-line-town.toml");

fn board() -> Board {
    Board::shipped("lab-namespace").expect("shipped")
}

fn errors_of(text: &str) -> PlanErrors {
    match parse(text, "town.toml", &board()) {
        Ok(_) => panic!("the edit broke no rule"),
        Err(errors) => errors,
    }
}

/// (base, text to replace once, by what, rule, beginning of the line that is quoted)
type Edit = (&'static str, &'static str, &'static str, &'static str, &'static str);

const SYNTAX: &[Edit] = &[
    (GOOD, "port = \"WAN1\"", "port = WAN1\"", "plan/syntax", "port = WAN1\""),
    (GOOD, "[zones.affairs]", "[zones.affairs", "plan/syntax", "[zones.affairs"),
    (GOOD, "role = \"learning\"", "role = \"learning\"\nrole = \"staff\"", "plan/syntax", "role = \"staff\""),
    (GOOD, "version = 1", "", "plan/version", ""),
    (GOOD, "version = 1", "version = 2", "plan/version", "version = 2"),
    (GOOD, "version = 1", "version = 0", "plan/version", "version = 0"),
    (GOOD, "version = 1", "version = \"1\"", "plan/version", "version = \"1\""),
    (GOOD, "gateway4 = \"10.10.0.2\"", "gatway4 = \"10.10.0.2\"", "plan/unknown-key", "gatway4"),
    (GOOD, "[echo]", "[colour]\nx = 1\n[echo]", "plan/unknown-key", "[colour]"),
    (GOOD, "[migration.times]", "[migration.tmes]", "plan/unknown-key", "[migration.tmes]"),
    (GOOD, "who = \"日の出小学校 事務室\"\n", "", "plan/missing-key", "[[permits]]"),
    (GOOD, "[gateway]\npaths = [\"direct\", \"closed\"]", "", "plan/missing-key", ""),
    (GOOD, "port = 7007", "port = \"7007\"", "plan/wrong-type", "port = \"7007\""),
    (GOOD, "until = \"2029-03-31\"", "until = 2029-03-31", "plan/wrong-type", "until = 2029-03-31"),
    (GOOD, "ports = [\"LAN1\"]", "ports = \"LAN1\"", "plan/wrong-type", "ports = \"LAN1\""),
    (GOOD, "port = 7007", "port = 70070", "plan/bad-value", "port = 70070"),
    (GOOD, "port = 7007", "port = 0", "plan/bad-value", "port = 0"),
    (GOOD, "port = 7007", "port = 99999999999999999999", "plan/wrong-type", "port = 9999"),
    (GOOD, "\"10.10.0.1/30\"", "\"10.10.0.1\"", "plan/bad-value", "ipv4 = \"10.10.0.1\""),
    (GOOD, "\"udp/7000\"", "\"udp/7000-6000\"", "plan/bad-value", "ports = [\"udp/7000-6000\"]"),
    (GOOD, "\"udp/7000\"", "\"sctp/7000\"", "plan/bad-value", "ports = [\"sctp/7000\"]"),
    (GOOD, "drill.school.example", "drill school", "plan/bad-value", "names = [\"drill school\"]"),
    (GOOD, "drill.school.example", "drill.school.example.", "plan/bad-value", "names = [\"drill.school"),
    (GOOD, "\"nat66\"", "\"nat44\"", "plan/bad-value", "ipv6 = \"nat44\""),
    (GOOD, "[zones.printers]", "[zones.Printers]", "plan/bad-value", "[zones.Printers]"),
    (GOOD, "qualify = \"5min\"", "qualify = \"5 minutes\"", "plan/bad-value", "qualify = \"5 minutes\""),
    (GOOD, "until = \"2029-03-31\"", "until = \"2029-02-31\"", "plan/bad-value", "until = \"2029-02-31\""),
    (GOOD, "to = \"service:drill\"", "to = \"drill\"", "plan/bad-value", "to = \"drill\""),
    (GOOD, "from = \"18:00\"", "from = \"24:00\"", "plan/bad-value", "from = \"24:00\""),
    (GOOD, "from = \"18:00\"\n", "", "plan/missing-key", "[[migration.windows]]"),
    (GOOD, "\"Asia/Tokyo\"", "\"Asia/Tokio\"", "plan/time-zone", "timezone = \"Asia/Tokio\""),
    (GOOD, "ipv6 = \"nat66\"\n", "", "plan/ipv6-unsaid", "[paths.direct]"),
];

const NETWORK: &[Edit] = &[
    (GOOD, "\"lab-namespace\"", "\"lab-namespaces\"", "plan/board", "board = "),
    (GOOD, "\"LAN3\"", "\"LAN9\"", "plan/port-unknown", "ports = [\"LAN9\"]"),
    (GOOD, "\"LAN3\"", "\"WAN1\"", "plan/port-twice", "ports = [\"WAN1\"]"),
    (GOOD, "\"LAN3\"", "\"LAN3\", \"LAN3\"", "plan/port-twice", "ports = [\"LAN3\", \"LAN3\"]"),
    (GOOD, "ports = [\"LAN3\"]", "ports = []", "plan/empty", "ports = []"),
    (
        GOOD,
        "ports = [\"LAN3\"]",
        "trunks = [\"LAN9\"]\nvlan = 30",
        "plan/port-unknown",
        "trunks = [\"LAN9\"]",
    ),
    (GOOD, "ports = [\"LAN3\"]", "trunks = [\"LAN4\"]\nvlan = 0", "plan/vlan", "vlan = 0"),
    (GOOD, "ports = [\"LAN3\"]", "trunks = [\"LAN4\"]\nvlan = 4095", "plan/vlan", "vlan = 4095"),
    (GOOD, "ports = [\"LAN3\"]", "trunks = [\"LAN4\"]", "plan/vlan", "trunks = [\"LAN4\"]"),
    (GOOD, "ports = [\"LAN3\"]", "ports = [\"LAN3\"]\nvlan = 30", "plan/vlan", "vlan = 30"),
    (GOOD, "ports = [\"LAN3\"]", "trunks = [\"LAN1\"]\nvlan = 30", "plan/vlan", "trunks = [\"LAN1\"]"),
    (GOOD, "ports = [\"LAN3\"]", "trunks = [\"LAN4\", \"LAN4\"]\nvlan = 30", "plan/vlan", "trunks = ["),
    (GOOD, "10.20.3.1/24", "10.20.2.65/26", "plan/overlap", "ipv4 = \"10.20.2.65/26\""),
    (GOOD, "10.20.3.1/24", "10.10.0.1/24", "plan/overlap", "ipv4 = \"10.10.0.1/30\""),
    (GOOD, "\"100.127.0.0/16\"", "\"10.20.0.0/16\"", "plan/overlap", "ipv4 = \"10.20.1.1/24\""),
    (GOOD, "10.50.0.0/16", "10.0.0.0/8", "plan/overlap", "prefixes = [\"10.0.0.0/8\"]"),
    (GOOD, "192.0.2.2/30", "10.10.0.2/29", "plan/overlap", "ipv4 = \"10.10.0.2/29\""),
    (GOOD, "fd20:0:0:2::1/64", "fd20:0:0:1::9/64", "plan/overlap", "ipv6 = \"fd20:0:0:1::9/64\""),
    (GOOD, "10.20.3.1/24", "10.20.3.0/24", "plan/address", "ipv4 = \"10.20.3.0/24\""),
    (GOOD, "10.20.3.1/24", "10.20.3.1/31", "plan/address", "ipv4 = \"10.20.3.1/31\""),
    (GOOD, "fd20:0:0:2::1/64", "fd20:0:0:2::1/80", "plan/address", "ipv6 = \"fd20:0:0:2::1/80\""),
    (GOOD, "\"203.0.113.7\"", "\"224.0.0.1\"", "plan/address", "ipv4 = \"224.0.0.1\""),
    (GOOD, "100.127.0.0/16", "100.127.0.0/28", "plan/inside", "ipv4 = \"100.127.0.0/28\""),
    (
        GOOD,
        "gateway4 = \"192.0.2.1\"",
        "gateway4 = \"192.0.3.1\"",
        "plan/gateway",
        "gateway4 = \"192.0.3.1\"",
    ),
    (
        GOOD,
        "gateway4 = \"192.0.2.1\"",
        "gateway4 = \"192.0.2.2\"",
        "plan/gateway",
        "gateway4 = \"192.0.2.2\"",
    ),
    (GOOD, "gateway4 = \"192.0.2.1\"", "", "plan/gateway", "ipv4 = \"192.0.2.2/30\""),
    (GOOD, "ipv4 = \"192.0.2.2/30\"", "", "plan/gateway", "gateway4 = \"192.0.2.1\""),
    (GOOD, "gateway4 = \"192.0.2.1\"", "gateway4 = \"192.0.2.1\"\nmtu = 1279", "plan/mtu", "mtu = 1279"),
    (GOOD, "gateway4 = \"10.10.0.2\"", "gateway4 = \"10.10.0.2\"\nmtu = 9001", "plan/mtu", "mtu = 9001"),
    (TUNNEL, "mtu = 1420", "mtu = 1500", "plan/mtu", "mtu = 1500"),
    (GOOD, "\"nat66\"", "\"nptv6\"", "plan/not-supported", "ipv6 = \"nptv6\""),
    (GOOD, "ipv6 = \"none\"", "ipv6 = \"native\"", "plan/path-ipv6", "ipv6 = \"native\""),
    (TUNNEL, "ipv6 = \"none\"", "ipv6 = \"nat66\"", "plan/path-ipv6", "ipv6 = \"nat66\""),
    (
        GOOD,
        "ipv4 = \"10.10.0.1/30\"\ngateway4 = \"10.10.0.2\"",
        "ipv6 = \"2001:db8:9::2/64\"\ngateway6 = \"fe80::1\"",
        "plan/path-ipv4",
        "line = \"carrier\"",
    ),
    (GOOD, "kind = \"plain\"", "kind = \"wireguard\"", "plan/wireguard", "kind = \"wireguard\""),
    (TUNNEL, "kind = \"wireguard\"", "kind = \"plain\"", "plan/wireguard", "[paths.closed.wireguard]"),
    (GOOD, "resolvers = [\"10.50.0.53\"]", "resolvers = []", "plan/resolvers", "resolvers = []"),
    (
        GOOD,
        "resolvers = [\"10.50.0.53\"]",
        "resolvers = [\"2001:db8::53\"]",
        "plan/resolvers",
        "resolvers = [\"2001:db8::53\"]",
    ),
    (GOOD, "line = \"carrier\"", "line = \"carier\"", "plan/unknown-reference", "line = \"carier\""),
    (GOOD, "to = \"service:idp\"", "to = \"service:ipd\"", "plan/unknown-reference", "to = \"service:ipd\""),
    (GOOD, "to = \"zone:printers\"", "to = \"zone:scanners\"", "plan/unknown-reference", "to = \"zone:sc"),
    (GOOD, "from = \"affairs\"", "from = \"office\"", "plan/unknown-reference", "from = \"office\""),
    (GOOD, "group = \"internet\"", "group = \"intranet\"", "plan/unknown-reference", "group = \"intranet\""),
    (
        GOOD,
        "paths = [\"direct\", \"closed\"]",
        "paths = [\"drect\"]",
        "plan/unknown-reference",
        "paths = [\"dr",
    ),
    (
        GOOD,
        "path = \"closed\"\nprefixes",
        "path = \"clsd\"\nprefixes",
        "plan/unknown-reference",
        "path = \"clsd\"",
    ),
    (GOOD, "zones = [\"affairs\"]", "zones = [\"x\"]", "plan/unknown-reference", "zones = [\"x\"]"),
    (GOOD, "paths = [\"direct\", \"closed\"]", "paths = []", "plan/gateway-paths", "paths = []"),
    (GOOD, "prefixes = [\"10.50.0.0/16\"]", "prefixes = []", "plan/hub", "prefixes = []"),
    (GOOD, "[\"10.50.0.0/16\"]", "[\"2001:db8:50::/48\"]", "plan/hub", "prefixes = [\"2001:db8:50::/48\"]"),
    (GOOD, "ipv4 = \"203.0.113.7\"", "ipv4 = \"10.20.1.7\"", "plan/echo", "ipv4 = \"10.20.1.7\""),
    (GOOD, "servers = [\"10.50.0.53\"]", "servers = []", "plan/forward", "servers = []"),
];

const POLICY: &[Edit] = &[
    (GOOD, "names = [\"drill.school.example\"]\n", "", "plan/service-empty", "[services.drill]"),
    (GOOD, "ports = [\"udp/7000\"]", "ports = []", "plan/service-empty", "ports = []"),
    (
        GOOD,
        "names = [\"login.school.example\"]",
        "names = [\"login.school.example\", \"affairs.school.example\"]",
        "plan/name-twice",
        "names = [\"login.school.example\", \"affairs",
    ),
    (
        GOOD,
        "group = \"learning\"\nnames = [\"drill",
        "group = \"internet\"\nnames = [\"drill",
        "plan/reserved-group",
        "group = \"internet\"",
    ),
    (
        GOOD,
        "name = \"login.school.example\"",
        "name = \"logn.school.example\"",
        "plan/health",
        "health = { name = \"logn",
    ),
    (GOOD, "path = \"/health\"", "path = \"health\"", "plan/health", "health = {"),
    (GOOD, "body = \"healthy\"", "body = \"\"", "plan/health", "health = {"),
    (GOOD, "path = \"/health\"", "path = \"/health\", port = 8443", "plan/health", "health = {"),
    (GOOD, "to = \"zone:printers\"", "to = \"zone:affairs\"", "plan/permit-self", "to = \"zone:affairs\""),
    (
        GOOD,
        "to = \"service:idp\"",
        "to = \"service:affairs\"",
        "plan/permit-twice",
        "to = \"service:affairs\"",
    ),
    (
        GOOD,
        "to = \"service:drill\"",
        "to = \"service:drill\"\nports = [\"udp/1\"]",
        "plan/permit-ports",
        "ports = [\"udp/1\"]",
    ),
    (GOOD, "why = \"ドリル教材の利用\"", "why = \" \"", "plan/permit-words", "why = \" \""),
    (
        GOOD,
        "from = \"learning\"\nto = \"service:drill\"",
        "from = \"printers\"\nto = \"service:drill\"",
        "plan/permit-without-route",
        "to = \"service:drill\"",
    ),
    (
        GOOD,
        "names = [\"drill.school.example\"]\nports = [\"udp/7000\"]",
        "prefixes = [\"2001:db8:77::/48\"]\nports = [\"udp/7000\"]\n[services.v6]\ngroup = \"v6\"\nports = [\"tcp/1\"]\n\
         prefixes = [\"2001:db8:78::/48\"]\n[[permits]]\nfrom = \"learning\"\nto = \"service:v6\"\nwho = \"a\"\n\
         why = \"b\"\nuntil = \"2029-03-31\"\n[[migration.routes]]\nzone = \"learning\"\ngroup = \"v6\"\n\
         paths = [\"closed\"]\n",
        "plan/permit-uncarriable",
        "to = \"service:v6\"",
    ),
    (
        GOOD,
        "zone = \"affairs\"\ngroup = \"affairs\"",
        "zone = \"affairs\"\ngroup = \"learning\"",
        "plan/route-without-permit",
        "[[migration.routes]]",
    ),
    (
        GOOD,
        "group = \"affairs\"\npaths = [\"closed\", \"direct\"]",
        "group = \"affairs\"\npaths = []",
        "plan/route-paths",
        "paths = []",
    ),
    (
        GOOD,
        "group = \"affairs\"\npaths = [\"closed\", \"direct\"]",
        "group = \"affairs\"\npaths = [\"closed\", \"closed\"]",
        "plan/route-paths",
        "paths = [\"closed\", \"closed\"]",
    ),
    (
        GOOD,
        "zone = \"learning\"\ngroup = \"internet\"",
        "zone = \"learning\"\ngroup = \"learning\"",
        "plan/route-twice",
        "[[migration.routes]]",
    ),
    (
        GOOD,
        "zone = \"learning\"\ngroup = \"internet\"",
        "zone = \"affairs\"\ngroup = \"internet\"",
        "plan/listed-with-internet",
        "group = \"internet\"",
    ),
    (
        GOOD,
        "zone = \"learning\"\ngroup = \"internet\"",
        "zone = \"affairs\"\ngroup = \"internet\"",
        "plan/open-without-internet",
        "internet = \"open\"",
    ),
    (
        GOOD,
        "group = \"affairs\"\npaths = [\"closed\", \"direct\"]",
        "group = \"affairs\"\npaths = [\"closed\", \"direct\"]\ncanary = { time = \"1h\" }",
        "plan/canary",
        "canary = {",
    ),
    (
        GOOD,
        "group = \"affairs\"\npaths = [\"closed\", \"direct\"]",
        "group = \"affairs\"\npaths = [\"closed\", \"direct\"]\ncanary = { share = 100, time = \"1h\" }",
        "plan/canary",
        "canary = {",
    ),
    (
        GOOD,
        "group = \"affairs\"\npaths = [\"closed\", \"direct\"]",
        "group = \"affairs\"\npaths = [\"closed\", \"direct\"]\ncanary = { ports = [\"LAN2\"], time = \"1h\" }",
        "plan/canary",
        "canary = {",
    ),
    (
        GOOD,
        "group = \"affairs\"\npaths = [\"closed\", \"direct\"]",
        "group = \"affairs\"\npaths = [\"closed\", \"direct\"]\ncanary = { ports = [\"LAN1\"], time = \"1h\" }",
        "plan/canary",
        "canary = {",
    ),
    (
        GOOD,
        "group = \"affairs\"\npaths = [\"closed\", \"direct\"]",
        "group = \"affairs\"\npaths = [\"closed\"]\ncanary = { share = 5, time = \"1h\" }",
        "plan/canary",
        "canary = {",
    ),
    (
        GOOD,
        "group = \"affairs\"\npaths = [\"closed\", \"direct\"]",
        "group = \"affairs\"\npaths = [\"closed\", \"direct\"]\ncanary = { rooms = [\"office\"], time = \"1h\" }",
        "plan/unknown-reference",
        "canary = {",
    ),
    (
        GOOD,
        "group = \"affairs\"\npaths = [\"closed\", \"direct\"]",
        "group = \"affairs\"\npaths = [\"closed\", \"direct\"]\ncanary = { share = 5, time = \"90d\" }",
        "plan/times",
        "canary = {",
    ),
    (
        GOOD,
        "[migration.times]",
        "[migration.rooms.office]\nzone = \"affairs\"\nprefixes = [\"10.99.0.0/24\"]\n[migration.times]",
        "plan/canary",
        "prefixes = [\"10.99.0.0/24\"]",
    ),
    (
        GOOD,
        "[migration.times]",
        "[migration.rooms.office]\nzone = \"affairs\"\nprefixes = []\n[migration.times]",
        "plan/canary",
        "[migration.rooms.office]",
    ),
    (
        GOOD,
        "[migration.times]",
        "[migration.rooms.office]\nzone = \"office\"\nprefixes = [\"10.20.1.0/28\"]\n[migration.times]",
        "plan/unknown-reference",
        "zone = \"office\"",
    ),
    (
        GOOD,
        "[migration.times]",
        "[migration.thresholds]\ndown_lost = 7\n[migration.times]",
        "plan/threshold",
        "down_lost = 7",
    ),
    (
        GOOD,
        "[migration.times]",
        "[migration.thresholds]\ndown_of = 0\n[migration.times]",
        "plan/threshold",
        "down_of = 0",
    ),
    (
        GOOD,
        "[migration.times]",
        "[migration.thresholds]\nloss_slack = 2\n[migration.times]",
        "plan/threshold",
        "loss_slack = 2",
    ),
    (
        GOOD,
        "[migration.times]",
        "[migration.thresholds]\nlatency_ratio = nan\n[migration.times]",
        "plan/threshold",
        "latency_ratio",
    ),
    (
        GOOD,
        "[migration.times]",
        "[migration.thresholds]\ncheck_interval = \"0s\"\n[migration.times]",
        "plan/threshold",
        "check_interval",
    ),
    (
        GOOD,
        "[migration.times]",
        "[migration.thresholds]\nliveness_timeout = \"0s\"\n[migration.times]",
        "plan/threshold",
        "liveness_timeout",
    ),
    (GOOD, "qualify = \"5min\"", "qualify = \"0s\"", "plan/times", "qualify = \"0s\""),
    (GOOD, "qualify = \"5min\"", "qualify = \"2s\"", "plan/times", "qualify = \"2s\""),
    (GOOD, "drain = \"8h\"", "drain = \"400d\"", "plan/times", "drain = \"400d\""),
    (
        GOOD,
        "ports = [\"udp/7000\"]",
        "ports = [\"udp/7000\"]\nsession_idle = \"0s\"",
        "plan/times",
        "session_idle = \"0s\"",
    ),
    (GOOD, "days = [\"sat\", \"sun\"]", "days = []", "plan/window", "days = []"),
    (
        GOOD,
        "days = [\"sat\", \"sun\"]",
        "days = [\"sat\", \"sat\"]",
        "plan/window",
        "days = [\"sat\", \"sat\"]",
    ),
    (
        GOOD,
        "days = [\"sat\", \"sun\"]\nfrom = \"18:00\"\nto = \"06:00\"",
        "start = \"2027-08-02T18:00\"\nend = \"2027-08-01T18:00\"",
        "plan/window",
        "end = \"2027-08-01T18:00\"",
    ),
    (
        GOOD,
        "days = [\"sat\", \"sun\"]\nfrom = \"18:00\"\nto = \"06:00\"",
        "start = \"2027-03-02T18:00\"\nend = \"2027-03-31T18:00\"",
        "plan/window-never",
        "[[migration.windows]]",
    ),
    (GOOD, "last = \"2027-03-31\"", "last = \"2027-02-28\"", "plan/freeze", "last = \"2027-02-28\""),
    (GOOD, "reason = \"年度末の成績処理\"", "reason = \"\"", "plan/freeze", "reason = \"\""),
    (GOOD, "identity = [\"idp\"]", "identity = [\"idq\"]", "plan/school", "identity = [\"idq\"]"),
    (GOOD, "lines = { carrier", "lines = { carier", "plan/school", "lines = { carier"),
    (GOOD, "service = \"learning\", path", "service = \"drill\", path", "plan/school", "speed = "),
    (GOOD, "path = \"/download?bytes=100000000\"", "path = \"download\"", "plan/school", "speed = "),
    (GOOD, "port = \"tcp/445\"", "port = \"udp/445\"", "plan/school", "port = \"udp/445\""),
    (GOOD, "phone = \"0000-00-0000\"", "phone = \"\"", "plan/school", "phone = \"\""),
    (GOOD, "pupils = 320", "pupils = 0", "plan/bad-value", "pupils = 0"),
    (
        GOOD,
        "[echo]",
        "[proxy]\naddress = \"10.51.0.80\"\nport = 8080\nzones = [\"affairs\"]\n[echo]",
        "plan/proxy",
        "address = \"10.51.0.80\"",
    ),
    (
        GOOD,
        "[echo]",
        "[proxy]\naddress = \"10.50.0.80\"\nport = 8080\nzones = [\"learning\"]\n[echo]",
        "plan/proxy",
        "zones = [\"learning\"]",
    ),
    (
        GOOD,
        "[echo]",
        "[proxy]\naddress = \"10.50.0.80\"\nport = 8080\nzones = []\n[echo]",
        "plan/proxy",
        "zones = []",
    ),
    (
        GOOD,
        "[echo]",
        "[proxy]\naddress = \"10.50.0.80\"\nport = 8080\nzones = [\"affair\"]\n[echo]",
        "plan/unknown-reference",
        "zones = [\"affair\"]",
    ),
    (
        GOOD,
        "[echo]",
        "[proxy]\naddress = \"10.50.0.80\"\nport = 8080\nzones = [\"affairs\"]\npac = \"on\"\n[echo]",
        "plan/bad-value",
        "pac = \"on\"",
    ),
    (
        GOOD,
        "gateway4 = \"192.0.2.1\"",
        "gateway4 = \"192.0.2.1\"\nrole = \"emergency\"",
        "plan/emergency",
        "paths = [\"closed\", \"direct\"]",
    ),
    (
        GOOD,
        "gateway4 = \"192.0.2.1\"",
        "gateway4 = \"192.0.2.1\"\nrole = \"emergency\"",
        "plan/emergency",
        "ipv6 = \"nat66\"",
    ),
    (
        GOOD,
        "gateway4 = \"10.10.0.2\"",
        "gateway4 = \"10.10.0.2\"\nrole = \"emergency\"",
        "plan/emergency",
        "path = \"closed\"",
    ),
    (
        GOOD,
        "gateway4 = \"10.10.0.2\"",
        "gateway4 = \"10.10.0.2\"\nmetered = { up_kbit = 500 }",
        "plan/emergency",
        "metered = { up_kbit = 500 }",
    ),
    (
        GOOD,
        "paths = [\"closed\", \"direct\"]\n",
        "paths = [\"closed\"]\nemergency = [\"direct\"]\n",
        "plan/emergency",
        "emergency = [\"direct\"]",
    ),
    (
        GOOD,
        "paths = [\"closed\", \"direct\"]\n",
        "paths = [\"closed\", \"direct\"]\nemergency = [\"lte\"]\n",
        "plan/unknown-reference",
        "emergency = [\"lte\"]",
    ),
    (
        GOOD,
        "gateway4 = \"10.10.0.2\"",
        "gateway4 = \"10.10.0.2\"\nrole = \"emergency\"\nmetered = { probe_kb_per_day = 10 }",
        "plan/bad-value",
        "metered = { probe_kb_per_day = 10 }",
    ),
];

fn all_edits() -> impl Iterator<Item = &'static Edit> {
    SYNTAX.iter().chain(NETWORK).chain(POLICY)
}

#[test]
fn every_edit_breaks_its_rule_on_its_line() {
    let mut failures = Vec::new();
    for (base, from, to, rule, line) in all_edits() {
        assert!(base.contains(from), "the example no longer has {from:?}");
        let text = base.replacen(from, to, 1);
        let errors = match parse(&text, "town.toml", &board()) {
            Ok(_) => {
                failures.push(format!("{rule} ({to:?}): accepted"));
                continue;
            }
            Err(errors) => errors,
        };
        let found = errors.iter().find(|error| error.rule == *rule && error.quoted.starts_with(line));
        let Some(error) = found else {
            failures.push(format!("{rule} ({to:?}) is not among:\n{errors}"));
            continue;
        };
        let written = text.lines().nth(error.line.saturating_sub(1)).unwrap_or_default().trim();
        if !written.starts_with(error.quoted.trim_end_matches('…')) {
            failures.push(format!("{rule}: line {} is {written:?}, quoted {:?}", error.line, error.quoted));
        }
        for words in [&error.what, &error.fix] {
            if words.en.is_empty() || words.ja.is_ascii() {
                failures.push(format!("{rule}: not said in both languages: {words:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn every_rule_is_broken_by_some_edit() {
    // Sizes and encodings have tests of their own; `unreadable` is the net below the schema.
    let elsewhere = ["plan/too-large", "plan/not-utf8", "plan/unreadable"];
    let tried: BTreeSet<&str> = all_edits().map(|edit| edit.3).chain(elsewhere).collect();
    let untried: Vec<&str> = seimon_plan::rules().filter(|rule| !tried.contains(rule)).collect();
    assert!(untried.is_empty(), "{untried:?}");
}

#[test]
fn all_errors_are_reported_at_once_in_order_of_line() {
    let text = GOOD
        .replace("gateway4 = \"10.10.0.2\"", "gatway4 = \"10.10.0.2\"")
        .replace("ipv6 = \"nat66\"\n", "")
        .replace("\"LAN3\"", "\"LAN9\"")
        .replace("10.20.3.1/24", "10.20.2.1/24")
        .replace("why = \"職員室からの印刷\"", "whi = \"職員室からの印刷\"\nwhy = \"x\"")
        .replace("to = \"service:drill\"", "to = \"service:dril\"");
    let errors = errors_of(&text);
    let rules: Vec<&str> = errors.iter().map(|error| error.rule).collect();
    for rule in [
        "plan/unknown-key",
        "plan/ipv6-unsaid",
        "plan/port-unknown",
        "plan/overlap",
        "plan/unknown-reference",
    ] {
        assert!(rules.contains(&rule), "{rule} is missing in {rules:?}");
    }
    assert_eq!(rules.iter().filter(|rule| **rule == "plan/unknown-key").count(), 2);
    assert!(errors.errors.is_sorted_by_key(|error| error.line));
}

#[test]
fn a_misspelt_key_or_an_unsaid_word_is_one_error_and_not_a_cascade() {
    for (from, to, rule) in [
        ("gateway4 = \"10.10.0.2\"", "gatway4 = \"10.10.0.2\"", "plan/unknown-key"),
        ("[gateway]", "[gatway]", "plan/unknown-key"),
        ("until = \"2029-03-31\"", "untill = \"2029-03-31\"", "plan/unknown-key"),
        ("ipv6 = \"nat66\"\n", "", "plan/ipv6-unsaid"),
        ("to = \"service:drill\"", "to = \"service:dril\"", "plan/unknown-reference"),
    ] {
        let errors = errors_of(&GOOD.replacen(from, to, 1));
        let rules: Vec<&str> = errors.iter().map(|error| error.rule).collect();
        assert_eq!(rules, [rule], "{errors}");
    }
}

#[test]
fn two_syntax_errors_are_both_reported() {
    let text = GOOD.replacen("port = \"WAN1\"", "port = WAN1\"", 1).replacen("[echo]", "[echo", 1);
    let errors = errors_of(&text);
    let lines: BTreeSet<usize> =
        errors.iter().filter(|error| error.rule == "plan/syntax").map(|error| error.line).collect();
    assert_eq!(lines.len(), 2, "{errors}");
}

#[test]
fn an_error_reads_as_file_line_rule_quote_and_what_to_do_in_both_languages() {
    let errors = errors_of(&GOOD.replacen("gateway4 = \"10.10.0.2\"", "gatway4 = \"10.10.0.2\"", 1));
    let line = GOOD.lines().position(|line| line.starts_with("gateway4 = \"10.10")).expect("there") + 1;
    let english = errors.to_string();
    assert!(
        english.contains(&format!("town.toml:{line}:1: error[plan/unknown-key]: `gatway4`")),
        "{english}"
    );
    assert!(english.contains(&format!("{line} | gatway4 = \"10.10.0.2\"")), "{english}");
    assert!(english.contains("did you mean `gateway4`?"), "{english}");
    assert!(errors.ja().contains("「gateway4」のことですか"), "{}", errors.ja());
}

#[test]
fn a_window_in_the_past_is_an_error_only_when_a_date_is_given() {
    let text = GOOD.replacen(
        "days = [\"sat\", \"sun\"]\nfrom = \"18:00\"\nto = \"06:00\"",
        "start = \"2026-08-01T18:00\"\nend = \"2026-08-02T06:00\"",
        1,
    );
    assert!(parse(&text, "town.toml", &board()).is_ok());
    let before = "2026-08-01T20:59:59Z".parse().expect("a timestamp");
    let after = "2026-08-01T21:00:00Z".parse().expect("a timestamp");
    assert!(parse_at(&text, "town.toml", &board(), before).is_ok());
    let errors = parse_at(&text, "town.toml", &board(), after).expect_err("the window is past");
    assert_eq!(errors.errors[0].rule, "plan/window-never");
}

#[test]
fn ten_megabytes_of_noise_are_refused_by_size_alone() {
    // A fixed linear congruential sequence.
    let mut state = 1u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(10 * 1024 * 1024)
    .collect();
    let errors = parse_bytes(&noise, "noise.toml", &board()).expect_err("noise");
    assert_eq!((errors.errors.len(), errors.errors[0].rule, errors.errors[0].line), (1, "plan/too-large", 0));
    let printable: String = noise.iter().map(|byte| char::from(b' ' + byte % 94)).collect();
    assert_eq!(errors_of(&printable).errors[0].rule, "plan/too-large");
}

#[test]
fn the_largest_printable_noise_gives_a_bounded_list() {
    let mut state = 1u32;
    let noise: String = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let byte = state.to_be_bytes()[0];
        if byte.is_multiple_of(40) { '\n' } else { char::from(b' ' + byte % 94) }
    })
    .take(seimon_plan::LARGEST)
    .collect();
    let errors = errors_of(&noise);
    assert!(errors.errors.len() <= PlanErrors::MOST);
    assert!(errors.errors.iter().all(|error| error.quoted.chars().count() <= 121));
}

#[test]
fn text_that_is_not_utf8_names_its_first_bad_line() {
    let mut bytes = GOOD.as_bytes().to_vec();
    let at = GOOD.find("[lines.carrier]").expect("there");
    bytes[at + 3] = 0x93;
    let errors = parse_bytes(&bytes, "town.toml", &board()).expect_err("not UTF-8");
    let line = GOOD[..at].matches('\n').count() + 1;
    assert_eq!((errors.errors[0].rule, errors.errors[0].line), ("plan/not-utf8", line));
}

#[test]
fn bytes_with_a_byte_order_mark_are_read() {
    let text = format!("\u{feff}{GOOD}");
    assert!(parse_bytes(text.as_bytes(), "town.toml", &board()).is_ok());
}

#[test]
fn an_empty_file_is_told_to_say_its_version() {
    assert_eq!(errors_of("").errors[0].rule, "plan/version");
}

#[test]
fn a_plan_of_ten_thousand_permits_is_read() {
    use std::fmt::Write;
    let mut text = GOOD.to_owned();
    for i in 0..10_000 {
        let _ = write!(
            text,
            "[services.s{i}]\ngroup = \"affairs\"\nnames = [\"s{i}.school.example\"]\nports = [\"tcp/443\"]\n\
             prefixes = [\"203.0.{}.{}/32\"]\n[[permits]]\nfrom = \"affairs\"\nto = \"service:s{i}\"\nwho = \"a\"\n\
             why = \"b\"\nuntil = \"2029-03-31\"\n",
            i / 256,
            i % 256
        );
    }
    let plan = parse(&text, "town.toml", &board()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(plan.permits.len(), 10_006);
}
