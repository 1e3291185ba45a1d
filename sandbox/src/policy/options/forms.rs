//! The options whose text has a form of its own, each with how it is read and how it is shown.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use super::grammar::{self, Typed, Wrong, escaped, split, unescaped, utf8};
use super::{Value, words};
use crate::error::{Error, Failure, Result};
use crate::policy::builder::Builder;
use crate::policy::{IoMax, Mount, Policy, Root, Seccomp, Upper};
use crate::seccomp::Profile;
use crate::sys::beneath;

/// A row of the table for `reading::NAME` and `shown::NAME`.
macro_rules! simple {
    ($name:ident, $help:expr) => {
        Spec::new(
            stringify!($name),
            Kind::Form,
            $help,
            |builder, value| forms::reading::$name(builder, forms::os_text(&value)),
            |policy| forms::shown::$name(policy).into_iter().map(Value::Text).collect(),
        )
    };
}
pub(super) use simple;

/// The rules of Landlock that may go unenforced one by one.
pub(crate) const LANDLOCK_ITEMS: [&str; 8] = [
    "landlock",
    "landlock:files",
    "landlock:truncate",
    "landlock:device commands",
    "landlock:TCP ports",
    "landlock:UDP ports",
    "landlock:signals",
    "landlock:abstract sockets",
];

fn wrong(option: &str, message: impl Into<String>, hint: impl Into<String>) -> Error {
    words::wrong(option, Wrong::new(message, hint))
}

/// What was read already, as the type that the option has.
pub(super) fn typed<T: Typed>(name: &str, value: Value, put: impl FnOnce(T) -> Builder) -> Result<Builder> {
    T::take(value).map(put).ok_or_else(|| wrong(name, "is of another type", "Write it as text."))
}

pub(super) fn os_text(value: &Value) -> &OsStr {
    match value {
        Value::Text(text) => text,
        _ => OsStr::new(""),
    }
}

pub(super) fn text(value: &Value) -> Result<&str> {
    utf8(os_text(value)).map_err(|e| words::wrong("option", e))
}

fn word<'a>(option: &str, text: &'a OsStr) -> Result<&'a str> {
    utf8(text).map_err(|e| words::wrong(option, e))
}

fn path(option: &str, text: &OsStr) -> Result<PathBuf> {
    match super::Kind::Path.read(Value::Text(text.into())) {
        Ok(_) => Ok(PathBuf::from(text)),
        Err(e) => Err(words::wrong(option, e)),
    }
}

/// A path as the working directory of this process makes it absolute. The kernel names that directory without links, so a
/// `..` in front leads to its parent; one further back may follow a link, and stays.
pub fn from_here(path: &Path) -> io::Result<PathBuf> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let mut place = std::env::current_dir()?;
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next_if(|part| matches!(part, Component::ParentDir | Component::CurDir)) {
        if part == Component::ParentDir {
            place.pop();
        }
    }
    place.extend(parts);
    Ok(place)
}

/// A path that is not empty, made absolute.
fn absolute(option: &str, text: &OsStr) -> Result<PathBuf> {
    from_here(&path(option, text)?)
        .map_err(|e| Failure::new("option", option, "the working directory is unknown").cause(&e).config())
}

/// `SRC[:DEST]`, relative to the working directory; without a destination it appears at its own absolute path.
fn bind(option: &str, text: &OsStr) -> Result<(PathBuf, PathBuf)> {
    let (source, dest) = split(text, b':');
    let source = absolute(option, &source)?;
    let dest = match dest {
        Some(dest) if split(&dest, b':').1.is_some() => {
            let message = format!("{:?} has more than SRC:DEST", text.display().to_string());
            let hint = "Say `ro` or `rw` for read-only or writable, and write a colon of a path as `\\:`.";
            return Err(wrong(option, message, hint));
        }
        Some(dest) => absolute(option, &unescaped(dest.as_bytes(), b':'))?,
        None => source.clone(),
    };
    Ok((source, dest))
}

#[cfg(feature = "image")]
fn is_name(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !part.contains('/')
}

/// A rule for a network or a name, in the name of its option.
fn rule<T: std::str::FromStr<Err = Error>>(option: &'static str, text: &OsStr) -> Result<T> {
    word(option, text)?.parse().map_err(|error: Error| {
        let failure = error.failure();
        wrong(option, failure.message.clone(), failure.hint.clone())
    })
}

macro_rules! read_rules {
    ($($name:ident),+) => {
        $(pub(crate) fn $name(builder: Builder, text: &OsStr) -> Result<Builder> {
            Ok(builder.$name(rule(stringify!($name), text)?))
        })+
    };
}

macro_rules! show_rules {
    ($($name:ident),+) => {
        $(pub(crate) fn $name(policy: &Policy) -> Vec<OsString> {
            policy.$name.iter().map(|rule| rule.to_string().into()).collect()
        })+
    };
}

/// The filter that is set so far, to be changed.
fn profile(builder: &Builder, option: &str) -> Result<Profile> {
    match &builder.policy.seccomp {
        Seccomp::Default => Ok(Profile::default()),
        Seccomp::Profile(profile) => Ok(profile.clone()),
        Seccomp::Off => {
            Err(wrong(option, "the filter is off: there is nothing to change", "Set `seccomp` to default."))
        }
    }
}

#[cfg(feature = "json")]
fn profile_of(file: &OsStr) -> Result<Profile> {
    let named = |failure: Failure| failure.hint("Mend the profile, or use `default`, the built-in one.");
    let json = String::from_utf8(contents("seccomp", file)?)
        .map_err(|_| named(Failure::new("option", "seccomp", format!("{} is not UTF-8", file.display()))).config())?;
    Profile::from_json(&json).map_err(|error| {
        let inner = error.failure();
        let message = format!("{}: {}: {}", file.display(), inner.subject, inner.message);
        named(Failure::new("option", "seccomp", message)).config()
    })
}

#[cfg(not(feature = "json"))]
fn profile_of(file: &OsStr) -> Result<Profile> {
    let message = format!("{} cannot be read: this library was built without JSON", file.display());
    Err(wrong("seccomp", message, "Build it with the feature `json`."))
}

fn contents(option: &str, file: &OsStr) -> Result<Vec<u8>> {
    beneath::read_settings(Path::new(file)).map_err(|why| {
        let why = if matches!(why, beneath::Refused::System(_)) { why.to_string() } else { format!("it {why}") };
        let message = format!("{} cannot be read: {why}", file.display());
        wrong(option, message, "Name a file that you may read.")
    })
}

/// `KEY=VALUE`, or the caller's variable.
fn variable(builder: Builder, line: &OsStr) -> Result<Builder> {
    let bytes = line.as_bytes();
    let (key, value) = match bytes.iter().position(|b| *b == b'=') {
        Some(at) => (&bytes[..at], Some(OsString::from_vec(bytes[at + 1..].to_vec()))),
        // What is no name at all is a mistake; a variable that is not set is none.
        None if bytes.is_empty() || bytes.contains(&0) => (bytes, Some(OsString::new())),
        None => (bytes, std::env::var_os(line)),
    };
    let key = OsString::from_vec(key.to_vec());
    let Some(value) = value else { return Ok(builder) };
    crate::policy::check::check_variable(&key, &value)?;
    Ok(builder.env(key, value))
}

/// From text.
pub(super) mod reading {
    use super::*;

    pub(crate) fn root(builder: Builder, text: &OsStr) -> Result<Builder> {
        Ok(builder.root(match text.to_str() {
            Some("host") => Root::Host,
            Some("empty") => Root::Empty,
            _ => Root::Dir(path("root", text)?),
        }))
    }

    #[cfg(feature = "image")]
    pub(crate) fn image(builder: Builder, text: &OsStr) -> Result<Builder> {
        Ok(builder.root(Root::image(word("image", text)?)))
    }

    #[cfg(feature = "image")]
    pub(crate) fn store(builder: Builder, text: &OsStr) -> Result<Builder> {
        Ok(builder.store(path("store", text)?))
    }

    pub(crate) fn layer(builder: Builder, text: &OsStr) -> Result<Builder> {
        Ok(builder.layer(path("layer", text)?))
    }

    pub(crate) fn upper(builder: Builder, text: &OsStr) -> Result<Builder> {
        Ok(builder.upper(match text.to_str() {
            Some("tmpfs") => Upper::Tmpfs,
            _ => Upper::Dir(path("upper", text)?),
        }))
    }

    pub(crate) fn ro(builder: Builder, text: &OsStr) -> Result<Builder> {
        let (source, dest) = bind("ro", text)?;
        Ok(builder.ro(source, dest))
    }

    pub(crate) fn rw(builder: Builder, text: &OsStr) -> Result<Builder> {
        let (source, dest) = bind("rw", text)?;
        Ok(builder.rw(source, dest))
    }

    pub(crate) fn tmpfs(builder: Builder, text: &OsStr) -> Result<Builder> {
        let (dest, size) = split(text, b':');
        let bytes = |size: OsString| utf8(&size).and_then(grammar::size).map_err(|e| words::wrong("tmpfs", e));
        Ok(builder.tmpfs(absolute("tmpfs", &dest)?, size.map(bytes).transpose()?))
    }

    pub(crate) fn file(builder: Builder, text: &OsStr) -> Result<Builder> {
        let (dest, content) = split(text, b'=');
        let Some(content) = content else {
            return Err(wrong("file", "has no content", "Write DEST=CONTENT or DEST:755=CONTENT."));
        };
        let (dest, mode) = split(&dest, b':');
        let mode = match mode {
            Some(mode) => utf8(&mode).and_then(grammar::mode).map_err(|e| words::wrong("file", e))?,
            None => 0o644,
        };
        // What has bits beyond 777 is refused with all other modes.
        let mode = u32::try_from(mode).unwrap_or(u32::MAX);
        Ok(builder.file_mode(path("file", &dest)?, content.into_vec(), mode))
    }

    /// `PATH[:DEST][:ro]`.
    pub(crate) fn device(builder: Builder, text: &OsStr) -> Result<Builder> {
        let bytes = text.as_bytes();
        let (writable, rest) = match bytes.strip_suffix(b":ro") {
            Some(rest) if !rest.ends_with(b"\\") => (false, rest),
            _ => (true, bytes.strip_suffix(b":rw").unwrap_or(bytes)),
        };
        let (source, dest) = bind("device", OsStr::from_bytes(rest))?;
        Ok(builder.mount(Mount::Device { source, dest, writable }))
    }

    pub(crate) fn socket(builder: Builder, text: &OsStr) -> Result<Builder> {
        let (source, dest) = bind("socket", text)?;
        Ok(builder.socket(source, dest))
    }

    pub(crate) fn allow(builder: Builder, text: &OsStr) -> Result<Builder> {
        Ok(builder.allow(word("allow", text)?.parse()?))
    }

    #[cfg(feature = "image")]
    pub(crate) fn volume(builder: Builder, text: &OsStr) -> Result<Builder> {
        let not = || words::wrong("volume", Wrong::not(text, "a volume", "Write NAME:DEST or NAME:DEST:ro."));
        let (name, rest) = split(text, b':');
        let (dest, access) = split(&rest.ok_or_else(not)?, b':');
        let writable = match access.as_deref().map(OsStr::as_bytes) {
            None | Some(b"rw") => true,
            Some(b"ro") => false,
            Some(_) => return Err(not()),
        };
        if name.is_empty() || dest.is_empty() {
            return Err(not());
        }
        Ok(builder.volume(word("volume", &name)?, dest, writable))
    }

    /// In words or numbers, or by a name that the image knows.
    pub(crate) fn user(builder: Builder, text: &OsStr) -> Result<Builder> {
        let text = word("user", text)?;
        match text.parse() {
            Ok(user) => Ok(builder.user(user)),
            #[cfg(feature = "image")]
            Err(_) if text.split(':').any(is_name) => Ok(builder.image_user(text)),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn rlimit(builder: Builder, text: &OsStr) -> Result<Builder> {
        let text = word("rlimit", text)?;
        let not = || Wrong::not(text.as_ref(), "NAME=SOFT[:HARD]", "Write nofile=256 or nofile=256:512.");
        let (name, values) = text.split_once('=').ok_or_else(|| words::wrong("rlimit", not()))?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let value = |text: &str| match text {
            "unlimited" | "infinity" => Ok(libc::RLIM_INFINITY),
            text => grammar::size(text).map_err(|e| words::wrong("rlimit", e)),
        };
        Ok(builder.rlimit(words::resource(name)?, value(soft)?, value(hard)?))
    }

    pub(crate) fn io_max(builder: Builder, text: &OsStr) -> Result<Builder> {
        const HINT: &str = "Write 8:0,read_bytes=1M,write_ops=100.";
        let (device, mut rest) = split(text, b',');
        let mut limit = IoMax { device: word("io_max", &device)?.to_owned(), ..IoMax::default() };
        while let Some(part) = rest {
            let (pair, more) = split(&part, b',');
            rest = more;
            let pair = word("io_max", &pair)?;
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| words::wrong("io_max", Wrong::not(pair.as_ref(), "KEY=VALUE", HINT)))?;
            let place = match key {
                "read_bytes" => &mut limit.read_bytes,
                "write_bytes" => &mut limit.write_bytes,
                "read_ops" => &mut limit.read_ops,
                "write_ops" => &mut limit.write_ops,
                _ => {
                    let known = "read_bytes, write_bytes, read_ops or write_ops";
                    return Err(words::wrong("io_max", Wrong::not(key.as_ref(), known, HINT)));
                }
            };
            *place = Some(grammar::size(value).map_err(|e| words::wrong("io_max", e))?);
        }
        Ok(builder.io_max(limit))
    }

    pub(crate) fn seccomp(builder: Builder, text: &OsStr) -> Result<Builder> {
        Ok(builder.seccomp(match text.to_str() {
            Some("default") => Seccomp::Default,
            Some("off") => Seccomp::Off,
            _ => Seccomp::Profile(profile_of(path("seccomp", text)?.as_os_str())?),
        }))
    }

    pub(crate) fn seccomp_with(builder: Builder, text: &OsStr) -> Result<Builder> {
        let with = profile(&builder, "seccomp_with")?.with(word("seccomp_with", text)?)?;
        Ok(builder.seccomp(Seccomp::Profile(with)))
    }

    pub(crate) fn seccomp_without(builder: Builder, text: &OsStr) -> Result<Builder> {
        let without = profile(&builder, "seccomp_without")?.without(word("seccomp_without", text)?)?;
        Ok(builder.seccomp(Seccomp::Profile(without)))
    }

    pub(crate) fn cap_add(builder: Builder, text: &OsStr) -> Result<Builder> {
        Ok(builder.cap_add(words::capability(word("cap_add", text)?)?))
    }

    pub(crate) fn env(builder: Builder, text: &OsStr) -> Result<Builder> {
        variable(builder, text)
    }

    pub(crate) fn env_file(builder: Builder, text: &OsStr) -> Result<Builder> {
        // Bytes: a value need not be UTF-8.
        let text = contents("env_file", text)?;
        let lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let wanted = lines.filter(|line| !line.trim_ascii().is_empty() && !line.starts_with(b"#"));
        wanted.map(OsStr::from_bytes).try_fold(builder, variable)
    }

    read_rules!(allow_host, deny_host, allow_net, deny_net, publish, host_port, upstream_proxy);

    pub(crate) fn best_effort(builder: Builder, text: &OsStr) -> Result<Builder> {
        let item = word("best_effort", text)?;
        check_item(&item.replace('-', "_"))?;
        Ok(builder.best_effort(item))
    }
}

/// An item that nothing asks for would promise what is not so.
pub(crate) fn check_item(item: &str) -> Result<()> {
    if super::best_effort_items().any(|known| known == item) {
        return Ok(());
    }
    let items: Vec<_> = super::best_effort_items().collect();
    let hint = format!("Use one of {}.", items.join(", "));
    Err(wrong("best_effort", format!("{item:?} is not a valid best_effort item"), hint))
}

fn one(text: impl Into<OsString>) -> Vec<OsString> {
    vec![text.into()]
}

fn joined(parts: &[&OsStr]) -> OsString {
    parts.iter().copied().collect()
}

fn escaped_path(path: &Path) -> OsString {
    escaped(path.as_os_str(), b':')
}

/// `SRC:DEST` of some mounts, with what is to stand behind that.
fn pairs(policy: &Policy, wanted: fn(&Mount) -> Option<(&PathBuf, &'static str)>) -> Vec<OsString> {
    let pair = |mount| {
        let (source, access) = wanted(mount)?;
        Some(joined(&[&escaped_path(source), ":".as_ref(), &escaped_path(mount.dest()), access.as_ref()]))
    };
    policy.mounts.iter().filter_map(pair).collect()
}

/// As text.
pub(super) mod shown {
    use super::*;

    pub(crate) fn root(policy: &Policy) -> Vec<OsString> {
        match &policy.root {
            Root::Host => one("host"),
            Root::Empty => one("empty"),
            // What is called like a word is no word.
            Root::Dir(dir) if ["host", "empty"].iter().any(|word| dir == Path::new(word)) => {
                one(Path::new(".").join(dir))
            }
            Root::Dir(dir) => one(dir),
            Root::Layers(_) => Vec::new(),
            #[cfg(feature = "image")]
            Root::Image(_) => Vec::new(),
        }
    }

    #[cfg(feature = "image")]
    pub(crate) fn image(policy: &Policy) -> Vec<OsString> {
        match &policy.root {
            Root::Image(name) => one(name),
            Root::Host | Root::Empty | Root::Dir(_) | Root::Layers(_) => Vec::new(),
        }
    }

    #[cfg(feature = "image")]
    pub(crate) fn store(policy: &Policy) -> Vec<OsString> {
        policy.store.iter().map(Into::into).collect()
    }

    pub(crate) fn layer(policy: &Policy) -> Vec<OsString> {
        match &policy.root {
            Root::Layers(layers) => layers.iter().map(Into::into).collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn upper(policy: &Policy) -> Vec<OsString> {
        match &policy.upper {
            None => Vec::new(),
            Some(Upper::Tmpfs) => one("tmpfs"),
            Some(Upper::Dir(dir)) if dir == Path::new("tmpfs") => one("./tmpfs"),
            Some(Upper::Dir(dir)) => one(dir),
        }
    }

    pub(crate) fn ro(policy: &Policy) -> Vec<OsString> {
        pairs(
            policy,
            |mount| {
                if let Mount::Bind { source, writable: false, .. } = mount { Some((source, "")) } else { None }
            },
        )
    }

    pub(crate) fn rw(policy: &Policy) -> Vec<OsString> {
        pairs(
            policy,
            |mount| {
                if let Mount::Bind { source, writable: true, .. } = mount { Some((source, "")) } else { None }
            },
        )
    }

    pub(crate) fn tmpfs(policy: &Policy) -> Vec<OsString> {
        let tmpfs = |mount: &Mount| match mount {
            Mount::Tmpfs { dest, size } => {
                let size = size.map(|bytes| format!(":{}", super::super::Kind::Size.show(&Value::Number(bytes))));
                Some(joined(&[&escaped_path(dest), size.unwrap_or_default().as_ref()]))
            }
            _ => None,
        };
        policy.mounts.iter().filter_map(tmpfs).collect()
    }

    /// Without the content, which may be a secret.
    pub(crate) fn file(policy: &Policy) -> Vec<OsString> {
        let file = |mount: &Mount| match mount {
            Mount::File { dest, content, mode } => {
                Some(joined(&[dest.as_os_str(), format!(" ({} bytes, mode {mode:o})", content.len()).as_ref()]))
            }
            _ => None,
        };
        policy.mounts.iter().filter_map(file).collect()
    }

    pub(crate) fn device(policy: &Policy) -> Vec<OsString> {
        pairs(policy, |mount| {
            let Mount::Device { source, writable, .. } = mount else { return None };
            Some((source, if *writable { "" } else { ":ro" }))
        })
    }

    pub(crate) fn socket(policy: &Policy) -> Vec<OsString> {
        pairs(policy, |mount| if let Mount::Socket { source, .. } = mount { Some((source, "")) } else { None })
    }

    pub(crate) fn allow(policy: &Policy) -> Vec<OsString> {
        policy.allow.iter().map(|allow| allow.word().into()).collect()
    }

    #[cfg(feature = "image")]
    pub(crate) fn volume(policy: &Policy) -> Vec<OsString> {
        let text = |volume: &crate::policy::Volume| {
            let access = if volume.writable { "" } else { ":ro" };
            joined(&[volume.name.as_ref(), ":".as_ref(), &escaped_path(&volume.dest), access.as_ref()])
        };
        policy.volumes.iter().map(text).collect()
    }

    pub(crate) fn user(policy: &Policy) -> Vec<OsString> {
        #[cfg(feature = "image")]
        if let Some(name) = &policy.image_user {
            return one(name.clone());
        }
        one(policy.identity.user.word())
    }

    show_rules!(allow_host, deny_host, allow_net, deny_net, publish, host_port, upstream_proxy);

    pub(crate) fn rlimit(policy: &Policy) -> Vec<OsString> {
        let value = |value: u64| if value == libc::RLIM_INFINITY { "unlimited".to_owned() } else { value.to_string() };
        let text = |&(resource, soft, hard): &(_, u64, u64)| {
            format!("{}={}:{}", words::resource_name(resource), value(soft), value(hard)).into()
        };
        policy.rlimits.iter().map(text).collect()
    }

    pub(crate) fn io_max(policy: &Policy) -> Vec<OsString> {
        let text = |limit: &IoMax| {
            let IoMax { device, read_bytes, write_bytes, read_ops, write_ops } = limit;
            let figures = [
                ("read_bytes", read_bytes),
                ("write_bytes", write_bytes),
                ("read_ops", read_ops),
                ("write_ops", write_ops),
            ];
            let figures = figures.iter().filter_map(|(key, value)| value.map(|value| format!(",{key}={value}")));
            joined(&[&escaped(device.as_ref(), b','), figures.collect::<String>().as_ref()])
        };
        policy.limits.io_max.iter().map(text).collect()
    }

    pub(crate) fn seccomp(policy: &Policy) -> Vec<OsString> {
        one(match policy.seccomp {
            Seccomp::Default => "default",
            Seccomp::Off => "off",
            Seccomp::Profile(_) => "a profile",
        })
    }

    /// They are part of the profile.
    pub(crate) fn seccomp_with(_: &Policy) -> Vec<OsString> {
        Vec::new()
    }

    /// They are part of the profile.
    pub(crate) fn seccomp_without(_: &Policy) -> Vec<OsString> {
        Vec::new()
    }

    pub(crate) fn cap_add(policy: &Policy) -> Vec<OsString> {
        policy.cap_add.iter().map(|cap| cap.to_string().into()).collect()
    }

    /// Without the value, which may be a secret.
    pub(crate) fn env(policy: &Policy) -> Vec<OsString> {
        let text = |(key, value): &(OsString, OsString)| joined(&[key, format!(" ({} bytes)", value.len()).as_ref()]);
        policy.env.iter().map(text).collect()
    }

    /// They are among the variables.
    pub(crate) fn env_file(_: &Policy) -> Vec<OsString> {
        Vec::new()
    }

    pub(crate) fn best_effort(policy: &Policy) -> Vec<OsString> {
        let all = policy.best_effort.allows_all().then(|| "all".into());
        all.into_iter().chain(policy.best_effort.named().iter().map(Into::into)).collect()
    }
}
