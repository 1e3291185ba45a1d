//! The sockets of published ports, on the host: bound before anything is started, and then the relay's.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, sockopt};

use crate::error::{Failure, Result};
use crate::policy::PublishRule;
use crate::report::Published;

/// As many as wait with other servers; the kernel lowers it to its own limit.
const BACKLOG: i32 = 4096;

/// What is published, with the ports that were chosen, and the sockets in the same order.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    pub sockets: Vec<OwnedFd>,
    pub published: Vec<Published>,
}

impl Ports {
    pub(crate) fn open(rules: &[PublishRule]) -> Result<Ports> {
        let mut ports = Ports::default();
        for rule in rules {
            let (socket, host_port) = open(rule).map_err(|errno| explain(rule, errno))?;
            ports.sockets.push(socket);
            ports.published.push(Published {
                address: rule.address,
                host_port,
                cell_port: rule.cell_port,
                protocol: if rule.udp { "udp" } else { "tcp" },
                connections: 0,
                bytes_sent: 0,
                bytes_received: 0,
            });
        }
        Ok(ports)
    }
}

fn open(rule: &PublishRule) -> nix::Result<(OwnedFd, u16)> {
    let family = if rule.address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = if rule.udp { SockType::Datagram } else { SockType::Stream };
    let fd = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if rule.address.is_ipv6() {
        // `::` is IPv6 alone: 0.0.0.0 is said for itself.
        socket::setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    if !rule.udp {
        // What remains of connections of before does not keep the port.
        socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(rule.address, rule.host_port)))?;
    if !rule.udp {
        socket::listen(&fd, Backlog::new(BACKLOG)?)?;
    }
    let name: SockaddrStorage = socket::getsockname(fd.as_raw_fd())?;
    let v4 = name.as_sockaddr_in().map(socket::SockaddrIn::port);
    let port = v4.or(name.as_sockaddr_in6().map(socket::SockaddrIn6::port)).ok_or(Errno::EAFNOSUPPORT)?;
    Ok((crate::sys::lift(fd).map_err(|_| Errno::EMFILE)?, port))
}

fn explain(rule: &PublishRule, errno: Errno) -> crate::Error {
    let hint = match errno {
        Errno::EADDRINUSE => "Something listens there: end it, choose another port of the host, or 0 for a free one.",
        Errno::EACCES => {
            "Choose a port above 1023, or let users have lower ones: sysctl net.ipv4.ip_unprivileged_port_start."
        }
        Errno::EADDRNOTAVAIL => "Choose an address that the host has: 127.0.0.1, 0.0.0.0, or one of `ip addr`.",
        _ => "Choose another address or port of the host.",
    };
    Failure::new("publish", rule.to_string(), "cannot listen at this address and port of the host")
        .errno(errno as i32)
        .hint(hint)
        .setup()
}
