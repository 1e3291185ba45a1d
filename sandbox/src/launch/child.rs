//! What happens between clone and exec, in a child that shares the caller's memory: raw system calls on memory that
//! was prepared before, nothing else. No allocation, no lock, no libc, no panic. See clone(2), vfork(2).
#![allow(unsafe_code)]

use crate::rawsys::{self, CloneArgs, call, check, clone_onto, nr};
use crate::wire::stage;

pub(super) const STACK: usize = 32 * 1024;

/// What init needs: CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, SETPCAP, NET_ADMIN, SYS_ADMIN; and
/// SETFCAP, without which no namespace below may have an id 0 (user_namespaces(7), since Linux 5.12); and FSETID: an
/// overlay changes its upper with the rights of who mounted it, and set-group-ID of directories would be lost.
const NEEDED: [u32; 11] = [0, 1, 3, 4, 5, 6, 7, 8, 12, 21, 31];

/// For the sockets of a relay in the sandbox's network: NET_BIND_SERVICE, for a port that no program can want, and NET_RAW.
const FOR_RELAY: [u32; 2] = [10, 13];

/// Everything the child needs, and where it leaves what failed.
pub(super) struct Orders {
    /// What the program is called.
    pub name: &'static core::ffi::CStr,
    /// Whether it makes raw packets in a network of its own.
    pub raw_packets: bool,
    /// Capabilities that programs keep in the sandbox's own user namespace.
    pub keeps: u64,
    /// cgroup.procs files to join by writing "0".
    pub join: Vec<i32>,
    /// Whether there are namespaces to make; without them there are no maps and no capabilities.
    pub namespaces: bool,
    /// A prepared user namespace to enter, or -1.
    pub enter: i32,
    /// Whether it is to be nobody's child: not the caller's, who may live on and reap nothing.
    pub detached: bool,
    /// Whether the child writes its own maps, of one id each, before it executes init.
    pub writes_own_maps: bool,
    /// /proc, checked to be one.
    pub proc: i32,
    /// Whether setgroups(2) has to be denied before the maps are written: a one-id map needs it.
    pub deny_groups: bool,
    pub uid_map: Vec<u8>,
    pub gid_map: Vec<u8>,
    /// clone3, unless something outside refuses it.
    pub clone3: bool,
    /// Namespaces of the process that becomes init.
    pub flags: u64,
    /// A cgroup v2 directory to start in, or -1.
    pub cgroup: i32,
    pub control: i32,
    pub init: i32,
    /// The second stack, for the process that is made in a prepared user namespace.
    pub stack: Vec<u8>,
    pub pidfd: i32,
    pub fault: Option<(u32, i32)>,
}

/// Makes a child that shares memory and runs `start` on `stack`. Returns when it has executed or ended.
///
/// # Safety
/// All signals must be blocked, and `orders` must stay in place until this returns.
pub(super) unsafe fn vfork(
    orders: *mut Orders,
    flags: u64,
    stack: *mut u8,
    start: unsafe extern "C" fn(*mut u8) -> !,
) -> Result<i32, i32> {
    // SAFETY: the parent waits (CLONE_VFORK), so stack and orders are the child's alone.
    unsafe {
        let flags = flags | rawsys::CLONE_VM | rawsys::CLONE_VFORK;
        // With CLONE_PARENT the child takes over the signal of its sibling, and naming one is an error.
        let signal = if flags & rawsys::CLONE_PARENT == 0 { rawsys::SIGCHLD as u64 } else { 0 };
        let pidfd = &raw mut (*orders).pidfd;
        if (*orders).clone3 {
            let mut args = CloneArgs {
                flags,
                pidfd: pidfd as u64,
                exit_signal: signal,
                stack: stack as u64,
                stack_size: STACK as u64,
                ..CloneArgs::default()
            };
            if (*orders).cgroup >= 0 && flags & rawsys::CLONE_FILES == 0 {
                args.flags |= rawsys::CLONE_INTO_CGROUP;
                args.cgroup = (*orders).cgroup as u64;
            }
            let call = [&raw const args as usize, size_of::<CloneArgs>(), 0, 0, 0];
            check(clone_onto(nr::CLONE3, call, start, orders.cast())).map(|pid| pid as i32)
        } else {
            let call = rawsys::clone_args(flags | signal, stack.add(STACK) as usize, pidfd as usize, 0);
            check(clone_onto(nr::CLONE, call, start, orders.cast())).map(|pid| pid as i32)
        }
    }
}

/// Enters the prepared user namespace, where there is one, and makes the process that becomes init there: as a child of the
/// caller, or as one of this process, which ends.
///
/// # Safety
/// `arg` is the `Orders` of a caller that waits.
pub(super) unsafe extern "C" fn enter(arg: *mut u8) -> ! {
    let orders = arg.cast::<Orders>();
    // SAFETY: see above; this process shares the caller's descriptors, so the pidfd is made among them.
    unsafe {
        let entered = match (*orders).enter {
            -1 => Ok(()),
            namespace => rawsys::setns(namespace, rawsys::CLONE_NEWUSER),
        };
        let parent = if (*orders).detached { 0 } else { rawsys::CLONE_PARENT };
        let fault = match entered {
            Err(errno) => Some((stage::LAUNCH_ENTER, errno)),
            Ok(_) => {
                let stack = (*orders).stack.as_mut_ptr();
                match vfork(orders, (*orders).flags | parent, stack, become_init) {
                    Err(errno) => Some((stage::LAUNCH_CLONE, errno)),
                    // It did not get as far as init.
                    Ok(_) if (*orders).fault.is_some() => None,
                    Ok(_) if !(*orders).namespaces || (*orders).writes_own_maps => None,
                    // Only in here are there capabilities over the ids of the prepared namespace.
                    Ok(pid) => write_maps(&*orders, pid).err(),
                }
            }
        };
        if fault.is_some() {
            (*orders).fault = fault;
        }
        rawsys::exit(0)
    }
}

/// Becomes init.
///
/// # Safety
/// `arg` is the `Orders` of a caller that waits.
pub(super) unsafe extern "C" fn become_init(arg: *mut u8) -> ! {
    let orders = arg.cast::<Orders>();
    // SAFETY: see above.
    unsafe {
        (*orders).fault = Some(execute_init(&*orders));
    }
    rawsys::exit(127)
}

/// Writes the maps of another process, which waits for the Plan meanwhile.
pub(super) fn write_maps(orders: &Orders, pid: i32) -> Result<(), (u32, i32)> {
    let files: [(&[u8], &[u8], u32); 3] = [
        (b"/setgroups\0", b"deny", stage::LAUNCH_SETGROUPS),
        (b"/uid_map\0", &orders.uid_map, stage::LAUNCH_UID_MAP),
        (b"/gid_map\0", &orders.gid_map, stage::LAUNCH_GID_MAP),
    ];
    let skipped = if orders.deny_groups { 0 } else { 1 };
    for (name, map, stage) in files.into_iter().skip(skipped) {
        let mut path = [0u8; 24];
        let digits = decimal(pid.unsigned_abs(), &mut path);
        path[digits..digits + name.len()].copy_from_slice(name);
        let path = core::ffi::CStr::from_bytes_until_nul(&path).map_err(|_| (stage, rawsys::EINVAL))?;
        let mut tries = 1000;
        loop {
            match write(orders.proc, path, map) {
                // An exec wakes its parent a little before the files in /proc change hands: seen with callers that
                // have made themselves undumpable.
                Err(rawsys::EACCES) if tries > 0 => tries -= 1,
                result => break result.map_err(|errno| (stage, errno))?,
            }
            let _ = rawsys::poll(&mut [], 1);
        }
    }
    Ok(())
}

/// Puts a number at the beginning of a text; its length.
fn decimal(mut number: u32, text: &mut [u8]) -> usize {
    let mut length = 0;
    loop {
        text[length] = b'0' + (number % 10) as u8;
        length += 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text[..length].reverse();
    length
}

fn execute_init(orders: &Orders) -> (u32, i32) {
    match prepare(orders) {
        Err(fault) => fault,
        Ok(()) => {
            let argv = [orders.name.as_ptr(), core::ptr::null()];
            let envp = [core::ptr::null::<u8>()];
            // SAFETY: NULL-terminated arrays of NUL-terminated strings; what the caller has in its environment and
            // arguments stays with it.
            let result = unsafe {
                let (argv, envp) = (argv.as_ptr(), envp.as_ptr());
                match call!(nr::EXECVEAT, orders.init, c"".as_ptr(), argv, envp, rawsys::AT_EMPTY_PATH) {
                    // valgrind looks for the name of a file that has none; the file's link in /proc is one.
                    Err(rawsys::ENOENT) => {
                        let mut path = [0u8; 24];
                        path[..8].copy_from_slice(b"self/fd/");
                        decimal(orders.init.unsigned_abs(), &mut path[8..23]);
                        call!(nr::EXECVEAT, orders.proc, path.as_ptr(), argv, envp, 0)
                    }
                    result => result,
                }
            };
            (stage::LAUNCH_EXEC, result.err().unwrap_or(0))
        }
    }
}

fn prepare(orders: &Orders) -> Result<(), (u32, i32)> {
    let at = |stage: u32| move |errno: i32| (stage, errno);
    for &group in &orders.join {
        rawsys::write(group, b"0").map_err(at(stage::LAUNCH_CGROUP))?;
    }
    if orders.writes_own_maps {
        // setgroups first: without it a one-id group map is refused (user_namespaces(7)).
        write(orders.proc, c"self/setgroups", b"deny").map_err(at(stage::LAUNCH_SETGROUPS))?;
        write(orders.proc, c"self/uid_map", &orders.uid_map).map_err(at(stage::LAUNCH_UID_MAP))?;
        write(orders.proc, c"self/gid_map", &orders.gid_map).map_err(at(stage::LAUNCH_GID_MAP))?;
    }
    if !orders.namespaces {
        return keep_descriptors(orders);
    }
    // The capabilities of a new user namespace survive an exec under a UID other than 0 in the ambient set only.
    let more = if orders.raw_packets { &FOR_RELAY[..] } else { &[] };
    let needed = NEEDED.iter().chain(more).fold(orders.keeps, |set, capability| set | 1 << capability);
    rawsys::set_capabilities(needed, needed, needed).map_err(at(stage::LAUNCH_CAPABILITIES))?;
    for capability in (0..64u32).filter(|capability| needed >> capability & 1 == 1) {
        rawsys::raise_ambient(capability).map_err(at(stage::LAUNCH_CAPABILITIES))?;
    }
    keep_descriptors(orders)
}

/// Only the control socket gets through, as descriptor 0.
fn keep_descriptors(orders: &Orders) -> Result<(), (u32, i32)> {
    let at = |errno: i32| (stage::LAUNCH_DESCRIPTORS, errno);
    rawsys::dup3(orders.control, 0, 0).map_err(at)?;
    rawsys::cloexec_from(1).map_err(at)
}

fn write(proc: i32, path: &core::ffi::CStr, text: &[u8]) -> Result<(), i32> {
    let fd = rawsys::openat(proc, path, rawsys::O_WRONLY, 0)?;
    let result = rawsys::write(fd, text);
    rawsys::close(fd);
    result.map(|_| ())
}
