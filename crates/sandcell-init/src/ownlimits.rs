//! Our own resource limits: what a program does to them must not reach the next command, which inherits them.

use crate::rawsys;

const RESOURCES: usize = 16;

/// As they were before the first program of the cell ran.
static mut FIRST: Option<[[u64; 2]; RESOURCES]> = None;

fn all() -> Result<[[u64; 2]; RESOURCES], i32> {
    let mut limits = [[0u64; 2]; RESOURCES];
    for (resource, limit) in limits.iter_mut().enumerate() {
        rawsys::rlimit(resource, limit)?;
    }
    Ok(limits)
}

/// Notes them before the first program of a cell runs.
pub fn note() -> Result<(), i32> {
    // SAFETY: one thread.
    unsafe {
        let first = FIRST;
        if first.is_none() {
            FIRST = Some(all()?);
        }
    }
    Ok(())
}

/// As `restore`, of the number of descriptors alone: those beyond it that come with a request are lost.
pub fn restore_descriptors() -> Result<(), i32> {
    const RLIMIT_NOFILE: usize = 7;
    // SAFETY: one thread.
    let Some(first) = (unsafe { FIRST }) else { return Ok(()) };
    let first = &first[RLIMIT_NOFILE];
    let mut now = [0u64; 2];
    rawsys::rlimit(RLIMIT_NOFILE, &mut now)?;
    if now != *first {
        rawsys::set_rlimit(RLIMIT_NOFILE, first)?;
    }
    Ok(())
}

/// Puts back what a program has changed. Fails where it has taken a hard limit down, which only the host's root undoes.
pub fn restore() -> Result<(), i32> {
    // SAFETY: one thread.
    let Some(first) = (unsafe { FIRST }) else { return Ok(()) };
    let mut answer = Ok(());
    for (resource, (now, first)) in all()?.iter().zip(&first).enumerate() {
        if now != first {
            answer = answer.and(rawsys::set_rlimit(resource, first));
        }
    }
    answer
}
