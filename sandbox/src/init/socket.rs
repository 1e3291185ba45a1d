//! Messages and the descriptors that come with them: unix(7), SOCK_SEQPACKET.

use crate::rawsys::{self, call, nr};
use crate::wire::{Message, Reply};

/// As many as the kernel passes in one message.
pub const MOST_DESCRIPTORS: usize = 253;
const CONTROL_BYTES: usize = 16 + 4 * MOST_DESCRIPTORS + 4;
const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const MSG_NOSIGNAL: usize = 0x4000;
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

fn receive_into(
    socket: i32,
    fds: &mut [i32; MOST_DESCRIPTORS],
    buffer: &mut [u8],
) -> Option<(Message, usize, usize)> {
    let mut message = Message::default();
    let mut control = Control([0; CONTROL_BYTES]);
    let vectors =
        [[&raw mut message as usize, size_of::<Message>()], [buffer.as_mut_ptr() as usize, buffer.len()]];
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
    length.checked_sub(size_of::<Message>()).map(|text| (message, count, text))
}

/// Sends a reply, a text behind it and perhaps a descriptor. A reader that is gone is no error here: its end is
/// noticed where the sockets are watched.
pub fn send(socket: i32, reply: &Reply, text: &[u8], fd: i32) -> Result<(), i32> {
    send_vectors(socket, [[&raw const *reply as usize, size_of::<Reply>()], [text.as_ptr() as usize, text.len()]], fd)
}

/// The same where the other side will learn by the end of the socket, too.
pub fn tell(socket: i32, reply: &Reply, text: &[u8], fd: i32) {
    let _ = send(socket, reply, text, fd);
}

/// Hands a descriptor to another process of this program.
pub fn pass(socket: i32, fd: i32) {
    let message = Message::default();
    let _ = send_vectors(socket, [[&raw const message as usize, size_of::<Message>()], [0, 0]], fd);
}

/// The vectors are address and length of what lives until this returns.
fn send_vectors(socket: i32, vectors: [[usize; 2]; 2], fd: i32) -> Result<(), i32> {
    let mut control = Control([0; CONTROL_BYTES]);
    let length = size_of::<ControlHeader>() + 4;
    // SAFETY: the buffer is aligned and longer than a header with one descriptor.
    unsafe {
        control.0.as_mut_ptr().cast::<ControlHeader>().write(ControlHeader { length, level: SOL_SOCKET, kind: SCM_RIGHTS });
    }
    control.0[length - 4..length].copy_from_slice(&fd.to_ne_bytes());
    let header = MsgHdr {
        name: 0,
        name_length: 0,
        vectors: vectors.as_ptr(),
        vector_count: 2,
        control: control.0.as_ptr(),
        control_length: if fd >= 0 { 24 } else { 0 },
        flags: 0,
    };
    loop {
        // SAFETY: the header describes buffers that live until the call returns.
        match unsafe { call!(nr::SENDMSG, socket, &raw const header, MSG_NOSIGNAL) } {
            Err(rawsys::EINTR) => {}
            other => return other.map(|_| ()),
        }
    }
}
