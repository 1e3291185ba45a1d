//! What the built-in profile lets through, and what its sets change.

use super::super::compile::tests::{interesting, naive};
use super::super::table::{ALL, Name, X86_64};
use super::*;

const NEWUSER: u64 = 0x1000_0000;

fn number(arch: &Arch, name: &str) -> u32 {
    match arch.look_up(name) {
        Name::Here(number) => number,
        other => panic!("{name} is {other:?}"),
    }
}

pub(in crate::seccomp) fn ask(profile: &Profile, caps: &[Capability], name: &str, args: &[u64]) -> Action {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    naive(profile, caps, number(profile.arch, name), all)
}

#[test]
fn every_name_in_the_tables_is_a_call_of_x86_64() {
    let sets = SETS.iter().flat_map(|s| {
        let by_arguments = s.opens.iter().map(|(n, _)| *n).chain(s.instead.iter().map(|(n, ..)| *n));
        s.calls.split_ascii_whitespace().chain(by_arguments)
    });
    let list = ALLOWED.split_ascii_whitespace().chain(BY_ARGUMENTS.iter().map(|(n, ..)| *n));
    sets.chain(list).for_each(|name| {
        number(&X86_64, name);
    });
}

#[test]
fn what_attackers_want_is_refused_and_its_harmless_twin_is_not() {
    let profile = Profile::default();
    let here = |name: &&str| !profile.arch.numbers(name).is_empty();
    for name in [
        "io_uring_setup io_uring_enter io_uring_register userfaultfd bpf perf_event_open add_key request_key keyctl",
        "kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff mount umount2 chroot",
        "pivot_root open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr open_tree_attr unshare setns",
        "ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd name_to_handle_at",
        "open_by_handle_at fanotify_init fanotify_mark quotactl quotactl_fd modify_ldt iopl ioperm acct syslog mbind",
        "sethostname setdomainname settimeofday clock_settime vhangup lookup_dcookie nfsservctl vmsplice uselib",
        "statmount listmount listns lsm_set_self_attr uprobe",
    ]
    .join(" ")
    .split(' ')
    .filter(here)
    {
        let action = ask(&profile, &[], name, &[]);
        assert!(action == EPERM || action == ENOSYS, "{name}: {action:?}");
    }
    for name in ["read", "execve", "openat", "futex", "kill", "prctl", "landlock_create_ruleset", "listen"] {
        assert_eq!(ask(&profile, &[], name, &[]), Action::Allow, "{name}");
    }
    assert_eq!(ask(&profile, &[], "clone3", &[]), ENOSYS);
    for unknown in [400, 472, 535, 600, u32::MAX] {
        assert_eq!(naive(&profile, &[], unknown, [0; 6]), ENOSYS, "{unknown}");
    }
}

#[test]
fn arguments_that_are_ints_are_compared_as_ints() {
    let profile = Profile::default();
    for high in [0, 1 << 32, 0xdead_beef << 32] {
        for request in [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSETD] {
            assert_eq!(ask(&profile, &[], "ioctl", &[0, high | request]), EPERM);
        }
        assert_eq!(ask(&profile, &[], "ioctl", &[0, high | libc::TCGETS]), Action::Allow);
        assert_eq!(ask(&profile, &[], "clone", &[high | NEWUSER | 17]), EPERM);
        assert_eq!(ask(&profile, &[], "clone", &[high | 17]), Action::Allow);
        assert_eq!(ask(&profile, &[], "personality", &[high]), Action::Allow);
        assert_eq!(ask(&profile, &[], "personality", &[high | 0x0040_0000]), EPERM);
        for family in 0..64 {
            let want = if [1, 2, 10].contains(&family) { Action::Allow } else { EPERM };
            assert_eq!(ask(&profile, &[], "socket", &[high | family, 1, 7]), want, "family {family}");
        }
        for protocol in 0..32 {
            let want = match protocol as i32 {
                libc::NETLINK_ROUTE => Action::Allow,
                libc::NETLINK_AUDIT => Action::Errno(libc::EINVAL as u16),
                _ => EPERM,
            };
            assert_eq!(ask(&profile, &[], "socket", &[high | 16, 3, high | protocol]), want, "netlink {protocol}");
        }
    }
}

#[test]
fn every_set_can_be_added_and_taken_away_from_every_kind_of_profile() {
    let denylist = Profile::new(Action::Allow).rule(&["reboot"], EPERM, &[]).unwrap();
    for set in SETS {
        for start in [Profile::default(), denylist.clone(), Profile::new(EPERM)] {
            let with = start.clone().with(set.name).unwrap();
            let without = with.clone().without(set.name).unwrap();
            let again = without.clone().with(set.name).unwrap();
            for name in set.calls.split_ascii_whitespace() {
                assert_eq!(ask(&with, &[], name, &[NEWUSER]), Action::Allow, "{name} with {}", set.name);
                let refused = ask(&without, &[], name, &[NEWUSER]);
                assert!(refused == EPERM || refused == ENOSYS, "{name} without {}: {refused:?}", set.name);
                assert_eq!(ask(&again, &[], name, &[NEWUSER]), Action::Allow, "{name} again with {}", set.name);
            }
            for (name, conditions) in set.opens {
                let mut args = [0; 6];
                conditions.iter().for_each(|c| args[usize::from(c.argument)] = c.value);
                assert_eq!(ask(&with, &[], name, &args), Action::Allow, "{name} with {}", set.name);
                assert_eq!(ask(&without, &[], name, &args), EPERM, "{name} without {}", set.name);
                assert_eq!(ask(&again, &[], name, &args), Action::Allow, "{name} again with {}", set.name);
            }
        }
    }
}

#[test]
fn taking_a_set_away_leaves_the_rest() {
    let offline = Profile::default().without("network-client").unwrap();
    assert_eq!(ask(&offline, &[], "socket", &[libc::AF_INET as u64]), EPERM);
    assert_eq!(ask(&offline, &[], "socket", &[libc::AF_UNIX as u64]), Action::Allow);
    let flat = Profile::default().without("nested-namespaces").unwrap();
    assert_eq!(ask(&flat, &[], "clone", &[17]), Action::Allow);
    assert_eq!(ask(&flat, &[], "clone3", &[]), ENOSYS);
    assert_eq!(ask(&flat, &[Capability::CAP_SYS_ADMIN], "mount", &[]), EPERM);
}

#[test]
fn a_kept_capability_opens_its_calls() {
    let profile = Profile::default();
    for (capability, name, args) in [
        (Capability::CAP_SYS_ADMIN, "mount", &[][..]),
        (Capability::CAP_SYS_ADMIN, "clone", &[NEWUSER]),
        (Capability::CAP_SYS_ADMIN, "clone3", &[]),
        (Capability::CAP_SYS_CHROOT, "chroot", &[]),
        (Capability::CAP_SYS_PTRACE, "ptrace", &[]),
        (Capability::CAP_NET_RAW, "socket", &[17]),
        (Capability::CAP_NET_ADMIN, "socket", &[16, 3, 12]),
    ] {
        assert_ne!(ask(&profile, &[], name, args), Action::Allow, "{name}");
        assert_ne!(ask(&profile, &[Capability::CAP_KILL], name, args), Action::Allow, "{name}");
        assert_eq!(ask(&profile, &[capability], name, args), Action::Allow, "{name}");
    }
}

#[test]
fn an_unknown_set_is_named_and_the_known_ones_are_listed() {
    let error = Profile::default().with("ptrase").unwrap_err();
    assert_eq!((error.kind(), error.subject()), ("config", "ptrase"));
    assert!(error.hint().contains("ptrace"), "{}", error.hint());
}

#[test]
fn a_set_that_cannot_be_added_says_so() {
    let shut = Profile::new(Action::Allow).rule(&["socket"], EPERM, &[]).unwrap();
    assert_eq!(shut.with("network-client").unwrap_err().subject(), "socket");
}

/// The table of the calls that aarch64 has, each against what the rules say of the same name on x86-64.
#[test]
fn aarch64_gets_for_every_number_the_answer_that_x86_64_gets_for_the_name() {
    let [x86, arm] = ALL.map(Profile::built_in);
    let (mut allowed, mut named) = (0, 0);
    for number in 0..=512 {
        let Some(name) = arm.arch.name_of(number) else {
            assert_eq!(naive(&arm, &[], number, [0; 6]), ENOSYS, "{number} is no call");
            continue;
        };
        named += 1;
        for caps in [&[][..], &[Capability::CAP_SYS_ADMIN], &[Capability::CAP_SYS_PTRACE, Capability::CAP_NET_ADMIN]] {
            for args in interesting(&arm, number) {
                let (got, want) = (ask(&arm, caps, name, &args), ask(&x86, caps, name, &args));
                assert_eq!(got, want, "{name} ({number}) {args:x?} with {caps:?}");
                allowed += u32::from(got == Action::Allow);
            }
        }
    }
    assert!(named > 300 && allowed > 1000, "{named} {allowed}");
}
