//! The power goes at every operation, after every byte, with every way the disk may have ordered what was not synced.

use seimon_journal::{Journal, Note};

use crate::faulty::{Fault, FaultyDisk, Image};

type Payloads = Vec<Vec<u8>>;

fn payload(n: u8) -> Vec<u8> {
    vec![n; usize::from(n % 5) * 3]
}

/// Appends, compacts, appends. Gives what may be found afterwards: `acknowledged` at least, one more at most.
fn script(disk: FaultyDisk) -> Vec<(Payloads, Payloads)> {
    let nothing = vec![(Vec::new(), Vec::new())];
    let Ok(opened) = Journal::open_on(disk, "gw-1") else { return nothing };
    let mut journal = opened.journal;
    let mut acknowledged = Payloads::new();
    for n in 0..8_u8 {
        if n == 4 {
            let kept: Vec<(u16, Vec<u8>)> = acknowledged.iter().skip(2).map(|p| (1, p.clone())).collect();
            let compacted: Payloads = kept.iter().map(|(_, p)| p.clone()).collect();
            if journal.compact(&kept).is_err() {
                return vec![(acknowledged.clone(), acknowledged), (compacted.clone(), compacted)];
            }
            acknowledged = compacted;
        }
        let mut one_more = acknowledged.clone();
        one_more.push(payload(n));
        if journal.append(1, &payload(n)).is_err() {
            return vec![(acknowledged, one_more)];
        }
        acknowledged = one_more;
    }
    vec![(acknowledged.clone(), acknowledged)]
}

fn payloads_in(image: &Image) -> Payloads {
    let opened = Journal::open_on(FaultyDisk::from_image(image, Fault::None), "gw-1")
        .map_err(|(error, _)| error)
        .expect("after a power cut the journal opens");
    let found: Payloads = opened.records.iter().map(|r| r.payload.clone()).collect();
    // And it works on.
    let mut journal = opened.journal;
    journal.append(9, b"after").expect("a healthy disk");
    let again =
        Journal::open_on(journal.into_disk(), "gw-1").map_err(|(error, _)| error).expect("opens again");
    assert_eq!(again.records.len(), found.len() + 1);
    assert_eq!(again.notes, [], "mended the first time");
    found
}

#[test]
fn nothing_acknowledged_is_lost_whenever_the_power_goes() {
    let whole = FaultyDisk::new(Fault::None);
    script(whole.clone());
    let mut tried = 0;
    for operation in 0..whole.operations() {
        let mut longest = 0;
        for bytes in 0..2_000 {
            let disk = FaultyDisk::new(Fault::Power { operation, bytes });
            let may_be = script(disk.clone());
            let size: usize = disk.now().values().map(Vec::len).sum();
            if bytes > 0 && size == longest {
                break;
            }
            longest = size;
            for image in disk.images() {
                tried += 1;
                let found = payloads_in(&image);
                let fine = may_be.iter().any(|(least, most)| found == *least || found == *most);
                assert!(fine, "operation {operation}, {bytes} bytes: {found:?} is none of {may_be:?}");
            }
        }
    }
    assert!(tried > 1_000, "{tried} cuts only");
}

#[test]
fn what_was_never_synced_may_be_missing_in_part() {
    // So that the test above could fail.
    let mut disk = FaultyDisk::new(Fault::None);
    Journal::open_on(disk.clone(), "gw-1").map_err(|(error, _)| error).expect("opens");
    assert_eq!(disk.images().len(), 2, "synced, as seen through both states of the folder");
    seimon_journal::Disk::append(&mut disk, "journal", b"unsynced").expect("works");
    assert!(disk.images().len() > 8);
}

#[test]
fn a_torn_end_is_cut_off_and_reported() {
    let disk = FaultyDisk::new(Fault::None);
    let mut journal = Journal::open_on(disk.clone(), "gw-1").map_err(|(e, _)| e).expect("opens").journal;
    journal.append(1, b"first").expect("works");
    journal.append(1, b"second").expect("works");
    let mut image = disk.now();
    let bytes = image.get_mut("journal").expect("there");
    bytes.truncate(bytes.len() - 3);
    let opened = Journal::open_on(FaultyDisk::from_image(&image, Fault::None), "gw-1").map_err(|(e, _)| e);
    let opened = opened.expect("opens");
    assert_eq!(opened.records.len(), 1);
    assert_eq!(opened.notes, [Note::TornEnd { bytes: 18 + 6 - 3 }]);
}
