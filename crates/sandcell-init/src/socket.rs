//! Messages and the descriptors that come with them: unix(7), SOCK_SEQPACKET.

use crate::rawsys::{self, call, nr};
use crate::wire::{Message, Reply, reply};

/// As many as the kernel passes in one message.
pub const MOST_DESCRIPTORS: usize = 253;
const CONTROL_BYTES: usize = 16 + 4 * MOST_DESCRIPTORS + 4;
const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const ECONNRESET: i32 = 104;
const MSG_NOSIGNAL: usize = 0x4000;
const MSG_DONTWAIT: usize = 0x40;
const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;

#[repr(C)]
struct MsgHdr {
    name: usize,
    name_length: u64,
    vectors: *const [usize; 2],
    vector_count: usize,
    control: *const u8,
    control_length: usize,
    flags: u64,
}

#[repr(C)]
struct ControlHeader {
    length: usize,
    level: i32,
    kind: i32,
}

#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// A message with a Plan or a request: in it, or in a memory file that comes with it.
pub struct Letter {
    pub message: Message,
    /// How many of the descriptors are in use; the first is that of the memory file, or -1.
    pub count: usize,
    /// Bytes in the buffer.
    length: usize,
}

/// Waits for a message as `receive` does; what follows it goes into the buffer.
pub fn receive_letter(socket: i32, fds: &mut [i32; MOST_DESCRIPTORS], buffer: &mut [u8]) -> Option<Letter> {
    let (message, count, length) = receive_into(socket, fds, buffer)?;
    if message.length > 0 {
        return Some(Letter { message, count, length });
    }
    fds.copy_within(..MOST_DESCRIPTORS - 1, 1);
    fds[0] = -1;
    Some(Letter { message, count: count + 1, length })
}

impl Letter {
    pub fn is_file(&self) -> bool {
        self.message.length > 0
    }

    /// The Plan or the request. `buffer`: the one that it was received into.
    pub fn open(&self, fds: &[i32], buffer: &'static [u8]) -> Result<&'static [u8], i32> {
        if self.is_file() { crate::map(fds[0], &self.message) } else { Ok(&buffer[..self.length]) }
    }
}

/// Waits for a message; `None` when the other side is gone. Descriptors beyond `fds` cannot come: the kernel passes
/// no more at once.
pub fn receive(socket: i32, fds: &mut [i32; MOST_DESCRIPTORS]) -> Option<(Message, usize)> {
    receive_into(socket, fds, &mut []).map(|(message, count, _)| (message, count))
}

/// The same with what follows the message: the length of that comes third.
pub fn receive_into(
    socket: i32,
    fds: &mut [i32; MOST_DESCRIPTORS],
    buffer: &mut [u8],
) -> Option<(Message, usize, usize)> {
    let mut message = Message::default();
    let mut control = Control([0; CONTROL_BYTES]);
    let vectors = [[&raw mut message as usize, size_of::<Message>()], [buffer.as_mut_ptr() as usize, buffer.len()]];
    let mut header = MsgHdr {
        name: 0,
        name_length: 0,
        vectors: vectors.as_ptr(),
        vector_count: 2,
        control: control.0.as_mut_ptr(),
        control_length: CONTROL_BYTES,
        flags: 0,
    };
    let length = loop {
        // SAFETY: the header describes buffers that live on this stack frame.
        match unsafe { call!(nr::RECVMSG, socket, &raw mut header, MSG_CMSG_CLOEXEC) } {
            Err(rawsys::EINTR) => {}
            Err(_) | Ok(0) => return None,
            Ok(length) => break length,
        }
    };
    let mut count = 0;
    if header.control_length >= size_of::<ControlHeader>() {
        // SAFETY: the kernel wrote a control header at the start of the aligned buffer.
        let first = unsafe { &*control.0.as_ptr().cast::<ControlHeader>() };
        if first.level == SOL_SOCKET && first.kind == SCM_RIGHTS {
            count = ((first.length - size_of::<ControlHeader>()) / 4).min(MOST_DESCRIPTORS);
            for (at, fd) in fds.iter_mut().enumerate().take(count) {
                let from = size_of::<ControlHeader>() + 4 * at;
                let mut number = [0; 4];
                number.copy_from_slice(&control.0[from..from + 4]);
                *fd = i32::from_ne_bytes(number);
            }
        }
    }
    const MSG_CTRUNC: usize = 0x8;
    const MSG_TRUNC: usize = 0x20;
    let text = length.checked_sub(size_of::<Message>());
    if header.flags as usize & (MSG_CTRUNC | MSG_TRUNC) != 0 || text.is_none() {
        // Descriptors are lost, and with them whoever waits for an answer: as if the library were gone.
        fds[..count].iter().for_each(|fd| rawsys::close(*fd));
        return None;
    }
    text.map(|text| (message, count, text))
}

/// Passes a message on with its descriptors, without waiting.
pub fn forward(socket: i32, message: &Message, text: &[u8], fds: &[i32]) -> Result<(), i32> {
    let vectors = [[&raw const *message as usize, size_of::<Message>()], [text.as_ptr() as usize, text.len()]];
    send_vectors(socket, vectors, fds, MSG_DONTWAIT)
}

/// Sends a reply without waiting, and perhaps a descriptor.
pub fn answer(socket: i32, reply: &Reply, fd: i32) -> Result<(), i32> {
    let vectors = [[&raw const *reply as usize, size_of::<Reply>()], [0, 0]];
    send_vectors(socket, vectors, one(&fd), MSG_DONTWAIT).map(|_| ())
}

/// A descriptor, or none.
fn one(fd: &i32) -> &[i32] {
    if *fd >= 0 { core::slice::from_ref(fd) } else { &[] }
}

/// Sends a reply, a text behind it and perhaps a descriptor. A reader that is gone is no error here: its end is
/// noticed where the sockets are watched.
pub fn send(socket: i32, reply: &Reply, text: &[u8], fd: i32) -> Result<(), i32> {
    let vectors = [[&raw const *reply as usize, size_of::<Reply>()], [text.as_ptr() as usize, text.len()]];
    send_vectors(socket, vectors, one(&fd), 0)
}

/// The same where the other side will learn by the end of the socket, too.
pub fn tell(socket: i32, reply: &Reply, text: &[u8], fd: i32) {
    let _ = send(socket, reply, text, fd);
}

/// Says that a message has come. A socket that is full of what nobody reads must not hold us up.
pub fn acknowledge(socket: i32) {
    tell_now(socket, &Reply { kind: reply::HEARD, ..Reply::default() });
}

/// Takes in what init says, without what follows it; `None` when it is gone.
pub fn receive_reply(socket: i32, reply: &mut Reply) -> Option<()> {
    loop {
        // SAFETY: as long as the structure is, of which every value is one.
        match unsafe { call!(nr::READ, socket, &raw mut *reply, size_of::<Reply>()) } {
            Err(rawsys::EINTR) => {}
            // Told once, before what it said last.
            Err(ECONNRESET) => {}
            Ok(length) if length == size_of::<Reply>() => return Some(()),
            _ => return None,
        }
    }
}

/// Says something that may be lost where the socket is full.
pub fn tell_now(socket: i32, reply: &Reply) {
    let vectors = [[&raw const *reply as usize, size_of::<Reply>()], [0, 0]];
    let _ = send_vectors(socket, vectors, &[], MSG_DONTWAIT);
}

/// Hands a descriptor to another process of this program.
pub fn pass(socket: i32, fd: i32) {
    let message = Message::default();
    let _ = send_vectors(socket, [[&raw const message as usize, size_of::<Message>()], [0, 0]], one(&fd), 0);
}

/// Hands descriptors over, with a text.
pub fn pass_all(socket: i32, message: &Message, text: &[u8], fds: &[i32]) -> Result<(), i32> {
    let vectors = [[&raw const *message as usize, size_of::<Message>()], [text.as_ptr() as usize, text.len()]];
    send_vectors(socket, vectors, fds, 0).map(|_| ())
}

/// The vectors are address and length of what lives until this returns.
fn send_vectors(socket: i32, vectors: [[usize; 2]; 2], fds: &[i32], flags: usize) -> Result<(), i32> {
    let mut control = Control([0; CONTROL_BYTES]);
    let fds = &fds[..fds.len().min(MOST_DESCRIPTORS)];
    let head = size_of::<ControlHeader>();
    let length = head + 4 * fds.len();
    // SAFETY: the buffer is aligned and longer than a header with as many descriptors as there can be.
    unsafe {
        control.0.as_mut_ptr().cast::<ControlHeader>().write(ControlHeader {
            length,
            level: SOL_SOCKET,
            kind: SCM_RIGHTS,
        });
    }
    for (at, fd) in fds.iter().enumerate() {
        control.0[head + 4 * at..][..4].copy_from_slice(&fd.to_ne_bytes());
    }
    let header = MsgHdr {
        name: 0,
        name_length: 0,
        vectors: vectors.as_ptr(),
        vector_count: 2,
        control: control.0.as_ptr(),
        control_length: if fds.is_empty() { 0 } else { length.next_multiple_of(8) },
        flags: 0,
    };
    loop {
        // SAFETY: the header describes buffers that live until the call returns.
        match unsafe { call!(nr::SENDMSG, socket, &raw const header, MSG_NOSIGNAL | flags) } {
            Err(rawsys::EINTR) => {}
            other => return other.map(|_| ()),
        }
    }
}
