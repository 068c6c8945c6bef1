//! The quick stories on both firmwares.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use seimon_vmlab::programs::Programs;
use seimon_vmlab::stories::{self, Quick};
use seimon_vmlab::vm;

#[test]
fn the_guardian_starts_falls_and_shows_its_page_on_both_firmwares() {
    let missing = vm::missing();
    if !missing.is_empty() {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: stories of the boot guardian: apt-get install --no-install-recommends {}",
            missing.join(" ")
        );
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let programs = match Programs::build(&root, &target.join("vmlab")) {
        Ok(programs) => programs,
        Err(error) if format!("{error:#}").contains("missing: ") => {
            let _ = writeln!(std::io::stderr(), "skipped: stories of the boot guardian: {error:#}");
            return;
        }
        Err(error) => panic!("{error:#}"),
    };
    for story in stories::all().iter().filter(|story| story.quick == Quick::Yes) {
        for firmware in story.firmware {
            let told = stories::tell(story, *firmware, &programs, 0);
            if let Err(error) = told.outcome {
                panic!("{} on {}: {error:#}", told.story, firmware.name());
            }
        }
    }
}
