//! Messages of DNS (RFC 1035): questions of programs and answers of servers are read, answers and questions made. No system
//! calls; everything that is read is hostile.

use crate::packet::mapped;
use crate::pins::LONGEST;

pub const A: u16 = 1;
pub const AAAA: u16 = 28;
const CNAME: u16 = 5;
const OPT: u16 = 41;
const IN: u16 = 1;
const HEADER: usize = 12;

pub const NO_ERROR: u8 = 0;
pub const SERVER_FAILED: u8 = 2;
pub const NO_SUCH_NAME: u8 = 3;

/// How many addresses of one answer are of use.
pub const MOST_ADDRESSES: usize = 16;
/// How many aliases are followed.
const MOST_ALIASES: usize = 16;
/// What an answer is good for, in seconds.
const LIFETIME: u32 = 60;
/// A question with its header, or an answer.
pub const MOST: usize = 512;

/// A name in lower case, without a dot at the end.
#[derive(Clone, Copy)]
pub struct Name {
    bytes: [u8; LONGEST],
    length: usize,
}

pub const NO_NAME: Name = Name { bytes: [0; LONGEST], length: 0 };

impl Name {
    pub fn text(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// From text, as it stands in a file.
    pub fn of(text: &[u8]) -> Option<Name> {
        let mut name = NO_NAME;
        text.split(|byte| *byte == b'.').try_for_each(|label| name.push(label))?;
        Some(name)
    }

    fn push(&mut self, label: &[u8]) -> Option<()> {
        let fine = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if label.is_empty() || label.len() > 63 || !label.iter().all(fine) {
            return None;
        }
        if self.length > 0 {
            *self.bytes.get_mut(self.length)? = b'.';
            self.length += 1;
        }
        let place = self.bytes.get_mut(self.length..self.length + label.len())?;
        place.copy_from_slice(label);
        place.make_ascii_lowercase();
        self.length += label.len();
        Some(())
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The name at `at`, and where it ends there. `None` also for names that no host has: other letters than those of hosts.
fn name(message: &[u8], at: usize, may_point: bool) -> Option<(Name, usize)> {
    let (mut name, mut place, mut end) = (NO_NAME, at, None);
    // Each pointer leads to before itself, so that there is an end to it.
    let mut least = at;
    loop {
        let length = usize::from(*message.get(place)?);
        match length {
            0 => return Some((name, end.unwrap_or(place + 1))),
            1..=63 => {
                name.push(message.get(place + 1..place + 1 + length)?)?;
                place += 1 + length;
            }
            0xc0.. if may_point => {
                let target = usize::from(half(message, place)? & 0x3fff);
                if target >= least {
                    return None;
                }
                end = end.or(Some(place + 2));
                (least, place) = (target, target);
            }
            _ => return None,
        }
    }
}

/// Where the name at `at` ends, whatever its letters are.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// A question of a program.
#[derive(Clone, Copy)]
pub struct Query {
    pub id: u16,
    pub name: Name,
    pub kind: u16,
    /// Header and question, for the answer.
    head: [u8; HEADER + LONGEST + 7],
    length: usize,
}

pub const NO_QUERY: Query = Query { id: 0, name: NO_NAME, kind: 0, head: [0; HEADER + LONGEST + 7], length: 0 };

/// Reads a question: one, of the class of the internet, with a name that a host may have. `None`: no answer but an error.
pub fn query(message: &[u8]) -> Option<Query> {
    let flags = half(message, 2)?;
    // A response, another operation than a question, or not one question.
    if flags & 0xf800 != 0 || half(message, 4)? != 1 || half(message, 6)? != 0 {
        return None;
    }
    let (name, end) = name(message, HEADER, false)?;
    if half(message, end + 2)? != IN {
        return None;
    }
    let mut query = Query { id: half(message, 0)?, name, kind: half(message, end)?, ..NO_QUERY };
    query.length = end + 4;
    query.head.get_mut(..query.length)?.copy_from_slice(&message[..query.length]);
    Some(query)
}

/// The answer to a question, with these addresses; how long it is.
pub fn reply(query: &Query, code: u8, addresses: &[[u8; 16]], out: &mut [u8; MOST]) -> usize {
    let mut length = query.length;
    out[..length].copy_from_slice(&query.head[..length]);
    // A response, recursion as desired and available.
    (out[2], out[3]) = (0x80 | query.head[2] & 1, 0x80 | code);
    out[6..HEADER].fill(0);
    let mut count = 0u16;
    for address in addresses {
        let data = if query.kind == A { &address[12..] } else { &address[..] };
        let end = length + 12 + data.len();
        if end > out.len() {
            break;
        }
        let [a, b, c, d] = LIFETIME.to_be_bytes();
        let [e, f] = (data.len() as u16).to_be_bytes();
        let [g, h] = query.kind.to_be_bytes();
        out[length..length + 12].copy_from_slice(&[0xc0, HEADER as u8, g, h, 0, IN as u8, a, b, c, d, e, f]);
        out[length + 12..end].copy_from_slice(data);
        (length, count) = (end, count + 1);
    }
    out[6..8].copy_from_slice(&count.to_be_bytes());
    length
}

/// The answer to a message that is no question: an error, where there is room for one.
pub fn malformed(message: &[u8], out: &mut [u8; MOST]) -> usize {
    const FORMAT_ERROR: u8 = 1;
    let is_query = message.len() >= HEADER && message[2] & 0x80 == 0;
    if !is_query {
        return 0;
    }
    out[..HEADER].fill(0);
    out[..2].copy_from_slice(&message[..2]);
    (out[2], out[3]) = (0x80, FORMAT_ERROR);
    HEADER
}

/// A question to a server, with an id of its own; how long it is.
pub fn ask(name: &Name, kind: u16, id: u16, out: &mut [u8; MOST]) -> usize {
    out[..HEADER].copy_from_slice(&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    out[..2].copy_from_slice(&id.to_be_bytes());
    let mut at = HEADER;
    for label in name.text().split(|byte| *byte == b'.').filter(|label| !label.is_empty()) {
        out[at] = label.len() as u8;
        out[at + 1..at + 1 + label.len()].copy_from_slice(label);
        at += 1 + label.len();
    }
    let [high, low] = kind.to_be_bytes();
    // The end of the name, type, class; and EDNS with room for 1,232 bytes.
    let rest = [0, high, low, 0, IN as u8, 0, 0, OPT as u8, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];
    out[at..at + rest.len()].copy_from_slice(&rest);
    at + rest.len()
}

/// What a server has answered.
pub struct Answer {
    pub code: u8,
    pub addresses: [[u8; 16]; MOST_ADDRESSES],
    pub count: usize,
}

/// Reads the answer to a question that `ask` has made. `None`: it is no answer to that.
pub fn answer(message: &[u8], id: u16, asked: &Name, kind: u16) -> Option<Answer> {
    let flags = half(message, 2)?;
    if half(message, 0)? != id || flags & 0xf800 != 0x8000 || half(message, 4)? != 1 {
        return None;
    }
    let (question, end) = name(message, HEADER, false)?;
    if question.text() != asked.text() || half(message, end)? != kind || half(message, end + 2)? != IN {
        return None;
    }
    let mut found = Answer { code: (flags & 15) as u8, addresses: [[0; 16]; MOST_ADDRESSES], count: 0 };
    let records = half(message, 6)?;
    let mut wanted = *asked;
    // Aliases may stand in any order.
    for _ in 0..MOST_ALIASES {
        let mut next = None;
        let mut at = end + 4;
        for _ in 0..records {
            let Some(record) = record(message, at) else { break };
            at = record.end;
            let Some((owner, _)) = name(message, record.start, true) else { continue };
            if owner.text() != wanted.text() || record.class != IN {
                continue;
            }
            let data = &message[record.data..record.end];
            match (record.kind, data.len()) {
                (A, 4) if kind == A => found.push(mapped([data[0], data[1], data[2], data[3]])),
                (AAAA, 16) if kind == AAAA => found.push(data.try_into().unwrap_or_default()),
                (CNAME, _) => next = name(message, record.data, true).map(|(name, _)| name),
                _ => {}
            }
        }
        match next {
            Some(alias) if found.count == 0 => wanted = alias,
            _ => break,
        }
    }
    Some(found)
}

impl Answer {
    fn push(&mut self, address: [u8; 16]) {
        if self.count < MOST_ADDRESSES {
            self.addresses[self.count] = address;
            self.count += 1;
        }
    }

    /// Keeps those that are wanted.
    pub fn retain(&mut self, mut wanted: impl FnMut(&[u8; 16]) -> bool) {
        let mut kept = 0;
        for at in 0..self.count {
            if wanted(&self.addresses[at]) {
                self.addresses[kept] = self.addresses[at];
                kept += 1;
            }
        }
        self.count = kept;
    }

    pub fn addresses(&self) -> &[[u8; 16]] {
        &self.addresses[..self.count]
    }
}

struct Record {
    start: usize,
    kind: u16,
    class: u16,
    data: usize,
    end: usize,
}

fn record(message: &[u8], start: usize) -> Option<Record> {
    let at = skip_name(message, start)?;
    let data = at + 10;
    let end = data + usize::from(half(message, at + 8)?);
    (end <= message.len()).then_some(Record {
        start,
        kind: half(message, at)?,
        class: half(message, at + 2)?,
        data,
        end,
    })
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
