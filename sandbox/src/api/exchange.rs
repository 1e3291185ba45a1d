//! Writes a program's input and reads its outputs until it has ended.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{ChildStderr, ChildStdout};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::PollFlags;

use crate::api::child::Child;
use crate::error::Result;
use crate::report::{Output, Report};
use crate::supervise::init::talking;
use crate::supervise::terminal::Terminal;
use crate::sys;

/// What is read of an output before others, and the clock, are looked at again.
const AT_ONCE: u64 = 1 << 20;

impl Child {
    /// Closes standard input, reads both outputs to their end and waits. What a process that outlives the program in
    /// a cell writes later is not waited for.
    pub fn wait_with_output(&mut self, input: Option<&[u8]>) -> Result<Output> {
        let (stdout, stderr) = self.exchange(input, None)?.unwrap_or_default();
        let report = self.wait()?;
        Ok(gathered(stdout, stderr, report))
    }

    /// The same, but not longer than this; `None` if it still runs. What has been read by then is in the output of the
    /// next call, and standard input is closed all the same.
    pub fn wait_with_output_timeout(&mut self, timeout: Duration) -> Result<Option<Output>> {
        // A time that no clock can tell never comes.
        let until = Instant::now().checked_add(timeout);
        let Some((stdout, stderr)) = self.exchange(None, until)? else { return Ok(None) };
        let report = self.wait()?;
        Ok(Some(gathered(stdout, stderr, report)))
    }

    /// Of each output only the end will be kept: at least so many bytes, where there are as many, and at most twice as many.
    #[cfg(feature = "image")]
    pub(crate) fn keep_tail(&mut self, bytes: usize) {
        self.tail = bytes;
    }

    /// Writes the input and reads the outputs, whichever are pipes, until the program has ended. `None` if the time
    /// came first: what has been read by then is kept, and so are the pipes from which more may come.
    pub(crate) fn exchange(
        &mut self,
        input: Option<&[u8]>,
        until: Option<Instant>,
    ) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let mut rest = input.unwrap_or_default();
        let (mut stdin, mut outputs) = self.ends(rest)?;
        let mut read = std::mem::take(&mut self.gathered);
        loop {
            let ended = self.report.is_some();
            let mut wanted = Vec::new();
            if !ended {
                wanted.push((self.controller.line.socket.as_fd(), PollFlags::POLLIN));
            }
            wanted.extend(outputs.iter().flatten().map(|pipe| (pipe.as_fd(), PollFlags::POLLIN)));
            wanted.extend(stdin.iter().map(|pipe| (pipe.as_fd(), PollFlags::POLLOUT)));
            if ended {
                // What is in the pipes now is all that belongs to the program.
                drain(&mut outputs, &mut read, self.tail);
                return Ok(Some(self.by_stream(read)));
            }
            let soonest = [until, self.overdue].into_iter().flatten().min();
            let ready = sys::wait(&wanted, soonest).map_err(talking)?;
            let heard = ready[0];
            // A program that writes without end is always ready.
            if !heard && soonest.is_some_and(|soonest| Instant::now() >= soonest) {
                if !self.give_up()? {
                    self.put_away(outputs, read)?;
                    return Ok(None);
                }
                continue;
            }
            drain(&mut outputs, &mut read, self.tail);
            feed(&mut stdin, &mut rest);
            if heard {
                self.hear()?;
            }
        }
    }

    /// Our ends of its streams, so that nobody waits in them: standard input where there is something to write, the outputs,
    /// and the terminal.
    pub(crate) fn ends(&mut self, input: &[u8]) -> Result<(Option<File>, [Option<File>; 3])> {
        let stdin = self.stdin.take().map(|pipe| File::from(OwnedFd::from(pipe))).filter(|_| !input.is_empty());
        self.end_typing();
        let outputs = [
            self.stdout.take().map(|pipe| File::from(OwnedFd::from(pipe))),
            self.stderr.take().map(|pipe| File::from(OwnedFd::from(pipe))),
            self.terminal
                .as_ref()
                .map(Terminal::try_clone)
                .transpose()
                .map_err(copied)?
                .map(|end| File::from(OwnedFd::from(end))),
        ];
        for pipe in outputs.iter().flatten().chain(&stdin) {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(talking)?;
        }
        Ok((stdin, outputs))
    }

    /// Nobody will type anything: a program that reads its terminal finds the end of its input, once.
    fn end_typing(&mut self) {
        if let Some(terminal) = &self.terminal
            && self.terminal_streams & 1 == 1
            && !std::mem::replace(&mut self.typed_end, true)
        {
            let _ = terminal.write_timeout(&[terminal.end_of_file()], Duration::ZERO);
        }
    }

    /// What came out of the terminal is that of standard output, or of standard error where only that is the terminal.
    pub(crate) fn by_stream(&self, [mut stdout, mut stderr, terminal]: [Vec<u8>; 3]) -> (Vec<u8>, Vec<u8>) {
        match self.terminal_streams {
            streams if streams & 2 != 0 => stdout = terminal,
            streams if streams & 4 != 0 => stderr = terminal,
            _ => {}
        }
        (stdout, stderr)
    }

    /// Puts away what an exchange has come to so far. The pipes wait again, as whoever takes them expects.
    fn put_away(&mut self, outputs: [Option<File>; 3], read: [Vec<u8>; 3]) -> Result<()> {
        for pipe in outputs[..2].iter().flatten() {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::empty())).map_err(talking)?;
        }
        // The terminal is still there: a program that has closed its streams must not be hung up.
        let [stdout, stderr, _] = outputs.map(|pipe| pipe.map(OwnedFd::from));
        (self.stdout, self.stderr) = (stdout.map(ChildStdout::from), stderr.map(ChildStderr::from));
        self.gathered = read;
        Ok(())
    }
}

fn copied(error: std::io::Error) -> crate::Error {
    sys::descriptors(nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(libc::EMFILE)))
}

pub(crate) fn gathered(stdout: Vec<u8>, stderr: Vec<u8>, mut report: Report) -> Output {
    report.usage.output_bytes.get_or_insert((stdout.len() + stderr.len()) as u64);
    Output { stdout, stderr, report }
}

/// The place of the terminal among the outputs.
const TERMINAL: usize = 2;

/// Reads what is there without waiting, but not for ever where it comes faster; a stream that is at its end is dropped.
fn drain(outputs: &mut [Option<File>; 3], read: &mut [Vec<u8>; 3], tail: usize) {
    for (at, (output, bytes)) in outputs.iter_mut().zip(read).enumerate() {
        if output.as_mut().is_some_and(|pipe| drain_one(pipe, at, bytes, tail) == Drained::AtEnd) {
            *output = None;
        }
    }
}

/// How reading an output without waiting has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// There may be more now.
    Full,
    /// Nothing more now.
    Empty,
    /// Nobody will write any more.
    AtEnd,
}

/// The same of one of them.
pub(crate) fn drain_one(pipe: &mut File, at: usize, bytes: &mut Vec<u8>, tail: usize) -> Drained {
    let most = pipe_size(pipe).max(AT_ONCE);
    let drained = match Read::by_ref(pipe).take(most).read_to_end(bytes) {
        Ok(length) if length as u64 == most => Drained::Full,
        Ok(_) => Drained::AtEnd,
        // The end of a terminal: nobody has it open any more.
        Err(error) if at == TERMINAL && error.raw_os_error() == Some(libc::EIO) => Drained::AtEnd,
        // Mostly that there is nothing now; it is read again.
        Err(_) => Drained::Empty,
    };
    if bytes.len() > tail.saturating_mul(2) {
        bytes.drain(..bytes.len() - tail);
    }
    drained
}

/// What a pipe holds at most: when its program has ended, no more than that belongs to it.
fn pipe_size(pipe: &File) -> u64 {
    fcntl(pipe, FcntlArg::F_GETPIPE_SZ).map_or(0, |size| size.max(0) as u64)
}

/// Writes as much of it as the pipe takes, and closes it when there is no more.
fn feed(stdin: &mut Option<File>, rest: &mut &[u8]) {
    let Some(pipe) = stdin else { return };
    match pipe.write(rest) {
        Ok(written) => *rest = &rest[written..],
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
        // The program does not want it: not our error.
        Err(_) => *rest = &[],
    }
    if rest.is_empty() {
        *stdin = None;
    }
}
