//! The end of a named cell: everything in it is ended, what came of it is written down, its groups are removed.

use core::ffi::CStr;

use super::log::wait_a_little;
use super::{Keeper, poll, protocol};
use crate::now;
use crate::rawsys;
use crate::text::Text;
use crate::wait::PollFd;
use crate::wire::Reader;
use crate::wire::keeper::Keep;

/// How long init has to end everything, before it is killed itself.
const DEATH: u64 = 5_000_000_000;
/// How long it is tried to write the last lines of the log, where there is no room for them.
const LAST_LINES: u64 = 5_000_000_000;
/// How long a group that is said to be in use is tried to be removed.
const GROUPS: u64 = 2_000_000_000;
/// No figures of a group are longer.
const FIGURE: usize = 4096;
const HEAD: usize = 1024;
/// How deep the groups of a system may lie: its group allows no more.
const DEEPEST: usize = 40;
const AT_REMOVEDIR: usize = 0x200;

impl Keeper {
    pub fn finish(&mut self) -> ! {
        self.end_all();
        let lost = self.log.settle(self.outputs, now() + LAST_LINES);
        let _ = self.write_outcome(lost);
        self.remove_groups();
        let _ = remove(self.dir, protocol::SOCKET, 0);
        rawsys::exit(0)
    }

    /// Ends everything inside. What waits in the kernel for a file system that does not answer is waited for: the ids are its
    /// own until then.
    fn end_all(&self) {
        const SHUT_RDWR: usize = 2;
        let _ = rawsys::shutdown(self.control, SHUT_RDWR);
        let mut polls = [PollFd::input(self.init)];
        poll(&mut polls, Some(now() + DEATH));
        if polls[0].returned == 0 {
            let _ = rawsys::pidfd_send_signal(self.init, rawsys::SIGKILL);
            poll(&mut polls, None);
        }
    }

    /// What came of it, for whoever asks later. It is there as a whole or not at all.
    fn write_outcome(&self, lost: u64) -> Result<(), i32> {
        let over = &self.over;
        let mut text = Text::<HEAD>::new();
        let numbers: [(&[u8], u64); 15] = [
            (b"version", 1),
            (b"reason", self.reason),
            (b"kind", over.kind.into()),
            (b"value", over.value.into()),
            (b"detail", over.detail.into()),
            (b"errno", over.errno.unsigned_abs().into()),
            (b"wall_ns", over.wall_ns),
            (b"user_us", over.user_us),
            (b"system_us", over.system_us),
            (b"max_rss_kb", over.max_rss_kb),
            (b"output", over.output),
            (b"call", over.call),
            (b"lived_ns", now().saturating_sub(self.since)),
            (b"log_lost", lost),
            (b"restarts", self.restart.count()),
        ];
        for (name, number) in numbers {
            text.push(name);
            text.push(b" ");
            text.push_number(number);
            text.push(b"\n");
        }
        let flags = rawsys::O_RDWR | rawsys::O_CREAT | rawsys::O_NOFOLLOW | rawsys::O_CLOEXEC;
        let file = rawsys::openat(self.dir, protocol::OUTCOME_NEW, flags, 0o600)?;
        let mut length = write(file, text.bytes())?;
        let mut reader = Reader::new(self.told.unwrap_or_default());
        while let Ok(Some(record)) = Keep::next(&mut reader) {
            if let Keep::Figure { index, name } = record {
                length += self.write_figure(file, index, name)?;
            }
        }
        rawsys::ftruncate(file, length)?;
        rawsys::close(file);
        rawsys::renameat(self.dir, protocol::OUTCOME_NEW, protocol::OUTCOME)
    }

    /// Copies what a group has counted. One that cannot be read is left out.
    fn write_figure(&self, to: i32, index: u32, name: &CStr) -> Result<usize, i32> {
        let mut bytes = [0u8; FIGURE];
        let fd = self.fds.get(index as usize).copied().unwrap_or(-1);
        let Ok(length) = rawsys::pread(fd, &mut bytes, 0) else { return Ok(0) };
        let mut head = Text::<128>::new();
        head.push(b"figure ");
        head.push_number(length as u64);
        head.push(b" ");
        head.push(name.to_bytes());
        head.push(b"\n");
        Ok(write(to, head.bytes())? + write(to, &bytes[..length])?)
    }

    fn remove_groups(&self) {
        let until = now() + GROUPS;
        let gone = |dir: i32, name: &CStr| {
            while remove(dir, name, AT_REMOVEDIR) == Err(rawsys::EBUSY) && now() < until {
                remove_beneath(dir, name, DEEPEST);
                wait_a_little();
            }
        };
        let (aside, name) = &self.aside;
        if let (true, Ok(name)) = (*aside >= 0, CStr::from_bytes_until_nul(name)) {
            gone(*aside, name);
        }
        let mut reader = Reader::new(self.told.unwrap_or_default());
        while let Ok(Some(record)) = Keep::next(&mut reader) {
            if let Keep::Group { index, name } = record {
                gone(self.fds.get(index as usize).copied().unwrap_or(-1), name);
            }
        }
    }
}

fn write(fd: i32, bytes: &[u8]) -> Result<usize, i32> {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &bytes[done..];
        match rawsys::write(fd, rest) {
            Err(rawsys::EINTR) => {}
            other => done += other?,
        }
    }
    Ok(done)
}

fn remove(dir: i32, name: &CStr, flags: usize) -> Result<(), i32> {
    rawsys::unlinkat(dir, name, flags)
}

/// The groups that an init has made in its own. Nothing lives in them any more; what cannot be removed stays.
fn remove_beneath(dir: i32, name: &CStr, depth: usize) {
    const DIRECTORY: u8 = 4;
    let mut buffer = Entries([0; 512]);
    let flags = rawsys::O_DIRECTORY | rawsys::O_NOFOLLOW | rawsys::O_CLOEXEC;
    let Ok(list) = rawsys::openat(dir, name, flags, 0) else { return };
    while let Ok(length @ 1..) = rawsys::getdents(list, &mut buffer.0) {
        let mut at = 0;
        while at + 19 < length {
            let record = usize::from(u16::from_ne_bytes([buffer.0[at + 16], buffer.0[at + 17]]));
            let entry = buffer.0.get(at + 19..at + record).unwrap_or_default();
            if let (DIRECTORY, Ok(name)) = (buffer.0[at + 18], CStr::from_bytes_until_nul(entry))
                && !matches!(name.to_bytes(), b"." | b"..")
            {
                if depth > 0 {
                    remove_beneath(list, name, depth - 1);
                }
                let _ = remove(list, name, AT_REMOVEDIR);
            }
            at += record.max(1);
        }
    }
    rawsys::close(list);
}

/// As getdents64(2) fills it.
#[repr(align(8))]
struct Entries([u8; 512]);
