//! The system calls of the relay. After its start these are all that its filter lets through.

use sandcell_protocol::network::MOST_PUBLISHED;
pub use sandcell_raw::EpollEvent as Event;
use sandcell_raw::{self as raw, call, nr};

use crate::packet::{ipv4, mapped};

pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
pub const SOCK_STREAM: usize = 1;
pub const SOCK_DGRAM: usize = 2;
const SOCK_FLAGS: usize = raw::O_CLOEXEC | raw::O_NONBLOCK;
const SOL_SOCKET: i32 = 1;
const IPPROTO_TCP: i32 = 6;
const MSG_PEEK: usize = 2;
const MSG_TRUNC: usize = 0x20;
const MSG_DONTWAIT: usize = 0x40;
const MSG_NOSIGNAL: usize = 0x4000;
const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;

pub const EPOLLIN: u32 = 1;
pub const EPOLLOUT: u32 = 4;
pub const EPOLLERR: u32 = 8;
pub const EPOLLHUP: u32 = 0x10;
pub const EPOLLRDHUP: u32 = 0x2000;
pub const EPOLLET: u32 = 1 << 31;

pub const ECONNABORTED: i32 = 103;
pub const ECONNREFUSED: i32 = 111;
pub const ENETUNREACH: i32 = 101;
pub const EHOSTUNREACH: i32 = 113;
pub const ETIMEDOUT: i32 = 110;
pub const EINPROGRESS: i32 = 115;
pub const EMFILE: i32 = 24;

/// An address and a port.
pub type End = ([u8; 16], u16);

pub type Result<T> = core::result::Result<T, i32>;

/// struct sockaddr_in or sockaddr_in6, and how long it is.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Address {
    bytes: [u8; 28],
}

impl Address {
    pub const NONE: Address = Address { bytes: [0; 28] };

    pub fn new(address: &[u8; 16], port: u16) -> (Address, usize) {
        let mut bytes = [0; 28];
        bytes[2..4].copy_from_slice(&port.to_be_bytes());
        match ipv4(address) {
            Some(ipv4) => {
                bytes[..2].copy_from_slice(&AF_INET.to_ne_bytes());
                bytes[4..8].copy_from_slice(&ipv4);
                (Address { bytes }, 16)
            }
            None => {
                bytes[..2].copy_from_slice(&AF_INET6.to_ne_bytes());
                bytes[8..24].copy_from_slice(address);
                (Address { bytes }, 28)
            }
        }
    }

    pub fn of(bytes: &[u8]) -> Option<End> {
        let family = u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]);
        let port = u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]);
        let address = match family {
            AF_INET => mapped(bytes.get(4..8)?.try_into().ok()?),
            AF_INET6 => bytes.get(8..24)?.try_into().ok()?,
            _ => return None,
        };
        Some((address, port))
    }
}

pub fn family(address: &[u8; 16]) -> u16 {
    if ipv4(address).is_some() { AF_INET } else { AF_INET6 }
}

/// A socket of the host's network, for this kind of address.
pub fn socket(address: &[u8; 16], kind: usize) -> Result<i32> {
    // SAFETY: numbers only.
    unsafe { call!(nr::SOCKET, family(address), kind | SOCK_FLAGS, 0) }.map(|fd| fd as i32)
}

/// Connects, or begins to.
pub fn connect(fd: i32, address: &[u8; 16], port: u16) -> Result<()> {
    let (address, length) = Address::new(address, port);
    // SAFETY: an address as long as is said.
    match unsafe { call!(nr::CONNECT, fd, address.bytes.as_ptr(), length) } {
        Err(EINPROGRESS) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Undoes a connection: the socket is as if it were new.
pub fn disconnect(fd: i32) -> Result<()> {
    const AF_UNSPEC: [u8; 16] = [0; 16];
    // SAFETY: an address as long as is said.
    unsafe { call!(nr::CONNECT, fd, AF_UNSPEC.as_ptr(), AF_UNSPEC.len()) }.map(|_| ())
}

pub fn bind(fd: i32, address: &[u8; 16], port: u16) -> Result<()> {
    let (address, length) = Address::new(address, port);
    // SAFETY: an address as long as is said.
    unsafe { call!(nr::BIND, fd, address.bytes.as_ptr(), length) }.map(|_| ())
}

/// How long a socket that waits does so at most, in milliseconds.
pub fn set_patience(fd: i32, milliseconds: u64) {
    const SO_RCVTIMEO: i32 = 20;
    const SO_SNDTIMEO: i32 = 21;
    let time = [milliseconds / 1000, milliseconds % 1000 * 1000];
    for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
        // SAFETY: struct timeval.
        let _ = unsafe { call!(nr::SETSOCKOPT, fd, SOL_SOCKET, option, time.as_ptr(), 16) };
    }
}

pub fn accept(listener: i32) -> Result<i32> {
    // SAFETY: numbers only.
    unsafe { call!(nr::ACCEPT4, listener, 0, 0, SOCK_FLAGS) }.map(|fd| fd as i32)
}

fn name(number: usize, fd: i32) -> Option<End> {
    let mut address = Address::NONE;
    let mut length = 28u32;
    // SAFETY: room for an address, as is said.
    unsafe { call!(number, fd, address.bytes.as_mut_ptr(), &raw mut length) }.ok()?;
    Address::of(&address.bytes)
}

pub fn own_name(fd: i32) -> Option<End> {
    name(nr::GETSOCKNAME, fd)
}

pub fn peer_name(fd: i32) -> Option<End> {
    name(nr::GETPEERNAME, fd)
}

/// What went wrong with a socket, once; 0 is nothing.
pub fn error_of(fd: i32) -> i32 {
    const SO_ERROR: i32 = 4;
    let (mut error, mut length) = (0i32, 4u32);
    // SAFETY: room for a number, as is said.
    match unsafe { call!(nr::GETSOCKOPT, fd, SOL_SOCKET, SO_ERROR, &raw mut error, &raw mut length) } {
        Ok(_) => error,
        Err(errno) => errno,
    }
}

/// Small packets are sent at once: the other side of the relay has collected them already.
pub fn no_delay(fd: i32) {
    const TCP_NODELAY: i32 = 1;
    let one = 1i32;
    // SAFETY: a number of four bytes.
    let _ = unsafe { call!(nr::SETSOCKOPT, fd, IPPROTO_TCP, TCP_NODELAY, &raw const one, 4) };
}

/// The end of the socket will be a reset.
pub fn reset_on_close(fd: i32) {
    const SO_LINGER: i32 = 13;
    let linger = [1i32, 0];
    // SAFETY: struct linger.
    let _ = unsafe { call!(nr::SETSOCKOPT, fd, SOL_SOCKET, SO_LINGER, linger.as_ptr(), 8) };
}

pub fn shut_writing(fd: i32) {
    // SAFETY: numbers only.
    let _ = unsafe { call!(nr::SHUTDOWN, fd, 1) };
}

fn receive_with(fd: i32, buffer: &mut [u8], flags: usize) -> Result<usize> {
    // SAFETY: the buffer is as long as is said.
    unsafe { call!(nr::RECVFROM, fd, buffer.as_mut_ptr(), buffer.len(), flags | MSG_DONTWAIT, 0, 0) }
}

pub fn receive(fd: i32, buffer: &mut [u8]) -> Result<usize> {
    receive_with(fd, buffer, 0)
}

/// Reads, and leaves it there.
pub fn peek(fd: i32, buffer: &mut [u8]) -> Result<usize> {
    receive_with(fd, buffer, MSG_PEEK)
}

/// Takes so many bytes of a stream out without copying them: tcp(7), MSG_TRUNC.
pub fn discard(fd: i32, count: usize) -> Result<usize> {
    // SAFETY: with this flag nothing is written to the buffer of a stream.
    unsafe { call!(nr::RECVFROM, fd, 0, count, MSG_TRUNC | MSG_DONTWAIT, 0, 0) }
}

pub fn send(fd: i32, bytes: &[u8]) -> Result<usize> {
    // SAFETY: as many bytes as is said.
    unsafe { call!(nr::SENDTO, fd, bytes.as_ptr(), bytes.len(), MSG_NOSIGNAL | MSG_DONTWAIT, 0, 0) }
}

/// Puts a packet with its headers into the namespace of a raw socket.
pub fn send_packet(fd: i32, packet: &[u8], to: &[u8; 16]) -> Result<usize> {
    send_to(fd, packet, to, 0)
}

pub fn send_to(fd: i32, packet: &[u8], to: &[u8; 16], port: u16) -> Result<usize> {
    let (address, length) = Address::new(to, port);
    // SAFETY: as many bytes as is said, twice.
    unsafe {
        let flags = MSG_NOSIGNAL | MSG_DONTWAIT;
        call!(nr::SENDTO, fd, packet.as_ptr(), packet.len(), flags, address.bytes.as_ptr(), length)
    }
}

#[repr(C)]
struct MsgHdr {
    name: *mut u8,
    name_length: u32,
    vectors: *const [usize; 2],
    vector_count: usize,
    control: *mut u8,
    control_length: usize,
    flags: u32,
}

#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Room for a descriptor of each published port, and some.
const CONTROL: usize = 16 + 4 * (MOST_PUBLISHED + 8);

/// A message of several descriptors, or of a datagram with what came along.
struct Received {
    length: usize,
    name: Address,
    control: Control,
    control_length: usize,
}

impl Received {
    fn new(fd: i32, vectors: &[[usize; 2]], flags: usize) -> Result<Received> {
        let mut received =
            Received { length: 0, name: Address::NONE, control: Control([0; CONTROL]), control_length: 0 };
        let mut header = MsgHdr {
            name: received.name.bytes.as_mut_ptr(),
            name_length: 28,
            vectors: vectors.as_ptr(),
            vector_count: vectors.len(),
            control: received.control.0.as_mut_ptr(),
            control_length: CONTROL,
            flags: 0,
        };
        // SAFETY: the header describes buffers that live until the call returns; the vectors are the caller's.
        received.length = unsafe { call!(nr::RECVMSG, fd, &raw mut header, flags) }?;
        received.control_length = header.control_length.min(CONTROL);
        Ok(received)
    }

    /// What came along first: level, kind, data.
    fn along(&self) -> Option<(i32, i32, &[u8])> {
        const HEADER: usize = 16;
        let bytes = &self.control.0[..self.control_length];
        let length = usize::from_ne_bytes(bytes.get(..8)?.try_into().ok()?);
        let word = |at: usize| Some(i32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        Some((word(8)?, word(12)?, bytes.get(HEADER..length)?))
    }
}

/// Takes a datagram: its length, who sent it, and where it was meant to go.
pub fn receive_datagram(fd: i32, buffer: &mut [u8]) -> Result<(usize, Option<End>, Option<End>)> {
    const IP_ORIGDSTADDR: (i32, i32) = (0, 20);
    const IPV6_ORIGDSTADDR: (i32, i32) = (41, 74);
    let received = Received::new(fd, &[[buffer.as_mut_ptr() as usize, buffer.len()]], MSG_DONTWAIT)?;
    let target = received.along().and_then(|(level, kind, data)| {
        matches!((level, kind), IP_ORIGDSTADDR | IPV6_ORIGDSTADDR).then(|| Address::of(data)).flatten()
    });
    Ok((received.length, Address::of(&received.name.bytes), target))
}

/// Waits for a message with descriptors; how long it is, and how many came. None where the other side is gone.
pub fn receive_descriptors(fd: i32, head: &mut [u8; 16], buffer: &mut [u8], fds: &mut [i32]) -> Option<(usize, usize)> {
    const SOL_SCM_RIGHTS: (i32, i32) = (1, 1);
    let vectors = [[head.as_mut_ptr() as usize, head.len()], [buffer.as_mut_ptr() as usize, buffer.len()]];
    let received = loop {
        match Received::new(fd, &vectors, MSG_CMSG_CLOEXEC) {
            Err(raw::EINTR) => {}
            other => break other.ok().filter(|received| received.length >= head.len())?,
        }
    };
    let mut count = 0;
    if let Some((level, kind, data)) = received.along()
        && (level, kind) == SOL_SCM_RIGHTS
    {
        for (place, bytes) in fds.iter_mut().zip(data.chunks_exact(4)) {
            *place = i32::from_ne_bytes(bytes.try_into().unwrap_or_default());
            count += 1;
        }
    }
    Some((received.length - head.len(), count))
}

pub fn epoll_create() -> Result<i32> {
    // SAFETY: numbers only.
    unsafe { call!(nr::EPOLL_CREATE1, raw::O_CLOEXEC) }.map(|fd| fd as i32)
}

fn epoll_control(epoll: i32, operation: usize, fd: i32, events: u32, data: u64) -> Result<()> {
    let event = Event { events, data };
    // SAFETY: struct epoll_event.
    unsafe { call!(nr::EPOLL_CTL, epoll, operation, fd, &raw const event) }.map(|_| ())
}

pub fn watch(epoll: i32, fd: i32, events: u32, data: u64) -> Result<()> {
    epoll_control(epoll, 1, fd, events, data)
}

/// Tells anew of what there is to tell already.
pub fn watch_again(epoll: i32, fd: i32, events: u32, data: u64) -> Result<()> {
    epoll_control(epoll, 3, fd, events, data)
}

/// `timeout` in milliseconds; -1 is for ever.
pub fn wait(epoll: i32, events: &mut [Event], timeout: i32) -> usize {
    raw::epoll_wait(epoll, events, timeout).unwrap_or(0)
}

/// Milliseconds of the monotonic clock.
pub fn now() -> u64 {
    let mut time = [0u64; 2];
    // SAFETY: struct timespec.
    let _ = unsafe { call!(nr::CLOCK_GETTIME, 1, time.as_mut_ptr()) };
    time[0] * 1000 + time[1] / 1_000_000
}

/// A number that nobody can guess.
pub fn random() -> u16 {
    let mut bytes = [0u8; 2];
    // SAFETY: room for two bytes.
    let _ = unsafe { call!(nr::GETRANDOM, bytes.as_mut_ptr(), 2, 0) };
    u16::from_ne_bytes(bytes)
}

/// Whether an address belongs to this host: then what goes there comes from there.
pub fn is_own(address: &[u8; 16]) -> bool {
    let Ok(fd) = socket(address, SOCK_DGRAM) else { return true };
    let own = connect(fd, address, 9).is_ok() && own_name(fd).is_none_or(|(source, _)| source == *address);
    raw::close(fd);
    own
}

/// Whether there is a way to the internet by IPv6.
pub fn has_ipv6() -> bool {
    const SOMEWHERE: [u8; 16] = [0x26, 0x06, 0x47, 0, 0x47, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11, 0x11];
    let Ok(fd) = socket(&SOMEWHERE, SOCK_DGRAM) else { return false };
    let reachable = connect(fd, &SOMEWHERE, 53).is_ok();
    raw::close(fd);
    reachable
}
