//! A run of an image: what the image says becomes the policy's defaults, and what the run uses is kept while it lives.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use super::{Resolved, read_beneath};
use crate::error::{Failure, Result};
use crate::images::config::RunConfig;
use crate::images::merged::Merged;
use crate::images::store::{Image, InUse, Store, failed, write_file};
use crate::policy::files::RootFs;
use crate::policy::{Mount, Policy, PublishRule, Root, Upper, User, ports};
use crate::sys::beneath::{self, Refused};
use crate::sys::lock::Lock;

/// What a [`Sandbox`](crate::Sandbox) keeps from being removed while it lives.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    image: Option<InUse>,
    volumes: Vec<Lock>,
}

impl Kept {
    pub(crate) fn image(&self) -> Option<&Image> {
        self.image.as_ref().map(|kept| &kept.image)
    }

    /// The same held once more, for a process that outlives this one.
    pub(crate) fn again(&self) -> std::io::Result<Vec<std::fs::File>> {
        self.image.iter().map(|image| &image.lock).chain(&self.volumes).map(Lock::again).collect()
    }
}

/// The file beside a kept upper that says which image it lies on.
const BASE: &str = "image";

/// What the store has of a policy: kept from being removed from now on.
#[derive(Default)]
pub(super) struct Found {
    pub store: Option<Store>,
    pub volumes: Vec<Mount>,
    pub kept: Kept,
}

impl Found {
    /// The layers of the image; none where the root is no image.
    pub(super) fn layers(&self) -> Vec<PathBuf> {
        self.kept.image.as_ref().map(|image| image.layers.clone()).unwrap_or_default()
    }
}

/// Finds the image and the volumes of a policy.
pub(super) fn find(policy: &Policy) -> Result<Found> {
    let mut found = Found::default();
    if policy.volumes.is_empty() && !policy.root.is_image() {
        return Ok(found);
    }
    let store = match &policy.store {
        Some(dir) => Store::open(dir)?,
        None => Store::open_default()?,
    };
    for volume in &policy.volumes {
        let (source, lock) = store.use_volume(&volume.name)?;
        found.kept.volumes.push(lock);
        found.volumes.push(Mount::Bind { source, dest: volume.dest.clone(), writable: volume.writable });
    }
    if let Root::Image(name) = &policy.root {
        let image = store.use_image(name)?;
        image.image.config.check_runs_here(name, image.image.id)?;
        if let Some(Upper::Dir(dir)) = &policy.upper {
            note_base(dir, &image.image)?;
        }
        found.kept.image = Some(image);
    }
    found.store = Some(store);
    Ok(found)
}

/// What the image says becomes the default of what was not asked for.
pub(super) fn apply(mut resolved: Resolved, store: Option<&Store>, user_given: bool) -> Result<Resolved> {
    let (Some(store), Some(image)) = (store, &resolved.kept.image) else { return Ok(resolved) };
    let config = image.image.config.run();
    let own = config.user.as_deref().filter(|user| !user.is_empty() && !user_given);
    if let Some(user) = resolved.policy.image_user.as_deref().or(own) {
        let topmost_first = resolved.files.topmost_first();
        resolved.user = user_of(user, &topmost_first)?;
        resolved.groups = groups_of(user, &topmost_first)?;
        resolved.ids.set_user(resolved.user);
    }
    let root = if resolved.policy.identity.count > 1 {
        let ids = resolved.ids.store_ids()?;
        resolved.ids.use_store(ids);
        Some(RootFs::Layers(store.owned_layers(&image.image, ids)?))
    } else {
        None
    };
    settings(&mut resolved, &config);
    if resolved.policy.publish_all {
        resolved.published.append(&mut exposed(&config, &resolved.published)?);
        ports::check_count(resolved.published.len())?;
    }
    if let Some(root) = root {
        resolved.files.root = root;
    }
    Ok(resolved)
}

/// The ports that the image exposes, without those that are published by name.
fn exposed(config: &RunConfig, named: &[PublishRule]) -> Result<Vec<PublishRule>> {
    let all = config.exposed_ports.iter().flatten().map(|text| PublishRule::exposed(text));
    let all: Vec<_> = all.collect::<Result<_>>()?;
    if all.is_empty() {
        let hint = "Name the ports: `publish` 0:80. `sandcell inspect` shows what an image exposes.";
        return Err(Failure::new("option", "publish_all", "the image exposes no ports").hint(hint).config());
    }
    let is_new =
        |rule: &PublishRule| named.iter().all(|other| (other.cell_port, other.udp) != (rule.cell_port, rule.udp));
    Ok(all.into_iter().filter(is_new).collect())
}

fn settings(resolved: &mut Resolved, config: &RunConfig) {
    // Behind them stand the caller's own, which win.
    let mut env: Vec<(OsString, OsString)> = Vec::new();
    for line in config.env.iter().flatten() {
        match line.split_once('=') {
            Some((key, value)) if !key.is_empty() && !line.contains('\0') => env.push((key.into(), value.into())),
            // Other tools pass such a line over too.
            _ => {}
        }
    }
    env.append(&mut resolved.env);
    resolved.env = env;
    let dir = resolved.dir.take().unwrap_or_else(|| {
        let dir = config.working_dir.as_deref().filter(|dir| !dir.contains('\0')).unwrap_or("/");
        clean(Path::new("/"), dir)
    });
    // It is made where it is missing, and behind a link that is where the link leads.
    let layers = resolved.files.layers().unwrap_or_default();
    let kept_dirs = own_temporary(&Merged { layers }, resolved.policy.keeps_tmp);
    let leads_to = Merged { layers }.resolve(&dir).map(|dir| Path::new("/").join(dir));
    resolved.files.kept_dirs = kept_dirs;
    resolved.dir = Some(leads_to.unwrap_or(dir));
    if resolved.policy.network_in_effect().uses_host_resolver() {
        // The image's own is that of the machine which built it.
        let dest = Path::new("/etc/resolv.conf");
        let said = resolved.files.mounts.iter().any(|mount| mount.dest() == dest);
        if !said && let Ok(content) = std::fs::read("/etc/resolv.conf") {
            resolved.files.mounts.push(Mount::File { dest: dest.to_owned(), content, mode: 0o644 });
        }
    }
}

/// Which of the directories for temporary files are the image's own: those that it has files in, or `all`.
fn own_temporary(image: &Merged<'_>, all: bool) -> Vec<PathBuf> {
    let dirs = ["/tmp", "/var/tmp"].map(PathBuf::from);
    let is_own = |dir: &PathBuf| {
        if all {
            return true;
        }
        let Some(place) = image.resolve(dir) else { return false };
        let is_dir = !place.as_os_str().is_empty() && image.find(&place).is_some_and(|found| found.meta.is_dir());
        is_dir && image.list(&place).is_ok_and(|names| !names.is_empty())
    };
    dirs.into_iter().filter(is_own).collect()
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
pub(crate) fn user_of(text: &str, topmost_first: &[PathBuf]) -> Result<User> {
    let wrong = |message: String| {
        Failure::new("image-user", text.escape_debug().to_string(), message)
            .hint("say who the program is to be by `user`")
            .config()
    };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let passwd = read_beneath(topmost_first, "etc/passwd")?;
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
            None => line_with(&read_beneath(topmost_first, "etc/group")?, 0, group)
                .and_then(|line| number(line.get(2)?))
                .ok_or_else(|| wrong(format!("the image's /etc/group has no group {group:?} with a usable id")))?,
        },
    };
    Ok(if (uid, gid) == (0, 0) { User::Root } else { User::fixed(uid, gid) })
}

/// The groups that have the user as a member, unless its group is said: as other tools have it.
fn groups_of(text: &str, topmost_first: &[PathBuf]) -> Result<Vec<u32>> {
    if text.contains(':') {
        return Ok(Vec::new());
    }
    let passwd = read_beneath(topmost_first, "etc/passwd")?;
    let field = if number(text).is_some() { 2 } else { 0 };
    let Some(name) = line_with(&passwd, field, text).map(|line| line[0].to_owned()) else { return Ok(Vec::new()) };
    let group = read_beneath(topmost_first, "etc/group")?;
    let lines = group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let with_user = lines.filter(|line| line.get(3).is_some_and(|members| members.split(',').any(|m| m == name)));
    let mut groups: Vec<u32> = with_user.filter_map(|line| number(line[2])).collect();
    groups.sort_unstable();
    groups.dedup();
    // As many as the kernel takes are more than any image has.
    groups.truncate(1000);
    Ok(groups)
}

/// Layers, the lowest first, in the order in which they are looked through.
pub(crate) fn topmost_first(layers: &[PathBuf]) -> Vec<PathBuf> {
    layers.iter().rev().cloned().collect()
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
    let read =
        beneath::place(upper).map_err(Refused::from).and_then(|top| beneath::read_short(top.as_fd(), Path::new(BASE)));
    match read {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).trim().to_owned())),
        Err(why) if why.is_absent() => Ok(None),
        Err(why) => {
            let subject = upper.join(BASE).display().to_string();
            Err(why.told(Failure::new("image-store", subject, "reading the image of an upper")).setup())
        }
    }
}
