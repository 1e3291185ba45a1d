//! The keeper of a named cell: what stays when the process that started the cell ends. It holds init's control socket,
//! the locks and the log, passes clients' requests on to init, and writes down what came of it all.
//!
//! One thread, no allocator. Whoever ends it, however, ends the cell: init watches it as it watches any caller.

mod clients;
mod end;
mod filter;
mod log;
mod restart;

use crate::rawsys::{self, call, nr};
use crate::wait::{POLLIN, PollFd};
use crate::wire::keeper::{self as protocol, Keep, answer, ask, role};
use crate::wire::{At, Fault, Message, Reader, Reply, command, reply, stage};
use crate::{now, socket, spawn};
use clients::{Client, MOST_CLIENTS, NOBODY};
use log::Log;
use restart::Restart;

/// The socket of whoever has made us, until the cell is handed over.
const MAKER: i32 = 0;
const FIXED: usize = 6;

struct Keeper {
    control: i32,
    init: i32,
    listener: i32,
    dir: i32,
    upper: i32,
    main: i32,
    main_pid: u32,
    stdin: i32,
    outputs: [i32; 2],
    pids_file: i32,
    pids: u64,
    places: i64,
    uid: u32,
    since: u64,
    stop_by: u64,
    stop_signal: u32,
    reason: u64,
    paused: bool,
    /// Where the supervisor is while the cell is paused.
    aside: (i32, [u8; protocol::MOST_NAME]),
    /// How the main program ended; of no kind until then.
    over: Reply,
    log: Log,
    restart: Restart,
    clients: [Client; MOST_CLIENTS],
    /// Places ever used.
    used: usize,
    /// What was handed over, and the descriptors that came with it.
    told: Option<&'static [u8]>,
    fds: [i32; socket::MOST_DESCRIPTORS],
    polls: [PollFd; FIXED + MOST_CLIENTS],
}

/// All zeros at first, so that it takes no room in the file and untouched parts none in memory; `begin` says what is absent.
static mut KEEPER: Keeper = Keeper {
    control: 0,
    init: 0,
    listener: 0,
    dir: 0,
    upper: 0,
    main: 0,
    main_pid: 0,
    stdin: 0,
    outputs: [0; 2],
    pids_file: 0,
    pids: 0,
    places: 0,
    uid: 0,
    since: 0,
    stop_by: 0,
    stop_signal: 0,
    reason: 0,
    paused: false,
    aside: (0, [0; protocol::MOST_NAME]),
    over: crate::commands::NOT_OVER,
    log: log::NONE,
    restart: restart::NONE,
    clients: [NOBODY; MOST_CLIENTS],
    used: 0,
    told: None,
    fds: [0; socket::MOST_DESCRIPTORS],
    polls: [PollFd::new(0, 0); FIXED + MOST_CLIENTS],
};

/// What is received, until it is passed on; at first what was handed over, which stays.
static mut TOLD: [u8; crate::wire::MOST_INLINE] = [0; crate::wire::MOST_INLINE];

fn the_keeper() -> &'static mut Keeper {
    // SAFETY: one thread; `keep` takes it once.
    unsafe { &mut *(&raw mut KEEPER) }
}

/// The program, from its first instruction on.
pub extern "C" fn keep() -> ! {
    let this = the_keeper();
    if let Err(fault) = this.begin() {
        let failed = Reply { kind: reply::FAILED, detail: fault.stage, errno: fault.errno, ..Reply::default() };
        socket::tell(MAKER, &failed, &[], -1);
        // Init ends with us.
        rawsys::exit(1);
    }
    socket::tell(MAKER, &Reply { kind: answer::DONE, ..Reply::default() }, &[], -1);
    for fd in 0..3 {
        rawsys::close(fd);
    }
    this.forever()
}

impl Keeper {
    fn begin(&mut self) -> Result<(), Fault> {
        self.absent();
        prepare().at(stage::KEEPER)?;
        // SAFETY: the one use of this buffer; what it holds is only read from here on.
        let buffer = unsafe { &mut *(&raw mut TOLD) };
        let Some(letter) = socket::receive_letter(MAKER, &mut self.fds, buffer) else {
            // The maker is gone before it began.
            rawsys::exit(0);
        };
        let protocol = Fault { stage: stage::PROTOCOL, errno: rawsys::EPROTO };
        if letter.message.kind != ask::HOLD {
            return Err(protocol);
        }
        self.told = Some(letter.open(&self.fds, buffer).at(stage::KEEPER)?);
        self.since = now();
        self.read().map_err(|_| protocol)?;
        if [self.control, self.init, self.listener, self.dir].iter().any(|fd| *fd < 0) {
            return Err(protocol);
        }
        self.uid = own_uid();
        self.outputs.iter().try_for_each(|pipe| log::unblock(*pipe)).at(stage::KEEPER_LOG)?;
        lock(self.dir).at(stage::KEEPER_LOCK)?;
        self.log.begin().at(stage::KEEPER_LOG)?;
        // From now on whoever connects learns our number, and not the maker's.
        rawsys::listen(self.listener, 1024).at(stage::KEEPER)?;
        filter::enter().at(stage::KEEPER_FILTER)
    }

    fn absent(&mut self) {
        for fd in [
            &mut self.control,
            &mut self.init,
            &mut self.listener,
            &mut self.dir,
            &mut self.upper,
            &mut self.main,
            &mut self.stdin,
            &mut self.pids_file,
            &mut self.aside.0,
            &mut self.log.dir,
            &mut self.log.file,
        ] {
            *fd = -1;
        }
        self.outputs = [-1; 2];
        self.reason = protocol::BY_INIT;
        self.stop_signal = rawsys::SIGTERM as u32;
    }

    /// Takes in what is handed over.
    fn read(&mut self) -> Result<(), crate::wire::Malformed> {
        let mut reader = Reader::new(self.told.unwrap_or_default());
        while let Some(record) = Keep::next(&mut reader)? {
            match record {
                Keep::Cell { main, pids, log_size, log_files } => {
                    (self.main_pid, self.pids) = (main, pids);
                    self.log.limits(log_size, log_files);
                    self.places = i64::from(main != 0);
                }
                Keep::Descriptor { index, role } => {
                    let fd = *self.fds.get(index as usize).ok_or(crate::wire::Malformed)?;
                    match role {
                        role::CONTROL => self.control = fd,
                        role::INIT => self.init = fd,
                        role::LISTENER => self.listener = fd,
                        role::DIR => self.dir = fd,
                        role::LOG_DIR => self.log.dir = fd,
                        role::MAIN => self.main = fd,
                        role::STDIN => self.stdin = fd,
                        role::STDOUT => self.outputs[0] = fd,
                        role::STDERR => self.outputs[1] = fd,
                        role::UPPER => self.upper = fd,
                        role::PIDS => self.pids_file = fd,
                        role::RELAY => self.places += 1,
                        _ => {}
                    }
                }
                Keep::Restart { request, always } => self.restart = Restart::new(request, always != 0),
                Keep::StopSignal { signal } => self.stop_signal = signal,
                // In the end.
                Keep::Figure { .. } | Keep::Group { .. } => {}
            }
        }
        Ok(())
    }

    fn forever(&mut self) -> ! {
        loop {
            let count = self.wait();
            for at in 0..2 {
                if self.polls[4 + at].returned != 0 && !self.log.take_all(self.outputs[at], at) {
                    rawsys::close(self.outputs[at]);
                    self.outputs[at] = -1;
                }
            }
            self.log.flush();
            if self.polls[1].returned != 0 || self.polls[2].returned != 0 {
                // Init has gone, or has a last word; there is no other one.
                self.finish();
            }
            if self.polls[3].returned != 0 {
                self.hear_main();
            }
            for at in 0..count - FIXED {
                if self.polls[FIXED + at].returned != 0 && self.clients[at].taken {
                    self.hear_client(at);
                }
            }
            if self.polls[0].returned != 0 {
                self.welcome();
            }
            if self.stop_by != 0 && now() >= self.stop_by {
                self.finish();
            }
            if self.restart.is_due() {
                self.start_again();
            }
        }
    }

    /// Waits until something happens; how many descriptors were watched.
    fn wait(&mut self) -> usize {
        let takes = self.log.takes_more();
        let output = |fd| if takes { fd } else { -1 };
        let fixed =
            [self.listener, self.control, self.init, self.main, output(self.outputs[0]), output(self.outputs[1])];
        for (poll, fd) in self.polls.iter_mut().zip(fixed) {
            *poll = PollFd::new(fd, POLLIN);
        }
        for (poll, client) in self.polls[FIXED..].iter_mut().zip(&self.clients[..self.used]) {
            *poll = PollFd::new(if client.taken { client.fd } else { -1 }, POLLIN);
        }
        let count = FIXED + self.used;
        let next = [self.stop_by, self.log.retry_at(), self.restart.at()];
        let next = next.into_iter().filter(|time| *time != 0).min();
        poll(&mut self.polls[..count], next);
        count
    }

    /// What init says of the main program.
    fn hear_main(&mut self) {
        let mut heard = Reply::default();
        match socket::receive_reply(self.main, &mut heard) {
            Some(()) if heard.kind == reply::ENDED => self.over = heard,
            Some(()) if heard.kind == reply::STARTED => {
                self.main_pid = heard.value;
                return;
            }
            Some(()) if heard.kind == reply::NOT_STARTED => self.over = heard,
            Some(()) => return,
            None => {}
        }
        rawsys::close(self.main);
        self.main = -1;
        if self.stop_by == 0 && self.restart.wants(&self.over) {
            self.main_pid = 0;
            return self.restart.schedule(now());
        }
        if self.reason == protocol::BY_INIT {
            self.reason = protocol::BY_MAIN;
        }
        self.finish();
    }

    /// A signal for the main program.
    fn signal_main(&self, kind: u32, signal: u32) -> Result<(), i32> {
        if self.main < 0 {
            return Err(rawsys::ESRCH);
        }
        socket::forward(self.main, &Message { kind, value: signal, length: 0 }, &[], &[])
    }

    /// The signal that asks the main program to end now, the end of all later.
    fn stop(&mut self, grace: u32) {
        self.reason = protocol::BY_STOP;
        self.restart.never();
        if grace == 0 || self.signal_main(command::SIGNAL, self.stop_signal).is_err() {
            self.finish();
        }
        let by = now().saturating_add(u64::from(grace) * 1_000_000);
        self.stop_by = if self.stop_by == 0 { by } else { self.stop_by.min(by) };
    }

    /// Writes down how many processes there may be: those of the programs, and ours beside them.
    fn write_pids(&self) {
        if self.pids_file < 0 || self.pids == 0 {
            return;
        }
        let mut text = crate::text::Text::<24>::new();
        text.push_number(self.pids.saturating_add_signed(self.places.max(0)));
        let _ = rawsys::write(self.pids_file, text.bytes());
    }
}

fn prepare() -> Result<(), i32> {
    let _ = rawsys::set_name(c"sandcell-keeper");
    rawsys::dup3(MAKER, 1, rawsys::O_CLOEXEC)?;
    rawsys::dup3(MAKER, 2, rawsys::O_CLOEXEC)?;
    rawsys::set_dumpable(false)?;
    rawsys::setsid()?;
    rawsys::chdir(c"/")?;
    rawsys::umask(0o077)?;
    rawsys::set_timer_slack(rawsys::DEFAULT_TIMER_SLACK)?;
    spawn::default_signals().map_err(|fault| fault.errno)?;
    // Not the hang-up of a terminal, nor a file that grows too large.
    rawsys::set_signal_mask(&u64::MAX)?;
    // Of root's rights only that to remove groups: the root of a hierarchy is writable to nobody by its mode.
    const DAC_OVERRIDE: u32 = 1;
    let kept = if rawsys::has_capability(DAC_OVERRIDE) { 1 << DAC_OVERRIDE } else { 0 };
    rawsys::set_capabilities(kept, kept, 0)
}

fn own_uid() -> u32 {
    rawsys::geteuid().map_or(u32::MAX, |uid| uid as u32)
}

/// The second byte of the lock's file, as long as we live: fcntl(2), F_OFD_SETLK. Nobody else has this descriptor.
fn lock(dir: i32) -> Result<(), i32> {
    const F_OFD_SETLK: usize = 37;
    const F_WRLCK: u64 = 1;
    // struct flock: type and whence, start, length, pid.
    let flock: [u64; 4] = [F_WRLCK, 1, 1, 0];
    // SAFETY: a NUL-terminated name; the layout of struct flock.
    unsafe {
        let fd = rawsys::openat(dir, protocol::LOCK, rawsys::O_RDWR | rawsys::O_NOFOLLOW, 0)?;
        call!(nr::FCNTL, fd, F_OFD_SETLK, flock.as_ptr()).map(|_| ())
    }
}

/// Waits for one of them, or until that time.
fn poll(polls: &mut [PollFd], until: Option<u64>) {
    loop {
        let timeout = match until {
            None => -1i32,
            Some(until) => until.saturating_sub(now()).div_ceil(1_000_000).min(i32::MAX as u64) as i32,
        };
        match rawsys::poll(polls, timeout) {
            Err(rawsys::EINTR) => {}
            // Blind, nothing would be kept that was promised.
            Err(_) => rawsys::exit(1),
            Ok(_) => return,
        }
    }
}
