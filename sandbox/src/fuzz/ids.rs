//! /etc/subuid and the words of getsubids: ids that stand in them, or an error with a line.

use std::os::fd::AsRawFd;
use std::path::PathBuf;

use super::Random;
#[cfg(test)]
use super::rounds;
use crate::ids::ranges::{self, Owner, Range};

const GOOD: &str = "# ids\nbob:1:5\nalice:100000:65536\n1000:300000:10\n\nalice:4294967295:1\n";

/// Whether ids were found.
fn read(bytes: &[u8]) -> bool {
    let alice = Owner { name: Some("alice".to_owned()), uid: 1000, own_id: 1000 };
    let file = crate::sys::sealed_memory(c"subuid", bytes, false).expect("memory");
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let text = String::from_utf8_lossy(bytes);
    let _ = (ranges::read_all(&path), ranges::read_getsubids(&text, &alice, "getsubids"));
    match ranges::read_file(&path, &alice) {
        Ok(found) => {
            assert!(found.iter().all(|range| range.end <= 1 << 32 && range.start < range.end), "{bytes:?}");
            assert!(found.total() <= 1 << 32, "{bytes:?}");
            let few = [Range::new(0, 10)].into_iter().collect();
            let _ = (found.slices(65536), found.slice(0, 1), found.within(&few).to_string());
            true
        }
        Err(error) => {
            assert!(error.subject().starts_with(&*path.to_string_lossy()), "{error}");
            assert_eq!(error.kind(), "config", "{error}");
            false
        }
    }
}

fn changed(random: &mut Random) -> bool {
    let mut bytes = GOOD.as_bytes().to_vec();
    random.mutate(&mut bytes);
    read(&bytes)
}

#[cfg(fuzzing)]
pub fn subuid(bytes: &[u8]) {
    read(bytes);
    changed(&mut Random::Bytes(bytes.to_vec().into_iter()));
}

#[test]
fn a_changed_file_gives_ids_that_stand_in_it_or_an_error_with_a_line() {
    let (count, mut random) = rounds(2000);
    let errors = (0..count).filter(|_| !changed(&mut random)).count();
    assert!(errors > count / 100, "{errors} of {count}");
}
