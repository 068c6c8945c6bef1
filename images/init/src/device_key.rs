//! The box's own secret, made at its first start. Its machine id comes from it, and the data partition's key where there is
//! no TPM: then whoever has the disk can read it, and posture says so.
//!
//! Two copies, as with the boot state: a writer overwrites the older (or broken) one.
//!
//! | bytes | what (little-endian) |
//! |---|---|
//! | 0..8 | `SEIMONDK` |
//! | 8..10 | layout, 1 |
//! | 10 | the data partition: 0 is to be made, 1 is made |
//! | 16..24 | sequence |
//! | 24..56 | the secret |
//! | 56..508 | zero |
//! | 508..512 | CRC-32 (IEEE) of what is before |

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use sha2::{Digest as _, Sha256};

use crate::{Doing as _, Result};

pub const RECORD: usize = 512;
/// Bytes from the partition's beginning.
pub const COPIES: [u64; 2] = [256 * 1024, 320 * 1024];
const MAGIC: [u8; 8] = *b"SEIMONDK";
const LAYOUT: u16 = 1;

#[derive(Clone, PartialEq, Eq)]
pub struct DeviceKey {
    secret: [u8; 32],
    sequence: u64,
    pub data: Data,
}

impl fmt::Debug for DeviceKey {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceKey")
            .field("sequence", &self.sequence)
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

/// Whether the data partition was made with this key, to its last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    ToBeMade,
    Made,
}

impl DeviceKey {
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret, sequence: 1, data: Data::ToBeMade }
    }

    /// 32 hexadecimal digits, as in /etc/machine-id.
    pub fn machine_id(&self) -> String {
        hex(&self.derived(b"seimon machine id 1\0")[..16])
    }

    /// What opens the data partition, as text.
    pub fn data_key(&self) -> String {
        hex(&self.derived(b"seimon data key 1\0"))
    }

    fn derived(&self, what_for: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(what_for).chain_update(self.secret).finalize().into()
    }

    fn encode(&self) -> [u8; RECORD] {
        let Self { secret, sequence, data } = self;
        let mut bytes = [0; RECORD];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&LAYOUT.to_le_bytes());
        bytes[10] = u8::from(*data == Data::Made);
        bytes[16..24].copy_from_slice(&sequence.to_le_bytes());
        bytes[24..56].copy_from_slice(secret);
        let crc = crc32fast::hash(&bytes[..RECORD - 4]);
        bytes[RECORD - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; RECORD]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let whole = crc32fast::hash(body) == u32::from_le_bytes(*crc);
        if !whole || body[..8] != MAGIC || body[8..10] != LAYOUT.to_le_bytes() {
            return None;
        }
        Some(Self {
            secret: body[24..56].try_into().ok()?,
            sequence: u64::from_le_bytes(body[16..24].try_into().ok()?),
            data: if body[10] == 1 { Data::Made } else { Data::ToBeMade },
        })
    }
}

/// `None`: this box has none yet.
///
/// # Errors
/// The partition cannot be read.
pub fn read(partition: &File) -> Result<Option<DeviceKey>> {
    Ok(copies(partition)?.into_iter().flatten().max_by_key(|key| key.sequence))
}

/// Writes it over the older copy; it is on the disk when this returns.
///
/// # Errors
/// The partition cannot be written; the old key is still there.
pub fn write(partition: &File, key: &mut DeviceKey) -> Result<()> {
    let [first, second] = copies(partition)?.map(|copy| copy.map_or(0, |key| key.sequence));
    key.sequence = first.max(second) + 1;
    let at = if first <= second { COPIES[0] } else { COPIES[1] };
    partition
        .write_all_at(&key.encode(), at)
        .and_then(|()| partition.sync_all())
        .doing("writing the device key")
}

/// Both copies are gone for good when this returns.
///
/// # Errors
/// The partition cannot be written.
pub fn erase(partition: &File) -> Result<()> {
    for at in COPIES {
        partition.write_all_at(&[0; RECORD], at).doing("erasing the device key")?;
    }
    partition.sync_all().doing("erasing the device key")
}

fn copies(partition: &File) -> Result<[Option<DeviceKey>; 2]> {
    let mut found = [None, None];
    for (at, copy) in COPIES.iter().zip(&mut found) {
        let mut bytes = [0; RECORD];
        partition.read_exact_at(&mut bytes, *at).doing("reading the device key")?;
        *copy = DeviceKey::decode(&bytes);
    }
    Ok(found)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        file
    }

    #[test]
    fn a_new_box_has_none_and_keeps_what_it_makes() {
        let partition = partition();
        assert!(read(&partition).unwrap().is_none());
        let mut key = DeviceKey::new([7; 32]);
        write(&partition, &mut key).unwrap();
        let mut again = read(&partition).unwrap().unwrap();
        assert!(again == key && again.data == Data::ToBeMade);
        again.data = Data::Made;
        write(&partition, &mut again).unwrap();
        assert_eq!(read(&partition).unwrap().unwrap().data, Data::Made);
        assert_eq!(read(&partition).unwrap().unwrap().machine_id(), key.machine_id());
    }

    #[test]
    fn a_torn_write_leaves_the_old_key_or_the_new() {
        for cut in [0, 1, 24, 56, 300, 511, 512] {
            let partition = partition();
            let mut key = DeviceKey::new([7; 32]);
            write(&partition, &mut key).unwrap();
            let before = copies(&partition).unwrap();
            let mut next = DeviceKey { data: Data::Made, ..key.clone() };
            write(&partition, &mut next).unwrap();
            let at = COPIES[usize::from(before[0].is_some())];
            let torn = next.encode();
            partition.write_all_at(&[0; RECORD], at).unwrap();
            partition.write_all_at(&torn[..cut], at).unwrap();
            let found = read(&partition).unwrap().unwrap();
            assert!(found == key || found == next, "cut at {cut}");
            assert_eq!(found.data_key(), key.data_key());
        }
    }

    #[test]
    fn an_erased_key_is_nowhere() {
        let partition = partition();
        let mut key = DeviceKey::new([0xa5; 32]);
        write(&partition, &mut key).unwrap();
        write(&partition, &mut key).unwrap();
        erase(&partition).unwrap();
        assert!(read(&partition).unwrap().is_none());
        let mut all = vec![0; 1 << 20];
        partition.read_exact_at(&mut all, 0).unwrap();
        assert!(!all.contains(&0xa5));
    }

    #[test]
    fn what_comes_from_the_key_does_not_give_it_away_nor_each_other() {
        let key = DeviceKey::new([7; 32]);
        assert_eq!((key.machine_id().len(), key.data_key().len()), (32, 64));
        assert!(!key.data_key().contains(&key.machine_id()));
        assert!(!key.data_key().contains(&hex(&[7; 8])));
    }
}
