//! From a profile to the kernel's classic BPF: seccomp(2), `Documentation/userspace-api/seccomp_filter.rst`.
//!
//! The kernel runs a filter once for every call number when it is installed (it keeps a bitmap of those that are
//! always allowed), so its shape is the price of every start. seccompiler lays calls out as a linear list, one
//! comparison after the other: 300 of them cost seven times a search tree. So this file brings the frame (the
//! architecture, a binary search over ranges of numbers) and seccompiler what it is good at: the conditions on
//! 64-bit arguments at the leaves.
//!
//! ```text
//! ld arch; jeq ours, else kill         a foreign ABI cannot even exit in peace
//! ld nr
//! jge 128 ──▶ jge 192 ──▶ …            ranges of numbers that get the same answer
//!    └──▶ jge 64 ──▶ … ──▶ ret         or, for one call: conditions, ret; conditions, ret; …; ret default
//! ```
//!
//! On x86-64 the numbers from 2³⁰ are the x32 ABI: a range like the others, answered with ENOSYS as by a kernel without x32.

use std::collections::BTreeMap;

use crate::kernel_names::Capability;
use libc::sock_filter;
use seccompiler::{BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::profile::{Action, Compare, Condition, Decision, FilterFlags, Profile, Resolved, STAGE, running_kernel};
use super::table::Arch;
use crate::{Result, error::Failure};

/// BPF_MAXINSNS.
const MOST: usize = 4096;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;

/// What a filter tells the holder of its listener (seccomp_unotify(2)) instead of deciding it in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listen {
    /// Nothing: there is no listener.
    None,
    /// The calls that end the program: the holder notes the number and kills. This is how an outcome can name the call.
    Kills,
    /// The calls that it lets through: the holder notes the number and lets the call go on. It decides nothing, so the
    /// arguments may change under its eyes.
    Passes,
}

/// A filter as seccomp(2) takes it.
#[derive(Clone)]
pub(crate) struct Program {
    pub filter: Vec<sock_filter>,
    /// For `SECCOMP_SET_MODE_FILTER`.
    pub flags: FilterFlags,
}

impl Program {
    /// The instructions in memory order, 8 bytes each.
    pub fn bytes(&self) -> Vec<u8> {
        let one = |i: &sock_filter| {
            let [a, b] = i.code.to_ne_bytes();
            let [c, d, e, f] = i.k.to_ne_bytes();
            [a, b, i.jt, i.jf, c, d, e, f]
        };
        self.filter.iter().flat_map(one).collect()
    }

    fn new(filter: Vec<sock_filter>, mut flags: FilterFlags) -> Program {
        let notifies = filter.iter().any(|i| i.code == RETURN && i.k == libc::SECCOMP_RET_USER_NOTIF);
        flags.set(FilterFlags::NEW_LISTENER, notifies);
        Program { filter, flags }
    }
}

/// The filter of a profile for a program that keeps these capabilities.
///
/// # Errors
///
/// [`Error::Config`](crate::Error::Config) for a profile that is too long for the kernel.
pub(crate) fn compile(profile: &Profile, caps: &[Capability], listen: Listen) -> Result<Program> {
    let resolved = profile.resolve(caps, running_kernel());
    let tree = tree(&ranges(&resolved, profile.arch), &resolved, listen)?;
    let mut filter = frame(profile.arch, listen);
    filter.extend(tree);
    if filter.len() > MOST {
        let longest = resolved.calls.iter().max_by_key(|(_, d)| match d {
            Decision::Always(_) => 0,
            Decision::ByArguments(ways) => ways.len(),
        });
        let name = longest.and_then(|(call, _)| profile.arch.name_of(*call)).unwrap_or("profile");
        let message = format!(
            "too many rules: the filter has {} instructions and the kernel takes {MOST}; this call has the most",
            filter.len()
        );
        return Err(Failure::new(STAGE, name, message).hint("Join rules, or drop conditions.").config());
    }
    Ok(Program::new(filter, profile.flags))
}

impl Profile {
    /// The filter for a program that keeps these capabilities, as `struct sock_filter[]` in memory order: 8 bytes for
    /// each instruction. Other launchers take it too (`bwrap --seccomp FD`).
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for a profile of more than the kernel's 4,096 instructions.
    pub fn to_bpf(&self, caps: &[Capability]) -> Result<Vec<u8>> {
        Ok(compile(self, caps, Listen::None)?.bytes())
    }
}

/// What comes before the tree.
fn frame(of: &Arch, listen: Listen) -> Vec<sock_filter> {
    // Offsets into struct seccomp_data.
    let (nr, arch) = (0, 4);
    vec![
        instruction(LOAD, 0, 0, arch),
        instruction(IF_EQUAL, 1, 0, of.audit),
        ret(code(Action::KillProcess, listen)),
        instruction(LOAD, 0, 0, nr),
    ]
}

/// Ranges of numbers by their first one, each to the next, neighbours that get the same answer joined.
fn ranges(resolved: &Resolved, arch: &Arch) -> Vec<(u32, Decision)> {
    const ENOSYS: Decision = Decision::Always(Action::Errno(libc::ENOSYS as u16));
    let mut starts: BTreeMap<u32, Decision> = BTreeMap::from([(0, Decision::Always(resolved.default))]);
    for (call, decision) in &resolved.calls {
        starts.insert(*call, decision.clone());
        if !resolved.calls.contains_key(&(call + 1)) {
            starts.insert(call + 1, Decision::Always(resolved.default));
        }
    }
    if let Some(newest) = resolved.newest {
        starts.insert(newest + 1, ENOSYS);
    }
    if let Some((_, first)) = arch.other_abi {
        starts.insert(first, ENOSYS);
    }
    let mut ranges: Vec<(u32, Decision)> = starts.into_iter().collect();
    ranges.dedup_by(|next, last| next.1 == last.1);
    ranges
}

/// A binary search for the range that holds the number in the accumulator.
fn tree(ranges: &[(u32, Decision)], resolved: &Resolved, listen: Listen) -> Result<Vec<sock_filter>> {
    if let [(_, decision)] = ranges {
        return leaf(decision, resolved.default, listen);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let (first, low, high) = (high[0].0, tree(low, resolved, listen)?, tree(high, resolved, listen)?);
    let mut program = match u8::try_from(low.len()) {
        Ok(over) => vec![at_least(first, over, 0)],
        // Conditional jumps reach 255 instructions, plain ones everything.
        Err(_) => vec![at_least(first, 0, 1), instruction(JUMP, 0, 0, low.len() as u32)],
    };
    program.extend(low);
    program.extend(high);
    Ok(program)
}

fn leaf(decision: &Decision, default: Action, listen: Listen) -> Result<Vec<sock_filter>> {
    let ways = match decision {
        Decision::Always(action) => return Ok(vec![ret(code(*action, listen))]),
        Decision::ByArguments(ways) => ways,
    };
    let mut program = Vec::new();
    for (conditions, action) in ways {
        let conditions = conditions.iter().map(condition).collect::<Result<_, _>>();
        let rule = conditions.and_then(SeccompRule::new);
        let rule = rule.map_err(|e| Failure::new(STAGE, "", format!("seccompiler refuses a rule: {e}")).config())?;
        // Ends where it matches; otherwise it jumps over the one instruction that follows.
        let matching = BpfProgram::from(rule);
        program.extend(matching.into_iter().map(|i| instruction(i.code, i.jt, i.jf, i.k)));
        program.push(ret(code(*action, listen)));
    }
    program.push(ret(code(default, listen)));
    Ok(program)
}

fn condition(condition: &Condition) -> Result<SeccompCondition, seccompiler::BackendError> {
    const INT: u64 = u32::MAX as u64;
    let whole = SeccompCmpArgLen::Qword;
    let (length, compare) = match condition.compare {
        Compare::Equal => (whole, SeccompCmpOp::Eq),
        Compare::NotEqual => (whole, SeccompCmpOp::Ne),
        Compare::Less => (whole, SeccompCmpOp::Lt),
        Compare::LessOrEqual => (whole, SeccompCmpOp::Le),
        Compare::Greater => (whole, SeccompCmpOp::Gt),
        Compare::GreaterOrEqual => (whole, SeccompCmpOp::Ge),
        // Shorter where the upper half does not count.
        Compare::Masked(INT) => (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq),
        Compare::Masked(mask @ ..=INT) => (SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask)),
        Compare::Masked(mask) => (whole, SeccompCmpOp::MaskedEq(mask)),
    };
    SeccompCondition::new(condition.argument, length, compare, condition.value)
}

fn code(action: Action, listen: Listen) -> u32 {
    match action {
        Action::KillThread | Action::KillProcess if listen == Listen::Kills => libc::SECCOMP_RET_USER_NOTIF,
        Action::Allow | Action::Log if listen == Listen::Passes => libc::SECCOMP_RET_USER_NOTIF,
        Action::Allow => libc::SECCOMP_RET_ALLOW,
        Action::Log => libc::SECCOMP_RET_LOG,
        Action::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
        Action::Trap => libc::SECCOMP_RET_TRAP,
        Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
        Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
    }
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn ret(value: u32) -> sock_filter {
    instruction(RETURN, 0, 0, value)
}

fn at_least(value: u32, then: u8, otherwise: u8) -> sock_filter {
    instruction(IF_AT_LEAST, then, otherwise, value)
}

#[cfg(test)]
#[path = "compile_tests.rs"]
pub(super) mod tests;
