//! The diagnostic pack as a file. What is in it has been cleaned by the agent.

use std::fs::File;
use std::io;
use std::path::Path;

use seimon_ipc::control::{Command, Response};
use seimon_ipc::report::Diagnostics;

use crate::run::{Failure, Shell};
use crate::words::say;

impl Shell<'_> {
    pub(crate) fn diagnostics(&mut self, file: &Path) -> Result<(), Failure> {
        let Response::Diagnostics(pack) = self.put(Command::Diagnostics)? else {
            return Err(Failure::WrongAnswer);
        };
        let name = file.display();
        write(&pack, file).map_err(|error| {
            Failure::Told(say(
                self.lang,
                &format!("{name} に書けません（{error}）"),
                &format!("{name} cannot be written: {error}"),
            ))
        })?;
        let count = pack.files.len();
        let text = say(
            self.lang,
            &format!(
                "{name} に {count} 個の資料をまとめました。端末のアドレス、機器の固有番号、名前、電話番号は入っていません。\n\
                 電子メールなどで、そのまま送れます。"
            ),
            &format!(
                "{count} files are in {name}. Addresses of machines in the school, MAC addresses, names and telephone \
                 numbers are not among what they say.\nIt can be sent as it is."
            ),
        );
        self.say(&text)
    }
}

/// A tar archive; the same pack gives the same bytes.
fn write(pack: &Diagnostics, file: &Path) -> io::Result<()> {
    let mut archive = tar::Builder::new(File::create(file)?);
    for (name, text) in &pack.files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_cksum();
        // Names are the agent's; whatever it says, they stay in one folder.
        let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).collect();
        archive.append_data(&mut header, format!("seimon-diagnostics/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.sync_all()
}
