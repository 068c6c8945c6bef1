//! The hub plan: the shipped example is valid; one edit on it → the rule that is broken, on the line where the administrator
//! wrote it. Every rule appears.

use std::collections::BTreeSet;
use std::path::Path;

use seimon_board::Board;
use seimon_plan::{PlanErrors, Role, hub_rules, hub_schema, parse_hub, role_of};

const GOOD: &str = include_str!("../examples/town-hall-hub.toml");

fn board() -> Board {
    Board::shipped("lab-namespace").expect("shipped")
}

fn errors_of(text: &str) -> PlanErrors {
    match parse_hub(text.as_bytes(), "hub.toml", &board()) {
        Ok(_) => panic!("the edit broke no rule"),
        Err(errors) => errors,
    }
}

/// (text to replace once, by what, rule, beginning of the line that is quoted)
type Edit = (&'static str, &'static str, &'static str, &'static str);

const EDITS: &[Edit] = &[
    ("board = \"lab-namespace\"", "board = \"other\"", "hub/board", "board = \"other\""),
    ("port = \"LAN1\"", "port = \"LAN9\"", "hub/port-unknown", "port = \"LAN9\""),
    ("port = \"LAN1\"", "port = \"WAN1\"", "hub/port-twice", "port = \"WAN1\""),
    ("prefixes = [\"10.50.0.0/16\"]", "prefixes = []", "hub/empty", "prefixes = []"),
    ("name = \"ゆうひ小学校\"", "name = \" \"", "hub/empty", "name = \" \""),
    ("ports = [\"tcp/22\"]", "ports = []", "hub/empty", "ports = []"),
    ("\"hub.key\"", "\"\"", "hub/empty", "private_key_file = \"\""),
    (
        "[town]\nline = \"townhall\"",
        "[town]\nline = \"townhal\"",
        "hub/unknown-reference",
        "line = \"townhal\"",
    ),
    ("gateway4 = \"10.50.255.1\"", "gateway4 = \"10.51.255.1\"", "hub/gateway", "gateway4 = \"10.51.255.1\""),
    ("gateway4 = \"10.50.255.1\"\n", "", "hub/gateway", "ipv4 = \"10.50.255.2/30\""),
    ("mtu = 1420", "mtu = 1421", "hub/mtu", "mtu = 1421"),
    ("mtu = 1420", "mtu = 500", "hub/mtu", "mtu = 500"),
    ("10.60.0.1/16", "10.60.0.0/16", "hub/address", "ipv4 = \"10.60.0.0/16\""),
    ("\"198.51.100.11\"]", "\"127.0.0.1\"]", "hub/address", "ipv4 = [\"198.51.100.10\", \"127.0.0.1\"]"),
    (
        "[\"10.50.0.0/16\"]\nnat4",
        "[\"10.50.0.0/16\", \"fd50::/32\"]\nnat4",
        "hub/family",
        "prefixes = [\"10.50.0.0/16\", \"fd50::/32\"]",
    ),
    ("[\"10.20.0.0/16\"]", "[\"fd20::/32\"]", "hub/family", "prefixes = [\"fd20::/32\"]"),
    ("[\"10.50.0.53\"]", "[\"10.51.0.53\"]", "hub/dns", "servers = [\"10.51.0.53\"]"),
    ("[\"10.20.0.0/16\"]", "[\"10.50.3.0/24\"]", "hub/overlap", "prefixes = [\"10.50.3.0/24\"]"),
    ("[\"10.20.0.0/16\"]", "[\"10.60.0.0/20\"]", "hub/overlap", "prefixes = [\"10.60.0.0/20\"]"),
    (
        "ipv4 = \"10.60.1.3\"",
        "prefixes = [\"10.20.9.0/24\"]\nipv4 = \"10.60.1.3\"",
        "hub/overlap",
        "prefixes = [\"10.20.0.0/16\"]",
    ),
    ("\"10.60.1.3\"", "\"10.61.1.3\"", "hub/school-address", "ipv4 = \"10.61.1.3\""),
    ("\"10.60.1.3\"", "\"10.60.0.1\"", "hub/school-address", "ipv4 = \"10.60.0.1\""),
    ("\"10.60.1.3\"", "\"10.60.255.255\"", "hub/school-address", "ipv4 = \"10.60.255.255\""),
    ("\"10.60.1.3\"", "\"10.60.1.2\"", "hub/school-address", "ipv4 = \"10.60.1.2\""),
    (
        "ipv4 = \"10.60.1.3\"",
        "ipv4 = \"10.60.1.3\"\nipv6 = \"fd60::3\"",
        "hub/school-address",
        "ipv6 = \"fd60::3\"",
    ),
    ("AwAAAAAA", "AQAAAAAA", "hub/key", "keys = [{ public_key = \"AQAA"),
    (
        "until = \"2027-03-31\"",
        "from = \"2027-04-01\", until = \"2027-03-31\"",
        "hub/key-days",
        "{ public_key = \"AQAA",
    ),
    ("egress = \"198.51.100.10\"", "egress = \"198.51.100.12\"", "hub/egress", "egress = \"198.51.100.12\""),
    ("role = \"hub\"", "role = \"hob\"", "plan/bad-value", "role = \"hob\""),
    ("listen_port = 51820", "listen_prt = 51820", "plan/unknown-key", "listen_prt = 51820"),
    ("kbit = 5000", "kbit = 5", "plan/bad-value", "cap = { kbit = 5 }"),
    ("AwAAAAAA", "AwAAAAA", "plan/bad-value", "keys = [{ public_key = \"AwAA"),
    ("\"Asia/Tokyo\"", "\"Asia/Tokio\"", "plan/time-zone", "timezone = \"Asia/Tokio\""),
    ("version = 1\n", "", "plan/version", ""),
    ("[schools.yuhi-es]", "[schools.Yuhi]", "plan/bad-value", "[schools.Yuhi]"),
];

#[test]
fn the_shipped_example_is_valid_and_a_hubs() {
    assert_eq!(role_of(GOOD), Role::Hub);
    assert_eq!(role_of(include_str!("../examples/two-line-town.toml")), Role::School);
    let plan = parse_hub(GOOD.as_bytes(), "hub.toml", &board()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(plan.schools.len(), 3);
}

#[test]
fn every_rule_is_broken_by_an_edit_and_quotes_its_line() {
    let mut broken = BTreeSet::new();
    for (old, new, rule, quoted) in EDITS {
        assert!(GOOD.contains(old), "the example has no `{old}`");
        let errors = errors_of(&GOOD.replacen(old, new, 1));
        let found = errors.iter().find(|error| error.rule == *rule && error.quoted.starts_with(quoted));
        assert!(found.is_some(), "{old} → {new}: {errors}");
        broken.insert(*rule);
    }
    let missing: Vec<_> = hub_rules().filter(|rule| !broken.contains(rule)).collect();
    assert!(missing.is_empty(), "no edit breaks {missing:?}");
}

#[test]
fn all_mistakes_are_told_at_once_in_both_languages() {
    let mut text = GOOD.to_owned();
    for (old, new) in [
        ("mtu = 1420", "mtu = 1421"),
        ("\"10.60.1.3\"", "\"10.61.1.3\""),
        ("[\"10.50.0.53\"]", "[\"10.51.0.53\"]"),
        ("listen_port = 51820", "listen_prt = 51820"),
    ] {
        text = text.replacen(old, new, 1);
    }
    let errors = errors_of(&text);
    let rules: BTreeSet<_> = errors.iter().map(|error| error.rule).collect();
    for rule in ["hub/mtu", "hub/school-address", "hub/dns", "plan/unknown-key"] {
        assert!(rules.contains(rule), "{rule}: {errors}");
    }
    assert!(
        errors.iter().all(|error| !error.fix.en.is_empty() && !error.fix.ja.is_empty() && error.line > 0)
    );
}

#[test]
fn thousands_of_schools_are_read_and_their_mistakes_found() {
    let mut text = GOOD.split("[schools.asahi-es]").next().unwrap_or_default().to_owned();
    for n in 0..3_000_u32 {
        let key =
            seimon_plan::WireguardKey(std::array::from_fn(|i| if i < 4 { n.to_be_bytes()[i] } else { 7 }));
        text += &format!(
            "[schools.s{n}]\nname = \"s\"\nipv4 = \"10.60.{}.{}\"\nprefixes = [\"10.{}.{}.0/24\"]\nkeys = [{{ public_key = \"{key}\" }}]\n",
            4 + n / 250,
            1 + n % 250,
            100 + n / 250,
            n % 250
        );
    }
    let plan = parse_hub(text.as_bytes(), "hub.toml", &board()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(plan.schools.len(), 3_000);
    let errors = errors_of(&text.replace("10.105.7.0/24", "10.104.0.0/16"));
    assert!(errors.iter().all(|error| error.rule == "hub/overlap"), "{errors}");
    assert!(
        errors.errors.len() >= 200,
        "one for each that it covers, and there is a limit: {}",
        errors.errors.len()
    );
}

#[test]
fn the_schema_in_the_repository_is_current_and_describes_every_key() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/hub-plan.schema.json");
    let schema = hub_schema();
    let current = serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &current).expect("the schema can be written");
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == current, "{} is old: run this test with UPDATE=1", file.display());
    let definitions = schema["$defs"].as_object().into_iter().flatten();
    for (name, definition) in definitions.chain([(&"the top".to_owned(), &schema)]) {
        for (key, property) in definition["properties"].as_object().into_iter().flatten() {
            let described = property.get("description").is_some() || property.get("$ref").is_some();
            assert!(described, "{name}.{key} is not described");
        }
    }
}
