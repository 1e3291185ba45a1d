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

use nix::libc;
use sandcell::{Error, trees};

use super::inside::{failed, inside, mistake, pipe, short};
use crate::named;

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
    let (from, to) = (place(from), place(to));
    let cell = match (&from, &to) {
        (Place::Inside(name, _), _) | (_, Place::Inside(name, _)) => *name,
        _ => "cell",
    };
    between(&from, &to).map_err(|error| super::of_cell(cell, error))
}

fn between(from: &Place<'_>, to: &Place<'_>) -> Result<(), Error> {
    match (from, to) {
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
        trees::send_file(open(OpenOptions::new().read(true), source)?, pipe)
    })?;
    drop(write);
    // Not before there is something: what is there is kept where the file in the cell cannot be read.
    let mut kind = [0];
    let mut pipe = BufReader::with_capacity(1 << 16, process.reader(read));
    let (dest, written) = match pipe.read(&mut kind) {
        Err(error) => (dest.to_owned(), Err(error)),
        Ok(0) => return process.ended(source),
        Ok(_) if kind == [b'D'] => {
            let dest = place_of_tree(path, dest).map_err(|e| failed(dest, &e))?;
            let written = tree_at(&dest).and_then(|dir| trees::unpack(&mut pipe, dir, &mut tell_left));
            (dest, written)
        }
        Ok(_) => {
            let dest = within(dest, source);
            let written = named::output(&dest).and_then(|mut file| match kind {
                [trees::SPARSE] => trees::unpack_file(&mut pipe, &file),
                _ => io::copy(&mut pipe, &mut file).map(|_| ()),
            });
            (dest, written)
        }
    };
    drop(pipe);
    let stands = process.stands();
    let ended = process.ended(source);
    match written {
        // An archive that ends too early was cut off by what failed inside.
        Err(error) if !stands && (ended.is_ok() || error.kind() != io::ErrorKind::InvalidData) => {
            Err(failed(&dest, &error))
        }
        _ => ended,
    }
}

/// The directory outside into which the content of one goes: `dest` where that is new, and otherwise one in it.
fn place_of_tree(path: &str, dest: &Path) -> io::Result<PathBuf> {
    let name = own_name(path)?;
    Ok(match dest.is_dir() {
        true if !name.is_empty() => dest.join(OsStr::from_bytes(&name)),
        _ => dest.to_owned(),
    })
}

/// A directory that is there or is made; the last part of its path is no link.
fn tree_at(place: &Path) -> io::Result<OwnedFd> {
    match std::fs::DirBuilder::new().mode(0o755).create(place) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let dir = options.read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(place);
    dir.map(OwnedFd::from)
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
    let written = io::copy(&mut process.reader(read), &mut stdout.lock());
    let stands = process.stands();
    let ended = process.ended(source);
    match written {
        Err(error) if !stands => Err(failed(Path::new("standard output"), &error)),
        _ => ended,
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
        return Err(mistake(text, "is no ordinary file", "Let a program read it: `head -c SIZE FILE`."));
    }
    let file = open(OpenOptions::new().read(true), source).map_err(|e| failed(source, &e))?;
    let mode = metadata.permissions().mode() & 0o777;
    let mut process = inside(name, &[file.as_raw_fd()], |_| {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(mode);
        let dest = open(&options, &within(dest, source))?;
        dest.set_len(0)?;
        trees::copy_file(&file, &dest)
    })?;
    process.moves(file);
    process.ended(dest)
}

/// Writes an archive into a pipe that a process of the cell unpacks: into `path`, which must be there (`own` is none), or as
/// the directory `own` in it.
fn tree_in(
    name: &str,
    path: &str,
    own: Option<&[u8]>,
    write_archive: impl FnOnce(Box<dyn Write + '_>) -> io::Result<()>,
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
    let written = process.writer(write).and_then(|pipe| write_archive(Box::new(pipe)));
    let stands = process.stands();
    let ended = process.ended(dest);
    match written {
        // It ended first: it knows why.
        Err(error) if !stands && error.kind() != io::ErrorKind::BrokenPipe => Err(failed(Path::new("cp"), &error)),
        _ => ended,
    }
}

fn tell_left(path: &[u8], what: &str) {
    complain!("sandcell: left out: {}: {what}", sandcell::printable(short(path)));
}

/// An ordinary file: a FIFO is not waited for, a device not touched.
fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.clone().custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::from_raw_os_error(libc::EISDIR)),
    }
}
