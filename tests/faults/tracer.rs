//! Runs the victim under ptrace(2): names every system call of the library and of init, and lets one of them fail.

use super::errnos::{self, How};
use super::registers;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// One system call of one process: the n-th of its kind in there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    /// `caller`, `caller/1` (its first child), `init`, `init/1`, …
    pub process: String,
    pub call: i64,
    pub occurrence: u32,
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}#{}", self.process, errnos::name(self.call), self.occurrence)
    }
}

/// A site that is to fail.
#[derive(Debug, Clone)]
pub struct Fault {
    pub site: Site,
    pub errno: i32,
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Trace {
    /// In the order in which they were made, with the arguments, for whoever reads the list.
    pub sites: Vec<(Site, [u64; 6])>,
    pub injected: bool,
    pub hung: bool,
    /// Processes that were still there when the caller had long ended.
    pub orphans: Vec<String>,
    /// The victim's wait status.
    pub status: i32,
    pub said: String,
    pub complained: String,
}

/// After this a run hangs. Far more than it takes: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);
/// From the caller's end to that of the last process.
const END: Duration = Duration::from_secs(3);

/// As whom the victim runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// The ordinary user that `tests/run` makes.
    pub fn of_the_tests() -> Option<User> {
        let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
        let line = accounts.lines().find(|line| line.starts_with("sandcell-test:"))?;
        let mut fields = line.split(':').skip(2);
        Some(User { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    }
}

struct Process {
    name: String,
    children: u32,
    counts: HashMap<i64, u32>,
    /// The return value that its running call is to have.
    forged: Option<i64>,
    /// A program that is not ours any more.
    foreign: bool,
}

impl Process {
    fn new(name: String) -> Process {
        Process { name, children: 0, counts: HashMap::new(), forged: None, foreign: false }
    }
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Phase {
    Before,
    During,
    After,
}

struct Tracer<'a> {
    processes: HashMap<i32, Process>,
    /// Stopped processes whose makers have not told of them yet, and how they stopped.
    unnamed: HashMap<i32, i32>,
    phase: Phase,
    victim: i32,
    fault: Option<&'a Fault>,
    trace: Trace,
}

/// Ends all processes of a run that takes too long: the tracer itself only waits.
struct Watchdog {
    shared: Arc<Mutex<(Instant, Vec<i32>, bool)>>,
}

impl Watchdog {
    fn new(victim: i32) -> Watchdog {
        let shared = Arc::new(Mutex::new((Instant::now() + DEADLINE, vec![victim], false)));
        let weak = Arc::downgrade(&shared);
        std::thread::spawn(move || {
            while let Some(shared) = weak.upgrade() {
                let mut state = shared.lock().unwrap();
                if Instant::now() >= state.0 {
                    state.2 = true;
                    for pid in state.1.drain(..) {
                        // SAFETY: tracees of a tracer that has not waited for them yet.
                        unsafe { libc::kill(pid, libc::SIGKILL) };
                    }
                }
                drop(state);
                drop(shared);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Watchdog { shared }
    }

    fn set(&self, deadline: Instant) {
        self.shared.lock().unwrap().0 = deadline;
    }

    fn add(&self, pid: i32) {
        self.shared.lock().unwrap().1.push(pid);
    }

    fn remove(&self, pid: i32) {
        self.shared.lock().unwrap().1.retain(|known| *known != pid);
    }

    fn fired(&self) -> bool {
        self.shared.lock().unwrap().2
    }
}

/// Runs the victim once. Its stops are waited for by this thread alone, so that several can run at a time.
pub fn run(mut command: Command, user: Option<User>, fault: Option<&Fault>) -> std::io::Result<Trace> {
    let (mut said, out) = pipe()?;
    let (mut complained, err) = pipe()?;
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    let victim = command.spawn()?.id() as i32;
    // Our copies of the pipes' ends.
    drop(command);
    let mut tracer = Tracer {
        processes: HashMap::from([(victim, Process::new("caller".into()))]),
        unnamed: HashMap::new(),
        phase: Phase::Before,
        victim,
        fault,
        trace: Trace::default(),
    };
    let watchdog = Watchdog::new(victim);
    if tracer.attach() {
        tracer.follow(&watchdog);
    }
    let mut trace = tracer.trace;
    said.read_to_string(&mut trace.said)?;
    complained.read_to_string(&mut trace.complained)?;
    Ok(trace)
}

fn pipe() -> std::io::Result<(File, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: new descriptors that nobody else has.
    unsafe { Ok((File::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))) }
}

impl Tracer<'_> {
    /// Takes hold of the victim where it has stopped itself. Not earlier and not by itself (PTRACE_TRACEME): set-uid
    /// programs, newuidmap among them, keep their rights only under a tracer that has them.
    fn attach(&mut self) -> bool {
        let options = libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_EXITKILL;
        let mut status = 0;
        // SAFETY: a child of this thread, and numbers.
        unsafe {
            libc::waitpid(self.victim, &mut status, libc::WUNTRACED);
            if !libc::WIFSTOPPED(status) {
                self.trace.status = status;
                return false;
            }
            libc::ptrace(libc::PTRACE_SEIZE, self.victim, 0, options);
            libc::kill(self.victim, libc::SIGCONT);
        }
        true
    }

    fn follow(&mut self, watchdog: &Watchdog) {
        let mut over = false;
        loop {
            let mut status = 0;
            // SAFETY: children and tracees of this thread only.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL | libc::__WNOTHREAD) };
            if pid < 0 {
                break;
            }
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                watchdog.remove(pid);
                let process = self.processes.remove(&pid);
                self.unnamed.remove(&pid);
                if pid == self.victim {
                    self.trace.status = status;
                    self.trace.hung |= watchdog.fired();
                    over = true;
                    watchdog.set(Instant::now() + END);
                } else if over && watchdog.fired() && !self.trace.hung {
                    self.trace.orphans.extend(process.map(|p| p.name));
                }
                continue;
            }
            self.stopped(pid, status, watchdog);
        }
    }

    fn stopped(&mut self, pid: i32, status: i32, watchdog: &Watchdog) {
        let signal = libc::WSTOPSIG(status);
        let event = status >> 16;
        let mut deliver = 0;
        if !self.processes.contains_key(&pid) {
            // Heard of before its maker told of it: it stays stopped until it has a name.
            self.unnamed.insert(pid, status);
            watchdog.add(pid);
            return;
        }
        if signal == libc::SIGTRAP | 0x80 {
            self.call(pid);
        } else if event == libc::PTRACE_EVENT_STOP {
            if pid == self.victim && self.phase == Phase::Before {
                self.phase = Phase::During;
            }
            watchdog.add(pid);
        } else if event != 0 {
            if let Some((child, status)) = self.event(pid, event) {
                self.stopped(child, status, watchdog);
            }
        } else if pid == self.victim && signal == libc::SIGSTOP {
            self.phase = Phase::After;
        } else {
            deliver = signal;
        }
        // After the failure nothing is left to be seen: on at full speed.
        let over = self.trace.injected && self.process(pid).forged.is_none();
        let traced = self.phase == Phase::During && !self.process(pid).foreign && !over;
        let request = if traced { libc::PTRACE_SYSCALL } else { libc::PTRACE_CONT };
        // SAFETY: a stopped tracee of this thread.
        unsafe { libc::ptrace(request, pid, 0, deliver) };
    }

    fn process(&mut self, pid: i32) -> &mut Process {
        self.processes.entry(pid).or_insert_with(|| Process::new(String::new()))
    }

    /// A child that had stopped before it had a name, and how: it has one now.
    fn event(&mut self, pid: i32, event: i32) -> Option<(i32, i32)> {
        match event {
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                let mut child: libc::c_ulong = 0;
                // SAFETY: a stopped tracee, and room for the answer.
                unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, pid, 0, &mut child) };
                let maker = self.process(pid);
                maker.children += 1;
                let (name, foreign) = (format!("{}/{}", maker.name, maker.children), maker.foreign);
                let new = self.process(child as i32);
                (new.name, new.foreign) = (name, foreign);
                return self.unnamed.remove_entry(&(child as i32));
            }
            libc::PTRACE_EVENT_EXEC => {
                let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
                let process = self.process(pid);
                let exe = exe.to_string_lossy();
                let ours =
                    ["init", "keeper"].into_iter().find(|name| exe.starts_with(&format!("/memfd:sandcell-{name}")));
                if let Some(name) = ours {
                    process.name = name.into();
                    process.children = 0;
                    process.counts.clear();
                } else {
                    process.foreign = true;
                }
            }
            _ => {}
        }
        None
    }

    fn call(&mut self, pid: i32) {
        // SAFETY: plain numbers; the kernel fills in what it has.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        // SAFETY: a stopped tracee, and a buffer whose size is given.
        unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size_of_val(&info), &mut info) };
        if info.op == libc::PTRACE_SYSCALL_INFO_EXIT {
            if let Some(value) = self.process(pid).forged.take() {
                registers::answer(pid, value);
            }
        } else if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            // SAFETY: the union's member for this kind of stop.
            let entry = unsafe { info.u.entry };
            let process = self.process(pid);
            let count = process.counts.entry(entry.nr as i64).or_insert(0);
            *count += 1;
            let site = Site { process: process.name.clone(), call: entry.nr as i64, occurrence: *count };
            if let Some(fault) = self.fault.filter(|fault| !self.trace.injected && fault.site == site) {
                self.trace.injected = true;
                if errnos::how(&site) == How::Instead {
                    registers::no_call(pid);
                } else if site.call == libc::SYS_waitid {
                    // ECHILD means that the child has been reaped: without this it might be ours still to let go.
                    registers::fourth_argument(pid, entry.args[3] & !(libc::WNOHANG as u64));
                }
                self.process(pid).forged = Some(-i64::from(fault.errno));
            }
            self.trace.sites.push((site, entry.args));
        }
    }
}
