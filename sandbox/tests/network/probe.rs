//! What programs try: the test binary itself, shown inside, carries out a list of attempts and says what came of each.
#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};

/// Where a list of attempts is, one behind the other with `;` between.
pub const TRIES: &str = "SANDCELL_TEST_TRIES";
const TIME: Duration = Duration::from_secs(5);

/// What came of one attempt: `ok`, the name of an error, or what was answered.
pub fn attempt(words: &[&str]) -> String {
    let said = match words {
        ["tcp", address, port] => tcp(address, port, b"hello"),
        ["bulk", address, port, bytes] => bulk(address, port, bytes.parse().unwrap()),
        ["udp", address, port] => udp(address, port),
        ["dns", server, name, kind] => dns(server, name, kind.parse().unwrap()),
        ["dns-tcp", server, name] => dns_tcp(server, name),
        ["host", name, port] => host(name, port),
        ["tls", address, port, name] => tcp(address, port, &hello(name, false)),
        ["tls-split", address, port, name] => tcp(address, port, &hello(name, true)),
        ["tls-slow", address, port, name] => slowly(address, port, &hello(name, false)),
        ["from", source, address, port] => from(source, address, port),
        ["unspec", first, second, port] => unspec(first, second, port),
        ["fastopen", address, port] => fast_open(address, port),
        ["stall", address, port] => stall(address, port),
        ["hold", address, port, count] => hold(address, port, count.parse().unwrap()),
        ["reset", address, port] => reset(address, port),
        ["socket", family, kind] => opened(family.parse().unwrap(), kind.parse().unwrap()),
        ["option", name] => option(name),
        ["route", kind] => route(kind.parse().unwrap()),
        ["flush"] => flush(),
        ["own"] => own(),
        ["serve", port] => crate::ports::serve(port.parse().unwrap()),
        other => panic!("{other:?}"),
    };
    said.unwrap_or_else(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(errno) => format!("{errno:?}"),
        None => format!("{:?}", error.kind()),
    })
}

type Said = std::io::Result<String>;

fn ok() -> Said {
    Ok("ok".to_owned())
}

fn address(text: &str, port: &str) -> SocketAddr {
    (text.parse::<IpAddr>().unwrap(), port.parse().unwrap()).into()
}

/// Sends something that comes back.
fn exchange(mut stream: TcpStream, bytes: &[u8]) -> Said {
    stream.set_read_timeout(Some(TIME))?;
    stream.write_all(bytes)?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back)?;
    if back == bytes { ok() } else { Ok("other bytes".to_owned()) }
}

fn tcp(to: &str, port: &str, bytes: &[u8]) -> Said {
    exchange(TcpStream::connect_timeout(&address(to, port), TIME)?, bytes)
}

/// Both ways at once, and the end of one side before the other.
fn bulk(to: &str, port: &str, bytes: usize) -> Said {
    let mut stream = TcpStream::connect_timeout(&address(to, port), TIME)?;
    let byte = |at: usize| (at.wrapping_mul(2_654_435_761) >> 7) as u8;
    let mut writing = stream.try_clone()?;
    let writer = std::thread::spawn(move || {
        let all: Vec<u8> = (0..bytes).map(byte).collect();
        let written = writing.write_all(&all);
        written.and_then(|()| writing.shutdown(std::net::Shutdown::Write))
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    writer.join().unwrap()?;
    let right = back.len() == bytes && back.iter().enumerate().all(|(at, found)| *found == byte(at));
    Ok(if right { "ok".to_owned() } else { format!("{} of {bytes} bytes", back.len()) })
}

fn udp(to: &str, port: &str) -> Said {
    let to = address(to, port);
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.send(&[7; 1200])?;
    let mut back = [0; 2000];
    let length = socket.recv(&mut back)?;
    if back[..length] == [7; 1200] { ok() } else { Ok("other bytes".to_owned()) }
}

fn question(name: &str, kind: u8) -> Vec<u8> {
    let mut message = vec![9, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, kind, 0, 1]);
    message
}

/// The code and the number of answers.
fn answered(message: &[u8]) -> String {
    format!("{} {}", message[3] & 15, message[7])
}

fn dns(server: &str, name: &str, kind: u8) -> Said {
    let to = address(server, "53");
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(TIME))?;
    socket.send(&question(name, kind))?;
    let mut back = [0; 2000];
    let length = socket.recv(&mut back)?;
    Ok(answered(&back[..length]))
}

/// Two questions on one connection.
fn dns_tcp(server: &str, name: &str) -> Said {
    let mut stream = TcpStream::connect_timeout(&address(server, "53"), TIME)?;
    stream.set_read_timeout(Some(TIME))?;
    let one = question(name, 1);
    let framed = [&(one.len() as u16).to_be_bytes()[..], &one].concat();
    stream.write_all(&[&framed[..], &framed].concat())?;
    let mut said = String::new();
    for _ in 0..2 {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut message = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut message)?;
        said = answered(&message);
    }
    Ok(said)
}

fn host(name: &str, port: &str) -> Said {
    let Ok(mut all) = (name, port.parse().unwrap()).to_socket_addrs() else { return Ok("no name".to_owned()) };
    let Some(first) = all.next() else { return Ok("no address".to_owned()) };
    exchange(TcpStream::connect_timeout(&first, TIME)?, b"hello")
}

/// The first message of TLS; in one record, or in two.
fn hello(name: &str, split: bool) -> Vec<u8> {
    let block = |bytes: usize, content: &[u8]| [&content.len().to_be_bytes()[8 - bytes..], content].concat();
    let list = block(2, &[&[0][..], &block(2, name.as_bytes())].concat());
    let extension = if name == "-" { Vec::new() } else { [&[0, 0][..], &block(2, &list)].concat() };
    let body = [&[3, 3][..], &[7; 32], &block(1, &[]), &block(2, &[0x13, 1]), &block(1, &[0]), &block(2, &extension)];
    let message = [&[1][..], &block(3, &body.concat())].concat();
    let record = |content: &[u8]| [&[22, 3, 1][..], &block(2, content)].concat();
    if split {
        let (one, two) = message.split_at(9);
        [record(one), record(two)].concat()
    } else {
        record(&message)
    }
}

/// Byte by byte, and each in a packet of its own.
fn slowly(to: &str, port: &str, bytes: &[u8]) -> Said {
    let mut stream = TcpStream::connect_timeout(&address(to, port), TIME)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIME))?;
    for byte in bytes {
        stream.write_all(&[*byte])?;
    }
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back)?;
    ok()
}

fn stream_socket(of: &SocketAddr) -> nix::Result<OwnedFd> {
    let family = if of.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    socket(family, SockType::Stream, SockFlag::empty(), None)
}

/// struct sockaddr_in or sockaddr_in6.
fn raw(of: SocketAddr) -> ([u8; 28], u32) {
    let mut bytes = [0; 28];
    bytes[2..4].copy_from_slice(&of.port().to_be_bytes());
    match of.ip() {
        IpAddr::V4(v4) => {
            bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            bytes[4..8].copy_from_slice(&v4.octets());
            (bytes, 16)
        }
        IpAddr::V6(v6) => {
            bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            bytes[8..24].copy_from_slice(&v6.octets());
            (bytes, 28)
        }
    }
}

fn point(socket: &impl AsRawFd, to: SocketAddr) -> nix::Result<()> {
    let (to, length) = raw(to);
    // SAFETY: an address as long as is said.
    Errno::result(unsafe { libc::connect(socket.as_raw_fd(), to.as_ptr().cast(), length) }).map(|_| ())
}

fn number_option(socket: &impl AsRawFd, level: i32, name: i32) -> nix::Result<()> {
    let one = 1i32;
    // SAFETY: a number of four bytes.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const one).cast(), 4) };
    Errno::result(set).map(|_| ())
}

/// With a source address that is not the sandbox's.
fn from(source: &str, to: &str, port: &str) -> Said {
    let to = address(to, port);
    let socket = stream_socket(&to)?;
    number_option(&socket, libc::SOL_IP, libc::IP_FREEBIND)?;
    let (own, length) = raw(address(source, "0"));
    // SAFETY: an address as long as is said.
    Errno::result(unsafe { libc::bind(socket.as_raw_fd(), own.as_ptr().cast(), length) })?;
    let stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    point(&stream, to)?;
    exchange(stream, b"hello")
}

/// A socket that was connected to something allowed is pointed elsewhere.
fn unspec(first: &str, second: &str, port: &str) -> Said {
    let (first, second) = (address(first, port), address(second, port));
    let socket = stream_socket(&first)?;
    point(&socket, first)?;
    let none = libc::sockaddr { sa_family: libc::AF_UNSPEC as u16, sa_data: [0; 14] };
    // SAFETY: an address as long as is said.
    Errno::result(unsafe { libc::connect(socket.as_raw_fd(), &raw const none, 16) })?;
    point(&socket, second)?;
    exchange(TcpStream::from(socket), b"hello")
}

/// Data in the first packet.
fn fast_open(to: &str, port: &str) -> Said {
    let to = address(to, port);
    let socket = stream_socket(&to)?;
    let (to, length) = raw(to);
    // SAFETY: bytes and an address as long as is said.
    let sent = unsafe {
        let fd = socket.as_raw_fd();
        libc::sendto(fd, b"hello".as_ptr().cast(), 5, libc::MSG_FASTOPEN, to.as_ptr().cast(), length)
    };
    Errno::result(sent)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIME))?;
    let mut back = [0; 5];
    stream.read_exact(&mut back)?;
    ok()
}

/// Sends and reads nothing, until nobody takes more; stays open.
fn stall(to: &str, port: &str) -> Said {
    let mut stream = TcpStream::connect_timeout(&address(to, port), TIME)?;
    stream.set_write_timeout(Some(Duration::from_millis(300)))?;
    let mut sum = 0;
    while let Ok(sent) = stream.write(&[5; 65536]) {
        sum += sent;
        if sum > 1 << 30 {
            return Ok("no end".to_owned());
        }
    }
    std::mem::forget(stream);
    ok()
}

/// So many connections at once, and how many of them there came to be.
fn hold(to: &str, port: &str, count: usize) -> Said {
    let all: Vec<_> = (0..count).filter_map(|_| TcpStream::connect_timeout(&address(to, port), TIME).ok()).collect();
    let held = all.len();
    drop(all);
    // The relay learns of their ends: then there is room again, and for more than one.
    let since = std::time::Instant::now();
    let connect = || TcpStream::connect_timeout(&address(to, port), TIME);
    while (0..10).filter_map(|_| connect().ok()).collect::<Vec<_>>().len() < 10 && since.elapsed() < TIME {
        std::thread::yield_now();
    }
    Ok(held.to_string())
}

/// Sends, and ends with a reset at once.
fn reset(to: &str, port: &str) -> Said {
    let mut stream = TcpStream::connect_timeout(&address(to, port), TIME)?;
    stream.write_all(&[1; 1000])?;
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream, sockopt::Linger, &linger)?;
    ok()
}

fn opened(family: i32, kind: i32) -> Said {
    let protocol = if kind == libc::SOCK_RAW && family != libc::AF_PACKET { libc::IPPROTO_RAW } else { 0 };
    // SAFETY: numbers only; the descriptor is new.
    let socket = Errno::result(unsafe { libc::socket(family, kind, protocol) })?;
    // SAFETY: see above.
    drop(unsafe { OwnedFd::from_raw_fd(socket) });
    ok()
}

fn option(name: &str) -> Said {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None)?;
    match name {
        "mark" => setsockopt(&socket, sockopt::Mark, &1)?,
        "transparent" => number_option(&socket, libc::SOL_IP, libc::IP_TRANSPARENT)?,
        "bind-device" => setsockopt(&socket, sockopt::BindToDevice, &"lo".into())?,
        other => panic!("{other}"),
    }
    ok()
}

/// A request of rtnetlink(7) of this kind: the answer's error.
fn netlink(protocol: i32, message: &[u8]) -> Said {
    // SAFETY: numbers only; the descriptor is new.
    let socket = Errno::result(unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol) })?;
    // SAFETY: see above.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    nix::unistd::write(&socket, message)?;
    let mut answer = [0; 4096];
    let length = nix::unistd::read(&socket, &mut answer)?;
    let error = answer[..length].get(16..20).map_or(0, |bytes| i32::from_ne_bytes(bytes.try_into().unwrap()));
    if error < 0 { Err(std::io::Error::from_raw_os_error(-error)) } else { ok() }
}

/// A route (24: makes one, 25: takes one away) for everything, in the main table.
fn route(kind: u16) -> Said {
    let mut message = vec![36, 0, 0, 0, 0, 0, 5, 4, 0, 0, 0, 0, 0, 0, 0, 0];
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&[2, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0, 8, 0, 4, 0, 1, 0, 0, 0]);
    netlink(libc::NETLINK_ROUTE, &message)
}

/// Takes all rules of nf_tables away.
fn flush() -> Said {
    let mut batch = vec![20, 0, 0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
    batch.extend_from_slice(&[20, 0, 0, 0, 2, 10, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    batch.extend_from_slice(&[20, 0, 0, 0, 17, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10]);
    netlink(libc::NETLINK_NETFILTER, &batch)
}

/// A server and a client inside, at every address that the sandbox has.
fn own() -> Said {
    for any in ["0.0.0.0:0", "[::]:0"] {
        let listener = std::net::TcpListener::bind(any)?;
        let port = listener.local_addr()?.port().to_string();
        std::thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                let mut bytes = [0; 5];
                let _ = connection.read_exact(&mut bytes).and_then(|()| connection.write_all(&bytes));
            }
        });
        let all =
            if any.starts_with('0') { ["127.0.0.1", "127.9.9.9", "10.0.2.100"] } else { ["::1", "fd00::100", "::1"] };
        for own in all {
            tcp(own, &port, b"hello")?;
        }
    }
    ok()
}

/// Inside: says what comes of each attempt.
pub fn inside() {
    let Ok(tries) = std::env::var(TRIES) else { return };
    for one in tries.split(';') {
        let words: Vec<_> = one.split_whitespace().collect();
        println!("={one}={}", attempt(&words));
    }
}
