//! Carrying out what is asked. Programs are run by their paths, with arguments of ours; the asker's words go to `seimonctl`
//! only, and never through a shell.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, Timespec, clock_settime};
use seimon_maintenance::{Act, Answer, FileFor, Process, Request};

use crate::look;

pub(crate) const UNIT: &str = "seimon-agent.service";
pub(crate) const SYSTEMCTL: &str = "/usr/bin/systemctl";
/// The agent's.
const CONTROL: &str = "/run/seimon/control.sock";
const SEIMONCTL: &str = "/usr/sbin/seimonctl";
/// Switches the unit's `Restart=` off until the next start of the box.
const NO_REVIVAL: &str = "/run/systemd/system/seimon-agent.service.d/no-revival.conf";
const BALLAST: &str = "/var/ballast";
const DEATH: Duration = Duration::from_secs(5);
/// Of seimonctl's answer, and of its complaints.
const OUTPUT: u64 = 3 << 20;

pub(crate) fn carry_out(request: &Request) -> Result<Answer> {
    match request {
        Request::Status => Ok(Answer::Status(look::status())),
        Request::Ctl { arguments, input, patience_ms } => {
            ctl(arguments, input, Duration::from_millis(*patience_ms))
        }
        Request::Control { line, patience_ms } => {
            control(Path::new(CONTROL), line, Duration::from_millis(*patience_ms))
                .map(|line| Answer::Control { line })
        }
        Request::Put { file, content } => put(&place(*file), content).map(|()| Answer::Done),
        Request::Remove { file } => remove(&place(*file)).map(|()| Answer::Done),
        Request::Agent { act, patience_ms } => {
            agent(*act, Duration::from_millis(*patience_ms)).map(|()| Answer::Done)
        }
        Request::Kill { process } => kill(*process).map(|pids| Answer::Killed { pids }),
        Request::Revival { is_on } => revival(*is_on).map(|()| Answer::Done),
        Request::Log { after, most } => look::log(after.as_deref(), *most),
        Request::Usage => look::usage(),
        Request::SetClock { unix_ms } => set_clock(*unix_ms).map(|()| Answer::Done),
        Request::Ballast { is_there } => ballast(*is_there).map(|()| Answer::Done),
        Request::PowerOff | Request::Reboot => Ok(Answer::Done),
    }
}

/// After the answer was sent.
pub(crate) fn leave(request: &Request) {
    let verb = if *request == Request::PowerOff { "poweroff" } else { "reboot" };
    if let Err(error) = systemctl(&["--no-block", verb]) {
        eprintln!("{error:#}");
    }
}

fn place(file: FileFor) -> PathBuf {
    PathBuf::from(match file {
        FileFor::Plan => "/etc/seimon/plan.toml",
        FileFor::NextPlan => "/run/seimon-maintenance/next-plan.toml",
        FileFor::Authority => "/etc/seimon/lab-ca.pem",
        FileFor::ClockTrust => "/run/systemd/timesync/synchronized",
    })
}

/// Readable for the agent, which is not root. Whole or not at all, and on the disk when this returns.
fn put(file: &Path, content: &str) -> Result<()> {
    let folder = file.parent().context("a file without a folder")?;
    // /etc/seimon leads to the data partition.
    let folder = fs::canonicalize(folder).or_else(|_| fs::create_dir_all(folder).map(|()| folder.to_owned()));
    let folder = folder.with_context(|| file.display().to_string())?;
    let new = folder.join(".new");
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).open(&new)?;
    out.write_all(content.as_bytes())
        .and_then(|()| out.sync_all())
        .with_context(|| file.display().to_string())?;
    fs::set_permissions(&new, Permissions::from_mode(0o644))?;
    fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
    fs::rename(&new, folder.join(file.file_name().context("a file without a name")?))?;
    Ok(File::open(&folder)?.sync_all()?)
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

/// One line to the agent, and its one line back.
fn control(socket: &Path, line: &str, patience: Duration) -> Result<String> {
    ensure!(!line.contains('\n'), "a question to the agent is one line");
    let mut stream = UnixStream::connect(socket).context("the agent's control socket")?;
    // No time at all would be for ever.
    stream.set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    BufReader::new(stream.take(OUTPUT)).read_line(&mut answer).context("the agent's answer")?;
    ensure!(answer.ends_with('\n'), "the agent hung up before it had answered");
    Ok(answer.trim_end().to_owned())
}

fn ctl(arguments: &[String], input: &str, patience: Duration) -> Result<Answer> {
    let mut child = Command::new(SEIMONCTL)
        .args(arguments)
        .env_clear()
        .env("LANG", "C.UTF-8")
        .current_dir("/run/seimon-maintenance")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("seimonctl")?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (code, stdout, stderr) = std::thread::scope(|scope| {
        scope.spawn(move || {
            // One that does not read its input says why by itself.
            let _unread = stdin.map(|mut stdin| stdin.write_all(input.as_bytes()));
        });
        let stdout = scope.spawn(move || read(stdout));
        let stderr = scope.spawn(move || read(stderr));
        (ended(&mut child, patience), stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default())
    });
    Ok(Answer::Ctl { code: code?, stdout, stderr })
}

fn read(pipe: Option<impl std::io::Read>) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is told.
    let _partly = pipe.map(|pipe| pipe.take(OUTPUT).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The exit code; -1: killed.
fn ended(child: &mut Child, patience: Duration) -> Result<i32> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code().unwrap_or(-1));
        }
        if begun.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            return Ok(-1);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn systemctl(arguments: &[&str]) -> Result<()> {
    let output =
        Command::new(SYSTEMCTL).args(arguments).stdin(Stdio::null()).output().context("systemctl")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "systemctl {}: {}", arguments.join(" "), words.trim());
    Ok(())
}

fn agent(act: Act, patience: Duration) -> Result<()> {
    let verb = match act {
        Act::Start => "start",
        Act::Stop => "stop",
        Act::Restart => "restart",
    };
    if act != Act::Stop {
        ensure!(
            Path::new("/etc/seimon/plan.toml").exists(),
            "there is no plan: without one the agent is not started. Put the file `plan` first"
        );
        // What it has failed before does not count.
        systemctl(&["reset-failed", UNIT]).or_else(|_| Ok::<(), anyhow::Error>(()))?;
    }
    systemctl(&["--no-block", verb, UNIT])?;
    let begun = Instant::now();
    loop {
        let state = look::unit_property("ActiveState").unwrap_or_default();
        match (act, state.as_str()) {
            (Act::Stop, "inactive" | "failed") | (Act::Start | Act::Restart, "active") => {
                // A restart is over when the job is.
                if look::unit_property("Job").is_none_or(|job| job.is_empty() || job == "0") {
                    return Ok(());
                }
            }
            (Act::Start | Act::Restart, "failed") => bail!("the agent failed to start: ask for its log"),
            _ => {}
        }
        if begun.elapsed() > patience {
            let words = look::last_words();
            bail!("the agent is `{state}` after {patience:?}; its last words:\n{words}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn kill(process: Process) -> Result<Vec<u32>> {
    let pids: Vec<u32> =
        look::processes().filter(|found| found.process == process).map(|found| found.pid).collect();
    ensure!(!pids.is_empty(), "{} does not run", process.program());
    for pid in &pids {
        if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::KILL).with_context(|| process.program())?;
        }
    }
    let begun = Instant::now();
    while look::processes().any(|found| pids.contains(&found.pid)) {
        ensure!(begun.elapsed() < DEATH, "{} does not die", process.program());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(pids)
}

fn revival(is_on: bool) -> Result<()> {
    let file = Path::new(NO_REVIVAL);
    if is_on {
        remove(file)?;
    } else {
        fs::create_dir_all(file.parent().context("no folder")?)?;
        fs::write(file, "[Service]\nRestart=no\n").with_context(|| NO_REVIVAL)?;
        fs::set_permissions(file, Permissions::from_mode(0o644))?;
    }
    systemctl(&["daemon-reload"])
}

fn set_clock(unix_ms: i64) -> Result<()> {
    let time = Timespec { tv_sec: unix_ms.div_euclid(1000), tv_nsec: unix_ms.rem_euclid(1000) * 1_000_000 };
    clock_settime(ClockId::Realtime, time).context("the clock")
}

/// Takes what room there is, down to the last block.
fn ballast(is_there: bool) -> Result<()> {
    let file = Path::new(BALLAST);
    if !is_there {
        remove(file)?;
        rustix::fs::sync();
        return Ok(());
    }
    let out = OpenOptions::new().create(true).append(true).open(file).context(BALLAST)?;
    let mut step: u64 = 1 << 30;
    while step >= 4096 {
        let length = out.metadata()?.len();
        match rustix::fs::fallocate(&out, rustix::fs::FallocateFlags::empty(), length, step) {
            Ok(()) => {}
            Err(rustix::io::Errno::NOSPC) => step /= 2,
            Err(error) => return Err(error).context(BALLAST),
        }
    }
    Ok(out.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_put_whole_and_readable() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sub/plan.toml");
        put(&file, "version = 1\n").unwrap();
        put(&file, "version = 2\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "version = 2\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing half is left");
        remove(&file).unwrap();
        remove(&file).unwrap();
    }

    #[test]
    fn a_line_is_passed_on_and_one_comes_back_or_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                // The first is answered, the others are hung up on.
                if number == 0 {
                    write!(stream, "heard {line}and more").unwrap();
                }
            }
        });
        let second = Duration::from_secs(1);
        assert_eq!(control(&socket, "status", second).unwrap(), "heard status");
        assert!(control(&socket, "status", second).unwrap_err().to_string().contains("hung up"));
        assert!(control(&socket, "two\nlines", second).unwrap_err().to_string().contains("one line"));
        assert!(control(&folder.path().join("none"), "status", second).is_err());
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed() {
        let mut child = Command::new("sleep").arg("20").spawn().unwrap();
        assert_eq!(ended(&mut child, Duration::from_millis(50)).unwrap(), -1);
        let mut child = Command::new("false").spawn().unwrap();
        assert_eq!(ended(&mut child, Duration::from_secs(10)).unwrap(), 1);
    }

    #[test]
    fn a_process_that_does_not_run_cannot_be_killed() {
        assert!(kill(Process::Tunnel).unwrap_err().to_string().contains("seimon-tunnel does not run"));
    }
}
