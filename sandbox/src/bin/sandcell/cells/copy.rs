//! `sandcell cp`: files and directories into a cell or out of it. A process of ours enters the cell and becomes what its programs are, and
//! opens what there is to open there: whatever the cell's own files are, and wherever links in it lead, nobody reaches more than it does.
//! A directory passes as a tar stream.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, IsTerminal, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use sandcell::{Cell, Entry, Error, printable_lines, trees};

use crate::options::amended;
use crate::{named, sys};

/// Statuses of the process inside: an error number, or one of these.
const NOT_A_FILE: i32 = 200;
const NO_ENTRY: i32 = 201;
/// It has written what is wrong.
const TOLD: i32 = 202;
/// What it writes of what it has left out, at most: that fits into any pipe, which is read in the end.
const MOST_TOLD: usize = 4000;

enum Place<'a> {
    /// A path in the cell of this name.
    Inside(&'a str, &'a str),
    Outside(&'a str),
}

/// `NAME:PATH` is in a cell. A path with a colon is written with a `/` before that.
fn place(text: &str) -> Place<'_> {
    match text.split_once(':') {
        Some((name, path)) if !name.is_empty() && !name.contains('/') => Place::Inside(name, path),
        _ => Place::Outside(text),
    }
}

pub fn copy(from: &str, to: &str) -> Result<(), Error> {
    match (place(from), place(to)) {
        (Place::Inside(name, path), Place::Outside("-")) => archive_out(name, path),
        (Place::Outside("-"), Place::Inside(name, path)) => {
            let stdin = io::stdin().lock();
            tree_in(name, path, None, |mut pipe| io::copy(&mut { stdin }, &mut pipe).map(|_| ()))
        }
        (Place::Inside(name, path), Place::Outside(dest)) => copy_out(name, path, Path::new(dest)),
        (Place::Outside(source), Place::Inside(name, path)) => copy_in(source, name, path),
        _ => Err(mistake("cp", "one of the two is a file in a cell, and the other is not", "Write it as NAME:PATH.")),
    }
}

fn mistake(subject: &str, message: &str, hint: &str) -> Error {
    amended(Error::option(subject, message), |failure| failure.hint = hint.to_owned())
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::option(path.display().to_string(), error.to_string())
}

/// The place of a copy: beneath a directory by the name of what is copied.
fn within(dest: &Path, source: &Path) -> PathBuf {
    match source.file_name() {
        Some(name) if dest.is_dir() => dest.join(name),
        _ => dest.to_owned(),
    }
}

fn absolute(path: &str) -> Result<&Path, Error> {
    match Path::new(path) {
        path if path.is_absolute() => Ok(path),
        _ => Err(mistake(path, "the path in the cell is not absolute", "Begin it with /.")),
    }
}

/// Whether only what is in a directory is meant: `DIR/.`.
fn is_content(path: &str) -> bool {
    path == "/" || path == "." || path.ends_with("/.")
}

/// The name by which a directory is copied, of whatever way it was written; none where only its content counts.
fn own_name(path: &str) -> io::Result<Vec<u8>> {
    if is_content(path) {
        return Ok(Vec::new());
    }
    let name = |path: &Path| path.file_name().map(|name| name.as_bytes().to_vec());
    match name(Path::new(path)) {
        Some(name) => Ok(name),
        None => Ok(name(&std::fs::canonicalize(path)?).unwrap_or_default()),
    }
}

/// First a byte that says which, then the content of a file, or the archive of a directory.
fn copy_out(name: &str, path: &str, dest: &Path) -> Result<(), Error> {
    let source = absolute(path)?;
    let (read, write) = pipe(source)?;
    let process = inside(name, &[write.as_raw_fd()], |told| {
        let mut pipe = File::from(write.try_clone()?);
        if std::fs::metadata(source)?.is_dir() {
            let dir = File::open(source)?.into();
            pipe.write_all(b"D")?;
            return trees::pack_tree(dir, b"", pipe, &mut |path, what| told.left(path, what));
        }
        let mut file = open(OpenOptions::new().read(true), source)?;
        pipe.write_all(b"F")?;
        io::copy(&mut file, &mut pipe).map(|_| ())
    })?;
    drop(write);
    // Not before there is something: what is there is kept where the file in the cell cannot be read.
    let mut kind = [0];
    let mut pipe = File::from(read);
    let length = pipe.read(&mut kind).map_err(|e| failed(source, &e))?;
    let written = match (length, kind) {
        (0, _) => return process.ended(source),
        (_, [b'D']) => tree_out(path, dest)
            .and_then(|dir| trees::unpack(BufReader::with_capacity(1 << 16, &pipe), dir, &mut tell_left)),
        _ => {
            let dest = within(dest, source);
            named::output(&dest).and_then(|mut file| io::copy(&mut pipe, &mut file).map(|_| ()))
        }
    };
    drop(pipe);
    let ended = process.ended(source);
    match written {
        // An archive that ends too early was cut off by what failed inside.
        Err(error) if ended.is_ok() || error.kind() != io::ErrorKind::InvalidData => Err(failed(dest, &error)),
        _ => ended,
    }
}

/// The directory outside into which the content of one goes: `dest` where that is new, and otherwise one in it.
fn tree_out(path: &str, dest: &Path) -> io::Result<OwnedFd> {
    let name = own_name(path)?;
    let place = match dest.is_dir() {
        true if name.is_empty() => dest.to_owned(),
        true => dest.join(OsStr::from_bytes(&name)),
        false => dest.to_owned(),
    };
    tree_at(&place)
}

/// A directory that is there or is made; the last part of its path is no link.
fn tree_at(place: &Path) -> io::Result<OwnedFd> {
    let told = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", place.display()));
    match std::fs::DirBuilder::new().mode(0o755).create(place) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(told(error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let dir = options.read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(place);
    dir.map(OwnedFd::from).map_err(told)
}

/// A tar stream on standard output.
fn archive_out(name: &str, path: &str) -> Result<(), Error> {
    let source = absolute(path)?;
    let stdout = io::stdout();
    if stdout.is_terminal() {
        return Err(mistake("-", "an archive is nothing for a terminal", "Send it into a file: `> FILE.tar`."));
    }
    let (read, write) = pipe(source)?;
    let process = inside(name, &[write.as_raw_fd()], |told| {
        let pipe = File::from(write.try_clone()?);
        let name = own_name(path)?;
        if std::fs::metadata(source)?.is_dir() {
            let dir = File::open(source)?.into();
            return trees::pack_tree(dir, &name, pipe, &mut |path, what| told.left(path, what));
        }
        trees::pack_file(open(OpenOptions::new().read(true), source)?, &name, pipe)
    })?;
    drop(write);
    let written = io::copy(&mut File::from(read), &mut stdout.lock());
    let ended = process.ended(source);
    match written {
        Err(error) => Err(failed(Path::new("standard output"), &error)),
        Ok(_) => ended,
    }
}

fn copy_in(text: &str, name: &str, path: &str) -> Result<(), Error> {
    let (source, dest) = (Path::new(text), absolute(path)?);
    let metadata = std::fs::metadata(source).map_err(|e| failed(source, &e))?;
    if metadata.is_dir() {
        let own = own_name(text).map_err(|e| failed(source, &e))?;
        let dir = File::open(source).map_err(|e| failed(source, &e))?;
        return tree_in(name, path, Some(&own), |pipe| trees::pack_tree(dir.into(), b"", pipe, &mut tell_left));
    }
    if !metadata.is_file() {
        return Err(mistake(text, "is no ordinary file", &DEVICES.replace("sandcell exec NAME -- ", "")));
    }
    let mut file = open(OpenOptions::new().read(true), source).map_err(|e| failed(source, &e))?;
    let mode = metadata.permissions().mode() & 0o777;
    let process = inside(name, &[file.as_raw_fd()], |_| {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(mode);
        let dest = open(&options, &within(dest, source))?;
        dest.set_len(0)?;
        io::copy(&mut file, &mut &dest).map(|_| ())
    })?;
    process.ended(dest)
}

/// Writes an archive into a pipe that a process of the cell unpacks: into `path`, which must be there (`own` is none), or as
/// the directory `own` in it.
fn tree_in(
    name: &str,
    path: &str,
    own: Option<&[u8]>,
    write_archive: impl FnOnce(File) -> io::Result<()>,
) -> Result<(), Error> {
    let dest = absolute(path)?;
    let (read, write) = pipe(dest)?;
    let process = inside(name, &[read.as_raw_fd()], |told| {
        let dir = match own {
            Some(own) if !own.is_empty() && dest.is_dir() => tree_at(&dest.join(OsStr::from_bytes(own)))?,
            Some(_) if !dest.is_dir() => tree_at(dest)?,
            _ => OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(dest)?.into(),
        };
        let archive = BufReader::with_capacity(1 << 16, File::from(read.try_clone()?));
        trees::unpack(archive, dir, &mut |path, what| told.left(path, what))
    })?;
    drop(read);
    let written = write_archive(File::from(write));
    let ended = process.ended(dest);
    match written {
        // It ended first: it knows why.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(Path::new("cp"), &error)),
        _ => ended,
    }
}

fn pipe(subject: &Path) -> Result<(OwnedFd, OwnedFd), Error> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed(subject, &errno.into()))
}

fn tell_left(path: &[u8], what: &str) {
    complain!("sandcell: left out: {}: {what}", sandcell::printable(short(path)));
}

/// The beginning of a path that is long.
fn short(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(&path[..path.len().min(200)]).into_owned();
    if path.len() > 200 { text + "…" } else { text }
}

const DEVICES: &str = "Let a program read it: `sandcell exec NAME -- head -c SIZE FILE`.";

/// An ordinary file: a FIFO is not waited for, a device not touched.
fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.clone().custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::from_raw_os_error(libc::EISDIR)),
    }
}

/// What the process inside says, by a pipe of its own.
struct Told {
    pipe: File,
    length: usize,
    more: usize,
}

impl Told {
    fn left(&mut self, path: &[u8], what: &str) {
        self.say(&format!("left out: {}: {what}", short(path)));
    }

    fn say(&mut self, text: &str) {
        let line = text.replace('\n', "?") + "\n";
        if self.length + line.len() > MOST_TOLD {
            self.more += 1;
            return;
        }
        self.length += line.len();
        let _ = self.pipe.write_all(line.as_bytes());
    }
}

struct Process {
    pid: nix::unistd::Pid,
    told: File,
}

/// Does it as a process of the cell, which has descriptors for this and nothing else of ours.
fn inside(cell: &str, kept: &[i32], act: impl FnOnce(&mut Told) -> io::Result<()>) -> Result<Process, Error> {
    let mut entry: Entry = Cell::find(cell)?.cell()?.entry()?;
    let (told, pipe) = pipe(Path::new("cp"))?;
    // Our memory and our environment are the caller's.
    entry.keep_fd(pipe.as_raw_fd()).hide_memory();
    for fd in kept {
        entry.keep_fd(*fd);
    }
    let forked = sys::forked(|| {
        if entry.join().is_err() {
            return NO_ENTRY;
        }
        let child = sys::forked(|| {
            if entry.confine().is_err() {
                return NO_ENTRY;
            }
            let mut told = Told { pipe: File::from(pipe), length: 0, more: 0 };
            let done = act(&mut told);
            if told.more > 0 {
                let text = format!("and {} more\n", told.more);
                let _ = told.pipe.write_all(text.as_bytes());
            }
            match done {
                Ok(()) => 0,
                Err(error) if error.raw_os_error() == Some(libc::EISDIR) => NOT_A_FILE,
                Err(error) => match error.raw_os_error() {
                    Some(errno) if (1..200).contains(&errno) => errno,
                    _ => {
                        let _ = told.pipe.write_all(format!("\0{error}").as_bytes());
                        TOLD
                    }
                },
            }
        });
        // Whoever reads a pipe waits for all who could write into it.
        sys::close_all();
        child.map_or(NO_ENTRY, status)
    });
    let pid = forked.map_err(|errno| failed(Path::new("cp"), &errno.into()))?;
    Ok(Process { pid, told: File::from(told) })
}

fn status(process: nix::unistd::Pid) -> i32 {
    loop {
        match waitpid(process, None) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(WaitStatus::Exited(_, status)) => return status,
            _ => return NO_ENTRY,
        }
    }
}

impl Process {
    fn ended(self, path: &Path) -> Result<(), Error> {
        let subject = path.display().to_string();
        let status = status(self.pid);
        let mut told = Vec::new();
        let _ = self.told.take(2 * MOST_TOLD as u64).read_to_end(&mut told);
        let text = String::from_utf8_lossy(&told);
        let (left, why) = text.split_once('\0').unwrap_or((&text, ""));
        for line in left.lines() {
            complain!("sandcell: {}", printable_lines(line, ""));
        }
        match status {
            0 => Ok(()),
            NOT_A_FILE => Err(mistake(&subject, "is no ordinary file in the cell", DEVICES)),
            TOLD => Err(Error::option(subject, sandcell::printable(why))),
            NO_ENTRY => {
                Err(mistake(&subject, "the cell cannot be entered", "Has it ended meanwhile? `sandcell ps` tells."))
            }
            errno => Err(failed(path, &io::Error::from_raw_os_error(errno))),
        }
    }
}
