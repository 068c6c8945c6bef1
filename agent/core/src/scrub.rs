//! Texts without people in them: addresses and MAC addresses of clients become numbers, everything else stays.
//!
//! What the plan itself names (lines, servers, the gateway's own addresses) says nothing about a person and is what whoever
//! helps needs; all other addresses are replaced, the same one always by the same number.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Replaces what could lead to a person.
#[derive(Clone, Debug, Default)]
pub struct Scrubber {
    known: BTreeSet<IpAddr>,
    /// Words to be taken out wherever they stand: people's and offices' names, telephone numbers.
    words: Vec<String>,
    numbers: BTreeMap<String, usize>,
}

/// Shorter words would tear other words apart.
const SHORTEST_WORD: usize = 2;

impl Scrubber {
    /// `known`: addresses that stay. `words`: texts that go.
    pub fn new(known: impl IntoIterator<Item = IpAddr>, words: impl IntoIterator<Item = String>) -> Self {
        let mut words: Vec<String> =
            words.into_iter().filter(|word| word.chars().count() >= SHORTEST_WORD).collect();
        // The longest first: one may be a part of another.
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        Self { known: known.into_iter().collect(), words, numbers: BTreeMap::new() }
    }

    /// The text without what leads to a person.
    pub fn scrub(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for word in &self.words {
            if text.contains(word.as_str()) {
                text = text.replace(word.as_str(), "[removed]");
            }
        }
        let mut clean = String::with_capacity(text.len());
        let mut token = String::new();
        for c in text.chars() {
            if c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '-') {
                token.push(c);
            } else {
                self.flush(&mut token, &mut clean);
                // A mail address is a name as well.
                clean.push(c);
            }
        }
        self.flush(&mut token, &mut clean);
        without_mail(&clean)
    }

    fn flush(&mut self, token: &mut String, clean: &mut String) {
        if !token.is_empty() {
            let word = self.word(token);
            clean.push_str(&word);
            token.clear();
        }
    }

    /// One run of hexadecimal digits, dots, colons and hyphens.
    fn word(&mut self, token: &str) -> String {
        if is_mac(token) {
            return self.number("mac", token);
        }
        // A full stop or a colon at the end of a sentence, a port behind an address.
        let core = token.trim_end_matches(['.', ':', '-']);
        let tail = &token[core.len()..];
        if let Ok(address) = core.parse::<IpAddr>() {
            return format!("{}{tail}", self.address(address, core));
        }
        if let Some((host, port)) = core.rsplit_once(':')
            && let Ok(address) = host.parse::<IpAddr>()
            && port.parse::<u16>().is_ok()
        {
            return format!("{}:{port}{tail}", self.address(address, host));
        }
        // Several addresses, or an address in something longer.
        if core.split(['-', ':']).any(|part| part.parse::<std::net::Ipv4Addr>().is_ok()) {
            let parts: Vec<String> = core
                .split('-')
                .map(|part| part.parse().map_or_else(|_| part.to_owned(), |a| self.address(a, part)))
                .collect();
            return format!("{}{tail}", parts.join("-"));
        }
        token.to_owned()
    }

    fn address(&mut self, address: IpAddr, written: &str) -> String {
        let plain = address.to_canonical();
        if self.known.contains(&plain) || plain.is_loopback() || plain.is_unspecified() {
            written.to_owned()
        } else {
            self.number("address", &plain.to_string())
        }
    }

    fn number(&mut self, kind: &str, what: &str) -> String {
        let next = self.numbers.len() + 1;
        let number = *self.numbers.entry(what.to_ascii_lowercase()).or_insert(next);
        format!("[{kind}#{number}]")
    }
}

fn is_mac(token: &str) -> bool {
    [':', '-'].into_iter().any(|sign| {
        let parts: Vec<&str> = token.trim_end_matches(['.', ':', '-']).split(sign).collect();
        parts.len() == 6
            && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
    })
}

fn without_mail(text: &str) -> String {
    if !text.contains('@') {
        return text.to_owned();
    }
    let mut parts = Vec::new();
    for part in text.split_inclusive(|c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>' | ',' | ';'))
    {
        let body =
            part.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>' | ',' | ';'));
        match body.split_once('@') {
            Some((name, host)) if !name.is_empty() && host.contains('.') => {
                parts.push(format!("[mail]{}", &part[body.len()..]));
            }
            Some(_) | None => parts.push(part.to_owned()),
        }
    }
    parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrub(text: &str) -> String {
        let known = ["192.0.2.2", "2001:db8::7"].map(|a| a.parse().unwrap());
        Scrubber::new(known, ["山田 花子".to_owned(), "教育委員会".to_owned()]).scrub(text)
    }

    #[test]
    fn clients_become_numbers_and_what_the_plan_names_stays() {
        assert_eq!(
            scrub("10.20.1.100:443 → 192.0.2.2, 10.20.1.100, fd20:0:0:1::64 [2001:db8::7]:53."),
            "[address#1]:443 → 192.0.2.2, [address#1], [address#2] [2001:db8::7]:53."
        );
        assert_eq!(scrub("02:00:00:aa:bb:01 is 02-00-00-AA-BB-01."), "[mac#1] is [mac#2]");
        assert_eq!(scrub("10.0.0.1-10.0.0.9"), "[address#1]-[address#2]");
        assert_eq!(scrub("::ffff:10.20.1.5 at 12:34:56"), "[address#1] at 12:34:56");
    }

    #[test]
    fn names_and_mail_are_taken_out() {
        assert_eq!(scrub("who = \"教育委員会 山田 花子\""), "who = \"[removed] [removed]\"");
        assert_eq!(scrub("<hanako@school.example>, 3 @ 5"), "<[mail]>, 3 @ 5");
    }

    #[test]
    fn numbers_versions_and_dates_stay_as_they_are() {
        for text in ["0.1.0", "2026-11-23 02:08:35", "generation 7", "1.5 ms", "abc-def", "a:b", "2.0"] {
            assert_eq!(scrub(text), text);
        }
    }
}
