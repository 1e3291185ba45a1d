//! The listener of a program's system call filter: the kernel stops a call, we note which it was and either end the
//! process or (learning) let it go on. See seccomp_unotify(2).
//!
//! The descriptor appears in the process that installs the filter, which can make no further call to hand it over:
//! the filter may refuse any. So the program starts beside a go-between that shares its table of descriptors, has no
//! filter, and sends the descriptor to us. Nobody blocks on the program meanwhile: even its exec may be stopped.

use core::sync::atomic::{AtomicI32, Ordering};

use crate::rawsys::{self, call, clone_onto, nr};
use crate::spawn::{self, Start, Tend};
use crate::wait::{self, POLLIN, PollFd};
use crate::wire::{self, stage};
use crate::{At, Fault, socket};

const STACK: usize = 8 * 1024;

#[repr(C, align(16))]
struct Stack([u8; STACK]);
static mut STACK_BETWEEN: Stack = Stack([0; STACK]);

/// `Progress::listener` until the filter is installed, and where a program goes on without a listener.
pub const NOT_YET: i32 = -1;
pub const NONE: i32 = -2;

/// What the program tells the go-between and us through memory that all three share.
pub struct Progress {
    /// The go-between's end of the socket to us: 0 where there is no go-between.
    channel: i32,
    pid: AtomicI32,
    /// The kernel zeroes it when the program has executed or ended.
    shares: AtomicI32,
    pub listener: AtomicI32,
}

impl Progress {
    pub const fn new() -> Progress {
        Progress {
            channel: 0,
            pid: AtomicI32::new(-rawsys::EAGAIN),
            shares: AtomicI32::new(1),
            listener: AtomicI32::new(NOT_YET),
        }
    }
}

/// A call that waits for us.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Notice {
    id: u64,
    /// The thread, as we number it.
    pub pid: u32,
    flags: u32,
    nr: i32,
    arch: u32,
    pointer: u64,
    arguments: [u64; 6],
}

impl Notice {
    /// Number and architecture, as a reply carries them.
    pub fn call(&self) -> u64 {
        u64::from(self.arch) << 32 | u64::from(self.nr as u32)
    }
}

/// The call that waits, if one still does: whoever made it may be dead by now.
pub fn take(listener: i32) -> Option<Notice> {
    const SECCOMP_IOCTL_NOTIF_RECV: u32 = 0xc050_2100;
    let mut notice = Notice::default();
    // SAFETY: zeroed, and the layout of struct seccomp_notif.
    unsafe { call!(nr::IOCTL, listener, SECCOMP_IOCTL_NOTIF_RECV, &raw mut notice) }.ok().map(|_| notice)
}

/// Lets the call go on: only to learn, because what its pointers lead to may have changed since. A program that cannot
/// be let go would wait for us for ever; it is ended.
pub fn let_pass(listener: i32, notice: &Notice) {
    const SECCOMP_IOCTL_NOTIF_SEND: u32 = 0xc018_2101;
    const SECCOMP_USER_NOTIF_FLAG_CONTINUE: u64 = 1 << 32;
    // struct seccomp_notif_resp: id, val, error and flags.
    let response = [notice.id, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE];
    // SAFETY: the layout of struct seccomp_notif_resp.
    let send = || unsafe { call!(nr::IOCTL, listener, SECCOMP_IOCTL_NOTIF_SEND, response.as_ptr()) };
    if send().or_else(|_| send()).is_err() {
        end(listener, notice);
    }
}

/// Ends the process that made the call. It cannot do anything but wait for us, so its number is still its own.
pub fn end(listener: i32, notice: &Notice) {
    const SECCOMP_IOCTL_NOTIF_ID_VALID: u32 = 0x4008_2102;
    // SAFETY: a 64-bit number, then numbers only. A thread's number stands for its whole process here.
    unsafe {
        if call!(nr::IOCTL, listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const notice.id).is_ok() {
            let _ = rawsys::kill(notice.pid as i32, rawsys::SIGKILL);
        }
    }
}

/// A program that has been started beside a go-between.
pub struct Listened {
    pub pid: i32,
    pub pidfd: i32,
    /// Or -1, where no listener can be had.
    pub listener: i32,
    /// The call for which it was ended before it executed, or 0.
    pub denied: u64,
}

/// Starts the program with a listener of its filter. `note`: what to do with a call of a learning run.
pub fn start(
    start: &mut Start<'_>,
    mut note: Option<&mut dyn FnMut(&Notice)>,
    tend: Tend<'_>,
) -> Result<Listened, Fault> {
    let (ours, theirs) = channel(start.request.highest()).at(stage::LISTENER)?;
    start.progress.channel = theirs;
    let flags = rawsys::CLONE_VM | rawsys::CLONE_CHILD_CLEARTID | rawsys::SIGCHLD as u64;
    let shared: *mut Start<'_> = start;
    let shares = AtomicI32::new(1);
    // SAFETY: we wait for the go-between. The program may still use `start`, its own stack and the request afterwards: all
    // of them stay until `watch` has seen it execute or end.
    let between_pid = unsafe {
        let top = (&raw mut STACK_BETWEEN).cast::<u8>().add(STACK) as usize;
        let args = rawsys::clone_args(flags, top, 0, shares.as_ptr() as usize);
        rawsys::check(clone_onto(nr::CLONE, args, between, shared.cast()))
    };
    rawsys::close(theirs);
    if between_pid.is_ok() {
        // SAFETY: only its atomic parts are read.
        spawn::until_zero(&shares, || tend(unsafe { (*shared).progress.pid.load(Ordering::Acquire) }));
    }
    if let Ok(between_pid) = between_pid {
        let _ = rawsys::reap(between_pid as i32, 0);
    }
    // SAFETY: others write to it, so it is read through the pointer from here on, and only its atomic parts until the
    // program has executed.
    let progress = unsafe { &(*shared).progress };
    let started = between_pid.and_then(|_| rawsys::check(progress.pid.load(Ordering::Acquire) as isize));
    let pid = match started.at(stage::CLONE) {
        Ok(pid) => pid as i32,
        Err(fault) => {
            rawsys::close(ours);
            return Err(fault);
        }
    };
    let mut listened = Listened { pid, pidfd: -1, listener: -1, denied: 0 };
    watch(ours, &mut listened, &mut note, tend);
    rawsys::close(ours);
    // SAFETY: the program is gone from our memory; numbers only.
    unsafe {
        if let Some(fault) = (&raw const (*shared).fault).read_volatile() {
            rawsys::close(listened.listener);
            let _ = rawsys::reap(pid, 0);
            return Err(fault);
        }
        // Not reaped yet, whatever has become of it.
        listened.pidfd = rawsys::pidfd_open(pid).at(stage::CLONE)?;
    }
    Ok(listened)
}

/// Attends to the listener until the program has executed or ended: until the last other end of `ours` is closed.
fn watch(ours: i32, listened: &mut Listened, note: &mut Option<&mut dyn FnMut(&Notice)>, tend: Tend<'_>) {
    const LOOK: i32 = 50;
    loop {
        let mut polls = [ours, listened.listener].map(PollFd::input);
        if wait::wait(&mut polls, LOOK).is_err() {
            return;
        }
        if polls.iter().all(|poll| poll.returned == 0) {
            tend(listened.pid);
            continue;
        }
        // This one first: what a program has stopped for after its exec, whose end we see here, is not ours to judge.
        if polls[0].returned != 0 {
            let mut fds = [-1; socket::MOST_DESCRIPTORS];
            match socket::receive(ours, &mut fds) {
                Some((_, 1)) => listened.listener = fds[0],
                _ => return,
            }
        } else if polls[1].returned & POLLIN != 0
            && let Some(notice) = take(listened.listener)
        {
            match note {
                Some(note) => {
                    note(&notice);
                    let_pass(listened.listener, &notice);
                }
                None => {
                    listened.denied = notice.call();
                    end(listened.listener, &notice);
                }
            }
        }
    }
}

/// Two connected sockets; the second has a number that no descriptor of the program gets.
fn channel(highest: u32) -> Result<(i32, i32), i32> {
    const AF_UNIX: usize = 1;
    const SOCK_SEQPACKET: usize = 5;
    let mut ends = [0i32; 2];
    rawsys::socketpair(AF_UNIX, SOCK_SEQPACKET, &mut ends)?;
    let theirs = rawsys::dup_above(ends[1], highest + 1);
    rawsys::close(ends[1]);
    match theirs {
        Ok(theirs) => Ok((ends[0], theirs)),
        Err(errno) => {
            rawsys::close(ends[0]);
            Err(errno)
        }
    }
}

/// The go-between: makes the program as a child of ours that shares its descriptors, and sends us the listener.
///
/// # Safety
/// `arg` is the `Start` of a supervisor that waits.
unsafe extern "C" fn between(arg: *mut u8) -> ! {
    let flags = rawsys::CLONE_VM | rawsys::CLONE_FILES | rawsys::CLONE_PARENT | rawsys::CLONE_CHILD_CLEARTID;
    // SAFETY: see above; the program writes the atomic parts of `progress` while we read them.
    unsafe {
        let progress = &(*arg.cast::<Start<'_>>()).progress;
        let args = rawsys::clone_args(flags, spawn::child_stack(), 0, progress.shares.as_ptr() as usize);
        let pid = clone_onto(nr::CLONE, args, spawn::child, arg);
        progress.pid.store(pid as i32, Ordering::Release);
        let mut tries = 0;
        while pid > 0
            && progress.listener.load(Ordering::Acquire) == NOT_YET
            && progress.shares.load(Ordering::Acquire) != 0
        {
            // It is there within the time that it takes to install a filter; asleep we would come too late.
            tries += 1;
            let _ = if tries < 1000 { rawsys::sched_yield().map(|()| 0) } else { rawsys::poll(&mut [], 1) };
        }
        let listener = progress.listener.load(Ordering::Acquire);
        if listener >= 0 {
            socket::pass(progress.channel, listener);
        }
        rawsys::exit(0)
    }
}

/// The calls of a learning run, a bit for each.
pub struct Calls(pub [u64; wire::CALL_WORDS]);

impl Calls {
    pub fn note(&mut self, notice: &Notice) {
        if let Some(word) = self.0.get_mut(notice.nr as u32 as usize / 64) {
            *word |= 1 << (notice.nr % 64);
        }
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: numbers are bytes, for as long as they live.
        unsafe { core::slice::from_raw_parts(self.0.as_ptr().cast(), size_of_val(&self.0)) }
    }
}

/// Whether a thread belongs to this process. The numbers are not reaped while they are asked about.
pub fn is_thread_of(process: i32, thread: u32) -> bool {
    // Signal 0 is none.
    process as u32 == thread || rawsys::tgkill(process as u32, thread, 0).is_ok()
}
