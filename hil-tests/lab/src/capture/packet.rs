//! Reading a frame's headers, and writing the ICMP errors that a line sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the lab wants to know of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// IP protocol number; for IPv6 the first next header.
    pub(crate) protocol: u8,
    /// 0 for protocols without ports and for later fragments.
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) dscp: u8,
    /// Bytes of the IP packet.
    pub(crate) length: usize,
}

const ETHERNET: usize = 14;

fn be16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*data.get(at)?, *data.get(at + 1)?]))
}

/// None: not IP, or cut short within its headers.
pub(crate) fn parse(frame: &[u8]) -> Option<Seen> {
    let ip = frame.get(ETHERNET..)?;
    let (source, destination, protocol, dscp, length, payload) = match be16(frame, 12)? {
        0x0800 => {
            let header = usize::from(*ip.first()? & 0x0f) * 4;
            let source: [u8; 4] = ip.get(12..16)?.try_into().ok()?;
            let destination: [u8; 4] = ip.get(16..20)?.try_into().ok()?;
            let first = be16(ip, 6)? & 0x1fff == 0;
            (
                IpAddr::V4(Ipv4Addr::from(source)),
                IpAddr::V4(Ipv4Addr::from(destination)),
                ip[9],
                ip[1] >> 2,
                usize::from(be16(ip, 2)?),
                first.then(|| ip.get(header..)).flatten(),
            )
        }
        0x86dd => {
            let source: [u8; 16] = ip.get(8..24)?.try_into().ok()?;
            let destination: [u8; 16] = ip.get(24..40)?.try_into().ok()?;
            let class = (be16(ip, 0)? >> 4) as u8;
            (
                IpAddr::V6(Ipv6Addr::from(source)),
                IpAddr::V6(Ipv6Addr::from(destination)),
                ip[6],
                class >> 2,
                usize::from(be16(ip, 4)?) + 40,
                ip.get(40..),
            )
        }
        _ => return None,
    };
    let ports = match (protocol, payload) {
        (6 | 17, Some(payload)) => be16(payload, 0).zip(be16(payload, 2)),
        _ => None,
    };
    let (source_port, destination_port) = ports.unwrap_or((0, 0));
    Some(Seen { source, destination, protocol, source_port, destination_port, dscp, length })
}

/// Whether this is how IPv6 neighbours find each other (RFC 4861): it never leaves the link.
pub(crate) fn is_between_neighbours(frame: &[u8]) -> bool {
    let ip = frame.get(ETHERNET..).unwrap_or_default();
    ip.get(6) == Some(&58) && ip.get(40).is_some_and(|kind| (133..=137).contains(kind))
}

/// The frame that tells the sender of `frame` that the line's MTU is `mtu`; None where none is due (IPv4 without DF,
/// ICMP errors about ICMP errors, not IP).
pub(crate) fn too_big(frame: &[u8], mtu: usize) -> Option<Vec<u8>> {
    let seen = parse(frame)?;
    let ip = frame.get(ETHERNET..)?;
    let mut answer = Vec::with_capacity(128);
    answer.extend_from_slice(frame.get(6..12)?);
    answer.extend_from_slice(frame.get(0..6)?);
    answer.extend_from_slice(&frame[12..14]);
    match (seen.source, seen.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            if be16(ip, 6)? & 0x4000 == 0 {
                return None;
            }
            let quoted = &ip[..ip.len().min(68)];
            let mut header = [0u8; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&((28 + quoted.len()) as u16).to_be_bytes());
            header[8] = 64;
            header[9] = 1;
            header[12..16].copy_from_slice(&destination.octets());
            header[16..20].copy_from_slice(&source.octets());
            let sum = checksum(&header, 0);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            let mut icmp = vec![3, 4, 0, 0, 0, 0];
            icmp.extend_from_slice(&(mtu as u16).to_be_bytes());
            icmp.extend_from_slice(quoted);
            let sum = checksum(&icmp, 0);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            answer.extend_from_slice(&header);
            answer.extend_from_slice(&icmp);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            if source.is_multicast() || destination.is_multicast() {
                return None;
            }
            let quoted = &ip[..ip.len().min(1200)];
            let mut icmp = vec![2, 0, 0, 0];
            icmp.extend_from_slice(&(mtu as u32).to_be_bytes());
            icmp.extend_from_slice(quoted);
            let mut pseudo = 58 + icmp.len() as u32;
            for word in destination.segments().into_iter().chain(source.segments()) {
                pseudo += u32::from(word);
            }
            let sum = checksum(&icmp, pseudo);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            answer.extend_from_slice(&[0x60, 0, 0, 0]);
            answer.extend_from_slice(&(icmp.len() as u16).to_be_bytes());
            answer.extend_from_slice(&[58, 64]);
            answer.extend_from_slice(&destination.octets());
            answer.extend_from_slice(&source.octets());
            answer.extend_from_slice(&icmp);
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    }
    Some(answer)
}

/// Internet checksum (RFC 1071) over `data`, beginning with `start`.
pub(crate) fn checksum(data: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in data.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp_frame(flags: u8) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame.extend_from_slice(&[
            0x45, 0xa8, 0, 32, 0, 0, flags, 0, 64, 17, 0, 0, 10, 20, 1, 5, 203, 0, 113, 21,
        ]);
        frame.extend_from_slice(&[0x13, 0x88, 0x1b, 0x58, 0, 12, 0, 0, 1, 2, 3, 4]);
        frame
    }

    #[test]
    fn a_datagram_is_read_with_ports_and_dscp() {
        let seen = parse(&udp_frame(0)).unwrap();
        assert_eq!(seen.source, IpAddr::from([10, 20, 1, 5]));
        assert_eq!((seen.source_port, seen.destination_port, seen.dscp, seen.length), (5000, 7000, 42, 32));
    }

    #[test]
    fn the_mtu_error_goes_back_to_the_sender_and_its_checksums_hold() {
        let answer = too_big(&udp_frame(0x40), 1400).unwrap();
        let seen = parse(&answer).unwrap();
        assert_eq!((seen.destination, seen.protocol), (IpAddr::from([10, 20, 1, 5]), 1));
        assert_eq!(checksum(&answer[14..34], 0), 0);
        assert_eq!(checksum(&answer[34..], 0), 0);
        assert_eq!(answer[40..42], 1400u16.to_be_bytes());
        assert!(too_big(&udp_frame(0), 1400).is_none(), "without DF nobody is told");
    }

    #[test]
    fn cut_short_frames_are_no_packets() {
        let frame = udp_frame(0);
        for length in 0..34 {
            assert_eq!(parse(&frame[..length]), None, "{length}");
        }
    }
}
