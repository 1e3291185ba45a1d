//! System call filters beyond a file: named sets of calls, and a filter in words.

use std::ffi::{c_char, c_int};

use sandcell::syscalls::{Profile, sets};
use sandcell::{Builder, Error, Seccomp};
use serde_json::json;

use crate::error::{ErrorObject, entry};
use crate::policy::{Policy, set};
use crate::text::{empty, hand_out, handle, word};

/// The filter that is set so far.
fn profile(builder: &Builder) -> Result<Profile, Error> {
    match &builder.policy().seccomp {
        Seccomp::Default => Ok(Profile::default()),
        Seccomp::Profile(profile) => Ok(profile.clone()),
        _ => Err(Error::option("seccomp", "is off: there is no filter to say this of")),
    }
}

/// Allows a named set of system calls, such as `ptrace`, on top of the filter that is set so far: the default, or the one of
/// sandcell_policy_set_seccomp_json. The sets are those of sandcell_seccomp_sets_json.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_add_seccomp_set(policy: *mut Policy, name: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe {
        set(policy, |b| {
            let with = profile(&b)?.with(word(name, "seccomp")?)?;
            Ok(b.seccomp(Seccomp::Profile(with)))
        })
    }
}

/// Takes a named set of system calls, such as `network-client`, out of the filter that is set so far: they fail with EPERM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_remove_seccomp_set(policy: *mut Policy, name: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe {
        set(policy, |b| {
            let without = profile(&b)?.without(word(name, "seccomp")?)?;
            Ok(b.seccomp(Seccomp::Profile(without)))
        })
    }
}

/// The named sets of system calls, as a JSON array of `{name, about, default}`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_seccomp_sets_json(json: *mut *mut c_char, error: *mut *mut ErrorObject) -> c_int {
    // SAFETY: NULL or writable by contract.
    unsafe {
        entry(error, || {
            let place = empty(json, "json")?;
            let one = |set: &sandcell::syscalls::Set| json!({"name": set.name, "about": set.about, "default": set.by_default});
            *place = hand_out(serde_json::Value::from_iter(sets().iter().map(one)).to_string());
            Ok(())
        })
    }
}

/// The filter of a policy in the JSON form of Docker's profiles, which sandcell_policy_set_seccomp_json takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_seccomp_json(
    policy: *const Policy,
    json: *mut *mut c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live or writable by contract.
    unsafe {
        entry(error, || {
            let place = empty(json, "json")?;
            *place = hand_out(profile(handle(policy, "policy")?.builder()?)?.to_json()?);
            Ok(())
        })
    }
}

/// The same in words, with the capabilities that the policy keeps taken into account.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_seccomp_text(
    policy: *const Policy,
    text: *mut *mut c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live or writable by contract.
    unsafe {
        entry(error, || {
            let place = empty(text, "text")?;
            let builder = handle(policy, "policy")?.builder()?;
            *place = hand_out(profile(builder)?.explain(&builder.policy().cap_add));
            Ok(())
        })
    }
}
