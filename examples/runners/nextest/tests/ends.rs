//! Each ends as its name says, in a sandbox as without.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

const SIGTERM: i32 = 15;
const SIG_IGN: usize = 1;

unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
}

#[test]
fn passes() {}

#[test]
fn fails() {
    panic!("as it should");
}

#[test]
fn aborts() {
    std::process::abort();
}

#[test]
fn is_ended_by_term() {
    std::thread::sleep(Duration::from_secs(1000));
}

#[test]
fn is_ended_by_kill() {
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { signal(SIGTERM, SIG_IGN) };
    std::thread::sleep(Duration::from_secs(1000));
}

#[test]
fn leaves_a_daemon_of_two_forks() {
    let null = Stdio::null;
    // The test ends when the daemon has begun.
    let shell = "setsid sh -c 'echo up; sleep 1000; exit' & exit";
    let mut shell = Command::new("sh").args(["-c", shell]).stdin(null()).stderr(null()).stdout(Stdio::piped()).spawn().unwrap();
    shell.stdout.take().unwrap().read_exact(&mut [0; 3]).unwrap();
    shell.wait().unwrap();
}

/// What is in the file grows for as long as it runs, and so it can be seen from outside whether it does.
#[test]
#[ignore = "never ends"]
fn ticks() {
    let mut file = File::create(concat!(env!("CARGO_TARGET_TMPDIR"), "/ticks")).unwrap();
    loop {
        file.write_all(b".").unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
}
