//! Looking at the gateway: its processes, its log, how it started.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use seimon_maintenance::{Answer, Boot, Memory, Process, ProcessUsage, Status};

use crate::act::{SYSTEMCTL, UNIT};

const FACTS: &str = "/run/seimon-facts";
const JOURNALCTL: &str = "/usr/bin/journalctl";
/// The kernel's unit of CPU times in /proc (USER_HZ).
const TICKS: u64 = 100;
const LAST_WORDS: u32 = 20;

pub(crate) fn status() -> Status {
    let mut facts = BTreeMap::new();
    for entry in fs::read_dir(FACTS).into_iter().flatten().flatten() {
        if let (Ok(name), Ok(value)) = (entry.file_name().into_string(), fs::read_to_string(entry.path())) {
            facts.insert(name, value.trim().to_owned());
        }
    }
    let ms = |name: &str| facts.get(name).and_then(|value| value.parse().ok());
    let release = fs::read_to_string("/usr/lib/os-release").unwrap_or_default();
    let field = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let now = clock_gettime(ClockId::Boottime);
    Status {
        version: field("IMAGE_VERSION"),
        board: field("IMAGE_ID").trim_start_matches("seimon-").to_owned(),
        slot: facts.get("slot").cloned(),
        boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
        uptime_ms: u64::try_from(now.tv_sec * 1000 + now.tv_nsec / 1_000_000).unwrap_or(0),
        agent: processes().find(|found| found.process == Process::Agent).map(|found| found.pid),
        revivals: unit_property("NRestarts").and_then(|value| value.parse().ok()).unwrap_or(0),
        boot: Boot {
            init_ms: ms("init-ms"),
            system_ms: manager_property("UserspaceTimestampMonotonic")
                .and_then(|value| value.parse::<u64>().ok())
                .map(|us| us / 1000),
            policy_ms: ms("policy-ms"),
        },
        facts,
    }
}

pub(crate) fn unit_property(name: &str) -> Option<String> {
    show(&["show", "--value", "-p", name, UNIT])
}

fn manager_property(name: &str) -> Option<String> {
    show(&["show", "--value", "-p", name])
}

fn show(arguments: &[&str]) -> Option<String> {
    let output = Command::new(SYSTEMCTL).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

pub(crate) fn usage() -> Result<Answer> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let memory = memory(&text).context("/proc/meminfo says nothing that is understood")?;
    Ok(Answer::Usage { memory, processes: processes().collect() })
}

fn memory(text: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    };
    Some(Memory { total: bytes("MemTotal")?, available: bytes("MemAvailable")?, free: bytes("MemFree")? })
}

/// The agent and its helpers, without those that are dead and not yet buried.
pub(crate) fn processes() -> impl Iterator<Item = ProcessUsage> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (process, cpu_ms) = of_stat(&stat)?;
        Some(ProcessUsage { process, pid, rss_bytes: rss(&entry.path()).unwrap_or(0), cpu_ms })
    })
}

/// `PID (NAME) STATE …` of proc(5); user and system time are the 14th and 15th fields.
fn of_stat(stat: &str) -> Option<(Process, u64)> {
    let (head, rest) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let process = Process::ALL.into_iter().find(|process| process.program() == name)?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some((process, ticks * 1000 / TICKS))
}

fn rss(process: &Path) -> Option<u64> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

pub(crate) fn log(after: Option<&str>, most: u32) -> Result<Answer> {
    let most = most.clamp(1, 20_000).to_string();
    let unit = format!("--unit={UNIT}");
    let mut arguments =
        vec!["--output=cat", "--show-cursor", "--quiet", "--no-pager", &unit, "--lines", &most];
    let after = after.map(|cursor| format!("--after-cursor={cursor}"));
    arguments.extend(after.as_deref());
    let output =
        Command::new(JOURNALCTL).args(&arguments).stdin(Stdio::null()).output().context("journalctl")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "journalctl: {}", words.trim());
    let (lines, cursor) = of_journal(&String::from_utf8_lossy(&output.stdout));
    Ok(Answer::Log { lines, cursor })
}

/// journalctl ends with `-- cursor: …` where it has shown anything.
fn of_journal(text: &str) -> (Vec<String>, Option<String>) {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let cursor = lines.last().and_then(|line| line.strip_prefix("-- cursor: ")).map(str::to_owned);
    if cursor.is_some() {
        lines.pop();
    }
    (lines, cursor)
}

pub(crate) fn last_words() -> String {
    match log(None, LAST_WORDS) {
        Ok(Answer::Log { lines, .. }) => lines.join("\n"),
        Ok(_) | Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_name_and_not_when_it_is_dead() {
        let stat = |state: &str, name: &str| format!("7 ({name}) {state} 1 7 7 0 -1 0 0 0 0 0 250 50 0 0 20");
        assert_eq!(of_stat(&stat("S", "seimon-agent")), Some((Process::Agent, 3000)));
        assert_eq!(of_stat(&stat("Z", "seimon-agent")), None);
        assert_eq!(of_stat(&stat("S", "seimon-agents")), None);
        assert_eq!(of_stat("noise"), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemTotal:  2048 kB\nMemFree: 1024 kB\nMemAvailable:    1536 kB\n";
        let read = memory(text).unwrap();
        assert_eq!((read.total, read.available, read.free), (2 << 20, 1536 << 10, 1 << 20));
        assert!(memory("MemTotal: 1 kB").is_none());
    }

    #[test]
    fn the_cursor_is_not_a_line() {
        let (lines, cursor) = of_journal("{\"a\":1}\n{\"b\":2}\n-- cursor: s=1;i=2\n");
        assert_eq!(lines, ["{\"a\":1}", "{\"b\":2}"]);
        assert_eq!(cursor.as_deref(), Some("s=1;i=2"));
        assert_eq!(of_journal(""), (vec![], None));
    }
}
