//! A last line for when every other is dead: what it may cost.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Wireguard;

/// What a line is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LineRole {
    /// Services move along its paths.
    #[default]
    Ordinary,
    /// USB tether, mobile, satellite: used by the groups that name it, and only while everything else is dead.
    Emergency,
}

/// What may be spent on an emergency line. Rates are for each group of each zone by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metered {
    /// Kilobits a second that each group may send. Default 1000.
    #[schemars(range(min = 64, max = 10_000_000))]
    pub up_kbit: u32,
    /// Kilobits a second that each group may receive. Default 4000.
    #[schemars(range(min = 64, max = 10_000_000))]
    pub down_kbit: u32,
    /// Kilobytes a day for keeping watch over the line while nobody uses it. Default 2000.
    #[schemars(range(min = 50, max = 1_000_000))]
    pub probe_kb_per_day: u32,
    /// Megabytes a month that the contract includes. Only shown.
    #[schemars(range(min = 1))]
    pub mb_per_month: Option<u32>,
}

impl Default for Metered {
    fn default() -> Self {
        Self { up_kbit: 1_000, down_kbit: 4_000, probe_kb_per_day: 2_000, mb_per_month: None }
    }
}

const DAY: u64 = 86_400;
/// An echo and its answer over IPv4: 32 and 36 bytes in UDP.
const ECHO: u64 = 60 + 64;
/// What a tunnel adds to the two: outer headers, its own, and padding (WireGuard, 5.4.6).
const ECHO_IN_TUNNEL: u64 = ECHO + 2 * 60 + 20;
/// A keep-alive packet of a tunnel, outer headers included.
const KEEP_ALIVE: u64 = 60;
/// A handshake with its confirmation, and how many there are a day at the most.
const HANDSHAKE: u64 = 176 + 120 + 60;
const HANDSHAKES: u64 = DAY / 120;
/// A line that is looked at less often than this is not watched.
const LONGEST: Duration = Duration::from_secs(600);

impl Metered {
    /// Between echoes over the line while nobody uses it, so that a day's cost no more than is allowed. `None`: what is
    /// allowed is too little to watch it at all.
    pub fn watch_every(&self, tunnel: Option<&Wireguard>) -> Option<Duration> {
        let (echo, fixed) = match tunnel {
            None => (ECHO, 0),
            Some(tunnel) => {
                let keep_alives = DAY.checked_div(tunnel.keepalive.0.as_secs()).unwrap_or(0);
                (ECHO_IN_TUNNEL, keep_alives * KEEP_ALIVE + HANDSHAKES * HANDSHAKE)
            }
        };
        let echoes = (u64::from(self.probe_kb_per_day) * 1_000).checked_sub(fixed)? / echo;
        let every = Duration::from_millis((DAY * 1_000).checked_div(echoes)? + 1);
        (every <= LONGEST).then_some(every)
    }

    /// What watching costs a day, in bytes, with an echo so often.
    pub fn watching_costs(every: Duration, tunnel: Option<&Wireguard>) -> u64 {
        let echoes = u128::from(DAY) * 1_000 / every.as_millis().max(1);
        let echoes = u64::try_from(echoes).unwrap_or(u64::MAX);
        match tunnel {
            None => echoes.saturating_mul(ECHO),
            Some(tunnel) => {
                let keep_alives = DAY.checked_div(tunnel.keepalive.0.as_secs()).unwrap_or(0);
                let fixed = keep_alives * KEEP_ALIVE + HANDSHAKES * HANDSHAKE;
                echoes.saturating_mul(ECHO_IN_TUNNEL).saturating_add(fixed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watching_an_idle_line_stays_within_what_a_day_may_cost() {
        for kilobytes in [50, 200, 500, 2_000, 100_000] {
            let metered = Metered { probe_kb_per_day: kilobytes, ..Metered::default() };
            let Some(every) = metered.watch_every(None) else { continue };
            let cost = Metered::watching_costs(every, None);
            assert!(cost <= u64::from(kilobytes) * 1_000, "{kilobytes} kB: {cost} bytes, every {every:?}");
            assert!(cost > u64::from(kilobytes) * 900, "it is used: {cost}");
        }
        let every = Metered::default().watch_every(None).unwrap_or_default();
        assert!((5..7).contains(&every.as_secs()), "{every:?}");
    }

    #[test]
    fn what_is_too_little_to_watch_the_line_at_all_is_said() {
        let metered = |kilobytes| Metered { probe_kb_per_day: kilobytes, ..Metered::default() };
        assert_eq!(metered(10).watch_every(None), None);
        assert!(metered(50).watch_every(None).is_some());
    }
}
