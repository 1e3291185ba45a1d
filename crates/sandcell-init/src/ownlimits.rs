//! Our own resource limits: what a program does to them must not reach the next command, which inherits them.

use crate::rawsys::{call, nr};

const RESOURCES: usize = 16;

/// As they were before the first program of the cell ran.
static mut FIRST: Option<[[u64; 2]; RESOURCES]> = None;

fn all() -> Result<[[u64; 2]; RESOURCES], i32> {
    let mut limits = [[0u64; 2]; RESOURCES];
    for (resource, limit) in limits.iter_mut().enumerate() {
        // SAFETY: the layout of struct rlimit64.
        unsafe { call!(nr::PRLIMIT64, 0, resource, 0, limit.as_mut_ptr()) }?;
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
    // SAFETY: the layout of struct rlimit64.
    unsafe {
        call!(nr::PRLIMIT64, 0, RLIMIT_NOFILE, 0, now.as_mut_ptr())?;
        if now != *first {
            call!(nr::PRLIMIT64, 0, RLIMIT_NOFILE, first.as_ptr(), 0)?;
        }
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
            // SAFETY: the layout of struct rlimit64.
            let restored = unsafe { call!(nr::PRLIMIT64, 0, resource, first.as_ptr(), 0) };
            answer = answer.and(restored.map(|_| ()));
        }
    }
    answer
}
