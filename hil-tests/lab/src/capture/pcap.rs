//! Writing frames to a pcap file (classic format, nanoseconds, Ethernet).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// An open pcap file.
#[derive(Debug)]
pub(crate) struct Pcap(BufWriter<File>);

impl Pcap {
    pub(crate) fn create(file: &Path) -> Result<Self> {
        let out = File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
        let mut out = BufWriter::new(out);
        out.write_all(&0xa1b2_3c4d_u32.to_ne_bytes())?;
        out.write_all(&2u16.to_ne_bytes())?;
        out.write_all(&4u16.to_ne_bytes())?;
        out.write_all(&[0; 8])?;
        out.write_all(&65_535u32.to_ne_bytes())?;
        out.write_all(&1u32.to_ne_bytes())?;
        Ok(Self(out))
    }

    pub(crate) fn write(&mut self, frame: &[u8]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let length = (frame.len() as u32).to_ne_bytes();
        // A full disk costs the capture, not the run.
        let _ = self
            .0
            .write_all(&(now.as_secs() as u32).to_ne_bytes())
            .and_then(|()| self.0.write_all(&now.subsec_nanos().to_ne_bytes()))
            .and_then(|()| self.0.write_all(&length))
            .and_then(|()| self.0.write_all(&length))
            .and_then(|()| self.0.write_all(frame));
    }

    pub(crate) fn flush(&mut self) {
        let _ = self.0.flush();
    }
}

/// Every whole frame of a file that [`Pcap`] wrote on this machine, with its time since the epoch.
pub(crate) fn read(file: &Path) -> Result<Vec<(Duration, Vec<u8>)>> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut rest = bytes.get(24..).unwrap_or_default();
    let mut frames = Vec::new();
    while let Some((head, more)) = rest.split_at_checked(16) {
        let word =
            |at: usize| head.get(at..at + 4).and_then(|w| w.try_into().ok()).map_or(0, u32::from_ne_bytes);
        let Some((frame, more)) = more.split_at_checked(word(8) as usize) else { break };
        frames.push((Duration::new(word(0).into(), word(4)), frame.to_vec()));
        rest = more;
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_with_its_time_and_a_torn_end_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("frames.pcap");
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let mut pcap = Pcap::create(&file).unwrap();
        pcap.write(&[1; 60]);
        pcap.write(&[2; 100]);
        pcap.flush();
        let frames = read(&file).unwrap();
        assert_eq!(frames.iter().map(|(_, f)| f.len()).collect::<Vec<_>>(), [60, 100]);
        assert!(frames.iter().all(|(at, _)| *at >= before && *at < before + Duration::from_secs(60)));
        let torn = std::fs::read(&file).unwrap();
        std::fs::write(&file, &torn[..torn.len() - 1]).unwrap();
        assert_eq!(read(&file).unwrap().len(), 1);
    }
}
