//! A strict reader of tar streams.
//!
//! Our own, because a layer is hostile input that is read in bounded memory, and because two readers that understand
//! one archive differently are an attack (CVE-2025-62518). Where GNU tar, Go's archive/tar and the pax standard disagree
//! about an archive, it is refused: sizes on members that have no content, global headers that change names or sizes,
//! a pax name beside a GNU long name, sparse files, anything behind the end.

use std::io::{self, BufRead};

/// Blocks are 512 bytes: headers, and the unit that content is padded to.
pub(crate) const BLOCK: usize = 512;

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
    pub size: u64,
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

/// What extended headers say about the next member.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<Xattr>,
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
        Reader { inner, left: 0, padding: 0, name: "start of the archive".to_owned() }
    }

    /// The next member, or none at the end of the archive; whatever follows the end must be zeros and is read too,
    /// so that a digest of the stream is complete.
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
        let raw = extended.path.or(long_name).unwrap_or(short);
        self.name = shown(&raw);
        let slash = raw.last() == Some(&b'/');
        let kind = match header.0[156] {
            b'0'..=b'2' | b'7' if slash => return Err(self.refuse("a file or link whose name ends with a slash")),
            0 if slash => Kind::Dir,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            b'S' => return Err(self.refuse("a sparse file; pack the layer without --sparse")),
            other => return Err(self.refuse(&format!("unknown kind of member {:?}", char::from(other)))),
        };
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
        let id = |pax: Option<u64>, at: usize, what: &str| -> Outcome<u32> {
            let id = match pax {
                Some(id) => id,
                None => header.number(at, 8).map_err(|why| self.refuse(&format!("its {what} {why}")))?,
            };
            // The last number means "leave as it is" to chown(2).
            match u32::try_from(id) {
                Ok(id) if id != u32::MAX => Ok(id),
                _ => Err(self.refuse(&format!("its {what} {id} does not fit into 32 bits"))),
            }
        };
        let uid = id(extended.uid, 108, "user id")?;
        let gid = id(extended.gid, 116, "group id")?;
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
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        Ok(Some(Member { path, kind, size, mode, uid, gid, mtime, link, device, xattrs: extended.xattrs }))
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
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(self.refuse("the archive is cut off behind this member")),
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(true)
    }

    /// Reads to the end of the stream. Anything but zeros there would be seen by a reader that goes on after an empty
    /// block, and not by one that stops.
    fn end(&mut self) -> Outcome<()> {
        loop {
            let (bytes, zeros) = match self.inner.fill_buf() {
                Ok(buffer) => (buffer.len(), buffer.iter().all(|b| *b == 0)),
                Err(error) => return Err(self.broken(error)),
            };
            if bytes == 0 {
                return Ok(());
            }
            if !zeros {
                return Err(self.refuse("data behind the end of the archive"));
            }
            self.inner.consume(bytes);
        }
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

struct Header([u8; BLOCK]);

impl Header {
    fn check(&self) -> Result<(), &'static str> {
        let field = &self.0[148..156];
        let said = octal(field).map_err(|_| "not a tar header: its checksum is no number")?;
        let (mut unsigned, mut signed) = (0u64, 0i64);
        for (at, byte) in self.0.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            unsigned += u64::from(byte);
            signed += i64::from(byte as i8);
        }
        // Some old programs summed signed bytes.
        if said != unsigned && i64::try_from(said) != Ok(signed) {
            return Err("not a tar header: its checksum is wrong");
        }
        Ok(())
    }

    fn name(&self) -> Vec<u8> {
        let name = until_zero(&self.0[..100]);
        let prefix = until_zero(&self.0[345..500]);
        // Only POSIX headers have a prefix there; GNU's have other things in its place.
        if &self.0[257..263] == b"ustar\0" && !prefix.is_empty() {
            [prefix, b"/", name].concat()
        } else {
            name.to_vec()
        }
    }

    /// A number that cannot be negative: octal digits, or GNU's base 256.
    fn number(&self, at: usize, len: usize) -> Result<u64, &'static str> {
        u64::try_from(self.signed(at, len)?).map_err(|_| "is negative")
    }

    fn signed(&self, at: usize, len: usize) -> Result<i64, &'static str> {
        let field = &self.0[at..at + len];
        if field[0] & 0x80 == 0 {
            return i64::try_from(octal(field)?).map_err(|_| "is too large");
        }
        let negative = field[0] & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (index, byte) in field.iter().enumerate() {
            let byte = if index == 0 && !negative { byte & 0x7f } else { *byte };
            value = (value << 8) | i128::from(byte);
        }
        i64::try_from(value).map_err(|_| "is too large")
    }
}

fn octal(field: &[u8]) -> Result<u64, &'static str> {
    let start = field.iter().position(|b| *b != b' ').unwrap_or(field.len());
    let field = &field[start..];
    let end = field.iter().position(|b| matches!(b, 0 | b' ')).unwrap_or(field.len());
    if field[end..].iter().any(|b| !matches!(b, 0 | b' ')) {
        return Err("is not a number");
    }
    field[..end].iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8).map(|v| v + u64::from(digit - b'0')).ok_or("is too large"),
        _ => Err("is not a number"),
    })
}

fn until_zero(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())]
}

/// The path with everything taken out that means nothing. Leading slashes are dropped, as every unpacker does; a
/// `..` is refused, because unpackers disagree about it and nobody packs one in good faith.
pub(crate) fn clean(raw: &[u8]) -> Result<Vec<u8>, &'static str> {
    if raw.is_empty() {
        return Err("an empty name");
    }
    if raw.contains(&0) {
        return Err("a zero byte in a name");
    }
    let mut path = Vec::with_capacity(raw.len());
    for part in raw.split(|b| *b == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err("a name with .. in it"),
            _ if part.len() > 255 => return Err("a name of more than 255 bytes"),
            _ => {}
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(part);
    }
    if path.len() > PATH_LIMIT {
        return Err("a path of more than 4095 bytes");
    }
    Ok(path)
}

impl Extended {
    fn changes_members(&self) -> bool {
        self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || self.uid.is_some()
            || self.gid.is_some()
            || self.mtime.is_some()
            || !self.xattrs.is_empty()
    }
}

/// Records of `LENGTH KEY=VALUE\n`, where the length counts itself.
fn parse_pax(mut records: &[u8]) -> Result<Extended, String> {
    let mut extended = Extended::default();
    while !records.is_empty() {
        let bad = || "an extended header that does not parse".to_owned();
        let space = records.iter().take(20).position(|b| *b == b' ').ok_or_else(bad)?;
        let length: usize = decimal(&records[..space]).and_then(|n| usize::try_from(n).ok()).ok_or_else(bad)?;
        if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
            return Err(bad());
        }
        let record = &records[space + 1..length - 1];
        records = &records[length..];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let unreadable = || format!("its {} is {}", shown(key), shown(value));
        let number = || decimal(value).ok_or_else(unreadable);
        // An empty value takes a record back, so that the plain header counts again.
        match key {
            b"path" => extended.path = (!value.is_empty()).then(|| value.to_vec()),
            b"linkpath" => extended.link = (!value.is_empty()).then(|| value.to_vec()),
            b"size" => extended.size = if value.is_empty() { None } else { Some(number()?) },
            b"uid" => extended.uid = if value.is_empty() { None } else { Some(number()?) },
            b"gid" => extended.gid = if value.is_empty() { None } else { Some(number()?) },
            b"mtime" => {
                extended.mtime = if value.is_empty() { None } else { Some(time(value).ok_or_else(unreadable)?) }
            }
            _ if key.starts_with(b"GNU.sparse.") || key == b"SCHILY.realsize" => {
                return Err("a sparse file; pack the layer without --sparse".to_owned());
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if name.is_empty() || name.len() > 255 || name.contains(&0) {
                        return Err("an extended attribute with an impossible name".to_owned());
                    }
                    extended.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
    }
    Ok(extended)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `-12.345` as seconds, rounded down, and nanoseconds.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &text[..0]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let mut nanoseconds = 0;
    if !fraction.is_empty() {
        if !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let digits = &fraction[..fraction.len().min(9)];
        nanoseconds = decimal(digits)? as u32 * 10u32.pow(9 - digits.len() as u32);
    }
    match (negative, nanoseconds) {
        (false, _) => Some((seconds, nanoseconds)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanoseconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_tar_writes_them_and_nothing_else_is() {
        let mut header = Header([0; BLOCK]);
        let mut size = |field: &[u8]| {
            header.0[124..136].fill(0);
            header.0[124..124 + field.len()].copy_from_slice(field);
            header.number(124, 12)
        };
        assert_eq!(size(b"00000000017\0"), Ok(15));
        assert_eq!(size(b"       17 \0"), Ok(15));
        assert_eq!(size(b""), Ok(0));
        assert_eq!(size(b"777777777777"), Ok(0o777777777777));
        assert_eq!(size(b"\x80\0\0\0\0\0\0\x02\0\0\0\0"), Ok(2 << 32));
        for bad in [
            &b"-1"[..],
            b"8",
            b"1x",
            b"1\x002",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_before_1970_and_fractions_are_kept() {
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        assert_eq!(time(b"7.1234567899"), Some((7, 123_456_789)));
        for bad in [&b""[..], b".", b"1e9", b"1.x", b"--1", b"99999999999999999999"] {
            assert_eq!(time(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn names_are_cleaned_and_impossible_ones_refused() {
        assert_eq!(clean(b"./a//b/./c/").unwrap(), b"a/b/c");
        assert_eq!(clean(b"/a").unwrap(), b"a");
        assert_eq!(clean(b"./").unwrap(), b"");
        for bad in [&b""[..], b"..", b"a/../b", b"a/..", b"a\0b", &[b'x'; 256], &b"a/".repeat(2100)] {
            assert!(clean(bad).is_err(), "{bad:?}");
        }
    }
}
