//! One cgroup made for one sandbox, in one hierarchy.
//!
//! Its maker has marked it as in use before it is made ([`Mark`]), and the mark goes when the maker dies; so who finds a
//! group of ours without one has found one without an owner and removes it, if it is empty. The name carries the
//! maker's PID so that a maker can pass over its own. No descriptor of a group is kept: its files are opened by name
//! beneath the directory that all groups of the process have in common.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::hierarchy::{Controller, Version};
use super::parent::{Mark, Parent, place};

const PREFIX: &str = "sandcell-";
/// Random ones in its name. (Earlier versions had 16, and other marks.)
const DIGITS: usize = 15;
/// For processes that are dying already; one that sits in the kernel for longer is reported.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// Every process of a group has to come to where it can be stopped, beside whatever else the machine does.
const FREEZING: Duration = Duration::from_secs(10);
/// How long one try of cgroup v1 may take before it is begun anew.
const FREEZING_ROUND: Duration = Duration::from_millis(200);
/// A start beside thousands of live sandboxes should not pay for all of them; the kernel lists groups by a hash of their
/// random names, so that each comes to the front in time.
const LOOK_AT_ONCE: usize = 256;

#[derive(Debug)]
pub(super) struct Group {
    pub(super) version: Version,
    /// What counts and limits in it.
    pub(super) controllers: Vec<Controller>,
    pub(super) path: PathBuf,
    parent: Arc<Parent>,
    name: String,
    /// `None` where somebody else has it.
    mark: Option<Mark>,
}

impl Group {
    pub(super) fn create(version: Version, above: &Path, controllers: Vec<Controller>) -> io::Result<Group> {
        let parent = Parent::open(above)?;
        collect(above, &parent);
        let random = u64::from_ne_bytes(crate::sys::random()?) >> (64 - 4 * DIGITS);
        let name = format!("{PREFIX}{}-{random:0DIGITS$x}", std::process::id());
        let mark = Some(Mark::new(parent.clone(), place(&name))?);
        let path = above.join(&name);
        fs::create_dir(&path)?;
        Ok(Group { version, controllers, path, parent, name, mark })
    }

    /// A group that somebody else has made and keeps.
    pub(super) fn of_another(version: Version, path: &Path, controllers: Vec<Controller>) -> io::Result<Group> {
        let (above, name) = path.to_str().and_then(|path| path.rsplit_once('/')).ok_or(io::ErrorKind::NotFound)?;
        let (parent, name) = (Parent::open(above.as_ref())?, name.to_owned());
        let group = Group { version, controllers, path: path.to_owned(), parent, name, mark: None };
        group.directory().map(|_| group)
    }

    fn open(&self, file: &str, flags: OFlag) -> io::Result<File> {
        self.parent.open_beneath(&format!("{}/{file}", self.name), flags)
    }

    /// For `CLONE_INTO_CGROUP` (v2).
    pub(super) fn directory(&self) -> io::Result<OwnedFd> {
        Ok(self.open("", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?.into())
    }

    /// Whoever has a copy of it has the group, too.
    pub(super) fn marked_again(&self) -> io::Result<OwnedFd> {
        self.mark.as_ref().ok_or(io::ErrorKind::NotFound)?.again()
    }

    pub(super) fn write(&self, file: &str, value: &str) -> io::Result<()> {
        self.open(file, OFlag::O_WRONLY)?.write_all(value.as_bytes())
    }

    pub(super) fn read(&self, file: &str) -> io::Result<String> {
        let mut text = String::with_capacity(512);
        self.open(file, OFlag::O_RDONLY)?.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Whoever writes "0" to it is in the group.
    pub(super) fn entrance(&self) -> io::Result<OwnedFd> {
        Ok(self.open("cgroup.procs", OFlag::O_WRONLY)?.into())
    }

    /// For init, which reads the CPU time from it again and again.
    pub(super) fn open_to_read(&self, file: &str) -> io::Result<OwnedFd> {
        Ok(self.open(file, OFlag::O_RDONLY)?.into())
    }

    /// For init, which may have to thaw it.
    pub(super) fn open_to_write(&self, file: &str) -> io::Result<OwnedFd> {
        Ok(self.open(file, OFlag::O_WRONLY)?.into())
    }

    /// Whether it is stopped, or about to be.
    pub(super) fn is_frozen(&self) -> bool {
        match self.version {
            Version::V2 => self.read("cgroup.freeze").is_ok_and(|state| state.trim() == "1"),
            Version::V1 => self.read("freezer.state").is_ok_and(|state| state.trim() != "THAWED"),
        }
    }

    /// Kills all in it and beneath it: `cgroup.kill` (Linux 5.14) or, on v1, the freezer, which keeps the list from growing
    /// and the numbers from being used again while it is gone through.
    pub(super) fn kill(&self) -> io::Result<()> {
        if self.version == Version::V2 {
            return self.write("cgroup.kill", "1");
        }
        // As far as it goes: what waits in the kernel cannot be frozen.
        let frozen = self.freeze(true);
        let killed = self.read("cgroup.procs").map(|procs| {
            for pid in procs.lines().filter_map(|line| line.parse().ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        });
        // Always thaw: frozen processes do not die.
        self.freeze(false)?;
        frozen.and(killed)
    }

    /// Stops all in it, or lets it go on, and waits until that is so.
    pub(super) fn freeze(&self, frozen: bool) -> io::Result<()> {
        match self.version {
            Version::V2 => {
                self.write("cgroup.freeze", if frozen { "1" } else { "0" })?;
                self.wait("cgroup.events", if frozen { "frozen 1" } else { "frozen 0" }, FREEZING)
            }
            Version::V1 if frozen => self.freeze_by_v1(),
            Version::V1 => {
                self.write("freezer.state", "THAWED")?;
                self.wait("freezer.state", "THAWED", FREEZING)
            }
        }
    }

    /// cgroup v1 stays at FREEZING where processes appear while it freezes, for as long as one likes to wait. To ask again
    /// helps; so does to let all go on for a moment, which is what container runtimes do, too.
    fn freeze_by_v1(&self) -> io::Result<()> {
        let until = Instant::now() + FREEZING;
        loop {
            self.write("freezer.state", "FROZEN")?;
            match self.wait("freezer.state", "FROZEN", FREEZING_ROUND) {
                Err(e) if e.kind() == io::ErrorKind::TimedOut && Instant::now() < until => {}
                done => return done,
            }
            self.write("freezer.state", "THAWED")?;
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a line of `file` is `line`.
    fn wait(&self, file: &str, line: &str, patience: Duration) -> io::Result<()> {
        let until = Instant::now() + patience;
        let mut events = self.open(file, OFlag::O_RDONLY)?;
        loop {
            let mut text = String::new();
            io::Seek::rewind(&mut events)?;
            events.read_to_string(&mut text)?;
            if text.lines().any(|l| l == line) {
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match self.version {
                // The kernel tells when it changes.
                Version::V2 => {
                    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
                    match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout) {
                        Ok(_) | Err(Errno::EINTR) => {}
                        Err(e) => return Err(e.into()),
                    }
                }
                Version::V1 => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Whether nothing lives in it or beneath it.
    pub(super) fn is_empty(&self) -> bool {
        match self.version {
            Version::V2 => {
                self.read("cgroup.events").is_ok_and(|events| events.lines().any(|line| line == "populated 0"))
            }
            Version::V1 => self.read("cgroup.procs").is_ok_and(|procs| procs.is_empty()),
        }
    }

    /// Waits, not longer than this, until nothing lives in it.
    pub(super) fn wait_until_empty(&self, patience: Duration) {
        if self.version == Version::V2 {
            let _ = self.wait("cgroup.events", "populated 0", patience);
            return;
        }
        let until = Instant::now() + patience;
        while !self.is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until nothing lives in it, and removes it.
    pub(super) fn remove(&self) -> io::Result<()> {
        self.remove_within(PATIENCE)
    }

    pub(super) fn remove_within(&self, patience: Duration) -> io::Result<()> {
        let until = Instant::now() + patience;
        loop {
            match remove_tree(&self.path) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < until => match self.version {
                    Version::V2 => {
                        let _ = self.wait("cgroup.events", "populated 0", patience);
                    }
                    Version::V1 => std::thread::sleep(Duration::from_millis(1)),
                },
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                ended => return ended,
            }
        }
    }
}

/// The group and what a program may have made beneath it. Its files go with it; only directories need removing.
fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
        ended => return ended,
    }
    for child in fs::read_dir(path)?.flatten() {
        if child.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&child.path())?;
        }
    }
    fs::remove_dir(path)
}

/// Removes the empty groups in that directory whose makers are dead.
fn collect(above: &Path, parent: &Parent) {
    let Ok(entries) = fs::read_dir(above) else { return };
    for entry in entries.take(LOOK_AT_ONCE).flatten() {
        // Not whether the PID exists: it may be a zombie, or of another PID namespace. The mark knows.
        if let Some(name) = entry.file_name().to_str()
            && maker(name).is_some_and(|pid| pid != std::process::id())
            && parent.is_marked(place(name)).is_ok_and(|marked| !marked)
        {
            let _ = remove_tree(&entry.path());
        }
    }
}

/// The PID in the name of one of our groups.
fn maker(name: &str) -> Option<u32> {
    let (pid, random) = name.strip_prefix(PREFIX)?.split_once('-')?;
    (random.len() == DIGITS).then(|| pid.parse().ok())?
}
