//! What the program may use: limits of the whole sandbox, of each process, and of time and output.

use std::ffi::{c_char, c_int};
use std::time::Duration;

use sandcell::{IoMax, words};

use crate::policy::{Policy, set};
use crate::text::{path, word};

/// No limit, for sandcell_policy_add_rlimit.
pub const SANDCELL_UNLIMITED: u64 = u64::MAX;

/// Bytes of memory, page cache included.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_memory(policy: *mut Policy, bytes: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.memory(bytes))) }
}

/// Bytes above which the kernel slows the sandbox down to reclaim; cgroup v2 only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_memory_high(policy: *mut Policy, bytes: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.memory_high(bytes))) }
}

/// Bytes of swap on top of the memory; 0 by default where memory is limited.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_swap(policy: *mut Policy, bytes: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.swap(bytes))) }
}

/// Processes and threads.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_pids(policy: *mut Policy, count: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.pids(count))) }
}

/// CPUs, such as 0.5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_cpus(policy: *mut Policy, cpus: f64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.cpus(cpus))) }
}

/// Share of the CPU against others, 1 to 10,000; 100 is the kernel's default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_cpu_weight(policy: *mut Policy, weight: u32) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.cpu_weight(weight))) }
}

/// CPUs that may be used, as `0-3,8`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_cpuset(policy: *mut Policy, list: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.cpuset(word(list, "cpuset")?))) }
}

/// Bytes that the private directories and the throw-away upper may hold together.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_disk(policy: *mut Policy, bytes: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.disk(bytes))) }
}

/// Files and directories that they may hold together.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_inodes(policy: *mut Policy, count: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.inodes(count))) }
}

/// CPU time of all processes together, milliseconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_cpu_time_ms(policy: *mut Policy, milliseconds: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.cpu_time(Duration::from_millis(milliseconds)))) }
}

/// Share of block input and output, 1 to 10,000.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_io_weight(policy: *mut Policy, weight: u32) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.io_weight(weight))) }
}

/// Limits one block device (such as /dev/sda, or `8:0`): bytes and operations per second, 0 for no limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_add_io_max(
    policy: *mut Policy,
    device: *const c_char,
    read_bytes: u64,
    write_bytes: u64,
    read_ops: u64,
    write_ops: u64,
) -> c_int {
    let some = |number: u64| (number > 0).then_some(number);
    // SAFETY: handles and texts are what the contract says.
    unsafe {
        set(policy, |b| {
            let mut limit = IoMax::default();
            limit.device = word(device, "io_max")?.to_owned();
            (limit.read_bytes, limit.write_bytes) = (some(read_bytes), some(write_bytes));
            (limit.read_ops, limit.write_ops) = (some(read_ops), some(write_ops));
            Ok(b.io_max(limit))
        })
    }
}

/// A cgroup v2 directory to work beneath, instead of the one that is found.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_cgroup(policy: *mut Policy, dir: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.cgroup(path(dir, "cgroup")?))) }
}

/// A limit of each process by its name in setrlimit(2), such as `nofile`; SANDCELL_UNLIMITED for none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_add_rlimit(
    policy: *mut Policy,
    name: *const c_char,
    soft: u64,
    hard: u64,
) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.rlimit(words::resource(word(name, "rlimit")?)?, soft, hard))) }
}

/// Wall-clock milliseconds that the program may take; then SIGTERM, the grace, SIGKILL to all of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_timeout_ms(policy: *mut Policy, milliseconds: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.timeout(Duration::from_millis(milliseconds)))) }
}

/// Milliseconds between SIGTERM and SIGKILL; 2000 by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_grace_ms(policy: *mut Policy, milliseconds: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.grace(Duration::from_millis(milliseconds)))) }
}

/// Bytes that the program may write to stdout and stderr together before it is ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_output_limit(policy: *mut Policy, bytes: u64) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.output_limit(bytes))) }
}
