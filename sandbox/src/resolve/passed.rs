//! Devices and sockets of the host that are passed on: what there is of them, what is refused, and by which variables programs
//! find them.

use std::env::var_os;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Failure, Result};
use crate::policy::{Allow, Mount, Policy};
use crate::report::{Enforced, Mechanism, Requested};
use crate::resolve::host_view::DEVICES;

/// Why nothing enforces anything of a socket that gives its clients the host.
const GIVES_THE_HOST: &str =
    "it was asked for: whoever reaches this socket can have programs run outside of the sandbox";

/// Puts each device of a directory in place of the directory, finds the mistakes, and adds the variables that go with sockets.
pub(super) fn resolve(
    policy: &Policy,
    mounts: &mut Vec<Mount>,
    env: &mut Vec<(OsString, OsString)>,
) -> Result<Vec<Enforced>> {
    let mut notes = Vec::new();
    let mut all = Vec::with_capacity(mounts.len());
    for mount in mounts.drain(..) {
        match &mount {
            Mount::Device { source, dest, writable } => {
                let before = all.len();
                devices(source, dest, *writable, &mut all)?;
                if all.len() == before {
                    let hint = "Name a device, such as /dev/fuse, or a directory with devices in it.";
                    return Err(wrong("device", source, "is no device, and there is none in it", hint));
                }
                continue;
            }
            Mount::Socket { source, dest } => {
                let meta = fs::metadata(source).map_err(|e| unusable("socket", source, &e))?;
                if !meta.file_type().is_socket() {
                    return Err(wrong("socket", source, "is no Unix socket", "Name one, or show a file by `ro`."));
                }
                notes.extend(guard(policy, source, &meta)?);
                env.extend(variable(&meta, dest));
            }
            Mount::Bind { source, .. } => {
                // What is not there is for the Plan to say.
                if let Ok(meta) = fs::metadata(source)
                    && meta.file_type().is_socket()
                {
                    notes.extend(guard(policy, source, &meta)?);
                }
            }
            Mount::Tmpfs { .. } | Mount::File { .. } => {}
        }
        all.push(mount);
    }
    *mounts = all;
    read_only_once(mounts)?;
    Ok(notes)
}

/// Landlock knows a device by its inode: who may write to it by one name may do so by all.
fn read_only_once(mounts: &[Mount]) -> Result<()> {
    for mount in mounts {
        let Mount::Device { source, writable: false, .. } = mount else { continue };
        let Ok(meta) = fs::metadata(source) else { continue };
        let shown = mounts.iter().any(|other| match other {
            Mount::Device { source, writable: true, .. } => is_same(source, &meta),
            _ => false,
        });
        if shown || DEVICES.iter().any(|own| is_same(Path::new(own), &meta)) {
            let hint = "Show a device either read-only or writable; leave out what every sandbox has of its own.";
            return Err(wrong("device", source, "is to be read-only, and is there writable, too", hint));
        }
    }
    Ok(())
}

fn wrong(option: &'static str, path: &Path, message: &str, hint: &str) -> crate::Error {
    Failure::new("option", option, format!("{} {message}", path.display())).hint(hint).config()
}

fn unusable(option: &'static str, path: &Path, error: &std::io::Error) -> crate::Error {
    let failure = Failure::new("option", option, format!("{} cannot be used", path.display())).cause(error);
    failure.hint("Name one that is there and that you may reach.").config()
}

/// The device itself, or those in a directory. Links in a directory are other names of devices, and left out.
fn devices(source: &Path, dest: &Path, writable: bool, all: &mut Vec<Mount>) -> Result<()> {
    let meta = fs::metadata(source).map_err(|e| unusable("device", source, &e))?;
    let kind = meta.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        all.push(Mount::device(source, dest, writable));
        return Ok(());
    }
    if !meta.is_dir() {
        let hint = "Name a device, such as /dev/fuse; show a file by `ro` or `rw`, a socket by `socket`.";
        return Err(wrong("device", source, "is no device", hint));
    }
    for entry in fs::read_dir(source).map_err(|e| unusable("device", source, &e))? {
        let path = entry.map_err(|e| unusable("device", source, &e))?.path();
        let kind = fs::symlink_metadata(&path).map_err(|e| unusable("device", &path, &e))?.file_type();
        if (kind.is_char_device() || kind.is_block_device() || kind.is_dir())
            && let Some(name) = path.file_name()
        {
            devices(&path, &dest.join(name), writable, all)?;
        }
    }
    Ok(())
}

/// Sockets by which whoever reaches them has programs run with other rights than the sandbox's: by the last part of the path,
/// links resolved.
const HOST_SOCKETS: [&str; 14] = [
    "docker.sock",
    "podman.sock",
    "containerd.sock",
    "crio.sock",
    "buildkitd.sock",
    "dockershim.sock",
    "cri-dockerd.sock",
    "snapd.socket",
    "libvirt-sock",
    "virtqemud-sock",
    // LXD and Incus.
    "unix.socket",
    // systemd, and the message buses by which it and others are told to start programs.
    "private",
    "system_bus_socket",
    "bus",
];

/// The same by where they are: a link or another mount has the same inode.
const PLACES: [&str; 10] = [
    "/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/buildkit/buildkitd.sock",
    "/run/snapd.socket",
    "/run/libvirt/libvirt-sock",
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
];
const PLACES_OF_USER: [&str; 7] = [
    "docker.sock",
    "podman/podman.sock",
    "containerd/containerd.sock",
    "buildkit/buildkitd.sock",
    "buildkit-default/buildkitd.sock",
    "systemd/private",
    "bus",
];

/// The line of the report for a socket that gives its clients the host, and was allowed all the same.
fn guard(policy: &Policy, source: &Path, meta: &fs::Metadata) -> Result<Option<Enforced>> {
    let real = fs::canonicalize(source).map_err(|e| unusable("socket", source, &e))?;
    let known = real.file_name().is_some_and(|name| HOST_SOCKETS.iter().any(|known| name == *known))
        || PLACES.iter().any(|place| is_same(Path::new(place), meta))
        || runtime_dir().is_some_and(|dir| PLACES_OF_USER.iter().any(|place| is_same(&dir.join(place), meta)));
    if !known {
        return Ok(None);
    }
    if policy.allows(Allow::EngineSocket) {
        let line = Enforced::new("socket", Requested::Word(source.display().to_string()), Mechanism::Nothing);
        return Ok(Some(line.why(GIVES_THE_HOST)));
    }
    let message = "gives whoever reaches it the host: by it programs are run outside of the sandbox";
    let hint = "Do without it, or put a proxy in front of it that filters (xdg-dbus-proxy for a message bus); or insist: `allow` engine-socket.";
    Err(wrong("socket", source, message, hint))
}

fn is_same(place: &Path, meta: &fs::Metadata) -> bool {
    fs::metadata(place).is_ok_and(|other| (other.dev(), other.ino()) == (meta.dev(), meta.ino()))
}

fn runtime_dir() -> Option<PathBuf> {
    var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
}

/// The variable by which programs find a socket, where it is the one that the caller's own names.
fn variable(meta: &fs::Metadata, dest: &Path) -> Option<(OsString, OsString)> {
    if var_os("SSH_AUTH_SOCK").is_some_and(|own| is_same(Path::new(&own), meta)) {
        return Some(("SSH_AUTH_SOCK".into(), dest.into()));
    }
    // An absolute name is taken as it is.
    let display = var_os("WAYLAND_DISPLAY").unwrap_or_else(|| "wayland-0".into());
    if runtime_dir().is_some_and(|dir| is_same(&dir.join(display), meta)) {
        return Some(("WAYLAND_DISPLAY".into(), dest.into()));
    }
    let bus = var_os("DBUS_SESSION_BUS_ADDRESS")?;
    let path = bus.to_str()?.strip_prefix("unix:path=")?.split([',', ';']).next()?;
    is_same(Path::new(path), meta).then(|| {
        let mut address = OsString::from("unix:path=");
        address.push(dest);
        ("DBUS_SESSION_BUS_ADDRESS".into(), address)
    })
}
