//! Setters of options that have one value. Made from the options table by sandbox/tests/options: change
//! sandbox/src/policy/options/table.rs instead.

use std::ffi::c_int;

use crate::policy::{Policy, set_text, set_value};
use crate::text::Text;

/// Where its UID on the host comes from; auto: a leased sub-UID if available, else the caller's; disjoint: a leased
/// sub-UID or an error; shared: the caller's. One of auto, disjoint, shared. Default: auto.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_host_ids(policy: Option<&mut Policy>, text: Text<'_>) -> c_int {
    set_text(policy, "host_ids", text)
}

/// What keeps programs apart from the host: `landlock` is for hosts that forbid user namespaces, and weaker. One of
/// namespaces, landlock. Default: namespaces.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_isolation(policy: Option<&mut Policy>, text: Text<'_>) -> c_int {
    set_text(policy, "isolation", text)
}

/// The network; `loopback` is a private one, `user` the public internet through a relay that keeps rules. One of none,
/// loopback, host, user. Default: loopback.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_network(policy: Option<&mut Policy>, text: Text<'_>) -> c_int {
    set_text(policy, "network", text)
}

/// Landlock behind the namespaces: what the kernel can do, every rule or an error, or not at all. One of default,
/// required, off. Default: default.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_landlock(policy: Option<&mut Policy>, text: Text<'_>) -> c_int {
    set_text(policy, "landlock", text)
}

/// Processes still alive when the program ends are killed, killed and listed, or make the run a failure. One of kill,
/// report, fail. Default: kill.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_leftovers(policy: Option<&mut Policy>, text: Text<'_>) -> c_int {
    set_text(policy, "leftovers", text)
}

/// Memory of all processes together, page cache included; more is an out-of-memory kill. At least 4096. Default: none.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_memory(policy: Option<&mut Policy>, bytes: u64) -> c_int {
    set_value(policy, "memory", bytes.into())
}

/// Memory above which the kernel slows the sandbox down to reclaim (cgroup v2). At least 4096. Default: none.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_memory_high(policy: Option<&mut Policy>, bytes: u64) -> c_int {
    set_value(policy, "memory_high", bytes.into())
}

/// Swap on top of the memory; 0 by default where memory is limited. Default: none.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_swap(policy: Option<&mut Policy>, bytes: u64) -> c_int {
    set_value(policy, "swap", bytes.into())
}

/// Processes and threads. 1 to 4194303. Default: none.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_pids(policy: Option<&mut Policy>, count: u64) -> c_int {
    set_value(policy, "pids", count.into())
}

/// CPUs, such as 0.5. 0.01 to 1000000. Default: none.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_cpus(policy: Option<&mut Policy>, number: f64) -> c_int {
    set_value(policy, "cpus", number.into())
}

/// Share of the CPU against others, 1 to 10000; 100 is the kernel's default. 1 to 10000. Default: none.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_cpu_weight(policy: Option<&mut Policy>, count: u32) -> c_int {
    set_value(policy, "cpu_weight", count.into())
}

/// CPUs that may be used, such as 0-3,8. Default: none.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_cpuset(policy: Option<&mut Policy>, text: Text<'_>) -> c_int {
    set_text(policy, "cpuset", text)
}

/// CPU time of all processes together. Default: none. Milliseconds; SANDCELL_UNLIMITED has no end.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_cpu_time_ms(policy: Option<&mut Policy>, milliseconds: u64) -> c_int {
    set_value(policy, "cpu_time", crate::text::milliseconds(milliseconds).into())
}

/// What the throw-away upper, /tmp, the home and the other private directories may hold together. Default: none.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_disk(policy: Option<&mut Policy>, bytes: u64) -> c_int {
    set_value(policy, "disk", bytes.into())
}

/// Files and directories that they may hold together. Default: none.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_inodes(policy: Option<&mut Policy>, count: u64) -> c_int {
    set_value(policy, "inodes", count.into())
}

/// Share of block input and output, 1 to 10000; 100 is the kernel's default. 1 to 10000. Default: none.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_io_weight(policy: Option<&mut Policy>, count: u32) -> c_int {
    set_value(policy, "io_weight", count.into())
}

/// A cgroup v2 directory to work beneath, instead of the one that is found. Default: none.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_cgroup(policy: Option<&mut Policy>, path: Text<'_>) -> c_int {
    set_text(policy, "cgroup", path)
}

/// How many ids the program has: 65536 for a whole distribution, with `cap_add` for what changes user. 1 to 4294967295.
/// Default: 1.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_id_count(policy: Option<&mut Policy>, count: u32) -> c_int {
    set_value(policy, "id_count", count.into())
}

/// Map the caller's own UID and GID to the program's, so that files of the caller in bind mounts are its own. Default:
/// false.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_keep_id(policy: Option<&mut Policy>, enable: bool) -> c_int {
    set_value(policy, "keep_id", enable.into())
}

/// Deprecated: use sandcell_policy_set_keep_id.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_keep_caller(policy: Option<&mut Policy>, enable: bool) -> c_int {
    set_value(policy, "keep_id", enable.into())
}

/// Give what other ids than the caller's own have made in writable binds to the caller when a run has ended. Default:
/// false.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_reclaim(policy: Option<&mut Policy>, enable: bool) -> c_int {
    set_value(policy, "reclaim", enable.into())
}

/// How long to wait for free ids. Default: not at all. Milliseconds; SANDCELL_UNLIMITED has no end.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_wait_for_ids_ms(policy: Option<&mut Policy>, milliseconds: u64) -> c_int {
    set_value(policy, "wait_for_ids", crate::text::milliseconds(milliseconds).into())
}

/// Deprecated: use sandcell_policy_set_wait_for_ids_ms.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_id_wait_ms(policy: Option<&mut Policy>, milliseconds: u64) -> c_int {
    set_value(policy, "wait_for_ids", crate::text::milliseconds(milliseconds).into())
}

/// The program is the init of a system, PID 1 of its own: systemd, OpenRC, busybox; implies root, 65536 ids, a cgroup
/// and a grace of 30s. Default: false.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_init(policy: Option<&mut Policy>, enable: bool) -> c_int {
    set_value(policy, "init", enable.into())
}

/// The host's name inside. Default: cell- and 6 random characters.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_hostname(policy: Option<&mut Policy>, text: Text<'_>) -> c_int {
    set_text(policy, "hostname", text)
}

/// Wall-clock time that a program may take; then SIGTERM, `grace`, SIGKILL to all of it. Default: none. Milliseconds;
/// SANDCELL_UNLIMITED has no end.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_timeout_ms(policy: Option<&mut Policy>, milliseconds: u64) -> c_int {
    set_value(policy, "timeout", crate::text::milliseconds(milliseconds).into())
}

/// Between SIGTERM and SIGKILL. Default: 2s. Milliseconds; SANDCELL_UNLIMITED has no end.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_grace_ms(policy: Option<&mut Policy>, milliseconds: u64) -> c_int {
    set_value(policy, "grace", crate::text::milliseconds(milliseconds).into())
}

/// What a program may write to standard output and error together before it is ended. Default: none.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_output_limit(policy: Option<&mut Policy>, bytes: u64) -> c_int {
    set_value(policy, "output_limit", bytes.into())
}

/// Publish the ports that the image exposes, each at a free port of the host's 127.0.0.1. Default: false.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_publish_all(policy: Option<&mut Policy>, enable: bool) -> c_int {
    set_value(policy, "publish_all", enable.into())
}

/// Pass the caller's environment on. Default: false.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_keep_env(policy: Option<&mut Policy>, enable: bool) -> c_int {
    set_value(policy, "keep_env", enable.into())
}

/// Working directory inside. Default: the home, or the image's.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_chdir(policy: Option<&mut Policy>, path: Text<'_>) -> c_int {
    set_text(policy, "chdir", path)
}

/// File mode creation mask. 000 to 777. Default: 022.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_umask(policy: Option<&mut Policy>, mode: u32) -> c_int {
    set_value(policy, "umask", mode.into())
}
