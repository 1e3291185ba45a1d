//! The network: nothing of the host's, not even its loopback.

use crate::check::{Check, Facts, Held, NotApplicable, Open, Verdict, not_planted, p1, p2};
use crate::sys::{call, denied, denied_io, errno, name};
use std::fs;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixStream};
use std::time::Duration;

pub const CHECKS: &[Check] =
    &[
        p1("net.ifaces", "a shared network namespace", "an interface beyond the loopback", |_| {
            let text = match fs::read_to_string("/proc/net/dev") {
                Ok(text) => text,
                Err(e) => return Held(e.to_string()),
            };
            let names = text.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim);
            let others: Vec<&str> = names.filter(|name| *name != "lo" && !own_kind(name)).collect();
            if others.is_empty() { Held("only lo".into()) } else { Open(others.join(" ")) }
        }),
        p1("net.host_loopback", "services of the host on 127.0.0.1", "connects to the caller's listener", |f| {
            tcp(f, "tcp_loopback")
        }),
        p1("net.host_loopback6", "services of the host on ::1", "the same on ::1", |f| tcp(f, "tcp_loopback6")),
        p1("net.host_ip", "services of the host", "connects to the host's own address", |f| tcp(f, "tcp_host")),
        p1("net.udp", "resolvers of the host", "a datagram reaches the caller's socket", |f| {
            let Some(address) = f.get("udp_loopback").and_then(|a| a.parse::<SocketAddr>().ok()) else {
                return not_planted("datagram socket");
            };
            let answer = UdpSocket::bind("127.0.0.1:0").and_then(|socket| {
                socket.connect(address)?;
                socket.set_read_timeout(Some(Duration::from_millis(50)))?;
                socket.send(b"?")?;
                // Nobody there: the kernel answers with a refusal at once.
                socket.send(b"?")
            });
            denied_io(answer)
        }),
        p1("net.route_out", "a way out", "a datagram to an outside address has a route", |_| {
            // A connected datagram socket sends nothing: it only asks for a route.
            let answer = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("198.51.100.1:9"));
            denied_io(answer)
        }),
        p1("net.abstract", "CVE-2020-15257", "connects to an abstract socket of the caller", |f| {
            let Some(label) = f.get("abstract") else { return not_planted("abstract socket") };
            denied_io(UnixAddr::from_abstract_name(label).and_then(|address| UnixStream::connect_addr(&address)))
        }),
        p1("net.abstract_datagram", "CVE-2020-15257", "sends to an abstract datagram socket of the caller", |f| {
            let Some(label) = f.get("abstract_datagram") else { return not_planted("abstract socket") };
            let sent = UnixDatagram::unbound().and_then(|socket| {
                socket.connect_addr(&UnixAddr::from_abstract_name(label)?)?;
                socket.send(b"?")
            });
            denied_io(sent)
        }),
        p1("net.proc_unix", "CVE-2020-15257", "sockets of the caller in /proc/net/unix", |f| {
            listed("/proc/net/unix", f.get("abstract"))
        }),
        p1("net.proc_tcp", "services of the host listed", "listeners of the caller in /proc/net/tcp", |f| {
            let port = f.get("tcp_loopback").and_then(|a| a.parse::<SocketAddr>().ok()).map(|a| a.port());
            listed("/proc/net/tcp", port.map(|port| format!("0100007F:{port:04X}")).as_deref())
        }),
        p1("net.dump_routes", "the network of the host mapped", "routes beyond the loopback's", |_| {
            match fs::read_to_string("/proc/net/route") {
                Ok(text) if text.lines().count() > 1 => Open(format!("{} routes", text.lines().count() - 1)),
                Ok(_) => Held("none".into()),
                Err(e) => Held(e.to_string()),
            }
        }),
        p2("net.arp", "neighbours of the host", "entries in /proc/net/arp", |_| {
            match fs::read_to_string("/proc/net/arp") {
                Ok(text) if text.lines().count() > 1 => Open(format!("{} neighbours", text.lines().count() - 1)),
                Ok(_) => Held("none".into()),
                Err(e) => Held(e.to_string()),
            }
        }),
        p1("net.low_port", "services of the host impersonated", "listens on port 80 of the host's addresses", |f| {
            // In a network of its own the port is nobody's loss.
            let own = fs::read_link("/proc/self/ns/net").map(|l| l.to_string_lossy().into_owned()).unwrap_or_default();
            if f.get("ns.net").is_some_and(|host| host != own) {
                return Held("a network of its own".into());
            }
            denied_io(std::net::TcpListener::bind("127.0.0.1:80"))
        }),
        p2("net.vsock_listen", "AF_VSOCK has no namespace", "listens on AF_VSOCK for the host", vsock_listen),
    ];

fn own_kind(name: &str) -> bool {
    ["tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0"].contains(&name)
}

fn tcp(facts: &Facts, which: &str) -> Verdict {
    match facts.get(which).and_then(|a| a.parse::<SocketAddr>().ok()) {
        Some(address) => denied_io(TcpStream::connect_timeout(&address, Duration::from_millis(300))),
        None => not_planted("listener there"),
    }
}

fn listed(path: &str, wanted: Option<&str>) -> Verdict {
    let Some(wanted) = wanted else { return not_planted("socket") };
    match fs::read_to_string(path) {
        Ok(text) if text.contains(wanted) => Open(format!("{wanted} is listed")),
        Ok(text) => Held(format!("not among {} lines", text.lines().count())),
        Err(e) => Held(e.to_string()),
    }
}

fn vsock_listen(facts: &Facts) -> Verdict {
    let _ = facts;
    let socket = match call!(libc::SYS_socket, libc::AF_VSOCK, libc::SOCK_STREAM, 0) {
        Ok(fd) => fd,
        Err(e) => return Held(name(e)),
    };
    // SAFETY: an all-zero `sockaddr_vm` is valid.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as u16;
    address.svm_cid = libc::VMADDR_CID_ANY;
    address.svm_port = libc::VMADDR_PORT_ANY;
    match call!(libc::SYS_bind, socket, &raw const address, size_of_val(&address)) {
        Ok(_) => denied(call!(libc::SYS_listen, socket, 1)),
        Err(_) => NotApplicable(format!("bind: {}", name(errno()))),
    }
}
