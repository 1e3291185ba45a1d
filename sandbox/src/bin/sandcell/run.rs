//! `sandcell run` and `test`: one program in a sandbox of its own, with the caller's signals passed on.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use sandcell::{Child, Error, Outcome, Report, Sandbox};

use crate::options::{Options, amended, wrong};
use crate::{FAILED, sys, tell};

/// How a run ended: the status for it, and the signal if one ended the program.
pub struct Ended {
    status: u8,
    signal: Option<i32>,
}

impl Ended {
    /// For shells: 128 + n for a signal.
    pub fn status(self) -> ExitCode {
        self.status.into()
    }

    /// For test runners, which tell a crash from a failure: as the program ended, so do we.
    pub fn same(self) -> ExitCode {
        if let Some(signal) = self.signal {
            sys::end_by(signal);
        }
        self.status()
    }
}

impl From<u8> for Ended {
    fn from(status: u8) -> Ended {
        Ended { status, signal: None }
    }
}

pub fn run(
    options: &Options,
    sandbox: impl FnOnce() -> Result<Sandbox, Error>,
    report: Option<&OsStr>,
    words: &[OsString],
) -> Ended {
    // Opened first: a place that cannot be written to is found before anything runs.
    let mut file = match report.map(open).transpose() {
        Ok(file) => file,
        Err(error) => {
            tell(&error);
            return FAILED.into();
        }
    };
    let sandbox = match sandbox() {
        Ok(sandbox) => sandbox,
        Err(error) => return finish(Err(error), file.as_mut()),
    };
    let mut command = match options.command(&sandbox, words) {
        Ok(command) => command,
        Err(error) => return finish(Err(error), file.as_mut()),
    };
    // The bytes are counted in a pipe; a program that talks to a terminal keeps the terminal.
    command.count_output(file.is_some() && !std::io::stdout().is_terminal());
    let signals = match hold_signals() {
        Ok(signals) => signals,
        Err(errno) => {
            complain!("sandcell: cannot hold signals back: {errno}");
            return FAILED.into();
        }
    };
    let result = command.spawn().and_then(|child| attend(child, &signals));
    finish(result, file.as_mut())
}

/// `sandcell learn`: the same run, but that what it needed is written down.
pub fn learn(options: &Options, place: &Path, words: &[OsString]) -> ExitCode {
    let result = File::create(place)
        .map_err(|error| wrong("--output", place.as_os_str(), format!("cannot be written: {error}")))
        .and_then(|file| options.sandbox().map(|sandbox| (file, sandbox)));
    match result {
        Ok((file, sandbox)) => finish(learn_in(&sandbox, file, place, words), None).status(),
        Err(error) => finish(Err(error), None).status(),
    }
}

fn learn_in(sandbox: &Sandbox, mut file: File, place: &Path, words: &[OsString]) -> Result<Report, Error> {
    let mut command = sandbox.command(&words[0]);
    let signals = hold_signals().map_err(|errno| Error::option("signals", format!("cannot be held back: {errno}")))?;
    let child = command.args(&words[1..]).learn(true).spawn()?;
    let report = attend(child, &signals)?;
    if let Some(profile) = &report.learned {
        let written = file.write_all(profile.to_json()?.as_bytes());
        written.map_err(|error| wrong("--output", place.as_os_str(), format!("cannot be written: {error}")))?;
    }
    Ok(report)
}

fn open(place: &OsStr) -> Result<File, Error> {
    let opened = match place.to_str().and_then(|text| text.strip_prefix("fd:")) {
        Some(number) => match number.parse() {
            Ok(number) => sys::inherited(number),
            Err(_) => return Err(wrong("--report", place, "not the number of a descriptor")),
        },
        None => File::create(place),
    };
    // A descriptor that can only be read is found here, too, and not when there is something to write.
    let writable = |file: &File| {
        let mode = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?) & OFlag::O_ACCMODE;
        if mode == OFlag::O_RDONLY { Err(std::io::Error::from(Errno::EBADF)) } else { Ok(()) }
    };
    opened.and_then(|file| writable(&file).map(|()| file)).map_err(|error| {
        let error = wrong("--report", place, format!("cannot be written: {error}"));
        amended(error, |failure| failure.hint = "name a file or a descriptor that can be written to".to_owned())
    })
}

/// The report of a command line that could not be understood. What is wrong has been said already.
pub fn report_mistake(place: &OsStr, mistake: &Error) {
    if let Ok(mut file) = open(place) {
        let _ = writeln!(file, "{}", sandcell::report::error_to_json(mistake));
    }
}

/// From here on the signals that are meant for the program wait in a descriptor. No handler: the library's caller
/// could not have one either.
fn hold_signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    use Signal::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2};
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Passes signals on until the program has ended.
fn attend(mut child: Child, signals: &SignalFd) -> Result<Report, Error> {
    loop {
        let mut polls =
            [PollFd::new(child.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polls, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            // Waiting works without: only the passing on is lost.
            Err(_) => return child.wait(),
            Ok(_) => {}
        }
        let ended = polls[0].any().unwrap_or(true);
        while let Ok(Some(signal)) = signals.read_signal() {
            pass_on(&child, signal.ssi_signo.cast_signed())?;
        }
        if ended {
            return child.wait();
        }
    }
}

/// A program inside is alone in its session, where the kernel ignores SIGTSTP: it is stopped for good instead, and
/// then we stop as we were told. SIGCONT wakes us before we read that it came.
fn pass_on(child: &Child, signal: i32) -> Result<(), Error> {
    if signal != Signal::SIGTSTP as i32 {
        return child.signal(signal);
    }
    child.signal(Signal::SIGSTOP as i32)?;
    let _ = nix::sys::signal::raise(Signal::SIGSTOP);
    Ok(())
}

/// Writes the report, says what went wrong, and finds the status to end with.
fn finish(result: Result<Report, Error>, file: Option<&mut File>) -> Ended {
    let json = sandcell::report::to_json(&result);
    let ended = match result {
        Ok(report) => {
            let left = report.leftovers.iter().map(|l| format!("{} (pid {})", l.command, l.pid)).collect::<Vec<_>>();
            if !left.is_empty() {
                complain!("sandcell: still alive when the program ended: {}", left.join(", "));
            }
            let signal = match report.outcome {
                Outcome::Signaled { signal, .. } => Some(signal),
                _ => None,
            };
            Ended { status: report.exit_status() as u8, signal }
        }
        Err(error) => {
            let status = match (&error, error.errno()) {
                (Error::Exec(_), Some(nix::libc::ENOENT)) if error.stage() == "exec" => 127,
                (Error::Exec(_), _) => 126,
                _ => FAILED,
            };
            tell(&error);
            status.into()
        }
    };
    if let Some(file) = file
        && let Err(error) = writeln!(file, "{json}")
    {
        complain!("sandcell: the report cannot be written: {error}");
        return FAILED.into();
    }
    ended
}
