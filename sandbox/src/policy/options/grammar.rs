//! The grammar of values, one for all languages. Every refusal says what would be right.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use super::{Kind, Value};

/// What is wrong with a value, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Wrong {
        Wrong { message: message.into(), hint: hint.into() }
    }

    /// `given` is not `what`.
    pub(crate) fn not(given: &OsStr, what: &str, hint: impl Into<String>) -> Wrong {
        Wrong::new(format!("{given:?} is not {what}"), hint)
    }
}

const SIZE_HINT: &str = "Write 4096, 512K, 64M or 2G.";
const DURATION_HINT: &str = "Write 500ms, 1.5s, 30s, 5m or 2h.";

impl Kind {
    /// Text becomes the value that it stands for; a value stays what it is, where it is one of this kind.
    pub(super) fn read(self, value: Value) -> Result<Value, Wrong> {
        let number = |number| Ok(Value::Number(number));
        match (self, value) {
            (Kind::Size, Value::Text(text)) => number(size(utf8(&text)?)?),
            (Kind::Count, Value::Text(text)) => number(count(utf8(&text)?)?),
            (Kind::Count, Value::Number(count)) => number(count),
            (Kind::SmallCount, value) => match Kind::Count.read(value)? {
                Value::Number(count) if count > u32::MAX.into() => {
                    Err(Wrong::new(format!("{count} is more than 32 bits can count"), "Write a smaller number."))
                }
                count => Ok(count),
            },
            (Kind::Mode, Value::Text(text)) => number(mode(utf8(&text)?)?),
            (Kind::Size | Kind::Mode, Value::Number(bytes)) => number(bytes),
            (Kind::Fraction, Value::Text(text)) => fraction(utf8(&text)?).map(Value::Fraction),
            (Kind::Fraction, Value::Number(whole)) => Ok(Value::Fraction(whole as f64)),
            (Kind::Fraction, value @ Value::Fraction(_))
            | (Kind::Duration, value @ Value::Duration(_))
            | (Kind::Flag, value @ Value::Flag(_)) => Ok(value),
            (Kind::Duration, Value::Text(text)) => duration(utf8(&text)?).map(Value::Duration),
            (Kind::Flag, Value::Text(text)) => match text.to_str() {
                Some("true") => Ok(Value::Flag(true)),
                Some("false") => Ok(Value::Flag(false)),
                _ => Err(Wrong::not(&text, "true or false", "Write true or false.")),
            },
            (Kind::Text | Kind::Words(_), Value::Text(text)) => utf8(&text).map(|text| Value::Text(text.into())),
            (Kind::Path, Value::Text(text)) => match text.as_bytes() {
                [] => Err(Wrong::new("is an empty path", "Name a file or a directory.")),
                bytes if bytes.contains(&0) => {
                    Err(Wrong::new(format!("{text:?} contains a NUL byte"), "Name a path without it."))
                }
                _ => Ok(Value::Text(text)),
            },
            (Kind::Form, value @ Value::Text(_)) => Ok(value),
            (kind, value) => Err(kind.mismatch(&value)),
        }
    }

    /// A value of another type than text.
    fn mismatch(self, value: &Value) -> Wrong {
        let given = match value {
            Value::Text(text) => format!("{text:?}"),
            Value::Number(number) => number.to_string(),
            Value::Fraction(number) => number.to_string(),
            Value::Duration(time) => duration_text(*time),
            Value::Flag(flag) => flag.to_string(),
        };
        let (what, hint) = match self {
            Kind::Size => ("a size", SIZE_HINT),
            Kind::Count | Kind::SmallCount | Kind::Mode => ("a whole number", "Write a whole number."),
            Kind::Fraction => ("a number", "Write 0.5 or 2."),
            Kind::Duration => ("a duration", DURATION_HINT),
            Kind::Flag => ("true or false", "Write true or false."),
            Kind::Path => ("a path", "Name a file or a directory."),
            Kind::Text | Kind::Words(_) | Kind::Form => ("text", "Write it as text."),
        };
        Wrong::new(format!("{given} is not {what}"), hint)
    }

    /// As text that is read as this value again.
    pub(super) fn show(self, value: &Value) -> String {
        match value {
            Value::Text(text) => text.to_string_lossy().into_owned(),
            Value::Number(bytes) if self == Kind::Size => size_text(*bytes),
            Value::Number(mode) if self == Kind::Mode => format!("{mode:03o}"),
            Value::Number(number) => number.to_string(),
            Value::Fraction(number) => number.to_string(),
            Value::Duration(time) => duration_text(*time),
            Value::Flag(flag) => flag.to_string(),
        }
    }
}

pub(super) fn utf8(text: &OsStr) -> Result<&str, Wrong> {
    text.to_str().ok_or_else(|| Wrong::new(format!("{text:?} is not UTF-8"), "Write it in UTF-8."))
}

/// Bytes, as [`Kind::Size`] says.
pub(super) fn size(text: &str) -> Result<u64, Wrong> {
    let not = || Wrong::not(text.as_ref(), "a size", SIZE_HINT);
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    if digits.is_empty() {
        return Err(if negative(text) { is_negative(text) } else { not() });
    }
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(not()),
    };
    let bytes = digits.parse().ok().and_then(|number: u64| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| Wrong::new(format!("{text} is more bytes than 64 bits can count"), SIZE_HINT))
}

fn size_text(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    match units.iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

fn negative(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn is_negative(text: &str) -> Wrong {
    Wrong::new(format!("{text} is negative"), "Write it without the sign.")
}

/// Digits only: Rust would read a sign as well.
fn count(text: &str) -> Result<u64, Wrong> {
    if negative(text) {
        return Err(is_negative(text));
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Wrong::not(text.as_ref(), "a whole number", "Write a whole number."));
    }
    text.parse().map_err(|_| Wrong::new(format!("{text} is more than 64 bits can count"), "Write a smaller number."))
}

/// Permission bits.
pub(super) fn mode(text: &str) -> Result<u64, Wrong> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    if digits.is_empty() || digits.len() > 12 || !digits.bytes().all(|b| (b'0'..b'8').contains(&b)) {
        return Err(Wrong::not(text.as_ref(), "an octal mode", "Write three octal digits, such as 022 or 755."));
    }
    Ok(u64::from_str_radix(digits, 8).expect("twelve octal digits fit"))
}

fn fraction(text: &str) -> Result<f64, Wrong> {
    decimal(text).ok_or_else(|| Wrong::not(text.as_ref(), "a number", "Write 0.5 or 2."))
}

/// Digits, also with decimals. Rust's own reading of floats takes more forms, and tables of 10 KB for the last digits of what has
/// more than 15; such are cut off here.
pub(crate) fn decimal(text: &str) -> Option<f64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return None;
    }
    let (mut number, mut scale) = (0f64, 1f64);
    for digit in whole.bytes() {
        number = number * 10.0 + f64::from(digit - b'0');
    }
    for digit in part.bytes().take(15usize.saturating_sub(whole.trim_start_matches('0').len())) {
        number = number * 10.0 + f64::from(digit - b'0');
        scale *= 10.0;
    }
    // Both are whole and exact below 2^53, so that the quotient is the nearest there is.
    Some(number / scale)
}

/// As [`Kind::Duration`] says. The unit is required, so that nobody has to guess it.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    let not = || Wrong::not(text.as_ref(), "a duration", DURATION_HINT);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if negative(text) {
        return Err(is_negative(text));
    }
    let nanos: u128 = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "" if !digits.is_empty() => {
            return Err(Wrong::new(format!("{text:?} has no unit"), format!("Write {text}s or {text}ms.")));
        }
        _ => return Err(not()),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(part) {
        return Err(not());
    }
    if part.len() > 6 {
        return Err(Wrong::new(format!("{text} has more than six decimals"), DURATION_HINT));
    }
    let too_long = || Wrong::new(format!("{text} is longer than 64 bits of milliseconds"), DURATION_HINT);
    let whole: u64 = whole.parse().map_err(|_| too_long())?;
    let part: u128 = part.parse::<u128>().map_err(|_| not())? * nanos / 10u128.pow(part.len() as u32);
    let nanos = u128::from(whole) * nanos + part;
    if nanos / 1_000_000 > u128::from(u64::MAX) {
        return Err(too_long());
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| too_long())?;
    Ok(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}

/// A time as options take it: `2s`, `500ms`, `0.25ms`.
pub fn duration_text(time: Duration) -> String {
    let (seconds, nanos) = (time.as_secs(), time.subsec_nanos());
    match nanos {
        0 => format!("{seconds}s"),
        nanos => {
            let text =
                format!("{}.{:06}", u128::from(seconds) * 1000 + u128::from(nanos / 1_000_000), nanos % 1_000_000);
            format!("{}ms", text.trim_end_matches('0').trim_end_matches('.'))
        }
    }
}

/// In two at the first separator that no backslash stands before. `\` and the separator is the separator itself; any other
/// backslash is itself.
pub(super) fn split(text: &OsStr, separator: u8) -> (OsString, Option<OsString>) {
    let bytes = text.as_bytes();
    match position(bytes, separator) {
        Some(at) => (unescaped(&bytes[..at], separator), Some(OsString::from_vec(bytes[at + 1..].to_vec()))),
        None => (unescaped(bytes, separator), None),
    }
}

fn position(bytes: &[u8], separator: u8) -> Option<usize> {
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' if bytes.get(at + 1) == Some(&separator) => at += 2,
            byte if byte == separator => return Some(at),
            _ => at += 1,
        }
    }
    None
}

/// The text that stands there: `\` and the separator is the separator.
pub(super) fn unescaped(bytes: &[u8], separator: u8) -> OsString {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter().peekable();
    while let Some(&byte) = rest.next() {
        if byte != b'\\' || rest.peek() != Some(&&separator) {
            plain.push(byte);
        }
    }
    OsString::from_vec(plain)
}

/// The other way.
pub(super) fn escaped(path: &OsStr, separator: u8) -> OsString {
    let escape = |&byte: &u8| if byte == separator { vec![b'\\', byte] } else { vec![byte] };
    OsString::from_vec(path.as_bytes().iter().flat_map(escape).collect())
}

/// A type that some [`Kind`] of option has.
pub(super) trait Typed: Sized {
    /// From a value that [`Kind::read`] has let through.
    fn take(value: Value) -> Option<Self>;
    fn value(&self) -> Value;
    /// It stands for no limit.
    fn is_unlimited(&self) -> bool {
        self.value() == Value::Duration(Duration::MAX)
    }
}

macro_rules! typed {
    ($($type:ty: $pattern:pat => $take:expr, $make:expr;)+) => {
        $(impl Typed for $type {
            fn take(value: Value) -> Option<$type> {
                let $pattern = value else { return None };
                $take
            }
            fn value(&self) -> Value {
                let make: fn(&$type) -> Value = $make;
                make(self)
            }
        })+
    };
}

typed! {
    u64: Value::Number(number) => Some(number), |number| Value::Number(*number);
    u32: Value::Number(number) => u32::try_from(number).ok(), |number| Value::Number((*number).into());
    f64: Value::Fraction(number) => Some(number), |number| Value::Fraction(*number);
    Duration: Value::Duration(time) => Some(time), |time| Value::Duration(*time);
    bool: Value::Flag(flag) => Some(flag), |flag| Value::Flag(*flag);
    String: Value::Text(text) => text.into_string().ok(), |text| Value::Text(text.into());
    PathBuf: Value::Text(text) => Some(PathBuf::from(text)), |path| Value::Text(path.into());
}
