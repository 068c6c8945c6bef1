//! On the operating system's own disk.

use seimon_journal::{Journal, Note, OpenError};

#[test]
fn records_survive_reopening_and_sequences_go_on_across_compaction() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state").join("deeper");
    let mut opened = Journal::open(&path, "gw-1").expect("made");
    assert_eq!(opened.notes, [Note::Created]);
    for n in 1..=5_u8 {
        assert_eq!(opened.journal.append(u16::from(n), &[n]).expect("works"), u64::from(n));
    }
    opened.journal.compact(&[(7, b"all".to_vec())]).expect("works");
    assert_eq!(opened.journal.append(8, b"more").expect("works"), 7);
    let length = opened.journal.bytes();
    drop(opened);
    let opened = Journal::open(&path, "gw-1").expect("opens");
    assert_eq!(opened.notes, []);
    assert_eq!(opened.journal.bytes(), length);
    let found: Vec<(u64, u16, &[u8])> =
        opened.records.iter().map(|r| (r.sequence, r.kind, r.payload.as_slice())).collect();
    assert_eq!(found, [(6, 7, b"all".as_slice()), (7, 8, b"more".as_slice())]);
}

#[test]
fn two_agents_cannot_write_one_journal() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Journal::open(folder.path(), "gw-1").expect("made");
    assert!(matches!(Journal::open(folder.path(), "gw-1"), Err(OpenError::InUse)));
    drop(first);
    Journal::open(folder.path(), "gw-1").expect("free again");
}

#[test]
fn a_damaged_file_on_disk_is_salvaged_and_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut journal = Journal::open(folder.path(), "gw-1").expect("made").journal;
    for n in 0..3 {
        journal.append(n, b"0123456789").expect("works");
    }
    drop(journal);
    let file = folder.path().join("journal");
    let mut bytes = std::fs::read(&file).expect("there");
    bytes[36] ^= 1;
    std::fs::write(&file, &bytes).expect("writable");
    let opened = Journal::open_or_salvage(folder.path(), "gw-1").expect("salvaged");
    assert_eq!(opened.records.iter().map(|r| r.kind).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(std::fs::read(folder.path().join("journal.bad-1")).expect("kept"), bytes);
}
