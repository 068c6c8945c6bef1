//! The front of the box: what its status LEDs show, and what is asked for by holding a button.
//!
//! A rhythm tells the state, so that one LED of any colour is enough and nobody has to tell colours apart; where there are
//! LEDs of fitting colours, the fitting one does it.
//!
//! | status page | rhythm | LED, where there are several |
//! |---|---|---|
//! | green | steady | green, else white, else blue |
//! | yellow | slow, once in two seconds | amber |
//! | red | fast, three times a second | red |
//!
//! ```text
//!  Up ──pressed──▶ Held ──released, after `reset_s` and within a minute──▶ Up, factory reset
//!                    └────released otherwise──▶ Up
//! ```
//! It counts when the button is let go: by then people have seen the LEDs light up and stay, and what leans against the box for
//! hours asks for nothing.

use std::time::Duration;

use seimon_board::Instant;
use seimon_board::hardware::{Button, Colour as Led};

use crate::status::Colour;

/// What one LED does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Light {
    Off,
    Steady,
    /// On and off for so many milliseconds each.
    Blink(u16),
}

const SLOW: Light = Light::Blink(1_000);
const FAST: Light = Light::Blink(160);

/// What each of the status LEDs does; exactly one shows anything. `None`: the button has been held for long enough, and may be
/// let go.
pub fn lights(status: Option<Colour>, leds: &[Led]) -> Vec<Light> {
    let Some(status) = status else { return vec![Light::Steady; leds.len()] };
    let (light, fitting): (Light, &[Led]) = match status {
        Colour::Green => (Light::Steady, &[Led::Green, Led::White, Led::Blue]),
        Colour::Yellow => (SLOW, &[Led::Amber]),
        Colour::Red => (FAST, &[Led::Red]),
    };
    let which = fitting.iter().find_map(|wanted| leds.iter().position(|led| led == wanted)).unwrap_or(0);
    (0..leds.len()).map(|led| if led == which { light } else { Light::Off }).collect()
}

/// Held longer, nobody meant it.
const LEANING: Duration = Duration::from_secs(60);

/// A button being held.
#[derive(Clone, Debug)]
pub struct Hold {
    reset: Duration,
    since: Option<Instant>,
}

/// What somebody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    FactoryReset,
}

/// Whoever can carry out a factory reset at the next start.
pub trait FactoryReset {
    type Error;

    /// Writes it down where the next start reads it. Asked for twice is asked for once.
    fn request(&mut self) -> Result<(), Self::Error>;
}

impl Hold {
    pub fn new(button: &Button) -> Self {
        Self { reset: Duration::from_secs(button.reset_s.into()), since: None }
    }

    /// Repetitions while it is held change nothing.
    pub fn pressed(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// A release without a press was held since before we looked, and asks for nothing.
    pub fn released(&mut self, now: Instant) -> Option<Asked> {
        let held = now.since(self.since.take()?);
        (held >= self.reset && held <= LEANING.max(self.reset * 2)).then_some(Asked::FactoryReset)
    }

    /// It may be let go now.
    pub fn is_ripe(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.since(since) >= self.reset)
    }
}

/// What a key did, of a `struct input_event` of a 64-bit kernel (`include/uapi/linux/input.h`); `None`: something else.
pub fn key_event(bytes: &[u8; 24]) -> Option<(u16, Key)> {
    const EV_KEY: u16 = 1;
    let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let value = i32::from_ne_bytes([bytes[20], bytes[21], bytes[22], bytes[23]]);
    (word(16) == EV_KEY).then_some(())?;
    match value {
        0 => Some((word(18), Key::Up)),
        1 | 2 => Some((word(18), Key::Down)),
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Down,
    Up,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_led_of_any_colour_tells_three_states_by_rhythm() {
        for led in [Led::White, Led::Red, Led::Green, Led::Blue, Led::Amber] {
            let shown =
                [Colour::Green, Colour::Yellow, Colour::Red].map(|status| lights(Some(status), &[led]));
            assert_eq!(shown, [vec![Light::Steady], vec![SLOW], vec![FAST]], "{led:?}");
        }
    }

    #[test]
    fn of_several_leds_the_one_of_the_fitting_colour_shows_it_and_the_others_nothing() {
        let leds = [Led::Blue, Led::Red, Led::Amber, Led::Green];
        for (status, which) in [(Colour::Green, 3), (Colour::Yellow, 2), (Colour::Red, 1)] {
            let shown = lights(Some(status), &leds);
            for (led, light) in shown.iter().enumerate() {
                assert_eq!(*light != Light::Off, led == which, "{status:?}");
            }
        }
        assert_eq!(lights(Some(Colour::Yellow), &[Led::Green, Led::Red]), [SLOW, Light::Off], "no amber one");
        assert_eq!(lights(None, &leds), [Light::Steady; 4]);
        assert!(lights(Some(Colour::Red), &[]).is_empty());
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_reset_is_asked_for_by_letting_go_after_the_time_and_not_by_anything_else() {
        let button = Button { code: 408, rescue_s: 5, reset_s: 15 };
        for (pressed, released, asked) in [
            (Some(10), 24, None),
            (Some(10), 25, Some(Asked::FactoryReset)),
            (Some(10), 70, Some(Asked::FactoryReset)),
            (Some(10), 71, None),
            (None, 25, None),
        ] {
            let mut hold = Hold::new(&button);
            if let Some(pressed) = pressed {
                hold.pressed(at(pressed));
                hold.pressed(at(pressed + 4));
                assert!(!hold.is_ripe(at(24)));
                assert!(hold.is_ripe(at(25)));
            }
            assert_eq!(hold.released(at(released)), asked, "{pressed:?} to {released}");
            assert_eq!(hold.released(at(released + 1)), None, "once");
            assert!(!hold.is_ripe(at(1_000)));
        }
    }

    #[test]
    fn keys_are_read_and_other_events_are_not() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut bytes = [7; 24];
            bytes[16..18].copy_from_slice(&kind.to_ne_bytes());
            bytes[18..20].copy_from_slice(&code.to_ne_bytes());
            bytes[20..24].copy_from_slice(&value.to_ne_bytes());
            key_event(&bytes)
        };
        assert_eq!(event(1, 408, 1), Some((408, Key::Down)));
        assert_eq!(event(1, 408, 2), Some((408, Key::Down)), "repeated");
        assert_eq!(event(1, 408, 0), Some((408, Key::Up)));
        assert_eq!(event(0, 0, 0), None, "the end of a report");
        assert_eq!(event(1, 408, 9), None);
    }
}
