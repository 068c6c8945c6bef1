//! The words of the protocol. Times are in milliseconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// [`crate::VERSION`].
    pub version: u16,
    /// Comes back in the reply.
    pub id: u64,
    pub request: Request,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    pub version: u16,
    pub id: u64,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Done(Answer),
    /// In words, with what to do. Nothing was changed, or as much as the words say.
    Failed(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What runs, and how long it took to start: [`Answer::Status`].
    Status,
    /// Runs `seimonctl` with these arguments and waits for its end: [`Answer::Ctl`]. It is killed after `patience_ms`.
    Ctl {
        arguments: Vec<String>,
        /// Given to its standard input.
        #[serde(default)]
        input: String,
        patience_ms: u64,
    },
    /// Passes one line on to the agent's control socket and its one line back: [`Answer::Control`]. For questions whose
    /// answer is one line (no `follow`), without a process for each.
    Control { line: String, patience_ms: u64 },
    /// Puts a file in its place, whole or not at all: [`Answer::Done`].
    Put { file: FileFor, content: String },
    /// Takes it away; none there is well, too: [`Answer::Done`].
    Remove { file: FileFor },
    /// [`Answer::Done`] when the agent says that it is ready, or is stopped.
    Agent { act: Act, patience_ms: u64 },
    /// kill -9: [`Answer::Killed`] when they are gone. systemd starts the agent again after a second, unless that was
    /// switched off.
    Kill { process: Process },
    /// Whether systemd starts an agent again that has died, as it does at first: [`Answer::Done`].
    Revival { is_on: bool },
    /// What the agent and its helpers have logged since `after`, a cursor of an earlier answer: [`Answer::Log`]. At most
    /// the newest `most` lines.
    Log {
        #[serde(default)]
        after: Option<String>,
        most: u32,
    },
    /// [`Answer::Usage`].
    Usage,
    /// Sets the wall clock, milliseconds since 1970 UTC: [`Answer::Done`].
    SetClock { unix_ms: i64 },
    /// Fills the data partition to the last byte, or takes that away again: [`Answer::Done`].
    Ballast { is_there: bool },
    /// [`Answer::Done`] comes before it begins.
    PowerOff,
    /// The same.
    Reboot,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Answer {
    Done,
    Status(Status),
    Ctl {
        /// -1: killed, by a signal or because it took too long.
        code: i32,
        stdout: String,
        stderr: String,
    },
    Control {
        line: String,
    },
    Killed {
        pids: Vec<u32>,
    },
    Log {
        /// One event each, as the agent wrote it.
        lines: Vec<String>,
        /// For the next question's `after`; `None`: nothing was logged yet.
        cursor: Option<String>,
    },
    Usage {
        memory: Memory,
        processes: Vec<ProcessUsage>,
    },
}

/// Files by what they are for. Where each lies is the image's affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileFor {
    /// The site plan that the agent starts with: `/etc/seimon/plan.toml`. Without it the agent is not started.
    Plan,
    /// A plan for `seimonctl apply`: `/run/seimon-maintenance/next-plan.toml`.
    NextPlan,
    /// An authority that the plan's checks name as `ca_file = "lab-ca.pem"`: `/etc/seimon/lab-ca.pem`.
    Authority,
    /// While it is there, the agent trusts the clock: `/run/systemd/timesync/synchronized`.
    ClockTrust,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    Start,
    /// As a person would stop it: forwarding is closed.
    Stop,
    Restart,
}

/// The gateway's own processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Process {
    Agent,
    Resolver,
    Probe,
    Page,
    Tunnel,
}

impl Process {
    pub const ALL: [Self; 5] = [Self::Agent, Self::Resolver, Self::Probe, Self::Page, Self::Tunnel];

    /// As `/proc/PID/stat` shows it, at most 15 bytes.
    pub fn program(self) -> &'static str {
        match self {
            Self::Agent => "seimon-agent",
            Self::Resolver => "seimon-resolver",
            Self::Probe => "seimon-probe",
            Self::Page => "seimon-page",
            Self::Tunnel => "seimon-tunnel",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The image's version.
    pub version: String,
    pub board: String,
    /// The slot that runs, `a` or `b`; `None`: started without the boot guardian.
    pub slot: Option<String>,
    /// Changes at each start of the kernel.
    pub boot_id: String,
    /// Since the kernel began.
    pub uptime_ms: u64,
    /// The agent's pid, while it runs.
    pub agent: Option<u32>,
    /// How often systemd has started a dead agent again since somebody last started it by hand.
    pub revivals: u32,
    pub boot: Boot,
    /// What the image found out about this box: `data-key` = `tpm`|`device`, `data` = …; by file of `/run/seimon-facts`.
    pub facts: BTreeMap<String, String>,
}

/// Milliseconds since the kernel began; `None`: not yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The initramfs's own program runs.
    pub init_ms: Option<u64>,
    /// systemd runs.
    pub system_ms: Option<u64>,
    /// The agent said for the first time that it is ready: the policy is in force.
    pub policy_ms: Option<u64>,
}

/// In bytes, of the whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    pub total: u64,
    /// `MemAvailable`: what programs could still get.
    pub available: u64,
    pub free: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessUsage {
    pub process: Process,
    pub pid: u32,
    pub rss_bytes: u64,
    /// User and system time since it began.
    pub cpu_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bench of another version reads the same words.
    #[test]
    fn requests_are_written_so() {
        let written = |request: &Request| serde_json::to_string(request).unwrap();
        let ctl =
            Request::Ctl { arguments: vec!["status".into()], input: String::new(), patience_ms: 10_000 };
        assert_eq!(written(&ctl), r#"{"ask":"ctl","arguments":["status"],"input":"","patience_ms":10000}"#);
        let put = Request::Put { file: FileFor::ClockTrust, content: String::new() };
        assert_eq!(written(&put), r#"{"ask":"put","file":"clock-trust","content":""}"#);
        let kill = Request::Kill { process: Process::Resolver };
        assert_eq!(written(&kill), r#"{"ask":"kill","process":"resolver"}"#);
        assert_eq!(written(&Request::PowerOff), r#"{"ask":"power-off"}"#);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in [
            r#"{"ask":"run","arguments":["sh"]}"#,
            r#"{"ask":"put","file":"/etc/passwd","content":""}"#,
            r#"{"ask":"kill","process":"systemd"}"#,
            r#"{"ask":"set-clock","unix_ms":1,"and":2}"#,
        ] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }
}
