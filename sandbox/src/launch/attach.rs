//! How a process of the caller's becomes one of a started cell: setns(2), then what init and its children do on
//! their way to a program, in the same order and without an exec. The first step that fails ends it.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

#[cfg(feature = "landlock")]
use sandcell_init::landlock;

use crate::rawsys::{self, call, nr};
#[cfg(feature = "landlock")]
use crate::wire::Step;
use crate::wire::{At, Fault, Field, Malformed, Reader, stage};

const S_IFMT: u32 = 0o170000;
const S_IFDIR: u32 = 0o040000;

/// What a process needs to know to be confined, all of it put together before.
#[derive(Debug)]
pub(crate) struct Orders {
    pub uid: u32,
    pub gid: u32,
    /// Whether supplementary groups can be dropped.
    pub groups: bool,
    pub umask: u32,
    /// resource, soft, hard.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// cgroup.procs files to write "0" to.
    pub groups_to_join: Vec<OwnedFd>,
    /// Capabilities that stay.
    pub keep: u64,
    pub dir: CString,
    /// The steps of the Plan: Landlock's are carried out once more.
    #[cfg_attr(not(feature = "landlock"), allow(dead_code))]
    pub plan: Vec<u8>,
    pub filter: Option<(Vec<u8>, u32)>,
}

impl Orders {
    /// As bytes, but for the descriptors.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let Orders { uid, gid, groups, umask, rlimits, groups_to_join, keep, dir, plan, filter } = self;
        let (count, limits) = (groups_to_join.len() as u32, rlimits.len() as u32);
        for word in [*uid, *gid, u32::from(*groups), *umask, count, limits] {
            word.write(out);
        }
        for (resource, soft, hard) in rlimits {
            resource.write(out);
            soft.write(out);
            hard.write(out);
        }
        keep.write(out);
        dir.as_c_str().write(out);
        plan.as_slice().write(out);
        let (program, flags) = filter.as_ref().map_or((&[][..], 0), |(program, flags)| (program.as_slice(), *flags));
        program.write(out);
        flags.write(out);
    }

    pub(crate) fn read(reader: &mut Reader<'_>, groups_to_join: Vec<OwnedFd>) -> Result<Orders, Malformed> {
        let mut word = || u32::read(reader);
        let (uid, gid, groups, umask) = (word()?, word()?, word()? != 0, word()?);
        // A group that is lost on the way would be limits that do not hold.
        let (count, limits) = (word()? as usize, word()?);
        if groups_to_join.len() != count {
            return Err(Malformed);
        }
        let mut rlimits = Vec::new();
        for _ in 0..limits {
            rlimits.push((u32::read(reader)?, u64::read(reader)?, u64::read(reader)?));
        }
        let (keep, dir, plan) =
            (u64::read(reader)?, <&CStr>::read(reader)?.to_owned(), <&[u8]>::read(reader)?.to_vec());
        let (program, flags) = (<&[u8]>::read(reader)?.to_vec(), u32::read(reader)?);
        let filter = (!program.is_empty()).then_some((program, flags));
        Ok(Orders { uid, gid, groups, umask, rlimits, groups_to_join, keep, dir, plan, filter })
    }
}

/// Enters the namespaces that a cell's init is in. The kernel refuses a process with more than one thread.
pub(crate) fn join(init: BorrowedFd<'_>, network: bool) -> Result<(), Fault> {
    let network = if network { rawsys::CLONE_NEWNET } else { 0 };
    let all = rawsys::CLONE_NEWUSER
        | rawsys::CLONE_NEWNS
        | rawsys::CLONE_NEWPID
        | rawsys::CLONE_NEWIPC
        | rawsys::CLONE_NEWUTS
        | rawsys::CLONE_NEWCGROUP
        | network;
    // What is inside must not get hold of it before it is confined (CVE-2016-9962), nor of what it forks.
    rawsys::set_dumpable(false).at(stage::DUMPABLE)?;
    rawsys::setns(init.as_raw_fd(), all).at(stage::ENTER_NAMESPACES)?;
    Ok(())
}

/// Takes everything away that a program of the cell does not have. `hides_memory`: programs must not get at ours.
pub(crate) fn confine(orders: &Orders, kept: &[RawFd], hides_memory: bool) -> Result<(), Fault> {
    // Our parent is outside of the process namespace, or we are: then nothing would hold us in there.
    if rawsys::getppid().at(stage::ENTER_OUTSIDE)? != 0 {
        return Err(Fault { stage: stage::ENTER_OUTSIDE, errno: rawsys::EPERM });
    }
    for group in &orders.groups_to_join {
        rawsys::write(group.as_raw_fd(), b"0").at(stage::LAUNCH_CGROUP)?;
    }
    // The leader of a session already, of one outside: it has a process group of its own in here, too.
    rawsys::setsid().at(stage::PROGRAM_SESSION)?;
    match rawsys::join_session_keyring() {
        Ok(()) | Err(rawsys::ENOSYS) => {}
        Err(errno) => return Err(Fault { stage: stage::KEYRING, errno }),
    }
    close_all_but(kept).at(stage::PROGRAM_STDIO)?;
    let _ = rawsys::umask(orders.umask);
    for (resource, soft, hard) in &orders.rlimits {
        rawsys::set_rlimit(*resource as usize, &[*soft, *hard]).at(stage::PROGRAM_RLIMIT)?;
    }
    rawsys::set_no_new_privs().at(stage::PROGRAM_NO_NEW_PRIVS)?;
    landlock(orders)?;
    rawsys::bound_capabilities(orders.keep).at(stage::BOUNDING)?;
    // Or setresuid(2) takes what is to be kept.
    rawsys::set_keep_capabilities(true).at(stage::PROGRAM_CAPABILITIES)?;
    if orders.groups {
        rawsys::setgroups(&[]).at(stage::BECOME_GROUPS)?;
    }
    rawsys::setresgid(orders.gid).at(stage::BECOME_GID)?;
    rawsys::setresuid(orders.uid).at(stage::BECOME_UID)?;
    rawsys::set_keep_capabilities(false).at(stage::PROGRAM_CAPABILITIES)?;
    keep_capabilities(orders.keep).at(stage::PROGRAM_CAPABILITIES)?;
    rawsys::chdir(&orders.dir).at(stage::PROGRAM_CHDIR)?;
    // As after an exec: the change of ids has taken it away, and with it the process's own files in /proc.
    rawsys::set_dumpable(!hides_memory).at(stage::DUMPABLE)?;
    if let Some((program, flags)) = &orders.filter {
        install(program, *flags).at(stage::PROGRAM_SECCOMP)?;
    }
    Ok(())
}

#[cfg(feature = "landlock")]
fn landlock(orders: &Orders) -> Result<(), Fault> {
    let malformed = Fault { stage: stage::PROTOCOL, errno: rawsys::EPROTO };
    let mut reader = Reader::new(&orders.plan);
    let mut ruleset = -1;
    while let Some(step) = Step::next(&mut reader).map_err(|_| malformed)? {
        match step {
            Step::LandlockRules { files, network, scoped } => ruleset = landlock::ruleset(files, network, scoped)?,
            Step::LandlockPath { path, access, file_rights } => landlock::allow(ruleset, path, access, file_rights)?,
            Step::LandlockMqueue { access } => landlock::allow_opened(ruleset, landlock::open_mqueue()?, access)?,
            Step::LandlockEnter {} => landlock::enter(ruleset)?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(not(feature = "landlock"))]
fn landlock(_: &Orders) -> Result<(), Fault> {
    Ok(())
}

/// Closes every descriptor that is not in the list. A directory in it would lead out (CVE-2024-21626).
fn close_all_but(kept: &[RawFd]) -> Result<(), i32> {
    let mut sorted: Vec<RawFd> = kept.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    for &fd in &sorted {
        let (_, mode) = rawsys::fstat(fd)?;
        let path_only = rawsys::status_flags(fd)? & rawsys::O_PATH != 0;
        if path_only || mode & S_IFMT == S_IFDIR {
            return Err(libc::EISDIR);
        }
    }
    let mut next = 0;
    for fd in sorted {
        close_range(next, fd - 1)?;
        next = fd + 1;
    }
    close_range(next, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> Result<(), i32> {
    if first > last {
        return Ok(());
    }
    // SAFETY: numbers; whoever has a descriptor of these in this copy of the caller has been told.
    match unsafe { call!(nr::CLOSE_RANGE, first, last, 0) } {
        Ok(_) => Ok(()),
        // Refused by a filter around the caller: one by one.
        Err(_) => {
            let names = std::fs::read_dir("/proc/self/fd").map_err(|e| e.raw_os_error().unwrap_or(rawsys::EACCES))?;
            let open: Vec<RawFd> = names.flatten().filter_map(|name| name.file_name().to_str()?.parse().ok()).collect();
            open.into_iter().filter(|fd| (first..=last).contains(fd)).for_each(rawsys::close);
            Ok(())
        }
    }
}

fn keep_capabilities(keep: u64) -> Result<(), i32> {
    rawsys::set_capabilities(keep, keep, keep)?;
    rawsys::clear_ambient()?;
    for capability in (0..64u32).filter(|capability| keep & (1 << capability) != 0) {
        rawsys::raise_ambient(capability)?;
    }
    Ok(())
}

fn install(program: &[u8], flags: u32) -> Result<(), i32> {
    const SECCOMP_SET_MODE_FILTER: usize = 1;
    #[repr(C)]
    struct FilterProgram {
        length: u16,
        instructions: *const u8,
    }
    let filter = FilterProgram { length: (program.len() / 8) as u16, instructions: program.as_ptr() };
    // SAFETY: the layout of struct sock_fprog; the instructions are as many as is said.
    unsafe { call!(nr::SECCOMP, SECCOMP_SET_MODE_FILTER, flags, &raw const filter) }.map(|_| ())
}

/// The path of a directory as the kernel wants it.
pub(crate) fn path(text: &[u8]) -> Option<CString> {
    CStr::from_bytes_with_nul(&[text, b"\0"].concat()).ok().map(CStr::to_owned)
}
