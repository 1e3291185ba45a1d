//! A program to run, with its streams and its environment.

use std::ffi::{OsStr, OsString, c_char, c_int};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use sandcell::{Error, Stdio};

use crate::child::Child;
use crate::error::{ErrorObject, SANDCELL_ERROR_CONFIG, free, guard};
use crate::result::RunResult;
use crate::text::{blob, bytes, list, path, word};

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
        let mut request = self.request(of)?;
        if let Some(input) = &self.input {
            request.input(&input[..]);
        }
        Ok(Box::new(request.output()?.into()))
    }

    /// Starts it there.
    pub(crate) fn spawn(&self, of: impl FnOnce(&OsStr) -> sandcell::Command) -> Result<Box<Child>, ErrorObject> {
        let started = self.request(of)?.spawn()?;
        Ok(Box::new(Child::new(started, self.input.clone())?))
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
        for &(fd, number) in &self.fds {
            request.pass_fd(duplicate(fd)?, number);
        }
        Ok(request)
    }
}

fn duplicate(fd: c_int) -> Result<OwnedFd, Error> {
    let unfit = |why: String| Error::option(format!("descriptor {fd}"), why);
    if fd < 0 {
        return Err(unfit("is no descriptor".to_owned()));
    }
    // SAFETY: not -1, and used for this call only; where it is not open the call says so.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().map_err(|e| unfit(format!("cannot be passed: {e}")))
}

/// Makes one change, or keeps the mistake for the run to report.
///
/// # Safety
/// `command` is NULL or a live handle that no other thread uses now.
unsafe fn set(command: *mut Command, change: impl FnOnce(&mut Command) -> Result<(), Error>) -> c_int {
    // SAFETY: by this function's contract.
    let Some(command) = (unsafe { command.as_mut() }) else {
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
pub unsafe extern "C" fn sandcell_command_new(argv: *const *const c_char) -> *mut Command {
    let made = guard(|| {
        let mut command = Command::default();
        // SAFETY: NULL or a list of C strings with a NULL at its end by contract.
        match unsafe { list(argv) } {
            Ok(words) => command.argv = words,
            Err(mistake) => command.mistake = Some(mistake.into()),
        }
        Ok(Box::into_raw(Box::new(command)))
    });
    made.unwrap_or(std::ptr::null_mut())
}

/// Frees a command; what was started with it goes on. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_command_free(command: *mut Command) {
    // SAFETY: NULL or a handle that is freed once, by contract.
    unsafe { free(command) }
}

/// Adds an argument.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_command_add_arg(command: *mut Command, arg: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe {
        set(command, |c| {
            c.argv.push(bytes(arg, "arg")?.to_owned());
            Ok(())
        })
    }
}

/// What the program finds as its own name; the program's path by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_command_set_arg0(command: *mut Command, name: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe {
        set(command, |c| {
            c.arg0 = Some(bytes(name, "arg0")?.to_owned());
            Ok(())
        })
    }
}

/// Sets an environment variable, over those of the policy; a `value` of NULL removes it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_command_set_env(
    command: *mut Command,
    key: *const c_char,
    value: *const c_char,
) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe {
        set(command, |c| {
            let key = bytes(key, "env")?.to_owned();
            let value = if value.is_null() { None } else { Some(bytes(value, "env")?.to_owned()) };
            c.env.push((key, value));
            Ok(())
        })
    }
}

/// Starts from an empty environment, without the defaults and those of the policy; variables set before are dropped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_command_clear_env(command: *mut Command) -> c_int {
    // SAFETY: handles are what the contract says.
    unsafe {
        set(command, |c| {
            c.env.clear();
            c.env_clear = true;
            Ok(())
        })
    }
}

/// Working directory inside; that of the policy by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_command_set_chdir(command: *mut Command, dir: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe {
        set(command, |c| {
            c.dir = Some(path(dir, "chdir")?.to_owned());
            Ok(())
        })
    }
}

/// Standard input: `inherit` (the caller's own; the default of sandcell_spawn), `null` (the default of
/// sandcell_run_command) or `pipe` (its other end is in the child).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_command_set_stdin(command: *mut Command, what: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set_stream(command, 0, "stdin", what) }
}

/// Standard output: `inherit` (the default of sandcell_spawn), `null` or `pipe` (the default of sandcell_run_command,
/// which captures it).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_command_set_stdout(command: *mut Command, what: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set_stream(command, 1, "stdout", what) }
}

/// Standard error, in the same way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_command_set_stderr(command: *mut Command, what: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set_stream(command, 2, "stderr", what) }
}

/// Standard input from this descriptor, which stays yours and must be open when the program is started; no directory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_command_set_stdin_fd(command: *mut Command, fd: c_int) -> c_int {
    // SAFETY: handles are what the contract says.
    unsafe { set(command, |c| c.stream(0, Stream::Fd(fd))) }
}

/// Standard output to this descriptor, in the same way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_command_set_stdout_fd(command: *mut Command, fd: c_int) -> c_int {
    // SAFETY: handles are what the contract says.
    unsafe { set(command, |c| c.stream(1, Stream::Fd(fd))) }
}

/// Standard error to this descriptor, in the same way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_command_set_stderr_fd(command: *mut Command, fd: c_int) -> c_int {
    // SAFETY: handles are what the contract says.
    unsafe { set(command, |c| c.stream(2, Stream::Fd(fd))) }
}

/// Passes a descriptor on as `number` inside (3 to 1023). It stays yours and must be open when the program is started.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_command_add_fd(command: *mut Command, fd: c_int, number: c_int) -> c_int {
    // SAFETY: handles are what the contract says.
    unsafe {
        set(command, |c| {
            c.fds.push((fd, number));
            Ok(())
        })
    }
}

/// Bytes for standard input, which are copied. They are written while the output is read: by sandcell_run_command,
/// sandcell_cell_run and sandcell_child_wait_output. `content` may be NULL where `length` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_command_set_input(
    command: *mut Command,
    content: *const c_char,
    length: usize,
) -> c_int {
    // SAFETY: handles and bytes are what the contract says.
    unsafe {
        set(command, |c| {
            c.input = Some(blob(content, length, "input")?.to_vec());
            c.streams[0] = Stream::Pipe;
            Ok(())
        })
    }
}

/// Wall-clock milliseconds for this command, instead of the policy's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_command_set_timeout_ms(command: *mut Command, milliseconds: u64) -> c_int {
    // SAFETY: handles are what the contract says.
    unsafe {
        set(command, |c| {
            c.timeout = Some(Duration::from_millis(milliseconds));
            Ok(())
        })
    }
}

/// Counts the bytes of stdout and stderr even where they are inherited: they pass through a pipe then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_command_set_count_output(command: *mut Command, count: bool) -> c_int {
    // SAFETY: handles are what the contract says.
    unsafe {
        set(command, |c| {
            c.count_output = count;
            Ok(())
        })
    }
}

/// Lists the files that the run added, changed or removed in its overlay: sandcell_result_changes. For a sandbox of its
/// own; a cell has sandcell_cell_changes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_command_set_track_changes(command: *mut Command, track: bool) -> c_int {
    // SAFETY: handles are what the contract says.
    unsafe {
        set(command, |c| {
            c.track_changes = track;
            Ok(())
        })
    }
}

/// Notes every system call of the run and puts the smallest profile that lets them through into the result:
/// sandcell_result_learned_json. The policy's own profile holds meanwhile. For a sandbox of its own; a cell refuses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_command_set_learn(command: *mut Command, learn: bool) -> c_int {
    // SAFETY: handles are what the contract says.
    unsafe {
        set(command, |c| {
            c.learn = learn;
            Ok(())
        })
    }
}

impl Command {
    /// The last word counts: bytes for standard input are forgotten when it comes from elsewhere.
    fn stream(&mut self, number: usize, stream: Stream) -> Result<(), Error> {
        self.streams[number] = stream;
        if number == 0 {
            self.input = None;
        }
        Ok(())
    }
}

/// # Safety
/// As for [`set`]; `what` is NULL or a C string.
unsafe fn set_stream(command: *mut Command, number: usize, name: &str, what: *const c_char) -> c_int {
    // SAFETY: passed on.
    unsafe {
        set(command, |c| {
            let stream = match word(what, name)? {
                "inherit" => Stream::Inherit,
                "null" => Stream::Null,
                "pipe" => Stream::Pipe,
                other => return Err(Error::option(name, format!("{other:?} is not inherit, null or pipe"))),
            };
            c.stream(number, stream)
        })
    }
}
