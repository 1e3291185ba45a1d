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
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};

use crate::wire::{MOST_INLINE, Message, Reply};

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

/// Sends a message.
pub(crate) fn send(socket: BorrowedFd<'_>, kind: u32, value: u32) -> nix::Result<()> {
    transmit(socket, Message { kind, value, length: 0 }, &[], &[])
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

/// A short extended attribute of a path; links are followed. `None` where there is none.
pub(crate) fn attribute(path: &std::path::Path, name: &CStr) -> nix::Result<Option<Vec<u8>>> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let mut value = [0u8; 64];
    // SAFETY: NUL-terminated strings, and a buffer as long as is said.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    match Errno::result(length) {
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        other => other.map(|length| Some(value[..length.unsigned_abs()].to_vec())),
    }
}

/// Sets an extended attribute of a path; links are followed.
pub(crate) fn set_attribute(path: &std::path::Path, name: &CStr, value: &[u8]) -> nix::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: NUL-terminated strings, and a value as long as is said.
    let result = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(|_| ())
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
