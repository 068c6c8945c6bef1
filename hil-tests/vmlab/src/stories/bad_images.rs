//! Images that must not be started: two on a disk, and the machine must start neither.

use anyhow::{Context as _, Result};
use seimon_boot::image::{HEAD, Part};
use seimon_boot::{Slot, Status};

use super::{BOTH, Numbers, PATIENCE, Quick, Stage, Story, check};
use crate::dice::Dice;
use crate::disk::Content;
use crate::image::{Image, Key, Recipe};

pub const STORIES: &[Story] =
    &[Story { name: "bad-images", firmware: BOTH, quick: Quick::No, tell: refused }];

/// Flipped bits of each signed piece.
const FLIPS: u64 = 5;

struct Bad {
    what: String,
    image: Image,
    /// What the console says.
    said: &'static str,
    everything: bool,
}

fn refused(stage: &Stage<'_>) -> Result<Numbers> {
    let bad = collection(stage)?;
    let mut accepted = Vec::new();
    for pair in bad.chunks(2) {
        let at = |which: usize| pair.get(which).map(|bad| (&bad.image, Status::Confirmed));
        let mut content = Content::new(&stage.programs.guardian, at(0), at(1));
        if let Some(state) = &mut content.state {
            // This box has confirmed epoch 1; and where it must look at everything, it has been started in vain before.
            state.epoch = 1;
            for (slot, bad) in Slot::BOTH.into_iter().zip(pair) {
                state.slot_mut(slot).starts = if bad.everything { 2 } else { 0 };
            }
        }
        let disk = content.write_to(&stage.file("disk"))?;
        stage.on(&disk, |vm| {
            for (slot, bad) in Slot::BOTH.into_iter().zip(pair) {
                let refused = format!("slot {slot}: refused: ");
                if vm.first_of(&[&refused, "payload: up"], PATIENCE)? == 1 {
                    accepted.push(bad.what.clone());
                    return Ok(());
                }
                vm.expect(bad.said, PATIENCE).map_err(|error| error.context(bad.what.clone()))?;
            }
            if vm.first_of(&["neither slot can be started", "payload: up"], PATIENCE)? == 1 {
                accepted.push(format!("after {}", pair[0].what));
            }
            Ok(())
        })?;
    }
    check(accepted.is_empty(), || format!("started: {}", accepted.join(", ")))?;
    Ok(vec![("bad_images_tried", bad.len() as u64), ("bad_images_accepted", accepted.len() as u64)])
}

fn collection(stage: &Stage<'_>) -> Result<Vec<Bad>> {
    let key = &stage.programs.key;
    let recipe = Recipe::new("2.0.0", &stage.programs.payload, "off");
    let good = recipe.signed(key)?;
    let mut all = Vec::new();
    let mut add =
        |what: &str, image: Image, said| all.push(Bad { what: what.into(), image, said, everything: false });
    add("wrong key", recipe.signed(&Key::strange())?, "signed by nobody this box believes");
    let mut edited = good.clone();
    let version = find(&edited.bytes, b"\"2.0.0\"")?;
    edited.bytes[version + 1] = b'3';
    add("edited version", edited, "the signature is wrong");
    let mut edited = good.clone();
    let line = find(&edited.bytes, b"payload=off")?;
    edited.bytes[line..line + 11].copy_from_slice(b"init=/bin/x");
    add("edited command line", edited, "the signature is wrong");
    let older = Recipe { epoch: 0, ..recipe.clone() };
    add("older epoch", older.signed(key)?, "security epoch 0");
    let mut other = recipe.clone();
    other.board.compatible = vec!["maker,other".into()];
    other.board.smbios = None;
    add("another board", other.signed(key)?, "this image is for other boards: qemu-virt");
    add("newer guardian", Recipe { guardian: 99, ..recipe.clone() }.signed(key)?, "needs boot guardian 99");
    let swapped = Image::assemble(&recipe, key, |manifest| {
        (manifest.kernel.sha256, manifest.initramfs.sha256) =
            (manifest.initramfs.sha256, manifest.kernel.sha256);
    })?;
    add("swapped digests", swapped, "the kernel is damaged");
    let mut swapped = good.clone();
    let (kernel, initramfs) = (good.manifest.kernel, good.manifest.initramfs);
    let at = |part: Part| part.offset as usize;
    let shorter = kernel.length.min(initramfs.length) as usize;
    for byte in 0..shorter {
        swapped.bytes.swap(at(kernel) + byte, at(initramfs) + byte);
    }
    add("swapped parts", swapped, "the kernel is damaged");
    let beyond = Image::assemble(&recipe, key, |manifest| manifest.root.part.length = 1 << 40)?;
    add("larger than the slot", beyond, "layout is impossible");
    let over = Image::assemble(&recipe, key, |manifest| manifest.initramfs.offset = manifest.kernel.offset)?;
    add("parts over each other", over, "layout is impossible");
    for (what, end) in [
        ("cut off in the head", 100),
        ("cut off before the kernel", HEAD),
        ("cut off in the kernel", HEAD + 9_000),
    ] {
        let mut cut = good.clone();
        cut.bytes[end..].fill(0);
        let said = if end < HEAD { "signed by nobody this box believes" } else { "the kernel is damaged" };
        add(what, cut, said);
    }
    let mut cut = good.clone();
    cut.bytes[at(initramfs) + 10..].fill(0);
    add("cut off in the initramfs", cut, "the initramfs is damaged");
    let mut dice = Dice::new(42 + stage.firmware as u64);
    let root = good.manifest.root.part;
    let head = Part { offset: 0, length: good.head_used() as u64, ..kernel };
    for (name, part, said) in [
        // Which of the reasons depends on the bit.
        ("head", head, ""),
        ("kernel", kernel, "the kernel is damaged"),
        ("initramfs", initramfs, "the initramfs is damaged"),
        ("root", root, "the root file system is damaged"),
    ] {
        for _ in 0..FLIPS {
            let (byte, bit) = (part.offset + dice.below(part.length), dice.below(8));
            let mut flipped = good.clone();
            flipped.bytes[byte as usize] ^= 1 << bit;
            all.push(Bad {
                what: format!("{name}: byte {byte} bit {bit}"),
                image: flipped,
                said,
                everything: name == "root",
            });
        }
    }
    Ok(all)
}

fn find(bytes: &[u8], what: &[u8]) -> Result<usize> {
    let found = bytes.windows(what.len()).position(|window| window == what);
    found.with_context(|| format!("no `{}` in the image", String::from_utf8_lossy(what)))
}
