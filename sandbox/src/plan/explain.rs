//! Steps in words, for `explain` and for errors.

use std::ffi::CStr;

use crate::kernel_names::Capability;
use crate::wire::{ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, MAKE_DIR, MAKE_FILE, NO_SLOT, Step};

/// The step's stable name: `bind`, `new-fs`.
pub(crate) fn name_of(step: &Step<'_>) -> String {
    let mut name = String::new();
    for letter in step.name().chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// What the step is about (a path, a name, or nothing) and what it does.
pub(crate) fn describe(step: &Step<'_>) -> (String, String) {
    let text = |c: &CStr| c.to_string_lossy().into_owned();
    let (subject, words) = match step {
        Step::OpenDir { path, .. } => (text(path), "open the directory as a layer".to_owned()),
        Step::OpenTree { path, .. } => (text(path), "take the mounts at and beneath this path of the host".to_owned()),
        Step::TakeTree { path, .. } => {
            (text(path), "take this path of the host under the sandbox's ids (idmapped mount)".to_owned())
        }
        Step::AttachTree { path, .. } => (text(path), "put it where an overlay can use it".to_owned()),
        Step::OpenIn { path, make: 0, .. } => (text(path), "open the directory in it".to_owned()),
        Step::OpenIn { path, .. } => (text(path), "make and open a directory in it".to_owned()),
        Step::Become { uid, gid, groups, list } => {
            let list: Vec<String> = list
                .chunks_exact(4)
                .map(|id| u32::from_le_bytes(id.try_into().unwrap_or_default()).to_string())
                .collect();
            let groups = match (groups, list.is_empty()) {
                (0, _) => String::new(),
                (_, true) => ", without supplementary groups".to_owned(),
                (_, false) => format!(", supplementary groups {}", list.join(", ")),
            };
            (String::new(), format!("become UID {uid}, GID {gid}{groups}"))
        }
        Step::Base { size, inodes } => {
            let limit = |n: &u64, unit| if *n > 0 { format!(", at most {n} {unit}") } else { String::new() };
            (String::new(), format!("make the private tmpfs{}{}", limit(size, "bytes"), limit(inodes, "inodes")))
        }
        Step::Dir { path, mode } => (text(path), format!("make a private directory, mode {mode:o}")),
        Step::File { path, mode, content } => {
            (text(path), format!("make a private file, mode {mode:o}, {} bytes", content.len()))
        }
        Step::Symlink { path, target } => (text(path), format!("link to {}", text(target))),
        Step::RootBase { .. } => ("/".to_owned(), "start from an empty root".to_owned()),
        Step::RootTree { attributes, .. } => {
            ("/".to_owned(), format!("mount the root directory{}", words_of(*attributes)))
        }
        Step::RootOverlay { lower, upper, writable, keep, .. } => {
            let upper = match (writable, upper, keep) {
                (0, ..) => "read-only".to_owned(),
                (_, &NO_SLOT, _) => "writes to memory, thrown away".to_owned(),
                (_, _, 0) => "writes to a private directory, thrown away".to_owned(),
                _ => "writes kept".to_owned(),
            };
            ("/".to_owned(), format!("mount an overlay of {} layers, {upper}", lower.len() / 4))
        }
        Step::Overlay { dest, attributes, .. } => {
            (place(dest), format!("mount it again with the missing mount points{}", words_of(*attributes)))
        }
        Step::Bind { dest, attributes, .. } => (place(dest), format!("mount what was taken{}", words_of(*attributes))),
        Step::Usable { dest, read: 0, .. } => (place(dest), "make sure that its ids may connect to it".to_owned()),
        Step::Usable { dest, write: 0, .. } => (place(dest), "make sure that its ids may read it".to_owned()),
        Step::Usable { dest, .. } => (place(dest), "make sure that its ids may read and write it".to_owned()),
        Step::BindBase { path, dest, attributes, .. } => {
            let path = text(path);
            let name = path.strip_prefix("inert/").unwrap_or(&path);
            (place(dest), format!("mount the private {name}{}", words_of(*attributes)))
        }
        Step::NewFs { kind, options, dest, attributes, .. } => {
            let options: Vec<_> =
                options.split(|b| *b == 0).filter(|o| !o.is_empty()).map(String::from_utf8_lossy).collect();
            let options = if options.is_empty() { String::new() } else { format!(" ({})", options.join(", ")) };
            (place(dest), format!("mount a new {}{options}{}", text(kind), words_of(*attributes)))
        }
        Step::Restrict { dest, attributes } => (place(dest), format!("restrict to{}", words_of(*attributes))),
        Step::Attributes { dest, attributes } => {
            (place(dest), format!("set, here and beneath{}", words_of(*attributes)))
        }
        Step::Move { dest, .. } => (text(dest), "move what was made for it there".to_owned()),
        Step::RootAttributes { attributes } => ("/".to_owned(), format!("set{}", words_of(*attributes))),
        Step::Hostname { name } => (text(name), "set the host name".to_owned()),
        Step::Network { loopback: 0 } => (String::new(), "make a network without any interface, meanwhile".to_owned()),
        Step::Network { .. } => ("lo".to_owned(), "make a network with a loopback interface, meanwhile".to_owned()),
        Step::Steering { .. } => {
            ("lo".to_owned(), "have all that leaves the network it makes go to the relay, which decides".to_owned())
        }
        Step::Pivot {} => ("/".to_owned(), "make the new root the root and let go of the old one".to_owned()),
        Step::Capabilities { keep: 0 } => (String::new(), "drop all capabilities for good".to_owned()),
        Step::Capabilities { keep } => {
            let kept: Vec<_> =
                Capability::ALL.iter().filter(|c| keep & c.bitmask() != 0).map(|c| c.to_string()).collect();
            (kept.join(" "), "drop all other capabilities for good".to_owned())
        }
        Step::Filter { program, .. } => {
            (String::new(), format!("filter system calls ({} BPF instructions)", program.len() / 8))
        }
        Step::Listener { learn: 0, .. } => {
            (String::new(), "listen to the filter, to name the call that ends a program".to_owned())
        }
        Step::Listener { .. } => (String::new(), "note every system call that the filter lets through".to_owned()),
        Step::LandlockPath { path, .. } => (text(path), "allow it in the Landlock ruleset".to_owned()),
        Step::CpuTime { limit, .. } => {
            (String::new(), format!("end everything after {} ms of CPU time", limit / 1_000_000))
        }
        // The others are about nothing that has a name, and say what they do where they are declared.
        other => (String::new(), other.words().to_owned()),
    };
    (subject, words)
}

/// What the place of a mount has to be.
pub(crate) fn place_of_mount(step: &Step<'_>) -> &'static str {
    match step {
        Step::Bind { make: MAKE_FILE, .. } | Step::BindBase { make: MAKE_FILE, .. } => {
            "A file can only be mounted over a file: name its place in the directory, such as SRC:DEST/NAME."
        }
        Step::Bind { make: MAKE_DIR, .. } | Step::BindBase { make: MAKE_DIR, .. } | Step::NewFs { .. } => {
            "A directory can only be mounted over a directory: name another place, or mount a file."
        }
        _ => "",
    }
}

/// A destination as programs see it: what is built in base first has its directory there in front.
fn place(dest: &CStr) -> String {
    let dest = dest.to_string_lossy();
    match dest.split_once('/') {
        Some((first, rest)) if !first.is_empty() => format!("/{rest}"),
        _ => dest.into_owned(),
    }
}

fn words_of(attributes: u64) -> String {
    if attributes == 0 {
        return String::new();
    }
    let words: Vec<_> =
        [(ATTR_RDONLY, "read-only"), (ATTR_NOSUID, "nosuid"), (ATTR_NODEV, "nodev"), (ATTR_NOEXEC, "noexec")]
            .iter()
            .filter(|(bit, _)| attributes & bit != 0)
            .map(|(_, word)| *word)
            .collect();
    format!(", {}", words.join(", "))
}
