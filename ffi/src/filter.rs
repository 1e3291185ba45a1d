//! System call filters beyond a file: named sets of calls, and a filter in words.

use std::ffi::{c_char, c_int, c_void};

use sandcell::seccomp::{Profile, sets};
use sandcell::{Builder, Error, Seccomp};
use serde_json::json;

use crate::error::{ErrorObject, entry, free};
use crate::policy::{Policy, set_text};
use crate::text::{Place, Text, empty, hand_out, handle};

/// A filter as the kernel takes it. It never changes: any number of threads may read it at once.
#[derive(Debug)]
pub struct Bpf {
    /// As long as a `struct sock_filter`, and aligned at least as it is.
    instructions: Vec<u64>,
}

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
pub extern "C" fn sandcell_policy_add_seccomp_set(policy: Option<&mut Policy>, name: Text<'_>) -> c_int {
    set_text(policy, "seccomp_with", name)
}

/// Takes a named set of system calls, such as `network-client`, out of the filter that is set so far: they fail with EPERM.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_remove_seccomp_set(policy: Option<&mut Policy>, name: Text<'_>) -> c_int {
    set_text(policy, "seccomp_without", name)
}

/// The named sets of system calls, as a JSON array of `{name, about, default}`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_seccomp_sets_json(
    json: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(json, "json")?;
        let one =
            |set: &sandcell::seccomp::Set| json!({"name": set.name, "about": set.about, "default": set.by_default});
        *place = hand_out(serde_json::Value::from_iter(sets().iter().map(one)).to_string());
        Ok(())
    })
}

/// The filter of a policy in the JSON form of Docker's profiles, which sandcell_policy_set_seccomp_json takes.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_seccomp_json(
    policy: Option<&Policy>,
    json: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(json, "json")?;
        *place = hand_out(profile(handle(policy, "policy")?.builder()?)?.to_json()?);
        Ok(())
    })
}

/// The same in words, with the capabilities that the policy keeps taken into account.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_seccomp_text(
    policy: Option<&Policy>,
    text: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(text, "text")?;
        let builder = handle(policy, "policy")?.builder()?;
        *place = hand_out(profile(builder)?.explain(&builder.policy().cap_add));
        Ok(())
    })
}

/// The same as the kernel takes it, with the capabilities that the policy keeps taken into account: for seccomp(2), or for
/// other launchers (`bwrap --seccomp FD`). To be freed with sandcell_bpf_free.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_seccomp_bpf(
    policy: Option<&Policy>,
    bpf: Place<'_, *mut Bpf>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(bpf, "bpf")?;
        let builder = handle(policy, "policy")?.builder()?;
        let bytes = profile(builder)?.to_bpf(&builder.policy().cap_add)?;
        let (instructions, _) = bytes.as_chunks();
        let instructions = instructions.iter().map(|bytes| u64::from_ne_bytes(*bytes)).collect();
        *place = Box::into_raw(Box::new(Bpf { instructions }));
        Ok(())
    })
}

/// Its instructions, an array of `struct sock_filter`, and in `*length` (may be NULL) how many bytes they are: 8 for each. They
/// live as long as the handle; NULL for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_bpf_bytes(bpf: Option<&Bpf>, length: Place<'_, usize>) -> *const c_void {
    length.begin(bpf.map_or(0, |bpf| size_of_val(&bpf.instructions[..])));
    bpf.map_or(std::ptr::null(), |bpf| bpf.instructions.as_ptr().cast())
}

/// Frees a filter. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_bpf_free(bpf: Option<Box<Bpf>>) {
    free(bpf)
}
