//! The first message of TLS (RFC 8446, 6066): which name a program says that it wants. No system calls; a program wrote it.

/// What the first bytes are.
#[derive(Debug, PartialEq, Eq)]
pub enum Hello<'a> {
    /// Something else than TLS.
    Other,
    /// There must come more before it can be told.
    Partial,
    Name(&'a [u8]),
    /// It names nobody.
    Nameless,
    /// It begins like TLS and cannot be read.
    Broken,
}

/// What a record may hold at most.
pub const MOST: usize = 5 + 16_384 + 256;

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// What has its length, a number of so many bytes, in front.
    fn block(&mut self, bytes: usize) -> Option<Bytes<'a>> {
        let length = self.number(bytes)?;
        self.take(length).map(Bytes)
    }
}

/// Reads the first bytes of a connection.
pub fn hello(bytes: &[u8]) -> Hello<'_> {
    const HANDSHAKE: u8 = 22;
    match *bytes {
        [] => return Hello::Partial,
        [HANDSHAKE] | [HANDSHAKE, 3] | [HANDSHAKE, 3, _] | [HANDSHAKE, 3, _, _] => return Hello::Partial,
        [HANDSHAKE, 3, ..] => {}
        [HANDSHAKE, ..] => return Hello::Broken,
        _ => return Hello::Other,
    }
    let length = usize::from(bytes[3]) << 8 | usize::from(bytes[4]);
    if length + 5 > MOST || length < 4 {
        return Hello::Broken;
    }
    match bytes.get(5..5 + length) {
        None => Hello::Partial,
        Some(record) => name(record).unwrap_or(Hello::Broken),
    }
}

fn name(record: &[u8]) -> Option<Hello<'_>> {
    const CLIENT_HELLO: usize = 1;
    const SERVER_NAME: usize = 0;
    let mut record = Bytes(record);
    if record.number(1)? != CLIENT_HELLO {
        return None;
    }
    // One that goes on in another record is refused: only to hide the name would it be split.
    let mut hello = record.block(3)?;
    let (_version, _random) = (hello.take(2)?, hello.take(32)?);
    let (_session, _ciphers, _compression) = (hello.block(1)?, hello.block(2)?, hello.block(1)?);
    if hello.0.is_empty() {
        return Some(Hello::Nameless);
    }
    let mut extensions = hello.block(2)?;
    if !hello.0.is_empty() {
        return None;
    }
    let mut found = Hello::Nameless;
    while !extensions.0.is_empty() {
        let (kind, mut extension) = (extensions.number(2)?, extensions.block(2)?);
        if kind != SERVER_NAME {
            continue;
        }
        let mut list = extension.block(2)?;
        let (kind, name) = (list.number(1)?, list.block(2)?);
        // Twice, or more than one name: which one a server takes is not for us to guess.
        if kind != 0 || !list.0.is_empty() || !extension.0.is_empty() || found != Hello::Nameless || name.0.is_empty() {
            return None;
        }
        found = Hello::Name(name.0);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn block(bytes: usize, content: &[u8]) -> Vec<u8> {
        let length = content.len().to_be_bytes();
        [&length[8 - bytes..], content].concat()
    }

    fn named(name: &[u8]) -> Vec<u8> {
        [&[0, 0][..], &block(2, &block(2, &[&[0][..], &block(2, name)].concat()))].concat()
    }

    fn made(extensions: &[u8]) -> Vec<u8> {
        let hello =
            [&[3, 3][..], &[7; 32], &block(1, &[9; 32]), &block(2, &[0x13, 1]), &block(1, &[0]), &block(2, extensions)];
        let handshake = [&[1][..], &block(3, &hello.concat())].concat();
        [&[22, 3, 1][..], &block(2, &handshake)].concat()
    }

    #[test]
    fn the_name_is_found_among_other_extensions() {
        let other = [&[0xfe, 0x0d][..], &block(2, &[1; 40])].concat();
        let message = made(&[&other[..], &named(b"pypi.org"), &other].concat());
        assert_eq!(hello(&message), Hello::Name(b"pypi.org"));
        assert_eq!(hello(&[&message[..], b"early data"].concat()), Hello::Name(b"pypi.org"));
        for length in 0..message.len() {
            assert_eq!(hello(&message[..length]), Hello::Partial, "{length}");
        }
        assert_eq!(hello(&made(&other)), Hello::Nameless);
        assert_eq!(hello(b"GET / HTTP/1.0"), Hello::Other);
        assert_eq!(hello(b"SSH-2.0"), Hello::Other);
        assert_eq!(hello(&[0x80, 0x2e, 1, 3, 1]), Hello::Other, "SSL 2");
    }

    #[test]
    fn what_hides_its_name_is_broken() {
        let message = made(&named(b"pypi.org"));
        // The same message in two records.
        let body = &message[5..];
        let (one, two) = body.split_at(20);
        let split = [&[22, 3, 1][..], &block(2, one), &[22, 3, 1], &block(2, two)].concat();
        assert_eq!(hello(&split), Hello::Broken);
        assert_eq!(hello(&made(&[named(b"a.org"), named(b"b.org")].concat())), Hello::Broken, "two names");
        assert_eq!(hello(&made(&named(b""))), Hello::Broken);
        let two = [&[0][..], &block(2, b"a.org"), &[0], &block(2, b"b.org")].concat();
        let list = [&[0, 0][..], &block(2, &block(2, &two))].concat();
        assert_eq!(hello(&made(&list)), Hello::Broken);
        let mut other = message.clone();
        other[5] = 2;
        assert_eq!(hello(&other), Hello::Broken, "a server's hello");
        assert_eq!(hello(&[22, 3, 1, 0xff, 0xff]), Hello::Broken, "longer than a record");
        assert_eq!(hello(&[22, 9]), Hello::Broken);
    }

    #[test]
    fn hostile_bytes_break_nothing() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let right = made(&named(b"pypi.org"));
        let mut names = 0;
        for _ in 0..300_000 {
            let mut message = right.clone();
            for _ in 0..next() % 4 {
                let at = next() as usize % message.len();
                message[at] = next() as u8;
            }
            message.truncate(next() as usize % (3 * message.len()));
            names += usize::from(matches!(hello(&message), Hello::Name(_)));
        }
        assert!(names > 10_000, "{names}");
    }
}
