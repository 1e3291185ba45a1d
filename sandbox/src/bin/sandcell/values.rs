//! The values of options: sizes, durations, mounts, resource limits. Each mistake is named with the remedy.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::resource::Resource;
use sandcell::{HostIds, User, words};

/// Bytes: `4096`, `512K`, `64M`, `2G`, `1T`; powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &text[digits.len()..] {
        "" | "B" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        "T" | "t" | "TiB" => 40,
        _ => return Err("not a size; write 4096, 512K, 64M or 2G".to_owned()),
    };
    whole(digits, "a size; write 4096, 512K, 64M or 2G")?
        .checked_mul(1 << shift)
        .ok_or_else(|| "more bytes than 64 bits can count".to_owned())
}

/// `500ms`, `30s`, `5m`, `2h`; the unit is required, so that nobody has to guess it.
pub fn duration(text: &str) -> Result<Duration, String> {
    const FORM: &str = "a duration; write 500ms, 1.5s, 30s, 5m or 2h";
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let millis = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if !digits.is_empty() => return Err(format!("has no unit; say {text}s or {text}ms")),
        _ => return Err(format!("not {FORM}")),
    };
    let too_long = || "longer than 64 bits of milliseconds".to_owned();
    let (units, part) = digits.split_once('.').unwrap_or((digits, ""));
    let whole_part = whole(units, FORM)?.checked_mul(millis).ok_or_else(too_long)?;
    let part = match part {
        "" if digits.contains('.') => return Err(format!("not {FORM}")),
        "" => 0,
        part if part.len() > 6 => return Err("has more than six decimals".to_owned()),
        part => whole(part, FORM)? * millis / 10u64.pow(part.len() as u32),
    };
    whole_part.checked_add(part).map(Duration::from_millis).ok_or_else(too_long)
}

/// `NAME:DEST`, with `:ro` where it is only to be read.
pub fn volume(text: &str) -> Result<(&str, &str, bool), String> {
    let (rest, writable) = match text.strip_suffix(":ro") {
        Some(rest) => (rest, false),
        None => (text.strip_suffix(":rw").unwrap_or(text), true),
    };
    match rest.split_once(':') {
        Some((name, dest)) if !name.is_empty() && !dest.is_empty() => Ok((name, dest, writable)),
        _ => Err("not a volume; write NAME:DEST or NAME:DEST:ro".to_owned()),
    }
}

fn whole(digits: &str, form: &str) -> Result<u64, String> {
    if digits.starts_with('-') {
        return Err("is negative".to_owned());
    }
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("not {form}"));
    }
    digits.parse().map_err(|_| "more than 64 bits can count".to_owned())
}

/// The message alone: clap names the option and the value itself.
fn message(error: sandcell::Error) -> String {
    error.failure().message.clone()
}

/// `random`, `root`, `caller` or `UID[:GID]`.
pub fn user(text: &str) -> Result<User, String> {
    text.parse().map_err(message)
}

/// `auto`, `disjoint` or `shared`.
pub fn host_ids(text: &str) -> Result<HostIds, String> {
    text.parse().map_err(message)
}

/// `NAME=SOFT[:HARD]`, the name as in setrlimit(2) with or without `RLIMIT_`, the values `unlimited` or numbers with
/// a unit as for sizes.
pub fn rlimit(text: &str) -> Result<(Resource, u64, u64), String> {
    let (name, values) = text.split_once('=').ok_or("not NAME=SOFT[:HARD]; write nofile=256 or nofile=256:512")?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let value = |text: &str| match text {
        "unlimited" | "infinity" => Ok(nix::libc::RLIM_INFINITY),
        text => size(text),
    };
    Ok((words::resource(name).map_err(message)?, value(soft)?, value(hard)?))
}

/// `SRC[:DEST]`; without a destination it appears at its own absolute path.
pub fn bind(text: &OsStr) -> Result<(PathBuf, PathBuf), String> {
    let (source, dest) = split(text);
    let source = PathBuf::from(source);
    let dest = match dest {
        Some(dest) => PathBuf::from(dest),
        None => std::path::absolute(&source).map_err(|_| "an empty path".to_owned())?,
    };
    Ok((source, dest))
}

/// `DEST[:SIZE]`.
pub fn tmpfs(text: &OsStr) -> Result<(PathBuf, Option<u64>), String> {
    let (dest, bytes) = split(text);
    let bytes = match bytes {
        Some(bytes) => Some(size(bytes.to_str().unwrap_or("?"))?),
        None => None,
    };
    Ok((dest.into(), bytes))
}

/// At the first colon that no backslash stands before. `\:` is a colon of the path; any other backslash is itself.
fn split(text: &OsStr) -> (OsString, Option<OsString>) {
    let bytes = text.as_bytes();
    let mut parts = [Vec::new(), Vec::new()];
    let (mut part, mut at) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        match (byte, bytes.get(at + 1)) {
            (b'\\', Some(b':')) => at += 1,
            (b':', _) if part == 0 => {
                part = 1;
                at += 1;
                continue;
            }
            _ => {}
        }
        parts[part].push(bytes[at]);
        at += 1;
    }
    let [first, second] = parts.map(OsString::from_vec);
    (first, (part == 1).then_some(second))
}

/// `CAP_NET_RAW`, `net_raw`.
pub fn capability(text: &str) -> Result<caps::Capability, String> {
    words::capability(text).map_err(message)
}
