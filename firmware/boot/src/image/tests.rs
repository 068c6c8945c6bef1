use super::*;
use crate::board::Smbios;
use alloc::vec;
use ed25519_dalek::{Signer as _, SigningKey};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(crate) fn sample() -> (Manifest, Vec<u8>) {
    let mut image = vec![0_u8; HEAD];
    let mut part = |fill: u8, length: usize| {
        image.resize(image.len().next_multiple_of(4096), 0);
        let offset = image.len() as u64;
        let bytes = vec![fill; length];
        image.extend_from_slice(&bytes);
        Part { offset, length: length as u64, sha256: Digest::of(&bytes) }
    };
    let manifest = Manifest {
        format: 1,
        version: "1.0.0".into(),
        epoch: 3,
        guardian: 1,
        boards: vec![BoardId {
            id: "board".into(),
            compatible: vec!["linux,dummy-virt".into()],
            smbios: Some(Smbios { manufacturer: "QEMU".into(), product: "QEMU Virtual Machine".into() }),
        }],
        command_line: "console=ttyAMA0".into(),
        kernel: part(1, 5000),
        initramfs: part(2, 300),
        root: Root {
            part: part(3, 8192 + 4096),
            data_length: 8192,
            verity_root: Digest([7; 32]),
            verity_salt: Digest([8; 32]),
        },
    };
    (manifest, image)
}

/// Whom [`signed_head`] is by.
pub(crate) fn believed() -> [u8; 32] {
    key(1).verifying_key().to_bytes()
}

pub(crate) fn signed_head(manifest: &Manifest) -> Vec<u8> {
    signed(manifest, &[key(1)])
}

fn signed(manifest: &Manifest, keys: &[SigningKey]) -> Vec<u8> {
    let json = serde_json::to_vec(manifest).expect("serialisable");
    let signatures: Vec<_> = keys
        .iter()
        .map(|key| (key.verifying_key().to_bytes(), key.sign(&to_be_signed(&json)).to_bytes()))
        .collect();
    assemble_head(&json, &signatures).expect("small")
}

fn verify(head: &[u8], epoch: u32) -> Result<SignedHead, Refusal> {
    let anchors = Anchors::new(key(1).verifying_key().as_bytes()).expect("a key");
    let seen = Seen { compatible: vec!["linux,dummy-virt".into()], smbios: None };
    SignedHead::verify(head, Here { anchors: &anchors, seen: &seen, epoch, slot_length: 1 << 20 })
}

#[test]
fn a_signed_image_for_this_board_is_taken() {
    let (manifest, image) = sample();
    let head = verify(&signed(&manifest, &[key(1)]), 3).expect("good");
    assert_eq!(head.manifest(), &manifest);
    for name in [PartName::Kernel, PartName::Initramfs, PartName::Root] {
        let part = manifest.part(name);
        let bytes = &image[part.offset as usize..][..part.length as usize];
        assert_eq!(head.verify_part(name, bytes), Ok(()));
        let mut other = bytes.to_vec();
        other[17] ^= 1;
        assert_eq!(head.verify_part(name, &other), Err(Refusal::Corrupt(name)));
        assert_eq!(head.verify_part(name, &bytes[1..]), Err(Refusal::Corrupt(name)));
    }
}

#[test]
fn every_flipped_bit_of_a_head_is_refused() {
    let head = signed(&sample().0, &[key(1)]);
    let used = head.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
    for byte in 0..used {
        for bit in 0..8 {
            let mut bad = head.clone();
            bad[byte] ^= 1 << bit;
            assert!(verify(&bad, 0).is_err(), "byte {byte} bit {bit}");
        }
    }
}

#[test]
fn who_signed_and_for_whom_decides() {
    let (good, _) = sample();
    assert_eq!(verify(&signed(&good, &[key(2)]), 0), Err(Refusal::UnknownKey));
    assert!(verify(&signed(&good, &[key(2), key(1)]), 0).is_ok(), "while a key is replaced, both sign");
    assert_eq!(verify(&signed(&good, &[key(1)]), 4), Err(Refusal::OldEpoch { image: 3, box_has: 4 }));
    let other = Manifest { guardian: 2, ..good.clone() };
    assert_eq!(verify(&signed(&other, &[key(1)]), 0), Err(Refusal::GuardianTooOld { needs: 2, here: 1 }));
    let mut other = good.clone();
    other.boards[0].compatible.clear();
    assert_eq!(verify(&signed(&other, &[key(1)]), 0), Err(Refusal::OtherBoard(vec!["board".into()])));
    // A believed key's wrong signature is not outweighed by anything.
    let mut head = signed(&good, &[key(1), key(1)]);
    let last = head.iter().rposition(|byte| *byte != 0).expect("not empty");
    head[last - 40] ^= 1;
    assert_eq!(verify(&head, 0), Err(Refusal::BadSignature));
}

#[test]
fn impossible_layouts_are_refused_though_signed() {
    let (good, _) = sample();
    let changes: [fn(&mut Manifest); 8] = [
        |m| m.kernel.offset = 0,
        |m| m.initramfs.offset = m.kernel.offset,
        |m| m.root.part.offset += 1,
        |m| m.root.part.length = u64::MAX,
        |m| m.root.part.length = 1 << 21,
        |m| m.root.data_length = m.root.part.length,
        |m| m.initramfs.length = 0,
        |m| m.kernel.length = LOADED_MOST + 1,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut bad = good.clone();
        change(&mut bad);
        assert!(matches!(verify(&signed(&bad, &[key(1)]), 0), Err(Refusal::BadLayout(_))), "change {at}");
    }
    for version in ["", "a version that is far too long", "1\n2"] {
        let bad = Manifest { version: version.into(), ..good.clone() };
        assert!(matches!(verify(&signed(&bad, &[key(1)]), 0), Err(Refusal::BadManifest(_))), "{version:?}");
    }
}

#[test]
fn noise_and_short_heads_are_no_image() {
    assert_eq!(verify(&[], 0), Err(Refusal::NoImage));
    assert_eq!(verify(&vec![0x5a; 10 << 20], 0), Err(Refusal::NoImage));
    let head = signed(&sample().0, &[key(1)]);
    let used = head.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
    for length in 0..used {
        assert!(verify(&head[..length], 0).is_err(), "{length}");
    }
    let mut huge = head;
    huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(verify(&huge, 0), Err(Refusal::NoImage));
}

#[test]
fn anchors_are_one_or_two_real_keys() {
    let one = *key(1).verifying_key().as_bytes();
    assert!(Anchors::new(&one).is_some());
    assert!(Anchors::new(&[one, one].concat()).is_some());
    assert!(Anchors::new(&[]).is_none());
    assert!(Anchors::new(&one[1..]).is_none());
    assert!(Anchors::new(&[0; 32]).is_none(), "a weak key signs anything");
    assert!(Anchors::new(&[one, one, one].concat()).is_none());
}
