//! Extended headers.

use super::sparse::Sparse;
use super::{Xattr, shown};

/// What extended headers say about the next member.
#[derive(Default)]
pub(super) struct Extended {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<Xattr>,
    pub sparse: Sparse,
}

impl Extended {
    pub fn changes_members(&self) -> bool {
        self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || self.uid.is_some()
            || self.gid.is_some()
            || self.mtime.is_some()
            || !self.xattrs.is_empty()
            || self.sparse.is_said()
    }
}

/// Records of `LENGTH KEY=VALUE\n`, where the length counts itself.
pub(super) fn parse_pax(mut records: &[u8]) -> Result<Extended, String> {
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
            b"SCHILY.realsize" => return Err("a sparse file of a form that is not known".to_owned()),
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    extended.sparse.record(key, value).ok_or_else(unreadable)?;
                } else if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
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

pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
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
    let seconds = i128::from(decimal(whole)?);
    let mut nanoseconds = 0;
    if !fraction.is_empty() {
        if !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let digits = &fraction[..fraction.len().min(9)];
        nanoseconds = decimal(digits)? as u32 * 10u32.pow(9 - digits.len() as u32);
    }
    let (seconds, nanoseconds) = match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    };
    Some((i64::try_from(seconds).ok()?, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_fractions_are_kept() {
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        assert_eq!(time(b"7.1234567899"), Some((7, 123_456_789)));
        assert_eq!(time(b"-9223372036854775808"), Some((i64::MIN, 0)));
        assert_eq!(time(b"9223372036854775807.999999999"), Some((i64::MAX, 999_999_999)));
        for bad in [
            &b""[..],
            b".",
            b"9223372036854775808",
            b"-9223372036854775808.5",
            b"1e9",
            b"1.x",
            b"--1",
            b"99999999999999999999",
        ] {
            assert_eq!(time(bad), None, "{bad:?}");
        }
    }
}
