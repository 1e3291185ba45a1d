//! Programs for callers that are async, on Tokio's runtime; feature `tokio`.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> sandcell::Result<()> {
//! let sandbox = sandcell::Sandbox::builder().build()?;
//! let output = sandbox.command("sh").args(["-c", "echo hello"]).tokio().output().await?;
//! assert_eq!(output.stdout, b"hello\n");
//! # Ok(()) }
//! ```
//!
//! A future that is dropped before it is ready kills the program, and its sandbox with it; so does a [`Child`] that is dropped. Threads of
//! the runtime wait for nothing: ends and pipes are watched by its reactor, and sandboxes are made, and cleared away, on
//! its threads for blocking work. The runtime needs its I/O driver (`enable_io`, which `#[tokio::main]` does).

mod sys;

use std::fs::File;
use std::future::poll_fn;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;
use ::tokio::net::unix::pipe::{Receiver, Sender};
use ::tokio::runtime::Handle;
use ::tokio::task::spawn_blocking;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::api::cell::Cell;
use crate::api::child::Child as Blocking;
use crate::api::command::Command as BlockingCommand;
use crate::api::exchange::{Drained, drain_one, gathered};
use crate::api::sandbox::Sandbox;
use crate::api::streams::Unset;
use crate::error::{Failure, Result};
use crate::report::{Output, Report};
use crate::supervise::controller::Controller;
use crate::supervise::terminal::Terminal;
use crate::sys::descriptors;
use sys::watched;

/// A command whose runs are awaited: made by [`Command::tokio`](crate::Command::tokio).
#[derive(Debug)]
pub struct Command {
    inner: Arc<Mutex<BlockingCommand>>,
}

impl From<BlockingCommand> for Command {
    fn from(command: BlockingCommand) -> Command {
        Command { inner: Arc::new(Mutex::new(command)) }
    }
}

impl BlockingCommand {
    /// The same command for an async caller. All that was said of it moves on: this one is as if it had just been made,
    /// without arguments.
    pub fn tokio(&mut self) -> Command {
        Command::from(self.take())
    }
}

impl Command {
    /// Starts the program: as [`Command::spawn`](crate::Command::spawn). Dropped before it is ready, it ends what has been started.
    ///
    /// # Errors
    /// As there.
    pub async fn spawn(&mut self) -> Result<Child> {
        self.start(false, [Unset::Inherit; 3]).await.map(|(child, _)| child)
    }

    /// Runs the program to its end: as [`Command::status`](crate::Command::status). Dropped before it is ready, it kills the program.
    ///
    /// # Errors
    /// As there.
    pub async fn status(&mut self) -> Result<Report> {
        let (mut child, input) = self.start(true, [Unset::Inherit; 3]).await?;
        child.exchange(input.as_deref()).await.map(|output| output.report)
    }

    /// Runs the program to its end and captures what it writes: as [`Command::output`](crate::Command::output). Dropped before it is
    /// ready, it kills the program.
    ///
    /// # Errors
    /// As there.
    pub async fn output(&mut self) -> Result<Output> {
        let (mut child, input) = self.start(true, [Unset::Null, Unset::Piped, Unset::Piped]).await?;
        child.exchange(input.as_deref()).await
    }

    async fn start(&mut self, feeds_input: bool, unset: [Unset; 3]) -> Result<(Child, Option<Vec<u8>>)> {
        runtime()?;
        let command = self.inner.clone();
        // Where nobody awaits it any more, the child is dropped there, and its program ends.
        let started = aside(move || {
            let mut command = locked(&command);
            let child = command.start(feeds_input, unset)?;
            Ok((Ours(Some(child)), command.input.clone()))
        });
        let (child, input) = started.await?;
        Ok((Child::new(child, feeds_input)?, input))
    }
}

/// Starts a cell: as [`Sandbox::start`](crate::Sandbox::start). Its commands are awaited by [`Command::tokio`](crate::Command::tokio).
///
/// # Errors
/// As there.
pub async fn start(sandbox: &Sandbox) -> Result<Cell> {
    runtime()?;
    let sandbox = sandbox.clone();
    aside(move || sandbox.start()).await
}

/// A program that runs in a sandbox. Dropping it kills the program; a sandbox of its own ends with it.
#[derive(Debug)]
pub struct Child {
    /// The program's standard input, if it was asked to be a pipe.
    pub stdin: Option<Sender>,
    /// The program's standard output, if it was asked to be a pipe.
    pub stdout: Option<Receiver>,
    /// The program's standard error, if it was asked to be a pipe.
    pub stderr: Option<Receiver>,
    /// The other end of the program's terminal, if it was asked for.
    pub terminal: Option<Terminal>,
    inner: Arc<Mutex<Ours>>,
    controller: Controller,
    events: AsyncFd<File>,
    /// When a program with a timeout is given up, should its supervisor not have ended it by then.
    overdue: Option<AsyncFd<File>>,
    pid: u32,
}

/// A child that ends on a thread where it may take its time.
#[derive(Debug)]
struct Ours(Option<Blocking>);

impl Ours {
    fn child(&mut self) -> &mut Blocking {
        self.0.as_mut().expect("it is taken out when this is dropped")
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let Some(child) = self.0.take() else { return };
        if child.report.is_none() {
            // At once, however many wait for a thread.
            let _ = child.controller.tell_to_kill();
        }
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(child))),
            Err(_) => drop(child),
        }
    }
}

impl Child {
    /// `whole`: its pipes stay together, for `exchange`.
    fn new(mut ours: Ours, whole: bool) -> Result<Child> {
        let child = ours.child();
        let events = child.events().try_clone_to_owned().map_err(|e| failed(&e))?;
        let overdue = child.overdue().map(timer).transpose()?;
        let mut all = Child {
            stdin: None,
            stdout: None,
            stderr: None,
            terminal: None,
            controller: child.controller(),
            events: watched(File::from(events), Interest::READABLE)?,
            overdue,
            pid: child.id(),
            inner: Arc::new(Mutex::new(ours)),
        };
        if !whole {
            let mut ours = locked(&all.inner);
            let child = ours.child();
            let reader = |pipe: OwnedFd| Receiver::from_owned_fd(pipe).map_err(|e| failed(&e));
            let writer = |pipe: OwnedFd| Sender::from_owned_fd(pipe).map_err(|e| failed(&e));
            all.stdin = child.stdin.take().map(|pipe| writer(pipe.into())).transpose()?;
            all.stdout = child.stdout.take().map(|pipe| reader(pipe.into())).transpose()?;
            all.stderr = child.stderr.take().map(|pipe| reader(pipe.into())).transpose()?;
            all.terminal = child.terminal.take();
        }
        Ok(all)
    }

    /// The program's process number inside the sandbox.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// Something that can signal and end this program from anywhere.
    pub fn controller(&self) -> Controller {
        self.controller.clone()
    }

    /// Sends a signal to the program. No error if it has ended already.
    ///
    /// # Errors
    /// `Config` for what is no signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.controller.signal(signal)
    }

    /// Sends a signal to the program's process group: as [`Child::signal_group`](crate::Child::signal_group).
    ///
    /// # Errors
    /// As [`signal`](Child::signal).
    pub fn signal_group(&self, signal: i32) -> Result<()> {
        self.controller.signal_group(signal)
    }

    /// Ends the program and all that it started, and waits for that.
    ///
    /// # Errors
    /// As [`Child::wait`](crate::Child::wait).
    pub async fn kill(&mut self) -> Result<Report> {
        let controller = self.controller.clone();
        aside(move || controller.kill()).await?;
        self.wait().await
    }

    /// Waits for the end. A pipe for standard input that is still here is closed first. It may be dropped and called again: nothing
    /// is lost.
    ///
    /// # Errors
    /// As [`Child::wait`](crate::Child::wait).
    pub async fn wait(&mut self) -> Result<Report> {
        drop(self.stdin.take());
        ended(&self.inner, &self.events, self.overdue.as_ref()).await
    }

    /// Closes standard input, reads both outputs to their end and waits.
    ///
    /// # Errors
    /// As [`Child::wait`](crate::Child::wait).
    pub async fn wait_with_output(mut self) -> Result<Output> {
        drop(self.stdin.take());
        let blocking = |pipe: Receiver| pipe.into_blocking_fd().map_err(|e| failed(&e));
        let stdout = self.stdout.take().map(blocking).transpose()?;
        let stderr = self.stderr.take().map(blocking).transpose()?;
        {
            let mut ours = locked(&self.inner);
            let child = ours.child();
            (child.stdout, child.stderr) = (stdout.map(Into::into), stderr.map(Into::into));
            child.terminal = self.terminal.take();
        }
        self.exchange(None).await
    }

    /// Writes the input and reads the outputs, whichever are pipes, until the program has ended.
    async fn exchange(&mut self, input: Option<&[u8]>) -> Result<Output> {
        let (stdin, outputs) = locked(&self.inner).child().ends(input.unwrap_or_default())?;
        let mut streams = Streams::new(stdin, outputs, input.unwrap_or_default())?;
        let report = {
            let mut wait = pin!(ended(&self.inner, &self.events, self.overdue.as_ref()));
            poll_fn(|context| {
                streams.poll(context);
                wait.as_mut().poll(context)
            })
            .await?
        };
        let read = streams.rest();
        let (stdout, stderr) = locked(&self.inner).child().by_stream(read);
        Ok(gathered(stdout, stderr, report))
    }
}

/// Waits for the end of a program. What there is to do then, reaping and clearing away, is done on another thread.
async fn ended(ours: &Arc<Mutex<Ours>>, events: &AsyncFd<File>, overdue: Option<&AsyncFd<File>>) -> Result<Report> {
    loop {
        let ours = ours.clone();
        if let Some(report) = aside(move || locked(&ours).child().try_wait()).await? {
            return Ok(report);
        }
        // The readiness is forgotten before it is looked again: what comes meanwhile is not missed.
        poll_fn(|context| {
            let heard = forget(events.poll_read_ready(context).map_ok(|mut ready| ready.clear_ready()));
            // Its time has passed, whatever was heard; that is not forgotten.
            let late = overdue.map(|timer| forget(timer.poll_read_ready(context).map_ok(|_| ())));
            if heard.is_ready() { heard } else { late.unwrap_or(Poll::Pending) }
        })
        .await?;
    }
}

fn forget(polled: Poll<std::io::Result<()>>) -> Poll<Result<()>> {
    polled.map(|result| result.map_err(|e| failed(&e)))
}

/// The streams of a program, while both sides are at it.
struct Streams<'a> {
    stdin: Option<AsyncFd<File>>,
    rest: &'a [u8],
    outputs: [Option<AsyncFd<File>>; 3],
    read: [Vec<u8>; 3],
}

impl<'a> Streams<'a> {
    fn new(stdin: Option<File>, outputs: [Option<File>; 3], rest: &'a [u8]) -> Result<Streams<'a>> {
        let watched = |file: Option<File>, interest| file.map(|file| watched(file, interest)).transpose();
        let [stdout, stderr, terminal] = outputs.map(|file| watched(file, Interest::READABLE));
        let outputs = [stdout?, stderr?, terminal?];
        Ok(Streams { stdin: watched(stdin, Interest::WRITABLE)?, rest, outputs, read: Default::default() })
    }

    /// Writes and reads what can be without waiting, and sees to it that this is called when there is more.
    fn poll(&mut self, context: &mut Context<'_>) {
        for (at, (output, bytes)) in self.outputs.iter_mut().zip(&mut self.read).enumerate() {
            while let Some(pipe) = output
                && let Poll::Ready(Ok(mut ready)) = pipe.poll_read_ready_mut(context)
            {
                match drain_one(ready.get_inner_mut(), at, bytes, usize::MAX) {
                    Drained::Empty => ready.clear_ready(),
                    Drained::AtEnd => *output = None,
                    Drained::Full => {
                        // Others have their turn before a program that writes without end.
                        context.waker().wake_by_ref();
                        break;
                    }
                }
            }
        }
        while let Some(pipe) = &mut self.stdin
            && let Poll::Ready(Ok(mut ready)) = pipe.poll_write_ready_mut(context)
        {
            match ready.get_inner_mut().write(self.rest) {
                Ok(written) => self.rest = &self.rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
                // The program does not want it: not our error.
                Err(_) => self.rest = &[],
            }
            if self.rest.is_empty() {
                self.stdin = None;
            }
        }
    }

    /// What is in the pipes now is all that belongs to a program that has ended.
    fn rest(mut self) -> [Vec<u8>; 3] {
        for (at, (output, bytes)) in self.outputs.iter_mut().zip(&mut self.read).enumerate() {
            if let Some(pipe) = output {
                drain_one(pipe.get_mut(), at, bytes, usize::MAX);
            }
        }
        self.read
    }
}

/// Readable at that time.
fn timer(at: std::time::Instant) -> Result<AsyncFd<File>> {
    let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(descriptors)?;
    // Zero would be never.
    let left = at.saturating_duration_since(std::time::Instant::now()).max(std::time::Duration::from_millis(1));
    timer.set(Expiration::OneShot(left.into()), TimerSetTimeFlags::empty()).map_err(descriptors)?;
    watched(File::from(OwnedFd::from(timer)), Interest::READABLE)
}

/// Does it on a thread where it may take its time.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Failure::new("option", "tokio", "the runtime is shutting down").hint("Await it before.").io()),
    }
}

fn runtime() -> Result<()> {
    Handle::try_current().map(|_| ()).map_err(|_| {
        let failure = Failure::new("option", "tokio", "there is no runtime of Tokio on this thread");
        failure.hint("Await it within a runtime, or see docs/async.md for other ones.").config()
    })
}

fn failed(error: &std::io::Error) -> crate::Error {
    descriptors(nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(libc::EMFILE)))
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
