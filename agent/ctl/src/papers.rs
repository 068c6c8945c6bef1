//! The commands that make pages: the acceptance test, checking one, the sheet.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use seimon_board::Board;
use seimon_ipc::control::{Command, Response};
use seimon_ipc::report::{AcceptanceRun, SignedReport, Verdict};

use crate::acceptance;
use crate::args::{Lang, Pages};
use crate::paper::font::{self, NoFont};
use crate::paper::{Document, html, pdf};
use crate::plan_file;
use crate::run::{Failure, Shell};
use crate::words::say;

/// The agent ends a test well before.
const PATIENCE: Duration = Duration::from_secs(130);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A page or its data; larger files are something else.
const LARGEST: u64 = 64 << 20;

impl Shell<'_> {
    pub(crate) fn say(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{text}")?)
    }

    pub(crate) fn acceptance(&mut self, pages: &Pages, save: Option<&Path>) -> Result<(), Failure> {
        let signed = self.test()?;
        let report = acceptance::genuine(&signed, None)
            .map_err(|why| Failure::Told(acceptance::not_genuine(self.lang, &why)))?;
        let line = serde_json::to_string(&signed).map_err(io::Error::other)?;
        if self.json {
            self.say(&line)?;
        } else {
            let text = acceptance::lines(self.lang, self.look, &report);
            self.out.write_all(text.as_bytes())?;
            let text = say(
                self.lang,
                &format!("\n箱の公開鍵: {}\n署名: {}", signed.public_key, signed.signature),
                &format!("\npublic key: {}\nsignature: {}", signed.public_key, signed.signature),
            );
            self.say(&text)?;
        }
        self.out.flush()?;
        if let Some(file) = save {
            self.write(file, format!("{line}\n").as_bytes())?;
        }
        self.pages(&acceptance::page(self.lang, &signed, &report), pages)?;
        if report.rows.iter().any(|row| row.verdict == Verdict::Failed) {
            return Err(Failure::Refused);
        }
        Ok(())
    }

    /// Begins the test, or joins one, and waits for its end.
    fn test(&mut self) -> Result<SignedReport, Failure> {
        let until = Instant::now() + PATIENCE;
        let mut run = AcceptanceRun::Begin;
        let mut shown = None;
        while Instant::now() < until {
            let Response::Acceptance(progress) = self.put(Command::Acceptance { run })? else {
                return Err(Failure::WrongAnswer);
            };
            if let Some(signed) = progress.report {
                self.progress(None);
                return Ok(signed);
            }
            if run == AcceptanceRun::Look && progress.total == 0 {
                // Over, and no report: the agent has said why in its events, or was started anew.
                break;
            }
            run = AcceptanceRun::Look;
            if shown.replace(progress.done) != Some(progress.done) {
                self.progress(Some((progress.done, progress.total)));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.progress(None);
        Err(Failure::Told(say(
            self.lang,
            "開通試験の結果が得られませんでした。seimonctl events で理由を見て、もう一度試してください。",
            "there is no result: see why with `seimonctl events`, and try again",
        )))
    }

    /// On the screen only, in place of what stood there.
    fn progress(&self, progress: Option<(u32, u32)>) {
        let mut err = io::stderr().lock();
        if self.json || !err.is_terminal() {
            return;
        }
        let text = progress.map_or_else(String::new, |(done, total)| {
            say(
                self.lang,
                &format!("開通試験中です … {done} / {total}"),
                &format!("testing … {done} / {total}"),
            )
        });
        // Nobody needs it.
        let _ = write!(err, "\r\x1b[K{text}");
    }

    pub(crate) fn verify(&mut self, file: &Path, key: Option<&str>) -> Result<(), Failure> {
        let bytes = read(file).map_err(|error| self.unreadable(file, &error))?;
        let told =
            |why| Failure::Told(format!("{}: {}", file.display(), acceptance::not_genuine(self.lang, &why)));
        let signed = acceptance::find(&bytes).ok_or(acceptance::NotGenuine::None).map_err(told)?;
        let report = acceptance::genuine(&signed, key).map_err(told)?;
        if self.json {
            let text = signed.report.clone();
            return self.say(&text);
        }
        let text = say(
            self.lang,
            "署名は本物です。署名された内容は次のとおりです。\n",
            "The signature is good. This is what was signed:\n",
        );
        self.say(&text)?;
        let text = acceptance::lines(self.lang, self.look, &report);
        self.out.write_all(text.as_bytes())?;
        let key = signed.public_key.clone();
        let text = say(self.lang, &format!("\n箱の公開鍵: {key}"), &format!("\npublic key: {key}"));
        self.say(&text)?;
        if is_html(&bytes) && !is_as_rendered(&bytes, &signed, &report) {
            let text = say(
                self.lang,
                "\n注意: ページの見た目は、この版の seimonctl が作るものと同じではありません。紙の見た目ではなく、上の内容を信じてください。",
                "\nNote: the page does not look as this version makes it. Trust the lines above, not the page.",
            );
            self.say(&text)?;
            return Err(Failure::Refused);
        }
        Ok(())
    }

    pub(crate) fn sheet(&mut self, pages: &Pages, plan: Option<&Path>, board: &Path) -> Result<(), Failure> {
        let (text, name) = match plan {
            Some(file) => (plan_file::text(file)?, file.display().to_string()),
            None => {
                let Response::Plan { toml, generation: _ } = self.put(Command::PlanShow)? else {
                    return Err(Failure::WrongAnswer);
                };
                (toml, "plan".to_owned())
            }
        };
        let board: Board = plan_file::board(board)?;
        let plan = seimon_plan::parse(&text, &name, &board).map_err(|errors| {
            Failure::Told(match self.lang {
                Lang::Ja => errors.ja(),
                Lang::En => errors.to_string(),
            })
        })?;
        let document = crate::sheet::sheet(self.lang, &plan, &board);
        if pages.html.is_none() && pages.pdf.is_none() {
            let html = html::render(&document);
            return Ok(self.out.write_all(html.as_bytes())?);
        }
        self.pages(&document, pages)
    }

    /// Writes the forms that were asked for.
    fn pages(&mut self, document: &Document, pages: &Pages) -> Result<(), Failure> {
        if let Some(file) = &pages.html {
            self.write(file, html::render(document).as_bytes())?;
        }
        if let Some(file) = &pages.pdf {
            let fonts =
                font::find(pages.font.as_deref()).map_err(|error| Failure::Told(self.no_font(&error)))?;
            let bytes = pdf::render(document, &fonts).map_err(|error| {
                Failure::Told(say(
                    self.lang,
                    &format!("PDF を作れません（{error}）。--html なら作れます。"),
                    &format!("the PDF cannot be made: {error}; --html works"),
                ))
            })?;
            self.write(file, &bytes)?;
        }
        Ok(())
    }

    fn write(&mut self, file: &Path, bytes: &[u8]) -> Result<(), Failure> {
        let name = file.display();
        std::fs::write(file, bytes).map_err(|error| {
            Failure::Told(say(
                self.lang,
                &format!("{name} に書けません（{error}）"),
                &format!("{name} cannot be written: {error}"),
            ))
        })?;
        if self.json {
            return Ok(());
        }
        let text = say(self.lang, &format!("{name} に書き出しました。"), &format!("written: {name}"));
        self.say(&text)
    }

    fn unreadable(&self, file: &Path, error: &io::Error) -> Failure {
        let name = file.display();
        Failure::Told(say(
            self.lang,
            &format!("{name} を読めません（{error}）"),
            &format!("{name} cannot be read: {error}"),
        ))
    }

    fn no_font(&self, error: &NoFont) -> String {
        match error {
            NoFont::NotInstalled => say(
                self.lang,
                "日本語の書体が見つからないため、PDF を作れません。fonts-noto-cjk か fonts-ipaexfont-gothic を入れるか、--font でファイルを指定してください。--html なら、書体がなくても作れます。",
                "no font with Japanese glyphs was found: install fonts-noto-cjk or fonts-ipaexfont-gothic, or name a file with --font. --html needs none.",
            ),
            NoFont::Unreadable(path, error) => say(
                self.lang,
                &format!("書体 {} を読めません（{error}）", path.display()),
                &format!("the font {} cannot be read: {error}", path.display()),
            ),
        }
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    if std::fs::metadata(file)?.len() > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too large"));
    }
    std::fs::read(file)
}

fn is_html(bytes: &[u8]) -> bool {
    bytes.starts_with(b"<!doctype html>")
}

fn is_as_rendered(
    bytes: &[u8],
    signed: &SignedReport,
    report: &seimon_ipc::report::AcceptanceReport,
) -> bool {
    [Lang::Ja, Lang::En]
        .into_iter()
        .any(|lang| html::render(&acceptance::page(lang, signed, report)).as_bytes() == bytes)
}
