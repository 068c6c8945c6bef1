//! Damage, strangers, and disks that refuse.

use seimon_journal::{AppendError, Disk as _, Journal, MAX_PAYLOAD, Note, OpenError};

use crate::faulty::{Fault, FaultyDisk, Image};

fn open(disk: FaultyDisk, machine: &str) -> Result<seimon_journal::Opened<FaultyDisk>, OpenError> {
    Journal::open_on(disk, machine).map_err(|(error, _)| error)
}

fn image_of(records: u8) -> Image {
    let disk = FaultyDisk::new(Fault::None);
    let mut journal = open(disk.clone(), "gw-1").expect("opens").journal;
    for n in 0..records {
        journal.append(u16::from(n), &[n; 20]).expect("works");
    }
    disk.now()
}

#[test]
fn damage_in_the_middle_is_an_error_and_the_file_is_kept() {
    let good = image_of(5);
    let length = good["journal"].len();
    // Every byte but those of the last record (whose damage cannot be told from a torn write) and of magic and version.
    for at in 12..length - 38 {
        let mut image = good.clone();
        image.get_mut("journal").expect("there")[at] ^= 0x40;
        let damaged = image["journal"].clone();
        let disk = FaultyDisk::from_image(&image, Fault::None);
        let error = open(disk.clone(), "gw-1").expect_err("damaged");
        let OpenError::Damaged { aside, intact, .. } = error else { panic!("byte {at}: {error}") };
        assert_eq!(disk.now().get(&aside), Some(&damaged), "byte {at}: kept as it was");
        assert!(!disk.now().contains_key("journal"), "byte {at}");
        let in_header = at < 24 + 4 + 4;
        assert_eq!(intact.len(), if in_header { 0 } else { 4 }, "byte {at}");
    }
}

#[test]
fn salvage_goes_on_with_the_good_records_even_when_the_power_goes_meanwhile() {
    let mut image = image_of(5);
    image.get_mut("journal").expect("there")[70] ^= 1;
    let whole = FaultyDisk::from_image(&image, Fault::None);
    let opened = Journal::salvage_on(whole.clone(), "gw-1").expect("salvaged");
    assert_eq!(opened.records.iter().map(|r| r.kind).collect::<Vec<_>>(), [0, 2, 3, 4]);
    assert!(matches!(&opened.notes[..], [Note::Salvaged { records: 4, .. }]));
    for operation in 0..whole.operations() {
        for bytes in [0, 1, 50, 10_000] {
            let disk = FaultyDisk::from_image(&image, Fault::Power { operation, bytes });
            let finished = Journal::salvage_on(disk.clone(), "gw-1").is_ok();
            for left in disk.images() {
                let again = Journal::salvage_on(FaultyDisk::from_image(&left, Fault::None), "gw-1");
                let kinds: Vec<u16> = again.expect("salvaged").records.iter().map(|r| r.kind).collect();
                assert_eq!(kinds, [0, 2, 3, 4], "operation {operation}, {bytes} bytes, finished {finished}");
            }
        }
    }
}

#[test]
fn a_newer_version_another_machine_and_a_stranger_are_told_apart_and_left_alone() {
    let good = image_of(2);
    let mut newer = good.clone();
    newer.get_mut("journal").expect("there")[8] = 9;
    let stranger = Image::from([("journal".to_owned(), b"# shopping list".to_vec())]);
    let empty = Image::from([("journal".to_owned(), Vec::new())]);
    for (image, machine, expected) in [
        (&newer, "gw-1", "format version 9"),
        (&good, "gw-2", "machine `gw-1`"),
        (&stranger, "gw-1", "not a journal"),
        (&empty, "gw-1", "not a journal"),
    ] {
        let disk = FaultyDisk::from_image(image, Fault::None);
        let error = open(disk.clone(), machine).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(disk.now(), *image, "left alone");
    }
}

#[test]
fn noise_is_refused_without_a_panic() {
    let mut noise = image_of(1)["journal"].clone();
    let mut x = 1_u32;
    for _ in 0..200_000 {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.push((x >> 24) as u8);
    }
    for start in 0..60 {
        let image = Image::from([("journal".to_owned(), noise[start..].to_vec())]);
        let outcome = open(FaultyDisk::from_image(&image, Fault::None), "gw-1");
        assert_eq!(outcome.is_ok(), start == 0, "{start}: noise after a good record is a torn end");
    }
}

#[test]
fn a_full_disk_is_an_error_and_everything_before_stays() {
    let disk = FaultyDisk::new(Fault::Full { capacity: 200 });
    let mut journal = open(disk.clone(), "gw-1").expect("fits").journal;
    let mut accepted = 0;
    let error = loop {
        match journal.append(1, &[7; 20]) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::Io(_)) && accepted >= 3, "{accepted}: {error}");
    assert!(journal.append(1, &[7; 20]).is_err(), "still full");
    for image in disk.images() {
        let opened = open(FaultyDisk::from_image(&image, Fault::None), "gw-1").expect("opens");
        assert_eq!(opened.records.len(), accepted);
    }
    // A compaction that does not fit fails whole; one that fits makes room... beside the old file.
    assert!(journal.compact(&[(1, vec![0; 100])]).is_err());
    assert_eq!(disk.now().get("journal.new").map(Vec::len), Some(0), "a half-written file takes no space");
    journal.compact(&[(1, vec![1; 4])]).expect_err("no room for both");
    let opened = open(disk.with_fault(Fault::None), "gw-1").expect("opens");
    assert_eq!(opened.records.len(), accepted);
}

#[test]
fn on_a_full_disk_what_is_set_aside_takes_a_hundred_records_more() {
    let disk = FaultyDisk::new(Fault::Full { capacity: 400_000 });
    let mut journal = open(disk.clone(), "gw-1").expect("fits").journal;
    journal.append(1, &[7; 1_000]).expect("fits");
    let free = usize::try_from(journal.free().expect("known")).expect("small");
    // Somebody else takes everything.
    let mut other = disk.clone();
    other.create("ballast").expect("a name");
    other.append("ballast", &vec![0; free]).expect("fits");
    other.append("ballast", &[0]).expect_err("full");
    let more = (0..).take_while(|_| journal.append(1, &[8; 1_000]).is_ok()).count();
    assert!((100..=130).contains(&more), "{more}");
    let opened = open(disk.with_fault(Fault::None), "gw-1").expect("opens");
    assert_eq!(opened.records.len(), 1 + more);
}

#[test]
fn a_compaction_that_would_give_away_what_is_set_aside_fails_whole() {
    let disk = FaultyDisk::new(Fault::Full { capacity: 200_000 });
    let mut journal = open(disk.clone(), "gw-1").expect("fits").journal;
    journal.append(1, &[7; 1_000]).expect("fits");
    journal.compact(&[(1, vec![1; 4])]).expect_err("room for the records, not for what is set aside");
    for n in 0..100 {
        journal.append(1, &[8; 1_000]).unwrap_or_else(|error| panic!("{n}: {error}"));
    }
}

#[test]
fn after_any_single_error_the_next_append_works_and_nothing_acknowledged_is_lost() {
    for operation in 4..30 {
        for bytes in [0, 1, 17, 18, 19, 1_000] {
            let disk = FaultyDisk::new(Fault::Error { operation, bytes });
            let Ok(opened) = open(disk.clone(), "gw-1") else { continue };
            let mut journal = opened.journal;
            let mut expected = Vec::new();
            for n in 0..6_u8 {
                if n == 3 && journal.compact(&[(1, vec![99])]).is_ok() {
                    expected = vec![vec![99]];
                }
                for attempt in 0.. {
                    match journal.append(1, &[n; 8]) {
                        Ok(_) => break,
                        Err(error) => assert!(attempt < 3, "operation {operation}: {error}"),
                    }
                }
                expected.push(vec![n; 8]);
            }
            for image in disk.images() {
                let opened = open(FaultyDisk::from_image(&image, Fault::None), "gw-1").expect("opens");
                let found: Vec<Vec<u8>> = opened.records.into_iter().map(|r| r.payload).collect();
                // A compaction whose last sync failed is an error, yet its records are the ones in place.
                let mut compacted = vec![vec![99]];
                compacted.extend(expected.iter().skip(3).cloned());
                assert!(found == expected || found == compacted, "operation {operation} {bytes}: {found:?}");
            }
        }
    }
}

#[test]
fn a_record_that_is_too_long_is_refused_whole() {
    let mut journal = open(FaultyDisk::new(Fault::None), "gw-1").expect("opens").journal;
    let error = journal.append(1, &vec![0; MAX_PAYLOAD + 1]).expect_err("too long");
    assert!(matches!(error, AppendError::TooLong(_)));
    assert_eq!(journal.append(1, b"short").expect("works"), 1);
}
