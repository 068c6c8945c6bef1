//! An agent that says what the test wants it to say, and `seimonctl` run against it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread::JoinHandle;

use seimon_ipc::control::{Bilingual, Request, Response};
use tempfile::TempDir;

pub(crate) struct FakeAgent {
    pub(crate) directory: TempDir,
    serving: JoinHandle<Option<Request>>,
}

impl FakeAgent {
    /// Takes one connection, reads one request, writes these bytes and hangs up.
    pub(crate) fn saying(bytes: impl Into<Vec<u8>>) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let listener = UnixListener::bind(directory.path().join("control.sock"))?;
        let bytes = bytes.into();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().ok()?;
            let mut line = String::new();
            BufReader::new(stream.try_clone().ok()?).read_line(&mut line).ok()?;
            // The peer may have had enough.
            let _ = stream.write_all(&bytes);
            serde_json::from_str(&line).ok()
        });
        Ok(Self { directory, serving })
    }

    pub(crate) fn answering(response: &Response) -> anyhow::Result<Self> {
        Self::saying(seimon_ipc::frame::encode(response)?)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    /// What it was asked.
    pub(crate) fn request(self) -> Option<Request> {
        self.serving.join().ok().flatten()
    }
}

pub(crate) fn seimonctl() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seimonctl"));
    for key in ["LC_ALL", "LC_MESSAGES", "LANG", "SEIMON_SOCKET"] {
        command.env_remove(key);
    }
    command.env("TZ", "Asia/Tokyo");
    command
}

/// Exit code, standard output, standard error.
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn outcome(output: Output) -> Outcome {
    Outcome {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

pub(crate) fn both(ja: &str, en: &str) -> Bilingual {
    Bilingual { ja: ja.to_owned(), en: en.to_owned() }
}

/// Compares with a file beside the tests; `UPDATE=1` writes it.
pub(crate) fn golden(path: &str, found: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(&path, found).expect("the golden file is writable");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(expected, found, "{} is not current: UPDATE=1 writes it anew", path.display());
}
