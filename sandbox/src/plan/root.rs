//! The root file system: which mounts, in which order.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::etc::Account;
use super::host::{self, ACCOUNTS, HostFiles, MACHINE_ID, Secret, as_path, look};
use super::{INERT, Inputs, PLAIN, READ_ONLY, Steps, c_string, path_string};
use crate::error::{Failure, Result};
use crate::policy::{HostIds, Mount, Network, Root};
use crate::wire::{ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, INERT_VIEW, MAKE_DIR, MAKE_FILE, NEW, NO_SLOT, Step};

/// Directories of base that appear in the root: name in base, destination, permission bits.
const PRIVATE: [(&CStr, &CStr, u32); 3] =
    [(c"tmp", c"/tmp", 0o1777), (c"var-tmp", c"/var/tmp", 0o1777), (c"run", c"/run", 0o755)];

pub(super) fn compile(inputs: &Inputs<'_>, account: &Account, opens: &mut Steps, makes: &mut Steps) -> Result<()> {
    let policy = inputs.policy;
    let binds = resolve_mounts(&policy.mounts)?;
    makes.push(Step::Base {
        size: policy.limits.disk.unwrap_or(0),
        inodes: policy.limits.inodes.map_or(0, |n| n + OWN_INODES),
    });
    let mut dests: Vec<(CString, u32)> = Vec::new();
    // What an image has in /run is for its programs, which expect it there; writes to it go to the upper.
    let private = if policy.of_image { &PRIVATE[..2] } else { &PRIVATE[..] };
    for (_, dest, _) in private {
        dests.push(((*dest).to_owned(), MAKE_DIR));
    }
    if let Some(dir) = policy.chdir.as_ref().filter(|_| policy.of_image) {
        // Tools that run images make it where it is missing.
        dests.push((path_string(dir)?, MAKE_DIR));
    }
    for dest in [c"/proc", c"/dev"] {
        dests.push((dest.to_owned(), MAKE_DIR));
    }
    let home = path_string(&account.home)?;
    // The home of an image's own account is the image's, and often full of its program.
    let private_home = !(policy.of_image && account.known);
    if private_home {
        dests.push((home.clone(), MAKE_DIR));
    }
    for (_, dest) in ACCOUNTS {
        dests.push((dest.to_owned(), MAKE_FILE));
    }
    for bind in &binds {
        dests.push((bind.dest.clone(), bind.make));
    }

    let base_root = matches!(policy.root, Root::Host | Root::Empty);
    if base_root {
        // Every mount point that is known beforehand: cheaper than to find out that it is missing.
        let view = if matches!(policy.root, Root::Host) { inputs.host.view.as_slice() } else { &[] };
        mount_points(c"root", &dests[..dests.len() - binds.len()], view, makes)?;
    }
    root(inputs, &dests, opens, makes)?;
    for (name, mode) in [(c"home", 0o700), (c"shm", 0o1777), (c"dev", 0o755), (c"empty", 0o555)] {
        makes.push(Step::Dir { path: name, mode });
    }
    for (name, _, mode) in private {
        makes.push(Step::Dir { path: name, mode: *mode });
    }
    makes.push(Step::File { path: c"blank", mode: 0, content: b"" });

    if matches!(policy.root, Root::Host) {
        for (path, target) in &inputs.host.view {
            match target {
                None => {
                    let slot = opens.open_tree(Path::new(path))?;
                    let dest = beneath(NEW, path)?;
                    makes.push(Step::Bind { slot, dest: &dest, attributes: READ_ONLY, make: MAKE_DIR });
                }
                Some(target) => {
                    let name = c_string(&format!("root{path}"))?;
                    makes.push(Step::Symlink { path: &name, target: &path_string(target)? });
                }
            }
        }
    }
    accounts(inputs, account, makes)?;
    // A root of base has their places, and nothing that could lead elsewhere. Into others they are moved when done.
    let place = if base_root { NEW } else { BESIDE };
    if !base_root {
        for path in [BESIDE, c"beside/dev", c"beside/proc"] {
            makes.push(Step::Dir { path, mode: 0o755 });
        }
    }
    devices(inputs.host, place, opens, makes)?;
    proc(inputs, place, makes)?;
    if !base_root {
        for (path, dest) in [(c"beside/dev", c"/dev"), (c"beside/proc", c"/proc")] {
            makes.push(Step::Move { path, dest, make: MAKE_DIR });
        }
    }
    let homes = private_home.then_some((c"home", home.as_c_str()));
    for (path, dest) in private.iter().map(|(name, dest, _)| (*name, *dest)).chain(homes) {
        let within = if base_root { Some(beneath(NEW, as_path(dest))?) } else { None };
        let dest = within.as_deref().unwrap_or(dest);
        makes.push(Step::BindBase { path, dest, attributes: PLAIN, make: MAKE_DIR });
    }
    for (index, bind) in binds.iter().enumerate() {
        mount(bind, index, opens, makes)?;
    }
    if inputs.policy.network == Network::Host {
        resolver(makes)?;
    }
    if base_root {
        makes.push(Step::RootAttributes { attributes: READ_ONLY });
    }
    Ok(())
}

/// Where /dev and /proc are built for a root that is not of base.
const BESIDE: &CStr = c"beside";

/// A path of the sandbox as one in base.
fn beneath(place: &CStr, path: impl AsRef<Path>) -> Result<CString> {
    let path = path.as_ref();
    path_string(&as_path(place).join(path.strip_prefix("/").unwrap_or(path)))
}

/// What our own files and directories take from an inode budget, so that the caller's number is the program's.
const OWN_INODES: u64 = 96;

/// The root mount itself.
fn root(inputs: &Inputs<'_>, dests: &[(CString, u32)], opens: &mut Steps, makes: &mut Steps) -> Result<()> {
    match &inputs.policy.root {
        Root::Host | Root::Empty => makes.push(Step::RootBase { path: c"root" }),
        Root::Dir(dir) => {
            let dir = directory(dir, "root")?;
            let mut complete = true;
            for (dest, _) in dests {
                complete = complete && present(&dir, dest)?;
            }
            if complete {
                let slot = opens.open_named_tree(&dir)?;
                makes.push(Step::RootTree { slot, attributes: READ_ONLY });
            } else {
                let lower = layer(&dir, opens, makes)?;
                stubs(dests, makes)?;
                overlay(&[lower], NO_SLOT, NO_SLOT, None, makes);
            }
        }
        #[cfg(feature = "image")]
        Root::Image(_) => unreachable!("`build` has made layers of it"),
        Root::Layers(layers) => {
            let mut lower = Vec::new();
            for layer in layers.iter().rev() {
                lower.push(self::layer(&directory(layer, "layer")?, opens, makes)?);
            }
            let (mut upper, mut work) = (NO_SLOT, NO_SLOT);
            if let Some(disk) = inputs.upper {
                let mapped = if disk.is_private() { None } else { opens.take_mapped(&absolute(&disk.dir)?)? };
                let tree = match mapped {
                    Some(tree) => {
                        attach(tree, makes)?;
                        Some(tree)
                    }
                    None if disk.is_private() => Some(opens.open_dir(&disk.dir)?),
                    None => None,
                };
                if let Some(tree) = tree {
                    (upper, work) = (opens.next_slot()?, opens.next_slot()?);
                    for (slot, path) in [(upper, c"upper"), (work, c"work")] {
                        makes.push(Step::OpenIn { slot, tree, path, make: disk.is_private().into() });
                    }
                } else {
                    upper = opens.open_dir(&disk.dir.join("upper"))?;
                    work = opens.open_dir(&disk.dir.join("work"))?;
                }
            } else {
                makes.push(Step::Dir { path: c"upper", mode: 0o755 });
                makes.push(Step::Dir { path: c"work", mode: 0o755 });
            }
            stubs(dests, makes)?;
            overlay(&lower, upper, work, Some(inputs.upper.is_some_and(|disk| !disk.is_private())), makes);
        }
    }
    Ok(())
}

/// A layer of an overlay.
fn layer(dir: &Path, opens: &mut Steps, makes: &mut Steps) -> Result<u32> {
    match opens.take_mapped(dir)? {
        Some(slot) => {
            attach(slot, makes)?;
            Ok(slot)
        }
        None => opens.open_dir(dir),
    }
}

/// Puts an idmapped mount where overlays can use it.
fn attach(slot: u32, makes: &mut Steps) -> Result<()> {
    let path = c_string(&format!("mapped-{slot}"))?;
    makes.push(Step::Dir { path: &path, mode: 0o700 });
    makes.push(Step::AttachTree { slot, path: &path });
    Ok(())
}

/// `writable`: whether there is an upper, and whether it is kept.
fn overlay(lower: &[u32], upper: u32, work: u32, writable: Option<bool>, makes: &mut Steps) {
    let lower: Vec<u8> = lower.iter().flat_map(|slot| slot.to_le_bytes()).collect();
    let (keep, writable) = (writable.unwrap_or(false).into(), writable.is_some().into());
    makes.push(Step::RootOverlay { lower: &lower, upper, work, writable, keep });
}

/// Makes every mount point of an overlay in its lowest layer, so that neither the layers of the caller nor a kept
/// upper ever hold a trace of them.
fn stubs(dests: &[(CString, u32)], makes: &mut Steps) -> Result<()> {
    mount_points(c"stub", dests, &[], makes)
}

/// Makes mount points in a directory of base. What lies in an entry of the host view is there already.
fn mount_points(
    top: &CStr,
    dests: &[(CString, u32)],
    view: &[(&'static str, Option<PathBuf>)],
    makes: &mut Steps,
) -> Result<()> {
    let mut made = std::collections::BTreeSet::new();
    makes.push(Step::Dir { path: top, mode: 0o755 });
    let view_dirs = view.iter().filter(|(_, target)| target.is_none());
    let view_dirs = view_dirs.map(|(path, _)| c_string(path)).collect::<Result<Vec<_>>>()?;
    for (dest, make) in dests.iter().map(|(dest, make)| (dest, *make)).chain(view_dirs.iter().map(|d| (d, MAKE_DIR))) {
        let path = as_path(dest);
        if view.iter().any(|(entry, _)| path != Path::new(entry) && path.starts_with(entry)) {
            continue;
        }
        let below = path.strip_prefix("/").unwrap_or(path);
        let mut at = as_path(top).to_path_buf();
        for (index, part) in below.iter().enumerate() {
            at.push(part);
            if !made.insert(at.clone()) {
                continue;
            }
            let name = path_string(&at)?;
            if index + 1 == below.iter().count() && make == MAKE_FILE {
                makes.push(Step::File { path: &name, mode: 0o644, content: b"" });
            } else {
                makes.push(Step::Dir { path: &name, mode: 0o755 });
            }
        }
    }
    Ok(())
}

/// Whether a mount point is there already. A link is for init to follow, beneath the root.
fn present(root: &Path, dest: &CStr) -> Result<bool> {
    let path = as_path(dest);
    Ok(look(&root.join(path.strip_prefix("/").unwrap_or(path)))?.is_some())
}

/// Our own account files over those of the root, and names that do not tell the host's.
fn accounts(inputs: &Inputs<'_>, account: &Account, makes: &mut Steps) -> Result<()> {
    let name = inputs.hostname;
    let hosts = format!("127.0.0.1 localhost {name}\n::1 localhost ip6-localhost ip6-loopback\n");
    let contents = [&account.passwd, &account.group, &hosts, &format!("{name}\n")];
    let host = matches!(inputs.policy.root, Root::Host);
    for (((base, dest), content), there) in ACCOUNTS.into_iter().zip(contents).zip(inputs.host.accounts) {
        // What adds users inside replaces these files, and a mount would stand in its way.
        if inputs.policy.of_image && account.known && matches!(base.to_bytes(), b"passwd" | b"group") {
            continue;
        }
        // The host's /etc is read-only: what is not there cannot be covered, and needs not be hidden.
        if host && !there {
            continue;
        }
        makes.push(Step::File { path: base, mode: 0o644, content: content.as_bytes() });
        let path = beneath(INERT_VIEW, as_path(base))?;
        makes.push(Step::BindBase { path: &path, dest, attributes: INERT | ATTR_RDONLY, make: MAKE_FILE });
    }
    // No other id keeps the program from what only root may read, and nobody asked for that.
    let is_root = inputs.identity.maps_host_root() && inputs.policy.identity.host_ids != HostIds::Shared;
    if host && is_root && look(Path::new("/etc"))?.is_some_and(|meta| meta.is_dir()) {
        let mut secrets = Vec::new();
        host::closed(Path::new("/etc"), &mut secrets)?;
        for (path, is_dir) in secrets {
            let cover = if is_dir { c"inert/empty" } else { c"inert/blank" };
            let dest = path_string(&path)?;
            makes.push(Step::BindBase { path: cover, dest: &dest, attributes: INERT | ATTR_RDONLY, make: 0 });
        }
    }
    if host && inputs.host.machine_id {
        let random = crate::sys::random::<16>().map_err(|errno| {
            Failure::new("machine-id", "", "the kernel gives no random numbers").errno(errno as i32).setup()
        })?;
        let content = format!("{:032x}\n", u128::from_ne_bytes(random));
        makes.push(Step::File { path: c"machine-id", mode: 0o444, content: content.as_bytes() });
        let (path, attributes) = (beneath(INERT_VIEW, "machine-id")?, INERT | ATTR_RDONLY);
        makes.push(Step::BindBase { path: &path, dest: MACHINE_ID, attributes, make: MAKE_FILE });
    }
    Ok(())
}

/// A /dev of our own: only what is harmless, with its own pseudo-terminals and its own shared memory.
fn devices(host: &HostFiles, place: &CStr, opens: &mut Steps, makes: &mut Steps) -> Result<()> {
    for (name, target) in [
        (c"dev/fd", c"/proc/self/fd"),
        (c"dev/stdin", c"/proc/self/fd/0"),
        (c"dev/stdout", c"/proc/self/fd/1"),
        (c"dev/stderr", c"/proc/self/fd/2"),
        (c"dev/ptmx", c"pts/ptmx"),
    ] {
        makes.push(Step::Symlink { path: name, target });
    }
    for name in [c"dev/pts", c"dev/shm"] {
        makes.push(Step::Dir { path: name, mode: 0o755 });
    }
    let mut nodes = Vec::new();
    for name in &host.devices {
        makes.push(Step::File { path: &c_string(&name[1..])?, mode: 0o666, content: b"" });
        nodes.push((opens.open_tree(Path::new(name))?, beneath(place, name)?));
    }
    let (dev, pts, shm) = (beneath(place, "/dev")?, beneath(place, "/dev/pts")?, beneath(place, "/dev/shm")?);
    makes.push(Step::BindBase { path: c"dev", dest: &dev, attributes: INERT | ATTR_RDONLY, make: MAKE_DIR });
    for (slot, dest) in nodes {
        makes.push(Step::Bind { slot, dest: &dest, attributes: 0, make: MAKE_FILE });
    }
    makes.push(Step::NewFs {
        kind: c"devpts",
        options: b"newinstance\0ptmxmode=0666\0mode=0620\0",
        dest: &pts,
        attributes: ATTR_NOSUID | ATTR_NOEXEC,
        make: MAKE_DIR,
    });
    makes.push(Step::BindBase { path: c"shm", dest: &shm, attributes: PLAIN, make: MAKE_DIR });
    makes.push(Step::Attributes { dest: &dev, attributes: ATTR_NOSUID | ATTR_NOEXEC });
    Ok(())
}

fn proc(inputs: &Inputs<'_>, place: &CStr, makes: &mut Steps) -> Result<()> {
    let dest = beneath(place, "/proc")?;
    makes.push(Step::NewFs { kind: c"proc", options: b"", dest: &dest, attributes: INERT, make: MAKE_DIR });
    // Who is not the host's root cannot be given rights over its files by any capability (capabilities(7), inodes with
    // ids that are not mapped): there a mount would repeat what the mode says.
    let roots = inputs.identity.maps_host_root();
    for (path, secret) in &inputs.host.masked {
        let cover = match secret {
            Secret::Directory => c"inert/empty",
            Secret::Guarded if !roots => continue,
            Secret::File | Secret::Guarded => c"inert/blank",
        };
        let dest = beneath(place, path)?;
        makes.push(Step::BindBase { path: cover, dest: &dest, attributes: INERT | ATTR_RDONLY, make: 0 });
    }
    for path in &inputs.host.restricted {
        // Of these only /proc/sys has files that belong to the sandbox's own namespaces.
        if roots || *path == "/proc/sys" {
            makes.push(Step::Restrict { dest: &beneath(place, path)?, attributes: INERT | ATTR_RDONLY });
        }
    }
    Ok(())
}

/// With the host's network, names should resolve: /etc/resolv.conf often points into /run, which is not shown.
fn resolver(makes: &mut Steps) -> Result<()> {
    let Ok(real) = fs::canonicalize("/etc/resolv.conf") else { return Ok(()) };
    let Ok(content) = fs::read(&real) else { return Ok(()) };
    if real.starts_with("/run") {
        makes.push(Step::File { path: c"resolv", mode: 0o644, content: &content });
        let dest = path_string(&real)?;
        makes.push(Step::BindBase { path: c"resolv", dest: &dest, attributes: READ_ONLY, make: MAKE_FILE });
    }
    Ok(())
}

/// A request of the caller, with everything about the host's side known.
struct Bind<'a> {
    mount: &'a Mount,
    dest: CString,
    make: u32,
    source: PathBuf,
}

fn resolve_mounts(mounts: &[Mount]) -> Result<Vec<Bind<'_>>> {
    mounts
        .iter()
        .map(|mount| {
            let (dest, make, source) = match mount {
                Mount::Bind { source, dest, .. } => {
                    let source = absolute(source)?;
                    let meta = fs::metadata(&source).map_err(|e| missing("bind source", &source, &e))?;
                    if !meta.is_dir() && !meta.is_file() && meta.rdev() == 0 && !is_socket(&meta) {
                        let failure =
                            Failure::new("option", source.display().to_string(), "cannot be bound: it is a pipe");
                        return Err(failure.hint("pass a descriptor instead").config());
                    }
                    (dest, if meta.is_dir() { MAKE_DIR } else { MAKE_FILE }, source)
                }
                Mount::Tmpfs { dest, .. } => (dest, MAKE_DIR, PathBuf::new()),
                Mount::File { dest, .. } => (dest, MAKE_FILE, PathBuf::new()),
            };
            Ok(Bind { mount, dest: path_string(dest)?, make, source })
        })
        .collect()
}

fn is_socket(meta: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    meta.file_type().is_socket()
}

fn mount(bind: &Bind<'_>, index: usize, opens: &mut Steps, makes: &mut Steps) -> Result<()> {
    let (dest, make) = (bind.dest.as_c_str(), bind.make);
    match bind.mount {
        Mount::Bind { writable, .. } => {
            let slot = opens.open_named_tree(&bind.source)?;
            makes.push(Step::Bind { slot, dest, attributes: if *writable { PLAIN } else { READ_ONLY }, make });
        }
        Mount::Tmpfs { size: None, .. } => {
            let path = c_string(&format!("tmpfs-{index}"))?;
            makes.push(Step::Dir { path: &path, mode: 0o1777 });
            makes.push(Step::BindBase { path: &path, dest, attributes: PLAIN, make });
        }
        Mount::Tmpfs { size: Some(size), .. } => {
            let options = format!("mode=1777\0size={size}\0");
            makes.push(Step::NewFs { kind: c"tmpfs", options: options.as_bytes(), dest, attributes: PLAIN, make });
        }
        Mount::File { content, mode, .. } => {
            let path = c_string(&format!("file-{index}"))?;
            makes.push(Step::File { path: &path, mode: *mode, content });
            makes.push(Step::BindBase { path: &path, dest, attributes: READ_ONLY, make });
        }
    }
    Ok(())
}

/// A directory that has to be there. Where it is, is decided once, here; init opens it by this path.
fn directory(path: &Path, what: &'static str) -> Result<PathBuf> {
    let path = absolute(path)?;
    match fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => Ok(path),
        Ok(_) => {
            let failure = Failure::new("option", path.display().to_string(), format!("the {what} is not a directory"));
            Err(failure
                .errno(libc::ENOTDIR)
                .hint("name a directory; unpack an archive first: `sandcell load`")
                .config())
        }
        Err(error) => Err(missing(what, &path, &error)),
    }
}

fn missing(what: &str, path: &Path, error: &io::Error) -> crate::Error {
    let failure = Failure::new("option", path.display().to_string(), format!("the {what} cannot be used")).cause(error);
    failure.hint("name one that is there and that you may reach").config()
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| missing("path", path, &e))
}

/// A destination inside: absolute, without `..`, not the root itself.
pub(crate) fn destination(path: &Path) -> Result<PathBuf> {
    let fail = |message: &str, hint: &str| {
        Failure::new("option", path.display().to_string(), format!("the destination {message}")).hint(hint).config()
    };
    if path.as_os_str().as_bytes().contains(&0) {
        return Err(fail("contains a NUL byte", ""));
    }
    if !path.is_absolute() {
        return Err(fail("is not absolute", "begin it with /"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(fail("contains `..`", "write the path that is meant"));
    }
    // `components` drops `.` and repeated slashes.
    let clean: PathBuf = path.components().collect();
    if clean == Path::new("/") {
        return Err(fail("is the root", "use the root option for the root file system"));
    }
    Ok(clean)
}
