//! Finds every mistake of a policy that can be found without starting anything.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::kernel_names::Resource;

use super::options;
use super::{Mount, Policy, Root, User};
use crate::error::{Failure, Result};

/// What execve(2) cannot carry.
pub(crate) const NO_NUL: &str = "leave the byte out: the kernel would end the text there";

fn wrong(subject: &str, message: impl Into<String>, hint: &str) -> crate::Error {
    Failure::new("option", subject, message).hint(hint).config()
}

pub(crate) fn check(policy: &Policy) -> Result<()> {
    #[cfg(feature = "image")]
    check_image(policy)?;
    policy.mounts.iter().try_for_each(check_mount)?;
    match (&policy.root, &policy.upper) {
        (Root::Layers(layers), _) => check_layers(layers)?,
        #[cfg(feature = "image")]
        (Root::Image(_), _) => {}
        (Root::Host | Root::Empty | Root::Dir(_), None) => {}
        (Root::Host | Root::Empty | Root::Dir(_), Some(_)) => {
            return Err(wrong("upper", "there are no layers that it could lie on", "give the layers of an overlay"));
        }
    }
    if let Some(name) = &policy.hostname {
        let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if name.is_empty() || name.len() > 63 || !name.chars().all(fine) {
            return Err(wrong("hostname", format!("{name:?} is no host name"), "1 to 63 letters, digits, `-` and `.`"));
        }
    }
    if let Some(dir) = &policy.chdir
        && (!dir.is_absolute() || dir.as_os_str().as_bytes().contains(&0))
    {
        return Err(wrong("chdir", format!("{} is not an absolute path", dir.display()), "begin it with /"));
    }
    super::system::check(policy)?;
    check_limits(policy)?;
    super::rules::check(policy)?;
    super::ports::check(policy)?;
    super::proxy::check(policy)?;
    for (key, value) in &policy.env {
        check_variable(key, value)?;
    }
    if let User::Fixed { uid: u32::MAX, .. } | User::Fixed { gid: u32::MAX, .. } = policy.identity.user {
        return Err(wrong("user", "4294967295 is no id", "it means `no change` to the kernel"));
    }
    #[cfg(not(feature = "landlock"))]
    if policy.landlock == crate::policy::Landlock::Required {
        return Err(wrong(
            "landlock",
            "this library was built without Landlock",
            "build it with the feature `landlock`",
        ));
    }
    if !policy.isolation.has_namespaces() {
        #[cfg(feature = "landlock")]
        without_namespaces(policy)?;
        #[cfg(not(feature = "landlock"))]
        return Err(wrong(
            "isolation",
            "this library was built without Landlock",
            "build it with the feature `landlock`",
        ));
    }
    policy.best_effort.named().iter().try_for_each(|item| options::forms::check_item(item))?;
    Ok(())
}

fn check_mount(mount: &Mount) -> Result<()> {
    let clean = destination(mount.dest())?;
    match mount {
        Mount::Tmpfs { size: Some(0), .. } => {
            Err(wrong("tmpfs", "a size of 0 bytes", "leave the size out for no limit of its own"))
        }
        Mount::File { dest, mode, .. } if *mode > 0o777 => {
            let message = format!("the mode {mode:o} of {} has bits beyond 777", dest.display());
            Err(wrong("file", message, "three octal digits, such as 755"))
        }
        Mount::Device { .. } => device_place(&clean),
        Mount::Bind { .. } | Mount::Tmpfs { .. } | Mount::File { .. } | Mount::Socket { .. } => Ok(()),
    }
}

/// What every sandbox has of its own beneath /dev.
const OWN_DEVICES: [&str; 13] =
    ["fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom"];

/// A device belongs beneath /dev: elsewhere every mount says that there are none.
fn device_place(dest: &Path) -> Result<()> {
    let wrong_place = |message: &str, hint| Err(wrong("device", format!("{} {message}", dest.display()), hint));
    let Some(place) = dest.strip_prefix("/dev").ok().filter(|place| place.components().next().is_some()) else {
        return wrong_place(
            "is not beneath /dev, and devices can be opened nowhere else",
            "Give a place: PATH:/dev/NAME.",
        );
    };
    match place.components().next() {
        Some(first) if first.as_os_str() == "zero" || OWN_DEVICES.iter().any(|own| first.as_os_str() == *own) => {
            wrong_place(
                "is one that every sandbox has of its own",
                "Leave it out, or give another place: PATH:/dev/NAME.",
            )
        }
        _ => Ok(()),
    }
}

/// What only an image can give, and where its volumes go.
#[cfg(feature = "image")]
fn check_image(policy: &Policy) -> Result<()> {
    if let (Some(name), false) = (&policy.image_user, policy.root.is_image()) {
        let message = "names a user of an image, and the root is none";
        let hint = "Give numbers or one of the words random, root and caller, or run an image.";
        return Err(wrong(&format!("user={}", name.escape_debug()), message, hint));
    }
    policy.volumes.iter().try_for_each(|volume| destination(&volume.dest).map(drop))
}

/// As many layers as an overlay can have.
pub(crate) fn check_layers(layers: &[PathBuf]) -> Result<()> {
    match layers.len() {
        0 => Err(wrong("layers", "no layer is given", "name at least one directory")),
        1..=498 => Ok(()),
        _ => {
            let message = "at most 498 layers: the kernel stacks 500, and two are the sandbox's";
            Err(wrong("layers", message, "flatten some of them"))
        }
    }
}

fn check_limits(policy: &Policy) -> Result<()> {
    options::check(policy)?;
    for (resource, soft, hard) in &policy.rlimits {
        if soft > hard {
            let message = format!("{resource:?}: the soft limit is above the hard one");
            return Err(wrong("rlimit", message, "the soft limit comes first: SOFT:HARD"));
        }
        if *resource == Resource::RLIMIT_CORE && *soft > 0 {
            let message = "core dumps are off: the host would write them, to where the host thinks fit";
            return Err(wrong("rlimit", message, "leave RLIMIT_CORE at 0"));
        }
    }
    Ok(())
}

/// An environment variable as execve(2) can carry it.
pub(crate) fn check_variable(key: &OsString, value: &OsString) -> Result<()> {
    let key_bytes = key.as_bytes();
    if key_bytes.is_empty() || key_bytes.contains(&b'=') || key_bytes.contains(&0) {
        return Err(wrong("env", format!("{key:?} is no name of a variable"), "no `=`, no NUL, not empty"));
    }
    if value.as_bytes().contains(&0) {
        return Err(wrong("env", format!("the value of {key:?} contains a NUL byte"), NO_NUL));
    }
    Ok(())
}

/// Everything in the request that only namespaces can give.
#[cfg(feature = "landlock")]
fn without_namespaces(policy: &Policy) -> Result<()> {
    let needs = |option: &'static str, what: &str| {
        let message = format!("{what} needs namespaces, and `isolation` asks for a sandbox without them");
        Err(Failure::new("option", option, message).hint("leave one of the two out").config())
    };
    if policy.root != Root::Host || policy.upper.is_some() {
        return needs("root", "a root file system of its own");
    }
    for mount in &policy.mounts {
        match mount {
            Mount::Bind { source, dest, .. } if source == dest => {}
            Mount::Bind { .. } => return needs("mount", "a file shown at another place than its own"),
            Mount::Tmpfs { .. } => return needs("tmpfs", "a private directory"),
            Mount::File { .. } => return needs("file", "a file that is not there"),
            Mount::Device { source, dest, writable: true } if source == dest => {}
            Mount::Device { .. } => return needs("device", "a device shown otherwise than it is"),
            Mount::Socket { .. } => return needs("socket", "a socket"),
        }
    }
    #[cfg(feature = "image")]
    if !policy.volumes.is_empty() {
        return needs("volume", "a volume");
    }
    match policy.identity.user {
        User::Random | User::Caller => {}
        User::Root | User::Fixed { .. } => return needs("user", "another user than the caller"),
    }
    if policy.identity.host_ids.must_be_disjoint() || policy.identity.count > 1 {
        return needs("identity", "an id of the sandbox's own");
    }
    if policy.hostname.is_some() {
        return needs("hostname", "a host name of its own");
    }
    if policy.limits.disk.is_some() || policy.limits.inodes.is_some() {
        return needs("disk", "a limit on private directories");
    }
    if !policy.cap_add.is_empty() {
        return needs("cap_add", "a capability that reaches the sandbox only");
    }
    let alone = |option: &'static str, what: &str| {
        let message = format!("{what}, and in a sandbox without namespaces nothing would be left in its place");
        Err(Failure::new("option", option, message).hint("leave `isolation` out, or this").config())
    };
    if !policy.landlock.is_on() {
        return alone("landlock", "is to be off");
    }
    if !policy.seccomp.is_on() && policy.network.has_own_namespace() {
        return alone("seccomp", "is to be off: the network could not be shut");
    }
    Ok(())
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
