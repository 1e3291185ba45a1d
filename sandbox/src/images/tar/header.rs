//! A header block: its fields, and names.

use super::{BLOCK, PATH_LIMIT};

pub(super) struct Header(pub [u8; BLOCK]);

impl Header {
    pub fn check(&self) -> Result<(), &'static str> {
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

    pub fn name(&self) -> Vec<u8> {
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
    pub fn number(&self, at: usize, len: usize) -> Result<u64, &'static str> {
        u64::try_from(self.signed(at, len)?).map_err(|_| "is negative")
    }

    pub fn signed(&self, at: usize, len: usize) -> Result<i64, &'static str> {
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

pub(super) fn until_zero(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())]
}

/// The path with everything taken out that means nothing. Leading slashes are dropped, and `a/..` is nothing, as in the
/// unpackers of Docker and podman. What leads out of the archive, or comes to its root that way, is refused.
pub(crate) fn clean(raw: &[u8]) -> Result<Vec<u8>, &'static str> {
    if raw.is_empty() {
        return Err("an empty name");
    }
    if raw.contains(&0) {
        return Err("a zero byte in a name");
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut back = false;
    for part in raw.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                back = true;
                parts.pop().ok_or("a name with .. that leads out")?;
            }
            _ if part.len() > 255 => return Err("a name of more than 255 bytes"),
            _ => parts.push(part),
        }
    }
    if back && parts.is_empty() {
        return Err("a name with .. that is the root");
    }
    let path = parts.join(&b'/');
    if path.len() > PATH_LIMIT {
        return Err("a path of more than 4095 bytes");
    }
    Ok(path)
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
    fn names_are_cleaned_and_impossible_ones_refused() {
        assert_eq!(clean(b"./a//b/./c/").unwrap(), b"a/b/c");
        assert_eq!(clean(b"/a").unwrap(), b"a");
        assert_eq!(clean(b"./").unwrap(), b"");
        assert_eq!(clean(b"a/../b/c/./..").unwrap(), b"b");
        for bad in [&b""[..], b"..", b"a/../../b", b"a/..", b"../a", b"a\0b", &[b'x'; 256], &b"a/".repeat(2100)] {
            assert!(clean(bad).is_err(), "{bad:?}");
        }
    }
}
