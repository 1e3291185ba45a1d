//! Where a file has data and where it has holes: a file may say that it is larger than any disk, and nobody reads its zeros.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::images::tar::Segment;

/// Pieces of data that are told apart; where there are more, small holes between them are read.
const MOST: usize = 1 << 16;
/// A file with less in its holes is copied as it is.
const WORTH: u64 = 64 << 10;
/// What is copied of a file that says that it is empty, as those of /proc do.
const MOST_OF_EMPTY: u64 = 64 << 20;
const CHUNK: usize = 1 << 20;

/// The pieces in order; `None` where the file has no holes worth the trouble.
pub(super) fn pieces(file: &File, size: u64) -> io::Result<Option<Vec<Segment>>> {
    let mut list: Vec<Segment> = Vec::new();
    let (mut at, mut apart) = (0, 0);
    while at < size {
        let Some((offset, end)) = next(file, at, size)? else { break };
        match list.last_mut() {
            Some(last) if offset - (last.offset + last.len) <= apart => last.len = end - last.offset,
            _ => list.push(Segment { offset, len: end - offset }),
        }
        if list.len() > MOST {
            apart = (2 * apart).max(WORTH);
            list.dedup_by(|next, last| {
                let near = next.offset - (last.offset + last.len) <= apart;
                if near {
                    last.len = next.offset + next.len - last.offset;
                }
                near
            });
        }
        at = end;
    }
    let data: u64 = list.iter().map(|piece| piece.len).sum();
    Ok((data + WORTH <= size).then_some(list))
}

/// The next data from `at`: where it begins and ends. The file system may be one that lies.
fn next(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    let seek = |to: u64, whence| lseek(file, i64::try_from(to).unwrap_or(i64::MAX), whence);
    let start = match seek(at, Whence::SeekData) {
        Err(Errno::ENXIO) => return Ok(None),
        // One that knows nothing of holes.
        Err(Errno::EINVAL) => at,
        other => other?.unsigned_abs().max(at),
    };
    if start >= size {
        return Ok(None);
    }
    let end = seek(start, Whence::SeekHole).map_or(size, i64::unsigned_abs);
    Ok(Some((start, if end > start { end.min(size) } else { size })))
}

/// Reads one piece after the other.
pub(super) struct Pieces {
    file: File,
    left: VecDeque<Segment>,
}

impl Pieces {
    pub(super) fn new(file: File, pieces: Vec<Segment>) -> Pieces {
        Pieces { file, left: pieces.into() }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.left.front_mut() else { return Ok(0) };
        let most = buffer.len().min(usize::try_from(piece.len).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..most], piece.offset)?;
        (piece.offset, piece.len) = (piece.offset + read as u64, piece.len - read as u64);
        if piece.len == 0 {
            self.left.pop_front();
        }
        Ok(read)
    }
}

/// Copies what the file has now, by its own offset, into one that is empty; what was a hole is one there, too.
///
/// # Errors
/// What cannot be read or written.
pub fn copy_file(mut from: &File, mut to: &File) -> io::Result<()> {
    let size = from.metadata()?.len();
    let whole = vec![Segment { offset: 0, len: if size == 0 { MOST_OF_EMPTY } else { size } }];
    let mut buffer = vec![0; CHUNK];
    let mut end = 0;
    for piece in pieces(from, size)?.unwrap_or(whole) {
        from.seek(SeekFrom::Start(piece.offset))?;
        to.seek(SeekFrom::Start(piece.offset))?;
        let mut piece = from.take(piece.len);
        loop {
            match piece.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => to.write_all(&buffer[..length])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        end = to.stream_position()?;
    }
    // Not longer than what was read, should it have become shorter meanwhile.
    to.set_len(end.max(size.min(from.metadata()?.len())))
}

/// Writes the content of an open file: all of it, or where it has holes an archive of one member that tells of them. First comes a
/// byte that says which, [`PLAIN`] or [`SPARSE`].
///
/// # Errors
/// What cannot be read or written.
pub fn send_file(file: File, mut out: impl Write) -> io::Result<()> {
    let size = file.metadata()?.len();
    if pieces(&file, size)?.is_some() {
        out.write_all(&[SPARSE])?;
        return super::pack_file(file, b"file", out);
    }
    out.write_all(&[PLAIN])?;
    (&file).seek(SeekFrom::Start(0))?;
    let most = if size == 0 { MOST_OF_EMPTY } else { size };
    io::copy(&mut file.take(most), &mut out).map(|_| ())
}

/// What [`send_file`] begins with where the content follows as it is.
pub const PLAIN: u8 = b'F';
/// The same where an archive of one member follows; see [`unpack_file`](super::unpack_file).
pub const SPARSE: u8 = b'S';
