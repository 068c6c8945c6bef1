//! From a rule's text to statements.

use seimon_core::network_plan::{Family, Verdict};

/// What is looked at in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    CtMark(u32),
    Mark(u32),
    Iif,
    Oif,
    Source(Family),
    Destination(Family),
    Ether,
    Protocol,
    /// Of a named protocol only, or of whichever.
    Port(Option<u8>),
    SourcePort(u8),
    State,
    /// `meta pkttype`
    Broadcast,
    /// `fib daddr type`
    Fib,
    /// `tcp flags`
    Syn,
    NfProto,
    /// `icmp type` (1) and `icmpv6 type` (58).
    EchoRequest(u8),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    Is(Vec<String>),
    IsNot(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Nat {
    ToDestination { fields: Vec<Field>, map: String },
    Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    Match(Field, Test),
    InSet(Vec<Field>, String),
    Vmap(Vec<Field>, String),
    /// `ct state vmap { … }`
    States(Vec<(String, Verdict)>),
    Verdict(Verdict),
    Reject,
    SetCtMark {
        keep: u32,
        put: u32,
    },
    SetMark {
        keep: u32,
        put: u32,
    },
    Update(String, Vec<Field>),
    Nat(Nat),
    /// Decides nothing here: limits, MSS.
    Indifferent,
}

/// The rule's statements; `Err`: the word at which this reader is at a loss.
pub(crate) fn parse(text: &str) -> Result<Vec<Statement>, String> {
    let spaced = text.replace('{', " { ").replace('}', " } ").replace(',', " , ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Reader { words: &words };
    let mut statements = Vec::new();
    while !reader.words.is_empty() {
        statements.push(reader.statement()?);
    }
    Ok(statements)
}

struct Reader<'a> {
    words: &'a [&'a str],
}

impl<'a> Reader<'a> {
    fn take(&mut self) -> Result<&'a str, String> {
        let (first, rest) = self.words.split_first().ok_or("the end")?;
        self.words = rest;
        Ok(first)
    }

    /// Takes these words if they come next.
    fn eat(&mut self, words: &str) -> bool {
        let wanted = words.split(' ').count();
        let found = self.words.len() >= wanted && words.split(' ').eq(self.words[..wanted].iter().copied());
        if found {
            self.words = &self.words[wanted..];
        }
        found
    }

    fn expect(&mut self, words: &str) -> Result<(), String> {
        if self.eat(words) { Ok(()) } else { Err(format!("`{words}` expected at {:?}", self.words)) }
    }

    fn number(&mut self) -> Result<u32, String> {
        let word = self.take()?;
        let number = match word.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => word.parse(),
        };
        number.map_err(|error| format!("{word}: {error}"))
    }

    fn name(&mut self) -> Result<String, String> {
        let word = self.take()?;
        word.strip_prefix('@').map(str::to_owned).ok_or_else(|| format!("a set's name, not {word}"))
    }

    fn statement(&mut self) -> Result<Statement, String> {
        if let Some(verdict) = self.verdict()? {
            return Ok(Statement::Verdict(verdict));
        }
        if self.eat("reject with tcp reset") || self.eat("reject with icmpx admin-prohibited") {
            return Ok(Statement::Reject);
        }
        if self.eat("flow add") {
            // Its packets come this way no more, as they would be let through.
            self.name()?;
            return Ok(Statement::Indifferent);
        }
        if self.eat("limit rate 50/second") {
            return Ok(Statement::Indifferent);
        }
        if self.eat("tcp option maxseg size set") {
            self.number()?;
            return Ok(Statement::Indifferent);
        }
        if self.eat("ct mark set ct mark &") {
            let (keep, put) = self.bits()?;
            return Ok(Statement::SetCtMark { keep, put });
        }
        if self.eat("meta mark set meta mark &") {
            let (keep, put) = self.bits()?;
            return Ok(Statement::SetMark { keep, put });
        }
        if self.eat("update") {
            let set = self.name()?;
            self.expect("{")?;
            let fields = self.fields()?;
            self.expect("timeout")?;
            let time = self.take()?;
            time.strip_suffix('s')
                .and_then(|n| n.parse::<u64>().ok())
                .ok_or_else(|| format!("a time, not {time}"))?;
            self.expect("}")?;
            return Ok(Statement::Update(set, fields));
        }
        if self.eat("masquerade") {
            return Ok(Statement::Nat(Nat::Source));
        }
        for (words, is_destination) in
            [("dnat ip to", true), ("dnat ip6 to", true), ("snat ip to", false), ("snat ip6 to", false)]
        {
            if self.eat(words) {
                let fields = self.fields()?;
                self.expect("map")?;
                let map = self.name()?;
                let nat = if is_destination { Nat::ToDestination { fields, map } } else { Nat::Source };
                return Ok(Statement::Nat(nat));
            }
        }
        self.comparison()
    }

    fn bits(&mut self) -> Result<(u32, u32), String> {
        let keep = self.number()?;
        self.expect("|")?;
        Ok((keep, self.number()?))
    }

    fn verdict(&mut self) -> Result<Option<Verdict>, String> {
        Ok(match self.words.first() {
            Some(&"accept") => self.take().map(|_| Some(Verdict::Accept))?,
            Some(&"drop") => self.take().map(|_| Some(Verdict::Drop))?,
            Some(&"return") => self.take().map(|_| Some(Verdict::Return))?,
            Some(&"goto") => {
                self.take()?;
                Some(Verdict::Goto(self.take()?.to_owned()))
            }
            Some(&"jump") => {
                self.take()?;
                Some(Verdict::Jump(self.take()?.to_owned()))
            }
            Some(_) | None => None,
        })
    }

    fn fields(&mut self) -> Result<Vec<Field>, String> {
        let mut fields = vec![self.field()?];
        while self.eat(".") {
            fields.push(self.field()?);
        }
        Ok(fields)
    }

    fn field(&mut self) -> Result<Field, String> {
        const FIXED: [(&str, Field); 19] = [
            ("iifname", Field::Iif),
            ("oifname", Field::Oif),
            ("ip saddr", Field::Source(Family::Ipv4)),
            ("ip daddr", Field::Destination(Family::Ipv4)),
            ("ip6 saddr", Field::Source(Family::Ipv6)),
            ("ip6 daddr", Field::Destination(Family::Ipv6)),
            ("ether saddr", Field::Ether),
            ("meta l4proto", Field::Protocol),
            ("th dport", Field::Port(None)),
            ("tcp dport", Field::Port(Some(6))),
            ("udp dport", Field::Port(Some(17))),
            ("udp sport", Field::SourcePort(17)),
            ("ct state", Field::State),
            ("meta pkttype", Field::Broadcast),
            ("fib daddr type", Field::Fib),
            ("tcp flags", Field::Syn),
            ("meta nfproto", Field::NfProto),
            ("icmp type", Field::EchoRequest(1)),
            ("icmpv6 type", Field::EchoRequest(58)),
        ];
        for (words, field) in FIXED {
            if self.eat(words) {
                return Ok(field);
            }
        }
        if self.eat("ct mark &") {
            return Ok(Field::CtMark(self.number()?));
        }
        if self.eat("meta mark &") {
            return Ok(Field::Mark(self.number()?));
        }
        Err(format!("{:?}", self.words))
    }

    fn comparison(&mut self) -> Result<Statement, String> {
        let fields = self.fields()?;
        if self.eat("vmap") {
            if fields == [Field::State] && self.eat("{") {
                return self.states();
            }
            return Ok(Statement::Vmap(fields, self.name()?));
        }
        if self.words.first().is_some_and(|word| word.starts_with('@')) {
            return Ok(Statement::InSet(fields, self.name()?));
        }
        let [field] = fields.as_slice() else { return Err(format!("one field at {:?}", self.words)) };
        let is_not = self.eat("!=");
        if !is_not {
            self.eat("==");
        }
        let mut words = Vec::new();
        let braced = self.eat("{");
        loop {
            words.push(self.take()?.to_owned());
            if !self.eat(",") {
                break;
            }
        }
        if braced {
            self.expect("}")?;
        }
        Ok(Statement::Match(*field, if is_not { Test::IsNot(words) } else { Test::Is(words) }))
    }

    fn states(&mut self) -> Result<Statement, String> {
        let mut verdicts = Vec::new();
        loop {
            let state = self.take()?.to_owned();
            self.expect(":")?;
            let verdict = self.verdict()?.ok_or("a verdict")?;
            verdicts.push((state, verdict));
            if self.eat("}") {
                return Ok(Statement::States(verdicts));
            }
            self.expect(",")?;
        }
    }
}
