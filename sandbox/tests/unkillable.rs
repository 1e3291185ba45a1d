//! A process that even SIGKILL does not end, because it waits in the kernel for a file system that never answers.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use common::{Scratch, again_in_own_mounts, patiently, shell, text};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use sandcell::{Outcome, Sandbox};

/// A FUSE file system of which everything but the root is never found: whoever looks waits, and cannot be killed once
/// the request was read. Dropping the descriptor ends the wait.
struct Silent {
    device: File,
}

impl Silent {
    fn mount(at: &std::path::Path) -> std::io::Result<Silent> {
        use nix::mount::{MsFlags, mount};
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        mount(Some("silent"), at, Some("fuse"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))?;
        Ok(Silent { device })
    }

    /// Answers until somebody looks for a file.
    fn serve(&self) -> std::io::Result<()> {
        const LOOKUP: u32 = 1;
        const GETATTR: u32 = 3;
        const STATFS: u32 = 17;
        const INIT: u32 = 26;
        let mut device = &self.device;
        loop {
            let mut request = vec![0u8; 1 << 17];
            let length = device.read(&mut request)?;
            let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
            assert!(length >= 40);
            let body = match word(4) {
                LOOKUP => return Ok(()),
                INIT => {
                    let mut body = [0u8; 64];
                    body[0..4].copy_from_slice(&7u32.to_ne_bytes());
                    body[4..8].copy_from_slice(&31u32.to_ne_bytes());
                    body[20..24].copy_from_slice(&4096u32.to_ne_bytes());
                    body.to_vec()
                }
                // Valid for an hour; inode 1, a directory of mode 755.
                GETATTR => {
                    let mut body = [0u8; 104];
                    body[0..8].copy_from_slice(&3600u64.to_ne_bytes());
                    body[16..24].copy_from_slice(&1u64.to_ne_bytes());
                    body[76..80].copy_from_slice(&0o040755u32.to_ne_bytes());
                    body[80..84].copy_from_slice(&2u32.to_ne_bytes());
                    body.to_vec()
                }
                STATFS => vec![0; 80],
                _ => vec![],
            };
            let error = if body.is_empty() { -(Errno::ENOSYS as i32) } else { 0 };
            let mut answer = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
            answer.extend(error.to_ne_bytes());
            answer.extend(&request[8..16]);
            answer.extend(body);
            device.write_all(&answer)?;
        }
    }
}

#[test]
fn a_program_that_cannot_be_killed_holds_up_its_caller_for_a_moment_only_and_is_reaped_when_it_can_be() {
    let name = "a_program_that_cannot_be_killed_holds_up_its_caller_for_a_moment_only_and_is_reaped_when_it_can_be";
    if !again_in_own_mounts(name, "") {
        return;
    }
    let scratch = Scratch::new();
    let at = scratch.dir("silent");
    let silent = match Silent::mount(&at) {
        Ok(silent) => silent,
        Err(error) => return println!("SKIPPED: no FUSE here: {error}"),
    };
    let server = std::thread::spawn(move || silent.serve().map(|()| silent));
    let timeout = Duration::from_millis(300);
    let builder = Sandbox::builder().ro(&at, "/silent").timeout(timeout).grace(timeout);
    let sandbox = builder.build().unwrap();
    // The twin: another program is done with in time.
    let output = shell(&sandbox, "echo begun; ls -d /silent").output().unwrap();
    assert_eq!((&output.outcome, text(&output.stdout)), (&Outcome::Exited(0), "begun\n/silent".into()));
    assert!(output.warnings.is_empty(), "{output:?}");

    let begun = Instant::now();
    let output = shell(&sandbox, "echo begun; cat /silent/file").output().unwrap();
    let took = begun.elapsed();
    assert_eq!((&output.outcome, text(&output.stdout)), (&Outcome::TimedOut, "begun".into()), "{output:?}");
    // Timeout, grace and a second, and as much again for a busy machine. It was ten seconds once.
    println!("{took:?} of {:?}", 2 * timeout);
    assert!(took < Duration::from_secs(6), "{took:?}");
    let warnings = output.warnings.join(" ");
    assert!(warnings.contains("lives on"), "{warnings}");
    let children = || waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL));
    assert_eq!(children(), Ok(WaitStatus::StillAlive));

    // The file system is gone, and with it what they waited for.
    drop(server.join().unwrap().unwrap());
    patiently("the end of the program", || {
        assert_eq!(shell(&sandbox, "true").status().unwrap().outcome, Outcome::Exited(0));
        children() == Err(Errno::ECHILD)
    });
}
