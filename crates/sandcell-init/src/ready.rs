//! What is made ahead for the next command of a cell, while nobody waits for it: a keeper, perhaps of the command before,
//! and beneath it the process that executes the program. It stands in a futex until it is asked for, and has nothing of the command before it: what a
//! program can do to it meanwhile (signals, resource limits) is undone before it goes on, or it is not used.
//!
//! It shares our memory and our table of descriptors, so it has what came with a request; then it takes a table of its own.

use core::sync::atomic::{AtomicI32, Ordering};

use crate::keeper::{self, Keeper, STARTED, STARTING, keeper};
use crate::listener::Listened;
use crate::rawsys::{self, call, clone_onto, nr};
use crate::spawn::{self, Start};
use crate::{Fault, end, ownlimits, reap, system};

const WAITING: i32 = 1;
const ASKED: i32 = 2;
/// Its process has ended before it was asked for.
const DEAD: i32 = 3;

/// What becomes of one that cannot be used: nobody is told, the program is started in the other way.
const UNFIT: u32 = u32::MAX;

/// A keeper and its process, by the place that they have.
#[derive(Clone, Copy)]
pub struct Ready {
    pub at: usize,
    number: i32,
}

/// Whether programs start in the way that is known here.
pub fn can_be() -> bool {
    end::is_first() && !spawn::listens() && !spawn::has_ruleset() && !system::is_expected()
}

/// Makes them; `None` where that fails, which is no error.
pub fn make(at: usize) -> Option<Ready> {
    // SAFETY: no process has this place.
    renew(unsafe { &mut *keeper(at) });
    let order = keeper::Order { lists: false, terminal: None, socket: -1 };
    let number = keeper::make(at, &order, keep).ok()?;
    Some(Ready { at, number })
}

/// There will be a process that was not asked for.
pub fn renew(this: &mut Keeper) {
    this.asked.store(WAITING, Ordering::Release);
    this.shares.store(1, Ordering::Release);
    (this.pid, this.pidfd, this.null) = (0, -1, -1);
    this.state.store(STARTING, Ordering::Release);
}

/// Whether there is a program: of what was made ahead there is none before it was asked for.
pub fn was_asked(this: &Keeper) -> bool {
    this.asked.compare_exchange(WAITING, DEAD, Ordering::AcqRel, Ordering::Acquire).is_err()
}

/// # Safety
/// `arg` is a `Keeper` with nobody in it but the calling process.
unsafe extern "C" fn keep(arg: *mut u8) -> ! {
    if keeper::become_subreaper().is_ok() {
        // SAFETY: see above.
        unsafe { keep_on(arg.cast()) };
    }
    rawsys::exit(0)
}

/// Makes a process for the next program and waits for that, as often as there is a next one.
///
/// # Safety
/// `this` is the place of the calling keeper, and renewed; no process uses its lower stack.
pub unsafe fn keep_on(this: *mut Keeper) {
    // The number is written before the process runs, so it is known even if we are ended meanwhile.
    let flags = rawsys::CLONE_VM | rawsys::CLONE_FILES | rawsys::CLONE_PARENT_SETTID | rawsys::CLONE_CHILD_CLEARTID;
    let flags = flags | rawsys::SIGCHLD as u64;
    // SAFETY: see above.
    unsafe {
        loop {
            (*this).null = spawn::open_null().unwrap_or(-1);
            let (pid, shares) = (&raw mut (*this).pid as usize, (*this).shares.as_ptr() as usize);
            let args = rawsys::clone_args(flags, (*this).lower_stack(), pid, shares);
            let Ok(pid) = rawsys::check(clone_onto(nr::CLONE, args, next, this.cast())) else { return };
            let Ok(pidfd) = rawsys::pidfd_open(pid as i32) else { return };
            (*this).pidfd = pidfd;
            (*this).state.store(STARTED, Ordering::Release);
            wake(&(*this).state);
            if !keeper::wait_for(pid as i32, this) {
                return;
            }
        }
    }
}

fn wake(word: &AtomicI32) {
    let _ = rawsys::futex_wake(word);
}

/// The process that becomes the next program.
///
/// # Safety
/// `arg` is the `Keeper` above it.
unsafe extern "C" fn next(arg: *mut u8) -> ! {
    // SAFETY: see above; whoever asks waits until `shares` is zero, and `start` is theirs until then.
    unsafe {
        let this = &*arg.cast::<Keeper>();
        let has_session = rawsys::setsid().is_ok();
        while this.asked.load(Ordering::Acquire) == WAITING {
            let _ = rawsys::futex_wait_long(&this.asked, WAITING);
        }
        (*arg.cast::<Keeper>()).before = reap::own_usage();
        let start = this.start as *mut Start<'_>;
        ((*start).has_session, (*start).null) = (has_session, this.null);
        if let Err(errno) = refresh() {
            (*start).fault = Some(Fault { stage: UNFIT, errno });
            rawsys::exit(127);
        }
        spawn::child(start.cast())
    }
}

/// What is not as if it were new.
fn refresh() -> Result<(), i32> {
    const CLOSE_RANGE_UNSHARE: usize = 2;
    const CLONE_FILES: usize = rawsys::CLONE_FILES as usize;
    const NONE: usize = i32::MAX as usize;
    // SAFETY: numbers only, then room for a signal set.
    unsafe {
        // Nothing is closed by the first; where it is refused, the second may be allowed.
        call!(nr::CLOSE_RANGE, NONE, NONE, CLOSE_RANGE_UNSHARE)
            .or_else(|_| rawsys::unshare(CLONE_FILES as u64).map(|()| 0))?;
        let mut pending = 0u64;
        call!(nr::RT_SIGPENDING, &raw mut pending, 8)?;
        for signal in (1..=64).filter(|signal| pending >> (signal - 1) & 1 == 1) {
            // To ignore a signal is to discard it, though it is blocked.
            const SIG_IGN: usize = 1;
            for handler in [SIG_IGN, 0] {
                let action = [handler, 0, 0, 0];
                call!(nr::RT_SIGACTION, signal, action.as_ptr(), 0, 8)?;
            }
        }
    }
    ownlimits::restore()
}

impl Ready {
    /// A keeper that stays.
    pub fn again(at: usize, number: i32) -> Ready {
        Ready { at, number }
    }

    /// Starts the program; `None` where this one cannot. `meanwhile`: see `keeper::wait_while`.
    pub fn start(
        self,
        start: &mut Start<'_>,
        lists: bool,
        meanwhile: &mut dyn FnMut() -> bool,
    ) -> Result<Option<(i32, Listened)>, Fault> {
        let shared: *mut Start<'_> = start;
        // SAFETY: the place is ours and of the two processes. They read what is written here when they have seen `asked`.
        unsafe {
            let this = keeper(self.at);
            // It may have been made a moment ago.
            keeper::wait_while(&(*this).state, STARTING, self.number, meanwhile);
            (*this).renew(lists);
            (*this).start = shared as usize;
            let is_alive = (*this).state.load(Ordering::Acquire) == STARTED;
            if !is_alive || !was_waiting(&(*this).asked) {
                self.discard();
                return Ok(None);
            }
            wake(&(*this).asked);
            keeper::wait_while(&(*this).shares, 1, self.number, meanwhile);
            rawsys::close((*this).null);
            (*this).null = -1;
            match (&raw const (*shared).fault).read_volatile() {
                Some(Fault { stage: UNFIT, .. }) => {
                    self.discard();
                    Ok(None)
                }
                Some(fault) => {
                    rawsys::close((*this).pidfd);
                    // Nobody lists what is beneath it, and nobody is told of its end.
                    keeper::release(self.at);
                    keeper::may_not_tell(self.at);
                    Err(fault)
                }
                None => {
                    let (pid, pidfd) = ((*this).pid, (*this).pidfd);
                    Ok(Some((self.number, Listened { pid, pidfd, listener: -1, denied: 0 })))
                }
            }
        }
    }

    pub fn is(self, pid: i32) -> bool {
        self.number == pid
    }

    /// Ends what is left of it, where somebody has ended a part.
    pub fn discard(self) {
        // SAFETY: as in `start`.
        unsafe {
            let this = keeper(self.at);
            if (*this).state.load(Ordering::Acquire) != 0 {
                end::kill(self.number, rawsys::SIGKILL);
            }
            while (*this).state.load(Ordering::Acquire) != 0 {
                let state = (*this).state.load(Ordering::Acquire);
                let _ = rawsys::futex_wait_long(&(*this).state, state);
            }
            rawsys::close((*this).null);
            rawsys::close((*this).pidfd);
            // Its keeper is gone. As long as it shares our memory nobody has reaped it, and its number is its own.
            while (*this).pid > 0 && (*this).shares.load(Ordering::Acquire) != 0 {
                end::kill((*this).pid, rawsys::SIGKILL);
                let _ = rawsys::futex_wait_long(&(*this).shares, 1);
            }
        }
    }
}

fn was_waiting(asked: &AtomicI32) -> bool {
    asked.compare_exchange(WAITING, ASKED, Ordering::AcqRel, Ordering::Acquire).is_ok()
}
