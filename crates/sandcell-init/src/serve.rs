//! The supervisor: waits for requests, for the ends of programs and for deadlines. Never returns.

use crate::commands::{Command, FREE, Late, NOT_OVER, carry};
use crate::listener::{self, Listened};
use crate::pump::{self, Pump};
use crate::rawsys;
use crate::ready::{self, Ready};
use crate::reap::{self, Usage, WNOHANG, children_usage, wait_any};
use crate::socket::{self, Letter, MOST_DESCRIPTORS};
use crate::spawn::{self, Request, Start};
use crate::starts::{self, Starts};
use crate::wait::{self, POLLIN, POLLOUT, PollFd};
use crate::wire::{self, Reply, command, control, reply, stage};
use crate::{At, CONTROL, Fault, end, keeper, leftovers, now, ownlimits, proc, reading};

pub const MOST_COMMANDS: usize = 256;
const FIXED: usize = 4;
/// How many of the dead are reaped before deadlines are looked at again: there may be no end of them.
const REAPED_AT_ONCE: usize = 64;
/// How often CPU time is looked at.
const CPU_TICK: u64 = 20_000_000;

/// While a program is long in its start: how long the others are waited for before its start is looked at again.
const MOMENT: i32 = 20;
/// How long the output of a program whose time is up may still take to be carried.
const LAST_WORDS: u64 = 400_000_000;

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
    starts: Starts,
    /// What is there for the next command, and whether it is wanted.
    ready: Option<Ready>,
    wants_ready: bool,
    /// Whether there may be dead that are not reaped yet.
    unreaped: bool,
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
    starts: starts::NONE,
    ready: None,
    wants_ready: false,
    unreaped: false,
    polls: [PollFd::new(0, 0); FIXED + 4 * MOST_COMMANDS],
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
    supervisor().signals = rawsys::signalfd(&mask, rawsys::O_NONBLOCK).at(stage::EVENTS)?;
    wait::prepare().at(stage::EVENTS)?;
    proc::prepare()
}

pub fn forever() -> ! {
    let this = supervisor();
    loop {
        let count = this.wait(POLLIN, -1);
        if this.polls[1].returned != 0 || this.unreaped {
            this.reap();
        }
        if this.polls[2].returned != 0 {
            end::now();
        }
        this.attend(count - this.starts.listening);
        this.listen(count);
        this.keep_time();
        this.keep_cpu_time();
        if this.polls[0].returned != 0 {
            this.request();
        }
        this.make_ready();
    }
}

impl Supervisor {
    /// Waits until something happens, or so many milliseconds; how many descriptors were watched. `requests`: POLLIN, or 0
    /// where of the library only the end is heard of.
    fn wait(&mut self, requests: i16, timeout: i32) -> usize {
        self.polls[0] = PollFd::new(CONTROL, requests);
        self.polls[1] = PollFd::input(self.signals);
        self.polls[2] = PollFd::input(self.caller);
        let mut count = FIXED;
        let mut next = u64::MAX;
        for command in &self.commands[..self.used] {
            let used = !command.is_free();
            let place = |fd| if used && fd > 0 { fd } else { -1 };
            // Nobody is at its other end any more.
            let told = command.keeper > 0 && keeper::told(command.place).is_some();
            self.polls[count] = PollFd::input(if told { -1 } else { place(command.socket) });
            for (at, pump) in command.pumps.iter().enumerate() {
                let loaded = pump.loaded || command.is_over();
                let (fd, events) = if loaded { (pump.to, POLLOUT) } else { (pump.from, POLLIN) };
                self.polls[count + 1 + at] = PollFd::new(place(fd), events);
            }
            count += 3;
            for time in [command.deadline, command.kill_by] {
                if used && time != 0 {
                    next = next.min(time);
                }
            }
        }
        for &listener in &self.starts.listeners[..self.starts.listening] {
            self.polls[count] = PollFd::input(if listener > 0 { listener } else { -1 });
            count += 1;
        }
        if self.cpu_limit > 0 && self.commands[..self.used].iter().any(|command| command.pid != 0) {
            next = next.min(now() + CPU_TICK);
        }
        let alarm = if next == u64::MAX { Ok(-1) } else { wait::alarm(next) };
        let waited = alarm.and_then(|fd| {
            self.polls[3] = PollFd::input(fd);
            wait::wait(&mut self.polls[..count], if self.unreaped && timeout < 0 { 0 } else { timeout })
        });
        if waited.is_err() {
            // Blind, nothing would be kept that was promised.
            end::now();
        }
        count
    }

    /// What the others need while a program is long in its start. Only requests wait until that is over.
    fn bystand(&mut self) {
        let count = self.wait(0, MOMENT);
        if self.polls[0].returned != 0 || self.polls[2].returned != 0 {
            end::now();
        }
        if self.polls[1].returned != 0 {
            self.hear_of_the_dead();
            // One by one: the keeper that is starting is not to be reaped before it is known.
            for at in 0..self.used {
                if self.commands[at].keeper > 0
                    && let Some((status, usage)) = reap::wait_one(self.commands[at].keeper)
                {
                    self.ended(at, status, &usage);
                }
            }
            self.unreaped = true;
        }
        self.attend(count - self.starts.listening);
        self.listen(count);
        self.keep_time();
        self.keep_cpu_time();
    }

    fn hear_of_the_dead(&mut self) {
        let mut buffer = [0u8; 128];
        let _ = rawsys::read(self.signals, &mut buffer);
        for at in 0..self.used {
            let command = &self.commands[at];
            if command.keeper > 0 && keeper::holds(at) {
                leftovers::list(command.socket, Some(command.keeper));
                keeper::release(at);
            }
        }
    }

    fn reap(&mut self) {
        self.hear_of_the_dead();
        for _ in 0..REAPED_AT_ONCE {
            let Some((pid, status, usage)) = wait_any(WNOHANG) else {
                self.unreaped = false;
                return;
            };
            let ours = |command: &Command| (if command.keeper == 0 { command.pid } else { command.keeper }) == pid;
            if let Some(at) = self.commands[..self.used].iter().position(ours) {
                self.ended(at, status, &usage);
            } else if self.ready.is_some_and(|ready| ready.is(pid))
                && let Some(ready) = self.ready.take()
            {
                ready.discard();
            }
        }
        self.unreaped = true;
    }

    /// The program is over, and with it everything in a one-shot sandbox. The library is told when the output is carried,
    /// which waits for its reader and must not hold up anybody else.
    fn ended(&mut self, at: usize, status: i32, usage: &Usage) {
        let command = &mut self.commands[at];
        if keeper::told(at).is_some_and(|_| command.keeper > 0) {
            return self.settle(at);
        }
        let (mut status, mut usage) = (status, *usage);
        let time = now();
        if command.keeper > 0 {
            match keeper::outcome(at) {
                Some(outcome) => (status, usage) = outcome,
                // What was beneath it cannot be told from the rest any more.
                None => {
                    end::signal_all(rawsys::SIGKILL);
                    // By itself it ends so only where it cannot learn how the program ended.
                    command.flags |= if status & 0x7f == 0 { wire::ENDED_UNKNOWN } else { 0 };
                    status = rawsys::SIGKILL;
                }
            }
        } else if command.leftovers {
            leftovers::list(command.socket, None);
        }
        if command.one_shot {
            end::everything();
            usage = children_usage();
        }
        (command.pid, command.keeper) = (0, 0);
        // Its keeper had no time to tell, or did not stay.
        self.wants_ready |= command.ahead;
        command.over = Reply { call: command.denied, ..keeper::ended(status, &usage, time - command.started) };
        command.kill_by = 0;
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
            socket::tell(command.socket, &calls, self.starts.calls.bytes(), -1);
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
        for at in 0..self.starts.listening {
            let returned = self.polls[count - self.starts.listening + at].returned;
            let listener = self.starts.listeners[at];
            if returned & POLLIN != 0 {
                let Some(notice) = listener::take(listener) else { continue };
                if spawn::learns() {
                    self.starts.calls.note(&notice);
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
                self.starts.listeners[at] = 0;
            }
        }
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
            if returned[0] != 0 && !command.is_told() {
                let mut fds = [-1; MOST_DESCRIPTORS];
                match socket::receive(command.socket, &mut fds) {
                    Some((message, 0)) if matches!(message.kind, command::SIGNAL | command::SIGNAL_GROUP) => {
                        if !command.is_over() {
                            // The pid is not reaped while it stands here; the program leads a session, and so a group.
                            let whom = if message.kind == command::SIGNAL { command.pid } else { -command.pid };
                            end::kill(whom, message.value as i32);
                        }
                    }
                    Some((message, 0)) if message.kind == command::READING => {
                        let value = u32::from(!command.is_over() && reading::is_awaited(command.pid));
                        socket::tell_now(command.socket, &Reply { kind: reply::READING, value, ..NOT_OVER });
                    }
                    // Nobody wants the rest of its output.
                    message if command.is_over() => {
                        if message.is_some() {
                            socket::acknowledge(command.socket);
                        }
                        command.pumps.iter_mut().for_each(Pump::close);
                    }
                    message => {
                        if message.is_some() {
                            socket::acknowledge(command.socket);
                        }
                        command.flags |= wire::ENDED_KILLED;
                        command.signal_all(rawsys::SIGKILL);
                    }
                }
            }
            let mut carried = false;
            for pump in 0..2 {
                if returned[1 + pump] == 0 || !command.pumps[pump].open() {
                    continue;
                }
                if !command.pumps[pump].is_ready(watched[pump]) || carried && !wait::is_writable(watched[pump]) {
                    // Whether the caller takes it is to be asked; once more where both outputs go into one pipe.
                    command.pumps[pump].loaded = true;
                    continue;
                }
                carried = true;
                if carry(command, pump) == 0 && command.is_over() {
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
        let read = rawsys::pread(self.cpu_clock, &mut text, 0);
        let digits = text[..read.unwrap_or(0)].iter().skip_while(|byte| !byte.is_ascii_digit());
        let used = digits
            .take_while(|byte| byte.is_ascii_digit())
            .fold(0u64, |sum, byte| sum.saturating_mul(10).saturating_add(u64::from(byte - b'0')));
        // A clock that cannot be read any more must not mean that there is no limit.
        if read.is_err() || used.saturating_mul(self.cpu_scale) >= self.cpu_limit {
            for command in
                self.commands[..self.used].iter_mut().filter(|command| command.pid != 0 && command.kill_by == 0)
            {
                if command.is_told() {
                    continue;
                }
                // Whichever limit was met first is told.
                if command.flags & wire::ENDED_TIMED_OUT == 0 {
                    command.flags |= wire::ENDED_TIMED_OUT | wire::ENDED_CPU_TIME;
                }
                command.signal_all(rawsys::SIGKILL);
            }
        }
    }

    fn keep_time(&mut self) {
        for at in 0..self.used {
            self.settle(at);
            if self.commands[at].keep_time() {
                self.tell_if_carried(at);
            }
        }
    }

    fn request(&mut self) {
        let mut fds = [-1; MOST_DESCRIPTORS];
        // Before: descriptors beyond the limit of their receiver are lost.
        let limits = ownlimits::restore_descriptors();
        // SAFETY: whoever has read the last request is done with it.
        let buffer = unsafe { &mut *(&raw mut REQUEST) };
        let Some(letter) = socket::receive_letter(CONTROL, &mut fds, buffer) else {
            // The library has let go.
            end::now();
        };
        let fds = &mut fds[..letter.count];
        if letter.message.kind == control::FREEZE && letter.count == 3 {
            end::frozen(fds[1], if letter.message.value == wire::FREEZER_V1 { b"THAWED" } else { b"0" });
            socket::acknowledge(fds[2]);
            rawsys::close(fds[2]);
            return;
        }
        if letter.message.kind == control::SPAWN
            && letter.count >= 2
            && let Err(fault) = limits.at(stage::OWN_LIMITS).and_then(|()| self.spawn(&letter, buffer, fds))
        {
            let reply = Reply { kind: reply::NOT_STARTED, detail: fault.stage, errno: fault.errno, ..Reply::default() };
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
        (0..self.used).for_each(|at| self.settle(at));
        let listener = self.starts.place_for_listener()?;
        let request = Request::read(letter.open(fds, buffer).at(stage::MAP_REQUEST)?, letter.is_file())?;
        let Some(at) = self.place_for(&request) else {
            request.free();
            return Err(Fault { stage: stage::TOO_MANY, errno: rawsys::EAGAIN });
        };
        let one_shot = request.flags & wire::ASK_ONE_SHOT != 0;
        let leftovers = request.flags & wire::ASK_LEFTOVERS != 0;
        if !one_shot {
            ownlimits::note().at(stage::OWN_LIMITS)?;
        }
        let mut pumps = pump::before(&request, fds).at(stage::PIPE)?;
        // Before, not after: this process waits until the program runs, and may wake when that has ended already.
        let started = now();
        let mut late = Late::after(started, request.timeout);
        let started_program = if one_shot && request.terminal.is_none() {
            self.start_alone(&request, fds, &mut late).map(|program| (0, program))
        } else {
            let order = keeper::Order { lists: leftovers, terminal: request.terminal, socket };
            self.start_kept(at, &request, fds, &order, &mut late)
        };
        let (keeper, Listened { pid, pidfd, denied, .. }) = match started_program {
            Ok((keeper, program)) => {
                self.starts.keep_listener(listener, &program);
                (keeper, program)
            }
            Err(fault) => {
                pumps.iter_mut().for_each(Pump::close);
                request.free();
                return Err(fault);
            }
        };
        self.used = self.used.max(at + 1);
        self.commands[at] = Command {
            pid,
            keeper,
            place: at,
            over: NOT_OVER,
            socket,
            one_shot,
            leftovers,
            ahead: request.flags & wire::ASK_UNCOUNTED != 0
                && !one_shot
                && request.terminal.is_none()
                && ready::can_be(),
            flags: if denied != 0 { wire::ENDED_DENIED } else { 0 } | if late.seen { wire::ENDED_TIMED_OUT } else { 0 },
            started,
            deadline: late.deadline,
            grace: request.grace.saturating_mul(1_000_000),
            warned: false,
            kill_by: 0,
            output: 0,
            output_limit: request.output_limit,
            pumps,
            denied,
        };
        request.free();
        self.tell_started(at, pidfd);
        Ok(())
    }

    /// Tells who asked that its program runs, and the keeper whether it may tell of its end by itself.
    fn tell_started(&mut self, at: usize, pidfd: i32) {
        let command = &self.commands[at];
        let reply = Reply { kind: reply::STARTED, value: command.pid as u32, ..Reply::default() };
        // Whoever waits for a one-shot sandbox waits for init itself.
        socket::tell(command.socket, &reply, &[], if command.one_shot { -1 } else { pidfd });
        rawsys::close(pidfd);
        if command.ahead && !command.leftovers && command.flags == 0 && !command.pumps.iter().any(Pump::open) {
            keeper::may_tell(at, command.socket, command.started);
        } else {
            self.wants_ready = command.ahead;
            keeper::may_not_tell(at);
        }
    }

    /// Starts the one program of a sandbox, which this process keeps itself.
    fn start_alone(&mut self, request: &Request, fds: &[i32], late: &mut Late) -> Result<Listened, Fault> {
        let caller = self.caller;
        // Its time and the caller's end are looked after while it is long in being executed.
        let mut tend = |pid: i32| {
            if wait::is_readable(caller) {
                end::now();
            }
            if late.now() && pid > 0 {
                end::kill(pid, rawsys::SIGKILL);
            }
        };
        starts::start(request, fds, -1, &mut self.starts.calls, &mut tend)
    }

    /// Starts a program that has a keeper: one that is there ahead, or a new one. The others are looked after meanwhile.
    fn start_kept(
        &mut self,
        at: usize,
        request: &Request,
        fds: &[i32],
        order: &keeper::Order,
        late: &mut Late,
    ) -> Result<(i32, Listened), Fault> {
        let calls = &raw mut self.starts.calls;
        let ahead = self.ready.take_if(|_| request.terminal.is_none());
        let mut meanwhile = || {
            self.bystand();
            late.now()
        };
        if let Some(ready) = ahead
            && let Some(started) = ready.start(&mut Start::new(request, fds, -1), order.lists, &mut meanwhile)?
        {
            return Ok(started);
        }
        ownlimits::restore().at(stage::OWN_LIMITS)?;
        // SAFETY: only one program at a time starts, and others that note calls are looked after by the same process.
        let mut work = |slave| starts::start(request, fds, slave, unsafe { &mut *calls }, &mut |_| {});
        keeper::start(at, order, &mut work, &mut meanwhile)
    }

    /// A command of which its keeper has told: its place is free, and the keeper, if it stays, is there for the next one.
    fn settle(&mut self, at: usize) {
        let Command { keeper, socket, .. } = self.commands[at];
        let Some(stays) = keeper::told(at).filter(|_| keeper > 0) else { return };
        rawsys::close(socket);
        self.commands[at] = FREE;
        if stays {
            let ready = Ready::again(at, keeper);
            match self.ready {
                None => self.ready = Some(ready),
                Some(_) => ready.discard(),
            }
        }
    }

    /// That of the keeper that was made ahead, or another one where the keeper has to lead a session.
    fn place_for(&mut self, request: &Request) -> Option<usize> {
        match self.ready {
            Some(ready) if request.terminal.is_none() => return Some(ready.at),
            Some(ready) => self.used = self.used.max(ready.at + 1),
            None => {}
        }
        self.free_place()
    }

    fn free_place(&self) -> Option<usize> {
        let free = |at: &usize| self.commands[*at].is_free() && keeper::is_gone(*at);
        (0..self.used).find(free).or(Some(self.used).filter(|used| *used < MOST_COMMANDS))
    }

    /// Nobody waits for it, and whoever comes next is started the sooner.
    fn make_ready(&mut self) {
        if core::mem::take(&mut self.wants_ready) && self.ready.is_none() {
            self.ready = self.free_place().and_then(ready::make);
        }
    }
}
