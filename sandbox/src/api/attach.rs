//! The way of a process of the caller's into a started cell: for test runners that fork, whose children have the
//! caller's memory and no program to execute.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::api::cell::Cell;
use crate::error::{Failure, Result};
use crate::launch::attach;
use crate::sys::descriptors;
use crate::wire::{Fault, Field, Malformed, Reader, Step, stage};

/// What a process needs to enter a [`Cell`]: made by [`Cell::entry`] before the fork, used up after it.
///
/// A process of the caller's becomes a process of the cell in two steps, since only children of a process can be in
/// another process namespace (pid_namespaces(7)):
///
/// 1. fork; the child calls [`Entry::join`] and forks again. It stays outside, where nothing inside can name it, and
///    waits for its child, whose status it learns. It must do nothing else with what the cell shows it.
/// 2. The child of the child calls [`Entry::confine`], and has from then on what a program of the cell has: its
///    namespaces, groups, limits, user, system call filter and Landlock rules; no capabilities, no descriptors but those that were named.
///
/// Its memory is a copy of the caller's, secrets included: this is for what runs with the caller's consent and may
/// fail, such as tests, not for hostile code. Memory that it only reads is charged to the caller's groups, not to the cell's.
/// The cell's `timeout` and `output_limit`, which belong to commands, do not hold: [`Cell::kill`] ends it.
///
/// After an error of either the process is neither here nor there and must end, with `_exit(2)`.
///
/// The forking is the caller's own: languages have their own ways to do it. Both processes must have one thread only;
/// the kernel refuses others. Linux 5.8; see setns(2).
#[derive(Debug)]
pub struct Entry {
    init: OwnedFd,
    network: bool,
    orders: attach::Orders,
    kept: Vec<RawFd>,
    hides_memory: bool,
}

impl Cell {
    /// Prepares the way in for one process; see [`Entry`].
    ///
    /// # Errors
    /// [`Error::Setup`](crate::Error::Setup) where descriptors cannot be made, or the cell is frozen.
    pub fn entry(&self) -> Result<Entry> {
        let (shared, init, plan) = self.parts();
        // What enters a frozen cell stands still, and with it who waits for it.
        drop(init.awake(None)?);
        let policy = shared.policy();
        let become_step = plan.steps().find_map(|step| match step {
            Step::Become { uid, gid, groups, .. } => Some((uid, gid, groups != 0)),
            _ => None,
        });
        let keep = plan.steps().find_map(|step| match step {
            Step::Capabilities { keep } => Some(keep),
            _ => None,
        });
        let filter = plan.steps().find_map(|step| match step {
            Step::Filter { program, flags } => Some((program.to_vec(), flags)),
            _ => None,
        });
        let malformed = || Failure::new("protocol", "plan", "it does not say who its programs are").setup();
        let (uid, gid, groups) = become_step.ok_or_else(malformed)?;
        let rlimits = policy.rlimits.iter().chain(&shared.rlimits).chain(&init.rlimits);
        let dir = shared.resolved.dir.as_deref().unwrap_or(&plan.home);
        Ok(Entry {
            init: self.as_fd().try_clone_to_owned().map_err(|e| descriptors(raw(&e)))?,
            network: policy.network_in_effect().has_own_namespace(),
            orders: attach::Orders {
                uid,
                gid,
                groups,
                umask: policy.umask,
                rlimits: rlimits.map(|(resource, soft, hard)| (*resource as u32, *soft, *hard)).collect(),
                groups_to_join: init.entrances()?,
                keep: keep.ok_or_else(malformed)?,
                dir: attach::path(dir.as_os_str().as_bytes()).ok_or_else(malformed)?,
                plan: plan.bytes.clone(),
                filter,
            },
            kept: Vec::new(),
            hides_memory: false,
        })
    }

    /// The home of its programs.
    pub fn home(&self) -> PathBuf {
        self.parts().2.home.clone()
    }

    /// The environment that its programs have where a command says nothing else.
    ///
    /// # Errors
    /// Those of the environment of a command.
    pub fn environment(&self) -> Result<Vec<(OsString, OsString)>> {
        let (shared, _, plan) = self.parts();
        self.command("").environment(&shared.resolved, (&plan.user, &plan.home), false)
    }
}

fn raw(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EMFILE))
}

impl Entry {
    /// Working directory inside; that of the policy by default.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) where it is not absolute.
    pub fn current_dir(&mut self, dir: impl AsRef<Path>) -> Result<&mut Entry> {
        let dir = dir.as_ref();
        let path = attach::path(dir.as_os_str().as_bytes()).filter(|_| dir.is_absolute());
        self.orders.dir = path.ok_or_else(|| {
            let failure = Failure::new("option", dir.display().to_string(), "is no absolute path");
            failure.hint("begin the working directory with /").config()
        })?;
        Ok(self)
    }

    /// File mode creation mask; that of the policy by default.
    pub fn umask(&mut self, mask: u32) -> &mut Entry {
        self.orders.umask = mask & 0o777;
        self
    }

    /// Keeps a descriptor, by its number; all others are closed. One that is a directory, or only a path, makes
    /// `confine` fail: it would lead out.
    pub fn keep_fd(&mut self, fd: RawFd) -> &mut Entry {
        self.kept.push(fd);
        self
    }

    /// Programs of the cell can neither trace the process nor read its memory, environment or arguments: for what enters a cell
    /// whose programs are hostile. It cannot open its own files in /proc either (prctl(2), `PR_SET_DUMPABLE`).
    pub fn hide_memory(&mut self) -> &mut Entry {
        self.hides_memory = true;
        self
    }

    /// As bytes and descriptors, for a process that was forked before the cell was started and is to fork what enters it:
    /// send both over a socket (unix(7), `SCM_RIGHTS`), and there make the entry of them again by
    /// [`from_message`](Entry::from_message). The descriptors to be kept go as the numbers that they are.
    pub fn to_message(&self) -> (Vec<u8>, Vec<BorrowedFd<'_>>) {
        let mut bytes = Vec::new();
        u32::from(self.network).write(&mut bytes);
        u32::from(self.hides_memory).write(&mut bytes);
        (self.kept.len() as u32).write(&mut bytes);
        for fd in &self.kept {
            fd.cast_unsigned().write(&mut bytes);
        }
        self.orders.write(&mut bytes);
        let init = std::iter::once(self.init.as_fd());
        (bytes, init.chain(self.orders.groups_to_join.iter().map(AsFd::as_fd)).collect())
    }

    /// What [`to_message`](Entry::to_message) was made of.
    ///
    /// # Errors
    /// [`Error::Setup`](crate::Error::Setup) where the bytes or the number of descriptors are not those of an entry.
    pub fn from_message(bytes: &[u8], descriptors: Vec<OwnedFd>) -> Result<Entry> {
        let mut descriptors = descriptors.into_iter();
        let mut reader = Reader::new(bytes);
        let mut read = || -> Result<Entry, Malformed> {
            let init = descriptors.next().ok_or(Malformed)?;
            let network = u32::read(&mut reader)? != 0;
            let hides_memory = u32::read(&mut reader)? != 0;
            let mut kept = Vec::new();
            for _ in 0..u32::read(&mut reader)? {
                kept.push(u32::read(&mut reader)?.cast_signed());
            }
            let orders = attach::Orders::read(&mut reader, descriptors.by_ref().collect())?;
            if reader.is_empty() { Ok(Entry { init, network, orders, kept, hides_memory }) } else { Err(Malformed) }
        };
        read().map_err(|Malformed| Failure::new("protocol", "message", "it is not that of an entry").setup())
    }

    /// The first step, in a process that was forked for it: enters the cell's namespaces. What it forks now is in the
    /// cell.
    ///
    /// # Errors
    /// [`Error::Setup`](crate::Error::Setup), among others where the process has threads, or the cell has ended.
    pub fn join(&self) -> Result<()> {
        attach::join(self.init.as_fd(), self.network).map_err(failed)
    }

    /// The second step, in a process that was forked by one that has joined: becomes what a program of the cell is.
    ///
    /// # Errors
    /// [`Error::Setup`](crate::Error::Setup) with the stage that failed. The process must end.
    pub fn confine(self) -> Result<()> {
        let result = attach::confine(&self.orders, &self.kept, self.hides_memory).map_err(failed);
        // Its descriptors are closed by now, or belong to the process that made it.
        std::mem::forget(self);
        result
    }
}

fn failed(Fault { stage, errno }: Fault) -> crate::Error {
    let (name, words) = stage::describe(stage);
    let failure = Failure::new(name, "process", words).errno(errno);
    match (stage, Errno::from_raw(errno)) {
        (stage::ENTER_NAMESPACES, Errno::EINVAL) => failure.hint("it must have one thread only: fork it").setup(),
        (stage::ENTER_NAMESPACES, Errno::ESRCH) => failure.hint("the cell has ended").setup(),
        (stage::ENTER_NAMESPACES, Errno::EPERM) => failure
            .hint("only the user who started the cell may enter it, and not through a filter that forbids setns")
            .setup(),
        (stage::ENTER_OUTSIDE, _) => failure.errno(errno).hint("fork after `join`, and confine the child").setup(),
        (stage::PROGRAM_CHDIR, _) => failure.hint("the working directory is one inside the cell").setup(),
        (stage::PROGRAM_STDIO, Errno::EISDIR) => failure.hint("a directory cannot be kept: it leads out").setup(),
        _ => failure.setup(),
    }
}
