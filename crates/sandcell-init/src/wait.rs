//! Waiting for descriptors: poll(2), and epoll(7) where a program has taken our limit on descriptors away.

use crate::rawsys::{self, EpollEvent, call, nr};
pub use crate::rawsys::{POLLIN, PollFd};

pub const POLLOUT: i16 = 4;
const POLLNVAL: i16 = 0x20;

static mut EPOLL: i32 = -1;
static mut TIMER: i32 = -1;
const MONOTONIC: usize = 1;

/// Makes what `wait` and `alarm` need while descriptors can still be made.
pub fn prepare() -> Result<(), i32> {
    // SAFETY: numbers; one thread, and nothing has read them yet.
    unsafe {
        EPOLL = call!(nr::EPOLL_CREATE1, rawsys::O_CLOEXEC)? as i32;
        TIMER = call!(nr::TIMERFD_CREATE, MONOTONIC, rawsys::O_CLOEXEC)? as i32;
    }
    Ok(())
}

/// What becomes readable at this time, in monotonic nanoseconds. The timeouts of poll(2) and epoll(7) are late by our timer
/// slack, which whoever keeps CAP_SYS_NICE may set to hours; a timer has none.
pub fn alarm(time: u64) -> Result<i32, i32> {
    const ABSOLUTE: usize = 1;
    const SECOND: u64 = 1_000_000_000;
    // struct itimerspec: the interval, then the time.
    let setting = [0, 0, time / SECOND, time % SECOND];
    // SAFETY: the layout of struct itimerspec; written once, by `prepare`.
    unsafe {
        call!(nr::TIMERFD_SETTIME, TIMER, ABSOLUTE, setting.as_ptr(), 0)?;
        Ok(TIMER)
    }
}

/// Waits until one of them is ready, or so many milliseconds; -1 is without end.
///
/// poll(2) refuses more entries than RLIMIT_NOFILE, which any process with our ids may set to 0. epoll does not look.
pub fn wait(polls: &mut [PollFd], timeout: i32) -> Result<(), i32> {
    loop {
        match rawsys::poll(polls, timeout) {
            Err(rawsys::EINTR) => {}
            Err(rawsys::EINVAL) => return by_epoll(polls, timeout),
            other => return other.map(|_| ()),
        }
    }
}

fn by_epoll(polls: &mut [PollFd], timeout: i32) -> Result<(), i32> {
    const ADD: usize = 1;
    const DELETE: usize = 2;
    const MOST: usize = 64;
    // SAFETY: written once, by `prepare`.
    let epoll = unsafe { EPOLL };
    let mut ready = false;
    let mut answer = Ok(());
    for (at, poll) in polls.iter_mut().enumerate() {
        poll.returned = 0;
        if poll.fd < 0 {
            continue;
        }
        let event = EpollEvent { events: poll.events as u32, data: at as u64 };
        match rawsys::epoll_ctl(epoll, ADD, poll.fd, &event) {
            Ok(_) | Err(rawsys::EEXIST) => continue,
            // A regular file is always ready.
            Err(rawsys::EPERM) => poll.returned = poll.events,
            Err(rawsys::EBADF) => poll.returned = POLLNVAL,
            Err(errno) => answer = Err(errno),
        }
        ready = true;
    }
    let mut events = [EpollEvent { events: 0, data: 0 }; MOST];
    let count = loop {
        let timeout = if ready { 0 } else { timeout };
        match rawsys::epoll_wait(epoll, &mut events, timeout) {
            Err(rawsys::EINTR) => {}
            other => break other,
        }
    };
    let none = EpollEvent { events: 0, data: 0 };
    for poll in polls.iter().filter(|poll| poll.fd >= 0) {
        // What was not added is not there to be taken out.
        let _ = rawsys::epoll_ctl(epoll, DELETE, poll.fd, &none);
    }
    answer?;
    for event in &events[..count?] {
        polls[{ event.data } as usize].returned = { event.events } as i16;
    }
    Ok(())
}

/// Whether it is readable, or closed on the other side, now.
pub fn is_readable(fd: i32) -> bool {
    is_ready(fd, POLLIN)
}

pub fn is_writable(fd: i32) -> bool {
    is_ready(fd, POLLOUT)
}

fn is_ready(fd: i32, events: i16) -> bool {
    let mut poll = [PollFd::new(fd, events)];
    wait(&mut poll, 0).is_ok() && poll[0].returned != 0
}
