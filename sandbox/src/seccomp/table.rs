//! The system calls of each architecture by name, and the names that only others have.
//!
//! The lists are facts of the kernel's ABI: the columns "number" and "name" of its tables of system calls, up to Linux 7.1. A
//! number is never given to another call, so a new kernel only ever adds rows: at the end of the numbers, which is in the
//! middle of the names. Another architecture is another file of `table/` and a row in [`ALL`].

#[cfg(any(test, target_arch = "aarch64"))]
mod aarch64;
mod x86_64;

#[cfg(any(test, target_arch = "aarch64"))]
pub(super) use aarch64::AARCH64;
pub(super) use x86_64::X86_64;

/// All that depends on the architecture.
pub(super) struct Arch {
    /// `AUDIT_ARCH_*`: what the kernel calls it in `struct seccomp_data`.
    pub audit: u32,
    /// Its name in the conditions of Docker's profiles.
    pub docker: &'static str,
    calls: &'static [(&'static str, u16)],
    /// First and last of the numbers below the newest that never were a call, and never will be: a few of them may have a name all the same.
    pub never: &'static [(u32, u32)],
    /// A second ABI with the same `audit`: its name and its first number.
    pub other_abi: Option<(&'static str, u32)>,
    /// What `compile` makes of the default profile for programs without capabilities, on whatever kernel.
    pub filter: &'static [u8],
}

/// Every one that there is a table for.
#[cfg(test)]
pub(super) static ALL: [&Arch; 2] = [&X86_64, &AARCH64];

/// The one that this library was built for.
#[cfg(target_arch = "x86_64")]
pub(super) static HERE: &Arch = &X86_64;
#[cfg(target_arch = "aarch64")]
pub(super) static HERE: &Arch = &AARCH64;

impl PartialEq for Arch {
    fn eq(&self, other: &Arch) -> bool {
        self.audit == other.audit
    }
}

impl std::fmt::Debug for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.docker)
    }
}

/// Calls that no architecture of ours has but another one does. A profile may name them: its author writes
/// for many machines.
const ELSEWHERE: &str = "\
    _llseek _newselect arm_fadvise64_64 arm_sync_file_range atomic_barrier atomic_cmpxchg_32 bdflush break \
    breakpoint cachectl cacheflush chown32 clock_adjtime64 clock_getres_time64 clock_gettime64 \
    clock_nanosleep_time64 clock_settime64 fadvise64_64 fchown32 fcntl64 fstat64 fstatat64 fstatfs64 ftime \
    ftruncate64 futex_time64 get_tls getegid32 geteuid32 getgid32 getgroups32 getpagesize getresgid32 getresuid32 \
    getuid32 gtty idle io_pgetevents_time64 ipc lchown32 lock lstat64 mmap2 mpx mq_timedreceive_time64 \
    mq_timedsend_time64 multiplexer nice oldfstat oldlstat oldolduname oldstat olduname pciconfig_iobase \
    pciconfig_read pciconfig_write ppoll_time64 prof profil pselect6_time64 readdir recv recvmmsg_time64 \
    riscv_flush_icache riscv_hwprobe rt_sigtimedwait_time64 rtas s390_guarded_storage s390_pci_mmio_read \
    s390_pci_mmio_write s390_runtime_instr s390_sthyi sched_rr_get_interval_time64 semtimedop_time64 send sendfile64 \
    set_tls setfsgid32 setfsuid32 setgid32 setgroups32 setregid32 setresgid32 setresuid32 setreuid32 setuid32 \
    sgetmask sigaction signal sigpending sigprocmask sigreturn sigsuspend socketcall spu_create spu_run ssetmask \
    stat64 statfs64 stime stty subpage_prot swapcontext switch_endian sync_file_range2 sys_debug_setcontext syscall \
    sysmips timer_gettime64 timer_settime64 timerfd timerfd_gettime64 timerfd_settime64 truncate64 ugetrlimit ulimit \
    umount usr26 usr32 utimensat_time64 vm86 vm86old waitpid";

/// Above the number of every call here.
pub(super) const END: u32 = 512;

/// What a name in a profile stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// This call of the architecture.
    Here(u32),
    /// A call of other architectures only.
    Elsewhere,
    /// No call of any architecture.
    Unknown,
}

impl Arch {
    pub fn look_up(&self, name: &str) -> Name {
        match self.calls.binary_search_by_key(&name, |(n, _)| n) {
            Ok(i) => Name::Here(self.calls[i].1.into()),
            Err(_) if X86_64.calls.binary_search_by_key(&name, |(n, _)| n).is_ok() => Name::Elsewhere,
            Err(_) if ELSEWHERE.split_ascii_whitespace().any(|n| n == name) => Name::Elsewhere,
            Err(_) => Name::Unknown,
        }
    }

    pub fn name_of(&self, number: u32) -> Option<&'static str> {
        self.calls.iter().find(|(_, n)| u32::from(*n) == number).map(|(name, _)| *name)
    }

    /// The numbers of names that it has, of a list with blanks between them.
    pub fn numbers(&self, names: &str) -> Vec<u32> {
        let number = |name| match self.look_up(name) {
            Name::Here(number) => Some(number),
            _ => None,
        };
        names.split_ascii_whitespace().filter_map(number).collect()
    }
}

/// The name of a number of this architecture, such as a report shows it.
pub fn name_of(number: u32) -> Option<&'static str> {
    HERE.name_of(number)
}

/// What [`compile`](super::compile) makes of the default profile for programs without capabilities, on whatever kernel.
pub(crate) fn default_filter() -> &'static [u8] {
    HERE.filter
}

/// What `struct seccomp_data` calls this architecture.
pub(crate) fn audit() -> u32 {
    HERE.audit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_ordered_and_have_every_number_once() {
        for arch in ALL {
            assert!(arch.calls.is_sorted_by(|a, b| a.0 < b.0), "{arch:?}");
            let mut numbers: Vec<u32> = arch.calls.iter().map(|(_, n)| u32::from(*n)).collect();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), arch.calls.len(), "{arch:?}");
            for number in 0..=469 {
                let never = arch.never.iter().any(|(first, last)| (*first..=*last).contains(&number));
                assert!(never || numbers.contains(&number), "{arch:?}: {number}, up to Linux 6.18, is missing");
            }
            assert_eq!(super::super::default_filter().len() % 8, 0);
        }
    }

    #[test]
    fn newer_calls_have_one_number_everywhere_and_older_ones_of_aarch64_a_namesake() {
        let mut own = 0;
        for (name, number) in AARCH64.calls {
            let Name::Here(there) = X86_64.look_up(name) else { panic!("{name} is of aarch64 only") };
            assert_eq!(*number >= 424, there >= 424 && u32::from(*number) == there, "{name}");
            own += 1;
        }
        assert!(own > 300, "{own}");
        for (name, number) in
            [("read", 63), ("ppoll", 73), ("clone", 220), ("execve", 221), ("rseq", 293), ("mseal", 462)]
        {
            assert_eq!(AARCH64.look_up(name), Name::Here(number), "{name}");
        }
        for legacy in ["open", "fork", "vfork", "pipe", "poll", "stat", "select", "epoll_wait", "arch_prctl"] {
            assert_eq!(AARCH64.look_up(legacy), Name::Elsewhere, "{legacy}");
        }
    }

    #[test]
    fn the_numbers_are_those_that_libc_knows() {
        for (name, number) in [
            ("read", libc::SYS_read),
            ("socket", libc::SYS_socket),
            ("clone3", libc::SYS_clone3),
            ("fchmodat", libc::SYS_fchmodat),
            ("mseal", libc::SYS_mseal),
            ("newfstatat", libc::SYS_newfstatat),
            ("umount2", libc::SYS_umount2),
            ("landlock_restrict_self", libc::SYS_landlock_restrict_self),
        ] {
            assert_eq!(HERE.look_up(name), Name::Here(number as u32), "{name}");
            assert_eq!(name_of(number as u32), Some(name));
        }
    }

    #[test]
    fn a_name_of_another_architecture_is_told_from_a_name_of_none() {
        assert_eq!(X86_64.look_up("s390_pci_mmio_read"), Name::Elsewhere);
        assert_eq!(X86_64.look_up("socketcall"), Name::Elsewhere);
        assert_eq!(X86_64.look_up("opne"), Name::Unknown);
        assert_eq!(X86_64.look_up(""), Name::Unknown);
        assert_eq!(name_of(400), None);
    }
}
