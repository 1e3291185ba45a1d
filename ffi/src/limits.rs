//! Limits that have several values: of block devices, and of each process. The others are in `setters.rs`.

use std::ffi::c_int;

use sandcell::IoMax;
use sandcell::options::resource;

use crate::policy::{Policy, set};
use crate::text::{Text, word};

/// No limit: for sandcell_policy_add_rlimit, and for every time.
pub const SANDCELL_UNLIMITED: u64 = u64::MAX;

/// Limits one block device (such as /dev/sda, or `8:0`): bytes and operations per second, 0 for no limit.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_io_max(
    policy: Option<&mut Policy>,
    device: Text<'_>,
    read_bytes: u64,
    write_bytes: u64,
    read_ops: u64,
    write_ops: u64,
) -> c_int {
    let some = |number: u64| (number > 0).then_some(number);
    set(policy, |b| {
        Ok(b.io_max(IoMax {
            device: word(device, "io_max")?.to_owned(),
            read_bytes: some(read_bytes),
            write_bytes: some(write_bytes),
            read_ops: some(read_ops),
            write_ops: some(write_ops),
        }))
    })
}

/// A limit of each process by its name in setrlimit(2), such as `nofile`; SANDCELL_UNLIMITED for none.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_rlimit(
    policy: Option<&mut Policy>,
    name: Text<'_>,
    soft: u64,
    hard: u64,
) -> c_int {
    set(policy, |b| Ok(b.rlimit(resource(word(name, "rlimit")?)?, soft, hard)))
}
