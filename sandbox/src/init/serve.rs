//! The supervisor: waits for requests, for the ends of programs and for deadlines. Never returns.

use crate::listener::{self, Calls, Listened};
use crate::mounts::Text;
use crate::pump::{IDLE, Pump};
use crate::rawsys::{self, call, nr};
use crate::setup::proc_path;
use crate::socket::{self, Letter, MOST_DESCRIPTORS};
use crate::spawn::{self, Request, Start};
use crate::wire::{self, Reply, command, control, reply, stage};
use crate::{At, CONTROL, Fault, end, now};

const MOST_COMMANDS: usize = 256;
/// Leftovers beyond these are ended all the same, but not listed.
const MOST_LEFTOVERS: u32 = 64;
pub const POLLIN: i16 = 1;
const POLLOUT: i16 = 4;
const FIXED: usize = 3;
/// How often CPU time is looked at.
const CPU_TICK: u64 = 20_000_000;
const WNOHANG: usize = 1;
const WALL: usize = 0x4000_0000;

/// How long the output of a program whose time is up may still take to be carried.
const LAST_WORDS: u64 = 1_000_000_000;
const ETIMEDOUT: i32 = 110;

#[derive(Clone, Copy)]
struct Command {
    /// 0 where no program runs here.
    pid: i32,
    /// What is told of a program that has ended as soon as its output is carried; until then of no kind.
    over: Reply,
    socket: i32,
    one_shot: bool,
    leftovers: bool,
    /// Set when it has ended in another way than by itself.
    flags: u32,
    started: u64,
    /// Monotonic nanoseconds; 0 is never.
    deadline: u64,
    grace: u64,
    warned: bool,
    output: u64,
    output_limit: u64,
    pumps: [Pump; 2],
    /// The call for which the filter's listener ended it.
    denied: u64,
}

const FREE: Command = Command {
    pid: 0,
    over: NOT_OVER,
    socket: 0,
    one_shot: false,
    leftovers: false,
    flags: 0,
    started: 0,
    deadline: 0,
    grace: 0,
    warned: false,
    output: 0,
    output_limit: 0,
    pumps: [IDLE; 2],
    denied: 0,
};

const NOT_OVER: Reply =
    Reply { kind: 0, value: 0, detail: 0, errno: 0, wall_ns: 0, user_us: 0, system_us: 0, max_rss_kb: 0, output: 0, call: 0 };

impl Command {
    fn is_over(&self) -> bool {
        self.over.kind != 0
    }

    fn is_free(&self) -> bool {
        self.pid == 0 && !self.is_over()
    }
}

/// struct pollfd.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PollFd {
    fd: i32,
    events: i16,
    pub returned: i16,
}

impl PollFd {
    pub fn input(fd: i32) -> PollFd {
        PollFd { fd, events: POLLIN, returned: 0 }
    }
}

struct Supervisor {
    signals: i32,
    caller: i32,
    /// A file that tells the CPU time of all processes, in units of so many nanoseconds; without a limit, 0.
    cpu_clock: i32,
    cpu_limit: u64,
    cpu_scale: u64,
    commands: [Command; MOST_COMMANDS],
    /// Places ever used: what lies beyond is never touched, so it costs no memory.
    used: usize,
    /// Of filters that are still in use, by whatever a program has left behind in a cell too; 0 where the place is free.
    listeners: [i32; MOST_COMMANDS],
    listening: usize,
    calls: Calls,
    polls: [PollFd; FIXED + 4 * MOST_COMMANDS],
}

/// All zeros at first, so that it takes no room in the file and untouched places none in memory.
static mut SUPERVISOR: Supervisor = Supervisor {
    signals: 0,
    caller: 0,
    cpu_clock: 0,
    cpu_limit: 0,
    cpu_scale: 0,
    commands: [FREE; MOST_COMMANDS],
    used: 0,
    listeners: [0; MOST_COMMANDS],
    listening: 0,
    calls: Calls([0; wire::CALL_WORDS]),
    polls: [PollFd { fd: 0, events: 0, returned: 0 }; FIXED + 4 * MOST_COMMANDS],
};

/// The request, where it came in a message, until its program runs.
static mut REQUEST: [u8; wire::MOST_INLINE] = [0; wire::MOST_INLINE];

fn supervisor() -> &'static mut Supervisor {
    // SAFETY: one thread; `watch_caller` and `prepare` let go of it before `forever` takes it for good.
    unsafe { &mut *(&raw mut SUPERVISOR) }
}

/// When the pidfd becomes readable the caller is dead, whoever else still holds the other end of our socket.
pub fn watch(caller: i32, cpu_clock: i32) {
    supervisor().caller = caller;
    supervisor().cpu_clock = cpu_clock;
}

pub fn limit_cpu_time(limit: u64, scale: u64) {
    supervisor().cpu_limit = limit;
    supervisor().cpu_scale = scale;
}

pub fn prepare() -> Result<(), Fault> {
    let mask = 1u64 << (rawsys::SIGCHLD - 1);
    // SAFETY: the mask is 8 bytes, as is said.
    let fd = unsafe { call!(nr::SIGNALFD4, -1i32, &raw const mask, 8, rawsys::O_CLOEXEC | rawsys::O_NONBLOCK) };
    supervisor().signals = fd.at(stage::EVENTS)? as i32;
    Ok(())
}

pub fn forever() -> ! {
    let this = supervisor();
    loop {
        let count = this.wait();
        if this.polls[1].returned != 0 {
            this.reap();
        }
        if this.polls[2].returned != 0 {
            end::now();
        }
        this.attend(count - this.listening);
        this.listen(count);
        this.keep_time();
        this.keep_cpu_time();
        if this.polls[0].returned != 0 {
            this.request();
        }
    }
}

/// Signals a program: all there is in a one-shot sandbox, its session's first process group in a shared one.
fn signal_all(command: &Command, signal: i32) {
    if command.one_shot {
        return end::signal_all(command.pid, signal);
    }
    // SAFETY: numbers only.
    let _ = unsafe { call!(nr::KILL, -command.pid, signal) };
}

impl Supervisor {
    /// Waits until something happens; how many descriptors were watched.
    fn wait(&mut self) -> usize {
        let watch = |fd, events| PollFd { fd, events, returned: 0 };
        self.polls[0] = PollFd::input(CONTROL);
        self.polls[1] = PollFd::input(self.signals);
        self.polls[2] = PollFd::input(self.caller);
        let mut count = FIXED;
        let mut next = u64::MAX;
        for command in &self.commands[..self.used] {
            let used = !command.is_free();
            let place = |fd| if used && fd > 0 { fd } else { -1 };
            self.polls[count] = PollFd::input(place(command.socket));
            for (at, pump) in command.pumps.iter().enumerate() {
                let loaded = pump.loaded || command.is_over();
                let (fd, events) = if loaded { (pump.to, POLLOUT) } else { (pump.from, POLLIN) };
                self.polls[count + 1 + at] = watch(place(fd), events);
            }
            count += 3;
            if used && command.deadline != 0 {
                next = next.min(command.deadline);
            }
        }
        for &listener in &self.listeners[..self.listening] {
            self.polls[count] = PollFd::input(if listener > 0 { listener } else { -1 });
            count += 1;
        }
        if self.cpu_limit > 0 && self.commands[..self.used].iter().any(|command| command.pid != 0) {
            next = next.min(now() + CPU_TICK);
        }
        let timeout = if next == u64::MAX {
            -1
        } else {
            i32::try_from(next.saturating_sub(now()).div_ceil(1_000_000)).unwrap_or(i32::MAX)
        };
        // SAFETY: `count` entries are there.
        while unsafe { call!(nr::POLL, self.polls.as_mut_ptr(), count, timeout) } == Err(rawsys::EINTR) {}
        count
    }

    fn reap(&mut self) {
        let mut buffer = [0u8; 128];
        // SAFETY: one signalfd record fits; one is as good as many.
        let _ = unsafe { call!(nr::READ, self.signals, buffer.as_mut_ptr(), buffer.len()) };
        while let Some((pid, status, usage)) = wait_any(WNOHANG) {
            if let Some(at) = self.commands[..self.used].iter().position(|command| command.pid == pid) {
                self.ended(at, status, &usage);
            }
        }
    }

    /// The program is over, and with it everything in a one-shot sandbox. The library is told when the output is carried,
    /// which waits for its reader and must not hold up anybody else.
    fn ended(&mut self, at: usize, status: i32, usage: &Usage) {
        let command = &mut self.commands[at];
        let mut usage = *usage;
        let time = now();
        if command.one_shot {
            if command.leftovers {
                list_leftovers(command.socket);
            }
            end::everything();
            usage = children_usage();
        }
        command.pid = 0;
        command.over = Reply {
            kind: reply::ENDED,
            value: status as u32,
            wall_ns: time - command.started,
            user_us: usage.user_us(),
            system_us: usage.system_us(),
            max_rss_kb: usage.max_rss_kb(),
            call: command.denied,
            ..Reply::default()
        };
        if command.deadline != 0 || command.flags & wire::ENDED_TIMED_OUT != 0 {
            command.deadline = command.deadline.max(time.saturating_add(LAST_WORDS));
        }
        self.tell_if_carried(at);
    }

    /// Tells the library of a program that is over, unless there is still output of it.
    fn tell_if_carried(&mut self, at: usize) {
        let command = self.commands[at];
        if command.pumps.iter().any(Pump::open) {
            return;
        }
        if spawn::learns() {
            let calls = Reply { kind: reply::CALLS, ..Reply::default() };
            socket::tell(command.socket, &calls, self.calls.bytes(), -1);
        }
        let ended = Reply {
            detail: command.flags,
            errno: command.pumps.iter().fold(0, |lost, pump| if lost == 0 { pump.lost } else { lost }),
            output: command.output,
            ..command.over
        };
        socket::tell(command.socket, &ended, &[], -1);
        if command.one_shot {
            rawsys::exit(0);
        }
        rawsys::close(command.socket);
        self.commands[at] = FREE;
    }

    /// Calls that the filter leaves to us, and filters that nobody has any more.
    fn listen(&mut self, count: usize) {
        for at in 0..self.listening {
            let returned = self.polls[count - self.listening + at].returned;
            let listener = self.listeners[at];
            if returned & POLLIN != 0 {
                let Some(notice) = listener::take(listener) else { continue };
                if spawn::learns() {
                    self.calls.note(&notice);
                    listener::let_pass(listener, &notice);
                    continue;
                }
                let theirs = |c: &&mut Command| c.pid != 0 && listener::is_thread_of(c.pid, notice.pid);
                if let Some(command) = self.commands[..self.used].iter_mut().find(theirs)
                    && command.flags == 0
                {
                    command.flags = wire::ENDED_DENIED;
                    command.denied = notice.call();
                }
                listener::end(listener, &notice);
            } else if returned != 0 {
                rawsys::close(listener);
                self.listeners[at] = 0;
            }
        }
    }

    /// A place for a listener: looked for before there is one, because a filter without its listener refuses instead
    /// of ending.
    fn place_for_listener(&mut self) -> Result<usize, Fault> {
        match self.listeners[..self.listening].iter().position(|listener| *listener == 0) {
            Some(at) => Ok(at),
            None if self.listening < MOST_COMMANDS => {
                self.listening += 1;
                Ok(self.listening - 1)
            }
            None => Err(Fault { stage: stage::TOO_MANY, errno: rawsys::EAGAIN }),
        }
    }

    /// Starts the program; its pid, a pidfd of it, and the call for which it was ended at once.
    fn start(&mut self, request: &Request, fds: &[i32]) -> Result<Listened, Fault> {
        if !spawn::listens() {
            let (pid, pidfd) = spawn::start(request, fds)?;
            return Ok(Listened { pid, pidfd, listener: -1, denied: 0 });
        }
        let place = self.place_for_listener()?;
        let mut note = |notice: &listener::Notice| self.calls.note(notice);
        let note: Option<&mut dyn FnMut(&listener::Notice)> = if spawn::learns() { Some(&mut note) } else { None };
        let listened = listener::start(&mut Start::new(request, fds), note)?;
        self.listeners[place] = listened.listener.max(0);
        Ok(listened)
    }

    /// Signals asked for, sockets let go of, output to carry.
    fn attend(&mut self, count: usize) {
        for at in 0..(count - FIXED) / 3 {
            let polls = &self.polls[FIXED + 3 * at..][..3];
            let returned = [polls[0].returned, polls[1].returned, polls[2].returned];
            let watched = [polls[1].fd, polls[2].fd];
            let command = &mut self.commands[at];
            if command.is_free() {
                continue;
            }
            if returned[0] != 0 {
                let mut fds = [-1; MOST_DESCRIPTORS];
                match socket::receive(command.socket, &mut fds) {
                    Some((message, 0)) if message.kind == command::SIGNAL => {
                        if !command.is_over() {
                            // SAFETY: numbers only; the pid is not reaped while it stands here.
                            let _ = unsafe { call!(nr::KILL, command.pid, message.value) };
                        }
                    }
                    // Nobody wants the rest of its output.
                    _ if command.is_over() => command.pumps.iter_mut().for_each(Pump::close),
                    _ => {
                        command.flags |= wire::ENDED_KILLED;
                        signal_all(command, rawsys::SIGKILL);
                    }
                }
            }
            for pump in 0..2 {
                if returned[1 + pump] == 0 || !command.pumps[pump].open() {
                    continue;
                }
                if watched[pump] != command.pumps[pump].to {
                    // Whether the caller takes it is to be asked, also where the program has ended just now.
                    command.pumps[pump].loaded = true;
                } else if carry(command, pump) == 0 && command.is_over() {
                    // What is in the pipe now is all that belongs to the program.
                    command.pumps[pump].close();
                }
            }
            if command.is_over() {
                self.tell_if_carried(at);
            }
        }
    }

    /// There is no event for CPU time: it is looked at now and then.
    fn keep_cpu_time(&mut self) {
        if self.cpu_limit == 0 {
            return;
        }
        let mut text = [0u8; 64];
        // SAFETY: the buffer is as long as is said.
        let read = unsafe { call!(nr::PREAD64, self.cpu_clock, text.as_mut_ptr(), text.len(), 0) };
        let digits = text[..read.unwrap_or(0)].iter().skip_while(|byte| !byte.is_ascii_digit());
        let used = digits
            .take_while(|byte| byte.is_ascii_digit())
            .fold(0u64, |sum, byte| sum.saturating_mul(10).saturating_add(u64::from(byte - b'0')));
        // A clock that cannot be read any more must not mean that there is no limit.
        if read.is_err() || used.saturating_mul(self.cpu_scale) >= self.cpu_limit {
            for command in self.commands[..self.used].iter_mut().filter(|command| command.pid != 0) {
                command.flags |= wire::ENDED_TIMED_OUT;
                signal_all(command, rawsys::SIGKILL);
            }
        }
    }

    fn keep_time(&mut self) {
        for at in 0..self.used {
            let command = &mut self.commands[at];
            if command.is_free() || command.deadline == 0 {
                continue;
            }
            let time = now();
            if time < command.deadline {
                continue;
            }
            if command.is_over() {
                command.pumps.iter_mut().filter(|pump| pump.open()).for_each(|pump| pump.lose(ETIMEDOUT));
                self.tell_if_carried(at);
                continue;
            }
            command.flags |= wire::ENDED_TIMED_OUT;
            if command.warned || command.grace == 0 {
                signal_all(command, rawsys::SIGKILL);
                command.deadline = 0;
            } else {
                signal_all(command, rawsys::SIGTERM);
                command.warned = true;
                command.deadline = time.saturating_add(command.grace);
            }
        }
    }

    fn request(&mut self) {
        let mut fds = [-1; MOST_DESCRIPTORS];
        // SAFETY: whoever has read the last request is done with it.
        let buffer = unsafe { &mut *(&raw mut REQUEST) };
        let Some(letter) = socket::receive_letter(CONTROL, &mut fds, buffer) else {
            // The library has let go.
            end::now();
        };
        let fds = &mut fds[..letter.count];
        if letter.message.kind == control::SPAWN
            && letter.count >= 2
            && let Err(fault) = self.spawn(&letter, buffer, fds)
        {
            let reply =
                Reply { kind: reply::NOT_STARTED, detail: fault.stage, errno: fault.errno, ..Reply::default() };
            socket::tell(fds[1], &reply, &[], -1);
            rawsys::close(fds[1]);
        }
        // The request's own descriptors: the program has its copies, the pumps theirs.
        for &fd in fds.iter().skip(2) {
            rawsys::close(fd);
        }
    }

    fn spawn(&mut self, letter: &Letter, buffer: &'static [u8], fds: &mut [i32]) -> Result<(), Fault> {
        let socket = fds[1];
        let at = match self.commands[..self.used].iter().position(Command::is_free) {
            Some(at) => at,
            None if self.used < MOST_COMMANDS => self.used,
            None => {
                rawsys::close(fds[0]);
                return Err(Fault { stage: stage::TOO_MANY, errno: rawsys::EAGAIN });
            }
        };
        let request = Request::read(letter.open(fds, buffer).at(stage::MAP_REQUEST)?, letter.is_file())?;
        let mut pumps = [IDLE; 2];
        if request.output_limit > 0 || request.flags & wire::ASK_COUNT != 0 {
            for (pump, number) in pumps.iter_mut().zip(1..) {
                if let Some(fd) = fds.get_mut(request.descriptor(number) as usize) {
                    let (new, end) = Pump::new(*fd).at(stage::PIPE)?;
                    (*pump, *fd) = (new, end);
                }
            }
        }
        // Before, not after: this process waits until the program runs, and may wake when that has ended already.
        let started = now();
        let Listened { pid, pidfd, denied, .. } = match self.start(&request, fds) {
            Ok(started) => started,
            Err(fault) => {
                pumps.iter_mut().for_each(Pump::close);
                request.free();
                return Err(fault);
            }
        };
        let one_shot = request.flags & wire::ASK_ONE_SHOT != 0;
        self.used = self.used.max(at + 1);
        self.commands[at] = Command {
            pid,
            over: NOT_OVER,
            socket,
            one_shot,
            leftovers: request.flags & wire::ASK_LEFTOVERS != 0,
            flags: if denied != 0 { wire::ENDED_DENIED } else { 0 },
            started,
            deadline: if request.timeout > 0 { started.saturating_add(request.timeout.saturating_mul(1_000_000)) } else { 0 },
            grace: request.grace.saturating_mul(1_000_000),
            warned: false,
            output: 0,
            output_limit: request.output_limit,
            pumps,
            denied,
        };
        request.free();
        let reply = Reply { kind: reply::STARTED, value: pid as u32, ..Reply::default() };
        // Whoever waits for a one-shot sandbox waits for init itself.
        socket::tell(socket, &reply, &[], if one_shot { -1 } else { pidfd });
        rawsys::close(pidfd);
        Ok(())
    }
}

/// Carries a chunk of output and ends the program when it has written too much. Returns the bytes carried.
fn carry(command: &mut Command, pump: usize) -> u64 {
    let room = if command.output_limit == 0 { u64::MAX } else { command.output_limit - command.output };
    let had = command.pumps[pump].carry(room);
    command.output += had.min(room);
    if had > room {
        command.flags |= wire::ENDED_OUTPUT_LIMIT;
        // The number of a program that is over may be somebody else's.
        if !command.is_over() {
            signal_all(command, rawsys::SIGKILL);
        }
    }
    had
}

/// The part of struct rusage that is of use: two times and the resident set.
#[derive(Clone, Copy)]
pub struct Usage([i64; 18]);

impl Usage {
    fn user_us(&self) -> u64 {
        (self.0[0] * 1_000_000 + self.0[1]) as u64
    }
    fn system_us(&self) -> u64 {
        (self.0[2] * 1_000_000 + self.0[3]) as u64
    }
    fn max_rss_kb(&self) -> u64 {
        self.0[4] as u64
    }
}

pub fn wait_any(flags: usize) -> Option<(i32, i32, Usage)> {
    let mut status = 0i32;
    let mut usage = Usage([0; 18]);
    // SAFETY: the layouts of int and struct rusage.
    match unsafe { call!(nr::WAIT4, -1i32, &raw mut status, flags | WALL, &raw mut usage) } {
        Ok(pid) if pid > 0 => Some((pid as i32, status, usage)),
        _ => None,
    }
}

fn children_usage() -> Usage {
    const RUSAGE_CHILDREN: i32 = -1;
    let mut usage = Usage([0; 18]);
    // SAFETY: the layout of struct rusage.
    let _ = unsafe { call!(nr::GETRUSAGE, RUSAGE_CHILDREN, &raw mut usage) };
    usage
}

/// Reads at most a buffer of a file of a process.
pub fn read_proc<'a>(pid: u64, name: &[u8], buffer: &'a mut [u8]) -> &'a mut [u8] {
    let path = proc_path(pid, name);
    // SAFETY: NUL-terminated path; the buffer is as long as is said.
    let length = unsafe {
        match call!(nr::OPENAT, rawsys::AT_FDCWD, path.bytes().as_ptr(), rawsys::O_CLOEXEC) {
            Ok(fd) => {
                let length = call!(nr::READ, fd, buffer.as_mut_ptr(), buffer.len()).unwrap_or(0);
                rawsys::close(fd as i32);
                length
            }
            Err(_) => 0,
        }
    };
    &mut buffer[..length]
}

/// Names every process but ourselves and the dead.
fn list_leftovers(socket: i32) {
    let mut listed = 0;
    end::each_process(|pid| {
        if listed < MOST_LEFTOVERS && end::is_ours(pid) && leftover(socket, pid as i32) {
            listed += 1;
        }
    });
}

fn leftover(socket: i32, pid: i32) -> bool {
    let mut stat = [0u8; 256];
    let stat = read_proc(pid as u64, b"stat", &mut stat);
    let (Some(open), Some(close)) =
        (stat.iter().position(|&byte| byte == b'('), stat.iter().rposition(|&byte| byte == b')'))
    else {
        return false;
    };
    if matches!(stat.get(close + 2), Some(b'Z' | b'X') | None) {
        return false;
    }
    let mut line = [0u8; 256];
    let line = read_proc(pid as u64, b"cmdline", &mut line);
    let mut text = Text::<300>::new();
    if line.is_empty() {
        text.push(b"[");
        text.push(&stat[open + 1..close]);
        text.push(b"]");
    } else {
        let end = line.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        line[..end].iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
        text.push(&line[..end]);
    }
    let reply = Reply { kind: reply::LEFTOVER, value: pid as u32, ..Reply::default() };
    socket::tell(socket, &reply, text.bytes(), -1);
    true
}
