//! `ADD` unpacks archives: their members go into the step's layer, beneath the destination.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::images::Limits;
use crate::images::merged::Merged;
use crate::images::pack::{NewMember, TarWriter};
use crate::images::stream::{Decoder, chunked, sniffed};
use crate::images::tar::{Kind, Member, Reader, Refusal, shown};

/// How members are written.
pub(super) struct Unpacking<'a> {
    pub merged: &'a Merged<'a>,
    pub dest: &'a Path,
    pub latest: Option<i64>,
    pub limits: &'a Limits,
}

type Visit<'a> = dyn FnMut(u64, &Member, PathBuf, &mut Reader<Box<dyn BufRead>>) -> Result<(), Refusal> + 'a;

fn reader(file: &File) -> io::Result<Reader<Box<dyn BufRead>>> {
    let mut file = file.try_clone()?;
    file.seek(SeekFrom::Start(0))?;
    let (packing, stream) = sniffed(Box::new(file))?;
    Ok(Reader::new(Box::new(BufReader::new(Decoder::new(chunked(stream), packing)))))
}

/// Whether a file is an archive, by what is in it and not by its name: at least one member can be read.
pub(super) fn is_archive(file: &File) -> bool {
    reader(file).is_ok_and(|mut reader| matches!(reader.next(), Ok(Some(_))))
}

/// Ends the message of a hard link that no layer can hold: its target has to be in the same one.
pub(super) const ONLY_BELOW: &str = "which is in the image below and not in what this step adds";

/// A member: of which archive, and the how manieth in it.
type Place = (usize, u64);

fn broken(e: io::Error) -> Refusal {
    Refusal { member: String::new(), message: "unpacking".into(), io: Some(e) }
}

impl Unpacking<'_> {
    /// The member that each path comes from: the last one. Some readers of layers refuse a path that is there twice.
    pub fn last(&self, archives: &[File]) -> Result<HashMap<PathBuf, Place>, Refusal> {
        let mut last = HashMap::new();
        for (number, file) in archives.iter().enumerate() {
            self.each(file, &mut |members, _, path, _| {
                last.insert(path, (number, members));
                Ok(())
            })?;
        }
        Ok(last)
    }

    /// `beside`: whether the step's layer has such a file from elsewhere.
    pub fn write(
        &self,
        archives: &[File],
        last: &HashMap<PathBuf, Place>,
        beside: &dyn Fn(&Path) -> bool,
        tar: &mut TarWriter<BufWriter<File>>,
    ) -> Result<(), Refusal> {
        for (number, file) in archives.iter().enumerate() {
            let mut targets = BTreeMap::new();
            self.each(file, &mut |members, member, path, reader| match last.get(&path) {
                Some(place) if *place == (number, members) => {
                    let link = self.link(member, &mut targets);
                    let there = Path::new(OsStr::from_bytes(&link));
                    let is_here = member.kind != Kind::HardLink || last.contains_key(there) || beside(there);
                    if !is_here && self.merged.find(there).is_some() {
                        return Err(reader.refuse(&format!("a hard link to {}, {ONLY_BELOW}", shown(&link))));
                    }
                    self.member(member, &path, &link, reader, tar)
                }
                _ => Ok(()),
            })?;
        }
        Ok(())
    }

    /// Visits the members of an archive with the places that they go to.
    fn each(&self, file: &File, visit: &mut Visit<'_>) -> Result<(), Refusal> {
        let packed = file.metadata().map_err(broken)?.len();
        let mut reader = reader(file).map_err(broken)?;
        let (mut members, mut bytes) = (0, 0u64);
        let mut places = BTreeMap::new();
        while let Some(member) = reader.next()? {
            (members, bytes) = (members + 1, bytes.saturating_add(member.size));
            let bomb = bytes > 64 << 20 && bytes / self.limits.ratio > packed;
            if members > self.limits.members || bytes > self.limits.layer_bytes || bomb {
                return Err(reader.refuse("the archive is larger than a layer may be"));
            }
            if member.path.split(|b| *b == b'/').any(|part| part.starts_with(b".wh.")) {
                return Err(reader.refuse("a name that would remove another file from the image"));
            }
            if matches!(member.kind, Kind::CharDevice | Kind::BlockDevice) {
                return Err(reader.refuse("a device, which no build may make"));
            }
            if let Some(path) = self.place(&member, &mut places) {
                visit(members, &member, path, &mut reader)?;
            }
        }
        Ok(())
    }

    /// What it links to, in the image.
    fn link(&self, member: &Member, places: &mut BTreeMap<PathBuf, PathBuf>) -> Vec<u8> {
        if member.kind != Kind::HardLink {
            return member.link.clone();
        }
        let target = Member { path: member.link.clone(), kind: Kind::File, ..member.clone() };
        self.place(&target, places).map(|path| path.into_os_string().into_vec()).unwrap_or_default()
    }

    /// Owners and modes are the archive's, whatever ADD says of files.
    fn member(
        &self,
        member: &Member,
        path: &Path,
        link: &[u8],
        reader: &mut Reader<Box<dyn BufRead>>,
        tar: &mut TarWriter<BufWriter<File>>,
    ) -> Result<(), Refusal> {
        let header = NewMember {
            path: path.as_os_str().as_bytes(),
            kind: member.kind,
            mode: member.mode,
            uid: member.uid,
            gid: member.gid,
            size: if member.kind == Kind::File { member.size } else { 0 },
            mtime: self.latest.map_or(member.mtime.0, |latest| latest.min(member.mtime.0)),
            link,
            xattrs: &member.xattrs,
        };
        tar.header(&header).map_err(broken)?;
        if member.kind == Kind::File {
            tar.content(member.size, Content { reader, member, at: 0 }).map_err(broken)?;
        }
        Ok(())
    }

    /// Where a member goes, through the links of the image; none for the destination itself.
    fn place(&self, member: &Member, places: &mut BTreeMap<PathBuf, PathBuf>) -> Option<PathBuf> {
        let path = Path::new(OsStr::from_bytes(&member.path));
        let name = path.file_name()?;
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        let through = |path: PathBuf| self.merged.resolve(&Path::new("/").join(&path)).unwrap_or(path);
        let parent = places.entry(parent).or_insert_with_key(|parent| through(self.dest.join(parent))).clone();
        let place = parent.join(name);
        Some(if member.kind == Kind::Dir { through(place) } else { place })
    }
}

/// A member's content with its holes.
struct Content<'a, R> {
    reader: &'a mut Reader<R>,
    member: &'a Member,
    at: u64,
}

impl<R: BufRead> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.member.size - self.at;
        let segment = match &self.member.segments {
            None => Some((0, left)),
            Some(segments) => segments
                .iter()
                .find(|segment| segment.offset + segment.len > self.at)
                .map(|segment| (segment.offset.saturating_sub(self.at), segment.offset + segment.len - self.at)),
        };
        let (hole, content) = segment.unwrap_or((left, 0));
        let most = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(buffer.len());
        let bytes = if hole > 0 {
            let bytes = most(hole);
            buffer[..bytes].fill(0);
            bytes
        } else {
            let most = most(content);
            let piece = self.reader.piece().map_err(|refusal| io::Error::other(refusal.message))?;
            let bytes = piece.len().min(most);
            buffer[..bytes].copy_from_slice(&piece[..bytes]);
            self.reader.consume(bytes);
            bytes
        };
        self.at += bytes as u64;
        Ok(bytes)
    }
}
