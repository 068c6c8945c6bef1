//! Bytes on disk, version 1. All numbers little endian.
//!
//! ```text
//!  header: magic "SEIMONJ\n" 8 │ version u32 │ length of machine u32 │ first sequence u64 │ machine │ crc32 u32
//!  record: length of payload u32 │ sequence u64 │ kind u16 │ crc32 u32 │ payload
//! ```
//! A CRC covers everything of its header or record but itself. Sequences have no gaps.

/// The format that this crate writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes.
pub const MAX_PAYLOAD: usize = 8 * 1024 * 1024;

const MAGIC: &[u8; 8] = b"SEIMONJ\n";
const HEADER_FIXED: usize = 24;
const RECORD_HEADER: usize = 18;
const MAX_MACHINE: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Grows by one with each record, also across compactions.
    pub sequence: u64,
    /// The caller's.
    pub kind: u16,
    pub payload: Vec<u8>,
}

/// How far reading came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) machine: String,
    pub(crate) records: Vec<Record>,
    pub(crate) next_sequence: u64,
    /// Where the good part ends.
    pub(crate) good: usize,
    /// Good records behind a bad place: the middle is damaged. Empty: what follows `good` is a torn end, if anything.
    pub(crate) beyond: Vec<Record>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    NotAJournal,
    Newer(u32),
    Damaged,
}

pub(crate) fn header(machine: &str, first_sequence: u64) -> Vec<u8> {
    let machine = machine.as_bytes();
    let machine = &machine[..machine.len().min(MAX_MACHINE)];
    let mut bytes = MAGIC.to_vec();
    bytes.extend(FORMAT_VERSION.to_le_bytes());
    bytes.extend(u32::try_from(machine.len()).unwrap_or(0).to_le_bytes());
    bytes.extend(first_sequence.to_le_bytes());
    bytes.extend(machine);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// `None`: the payload is too long.
pub(crate) fn record(sequence: u64, kind: u16, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= MAX_PAYLOAD)?;
    let mut bytes = Vec::with_capacity(RECORD_HEADER + payload.len());
    bytes.extend(length.to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes);
    crc.update(payload);
    bytes.extend(crc.finalize().to_le_bytes());
    bytes.extend(payload);
    Some(bytes)
}

pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed, BadHeader> {
    let (machine, mut next_sequence, mut good) = parse_header(bytes)?;
    let mut records = Vec::new();
    while let Some(record) = record_at(bytes, good).filter(|r| r.sequence == next_sequence) {
        good += RECORD_HEADER + record.payload.len();
        next_sequence += 1;
        records.push(record);
    }
    let beyond = records_beyond(bytes, good, next_sequence);
    Ok(Parsed { machine, records, next_sequence, good, beyond })
}

fn parse_header(bytes: &[u8]) -> Result<(String, u64, usize), BadHeader> {
    // A file that holds only a part of our magic is ours, and damaged.
    let shared = bytes.len().min(MAGIC.len());
    if bytes.is_empty() || bytes[..shared] != MAGIC[..shared] {
        return Err(BadHeader::NotAJournal);
    }
    let version = u32_at(bytes, 8).ok_or(BadHeader::Damaged)?;
    if version > FORMAT_VERSION {
        return Err(BadHeader::Newer(version));
    }
    let length = u32_at(bytes, 12).ok_or(BadHeader::Damaged)? as usize;
    let first = u64_at(bytes, 16).ok_or(BadHeader::Damaged)?;
    if length > MAX_MACHINE {
        return Err(BadHeader::Damaged);
    }
    let end = HEADER_FIXED + length;
    let machine = bytes.get(HEADER_FIXED..end).ok_or(BadHeader::Damaged)?;
    if version != FORMAT_VERSION || u32_at(bytes, end) != Some(crc32fast::hash(&bytes[..end])) {
        return Err(BadHeader::Damaged);
    }
    let machine = String::from_utf8(machine.to_vec()).map_err(|_| BadHeader::Damaged)?;
    Ok((machine, first, end + 4))
}

fn record_at(bytes: &[u8], at: usize) -> Option<Record> {
    let length = u32_at(bytes, at)? as usize;
    if length > MAX_PAYLOAD {
        return None;
    }
    let sequence = u64_at(bytes, at + 4)?;
    let kind = u16::from_le_bytes(bytes.get(at + 12..at + 14)?.try_into().ok()?);
    let crc = u32_at(bytes, at + 14)?;
    let payload = bytes.get(at + RECORD_HEADER..at + RECORD_HEADER + length)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[at..at + 14]);
    hasher.update(payload);
    (hasher.finalize() == crc).then(|| Record { sequence, kind, payload: payload.to_vec() })
}

/// Each append is synced before the next begins, so at most the last record can be torn: a good one behind a bad place
/// means that the middle is damaged.
fn records_beyond(bytes: &[u8], from: usize, next_sequence: u64) -> Vec<Record> {
    let mut found = Vec::new();
    let (mut at, mut least) = (from + 1, next_sequence);
    // Sequences that could stand there: no more than fit into the rest of the file.
    let most = next_sequence.saturating_add((bytes.len().saturating_sub(from) / RECORD_HEADER) as u64);
    while at + RECORD_HEADER <= bytes.len() {
        let plausible = u64_at(bytes, at + 4).is_some_and(|sequence| (least..=most).contains(&sequence));
        match plausible.then(|| record_at(bytes, at)).flatten() {
            Some(record) => {
                at += RECORD_HEADER + record.payload.len();
                least = record.sequence + 1;
                found.push(record);
            }
            None => at += 1,
        }
    }
    found
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_version_1_do_not_change() {
        let mut file = header("m1", 7);
        file.extend(record(7, 3, b"hi").expect("short"));
        let hex: String = file.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "5345494d4f4e4a0a010000000200000007000000000000006d31\
             9f81ef7e\
             020000000700000000000000030004107c946869"
        );
    }
}
