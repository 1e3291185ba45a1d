//! The records of Plans and requests, as both sides read them.

use std::ffi::CString;

use super::Random;
#[cfg(test)]
use super::rounds;
use crate::wire::{Ask, Reader, Reply, Step};

/// One of each kind that has something to get wrong.
fn steps() -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = |text: &str| CString::new(text).expect("no NUL");
    let (path, empty) = (text("/a/b"), text(""));
    for step in [
        Step::PrivateMounts {},
        Step::OpenDir { slot: 0, path: &path },
        Step::Become { uid: 1, gid: 2, groups: 1, list: &[3, 0, 0, 0] },
        Step::Base { size: 1 << 40, inodes: 7 },
        Step::File { path: &path, mode: 0o644, content: b"content" },
        Step::Symlink { path: &path, target: &empty },
        Step::RootOverlay { lower: &[0; 8], upper: u32::MAX, work: u32::MAX, writable: 1, keep: 0 },
        Step::NewFs { kind: &path, options: b"a=b\0c\0", dest: &path, attributes: 3, make: 1 },
        Step::NestedNamespace { uid_map: b"0 0 1", gid_map: b"" },
        Step::Filter { program: &[0; 16], flags: 0 },
        Step::LandlockPath { path: &path, access: u64::MAX, file_rights: 1 },
    ] {
        step.write(&mut bytes);
    }
    bytes
}

/// Reads to the end or to the first mistake; writes again what was understood.
fn read(bytes: &[u8]) -> (Vec<u8>, bool) {
    let (mut reader, mut again) = (Reader::new(bytes), Vec::new());
    loop {
        match Step::next(&mut reader) {
            Ok(Some(step)) => step.write(&mut again),
            Ok(None) => return (again, true),
            Err(_) => return (again, false),
        }
    }
}

/// Understood to the letter or refused; whether to the end. The same bytes as a request: other records, the same reader.
fn understood(bytes: &[u8]) -> bool {
    let (again, whole) = read(bytes);
    assert!(bytes.starts_with(&again), "{bytes:x?}");
    assert!(!whole || again.len() == bytes.len(), "{bytes:x?}");
    let mut reader = Reader::new(bytes);
    while let Ok(Some(_)) = Ask::next(&mut reader) {}
    whole
}

/// A Plan with some of its bytes changed; whether it is one still.
fn changed_plan(random: &mut Random) -> bool {
    let mut bytes = steps();
    random.mutate(&mut bytes);
    understood(&bytes)
}

fn any_reply(bytes: &[u8]) {
    match Reply::from_bytes(bytes) {
        Some((_, text)) => assert_eq!(text.len(), bytes.len() - Reply::SIZE),
        None => assert!(bytes.len() < Reply::SIZE),
    }
}

#[cfg(fuzzing)]
pub fn plan(bytes: &[u8]) {
    understood(bytes);
    changed_plan(&mut Random::Bytes(bytes.to_vec().into_iter()));
}

#[cfg(fuzzing)]
pub fn reply(bytes: &[u8]) {
    any_reply(bytes);
}

#[test]
fn a_plan_is_read_as_it_was_written() {
    assert_eq!(read(&steps()), (steps(), true));
}

#[test]
fn a_changed_plan_is_understood_to_the_letter_or_refused() {
    let (count, mut random) = rounds(20_000);
    let refused = (0..count).filter(|_| !changed_plan(&mut random)).count();
    assert!(refused > count / 4, "{refused} of {count}");
}

#[test]
fn a_reply_of_any_length_is_read_or_refused() {
    let (count, mut random) = rounds(20_000);
    for _ in 0..count {
        let mut bytes = vec![0; random.below(Reply::SIZE + 64)];
        random.mutate(&mut bytes);
        any_reply(&bytes);
    }
}
