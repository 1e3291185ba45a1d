//! The user network: what init does in the sandbox's network namespace, what the relay is told, and the table in which the
//! relay keeps account of connections.

use crate::{CStr, Field, Malformed, Reader};
#[cfg(feature = "write")]
use alloc::vec::Vec;

records! {
    /// One thing to do in the new network namespace, in this order. Requests and options go to the socket that was opened last.
    Steer {
        /// Opens a socket. `role`: what the relay gets it as, or `ROLE_NONE`. `optional`: where it cannot be had, or
        /// something with it fails, it is left out (IPv6 may be switched off).
        Socket = 1 { family: u32, kind: u32, protocol: u32, role: u32, optional: u32 }
        /// Sets an option to a 32-bit number.
        Option = 2 { level: u32, name: u32, value: u32 }
        Bind = 3 { address: &'a [u8] }
        Listen = 4 {}
        /// Sends messages to netlink(7); each error that the kernel answers with is one.
        Request = 5 { messages: &'a [u8] }
        /// What a failure from here on is told as: a number of `stage`.
        Stage = 6 { stage: u32 }
        /// Writes a setting of the namespace beneath /proc/sys, where it may be written.
        Setting = 7 { path: &'a CStr, value: &'a [u8] }
    }
}

/// Init closes it when the script is done.
pub const ROLE_NONE: u32 = 0;
/// Takes over TCP connections, by IPv4 and IPv6.
pub const ROLE_TCP4: u32 = 1;
pub const ROLE_TCP6: u32 = 2;
/// Takes all UDP.
pub const ROLE_UDP4: u32 = 3;
pub const ROLE_UDP6: u32 = 4;
/// Puts whole packets into the namespace.
pub const ROLE_RAW4: u32 = 5;
pub const ROLE_RAW6: u32 = 6;
/// Tells of the first packet of each TCP connection.
pub const ROLE_SYNS: u32 = 7;
/// Connects to the door of its kind, for one more socket of the namespace: see `inbound.rs` of the relay.
pub const ROLE_SEED4: u32 = 8;
pub const ROLE_SEED6: u32 = 9;
/// Accepts what the seed of its kind connects.
pub const ROLE_DOOR4: u32 = 10;
pub const ROLE_DOOR6: u32 = 11;
/// The highest.
pub const ROLES: usize = 11;

/// The one port on which the sockets of the relay listen; nobody has to name it.
pub const STEERED_PORT: u16 = 1;
/// Where the doors are, beside it.
pub const DOOR_PORT: u16 = 2;
/// Marks packets that the relay has let through.
pub const MARK: u32 = 1;
/// The group of nfnetlink_log.
pub const LOG_GROUP: u16 = 7;
/// The sandbox's own addresses, besides those of the loopback.
pub const OWN_IPV4: [u8; 4] = [10, 0, 2, 100];
pub const OWN_IPV6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// The host, as seen from inside: `host.containers.internal`, and clients of published ports that have no other address.
pub const HOST_IPV4: [u8; 4] = [169, 254, 1, 2];
pub const HOST_IPV6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
pub const HOST_NAME: &str = "host.containers.internal";

records! {
    /// What the relay is told of the policy. Addresses have 16 bytes; those of IPv4 are written as ::ffff:a.b.c.d.
    Relay {
        /// The filter of its system calls.
        Filter = 1 { program: &'a [u8] }
        /// The public internet may be reached.
        Public = 2 {}
        /// An address rule. `rule`: its number for reports.
        Net = 3 { rule: u32, allow: u32, address: &'a [u8], prefix: u32, first: u32, last: u32, protocols: u32 }
        /// A name rule: the name in lower case without a dot at the end, or `*.` and a name for what is below it.
        Host = 4 { rule: u32, allow: u32, name: &'a [u8], first: u32, last: u32, protocols: u32 }
        /// Where to ask for names.
        Server = 5 { address: &'a [u8] }
        /// A name that the host knows by itself: /etc/hosts.
        Known = 6 { name: &'a [u8], address: &'a [u8] }
        /// A port of the host's own 127.0.0.1 that may be reached at `HOST_IPV4`. `rule`: as above.
        HostPort = 7 { rule: u32, port: u32, protocol: u32 }
        /// A published port: of the sandbox, for the next of the descriptors that came with the policy.
        Publish = 8 { port: u32, protocol: u32 }
        /// Connections go by this proxy. `kind`: one of `PROXY_`.
        Proxy = 9 { address: &'a [u8], port: u32, kind: u32 }
    }
}

pub const PROXY_HTTP: u32 = 1;
pub const PROXY_SOCKS5: u32 = 2;
/// With a proxy, names lead to addresses of 198.18.0.0/15, which nobody has.
pub const STAND_INS: [u8; 2] = [198, 18];

/// Bits of `protocols`.
pub const TCP: u32 = 1;
pub const UDP: u32 = 2;
/// With `TCP`: also what does not begin with TLS on port 443.
pub const PLAIN: u32 = 4;

/// How many records of the policy the relay takes.
pub const MOST_RULES: usize = 1024;

/// How many ports may be published.
pub const MOST_PUBLISHED: usize = 64;

/// From the library to the relay, once: with the socket from init, the table, and a socket for each published port, in this order.
pub const RELAY_SETUP: u32 = 4;
/// From init to the relay, once: `value` is how many descriptors come with it; their roles follow as 32-bit numbers.
pub const RELAY_SOCKETS: u32 = 5;

/// In the `value` of `control::SETUP`: the last descriptor is a socket to the relay.
pub const WITH_RELAY: u32 = 1 << 31;

/// A connection, or something like it, of which account is kept. Numbers are the machine's own.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub address: [u8; 16],
    pub port: u16,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// `VERDICT_`.
    pub verdict: u8,
    /// `WHY_`.
    pub why: u8,
    pub name_length: u8,
    /// What the peer answered where it could not be reached.
    pub errno: u16,
    /// The number of the rule that decided, or `NO_RULE`; of a published port, with `VERDICT_INBOUND`.
    pub rule: u32,
    pub unused: u32,
    pub count: u64,
    /// Bytes to the peer and from it.
    pub sent: u64,
    pub received: u64,
    pub name: [u8; 256],
}

/// How many of them there are; what comes later is counted only.
pub const ENTRIES: usize = 256;

/// The table, shared by the relay, which writes, and the library, which reads.
#[repr(C)]
pub struct Table {
    pub used: u32,
    pub unused: u32,
    /// Connections and refusals for which there was no room.
    pub more: u64,
    pub entries: [Entry; ENTRIES],
}

pub const NO_RULE: u32 = u32::MAX;

pub const VERDICT_ALLOWED: u8 = 1;
pub const VERDICT_REFUSED: u8 = 2;
/// Allowed, but the peer could not be reached.
pub const VERDICT_FAILED: u8 = 3;
/// To a published port.
pub const VERDICT_INBOUND: u8 = 4;

pub const WHY_NONE: u8 = 0;
/// A rule denies it.
pub const WHY_DENIED: u8 = 1;
/// No rule allows it.
pub const WHY_UNLISTED: u8 = 2;
/// Not an address of the public internet.
pub const WHY_PRIVATE: u8 = 3;
/// A service with credentials of the machine.
pub const WHY_METADATA: u8 = 4;
/// An address of the host itself.
pub const WHY_HOST: u8 = 5;
/// More connections at once than the relay has room or descriptors for.
pub const WHY_FULL: u8 = 6;
/// The name in the TLS handshake is not one that was allowed for this address.
pub const WHY_TLS: u8 = 7;
/// The name leads to an address that names may not lead to.
pub const WHY_NAME_PRIVATE: u8 = 8;
/// Datagrams do not go by the upstream proxy.
pub const WHY_PROXY: u8 = 9;
