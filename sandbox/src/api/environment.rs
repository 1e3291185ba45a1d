//! The environment of a command, and where its program is looked for.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::api::command::{Command, string};
use crate::error::{Failure, Result};
use crate::resolve::{Resolved, git};

impl Command {
    /// The clean default, the policy's, the command's: later ones win.
    pub(super) fn environment(
        &self,
        resolved: &Resolved,
        (user, home): (&str, &Path),
        one_shot: bool,
    ) -> Result<Vec<(OsString, OsString)>> {
        let policy = &resolved.policy;
        let mut all: Vec<(OsString, OsString)> = Vec::new();
        let mut set = |key: &OsStr, value: Option<&OsStr>| {
            all.retain(|(k, _)| k != key);
            if let Some(value) = value {
                all.push((key.to_owned(), value.to_owned()));
            }
        };
        if !self.env_clear {
            if policy.keep_env {
                std::env::vars_os().for_each(|(key, value)| set(&key, Some(&value)));
            }
            let term = std::env::var_os("TERM").unwrap_or_else(|| "dumb".into());
            let term = if term == "dumb" && self.terminal_streams() != 0 { "xterm".into() } else { term };
            let path = OsStr::new("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
            for (key, value) in [
                ("PATH", path),
                ("HOME", home.as_os_str()),
                ("USER", OsStr::new(user)),
                ("LANG", OsStr::new("C.UTF-8")),
                ("TERM", &term),
            ] {
                // Home and user are the sandbox's even where the rest of the caller's environment is kept.
                if !policy.keep_env || matches!(key, "HOME" | "USER") {
                    set(OsStr::new(key), Some(value));
                }
            }
            if self.is_init(policy, one_shot) {
                // By this an init knows that it is in a container: systemd's, OpenRC's and others' convention.
                set(OsStr::new("container"), Some(OsStr::new("sandcell")));
            }
            let given = resolved.env.iter().map(|(key, _)| key).chain(self.env.iter().map(|(key, _)| key));
            let kept = policy.keep_env && std::env::var_os("GIT_CONFIG_COUNT").is_some();
            if !kept && !policy.identity.keep_caller && !given.into_iter().any(|key| key == "GIT_CONFIG_COUNT") {
                git::variables(&resolved.files.mounts).iter().for_each(|(key, value)| set(key, Some(value)));
            }
            resolved.env.iter().for_each(|(key, value)| set(key, Some(value)));
        }
        self.env.iter().for_each(|(key, value)| set(key, value.as_deref()));
        Ok(all)
    }

    /// As execvp(3): a name without a slash is looked for along the PATH that the program will have.
    pub(super) fn candidates(&self, environment: &[(OsString, OsString)]) -> Result<Vec<CString>> {
        if self.program.is_empty() {
            return Err(Failure::new("option", "program", "no program is named").hint("name one").config());
        }
        if self.program.as_bytes().contains(&b'/') {
            return Ok(vec![string("program", &self.program)?]);
        }
        let path = environment.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value.as_os_str());
        path.unwrap_or(OsStr::new("/usr/bin:/bin"))
            .as_bytes()
            .split(|byte| *byte == b':')
            .map(|dir| {
                let dir = if dir.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(dir)) };
                string("program", dir.join(&self.program).as_os_str())
            })
            .collect()
    }
}
