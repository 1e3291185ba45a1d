//! A run of an image: what the image says becomes the policy's defaults, and what the run uses is kept while it lives.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::config::RunConfig;
use super::store::{Image, InUse, Store, failed, write_file};
use crate::error::{Failure, Result};
use crate::identity::IdPool;
use crate::lock::Lock;
use crate::plan::read_beneath;
use crate::policy::{Mount, Network, Policy, Root, Upper, User};

/// What a [`Sandbox`](crate::Sandbox) keeps from being removed while it lives.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    image: Option<InUse>,
    _volumes: Vec<Lock>,
}

impl Kept {
    pub(crate) fn image(&self) -> Option<&Image> {
        self.image.as_ref().map(|kept| &kept.image)
    }
}

/// The file beside a kept upper that says which image it lies on.
const BASE: &str = "image";

/// Turns the image and the volumes of a policy into layers, mounts and settings. `user_given`: the caller said who the
/// program is to be, so the image does not. Where the ids come from is found out for a run of several.
pub(crate) fn resolve(policy: &mut Policy, user_given: bool) -> Result<(Option<IdPool>, Kept)> {
    let (mut found, mut kept) = (None, Kept::default());
    if policy.volumes.is_empty() && !matches!(policy.root, Root::Image(_)) {
        return Ok((found, kept));
    }
    let store = match &policy.store {
        Some(dir) => Store::open(dir)?,
        None => Store::open_default()?,
    };
    for volume in &policy.volumes {
        let (path, lock) = store.use_volume(&volume.name)?;
        kept._volumes.push(lock);
        policy.mounts.push(Mount::Bind { source: path, dest: volume.dest.clone(), writable: volume.writable });
    }
    if let Root::Image(name) = &policy.root {
        let image = store.use_image(name)?;
        if let Some(Upper::Dir(dir)) = &policy.upper {
            note_base(dir, &image.image)?;
        }
        policy.root = Root::Layers(image.layers.clone());
        apply(policy, &image.image.config.run(), user_given)?;
        if policy.identity.count > 1 {
            // Not before the image's user is known, who is one of its ids.
            let pool = IdPool::new(&policy.identity)?;
            let ids = pool.store_ids()?;
            policy.root = Root::Layers(store.owned_layers(&image.image, ids)?);
            policy.store_ids = Some(ids);
            found = Some(pool);
        }
        kept.image = Some(image);
    }
    Ok((found, kept))
}

fn apply(policy: &mut Policy, config: &RunConfig, user_given: bool) -> Result<()> {
    policy.of_image = true;
    if !user_given && let Some(user) = config.user.as_deref().filter(|user| !user.is_empty()) {
        let Root::Layers(layers) = &policy.root else { return Ok(()) };
        policy.identity.user = user_of(user, layers, policy.upper.as_ref())?;
    }
    // Behind them stand the caller's own, which win.
    let mut env: Vec<(OsString, OsString)> = Vec::new();
    for line in config.env.iter().flatten() {
        match line.split_once('=') {
            Some((key, value)) if !key.is_empty() && !line.contains('\0') => env.push((key.into(), value.into())),
            // Other tools pass such a line over too.
            _ => {}
        }
    }
    env.append(&mut policy.env);
    policy.env = env;
    if policy.chdir.is_none() {
        let dir = config.working_dir.as_deref().filter(|dir| !dir.contains('\0')).unwrap_or("/");
        policy.chdir = Some(clean(Path::new("/"), dir));
    }
    if policy.network == Network::Host {
        // The image's own is that of the machine which built it.
        let dest = Path::new("/etc/resolv.conf");
        let said = policy.mounts.iter().any(|mount| mount.dest() == dest);
        if !said && let Ok(content) = std::fs::read("/etc/resolv.conf") {
            policy.mounts.push(Mount::File { dest: dest.to_owned(), content, mode: 0o644 });
        }
    }
    Ok(())
}

/// A path as an image has it, seen from `from`: absolute, and without `.` and `..`.
pub(crate) fn clean(from: &Path, path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in from.join(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

/// `NAME`, `UID`, each perhaps with `:GROUP` or `:GID`, as a Dockerfile's `USER` has it. Names are those of the image.
pub(crate) fn user_of(text: &str, layers: &[PathBuf], upper: Option<&Upper>) -> Result<User> {
    let upper = match upper {
        Some(Upper::Dir(dir)) => Some(dir.join("upper")),
        _ => None,
    };
    let topmost_first: Vec<&Path> =
        upper.iter().map(PathBuf::as_path).chain(layers.iter().rev().map(PathBuf::as_path)).collect();
    let wrong = |message: String| {
        Failure::new("image-user", text.escape_debug().to_string(), message)
            .hint("say who the program is to be: --user, or Builder::user")
            .config()
    };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let passwd = read_beneath(&topmost_first, "etc/passwd")?;
    let (uid, own_group) = match number(user) {
        Some(uid) => (uid, line_with(&passwd, 2, user).and_then(|line| number(line.get(3)?)).unwrap_or(0)),
        None => line_with(&passwd, 0, user)
            .and_then(|line| Some((number(line.get(2)?)?, number(line.get(3)?)?)))
            .ok_or_else(|| wrong(format!("the image's /etc/passwd has no user {user:?} with a usable id")))?,
    };
    let gid = match group {
        None => own_group,
        Some(group) => match number(group) {
            Some(gid) => gid,
            None => line_with(&read_beneath(&topmost_first, "etc/group")?, 0, group)
                .and_then(|line| number(line.get(2)?))
                .ok_or_else(|| wrong(format!("the image's /etc/group has no group {group:?} with a usable id")))?,
        },
    };
    Ok(if (uid, gid) == (0, 0) { User::Root } else { User::fixed(uid, gid) })
}

/// Digits only, and at most 2^31 - 1, above which some programs take ids for negative (CVE-2024-40635).
fn number(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|id| *id <= i32::MAX as u32)
}

fn line_with<'a>(file: &'a str, field: usize, value: &str) -> Option<Vec<&'a str>> {
    file.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields.get(field) == Some(&value))
}

/// Notes the image beside a kept upper: on another image its content would mean something else.
fn note_base(dir: &Path, image: &Image) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| failed(dir, "making the directory of the upper", &e))?;
    match base_of(dir)? {
        Some(id) if id == image.id.to_string() => Ok(()),
        Some(id) => Err(Failure::new("upper", dir.display().to_string(), format!("it was written on image {id}"))
            .hint("run that image, or give another directory")
            .config()),
        None => {
            let text = format!("{}\n", image.id);
            let temp = dir.join(format!(".{BASE}-{}", std::process::id()));
            let _ = std::fs::remove_file(&temp);
            write_file(&temp, text.as_bytes())?;
            let to = dir.join(BASE);
            std::fs::rename(&temp, &to).map_err(|e| failed(&to, "noting the image of an upper", &e))
        }
    }
}

/// The id of the image that a kept upper (the directory given as [`Upper::Dir`]) was written on, where a run of an
/// image noted it.
///
/// # Errors
/// `Setup` where the note cannot be read.
pub fn base_of(upper: &Path) -> Result<Option<String>> {
    let path = upper.join(BASE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(&path, "reading the image of an upper", &e)),
    }
}
