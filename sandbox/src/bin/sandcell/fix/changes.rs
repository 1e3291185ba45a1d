//! Single changes: each can be made, and taken back whether it was made, half made or not made at all.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::{Host, Result, files};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// A directory that was not there.
    Directory { path: String },
    /// A file that was not there.
    File { path: String, text: String },
    /// A line at the end of a file that others write, too. `before`: the newline that the file lacked; `made`: there was no file.
    Line { path: String, line: String, before: String, made: bool },
    /// A live setting of the kernel, in the form of sysctl(8).
    Setting { name: String, value: String, before: String },
    /// A command for what was done, and one for when it has been taken back; empty: none. What it is for comes first.
    Command { what: String, does: Vec<String>, undoes: Vec<String> },
}

/// A file in the kernel's cache of compiled profiles, which the host's own service writes.
const PROFILE_CACHE: &str = "/var/cache/apparmor";

impl Change {
    pub fn in_words(&self) -> Option<String> {
        Some(match self {
            Change::Directory { path } => format!("make the directory {path}"),
            Change::File { path, text } => format!("write {path}:\n    {}", text.trim_end().replace('\n', "\n    ")),
            Change::Line { path, line, .. } => format!("add to {path}: {line}"),
            Change::Setting { name, value, .. } => format!("set {name}={value} now"),
            Change::Command { does, .. } if does.is_empty() => return None,
            Change::Command { does, .. } => format!("run {}", does.join(" ")),
        })
    }

    pub fn undone_in_words(&self) -> Option<String> {
        Some(match self {
            Change::Directory { path } => format!("remove the directory {path} if it is empty"),
            Change::File { path, .. } => format!("remove {path}"),
            Change::Line { path, line, .. } => format!("remove from {path}: {line}"),
            Change::Setting { name, before, .. } => format!("set {name}={} again", before.trim()),
            Change::Command { undoes, .. } if undoes.is_empty() => return None,
            Change::Command { undoes, .. } => format!("run {}", undoes.join(" ")),
        })
    }

    pub fn apply(&self, host: &Host) -> Result<()> {
        match self {
            Change::Directory { path } => files::make_directory(&host.path(path)),
            Change::File { path, text } => match files::read(&host.path(path))? {
                None => files::replace(&host.path(path), text.as_bytes()),
                Some(_) => Err(format!("{path} has just been written by somebody else")),
            },
            Change::Line { path, line, before, .. } => {
                let path = host.path(path);
                let _lock = files::ShadowLock::take(&path)?;
                let mut bytes = files::read(&path)?.unwrap_or_default();
                bytes.extend_from_slice(format!("{before}{line}\n").as_bytes());
                files::replace(&path, &bytes)
            }
            Change::Setting { name, value, .. } => set(host, name, &format!("{value}\n")),
            Change::Command { does, .. } => run(host, does),
        }
    }

    /// Lines about what is left, because others have changed it since.
    pub fn take_back(&self, host: &Host) -> Result<Vec<String>> {
        let mut left = Vec::new();
        match self {
            Change::Directory { path } => {
                if !files::remove_directory(&host.path(path)) {
                    left.push(format!("{path} stays: there is something of others in it"));
                }
            }
            Change::File { path, text } => {
                let file = host.path(path);
                match files::read(&file)? {
                    Some(bytes) if bytes != text.as_bytes() => {
                        left.push(format!("{path} stays: somebody has changed it"));
                    }
                    _ => files::remove(&file)?,
                }
                forget_profile(host, path);
            }
            Change::Line { path, line, before, made } => without(&host.path(path), line, before, *made)?,
            Change::Setting { name, value, before } => {
                let now = setting(host, name).unwrap_or_default();
                match now.trim() {
                    now if now == value => set(host, name, before)?,
                    now if now == before.trim() => {}
                    now => left.push(format!("{name}={now} stays: somebody has changed it")),
                }
            }
            Change::Command { undoes, .. } => {
                if let Err(words) = run(host, undoes) {
                    left.push(words);
                }
            }
        }
        Ok(left)
    }
}

/// Removes one line of ours, wherever it stands now, and the file where that was all of it.
fn without(path: &Path, line: &str, before: &str, made: bool) -> Result<()> {
    let _lock = if path.parent().is_some_and(Path::exists) { Some(files::ShadowLock::take(path)?) } else { None };
    let _ = fs::remove_file(files::draft(path));
    let Some(bytes) = files::read(path)? else { return Ok(()) };
    let whole = format!("{before}{line}\n").into_bytes();
    let rest = match bytes.strip_suffix(&whole[..]) {
        // The newline before is taken back only where nothing has come after.
        Some(rest) => rest.to_vec(),
        None => {
            let ours = format!("{line}\n").into_bytes();
            let mut found = false;
            let mut rest = Vec::new();
            for one in bytes.split_inclusive(|byte| *byte == b'\n') {
                match !found && one == ours {
                    true => found = true,
                    false => rest.extend_from_slice(one),
                }
            }
            rest
        }
    };
    match rest {
        rest if rest.is_empty() && made => files::remove(path),
        rest if rest == bytes => Ok(()),
        rest => files::replace(path, &rest),
    }
}

fn forget_profile(host: &Host, path: &str) {
    let Some(name) = path.strip_prefix("/etc/apparmor.d/") else { return };
    for entry in fs::read_dir(host.path(PROFILE_CACHE)).into_iter().flatten().flatten() {
        let _ = fs::remove_file(entry.path().join(name));
    }
}

fn setting_path(host: &Host, name: &str) -> std::path::PathBuf {
    host.path(&format!("/proc/sys/{}", name.replace('.', "/")))
}

/// The value as the kernel writes it, with its newline.
pub fn setting(host: &Host, name: &str) -> Option<String> {
    fs::read_to_string(setting_path(host, name)).ok()
}

fn set(host: &Host, name: &str, value: &str) -> Result<()> {
    let path = setting_path(host, name);
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).truncate(true).open(&path)?;
        std::io::Write::write_all(&mut file, value.as_bytes())
    };
    write().map_err(|error| format!("{name}={}: {error}", value.trim()))
}

/// Runs a program of the host; one that is not there has nothing to be told.
fn run(host: &Host, words: &[String]) -> Result<()> {
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    let path = host.path(program);
    if !path.exists() {
        return Ok(());
    }
    let status = Command::new(&path).args(arguments).stdin(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{}: {status}", words.join(" "))),
        Err(error) => Err(format!("{program}: {error}")),
    }
}
