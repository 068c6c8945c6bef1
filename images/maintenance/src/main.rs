//! The gateway's end of the maintenance port. Started only where the port is; see the library.

mod act;
mod look;
mod port;

use std::process::ExitCode;

use seimon_maintenance::frame::{self, FrameError};
use seimon_maintenance::{DEVICE, Outcome, Question, Reply, Request, VERSION};

use crate::port::Port;

fn main() -> ExitCode {
    let mut port = match Port::open(DEVICE) {
        Ok(port) => port,
        Err(error) => {
            eprintln!("{DEVICE}: {error}");
            return ExitCode::FAILURE;
        }
    };
    loop {
        port.wait_for_a_bench();
        let question: Question = match frame::read(&mut port) {
            Ok(question) => question,
            Err(error @ (FrameError::TooLong(_) | FrameError::NotAMessage { .. })) => {
                let reply = Reply { version: VERSION, id: 0, outcome: Outcome::Failed(in_words(&error)) };
                drop_unsendable(frame::write(&mut port, &reply));
                port.forget();
                continue;
            }
            // The bench hung up, or half a frame came.
            Err(FrameError::Port(_) | FrameError::Unwritable(_)) => continue,
        };
        let Question { version, id, request } = question;
        let outcome = if version == VERSION {
            act::carry_out(&request).map_or_else(|error| Outcome::Failed(format!("{error:#}")), Outcome::Done)
        } else {
            Outcome::Failed(format!("this gateway speaks version {VERSION} of the protocol, not {version}"))
        };
        let worked = matches!(outcome, Outcome::Done(_));
        drop_unsendable(frame::write(&mut port, &Reply { version: VERSION, id, outcome }));
        if worked && let Request::PowerOff | Request::Reboot = request {
            act::leave(&request);
        }
    }
}

fn in_words(error: &FrameError) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}")
}

/// A bench that has hung up does not want its answer.
fn drop_unsendable(written: Result<(), FrameError>) {
    if let Err(error) = written {
        eprintln!("an answer was not taken: {error}");
    }
}
