//! Sandboxes that are built before a request comes.

use std::ffi::c_int;

use crate::child::Child;
use crate::command::Command;
use crate::error::{ErrorObject, entry, free};
use crate::policy::Policy;
use crate::result::RunResult;
use crate::text::{Place, empty, handle, wrong};

/// Sandboxes of one policy that are built ahead. Any number of threads may use it at once.
#[derive(Debug)]
pub struct Pool {
    pool: sandcell::Pool,
}

/// Builds `size` sandboxes ahead (1 to 1000) and keeps as many waiting, so that a program starts about as fast as without a
/// sandbox. Each serves one program and is never used again: who takes one launches the next. What waits ends with the pool
/// and with the calling process; in a forked process a pool is empty.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_pool_start(
    policy: Option<&Policy>,
    size: usize,
    pool: Place<'_, *mut Pool>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(pool, "pool")?;
        let pool = handle(policy, "policy")?.sandbox()?.pool(size)?;
        *place = Box::into_raw(Box::new(Pool { pool }));
        Ok(())
    })
}

/// Runs a program to its end in a sandbox of the pool, or in one that is made for it where none waits; as
/// sandcell_run_command. To track changes and to learn is decided before a sandbox is built, and refused here.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_pool_run(
    pool: Option<&Pool>,
    command: Option<&Command>,
    result: Place<'_, *mut RunResult>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(result, "result")?;
        let (pool, command) = (handle(pool, "pool")?, handle(command, "command")?);
        *place = Box::into_raw(command.output(|program| pool.pool.command(program))?);
        Ok(())
    })
}

/// Starts a program in a sandbox of the pool; as sandcell_spawn.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_pool_spawn(
    pool: Option<&Pool>,
    command: Option<&Command>,
    child: Place<'_, *mut Child>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(child, "child")?;
        let (pool, command) = (handle(pool, "pool")?, handle(command, "command")?);
        *place = Box::into_raw(command.spawn(|program| pool.pool.command(program))?);
        Ok(())
    })
}

/// What the pool has done so far: commands that took a sandbox that waited, commands for which none was there, and how many
/// sandboxes wait now.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_pool_stats(
    pool: Option<&Pool>,
    hits: Place<'_, u64>,
    misses: Place<'_, u64>,
    waiting: Place<'_, usize>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let hits = hits.begin(0).ok_or_else(|| wrong("hits", "is NULL"))?;
        let misses = misses.begin(0).ok_or_else(|| wrong("misses", "is NULL"))?;
        let waiting = waiting.begin(0).ok_or_else(|| wrong("waiting", "is NULL"))?;
        let now = handle(pool, "pool")?.pool.stats();
        (*hits, *misses, *waiting) = (now.hits, now.misses, now.waiting);
        Ok(())
    })
}

/// Frees a pool: what waits in it ends. Programs that run go on. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_pool_free(pool: Option<Box<Pool>>) {
    free(pool)
}
