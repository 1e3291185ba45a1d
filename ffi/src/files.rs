//! What the program sees: the root file system and what is mounted into it.

use std::ffi::c_int;
use std::path::Path;

use sandcell::{Root, Upper};

use crate::policy::{Policy, set, set_text};
use crate::text::{Bytes, Text, blob, path};

/// The root is a read-only view of the host's system directories, never the homes: the default.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_root_host(policy: Option<&mut Policy>) -> c_int {
    set(policy, |b| Ok(b.root(Root::Host)))
}

/// The root holds nothing but what is mounted into it.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_root_empty(policy: Option<&mut Policy>) -> c_int {
    set(policy, |b| Ok(b.root(Root::Empty)))
}

/// The root is this directory, read-only.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_root_dir(policy: Option<&mut Policy>, dir: Text<'_>) -> c_int {
    set(policy, |b| Ok(b.root(Root::Dir(path(dir, "root")?.to_owned()))))
}

/// Adds a read-only layer on top of those before; the root becomes an overlay of them. Linux 5.11.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_layer(policy: Option<&mut Policy>, dir: Text<'_>) -> c_int {
    set(policy, |b| Ok(b.layer(path(dir, "layer")?)))
}

/// What is written to the overlay is thrown away: the default where there are layers.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_upper_tmpfs(policy: Option<&mut Policy>) -> c_int {
    set(policy, |b| Ok(b.upper(Upper::Tmpfs)))
}

/// What is written to the overlay is kept in `dir`/upper, with `dir`/work beside it for the kernel.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_upper_dir(policy: Option<&mut Policy>, dir: Text<'_>) -> c_int {
    set(policy, |b| Ok(b.upper(Upper::Dir(path(dir, "upper")?.to_owned()))))
}

/// Shows a file or directory of the host at `dest`, read-only; NULL for the same path.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_ro(policy: Option<&mut Policy>, source: Text<'_>, dest: Text<'_>) -> c_int {
    set(policy, |b| {
        let source = path(source, "ro")?;
        let dest: &Path = if dest.is_null() { source } else { path(dest, "ro")? };
        Ok(b.ro(source, dest))
    })
}

/// Shows a file or directory of the host at `dest`, writable as far as the caller's own rights go; NULL for the same path.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_rw(policy: Option<&mut Policy>, source: Text<'_>, dest: Text<'_>) -> c_int {
    set(policy, |b| {
        let source = path(source, "rw")?;
        let dest: &Path = if dest.is_null() { source } else { path(dest, "rw")? };
        Ok(b.rw(source, dest))
    })
}

/// An empty writable directory in memory; 0 bytes for no limit of its own.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_tmpfs(policy: Option<&mut Policy>, dest: Text<'_>, bytes: u64) -> c_int {
    set(policy, |b| Ok(b.tmpfs(path(dest, "tmpfs")?, (bytes > 0).then_some(bytes))))
}

/// A read-only file with these bytes at `dest`. They are copied; `content` may be NULL where `length` is 0.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_file(
    policy: Option<&mut Policy>,
    dest: Text<'_>,
    content: Bytes<'_>,
    length: usize,
) -> c_int {
    set(policy, |b| Ok(b.file(path(dest, "file")?, blob(content, length, "file")?)))
}

/// The same with these permission bits, such as 0755 for a script.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_file_mode(
    policy: Option<&mut Policy>,
    dest: Text<'_>,
    content: Bytes<'_>,
    length: usize,
    mode: u32,
) -> c_int {
    set(policy, |b| Ok(b.file_mode(path(dest, "file")?, blob(content, length, "file")?, mode)))
}

/// Shows a device of the host beneath /dev, such as `/dev/fuse`, `/dev/ttyUSB0:/dev/modem` or `/dev/sda:ro`; of a directory each
/// device in it.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_device(policy: Option<&mut Policy>, device: Text<'_>) -> c_int {
    set_text(policy, "device", device)
}

/// Shows one Unix socket of the host, such as `/run/user/1000/agent` or `/tmp/agent:/run/agent`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_socket(policy: Option<&mut Policy>, socket: Text<'_>) -> c_int {
    set_text(policy, "socket", socket)
}

/// Lets programs have what they only get where it is asked for: `ptrace`, `nested` or `engine-socket`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_allow(policy: Option<&mut Policy>, what: Text<'_>) -> c_int {
    set_text(policy, "allow", what)
}
