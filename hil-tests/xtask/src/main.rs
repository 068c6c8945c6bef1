//! `cargo xtask`: what people run in this repository.
//!
//! Small on purpose: it checks what the machine has, builds what is needed and starts it. The demo, the lab and the
//! benches themselves are the program `seimon-lab`.

mod board;
mod build;
mod deps;
mod fuzz;
mod guardian;
mod image;
mod layers;
mod man;
mod say;
mod simulation;
mod test;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
cargo xtask COMMAND

  demo [--json FILE] [--yes] [--lang ja|en]     move a small town's services, live, and prove that nobody noticed
  test                                          everything this machine can check
  lab run FILE... | --all [--short] [--jobs N] [--json FILE] [--without NAME] [--gateway NAME] [--image FILE]
                                                play scenarios, with the programs or an image as the gateway (hil-tests/scenarios, docs in its README.md)
  lab list                                      the shipped scenarios
  lab vocabulary [--json]                       every word a scenario may use
  lab shell [--exec CMD] [--gateway NAME]       raise the town with its gateway and look around
  bench [--only GROUP] [--json FILE]            measure, in ratios
  sim [--schedules N] [--seed S] [--hours H] [--json FILE] [--keep] | sim play FILE...
                                                simulate N futures, the crash matrix, H hours of lossy lines
  guest check | run COMMAND... | test PACKAGE... | quick | bench [--pairs N] [--json FILE]
                                                the kernel features that this machine may lack, in a guest (QEMU)
  fuzz [--minutes N] [--target NAME]            send anything to whatever reads from outside
  board list | check [FILE|ID...] | show FILE|ID  look at board files
  guardian build --anchors FILE [--out FILE]    build the boot guardian, BOOTAA64.EFI
  guardian test [--story NAME] [--cuts N] [--json FILE]  tell its stories in QEMU
  image --board NAME [--out DIR] [--version V] [--epoch N] [--key FILE] [--json]
                                                make a signed image (images/README.md)
  image lock | diff OLD NEW | sbom --board NAME | cve [--database FILE] | check --board NAME
  vm run [--board NAME] [--disk FILE] [--plan FILE] [--guardian FILE] [--exit-when-ready]
                                                start an image in QEMU
  layers                                        check that dependencies point by layer, never back
  man [--out FOLDER]                            write the manual pages for man(1); default: target/man
  deps [--yes]                                  install what the demo and the tests need
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            say::problem(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<ExitCode> {
    let root = build::root()?;
    std::env::set_current_dir(&root)?;
    let Some((command, rest)) = arguments.split_first() else {
        say::out(HELP);
        return Ok(ExitCode::from(2));
    };
    let consent = if rest.iter().any(|a| a == "--yes") { deps::Consent::Given } else { deps::Consent::Ask };
    match command.as_str() {
        "demo" => {
            deps::ensure(deps::Need::Lab, consent)?;
            let rest: Vec<String> = rest.iter().filter(|a| *a != "--yes").cloned().collect();
            build::lab_program(&["demo".to_owned()], &rest)
        }
        "bench" => {
            deps::ensure(deps::Need::Bench, consent)?;
            build::lab_program(&["bench".to_owned()], rest)
        }
        "lab" => lab(rest, consent),
        "sim" => simulation::simulate(rest),
        "board" => board::run(rest),
        "fuzz" => fuzz::run(rest),
        "guardian" => guardian::run(rest, consent),
        "guest" => build::exit_of(&mut build::guest(rest)),
        "man" => man::write(rest),
        "test" => test::run(),
        "image" => image::image(rest, consent),
        "vm" => image::vm(rest, consent),
        "layers" => {
            let problems = layers::check()?;
            for problem in &problems {
                say::problem(problem);
            }
            if problems.is_empty() {
                say::line("layers: in order");
            }
            Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        "deps" => {
            deps::ensure(deps::Need::Bench, consent)?;
            say::line("everything that the demo, the lab and the benches need is here");
            Ok(ExitCode::SUCCESS)
        }
        "help" | "--help" | "-h" => {
            say::out(HELP);
            Ok(ExitCode::SUCCESS)
        }
        other => bail!("no command `{other}`\n\n{HELP}"),
    }
}

fn lab(rest: &[String], consent: deps::Consent) -> Result<ExitCode> {
    match rest.first().map(String::as_str) {
        Some("run" | "shell") => {
            let has = |word: &str| rest.iter().any(|argument| argument == word);
            let all = (has("--all") || has("--sabotaged")) && !has("--short");
            deps::ensure(if all { deps::Need::Faults } else { deps::Need::Lab }, consent)?;
            let rest: Vec<String> = rest.iter().filter(|a| *a != "--yes").cloned().collect();
            build::lab_program(&rest[..1], &rest[1..])
        }
        // These two only read files: no gateway is built for them.
        Some("list" | "vocabulary") => build::lab_reader(rest),
        _ => bail!("lab run|list|vocabulary|shell\n\n{HELP}"),
    }
}
