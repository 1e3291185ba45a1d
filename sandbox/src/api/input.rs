//! What of a command decides where its streams lead: bytes for standard input, and a terminal.

use std::fs::File;
use std::io::Seek;

use crate::api::command::Command;
use crate::api::streams::{Passed, Pipes, Stdio, pipe};
use crate::error::{Failure, Result};
use crate::policy::Policy;
use crate::supervise::terminal::TerminalSetup;
use crate::sys;
use crate::sys::{descriptors, lift};

impl Command {
    /// All that was said of it; what stays is as if it had just been made, without arguments.
    #[cfg(feature = "tokio")]
    pub(crate) fn take(&mut self) -> Command {
        let fresh = Command::new(self.runner.clone(), &self.program);
        std::mem::replace(self, fresh)
    }

    /// What its terminal is to be like, if it is to have one.
    pub(crate) fn terminal(&self) -> Result<Option<&TerminalSetup>> {
        let streams = [&self.stdin, &self.stdout, &self.stderr];
        let mut setups = streams.into_iter().filter_map(|stream| match stream {
            Some(Stdio::Terminal(setup)) => Some(setup),
            _ => None,
        });
        let first = setups.next();
        if setups.all(|setup| Some(setup) == first) {
            return Ok(first);
        }
        let message = "the streams are to be terminals that differ, and a program has one";
        Err(Failure::new("option", "terminal", message).hint("Set one stream, or all alike.").config())
    }

    /// Bit n: standard stream n is the terminal.
    pub(super) fn terminal_streams(&self) -> u32 {
        let streams = [&self.stdin, &self.stdout, &self.stderr];
        if !streams.iter().any(|stream| matches!(stream, Some(Stdio::Terminal(_)))) {
            return 0;
        }
        let is_terminal = |number: &usize| match streams[*number] {
            Some(stream) => matches!(stream, Stdio::Terminal(_)),
            None => *number != 0 || self.input.is_none(),
        };
        (0..3).filter(is_terminal).fold(0, |bits, number| bits | 1 << number)
    }

    /// What cannot be had together with a terminal.
    pub(super) fn check_terminal(&self, policy: &Policy) -> Result<()> {
        if !policy.isolation.has_namespaces() {
            let message = "without namespaces there is no devpts of the sandbox's own: the terminal would be the host's, and open to \
                           every process of this user";
            return Err(Failure::new("option", "terminal", message)
                .hint("Use `isolation` namespaces, or run the program without a terminal.")
                .unsupported());
        }
        if policy.output_limit.is_some() || self.count_output {
            let what = if self.count_output { "count_output" } else { "output_limit" };
            let message = "what goes to a terminal is read by the caller and cannot be counted";
            return Err(Failure::new("option", what, message)
                .hint(format!("Leave `{what}` out, or run the program without a terminal."))
                .config());
        }
        Ok(())
    }

    /// What standard input was set to; nothing where it is unset or the bytes of `input`.
    pub(super) fn standard_input(&self) -> Result<Option<&Stdio>> {
        match (&self.input, &self.stdin) {
            (Some(_), None | Some(Stdio::Piped)) => Ok(None),
            (Some(_), Some(_)) => {
                let message = "there are bytes for standard input, and it was set to something else afterwards";
                Err(Failure::new("option", "input", message).hint("Leave one of the two out.").config())
            }
            (None, stdin) => Ok(stdin.as_ref()),
        }
    }

    /// Where the program reads the bytes of `input`: a pipe where the caller writes while it waits, and otherwise a file
    /// in memory, because nobody may ever come to write.
    pub(super) fn input_end(&self, pipes: &mut Pipes) -> Result<Passed<'static>> {
        if self.feeds_input {
            return Ok(Passed::Made(pipe(0, pipes)?));
        }
        let bytes = self.input.as_deref().unwrap_or_default();
        let file = sys::sealed_memory(c"sandcell-input", bytes, false).map_err(descriptors)?;
        let mut file = File::from(lift(file)?);
        file.rewind().map_err(|e| descriptors(nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO))))?;
        Ok(Passed::Made(file.into()))
    }
}
