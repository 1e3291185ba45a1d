//! Reports, explanations and findings as JSON: the same keys in every language, all of them always there.

use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::outcome::{Enforced, IdentityReport, Outcome, Report, Requested, Usage};
use crate::sandbox::PlannedStep;

/// A run, or the reason why there was none, as one line of JSON without a newline. Where the sandbox failed,
/// `outcome`, `usage` and `identity` are null and `error` says why; otherwise `error` is null.
pub fn to_json(run: &Result<Report>) -> String {
    json(&match run {
        Ok(report) => of_report(report),
        Err(error) => of_error(error),
    })
}

/// A failure alone, in the form of a whole report.
pub fn error_to_json(error: &Error) -> String {
    json(&of_error(error))
}

/// What has been used so far, with the keys that `usage` has in a report.
pub fn usage_to_json(usage: &Usage) -> String {
    json(&used(usage))
}

/// Who the programs of something that still runs are, and what is enforced: `{identity, enforced}` as in a report.
pub fn standing_to_json(identity: &IdentityReport, enforced: &[Enforced]) -> String {
    #[derive(Serialize)]
    struct Standing<'a> {
        identity: Who,
        enforced: Vec<Line<'a>>,
    }
    json(&Standing { identity: who(identity), enforced: enforced.iter().map(line).collect() })
}

/// The steps of [`Sandbox::explain`](crate::Sandbox::explain) as a JSON array of `{name, subject, words}`.
pub fn steps_to_json(steps: &[PlannedStep]) -> String {
    #[derive(Serialize)]
    struct Step<'a> {
        name: &'a str,
        subject: &'a str,
        words: &'a str,
    }
    let steps: Vec<_> = steps.iter().map(|s| Step { name: &s.name, subject: &s.subject, words: &s.words }).collect();
    json(&steps)
}

/// What [`doctor`](crate::doctor) found as a JSON array of `{name, ok, detail, remedy}`.
pub fn findings_to_json(findings: &[crate::Finding]) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        name: &'a str,
        ok: bool,
        detail: &'a str,
        remedy: &'a str,
    }
    let lines: Vec<_> =
        findings.iter().map(|f| Line { name: f.name, ok: f.ok, detail: &f.detail, remedy: &f.remedy }).collect();
    json(&lines)
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings, numbers and lists can always be written")
}

// What stands in the file is kept apart from the library's own types: renaming a field there must not rename a key.

#[derive(Serialize)]
struct Document<'a> {
    outcome: Option<Ended<'a>>,
    usage: Option<Used>,
    identity: Option<Who>,
    enforced: Vec<Line<'a>>,
    leftovers: Vec<Process<'a>>,
    changes: Option<Vec<ChangedFile>>,
    warnings: Vec<String>,
    error: Option<Wrong<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Ended<'a> {
    Exited { code: i32 },
    Signaled { signal: i32, core_dumped: bool },
    TimedOut,
    OutOfMemory,
    OutputLimit,
    SyscallDenied { syscall: &'a str },
    Killed,
}

#[derive(Serialize)]
struct Used {
    wall_seconds: f64,
    user_seconds: f64,
    system_seconds: f64,
    memory_peak_bytes: Option<u64>,
    pids_peak: Option<u64>,
    output_bytes: Option<u64>,
    io_read_bytes: Option<u64>,
    io_write_bytes: Option<u64>,
    throttled_seconds: Option<f64>,
    oom_kills: Option<u64>,
    pids_refused: Option<u64>,
    memory_pressure: Option<f32>,
    cpu_pressure: Option<f32>,
    io_pressure: Option<f32>,
}

#[derive(Serialize)]
struct Who {
    uid: u32,
    gid: u32,
    host_uid: u32,
    host_gid: u32,
}

#[derive(Serialize)]
struct Line<'a> {
    item: &'a str,
    requested: Figure<'a>,
    by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disjoint: Option<bool>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Figure<'a> {
    Number(u64),
    Fraction(f64),
    Word(&'a str),
}

#[derive(Serialize)]
struct Process<'a> {
    pid: u32,
    command: &'a str,
}

#[derive(Serialize)]
struct ChangedFile {
    path: String,
    kind: String,
}

#[derive(Serialize)]
struct Wrong<'a> {
    kind: &'static str,
    stage: &'static str,
    errno: Option<i32>,
    subject: &'a str,
    message: &'a str,
    hint: &'a str,
}

fn of_report(report: &Report) -> Document<'_> {
    let changed = |change: &crate::Change| ChangedFile {
        path: change.path.to_string_lossy().into_owned(),
        kind: format!("{:?}", change.kind).to_lowercase(),
    };
    Document {
        outcome: Some(ended(&report.outcome)),
        usage: Some(used(&report.usage)),
        identity: Some(who(&report.identity)),
        enforced: report.enforced.iter().map(line).collect(),
        leftovers: report.leftovers.iter().map(|l| Process { pid: l.pid, command: &l.command }).collect(),
        warnings: report.warnings.clone(),
        changes: report.changes.as_ref().map(|changes| changes.iter().map(changed).collect()),
        error: None,
    }
}

fn of_error(error: &Error) -> Document<'_> {
    let failure = error.failure();
    Document {
        outcome: None,
        usage: None,
        identity: None,
        enforced: Vec::new(),
        leftovers: Vec::new(),
        changes: None,
        warnings: Vec::new(),
        error: Some(Wrong {
            kind: error.kind(),
            stage: failure.stage,
            errno: failure.errno,
            subject: &failure.subject,
            message: &failure.message,
            hint: &failure.hint,
        }),
    }
}

fn who(identity: &IdentityReport) -> Who {
    let &IdentityReport { uid, gid, host_uid, host_gid } = identity;
    Who { uid, gid, host_uid, host_gid }
}

fn ended(outcome: &Outcome) -> Ended<'_> {
    match outcome {
        Outcome::Exited(code) => Ended::Exited { code: *code },
        Outcome::Signaled { signal, core_dumped } => Ended::Signaled { signal: *signal, core_dumped: *core_dumped },
        Outcome::TimedOut => Ended::TimedOut,
        Outcome::OutOfMemory => Ended::OutOfMemory,
        Outcome::OutputLimit => Ended::OutputLimit,
        Outcome::SyscallDenied { syscall } => Ended::SyscallDenied { syscall },
        Outcome::Killed => Ended::Killed,
    }
}

fn used(usage: &Usage) -> Used {
    Used {
        wall_seconds: usage.wall.as_secs_f64(),
        user_seconds: usage.user.as_secs_f64(),
        system_seconds: usage.system.as_secs_f64(),
        memory_peak_bytes: usage.memory_peak_bytes,
        pids_peak: usage.pids_peak,
        output_bytes: usage.output_bytes,
        io_read_bytes: usage.io_read_bytes,
        io_write_bytes: usage.io_write_bytes,
        throttled_seconds: usage.throttled.as_ref().map(Duration::as_secs_f64),
        oom_kills: usage.oom_kills,
        pids_refused: usage.pids_refused,
        memory_pressure: usage.memory_pressure,
        cpu_pressure: usage.cpu_pressure,
        io_pressure: usage.io_pressure,
    }
}

fn line(enforced: &Enforced) -> Line<'_> {
    Line {
        item: enforced.item,
        requested: match &enforced.requested {
            Requested::Number(number) => Figure::Number(*number),
            Requested::Fraction(fraction) => Figure::Fraction(*fraction),
            Requested::Word(word) => Figure::Word(word),
        },
        by: enforced.by.as_str(),
        why: enforced.why.as_deref(),
        host_uid: enforced.host_uid,
        disjoint: enforced.disjoint,
    }
}
