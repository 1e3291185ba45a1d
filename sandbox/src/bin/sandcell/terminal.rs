//! `-t`: the caller's terminal, in raw mode, and that of the program. What one has is written to the other as fast as that takes
//! it; neither a program that reads nothing nor a terminal that is held up by Ctrl-S keeps signals or the other direction waiting.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::termios::{FlowArg, SetArg, Termios, cfmakeraw, tcflow, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};
use sandcell::{Child, Command, Error, Report, Stdio, Terminal, TerminalSize};

use crate::late::Carried;
use crate::{background, sys};

/// What waits for the other side at most, in each direction.
const MOST: usize = 64 * 1024;
/// What is written at once where a descriptor cannot be kept from blocking: a pipe that is writable takes as much.
const PIECE: usize = 4096;
/// How often, in milliseconds, a terminal that nobody inside has is looked at.
const AGAIN: u128 = 100;
/// How often it is looked at what is carried.
const CARRIED: Duration = Duration::from_millis(50);
/// How long the output of a program whose time is up may still take to be shown.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// The caller's terminal in raw mode. It is as it was when this is gone, however that comes.
struct Raw {
    terminal: OwnedFd,
    before: Termios,
    /// What `before` is stays so while we have not left it.
    entered: bool,
}

impl Raw {
    /// Nothing where standard input is no terminal.
    fn new() -> io::Result<Option<Raw>> {
        let input = io::stdin();
        if !input.is_terminal() {
            return Ok(None);
        }
        let terminal = input.as_fd().try_clone_to_owned()?;
        await_foreground(&terminal);
        Ok(Some(Raw { before: tcgetattr(&terminal)?, terminal, entered: false }))
    }

    fn enter(&mut self) -> io::Result<()> {
        await_foreground(&self.terminal);
        if !std::mem::replace(&mut self.entered, true) {
            self.before = tcgetattr(&self.terminal)?;
        }
        let mut modes = self.before.clone();
        cfmakeraw(&mut modes);
        Ok(tcsetattr(&self.terminal, SetArg::TCSANOW, &modes)?)
    }

    fn leave(&mut self) {
        self.entered = false;
        // In the background the terminal is somebody else's, who has set its modes.
        if !tcgetpgrp(&self.terminal).is_ok_and(|group| group != getpgrp()) {
            let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
        }
    }
}

/// In the background this stops us, as whatever changes the terminal stops a program there: what the modes are until then is the
/// shell's affair.
fn await_foreground(terminal: &OwnedFd) {
    let _ = tcflow(terminal, FlowArg::TCOON);
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The terminal of a command: like the caller's, where there is one.
fn set_up(command: &mut Command) {
    let like = Stdio::terminal_like(io::stdin()).or_else(|_| Stdio::terminal_like(io::stdout()));
    command.stdin(like.unwrap_or_else(|_| Stdio::terminal(TerminalSize::default()))).report_stops(true);
}

/// The size of the caller's terminal.
fn size() -> Option<TerminalSize> {
    TerminalSize::of(io::stdin()).or_else(|_| TerminalSize::of(io::stdout())).ok()
}

/// Runs the command at a terminal of its own.
pub fn run(command: &mut Command, signals: &SignalFd, started: impl FnOnce(&Child)) -> Result<Report, Error> {
    let failed = |error: io::Error| Error::option("tty", format!("the terminal cannot be set: {error}"));
    let mut raw = Raw::new().map_err(failed)?;
    set_up(command);
    raw.as_mut().map_or(Ok(()), Raw::enter).map_err(failed)?;
    let mut child = command.spawn().inspect(started)?;
    let terminal = child.terminal.take();
    let (output, carried) = output();
    let session = Session {
        input: without_blocking(io::stdin().as_fd(), false).ok(),
        output,
        carried,
        typed: Vec::new(),
        shown: Vec::new(),
        ends: false,
        unfinished: false,
        child,
        terminal,
        closed: false,
        raw,
    };
    session.attend(signals)
}

/// A descriptor of our own that does not block, for what can be opened again: O_NONBLOCK on the caller's would be the shell's, too.
fn without_blocking(fd: BorrowedFd<'_>, writes: bool) -> io::Result<File> {
    let file = File::from(fd.try_clone_to_owned()?);
    let kind = file.metadata()?.file_type();
    if !kind.is_fifo() && !file.is_terminal() {
        return Ok(file);
    }
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    let mut options = File::options();
    let options = options.read(!writes).write(writes).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    Ok(options.open(path).unwrap_or(file))
}

/// Standard output. A terminal or FIFO that we may not open again gets what comes by way of a pipe.
fn output() -> (Option<File>, Option<Carried>) {
    let Ok(output) = without_blocking(io::stdout().as_fd(), true) else { return (None, None) };
    let blocks = fcntl(&output, FcntlArg::F_GETFL).is_ok_and(|flags| flags & libc::O_NONBLOCK == 0);
    if !blocks || output.metadata().is_ok_and(|what| what.is_file()) {
        return (Some(output), None);
    }
    match output.try_clone().and_then(Carried::to) {
        Ok((pipe, carried)) => (Some(pipe), Some(carried)),
        Err(_) => (Some(output), None),
    }
}

struct Session {
    /// The caller's, until they end.
    input: Option<File>,
    output: Option<File>,
    /// Where the output is the beginning of a pipe.
    carried: Option<Carried>,
    /// What waits to be typed, and to be shown.
    typed: Vec<u8>,
    shown: Vec<u8>,
    /// The end of the input waits to be typed behind it.
    ends: bool,
    /// Whether what was typed last is a line without its end.
    unfinished: bool,
    child: Child,
    terminal: Option<Terminal>,
    /// Nobody inside has it at the moment. It is kept: a program may close its streams before it ends, and must not be hung up.
    closed: bool,
    /// Last: the terminal is restored when all else is over.
    raw: Option<Raw>,
}

impl Session {
    fn attend(mut self, signals: &SignalFd) -> Result<Report, Error> {
        loop {
            let ready = self.wait(signals)?;
            while let Ok(Some(signal)) = signals.read_signal() {
                self.take_signal(signal.ssi_signo.cast_signed(), signal.ssi_code == libc::SI_KERNEL)?;
            }
            if ready[INPUT] {
                self.read_input();
            }
            self.exchange();
            if !ready[EVENTS] && self.child.overdue().is_none_or(|at| Instant::now() < at) {
                continue;
            }
            if let Some(report) = self.child.try_wait()? {
                // One whose time is up is not waited for longer because nobody takes its output.
                let until = report.timed_out.map(|_| Instant::now() + LAST_WORDS);
                self.show_rest(signals, until);
                return Ok(report);
            }
            if self.child.stopped().is_some() {
                self.suspend()?;
            }
        }
    }

    /// Waits until something can be done; what is ready.
    fn wait(&self, signals: &SignalFd) -> Result<[bool; 5], Error> {
        let none = PollFlags::empty();
        let some = |wanted: bool, flags: PollFlags| if wanted { flags } else { none };
        let input = some(self.typed.len() < MOST, PollFlags::POLLIN);
        let output = some(!self.shown.is_empty(), PollFlags::POLLOUT);
        let typing = !self.typed.is_empty() || self.ends;
        let both = some(self.shown.len() < MOST, PollFlags::POLLIN) | some(typing, PollFlags::POLLOUT);
        let mut polls = vec![
            (EVENTS, PollFd::new(self.child.events(), PollFlags::POLLIN)),
            (SIGNALS, PollFd::new(signals.as_fd(), PollFlags::POLLIN)),
        ];
        // What nothing is wanted of is left out: poll tells of a hang-up without being asked.
        let more = [
            (INPUT, self.input.as_ref().map(AsFd::as_fd), input),
            (OUTPUT, self.output.as_ref().map(AsFd::as_fd), output),
            (TERMINAL, self.terminal.as_ref().filter(|_| !self.closed).map(AsFd::as_fd), both),
        ];
        for (place, fd, flags) in more {
            if let Some(fd) = fd
                && flags != none
            {
                polls.push((place, PollFd::new(fd, flags)));
            }
        }
        let left = self.child.overdue().map(|at| at.saturating_duration_since(Instant::now()).as_millis() + 1);
        // There is no event for an end that is opened again.
        let left = left.into_iter().chain(self.closed.then_some(AGAIN)).min();
        let timeout = left.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        let (places, mut polls): (Vec<usize>, Vec<PollFd<'_>>) = polls.into_iter().unzip();
        match poll(&mut polls, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::option("tty", format!("cannot wait for the terminal: {errno}"))),
        }
        let mut ready = [false; 5];
        for (place, poll) in places.into_iter().zip(polls) {
            ready[place] = poll.any().unwrap_or(false);
        }
        Ok(ready)
    }

    fn read_input(&mut self) {
        let Some(input) = &mut self.input else { return };
        let mut buffer = [0; PIECE];
        match input.read(&mut buffer) {
            Ok(0) => (self.input, self.ends) = (None, true),
            Ok(count) => {
                self.unfinished = buffer[count - 1] != b'\n';
                self.typed.extend_from_slice(&buffer[..count]);
            }
            Err(error) if is_later(&error) => {}
            // The caller's terminal is gone.
            Err(_) => self.input = None,
        }
    }

    /// Moves what can be moved without waiting.
    fn exchange(&mut self) {
        if let Some(terminal) = &self.terminal {
            if std::mem::take(&mut self.ends) {
                // The first one behind a line without its end only sends that.
                self.typed.extend(vec![terminal.end_of_file(); 1 + usize::from(self.unfinished)]);
            }
            // Nobody inside has it, and what is typed waits for whoever opens it again.
            let failed = type_into(terminal, &mut self.typed).is_err();
            self.closed = read_from(terminal, &mut self.shown) || failed;
        }
        if let Some(output) = &mut self.output {
            match write_some(output, &mut self.shown) {
                Ok(()) => {}
                // Nobody sees it any more: as where a terminal is gone.
                Err(_) => (self.output, self.terminal) = (None, None),
            }
        }
        if self.output.is_none() {
            self.shown.clear();
        }
    }

    /// The program has ended: what its terminal still holds is shown before that is told. Whoever ends us meanwhile need not wait
    /// for that.
    fn show_rest(&mut self, signals: &SignalFd, until: Option<Instant>) {
        self.show_what_is_left(signals, until);
        if let Some(carried) = self.carried.take() {
            self.output = None;
            let is_late = || until.is_some_and(|until| Instant::now() >= until);
            while !is_late() && !is_told_to_end(signals) && !carried.is_over(CARRIED) {}
        }
    }

    fn show_what_is_left(&mut self, signals: &SignalFd, until: Option<Instant>) {
        (self.input, self.ends) = (None, false);
        self.typed.clear();
        loop {
            self.exchange();
            // A terminal that others in the sandbox have open would never be at its end, and they are gone.
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if self.shown.is_empty() || self.output.is_none() || left.is_some_and(|left| left.is_zero()) {
                return;
            }
            let left = left.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
            });
            let ready = self.output.as_ref().map(|output| {
                let mut polls =
                    [PollFd::new(output.as_fd(), PollFlags::POLLOUT), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
                poll(&mut polls, left)
            });
            if !matches!(ready, Some(Ok(_) | Err(Errno::EINTR))) {
                return;
            }
            if is_told_to_end(signals) {
                return;
            }
        }
    }

    fn take_signal(&mut self, signal: i32, of_terminal: bool) -> Result<(), Error> {
        match signal {
            libc::SIGWINCH => self.resize(),
            libc::SIGCONT => self.go_on(),
            libc::SIGTSTP => {
                background::stop(&self.child)?;
                self.suspend()?;
            }
            // The caller's terminal is gone, and so is the program's.
            libc::SIGHUP if of_terminal => self.terminal = None,
            signal if sys::FATAL.contains(&signal) => {
                self.child.kill()?;
                drop(self.raw.take());
                sys::end_by(signal);
            }
            signal if of_terminal => self.child.signal_group(signal)?,
            signal => self.child.signal(signal)?,
        }
        Ok(())
    }

    fn resize(&self) {
        if let (Some(terminal), Some(size)) = (&self.terminal, size()) {
            let _ = terminal.resize(size);
        }
    }

    fn go_on(&mut self) {
        if let Some(raw) = &mut self.raw {
            let _ = raw.enter();
        }
        self.resize();
    }

    /// The program is stopped, and so are we until our shell lets us go on. Where there is no shell that could, the kernel does
    /// not stop us.
    fn suspend(&mut self) -> Result<(), Error> {
        if let Some(raw) = &mut self.raw {
            raw.leave();
        }
        sys::stop_job(Signal::SIGTSTP);
        self.go_on();
        self.child.signal_group(libc::SIGCONT)
    }
}

const EVENTS: usize = 0;
const SIGNALS: usize = 1;
const INPUT: usize = 2;
const OUTPUT: usize = 3;
const TERMINAL: usize = 4;

fn is_told_to_end(signals: &SignalFd) -> bool {
    while let Ok(Some(signal)) = signals.read_signal() {
        let signal = signal.ssi_signo.cast_signed();
        if [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT].contains(&signal) {
            return true;
        }
    }
    false
}

fn is_later(error: &io::Error) -> bool {
    [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind())
}

/// Types what the program, or the kernel for it, takes now.
fn type_into(terminal: &Terminal, typed: &mut Vec<u8>) -> io::Result<()> {
    while !typed.is_empty() {
        match terminal.write_timeout(typed, Duration::ZERO) {
            Ok(0) => break,
            Ok(count) => drop(typed.drain(..count)),
            // Nobody has it at the moment: the program may open it again.
            Err(error) if is_later(&error) || error.raw_os_error() == Some(libc::EIO) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads what is there; whether it is at its end.
fn read_from(terminal: &Terminal, shown: &mut Vec<u8>) -> bool {
    let mut buffer = [0; PIECE];
    while shown.len() < MOST {
        match terminal.read_timeout(&mut buffer, Duration::ZERO) {
            Ok(None) => return false,
            Ok(Some(0)) | Err(_) => return true,
            Ok(Some(count)) => shown.extend_from_slice(&buffer[..count]),
        }
    }
    false
}

fn write_some(output: &mut File, shown: &mut Vec<u8>) -> io::Result<()> {
    while !shown.is_empty() {
        let mut polls = [PollFd::new(output.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut polls, PollTimeout::ZERO)? == 0 {
            return Ok(());
        }
        match output.write(&shown[..shown.len().min(PIECE)]) {
            Ok(count) => drop(shown.drain(..count)),
            Err(error) if is_later(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
