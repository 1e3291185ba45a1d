//! What in a policy only works under the caller's own UID: files that others may not read or write.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::Failure;
use crate::policy::Mount;
use crate::policy::files::{Files, RootFs};

/// What others may do with a directory or file: the last three permission bits.
const READ: u32 = 0o4;
const WRITE: u32 = 0o2;
const ENTER: u32 = 0o1;

/// Something in a policy that a UID of the sandbox's own could not use as is asked for.
pub(super) struct Need {
    pub path: PathBuf,
    pub kind: Kind,
    what: &'static str,
    why: &'static str,
}

/// How the ids of its files are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A root file system or a layer of one: files of several users, known by number.
    System,
    /// Files of the caller's.
    Own,
}

impl Need {
    /// Whether what is mounted beneath it belongs to it. What is mounted in a layer does not.
    pub(super) fn recursive(&self) -> bool {
        self.kind == Kind::Own || self.what == "root"
    }

    pub(super) fn failure(&self) -> Failure {
        Failure::new("identity", format!("{} {}", self.what, self.path.display()), self.why)
            .hint("Leave the host ids at auto, set keep_caller, or give others the permission.")
    }
}

/// Everything of that kind, in the order in which the Plan takes it. A path that is not there is for the Plan to
/// complain about. `own_layers`: whether layers of the caller's count, which can be read under any UID, but to which
/// only the owner can add.
pub(super) fn needs(files: &Files, caller: u32, own_layers: bool) -> Vec<Need> {
    let mut needs = Vec::new();
    let mut push = |kind, what, path: &Path, why| needs.push(Need { path: path.to_owned(), kind, what, why });
    if let Some(dir) = &files.upper {
        push(Kind::System, "upper", dir, "what is kept has to belong to the caller");
    }
    match &files.root {
        RootFs::Layers(layers) => {
            for layer in layers {
                if !allows(layer, READ) {
                    push(Kind::System, "layer", layer, "others may not read the directory");
                } else if own_layers && fs::metadata(layer).is_ok_and(|meta| meta.uid() == caller) {
                    push(Kind::System, "layer", layer, "only the caller may change what is in it");
                }
            }
        }
        RootFs::Dir(dir) if !allows(dir, READ) => push(Kind::System, "root", dir, "others may not read the directory"),
        RootFs::Dir(_) | RootFs::Host | RootFs::Empty => {}
    }
    // The Plan knows a mount by its path: what is mapped for one is mapped for all of the same source.
    let mapped = |path: &Path| {
        files.mounts.iter().any(|mount| {
            matches!(mount, Mount::Bind { source, writable: true, .. } if source == path && !allows(source, READ | WRITE))
        })
    };
    for mount in &files.mounts {
        match mount {
            Mount::Bind { source, writable: true, .. } if !allows(source, READ | WRITE) => {
                push(Kind::Own, "rw", source, "others may not write there");
            }
            Mount::Bind { source, .. } if !allows(source, READ) => {
                push(Kind::Own, "ro", source, "others may not read it");
            }
            Mount::Bind { source, .. } if mapped(source) => {
                push(Kind::Own, "ro", source, "it is writable elsewhere, where others may not write");
            }
            Mount::Device { source, writable: true, .. } if !allows(source, READ | WRITE) => {
                push(Kind::Own, "device", source, "others may not read and write it");
            }
            Mount::Device { source, .. } if !allows(source, READ) => {
                push(Kind::Own, "device", source, "others may not read it");
            }
            Mount::Socket { source, .. } if !allows(source, WRITE) => {
                push(Kind::Own, "socket", source, "others may not connect to it");
            }
            Mount::Bind { .. }
            | Mount::Tmpfs { .. }
            | Mount::File { .. }
            | Mount::Device { .. }
            | Mount::Socket { .. } => {}
        }
    }
    needs
}

/// Whether everybody may do that.
fn allows(path: &Path, wanted: u32) -> bool {
    fs::metadata(path).map_or(true, |meta| {
        let wanted = if meta.is_dir() { wanted | ENTER } else { wanted };
        meta.mode() & wanted == wanted
    })
}
