//! System calls of the library's side for which `nix` has no safe wrapper, and the few that are used together.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};

use crate::error::{Failure, Result};
use crate::wire::{MOST_INLINE, Message, Reply, TERMIOS_BYTES};

/// Keeps SIGXFSZ from the calling thread as long as it lives, and takes one back that a write has raised meanwhile: a
/// caller with a small RLIMIT_FSIZE gets an error and is not killed. Threads that are started meanwhile inherit it.
#[derive(Debug)]
#[must_use = "it ends with the value"]
pub(crate) struct HeldFileSizeSignal {
    before: Option<SigSet>,
}

impl HeldFileSizeSignal {
    pub(crate) fn new() -> HeldFileSizeSignal {
        let before = file_size_signal().thread_swap_mask(SigmaskHow::SIG_BLOCK).ok();
        // Where the caller blocks it itself it is the caller's to take back.
        HeldFileSizeSignal { before: before.filter(|before| !before.contains(Signal::SIGXFSZ)) }
    }
}

impl Drop for HeldFileSizeSignal {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: a set and a timeout; nothing is wanted to be known of the signal.
            unsafe { libc::sigtimedwait(file_size_signal().as_ref(), std::ptr::null_mut(), &now) };
            let _ = before.thread_set_mask();
        }
    }
}

fn file_size_signal() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGXFSZ);
    set
}

/// A memory file that nobody can change any more: memfd_create(2), Linux 3.17.
pub(crate) fn sealed_memory(name: &CStr, bytes: &[u8], executable: bool) -> nix::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // Since Linux 6.3 it has to be said whether a memory file may be executed.
    let kind = MFdFlags::from_bits_retain(if executable { libc::MFD_EXEC } else { libc::MFD_NOEXEC_SEAL });
    let fd = match memfd_create(name, flags | kind) {
        Err(Errno::EINVAL) => memfd_create(name, flags)?,
        other => other?,
    };
    let mut file = File::from(fd);
    let _held = HeldFileSizeSignal::new();
    file.write_all(bytes).map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// Two connected sockets that keep messages apart: unix(7).
pub(crate) fn message_sockets() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// A Plan or a request on its way to init: short ones in the message itself, which costs a start several system calls
/// less, others in a memory file.
#[derive(Debug)]
pub(crate) enum Letter<'a> {
    Inline(&'a [u8]),
    File(OwnedFd, u64),
}

impl<'a> Letter<'a> {
    pub(crate) fn new(name: &CStr, bytes: &'a [u8]) -> nix::Result<Letter<'a>> {
        match bytes.len() {
            0..=MOST_INLINE => Ok(Letter::Inline(bytes)),
            length => Ok(Letter::File(sealed_memory(name, bytes, false)?, length as u64)),
        }
    }

    /// Sends it with descriptors.
    pub(crate) fn send(&self, socket: BorrowedFd<'_>, kind: u32, value: u32, fds: &[RawFd]) -> nix::Result<()> {
        match self {
            Letter::Inline(bytes) => transmit(socket, Message { kind, value, length: 0 }, bytes, fds),
            Letter::File(file, length) => {
                let all: Vec<_> = std::iter::once(file.as_raw_fd()).chain(fds.iter().copied()).collect();
                transmit(socket, Message { kind, value, length: *length }, &[], &all)
            }
        }
    }
}

/// Sends a message, without waiting where the other side has not taken what was sent before: EAGAIN.
pub(crate) fn send(socket: BorrowedFd<'_>, kind: u32, value: u32) -> nix::Result<()> {
    let bytes = Message { kind, value, length: 0 }.to_bytes();
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], &[], flags, None).map(|_| ())
}

/// A reply, as init would send it.
pub(crate) fn send_reply(socket: BorrowedFd<'_>, reply: &Reply) -> nix::Result<()> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&reply.to_bytes())], &[], flags, None).map(|_| ())
}

/// A message without descriptors, as init would receive it; `None` when the other side is gone.
pub(crate) fn receive_message(socket: BorrowedFd<'_>) -> nix::Result<Option<Message>> {
    let mut bytes = [0; 16];
    match nix::sys::socket::recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_CMSG_CLOEXEC) {
        Ok(16) => {
            let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            Ok(Some(Message { kind: word(0), value: word(4), length: 0 }))
        }
        Ok(0) | Err(Errno::ECONNRESET) => Ok(None),
        Ok(_) => Err(Errno::EPROTO),
        Err(errno) => Err(errno),
    }
}

pub(crate) fn transmit(socket: BorrowedFd<'_>, message: Message, text: &[u8], fds: &[RawFd]) -> nix::Result<()> {
    let bytes = message.to_bytes();
    let slices = [IoSlice::new(&bytes), IoSlice::new(text)];
    let rights = [ControlMessage::ScmRights(fds)];
    let rights: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &slices, rights, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            // Too many descriptors of this user are on their way (unix(7)): init is about to take some.
            Err(Errno::ETOOMANYREFS) => std::thread::sleep(Duration::from_millis(1)),
            other => return other.map(|_| ()),
        }
    }
}

/// A reply, the text behind it, and the descriptor that came with it.
pub(crate) type Heard = (Reply, Vec<u8>, Option<OwnedFd>);

/// A reply of init with the text behind it and the descriptor that came with it; `None` when init is gone.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> nix::Result<Option<Heard>> {
    let mut bytes = [0u8; Reply::SIZE + 512];
    // Room for as many as the kernel passes at once: descriptors that do not fit would stay open, and nobody's.
    let mut space = nix::cmsg_space!([RawFd; 253]);
    let (length, fd) = loop {
        let mut vectors = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut vectors, Some(&mut space), flags) {
            // Reset: init has ended with something unread. That is told once, before what it said last.
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            Err(errno) => return Err(errno),
            Ok(received) => {
                let mut fd = None;
                for message in received.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(fds) = message {
                        for raw in fds {
                            // SAFETY: the kernel has just made this descriptor for us.
                            fd = Some(unsafe { OwnedFd::from_raw_fd(raw) });
                        }
                    }
                }
                break (received.bytes, fd);
            }
        }
    };
    if length == 0 {
        return Ok(None);
    }
    let (reply, text) = Reply::from_bytes(&bytes[..length]).ok_or(Errno::EPROTO)?;
    Ok(Some((reply, text.to_vec(), fd)))
}

/// A pidfd of a process: pidfd_open(2), Linux 5.3.
pub(crate) fn pidfd_open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: numbers only; the result is a new descriptor.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Whether two descriptors are of one open file description: kcmp(2).
pub(crate) fn is_same_description(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> nix::Result<bool> {
    const KCMP_FILE: libc::c_int = 0;
    // SAFETY: numbers only.
    let order = unsafe {
        let own = libc::getpid();
        libc::syscall(libc::SYS_kcmp, own, own, KCMP_FILE, one.as_raw_fd(), other.as_raw_fd())
    };
    Errno::result(order).map(|order| order == 0)
}

/// A signal for exactly the process that the pidfd stands for: pidfd_send_signal(2), Linux 5.1.
pub(crate) fn pidfd_kill(pidfd: BorrowedFd<'_>, signal: i32) -> nix::Result<()> {
    // SAFETY: no pointers but a null one.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    Errno::result(result).map(|_| ())
}

/// Reaps the child behind a pidfd, whatever the caller does with SIGCHLD. It must have been told to end.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) {
    // Polling first: where SIGCHLD is ignored, waiting for a single child waits for all of them.
    let _ = wait_readable(&[pidfd], None);
    let mut flags = libc::WEXITED | libc::__WALL | libc::WNOHANG;
    loop {
        // SAFETY: a zeroed siginfo_t is a valid place for the answer.
        let (result, pid) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let result = libc::waitid(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, &mut info, flags);
            (result, info.si_pid())
        };
        match result {
            -1 if Errno::last() == Errno::EINTR => {}
            // Dead, and not ours yet: a tracer (strace, a debugger) is told first.
            0 if pid == 0 => flags &= !libc::WNOHANG,
            // ECHILD: somebody else's waitpid(-1), or SIGCHLD ignored, has reaped it already.
            _ => return,
        }
    }
}

/// Random bytes from the kernel, 256 at most: getrandom(2). Waits only before the generator is seeded, early at boot.
pub(crate) fn random<const N: usize>() -> nix::Result<[u8; N]> {
    const { assert!(N <= 256, "more may come in pieces") };
    let mut bytes = [0u8; N];
    loop {
        // SAFETY: the buffer is as long as is said.
        match Errno::result(unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) }) {
            Err(Errno::EINTR) => {}
            other => return other.map(|_| bytes),
        }
    }
}

/// Waits until one of the descriptors is readable (or hung up), or the time has come. Which ones are.
pub(crate) fn wait_readable(fds: &[BorrowedFd<'_>], until: Option<Instant>) -> nix::Result<Vec<bool>> {
    let wanted: Vec<_> = fds.iter().map(|fd| (*fd, PollFlags::POLLIN)).collect();
    wait(&wanted, until)
}

/// Whether a descriptor is readable now.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    wait_readable(&[fd], Some(Instant::now())).is_ok_and(|ready| ready[0])
}

/// Waits until one of the descriptors is ready for what is wanted of it, or the time has come.
pub(crate) fn wait(fds: &[(BorrowedFd<'_>, PollFlags)], until: Option<Instant>) -> nix::Result<Vec<bool>> {
    let mut polls: Vec<_> = fds.iter().map(|(fd, flags)| PollFd::new(fd.as_fd(), *flags)).collect();
    loop {
        let timeout = match until {
            None => PollTimeout::NONE,
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now()).as_nanos().div_ceil(1_000_000);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut polls, timeout) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(0) if until.is_some_and(|until| Instant::now() < until) => {}
            Ok(_) => return Ok(polls.iter().map(|p| p.revents().is_some_and(|r| !r.is_empty())).collect()),
        }
    }
}

/// By how many seconds local time is ahead of UTC at that moment (TZ, /etc/localtime); 0 for a time that no calendar has.
pub(crate) fn offset_of_local_time(at: i64) -> i64 {
    // SAFETY: the answer has room in a zeroed structure; localtime_r(3) may be called by many threads.
    unsafe {
        let mut local: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&raw const at, &raw mut local).is_null() { 0 } else { local.tm_gmtoff }
    }
}

/// An extended attribute of a path; links are followed. How many bytes it has.
pub(crate) fn attribute_into(path: &std::path::Path, name: &CStr, value: &mut [u8]) -> nix::Result<usize> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: NUL-terminated strings, and a buffer as long as is said.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    Errno::result(length).map(isize::unsigned_abs)
}

/// Sets an extended attribute of a path; links are followed.
pub(crate) fn set_attribute(path: &std::path::Path, name: &CStr, value: &[u8]) -> nix::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: NUL-terminated strings, and a value as long as is said.
    let result = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(|_| ())
}

/// Rows, columns, and the size in pixels: TIOCGWINSZ.
pub(crate) fn terminal_size(fd: BorrowedFd<'_>) -> nix::Result<[u16; 4]> {
    let mut size = [0u16; 4];
    // SAFETY: the layout of struct winsize.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, size.as_mut_ptr()) }).map(|_| size)
}

/// TIOCSWINSZ.
pub(crate) fn set_terminal_size(fd: BorrowedFd<'_>, size: [u16; 4]) -> nix::Result<()> {
    // SAFETY: as above.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, size.as_ptr()) }).map(|_| ())
}

/// The modes of a terminal as the kernel has them: TCGETS. The C library's structure is another one.
pub(crate) fn terminal_modes(fd: BorrowedFd<'_>) -> nix::Result<[u8; TERMIOS_BYTES]> {
    let mut modes = [0u32; TERMIOS_BYTES.div_ceil(4)];
    // SAFETY: room for the kernel's struct termios.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TCGETS, modes.as_mut_ptr()) })?;
    let mut bytes = [0; TERMIOS_BYTES];
    for (to, from) in bytes.chunks_mut(4).zip(modes) {
        to.copy_from_slice(&from.to_ne_bytes());
    }
    Ok(bytes)
}

/// Moves a descriptor away from the numbers of the standard streams, which a caller may have closed.
pub(crate) fn lift(fd: OwnedFd) -> Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    let raw = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(3)).map_err(descriptors)?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The error of a caller that has run out of descriptors, or of memory for them.
pub(crate) fn descriptors(errno: Errno) -> crate::Error {
    Failure::new("descriptors", "", "cannot make the descriptors for a start").errno(errno as i32).setup()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_init_said_last_is_heard_although_it_left_a_request_unread() {
        let (ours, theirs) = message_sockets().unwrap();
        send(ours.as_fd(), 2, 0).unwrap();
        let mut last = [0u8; Reply::SIZE];
        last[0] = 7;
        nix::unistd::write(&theirs, &last).unwrap();
        drop(theirs);
        // The kernel tells of the unread request first.
        let mut direct = File::from(ours.try_clone().unwrap());
        assert_eq!(direct.read(&mut [0; 8]).unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
        drop(direct);
        assert_eq!(receive(ours.as_fd()).unwrap().unwrap().0.kind, 7);

        let (ours, theirs) = message_sockets().unwrap();
        send(ours.as_fd(), 2, 0).unwrap();
        nix::unistd::write(&theirs, &last).unwrap();
        drop(theirs);
        assert_eq!(receive(ours.as_fd()).unwrap().unwrap().0.kind, 7);
        assert!(receive(ours.as_fd()).unwrap().is_none());
    }
}
