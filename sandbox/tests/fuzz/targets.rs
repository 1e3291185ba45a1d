//! What is done with bytes that somebody wrote by hand; `tests/fuzz` feeds the same functions.

use sandcell::Sandbox;
use sandcell::options;
use sandcell::seccomp::Profile;
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

/// Each option of the table is set to this: how many took it, how many refused it with words.
pub fn values(bytes: &[u8]) -> (usize, usize) {
    let text = OsStr::from_bytes(bytes);
    let answers: Vec<_> = options::all().map(|spec| spec.apply(Sandbox::builder(), text)).collect();
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    let refused = refused.inspect(|error| assert!(error.to_string().len() > 10 && !error.hint().is_empty(), "{error}"));
    let refused = refused.count();
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
