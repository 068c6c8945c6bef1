//! What a person sees while a scenario runs.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use seimon_ipc::control::GroupStatus;

/// The state of things at one moment, one line a group.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    pub at: Duration,
    pub of: Duration,
    pub groups: &'a [GroupStatus],
    /// Per load: id, what it served in the last second, errors so far.
    pub loads: &'a [(String, f64, f64)],
}

/// Where progress goes.
pub trait Screen {
    /// Something that is worth a line for ever.
    fn note(&mut self, at: Duration, text: &str);
    /// The current picture; a terminal redraws it.
    fn picture(&mut self, snapshot: &Snapshot<'_>);
}

/// Nothing at all.
#[derive(Debug, Default)]
pub struct Silent;

impl Screen for Silent {
    fn note(&mut self, _: Duration, _: &str) {}
    fn picture(&mut self, _: &Snapshot<'_>) {}
}

/// Lines, for files and pipes: notes at once, a picture every ten seconds.
#[derive(Debug, Default)]
pub struct Plain {
    last: Option<Duration>,
}

impl Screen for Plain {
    fn note(&mut self, at: Duration, text: &str) {
        line(&format!("{:>6.1} s  {text}", at.as_secs_f64()));
    }

    fn picture(&mut self, snapshot: &Snapshot<'_>) {
        let due = self.last.is_none_or(|last| snapshot.at.saturating_sub(last) >= Duration::from_secs(10));
        if due {
            self.last = Some(snapshot.at);
            for text in lines(snapshot) {
                self.note(snapshot.at, &text);
            }
        }
    }
}

/// Redraws the picture below the notes.
#[derive(Debug, Default)]
pub struct Terminal {
    drawn: usize,
}

impl Terminal {
    fn wipe(&mut self) -> String {
        let wipe = if self.drawn > 0 { format!("\x1b[{}A\x1b[J", self.drawn) } else { String::new() };
        self.drawn = 0;
        wipe
    }
}

impl Screen for Terminal {
    fn note(&mut self, at: Duration, text: &str) {
        let wipe = self.wipe();
        line(&format!("{wipe}{:>6.1} s  {text}", at.as_secs_f64()));
    }

    fn picture(&mut self, snapshot: &Snapshot<'_>) {
        let wipe = self.wipe();
        let mut picture =
            vec![format!("── {:.0} of {:.0} s", snapshot.at.as_secs_f64(), snapshot.of.as_secs_f64())];
        picture.extend(lines(snapshot));
        self.drawn = picture.len();
        line(&format!("{wipe}{}", picture.join("\n")));
    }
}

fn lines(snapshot: &Snapshot<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for group in snapshot.groups {
        let name = format!("{}/{}", group.zone, group.group);
        let path = group.path.as_ref().map_or("(blocked)", |p| p.as_str());
        let users: Vec<String> = group.clients.iter().map(|(path, n)| format!("{n} on {path}")).collect();
        let users = if users.is_empty() { "no users yet".to_owned() } else { users.join(", ") };
        lines.push(format!("{name:<20} {:<12} new flows → {path:<8} users: {users}", group.state));
    }
    if !snapshot.loads.is_empty() {
        let loads: Vec<String> = snapshot
            .loads
            .iter()
            .map(|(id, served, errors)| format!("{id} {served:.0}/s, {errors:.0} errors"))
            .collect();
        lines.push(format!("served: {}", loads.join("; ")));
    }
    lines
}

/// A screen that suits where the output goes.
pub fn suitable() -> Box<dyn Screen> {
    if std::io::stdout().is_terminal() { Box::new(Terminal::default()) } else { Box::new(Plain::default()) }
}

/// Writes a line to the standard output; that nobody reads it is no error.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}
