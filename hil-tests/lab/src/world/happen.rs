//! Making events happen and taking them back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;

use super::events::EVENTS;
use super::gateway::{Carrier, Flush};
use super::town::{self, Egress};
use super::versions::Writer;
use super::{Happening, World, clock};
use crate::capture::lock;
use crate::servers::site::Illness;
use crate::servers::{DnsFault, HUB_NAME, affairs_addresses, other_site};
use crate::wire::WireConfig;
use crate::world::params::parse_duration;

/// How long an agent may take to be ready after it was started by an event, and to end after SIGTERM.
const AGENT: Duration = Duration::from_secs(30);

/// How to take a happening back. Empty for those that cannot be.
#[derive(Clone, Debug, Default)]
pub struct Undo(Option<Step>);

#[derive(Clone, Debug)]
enum Step {
    Mend(String),
    Wire(String, WireConfig),
    Illness(String, Option<(Illness, Option<String>)>),
    Register(String),
    Egress(String),
    DnsFault(String, Option<DnsFault>),
    Name(String, String, Vec<std::net::IpAddr>),
    Portal,
    Renumber,
    Echo,
    Power,
    Disk,
    /// Seconds that it was ahead before.
    Clock(i64),
    HubSilence,
    HubProcess,
}

impl Happening {
    fn word(&self, key: &str, default: &str) -> Result<String> {
        match self.keys.get(key) {
            None => Ok(default.to_owned()),
            Some(toml::Value::String(text)) => Ok(text.clone()),
            Some(toml::Value::Integer(number)) => Ok(number.to_string()),
            Some(other) => bail!("`{key}` of {} must be a word, not `{other}`", self.what),
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        self.keys
            .get(key)
            .map(|value| {
                value
                    .as_float()
                    .or(value.as_integer().map(|n| n as f64))
                    .or(value.as_str().and_then(parse_duration).map(|d| d.as_secs_f64() * 1000.0))
                    .filter(|n| *n >= 0.0)
                    .ok_or_else(|| anyhow!("`{key}` of {} must be a number, not `{value}`", self.what))
            })
            .transpose()
    }

    /// Whether the event, its target and its keys exist.
    ///
    /// # Errors
    /// Says what there is.
    pub fn check(&self) -> Result<()> {
        let names = || EVENTS.iter().map(|e| e.name).collect::<Vec<_>>().join(", ");
        let event = EVENTS
            .iter()
            .find(|e| e.name == self.what)
            .ok_or_else(|| anyhow!("no event `{}`; there are {}", self.what, names()))?;
        match &self.target {
            None if event.targets.is_empty() => {}
            None => bail!("{} needs a target: {}", self.what, event.targets.join(", ")),
            Some(target) if event.targets.contains(&target.as_str()) => {}
            Some(target) if event.targets.is_empty() => {
                bail!("{} takes no target, not `{target}`", self.what)
            }
            Some(target) => {
                bail!("target of {} must be {}, not `{target}`", self.what, event.targets.join(", "))
            }
        }
        for key in self.keys.keys() {
            if !event.keys.iter().any(|k| k.key == key) {
                bail!("{} has no key `{key}`", self.what);
            }
        }
        Ok(())
    }

    fn line_config(&self, mut config: WireConfig) -> Result<WireConfig> {
        let share = |value: f64, key: &str| {
            if value <= 1.0 { Ok(value) } else { Err(anyhow!("`{key}` is a share from 0 to 1, not {value}")) }
        };
        let millis = |value: f64| Duration::from_secs_f64(value / 1000.0);
        if let Some(mtu) = self.number("mtu")? {
            config.mtu = mtu as usize;
        }
        if self.keys.contains_key("pmtu") {
            config.pmtu = town::pmtu(&self.word("pmtu", "icmp")?)?;
        }
        if let Some(delay) = self.number("delay_ms")? {
            config.delay = millis(delay);
        }
        if let Some(jitter) = self.number("jitter_ms")? {
            config.jitter = millis(jitter);
        }
        for (key, slot) in [
            ("loss", &mut config.loss),
            ("burst_loss", &mut config.burst_loss),
            ("reorder", &mut config.reorder),
            ("duplicate", &mut config.duplicate),
        ] {
            if let Some(value) = self.number(key)? {
                *slot = share(value, key)?;
            }
        }
        if let Some(rate) = self.number("rate")? {
            config.rate = rate as u64;
        }
        if let Some(every) = self.number("lose_every")? {
            config.lose_every = every as u32;
        }
        Ok(config)
    }
}

impl World {
    /// Makes something happen now.
    ///
    /// # Errors
    /// No such event, target or key (see [`EVENTS`]), or it could not be done.
    pub fn perform(&self, happening: &Happening) -> Result<Undo> {
        happening.check()?;
        let target = happening.target.as_deref().unwrap_or_default();
        let step = match happening.what.as_str() {
            "line.cut" => {
                self.wire(target)?.cut()?;
                self.carrier(target, Carrier::Down)?;
                Step::Mend(target.to_owned())
            }
            "line.blackhole" | "line.set" | "line.ipv6-dead" | "line.users-lost" => {
                let wire = self.wire(target)?;
                let before = wire.config();
                let mut config = happening.line_config(before.clone())?;
                if happening.what == "line.blackhole" {
                    (config.blackhole_up, config.blackhole_down) =
                        match happening.word("direction", "both")?.as_str() {
                            "both" => (true, true),
                            "up" => (true, false),
                            "down" => (false, true),
                            other => bail!("direction must be both, up or down, not `{other}`"),
                        };
                }
                config.ipv6_dead |= happening.what == "line.ipv6-dead";
                config.users_lost |= happening.what == "line.users-lost";
                wire.set(config);
                Step::Wire(target.to_owned(), before)
            }
            "service.ill" => {
                let site = self.site(target)?;
                let before = site.current_illness();
                let path = match happening.word("egress", "any")?.as_str() {
                    "any" => None,
                    path @ ("closed" | "vpn" | "direct") => Some(path.to_owned()),
                    other => bail!("egress must be any, closed, vpn or direct, not `{other}`"),
                };
                site.set_illness(Some((Illness::from_word(&happening.word("how", "500")?)?, path)));
                Step::Illness(target.to_owned(), before)
            }
            "service.register" => {
                let site = self.site(target)?;
                let before = site.registered();
                site.register(&happening.word("egress", "all")?)?;
                Step::Register(before)
            }
            "egress.change" => {
                town::egress(&self.town, target, Egress::Foreign)?;
                Step::Egress(target.to_owned())
            }
            "egress.pool" => {
                town::egress(&self.town, target, Egress::Pool)?;
                Step::Egress(target.to_owned())
            }
            "line.portal" => {
                town::portal(&self.town, true)?;
                Step::Portal
            }
            "line.renumber" => {
                town::renumber(&self.town, true)?;
                Step::Renumber
            }
            "dns.other-site" => {
                let name = happening.word("name", "affairs.school.example")?;
                let before = self.servers.set_name(target, &name, other_site()?);
                let before = before.with_context(|| format!("this DNS server knows no `{name}`"))?;
                Step::Name(target.to_owned(), name, before)
            }
            "dns.fault" => {
                let view = self.servers.views.get(target).context("no such DNS view")?;
                let fault = DnsFault::from_word(&happening.word("how", "silence")?)?;
                let before = lock(&view.fault).replace(fault);
                Step::DnsFault(target.to_owned(), before)
            }
            "dns.affairs" => {
                let addresses = affairs_addresses(&happening.word("answer", "public")?)?;
                let before = self.servers.set_name("closed", "affairs.school.example", addresses);
                Step::Name("closed".into(), "affairs.school.example".into(), before.unwrap_or_default())
            }
            "echo.fault" => {
                self.servers.echo_silent.store(true, Ordering::Relaxed);
                Step::Echo
            }
            "hub.silence" => {
                self.hub()?.set_silent(true)?;
                Step::HubSilence
            }
            "hub.kill" => {
                self.hub()?.kill()?;
                Step::HubProcess
            }
            "hub.move" => {
                let hub = self.hub()?;
                match happening.word("session", "kept")?.as_str() {
                    "kept" => hub.move_away()?,
                    // First, or what it still says from the new address would be followed.
                    "lost" => {
                        hub.kill()?;
                        hub.move_away()?;
                        hub.raise()?;
                    }
                    other => bail!("session must be kept or lost, not `{other}`"),
                }
                let moved = vec![town::HUB_MOVED.parse()?];
                self.servers.set_name("direct", HUB_NAME, moved);
                return Ok(Undo::default());
            }
            "gateway.flush" => {
                self.gateway()?.flush(if target == "nft" { Flush::Nft } else { Flush::Rules })?;
                return Ok(Undo::default());
            }
            "gateway.kill" => {
                self.gateway()?.kill_process(&format!("seimon-{target}"))?;
                return Ok(Undo::default());
            }
            "gateway.terminate" => {
                self.gateway()?.terminate(AGENT)?;
                return Ok(Undo::default());
            }
            "gateway.start" => {
                self.gateway()?.start(AGENT)?;
                return Ok(Undo::default());
            }
            "gateway.restart" => {
                self.gateway()?.kill_all()?;
                self.gateway()?.start(AGENT)?;
                return Ok(Undo::default());
            }
            "gateway.upgrade" => {
                let gateway = self.gateway()?;
                let writer = match happening.word("journal", "older")?.as_str() {
                    "older" => Writer::Older,
                    "newer" => Writer::Newer,
                    other => bail!("journal must be older or newer, not `{other}`"),
                };
                gateway.terminate(AGENT)?;
                gateway.rewrite_journal(writer)?;
                gateway.start(AGENT)?;
                return Ok(Undo::default());
            }
            "gateway.power-cut" => {
                self.gateway()?.power_cut()?;
                Step::Power
            }
            "gateway.disk-full" => {
                self.gateway()?.fill_disk()?;
                Step::Disk
            }
            "clock.set" | "clock.jump" => {
                let gateway = self.gateway()?;
                let before = gateway.clock_ahead()?;
                gateway.set_clock_ahead(if happening.what == "clock.set" {
                    clock::ahead_of(Timestamp::now(), &happening.word("to", "")?)?
                } else {
                    before.saturating_add(clock::jump(&happening.word("by", "")?)?)
                })?;
                Step::Clock(before)
            }
            other => bail!("event `{other}` is in the table but not made"),
        };
        Ok(Undo(Some(step)))
    }

    /// A town without an agent has nobody who must be told.
    fn carrier(&self, line: &str, carrier: Carrier) -> Result<()> {
        let port = match line {
            "carrier" => "wan1",
            "internet" => "wan2",
            _ => "usb1",
        };
        self.gateway.get().map_or(Ok(()), |gateway| gateway.carrier(port, carrier))
    }

    /// Takes a happening back (`for` is over).
    pub fn undo(&self, undo: Undo) -> Result<()> {
        let Some(step) = undo.0 else { return Ok(()) };
        match step {
            Step::Mend(line) => {
                self.wire(&line)?.mend()?;
                self.carrier(&line, Carrier::Up)
            }
            Step::Wire(line, config) => {
                self.wire(&line)?.set(config);
                Ok(())
            }
            Step::Illness(site, before) => {
                self.site(&site)?.set_illness(before);
                Ok(())
            }
            Step::Register(before) => self.site("affairs")?.register(&before),
            Step::Egress(line) => town::egress(&self.town, &line, Egress::Usual),
            Step::DnsFault(view, before) => {
                *lock(&self.servers.views.get(view.as_str()).context("no such DNS view")?.fault) = before;
                Ok(())
            }
            Step::Name(view, name, addresses) => {
                self.servers.set_name(&view, &name, addresses);
                Ok(())
            }
            Step::Portal => town::portal(&self.town, false),
            Step::Renumber => town::renumber(&self.town, false),
            Step::Echo => {
                self.servers.echo_silent.store(false, Ordering::Relaxed);
                Ok(())
            }
            Step::Power => self.gateway()?.start(AGENT),
            Step::Disk => self.gateway()?.free_disk(),
            Step::Clock(before) => self.gateway()?.set_clock_ahead(before),
            Step::HubSilence => self.hub()?.set_silent(false),
            Step::HubProcess => self.hub()?.raise(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_events_targets_and_keys_are_refused_with_what_there_is() {
        let refused = |h: Happening| h.check().unwrap_err().to_string();
        assert!(refused(Happening::new("line.cutt", None)).contains("line.cut,"));
        assert!(refused(Happening::new("line.cut", Some("wan9"))).contains("carrier, internet"));
        assert!(refused(Happening::new("line.cut", None)).contains("needs a target"));
        assert!(refused(Happening::new("line.cut", Some("carrier")).with("speed", 1)).contains("`speed`"));
        assert!(Happening::new("line.set", Some("carrier")).with("loss", 0.1).check().is_ok());
    }

    #[test]
    fn a_line_keeps_what_an_event_does_not_name() {
        let before = WireConfig { mtu: 1454, loss: 0.5, ..WireConfig::default() };
        let changed =
            Happening::new("line.set", Some("internet")).with("delay_ms", 20).line_config(before).unwrap();
        assert_eq!((changed.mtu, changed.loss, changed.delay), (1454, 0.5, Duration::from_millis(20)));
    }
}
