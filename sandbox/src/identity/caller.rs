//! What in a policy only works under the caller's own UID: files that others may not read or write.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::Failure;
use crate::policy::{Mount, Policy, Root, Upper};

/// What others may do with a directory or file: the last three permission bits.
const READ: u32 = 0o4;
const WRITE: u32 = 0o2;
const ENTER: u32 = 0o1;

/// The first thing of the policy that a UID of the sandbox's own could not use as is asked for. A path that is not
/// there is for the Plan to complain about. `own_layers`: whether layers of the caller's count, which can be read
/// under any UID, but to which only the owner can add.
pub(crate) fn only_for_caller(policy: &Policy, caller: u32, own_layers: bool) -> Option<Failure> {
    let what = |what: &'static str, path: &Path, message: &str| {
        Some(
            Failure::new("identity", format!("{what} {}", path.display()), message)
                .hint("Leave the host ids at auto, set keep_caller, or give others the permission."),
        )
    };
    if let Some(Upper::Dir(dir)) = &policy.upper {
        return what("upper", dir, "what is kept has to belong to the caller");
    }
    match &policy.root {
        Root::Layers(layers) => {
            if let Some(layer) = layers.iter().find(|layer| !allows(layer, READ)) {
                return what("layer", layer, "others may not read the directory");
            }
            let own = |layer: &&std::path::PathBuf| fs::metadata(layer).is_ok_and(|meta| meta.uid() == caller);
            if let Some(layer) = layers.iter().find(own).filter(|_| own_layers) {
                return what("layer", layer, "only the caller may change what is in it");
            }
        }
        Root::Dir(dir) if !allows(dir, READ) => return what("root", dir, "others may not read the directory"),
        _ => {}
    }
    policy.mounts.iter().find_map(|mount| match mount {
        Mount::Bind { source, writable: true, .. } if !allows(source, READ | WRITE) => {
            what("rw", source, "others may not write there")
        }
        Mount::Bind { source, .. } if !allows(source, READ) => what("ro", source, "others may not read it"),
        _ => None,
    })
}

/// Whether everybody may do that.
fn allows(path: &Path, wanted: u32) -> bool {
    fs::metadata(path).map_or(true, |meta| {
        let wanted = if meta.is_dir() { wanted | ENTER } else { wanted };
        meta.mode() & wanted == wanted
    })
}
