//! Netlink attributes (type–length–value, `struct nlattr`): a writer and a tolerant reader.
//!
//! Reading is tolerant on purpose: attributes that we do not know are skipped, so a newer kernel, or somebody else's
//! odd link, does not stop us from seeing our own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEADER: usize = 4;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

const fn padded(len: usize) -> usize {
    (len + 3) & !3
}

/// Appends attributes to a message that is being built.
pub(crate) trait PutAttributes {
    fn put(&mut self, kind: u16, value: &[u8]);
    fn put_nested(&mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>));

    fn put_u32_be(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    fn put_u64_be(&mut self, kind: u16, value: u64) {
        self.put(kind, &value.to_be_bytes());
    }

    /// With the terminating NUL.
    fn put_text(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.put(kind, &bytes);
    }
}

impl PutAttributes for Vec<u8> {
    fn put(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(HEADER + value.len()).unwrap_or(u16::MAX);
        self.extend_from_slice(&len.to_ne_bytes());
        self.extend_from_slice(&kind.to_ne_bytes());
        self.extend_from_slice(value);
        self.resize(padded(self.len()), 0);
    }

    fn put_nested(&mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.len();
        self.extend_from_slice(&[0; HEADER]);
        fill(self);
        let len = u16::try_from(self.len() - start).unwrap_or(u16::MAX);
        self[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
    }
}

/// A run of attributes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a>(&'a [u8]);

/// One attribute's value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribute<'a> {
    pub(crate) kind: u16,
    pub(crate) value: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes behind a message's fixed header of `skip` bytes; none where the message is shorter.
    pub(crate) fn after(message: &'a [u8], skip: usize) -> Self {
        Self(message.get(padded(skip)..).unwrap_or_default())
    }

    pub(crate) fn find(self, kind: u16) -> Option<Attribute<'a>> {
        self.into_iter().find(|attribute| attribute.kind == kind)
    }
}

impl<'a> IntoIterator for Attributes<'a> {
    type Item = Attribute<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        Iter(self.0)
    }
}

#[derive(Debug)]
pub(crate) struct Iter<'a>(&'a [u8]);

impl<'a> Iterator for Iter<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let len = usize::from(u16::from_ne_bytes(self.0.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let value = self.0.get(HEADER..len)?;
        self.0 = self.0.get(padded(len)..).unwrap_or_default();
        Some(Attribute { kind, value })
    }
}

impl<'a> Attribute<'a> {
    pub(crate) fn nested(self) -> Attributes<'a> {
        Attributes(self.value)
    }

    pub(crate) fn u8(self) -> Option<u8> {
        self.value.first().copied()
    }

    pub(crate) fn u16(self) -> Option<u16> {
        Some(u16::from_ne_bytes(self.value.get(0..2)?.try_into().ok()?))
    }

    pub(crate) fn u16_be(self) -> Option<u16> {
        Some(u16::from_be_bytes(self.value.get(0..2)?.try_into().ok()?))
    }

    pub(crate) fn u32(self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.value.get(0..4)?.try_into().ok()?))
    }

    pub(crate) fn u32_be(self) -> Option<u32> {
        Some(u32::from_be_bytes(self.value.get(0..4)?.try_into().ok()?))
    }

    pub(crate) fn u64_be(self) -> Option<u64> {
        Some(u64::from_be_bytes(self.value.get(0..8)?.try_into().ok()?))
    }

    /// Up to the first NUL.
    pub(crate) fn text(self) -> Option<&'a str> {
        let end = self.value.iter().position(|byte| *byte == 0).unwrap_or(self.value.len());
        std::str::from_utf8(&self.value[..end]).ok()
    }

    pub(crate) fn ip(self) -> Option<IpAddr> {
        if let Ok(octets) = <[u8; 4]>::try_from(self.value) {
            Some(IpAddr::V4(Ipv4Addr::from(octets)))
        } else {
            <[u8; 16]>::try_from(self.value).ok().map(|octets| IpAddr::V6(Ipv6Addr::from(octets)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_padded_to_four_bytes() {
        let mut bytes = Vec::new();
        bytes.put(1, &[7]);
        bytes.put_text(2, "seimon");
        bytes.put_nested(3, |inner| inner.put_u32_be(9, 0x0102_0304));
        assert_eq!(bytes.len() % 4, 0);
        let all = Attributes(&bytes);
        assert_eq!(all.find(1).and_then(Attribute::u8), Some(7));
        assert_eq!(all.find(2).and_then(Attribute::text), Some("seimon"));
        let inner = all.find(3).and_then(|a| a.nested().find(9)).and_then(Attribute::u32_be);
        assert_eq!(inner, Some(0x0102_0304));
    }

    #[test]
    fn a_truncated_or_lying_attribute_ends_the_reading_without_a_panic() {
        for bytes in
            [&[8u8, 0, 1, 0, 1][..], &[0, 0, 1, 0, 0, 0, 0, 0], &[3, 0], &[0xff, 0xff, 1, 0, 1, 2, 3, 4]]
        {
            assert_eq!(Attributes(bytes).into_iter().count(), 0, "{bytes:?}");
        }
    }
}
