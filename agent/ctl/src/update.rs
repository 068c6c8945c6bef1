//! Images: asks the updater, which is another process than the agent.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use seimon_ipc::control::Bilingual;
use seimon_ipc::frame::{self, LineBuffer};
use seimon_update::wire::{
    Command, FallFacts, ImageFacts, Request, Reset, Response, SlotFacts, UpdateStatus, VERSION,
};

use crate::args::{Lang, ResetWhat, UpdateCommand};
use crate::client::{Allowed, ClientError};
use crate::run::{Failure, Shell};
use crate::screen::{clean, table};
use crate::words::{pick, say};

/// Where the updater listens unless `SEIMON_UPDATER` says otherwise.
const SOCKET: &str = "/run/seimon-update/update.sock";
const SOCKET_VARIABLE: &str = "SEIMON_UPDATER";

/// A slow line may be silent for long between two steps.
const PATIENCE: Duration = Duration::from_secs(600);

impl Shell<'_> {
    pub(crate) fn update(&mut self, command: UpdateCommand) -> Result<(), Failure> {
        let command = match command {
            UpdateCommand::Status => Command::Status {},
            UpdateCommand::Check { source } => Command::Check { source: source_of(source) },
            UpdateCommand::Stage { source } => Command::Stage { source: source_of(source) },
            UpdateCommand::Apply => Command::Apply {},
            UpdateCommand::Confirm => Command::Confirm {},
            UpdateCommand::Rollback => Command::Rollback {},
        };
        self.put_to_updater(command)
    }

    pub(crate) fn reset(&mut self, what: ResetWhat, yes: bool) -> Result<(), Failure> {
        if !yes {
            return Err(Failure::Told(match (self.lang, what) {
                (Lang::Ja, ResetWhat::Factory) => {
                    "学校の設定を消して再起動します。よければ --yes を付けてください。".to_owned()
                }
                (Lang::Ja, ResetWhat::Wipe) => {
                    "識別情報を含むすべてを消して再起動します。よければ --yes を付けてください。".to_owned()
                }
                (Lang::En, ResetWhat::Factory) => {
                    "this forgets the school's settings and restarts: say --yes if that is meant".to_owned()
                }
                (Lang::En, ResetWhat::Wipe) => {
                    "this forgets everything, the box's identity too, and restarts: say --yes if that is meant".to_owned()
                }
            }));
        }
        let what = match what {
            ResetWhat::Factory => Reset::Factory,
            ResetWhat::Wipe => Reset::Wipe,
        };
        self.put_to_updater(Command::Reset { what })
    }

    fn put_to_updater(&mut self, command: Command) -> Result<(), Failure> {
        let said = std::env::var_os(SOCKET_VARIABLE).filter(|value| !value.is_empty());
        let socket = said.map_or_else(|| PathBuf::from(SOCKET), PathBuf::from);
        let no_answer = || Failure::Client(ClientError::NoAnswer { socket: socket.clone() });
        let mut stream = UnixStream::connect(&socket).map_err(|why| {
            Failure::Client(if why.kind() == io::ErrorKind::PermissionDenied {
                ClientError::NotAllowed { allowed: Allowed::at(&socket), socket: socket.clone() }
            } else {
                ClientError::NoAgent { socket: socket.clone(), why }
            })
        })?;
        let nonsense = |error| Failure::Client(ClientError::Nonsense(error));
        let request = frame::encode(&Request { version: VERSION, request: command }).map_err(nonsense)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(|_| no_answer())?;
        stream.write_all(&request).map_err(|_| no_answer())?;
        let (mut lines, mut chunk) = (LineBuffer::default(), vec![0; 64 << 10]);
        loop {
            let Some(line) = lines.next_line().map_err(nonsense)? else {
                match stream.read(&mut chunk) {
                    Ok(length) if length > 0 => lines.push(&chunk[..length]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(_) | Err(_) => return Err(no_answer()),
                }
                continue;
            };
            let response = frame::decode(&line).map_err(nonsense)?;
            if self.json {
                self.out.write_all(&line)?;
                self.out.write_all(b"\n")?;
                self.out.flush()?;
            }
            if let Response::Progress { done, total } = response {
                if !self.json {
                    self.bytes_done(done, total)?;
                }
                continue;
            }
            return self.told(&response);
        }
    }

    /// One line that is written over, for people who wait.
    fn bytes_done(&self, done: u64, total: u64) -> io::Result<()> {
        let mut terminal = io::stderr().lock();
        if !terminal.is_terminal() {
            return Ok(());
        }
        let percent = done.saturating_mul(100) / total.max(1);
        let (done, total) = (done >> 20, total >> 20);
        write!(terminal, "\r{percent:3} %  {done} / {total} MiB ")?;
        if percent == 100 {
            writeln!(terminal)?;
        }
        terminal.flush()
    }

    fn told(&mut self, response: &Response) -> Result<(), Failure> {
        let text = match response {
            Response::Status(status) => screen(self.lang, status),
            Response::Image(facts) => image(self.lang, facts),
            Response::Done { message } => format!("{}\n", pick(self.lang, message)),
            Response::Refused { .. } if self.json => return Err(Failure::Refused),
            Response::Refused { reason } => return Err(Failure::Told(pick(self.lang, reason))),
            Response::NotAllowed { reason } => return Err(Failure::NotAllowed { reason: reason.clone() }),
            Response::Malformed { reason } => return Err(Failure::Malformed(reason.clone())),
            Response::Progress { .. } => return Err(Failure::WrongAnswer),
        };
        if !self.json {
            self.out.write_all(text.as_bytes())?;
        }
        Ok(())
    }
}

/// The updater has another working directory.
fn source_of(source: String) -> String {
    if source.contains("://") {
        return source;
    }
    std::path::absolute(&source).ok().and_then(|path| path.to_str().map(str::to_owned)).unwrap_or(source)
}

fn status_word(lang: Lang, status: &str) -> String {
    match status {
        "empty" => say(lang, "なし", "empty"),
        "trial" => say(lang, "試用", "on trial"),
        "confirmed" => say(lang, "確定", "confirmed"),
        "bad" => say(lang, "不可", "not usable"),
        other => clean(other),
    }
}

fn screen(lang: Lang, status: &UpdateStatus) -> String {
    let mut text = format!("{}\n\n", pick(lang, &status.sentence));
    let head = match lang {
        Lang::Ja => ["スロット", "版", "状態", "残り試行", "世代", ""],
        Lang::En => ["slot", "version", "status", "tries left", "epoch", ""],
    };
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (slot, facts) in &status.slots {
        let SlotFacts { status: state, version, epoch, tries_left, starts: _ } = facts;
        let mut notes = Vec::new();
        if status.running.as_deref() == Some(slot) {
            notes.push(say(lang, "動作中", "running"));
        }
        if status.next == *slot {
            notes.push(say(lang, "次の起動", "next start"));
        }
        let tries = if state == "trial" { tries_left.to_string() } else { "–".to_owned() };
        rows.push(vec![
            slot.to_uppercase(),
            clean(version),
            status_word(lang, state),
            tries,
            epoch.to_string(),
            notes.join(&say(lang, "、", ", ")),
        ]);
    }
    text.push_str(&table(2, &rows));
    if let Some((done, total)) = status.writing {
        text.push_str(&format!(
            "\n{}: {} / {} MiB\n",
            say(lang, "書き込み", "writing"),
            done >> 20,
            total >> 20
        ));
    }
    if let Some(FallFacts { slot, version, reason: _, sentence }) = &status.last_fall {
        let Bilingual { .. } = sentence;
        let (slot, version, why) = (slot.to_uppercase(), clean(version), pick(lang, sentence));
        text.push_str(&match lang {
            Lang::Ja => format!("\n前にスロット {slot}（{version}）をやめた理由: {why}\n"),
            Lang::En => format!("\nslot {slot} ({version}) was left because {why}\n"),
        });
    }
    text
}

fn image(lang: Lang, facts: &ImageFacts) -> String {
    let ImageFacts { version, epoch, boards, length, digest, present_in } = facts;
    let rows = [
        (say(lang, "版", "version"), clean(version)),
        (say(lang, "世代", "security epoch"), epoch.to_string()),
        (say(lang, "機種", "boards"), clean(&boards.join(", "))),
        (say(lang, "大きさ", "size"), format!("{} MiB", length >> 20)),
        (say(lang, "目録", "manifest"), clean(digest)),
        (
            say(lang, "この機器では", "here"),
            match present_in {
                Some(slot) => match lang {
                    Lang::Ja => format!("スロット {} にあります", slot.to_uppercase()),
                    Lang::En => format!("in slot {}", slot.to_uppercase()),
                },
                None => say(lang, "まだありません", "not yet"),
            },
        ),
    ];
    let mut text = say(
        lang,
        "署名は正しく、この機種向けです。\n",
        "The signature is good and the image is for this board.\n",
    );
    text.push_str(&table(2, &rows.map(|(name, value)| vec![name, value])));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_says_which_slot_runs_and_why_the_other_was_left() {
        let facts = |status: &str| SlotFacts {
            status: status.into(),
            version: "2026.11".into(),
            epoch: 3,
            tries_left: 2,
            starts: 0,
        };
        let status = UpdateStatus {
            version: VERSION,
            running: Some("a".into()),
            next: "a".into(),
            slots: [("a".to_owned(), facts("confirmed")), ("b".to_owned(), facts("bad"))].into(),
            epoch: 3,
            last_fall: Some(FallFacts {
                slot: "b".into(),
                version: "2026.12".into(),
                reason: "users-suffered".into(),
                sentence: Bilingual { ja: "利用者".into(), en: "users were worse off".into() },
            }),
            sentence: Bilingual { ja: "確定".into(), en: "Running a confirmed image.".into() },
            writing: None,
        };
        let english = screen(Lang::En, &status);
        assert!(english.contains("slot B (2026.12) was left because users were worse off"), "{english}");
        assert!(
            english.lines().any(|line| line.contains("A ") && line.contains("running, next start")),
            "{english}"
        );
        let japanese = screen(Lang::Ja, &status);
        assert!(japanese.contains("前にスロット B（2026.12）をやめた理由: 利用者"), "{japanese}");
    }
}
