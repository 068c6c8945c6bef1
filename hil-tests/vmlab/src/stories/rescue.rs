//! Nothing can be started: what a technician sees, on the serial port and in a browser.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result};
use seimon_boot::state::Request;
use seimon_boot::{Reason, Slot, Status, partition};

use super::{BOTH, Numbers, PATIENCE, Quick, Stage, Story, check};
use crate::dice::Dice;
use crate::vm::{Entropy, Firmware, Network};

pub const STORIES: &[Story] = &[
    Story { name: "nothing-bootable-shows-a-page", firmware: BOTH, quick: Quick::Yes, tell: shows_a_page },
    Story { name: "no-network-no-random-numbers", firmware: BOTH, quick: Quick::No, tell: bare },
    Story { name: "asked-for", firmware: BOTH, quick: Quick::No, tell: asked_for },
    Story { name: "noise-in-both-slots", firmware: BOTH, quick: Quick::No, tell: noise },
    // U-Boot itself refuses such a disk, before the guardian.
    Story { name: "disk-cut-off", firmware: &[Firmware::Edk2], quick: Quick::No, tell: cut_off },
    Story { name: "tried-again", firmware: BOTH, quick: Quick::No, tell: tried_again },
];

const NOTHING: &str = "neither slot can be started";

fn shows_a_page(stage: &Stage<'_>) -> Result<Numbers> {
    let bad = stage.image("2.0.0", "off")?;
    let disk = stage.disk(Some((&bad, Status::Confirmed)), None)?;
    disk.flip(Slot::A, bad.manifest.initramfs.offset, 0)?;
    let mut setup = stage.setup(&disk);
    setup.network = Network::User;
    // Without a source of randomness: the page does without.
    setup.entropy = Entropy::None;
    stage.watched(&setup, |vm| {
        vm.expect("slot A: refused: the initramfs is damaged", PATIENCE)?;
        vm.expect(NOTHING, PATIENCE)?;
        vm.expect("status page: http://10.0.2.15/", PATIENCE)?;
        let port = vm.port().context("no port")?;
        for what in [
            "正門は起動していません",
            "初期ファイルシステムが壊れています",
            "its initramfs is damaged",
            "2.0.0",
            "空 empty",
        ] {
            let page = fetch(port, b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n")?;
            check(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains(what), || {
                format!("the page says `{what}`: {page}")
            })?;
        }
        let refused = fetch(port, b"POST / HTTP/1.1\r\n\r\n")?;
        check(refused.starts_with("HTTP/1.1 405 "), || format!("nothing can be sent to it: {refused}"))?;
        // Whoever never finishes a request does not keep others out.
        let _idle = TcpStream::connect(("127.0.0.1", port))?;
        let page = fetch(port, b"GET / HTTP/1.0\r\n\r\n")?;
        check(page.ends_with("</html>\n"), || format!("a second visitor sees it too: {page}"))
    })?;
    Ok(vec![])
}

fn fetch(port: u16, request: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8(answer)?)
}

fn bare(stage: &Stage<'_>) -> Result<Numbers> {
    let disk = stage.disk(None, None)?;
    let mut setup = stage.setup(&disk);
    setup.entropy = Entropy::None;
    stage.watched(&setup, |vm| {
        vm.expect(NOTHING, PATIENCE)?;
        vm.expect("no network: the boot firmware shows no adapter", PATIENCE)
    })?;
    Ok(vec![])
}

fn asked_for(stage: &Stage<'_>) -> Result<Numbers> {
    let image = stage.image("1.0.0", "off")?;
    let disk = stage.disk(Some((&image, Status::Confirmed)), None)?;
    disk.change_state(|state| state.request = Request::Rescue)?;
    stage.on(&disk, |vm| vm.expect("nothing is started because somebody asked for it", PATIENCE))?;
    // The power was cut: now it starts as usual.
    stage.on(&disk, |vm| {
        vm.expect("payload: up", PATIENCE)?;
        vm.off(PATIENCE)
    })?;
    Ok(vec![])
}

fn noise(stage: &Stage<'_>) -> Result<Numbers> {
    let image = stage.image("1.0.0", "off")?;
    let both = (&image, Status::Confirmed);
    let disk = stage.disk(Some(both), Some(both))?;
    let mut dice = Dice::new(7);
    let noise: Vec<u8> = (0..2 * 1024 * 1024 / 8).flat_map(|_| dice.draw().to_le_bytes()).collect();
    disk.write(partition::SLOT_A, 0, &noise)?;
    // One that begins as an image does, with a manifest of noise as long as can be said.
    let mut long = noise;
    long[..8].copy_from_slice(&seimon_boot::image::MAGIC);
    long[8..16].copy_from_slice(&[0, 0x80, 0, 0, 1, 0, 0, 0]);
    disk.write(partition::SLOT_B, 0, &long)?;
    stage.on(&disk, |vm| {
        vm.expect("slot A: refused: there is no image here", PATIENCE)?;
        vm.expect("slot B: refused: signed by nobody this box believes", PATIENCE)?;
        vm.expect(NOTHING, PATIENCE)
    })?;
    Ok(vec![])
}

/// A disk image that was not written to its end.
fn cut_off(stage: &Stage<'_>) -> Result<Numbers> {
    let image = stage.image("1.0.0", "off")?;
    let both = (&image, Status::Confirmed);
    let disk = stage.disk(Some(both), Some(both))?;
    disk.cut_off(partition::SLOT_A, 70_000)?;
    stage.on(&disk, |vm| {
        vm.expect("slot A: refused: the disk is shorter than its partition table says", PATIENCE)?;
        vm.expect("slot B: refused: the disk is shorter than its partition table says", PATIENCE)?;
        vm.expect(NOTHING, PATIENCE)
    })?;
    let state = disk.state()?;
    check(
        state.is_some_and(|state| state.last_fall.is_some_and(|fall| fall.reason == Reason::Unreadable)),
        || format!("the fall is kept: {state:?}"),
    )?;
    Ok(vec![])
}

/// An image that was given up is all there is: after ten minutes of the page it is started again.
fn tried_again(stage: &Stage<'_>) -> Result<Numbers> {
    let image = stage.image("1.0.0", "off")?;
    let disk = stage.disk(Some((&image, Status::Bad)), None)?;
    stage.on(&disk, |vm| {
        vm.expect(NOTHING, PATIENCE)?;
        vm.expect("payload: up", Duration::from_secs(600) + PATIENCE)?;
        vm.off(PATIENCE)
    })?;
    Ok(vec![])
}
