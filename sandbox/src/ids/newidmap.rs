//! Running newuidmap(1), newgidmap(1) and getsubids(1): found by absolute path, never by `$PATH`, with an end to
//! their time, and their complaints kept for the error.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::error::{Error, Failure};
use crate::ids::{IdMap, Refusal, sys};

/// Where the programs are looked for, in this order, and how long they may take.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub directories: Vec<PathBuf>,
    pub timeout: Duration,
    /// Whether the programs must have the privilege that they need. Only tests with programs of their own say no.
    pub privileged: bool,
}

impl Default for Programs {
    fn default() -> Programs {
        // The first is NixOS's, whose /usr/bin has next to nothing.
        let directories = ["/run/wrappers/bin", "/usr/bin", "/bin", "/usr/local/bin"].map(PathBuf::from).to_vec();
        // The two take a millisecond each; ten seconds are for a machine that swaps, or a directory server behind NSS.
        Programs { directories, timeout: Duration::from_secs(10), privileged: true }
    }
}

const REMEDY: &str =
    "Install it (package uidmap on Debian and Ubuntu, shadow-utils elsewhere), or ask for shared host ids.";

impl Programs {
    fn find(&self, name: &'static str) -> Result<PathBuf, Refusal> {
        let found = self.directories.iter().map(|dir| dir.join(name)).find(|path| path.is_file());
        found.ok_or_else(|| {
            let dirs = self.directories.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(", ");
            Refusal::Absent(Failure::new("id-map", name, format!("is not installed (looked in {dirs})")).hint(REMEDY))
        })
    }

    /// The path of a program that can do what the caller cannot.
    fn find_privileged(&self, name: &'static str) -> Result<PathBuf, Refusal> {
        let path = self.find(name)?;
        if !self.privileged {
            return Ok(path);
        }
        let lacking = |message: &str, hint: String| {
            Err(Refusal::Absent(Failure::new("id-map", path.display().to_string(), message).hint(hint)))
        };
        let Ok(meta) = fs::metadata(&path) else { return Ok(path) };
        let set_uid = meta.uid() == 0 && meta.permissions().mode() & 0o4000 != 0;
        if !set_uid && !sys::has_file_capabilities(&path) {
            let capability = if name == "newuidmap" { "cap_setuid" } else { "cap_setgid" };
            return lacking(
                "has neither its set-uid bit nor file capabilities, so it cannot write the map",
                format!("As root: chmod u+s {0}, or: setcap {capability}+ep {0}.", path.display()),
            );
        }
        if nix::sys::prctl::get_no_new_privs() == Ok(true) {
            return lacking(
                "has no effect: the caller runs with no_new_privs",
                "Start the caller without it (NoNewPrivileges= in systemd, --security-opt in containers).".to_owned(),
            );
        }
        let nosuid = nix::sys::statvfs::statvfs(&path)
            .is_ok_and(|fs| fs.flags().contains(nix::sys::statvfs::FsFlags::ST_NOSUID));
        if nosuid {
            return lacking(
                "has no effect: its file system is mounted nosuid",
                "Mount it without nosuid, or use another root file system.".to_owned(),
            );
        }
        Ok(path)
    }

    /// Has the two programs write the maps of the user namespace of process `pid`, both at once.
    pub(crate) fn write_maps(&self, pid: u32, uids: &IdMap, gids: &IdMap) -> Result<(), Refusal> {
        let deadline = Instant::now() + self.timeout;
        let paths = (self.find_privileged("newuidmap")?, self.find_privileged("newgidmap")?);
        let first = Running::start(&paths.0, &map_arguments(pid, uids))?;
        let second = Running::start(&paths.1, &map_arguments(pid, gids))?;
        let results = (first.finish(deadline, self.timeout), second.finish(deadline, self.timeout));
        check(results.0?, pid, "uid_map")?;
        check(results.1?, pid, "gid_map")
    }

    /// What getsubids(1) says about the caller.
    pub(crate) fn getsubids(&self, name: &str, groups: bool) -> Result<String, Refusal> {
        let path = self.find("getsubids")?;
        let mut arguments = vec![name.to_owned()];
        if groups {
            arguments.insert(0, "-g".to_owned());
        }
        let ended = Running::start(&path, &arguments)?.finish(Instant::now() + self.timeout, self.timeout)?;
        match ended.success {
            Some(false) => Err(Refusal::Absent(ended.failure("sub-ids", "Ask whoever runs the source of sub-ids."))),
            // Unknown: with SIGCHLD ignored nobody learns the status. What it printed decides.
            _ => Ok(ended.output),
        }
    }
}

fn map_arguments(pid: u32, map: &IdMap) -> Vec<String> {
    let numbers = map.lines().iter().flat_map(|l| [l.inside, l.host, l.count]);
    std::iter::once(pid).chain(numbers).map(|n| n.to_string()).collect()
}

/// The map itself is the proof; the exit status may have gone to somebody else.
fn check(ended: Ended, pid: u32, map: &str) -> Result<(), Refusal> {
    let file = format!("/proc/{pid}/{map}");
    let text = fs::read_to_string(&file);
    let text = text.map_err(|e| Failure::new("id-map", file, "cannot see whether it was written").cause(&e).setup())?;
    let written = !text.trim().is_empty();
    if written && ended.success != Some(false) {
        return Ok(());
    }
    let hint = match nix::sys::prctl::get_dumpable() {
        Ok(true) => {
            "Check the caller's lines in /etc/subuid and /etc/subgid; inside a container, give it the \
                     capabilities CAP_SETUID and CAP_SETGID, or ask for shared host ids."
        }
        _ => {
            "The caller is not dumpable, so the program may not open its files in /proc: call prctl(PR_SET_DUMPABLE, 1)."
        }
    };
    Err(Refusal::Absent(ended.failure("id-map", hint)))
}

/// A program that runs, in a process group of its own, so that all of it can be ended.
struct Running {
    child: Child,
    /// `None` where it has ended and been reaped already because the caller ignores SIGCHLD.
    pidfd: Option<OwnedFd>,
    path: PathBuf,
    ended: bool,
}

struct Ended {
    path: PathBuf,
    /// `None` where nobody can tell: SIGCHLD ignored, or somebody else reaped it.
    success: Option<bool>,
    status: String,
    output: String,
    complaint: String,
}

impl Ended {
    fn failure(&self, stage: &'static str, hint: &str) -> Failure {
        let complaint = if self.complaint.is_empty() { "it said nothing" } else { &self.complaint };
        Failure::new(stage, self.path.display().to_string(), format!("{}: {complaint}", self.status)).hint(hint)
    }
}

impl Running {
    fn start(path: &Path, arguments: &[String]) -> Result<Running, Error> {
        let spawned = Command::new(path)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        let child = spawned.map_err(|e| {
            Failure::new("id-map", path.display().to_string(), "cannot be executed").cause(&e).hint(REMEDY).setup()
        })?;
        let mut running = Running { child, pidfd: None, path: path.to_owned(), ended: false };
        match sys::pidfd_open(running.child.id()) {
            Ok(pidfd) => running.pidfd = Some(pidfd),
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
            Err(e) => {
                let failed = Failure::new("id-map", path.display().to_string(), "cannot be watched (pidfd_open)");
                return Err(failed.cause(&e).setup());
            }
        }
        Ok(running)
    }

    fn finish(mut self, deadline: Instant, timeout: Duration) -> Result<Ended, Error> {
        let mut output = Pipe::new(self.child.stdout.take().map(OwnedFd::from));
        let mut complaint = Pipe::new(self.child.stderr.take().map(OwnedFd::from));
        loop {
            output.read();
            complaint.read();
            let Some(pidfd) = &self.pidfd else { break };
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                let message = format!("did not end within {timeout:?} and was killed");
                return Err(Failure::new("id-map", self.path.display().to_string(), message)
                    .hint(
                        "Run it by hand to see what it waits for (a directory server behind nsswitch.conf?), or ask \
                         for shared host ids.",
                    )
                    .setup());
            };
            let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            let pipes = [&output, &complaint].into_iter().filter_map(|p| p.fd.as_ref());
            fds.extend(pipes.map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
            let left = left.as_millis().saturating_add(1).min(60_000) as u16;
            let _ = nix::poll::poll(&mut fds, PollTimeout::from(left));
            if fds[0].any() == Some(true) {
                break;
            }
        }
        let status = self.child.wait();
        self.ended = true;
        // What it wrote last; a descendant that holds the pipe open does not keep us.
        output.read();
        complaint.read();
        let (success, words) = match status {
            Ok(status) => (Some(status.success()), format!("failed ({status})")),
            Err(_) => (None, "failed".to_owned()),
        };
        let complaint = complaint.text().trim().replace('\n', "; ");
        Ok(Ended { path: self.path.clone(), success, status: words, output: output.text(), complaint })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Some(pidfd) = &self.pidfd {
            // Not reaped yet, so the number is still that of its group.
            let group = nix::unistd::Pid::from_raw(self.child.id() as i32);
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            sys::pidfd_kill(pidfd.as_fd());
        }
        let _ = self.child.wait();
    }
}

/// Collects what comes without ever waiting, and not more than anybody wants to read.
struct Pipe {
    fd: Option<fs::File>,
    bytes: Vec<u8>,
}

impl Pipe {
    fn new(fd: Option<OwnedFd>) -> Pipe {
        let fd = fd.filter(|fd| nix::fcntl::fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_ok());
        Pipe { fd: fd.map(fs::File::from), bytes: Vec::new() }
    }

    fn read(&mut self) {
        const MOST: usize = 1 << 20;
        let mut buffer = [0; 4096];
        while let Some(fd) = &mut self.fd {
            match fd.read(&mut buffer) {
                Ok(0) => self.fd = None,
                Ok(n) if self.bytes.len() < MOST => self.bytes.extend_from_slice(&buffer[..n]),
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}
