//! Sparse files: GNU's old form and the three of its pax forms (0.0, 0.1, 1.0). Go's reader has the same rules: the map
//! is in order, nothing overlaps, and the segments are as long as the content together.

use std::io::BufRead;

use super::header::Header;
use super::pax::decimal;
use super::{BLOCK, EXTENSION_LIMIT, Member, Outcome, Reader};

/// Where a piece of the content belongs in the file, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub offset: u64,
    pub len: u64,
}

/// So many segments are read; an extended header or a map of 1 MiB cannot have more.
const MOST: usize = 1 << 19;

/// What extended headers say of a sparse file.
#[derive(Default)]
pub(super) struct Sparse {
    version: (Option<u64>, Option<u64>),
    name: Option<Vec<u8>>,
    size: Option<u64>,
    /// Offsets and lengths in turn.
    map: Vec<u64>,
    said: bool,
}

impl Sparse {
    /// Takes a record; `key` is what follows `GNU.sparse.`.
    pub fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        self.said = true;
        match key {
            b"major" => self.version.0 = Some(decimal(value)?),
            b"minor" => self.version.1 = Some(decimal(value)?),
            b"name" => self.name = (!value.is_empty()).then(|| value.to_vec()),
            b"size" | b"realsize" => self.size = Some(decimal(value)?),
            b"offset" if self.map.len().is_multiple_of(2) => self.map.push(decimal(value)?),
            b"numbytes" if !self.map.len().is_multiple_of(2) => self.map.push(decimal(value)?),
            b"offset" | b"numbytes" => return None,
            b"map" if value.is_empty() => self.map.clear(),
            b"map" => self.map = value.split(|b| *b == b',').map(decimal).collect::<Option<_>>()?,
            // How many segments there are, which the map itself tells.
            b"numblocks" => drop(decimal(value)?),
            _ => return None,
        }
        (self.map.len() <= 2 * MOST).then_some(())
    }

    pub fn is_said(&self) -> bool {
        self.said
    }

    pub fn name(&mut self) -> Option<Vec<u8>> {
        self.name.take()
    }
}

impl<R: BufRead> Reader<R> {
    /// The segments of a member of GNU's old form, whose header goes on in blocks of its own.
    pub(super) fn old_sparse(&mut self, header: &Header, member: &mut Member) -> Outcome<()> {
        let wrong = |reader: &Self, why: &str| reader.refuse(&format!("its sparse map: a number {why}"));
        let size = header.number(483, 12).map_err(|why| wrong(self, why))?;
        let mut map = Vec::new();
        let take = |block: &Header, start: usize, count: usize, map: &mut Vec<u64>| {
            for at in (start..).step_by(24).take(count) {
                if block.0[at] == 0 {
                    break;
                }
                map.extend([block.number(at, 12)?, block.number(at + 12, 12)?]);
            }
            Ok(())
        };
        take(header, 386, 4, &mut map).map_err(|why| wrong(self, why))?;
        let mut more = header.0[482] != 0;
        while more {
            let mut block = [0; BLOCK];
            if !self.block(&mut block)? {
                return Err(self.refuse("the archive ends inside a sparse map"));
            }
            let block = Header(block);
            take(&block, 0, 21, &mut map).map_err(|why| wrong(self, why))?;
            if map.len() > 2 * MOST {
                return Err(self.refuse("a sparse map of too many segments"));
            }
            more = block.0[504] != 0;
        }
        self.set_sparse(member, size, &map)
    }

    /// The segments as extended headers have them; those of version 1.0 stand in front of the content.
    pub(super) fn pax_sparse(&mut self, sparse: &Sparse, member: &mut Member) -> Outcome<()> {
        let Some(size) = sparse.size else { return Err(self.refuse("a sparse file without its size")) };
        match sparse.version {
            (Some(1), Some(0)) => {
                let map = self.map_of_content()?;
                member.size = self.left;
                self.set_sparse(member, size, &map)
            }
            (None | Some(0), None | Some(0 | 1)) => self.set_sparse(member, size, &sparse.map),
            _ => Err(self.refuse("a sparse file of an unknown version")),
        }
    }

    /// Lines of decimal numbers, padded to whole blocks: how many segments, then offset and length of each.
    fn map_of_content(&mut self) -> Outcome<Vec<u64>> {
        let (mut numbers, mut line, mut count, mut used) = (Vec::new(), Vec::new(), None, 0u64);
        while count.is_none_or(|count| numbers.len() < count) {
            if self.left < BLOCK as u64 || used >= EXTENSION_LIMIT {
                return Err(self.refuse("a sparse map that does not end"));
            }
            let mut block = [0; BLOCK];
            if !self.block(&mut block)? {
                return Err(self.refuse("the archive ends inside a sparse map"));
            }
            (self.left, used) = (self.left - BLOCK as u64, used + BLOCK as u64);
            for byte in block {
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                let number = decimal(&line).ok_or_else(|| self.refuse("a sparse map that is no list of numbers"))?;
                line.clear();
                match count {
                    None if number > MOST as u64 => return Err(self.refuse("a sparse map of too many segments")),
                    None => count = Some(2 * number as usize),
                    Some(_) => numbers.push(number),
                }
                if count.is_some_and(|count| numbers.len() >= count) {
                    break;
                }
            }
        }
        Ok(numbers)
    }

    fn set_sparse(&mut self, member: &mut Member, size: u64, map: &[u64]) -> Outcome<()> {
        let mut segments = Vec::with_capacity(map.len() / 2);
        let (mut end, mut content) = (0u64, 0u64);
        for pair in map.chunks(2) {
            let &[offset, len] = pair else { return Err(self.refuse("a sparse map without its last length")) };
            let next = offset.checked_add(len).filter(|next| offset >= end && *next <= size);
            end =
                next.ok_or_else(|| self.refuse("a sparse map that is not in order or leads behind the file's end"))?;
            content += len;
            if len > 0 {
                segments.push(Segment { offset, len });
            }
        }
        if content != member.size {
            return Err(self.refuse("a sparse map that is not about as much content as there is"));
        }
        member.size = size;
        member.segments = Some(segments);
        Ok(())
    }
}
