//! PAC files as browsers read them: run in a real JavaScript engine, against the same decisions made here by other means.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr};
use std::process::{Command, Stdio};

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use seimon_board::Board;
use seimon_core::proxy::{Destination, PacFile, Rule, Way, wpad_names};
use seimon_plan::{GroupId, ValidSitePlan, ZoneId};

const PROXY: &str =
    "\n[proxy]\naddress = \"10.50.0.80\"\nport = 8080\nzones = [\"affairs\"]\npac = \"serve\"\n";

fn town() -> ValidSitePlan {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../provisioning/plan/examples/two-line-town.toml");
    let text = std::fs::read_to_string(file).expect("the shipped example") + PROXY;
    let board = Board::shipped("lab-namespace").expect("a shipped board");
    seimon_plan::parse(&text, "town.toml", &board).unwrap_or_else(|errors| panic!("{errors}"))
}

fn pac(direct: &[&str]) -> PacFile {
    let groups: BTreeSet<GroupId> =
        direct.iter().map(|id| GroupId::new(*id).expect("an identifier")).collect();
    let now = "2027-07-01T00:00:00Z".parse().expect("an instant");
    let zone = ZoneId::new("affairs").expect("an identifier");
    PacFile::of_zone(&town(), &zone, &groups, now).expect("the zone has a proxy")
}

/// What a browser asks.
#[derive(Clone, Debug)]
struct Question {
    scheme: &'static str,
    host: String,
    port: Option<u16>,
}

impl Question {
    fn url(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{host}{port}/", self.scheme)
    }
}

/// The decision, without a word of JavaScript.
fn decide(file: &PacFile, question: &Question) -> String {
    let port = question.port.unwrap_or(if question.scheme == "https" { 443 } else { 80 });
    let host = question.host.trim_end_matches('.').to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    let fits = |to: &Destination| match (to, address) {
        (Destination::Name(name), _) => *name == host,
        (Destination::Below(domain), _) => {
            host.strip_suffix(domain).is_some_and(|h| h.len() > 1 && h.ends_with('.'))
        }
        (Destination::Prefix(net), Some(address)) => net.contains(&address),
        (Destination::Prefix(_), None) => false,
    };
    let open = |ports: &[(u16, u16)]| {
        ports.is_empty() || ports.iter().any(|(first, last)| (*first..=*last).contains(&port))
    };
    let way = if address.is_none() && !host.contains('.') {
        Way::Direct
    } else {
        file.rules.iter().find(|rule| fits(&rule.to) && open(&rule.ports)).map_or(file.rest, |rule| rule.way)
    };
    match way {
        Way::Direct => "DIRECT".to_owned(),
        Way::Proxy => format!("PROXY {}", file.proxy),
    }
}

/// What surrounds a PAC file in a browser; `isInNet` as Netscape wrote it, for addresses.
const BROWSER: &str = r#"
const vm = require("vm");
const isInNet = (ip, net, mask) => {
  const number = (a) => a.split(".").reduce((sum, part) => sum * 256 + Number(part), 0) >>> 0;
  return (number(ip) & number(mask)) === (number(net) & number(mask));
};
let text = "";
process.stdin.on("data", (piece) => (text += piece));
process.stdin.on("end", () => {
  const answers = JSON.parse(text).map(({ pac, questions }) => {
    const world = vm.createContext({ isInNet });
    vm.runInContext(pac, world);
    if (Object.keys(world).some((name) => !/^(isInNet|FindProxyForURL|seimon\w+)$/.test(name))) throw new Error("leaks");
    return questions.map(([url, host]) => world.FindProxyForURL(url, host));
  });
  process.stdout.write(JSON.stringify(answers));
});
"#;

/// Each file's answers; `None`: there is no engine here.
fn ask(files: &[(PacFile, Vec<Question>)]) -> Option<Vec<Vec<String>>> {
    let input: Vec<serde_json::Value> = files
        .iter()
        .map(|(file, questions)| {
            let questions: Vec<[String; 2]> = questions.iter().map(|q| [q.url(), q.host.clone()]).collect();
            serde_json::json!({ "pac": file.to_string(), "questions": questions })
        })
        .collect();
    let mut command = Command::new("node");
    command.args(["-e", BROWSER]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut node) = command.spawn() else {
        eprintln!("skipped: no JavaScript engine (Debian package nodejs)");
        return None;
    };
    let input = serde_json::to_vec(&input).expect("it is JSON");
    node.stdin.take().expect("it is piped").write_all(&input).expect("it reads");
    let output = node.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("its answers"))
}

fn question(scheme: &'static str, host: &str, port: Option<u16>) -> Question {
    Question { scheme, host: host.to_owned(), port }
}

#[test]
fn a_moved_service_is_reached_directly_and_everything_else_through_the_proxy() {
    let https = |host| question("https", host, None);
    let proxy = "PROXY 10.50.0.80:8080";
    let cases = [
        (https("affairs.school.example"), proxy, "DIRECT"),
        (https("AFFAIRS.School.Example."), proxy, "DIRECT"),
        (https("login.school.example"), proxy, "DIRECT"),
        (question("https", "affairs.school.example", Some(8443)), proxy, proxy),
        (question("http", "affairs.school.example", None), proxy, proxy),
        (https("evilaffairs.school.example"), proxy, proxy),
        (https("affairs.school.example.evil.example"), proxy, proxy),
        (https("www.example"), proxy, proxy),
        (https("files.town.example"), "DIRECT", "DIRECT"),
        (https("town.example"), "DIRECT", "DIRECT"),
        (https("mytown.example"), proxy, proxy),
        (https("intranet"), "DIRECT", "DIRECT"),
        (https("10.50.0.10"), "DIRECT", "DIRECT"),
        (https("10.51.0.10"), proxy, proxy),
        (https("10.20.3.10"), "DIRECT", "DIRECT"),
        (https("fd20:0:0:1::77"), "DIRECT", "DIRECT"),
        (https("fd20:0:0:3::77"), proxy, proxy),
        (https("2001:db8::1"), proxy, proxy),
        (https("::ffff:10.50.0.10"), proxy, proxy),
    ];
    let questions: Vec<Question> = cases.iter().map(|(question, ..)| question.clone()).collect();
    let files = [(pac(&[]), questions.clone()), (pac(&["affairs"]), questions)];
    for (i, (question, before, after)) in cases.iter().enumerate() {
        let decided = [decide(&files[0].0, question), decide(&files[1].0, question)];
        assert_eq!(decided, [*before, *after], "{question:?}");
        if let Some(answers) = ask(&files) {
            assert_eq!([answers[0][i].as_str(), answers[1][i].as_str()], [*before, *after], "{question:?}");
        }
    }
}

#[test]
fn where_the_internet_has_moved_only_what_has_not_goes_through_the_proxy() {
    let file = pac(&["internet"]);
    let decided = |host| decide(&file, &question("https", host, None));
    assert_eq!(decided("www.example"), "DIRECT");
    assert_eq!(decided("affairs.school.example"), "PROXY 10.50.0.80:8080");
}

#[test]
fn browsers_find_the_file_in_the_towns_own_domains_only() {
    let plan = town();
    assert_eq!(wpad_names(&plan, &ZoneId::new("affairs").unwrap()), ["wpad", "wpad.town.example"]);
    assert_eq!(wpad_names(&plan, &ZoneId::new("learning").unwrap()), ["wpad"]);
    let learning = ZoneId::new("learning").unwrap();
    let now = "2027-07-01T00:00:00Z".parse().expect("an instant");
    assert_eq!(PacFile::of_zone(&plan, &learning, &BTreeSet::new(), now), None, "no proxy is set for it");
}

fn host() -> impl Strategy<Value = String> {
    let label = "[a-z][a-z0-9-]{0,3}";
    prop_oneof![
        4 => prop::collection::vec(label, 1..4).prop_map(|labels| labels.join(".")),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(c, d)| format!("10.{}.{c}.{d}", c % 3)),
        2 => any::<[u8; 3]>().prop_map(|[a, b, c]| {
            let part = |n: u8| u16::from(n % 4);
            Ipv6Addr::new(0xfd20, 0, part(a), part(b), 0, 0, 0, part(c)).to_string()
        }),
    ]
}

fn destination() -> impl Strategy<Value = Destination> {
    prop_oneof![
        3 => host().prop_filter("a name", |host| host.parse::<IpAddr>().is_err()).prop_map(Destination::Name),
        2 => host().prop_filter("a name", |host| host.parse::<IpAddr>().is_err()).prop_map(Destination::Below),
        // Whatever somebody may manage to write into a plan: it must stay a text.
        2 => any::<String>().prop_map(|text| Destination::Name(format!("\"\\\n</script>*/{text}"))),
        2 => (host(), 0u8..=128).prop_filter_map("an address", |(host, length)| {
            let address: IpAddr = host.parse().ok()?;
            let length = if address.is_ipv4() { length % 33 } else { length };
            Some(Destination::Prefix(IpNet::new(address, length).ok()?.trunc()))
        }),
    ]
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![Just(Way::Direct), Just(Way::Proxy)]
}

fn file() -> impl Strategy<Value = PacFile> {
    let ports =
        prop::collection::vec((1u16..1000, 0u16..100).prop_map(|(first, more)| (first, first + more)), 0..3);
    let rule = (destination(), ports, way()).prop_map(|(to, ports, way)| Rule { to, ports, way });
    let proxy = prop_oneof![Just("10.50.0.80:8080"), Just("[2001:db8::80]:3128")];
    (prop::collection::vec(rule, 0..8), way(), proxy).prop_map(|(rules, rest, proxy)| PacFile {
        zone: ZoneId::new("affairs").expect("an identifier"),
        proxy: proxy.parse().expect("an address and a port"),
        rules,
        rest,
    })
}

fn asked(file: &PacFile, hosts: Vec<(String, bool, Option<u16>)>) -> Vec<Question> {
    let named = file.rules.iter().map(|rule| match &rule.to {
        Destination::Name(name) => name.clone(),
        Destination::Below(domain) => format!("a.{domain}"),
        Destination::Prefix(net) => net.addr().to_string(),
    });
    let sound = |host: &String| host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b));
    let named = named.filter(sound).map(|host| question("https", &host, None));
    let others =
        hosts.into_iter().map(|(host, tls, port)| question(if tls { "https" } else { "http" }, &host, port));
    named.chain(others).collect()
}

#[test]
fn an_engine_decides_as_the_rules_say_whatever_they_are() {
    let mut runner = TestRunner::deterministic();
    let hosts = prop::collection::vec((host(), any::<bool>(), prop::option::of(1u16..1100)), 12);
    let files: Vec<(PacFile, Vec<Question>)> = (0..150)
        .map(|_| {
            let file = file().new_tree(&mut runner).unwrap().current();
            let hosts = hosts.new_tree(&mut runner).unwrap().current();
            let questions = asked(&file, hosts);
            (file, questions)
        })
        .collect();
    let Some(answers) = ask(&files) else { return };
    let (mut direct, mut total) = (0, 0);
    for ((file, questions), answers) in files.iter().zip(answers) {
        for (question, answer) in questions.iter().zip(answers) {
            assert_eq!(answer, decide(file, question), "{question:?}\n{file}");
            direct += usize::from(answer == "DIRECT");
            total += 1;
        }
    }
    assert!(total > 2_000 && direct > total / 10 && direct < total * 9 / 10, "{direct} of {total}");
}

proptest! {
    #[test]
    fn a_file_is_plain_text_that_nothing_in_a_plan_can_break_out_of(file in file()) {
        let text = file.to_string();
        prop_assert!(text.is_ascii());
        prop_assert!(!text.contains("</") && !text.contains("*/") && !text.contains('\r'));
        prop_assert_eq!(text.lines().filter(|line| line.starts_with("  if (h ") || line.starts_with("  if (four")
            || line.starts_with("  if (six") || line.starts_with("  if (seimon")).count(), file.rules.len());
        for line in text.lines().filter(|line| line.contains("return \"")) {
            prop_assert_eq!(line.matches('"').count() % 2, 0, "{}", line);
        }
        prop_assert!(!text.contains("dnsResolve") && !text.contains("isResolvable"));
    }
}
