//! WireGuard keys on this machine, without the agent: `keygen`, `pubkey`.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use seimon_plan::WireguardKey;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::args::Lang;

/// A key is 44 characters and a line's end.
const LONGEST: u64 = 256;

/// Why there is no key.
#[derive(Debug)]
pub(crate) enum KeyError {
    Exists(PathBuf),
    File(PathBuf, io::Error),
    Input(io::Error),
    Random(io::Error),
    NoKey,
}

impl KeyError {
    pub(crate) fn in_words(&self, lang: Lang) -> String {
        match (self, lang) {
            (Self::Exists(file), Lang::Ja) => {
                format!(
                    "{} はすでにあります。そのままにしました。別の名前を指定してください。",
                    file.display()
                )
            }
            (Self::Exists(file), Lang::En) => {
                format!("{} is there already and was left alone: name another file", file.display())
            }
            (Self::File(file, error), Lang::Ja) => format!("{} を使えません（{error}）。", file.display()),
            (Self::File(file, error), Lang::En) => format!("{} cannot be used: {error}", file.display()),
            (Self::Input(error), Lang::Ja) => format!("標準入力を読めません（{error}）。"),
            (Self::Input(error), Lang::En) => format!("standard input cannot be read: {error}"),
            (Self::Random(error), Lang::Ja) => format!("乱数が得られません（{error}）。"),
            (Self::Random(error), Lang::En) => format!("random numbers are not to be had: {error}"),
            (Self::NoKey, Lang::Ja) => {
                "秘密鍵ではありません。`seimonctl wireguard keygen` が表示する 44 文字（base64）です。"
                    .to_owned()
            }
            (Self::NoKey, Lang::En) => {
                "that is no private key: 44 characters in base64, as `seimonctl wireguard keygen` prints them"
                    .to_owned()
            }
        }
    }
}

/// What is to be printed: the public half, or, without a file, the private key itself.
pub(crate) fn generate(file: Option<&Path>) -> Result<String, KeyError> {
    let mut bytes = [0; 32];
    let made = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match made {
        Ok(32) => {}
        Ok(_) => return Err(KeyError::Random(io::ErrorKind::UnexpectedEof.into())),
        Err(error) => return Err(KeyError::Random(error.into())),
    }
    // As everybody's keys are (RFC 7748, section 5).
    bytes[0] &= 248;
    bytes[31] = (bytes[31] & 127) | 64;
    // The same spelling for both halves.
    let private = WireguardKey(bytes).to_string();
    let Some(file) = file else { return Ok(private) };
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            KeyError::Exists(file.to_owned())
        } else {
            KeyError::File(file.to_owned(), error)
        }
    };
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    writeln!(new, "{private}").and_then(|()| new.sync_all()).map_err(failed)?;
    Ok(public_half(bytes))
}

/// The public half of the key in the file, or of what standard input has.
pub(crate) fn public(file: Option<&Path>) -> Result<String, KeyError> {
    let mut text = String::new();
    match file.filter(|file| *file != Path::new("-")) {
        Some(file) => {
            let open = std::fs::File::open(file).map_err(|error| KeyError::File(file.to_owned(), error))?;
            let read = open.take(LONGEST).read_to_string(&mut text);
            read.map_err(|error| KeyError::File(file.to_owned(), error))?;
        }
        None => {
            io::stdin().lock().take(LONGEST).read_to_string(&mut text).map_err(KeyError::Input)?;
        }
    }
    let key: WireguardKey = text.trim().parse().map_err(|_| KeyError::NoKey)?;
    Ok(public_half(key.0))
}

fn public_half(private: [u8; 32]) -> String {
    WireguardKey(PublicKey::from(&StaticSecret::from(private)).to_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_file_is_its_owners_alone_and_its_public_half_is_what_was_printed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("k");
        let printed = generate(Some(&file)).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(public(Some(&file)).unwrap(), printed);
        assert!(matches!(generate(Some(&file)), Err(KeyError::Exists(_))));
        assert_eq!(public(Some(&file)).unwrap(), printed, "left alone");
    }

    #[test]
    fn the_public_half_is_the_one_that_others_compute() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("k");
        std::fs::write(&file, "SGb+ojrRNDuMePufwtIYhXzA//k6wF3R21tEBgKlzlM=\n").unwrap();
        assert_eq!(public(Some(&file)).unwrap(), "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=");
        std::fs::write(&file, "no key").unwrap();
        assert!(matches!(public(Some(&file)), Err(KeyError::NoKey)));
    }
}
