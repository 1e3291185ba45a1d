//! A command as the main program of a named cell.

use std::ffi::OsString;

use crate::api::cell::Cell;
use crate::api::child::Child;
use crate::api::command::{Command, Runner};
use crate::api::sandbox::Sandbox;
use crate::api::streams::Unset;
use crate::error::{Failure, Result};

impl Command {
    /// The sandbox of a command that has not been given to a cell.
    pub(crate) fn sandbox(&self) -> Option<Sandbox> {
        match &self.runner {
            Runner::Own(sandbox) => Some(sandbox.clone()),
            Runner::Cell(_) | Runner::Pool(_) => None,
        }
    }

    /// The program and its arguments.
    pub(crate) fn words(&self) -> Vec<OsString> {
        std::iter::once(&self.program).chain(&self.args).cloned().collect()
    }

    /// What the main program of a named cell cannot have.
    pub(crate) fn check_detached(&self, again: bool) -> Result<()> {
        let set = [
            ("learn", self.learn),
            ("track_changes", self.changes),
            ("input", self.input.is_some()),
            ("stdin", self.stdin.is_some()),
            ("stdout", self.stdout.is_some()),
            ("stderr", self.stderr.is_some()),
            ("pass_fd", again && !self.pass.is_empty()),
        ];
        match set.into_iter().find(|(_, set)| *set) {
            None => Ok(()),
            Some((option, _)) => {
                Err(Failure::new("option", option, "makes no sense for the main program of a named cell")
                    .hint("Leave it out: its output is the log, and `keep_stdin` keeps its input.")
                    .config())
            }
        }
    }

    /// Starts it as the main program of a cell: its outputs are pipes.
    pub(crate) fn start_in(&mut self, cell: &Cell, stdin: bool) -> Result<Child> {
        self.in_cell(cell, stdin, |command| command.start(false, command.unset))
    }

    /// The same request once more, without descriptors.
    pub(crate) fn request_again(&mut self, cell: &Cell, stdin: bool) -> Result<Vec<u8>> {
        self.in_cell(cell, stdin, |command| {
            let (shared, init, plan) = cell.parts();
            Ok(command.request(shared, init, (&plan.user, &plan.home), false)?.0.bytes)
        })
    }

    fn in_cell<T>(&mut self, cell: &Cell, stdin: bool, act: impl FnOnce(&mut Command) -> Result<T>) -> Result<T> {
        let own = std::mem::replace(&mut self.runner, Runner::Cell(cell.clone()));
        self.is_main = true;
        self.unset = [if stdin { Unset::Piped } else { Unset::Null }, Unset::Piped, Unset::Piped];
        let done = act(self);
        self.runner = own;
        done
    }
}
