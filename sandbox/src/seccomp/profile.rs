//! A profile: rules in the order of their author, and what they come to for one set of capabilities.
//!
//! The rules mean what libseccomp makes of them when Docker loads them:
//!
//! - a rule for a call without conditions decides, whatever the rules with conditions say; of several the first;
//! - otherwise the rules whose conditions all hold decide, and the default action if there is none;
//! - numbers newer than every call that is named answer ENOSYS, so that programs fall back to an older call.
//!
//! In one point they are stricter: where the conditions of several rules hold at once, the strictest action wins.
//! libseccomp takes the one that its tree of arguments happens to reach first.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::kernel_names::Capability;

use super::table::{self, Arch, Name};
use crate::{Error, Result, error::Failure};

/// The stage that errors about profiles carry.
pub(super) const STAGE: &str = "seccomp-profile";

bitflags::bitflags! {
    /// `SECCOMP_FILTER_FLAG_*` of seccomp(2), by the kernel's names without that.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct FilterFlags: u32 {
        const LOG = libc::SECCOMP_FILTER_FLAG_LOG as u32;
        const SPEC_ALLOW = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;
        /// Never of a profile: its filter gets it where it notifies.
        const NEW_LISTENER = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
    }
}

/// What becomes of a call: seccomp(2), "Return value" of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// It is made.
    Allow,
    /// It is made, and the kernel's audit log tells of it.
    Log,
    /// It is not made and fails with this error number (at most 4095).
    Errno(u16),
    /// It is not made and the thread gets SIGSYS.
    Trap,
    /// The thread is ended.
    KillThread,
    /// The whole process is ended.
    KillProcess,
}

impl Action {
    /// The kernel's own order when several filters disagree.
    fn strictness(self) -> u8 {
        match self {
            Action::Allow => 0,
            Action::Log => 1,
            Action::Errno(_) => 2,
            Action::Trap => 3,
            Action::KillThread => 4,
            Action::KillProcess => 5,
        }
    }

    /// Whether the call is made.
    pub(super) fn lets_through(self) -> bool {
        matches!(self, Action::Allow | Action::Log)
    }

    pub(super) fn check(self) -> Result<()> {
        match self {
            Action::Errno(n @ 4096..) => {
                Err(Failure::new(STAGE, format!("errno {n}"), "error numbers end at 4095").config())
            }
            _ => Ok(()),
        }
    }

    fn in_words(self) -> String {
        match self {
            Action::Allow => "allowed".into(),
            Action::Log => "allowed and logged".into(),
            Action::Errno(n) => format!("refused with {:?}", nix::errno::Errno::from_raw(n.into())),
            Action::Trap => "answered with SIGSYS".into(),
            Action::KillThread => "the thread is killed".into(),
            Action::KillProcess => "the process is killed".into(),
        }
    }
}

/// How an argument is compared: all 64 bits of the register, unsigned, as the kernel sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compare {
    /// It equals the value.
    Equal,
    /// It differs from the value.
    NotEqual,
    /// It is less.
    Less,
    /// It is less, or equal.
    LessOrEqual,
    /// It is greater.
    Greater,
    /// It is greater, or equal.
    GreaterOrEqual,
    /// Its bits under this mask equal those of the value.
    Masked(u64),
}

/// A condition on one argument of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Condition {
    pub(super) argument: u8,
    pub(super) compare: Compare,
    pub(super) value: u64,
}

impl Condition {
    /// Always true: next to it a stricter rule about the same call still counts.
    pub(super) const ANY: Condition = Condition::of(0, Compare::GreaterOrEqual, 0);

    /// A condition on argument 0 to 5.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for another argument: no call has more than six.
    pub fn new(argument: u8, compare: Compare, value: u64) -> Result<Condition> {
        if argument > 5 {
            let message = "a system call has the arguments 0 to 5";
            return Err(Failure::new(STAGE, format!("argument {argument}"), message).config());
        }
        Ok(Condition::of(argument, compare, value))
    }

    /// The low 32 bits equal the value: the right comparison for what the kernel takes as an `int`, because it ignores
    /// the upper half of the register, and whoever compares 64 bits lets that half hide the value (CVE-2019-10063).
    pub fn int(argument: u8, value: u32) -> Result<Condition> {
        Condition::new(argument, Compare::Masked(u32::MAX.into()), value.into())
    }

    /// `new` for arguments that are written in this library's own tables.
    pub(crate) const fn of(argument: u8, compare: Compare, value: u64) -> Condition {
        let value = match compare {
            Compare::Masked(mask) => value & mask,
            _ => value,
        };
        Condition { argument, compare, value }
    }

    fn in_words(&self) -> String {
        let (argument, value) = (self.argument, number(self.value));
        match self.compare {
            Compare::Equal => format!("argument {argument} is {value}"),
            Compare::NotEqual => format!("argument {argument} is not {value}"),
            Compare::Less => format!("argument {argument} is less than {value}"),
            Compare::LessOrEqual => format!("argument {argument} is at most {value}"),
            Compare::Greater => format!("argument {argument} is more than {value}"),
            Compare::GreaterOrEqual if self.value == 0 => "no other line says otherwise".into(),
            Compare::GreaterOrEqual => format!("argument {argument} is at least {value}"),
            Compare::Masked(mask) if mask == u64::from(u32::MAX) => {
                format!("argument {argument} (as an int) is {value}")
            }
            Compare::Masked(mask) if self.value == 0 => format!("argument {argument} has none of the bits {mask:#x}"),
            Compare::Masked(mask) => format!("argument {argument} has of the bits {mask:#x} just {value}"),
        }
    }
}

fn number(value: u64) -> String {
    if value < 1024 { value.to_string() } else { format!("{value:#x}") }
}

/// When a rule counts at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Guard {
    /// All of these are kept.
    pub with_caps: Vec<Capability>,
    /// None of these is kept.
    pub without_caps: Vec<Capability>,
    /// The kernel is this or newer.
    pub kernel_from: Option<(u32, u32)>,
    /// The kernel is older than this.
    pub kernel_before: Option<(u32, u32)>,
}

impl Guard {
    fn holds(&self, caps: &[Capability], kernel: (u32, u32)) -> bool {
        self.with_caps.iter().all(|c| caps.contains(c))
            && !self.without_caps.iter().any(|c| caps.contains(c))
            && self.kernel_from.is_none_or(|v| kernel >= v)
            && self.kernel_before.is_none_or(|v| kernel < v)
    }
}

/// What happens to these calls if all conditions hold.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rule {
    pub calls: Vec<u32>,
    pub action: Action,
    pub conditions: Vec<Condition>,
    pub guard: Guard,
}

/// A seccomp profile.
///
/// [`Profile::default`] is the built-in allow-list; [`Profile::from_json`] reads the form of Docker's and OCI's
/// profiles; [`Profile::new`] and [`Profile::rule`] put one together by hand.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The rules name calls by its numbers.
    pub(super) arch: &'static Arch,
    pub(super) default: Action,
    pub(super) rules: Vec<Rule>,
    pub(super) flags: FilterFlags,
}

impl Profile {
    /// A profile without rules: this happens to every call. (Error numbers are cut at 4095, as by the kernel.)
    pub fn new(default: Action) -> Profile {
        Profile::of(table::HERE, default)
    }

    pub(super) fn of(arch: &'static Arch, default: Action) -> Profile {
        Profile { arch, default, rules: Vec::new(), flags: FilterFlags::empty() }
    }

    /// Adds a rule: this happens to these calls if all conditions hold.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a name that no architecture has, an error number above 4095, or a contradiction to an
    /// earlier rule. Names that only other architectures have are passed over.
    pub fn rule(mut self, names: &[&str], action: Action, conditions: &[Condition]) -> Result<Profile> {
        let mut calls = Vec::with_capacity(names.len());
        for name in names {
            match self.arch.look_up(name) {
                Name::Here(number) => calls.push(number),
                Name::Elsewhere => {}
                Name::Unknown => return Err(unknown_call(name)),
            }
        }
        self.push(Rule { calls, action, conditions: conditions.to_vec(), guard: Guard::default() })?;
        Ok(self)
    }

    /// The smallest profile for these calls, such as a learning run has seen them: everything else is refused.
    pub fn from_calls(numbers: impl IntoIterator<Item = u32>) -> Profile {
        let mut calls: Vec<u32> = numbers.into_iter().filter(|n| table::name_of(*n).is_some()).collect();
        calls.sort_unstable();
        calls.dedup();
        let rule = Rule { calls, action: Action::Allow, conditions: Vec::new(), guard: Guard::default() };
        Profile { rules: vec![rule], ..Profile::new(Action::Errno(libc::EPERM as u16)) }
    }

    /// Adds a rule, unless it and an earlier one cannot both be meant: they count under the same circumstances, want
    /// different things, and one of them could never have an effect.
    pub(super) fn push(&mut self, rule: Rule) -> Result<()> {
        rule.action.check()?;
        let void = |r: &&Rule| {
            r.action != rule.action
                && r.guard == rule.guard
                && (r.conditions.is_empty() || rule.conditions.is_empty() || r.conditions == rule.conditions)
        };
        for earlier in self.rules.iter().filter(void) {
            if let Some(call) = rule.calls.iter().find(|c| earlier.calls.contains(c)) {
                let name = self.arch.name_of(*call).unwrap_or("?");
                let (a, b) = (earlier.action.in_words(), rule.action.in_words());
                let message = format!("conflicting rules: {a} by an earlier rule, {b} by this one");
                return Err(Failure::new(STAGE, name, message).hint("Keep one of the two rules.").config());
            }
        }
        self.rules.push(rule);
        Ok(())
    }

    /// What the rules come to where these capabilities are kept.
    pub(super) fn resolve(&self, caps: &[Capability], kernel: (u32, u32)) -> Resolved {
        let mut calls: BTreeMap<u32, Decision> = BTreeMap::new();
        let mut newest = 0;
        for rule in self.rules.iter().filter(|r| r.guard.holds(caps, kernel)) {
            newest = newest.max(rule.calls.iter().copied().max().unwrap_or(0));
            // As in runc: such a rule changes nothing by itself and must not shadow a later one.
            if rule.conditions.is_empty() && rule.action == self.default {
                continue;
            }
            for call in &rule.calls {
                let decision = calls.entry(*call).or_insert_with(|| Decision::ByArguments(Vec::new()));
                match decision {
                    Decision::Always(_) => {}
                    _ if rule.conditions.is_empty() => *decision = Decision::Always(rule.action),
                    Decision::ByArguments(ways) => ways.push((rule.conditions.clone(), rule.action)),
                }
            }
        }
        for decision in calls.values_mut() {
            if let Decision::ByArguments(ways) = decision {
                ways.sort_by_key(|(_, action)| std::cmp::Reverse(action.strictness()));
                let mut seen = Vec::with_capacity(ways.len());
                ways.retain(|way| {
                    !seen.contains(way) && {
                        seen.push(way.clone());
                        true
                    }
                });
            }
        }
        // As in runc: who lets unknown calls through gets the kernel's own answer.
        let newest = (newest > 0 && !self.default.lets_through()).then_some(newest);
        Resolved { default: self.default, newest, calls }
    }

    /// What is left of it when only these calls were made: never more than it allowed. The rest gets the default answer,
    /// which refuses; a refusal of another kind stays what it was, because programs go by it (clone3: ENOSYS).
    pub(crate) fn narrowed(&self, caps: &[Capability], seen: &[u32]) -> Profile {
        // Whether a run needs these can be a matter of a moment: how it ends, and signals that come or do not.
        let always_kept = self.arch.numbers("exit exit_group rt_sigreturn restart_syscall");
        let base = self.resolve(caps, running_kernel());
        let refusal = if base.default.lets_through() { Action::Errno(libc::EPERM as u16) } else { base.default };
        let mut profile = Profile { flags: self.flags, ..Profile::of(self.arch, refusal) };
        let mut always: Vec<(Action, Vec<u32>)> = Vec::new();
        for call in 0..table::END {
            let decision = base.calls.get(&call).cloned().unwrap_or(Decision::Always(base.default));
            let kept = seen.contains(&call) || always_kept.contains(&call);
            let mut allow = |action| match always.iter_mut().find(|(a, _)| *a == action) {
                Some((_, calls)) => calls.push(call),
                None => always.push((action, vec![call])),
            };
            match decision {
                _ if self.arch.name_of(call).is_none() => {}
                Decision::Always(action) if !action.lets_through() && action != refusal => allow(action),
                Decision::Always(action) if kept && action.lets_through() => allow(action),
                Decision::ByArguments(ways) if kept => {
                    let open = base.default.lets_through().then(|| (vec![Condition::ANY], base.default));
                    for (conditions, action) in ways.into_iter().chain(open) {
                        profile.rules.push(Rule { calls: vec![call], action, conditions, guard: Guard::default() });
                    }
                }
                _ => {}
            }
        }
        let rule = |(action, calls)| Rule { calls, action, conditions: Vec::new(), guard: Guard::default() };
        profile.rules.splice(0..0, always.into_iter().map(rule));
        profile
    }

    /// Whether it ends programs that keep these capabilities for some call.
    pub(crate) fn kills(&self, caps: &[Capability]) -> bool {
        let kills = |action: &Action| matches!(action, Action::KillThread | Action::KillProcess);
        let resolved = self.resolve(caps, running_kernel());
        kills(&resolved.default)
            || resolved.calls.values().any(|decision| match decision {
                Decision::Always(action) => kills(action),
                Decision::ByArguments(ways) => ways.iter().any(|(_, action)| kills(action)),
            })
    }

    /// The profile in plain words, for a program that keeps these capabilities.
    pub fn explain(&self, caps: &[Capability]) -> String {
        let resolved = self.resolve(caps, running_kernel());
        let mut text = format!("A call that is not named here: {}.\n", resolved.default.in_words());
        if let Some(newest) = resolved.newest {
            let name = self.arch.name_of(newest).unwrap_or("?");
            let _ = writeln!(text, "A call newer than {name} ({newest}): refused with ENOSYS, so programs fall back.");
        }
        if let Some((name, _)) = self.arch.other_abi {
            let _ = write!(text, "A call of the {name} ABI: refused with ENOSYS. ");
        }
        text.push_str("A call of a 32-bit ABI: the process is killed.\n");
        let mut always: BTreeMap<(u8, String), Vec<&str>> = BTreeMap::new();
        let mut sometimes = String::new();
        for (call, decision) in &resolved.calls {
            // Numbers without a call belong to no one's reading.
            let Some(name) = self.arch.name_of(*call) else { continue };
            match decision {
                Decision::Always(action) => {
                    always.entry((action.strictness(), action.in_words())).or_default().push(name);
                }
                Decision::ByArguments(ways) => {
                    for (conditions, action) in ways {
                        let conditions: Vec<String> = conditions.iter().map(Condition::in_words).collect();
                        let _ = writeln!(sometimes, "{name}: {} if {}.", action.in_words(), conditions.join(" and "));
                    }
                }
            }
        }
        for ((_, action), mut names) in always {
            names.sort_unstable();
            let _ = writeln!(text, "{} calls {action}: {}.", names.len(), names.join(" "));
        }
        text + &sometimes
    }
}

/// What a profile comes to for one set of capabilities.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Resolved {
    pub default: Action,
    /// Numbers above this one answer ENOSYS.
    pub newest: Option<u32>,
    /// Calls that are not here get the default action.
    pub calls: BTreeMap<u32, Decision>,
}

/// What becomes of one call.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    /// Whatever its arguments.
    Always(Action),
    /// The first whose conditions all hold decides (the strictest comes first), else the default action.
    ByArguments(Vec<(Vec<Condition>, Action)>),
}

pub(super) fn unknown_call(name: &str) -> Error {
    Failure::new(STAGE, name, "no architecture has a system call of this name")
        .hint("Check the spelling against syscalls(2); names are those of the kernel, such as newfstatat or umount2.")
        .config()
}

/// Version and revision of the running kernel, as in 6.18.
pub(super) fn running_kernel() -> (u32, u32) {
    nix::sys::utsname::uname().ok().and_then(|u| kernel_version(u.release().to_str()?)).unwrap_or((0, 0))
}

/// `6.18.44-x` → (6, 18).
pub(super) fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let (version, rest) = release.split_once('.')?;
    let revision: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((version.parse().ok()?, revision.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPERM: Action = Action::Errno(1);

    #[test]
    fn a_call_that_no_architecture_has_is_named() {
        let error = Profile::new(EPERM).rule(&["read", "raed"], Action::Allow, &[]).unwrap_err();
        assert_eq!((error.kind(), error.subject()), ("config", "raed"));
        assert!(Profile::new(EPERM).rule(&["read", "socketcall"], Action::Allow, &[]).is_ok());
    }

    #[test]
    fn rules_that_cannot_both_be_meant_are_refused() {
        let condition = [Condition::new(0, Compare::Equal, 1).unwrap()];
        let allowed = Profile::new(EPERM).rule(&["read", "write"], Action::Allow, &[]).unwrap();
        for conditions in [&[][..], &condition] {
            let error = allowed.clone().rule(&["open", "write"], Action::KillProcess, conditions).unwrap_err();
            assert_eq!((error.kind(), error.subject()), ("config", "write"));
        }
        let sometimes = Profile::new(EPERM).rule(&["read"], Action::Allow, &condition).unwrap();
        assert!(sometimes.clone().rule(&["read"], Action::Log, &condition).is_err());
        // The twins: the same again, another call, other conditions.
        assert!(allowed.clone().rule(&["read"], Action::Allow, &[]).is_ok());
        assert!(allowed.rule(&["open"], Action::KillProcess, &[]).is_ok());
        assert!(sometimes.rule(&["read"], Action::Log, &[Condition::int(1, 1).unwrap()]).is_ok());
    }

    #[test]
    fn an_argument_or_error_number_out_of_range_is_refused() {
        assert_eq!(Condition::new(6, Compare::Equal, 0).unwrap_err().subject(), "argument 6");
        assert!(Condition::new(5, Compare::Equal, 0).is_ok());
        assert!(Profile::new(EPERM).rule(&["read"], Action::Errno(4096), &[]).is_err());
        assert!(Profile::new(EPERM).rule(&["read"], Action::Errno(4095), &[]).is_ok());
    }

    #[test]
    fn a_rule_counts_only_on_its_kernels_and_with_its_capabilities() {
        let guard = Guard { kernel_from: Some((4, 8)), kernel_before: Some((6, 0)), ..Guard::default() };
        assert!(guard.holds(&[], (4, 8)) && guard.holds(&[], (5, 19)));
        assert!(!guard.holds(&[], (4, 7)) && !guard.holds(&[], (6, 0)) && !guard.holds(&[], (3, 99)));
        let guard = Guard {
            with_caps: vec![Capability::CAP_KILL, Capability::CAP_CHOWN],
            without_caps: vec![Capability::CAP_BPF],
            ..Guard::default()
        };
        assert!(guard.holds(&[Capability::CAP_KILL, Capability::CAP_CHOWN], (6, 18)));
        assert!(!guard.holds(&[Capability::CAP_KILL], (6, 18)));
        assert!(!guard.holds(&[Capability::CAP_KILL, Capability::CAP_CHOWN, Capability::CAP_BPF], (6, 18)));
        assert_eq!(kernel_version("6.18.44-fc-v509"), Some((6, 18)));
        assert_eq!(kernel_version("3.12-1-amd64"), Some((3, 12)));
        assert_eq!(kernel_version("six"), None);
        assert!(running_kernel() >= (5, 0));
    }

    #[test]
    fn a_profile_can_be_read_in_words() {
        let words = Profile::default().explain(&[]);
        for line in [
            "A call that is not named here: refused with EPERM.",
            "A call newer than futex_requeue (456): refused with ENOSYS, so programs fall back.",
            "clone: allowed if argument 0 has none of the bits 0x7e020000.",
            "ioctl: refused with EPERM if argument 1 (as an int) is 0x5412.",
            "socket: allowed if argument 0 (as an int) is 16 and argument 2 (as an int) is 0.",
            "1 calls refused with ENOSYS: clone3.",
        ] {
            assert!(words.lines().any(|l| l == line), "{line:?} is missing from\n{words}");
        }
        assert!(words.contains(" read ") && !words.contains(" mount "));
        assert!(Profile::default().explain(&[Capability::CAP_SYS_ADMIN]).contains(" mount "));
    }

    #[test]
    fn what_was_learned_is_allowed_and_nothing_else() {
        let profile = Profile::from_calls([libc::SYS_write as u32, 61, 61, 400, libc::SYS_exit_group as u32]);
        let resolved = profile.resolve(&[], (6, 18));
        let mut want = [libc::SYS_write as u32, 61, libc::SYS_exit_group as u32];
        want.sort_unstable();
        assert_eq!(resolved.calls.keys().copied().collect::<Vec<_>>(), want);
        assert_eq!((resolved.default, resolved.newest), (EPERM, Some(want[2])));
    }
}
