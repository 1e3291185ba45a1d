//! The root file system: which mounts, in which order.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::account::Account;
use super::view::{self, Part};
use super::{INERT, Inputs, PLAIN, READ_ONLY, Steps, c_string, path_string};
use crate::error::{Failure, Result};
use crate::overlay::upper::DiskUpper;
use crate::policy::files::RootFs;
use crate::policy::{Allow, Mount};
use crate::resolve::host_view::{self, ACCOUNTS, HostFiles, MACHINE_ID, Secret, as_path, look};
use crate::wire::{ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, INERT_VIEW, MAKE_DIR, MAKE_FILE, NEW, NO_SLOT, Step};

/// Directories of base that appear in the root: name in base, destination, permission bits.
const PRIVATE: [(&CStr, &CStr, u32); 3] =
    [(c"tmp", c"/tmp", 0o1777), (c"var-tmp", c"/var/tmp", 0o1777), (c"run", c"/run", 0o755)];

pub(super) fn compile(inputs: &Inputs<'_>, account: &Account, opens: &mut Steps, makes: &mut Steps) -> Result<()> {
    let (resolved, policy) = (inputs.resolved, &inputs.resolved.policy);
    let files = &resolved.files;
    let binds = resolve_mounts(&files.mounts)?;
    makes.push(Step::Base {
        size: policy.limits.disk.unwrap_or(0),
        inodes: policy.limits.inodes.map_or(0, |n| n + OWN_INODES),
    });
    let mut dests: Vec<(CString, u32)> = Vec::new();
    // What an image has in /run is for its programs, which expect it there; writes to it go to the upper.
    let private = if files.of_image && !policy.init { &PRIVATE[..2] } else { &PRIVATE[..] };
    let is_kept = |dest: &CStr| files.kept_dirs.iter().any(|kept| kept == as_path(dest));
    let private = || private.iter().filter(|(_, dest, _)| !is_kept(dest));
    for (_, dest, _) in private() {
        dests.push(((*dest).to_owned(), MAKE_DIR));
    }
    if let Some(dir) = resolved.dir.as_ref().filter(|_| files.of_image) {
        // Tools that run images make it where it is missing.
        dests.push((path_string(dir)?, MAKE_DIR));
    }
    for dest in [c"/proc", c"/dev"].into_iter().chain(policy.init.then_some(c"/sys")) {
        dests.push((dest.to_owned(), MAKE_DIR));
    }
    let home = path_string(&account.home)?;
    // The home of an image's own account is the image's, and often full of its program.
    let private_home = !((files.of_image || policy.init) && account.known);
    if private_home {
        dests.push((home.clone(), MAKE_DIR));
    }
    for (_, dest) in ACCOUNTS {
        dests.push((dest.to_owned(), MAKE_FILE));
    }
    // Those of devices are in a directory of our own.
    let named = || binds.iter().filter(|bind| !matches!(bind.mount, Mount::Device { .. }));
    for bind in named() {
        dests.push((bind.dest.clone(), bind.make));
    }
    let ours = dests.len() - named().count();

    let parts = match base(inputs, &dests)? {
        Base::Parts(parts) => {
            // Every mount point that is known beforehand: cheaper than to find out that it is missing.
            view::mount_points(c"root", &dests[..ours], &parts, makes)?;
            makes.push(Step::RootBase { path: c"root" });
            Some(parts)
        }
        Base::Directory(dir) => {
            directory_root(&dir, &dests, opens, makes)?;
            None
        }
        Base::Layers(layers) => {
            layers_root(layers, inputs.upper, &dests, opens, makes)?;
            None
        }
    };
    let base_root = parts.is_some();
    for (name, mode) in [(c"home", 0o700), (c"shm", 0o1777), (c"dev", 0o755), (c"empty", 0o555)] {
        makes.push(Step::Dir { path: name, mode });
    }
    for (name, _, mode) in private() {
        makes.push(Step::Dir { path: name, mode: *mode });
    }
    makes.push(Step::File { path: c"blank", mode: 0, content: b"" });
    makes.push(Step::File { path: c"boot-id", mode: 0o444, content: boot_id()?.as_bytes() });

    if let Some(parts) = &parts {
        view::show(parts, opens, makes)?;
        // Of the host's own account files those that are not there are left out.
        let from = if files.root == RootFs::Host { ours } else { 0 };
        view::add_missing(parts, &dests, from, opens, makes)?;
    }
    accounts(inputs, account, makes)?;
    // A root of base has their places, and nothing that could lead elsewhere. Into others they are moved when done.
    let place = if base_root { NEW } else { BESIDE };
    if !base_root {
        for path in [BESIDE, c"beside/dev", c"beside/proc"] {
            makes.push(Step::Dir { path, mode: 0o755 });
        }
    }
    devices(inputs.host, place, &binds, opens, makes)?;
    proc(inputs, place, makes)?;
    if !base_root {
        for (path, dest) in [(c"beside/dev", c"/dev"), (c"beside/proc", c"/proc")] {
            makes.push(Step::Move { path, dest, make: MAKE_DIR });
        }
    }
    let homes = private_home.then_some((c"home", home.as_c_str()));
    for (path, dest) in private().map(|(name, dest, _)| (*name, *dest)).chain(homes) {
        let within = if base_root { Some(beneath(NEW, as_path(dest))?) } else { None };
        let dest = within.as_deref().unwrap_or(dest);
        makes.push(Step::BindBase { path, dest, attributes: PLAIN, make: MAKE_DIR });
    }
    if policy.init {
        for_init(base_root, makes)?;
    }
    for (index, bind) in binds.iter().enumerate() {
        mount(bind, index, opens, makes)?;
    }
    if inputs.resolved.policy.network_in_effect().uses_host_resolver() {
        resolver(parts.as_deref(), makes)?;
    }
    if base_root {
        makes.push(Step::RootAttributes { attributes: READ_ONLY });
    }
    Ok(())
}

/// What systemd wants to find mounted, or mounts itself, which it may not: /sys, with nothing of the host and a place for the
/// system's group, and /run/lock.
fn for_init(base_root: bool, makes: &mut Steps) -> Result<()> {
    for path in [c"sys", c"sys/fs", c"sys/fs/cgroup"] {
        makes.push(Step::Dir { path, mode: 0o555 });
    }
    for (path, mode) in [(c"run/lock", 0o755), (c"run-lock", 0o1777)] {
        makes.push(Step::Dir { path, mode });
    }
    let sys = beneath(INERT_VIEW, "sys")?;
    for (path, dest, attributes) in [(sys.as_c_str(), c"/sys", INERT | ATTR_RDONLY), (c"run-lock", c"/run/lock", PLAIN)]
    {
        let within = if base_root { Some(beneath(NEW, as_path(dest))?) } else { None };
        makes.push(Step::BindBase { path, dest: within.as_deref().unwrap_or(dest), attributes, make: MAKE_DIR });
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

/// What the root is made of.
enum Base<'a> {
    /// Several mounts.
    Parts(Vec<Part>),
    /// This directory, perhaps with an overlay that has what is missing in it.
    Directory(PathBuf),
    Layers(&'a [PathBuf]),
}

fn base<'a>(inputs: &Inputs<'a>, dests: &[(CString, u32)]) -> Result<Base<'a>> {
    Ok(match &inputs.resolved.files.root {
        RootFs::Host => Base::Parts(view::of_host(inputs.host)),
        RootFs::Empty => Base::Parts(Vec::new()),
        RootFs::Dir(dir) => {
            let dir = directory(dir, "root")?;
            // The kernel takes no layer of an overlay that has mounts in it.
            if !complete(&dir, dests)? && view::mounted_beneath(&dir)? {
                Base::Parts(view::of_directory(&dir, dests)?)
            } else {
                Base::Directory(dir)
            }
        }
        RootFs::Layers(layers) => Base::Layers(layers),
    })
}

/// Whether every mount point is there already. A link is for init to follow, beneath the root.
fn complete(root: &Path, dests: &[(CString, u32)]) -> Result<bool> {
    for (dest, _) in dests {
        let path = as_path(dest);
        if look(&root.join(path.strip_prefix("/").unwrap_or(path)))?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A root of one directory.
fn directory_root(dir: &Path, dests: &[(CString, u32)], opens: &mut Steps, makes: &mut Steps) -> Result<()> {
    if complete(dir, dests)? {
        let slot = opens.open_named_tree(dir)?;
        makes.push(Step::RootTree { slot, attributes: READ_ONLY });
    } else {
        let lower = layer(dir, opens, makes)?;
        stubs(dests, makes)?;
        overlay(&[lower], NO_SLOT, NO_SLOT, None, makes);
    }
    Ok(())
}

/// A root of layers and an upper.
fn layers_root(
    layers: &[PathBuf],
    disk: Option<&DiskUpper>,
    dests: &[(CString, u32)],
    opens: &mut Steps,
    makes: &mut Steps,
) -> Result<()> {
    let mut lower = Vec::new();
    for layer in layers.iter().rev() {
        lower.push(self::layer(&directory(layer, "layer")?, opens, makes)?);
    }
    let (mut upper, mut work) = (NO_SLOT, NO_SLOT);
    if let Some(disk) = disk {
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
    overlay(&lower, upper, work, Some(disk.is_some_and(|disk| !disk.is_private())), makes);
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
    view::mount_points(c"stub", dests, &[], makes)
}

/// Our own account files over those of the root, and names that do not tell the host's.
fn accounts(inputs: &Inputs<'_>, account: &Account, makes: &mut Steps) -> Result<()> {
    let name = &inputs.given.hostname;
    let hosts = format!("127.0.0.1 localhost {name}\n::1 localhost ip6-localhost ip6-loopback\n");
    let contents = [&account.passwd, &account.group, &hosts, &format!("{name}\n")];
    let host = inputs.resolved.files.root == RootFs::Host;
    for (((base, dest), content), there) in ACCOUNTS.into_iter().zip(contents).zip(inputs.host.accounts) {
        // What adds users inside replaces these files, and a mount would stand in its way.
        let own = inputs.resolved.files.of_image || inputs.resolved.policy.init;
        if own && account.known && matches!(base.to_bytes(), b"passwd" | b"group") {
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
    let is_root = inputs.identity.maps_host_root() && !inputs.resolved.policy.identity.host_ids.are_the_callers();
    if host && is_root && look(Path::new("/etc"))?.is_some_and(|meta| meta.is_dir()) {
        let mut secrets = Vec::new();
        host_view::closed(Path::new("/etc"), &mut secrets)?;
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
fn devices(host: &HostFiles, place: &CStr, binds: &[Bind<'_>], opens: &mut Steps, makes: &mut Steps) -> Result<()> {
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
    for bind in binds.iter().filter(|bind| matches!(bind.mount, Mount::Device { .. })) {
        let within = as_path(&bind.dest).strip_prefix("/").unwrap_or(as_path(&bind.dest));
        let mut above: Vec<&Path> = within.ancestors().skip(1).take_while(|dir| *dir != Path::new("dev")).collect();
        above.reverse();
        for dir in above {
            makes.push(Step::Dir { path: &path_string(dir)?, mode: 0o755 });
        }
        makes.push(Step::File { path: &path_string(within)?, mode: 0o666, content: b"" });
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
    let roots = inputs.identity.maps_host_root();
    // The kernel lets nobody mount a /proc who sees only part of one.
    if !roots && inputs.resolved.policy.allows(Allow::Nested) {
        return Ok(());
    }
    for (path, secret) in masked(inputs.host, roots) {
        let cover = match secret {
            Secret::Directory => c"inert/empty",
            Secret::File | Secret::Guarded => c"inert/blank",
            Secret::BootId => c"inert/boot-id",
        };
        let dest = beneath(place, path)?;
        makes.push(Step::BindBase { path: cover, dest: &dest, attributes: INERT | ATTR_RDONLY, make: 0 });
    }
    for path in restricted(inputs.host, roots) {
        makes.push(Step::Restrict { dest: &beneath(place, path)?, attributes: INERT | ATTR_RDONLY });
    }
    Ok(())
}

/// What of /proc is hidden. Who is not the host's root cannot be given rights over its files by any capability
/// (capabilities(7), inodes with ids that are not mapped): there a mount would repeat what the mode says.
fn masked(host: &HostFiles, roots: bool) -> impl Iterator<Item = (&'static str, Secret)> {
    host.masked.iter().copied().filter(move |(_, secret)| roots || !matches!(secret, Secret::Guarded))
}

/// What of /proc is read-only. Only /proc/sys has files that belong to the sandbox's own namespaces.
fn restricted(host: &HostFiles, roots: bool) -> impl Iterator<Item = &'static str> {
    host.restricted.iter().copied().filter(move |path| roots || *path == "/proc/sys")
}

/// Both, for the /proc that an init of a system has of its own: paths with a NUL behind each.
pub(crate) fn hidden_from_init(host: &HostFiles, roots: bool) -> [Vec<u8>; 2] {
    let list = |paths: &mut dyn Iterator<Item = &'static str>| paths.flat_map(|path| [path, "\0"]).collect::<String>();
    [&mut masked(host, roots).map(|(path, _)| path) as &mut dyn Iterator<Item = _>, &mut restricted(host, roots)]
        .map(|paths| list(paths).into_bytes())
}

/// A random UUID (version 4) as the kernel writes one.
fn boot_id() -> Result<String> {
    let random = crate::sys::random::<16>().map_err(|errno| {
        Failure::new("boot-id", "", "the kernel gives no random numbers").errno(errno as i32).setup()
    })?;
    let number = u128::from_be_bytes(random) & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{number:032x}");
    Ok(format!("{}-{}-{}-{}-{}\n", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// With the host's network, names should resolve: /etc/resolv.conf is often a link to a place that is not shown.
fn resolver(parts: Option<&[Part]>, makes: &mut Steps) -> Result<()> {
    let link = Path::new("/etc/resolv.conf");
    let shown = |path: &Path| parts.map_or(!path.starts_with("/run"), |parts| view::shows(parts, path));
    let (Some(place), Ok(content)) = (hidden(link, &shown), fs::read(link)) else { return Ok(()) };
    makes.push(Step::File { path: c"resolv", mode: 0o644, content: &content });
    let dest = path_string(&place)?;
    makes.push(Step::BindBase { path: c"resolv", dest: &dest, attributes: READ_ONLY, make: MAKE_FILE });
    Ok(())
}

/// Where a link leads inside: to the first place on its way that is not shown, be that a link itself on the host.
fn hidden(link: &Path, shown: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    const MOST_LINKS: usize = 40;
    let mut place = link.to_owned();
    for _ in 0..MOST_LINKS {
        let mut next = fs::canonicalize(place.parent()?).ok()?;
        for part in fs::read_link(&place).ok()?.components() {
            match part {
                Component::ParentDir => drop(next.pop()),
                part => next.push(part),
            }
        }
        if !shown(&next) {
            return Some(next);
        }
        place = fs::canonicalize(next.parent()?).ok()?.join(next.file_name()?);
    }
    None
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
                Mount::Device { source, dest, .. } => (dest, MAKE_FILE, device(source)?),
                Mount::Socket { source, dest } => (dest, MAKE_FILE, absolute(source)?),
                Mount::Tmpfs { dest, .. } => (dest, MAKE_DIR, PathBuf::new()),
                Mount::File { dest, .. } => (dest, MAKE_FILE, PathBuf::new()),
            };
            Ok(Bind { mount, dest: path_string(dest)?, make, source })
        })
        .collect()
}

/// A device that can be opened where it is mounted from.
fn device(source: &Path) -> Result<PathBuf> {
    let source = absolute(source)?;
    let fs = statvfs(&source).map_err(|errno| missing("device", &source, &errno.into()))?;
    if fs.flags().contains(FsFlags::ST_NODEV) {
        let message = "lies on a file system that is mounted without devices (nodev)";
        let failure = Failure::new("option", format!("device {}", source.display()), message);
        return Err(failure.hint("Name the device where it can be opened, in /dev.").config());
    }
    Ok(source)
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
        Mount::Device { writable, .. } => {
            let slot = opens.open_named_tree(&bind.source)?;
            makes.push(Step::Bind { slot, dest, attributes: ATTR_NOSUID | ATTR_NOEXEC, make });
            makes.push(Step::Usable { dest, write: (*writable).into(), read: 1 });
        }
        Mount::Socket { .. } => {
            let slot = opens.open_named_tree(&bind.source)?;
            makes.push(Step::Bind { slot, dest, attributes: INERT | ATTR_RDONLY, make });
            makes.push(Step::Usable { dest, write: 1, read: 0 });
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
