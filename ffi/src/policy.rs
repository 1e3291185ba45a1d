//! What the caller asks for.

use std::ffi::{c_char, c_int};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use sandcell::{Builder, Error, Landlock, Leftovers, Network, Root, Sandbox, Seccomp, Upper, User};

use crate::error::{ErrorObject, SANDCELL_ERROR_CONFIG, guard};
use crate::text::{bytes, path, word};

/// What a sandbox is to be like. To be set up by one thread; then any number of threads may run programs with it.
#[derive(Debug, Default)]
pub struct Policy {
    builder: Builder,
    /// The first setter that was refused: nothing runs with a policy that is not what was asked for.
    mistake: Option<ErrorObject>,
    /// Checked and prepared at the first run since the last change.
    sandbox: OnceLock<Sandbox>,
}

impl Policy {
    pub(crate) fn sandbox(&self) -> Result<Sandbox, ErrorObject> {
        if let Some(mistake) = &self.mistake {
            return Err(mistake.clone());
        }
        if let Some(sandbox) = self.sandbox.get() {
            return Ok(sandbox.clone());
        }
        let sandbox = self.builder.clone().build().map_err(|e| ErrorObject::from(&e))?;
        Ok(self.sandbox.get_or_init(|| sandbox).clone())
    }
}

/// Makes one change, or keeps the mistake for the run to report.
///
/// # Safety
/// `policy` is NULL or a live handle that no other thread uses now.
unsafe fn set(policy: *mut Policy, change: impl FnOnce(Builder) -> Result<Builder, Error>) -> c_int {
    // SAFETY: by this function's contract.
    let Some(policy) = (unsafe { policy.as_mut() }) else {
        return SANDCELL_ERROR_CONFIG;
    };
    let before = std::mem::take(&mut policy.builder);
    let done = guard(|| {
        policy.sandbox = OnceLock::new();
        change(before).map_err(|e| ErrorObject::from(&e))
    });
    match done {
        Ok(builder) => {
            policy.builder = builder;
            0
        }
        Err(mistake) => {
            let kind = mistake.kind;
            policy.mistake.get_or_insert(mistake);
            kind
        }
    }
}

fn unknown(option: &str, given: &str, known: &str) -> Error {
    Error::option(option, format!("{given:?} is not one of {known}"))
}

fn user(text: &str) -> Result<User, Error> {
    let id =
        |number: &str| number.parse::<u32>().map_err(|_| unknown("user", text, "random, root, caller, UID, UID:GID"));
    Ok(match text {
        "random" => User::Random,
        "root" => User::Root,
        "caller" => User::Caller,
        _ => {
            let (uid, gid) = text.split_once(':').unwrap_or((text, text));
            User::fixed(id(uid)?, id(gid)?)
        }
    })
}

/// Makes a policy in which everything has its default: a read-only view of the host's system directories, private
/// temporary directories, a random UID, a private loopback, no limits. NULL only where sandcell itself is broken.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_new() -> *mut Policy {
    guard(|| Ok(Box::into_raw(Box::default()))).unwrap_or(std::ptr::null_mut())
}

/// Frees a policy. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_free(policy: *mut Policy) {
    if !policy.is_null() {
        // SAFETY: not NULL; by contract it came from this library and is freed once.
        let policy = unsafe { Box::from_raw(policy) };
        let _ = guard(|| {
            drop(policy);
            Ok(())
        });
    }
}

/// The root is a read-only view of the host's system directories, never the homes: the default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_root_host(policy: *mut Policy) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.root(Root::Host))) }
}

/// The root holds nothing but what is mounted into it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_root_empty(policy: *mut Policy) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.root(Root::Empty))) }
}

/// The root is this directory, read-only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_root_dir(policy: *mut Policy, dir: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.root(Root::Dir(path(dir, "root")?.to_owned())))) }
}

/// Adds a read-only layer on top of those before; the root becomes an overlay of them. Linux 5.11.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_add_layer(policy: *mut Policy, dir: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.layer(path(dir, "layer")?))) }
}

/// What is written to the overlay is thrown away: the default where there are layers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_upper_tmpfs(policy: *mut Policy) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.upper(Upper::Tmpfs))) }
}

/// What is written to the overlay is kept in `dir`/upper, with `dir`/work beside it for the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_upper_dir(policy: *mut Policy, dir: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.upper(Upper::Dir(path(dir, "upper")?.to_owned())))) }
}

/// Shows a file or directory of the host at `dest`, read-only; NULL for the same path.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_add_ro(
    policy: *mut Policy,
    source: *const c_char,
    dest: *const c_char,
) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe {
        set(policy, |b| {
            let source = path(source, "ro")?;
            let dest: &Path = if dest.is_null() { source } else { path(dest, "ro")? };
            Ok(b.ro(source, dest))
        })
    }
}

/// Shows a file or directory of the host at `dest`, writable as far as the caller's own rights go; NULL for the same path.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_add_rw(
    policy: *mut Policy,
    source: *const c_char,
    dest: *const c_char,
) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe {
        set(policy, |b| {
            let source = path(source, "rw")?;
            let dest: &Path = if dest.is_null() { source } else { path(dest, "rw")? };
            Ok(b.rw(source, dest))
        })
    }
}

/// An empty writable directory in memory; 0 bytes for no limit of its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_add_tmpfs(policy: *mut Policy, dest: *const c_char, bytes: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.tmpfs(path(dest, "tmpfs")?, (bytes > 0).then_some(bytes)))) }
}

/// Who the program is inside: `random` (the default), `root`, `caller`, or numbers as `UID` or `UID:GID`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_user(policy: *mut Policy, user_word: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.user(user(word(user_word, "user")?)?))) }
}

/// The host's name inside; `cell-` and six random characters by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_hostname(policy: *mut Policy, name: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.hostname(word(name, "hostname")?))) }
}

/// Bytes of memory, page cache included.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_memory(policy: *mut Policy, bytes: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.memory(bytes))) }
}

/// Bytes of swap on top of the memory; 0 by default where memory is limited.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_swap(policy: *mut Policy, bytes: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.swap(bytes))) }
}

/// Processes and threads.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_pids(policy: *mut Policy, count: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.pids(count))) }
}

/// CPUs, such as 0.5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_cpus(policy: *mut Policy, cpus: f64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.cpus(cpus))) }
}

/// CPUs that may be used, as `0-3,8`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_cpuset(policy: *mut Policy, list: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.cpuset(word(list, "cpuset")?))) }
}

/// Bytes that the private directories and the throw-away upper may hold together.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_disk(policy: *mut Policy, bytes: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.disk(bytes))) }
}

/// Files and directories that they may hold together.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_inodes(policy: *mut Policy, count: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.inodes(count))) }
}

/// CPU time of all processes together, milliseconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_cpu_time_ms(policy: *mut Policy, milliseconds: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.cpu_time(Duration::from_millis(milliseconds)))) }
}

/// Wall-clock milliseconds that the program may take; then SIGTERM, the grace, SIGKILL to all of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_timeout_ms(policy: *mut Policy, milliseconds: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.timeout(Duration::from_millis(milliseconds)))) }
}

/// Milliseconds between SIGTERM and SIGKILL; 2000 by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_grace_ms(policy: *mut Policy, milliseconds: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.grace(Duration::from_millis(milliseconds)))) }
}

/// Bytes that the program may write to stdout and stderr together before it is ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_output_limit(policy: *mut Policy, bytes: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.output_limit(bytes))) }
}

/// `none`, `loopback` (a private one, the default) or `host`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_network(policy: *mut Policy, network: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe {
        set(policy, |b| {
            Ok(b.network(match word(network, "network")? {
                "none" => Network::None,
                "loopback" => Network::Loopback,
                "host" => Network::Host,
                other => return Err(unknown("network", other, "none, loopback, host")),
            }))
        })
    }
}

/// `default` (the built-in allow-list) or `off`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_seccomp(policy: *mut Policy, filter: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe {
        set(policy, |b| {
            Ok(b.seccomp(match word(filter, "seccomp")? {
                "default" => Seccomp::Default,
                "off" => Seccomp::Off,
                other => return Err(unknown("seccomp", other, "default, off")),
            }))
        })
    }
}

/// `default` (what the running kernel can do) or `off`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_landlock(policy: *mut Policy, wall: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe {
        set(policy, |b| {
            Ok(b.landlock(match word(wall, "landlock")? {
                "default" => Landlock::Default,
                "off" => Landlock::Off,
                other => return Err(unknown("landlock", other, "default, off")),
            }))
        })
    }
}

/// Adds an environment variable to the clean default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_add_env(
    policy: *mut Policy,
    key: *const c_char,
    value: *const c_char,
) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.env(bytes(key, "env")?, bytes(value, "env")?))) }
}

/// Passes the caller's environment on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_keep_env(policy: *mut Policy, keep: bool) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.keep_env(keep))) }
}

/// Working directory inside; the home by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_chdir(policy: *mut Policy, dir: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.current_dir(path(dir, "chdir")?))) }
}

/// File mode creation mask; 022 by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_umask(policy: *mut Policy, mask: u32) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.umask(mask))) }
}

/// What happens to processes that are alive when the program ends: `kill` (the default), or `report`: they are listed in
/// the report and killed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_leftovers(policy: *mut Policy, what: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe {
        set(policy, |b| {
            Ok(b.leftovers(match word(what, "leftovers")? {
                "kill" => Leftovers::Kill,
                "report" => Leftovers::Report,
                other => return Err(unknown("leftovers", other, "kill, report")),
            }))
        })
    }
}

/// Goes on where the host cannot enforce `item` (an option's name, such as `memory`, or `all`) and says so in the report.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_add_best_effort(policy: *mut Policy, item: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.best_effort(word(item, "best-effort")?))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::RunResult;

    /// What the header promises of threads; holds when it compiles, so break it by putting a `Cell` into a handle.
    #[test]
    fn handles_may_be_read_by_several_threads() {
        fn shared<T: Send + Sync>(_: Option<&T>) {}
        shared::<Policy>(None);
        shared::<RunResult>(None);
        shared::<ErrorObject>(None);
    }
}
