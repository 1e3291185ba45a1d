//! The built-in allow-list, and named sets of calls that can be added to a profile or taken away from it.
//!
//! The list is what both Docker's and podman's default profiles allow to a program without capabilities, less what
//! such a program has no use for and attackers had: a test holds it against Docker's. Refusals are EPERM. Calls newer
//! than the newest on the list are ENOSYS, so that programs try an older one. Capabilities that the caller keeps are
//! held in a user namespace, so that only calls are opened for them that respect those.

use crate::kernel_names::Capability;

use super::profile::{Action, Compare, Condition, Guard, Profile, Rule, STAGE};
use super::table::{self, Arch};
use crate::{Result, error::Failure};

const EPERM: Action = Action::Errno(libc::EPERM as u16);
const EINVAL: Action = Action::Errno(libc::EINVAL as u16);
const ENOSYS: Action = Action::Errno(libc::ENOSYS as u16);

/// Calls that are allowed whatever their arguments.
const ALLOWED: &str = "
    access adjtimex alarm arch_prctl bind brk capget capset chdir chmod chown clock_adjtime clock_getres clock_gettime
    clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl
    epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
    fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork
    fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv futex_wake futimesat
    get_robust_list getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid
    getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid getsockname getsockopt
    gettid gettimeofday getuid getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel
    io_destroy io_getevents io_setup io_submit ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lgetxattr link linkat listxattr llistxattr lremovexattr lseek lsetxattr lstat madvise
    membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap msgctl msgget msgrcv msgsnd msync
    munlock munlockall munmap nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2
    pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 process_mrelease pselect6
    pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages
    removexattr rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
    semtimedop sendfile sendmmsg sendmsg sendto set_robust_list set_tid_address setfsgid setfsuid setgid setgroups
    setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr
    shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 splice stat statfs statx symlink symlinkat sync
    sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
    timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat utime
    utimensat utimes vfork wait4 waitid write writev";

/// Every `CLONE_NEW*` flag that clone(2) takes. (CLONE_NEWTIME lies in the bits of the exit signal and is for unshare(2)
/// and clone3 alone.)
const NEW_NAMESPACES: u64 = 0x7e02_0000;
const NO_NAMESPACES: &[Condition] = &[Condition::of(0, Compare::Masked(NEW_NAMESPACES), 0)];

const fn int(argument: u8, value: u32) -> Condition {
    Condition::of(argument, Compare::Masked(u32::MAX as u64), value as u64)
}

/// Always true; it leaves room for stricter rules about the same call.
const ANY: &[Condition] = &[Condition::ANY];

/// Calls that are allowed or refused by what they are asked to do.
const BY_ARGUMENTS: &[(&str, Action, &[Condition])] = &[
    ("clone", Action::Allow, NO_NAMESPACES),
    // A program's own limits, and questions about others': whoever has the same ids could starve the supervisor.
    ("prlimit64", Action::Allow, &[int(0, 0)]),
    ("prlimit64", Action::Allow, &[Condition::of(2, Compare::Equal, 0)]),
    // Nothing but the native personality, and the question which it is.
    ("personality", Action::Allow, &[int(0, 0)]),
    ("personality", Action::Allow, &[int(0, u32::MAX)]),
    // All but what types into the caller's terminal (CVE-2017-5226, CVE-2023-28100) or loads line disciplines.
    ("ioctl", Action::Allow, ANY),
    ("ioctl", EPERM, &[int(1, libc::TIOCSTI as u32)]),
    ("ioctl", EPERM, &[int(1, libc::TIOCLINUX as u32)]),
    ("ioctl", EPERM, &[int(1, libc::TIOCSETD as u32)]),
    // AF_VSOCK has no namespace, AF_ALG and the rare families are where kernels broke.
    ("socket", Action::Allow, &[int(0, libc::AF_UNIX as u32)]),
    ("socketpair", Action::Allow, &[int(0, libc::AF_UNIX as u32)]),
    // useradd and other programs that log to the audit system end at EPERM, and go on where the kernel has none.
    ("socket", EINVAL, &[int(0, libc::AF_NETLINK as u32), int(2, libc::NETLINK_AUDIT as u32)]),
];

/// A named set of system calls: `profile.with("ptrace")`, `profile.without("network-client")`.
#[derive(Debug)]
#[non_exhaustive]
pub struct Set {
    /// Its name.
    pub name: &'static str,
    /// What a program can do with it.
    pub about: &'static str,
    /// Whether the built-in profile has it.
    pub by_default: bool,
    /// Calls that it allows whatever their arguments.
    calls: &'static str,
    /// Calls that it allows for these arguments.
    opens: &'static [(&'static str, &'static [Condition])],
    /// What is to become of some of its calls without it.
    instead: &'static [(&'static str, Action, &'static [Condition])],
    /// The built-in profile allows the calls to whoever keeps this capability.
    capability: Option<Capability>,
}

const NONE: Set = Set { name: "", about: "", by_default: false, calls: "", opens: &[], instead: &[], capability: None };

const SETS: &[Set] = &[
    Set {
        name: "network-client",
        about: "internet sockets (IPv4 and IPv6) and questions about interfaces and routes (NETLINK_ROUTE)",
        by_default: true,
        opens: &[
            ("socket", &[int(0, libc::AF_INET as u32)]),
            ("socket", &[int(0, libc::AF_INET6 as u32)]),
            ("socket", &[int(0, libc::AF_NETLINK as u32), int(2, libc::NETLINK_ROUTE as u32)]),
        ],
        ..NONE
    },
    Set {
        name: "device-events",
        about: "what the kernel tells of devices (NETLINK_KOBJECT_UEVENT): in a network of its own, nothing; systemd-logind listens",
        opens: &[("socket", &[int(0, libc::AF_NETLINK as u32), int(2, libc::NETLINK_KOBJECT_UEVENT as u32)])],
        ..NONE
    },
    Set {
        name: "network-server",
        about: "waiting for connections, to Unix sockets too",
        by_default: true,
        calls: "listen accept accept4",
        ..NONE
    },
    Set {
        name: "packet-sockets",
        about: "raw access to network interfaces (AF_PACKET); opened for CAP_NET_RAW",
        opens: &[("socket", &[int(0, libc::AF_PACKET as u32)])],
        capability: Some(Capability::CAP_NET_RAW),
        ..NONE
    },
    Set {
        name: "netlink",
        about: "every kind of netlink socket, such as for packet filters; opened for CAP_NET_ADMIN",
        opens: &[("socket", &[int(0, libc::AF_NETLINK as u32)])],
        capability: Some(Capability::CAP_NET_ADMIN),
        ..NONE
    },
    Set {
        name: "ptrace",
        about: "looking into and steering other processes of the sandbox; opened for CAP_SYS_PTRACE",
        calls: "ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp",
        capability: Some(Capability::CAP_SYS_PTRACE),
        ..NONE
    },
    Set {
        name: "debug",
        about: "what debuggers need besides ptrace: switching off address space randomisation",
        opens: &[("personality", &[int(0, libc::ADDR_NO_RANDOMIZE as u32)])],
        ..NONE
    },
    Set {
        name: "profiling",
        about: "performance counters and tracing (perf_event_open, bpf)",
        calls: "perf_event_open bpf",
        ..NONE
    },
    Set {
        name: "io_uring",
        about: "asynchronous input and output past this filter: no rule about files or sockets holds for it",
        calls: "io_uring_setup io_uring_enter io_uring_register",
        ..NONE
    },
    Set { name: "userfaultfd", about: "handling page faults in the program", calls: "userfaultfd", ..NONE },
    Set {
        name: "nested-namespaces",
        about: "sandboxes inside the sandbox: new namespaces and mounts in them; opened for CAP_SYS_ADMIN",
        calls: "clone clone3 unshare setns mount umount2 pivot_root chroot open_tree open_tree_attr move_mount fsopen \
                fsconfig fsmount fspick mount_setattr statmount listmount sethostname setdomainname",
        // The flags of clone3 are in memory, where a filter cannot see them; ENOSYS makes libraries use clone.
        instead: &[("clone", Action::Allow, NO_NAMESPACES), ("clone3", ENOSYS, &[])],
        capability: Some(Capability::CAP_SYS_ADMIN),
        ..NONE
    },
    Set {
        name: "chroot",
        about: "changing the root directory; opened for CAP_SYS_CHROOT",
        calls: "chroot",
        capability: Some(Capability::CAP_SYS_CHROOT),
        ..NONE
    },
    Set {
        name: "keyring",
        about: "the kernel's key store; keyrings of a user are shared between that user's sandboxes",
        calls: "add_key request_key keyctl",
        ..NONE
    },
    Set {
        name: "session-keyring",
        about: "a new session keyring instead of the one before: keyctl(2) for nothing else",
        opens: &[("keyctl", &[int(0, 1), Condition::of(1, Compare::Equal, 0)])],
        ..NONE
    },
    Set {
        name: "numa",
        about: "placing memory on nodes; opened for CAP_SYS_NICE",
        calls: "mbind get_mempolicy set_mempolicy set_mempolicy_home_node migrate_pages move_pages",
        capability: Some(Capability::CAP_SYS_NICE),
        ..NONE
    },
    Set {
        name: "file-handles",
        about: "names of files that outlive paths",
        calls: "name_to_handle_at open_by_handle_at",
        ..NONE
    },
    Set { name: "vmsplice", about: "lending memory pages to a pipe", calls: "vmsplice", ..NONE },
];

/// Every named set.
pub fn sets() -> &'static [Set] {
    SETS
}

fn find(name: &str) -> Result<&'static Set> {
    SETS.iter().find(|s| s.name == name).ok_or_else(|| {
        let known: Vec<&str> = SETS.iter().map(|s| s.name).collect();
        Failure::new(STAGE, name, "there is no set of system calls of this name")
            .hint(format!("The sets are {}.", known.join(", ")))
            .config()
    })
}

fn rule(calls: Vec<u32>, action: Action, conditions: &[Condition]) -> Rule {
    Rule { calls, action, conditions: conditions.to_vec(), guard: Guard::default() }
}

impl Default for Profile {
    /// The built-in allow-list.
    fn default() -> Profile {
        Profile::built_in(table::HERE)
    }
}

impl Profile {
    pub(super) fn built_in(arch: &'static Arch) -> Profile {
        let mut profile = Profile::of(arch, EPERM);
        profile.rules.push(rule(arch.numbers(ALLOWED), Action::Allow, &[]));
        for (call, action, conditions) in BY_ARGUMENTS {
            profile.rules.push(rule(arch.numbers(call), *action, conditions));
        }
        for set in SETS {
            if set.by_default {
                profile.add(set, Guard::default());
            }
            if let Some(capability) = set.capability {
                profile.add(set, Guard { with_caps: vec![capability], ..Guard::default() });
                for (call, action, conditions) in set.instead {
                    let guard = Guard { without_caps: vec![capability], ..Guard::default() };
                    profile.rules.push(Rule { guard, ..rule(arch.numbers(call), *action, conditions) });
                }
            }
        }
        // The kernel's own answer for numbers that no call ever had.
        let never = arch.never.iter().flat_map(|(first, last)| *first..=*last).filter(|n| arch.name_of(*n).is_none());
        profile.rules.push(rule(never.collect(), ENOSYS, &[]));
        profile
    }

    /// The profile with a named [`Set`] added.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for an unknown name, and where the profile refuses a call altogether
    /// that the set allows for some arguments only.
    pub fn with(mut self, set: &str) -> Result<Profile> {
        let set = find(set)?;
        for (name, conditions) in set.opens {
            let calls = self.arch.numbers(name);
            let refused = |r: &Rule| {
                r.conditions.is_empty() && !r.action.lets_through() && calls.iter().any(|c| r.calls.contains(c))
            };
            if self.rules.iter().any(refused) {
                let message = format!("the profile refuses this call altogether, so {} cannot be added", set.name);
                return Err(Failure::new(STAGE, *name, message).hint("Add the rule to the profile itself.").config());
            }
            self.drop_calls(&calls, Some(conditions));
        }
        self.drop_calls(&self.arch.numbers(set.calls), None);
        self.add(set, Guard::default());
        Ok(self)
    }

    /// The profile with a named [`Set`] taken away: its calls fail with EPERM.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for an unknown name.
    pub fn without(mut self, set: &str) -> Result<Profile> {
        let set = find(set)?;
        for (name, conditions) in set.opens {
            let calls = self.arch.numbers(name);
            self.drop_calls(&calls, Some(conditions));
            self.refuse(calls, conditions);
        }
        let calls = self.arch.numbers(set.calls);
        self.drop_calls(&calls, None);
        for (call, action, conditions) in set.instead {
            self.rules.push(rule(self.arch.numbers(call), *action, conditions));
            // What a profile lets through that allows by default, it must be told bit by bit.
            if let [Condition { argument, compare: Compare::Masked(mask), value: 0 }] = conditions
                && self.default.lets_through()
            {
                for bit in (0..64).map(|n| 1 << n).filter(|bit| mask & bit != 0) {
                    let set = [Condition::of(*argument, Compare::Masked(bit), bit)];
                    self.rules.push(rule(self.arch.numbers(call), EPERM, &set));
                }
            }
        }
        let instead: Vec<u32> = set.instead.iter().flat_map(|(call, ..)| self.arch.numbers(call)).collect();
        self.rules.push(rule(calls.into_iter().filter(|c| !instead.contains(c)).collect(), EPERM, &[]));
        Ok(self)
    }

    /// The profile that refuses these calls altogether.
    #[cfg(feature = "landlock")]
    pub(crate) fn refusing(mut self, names: &[&str]) -> Profile {
        let calls = self.arch.numbers(&names.join(" "));
        self.drop_calls(&calls, None);
        self.rules.push(rule(calls, EPERM, &[]));
        self
    }

    /// The profile that refuses these calls where all conditions hold, and is as it was elsewhere.
    #[cfg(feature = "landlock")]
    pub(crate) fn refusing_where(mut self, names: &[&str], conditions: &[Condition]) -> Profile {
        self.refuse(self.arch.numbers(&names.join(" ")), conditions);
        self
    }

    fn refuse(&mut self, calls: Vec<u32>, conditions: &[Condition]) {
        // A rule without conditions would win over the refusal: give it one that is always true.
        let mut open = Vec::new();
        for other in &mut self.rules {
            let both: Vec<u32> = calls.iter().copied().filter(|c| other.calls.contains(c)).collect();
            if other.conditions.is_empty() && other.action.lets_through() && !both.is_empty() {
                other.calls.retain(|c| !calls.contains(c));
                open.push(Rule { calls: both, conditions: ANY.to_vec(), ..other.clone() });
            }
        }
        self.rules.append(&mut open);
        self.rules.push(rule(calls, EPERM, conditions));
    }

    fn add(&mut self, set: &Set, guard: Guard) {
        self.rules.push(Rule { guard: guard.clone(), ..rule(self.arch.numbers(set.calls), Action::Allow, &[]) });
        for (call, conditions) in set.opens {
            self.rules.push(Rule { guard: guard.clone(), ..rule(self.arch.numbers(call), Action::Allow, conditions) });
        }
    }

    /// Forgets what the rules with these conditions (or with any) say of these calls.
    fn drop_calls(&mut self, calls: &[u32], conditions: Option<&[Condition]>) {
        for rule in &mut self.rules {
            if conditions.is_none_or(|c| c == rule.conditions) {
                rule.calls.retain(|c| !calls.contains(c));
            }
        }
        self.rules.retain(|r| !r.calls.is_empty());
    }
}

#[cfg(test)]
#[path = "sets_tests.rs"]
pub(super) mod tests;
