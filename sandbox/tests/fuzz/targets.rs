//! What is done with bytes that somebody wrote by hand; `tests/fuzz` feeds the same functions.

#[allow(dead_code)]
#[path = "../../src/bin/sandcell/values.rs"]
mod values;

use sandcell::Sandbox;
use sandcell::syscalls::Profile;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Read, or refused with words. Whether it was read.
pub fn profile(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    match Profile::from_json(&text) {
        Ok(profile) => {
            let again = profile.to_json().map(|json| Profile::from_json(&json));
            assert!(again.is_ok_and(|profile| profile.is_ok()), "{text}");
            let _ = profile.explain(&[]);
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), "config", "{text}: {error}");
            assert!(error.to_string().len() > 20, "{text}: {error}");
            false
        }
    }
}

/// The values of options: how many readings understood them, how many refused them with words.
pub fn values(bytes: &[u8]) -> (usize, usize) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let raw = OsStr::from_bytes(bytes);
    let answers = [
        values::size(&text).map(drop),
        values::duration(&text).map(drop),
        values::volume(&text).map(drop),
        values::user(&text).map(drop),
        values::rlimit(&text).map(drop),
        values::bind(raw).map(drop),
        values::tmpfs(raw).map(drop),
        values::capability(&text).map(drop),
    ];
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    let refused = refused.inspect(|words| assert!(!words.is_empty(), "{text:?}")).count();
    (answers.len() - refused, refused)
}

/// A path of mounts: used or refused, and it never leads up. Whether it was used.
pub fn mounts(bytes: &[u8]) -> bool {
    let path = OsStr::from_bytes(bytes);
    match Sandbox::builder().tmpfs(path, Some(4096)).file(path, "x").ro("/usr", path).build() {
        Ok(_) => {
            assert!(bytes.starts_with(b"/") && !bytes.contains(&0), "{path:?}");
            assert!(!bytes.split(|byte| *byte == b'/').any(|part| part == b".."), "{path:?}");
            true
        }
        Err(error) => {
            assert_eq!((error.kind(), error.stage()), ("config", "option"), "{path:?}: {error}");
            false
        }
    }
}
