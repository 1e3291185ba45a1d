//! What a run in which one system call has failed must show.

use super::errnos;
use super::tracer::{Fault, Trace};
use serde_json::Value;

/// What is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// An error that names stage, cause and subject.
    Error,
    /// The sandbox was built all the same, as strong as ever.
    Same,
    /// Without a wall that the host seemed not to have, which the report says.
    Reported,
}

/// The victim's own words, and what must be there whatever failed.
pub fn said(trace: &Trace) -> Result<Value, String> {
    if trace.hung {
        return Err("it hung".into());
    }
    if !trace.orphans.is_empty() {
        return Err(format!("left processes behind: {}", trace.orphans.join(", ")));
    }
    let complained = trace.complained.trim();
    let said: Value = serde_json::from_str(&trace.said)
        .map_err(|_| format!("the caller ended with wait status {:#x}: {complained}", trace.status))?;
    if !complained.is_empty() {
        return Err(format!("wrote to stderr: {complained}"));
    }
    Ok(said)
}

/// `usual` is what the victim says where nothing fails.
pub fn judge(usual: &Value, trace: &Trace, fault: &Fault) -> Result<Verdict, String> {
    let said = said(trace)?;
    let changed = said["changed"].as_array().map_or(0, Vec::len);
    if changed > 0 {
        return Err(format!("something of the caller has changed: {}", said["changed"]));
    }
    if is_reported(fault, &said["first"]) {
        return Ok(Verdict::Reported);
    }
    if let Some(difference) = different(&usual["first"], &said["again"]) {
        return Err(format!("the next run was not as usual: {difference}"));
    }
    let first = &said["first"];
    if first.get("error").is_none() {
        return match different(&usual["first"], first) {
            None => Ok(Verdict::Same),
            Some(_) if is_doubted(&usual["first"], first) => Ok(Verdict::Reported),
            Some(_) if is_told(fault, first) => Ok(Verdict::Same),
            Some(difference) => Err(format!("FAIL-OPEN or lost: {difference}")),
        };
    }
    let text = |name: &str| first[name].as_str().unwrap_or_default();
    if let Some(lacks) = ["stage", "error", "hint"].into_iter().find(|name| text(name).is_empty()) {
        return Err(format!("an error without {lacks}: {first}"));
    }
    const WAITS: [i64; 5] = [errnos::POLL, libc::SYS_recvmsg, libc::SYS_sendmsg, libc::SYS_wait4, libc::SYS_waitid];
    if fault.errno == libc::EINTR && WAITS.contains(&fault.site.call) {
        return Err(format!("an interrupted call was not made again: {first}"));
    }
    if first["errno"].as_i64() != Some(fault.errno.into()) && !in_words(text("stage"), fault) {
        let name = errnos::errno_name(fault.errno);
        return Err(format!("the error does not name {name}: {first}"));
    }
    Ok(Verdict::Error)
}

/// Errors whose cause is not one number.
fn in_words(stage: &str, fault: &Fault) -> bool {
    match stage {
        // They tell what each cgroup hierarchy lacks.
        "cgroup-find" | "cgroup-create" => true,
        // It tells which ABI would do.
        "landlock" => fault.site.call == libc::SYS_landlock_create_ruleset,
        // `create_dir_all` keeps what mkdir(2) said before it looked.
        "upper" => fault.site.call == libc::SYS_statx,
        // Asking in a second way whether that was the last capability.
        "bounding-set" => true,
        // Init cannot tell why it cannot talk, and ends where it cannot wait.
        "start" | "wait" | "setup" | "protocol" => {
            fault.site.process == "init"
                && [libc::SYS_recvmsg, libc::SYS_sendmsg, libc::SYS_wait4].contains(&fault.site.call)
        }
        _ => false,
    }
}

/// At the end nobody could tell any more whether a limit held, and the report says so: the rest is as usual.
fn is_doubted(usual: &Value, said: &Value) -> bool {
    let lines = |value: &Value| -> Vec<String> {
        value["enforced"].as_array().into_iter().flatten().map(|line| line.to_string()).collect()
    };
    let (before, now) = (lines(usual), lines(said));
    let doubted =
        now.iter().filter(|line| !before.contains(line)).all(|line| line.trim_end_matches('"').ends_with("nothing"));
    doubted && before.len() == now.len() && usual["posture"] == said["posture"] && usual["outcome"] == said["outcome"]
}

/// The program's output could not be carried: the report says so, or the program was told (it then exits with 3), as
/// if nobody read any more.
fn is_told(fault: &Fault, said: &Value) -> bool {
    let carries = [libc::SYS_read, libc::SYS_write, errnos::POLL].contains(&fault.site.call);
    let warned = said["warnings"].to_string().contains("output of the program was lost");
    fault.site.process == "init" && carries && (warned || said["outcome"] == "exited with status 3")
}

/// Landlock is best effort unless it was required: a kernel without it is one that this call is not known to.
fn is_reported(fault: &Fault, said: &Value) -> bool {
    let lacks =
        |line: &Value| line.as_str().is_some_and(|line| line.starts_with("landlock") && line.ends_with("nothing"));
    fault.site.process == "caller"
        && fault.site.call == libc::SYS_landlock_create_ruleset
        && said["enforced"].as_array().is_some_and(|lines| lines.iter().any(lacks))
}

/// Where two runs that should be alike are not.
fn different(usual: &Value, other: &Value) -> Option<String> {
    if let Some(error) = other.get("error") {
        return Some(error.to_string());
    }
    for key in ["outcome", "enforced", "warnings"] {
        if usual[key] != other[key] {
            return Some(format!("{key}: {} instead of {}", other[key], usual[key]));
        }
    }
    let lines = |value: &Value| -> Vec<String> {
        value["posture"].as_str().unwrap_or_default().lines().map(str::to_string).collect()
    };
    let has_no_namespaces = usual["enforced"].to_string().contains("isolation=");
    let (usual, other) = (lines(usual), lines(other));
    let more = other.iter().filter(|line| !usual.contains(line)).map(|line| format!("+{line}"));
    let less = usual.iter().filter(|line| !other.contains(line)).map(|line| format!("-{line}"));
    let mut all: Vec<String> = less.chain(more).collect();
    // Layers of the caller's are used with the caller's id; where that cannot be found out, with one of their own.
    if all.iter().any(|line| line == "+uid_map: other x1") {
        let of_the_id =
            ["-uid_map: ", "+uid_map: ", "-try mkdir", "+try mkdir", "-/proc/1/fd: OPEN", "+/proc/1/fd: closed"];
        all.retain(|line| !of_the_id.iter().any(|start| line.starts_with(start)));
    }
    // Without namespaces they are the host's, which come and go.
    if has_no_namespaces {
        all.retain(|line| !line[1..].starts_with("processes: "));
    }
    (!all.is_empty()).then(|| all.join("; "))
}
