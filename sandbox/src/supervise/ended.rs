//! What init says of a program that did not start, or that has ended, in the library's words.

use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use crate::error::Failure;
use crate::report::{Outcome, Usage};
use crate::seccomp;
use crate::wire::{self, Reply, stage};

/// A start that failed after the sandbox was built.
pub(crate) fn not_started(program: &str, dir: &Path, reply: &Reply) -> crate::Error {
    let (name, words) = stage::describe(reply.detail);
    let subject = if reply.detail == stage::PROGRAM_CHDIR { dir.to_string_lossy() } else { program.into() };
    let failure = Failure::new(name, subject, words).errno(reply.errno);
    match (reply.detail, Errno::from_raw(reply.errno)) {
        (stage::PROGRAM_EXEC, Errno::ENOENT) => {
            let hint = match program.find('/') {
                Some(1..) => "It is looked for in the working directory: set `chdir` to where it is inside.",
                _ => "the path is one inside the sandbox; show it there with `ro`",
            };
            failure.hint(hint).exec()
        }
        (stage::PROGRAM_EXEC, Errno::EACCES) => {
            failure.hint("is it executable, and may its directories be entered?").exec()
        }
        (stage::PROGRAM_EXEC, Errno::E2BIG) => failure.hint("arguments and environment are too long together").exec(),
        (stage::PROGRAM_INTERPRETER, _) => failure.hint("look at its first line, or at its dynamic linker").exec(),
        (stage::PROGRAM_EXEC, Errno::ENOEXEC) => {
            failure.hint("neither a binary for this machine nor a script with `#!` in its first line").exec()
        }
        (stage::PROGRAM_EXEC, _) => failure.exec(),
        (stage::PROGRAM_CHDIR, _) => {
            failure.hint("The working directory is a path inside the sandbox: show it there with `ro` or `rw`.").setup()
        }
        (stage::PROGRAM_SECCOMP, Errno::EBUSY) => failure
            .hint("something around the caller listens to its system calls already, and the kernel allows one listener")
            .unsupported(),
        (stage::CLONE, Errno::EAGAIN) => failure.hint("RLIMIT_NPROC or a pids limit of the caller is reached").setup(),
        (stage::TOO_MANY, _) => failure.hint("wait until one has ended, or start another cell").setup(),
        (stage::PROGRAM_RLIMIT, Errno::EPERM) => failure.hint("the caller's own hard limit is lower").setup(),
        _ => failure.setup(),
    }
}

pub(crate) fn outcome(reply: &Reply, filtered: bool) -> Outcome {
    let status = reply.value.cast_signed();
    match reply.detail {
        flags if flags & wire::ENDED_DENIED != 0 => Outcome::SyscallDenied { syscall: name_of_call(reply.call) },
        flags if flags & wire::ENDED_OUTPUT_LIMIT != 0 => Outcome::OutputLimit,
        flags if flags & wire::ENDED_TIMED_OUT != 0 => Outcome::TimedOut,
        flags if flags & wire::ENDED_KILLED != 0 => Outcome::Killed,
        // The filter's own signal: for a foreign ABI, by SCMP_ACT_TRAP, or where no listener can be had.
        _ if filtered && libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS => {
            Outcome::SyscallDenied { syscall: "unknown".to_owned() }
        }
        _ if libc::WIFSIGNALED(status) => {
            Outcome::Signaled { signal: libc::WTERMSIG(status), core_dumped: libc::WCOREDUMP(status) }
        }
        _ => Outcome::Exited(libc::WEXITSTATUS(status)),
    }
}

/// A call by its name, or by its number where it has none here.
fn name_of_call(call: u64) -> String {
    let number = call as u32;
    match ((call >> 32) as u32, seccomp::name_of(number)) {
        (architecture, name) if architecture == seccomp::audit() => name.map_or(number.to_string(), str::to_owned),
        (architecture, _) => format!("{number} of the ABI {architecture:#x}"),
    }
}

pub(crate) fn usage(reply: &Reply, counted: bool) -> Usage {
    Usage {
        wall: Duration::from_nanos(reply.wall_ns),
        user: Some(Duration::from_micros(reply.user_us)),
        system: Some(Duration::from_micros(reply.system_us)),
        memory_peak_bytes: Some(reply.max_rss_kb.saturating_mul(1024)),
        output_bytes: counted.then_some(reply.output),
        ..Usage::default()
    }
}
