//! What the launcher inherits from a careless caller, set between fork and exec.

use super::plants::Plants;
use super::scene::{EXTRA_GROUPS, Scene, c, check};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Where leaked descriptors lie: above what any launcher opens first.
const FIRST_LEAK: RawFd = 60;

pub struct Careless {
    uid: u32,
    gid: u32,
    privileged: bool,
    home: CString,
    leaks: Vec<OwnedFd>,
    facts: File,
    key_name: CString,
    secret: String,
}

pub const PERSONALITY: u32 = 0x0004_0000;
pub const TIMER_SLACK: i64 = 123_456;
/// Best effort, level 7.
pub const IO_PRIORITY: i64 = 2 << 13 | 7;

impl Careless {
    pub fn new(scene: &mut Scene, plants: &Plants, facts: File) -> io::Result<Careless> {
        let secret_file = File::options().read(true).write(true).open(scene.base.join("canary"))?;
        let namespace = File::open("/proc/self/ns/mnt")?;
        let leaks: Vec<OwnedFd> = vec![
            File::open("/")?.into(),
            File::open(&scene.base)?.into(),
            secret_file.into(),
            plants.listener.try_clone()?.into(),
            namespace.into(),
            plants.terminal.try_clone()?,
        ];
        Ok(Careless {
            uid: scene.caller.uid,
            gid: scene.caller.gid,
            privileged: scene.privileged,
            home: c(&scene.home.to_string_lossy())?,
            leaks,
            facts,
            key_name: c(&format!("{}-key", scene.place))?,
            secret: scene.secret.clone(),
        })
    }

    /// Runs in the child. The caller's process has one thread, so that allocating here is safe.
    pub fn apply(&mut self) -> io::Result<()> {
        // SAFETY: system calls with live arguments, in a child of a process with one thread.
        unsafe {
            check(libc::setsid())?;
            // Descriptor 0 is the terminal already.
            check(libc::ioctl(0, libc::TIOCSCTTY, 0))?;
            for (number, leak) in (FIRST_LEAK..).zip(&self.leaks) {
                check(libc::dup2(leak.as_raw_fd(), number))?;
            }
            let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
            libc::setrlimit(libc::RLIMIT_CORE, &raw const unlimited);
            if self.privileged {
                check(libc::setgroups(EXTRA_GROUPS.len(), EXTRA_GROUPS.as_ptr()))?;
                check(libc::setresgid(self.gid, self.gid, self.gid))?;
                check(libc::setresuid(self.uid, self.uid, self.uid))?;
            }
            libc::prctl(libc::PR_SET_DUMPABLE, 1);
            self.keys()?;
            libc::umask(0);
            for signal in [libc::SIGUSR1, libc::SIGHUP, libc::SIGPIPE, libc::SIGQUIT] {
                libc::signal(signal, libc::SIG_IGN);
            }
            let mut blocked: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&raw mut blocked, libc::SIGUSR2);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const blocked, std::ptr::null_mut());
            libc::personality(libc::c_ulong::from(PERSONALITY));
            libc::prctl(libc::PR_SET_TIMERSLACK, TIMER_SLACK);
            libc::syscall(libc::SYS_ioprio_set, 1, 0, IO_PRIORITY);
            check(libc::chdir(self.home.as_ptr()))?;
        }
        Ok(())
    }

    /// A session keyring with a secret, linked from the keyrings of the user. The key ends by itself.
    unsafe fn keys(&mut self) -> io::Result<()> {
        const JOIN_SESSION: i32 = 1;
        const SET_PERMISSIONS: i32 = 5;
        const LINK: i32 = 8;
        const SET_TIMEOUT: i32 = 15;
        const SESSION: i32 = -3;
        // SAFETY: live strings and numbers; see `apply`.
        unsafe {
            let keyring = libc::syscall(libc::SYS_keyctl, JOIN_SESSION, 0);
            let key = libc::syscall(
                libc::SYS_add_key,
                c"user".as_ptr(),
                self.key_name.as_ptr(),
                self.secret.as_ptr(),
                self.secret.len(),
                SESSION,
            );
            if keyring != -1 && key != -1 {
                // Readable for the user also without possession.
                libc::syscall(libc::SYS_keyctl, SET_PERMISSIONS, key, 0x3f3f_0000);
                for other in [-4, -5] {
                    libc::syscall(libc::SYS_keyctl, LINK, key, other);
                }
                libc::syscall(libc::SYS_keyctl, SET_TIMEOUT, key, 60);
                let name = self.key_name.to_string_lossy();
                self.tell(&format!("session_keyring={keyring}\nkey_serial={key}\nkey_name={name}\n"))?;
            }
            let session = libc::getsid(0);
            self.tell(&format!("session={session}\n"))
        }
    }

    fn tell(&mut self, lines: &str) -> io::Result<()> {
        io::Write::write_all(&mut self.facts, lines.as_bytes())
    }
}
