use super::*;
use std::vec::Vec;

const V4: Flow = Flow {
    source: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 2, 100],
    target: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 8, 8, 8, 8],
    source_port: 40_000,
    target_port: 443,
};
const V6: Flow = Flow {
    source: [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0],
    target: [0x20, 1, 0x48, 0x60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x88, 0x88],
    source_port: 40_001,
    target_port: 80,
};

/// The SYN of a flow with these options and flags.
fn made(flow: &Flow, options: &[u8], flags: u8) -> Vec<u8> {
    let mut tcp = std::vec![0u8; 20];
    tcp[..2].copy_from_slice(&flow.source_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&flow.target_port.to_be_bytes());
    tcp[4..8].copy_from_slice(&7u32.to_be_bytes());
    tcp[12] = (((20 + options.len()) / 4) << 4) as u8;
    tcp[13] = flags;
    tcp.extend_from_slice(options);
    whole(flow, IPPROTO_TCP, &tcp, false).bytes().to_vec()
}

fn is_right(flow: &Flow, packet: &[u8], protocol: u8, back: bool) -> bool {
    let length = header_length(flow);
    let (from, to) = ends(flow, back);
    let content = packet.len() - length;
    let pseudo = match (ipv4(from), ipv4(to)) {
        _ if protocol == IPPROTO_ICMP => 0,
        (Some(from), Some(to)) => sum(sum(0, &from), &to) + u64::from(protocol) + content as u64,
        _ => sum(sum(0, from), to) + u64::from(protocol) + content as u64,
    };
    let header = flow.is_ipv4().then(|| folded(sum(0, &packet[..IPV4])));
    header.is_none_or(|sum| sum == 0xffff) && folded(sum(pseudo, &packet[length..])) == 0xffff
}

#[test]
fn a_syn_is_made_anew_without_fast_open_and_data() {
    for flow in [V4, V6] {
        // MSS, Fast Open with a cookie, SACK permitted, window scale behind an experimental option.
        let options = [2, 4, 5, 180, 34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 4, 2, 254, 4, 0xf9, 0x89];
        let mut packet = made(&flow, &options, SYN | 0xc0);
        packet.extend_from_slice(b"GET / HTTP/1.0");
        let (read, again) = syn(&packet).unwrap();
        assert_eq!((read, again.sequence(&read)), (flow, 7));
        assert_eq!(again.bytes().len(), packet.len() - 14);
        let options = &again.bytes()[header_length(&flow) + 20..];
        assert_eq!(options, [2, 4, 5, 180, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4, 2, 1, 1, 1, 1]);
        assert!(is_right(&flow, again.bytes(), IPPROTO_TCP, false));
    }
}

#[test]
fn what_is_no_syn_is_none() {
    for flow in [V4, V6] {
        assert!(syn(&made(&flow, &[], SYN)).is_some(), "the control");
        for flags in [0, ACK, SYN | ACK, SYN | FIN, SYN | RST, SYN | PSH, SYN | URG] {
            assert!(syn(&made(&flow, &[], flags)).is_none(), "{flags}");
        }
        for length in 0..made(&flow, &[], SYN).len() {
            assert!(syn(&made(&flow, &[], SYN)[..length]).is_none(), "{length}");
        }
        let no_port = Flow { target_port: 0, ..flow };
        assert!(syn(&made(&no_port, &[], SYN)).is_none());
    }
    let mut fragment = made(&V4, &[], SYN);
    fragment[6] = 0x20;
    assert!(syn(&fragment).is_none());
    let mut extended = made(&V6, &[], SYN);
    extended[6] = 0;
    assert!(syn(&extended).is_none(), "an extension header");
    let odd = Flow { target: mapped([8, 8, 8, 8]), ..V6 };
    let mut packet = made(&V6, &[], SYN);
    packet[24..40].copy_from_slice(&odd.target);
    assert!(syn(&packet).is_none(), "IPv4 in IPv6");
}

#[test]
fn options_that_lead_astray_are_cut_off() {
    for options in [[2, 0, 1, 1], [2, 200, 1, 1], [34, 1, 9, 9], [1, 1, 1, 3], [34, 2, 34, 2]] {
        let packet = made(&V4, &options, SYN);
        let (_, again) = syn(&packet).unwrap();
        assert!(!again.bytes()[40..].contains(&34) && is_right(&V4, again.bytes(), IPPROTO_TCP, false), "{options:?}");
    }
}

/// Any bytes at all, and every change of one byte.
#[test]
fn hostile_packets_break_nothing() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut read = 0;
    for round in 0..200_000 {
        let mut packet = made(if round % 2 == 0 { &V4 } else { &V6 }, &[2, 4, 5, 180, 34, 6, 0, 0, 0, 0, 1, 1], SYN);
        for _ in 0..next() % 4 {
            let at = next() as usize % packet.len();
            packet[at] = next() as u8;
        }
        packet.truncate(next() as usize % (packet.len() + 40));
        if let Some((flow, again)) = syn(&packet) {
            read += 1;
            assert!(is_right(&flow, again.bytes(), IPPROTO_TCP, false));
            assert!(again.bytes().len() <= packet.len() && syn(again.bytes()).is_some());
        }
    }
    assert!(read > 10_000, "{read}");
}

#[test]
fn refusals_go_back_with_what_was_sent() {
    for flow in [V4, V6] {
        let packet = made(&flow, &[2, 4, 5, 180], SYN);
        let length = header_length(&flow);
        let reset = refusal(&flow, &packet, Refusal::Reset, IPPROTO_TCP);
        assert!(is_right(&flow, reset.bytes(), IPPROTO_TCP, true));
        assert_eq!(reset.bytes()[length + 8..length + 14], [0, 0, 0, 8, 0x50, RST | ACK]);
        for kind in [Refusal::Host, Refusal::Net] {
            let refused = refusal(&flow, &packet, kind, IPPROTO_TCP);
            let protocol = if flow.is_ipv4() { IPPROTO_ICMP } else { IPPROTO_ICMPV6 };
            assert!(is_right(&flow, refused.bytes(), protocol, true), "{kind:?}");
            assert_eq!(refused.bytes()[length + 8..], packet[..length + 8]);
        }
        let head = datagram_head(&flow, 100);
        let refused = refusal(&flow, head.bytes(), Refusal::Reset, IPPROTO_UDP);
        assert_eq!(refused.bytes()[length + 8..][..length + 8], *head.bytes());
    }
}

#[test]
fn an_answer_has_the_ends_exchanged() {
    for flow in [V4, V6] {
        for payload in [0, 1, 7, 512] {
            let mut buffer = std::vec![0xaa; DATAGRAM_ROOM + payload];
            let packet = answer(&flow, &mut buffer, payload);
            assert_eq!(packet.len(), header_length(&flow) + UDP + payload);
            assert!(is_right(&flow, packet, IPPROTO_UDP, true));
            let udp = &packet[header_length(&flow)..];
            assert_eq!((half(udp, 0), half(udp, 2)), (Some(flow.target_port), Some(flow.source_port)));
        }
    }
}
