//! As much of nft's language as our own transactions use, line by line.
//!
//! Whatever else stands in a script is refused, as is a transaction after which a rule or an element refers to a chain or
//! set that is not there: the kernel would refuse it too.

use seimon_core::network_plan::{
    ApplyError, ChainState, Key, KeyPart, KeyType, Mark, Name, TableState, Value, ValueType, Verdict,
};

use super::{Container, Table};

type Result<T> = std::result::Result<T, String>;

/// Carries out one transaction: all of it or nothing.
pub(super) fn run(script: &str, table: &mut Option<Table>) -> std::result::Result<(), ApplyError> {
    let mut next = table.clone();
    let mut lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
    while let Some(line) = lines.next() {
        let done = command(line, &mut lines, &mut next);
        done.map_err(|why| ApplyError::NftRefused { message: format!("{why}: {line:.200}") })?;
    }
    if let Some(table) = &next {
        references(table).map_err(|message| ApplyError::NftRefused { message })?;
    }
    *table = next;
    Ok(())
}

fn command<'a>(
    line: &str,
    lines: &mut impl Iterator<Item = &'a str>,
    table: &mut Option<Table>,
) -> Result<()> {
    let words: Vec<&str> = line.splitn(6, ' ').collect();
    match words.as_slice() {
        ["add", "table", "inet", "seimon"] => {
            table.get_or_insert_default();
            return Ok(());
        }
        ["delete", "table", "inet", "seimon"] => return table.take().map(drop).ok_or("no such table".into()),
        ["table", "inet", "seimon", "{"] => return body(lines, table.get_or_insert_default()),
        _ => {}
    }
    let table = table.as_mut().ok_or("no such table")?;
    if let Some((verb @ ("add" | "delete"), rest)) = line.split_once(" flowtable inet seimon fast") {
        return flowtable(table, verb, rest);
    }
    match words.as_slice() {
        ["flush", "chain", "inet", "seimon", name] => {
            *table.rules.get_mut(*name).ok_or("no such chain")? = Vec::new();
        }
        ["flush", "set" | "map", "inet", "seimon", name] => container(table, name)?.elements.clear(),
        ["delete", "chain", "inet", "seimon", name] => {
            table.rules.remove(*name).ok_or("no such chain")?;
            table.bases.remove(*name);
        }
        ["delete", "set" | "map", "inet", "seimon", name] => {
            table.containers.remove(*name).ok_or("no such set")?;
        }
        [verb @ ("add" | "delete"), "element", "inet", "seimon", name, list] => {
            let container = container(table, name)?;
            let list =
                list.trim().strip_prefix('{').and_then(|list| list.strip_suffix('}')).ok_or("no list")?;
            for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
                if *verb == "add" {
                    put(container, text)?;
                } else {
                    let key = key(&container.key, text.split(" : ").next().unwrap_or(text))?;
                    container.elements.remove(&key).ok_or("no such element")?;
                }
            }
        }
        [..] => return Err("the fake does not know this".into()),
    }
    Ok(())
}

/// Devices that come or go, or the flowtable as a whole: `{ hook ingress priority 0; devices = { "eth0" }; counter; }`.
fn flowtable(table: &mut Table, verb: &str, block: &str) -> Result<()> {
    let devices = table.flowtable.as_mut().ok_or("no such flowtable")?;
    if block.trim().is_empty() && verb == "delete" {
        table.flowtable = None;
        return Ok(());
    }
    let list =
        block.split_once("devices = {").and_then(|(_, rest)| rest.split_once('}')).ok_or("no devices")?.0;
    for name in list.split(',').map(|name| name.trim().trim_matches('"')) {
        let name = seimon_board::InterfaceName::new(name).map_err(|_| "no interface name")?;
        let fits = if verb == "add" { devices.insert(name) } else { devices.remove(&name) };
        if !fits {
            return Err("the device is there already, or is not there".into());
        }
    }
    Ok(())
}

fn container<'a>(table: &'a mut Table, name: &str) -> Result<&'a mut Container> {
    table.containers.get_mut(name).ok_or_else(|| format!("no such set: {name}"))
}

/// What stands between the braces of a table.
fn body<'a>(lines: &mut impl Iterator<Item = &'a str>, table: &mut Table) -> Result<()> {
    while let Some(line) = lines.next() {
        match line.splitn(4, ' ').collect::<Vec<_>>().as_slice() {
            ["}"] => return Ok(()),
            ["set" | "map", name, "{", declaration] => {
                if !table.containers.contains_key(*name) {
                    table.containers.insert((*name).to_owned(), declared(line, declaration)?);
                }
                contents(lines, container(table, name)?)?;
            }
            ["chain", name, "{"] => chain(name, lines, table)?,
            ["flowtable", "fast", "{", _] => drop(table.flowtable.get_or_insert_default()),
            [..] => return Err(format!("the fake does not know this: {line:.200}")),
        }
    }
    Err("a table without an end".into())
}

fn declared(line: &str, declaration: &str) -> Result<Container> {
    let is_map = line.starts_with("map");
    let mut container = Container { is_map, ..Container::default() };
    for part in declaration.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once(' ') {
            Some(("type", types)) => {
                let (key, value) = types.split_once(" : ").map_or((types, None), |(k, v)| (k, Some(v)));
                container.key = key.split(" . ").map(key_type).collect::<Result<_>>()?;
                container.value = value.map(value_type).transpose()?;
            }
            Some(("flags", flags)) => {
                container.interval = flags.contains("interval");
                container.dynamic = flags.contains("dynamic");
            }
            Some(("size", size)) => container.size = size.parse().map_err(|_| "no size")?,
            Some(_) | None => return Err(format!("the fake does not know this: {part}")),
        }
    }
    Ok(container)
}

/// Elements, up to the end of a set.
fn contents<'a>(lines: &mut impl Iterator<Item = &'a str>, container: &mut Container) -> Result<()> {
    loop {
        match lines.next().ok_or("a set without an end")? {
            "}" => return Ok(()),
            "elements = {" => loop {
                match lines.next().ok_or("a list without an end")? {
                    "}" => break,
                    element => put(container, element.trim_end_matches(','))?,
                }
            },
            other => return Err(format!("the fake does not know this: {other:.200}")),
        }
    }
}

fn chain<'a>(name: &str, lines: &mut impl Iterator<Item = &'a str>, table: &mut Table) -> Result<()> {
    let rules = table.rules.entry(name.to_owned()).or_default();
    loop {
        let line = lines.next().ok_or("a chain without an end")?;
        if line == "}" {
            return Ok(());
        } else if line.starts_with("type ") {
            // `type filter hook forward priority 0; policy drop;`
            let words: Vec<&str> = line.split([' ', ';']).filter(|word| !word.is_empty()).collect();
            let ["type", kind, "hook", hook, "priority", priority, "policy", policy] = words.as_slice()
            else {
                return Err(format!("the fake does not know this: {line}"));
            };
            let base = format!("{kind} {hook} {priority} {policy}");
            table.bases.insert(name.to_owned(), base);
        } else {
            rules.push(line.to_owned());
        }
    }
}

fn put(container: &mut Container, text: &str) -> Result<()> {
    let (key_text, value_text) =
        text.split_once(" : ").map_or((text, None), |(key, value)| (key, Some(value)));
    let key = key(&container.key, key_text)?;
    let value = match (container.value, value_text) {
        (Some(kind), Some(text)) => Some(value(kind, text)?),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => return Err(format!("{text} does not fit its set")),
    };
    match container.elements.insert(key, value.clone()) {
        Some(before) if before != value => Err(format!("{text} is there with another value")),
        Some(_) | None => Ok(()),
    }
}

fn key_type(name: &str) -> Result<KeyType> {
    use KeyType::{Ether, Ifname, Ipv4, Ipv6, Mark, Port, Proto};
    let all = [Ifname, Ipv4, Ipv6, Ether, Mark, Proto, Port];
    all.into_iter().find(|kind| kind.nft_name() == name).ok_or_else(|| format!("no such type: {name}"))
}

fn value_type(name: &str) -> Result<ValueType> {
    let all = [ValueType::Verdict, ValueType::Mark, ValueType::Ipv4, ValueType::Ipv6];
    all.into_iter().find(|kind| kind.nft_name() == name).ok_or_else(|| format!("no such type: {name}"))
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| format!("cannot read {text}"))
}

fn mark(text: &str) -> Result<Mark> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).map_err(|_| format!("cannot read {text}"))?,
        None => parsed(text)?,
    };
    Ok(Mark(number))
}

fn key(types: &[KeyType], text: &str) -> Result<Key> {
    let parts: Vec<&str> = text.split(" . ").map(str::trim).collect();
    if parts.len() != types.len() {
        return Err(format!("{text} does not fit its set"));
    }
    parts.into_iter().zip(types).map(|(text, kind)| part(*kind, text)).collect::<Result<_>>().map(Key)
}

/// Prefixes and ranges of one value are the value, as the kernel tells it.
fn part(kind: KeyType, text: &str) -> Result<KeyPart> {
    Ok(match kind {
        KeyType::Ifname => KeyPart::Ifname(parsed(text.trim_matches('"'))?),
        KeyType::Ipv4 => match text.strip_suffix("/32").unwrap_or(text) {
            text if text.contains('/') => KeyPart::Ipv4Prefix(parsed(text)?),
            text => KeyPart::Ipv4(parsed(text)?),
        },
        KeyType::Ipv6 => match text.strip_suffix("/128").unwrap_or(text) {
            text if text.contains('/') => KeyPart::Ipv6Prefix(parsed(text)?),
            text => KeyPart::Ipv6(parsed(text)?),
        },
        KeyType::Ether => KeyPart::Ether(parsed(text)?),
        KeyType::Mark => KeyPart::Mark(mark(text)?),
        KeyType::Proto => KeyPart::Proto(match text {
            "tcp" => 6,
            "udp" => 17,
            "icmp" => 1,
            "ipv6-icmp" => 58,
            number => parsed(number)?,
        }),
        KeyType::Port => match text.split_once('-') {
            Some((first, last)) if first != last => KeyPart::PortRange(parsed(first)?, parsed(last)?),
            Some((only, _)) => KeyPart::Port(parsed(only)?),
            None => KeyPart::Port(parsed(text)?),
        },
    })
}

fn value(kind: ValueType, text: &str) -> Result<Value> {
    Ok(match kind {
        ValueType::Mark => Value::Mark(mark(text)?),
        ValueType::Ipv4 => Value::Ipv4(parsed(text)?),
        ValueType::Ipv6 => Value::Ipv6(parsed(text)?),
        ValueType::Verdict => Value::Verdict(match text.split_once(' ') {
            None if text == "accept" => Verdict::Accept,
            None if text == "drop" => Verdict::Drop,
            None if text == "return" => Verdict::Return,
            Some(("goto", chain)) => Verdict::Goto(chain.to_owned()),
            Some(("jump", chain)) => Verdict::Jump(chain.to_owned()),
            Some(_) | None => return Err(format!("no such verdict: {text}")),
        }),
    })
}

/// Every chain and set that is spoken of is there.
pub(super) fn references(table: &Table) -> Result<()> {
    let has_chain = |name: &str| match table.rules.contains_key(name) {
        true => Ok(()),
        false => Err(format!("no such chain: {name}")),
    };
    for value in table.containers.values().flat_map(|container| container.elements.values()) {
        if let Some(Value::Verdict(Verdict::Goto(name) | Verdict::Jump(name))) = value {
            has_chain(name)?;
        }
    }
    for rule in table.rules.values().flatten() {
        // The comment may say anything.
        let text = rule.rsplit_once(" comment ").map_or(rule.as_str(), |(text, _)| text);
        let mut words = text.split(|c: char| c.is_whitespace() || matches!(c, '{' | '}' | ',' | ';'));
        while let Some(word) = words.next() {
            if let Some(name) = word.strip_prefix('@') {
                // `@nh,96,32` is raw payload; named objects are letters, digits and `_`.
                if name == "fast" && table.flowtable.is_some() {
                    continue;
                }
                if !table.containers.contains_key(name) && !matches!(name, "ll" | "nh" | "th" | "ih") {
                    return Err(format!("no such set: {name}"));
                }
            } else if matches!(word, "goto" | "jump") {
                has_chain(words.next().unwrap_or_default())?;
            }
        }
    }
    Ok(())
}

/// The table as an observation shows it.
pub(super) fn state(table: &Table) -> TableState {
    let chain = |(name, rules): (&Name, &Vec<String>)| {
        let tag = |rule: &String| {
            let comment = rule.rsplit_once(" comment \"")?.1.strip_suffix('"')?;
            Some(comment.strip_prefix("s:")?.to_owned())
        };
        let state = ChainState {
            base: table.bases.get(name).cloned().unwrap_or_default(),
            rule_tags: rules.iter().map(tag).collect(),
            digest: rules.join("\n"),
        };
        (name.clone(), state)
    };
    let listed = table.containers.iter().filter(|(_, container)| !container.dynamic);
    TableState {
        chains: table.rules.iter().map(chain).collect(),
        containers: table.containers.iter().map(|(name, c)| (name.clone(), c.fingerprint())).collect(),
        flowtable: table.flowtable.clone(),
        elements: listed.map(|(name, container)| (name.clone(), container.elements.clone())).collect(),
    }
}
