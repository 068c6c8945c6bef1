//! From the command line to the exit code.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use seimon_ipc::control::{Command as Ask, Follow, MigrateAction, Response, WireguardAction};
use seimon_ipc::hub::HubAsk;

use crate::args::{
    AcceptanceCommand, Args, Command, EgressCommand, HubCommand, Lang, LineCommand, MigrateCommand,
    PlanCommand, WireguardCommand, ZoneGroup,
};
use crate::client::{Allowed, Answer, Client, ClientError, Followed};
use crate::plan_file::{self, CheckedPlan, Unreadable};
use crate::screen::Look;
use crate::words::{self, pick, say};
use crate::{answers, keys, status};

/// Why a command did not succeed.
pub(crate) enum Failure {
    /// Printed already, or for the exit code alone.
    Refused,
    Client(ClientError),
    NotAllowed {
        reason: String,
    },
    /// The agent does not understand the request.
    Malformed(String),
    /// The agent's answer is one to another question.
    WrongAnswer,
    File(Unreadable),
    /// Said already in the reader's language.
    Told(String),
    Output(io::Error),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<Unreadable> for Failure {
    fn from(error: Unreadable) -> Self {
        Self::File(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

pub(crate) struct Shell<'a> {
    pub(crate) socket: &'a Path,
    pub(crate) lang: Lang,
    pub(crate) json: bool,
    pub(crate) look: Look,
    pub(crate) out: io::StdoutLock<'a>,
}

/// Does what the command line says and prints the outcome.
pub fn run(args: Args) -> ExitCode {
    let lang = args.lang.unwrap_or_else(words::lang_of_environment);
    let socket = args.socket();
    let mut shell =
        Shell { socket: &socket, lang, json: args.json, look: Look::of_stdout(), out: io::stdout().lock() };
    let done = shell.act(args.command).and_then(|()| Ok(shell.out.flush()?));
    let (code, text) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) => outcome(lang, &socket, failure),
    };
    if !text.is_empty() {
        // Nothing is left to be told to.
        let _ = writeln!(io::stderr().lock(), "seimonctl: {text}");
    }
    ExitCode::from(code)
}

fn outcome(lang: Lang, socket: &Path, failure: Failure) -> (u8, String) {
    match failure {
        Failure::Refused => (1, String::new()),
        Failure::Client(error) => {
            let code = match error {
                ClientError::NoAgent { .. } | ClientError::NoAnswer { .. } => 3,
                ClientError::NotAllowed { .. } => 4,
                ClientError::TooLong | ClientError::Nonsense(_) => 1,
            };
            (code, words::client_error(lang, &error))
        }
        Failure::NotAllowed { reason } => (4, words::not_allowed(lang, &Allowed::at(socket), &reason)),
        Failure::Malformed(reason) => {
            let reason = crate::screen::clean(&reason);
            let text = match lang {
                Lang::Ja => format!(
                    "エージェントが依頼を理解できません（{reason}）。seimonctl と seimon-agent の版が同じか確かめてください。"
                ),
                Lang::En => format!(
                    "the agent does not understand the request ({reason}): are seimonctl and seimon-agent of the same version?"
                ),
            };
            (1, text)
        }
        Failure::WrongAnswer => {
            (1, say(lang, "エージェントの返答が質問に合いません。", "the agent answered another question"))
        }
        Failure::File(error) => (1, error.in_words(lang)),
        Failure::Told(text) => (1, text),
        // The reader has seen enough, as with `| head`.
        Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => (0, String::new()),
        Failure::Output(error) => (1, error.to_string()),
    }
}

impl Shell<'_> {
    fn key(&mut self, half: &str, key: Result<String, keys::KeyError>) -> Result<(), Failure> {
        let key = key.map_err(|error| Failure::Told(error.in_words(self.lang)))?;
        if self.json {
            writeln!(self.out, "{}", serde_json::json!({ half: key }))?;
        } else {
            writeln!(self.out, "{key}")?;
        }
        Ok(())
    }

    fn act(&mut self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Plan(PlanCommand::Check { file, board }) => self.check_plan(&file, &board),
            Command::Events { follow: true, since } => self.follow(since),
            Command::Events { follow: false, since } => {
                self.ask(Ask::Events { follow: Follow::No, since }, false)
            }
            Command::Status => self.ask(Ask::Status, false),
            Command::Plan(PlanCommand::Show) => self.ask(Ask::PlanShow, false),
            Command::Plan(PlanCommand::Diff { file }) | Command::Apply { file, dry_run: true } => {
                let (plan, file) = plan_file::to_send(&file)?;
                self.ask(Ask::PlanDiff { plan, file }, false)
            }
            Command::Apply { file, dry_run: false } => {
                let (plan, file) = plan_file::to_send(&file)?;
                self.ask(Ask::Apply { plan, file }, false)
            }
            Command::Explain { from, to } => self.ask(Ask::Explain { from, to }, false),
            Command::Acceptance { command: Some(AcceptanceCommand::Verify { file, key }), .. } => {
                self.verify(&file, key.as_deref())
            }
            Command::Acceptance { pages, save, command: None } => self.acceptance(&pages, save.as_deref()),
            Command::Sheet { pages, plan, board } => self.sheet(&pages, plan.as_deref(), &board),
            Command::Line(LineCommand::MayCancel { line, days }) => {
                self.ask(Ask::LineUse { line, days }, false)
            }
            Command::Update(command) => self.update(command),
            Command::Reset { what, yes } => self.reset(what, yes),
            Command::Diagnostics { file } => self.diagnostics(&file),
            Command::Completions { shell } => {
                Ok(self.out.write_all(&crate::help::completions(shell, self.lang))?)
            }
            Command::Pac { zone } => self.ask(Ask::Pac { zone }, false),
            Command::Egress(EgressCommand::Letter { service }) => {
                self.ask(Ask::EgressLetter { service }, false)
            }
            Command::Hub(HubCommand::Status) => self.ask(Ask::Hub { ask: HubAsk::Status }, false),
            Command::Hub(HubCommand::Explain { from, to }) => {
                self.ask(Ask::Hub { ask: HubAsk::Explain { from, to } }, false)
            }
            Command::Wireguard(WireguardCommand::Rotate { path }) => {
                self.ask(Ask::Wireguard { path, action: WireguardAction::Rotate }, false)
            }
            Command::Wireguard(WireguardCommand::Switch { path }) => {
                self.ask(Ask::Wireguard { path, action: WireguardAction::Switch }, false)
            }
            Command::Wireguard(WireguardCommand::Keygen { file }) => {
                let half = if file.is_some() { "public_key" } else { "private_key" };
                self.key(half, keys::generate(file.as_deref()))
            }
            Command::Wireguard(WireguardCommand::Pubkey { file }) => {
                self.key("public_key", keys::public(file.as_deref()))
            }
            Command::Migrate(MigrateCommand::Status) => self.ask(Ask::Status, true),
            Command::Migrate(MigrateCommand::Start { which, to }) => {
                self.migrate(which, MigrateAction::Start { to })
            }
            Command::Migrate(MigrateCommand::Pause { which }) => self.migrate(which, MigrateAction::Pause),
            Command::Migrate(MigrateCommand::Resume { which }) => self.migrate(which, MigrateAction::Resume),
            Command::Migrate(MigrateCommand::Rollback { which }) => {
                self.migrate(which, MigrateAction::Rollback)
            }
        }
    }

    fn migrate(
        &mut self,
        ZoneGroup { zone, group }: ZoneGroup,
        action: MigrateAction,
    ) -> Result<(), Failure> {
        self.ask(Ask::Migrate { zone, group, action }, false)
    }

    fn check_plan(&mut self, file: &Path, board: &Path) -> Result<(), Failure> {
        let checked = plan_file::check(file, board)?;
        if self.json {
            let text = serde_json::to_string(&CheckedPlan::of(&checked)).map_err(io::Error::other)?;
            writeln!(self.out, "{text}")?;
            return checked.map_err(|_| Failure::Refused);
        }
        match checked {
            Ok(()) => {
                let file = file.display();
                let text = match self.lang {
                    Lang::Ja => format!("{file}: 誤りはありません。"),
                    Lang::En => format!("{file}: no errors"),
                };
                writeln!(self.out, "{text}")?;
                Ok(())
            }
            Err(errors) => {
                let (text, count) = (self.in_my_language(&errors), errors.errors.len() + errors.omitted);
                let sum = match self.lang {
                    Lang::Ja => format!("誤りが {count} 件あります。直してから、もう一度確かめてください。"),
                    Lang::En if count == 1 => "1 error".to_owned(),
                    Lang::En => format!("{count} errors"),
                };
                writeln!(io::stderr().lock(), "{text}\n\n{sum}")?;
                Err(Failure::Refused)
            }
        }
    }

    fn in_my_language(&self, errors: &seimon_plan::PlanErrors) -> String {
        match self.lang {
            Lang::Ja => errors.ja(),
            Lang::En => errors.to_string(),
        }
    }

    /// Asks, prints, and judges the answer.
    fn ask(&mut self, command: Ask, only_groups: bool) -> Result<(), Failure> {
        let question = kind_of_question(&command);
        let answer = Client::connect(self.socket)?.ask(command)?;
        let fits = match &answer.response {
            Response::Refused { .. } | Response::NotAllowed { .. } | Response::Malformed { .. } => true,
            Response::Status(_)
            | Response::Plan { .. }
            | Response::Diff { .. }
            | Response::Done { .. }
            | Response::Explanation(_)
            | Response::Events { .. }
            | Response::Acceptance(_)
            | Response::LineUse(_)
            | Response::Pac { .. }
            | Response::Hub(_)
            | Response::HubExplanation(_)
            | Response::Diagnostics(_) => kind_of_answer(&answer.response) == question,
        };
        if !fits {
            return Err(Failure::WrongAnswer);
        }
        self.show(answer, only_groups)
    }

    fn show(&mut self, answer: Answer, only_groups: bool) -> Result<(), Failure> {
        let Answer { response, line } = answer;
        if self.json {
            if let Response::Events { events } = &response {
                for event in events {
                    let line = serde_json::to_vec(event).map_err(io::Error::other)?;
                    self.line(&line)?;
                }
            } else {
                self.line(&line)?;
            }
        }
        let (lang, look) = (self.lang, self.look);
        let text = match &response {
            Response::Status(shown) if only_groups => status::groups(lang, look, &shown.groups),
            Response::Status(shown) => status::status(lang, look, shown),
            Response::Plan { toml, generation: _ } => toml.clone(),
            Response::Pac { text } => text.clone(),
            Response::Diff { changes } => answers::changes(lang, changes),
            Response::Done { message } => format!("{}\n", pick(lang, message)),
            Response::Explanation(explanation) => answers::explanation(lang, look, explanation),
            Response::Events { events } => {
                events.iter().map(|event| format!("{}\n", answers::event(lang, event))).collect()
            }
            Response::LineUse(answer) => crate::line_use::answer(lang, look, answer),
            Response::Hub(status) => crate::hub::status(lang, look, status),
            Response::HubExplanation(explanation) => crate::hub::explanation(lang, look, explanation),
            // Their commands do not come here.
            Response::Acceptance(_) | Response::Diagnostics(_) => return Err(Failure::WrongAnswer),
            Response::Refused { reasons } => {
                if !self.json {
                    self.refusal(reasons)?;
                }
                return Err(Failure::Refused);
            }
            Response::NotAllowed { reason } => return Err(Failure::NotAllowed { reason: reason.clone() }),
            Response::Malformed { reason } => return Err(Failure::Malformed(reason.clone())),
        };
        if !self.json {
            self.out.write_all(text.as_bytes())?;
        }
        Ok(())
    }

    /// One question outside [`Self::ask`]: refusals are told, and are errors.
    pub(crate) fn put(&self, command: Ask) -> Result<Response, Failure> {
        let answer = Client::connect(self.socket)?.ask(command)?;
        match answer.response {
            Response::Refused { reasons } => {
                self.refusal(&reasons)?;
                Err(Failure::Refused)
            }
            Response::NotAllowed { reason } => Err(Failure::NotAllowed { reason }),
            Response::Malformed { reason } => Err(Failure::Malformed(reason)),
            other @ (Response::Status(_)
            | Response::Plan { .. }
            | Response::Diff { .. }
            | Response::Done { .. }
            | Response::Explanation(_)
            | Response::Events { .. }
            | Response::Acceptance(_)
            | Response::LineUse(_)
            | Response::Pac { .. }
            | Response::Hub(_)
            | Response::HubExplanation(_)
            | Response::Diagnostics(_)) => Ok(other),
        }
    }

    fn refusal(&self, reasons: &[seimon_ipc::control::Bilingual]) -> io::Result<()> {
        io::stderr().lock().write_all(answers::refusal(self.lang, self.look, reasons).as_bytes())
    }

    /// Prints until the agent hangs up, which is an error: it should not.
    fn follow(&mut self, since: u64) -> Result<(), Failure> {
        let mut client = Client::connect(self.socket)?;
        client.send(Ask::Events { follow: Follow::Yes, since })?;
        loop {
            match client.next_followed()? {
                Followed::Event(_, line) if self.json => self.line(&line)?,
                Followed::Event(event, _) => writeln!(self.out, "{}", answers::event(self.lang, &event))?,
                Followed::Answer(answer) => match answer.response {
                    Response::Events { .. }
                    | Response::Refused { .. }
                    | Response::NotAllowed { .. }
                    | Response::Malformed { .. } => self.show(*answer, false)?,
                    Response::Status(_)
                    | Response::Plan { .. }
                    | Response::Diff { .. }
                    | Response::Done { .. }
                    | Response::Explanation(_)
                    | Response::Acceptance(_)
                    | Response::LineUse(_)
                    | Response::Pac { .. }
                    | Response::Hub(_)
                    | Response::HubExplanation(_)
                    | Response::Diagnostics(_) => return Err(Failure::WrongAnswer),
                },
            }
            self.out.flush()?;
        }
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        self.out.write_all(line)?;
        self.out.write_all(b"\n")
    }
}

#[derive(PartialEq, Eq)]
enum Kind {
    Status,
    Plan,
    Diff,
    Done,
    Explanation,
    Events,
    Acceptance,
    LineUse,
    Pac,
    Diagnostics,
    Hub,
    HubExplanation,
    NotDone,
}

fn kind_of_question(command: &Ask) -> Kind {
    match command {
        Ask::Status => Kind::Status,
        Ask::PlanShow => Kind::Plan,
        Ask::PlanDiff { .. } => Kind::Diff,
        Ask::Apply { .. } | Ask::Migrate { .. } | Ask::Wireguard { .. } | Ask::EgressLetter { .. } => {
            Kind::Done
        }
        Ask::Explain { .. } => Kind::Explanation,
        Ask::Events { .. } => Kind::Events,
        Ask::Acceptance { .. } => Kind::Acceptance,
        Ask::LineUse { .. } => Kind::LineUse,
        Ask::Pac { .. } => Kind::Pac,
        Ask::Diagnostics => Kind::Diagnostics,
        Ask::Hub { ask: HubAsk::Status } => Kind::Hub,
        Ask::Hub { ask: HubAsk::Explain { .. } } => Kind::HubExplanation,
    }
}

fn kind_of_answer(response: &Response) -> Kind {
    match response {
        Response::Status(_) => Kind::Status,
        Response::Plan { .. } => Kind::Plan,
        Response::Diff { .. } => Kind::Diff,
        Response::Done { .. } => Kind::Done,
        Response::Explanation(_) => Kind::Explanation,
        Response::Events { .. } => Kind::Events,
        Response::Acceptance(_) => Kind::Acceptance,
        Response::LineUse(_) => Kind::LineUse,
        Response::Pac { .. } => Kind::Pac,
        Response::Diagnostics(_) => Kind::Diagnostics,
        Response::Hub(_) => Kind::Hub,
        Response::HubExplanation(_) => Kind::HubExplanation,
        Response::Refused { .. } | Response::NotAllowed { .. } | Response::Malformed { .. } => Kind::NotDone,
    }
}
