//! Cells with a name: the verbs that people know from LXC, Docker and podman.

mod copy;
mod follow;
mod inside;
mod schedule;
mod show;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use sandcell::{Cell, CellInfo, Detach, Error, NamedCell, Restart, options as table};

use crate::options::{Options, amended};
use crate::{FAILED, printed, run, tell};

#[derive(Subcommand)]
pub enum CellAction {
    /// Start a cell with a name, which lives on until its program ends or it is stopped
    Start {
        /// Letters, digits, `_`, `.` and `-`
        name: String,
        #[command(flatten)]
        options: Box<Options>,
        /// Keep the program's standard input open, for `attach`
        #[arg(short, long)]
        interactive: bool,
        /// Bytes of a file of the log, before the next one is begun
        #[arg(long, value_name = "SIZE", default_value = "10M")]
        log_max_size: String,
        /// How many files of the log are kept
        #[arg(long, value_name = "N", default_value_t = 5)]
        log_files: u32,
        /// Whether the program is started again when it has ended, in the same cell
        #[arg(long, value_enum, default_value_t = Again::No)]
        restart: Again,
        /// Run the program at these times, in a fresh sandbox each: five fields as in crontab(5), or @hourly and the like; local times, or
        /// UTC after `CRON_TZ=UTC`
        #[arg(long, value_name = "CRON")]
        schedule: Option<String>,
        /// Begin a run although another one goes on
        #[arg(long)]
        schedule_overlap: bool,
        /// The program and its arguments, whose output is the log; without one the cell lives until it is stopped, and
        /// `--timeout` is that of each program that `exec` runs
        #[arg(last = true, value_name = "PROGRAM")]
        words: Vec<OsString>,
    },
    /// Run a program in a cell and pass its exit status on
    Exec {
        /// Pass standard input on
        #[arg(short, long)]
        interactive: bool,
        /// Give it a terminal of its own, connected with ours
        #[arg(short, long)]
        tty: bool,
        /// A variable for it; repeat
        #[arg(short, long, value_name = "KEY[=VALUE]")]
        env: Vec<OsString>,
        /// Working directory inside
        #[arg(short = 'C', long, value_name = "DIR")]
        chdir: Option<OsString>,
        /// Whose program it is: the cell's own user, by its number
        #[arg(short, long, value_name = "UID")]
        user: Option<String>,
        /// Time on the clock for it, instead of the cell's own limit
        #[arg(long, value_name = "DUR")]
        timeout: Option<String>,
        name: String,
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
        words: Vec<OsString>,
    },
    /// Show the output of a cell's program as it comes, feed its input, and pass its exit status on
    Attach {
        /// Take the input away from somebody else who is attached
        #[arg(long)]
        takeover: bool,
        /// Only show the output
        #[arg(long)]
        no_stdin: bool,
        name: String,
    },
    /// List cells
    Ps {
        /// Those that have ended, too
        #[arg(short, long)]
        all: bool,
        /// As a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Show what cells use
    Stats {
        /// As a JSON array
        #[arg(long)]
        json: bool,
        /// All that run, if none is named
        names: Vec<String>,
    },
    /// Show the log of a cell
    Logs {
        /// Go on as it grows, until the cell ends
        #[arg(short, long)]
        follow: bool,
        /// From this time on: 10m for ten minutes ago, or 2026-11-30T01:14:44Z
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// The last lines only
        #[arg(long, value_name = "N")]
        tail: Option<usize>,
        /// From this byte of the log on
        #[arg(long, value_name = "BYTE", conflicts_with = "tail")]
        offset: Option<u64>,
        /// With time and stream before each line
        #[arg(short, long)]
        timestamps: bool,
        name: String,
    },
    /// End cells: SIGTERM for the program, then the end of all
    Stop {
        /// Between the two [default: the cell's own grace]
        #[arg(short, long, value_name = "DUR")]
        grace: Option<String>,
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// End cells at once, or send their programs a signal
    Kill {
        /// Another signal than SIGKILL, for the program: a name or a number
        #[arg(short, long, value_name = "SIGNAL")]
        signal: Option<String>,
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Stop everything in cells until `resume`
    Pause {
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Let everything in cells go on
    #[command(visible_alias = "unpause")]
    Resume {
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Copy files and directories into a cell or out of it
    Cp {
        /// A file or directory, or NAME:PATH; DIR/. is what is in it, - a tar archive on standard input
        from: String,
        /// A file or directory, or NAME:PATH; - a tar archive on standard output
        to: String,
    },
    /// Wait for the end of a cell and pass its exit status on
    Wait {
        /// Not longer than this; status 124 then
        #[arg(long, value_name = "DUR")]
        timeout: Option<String>,
        name: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Again {
    No,
    OnFailure,
    Always,
}

pub fn act(action: CellAction) -> ExitCode {
    match action {
        CellAction::Start {
            name,
            options,
            interactive,
            log_max_size,
            log_files,
            restart,
            schedule,
            schedule_overlap,
            words,
        } => {
            let restart = match restart {
                Again::No => Restart::No,
                Again::OnFailure => Restart::OnFailure,
                Again::Always => Restart::Always,
            };
            let detach = Detach::new(&name).keep_stdin(interactive).log_files(log_files).restart(restart);
            let detach = detach.schedule_overlap(schedule_overlap);
            let size = table::size("log_max_size", &log_max_size);
            let started = size.and_then(|size| match &schedule {
                Some(text) => schedule::start(detach.log_max_size(size), text, &options, &words),
                None => start(&detach.log_max_size(size), &options, &words),
            });
            done(started.map_err(|error| of_cell(&name, error)))
        }
        CellAction::Exec { interactive, tty, env, chdir, user, timeout, name, words } => {
            let asked = Asked { interactive, env, chdir, user, timeout };
            match exec(&name, &asked, &words) {
                Ok((command, timeout)) => run::command(command, tty, &name, timeout),
                Err(error) => failed(&of_cell(&name, error)),
            }
        }
        CellAction::Attach { takeover, no_stdin, name } => {
            follow::attach(&name, takeover, !no_stdin).unwrap_or_else(|error| failed(&of_cell(&name, error)))
        }
        CellAction::Ps { all, json } => printed(show::list(all, json)),
        CellAction::Stats { json, names } => printed(show::stats(&names, json)),
        CellAction::Logs { follow, since, tail, offset, timestamps, name } => {
            let from = follow::From { since: since.as_deref(), tail, offset };
            done(follow::logs(&name, &from, follow, timestamps).map_err(|error| of_cell(&name, error)))
        }
        CellAction::Stop { grace, names } => {
            let grace = grace.as_deref().map(|text| table::duration("grace", text)).transpose();
            match grace {
                Ok(grace) => each(&names, |cell| cell.stop(grace)),
                Err(error) => failed(&error),
            }
        }
        CellAction::Kill { signal, names } => match signal.as_deref().map(signal_number).transpose() {
            Ok(None | Some(nix::libc::SIGKILL)) => each(&names, NamedCell::kill),
            Ok(Some(signal)) => each(&names, |cell| cell.signal(signal)),
            Err(error) => failed(&error),
        },
        CellAction::Pause { names } => each(&names, NamedCell::pause),
        CellAction::Resume { names } => each(&names, NamedCell::resume),
        CellAction::Cp { from, to } => done(copy::copy(&from, &to)),
        CellAction::Wait { timeout, name } => wait(&name, timeout.as_deref()),
    }
}

fn start(detach: &Detach, options: &Options, words: &[OsString]) -> Result<(), Error> {
    let sandbox = options.sandbox()?;
    if words.is_empty() && !options.names_program() {
        return detach.start(&sandbox).map(|_| ());
    }
    let mut command = options.command(&sandbox, words)?;
    detach.run(&mut command).map(|_| ())
}

/// `sandcell rm`, of which images have a part.
pub fn remove(name: &str, force: bool) -> Result<(), Error> {
    let cell = Cell::find(name)?;
    if force {
        cell.kill()?;
    }
    cell.remove()
}

/// `sandcell inspect`, of which images have a part.
pub fn inspect(name: &str) -> Result<serde_json::Value, Error> {
    let text = sandcell::cells_to_json(&[Cell::find(name)?.info()?]);
    let mut all: serde_json::Value = serde_json::from_str(&text).expect("it was just made");
    Ok(all[0].take())
}

/// What is said of a command for a cell.
struct Asked {
    interactive: bool,
    env: Vec<OsString>,
    chdir: Option<OsString>,
    user: Option<String>,
    timeout: Option<String>,
}

/// The command, and the timeout of its own.
fn exec(name: &str, asked: &Asked, words: &[OsString]) -> Result<(sandcell::Command, Option<Duration>), Error> {
    // `exec NAME -- PROGRAM`, as well as `exec NAME PROGRAM`.
    let words = if words.first().is_some_and(|word| word == "--") { &words[1..] } else { words };
    let refused = |option: &str, message: &str, hint: &str| {
        Err(amended(Error::option(option, message), |failure| failure.hint = hint.to_owned()))
    };
    let Some(program) = words.first() else { return refused("program", "no program is named", "Name one.") };
    let cell = Cell::find(name)?.cell()?;
    let own = cell.identity();
    if let Some(user) = &asked.user
        && user.parse() != Ok(own.uid)
        && *user != format!("{}:{}", own.uid, own.gid)
    {
        let hint = format!("Its programs have UID {}: start another cell with `--user`.", own.uid);
        return refused("--user", "a cell has one user, that of all its programs", &hint);
    }
    let mut command = cell.command(program);
    command.args(&words[1..]);
    if !asked.interactive {
        command.stdin(sandcell::Stdio::Null);
    }
    for variable in &asked.env {
        set(&mut command, variable);
    }
    if let Some(dir) = &asked.chdir {
        command.current_dir(dir);
    }
    let timeout = asked.timeout.as_deref().map(|text| table::duration("timeout", text)).transpose()?;
    if let Some(timeout) = timeout {
        command.timeout(timeout);
    }
    Ok((command, timeout))
}

/// `KEY=VALUE`, or `KEY` with the caller's own value.
fn set(command: &mut sandcell::Command, variable: &OsString) {
    use std::os::unix::ffi::OsStrExt;
    let bytes = variable.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => {
            let text = |bytes| std::ffi::OsStr::from_bytes(bytes);
            command.env(text(&bytes[..at]), text(&bytes[at + 1..]));
        }
        None => {
            if let Some(value) = std::env::var_os(variable) {
                command.env(variable, value);
            }
        }
    }
}

fn wait(name: &str, timeout: Option<&str>) -> ExitCode {
    let waited = || {
        let cell = Cell::find(name)?;
        match timeout {
            Some(text) => cell.wait_timeout(table::duration("timeout", text)?),
            None => cell.wait().map(Some),
        }
    };
    match waited() {
        Ok(Some(report)) => ended(&report),
        Ok(None) => {
            complain!("sandcell: {name} is still alive");
            124.into()
        }
        Err(error) => failed(&of_cell(name, error)),
    }
}

/// What the library says of a cell that it knows by its descriptors, with the name that was written.
pub fn of_cell(name: &str, error: Error) -> Error {
    amended(error, |failure| {
        if failure.subject == "cell" {
            failure.subject = name.to_owned();
        }
    })
}

/// The status of a cell's end, and what there is to say of it.
fn ended(report: &sandcell::Report) -> ExitCode {
    if let Some(what) = run::ended_by_us(report) {
        complain!("sandcell: {what}");
    }
    for warning in &report.warnings {
        complain!("sandcell: {warning}");
    }
    ExitCode::from(report.exit_status() as u8)
}

/// Does it for each, and goes on where one fails.
fn each(names: &[String], act: impl Fn(&NamedCell) -> Result<(), Error>) -> ExitCode {
    let mut status = ExitCode::SUCCESS;
    for name in names {
        if let Err(error) = Cell::find(name).and_then(|cell| act(&cell)) {
            status = failed(&of_cell(name, error));
        }
    }
    status
}

fn done(result: Result<(), Error>) -> ExitCode {
    result.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

fn failed(error: &Error) -> ExitCode {
    tell(error);
    match (error, error.errno()) {
        (Error::Exec(_), Some(nix::libc::ENOENT)) if error.stage() == "exec" => 127.into(),
        (Error::Exec(_), _) => 126.into(),
        _ => FAILED.into(),
    }
}

/// `TERM`, `SIGTERM` or `15`.
fn signal_number(text: &str) -> Result<i32, Error> {
    let upper = text.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    match (text.parse::<i32>(), full.parse::<nix::sys::signal::Signal>()) {
        (Ok(number), _) if (1..=64).contains(&number) => Ok(number),
        (Err(_), Ok(signal)) => Ok(signal as i32),
        _ => Err(amended(Error::option(format!("--signal {text}"), "is no signal"), |failure| {
            failure.hint = "Write a name of signal(7), such as TERM, or a number.".to_owned();
        })),
    }
}

/// What can be told of those that are named.
fn infos(names: &[String]) -> Result<Vec<CellInfo>, Error> {
    names.iter().map(|name| Cell::find(name)?.info()).collect()
}

/// As `ps` shows times: the two largest units.
fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}
