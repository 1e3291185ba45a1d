//! What a policy means on this host: [`Resolved`] is what plans are made of. The image's layers, user and settings, the
//! store's volumes, the ids, the host's files, the caller's repositories.

pub(crate) mod git;
pub(crate) mod host_view;
#[cfg(feature = "image")]
pub(crate) mod image;
mod passed;

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;

use crate::error::{Failure, Result};
use crate::ids::IdPool;
use crate::policy::check::{check_layers, destination};
use crate::policy::files::{Files, RootFs};
use crate::policy::{Policy, PublishRule, Root, Upper, User};
use crate::report::Enforced;
use crate::sys::beneath::{self, Plain, Refused};

/// A checked policy, and what it comes to here.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// As it was asked for.
    pub policy: Policy,
    pub files: Files,
    /// Who the program is: as it was asked for, or as the image says.
    pub user: User,
    /// Supplementary groups that the image's user has.
    pub groups: Vec<u32>,
    /// Variables of the image, and behind them those of the policy.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory.
    pub dir: Option<PathBuf>,
    /// Published ports: as they were asked for, and those that the image exposes.
    pub published: Vec<PublishRule>,
    /// What the report says of devices and sockets.
    pub notes: Vec<Enforced>,
    /// Where the ids of each sandbox come from.
    pub ids: IdPool,
    /// What the store may not remove while this lives.
    #[cfg(feature = "image")]
    pub kept: image::Kept,
}

impl Resolved {
    /// What a client of a keeper knows: what the programs of the cell are made by.
    pub(crate) fn of_keeper(policy: Policy, layers: Vec<PathBuf>, env: Vec<(OsString, OsString)>) -> Result<Resolved> {
        let root = if layers.is_empty() { RootFs::Host } else { RootFs::Layers(layers) };
        Ok(Resolved {
            files: Files { root, upper: None, mounts: Vec::new(), of_image: false, kept_dirs: Vec::new() },
            user: policy.identity.user,
            groups: Vec::new(),
            env,
            dir: policy.chdir.clone(),
            published: Vec::new(),
            notes: Vec::new(),
            ids: IdPool::new(&policy.identity)?,
            #[cfg(feature = "image")]
            kept: image::Kept::default(),
            policy,
        })
    }

    /// Of a policy that was checked. `user_given`: the caller said who the program is, so the image does not.
    #[cfg_attr(not(feature = "image"), expect(unused_variables, reason = "there are no images"))]
    pub(crate) fn new(policy: Policy, user_given: bool) -> Result<Resolved> {
        let mut mounts = policy.mounts.clone();
        #[cfg(feature = "image")]
        let mut found = image::find(&policy)?;
        #[cfg(feature = "image")]
        mounts.append(&mut found.volumes);
        for mount in &mut mounts {
            *mount.dest_mut() = destination(mount.dest())?;
        }
        let mut env = Vec::new();
        let notes = passed::resolve(&policy, &mut mounts, &mut env)?;
        env.extend(policy.env.iter().cloned());
        let root = match &policy.root {
            Root::Host => RootFs::Host,
            Root::Empty => RootFs::Empty,
            Root::Dir(dir) => RootFs::Dir(dir.clone()),
            Root::Layers(layers) => RootFs::Layers(layers.clone()),
            #[cfg(feature = "image")]
            Root::Image(_) => RootFs::Layers(found.layers()),
        };
        let upper = policy.upper.as_ref().and_then(|upper| match upper {
            Upper::Dir(dir) => Some(dir.clone()),
            Upper::Tmpfs => None,
        });
        let files = Files { root, upper, mounts, of_image: policy.root.is_image(), kept_dirs: Vec::new() };
        files.layers().map_or(Ok(()), check_layers)?;
        let (user, dir) = (policy.identity.user, policy.chdir.clone());
        let resolved = Resolved {
            files,
            user,
            groups: Vec::new(),
            env,
            dir,
            published: policy.publish.clone(),
            notes,
            ids: IdPool::new(&policy.identity)?,
            #[cfg(feature = "image")]
            kept: found.kept,
            policy,
        };
        #[cfg(feature = "image")]
        let resolved = image::apply(resolved, found.store.as_ref(), user_given)?;
        Ok(resolved)
    }
}

/// A file of the topmost layer that has it. Links in it lead nowhere outside the layer, and a file that is none, or
/// is huge, is an error: CVE-2024-9676.
pub(crate) fn read_beneath(topmost_first: &[impl AsRef<Path>], path: &str) -> Result<String> {
    for layer in topmost_first {
        let Ok(root) = beneath::place(layer.as_ref()) else { continue };
        let fail = |why: Refused| {
            let subject = layer.as_ref().join(path).display().to_string();
            let failure = why.told(Failure::new("account", subject, "cannot be read"));
            failure.hint("the account files of a root must be ordinary files of at most 1 MiB").config()
        };
        let place = match beneath::open_within(root.as_fd(), Path::new(path), OFlag::O_PATH) {
            Ok(place) => place,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
            Err(errno) => return Err(fail(errno.into())),
        };
        // Deleted in this layer.
        if beneath::is_whiteout(&fstat(&place).map_err(|errno| fail(errno.into()))?) {
            break;
        }
        let bytes = beneath::regular(&Plain, place.as_fd()).and_then(|file| beneath::read(file, beneath::SHORT));
        let mut text = String::from_utf8_lossy(&bytes.map_err(fail)?).into_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        return Ok(text);
    }
    Ok(String::new())
}
