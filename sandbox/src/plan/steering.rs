//! How every packet of a sandbox comes to the relay: a default route to the loopback, and rules there that hand each
//! packet to a socket of the relay's (TPROXY). The namespace has no other way out, so none of it is a fence: a program that
//! removed it would reach nothing. Made as messages of netlink(7) and a script for init.

use crate::wire::network::{
    DOOR_PORT, LOG_GROUP, MARK, OWN_IPV4, OWN_IPV6, ROLE_DOOR4, ROLE_DOOR6, ROLE_NONE, ROLE_RAW4, ROLE_RAW6,
    ROLE_SEED4, ROLE_SEED6, ROLE_SYNS, ROLE_TCP4, ROLE_TCP6, ROLE_UDP4, ROLE_UDP6, STEERED_PORT, Steer,
};
use crate::wire::stage;

const AF_INET: u8 = libc::AF_INET as u8;
const AF_INET6: u8 = libc::AF_INET6 as u8;
const NLM_F_REQUEST_ACK: u16 = 0x5;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

/// A message of netlink under construction.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16, head: &[u8]) -> Message {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(head);
        Message { bytes }
    }

    fn attribute(mut self, kind: u16, data: &[u8]) -> Message {
        put_attribute(&mut self.bytes, kind, data);
        self
    }

    fn end(mut self, out: &mut Vec<u8>) {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        out.append(&mut self.bytes);
    }
}

fn put_attribute(out: &mut Vec<u8>, kind: u16, data: &[u8]) {
    out.extend_from_slice(&(data.len() as u16 + 4).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn attributes(list: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    list.iter().for_each(|(kind, data)| put_attribute(&mut out, *kind, data));
    out
}

const NESTED: u16 = 0x8000;

/// The numbers of nf_tables are big-endian.
fn word(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn name(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

/// A route for everything to the loopback, in a table of its own: in the one of local addresses programs could bind each of
/// them. And the rule that has it looked at. See rtnetlink(7).
fn routes(family: u8, source: &[u8]) -> Vec<u8> {
    const RTM_NEWROUTE: u16 = 24;
    const RTM_NEWRULE: u16 = 32;
    const TABLE: u8 = 200;
    const RTPROT_STATIC: u8 = 4;
    const RT_SCOPE_HOST: u8 = 254;
    const RTN_LOCAL: u8 = 2;
    const RTA_OIF: u16 = 4;
    const RTA_PREFSRC: u16 = 7;
    const FR_ACT_TO_TBL: u8 = 1;
    const FRA_PRIORITY: u16 = 6;
    let mut out = Vec::new();
    let flags = NLM_F_REQUEST_ACK | NLM_F_CREATE;
    Message::new(RTM_NEWROUTE, flags, &[family, 0, 0, 0, TABLE, RTPROT_STATIC, RT_SCOPE_HOST, RTN_LOCAL, 0, 0, 0, 0])
        .attribute(RTA_PREFSRC, source)
        .attribute(RTA_OIF, &1u32.to_ne_bytes())
        .end(&mut out);
    Message::new(RTM_NEWRULE, flags, &[family, 0, 0, 0, TABLE, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0])
        .attribute(FRA_PRIORITY, &100u32.to_ne_bytes())
        .end(&mut out);
    out
}

const TABLE: &str = "sandcell";
/// What all packets pass, and where those that are not for the sandbox itself go on.
const STEER: &str = "steer";
const OUT: &str = "out";
const SUBSYSTEM: u16 = 10 << 8;
const NFPROTO_INET: u8 = 1;

/// An expression of a rule: linux/netfilter/nf_tables.h.
struct Expression(&'static str, Vec<(u16, Vec<u8>)>);

const REGISTER: u32 = 1;
const SECOND: u32 = 2;

fn meta(key: u32) -> Expression {
    Expression("meta", vec![(2, word(key)), (1, word(REGISTER))])
}

fn payload(base: u32, offset: u32, length: u32) -> Expression {
    Expression("payload", vec![(1, word(REGISTER)), (2, word(base)), (3, word(offset)), (4, word(length))])
}

fn compare(operation: u32, value: &[u8]) -> Expression {
    let data = attributes(&[(1, value.to_vec())]);
    Expression("cmp", vec![(1, word(REGISTER)), (2, word(operation)), (NESTED | 3, data)])
}

fn equal(value: &[u8]) -> Expression {
    compare(0, value)
}

fn masked(mask: u8) -> Expression {
    let value = |byte: u8| attributes(&[(1, vec![byte])]);
    let list =
        vec![(1, word(REGISTER)), (2, word(REGISTER)), (3, word(1)), (NESTED | 4, value(mask)), (NESTED | 5, value(0))];
    Expression("bitwise", list)
}

fn immediate(register: u32, value: &[u8]) -> Expression {
    Expression("immediate", vec![(1, word(register)), (NESTED | 2, attributes(&[(1, value.to_vec())]))])
}

/// What becomes of the packet. `chain`: where it goes on.
fn verdict(code: i32, chain: Option<&str>) -> Expression {
    let mut list = vec![(1, word(code.cast_unsigned()))];
    list.extend(chain.map(|chain| (2, name(chain))));
    let data = attributes(&[(NESTED | 2, attributes(&list))]);
    Expression("immediate", vec![(1, word(0)), (NESTED | 2, data)])
}

const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;
const NFT_GOTO: i32 = -4;

/// The socket of the relay that takes the packet. Where there is none, the rule ends here and the next one is tried.
fn proxy(family: u8) -> [Expression; 3] {
    let address: &[u8] =
        if family == AF_INET { &[127, 0, 0, 1] } else { &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] };
    [
        immediate(REGISTER, address),
        immediate(SECOND, &STEERED_PORT.to_be_bytes()),
        Expression("tproxy", vec![(1, word(family.into())), (2, word(REGISTER)), (3, word(SECOND))]),
    ]
}

fn log() -> Expression {
    Expression("log", vec![(1, LOG_GROUP.to_be_bytes().to_vec()), (4, 1u16.to_be_bytes().to_vec())])
}

fn reject(kind: u32, code: u8) -> Expression {
    Expression("reject", vec![(1, word(kind)), (2, vec![code])])
}

fn rule(chain: &str, expressions: Vec<Expression>, out: &mut Vec<u8>) {
    const NFT_MSG_NEWRULE: u16 = 6;
    let mut list = Vec::new();
    for Expression(kind, data) in expressions {
        let expression = [(1, name(kind)), (NESTED | 2, attributes(&data))];
        put_attribute(&mut list, NESTED | 1, &attributes(&expression));
    }
    let flags = NLM_F_REQUEST_ACK | NLM_F_CREATE | NLM_F_APPEND;
    Message::new(SUBSYSTEM | NFT_MSG_NEWRULE, flags, &[NFPROTO_INET, 0, 0, 0])
        .attribute(1, &name(TABLE))
        .attribute(2, &name(chain))
        .attribute(NESTED | 4, &list)
        .end(out);
}

/// The rules, as nft(8) would write them:
///
/// ```text
/// table inet sandcell {
///     chain steer {
///         type filter hook prerouting priority mangle; policy drop;
///         udp dport 53 goto out
///         tcp dport 53 goto out
///         ip daddr 127.0.0.0/8 accept
///         ip daddr 10.0.2.100 accept
///         ip6 daddr ::1 accept
///         ip6 daddr fd00::100 accept
///         goto out
///     }
///     chain out {
///         meta mark != 1 tcp flags & (syn|ack) == syn tproxy ip to 127.0.0.1:1 log group 7 queue-threshold 1 drop
///         meta l4proto tcp tproxy ip to 127.0.0.1:1 accept
///         meta l4proto udp tproxy ip to 127.0.0.1:1 accept
///         (the same for ip6 and ::1)
///         meta l4proto tcp reject with tcp reset
///         reject with icmpx admin-prohibited
///     }
/// }
/// ```
///
/// The last two are for when there is no relay any more: connections are refused at once then, and do not hang.
fn rules() -> Vec<u8> {
    const NFT_MSG_NEWTABLE: u16 = 0;
    const NFT_MSG_NEWCHAIN: u16 = 3;
    const BATCH_BEGIN: u16 = 16;
    const BATCH_END: u16 = 17;
    const NF_INET_PRE_ROUTING: u32 = 0;
    const PRIORITY_MANGLE: i32 = -150;
    // Of a batch: the subsystem, as a number of 16 bits.
    let batch = [0, 0, 0, 10];
    let mut out = Vec::new();
    Message::new(BATCH_BEGIN, 1, &batch).end(&mut out);
    let flags = NLM_F_REQUEST_ACK | NLM_F_CREATE;
    let head = [NFPROTO_INET, 0, 0, 0];
    Message::new(SUBSYSTEM | NFT_MSG_NEWTABLE, flags, &head).attribute(1, &name(TABLE)).end(&mut out);
    let hook = attributes(&[(1, word(NF_INET_PRE_ROUTING)), (2, word(PRIORITY_MANGLE.cast_unsigned()))]);
    Message::new(SUBSYSTEM | NFT_MSG_NEWCHAIN, flags, &head)
        .attribute(1, &name(TABLE))
        .attribute(3, &name(STEER))
        .attribute(NESTED | 4, &hook)
        .attribute(5, &word(NF_DROP.cast_unsigned()))
        .attribute(7, &name("filter"))
        .end(&mut out);
    Message::new(SUBSYSTEM | NFT_MSG_NEWCHAIN, flags, &head)
        .attribute(1, &name(TABLE))
        .attribute(3, &name(OUT))
        .end(&mut out);
    steered(&mut out);
    outward(&mut out);
    Message::new(BATCH_END, 1, &batch).end(&mut out);
    out
}

const META_MARK: u32 = 3;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const TCP: u8 = libc::IPPROTO_TCP as u8;
const UDP: u8 = libc::IPPROTO_UDP as u8;

fn steered(out: &mut Vec<u8>) {
    for protocol in [UDP, TCP] {
        let port = 53u16.to_be_bytes();
        let dns = vec![meta(META_L4PROTO), equal(&[protocol]), payload(TRANSPORT_HEADER, 2, 2), equal(&port)];
        rule(STEER, [dns, vec![verdict(NFT_GOTO, Some(OUT))]].into_iter().flatten().collect(), out);
    }
    let loopback6 = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let own: [(u8, u32, &[u8]); 4] =
        [(AF_INET, 16, &[127]), (AF_INET, 16, &OWN_IPV4), (AF_INET6, 24, &loopback6), (AF_INET6, 24, &OWN_IPV6)];
    for (family, offset, address) in own {
        let of = payload(NETWORK_HEADER, offset, address.len() as u32);
        rule(STEER, vec![meta(META_NFPROTO), equal(&[family]), of, equal(address), verdict(NF_ACCEPT, None)], out);
    }
    rule(STEER, vec![verdict(NFT_GOTO, Some(OUT))], out);
}

fn outward(out: &mut Vec<u8>) {
    const SYN: u8 = 2;
    const SYN_ACK: u8 = 0x12;
    const NFT_REJECT_TCP_RST: u32 = 1;
    const NFT_REJECT_ICMPX: u32 = 2;
    const ADMIN_PROHIBITED: u8 = 3;
    for family in [AF_INET, AF_INET6] {
        let of = || vec![meta(META_NFPROTO), equal(&[family]), meta(META_L4PROTO)];
        let unmarked = vec![equal(&[TCP]), meta(META_MARK), compare(1, &MARK.to_ne_bytes())];
        let first = vec![payload(TRANSPORT_HEADER, 13, 1), masked(SYN_ACK), equal(&[SYN])];
        let held = vec![log(), verdict(NF_DROP, None)];
        let gate = [of(), unmarked, first, proxy(family).into(), held];
        rule(OUT, gate.into_iter().flatten().collect(), out);
        for protocol in [TCP, UDP] {
            let all = [of(), vec![equal(&[protocol])], proxy(family).into(), vec![verdict(NF_ACCEPT, None)]];
            rule(OUT, all.into_iter().flatten().collect(), out);
        }
    }
    rule(OUT, vec![meta(META_L4PROTO), equal(&[TCP]), reject(NFT_REJECT_TCP_RST, 0)], out);
    rule(OUT, vec![reject(NFT_REJECT_ICMPX, ADMIN_PROHIBITED)], out);
}

/// Has the first packets of connections logged to a socket.
fn log_requests() -> Vec<u8> {
    const NFULNL_MSG_CONFIG: u16 = 4 << 8 | 1;
    const NFULA_CFG_CMD: u16 = 1;
    const NFULA_CFG_MODE: u16 = 2;
    const BIND: u8 = 1;
    const COPY_PACKET: u8 = 2;
    /// Headers of IP and TCP, with all their options.
    const COPIED: u32 = 128;
    let [high, low] = LOG_GROUP.to_be_bytes();
    let mut out = Vec::new();
    let message = || Message::new(NFULNL_MSG_CONFIG, NLM_F_REQUEST_ACK, &[0, 0, high, low]);
    message().attribute(NFULA_CFG_CMD, &[BIND]).end(&mut out);
    let mode = [&word(COPIED)[..], &[COPY_PACKET, 0]].concat();
    message().attribute(NFULA_CFG_MODE, &mode).end(&mut out);
    out
}

/// Of the loopback.
fn address(family: u8, port: u16) -> Vec<u8> {
    let port = port.to_be_bytes();
    match family {
        AF_INET => [&libc::AF_INET.to_ne_bytes()[..2], &port, &[127, 0, 0, 1], &[0; 8]].concat(),
        _ => [&libc::AF_INET6.to_ne_bytes()[..2], &port, &[0; 4], &[0; 15], &[1], &[0; 4]].concat(),
    }
}

/// A step that opens a socket, which the relay gets in this role.
fn socket(family: i32, kind: i32, protocol: i32, role: u32, optional: bool) -> Steer<'static> {
    Steer::Socket {
        family: family.cast_unsigned(),
        kind: kind.cast_unsigned(),
        protocol: protocol.cast_unsigned(),
        role,
        optional: optional.into(),
    }
}

/// A step that sets an option of the socket just opened.
fn option(level: i32, name: i32, value: u32) -> Steer<'static> {
    Steer::Option { level: level.cast_unsigned(), name: name.cast_unsigned(), value }
}

/// The relay's sockets of one family.
fn sockets_of(family: u8, inbound: bool, push: &mut impl FnMut(Steer<'_>)) {
    let six = family == AF_INET6;
    let (tcp, udp) = if six { (ROLE_TCP6, ROLE_UDP6) } else { (ROLE_TCP4, ROLE_UDP4) };
    let (level, transparent, original) = if six {
        (libc::SOL_IPV6, libc::IPV6_TRANSPARENT, libc::IPV6_RECVORIGDSTADDR)
    } else {
        (libc::SOL_IP, libc::IP_TRANSPARENT, libc::IP_RECVORIGDSTADDR)
    };
    for (kind, role) in [(libc::SOCK_STREAM, tcp), (libc::SOCK_DGRAM, udp)] {
        push(socket(family.into(), kind | libc::SOCK_NONBLOCK, 0, role, six));
        push(option(level, transparent, 1));
        if six {
            push(option(libc::SOL_IPV6, libc::IPV6_V6ONLY, 1));
        }
        if kind == libc::SOCK_DGRAM {
            push(option(level, original, 1));
        }
        push(Steer::Bind { address: &address(family, STEERED_PORT) });
        if kind == libc::SOCK_STREAM {
            push(Steer::Listen {});
        }
    }
    if inbound {
        let (seed, door) = if six { (ROLE_SEED6, ROLE_DOOR6) } else { (ROLE_SEED4, ROLE_DOOR4) };
        push(socket(family.into(), libc::SOCK_STREAM, 0, seed, six));
        push(socket(family.into(), libc::SOCK_STREAM, 0, door, six));
        push(option(level, transparent, 1));
        push(Steer::Bind { address: &address(family, DOOR_PORT) });
        push(Steer::Listen {});
    }
    let role = if six { ROLE_RAW6 } else { ROLE_RAW4 };
    push(socket(family.into(), libc::SOCK_RAW | libc::SOCK_NONBLOCK, libc::IPPROTO_RAW, role, six));
    push(option(libc::SOL_SOCKET, libc::SO_MARK, MARK));
    if six {
        const IPV6_HDRINCL: i32 = 36;
        push(option(libc::SOL_IPV6, IPV6_HDRINCL, 1));
    }
}

/// What init does in the network namespace, and which sockets the relay gets. `inbound`: also those by which it makes more.
pub(crate) fn script(inbound: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut push = |step: Steer<'_>| step.write(&mut out);
    push(Steer::Stage { stage: stage::STEER_ROUTES });
    for (family, source) in [(AF_INET, &OWN_IPV4[..]), (AF_INET6, &OWN_IPV6[..])] {
        // Without IPv6 in the kernel, or where it is switched off, there is just none inside.
        push(socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE, ROLE_NONE, family == AF_INET6));
        push(Steer::Request { messages: &routes(family, source) });
    }
    if inbound {
        // A server for port 80 is no root here.
        push(Steer::Setting { path: c"net/ipv4/ip_unprivileged_port_start", value: b"0" });
    }
    push(Steer::Stage { stage: stage::STEER_NFTABLES });
    push(socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER, ROLE_NONE, false));
    push(Steer::Request { messages: &rules() });
    push(Steer::Stage { stage: stage::STEER_SOCKET });
    for family in [AF_INET, AF_INET6] {
        sockets_of(family, inbound, &mut push);
    }
    push(Steer::Stage { stage: stage::STEER_LOG });
    // Waits for the answers to its requests; the relay reads it without waiting.
    push(socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER, ROLE_SYNS, false));
    push(Steer::Request { messages: &log_requests() });
    out
}
