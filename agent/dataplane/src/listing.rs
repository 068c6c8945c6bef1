//! Reads `nft -j -t list ruleset`: chains with their declarations, and rules with tags and digests.
//!
//! Chains and rules are read with the types of the `nftables` crate. A rule with a statement that the crate does not
//! know is still read, from the JSON values: others may have put anything into our table, and that is what we look for.

use std::collections::{BTreeMap, BTreeSet};

use nftables::schema::{Chain, Rule};
use nftables::types::{NfChainPolicy, NfChainType, NfHook};
use seimon_board::InterfaceName;
use seimon_core::network_plan::{ApplyError, ChainState, Name, Ruleset};
use serde_json::Value;

/// What is listed of our table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) chains: BTreeMap<Name, ChainState>,
    /// The flowtable's devices.
    pub(crate) flowtable: Option<BTreeSet<InterfaceName>>,
}

/// `None` when our table is not there.
pub(crate) fn read(json: &str) -> Result<Option<Listing>, ApplyError> {
    let unreadable = |what: &dyn std::fmt::Display| ApplyError::Unreadable(format!("nft's listing: {what}"));
    let mut document: Value = serde_json::from_str(json).map_err(|error| unreadable(&error))?;
    let Some(Value::Array(objects)) = document.get_mut("nftables").map(Value::take) else {
        return Err(unreadable(&"it has no `nftables`"));
    };
    let mut exists = false;
    let mut chains = BTreeMap::new();
    let mut flowtable = None;
    let mut digests: BTreeMap<Name, Digest> = BTreeMap::new();
    for object in objects {
        let Value::Object(object) = object else { continue };
        for (kind, body) in object {
            match kind.as_str() {
                "table" if is_our_table(&body) => exists = true,
                "chain" if is_in_our_table(&body) => {
                    let (name, base) = chain(body).map_err(|error| unreadable(&error))?;
                    chains.insert(name, ChainState { base, ..ChainState::default() });
                }
                "flowtable" if is_in_our_table(&body) && field(&body, "name") == Some(Ruleset::FLOWTABLE) => {
                    flowtable = Some(devices(&body));
                }
                "rule" if is_in_our_table(&body) => {
                    let rule = SeenRule::read(body);
                    let state: &mut ChainState = chains.entry(rule.chain.clone()).or_default();
                    state.rule_tags.push(rule.tag);
                    digests.entry(rule.chain).or_default().add(&rule.expressions);
                }
                _ => {}
            }
        }
    }
    for (name, state) in &mut chains {
        state.digest = digests.remove(name).unwrap_or_default().text();
    }
    Ok(exists.then_some(Listing { chains, flowtable }))
}

/// One device is a word, more are a list, none are nothing.
fn devices(body: &Value) -> BTreeSet<InterfaceName> {
    let listed = match body.get("dev") {
        Some(Value::Array(all)) => all.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    listed.iter().filter_map(|name| InterfaceName::new(name.as_str()?).ok()).collect()
}

fn field<'a>(body: &'a Value, name: &str) -> Option<&'a str> {
    body.get(name).and_then(Value::as_str)
}

fn is_our_table(body: &Value) -> bool {
    field(body, "family") == Some("inet") && field(body, "name") == Some(Ruleset::TABLE)
}

fn is_in_our_table(body: &Value) -> bool {
    field(body, "family") == Some("inet") && field(body, "table") == Some(Ruleset::TABLE)
}

/// The name, and the line that `ChainKind::fingerprint` gives for an equal declaration.
fn chain(body: Value) -> Result<(Name, String), serde_json::Error> {
    let chain: Chain<'_> = serde_json::from_value(body)?;
    let (Some(kind), Some(hook), Some(priority)) = (chain._type, chain.hook, chain.prio) else {
        return Ok((chain.name.into_owned(), String::new()));
    };
    let kind = match kind {
        NfChainType::Filter => "filter",
        NfChainType::Route => "route",
        NfChainType::NAT => "nat",
    };
    let hook = match hook {
        NfHook::Ingress => "ingress",
        NfHook::Prerouting => "prerouting",
        NfHook::Forward => "forward",
        NfHook::Input => "input",
        NfHook::Output => "output",
        NfHook::Postrouting => "postrouting",
        NfHook::Egress => "egress",
    };
    let policy = match chain.policy {
        Some(NfChainPolicy::Drop) => "drop",
        Some(NfChainPolicy::Accept) | None => "accept",
    };
    Ok((chain.name.into_owned(), format!("{kind} {hook} {priority} {policy}")))
}

struct SeenRule {
    chain: Name,
    tag: Option<String>,
    expressions: Value,
}

impl SeenRule {
    fn read(body: Value) -> Self {
        let mut expressions = body.get("expr").cloned().unwrap_or_default();
        forget_counts(&mut expressions);
        let (chain, comment) = match serde_json::from_value::<Rule<'_>>(body.clone()) {
            Ok(rule) => (rule.chain.into_owned(), rule.comment.map(|comment| comment.into_owned())),
            Err(_) => {
                let text = |name| field(&body, name).map(str::to_owned);
                (text("chain").unwrap_or_default(), text("comment"))
            }
        };
        let tag = comment.as_deref().and_then(|comment| comment.strip_prefix("s:")).map(str::to_owned);
        Self { chain, tag, expressions }
    }
}

/// What changes by itself is no difference.
fn forget_counts(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                match (name.as_str(), field) {
                    ("counter" | "last", counts @ Value::Object(_)) => *counts = Value::Null,
                    ("quota", Value::Object(quota)) => {
                        quota.remove("used");
                        quota.remove("used_unit");
                    }
                    (_, other) => forget_counts(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(forget_counts),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// FNV-1a, 64 bits: the same in every build, as it may be kept on disk.
struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn add(&mut self, expressions: &Value) {
        for byte in expressions.to_string().bytes().chain([b'\n']) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn text(&self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shortened from what nft 1.0.6 prints.
    fn listing(rules: &str) -> String {
        format!(
            r#"{{"nftables": [{{"metainfo": {{"version": "1.0.6", "json_schema_version": 1}}}},
            {{"table": {{"family": "inet", "name": "seimon", "handle": 1}}}},
            {{"table": {{"family": "inet", "name": "other", "handle": 2}}}},
            {{"chain": {{"family": "inet", "table": "other", "name": "pre", "handle": 3}}}},
            {{"chain": {{"family": "inet", "table": "seimon", "name": "use_1_2", "handle": 1}}}},
            {{"chain": {{"family": "inet", "table": "seimon", "name": "pre", "handle": 3, "type": "filter", "hook": "prerouting", "prio": -150, "policy": "drop"}}}}
            {rules}]}}"#
        )
    }

    fn pre(rules: &str) -> ChainState {
        read(&listing(rules)).expect("readable").expect("there").chains.remove("pre").expect("chain")
    }

    const TAGGED: &str = r#", {"rule": {"family": "inet", "table": "seimon", "chain": "pre", "handle": 18, "comment": "s:0000abcd", "expr": [{"counter": {"packets": 0, "bytes": 0}}, {"accept": null}]}}"#;

    #[test]
    fn chains_of_our_table_are_read_with_declaration_and_tags() {
        let Listing { chains, flowtable } = read(&listing(TAGGED)).expect("readable").expect("there");
        assert_eq!(flowtable, None);
        assert_eq!(chains.len(), 2);
        assert_eq!(chains["pre"].base, "filter prerouting -150 drop");
        assert_eq!(chains["use_1_2"].base, "");
        assert_eq!(chains["pre"].rule_tags, [Some("0000abcd".to_owned())]);
    }

    #[test]
    fn the_flowtables_devices_are_read_however_many_there_are() {
        let flowtable = |dev: &str| {
            let object = format!(
                r#", {{"flowtable": {{"family": "inet", "name": "fast", "table": "seimon", "handle": 2, "hook": "ingress", "prio": 0{dev}}}}}"#
            );
            let devices = read(&listing(&object)).expect("readable").expect("there").flowtable.expect("one");
            devices.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(flowtable(""), "");
        assert_eq!(flowtable(r#", "dev": "eth0""#), "eth0");
        assert_eq!(flowtable(r#", "dev": ["eth0", "z-affairs"]"#), "eth0 z-affairs");
    }

    #[test]
    fn counting_and_new_handles_do_not_change_the_digest_but_expressions_do() {
        let counted = TAGGED.replace("\"packets\": 0", "\"packets\": 7").replace("18", "19");
        assert_eq!(pre(TAGGED).digest, pre(&counted).digest);
        assert_ne!(pre(TAGGED).digest, pre(&TAGGED.replace("accept", "drop")).digest);
        assert_ne!(pre(TAGGED).digest, pre("").digest);
    }

    #[test]
    fn a_statement_that_nobody_knows_does_not_hide_the_rule() {
        let state = pre(&TAGGED.replace("{\"accept\": null}", "{\"teleport\": {\"to\": 7}}"));
        assert_eq!(state.rule_tags, [Some("0000abcd".to_owned())]);
        assert_ne!(state.digest, pre(TAGGED).digest);
    }

    #[test]
    fn an_untagged_rule_is_seen_as_not_ours() {
        assert_eq!(pre(&TAGGED.replace("s:0000abcd", "hello")).rule_tags, [None]);
    }

    #[test]
    fn no_table_is_not_an_empty_table() {
        assert_eq!(read(r#"{"nftables": []}"#).expect("readable"), None);
        assert!(matches!(read("oops"), Err(ApplyError::Unreadable(_))));
    }
}
