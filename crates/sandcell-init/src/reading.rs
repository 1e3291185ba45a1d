//! Whether something waits for what is typed: the caller of a program in the background asks, because the kernel does not look
//! across sessions.

use crate::proc;
use crate::rawsys::{self, nr};
use crate::text::Text;

/// Whether a process of the sandbox waits in a read of what is the program's standard input now. One that cannot be looked at does
/// not; what programs do to mislead is their own loss.
pub fn is_awaited(program: i32) -> bool {
    let mut input = [0u8; 128];
    let Some(input) = link(program as u32, 0, &mut input) else { return false };
    let mut awaited = false;
    let _ = proc::each(|pid| {
        let mut text = [0u8; 64];
        let mut file = [0u8; 128];
        if !awaited && let Some(fd) = reads(proc::read(pid, b"syscall", &mut text).unwrap_or_default()) {
            awaited = link(pid, fd, &mut file).is_some_and(|file| file == input);
        }
        Ok(())
    });
    awaited
}

/// The descriptor from which a process reads: see proc_pid_syscall(5). read and readv by their numbers.
fn reads(text: &[u8]) -> Option<u32> {
    let mut words = text.split(|byte| *byte == b' ');
    if !matches!(crate::rawsys::number(words.next()?)? as usize, nr::READ | nr::READV) {
        return None;
    }
    let digits = words.next()?.strip_prefix(b"0x")?;
    core::str::from_utf8(digits).ok().and_then(|digits| u32::from_str_radix(digits, 16).ok())
}

fn link(pid: u32, fd: u32, buffer: &mut [u8]) -> Option<&[u8]> {
    let mut path = Text::<64>::new();
    path.push_number(pid.into());
    path.push(b"/fd/");
    path.push_number(fd.into());
    path.push(b"\0");
    let length = rawsys::readlinkat(proc::dir(), path.c_str().ok()?, buffer);
    buffer.get(..length.unwrap_or(0)).filter(|text| !text.is_empty())
}
