//! The acceptance test (開通試験): what is to be tried when a gateway has been put up, and what the outcomes mean for people.
//!
//! ```text
//! plan ──programme──▶ items, each with a trial ──(probe, link)──▶ outcomes ──judge──▶ rows: verdict, whose job, what to do
//! ```
//! A row never says "OK" unless something was tried and went well: what could not be tried is [`Verdict::CannotTell`].

mod bandwidth;
mod judge;
mod programme;
mod words;

use std::net::SocketAddr;
use std::time::Duration;

use seimon_plan::{DeviceKind, LineId, PathId, ServiceId, ZoneId};

use crate::health::{Liveness, Stage};
use crate::status::Sentence;

pub use bandwidth::recommended_mbps;
pub use judge::judge;
pub use programme::programme;
pub use words::{line_word, path_word, role_word, service_word, zone_word};

/// Whatever happens, the test is over after this time; it must be below two minutes with everything around it.
pub const LONGEST: Duration = Duration::from_secs(100);

/// What a row is about, in the order of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Line,
    Names,
    Identity,
    Service,
    Device(DeviceKind),
    Separation,
    Speed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Ok,
    CannotTell,
    Failed,
}

/// Who has to do something about a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    School,
    /// The company that runs the line.
    Carrier,
    /// The company that runs the service.
    Provider,
    /// The education board, or whoever it has looking after the gateway.
    Municipality,
}

/// One thing to be tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub topic: Topic,
    pub subject: Sentence,
    pub trial: Trial,
}

/// How it is tried. All but [`Trial::Line`] are the probe's: from its host of the zone, over the path.
#[derive(Clone, Debug, PartialEq)]
pub enum Trial {
    /// What health knows about the path at the end of the test, and whether the cable is in.
    Line { line: LineId, path: PathId },
    /// The zone's name server is asked for the name.
    Name { zone: ZoneId, path: PathId, name: String },
    /// The service's health check, once.
    Service { zone: ZoneId, path: PathId, service: ServiceId },
    /// A connection that must come about.
    Reach { zone: ZoneId, path: PathId, target: SocketAddr },
    /// A connection that must be refused at the gate; it is sent so that it cannot come further than one router beyond.
    Apart { zone: ZoneId, path: PathId, target: SocketAddr },
    /// The plan's large file is loaded for a few seconds, alone.
    Speed { zone: ZoneId, path: PathId },
}

impl Trial {
    /// The path that it goes over.
    pub fn path(&self) -> &PathId {
        match self {
            Self::Line { path, .. }
            | Self::Name { path, .. }
            | Self::Service { path, .. }
            | Self::Reach { path, .. }
            | Self::Apart { path, .. }
            | Self::Speed { path, .. } => path,
        }
    }
}

/// Whether a cable is in the line's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cable {
    In,
    Out,
    Unknown,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Line {
        liveness: Liveness,
        loss: Option<f64>,
        round_trip: Option<Duration>,
        cable: Cable,
    },
    /// The name was answered, the service's page came.
    Well {
        took: Duration,
    },
    /// The check stopped at this stage.
    Stopped {
        stage: Stage,
        detail: String,
    },
    Connected {
        took: Duration,
    },
    /// Refused at once: a reset, or "prohibited".
    Refused {
        took: Duration,
    },
    /// Nobody there, as the network says after a while.
    NobodyThere,
    /// Nothing was heard.
    Silent,
    Loaded {
        bytes: u64,
        took: Duration,
    },
    /// It could not be tried, or not in time.
    NotTried,
}

/// One row of the page.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub topic: Topic,
    pub subject: Sentence,
    pub verdict: Verdict,
    /// What was found, in one sentence.
    pub found: Sentence,
    /// `None`: nothing is to be done.
    pub whose: Option<Whose>,
    /// Empty: nothing.
    pub to_do: Sentence,
}
