//! The files that a build may copy: a directory, patterns in it, and what `.dockerignore` takes out.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::error::{Failure, Result};

/// A directory with what is to be ignored in it.
pub(crate) struct Context {
    dir: PathBuf,
    ignore: Vec<Rule>,
}

/// A line of `.dockerignore`.
struct Rule {
    segments: Vec<Vec<u8>>,
    /// It takes back what earlier ones have taken out.
    back: bool,
}

/// A file of the context.
pub(crate) struct Entry {
    /// Beneath the source that it was found by; empty for the source itself.
    pub below: PathBuf,
    /// On the host.
    pub path: PathBuf,
    pub meta: fs::Metadata,
}

impl Context {
    pub(crate) fn open(dir: &Path) -> Result<Context> {
        let failed =
            |e: &io::Error| Failure::new("build-context", dir.display().to_string(), "opening it").cause(e).config();
        let real = fs::canonicalize(dir).map_err(|e| failed(&e))?;
        let path = real.join(".dockerignore");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => String::new(),
            Err(e) => return Err(failed(&e)),
        };
        Ok(Context { dir: real, ignore: text.lines().filter_map(rule).collect() })
    }

    fn failed(&self, path: &Path, message: &str, error: &io::Error) -> crate::Error {
        Failure::new("build-context", path.display().to_string(), message).cause(error).setup()
    }

    /// What a source of COPY means: every file that the pattern fits.
    pub(crate) fn matches(&self, pattern: &str) -> Result<Vec<PathBuf>> {
        let mut found = vec![PathBuf::new()];
        for part in Path::new(pattern).components() {
            let name = match part {
                Component::Normal(name) => name,
                Component::ParentDir => {
                    return Err(Failure::new(
                        "build-context",
                        pattern.escape_debug().to_string(),
                        "leads out of the context",
                    )
                    .hint("copy only from beneath the build's directory")
                    .config());
                }
                _ => continue,
            };
            let is_pattern = name.as_bytes().iter().any(|byte| b"*?[\\".contains(byte));
            let mut next = Vec::new();
            for dir in &found {
                if !is_pattern {
                    next.push(dir.join(name));
                    continue;
                }
                let path = self.dir.join(dir);
                if !fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
                    continue;
                }
                for entry in fs::read_dir(&path).map_err(|e| self.failed(&path, "listing a directory", &e))? {
                    let entry = entry.map_err(|e| self.failed(&path, "listing a directory", &e))?;
                    if fits(name.as_bytes(), entry.file_name().as_bytes()) {
                        next.push(dir.join(entry.file_name()));
                    }
                }
            }
            next.sort();
            found = next;
        }
        found.retain(|path| match self.dir.join(path).symlink_metadata() {
            Ok(meta) => path.as_os_str().is_empty() || !self.ignored(path) || meta.is_dir() && self.has_exceptions(),
            Err(_) => false,
        });
        if found.is_empty() {
            let message = "no such file in the context, or .dockerignore takes it out";
            return Err(Failure::new("build-context", pattern.escape_debug().to_string(), message).config());
        }
        Ok(found)
    }

    /// A source with everything in it that is not ignored, each directory before what is in it.
    pub(crate) fn walk(&self, source: &Path) -> Result<Vec<Entry>> {
        let path = self.dir.join(source);
        // What the caller names may be a link, as long as it stays within; what lies beneath it is copied as it is.
        let real = fs::canonicalize(&path).map_err(|e| self.failed(&path, "looking at a source of COPY", &e))?;
        if !real.starts_with(&self.dir) {
            let failure =
                Failure::new("build-context", path.display().to_string(), "is a link that leads out of the context");
            return Err(failure.hint("copy the file itself into the context").config());
        }
        let source = real.strip_prefix(&self.dir).unwrap_or(source).to_owned();
        let mut entries = Vec::new();
        self.gather(&source, Path::new(""), &mut entries)?;
        Ok(entries)
    }

    fn gather(&self, source: &Path, below: &Path, entries: &mut Vec<Entry>) -> Result<bool> {
        // Not with a slash at the end, which would make a directory of a file.
        let at = if below.as_os_str().is_empty() { source.to_owned() } else { source.join(below) };
        let path = if at.as_os_str().is_empty() { self.dir.clone() } else { self.dir.join(&at) };
        let ignored = !at.as_os_str().is_empty() && self.ignored(&at);
        let meta = fs::symlink_metadata(&path).map_err(|e| self.failed(&path, "looking at a file", &e))?;
        if !meta.is_dir() {
            if !ignored {
                entries.push(Entry { below: below.to_owned(), path, meta });
            }
            return Ok(!ignored);
        }
        if ignored && !self.has_exceptions() {
            return Ok(false);
        }
        let place = entries.len();
        entries.push(Entry { below: below.to_owned(), path: path.clone(), meta });
        let listed =
            fs::read_dir(&path).and_then(|dir| dir.map(|e| e.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>());
        let mut names = listed.map_err(|e| self.failed(&path, "listing a directory", &e))?;
        names.sort();
        let mut holds = false;
        for name in names {
            holds |= self.gather(source, &below.join(name), entries)?;
        }
        // An ignored directory is there only for what is not.
        if ignored && !holds {
            entries.truncate(place);
        }
        Ok(holds || !ignored)
    }

    /// Whether something in an ignored directory may be wanted all the same.
    fn has_exceptions(&self) -> bool {
        self.ignore.iter().any(|rule| rule.back)
    }

    fn ignored(&self, path: &Path) -> bool {
        let segments: Vec<&[u8]> = path.iter().map(|part| part.as_bytes()).collect();
        let mut ignored = false;
        for rule in &self.ignore {
            // A rule about a directory is one about all that is in it.
            if (1..=segments.len()).any(|length| fits_all(&rule.segments, &segments[..length])) {
                ignored = !rule.back;
            }
        }
        ignored
    }
}

fn rule(line: &str) -> Option<Rule> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (line, back) = line.strip_prefix('!').map_or((line, false), |rest| (rest.trim(), true));
    let segments: Vec<Vec<u8>> = Path::new(line)
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.as_bytes().to_vec()),
            _ => None,
        })
        .collect();
    (!segments.is_empty()).then_some(Rule { segments, back })
}

/// `**` stands for any number of directories.
fn fits_all(pattern: &[Vec<u8>], path: &[&[u8]]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((first, rest)), _) if first == b"**" => (0..=path.len()).any(|skip| fits_all(rest, &path[skip..])),
        (Some(_), None) => false,
        (Some((first, rest)), Some((name, below))) => fits(first, name) && fits_all(rest, below),
    }
}

/// A name and a pattern with `*`, `?`, `[a-z]`, `[^a-z]` and `\` before what is to be taken as it is.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|skip| fits(rest, &name[skip..])),
        Some((first, rest)) => {
            let Some((byte, after)) = name.split_first() else { return false };
            match first {
                b'?' => fits(rest, after),
                b'[' => match class(rest, *byte) {
                    Some((holds, rest)) => holds && fits(rest, after),
                    None => *byte == b'[' && fits(rest, after),
                },
                b'\\' if !rest.is_empty() => rest[0] == *byte && fits(&rest[1..], after),
                first => first == byte && fits(rest, after),
            }
        }
    }
}

/// Whether a byte is in the class whose opening bracket was read, and what stands behind the closing one.
fn class(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (not, mut rest) = match pattern.split_first() {
        Some((b'^' | b'!', rest)) => (true, rest),
        _ => (false, pattern),
    };
    let mut holds = false;
    let mut first = true;
    loop {
        let (low, after) = rest.split_first()?;
        if *low == b']' && !first {
            return Some((holds != not, after));
        }
        first = false;
        rest = after;
        let mut high = *low;
        if let [b'-', end, after @ ..] = rest
            && *end != b']'
        {
            (high, rest) = (*end, after);
        }
        holds |= (*low..=high).contains(&byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_a_shell_has_them() {
        for (pattern, name, does) in [
            ("*.rs", "a.rs", true),
            ("*.rs", "a.rc", false),
            ("a*b*c", "aXbYc", true),
            ("?", "a", true),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[!a]", "b", true),
            ("[]]", "]", true),
            ("[", "[", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("", "", true),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), does, "{pattern} {name}");
        }
    }

    #[test]
    fn the_last_rule_that_fits_decides_what_is_ignored() {
        let text = "# comment\n\ntarget\n/docs/\n**/*.tmp\n!docs/keep.md\n!**/need.tmp\n  spaces  ";
        let context = Context { dir: PathBuf::new(), ignore: text.lines().filter_map(rule).collect() };
        for (path, is) in [
            ("target", true),
            ("target/a/b", true),
            ("src/target", false),
            ("docs", true),
            ("docs/x", true),
            ("docs/keep.md", false),
            ("a.tmp", true),
            ("a/b/c.tmp", true),
            ("a/need.tmp", false),
            ("spaces", true),
            ("# comment", false),
        ] {
            assert_eq!(context.ignored(Path::new(path)), is, "{path}");
        }
    }
}
