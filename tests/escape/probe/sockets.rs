//! Socket families: most have no namespace, or kernel code that few have read.

use crate::check::{Check, Verdict, p1, p2};
use crate::sys::{call, denied};
use libc::{SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM};

const AF_SMC: i32 = 43;
const AF_KCM: i32 = 41;
const AF_QIPCRTR: i32 = 42;
const AF_XDP: i32 = 44;
const AF_MCTP: i32 = 45;

pub const CHECKS: &[Check] = &[
    p1("sock.vsock", "AF_VSOCK has no namespace", "AF_VSOCK", |_| socket(libc::AF_VSOCK, SOCK_STREAM, 0)),
    p1("sock.vsock_dgram", "AF_VSOCK has no namespace", "AF_VSOCK, datagrams", |_| {
        socket(libc::AF_VSOCK, SOCK_DGRAM, 0)
    }),
    p1("sock.vsock_highbits", "CVE-2019-10063 class", "AF_VSOCK with high bits set", |_| {
        denied(call!(libc::SYS_socket, libc::AF_VSOCK as u64 | 1 << 32, SOCK_STREAM, 0))
    }),
    p1("sock.alg", "CVE-2019-8912", "AF_ALG", |_| socket(libc::AF_ALG, SOCK_SEQPACKET, 0)),
    p1("sock.packet", "CVE-2020-14386", "AF_PACKET", |_| socket(libc::AF_PACKET, SOCK_RAW, 0)),
    p1("sock.xdp", "AF_XDP", "AF_XDP", |_| socket(AF_XDP, SOCK_RAW, 0)),
    p1("sock.tipc", "CVE-2021-43267", "AF_TIPC", |_| socket(libc::AF_TIPC, SOCK_STREAM, 0)),
    p1("sock.bluetooth", "CVE-2020-12351", "AF_BLUETOOTH", |_| socket(libc::AF_BLUETOOTH, SOCK_RAW, 1)),
    p1("sock.can", "CVE-2021-3609", "AF_CAN", |_| socket(libc::AF_CAN, SOCK_RAW, 1)),
    p1("sock.key", "IPsec keys, kernel surface", "AF_KEY", |_| socket(libc::AF_KEY, SOCK_RAW, 2)),
    p1("sock.rds", "CVE-2018-5333", "AF_RDS", |_| socket(libc::AF_RDS, SOCK_SEQPACKET, 0)),
    p1("sock.smc", "AF_SMC", "AF_SMC", |_| socket(AF_SMC, SOCK_STREAM, 0)),
    p1("sock.kcm", "AF_KCM", "AF_KCM", |_| socket(AF_KCM, SOCK_SEQPACKET, 0)),
    p1("sock.qipcrtr", "CVE-2021-29647", "AF_QIPCRTR", |_| socket(AF_QIPCRTR, SOCK_DGRAM, 0)),
    p2("sock.mctp", "kernel surface", "AF_MCTP", |_| socket(AF_MCTP, SOCK_DGRAM, 0)),
    p2("sock.nfc", "CVE-2021-23134", "AF_NFC", |_| socket(39, SOCK_SEQPACKET, 0)),
    p2("sock.ax25", "CVE-2022-1204", "AF_AX25", |_| socket(libc::AF_AX25, SOCK_DGRAM, 0)),
    p2("sock.sctp", "CVE-2019-8956", "SCTP", |_| socket(libc::AF_INET, SOCK_STREAM, libc::IPPROTO_SCTP)),
    p2("sock.dccp", "CVE-2017-6074", "DCCP", |_| socket(libc::AF_INET, 6, libc::IPPROTO_DCCP)),
    p2("sock.mptcp", "kernel surface", "MPTCP", |_| socket(libc::AF_INET, SOCK_STREAM, 262)),
    p1("sock.nl_netfilter", "CVE-2023-32233, CVE-2024-1086", "netlink: netfilter", |_| netlink(12)),
    p1("sock.nl_xfrm", "CVE-2017-7184", "netlink: XFRM", |_| netlink(6)),
    p1("sock.nl_audit", "log forged or read", "netlink: audit", |_| netlink(9)),
    p1("sock.nl_uevent", "host devices seen", "netlink: kobject_uevent", |_| netlink(15)),
    p1("sock.nl_crypto", "CVE-2018-19854", "netlink: crypto", |_| netlink(21)),
    p1("sock.nl_sock_diag", "sockets of others listed", "netlink: sock_diag", |_| netlink(4)),
    p1("sock.nl_connector", "processes of the host watched", "netlink: connector", |_| netlink(11)),
    p1("sock.nl_scsi", "kernel surface", "netlink: SCSI transport", |_| netlink(18)),
    p2("sock.nl_generic", "kernel surface", "netlink: generic", |_| netlink(16)),
    p2("sock.nl_rdma", "kernel surface", "netlink: RDMA", |_| netlink(20)),
];

fn socket(family: i32, kind: i32, protocol: i32) -> Verdict {
    denied(call!(libc::SYS_socket, family, kind | libc::SOCK_CLOEXEC, protocol))
}

fn netlink(protocol: i32) -> Verdict {
    socket(libc::AF_NETLINK, SOCK_RAW, protocol)
}
