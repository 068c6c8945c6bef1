//! Whole frames for the generator, checksums right.

use std::net::SocketAddrV4;

/// The generator's mark on all it sends (DSCP 46), by which it is dropped again at the far end.
pub(super) const TRAFFIC_CLASS: u8 = 46 << 2;

/// Of a frame on its first link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Macs {
    pub(super) from: [u8; 6],
    pub(super) to: [u8; 6],
}

/// A TCP SYN.
pub(super) fn syn(macs: Macs, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let mut tcp = [0u8; 20];
    tcp[0..2].copy_from_slice(&from.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&u32::from(from.port()).wrapping_mul(2_654_435_761).to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = 2;
    tcp[14..16].copy_from_slice(&64_240u16.to_be_bytes());
    framed(macs, 6, from, to, tcp.to_vec(), 16)
}

/// A datagram with this many bytes of zeros.
pub(super) fn datagram(macs: Macs, from: SocketAddrV4, to: SocketAddrV4, payload: usize) -> Vec<u8> {
    let mut udp = vec![0u8; 8 + payload];
    let length = udp.len() as u16;
    udp[0..2].copy_from_slice(&from.port().to_be_bytes());
    udp[2..4].copy_from_slice(&to.port().to_be_bytes());
    udp[4..6].copy_from_slice(&length.to_be_bytes());
    framed(macs, 17, from, to, udp, 6)
}

/// Ethernet and IPv4 around a segment whose checksum goes to `checksum_at`.
fn framed(
    macs: Macs,
    protocol: u8,
    from: SocketAddrV4,
    to: SocketAddrV4,
    mut segment: Vec<u8>,
    checksum_at: usize,
) -> Vec<u8> {
    let mut ip = [0u8; 20];
    ip[0] = 0x45;
    ip[1] = TRAFFIC_CLASS;
    ip[2..4].copy_from_slice(&((20 + segment.len()) as u16).to_be_bytes());
    ip[6] = 0x40;
    ip[8] = 64;
    ip[9] = protocol;
    ip[12..16].copy_from_slice(&from.ip().octets());
    ip[16..20].copy_from_slice(&to.ip().octets());
    let sum = checksum(&ip, 0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let pseudo = sum_of(&ip[12..20]) + u32::from(protocol) + segment.len() as u32;
    let sum = checksum(&segment, pseudo);
    segment[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
    [&macs.to[..], &macs.from, &[8, 0], &ip, &segment].concat()
}

fn sum_of(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c.get(1).copied().unwrap_or(0))).sum()
}

fn checksum(bytes: &[u8], with: u32) -> u16 {
    let mut sum = sum_of(bytes) + with;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const MACS: Macs = Macs { from: [2; 6], to: [4; 6] };
    const FROM: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 20, 1, 100), 40_001);
    const TO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 255, 254), 443);

    #[test]
    fn a_syn_has_checksums_that_a_receiver_accepts() {
        let frame = syn(MACS, FROM, TO);
        assert_eq!(checksum(&frame[14..34], 0), 0);
        assert_eq!(checksum(&frame[34..], sum_of(&frame[26..34]) + 6 + 20), 0);
        assert_eq!(frame[34 + 13], 2, "SYN and nothing else");
    }

    #[test]
    fn a_datagram_has_checksums_that_a_receiver_accepts() {
        let frame = datagram(MACS, FROM, TO, 64);
        assert_eq!(frame.len(), 14 + 20 + 8 + 64);
        assert_eq!(checksum(&frame[14..34], 0), 0);
        assert_eq!(checksum(&frame[34..], sum_of(&frame[26..34]) + 17 + 72), 0);
    }
}
