//! The updater's socket: JSON objects, one a line ([`seimon_ipc::frame`]). A request gets any number of
//! [`Response::Progress`] and then exactly one other response.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use seimon_ipc::control::Bilingual;
use serde::{Deserialize, Serialize};

pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub version: u32,
    pub request: Command,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    Status {},
    /// Fetch the image's head and say what it is; writes nothing.
    Check {
        source: String,
    },
    /// Write the image into the slot that does not run.
    Stage {
        source: String,
    },
    /// Restart into the staged image, on trial.
    Apply {},
    /// Keep the running image, whatever the trial says.
    Confirm {},
    /// Restart into the other slot.
    Rollback {},
    /// Forget the school's settings, or everything, and restart.
    Reset {
        what: Reset,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reset {
    /// Settings go, the box's identity stays.
    Factory,
    /// Identity too: for a box that leaves the town's hands.
    Wipe,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Response {
    /// Bytes.
    Progress {
        done: u64,
        total: u64,
    },
    Status(Box<UpdateStatus>),
    Image(Box<ImageFacts>),
    Done {
        message: Bilingual,
    },
    /// Not done, and why.
    Refused {
        reason: Bilingual,
    },
    NotAllowed {
        reason: String,
    },
    Malformed {
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpdateStatus {
    pub version: u32,
    /// `a` or `b`; `None`: the guardian did not say.
    pub running: Option<String>,
    /// The slot that starts next.
    pub next: String,
    pub slots: BTreeMap<String, SlotFacts>,
    /// Lowest security epoch that may run.
    pub epoch: u32,
    pub last_fall: Option<FallFacts>,
    /// Where an update is, in one or two sentences.
    pub sentence: Bilingual,
    /// While an image is being written: bytes done and in all.
    pub writing: Option<(u64, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SlotFacts {
    /// `empty`, `trial`, `confirmed` or `bad`.
    pub status: String,
    pub version: String,
    pub epoch: u32,
    pub tries_left: u8,
    /// Since it was last healthy.
    pub starts: u16,
}

/// Why a slot was left for the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FallFacts {
    pub slot: String,
    pub version: String,
    pub reason: String,
    pub sentence: Bilingual,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageFacts {
    pub version: String,
    pub epoch: u32,
    pub boards: Vec<String>,
    /// Bytes.
    pub length: u64,
    /// Of the manifest, SHA-256.
    pub digest: String,
    /// Whether this very image lies in a slot already.
    pub present_in: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden bytes: both ends of the socket may be of different versions during an update.
    #[test]
    fn messages_of_version_1_look_like_this() {
        let request = Request { version: VERSION, request: Command::Stage { source: "/tmp/i.simg".into() } };
        let text = r#"{"version":1,"request":{"command":"stage","source":"/tmp/i.simg"}}"#;
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        let progress = r#"{"result":"progress","done":1,"total":2}"#;
        assert_eq!(serde_json::to_string(&Response::Progress { done: 1, total: 2 }).unwrap(), progress);
        assert!(
            serde_json::from_str::<Request>(r#"{"version":1,"request":{"command":"status","x":1}}"#).is_err()
        );
    }
}
