//! Packets as they stand on the wire: the first of a connection is read, and what is answered is made. No system calls;
//! everything that is read was written by a program in the sandbox.

pub const IPPROTO_ICMP: u8 = 1;
pub const IPPROTO_TCP: u8 = 6;
pub const IPPROTO_UDP: u8 = 17;
const IPPROTO_ICMPV6: u8 = 58;

const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;
const URG: u8 = 32;

/// The two ends: the program's and the one that it means. Addresses of IPv4 are ::ffff:a.b.c.d.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    pub source: [u8; 16],
    pub target: [u8; 16],
    pub source_port: u16,
    pub target_port: u16,
}

pub const NO_FLOW: Flow = Flow { source: [0; 16], target: [0; 16], source_port: 0, target_port: 0 };

/// ::ffff:0:0/96.
pub fn mapped(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// The IPv4 address in it, where it is one.
pub fn ipv4(address: &[u8; 16]) -> Option<[u8; 4]> {
    let (prefix, rest) = address.split_at(12);
    (prefix == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]).then(|| [rest[0], rest[1], rest[2], rest[3]])
}

impl Flow {
    pub fn is_ipv4(&self) -> bool {
        ipv4(&self.target).is_some()
    }
}

/// A packet that is made: room for the two headers of a SYN with all options, or an error message around one.
pub const MOST: usize = 160;

#[derive(Clone, Copy)]
pub struct Packet {
    bytes: [u8; MOST],
    length: usize,
}

pub const NO_PACKET: Packet = Packet { bytes: [0; MOST], length: 0 };

impl Packet {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The sequence number of a SYN that `syn` has made.
    pub fn sequence(&self, flow: &Flow) -> u32 {
        let at = header_length(flow) + 4;
        u32::from_be_bytes([self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]])
    }
}

fn header_length(flow: &Flow) -> usize {
    if flow.is_ipv4() { IPV4 } else { IPV6 }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn address(bytes: &[u8], at: usize) -> Option<[u8; 16]> {
    bytes.get(at..at + 16)?.try_into().ok()
}

fn address4(bytes: &[u8], at: usize) -> Option<[u8; 16]> {
    bytes.get(at..at + 4)?.try_into().ok().map(mapped)
}

/// Reads the first packet of a TCP connection. What comes back is made anew: only what is understood is in it, no data, no
/// options of IP and no TCP Fast Open. `None` for everything that is no such packet.
pub fn syn(packet: &[u8]) -> Option<(Flow, Packet)> {
    let (source, target, tcp) = match packet.first()? >> 4 {
        4 => {
            let length = usize::from(packet[0] & 15) * 4;
            let fragment = half(packet, 6)? & 0x3fff;
            if length < IPV4 || fragment != 0 || *packet.get(9)? != IPPROTO_TCP {
                return None;
            }
            (address4(packet, 12)?, address4(packet, 16)?, packet.get(length..)?)
        }
        6 => {
            // Behind another header there is no first packet of an honest program.
            let (source, target) = (address(packet, 8)?, address(packet, 24)?);
            if *packet.get(6)? != IPPROTO_TCP || ipv4(&source).is_some() || ipv4(&target).is_some() {
                return None;
            }
            (source, target, packet.get(IPV6..)?)
        }
        _ => return None,
    };
    let length = usize::from(tcp.get(12)? >> 4) * 4;
    let header = tcp.get(..length).filter(|header| header.len() >= 20)?;
    if header[13] & (FIN | SYN | RST | PSH | ACK | URG) != SYN {
        return None;
    }
    let flow = Flow { source, target, source_port: half(header, 0)?, target_port: half(header, 2)? };
    if flow.source_port == 0 || flow.target_port == 0 {
        return None;
    }
    let mut clean = [0u8; 60];
    clean[..length].copy_from_slice(header);
    without_fast_open(&mut clean[20..length]);
    Some((flow, whole(&flow, IPPROTO_TCP, &clean[..length], false)))
}

/// Replaces options for TCP Fast Open (34, and 254 from before) by ones that mean nothing.
fn without_fast_open(options: &mut [u8]) {
    let mut at = 0;
    while at < options.len() {
        let length = match options[at] {
            0 => return,
            1 => 1,
            _ => options.get(at + 1).map_or(0, |length| usize::from(*length)),
        };
        if length == 0 || at + length > options.len() || length < 2 && options[at] != 1 {
            options[at..].fill(1);
            return;
        }
        if matches!(options[at], 34 | 254) {
            options[at..at + length].fill(1);
        }
        at += length;
    }
}

/// Puts the header of IP in front and the checksum in. `back`: from the target to the source.
fn whole(flow: &Flow, protocol: u8, content: &[u8], back: bool) -> Packet {
    let mut packet = NO_PACKET;
    let length = header_length(flow);
    packet.length = length + content.len();
    packet.bytes[length..packet.length].copy_from_slice(content);
    put_header(flow, protocol, &mut packet.bytes, content.len(), back);
    let place = match protocol {
        IPPROTO_TCP => 16,
        IPPROTO_UDP => 6,
        _ => 2,
    };
    put_checksum(flow, protocol, &mut packet.bytes[..packet.length], place, back);
    packet
}

fn ends(flow: &Flow, back: bool) -> (&[u8; 16], &[u8; 16]) {
    if back { (&flow.target, &flow.source) } else { (&flow.source, &flow.target) }
}

fn put_header(flow: &Flow, protocol: u8, bytes: &mut [u8], length: usize, back: bool) {
    const TTL: u8 = 64;
    let (from, to) = ends(flow, back);
    match (ipv4(from), ipv4(to)) {
        (Some(from), Some(to)) => {
            bytes[..IPV4].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, TTL, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            bytes[2..4].copy_from_slice(&((IPV4 + length) as u16).to_be_bytes());
            bytes[12..16].copy_from_slice(&from);
            bytes[16..20].copy_from_slice(&to);
            let sum = !folded(sum(0, &bytes[..IPV4]));
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        _ => {
            bytes[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, protocol, TTL]);
            bytes[4..6].copy_from_slice(&(length as u16).to_be_bytes());
            bytes[8..24].copy_from_slice(from);
            bytes[24..40].copy_from_slice(to);
        }
    }
}

fn sum(start: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(2).fold(start, |sum, pair| sum + u64::from(pair[0]) * 256 + u64::from(*pair.get(1).unwrap_or(&0)))
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The checksum of what follows the header of IP, at `place` in it.
fn put_checksum(flow: &Flow, protocol: u8, packet: &mut [u8], place: usize, back: bool) {
    let length = header_length(flow);
    let content = packet.len() - length;
    let at = length + place;
    packet[at..at + 2].fill(0);
    let (from, to) = ends(flow, back);
    let pseudo = match (ipv4(from), ipv4(to)) {
        _ if protocol == IPPROTO_ICMP => 0,
        (Some(from), Some(to)) => sum(sum(0, &from), &to) + u64::from(protocol) + content as u64,
        _ => sum(sum(0, from), to) + u64::from(protocol) + content as u64,
    };
    let checksum = match !folded(sum(pseudo, &packet[length..])) {
        // No checksum, to UDP.
        0 => 0xffff,
        checksum => checksum,
    };
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// What a connection is refused with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody listens there: ECONNREFUSED.
    Reset,
    /// EHOSTUNREACH.
    Host,
    /// ENETUNREACH.
    Net,
}

/// The answer to a SYN that `syn` has made, or to a datagram of which `packet` has the header and eight bytes.
pub fn refusal(flow: &Flow, packet: &[u8], kind: Refusal, protocol: u8) -> Packet {
    let length = header_length(flow);
    if kind == Refusal::Reset && protocol == IPPROTO_TCP {
        let sequence = u32::from_be_bytes(
            packet.get(length + 4..length + 8).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default(),
        );
        let mut tcp = [0u8; 20];
        tcp[..2].copy_from_slice(&flow.target_port.to_be_bytes());
        tcp[2..4].copy_from_slice(&flow.source_port.to_be_bytes());
        tcp[8..12].copy_from_slice(&sequence.wrapping_add(1).to_be_bytes());
        (tcp[12], tcp[13]) = (5 << 4, RST | ACK);
        return whole(flow, IPPROTO_TCP, &tcp, true);
    }
    // RFC 792 and 4443: host, net and port unreachable, with what was sent behind them.
    let mut message = [0u8; 8 + IPV6 + 8];
    let quoted = (length + 8).min(packet.len());
    message[8..8 + quoted].copy_from_slice(&packet[..quoted]);
    let of_udp = protocol == IPPROTO_UDP;
    let (protocol, first, code) = match (flow.is_ipv4(), kind) {
        (true, Refusal::Host) => (IPPROTO_ICMP, 3, 13),
        (true, Refusal::Net) => (IPPROTO_ICMP, 3, 0),
        (true, Refusal::Reset) => (IPPROTO_ICMP, 3, 3),
        // The kernel hands the code for EHOSTUNREACH to no socket of UDP; this one is EACCES.
        (false, Refusal::Host) => (IPPROTO_ICMPV6, 1, if of_udp { 1 } else { 3 }),
        (false, Refusal::Net) => (IPPROTO_ICMPV6, 1, 0),
        (false, Refusal::Reset) => (IPPROTO_ICMPV6, 1, 4),
    };
    (message[0], message[1]) = (first, code);
    whole(flow, protocol, &message[..8 + quoted], true)
}

/// The headers of a datagram as the program sent it, for `refusal`.
pub fn datagram_head(flow: &Flow, payload: usize) -> Packet {
    let mut udp = [0u8; UDP];
    put_udp(flow, &mut udp, payload, false);
    let mut packet = whole(flow, IPPROTO_UDP, &udp, false);
    put_header(flow, IPPROTO_UDP, &mut packet.bytes, UDP + payload, false);
    packet
}

fn put_udp(flow: &Flow, udp: &mut [u8], payload: usize, back: bool) {
    let (from, to) = if back { (flow.target_port, flow.source_port) } else { (flow.source_port, flow.target_port) };
    udp[..2].copy_from_slice(&from.to_be_bytes());
    udp[2..4].copy_from_slice(&to.to_be_bytes());
    udp[4..6].copy_from_slice(&((UDP + payload) as u16).to_be_bytes());
    udp[6..8].fill(0);
}

/// Room in front of a datagram's payload for the headers.
pub const DATAGRAM_ROOM: usize = IPV6 + UDP;
/// What fits into a packet with them.
pub const MOST_PAYLOAD: usize = 65_535 - DATAGRAM_ROOM;

/// Makes an answer of what stands in `buffer` behind `DATAGRAM_ROOM`; where in the buffer the packet is.
pub fn answer<'a>(flow: &Flow, buffer: &'a mut [u8], payload: usize) -> &'a [u8] {
    let length = header_length(flow);
    let start = DATAGRAM_ROOM - UDP - length;
    let packet = &mut buffer[start..DATAGRAM_ROOM + payload];
    put_udp(flow, &mut packet[length..length + UDP], payload, true);
    put_header(flow, IPPROTO_UDP, packet, UDP + payload, true);
    put_checksum(flow, IPPROTO_UDP, packet, 6, true);
    packet
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
