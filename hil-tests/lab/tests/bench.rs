//! The bench's QEMU twin: a machine that somebody else started, given as a serial socket and interfaces (`docs/bench.md`).
//! Played where SEIMON_IMAGE names an image.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use seimon_board::Board;
use seimon_lab::netns::{Inside, rerun_test};
use seimon_lab::runner::{self, Choice, Options, Plain, scenario_file};
use seimon_lab::scenario::Scenario;
use seimon_machine::bench::PORTS;
use seimon_machine::qemu::{self, Cable, Firmware, Qemu};

const SELF: &str = "a_gateway_that_somebody_else_started_is_played_with";

/// A machine on TAPs of this network, and the bench file that tells of it.
fn somebody_elses(image: &Path, folder: &Path) -> (Qemu, PathBuf) {
    let board = Board::shipped("qemu-virt-edk2").expect("with root, ip and QEMU");
    let mut cards = qemu::cards(&board).expect("with root, ip and QEMU");
    let mut text = format!(
        "board = \"{}\"\nmaintenance = \"{}\"\n[ports]\n",
        board.id,
        folder.join("maintenance.sock").display()
    );
    for card in &mut cards {
        let port = card.port.to_lowercase();
        if !PORTS.contains(&port.as_str()) {
            continue;
        }
        let tap = format!("tw-{port}");
        let made = Command::new("ip")
            .args(["tuntap", "add", "dev", &tap, "mode", "tap"])
            .status()
            .expect("with root, ip and QEMU");
        assert!(made.success(), "{tap}");
        writeln!(text, "{port} = {{ port = \"{}\", interface = \"{tap}\" }}", card.port)
            .expect("with root, ip and QEMU");
        card.cable = Cable::Tap(tap);
    }
    let qemu::Image { boot, disk } =
        qemu::Image::open(image, Firmware::Edk2).expect("with root, ip and QEMU");
    let plan = qemu::Plan {
        boot,
        cards,
        disk,
        folder: folder.to_owned(),
        namespace: None,
        memory_mib: 1024,
        processors: 2,
    };
    plan.make_disk().expect("with root, ip and QEMU");
    let machine = Qemu::start(&plan).expect("with root, ip and QEMU");
    let file = folder.join("bench.toml");
    std::fs::write(&file, text).expect("with root, ip and QEMU");
    (machine, file)
}

#[test]
fn a_gateway_that_somebody_else_started_is_played_with() {
    let Some(image) = std::env::var_os("SEIMON_IMAGE") else {
        println!("skipped: SEIMON_IMAGE names no image");
        return;
    };
    match rerun_test(SELF) {
        Ok(Inside::Yes) => {}
        Ok(Inside::Done) => return,
        Ok(Inside::Failed(how)) => panic!("inside the private world: {how}"),
        Err(error) => {
            println!("skipped: {error:#}");
            return;
        }
    }
    let folder = tempfile::tempdir().expect("with root, ip and QEMU");
    let (_machine, file) = somebody_elses(Path::new(&image), folder.path());
    let gateway = Choice::parse(file.to_str().expect("with root, ip and QEMU"), None, Path::new("")).unwrap();
    assert_eq!(gateway.to_string(), "bench:qemu-virt-edk2");
    let cut = Scenario::read(&scenario_file("power-cut.toml")).expect("with root, ip and QEMU");
    let refused = gateway.unsuited(&cut, &[]).expect("with root, ip and QEMU").unwrap_or_default();
    assert!(refused.contains("nothing switches this bench's power"), "{refused}");
    let scenario = Scenario::read(&scenario_file("plain-move.toml")).expect("with root, ip and QEMU");
    let options = Options { bin_dir: PathBuf::new(), without: Vec::new(), run: "lab", log: None, gateway };
    let played = runner::play(&scenario, &options, &mut Plain::default()).expect("with root, ip and QEMU");
    println!("{}", played.results.table());
    assert!(played.results.good(), "{}", played.log);
}
