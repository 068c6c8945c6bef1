//! The status LEDs of the board, through `/sys/class/leds`. What each shows is decided in `seimon_core::panel`.

use std::io;
use std::path::{Path, PathBuf};

use seimon_board::Board;
use seimon_board::hardware::{Colour as LedColour, Shows};
use seimon_core::panel::{Light, lights};
use seimon_core::status::Colour;

const LEDS: &str = "/sys/class/leds";

/// The board's LEDs that show the status, and what they were last told.
#[derive(Debug, Default)]
pub(crate) struct Panel {
    folders: Vec<PathBuf>,
    colours: Vec<LedColour>,
    shown: Vec<Light>,
}

impl Panel {
    /// Those that are not there are told once, and left out.
    pub(crate) fn of(board: &Board) -> Self {
        Self::at(board, Path::new(LEDS))
    }

    fn at(board: &Board, root: &Path) -> Self {
        let mut panel = Self::default();
        let leds = board.hardware.iter().flat_map(|hardware| &hardware.leds);
        for (name, led) in leds.filter(|(_, led)| led.shows == Shows::Status) {
            let folder = root.join(&led.sysfs);
            if folder.join("brightness").exists() {
                panel.folders.push(folder);
                panel.colours.push(led.colour);
            } else {
                tracing::warn!(
                    led = name,
                    "{} is not there: the board file names an LED that the kernel does not have",
                    folder.display()
                );
            }
        }
        panel
    }

    /// Only what changes is written.
    pub(crate) fn show(&mut self, status: Colour) {
        let wanted = lights(Some(status), &self.colours);
        for (led, (folder, light)) in self.folders.iter().zip(&wanted).enumerate() {
            if self.shown.get(led) == Some(light) {
                continue;
            }
            if let Err(error) = set(folder, *light) {
                tracing::warn!(%error, "{} does not show the status", folder.display());
            }
        }
        self.shown = wanted;
    }
}

fn set(folder: &Path, light: Light) -> io::Result<()> {
    let write = |file: &str, text: &str| std::fs::write(folder.join(file), text);
    match light {
        Light::Off | Light::Steady => {
            write("trigger", "none")?;
            let full = std::fs::read_to_string(folder.join("max_brightness"))?;
            write("brightness", if light == Light::Off { "0" } else { full.trim() })
        }
        Light::Blink(milliseconds) => {
            // The files for the times come with the trigger.
            write("trigger", "timer")?;
            write("delay_on", &milliseconds.to_string())?;
            write("delay_off", &milliseconds.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(root: &Path, name: &str) {
        std::fs::create_dir(root.join(name)).unwrap();
        for (file, text) in [("brightness", "0"), ("max_brightness", "255\n"), ("trigger", "default-on")] {
            std::fs::write(root.join(name).join(file), text).unwrap();
        }
    }

    #[test]
    fn the_status_is_shown_and_a_missing_led_stops_nothing() {
        let board = Board::shipped("bananapi-bpi-r3").unwrap();
        let root = tempfile::tempdir().unwrap();
        let mut nothing = Panel::at(&board, root.path());
        nothing.show(Colour::Red);
        led(root.path(), "blue:status");
        led(root.path(), "green:power");
        let mut panel = Panel::at(&board, root.path());
        let read = |file: &str| std::fs::read_to_string(root.path().join("blue:status").join(file)).unwrap();
        panel.show(Colour::Green);
        assert_eq!((read("trigger"), read("brightness")), ("none".into(), "255".into()));
        panel.show(Colour::Red);
        assert_eq!(
            (read("trigger"), read("delay_on"), read("delay_off")),
            ("timer".into(), "160".into(), "160".into())
        );
        // Written once: what others do between is theirs.
        std::fs::write(root.path().join("blue:status/trigger"), "heartbeat").unwrap();
        panel.show(Colour::Red);
        assert_eq!(read("trigger"), "heartbeat");
        let power = std::fs::read_to_string(root.path().join("green:power/trigger")).unwrap();
        assert_eq!(power, "default-on", "the kernel's own LED is left alone");
    }
}
