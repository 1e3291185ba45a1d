//! What the caller asks for.

use std::ffi::{c_char, c_int};
use std::sync::OnceLock;
use std::time::Duration;

use sandcell::syscalls::Profile;
use sandcell::{Builder, Error, Sandbox, Seccomp, words};

use crate::error::{ErrorObject, SANDCELL_ERROR_CONFIG, free, guard};
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
    pub(crate) fn builder(&self) -> Result<&Builder, ErrorObject> {
        self.mistake.clone().map_or(Ok(&self.builder), Err)
    }

    pub(crate) fn sandbox(&self) -> Result<Sandbox, ErrorObject> {
        let builder = self.builder()?;
        if let Some(sandbox) = self.sandbox.get() {
            return Ok(sandbox.clone());
        }
        let sandbox = builder.clone().build()?;
        Ok(self.sandbox.get_or_init(|| sandbox).clone())
    }
}

/// Makes one change, or keeps the mistake for the run to report.
///
/// # Safety
/// `policy` is NULL or a live handle that no other thread uses now.
pub(crate) unsafe fn set(policy: *mut Policy, change: impl FnOnce(Builder) -> Result<Builder, Error>) -> c_int {
    let mut change = Some(change);
    // SAFETY: passed on.
    unsafe { set_by(policy, &mut |before| change.take().map_or(Ok(Builder::default()), |change| change(before))) }
}

/// The part of it that is the same for all setters: there are many, and each would have a copy.
///
/// # Safety
/// As for [`set`].
#[inline(never)]
unsafe fn set_by(policy: *mut Policy, change: &mut dyn FnMut(Builder) -> Result<Builder, Error>) -> c_int {
    // SAFETY: by this function's contract.
    let Some(policy) = (unsafe { policy.as_mut() }) else {
        return SANDCELL_ERROR_CONFIG;
    };
    let before = std::mem::take(&mut policy.builder);
    let done = guard(|| {
        policy.sandbox = OnceLock::new();
        Ok(change(before)?)
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

/// Makes a policy in which everything has its default: a read-only view of the host's system directories, private
/// temporary directories, a random UID, a private loopback, no limits. NULL only where sandcell itself is broken.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_new() -> *mut Policy {
    guard(|| Ok(Box::into_raw(Box::default()))).unwrap_or(std::ptr::null_mut())
}

/// Frees a policy; what was made with it goes on. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_free(policy: *mut Policy) {
    // SAFETY: NULL or a handle that is freed once, by contract.
    unsafe { free(policy) }
}

/// Who the program is inside: `random` (the default), `root`, `caller`, or numbers as `UID` or `UID:GID`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_user(policy: *mut Policy, user: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.user(word(user, "user")?.parse()?))) }
}

/// Where the host's UID comes from: `auto` (the default: a leased slice of the caller's sub-ids where there are some,
/// otherwise the caller's own UID), `disjoint` (a leased slice or an error), `shared` (the caller's own).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_host_ids(policy: *mut Policy, source: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.host_ids(word(source, "host_ids")?.parse()?))) }
}

/// How many ids the sandbox has; 1 by default, 65,536 for a whole distribution.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_id_count(policy: *mut Policy, count: u32) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.id_count(count))) }
}

/// Maps the caller's own UID and GID to the program's, so that files of the caller in bind mounts are its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_keep_caller(policy: *mut Policy, keep: bool) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.keep_caller(keep))) }
}

/// Milliseconds to wait for free ids; not at all by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_id_wait_ms(policy: *mut Policy, milliseconds: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.wait_for_ids(Duration::from_millis(milliseconds)))) }
}

/// The host's name inside; `cell-` and six random characters by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_hostname(policy: *mut Policy, name: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.hostname(word(name, "hostname")?))) }
}

/// What keeps programs apart from the host: `namespaces` (the default), or `landlock` for hosts that forbid user namespaces:
/// Landlock, the system call filter and resource limits alone. It is weaker, and each report says what it leaves open.
/// Linux 6.12.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_isolation(policy: *mut Policy, isolation: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.isolation(word(isolation, "isolation")?.parse()?))) }
}

/// `none`, `loopback` (a private one, the default) or `host`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_network(policy: *mut Policy, network: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.network(word(network, "network")?.parse()?))) }
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
                other => return Err(Error::option("seccomp", format!("{other:?} is not default or off"))),
            }))
        })
    }
}

/// A system call filter in the JSON form of Docker's profiles: the text itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_seccomp_json(policy: *mut Policy, json: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.seccomp(Seccomp::Profile(Profile::from_json(word(json, "seccomp")?)?)))) }
}

/// The same from a file, which is read now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_seccomp_file(policy: *mut Policy, file: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe {
        set(policy, |b| {
            let file = path(file, "seccomp")?;
            let unread = |e| Error::option("seccomp", format!("{} cannot be read: {e}", file.display()));
            let json = std::fs::read_to_string(file).map_err(unread)?;
            Ok(b.seccomp(Seccomp::Profile(Profile::from_json(&json)?)))
        })
    }
}

/// `default` (what the running kernel can do), `required` (every rule, or SANDCELL_ERROR_UNSUPPORTED) or `off`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_landlock(policy: *mut Policy, wall: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.landlock(word(wall, "landlock")?.parse()?))) }
}

/// Keeps a capability inside, such as `net_raw`: capabilities(7). It reaches what the sandbox owns, never its mounts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_add_cap(policy: *mut Policy, name: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.cap_add(words::capability(word(name, "cap_add")?)?))) }
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

/// What happens to processes that are alive when the program ends: `kill` (the default), or `report` or `fail`: they are
/// listed in the result and killed; whether that makes the run a failed one is the caller's to say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_leftovers(policy: *mut Policy, what: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.leftovers(word(what, "leftovers")?.parse()?))) }
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
