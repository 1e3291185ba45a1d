//! What the caller asks for.

use std::ffi::{c_char, c_int};
use std::sync::OnceLock;

use sandcell::options::Value;
use sandcell::seccomp::Profile;
use sandcell::{Builder, Error, Sandbox, Seccomp};

use crate::error::{ErrorObject, SANDCELL_ERROR_CONFIG, entry, free, guard};
use crate::text::{Place, Text, bytes, empty, hand_out, handle, path, word};

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
pub(crate) fn set(policy: Option<&mut Policy>, change: impl FnOnce(Builder) -> Result<Builder, Error>) -> c_int {
    let mut change = Some(change);
    set_by(policy, &mut |before| change.take().map_or(Ok(Builder::default()), |change| change(before)))
}

/// Sets an option by its name.
pub(crate) fn set_value(policy: Option<&mut Policy>, option: &str, value: Value) -> c_int {
    let mut value = Some(value);
    set_by(policy, &mut |before| before.set(option, value.take().unwrap_or(Value::Flag(false))))
}

/// The same of a text of the caller's.
pub(crate) fn set_text(policy: Option<&mut Policy>, option: &str, text: Text<'_>) -> c_int {
    set_by(policy, &mut |before| before.set(option, bytes(text, option)?))
}

/// The part of it that is the same for all setters: there are many, and each would have a copy.
#[inline(never)]
fn set_by(policy: Option<&mut Policy>, change: &mut dyn FnMut(Builder) -> Result<Builder, Error>) -> c_int {
    let Some(policy) = policy else {
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
pub extern "C" fn sandcell_policy_free(policy: Option<Box<Policy>>) {
    free(policy)
}

/// Sets any option by its name and text, as the program `sandcell` takes them: `memory` and `64M`, `ro` and `/src:/code`,
/// `timeout` and `30s`. docs/options.md lists them with their grammar. The functions below do the same with typed values.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set(policy: Option<&mut Policy>, option: Text<'_>, text: Text<'_>) -> c_int {
    set(policy, |b| {
        let option = word(option, "option")?;
        b.set(option, bytes(text, option)?)
    })
}

/// The options that differ from the defaults, as a JSON object of lists of texts, to be freed with sandcell_text_free. Values of
/// variables and contents of files are not shown.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_options_json(
    policy: Option<&Policy>,
    json: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(json, "json")?;
        let options = handle(policy, "policy")?.builder()?.policy().options();
        let options: serde_json::Map<_, _> =
            options.into_iter().map(|(name, texts)| (name.to_owned(), texts.into())).collect();
        *place = hand_out(serde_json::Value::from(options).to_string());
        Ok(())
    })
}

/// Who the program is inside: `random` (the default), `root`, `caller`, or numbers as `UID` or `UID:GID`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_user(policy: Option<&mut Policy>, user: Text<'_>) -> c_int {
    set_text(policy, "user", user)
}

/// `default` (the built-in allow-list) or `off`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_seccomp(policy: Option<&mut Policy>, filter: Text<'_>) -> c_int {
    set(policy, |b| {
        Ok(b.seccomp(match word(filter, "seccomp")? {
            "default" => Seccomp::Default,
            "off" => Seccomp::Off,
            other => return Err(Error::option("seccomp", format!("{other:?} is not default or off"))),
        }))
    })
}

/// A system call filter in the JSON form of Docker's profiles: the text itself.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_seccomp_json(policy: Option<&mut Policy>, json: Text<'_>) -> c_int {
    set(policy, |b| Ok(b.seccomp(Seccomp::Profile(Profile::from_json(word(json, "seccomp")?)?))))
}

/// The same from a file, which is read now.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_seccomp_file(policy: Option<&mut Policy>, file: Text<'_>) -> c_int {
    set(policy, |b| {
        // A file that has the name of a word is a file here.
        let file = std::path::absolute(path(file, "seccomp")?);
        let file = file.map_err(|e| Error::option("seccomp", format!("has no absolute path: {e}")))?;
        b.set("seccomp", file)
    })
}

/// Keeps a capability inside, such as `net_raw`: capabilities(7). It reaches what the sandbox owns, never its mounts.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_cap(policy: Option<&mut Policy>, name: Text<'_>) -> c_int {
    set_text(policy, "cap_add", name)
}

/// Adds an environment variable to the clean default.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_env(policy: Option<&mut Policy>, key: Text<'_>, value: Text<'_>) -> c_int {
    set(policy, |b| Ok(b.env(bytes(key, "env")?, bytes(value, "env")?)))
}

/// Goes on where the host cannot enforce `item`, and says so in the report: `all`, or an item of docs/options.md, such as
/// `memory`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_best_effort(policy: Option<&mut Policy>, item: Text<'_>) -> c_int {
    set_text(policy, "best_effort", item)
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
