//! The keeper of a command in a cell: a small process between us and the program, which inherits whatever the program
//! leaves behind while it runs (PR_SET_CHILD_SUBREAPER). So all that a command has started can be found, in whatever
//! session it is and whoever has forked it, without a cgroup.
//!
//! It shares our memory and our descriptors, starts the program, waits for it and ends. Programs can signal it, as
//! they can each other: where one ends a keeper, what was beneath it cannot be told from the rest any more, and all
//! programs of the cell are ended.
//!
//! Where nothing but the program's end is to be told, the keeper tells it: we would be one more process to wake. If nothing
//! is left beneath it then, it stays for the next command: see `ready.rs`.

use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use crate::listener::Listened;
use crate::rawsys::{self, call, clone_onto, nr};
use crate::reap::{Usage, WALL, WNOHANG, WUNTRACED};
use crate::serve::MOST_COMMANDS;
use crate::terminal::{self, Terminal};
use crate::wire::{Reply, TERMINAL_STOPS, reply, stage};
use crate::{At, Fault, now, ready, socket, spawn};

const STACK: usize = 8 * 1024;
const LOWER_STACK: usize = 16 * 1024;
const ETIMEDOUT: i32 = 110;
/// The low byte of the wait status of a process that is stopped.
const STOPPED: i32 = 0x7f;
/// How long a start is waited for before others are attended to meanwhile: seconds and nanoseconds.
const BRIEFLY: [u64; 2] = [0, 50_000_000];
/// How often a program is looked after that is long in being executed, and how often at most until it is ended.
const LOOK: u64 = 250_000_000;
const MOST_LOOKS: u32 = 120;

#[repr(C, align(16))]
struct Stack([u8; STACK]);

/// For the process beneath a keeper, until it has executed its program.
#[repr(C, align(16))]
struct LowerStack([u8; LOWER_STACK]);

/// What we and a keeper share. Zeros at first, so that it takes no room in the file.
pub struct Keeper {
    stack: Stack,
    lower: LowerStack,
    /// `STARTING` until the program runs or does not; the kernel zeroes it when the keeper ends.
    pub state: AtomicI32,
    /// Whether what was made ahead is asked for: see `ready.rs`.
    pub asked: AtomicI32,
    /// Of what was made ahead: the kernel zeroes it when that has executed a program or ended.
    pub shares: AtomicI32,
    /// What that is to start, while we wait.
    pub start: usize,
    /// Who tells of the end: `UNDECIDED` while it starts; `WE`, or `KEEPER` may. `TOLD`: it has; `STAYS`: and is there for the next command.
    teller: AtomicI32,
    /// To whom, and when the program began.
    socket: i32,
    began: u64,
    answered: AtomicBool,
    over: AtomicBool,
    /// 1 when the keeper may end, where what is beneath it is listed first.
    released: AtomicI32,
    pub lists: bool,
    terminal: Option<Terminal>,
    /// All that the program has started is killed: the keeper stays until it is gone.
    drains: AtomicBool,
    /// What starts the program, while we wait.
    work: usize,
    fault: Fault,
    pub pid: i32,
    pub pidfd: i32,
    /// A descriptor of /dev/null, made ahead, or -1.
    pub null: i32,
    listener: i32,
    denied: u64,
    status: i32,
    usage: Usage,
    /// What the process that was made ahead had used when it was asked for.
    pub before: Usage,
}

const fn idle() -> Keeper {
    Keeper {
        stack: Stack([0; STACK]),
        lower: LowerStack([0; LOWER_STACK]),
        state: AtomicI32::new(0),
        asked: AtomicI32::new(0),
        shares: AtomicI32::new(0),
        start: 0,
        teller: AtomicI32::new(0),
        socket: 0,
        began: 0,
        answered: AtomicBool::new(false),
        over: AtomicBool::new(false),
        released: AtomicI32::new(0),
        lists: false,
        terminal: None,
        drains: AtomicBool::new(false),
        work: 0,
        fault: Fault { stage: 0, errno: 0 },
        pid: 0,
        pidfd: 0,
        null: 0,
        listener: 0,
        denied: 0,
        status: 0,
        usage: Usage([0; 18]),
        before: Usage([0; 18]),
    }
}

static mut KEEPERS: [Keeper; MOST_COMMANDS] = [const { idle() }; MOST_COMMANDS];
pub const STARTING: i32 = 1;
pub const STARTED: i32 = 2;

const UNDECIDED: i32 = 0;
const WE: i32 = 1;
const KEEPER: i32 = 2;
const TELLING: i32 = 3;
const TOLD: i32 = 4;
const STAYS: i32 = 5;

pub fn keeper(at: usize) -> *mut Keeper {
    // SAFETY: an address within the array.
    unsafe { (&raw mut KEEPERS).cast::<Keeper>().add(at) }
}

impl Keeper {
    /// Nothing is left in it of the command before.
    pub fn renew(&mut self, lists: bool) {
        self.teller.store(UNDECIDED, Ordering::Release);
        self.answered.store(false, Ordering::Release);
        self.over.store(false, Ordering::Release);
        self.released.store(0, Ordering::Release);
        self.drains.store(false, Ordering::Release);
        self.lists = lists;
        self.before = Usage([0; 18]);
    }

    /// The end of the stack for what is beneath it.
    pub fn lower_stack(&mut self) -> usize {
        (&raw mut self.lower) as usize + LOWER_STACK
    }
}

type Work<'a> = &'a mut dyn FnMut(i32) -> Result<Listened, Fault>;

/// What a keeper has to know of its command.
pub struct Order {
    /// Whether it waits for `release` when the program has ended.
    pub lists: bool,
    pub terminal: Option<Terminal>,
    /// The command's own.
    pub socket: i32,
}

/// Makes the process of a keeper; its number.
pub fn make(at: usize, order: &Order, run: unsafe extern "C" fn(*mut u8) -> !) -> Result<i32, Fault> {
    let flags = rawsys::CLONE_VM | rawsys::CLONE_FILES | rawsys::CLONE_CHILD_CLEARTID | rawsys::SIGCHLD as u64;
    let this = keeper(at);
    // SAFETY: no process has this place any more. From now on its stack and its place are the new one's own until it has
    // ended.
    unsafe {
        (*this).state.store(STARTING, Ordering::Release);
        (*this).renew(order.lists);
        ((*this).terminal, (*this).socket) = (order.terminal, order.socket);
        let top = (&raw mut (*this).stack).cast::<u8>().add(STACK) as usize;
        let args = rawsys::clone_args(flags, top, 0, (*this).state.as_ptr() as usize);
        let made = rawsys::check(clone_onto(nr::CLONE, args, run, this.cast())).at(stage::CLONE);
        if made.is_err() {
            (*this).state.store(0, Ordering::Release);
        }
        made.map(|number| number as i32)
    }
}

/// Whether no process has this place, which it may have for a moment after it has said all.
pub fn is_gone(at: usize) -> bool {
    // SAFETY: the place is shared; only an atomic part of it is read.
    unsafe { (*keeper(at)).state.load(Ordering::Acquire) == 0 }
}

/// Waits until `word` is something else than it was: what a keeper has beneath it is on its way to be a program.
/// `meanwhile` is called again and again where that takes long, and waits a moment itself; whether its time is up.
pub fn wait_while(word: &AtomicI32, was: i32, number: i32, meanwhile: &mut dyn FnMut() -> bool) {
    let is_so = || word.load(Ordering::Acquire) == was;
    while is_so() {
        let waited = {
            // A program with CAP_SYS_NICE may have made it hours, by which this would be late.
            let _ = rawsys::set_timer_slack(rawsys::DEFAULT_TIMER_SLACK);
            rawsys::futex_wait(word, was, &BRIEFLY)
        };
        if waited == Err(ETIMEDOUT) {
            break;
        }
    }
    // A program may sit in the kernel on its way, or be stopped by another one, and so may the keeper.
    let (mut looks, mut next) = (0, now());
    while is_so() {
        let is_late = meanwhile();
        if now() < next {
            continue;
        }
        looks += 1;
        next = now() + LOOK;
        let how = |is_over: bool| if is_over { rawsys::SIGKILL } else { rawsys::SIGCONT };
        crate::end::signal_command(number, how(is_late || looks >= MOST_LOOKS));
        // The keeper lives on, where it can, and tells of its program's end.
        crate::end::kill(number, how(looks >= MOST_LOOKS));
    }
}

/// Makes a keeper, which starts a program by `work` (given the program's end of its terminal, or -1); its number and the
/// program. `meanwhile`: see `wait_while`.
pub fn start(
    at: usize,
    order: &Order,
    mut work: Work<'_>,
    meanwhile: &mut dyn FnMut() -> bool,
) -> Result<(i32, Listened), Fault> {
    let this = keeper(at);
    // SAFETY: the new process uses `work` only until it has answered, which is waited for.
    unsafe {
        (*this).work = &raw mut work as usize;
        (*this).asked.store(0, Ordering::Release);
        let number = make(at, order, keep)?;
        wait_while(&(*this).state, STARTING, number, meanwhile);
        if !(*this).answered.load(Ordering::Acquire) {
            // A program has ended it already: perhaps its own, which ran before it could be said. What `outcome` tells then
            // is the end of both.
            let pidfd = rawsys::pidfd_open(number).unwrap_or(-1);
            return Ok((number, Listened { pid: number, pidfd, listener: -1, denied: 0 }));
        }
        match (*this).fault {
            Fault { stage: 0, .. } => {
                let Keeper { pid, pidfd, listener, denied, .. } = *this;
                Ok((number, Listened { pid, pidfd, listener, denied }))
            }
            fault => Err(fault),
        }
    }
}

/// # Safety
/// `arg` is a `Keeper` whose maker waits until it has answered.
unsafe extern "C" fn keep(arg: *mut u8) -> ! {
    let this = arg.cast::<Keeper>();
    // SAFETY: see above.
    unsafe {
        match begin(&mut *((*this).work as *mut Work<'_>), &*this) {
            Ok(started) => {
                (*this).fault = Fault { stage: 0, errno: 0 };
                ((*this).pid, (*this).pidfd) = (started.pid, started.pidfd);
                ((*this).listener, (*this).denied) = (started.listener, started.denied);
            }
            Err(fault) => (*this).fault = fault,
        }
        if let Some(terminal) = &mut (*this).terminal {
            // They are the request's, which does not live as long.
            terminal.modes = &[];
        }
        let program = if (*this).fault.stage == 0 { (*this).pid } else { 0 };
        (*this).answered.store(true, Ordering::Release);
        (*this).state.store(STARTED, Ordering::Release);
        let _ = rawsys::futex_wake(&(*this).state);
        if program > 0 && wait_for(program, this) {
            ready::keep_on(this);
        }
    }
    rawsys::exit(0)
}

pub fn become_subreaper() -> Result<(), Fault> {
    rawsys::set_child_subreaper().at(stage::SUBREAPER).map(|_| ())
}

fn begin(work: &mut Work<'_>, this: &Keeper) -> Result<Listened, Fault> {
    become_subreaper()?;
    if spawn::has_ruleset() {
        // Without a namespace nothing else would end us with our maker.
        rawsys::set_parent_death_signal(rawsys::SIGKILL).at(stage::PROGRAM_SIGNALS)?;
    }
    let Some(terminal) = &this.terminal else { return work(-1) };
    terminal::block_signals().at(stage::PROGRAM_SIGNALS)?;
    let slave = terminal.open(this.socket)?;
    let started = work(slave);
    rawsys::close(slave);
    started
}

/// Reaps until the program has ended. Whether the keeper stays for the next one.
///
/// # Safety
/// `this` is the place of the calling keeper.
pub unsafe fn wait_for(program: i32, this: *mut Keeper) -> bool {
    // SAFETY: what the supervisor reads is written before `over` is; the rest are numbers.
    unsafe {
        loop {
            let flags = if (*this).terminal.is_some() { WNOHANG | WUNTRACED } else { 0 };
            match call!(nr::WAIT4, -1i32, &raw mut (*this).status, WALL | flags, &raw mut (*this).usage) {
                Ok(0) => terminal::await_event(program),
                Ok(pid) if pid as i32 == program && (*this).status & 0xff == STOPPED => stopped(program, &*this),
                Ok(pid) if pid as i32 == program => break,
                Ok(_) | Err(rawsys::EINTR) => {}
                // Whoever kept it is gone without an answer, and all ends.
                Err(_) => return false,
            }
        }
        if (*this).terminal.is_some() {
            terminal::leave();
        }
        if !ready::was_asked(&*this) {
            return false;
        }
        (*this).usage = (*this).usage.since(&(*this).before);
        (*this).over.store(true, Ordering::Release);
        if (*this).drains.load(Ordering::Acquire) {
            while !matches!(rawsys::reap(-1i32, WALL), Err(errno) if errno != rawsys::EINTR) {}
        } else if (*this).lists {
            let _ = rawsys::kill(rawsys::getppid().unwrap_or(0), rawsys::SIGCHLD);
            while (*this).released.load(Ordering::Acquire) == 0 {
                let _ = rawsys::futex_wait_long(&(*this).released, 0);
            }
        } else {
            // A program may end before it is said that it has started.
            while (*this).teller.load(Ordering::Acquire) == UNDECIDED {
                let _ = rawsys::futex_wait_long(&(*this).teller, UNDECIDED);
            }
            return (*this).teller.load(Ordering::Acquire) == KEEPER && tell(this);
        }
    }
    false
}

/// Tells of the end, unless we do. What the program has left behind comes to us when the keeper ends: then it does not stay.
///
/// # Safety
/// As for `wait_for`.
unsafe fn tell(this: *mut Keeper) -> bool {
    // SAFETY: numbers only. We look at what `renew` writes when we have seen that the keeper stays.
    unsafe {
        let stays = rawsys::reap(-1i32, WALL | WNOHANG) == Err(rawsys::ECHILD);
        let end = ended((*this).status, &(*this).usage, now() - (*this).began);
        if stays {
            ready::renew(&mut *this);
        }
        let tells = (*this).teller.compare_exchange(KEEPER, TELLING, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if tells {
            socket::tell((*this).socket, &end, &[], -1);
            // From here on the socket is not ours.
            (*this).teller.store(if stays { STAYS } else { TOLD }, Ordering::Release);
        }
        tells && stays
    }
}

/// What is told of a program that has ended by itself.
pub fn ended(status: i32, usage: &Usage, wall_ns: u64) -> Reply {
    Reply {
        kind: reply::ENDED,
        value: status as u32,
        wall_ns,
        user_us: usage.user_us(),
        system_us: usage.system_us(),
        max_rss_kb: usage.max_rss_kb(),
        ..Reply::default()
    }
}

/// The start is over, and with it what the keeper waits for: we tell of the program's end.
pub fn may_not_tell(at: usize) {
    decide(at, WE);
}

fn decide(at: usize, teller: i32) {
    // SAFETY: see `holds`.
    unsafe {
        (*keeper(at)).teller.store(teller, Ordering::Release);
        let _ = rawsys::futex_wake(&(*keeper(at)).teller);
    }
}

/// The same, and the keeper tells, if there is nothing else to say then.
pub fn may_tell(at: usize, socket: i32, began: u64) {
    // SAFETY: the keeper reads them when it has seen `teller`.
    unsafe {
        ((*keeper(at)).socket, (*keeper(at)).began) = (socket, began);
    }
    decide(at, KEEPER);
}

/// From now on we tell of the program's end. Whether it has been told already.
pub fn has_told(at: usize) -> bool {
    // SAFETY: see `holds`.
    let teller = unsafe { (*keeper(at)).teller.compare_exchange(KEEPER, WE, Ordering::AcqRel, Ordering::Acquire) };
    matches!(teller, Err(TELLING | TOLD | STAYS))
}

/// Whether the keeper has told and is done with that, and whether it stays; who tells remains as it is.
pub fn told(at: usize) -> Option<bool> {
    // SAFETY: see `holds`.
    match unsafe { (*keeper(at)).teller.load(Ordering::Acquire) } {
        STAYS => Some(true),
        TOLD => Some(false),
        _ => None,
    }
}

/// What a terminal stops, whoever has the terminal lets go on. Where nobody has asked to be told it goes on at once, as where
/// the kernel finds nobody who could.
fn stopped(program: i32, this: &Keeper) {
    let signal = this.status >> 8 & 0xff;
    if this.terminal.is_some_and(|terminal| terminal.flags & TERMINAL_STOPS != 0) {
        socket::tell_now(this.socket, &Reply { kind: reply::STOPPED, value: signal as u32, ..Reply::default() });
    } else if signal == rawsys::SIGTSTP {
        crate::end::kill(-program, rawsys::SIGCONT);
    }
}

/// Whether a keeper waits for `release`: its program is over, and what that leaves is still beneath it.
pub fn holds(at: usize) -> bool {
    // SAFETY: the place is shared; only its atomic parts and what was written before them are read.
    unsafe {
        let this = keeper(at);
        (*this).lists && (*this).over.load(Ordering::Acquire) && (*this).released.load(Ordering::Acquire) == 0
    }
}

/// All beneath the keeper is about to be killed: what is left then is waited for, and not listed.
pub fn drain(at: usize) {
    // SAFETY: see `holds`.
    unsafe { (*keeper(at)).drains.store(true, Ordering::Release) };
    release(at);
}

pub fn release(at: usize) {
    // SAFETY: see `holds`.
    unsafe {
        (*keeper(at)).released.store(1, Ordering::Release);
        let _ = rawsys::futex_wake(&(*keeper(at)).released);
    }
}

/// How the program ended, when its keeper has been reaped; `None` where the keeper was ended before.
pub fn outcome(at: usize) -> Option<(i32, Usage)> {
    // SAFETY: the keeper is gone.
    unsafe {
        let this = keeper(at);
        (*this).over.load(Ordering::Acquire).then(|| ((*this).status, (*this).usage))
    }
}
