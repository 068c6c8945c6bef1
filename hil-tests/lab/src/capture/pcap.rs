//! Writing frames to a pcap file (classic format, nanoseconds, Ethernet).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

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
