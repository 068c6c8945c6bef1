use std::process::ExitCode;

fn main() -> ExitCode {
    match seimonctl::parse(std::env::args_os().collect()) {
        Ok(args) => seimonctl::run(args),
        Err(code) => code,
    }
}
