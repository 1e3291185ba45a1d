//! The compiled filter against the plainest reading of the rules, in an interpreter of the kernel's BPF.

use super::*;
use crate::seccomp::profile::Rule;
use crate::seccomp::table::{self, AARCH64, X86_64};

const X32: u32 = 0x4000_0000;

/// Runs a filter as the kernel would: classic BPF over `struct seccomp_data`.
pub(in crate::seccomp) fn run(filter: &[sock_filter], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
    let mut data = [nr, arch, 0, 0].to_vec();
    data.extend(args.iter().flat_map(|a| [*a as u32, (*a >> 32) as u32]));
    let (mut pc, mut a) = (0, 0);
    loop {
        let i = filter[pc];
        pc += 1;
        let jump = |taken: bool| usize::from(if taken { i.jt } else { i.jf });
        match u32::from(i.code) {
            0x20 => a = data[i.k as usize / 4],
            0x54 => a &= i.k,
            0x05 => pc += i.k as usize,
            0x15 => pc += jump(a == i.k),
            0x25 => pc += jump(a > i.k),
            0x35 => pc += jump(a >= i.k),
            0x45 => pc += jump(a & i.k != 0),
            0x06 => return i.k,
            other => panic!("instruction {other:#x} is not one that seccomp takes"),
        }
    }
}

fn holds(condition: &Condition, args: [u64; 6]) -> bool {
    let (argument, value) = (args[usize::from(condition.argument)], condition.value);
    match condition.compare {
        Compare::Equal => argument == value,
        Compare::NotEqual => argument != value,
        Compare::Less => argument < value,
        Compare::LessOrEqual => argument <= value,
        Compare::Greater => argument > value,
        Compare::GreaterOrEqual => argument >= value,
        Compare::Masked(mask) => argument & mask == value & mask,
    }
}

/// What the module's description says of a call, rule by rule.
pub(in crate::seccomp) fn naive(profile: &Profile, caps: &[Capability], nr: u32, args: [u64; 6]) -> Action {
    let enosys = Action::Errno(libc::ENOSYS as u16);
    let counts = |r: &&Rule| {
        let kept = |c: &Capability| caps.contains(c);
        r.guard.with_caps.iter().all(kept) && !r.guard.without_caps.iter().any(kept)
    };
    let rules: Vec<&Rule> = profile.rules.iter().filter(counts).collect();
    let newest = rules.iter().flat_map(|r| r.calls.iter().copied()).max().unwrap_or(0);
    let permissive = matches!(profile.default, Action::Allow | Action::Log);
    if profile.arch.other_abi.is_some_and(|(_, first)| nr >= first) || (nr > newest && newest > 0 && !permissive) {
        return enosys;
    }
    let about: Vec<&&Rule> = rules.iter().filter(|r| r.calls.contains(&nr)).collect();
    if let Some(rule) = about.iter().find(|r| r.conditions.is_empty() && r.action != profile.default) {
        return rule.action;
    }
    let rank = |a: Action| match a {
        Action::Allow => 0,
        Action::Log => 1,
        Action::Errno(_) => 2,
        Action::Trap => 3,
        Action::KillThread => 4,
        Action::KillProcess => 5,
    };
    let mut found: Option<Action> = None;
    for rule in about {
        let matches = !rule.conditions.is_empty() && rule.conditions.iter().all(|c| holds(c, args));
        if matches && found.is_none_or(|f| rank(rule.action) > rank(f)) {
            found = Some(rule.action);
        }
    }
    found.unwrap_or(profile.default)
}

/// Arguments around every value that the rules about this call compare with, each of the high bits flipped too.
pub(in crate::seccomp) fn interesting(profile: &Profile, nr: u32) -> Vec<[u64; 6]> {
    let mut all = vec![[0; 6], [u64::MAX; 6], [u32::MAX.into(); 6], [1 << 32; 6]];
    for condition in profile.rules.iter().filter(|r| r.calls.contains(&nr)).flat_map(|r| &r.conditions) {
        let mut values = vec![condition.value, condition.value.wrapping_add(1), condition.value.wrapping_sub(1)];
        values.extend((0..64).map(|bit| condition.value ^ (1 << bit)));
        if let Compare::Masked(mask) = condition.compare {
            values.extend([condition.value | !mask, mask, !mask]);
        }
        for base in [[0; 6], [condition.value; 6]] {
            for value in &values {
                let mut args = base;
                args[usize::from(condition.argument)] = *value;
                all.push(args);
            }
        }
    }
    all
}

/// Every number that can make a difference.
pub(in crate::seccomp) fn numbers() -> impl Iterator<Item = u32> {
    (0..600).chain([1000, X32 - 1]).chain((X32..X32 + 600).step_by(7)).chain([u32::MAX / 2, u32::MAX - 1, u32::MAX])
}

pub(in crate::seccomp) fn agrees(profile: &Profile, caps: &[Capability]) {
    let program = compile(profile, caps, Listen::None).unwrap();
    for nr in numbers() {
        for args in interesting(profile, nr) {
            let (got, want) = (run(&program.filter, profile.arch.audit, nr, args), naive(profile, caps, nr, args));
            assert_eq!(got, code(want, Listen::None), "call {nr} with {args:x?}, {want:?} expected");
        }
    }
}

/// Numbers as random as a test needs (xorshift64*), the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }

    fn value(&mut self) -> u64 {
        match self.below(4) {
            0 => self.below(64),
            1 => u64::from(self.next() as u32),
            2 => self.below(4) << 32 | self.below(4),
            _ => self.next(),
        }
    }

    fn condition(&mut self) -> Condition {
        let compare = match self.below(7) {
            0 => Compare::Equal,
            1 => Compare::NotEqual,
            2 => Compare::Less,
            3 => Compare::LessOrEqual,
            4 => Compare::Greater,
            5 => Compare::GreaterOrEqual,
            _ => Compare::Masked(self.value()),
        };
        Condition::new(self.below(6) as u8, compare, self.value()).unwrap()
    }

    fn action(&mut self) -> Action {
        match self.below(8) {
            0 | 1 => Action::Allow,
            2 => Action::Log,
            3 | 4 => Action::Errno(self.below(4096) as u16),
            5 => Action::Trap,
            6 => Action::KillThread,
            _ => Action::KillProcess,
        }
    }

    fn profile(&mut self) -> Profile {
        let mut profile = Profile::new(self.action());
        for _ in 0..self.below(40) {
            let calls = (0..1 + self.below(20)).map(|_| self.below(472) as u32).collect();
            let conditions = (0..self.below(4)).map(|_| self.condition()).collect();
            let with_caps = if self.below(4) == 0 { vec![Capability::CAP_SYS_ADMIN] } else { vec![] };
            let without_caps = if self.below(4) == 0 { vec![Capability::CAP_CHOWN] } else { vec![] };
            let guard = super::super::profile::Guard { with_caps, without_caps, ..Default::default() };
            // A rule that contradicts an earlier one is left out.
            let _ = profile.push(Rule { calls, action: self.action(), conditions, guard });
        }
        profile
    }
}

#[test]
fn the_default_filter_does_what_its_rules_say_for_every_number() {
    for profile in table::ALL.map(Profile::built_in) {
        agrees(&profile, &[]);
        agrees(&profile, &[Capability::CAP_SYS_ADMIN, Capability::CAP_NET_RAW]);
    }
}

#[test]
fn random_profiles_compile_to_what_their_rules_say() {
    let mut random = Random(0x5eed);
    for _ in 0..20 {
        let profile = random.profile();
        agrees(&profile, &[]);
        agrees(&profile, &[Capability::CAP_SYS_ADMIN, Capability::CAP_CHOWN]);
    }
}

#[test]
fn a_rule_with_more_conditions_than_a_short_jump_reaches_over_works() {
    let mut random = Random(7);
    let conditions: Vec<Condition> = (0..90)
        .map(|n| {
            let compare = [Compare::NotEqual, Compare::Masked(1 << (n % 64)), Compare::LessOrEqual][n as usize % 3];
            let value =
                if compare == Compare::LessOrEqual { u64::MAX - n } else { 1 + (random.value() & !(1 << (n % 64))) };
            Condition::new((n % 6) as u8, compare, if n % 3 == 1 { 0 } else { value }).unwrap()
        })
        .collect();
    let deny = Profile::new(Action::Errno(1));
    let profile =
        deny.rule(&["read"], Action::Allow, &conditions).unwrap().rule(&["exit"], Action::Allow, &[]).unwrap();
    assert!(interesting(&profile, 0).into_iter().any(|args| naive(&profile, &[], 0, args) == Action::Allow));
    agrees(&profile, &[]);
}

#[test]
fn a_tree_with_long_jumps_works() {
    let names = ["read", "write", "open", "close", "stat", "fstat", "lstat", "poll", "lseek", "mmap"];
    let mut profile = Profile::new(Action::Errno(1));
    for (i, name) in names.iter().enumerate() {
        for value in 0..20 {
            let condition = Condition::new(i as u8 % 6, Compare::Equal, value << 30).unwrap();
            profile = profile.rule(&[name], Action::Allow, &[condition]).unwrap();
        }
    }
    let program = compile(&profile, &[], Listen::None).unwrap();
    assert!(program.filter.iter().any(|i| i.code == JUMP && i.k > 255), "no long jump in the tree");
    agrees(&profile, &[]);
}

#[test]
fn a_profile_that_the_kernel_would_not_take_is_an_error_that_names_the_call() {
    let mut profile = Profile::new(Action::Allow);
    for value in 0..1000 {
        let condition = Condition::new(0, Compare::Equal, value).unwrap();
        profile = profile.rule(&["lseek"], Action::Errno(1), &[condition]).unwrap();
    }
    let error = compile(&profile, &[], Listen::None).err().unwrap();
    assert_eq!((error.kind(), error.subject()), ("config", "lseek"));
    assert!(error.to_string().contains("4096"), "{error}");
}

#[test]
fn foreign_architectures_are_killed_and_x32_is_not_there() {
    let (i386, arm) = (0x4000_0003, 0x4000_0028);
    for (arch, foreign, x32) in [
        (&X86_64, [i386, AARCH64.audit], libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        (&AARCH64, [arm, X86_64.audit], libc::SECCOMP_RET_ALLOW),
    ] {
        let allow = compile(&Profile::of(arch, Action::Allow), &[], Listen::None).unwrap();
        for foreign in foreign {
            assert_eq!(run(&allow.filter, foreign, 0, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
        }
        assert_eq!(run(&allow.filter, arch.audit, X32, [0; 6]), x32);
        assert_eq!(run(&allow.filter, arch.audit, 0, [0; 6]), libc::SECCOMP_RET_ALLOW);
        assert_eq!(run(&allow.filter, arch.audit, 9999, [0; 6]), libc::SECCOMP_RET_ALLOW);
    }
}

#[test]
fn kills_become_notifications_on_request() {
    let profile = Profile::default().rule(&["mount"], Action::KillProcess, &[]).unwrap();
    let mount = libc::SYS_mount as u32;
    let signal = compile(&profile, &[], Listen::None).unwrap();
    let notify = compile(&profile, &[], Listen::Kills).unwrap();
    assert_eq!(run(&signal.filter, table::HERE.audit, mount, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
    assert_eq!(run(&notify.filter, table::HERE.audit, mount, [0; 6]), libc::SECCOMP_RET_USER_NOTIF);
    assert_eq!((signal.flags, notify.flags), (FilterFlags::empty(), FilterFlags::NEW_LISTENER));
}

#[test]
fn a_learning_run_stops_every_call_and_refuses_foreign_ones() {
    let program = compile(&Profile::of(&X86_64, Action::Allow), &[], Listen::Passes).unwrap();
    assert_eq!(program.flags, FilterFlags::NEW_LISTENER);
    assert_eq!(run(&program.filter, X86_64.audit, 59, [0; 6]), libc::SECCOMP_RET_USER_NOTIF);
    assert_eq!(run(&program.filter, X86_64.audit, X32 + 59, [0; 6]), libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
    assert_eq!(run(&program.filter, 0x4000_0003, 59, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
}

#[test]
fn the_bytes_are_the_instructions() {
    let bytes = Profile::of(&X86_64, Action::Errno(7)).to_bpf(&[]).unwrap();
    assert_eq!(bytes[..8], [0x20, 0, 0, 0, 4, 0, 0, 0]);
    assert_eq!(bytes[bytes.len() - 8..], [6, 0, 0, 0, 38, 0, 5, 0]);
    assert_eq!(bytes.len() % 8, 0);
}

#[test]
fn the_kernel_takes_the_default_filter_and_keeps_to_it() {
    use nix::errno::Errno;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let open = |family| socket(family, SockType::Stream, SockFlag::empty(), None).map(drop);
    let filter = compile(&Profile::default(), &[], Listen::None).unwrap().filter;
    let filter: BpfProgram =
        filter.iter().map(|i| seccompiler::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect();
    // A filter is for one thread and its children; this one ends with the test.
    let (before, after) = std::thread::spawn(move || {
        let ask = || {
            let unshared = nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS);
            (open(AddressFamily::Unix), open(AddressFamily::Inet), open(AddressFamily::Vsock), unshared)
        };
        let before = ask();
        seccompiler::apply_filter(&filter).unwrap();
        (before, ask())
    })
    .join()
    .unwrap();
    assert_eq!((before.0, before.3), (Ok(()), Ok(())));
    assert_eq!(after, (Ok(()), Ok(()), Err(Errno::EPERM), Err(Errno::EPERM)));
}

#[test]
fn what_is_learned_is_what_was_seen_and_never_more_than_the_profile_allowed() {
    let open = Profile::new(Action::Allow)
        .rule(&["mount"], Action::Errno(1), &[])
        .and_then(|p| p.rule(&["personality"], Action::KillProcess, &[Condition::int(0, 8).unwrap()]))
        .unwrap();
    let allow = libc::SECCOMP_RET_ALLOW;
    for base in [Profile::default(), open, Profile::default().with("nested-namespaces").unwrap()] {
        let before = compile(&base, &[], Listen::None).unwrap().filter;
        let seen: Vec<u32> = (0..512).filter(|n| n % 3 != 1).collect();
        let learned = compile(&base.narrowed(&[], &seen), &[], Listen::None).unwrap().filter;
        let mut kept = 0;
        for nr in 0..480 {
            for args in interesting(&base, nr) {
                let (was, is) = (run(&before, table::HERE.audit, nr, args), run(&learned, table::HERE.audit, nr, args));
                assert!(is != allow || was == allow, "call {nr} with {args:x?} was {was:#x}");
                if seen.contains(&nr) && base.arch.name_of(nr).is_some() {
                    assert!(was != allow || is == allow, "call {nr} with {args:x?} is {is:#x}");
                    kept += u32::from(is == allow);
                }
            }
        }
        assert!(kept > 100);
    }
}

#[test]
fn the_filter_that_was_made_ahead_is_that_of_the_default_profile() {
    for arch in table::ALL {
        let profile = Profile::built_in(arch);
        let program = compile(&profile, &[], Listen::None).expect("a filter");
        if std::env::var_os("SANDCELL_WRITE").is_some() {
            let name = if *arch == X86_64 { "x86_64" } else { "aarch64" };
            let path = format!("{}/src/seccomp/table/{name}.bpf", env!("CARGO_MANIFEST_DIR"));
            std::fs::write(path, program.bytes()).expect("the file");
        } else {
            let how = "SANDCELL_WRITE=1 cargo test -p sandcell --lib the_filter_that_was_made_ahead";
            assert!(arch.filter == program.bytes(), "{arch:?}: not what the profile says; this writes it anew: {how}");
        }
        assert_eq!((program.flags.bits(), profile.kills(&[])), (0, false));
        let resolved = |kernel| format!("{:?}", profile.resolve(&[], kernel).calls);
        assert_eq!(resolved((0, 0)), resolved((u32::MAX, 0)), "no rule depends on the kernel");
    }
}
