//! Flags of instructions, and what they may say.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Instruction, Program};

pub(super) type Wrong = (String, &'static str);

/// `RUN --mount=…`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MountFlag {
    pub kind: MountKind,
    pub target: Option<String>,
    pub source: Option<String>,
    /// A stage or an image.
    pub from: Option<String>,
    pub id: Option<String>,
    /// The variable that a secret is in.
    pub env: Option<String>,
    pub required: bool,
    /// What it says, where it says anything.
    pub writable: Option<bool>,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum MountKind {
    #[default]
    Bind,
    Cache,
    Secret,
    Ssh,
    Tmpfs,
}

/// The flags in front of a text, each as key and value, and the rest.
pub(super) fn leading(mut rest: &str) -> (Vec<(&str, Option<&str>)>, &str) {
    let mut flags = Vec::new();
    while let Some(flag) = rest.split_whitespace().next().filter(|first| first.starts_with("--")) {
        rest = rest[flag.len()..].trim_start();
        flags.push(flag.split_once('=').map_or((flag, None), |(key, value)| (key, Some(value))));
    }
    (flags, rest)
}

pub(super) fn unsupported(word: &str, flag: (&str, Option<&str>), hint: &'static str) -> Wrong {
    let value = flag.1.map(|value| format!("={value}")).unwrap_or_default();
    (format!("{word} {}{value} is not supported", flag.0), hint)
}

/// `--chmod`: permission bits, or what is changed of those that a file has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chmod {
    Bits(u32),
    Changes(Vec<Change>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// Those bits that are of whom it speaks.
    who: u32,
    sign: u8,
    bits: u32,
    /// `X`: to execute, where it is a directory or somebody may execute it already.
    execute_if: bool,
}

/// `755`, or as chmod(1) has it: `u=rwX,go-w`.
pub(super) fn chmod(value: &str) -> Result<Chmod, Wrong> {
    let wrong = || (format!("--chmod={value}: not a mode"), "Write --chmod=755 or --chmod=u=rwX,go=rX.");
    if value.starts_with(|c: char| c.is_ascii_digit()) {
        let bits = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777);
        return bits.map(Chmod::Bits).ok_or_else(wrong);
    }
    let mut changes = Vec::new();
    for clause in value.split(',') {
        let at = clause.find(['+', '-', '=']).ok_or_else(wrong)?;
        let mut who = 0;
        for c in clause[..at].chars() {
            who |= match c {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o1007,
                'a' => 0o7777,
                _ => return Err(wrong()),
            };
        }
        let who = if at == 0 { 0o7777 } else { who };
        let mut rest = &clause[at..];
        while let Some(sign) = rest.bytes().next() {
            let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
            let (mut bits, mut execute_if) = (0, false);
            for c in rest[1..end].chars() {
                match c {
                    'r' => bits |= 0o444,
                    'w' => bits |= 0o222,
                    'x' => bits |= 0o111,
                    'X' => execute_if = true,
                    's' => bits |= 0o6000,
                    't' => bits |= 0o1000,
                    _ => return Err(wrong()),
                }
            }
            changes.push(Change { who, sign, bits, execute_if });
            rest = &rest[end..];
        }
    }
    Ok(Chmod::Changes(changes))
}

impl Chmod {
    /// What it makes of a mode.
    pub(super) fn of(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Chmod::Bits(bits) => *bits,
            Chmod::Changes(changes) => changes.iter().fold(mode, |mode, change| {
                let execute = change.execute_if && (is_dir || mode & 0o111 != 0);
                let bits = (change.bits | if execute { 0o111 } else { 0 }) & change.who;
                match change.sign {
                    b'+' => mode | bits,
                    b'-' => mode & !bits,
                    _ => mode & !change.who | bits,
                }
            }),
        }
    }
}

/// `type=cache,target=/x,…`, as docker has it.
pub(super) fn mount(text: &str) -> Result<MountFlag, Wrong> {
    let mut flag = MountFlag::default();
    let wrong = |what: &str, hint| (format!("RUN --mount={text}: {what}"), hint);
    let yes = |value: Option<&str>| !matches!(value, Some("false" | "0"));
    for part in text.split(',') {
        let (key, value) = part.split_once('=').map_or((part, None), |(key, value)| (key, Some(value)));
        let owned = || value.map(|value| value.trim_matches('"').to_owned()).filter(|value| !value.is_empty());
        match key {
            "type" => {
                flag.kind = match value {
                    Some("bind") => MountKind::Bind,
                    Some("cache") => MountKind::Cache,
                    Some("secret") => MountKind::Secret,
                    Some("tmpfs") => MountKind::Tmpfs,
                    Some("ssh") => MountKind::Ssh,
                    _ => return Err(wrong("no known type", "Write bind, cache, secret, ssh or tmpfs.")),
                };
            }
            "target" | "dst" | "destination" => flag.target = owned(),
            "source" | "src" => flag.source = owned(),
            "from" => flag.from = owned(),
            "id" => flag.id = owned(),
            "env" => flag.env = owned(),
            "required" => flag.required = yes(value),
            "rw" | "readwrite" => flag.writable = Some(yes(value)),
            "ro" | "readonly" => flag.writable = Some(!yes(value)),
            "uid" | "gid" => {
                let id = value.and_then(|value| value.parse().ok()).filter(|id| *id <= i32::MAX as u32);
                let id = Some(id.ok_or_else(|| wrong("not a number of a user or group", "Write uid=1000."))?);
                if key == "uid" { flag.uid = id } else { flag.gid = id }
            }
            "mode" => {
                let mode = value.and_then(|value| u32::from_str_radix(value.trim_start_matches("0o"), 8).ok());
                flag.mode =
                    Some(mode.filter(|mode| *mode <= 0o7777).ok_or_else(|| wrong("not a mode", "Write it in octal."))?);
            }
            "size" => {
                let size = value.and_then(size);
                flag.size = Some(size.ok_or_else(|| wrong("not a size", "Write 64M."))?);
            }
            // Whether builds may use it at once is for the programs to know.
            "sharing" => {}
            _ => return Err(wrong(&format!("{key} is not known"), "Leave it out.")),
        }
    }
    if flag.target.is_none() && !matches!(flag.kind, MountKind::Secret | MountKind::Ssh) {
        return Err(wrong("it has no target", "Write target=/PATH."));
    }
    let owned = [flag.mode, flag.uid, flag.gid].iter().any(Option::is_some);
    if owned && !matches!(flag.kind, MountKind::Cache | MountKind::Secret) {
        let what = "uid, gid and mode are of caches and secrets";
        return Err(wrong(what, "Leave them out, or change owner and mode of what RUN makes in it."));
    }
    if flag.kind == MountKind::Secret && flag.id.is_none() && flag.target.is_none() {
        return Err(wrong("a secret without an id", "Write id=NAME."));
    }
    Ok(flag)
}

/// `HEALTHCHECK [--interval=…] CMD …` as the configuration has it.
pub(super) fn healthcheck(rest: &str) -> Result<Instruction, Wrong> {
    let (flags, rest) = leading(rest);
    let mut check = serde_json::Map::new();
    for flag in flags {
        let wrong = || unsupported("HEALTHCHECK", flag, "Write --interval=30s, --retries=3 and the like.");
        let key = match flag.0 {
            "--interval" => "Interval",
            "--timeout" => "Timeout",
            "--start-period" => "StartPeriod",
            "--start-interval" => "StartInterval",
            "--retries" => "Retries",
            _ => return Err(wrong()),
        };
        let value = flag.1.ok_or_else(wrong)?;
        let number = match key {
            "Retries" => json!(value.parse::<u32>().map_err(|_| wrong())?),
            _ => json!(u64::try_from(duration(value).ok_or_else(wrong)?.as_nanos()).map_err(|_| wrong())?),
        };
        check.insert(key.to_owned(), number);
    }
    let (word, program) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let test: Value = match word.to_uppercase().as_str() {
        "NONE" if program.is_empty() => json!(["NONE"]),
        "CMD" if !program.trim().is_empty() => match super::dockerfile::program(program.trim()) {
            Program::Words(words) => [vec!["CMD".to_owned()], words].concat().into(),
            Program::Shell(line) | Program::Script(line) => json!(["CMD-SHELL", line]),
        },
        _ => return Err(("HEALTHCHECK takes CMD and a program, or NONE".to_owned(), "Write HEALTHCHECK CMD PROGRAM.")),
    };
    check.insert("Test".to_owned(), test);
    Ok(Instruction::Healthcheck(Value::Object(check)))
}

/// As Go writes them: `1m30s`, `500ms`, `1.5h`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|length| *length > 0)?;
        let number: f64 = rest[..length].parse().ok()?;
        rest = &rest[length..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = &rest[unit..];
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
    }
    (!text.is_empty()).then_some(total)
}

/// Bytes, with k, m or g behind them.
fn size(text: &str) -> Option<u64> {
    let text = text.to_lowercase();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Where a secret lies if nothing else is said.
pub(super) fn secret_place(flag: &MountFlag, id: &str) -> Option<PathBuf> {
    match (&flag.target, &flag.env) {
        (Some(target), _) => Some(PathBuf::from(target)),
        (None, Some(_)) => None,
        (None, None) => Some(PathBuf::from("/run/secrets").join(id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in [("30s", 30_000), ("1m30s", 90_000), ("500ms", 500), ("1.5h", 5_400_000)] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1d", "1..s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn modes_are_those_of_chmod() {
        for (text, mode, is_dir, comes) in [
            ("755", 0o600, false, 0o755),
            ("4755", 0o600, false, 0o4755),
            ("u+x,go-r", 0o644, false, 0o700),
            ("a=rX", 0o640, false, 0o444),
            ("a=rX", 0o750, true, 0o555),
            ("u=rwX,go=rX", 0o100, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("g=", 0o777, false, 0o707),
            ("u+s,o+t", 0o755, false, 0o5755),
            ("ug=rw-x", 0o777, false, 0o667),
        ] {
            assert_eq!(chmod(text).unwrap().of(mode, is_dir), comes, "{text}");
        }
        for text in ["", "u", "x", "u+q", "z+r", "99", "77777", "u=r,"] {
            assert!(chmod(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mounts_are_read_as_docker_writes_them() {
        let cache = mount("type=cache,target=/root/.cache,sharing=locked,id=x").unwrap();
        assert_eq!(
            (cache.kind, cache.target.as_deref(), cache.id.as_deref()),
            (MountKind::Cache, Some("/root/.cache"), Some("x"))
        );
        assert_eq!(
            ["rw", "ro", "rw=false"].map(|word| mount(&format!("target=/x,{word}")).unwrap().writable),
            [Some(true), Some(false), Some(false)]
        );
        assert_eq!(mount("type=cache,target=/x,uid=5,gid=6").unwrap().uid, Some(5));
        assert_eq!(mount("type=ssh").unwrap().kind, MountKind::Ssh);
        assert_eq!(mount("type=secret,id=a,mode=0400,required").unwrap().mode, Some(0o400));
        for text in [
            "type=cache,target=/x,uid=app",
            "type=none,target=/x",
            "type=cache",
            "type=secret",
            "type=bind,target=/x,zz=1",
            "type=tmpfs,target=/x,size=x",
            "type=tmpfs,target=/x,mode=0700",
            "type=bind,target=/x,gid=5",
            "type=ssh,uid=5",
            "target=/x,uid=5",
        ] {
            assert!(mount(text).is_err(), "{text}");
        }
    }
}
