//! A program to run, with its streams and its environment.

use std::ffi::{OsStr, OsString, c_int};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use sandcell::{Error, Stdio, TerminalSize};

use crate::child::Child;
use crate::error::{ErrorObject, SANDCELL_ERROR_CONFIG, free, guard};
use crate::result::RunResult;
use crate::text::{Bytes, Text, Texts, blob, bytes, list, path, word};

/// A program to run: arguments, environment, streams. To be set up by one thread; then it can be run any number of
/// times, by several threads at once.
#[derive(Debug, Default)]
pub struct Command {
    argv: Vec<OsString>,
    arg0: Option<OsString>,
    env: Vec<(OsString, Option<OsString>)>,
    env_clear: bool,
    dir: Option<PathBuf>,
    streams: [Stream; 3],
    fds: Vec<(c_int, c_int)>,
    input: Option<Vec<u8>>,
    timeout: Option<Duration>,
    count_output: bool,
    track_changes: bool,
    learn: bool,
    terminal: Option<TerminalSize>,
    /// The first setter that was refused.
    mistake: Option<ErrorObject>,
}

#[derive(Debug, Clone, Copy, Default)]
enum Stream {
    /// What the function that runs it says.
    #[default]
    Open,
    Inherit,
    Null,
    Pipe,
    Fd(c_int),
}

impl Command {
    pub(crate) fn new(argv: Vec<OsString>) -> Command {
        Command { argv, ..Command::default() }
    }

    /// Runs it to its end, in whatever `of` makes requests of.
    pub(crate) fn output(&self, of: impl FnOnce(&OsStr) -> sandcell::Command) -> Result<Box<RunResult>, ErrorObject> {
        Ok(Box::new(self.request(of)?.output()?.into()))
    }

    /// Starts it as the main program of a cell with a name.
    pub(crate) fn detach(
        &self,
        detach: &sandcell::Detach,
        of: impl FnOnce(&OsStr) -> sandcell::Command,
    ) -> Result<sandcell::NamedCell, ErrorObject> {
        Ok(detach.run(&mut self.request(of)?)?)
    }

    /// Starts it there.
    pub(crate) fn spawn(&self, of: impl FnOnce(&OsStr) -> sandcell::Command) -> Result<Box<Child>, ErrorObject> {
        Ok(Box::new(Child::new(self.request(of)?.spawn()?)))
    }

    /// The request in Rust's form. Descriptors are the caller's: the request gets duplicates.
    fn request(&self, of: impl FnOnce(&OsStr) -> sandcell::Command) -> Result<sandcell::Command, ErrorObject> {
        if let Some(mistake) = &self.mistake {
            return Err(mistake.clone());
        }
        let (program, args) = self.argv.split_first().ok_or_else(|| Error::option("argv", "names no program"))?;
        let mut request = of(program);
        request.args(args).count_output(self.count_output).track_changes(self.track_changes).learn(self.learn);
        if let Some(name) = &self.arg0 {
            request.arg0(name);
        }
        if self.env_clear {
            request.env_clear();
        }
        for (key, value) in &self.env {
            match value {
                Some(value) => request.env(key, value),
                None => request.env_remove(key),
            };
        }
        if let Some(dir) = &self.dir {
            request.current_dir(dir);
        }
        if let Some(timeout) = self.timeout {
            request.timeout(timeout);
        }
        if let Some(input) = &self.input {
            request.input(&input[..]);
        }
        for (number, stream) in self.streams.iter().enumerate() {
            let stdio = match *stream {
                Stream::Open => continue,
                Stream::Inherit => Stdio::Inherit,
                Stream::Null => Stdio::Null,
                Stream::Pipe => Stdio::Piped,
                Stream::Fd(fd) => Stdio::Fd(duplicate(fd)?),
            };
            match number {
                0 => request.stdin(stdio),
                1 => request.stdout(stdio),
                _ => request.stderr(stdio),
            };
        }
        if let Some(size) = self.terminal {
            let is_open =
                |number: &usize| matches!(self.streams[*number], Stream::Open) && (*number > 0 || self.input.is_none());
            // Those that nobody has set are the same one.
            match (0..3).find(is_open) {
                Some(0) => request.stdin(Stdio::terminal(size)),
                Some(1) => request.stdout(Stdio::terminal(size)),
                Some(_) => request.stderr(Stdio::terminal(size)),
                None => return Err(Error::option("terminal", "every stream is set to something else").into()),
            };
        }
        for &(fd, number) in &self.fds {
            request.pass_fd(duplicate(fd)?, number);
        }
        Ok(request)
    }
}

fn duplicate(fd: c_int) -> Result<OwnedFd, Error> {
    check_fd(fd)?;
    // SAFETY: not -1, and used for this call only; where it is not open the call says so.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed
        .try_clone_to_owned()
        .map_err(|e| Error::option(format!("descriptor {fd}"), format!("cannot be passed: {e}")))
}

fn check_fd(fd: c_int) -> Result<(), Error> {
    if fd < 0 { Err(Error::option(format!("descriptor {fd}"), "is no descriptor")) } else { Ok(()) }
}

/// Makes one change, or keeps the mistake for the run to report.
fn set(command: Option<&mut Command>, change: impl FnOnce(&mut Command) -> Result<(), Error>) -> c_int {
    let mut change = Some(change);
    set_by(command, &mut |command| change.take().map_or(Ok(()), |change| change(command)))
}

/// The part of it that is the same for all setters.
#[inline(never)]
fn set_by(command: Option<&mut Command>, change: &mut dyn FnMut(&mut Command) -> Result<(), Error>) -> c_int {
    let Some(command) = command else {
        return SANDCELL_ERROR_CONFIG;
    };
    match guard(|| Ok(change(command)?)) {
        Ok(()) => 0,
        Err(mistake) => {
            let kind = mistake.kind;
            command.mistake.get_or_insert(mistake);
            kind
        }
    }
}

/// Makes a command. `argv` ends with a NULL, its first is the program: a path inside, or a name that is looked for along
/// the PATH that the program will have.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_new(argv: Texts<'_>) -> *mut Command {
    let made = guard(|| {
        let mut command = Command::default();
        match list(argv, "argv") {
            Ok(words) if words.first().is_none_or(|program| program.is_empty()) => {
                command.mistake = Some(Error::option("argv", "names no program").into());
            }
            Ok(words) => command.argv = words,
            Err(mistake) => command.mistake = Some(mistake.into()),
        }
        Ok(Box::into_raw(Box::new(command)))
    });
    made.unwrap_or(std::ptr::null_mut())
}

/// Frees a command; what was started with it goes on. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_free(command: Option<Box<Command>>) {
    free(command)
}

/// Adds an argument: any bytes but NUL.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_add_arg(command: Option<&mut Command>, arg: Text<'_>) -> c_int {
    set(command, |c| {
        c.argv.push(bytes(arg, "arg")?.to_owned());
        Ok(())
    })
}

/// What the program finds as its own name; the program's path by default.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_set_arg0(command: Option<&mut Command>, name: Text<'_>) -> c_int {
    set(command, |c| {
        c.arg0 = Some(bytes(name, "arg0")?.to_owned());
        Ok(())
    })
}

/// Sets an environment variable, over those of the policy; a `value` of NULL removes it. `key` is not empty and has no `=`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_set_env(command: Option<&mut Command>, key: Text<'_>, value: Text<'_>) -> c_int {
    set(command, |c| {
        let key = bytes(key, "env")?.to_owned();
        let value = if value.is_null() { None } else { Some(bytes(value, "env")?.to_owned()) };
        sandcell::Command::check_variable(&key, value.as_deref().unwrap_or_default())?;
        c.env.push((key, value));
        Ok(())
    })
}

/// Starts from an empty environment, without the defaults and those of the policy; variables set before are dropped.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_clear_env(command: Option<&mut Command>) -> c_int {
    set(command, |c| {
        c.env.clear();
        c.env_clear = true;
        Ok(())
    })
}

/// Working directory inside, an absolute path; that of the policy by default.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_set_chdir(command: Option<&mut Command>, dir: Text<'_>) -> c_int {
    set(command, |c| {
        let dir = path(dir, "chdir")?;
        sandcell::Command::check_current_dir(dir)?;
        c.dir = Some(dir.to_owned());
        Ok(())
    })
}

/// Standard input: `inherit` (the caller's own; the default of sandcell_spawn), `null` (the default of
/// sandcell_run_command) or `pipe` (its other end is in the child).
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_set_stdin(command: Option<&mut Command>, stdio: Text<'_>) -> c_int {
    set_stream(command, 0, "stdin", stdio)
}

/// Standard output: `inherit` (the default of sandcell_spawn), `null` or `pipe` (the default of sandcell_run_command,
/// which captures it).
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_set_stdout(command: Option<&mut Command>, stdio: Text<'_>) -> c_int {
    set_stream(command, 1, "stdout", stdio)
}

/// Standard error, in the same way.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_set_stderr(command: Option<&mut Command>, stdio: Text<'_>) -> c_int {
    set_stream(command, 2, "stderr", stdio)
}

/// Standard input from this descriptor, which stays yours and must be open when the program is started; no directory.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_set_stdin_fd(command: Option<&mut Command>, fd: c_int) -> c_int {
    set(command, |c| c.stream(0, Stream::Fd(fd)))
}

/// Standard output to this descriptor, in the same way.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_set_stdout_fd(command: Option<&mut Command>, fd: c_int) -> c_int {
    set(command, |c| c.stream(1, Stream::Fd(fd)))
}

/// Standard error to this descriptor, in the same way.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_set_stderr_fd(command: Option<&mut Command>, fd: c_int) -> c_int {
    set(command, |c| c.stream(2, Stream::Fd(fd)))
}

/// Passes a descriptor on as `number` inside (3 to 1023). It stays yours and must be open when the program is started.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_add_fd(command: Option<&mut Command>, fd: c_int, number: c_int) -> c_int {
    set(command, |c| {
        check_fd(fd)?;
        sandcell::Command::check_fd_number(number)?;
        c.fds.push((fd, number));
        Ok(())
    })
}

/// Bytes for standard input, any number, which are copied. sandcell_run_command and sandcell_cell_run write them into a
/// pipe while they read the output; a program that is spawned reads them from a file in memory, and
/// sandcell_child_take_stdin is -1. After this standard input may be set to `pipe`, which changes nothing; anything else is
/// refused: leave one of the two out. `content` may be NULL where `length` is 0.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_set_input(
    command: Option<&mut Command>,
    content: Bytes<'_>,
    length: usize,
) -> c_int {
    set(command, |c| {
        c.input = Some(blob(content, length, "input")?.to_vec());
        c.streams[0] = Stream::Open;
        Ok(())
    })
}

/// Wall-clock milliseconds for this command, instead of the policy's, from 1 on; 0 counts as 1. SANDCELL_UNLIMITED for no
/// limit.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_set_timeout_ms(command: Option<&mut Command>, milliseconds: u64) -> c_int {
    set(command, |c| {
        c.timeout = Some(crate::text::milliseconds(milliseconds));
        Ok(())
    })
}

/// Counts the bytes of stdout and stderr even where they are inherited: they pass through a pipe then.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_set_count_output(command: Option<&mut Command>, count: bool) -> c_int {
    set(command, |c| {
        c.count_output = count;
        Ok(())
    })
}

/// Lists the files that the run added, changed or removed in its overlay: sandcell_result_changes. For a sandbox of its
/// own; a cell has sandcell_cell_changes.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_set_track_changes(command: Option<&mut Command>, track: bool) -> c_int {
    set(command, |c| {
        c.track_changes = track;
        Ok(())
    })
}

/// Gives the program a terminal of the sandbox's own with so many lines of so many characters, its controlling terminal. The
/// streams that nobody has set are it; its other end is that of sandcell_child_take_terminal, and what a program that is run
/// to its end shows is in the result as its standard output.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_set_terminal(command: Option<&mut Command>, rows: u16, columns: u16) -> c_int {
    set(command, |c| {
        c.terminal = Some(TerminalSize::new(rows, columns));
        Ok(())
    })
}

/// Notes every system call of the run and puts the smallest profile that lets them through into the result:
/// sandcell_result_learned_json. The policy's own profile holds meanwhile. For a sandbox of its own; a cell refuses it.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_command_set_learn(command: Option<&mut Command>, learn: bool) -> c_int {
    set(command, |c| {
        c.learn = learn;
        Ok(())
    })
}

impl Command {
    /// Bytes for standard input are never forgotten: what would lose them is refused.
    fn stream(&mut self, number: usize, stream: Stream) -> Result<(), Error> {
        if let Stream::Fd(fd) = stream {
            check_fd(fd)?;
        }
        if number == 0 && self.input.is_some() && !matches!(stream, Stream::Pipe) {
            let message =
                "was set after sandcell_command_set_input, whose bytes would be lost; leave one of the two out";
            return Err(Error::option("stdin", message));
        }
        self.streams[number] = stream;
        Ok(())
    }
}

fn set_stream(command: Option<&mut Command>, number: usize, name: &str, stdio: Text<'_>) -> c_int {
    set(command, |c| {
        let stream = match word(stdio, name)? {
            "inherit" => Stream::Inherit,
            "null" => Stream::Null,
            "pipe" => Stream::Pipe,
            other => return Err(Error::option(name, format!("{other:?} is not inherit, null or pipe"))),
        };
        c.stream(number, stream)
    })
}
