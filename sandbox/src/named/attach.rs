//! The standard input of a named cell's main program: one client at a time has it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use super::NamedCell;
use crate::error::{Failure, Result};
use crate::supervise::keeper;
use crate::sys;
use crate::wire::keeper::ask;

/// The standard input of the main program, as long as the value lives and nobody takes it over.
#[derive(Debug)]
pub struct Attached {
    connection: OwnedFd,
    pipe: Option<File>,
}

impl NamedCell {
    /// Takes the main program's standard input, which was kept ([`Detach::keep_stdin`](crate::Detach::keep_stdin)). Its
    /// output is the [`log`](NamedCell::log), whoever is attached. `takeover`: even where somebody else has it.
    ///
    /// # Errors
    /// `Io` where somebody else is attached, or there is no such input.
    pub fn attach(&self, takeover: bool) -> Result<Attached> {
        let connection = self.connect()?;
        let asked = keeper::ask(connection.as_fd(), ask::ATTACH, u32::from(takeover), &[], &[]);
        let (.., pipe) = asked.map_err(|error| match error.errno() {
            // A keeper with too many clients answers the same.
            Some(libc::EBUSY) if self.info().is_ok_and(|info| info.attached) => {
                Failure::new("attach", self.name(), "somebody else is attached")
                    .errno(libc::EBUSY)
                    .hint("Take the input over (`--takeover`), only look (`--no-stdin`), or wait.")
                    .io()
            }
            _ => error,
        })?;
        match pipe {
            Some(pipe) => Ok(Attached { connection, pipe: Some(pipe.into()) }),
            None => Err(Failure::new("attach", self.name(), "its program has no standard input")
                .hint("Start it with `-i` (`keep_stdin`); `logs -f` shows its output.")
                .io()),
        }
    }
}

impl Attached {
    /// Ends the input: the program reads its end, whoever attaches later. No error if it has ended already.
    ///
    /// # Errors
    /// `Io` where the keeper does not answer.
    pub fn close(mut self) -> Result<()> {
        self.pipe = None;
        match keeper::ask(self.connection.as_fd(), ask::CLOSE_STDIN, 0, &[], &[]) {
            Err(error) if error.errno() != Some(libc::ESRCH) => Err(error),
            _ => Ok(()),
        }
    }
}

impl Write for Attached {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The keeper says nothing unasked: this is its end, or that of our turn.
        if sys::is_readable(self.connection.as_fd()) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "somebody else has taken over"));
        }
        match &mut self.pipe {
            Some(pipe) => pipe.write(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
