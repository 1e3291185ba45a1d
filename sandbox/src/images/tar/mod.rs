//! A strict reader of tar streams.
//!
//! Our own, because a layer is hostile input that is read in bounded memory, and because two readers that understand
//! one archive differently are an attack (CVE-2025-62518). Where GNU tar, Go's archive/tar and the pax standard disagree
//! about an archive, it is refused: sizes on members that have no content, global headers that change names or sizes,
//! a pax name beside a GNU long name, a single empty block that is not the end. What they agree on is read: sparse
//! files, and that two empty blocks are the end, whatever follows.
//!
//! | file | what |
//! |---|---|
//! | `header` | the fields of a header, names |
//! | `pax` | extended headers |
//! | `sparse` | files with holes |

mod header;
mod pax;
mod sparse;

use std::io::{self, BufRead};

use header::{Header, until_zero};
use pax::{Extended, parse_pax};

pub(crate) use header::clean;
pub(crate) use sparse::Segment;

/// Blocks are 512 bytes: headers, and the unit that content is padded to.
pub(crate) const BLOCK: usize = 512;
/// In place of a member's name, before the first one.
const START: &str = "start of the archive";

/// The longest path, as the kernel has it (PATH_MAX with its zero).
pub(crate) const PATH_LIMIT: usize = 4095;

/// Extended headers and long names are read into memory; Go's reader has the same bound.
const EXTENSION_LIMIT: u64 = 1 << 20;

/// Name and value of an extended attribute.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Dir,
    Fifo,
}

/// One member of an archive; its content is read from the [`Reader`] before the next one.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// Without leading, trailing and double slashes and dots; empty for the root itself.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Of the file; a sparse one has less content.
    pub size: u64,
    /// Which parts of a sparse file the content is; none where it is all of it.
    pub segments: Option<Vec<Segment>>,
    /// Permission bits, set-id and sticky included.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Where a link leads; a hard link's is cleaned as `path` is.
    pub link: Vec<u8>,
    pub device: (u32, u32),
    pub xattrs: Vec<Xattr>,
}

/// Why an archive is refused, and at which member.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub member: String,
    pub message: String,
    /// Set where the stream itself failed.
    pub io: Option<io::Error>,
}

/// Names in messages: printable and bounded, whatever stands in the archive.
pub(crate) fn shown(name: &[u8]) -> String {
    let text = name[..name.len().min(200)].escape_ascii().to_string().replace("\\'", "'").replace("\\\\", "\\");
    if name.len() > 200 { format!("{text}…") } else { text }
}

pub(crate) struct Reader<R> {
    inner: R,
    /// Content of the current member that was not read yet.
    left: u64,
    /// Padding behind it.
    padding: u64,
    /// The last member's name, for errors of the stream.
    name: String,
}

type Outcome<T> = Result<T, Refusal>;

impl<R: BufRead> Reader<R> {
    pub fn new(inner: R) -> Reader<R> {
        Reader { inner, left: 0, padding: 0, name: START.to_owned() }
    }

    /// The next member, or none at the end of the archive; whatever follows the end is read too, so that a digest of the
    /// stream is complete.
    pub fn next(&mut self) -> Outcome<Option<Member>> {
        let mut extended: Option<Extended> = None;
        let (mut long_name, mut long_link): (Option<Vec<u8>>, Option<Vec<u8>>) = (None, None);
        loop {
            self.skip_rest()?;
            let mut header = [0u8; BLOCK];
            if !self.block(&mut header)? {
                if extended.is_some() || long_name.is_some() || long_link.is_some() {
                    return Err(self.refuse("the archive ends behind an extended header"));
                }
                return Ok(None);
            }
            if header.iter().all(|b| *b == 0) {
                self.end()?;
                if extended.is_some() || long_name.is_some() || long_link.is_some() {
                    return Err(self.refuse("the archive ends behind an extended header"));
                }
                return Ok(None);
            }
            let header = Header(header);
            let short = header.name();
            self.name = shown(&short);
            header.check().map_err(|why| self.refuse(why))?;
            let size = header.number(124, 12).map_err(|why| self.refuse(&format!("its size {why}")))?;
            match header.0[156] {
                b'x' => {
                    if extended.is_some() {
                        return Err(self.refuse("two extended headers in a row"));
                    }
                    let records = self.extension(size)?;
                    extended = Some(parse_pax(&records).map_err(|why| self.refuse(&why))?);
                }
                b'g' => {
                    let records = self.extension(size)?;
                    let global = parse_pax(&records).map_err(|why| self.refuse(&why))?;
                    if global.changes_members() {
                        return Err(self.refuse("a global header that changes members"));
                    }
                }
                b'L' | b'K' => {
                    let which = if header.0[156] == b'L' { &mut long_name } else { &mut long_link };
                    if which.is_some() {
                        return Err(self.refuse("two long names in a row"));
                    }
                    *which = Some(Vec::new());
                    let mut text = self.extension(size)?;
                    let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
                    text.truncate(end);
                    match header.0[156] {
                        b'L' => long_name = Some(text),
                        _ => long_link = Some(text),
                    }
                }
                _ => return self.member(&header, short, size, extended.unwrap_or_default(), long_name, long_link),
            }
        }
    }

    fn member(
        &mut self,
        header: &Header,
        short: Vec<u8>,
        size: u64,
        extended: Extended,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Outcome<Option<Member>> {
        if (extended.path.is_some() && long_name.is_some()) || (extended.link.is_some() && long_link.is_some()) {
            return Err(self.refuse("a pax name and a GNU long name for one member"));
        }
        let mut extended = extended;
        let sparse_name = extended.sparse.name();
        let raw = sparse_name.or(extended.path).or(long_name).unwrap_or(short);
        self.name = shown(&raw);
        let slash = raw.last() == Some(&b'/');
        let kind = kind(header.0[156], slash).map_err(|why| self.refuse(&why))?;
        let size = extended.size.unwrap_or(size);
        if kind != Kind::File && size != 0 {
            return Err(self.refuse("a size on a member that has no content"));
        }
        let path = clean(&raw).map_err(|why| self.refuse(why))?;
        let link = extended.link.or(long_link).unwrap_or_else(|| until_zero(&header.0[157..257]).to_vec());
        let link = match kind {
            Kind::HardLink => clean(&link).map_err(|why| self.refuse(&format!("its link target: {why}")))?,
            Kind::Symlink if link.is_empty() => return Err(self.refuse("a symbolic link to nothing")),
            Kind::Symlink if link.len() > PATH_LIMIT || link.contains(&0) => {
                return Err(self.refuse("a symbolic link to something that cannot be a path"));
            }
            _ => link,
        };
        let uid = self.id(header, extended.uid, 108, "user id")?;
        let gid = self.id(header, extended.gid, 116, "group id")?;
        let mode = header.number(100, 8).map_err(|why| self.refuse(&format!("its mode {why}")))? as u32 & 0o7777;
        let mtime = match extended.mtime {
            Some(mtime) => mtime,
            None => (header.signed(136, 12).map_err(|why| self.refuse(&format!("its time {why}")))?, 0),
        };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => {
                let part = |at| header.number(at, 8).ok().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
                (part(329), part(337))
            }
            _ => (0, 0),
        };
        let xattrs = extended.xattrs;
        let mut member = Member { path, kind, size, segments: None, mode, uid, gid, mtime, link, device, xattrs };
        if header.0[156] == b'S' {
            self.old_sparse(header, &mut member)?;
        }
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        if kind == Kind::File && extended.sparse.is_said() && member.segments.is_none() {
            self.pax_sparse(&extended.sparse, &mut member)?;
        }
        Ok(Some(member))
    }

    fn id(&self, header: &Header, pax: Option<u64>, at: usize, what: &str) -> Outcome<u32> {
        let id = match pax {
            Some(id) => id,
            None => header.number(at, 8).map_err(|why| self.refuse(&format!("its {what} {why}")))?,
        };
        // The last number means "leave as it is" to chown(2).
        match u32::try_from(id) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(self.refuse(&format!("its {what} {id} does not fit into 32 bits"))),
        }
    }

    /// The next piece of the current member's content, straight from the stream's buffer; empty when all was read.
    pub fn piece(&mut self) -> Outcome<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        // Asked twice: the borrow of the first answer cannot be given back (a known limit of the borrow checker).
        let available = match self.inner.fill_buf() {
            Ok(buffer) => buffer.len(),
            Err(error) => return Err(self.broken(error)),
        };
        if available == 0 {
            return Err(self.refuse("the archive ends inside this member"));
        }
        match self.inner.fill_buf() {
            Ok(buffer) => Ok(&buffer[..buffer.len().min(left)]),
            Err(_) => Ok(&[]),
        }
    }

    /// Marks bytes of the last [`piece`](Reader::piece) as used.
    pub fn consume(&mut self, bytes: usize) {
        self.inner.consume(bytes);
        self.left -= bytes as u64;
    }

    fn skip_rest(&mut self) -> Outcome<()> {
        while self.left > 0 {
            let bytes = self.piece()?.len();
            self.consume(bytes);
        }
        self.left = std::mem::take(&mut self.padding);
        while self.left > 0 {
            let bytes = self.piece()?.len();
            self.consume(bytes);
        }
        Ok(())
    }

    /// A small member's whole content, without counting as a member.
    fn extension(&mut self, size: u64) -> Outcome<Vec<u8>> {
        if size > EXTENSION_LIMIT {
            return Err(self.refuse("an extended header or long name of more than 1 MiB"));
        }
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        let mut content = Vec::with_capacity(size as usize);
        while self.left > 0 {
            let piece = self.piece()?;
            content.extend_from_slice(piece);
            let bytes = piece.len();
            self.consume(bytes);
        }
        Ok(content)
    }

    /// One block; false at a clean end of the stream.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Outcome<bool> {
        match self.last_block(block)? {
            0 => Ok(false),
            BLOCK => Ok(true),
            _ if self.name == START && block[257..262] != *b"ustar" => Err(self.refuse("this is no tar archive")),
            _ => Err(self.refuse("the archive is cut off behind this member")),
        }
    }

    /// Behind the first empty block: a second one is the end, and what follows it means nothing to anybody. A single
    /// one means the end to some readers, and to others nothing.
    fn end(&mut self) -> Outcome<()> {
        let mut block = [0; BLOCK];
        if self.last_block(&mut block)? > 0 && block.iter().any(|b| *b != 0) {
            return Err(self.refuse("data behind a single empty block, which ends the archive for some readers only"));
        }
        loop {
            let bytes = match self.inner.fill_buf() {
                Ok(buffer) => buffer.len(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken(error)),
            };
            if bytes == 0 {
                return Ok(());
            }
            self.inner.consume(bytes);
        }
    }

    /// As much of a block as there is before the end of the stream.
    fn last_block(&mut self, block: &mut [u8; BLOCK]) -> Outcome<usize> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(filled)
    }

    pub fn refuse(&self, message: &str) -> Refusal {
        Refusal { member: self.name.clone(), message: message.to_owned(), io: None }
    }

    fn broken(&self, error: io::Error) -> Refusal {
        Refusal { member: self.name.clone(), message: "reading the archive".to_owned(), io: Some(error) }
    }
}

impl<R: BufRead + io::Seek> Reader<R> {
    /// Where the current member's content begins.
    pub fn position(&mut self) -> io::Result<u64> {
        self.inner.stream_position()
    }

    /// Goes over the current member's content without reading it.
    pub fn seek_past(&mut self) -> io::Result<()> {
        let bytes = i64::try_from(self.left + self.padding).map_err(io::Error::other)?;
        self.inner.seek_relative(bytes)?;
        (self.left, self.padding) = (0, 0);
        Ok(())
    }
}

/// What a member is, by its letter; `slash`: its name ends with one.
fn kind(letter: u8, slash: bool) -> Result<Kind, String> {
    Ok(match letter {
        b'0'..=b'2' | b'7' if slash => return Err("a file or link whose name ends with a slash".into()),
        0 if slash => Kind::Dir,
        b'0' | 0 | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Dir,
        b'6' => Kind::Fifo,
        other => return Err(format!("unknown kind of member {:?}", char::from(other))),
    })
}
