//! Docker's and OCI's JSON profiles, read as they are and written back.
//!
//! The form: Docker's `profiles/seccomp`, and `LinuxSeccomp` of the OCI runtime specification. Fields that neither
//! knows are passed over as Docker does. What would make the profile weaker or other than its author meant is an error
//! with the line: unknown calls, actions, operators, capabilities and flags, and rules that contradict each other.
//! Conditions on the architecture are decided here (it is that of this library), those on capabilities and on the kernel when the
//! profile is compiled. `archMap` opens no second ABI: 32-bit and x32 programs stay shut out.

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::profile::{
    Action, Compare, Condition, FilterFlags, Guard, Profile, Rule, STAGE, kernel_version, unknown_call,
};
use super::table::{self, Arch, Name};
use crate::kernel_names::Capability;
use crate::{Error, Result, error::Failure};

/// More entries cannot be compiled in any sensible form; Docker's own profile has 33.
const MOST_ENTRIES: usize = 1024;
const EPERM: u16 = libc::EPERM as u16;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    default_action: ActionName,
    default_errno_ret: Option<u16>,
    /// podman's: the error number by name; it counts where both are there.
    default_errno: Option<ErrnoName>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<serde::de::IgnoredAny>>,
    #[serde(default)]
    flags: Option<Vec<Flag>>,
    // Kept as text for the line numbers.
    #[serde(borrow, default)]
    syscalls: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: ActionName,
    errno_ret: Option<u16>,
    errno: Option<ErrnoName>,
    args: Option<Vec<Argument>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Operator,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Filter {
    caps: Option<Vec<Cap>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<Kernel>,
}

/// An action, its error number still missing.
#[derive(Clone, Copy)]
struct ActionName(Action);

impl<'de> Deserialize<'de> for ActionName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let action = |word: &str| match word {
            "SCMP_ACT_ALLOW" => Ok(Action::Allow),
            "SCMP_ACT_LOG" => Ok(Action::Log),
            "SCMP_ACT_ERRNO" => Ok(Action::Errno(EPERM)),
            "SCMP_ACT_TRAP" => Ok(Action::Trap),
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(Action::KillThread),
            "SCMP_ACT_KILL_PROCESS" => Ok(Action::KillProcess),
            // Nobody would answer: the program would hang, or do as it likes.
            "SCMP_ACT_TRACE" | "SCMP_ACT_NOTIFY" => {
                Err(format!("{word} needs an agent outside that decides call by call, and there is none"))
            }
            _ => Err(format!("{word:?} is no action")),
        };
        deserializer.deserialize_str(Word(action)).map(ActionName)
    }
}

impl ActionName {
    fn action(self, number: Option<u16>, name: Option<ErrnoName>) -> Action {
        match self.0 {
            Action::Errno(errno) => Action::Errno(name.map(|n| n.0).or(number).unwrap_or(errno)),
            other => other,
        }
    }
}

#[derive(Deserialize, Clone, Copy)]
enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// The flags of seccomp(2) that change what a filter does. `TSYNC` is moot: there is one thread when it is installed.
#[derive(Deserialize, Clone, Copy)]
enum Flag {
    #[serde(rename = "SECCOMP_FILTER_FLAG_TSYNC")]
    Tsync,
    #[serde(rename = "SECCOMP_FILTER_FLAG_LOG")]
    Log,
    #[serde(rename = "SECCOMP_FILTER_FLAG_SPEC_ALLOW")]
    SpecAllow,
    #[serde(rename = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")]
    WaitKillable,
}

/// Parses a word. As a visitor, because only then serde_json knows the line.
struct Word<F>(F);

impl<T, F: FnOnce(&str) -> Result<T, String>> Visitor<'_> for Word<F> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a string")
    }

    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<T, E> {
        (self.0)(word).map_err(E::custom)
    }
}

macro_rules! from_word {
    ($type:ident($inner:ty), $what:literal, $parse:expr) => {
        struct $type($inner);
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let parse: fn(&str) -> Option<$inner> = $parse;
                let parse = |word: &str| parse(word).ok_or_else(|| format!(concat!("{:?} is no ", $what), word));
                deserializer.deserialize_str(Word(parse)).map($type)
            }
        }
    };
}

from_word!(Cap(Capability), "capability", |word| Capability::ALL.iter().copied().find(|known| known.name() == word));
from_word!(ErrnoName(u16), "error number of Linux", |word| {
    (1..=133).find(|n| format!("{:?}", nix::errno::Errno::from_raw(*n)) == word).map(|n| n as u16)
});
from_word!(Kernel(Option<(u32, u32)>), "kernel version such as \"4.8\"", |word| {
    if word.is_empty() { Some(None) } else { kernel_version(word).map(Some) }
});

impl Profile {
    /// Reads a profile in the JSON form of Docker and OCI.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the line for JSON that is no profile; for unknown calls, actions, operators, capabilities
    /// and flags; for actions that need an agent (`SCMP_ACT_TRACE`, `SCMP_ACT_NOTIFY`); for rules that contradict
    /// each other; and for more than 1,024 entries. System calls that only other architectures have are no error.
    pub fn from_json(json: &str) -> Result<Profile> {
        Profile::from_json_of(table::HERE, json)
    }

    pub(super) fn from_json_of(arch: &'static Arch, json: &str) -> Result<Profile> {
        let file: File = serde_json::from_str(json).map_err(|e| bad_json(&e, 1))?;
        let default = file.default_action.action(file.default_errno_ret, file.default_errno);
        default.check()?;
        let mut profile = Profile::of(arch, default);
        if file.architectures.is_some_and(|a| !a.is_empty()) && file.arch_map.is_some_and(|a| !a.is_empty()) {
            return Err(problem("architectures", 1, "the profile has archMap too, and only one of the two can hold"));
        }
        for flag in file.flags.unwrap_or_default() {
            profile.flags |= match flag {
                Flag::Tsync | Flag::WaitKillable => FilterFlags::empty(),
                Flag::Log => FilterFlags::LOG,
                Flag::SpecAllow => FilterFlags::SPEC_ALLOW,
            };
        }
        for (i, raw) in file.syscalls.unwrap_or_default().into_iter().enumerate() {
            let line = line_of(json, raw.get());
            if i == MOST_ENTRIES {
                let message = format!("too many rules: a profile has at most {MOST_ENTRIES} entries");
                return Err(problem("syscalls", line, &message));
            }
            let entry: Entry = serde_json::from_str(raw.get()).map_err(|e| bad_json(&e, line))?;
            profile.read(entry).map_err(|e| at_line(e, line))?;
        }
        Ok(profile)
    }

    fn read(&mut self, entry: Entry) -> Result<()> {
        let names = match (entry.name, entry.names.unwrap_or_default()) {
            (Some(name), names) if names.is_empty() => vec![name],
            (Some(name), _) => {
                return Err(Failure::new(STAGE, name, "the rule has both `name` and `names`").config());
            }
            (None, names) => names,
        };
        let mut calls = Vec::with_capacity(names.len());
        for name in &names {
            match self.arch.look_up(name) {
                Name::Here(number) => calls.push(number),
                Name::Elsewhere => {}
                Name::Unknown => return Err(unknown_call(name)),
            }
        }
        let (includes, excludes) = (entry.includes.unwrap_or_default(), entry.excludes.unwrap_or_default());
        let has = |arches: &Option<Vec<String>>| arches.iter().flatten().any(|a| a == self.arch.docker);
        let elsewhere = includes.arches.as_ref().is_some_and(|a| !a.is_empty()) && !has(&includes.arches);
        if elsewhere || has(&excludes.arches) {
            return Ok(());
        }
        let caps = |caps: Option<Vec<Cap>>| caps.into_iter().flatten().map(|c| c.0).collect();
        let guard = Guard {
            with_caps: caps(includes.caps),
            without_caps: caps(excludes.caps),
            kernel_from: includes.min_kernel.and_then(|k| k.0),
            kernel_before: excludes.min_kernel.and_then(|k| k.0),
        };
        let action = entry.action.action(entry.errno_ret, entry.errno);
        let conditions =
            entry.args.unwrap_or_default().iter().map(Argument::condition).collect::<Result<Vec<Condition>>>()?;
        // As in runc: who names an argument twice means one or the other.
        let twice = (0..6).any(|n| conditions.iter().filter(|c| c.argument == n).count() > 1);
        if !twice {
            return self.push(Rule { calls, action, conditions, guard });
        }
        for condition in conditions {
            let (calls, guard) = (calls.clone(), guard.clone());
            self.push(Rule { calls, action, conditions: vec![condition], guard })?;
        }
        Ok(())
    }

    /// Writes the profile in the form that [`Profile::from_json`] and Docker read.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a rule that this form cannot say: it sets two conditions on one argument, of which Docker
    /// would take either for enough.
    pub fn to_json(&self) -> Result<String> {
        let mut syscalls = Vec::with_capacity(self.rules.len());
        for rule in &self.rules {
            let names: Vec<&str> = rule.calls.iter().filter_map(|n| self.arch.name_of(*n)).collect();
            let Some(first) = names.first() else { continue };
            let repeated = |c: &Condition| rule.conditions.iter().filter(|o| o.argument == c.argument).count() > 1;
            if rule.conditions.iter().any(repeated) {
                let message = "Docker's form cannot say that two conditions on one argument hold at once";
                return Err(Failure::new(STAGE, *first, message).config());
            }
            syscalls.push(written::Entry::new(rule, names));
        }
        let (default_action, default_errno_ret) = written::action(self.default);
        let file = written::File { default_action, default_errno_ret, flags: written::flags(self.flags), syscalls };
        let mut json = serde_json::to_string_pretty(&file)
            .map_err(|e| Failure::new(STAGE, "", format!("cannot write the profile: {e}")).config())?;
        json.push('\n');
        Ok(json)
    }
}

impl Argument {
    fn condition(&self) -> Result<Condition> {
        match self.op {
            Operator::NotEqual => Condition::new(self.index, Compare::NotEqual, self.value),
            Operator::Less => Condition::new(self.index, Compare::Less, self.value),
            Operator::LessOrEqual => Condition::new(self.index, Compare::LessOrEqual, self.value),
            Operator::Equal => Condition::new(self.index, Compare::Equal, self.value),
            Operator::GreaterOrEqual => Condition::new(self.index, Compare::GreaterOrEqual, self.value),
            Operator::Greater => Condition::new(self.index, Compare::Greater, self.value),
            Operator::MaskedEqual => Condition::new(self.index, Compare::Masked(self.value), self.value_two),
        }
    }
}

/// The line on which a part of the text starts.
fn line_of(json: &str, part: &str) -> usize {
    let offset = part.as_ptr() as usize - json.as_ptr() as usize;
    json[..offset].matches('\n').count() + 1
}

fn bad_json(error: &serde_json::Error, first_line: usize) -> Error {
    // serde_json appends " at line 1 column 2" in its own counting.
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    problem("JSON", first_line + error.line().saturating_sub(1), message)
}

fn problem(subject: &str, line: usize, message: &str) -> Error {
    at_line(Failure::new(STAGE, subject, message).config(), line)
}

fn at_line(error: Error, line: usize) -> Error {
    let mut failure = error.failure().clone();
    failure.message = format!("line {line}: {}", failure.message);
    failure.config()
}

/// The same form for writing, in the order in which people read it.
mod written {
    use super::*;

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct File<'a> {
        pub default_action: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub default_errno_ret: Option<u16>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub flags: Vec<String>,
        pub syscalls: Vec<Entry<'a>>,
    }

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct Entry<'a> {
        names: Vec<&'a str>,
        action: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        errno_ret: Option<u16>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        args: Vec<Argument>,
        #[serde(skip_serializing_if = "Filter::is_empty")]
        includes: Filter,
        #[serde(skip_serializing_if = "Filter::is_empty")]
        excludes: Filter,
    }

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Argument {
        index: u8,
        value: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        value_two: Option<u64>,
        op: &'static str,
    }

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Filter {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        caps: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        min_kernel: Option<String>,
    }

    impl Filter {
        fn new(caps: &[crate::kernel_names::Capability], kernel: Option<(u32, u32)>) -> Filter {
            let caps = caps.iter().map(ToString::to_string).collect();
            Filter { caps, min_kernel: kernel.map(|(version, revision)| format!("{version}.{revision}")) }
        }

        fn is_empty(&self) -> bool {
            self.caps.is_empty() && self.min_kernel.is_none()
        }
    }

    impl<'a> Entry<'a> {
        pub(super) fn new(rule: &Rule, mut names: Vec<&'a str>) -> Entry<'a> {
            names.sort_unstable();
            let (action, errno_ret) = action(rule.action);
            Entry {
                names,
                action,
                errno_ret,
                args: rule.conditions.iter().map(argument).collect(),
                includes: Filter::new(&rule.guard.with_caps, rule.guard.kernel_from),
                excludes: Filter::new(&rule.guard.without_caps, rule.guard.kernel_before),
            }
        }
    }

    fn argument(condition: &Condition) -> Argument {
        let (op, value, value_two) = match condition.compare {
            Compare::Equal => ("SCMP_CMP_EQ", condition.value, None),
            Compare::NotEqual => ("SCMP_CMP_NE", condition.value, None),
            Compare::Less => ("SCMP_CMP_LT", condition.value, None),
            Compare::LessOrEqual => ("SCMP_CMP_LE", condition.value, None),
            Compare::Greater => ("SCMP_CMP_GT", condition.value, None),
            Compare::GreaterOrEqual => ("SCMP_CMP_GE", condition.value, None),
            Compare::Masked(mask) => ("SCMP_CMP_MASKED_EQ", mask, Some(condition.value)),
        };
        Argument { index: condition.argument, value, value_two, op }
    }

    pub(super) fn action(action: Action) -> (&'static str, Option<u16>) {
        match action {
            Action::Allow => ("SCMP_ACT_ALLOW", None),
            Action::Log => ("SCMP_ACT_LOG", None),
            Action::Errno(errno) => ("SCMP_ACT_ERRNO", Some(errno)),
            Action::Trap => ("SCMP_ACT_TRAP", None),
            Action::KillThread => ("SCMP_ACT_KILL_THREAD", None),
            Action::KillProcess => ("SCMP_ACT_KILL_PROCESS", None),
        }
    }

    pub(super) fn flags(flags: FilterFlags) -> Vec<String> {
        flags.iter_names().map(|(name, _)| format!("SECCOMP_FILTER_FLAG_{name}")).collect()
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
