//! `--device vendor.com/class=name`: devices by the Container Device Interface, whose specifications vendors put on the host. What one
//! of them asks for is given, refused, or named as not given.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sandcell::{Builder, Error, Mount, printable};
use serde_json::Value;

use crate::options::amended;

/// Where specifications lie; what is in a later one comes before what is in an earlier one.
const PLACES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// A name of the form `vendor.com/class=name`.
pub struct Name<'a> {
    kind: &'a str,
    device: &'a str,
}

impl<'a> Name<'a> {
    /// `None`: it is a path.
    pub fn of(text: &'a OsStr) -> Option<Name<'a>> {
        let (kind, device) = text.to_str()?.split_once('=')?;
        let (vendor, class) = kind.split_once('/')?;
        let fine = |part: &str| {
            let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(inner)
        };
        let device_fine = !device.is_empty() && device.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c));
        (fine(vendor) && fine(class) && device_fine).then_some(Name { kind, device })
    }
}

/// The specifications of the host.
#[derive(Default)]
pub struct Specs {
    /// The ones that count most come first; those of one directory together.
    places: Vec<Vec<(PathBuf, Value)>>,
    /// Files that could not be read, and why.
    unread: Vec<String>,
    /// Whose edits for every device are made already.
    applied: BTreeSet<PathBuf>,
}

impl Specs {
    /// Of these directories, or of the usual ones.
    pub fn read(&mut self, dirs: &[OsString]) {
        let usual = PLACES.map(OsString::from);
        for dir in if dirs.is_empty() { &usual[..] } else { dirs }.iter().rev() {
            let mut place = Vec::new();
            let mut files: Vec<_> =
                fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            files.sort_unstable();
            for file in files {
                match file.extension().and_then(OsStr::to_str) {
                    Some("json") => match spec(&file) {
                        Ok(value) => place.push((file, value)),
                        Err(why) => self.unread.push(format!("{}: {why}", file.display())),
                    },
                    Some("yaml" | "yml") => {
                        self.unread.push(format!("{}: YAML is not read, only JSON", file.display()));
                    }
                    _ => {}
                }
            }
            self.places.push(place);
        }
    }

    /// What one device asks for, added to the policy.
    pub fn add(&mut self, builder: Builder, name: &Name<'_>) -> Result<Builder, Error> {
        let (file, spec, device) = self.find(name)?;
        let mut edits = Edits { name: format!("{}={}", name.kind, name.device), builder };
        if self.applied.insert(file) {
            edits.make(&spec["containerEdits"])?;
        }
        edits.make(&device["containerEdits"])?;
        Ok(edits.builder)
    }

    fn find(&self, name: &Name<'_>) -> Result<(PathBuf, Value, Value), Error> {
        for place in &self.places {
            let mut found = Vec::new();
            for (file, spec) in place.iter().filter(|(_, spec)| spec["kind"] == name.kind) {
                let devices = spec["devices"].as_array().into_iter().flatten();
                found.extend(devices.filter(|device| device["name"] == name.device).map(|device| (file, spec, device)));
            }
            match &found[..] {
                [] => {}
                [(file, spec, device)] => return Ok(((*file).clone(), (*spec).clone(), (*device).clone())),
                [(one, ..), (other, ..), ..] => {
                    let message = format!("{} and {} both have it", one.display(), other.display());
                    return Err(wrong(name, message, "Remove one of the two."));
                }
            }
        }
        let unread = if self.unread.is_empty() { String::new() } else { format!("; {}", self.unread.join("; ")) };
        let hint = "Name a device of a specification in /etc/cdi or /var/run/cdi; `nvidia-ctk cdi generate --format=json` writes one.";
        Err(wrong(name, format!("no specification has this device{unread}"), hint))
    }

    /// The graphics processors: NVIDIA's by their specification, others by their nodes that render and show nothing.
    pub fn gpu(&mut self, builder: Builder) -> Result<Builder, Error> {
        let nvidia = Name { kind: "nvidia.com/gpu", device: "all" };
        if self.find(&nvidia).is_ok() {
            return self.add(builder, &nvidia);
        }
        let entries = fs::read_dir("/dev/dri").into_iter().flatten().flatten();
        let mut nodes: Vec<_> = entries.filter(|e| e.file_name().as_encoded_bytes().starts_with(b"renderD")).collect();
        nodes.sort_unstable_by_key(fs::DirEntry::file_name);
        if nodes.is_empty() {
            let error = Error::option("gpu", "there is no specification of nvidia.com/gpu, and no /dev/dri/renderD*");
            return Err(amended(error, |failure| {
                failure.hint = "Load the driver, or name a device: --device.".to_owned()
            }));
        }
        Ok(nodes.iter().fold(builder, |builder, node| builder.device(node.path(), node.path())))
    }
}

fn spec(file: &Path) -> Result<Value, String> {
    const MOST: u64 = 16 << 20;
    let meta = fs::metadata(file).map_err(|e| e.to_string())?;
    if !meta.is_file() || meta.len() > MOST {
        return Err("it is no ordinary file of at most 16 MiB".to_owned());
    }
    let text = fs::read(file).map_err(|e| e.to_string())?;
    let spec: Value = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    let version = spec["cdiVersion"].as_str().unwrap_or_default();
    if !version.starts_with("0.") && !version.starts_with("1.") {
        return Err(format!("cdiVersion {version:?} is not known"));
    }
    Ok(spec)
}

fn wrong(name: &Name<'_>, message: impl Into<String>, hint: &str) -> Error {
    mistake(&format!("{}={}", name.kind, name.device), message, hint)
}

fn mistake(name: &str, message: impl Into<String>, hint: &str) -> Error {
    amended(Error::option(format!("device {name}"), message), |failure| failure.hint = hint.to_owned())
}

/// What a specification wants changed, for one device.
struct Edits {
    name: String,
    builder: Builder,
}

impl Edits {
    fn make(&mut self, edits: &Value) -> Result<(), Error> {
        for (key, value) in edits.as_object().into_iter().flatten() {
            for one in value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice) {
                match key.as_str() {
                    "env" => self.variable(one)?,
                    "deviceNodes" => self.node(one)?,
                    "mounts" => self.mount(one)?,
                    "hooks" => {
                        let (name, path) = (text(one, "hookName"), text(one, "path"));
                        self.not_given(&format!(
                            "the hook {name} ({path}) is not run: it would run outside, with your rights"
                        ));
                    }
                    "additionalGids" => {
                        self.not_given(&format!("group {one} is not given: groups of the host are not the sandbox's"))
                    }
                    "intelRdt" | "netDevices" => self.not_given(&format!("{key} is not given")),
                    _ => return Err(self.wrong(format!("wants {key}, which is not known"))),
                }
            }
        }
        Ok(())
    }

    fn change(&mut self, change: impl FnOnce(Builder) -> Builder) {
        self.builder = change(std::mem::take(&mut self.builder));
    }

    fn wrong(&self, message: String) -> Error {
        mistake(&self.name, message, "Mend the specification, or name the device itself: --device PATH.")
    }

    fn not_given(&self, what: &str) {
        complain!("sandcell: {}: {}", self.name, printable(what));
    }

    fn variable(&mut self, edit: &Value) -> Result<(), Error> {
        let pair = edit.as_str().and_then(|pair| pair.split_once('='));
        let (key, value) = pair.ok_or_else(|| self.wrong(format!("{edit} is no variable")))?;
        self.change(|builder| builder.env(key, value));
        Ok(())
    }

    fn node(&mut self, edit: &Value) -> Result<(), Error> {
        let dest = text(edit, "path");
        let source = if edit["hostPath"].is_null() { dest } else { text(edit, "hostPath") };
        let meta = fs::metadata(source).map_err(|e| self.wrong(format!("{source}: {e}")))?;
        let kind = match text(edit, "type") {
            "" => meta.file_type().is_char_device() || meta.file_type().is_block_device(),
            "b" => meta.file_type().is_block_device(),
            "c" | "u" => meta.file_type().is_char_device(),
            _ => false,
        };
        let (major, minor) = (nix::sys::stat::major(meta.rdev()), nix::sys::stat::minor(meta.rdev()));
        let is = |key: &str, number: u64| edit[key].as_u64().is_none_or(|wanted| wanted == number);
        if !kind || !is("major", major) || !is("minor", minor) {
            return Err(self.wrong(format!("{source} is not the device that the specification says")));
        }
        if ["fileMode", "uid", "gid"].iter().any(|key| !edit[*key].is_null()) {
            self.not_given(&format!("owner and mode of {dest} stay those of the host"));
        }
        let writable = edit["permissions"].as_str().is_none_or(|permissions| permissions.contains('w'));
        self.change(|builder| builder.mount(Mount::device(source, dest, writable)));
        Ok(())
    }

    fn mount(&mut self, edit: &Value) -> Result<(), Error> {
        let (source, dest) = (text(edit, "hostPath"), text(edit, "containerPath"));
        if !matches!(text(edit, "type"), "" | "bind" | "none") || source.is_empty() {
            return Err(self.wrong(format!("{dest}: only binds are mounted")));
        }
        let mut writable = true;
        for option in edit["options"].as_array().into_iter().flatten() {
            match option.as_str().unwrap_or_default() {
                "ro" => writable = false,
                "rw" | "bind" | "rbind" | "nosuid" | "nodev" | "private" | "rprivate" | "slave" | "rslave" => {}
                _ => self.not_given(&format!("{dest} is mounted without {option}")),
            }
        }
        self.change(|builder| builder.mount(Mount::bind(source, dest, writable)));
        Ok(())
    }
}

fn text<'a>(edit: &'a Value, key: &str) -> &'a str {
    edit[key].as_str().unwrap_or_default()
}
