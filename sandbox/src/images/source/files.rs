//! A directory, or an archive as if it were one: files by name, read by position.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failure;
use crate::error::Result;
use crate::images::manifest::{Compression, DOCUMENT_LIMIT};
use crate::images::store::{Store, TempDir, failed};
use crate::images::stream::{CHUNK, Decoder, Packing, Part, Stop, chunked};
use crate::images::tar::{Kind, Reader, Refusal, clean, shown};

/// Members of an archive of images; each has a handful of blobs.
const MEMBER_LIMIT: usize = 100_000;

pub(super) enum Files {
    Dir(PathBuf),
    Archive { path: PathBuf, file: Arc<File>, members: BTreeMap<Vec<u8>, Place> },
}

pub(super) enum Place {
    At(u64, u64),
    /// `docker save` writes a layer once and links to it from the other images.
    Link(Vec<u8>),
}

impl Files {
    pub fn open(path: &Path, store: &Store, stop: &Stop) -> Result<(Files, Option<TempDir>)> {
        let meta = std::fs::metadata(path).map_err(|e| failure(path, "opening it").cause(&e).setup())?;
        if meta.is_dir() {
            return Ok((Files::Dir(path.to_owned()), None));
        }
        let file = open_file(path).map_err(|e| failure(path, "opening it").cause(&e).setup())?;
        Files::of_archive(path, file, store, stop)
    }

    /// The path is for errors only.
    pub fn of_archive(path: &Path, file: File, store: &Store, stop: &Stop) -> Result<(Files, Option<TempDir>)> {
        let mut start = [0; Packing::START];
        let bytes = file.read_at(&mut start, 0).map_err(|e| failure(path, "reading it").cause(&e).setup())?;
        let packing = Packing::sniff(&start[..bytes]);
        let (file, temp) = if packing == Packing::Kept(Compression::None) {
            (file, None)
        } else {
            let (file, temp) = decompress(path, file, packing, store, stop)?;
            (file, Some(temp))
        };
        let refused = |refusal: Refusal| {
            let failure = failure(path, format!("{}: {}", refusal.member, refusal.message));
            match refusal.io {
                Some(e) => failure.cause(&e).setup(),
                None => failure.setup(),
            }
        };
        let file = Arc::new(file);
        let members = index(&file, stop).map_err(refused)?;
        Ok((Files::Archive { path: path.to_owned(), file, members }, temp))
    }

    pub fn has(&self, name: &str) -> bool {
        match self {
            Files::Dir(path) => path.join(name).exists(),
            Files::Archive { members, .. } => members.contains_key(name.as_bytes()),
        }
    }

    /// A file's content, still unread. `name` was checked by the caller: it has no `..`.
    pub fn part(&self, name: &str) -> Result<Part> {
        match self {
            Files::Dir(dir) => {
                let path = dir.join(name);
                let file = open_file(&path).map_err(|e| failure(&path, "opening it").cause(&e).setup())?;
                let len = file.metadata().map_err(|e| failure(&path, "opening it").cause(&e).setup())?.len();
                Ok(Part { file: file.into(), offset: 0, len })
            }
            Files::Archive { path, file, members } => {
                let refuse = |why: &str| failure(path, format!("{}: {why}", shown(name.as_bytes()))).setup();
                let mut key = clean(name.as_bytes()).map_err(refuse)?;
                for _ in 0..4 {
                    match members.get(&key) {
                        Some(Place::At(offset, len)) => {
                            return Ok(Part { file: file.clone(), offset: *offset, len: *len });
                        }
                        Some(Place::Link(target)) => {
                            key = join(&key, target).ok_or_else(|| refuse("a link that leads out"))?
                        }
                        None => return Err(refuse("not in the archive")),
                    }
                }
                Err(refuse("a chain of links"))
            }
        }
    }

    /// A whole small file.
    pub fn document(&self, name: &str) -> Result<Vec<u8>> {
        let part = self.part(name)?;
        let (Files::Dir(path) | Files::Archive { path, .. }) = self;
        let len = part.len;
        if len > DOCUMENT_LIMIT {
            return Err(
                failure(path, format!("{name}: a document of {len} bytes; at most {DOCUMENT_LIMIT} are read")).setup()
            );
        }
        let mut content = Vec::with_capacity(len as usize);
        let mut part = part;
        part.read_to_end(&mut content).map_err(|e| failure(path, format!("{name}: reading it")).cause(&e).setup())?;
        Ok(content)
    }
}

/// A regular file, or an error: opening a FIFO would otherwise wait for ever.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(file)
}

/// The target of a link that stands beside `of`, without leaving the archive.
fn join(of: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = of.split(|b| *b == b'/').collect();
    parts.pop();
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

fn index(file: &Arc<File>, stop: &Stop) -> std::result::Result<BTreeMap<Vec<u8>, Place>, Refusal> {
    let io = |e: io::Error| Refusal { member: "the archive".into(), message: "reading it".into(), io: Some(e) };
    let copy = file.try_clone().map_err(io)?;
    let mut inner = BufReader::with_capacity(16 << 10, copy);
    inner.rewind().map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    let mut reader = Reader::new(inner);
    let mut members = BTreeMap::new();
    while let Some(member) = reader.next()? {
        stop.check().map_err(io)?;
        let offset = reader.position().map_err(io)?;
        if member.segments.is_some() {
            return Err(reader.refuse("a sparse file in an archive of images; pack it without --sparse"));
        }
        let place = match member.kind {
            Kind::File if offset.checked_add(member.size).is_none_or(|end| end > len) => {
                return Err(reader.refuse("the archive ends inside this member"));
            }
            Kind::File => Place::At(offset, member.size),
            Kind::Symlink => Place::Link(member.link),
            Kind::HardLink => Place::Link([b"/", &member.link[..]].concat()),
            _ => continue,
        };
        if members.insert(member.path, place).is_some() {
            return Err(reader.refuse("this name stands in the archive twice"));
        }
        if members.len() > MEMBER_LIMIT {
            return Err(reader.refuse("too many members for an archive of images"));
        }
        reader.seek_past().map_err(io)?;
    }
    Ok(members)
}

/// A stream, which can be read once only, as a file that is gone with the directory.
pub(super) fn spool(path: &Path, input: &mut dyn Read, store: &Store, stop: &Stop) -> Result<(File, TempDir)> {
    let temp = store.temp_dir()?;
    let to = temp.path.join("stream");
    let file = File::options().read(true).write(true).create_new(true).open(&to);
    let mut file = file.map_err(|e| failed(&to, "reading a stream", &e))?;
    let (mut buffer, mut total) = (vec![0; CHUNK], 0u64);
    loop {
        let bytes = match stop.check().and_then(|()| input.read(&mut buffer)) {
            Ok(0) => return Ok((file, temp)),
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(failure(path, "reading it").cause(&e).setup()),
        };
        total += bytes as u64;
        if total > store.limits.layer_bytes {
            return Err(failure(path, format!("more than {} bytes", store.limits.layer_bytes)).setup());
        }
        io::Write::write_all(&mut file, &buffer[..bytes]).map_err(|e| failed(&to, "reading a stream", &e))?;
    }
}

/// Blobs are read in any order and side by side, which a packed archive does not allow.
fn decompress(path: &Path, file: File, packing: Packing, store: &Store, stop: &Stop) -> Result<(File, TempDir)> {
    let temp = store.temp_dir()?;
    let to = temp.path.join("archive");
    let len = file.metadata().map_err(|e| failure(path, "reading it").cause(&e).setup())?.len();
    let part = Part { file: file.into(), offset: 0, len };
    let mut decoder = Decoder::new(chunked(part), packing);
    let spool = File::options().read(true).write(true).create_new(true).open(&to);
    let mut spool = spool.map_err(|e| failed(&to, "decompressing an archive", &e))?;
    let mut buffer = vec![0; CHUNK];
    let mut total = 0u64;
    loop {
        let bytes = stop.check().and_then(|()| decoder.read(&mut buffer));
        let bytes = bytes.map_err(|e| failure(path, "decompressing it").cause(&e).setup())?;
        if bytes == 0 {
            break;
        }
        total += bytes as u64;
        if total > store.limits.layer_bytes || (total > 64 << 20 && total / store.limits.ratio > len) {
            return Err(failure(path, "it decompresses to more than the limits allow").setup());
        }
        io::Write::write_all(&mut spool, &buffer[..bytes]).map_err(|e| failed(&to, "decompressing an archive", &e))?;
    }
    Ok((spool, temp))
}
