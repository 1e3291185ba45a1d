//! Reports, explanations and findings as JSON: the same keys in every language, all of them always there. With the feature
//! `serde` the types themselves are serialized in that form; the functions here need `json`.

use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::report::{
    Change, Connection, Enforced, IdentityReport, Leftover, NetworkReport, Outcome, Published, Report, Requested, Usage,
};
#[cfg(feature = "json")]
use crate::report::{Finding, PlannedStep};

/// A run, or the reason why there was none, as one line of JSON without a newline. Where the sandbox failed,
/// `outcome`, `usage` and `identity` are null and `error` says why; otherwise `error` is null.
#[cfg(feature = "json")]
pub fn to_json(run: &Result<Report>) -> String {
    json(&match run {
        Ok(report) => of_report(report),
        Err(error) => of_error(error),
    })
}

/// A failure alone, in the form of a whole report.
#[cfg(feature = "json")]
pub fn error_to_json(error: &Error) -> String {
    json(&of_error(error))
}

/// What has been used so far, with the keys that `usage` has in a report.
#[cfg(feature = "json")]
pub fn usage_to_json(usage: &Usage) -> String {
    json(&used(usage))
}

/// Who the programs of something that still runs are, what is enforced, and which ports are published:
/// `{identity, enforced, published}` as in a report.
#[cfg(feature = "json")]
pub fn standing_to_json(identity: &IdentityReport, enforced: &[Enforced], published: &[Published]) -> String {
    #[derive(Serialize)]
    struct Standing<'a> {
        identity: Who,
        enforced: Vec<Line<'a>>,
        published: Vec<Port>,
    }
    json(&Standing {
        identity: who(identity),
        enforced: enforced.iter().map(line).collect(),
        published: published.iter().map(port).collect(),
    })
}

/// The steps of [`Sandbox::explain`](crate::Sandbox::explain) as a JSON array of `{name, subject, words}`.
#[cfg(feature = "json")]
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
#[cfg(feature = "json")]
pub fn findings_to_json(findings: &[Finding]) -> String {
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

#[cfg(feature = "json")]
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings, numbers and lists can always be written")
}

/// Each of the library's types in the form that it has in the file.
macro_rules! serialize {
    ($($kind:ty => $form:ident),* $(,)?) => {
        $(impl Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $form(self).serialize(serializer)
            }
        })*
    };
}

serialize!(
    Report => of_report,
    Outcome => ended,
    Usage => used,
    IdentityReport => who,
    Enforced => line,
    Leftover => leftover,
    Change => changed,
    Published => port,
    Error => of_error,
);

// What stands in the file is kept apart from the library's own types: renaming a field there must not rename a key.

#[derive(Serialize)]
struct Document<'a> {
    outcome: Option<Ended<'a>>,
    usage: Option<Used>,
    identity: Option<Who>,
    enforced: Vec<Line<'a>>,
    leftovers: Vec<Process<'a>>,
    changes: Option<Vec<ChangedFile>>,
    changes_truncated: bool,
    network: Option<Reached<'a>>,
    warnings: Vec<String>,
    error: Option<Wrong<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Ended<'a> {
    Exited { code: i32 },
    Signaled { signal: i32, core_dumped: bool },
    TimedOut { of: Option<&'static str> },
    OutOfMemory,
    OutputLimit,
    SyscallDenied { syscall: &'a str },
    Killed,
}

#[derive(Serialize)]
struct Used {
    wall_seconds: f64,
    user_seconds: Option<f64>,
    system_seconds: Option<f64>,
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
    let outcome = match ended(&report.outcome) {
        Ended::TimedOut { .. } => Ended::TimedOut { of: report.timed_out.map(|limit| limit.as_str()) },
        outcome => outcome,
    };
    Document {
        outcome: Some(outcome),
        usage: Some(used(&report.usage)),
        identity: Some(who(&report.identity)),
        enforced: report.enforced.iter().map(line).collect(),
        leftovers: report.leftovers.iter().map(leftover).collect(),
        warnings: report.warnings.clone(),
        changes_truncated: report.changes_truncated,
        network: report.network.as_ref().map(reached),
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
        changes_truncated: false,
        network: None,
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

#[derive(Serialize)]
struct Reached<'a> {
    connections: Vec<OneConnection<'a>>,
    published: Vec<Port>,
    more: u64,
    lost: bool,
}

#[derive(Serialize)]
struct OneConnection<'a> {
    host: Option<&'a str>,
    address: Option<String>,
    port: u16,
    protocol: &'a str,
    verdict: &'a str,
    rule: Option<&'a str>,
    why: Option<&'a str>,
    count: u64,
    bytes_sent: u64,
    bytes_received: u64,
}

fn reached(report: &NetworkReport) -> Reached<'_> {
    let connections = report.connections.iter().map(one_connection).collect();
    let published = report.published.iter().map(port).collect();
    Reached { connections, published, more: report.more, lost: report.lost }
}

#[derive(Serialize)]
struct Port {
    address: String,
    host_port: u16,
    cell_port: u16,
    protocol: &'static str,
    connections: u64,
    bytes_sent: u64,
    bytes_received: u64,
}

fn port(of: &Published) -> Port {
    Port {
        address: of.address.to_string(),
        host_port: of.host_port,
        cell_port: of.cell_port,
        protocol: of.protocol,
        connections: of.connections,
        bytes_sent: of.bytes_sent,
        bytes_received: of.bytes_received,
    }
}

fn one_connection(of: &Connection) -> OneConnection<'_> {
    OneConnection {
        host: of.host.as_deref(),
        address: of.address.map(|address| address.to_string()),
        port: of.port,
        protocol: of.protocol,
        verdict: of.verdict.as_str(),
        rule: of.rule.as_deref(),
        why: of.why.as_deref(),
        count: of.count,
        bytes_sent: of.bytes_sent,
        bytes_received: of.bytes_received,
    }
}

fn leftover(leftover: &Leftover) -> Process<'_> {
    Process { pid: leftover.pid, command: &leftover.command }
}

fn changed(change: &Change) -> ChangedFile {
    let kind = format!("{:?}", change.kind).to_lowercase();
    ChangedFile { path: change.path.to_string_lossy().into_owned(), kind }
}

fn who(identity: &IdentityReport) -> Who {
    let &IdentityReport { uid, gid, host_uid, host_gid } = identity;
    Who { uid, gid, host_uid, host_gid }
}

fn ended(outcome: &Outcome) -> Ended<'_> {
    match outcome {
        Outcome::Exited(code) => Ended::Exited { code: *code },
        Outcome::Signaled { signal, core_dumped } => Ended::Signaled { signal: *signal, core_dumped: *core_dumped },
        Outcome::TimedOut => Ended::TimedOut { of: None },
        Outcome::OutOfMemory => Ended::OutOfMemory,
        Outcome::OutputLimit => Ended::OutputLimit,
        Outcome::SyscallDenied { syscall } => Ended::SyscallDenied { syscall },
        Outcome::Killed => Ended::Killed,
    }
}

fn used(usage: &Usage) -> Used {
    Used {
        wall_seconds: usage.wall.as_secs_f64(),
        user_seconds: usage.user.as_ref().map(Duration::as_secs_f64),
        system_seconds: usage.system.as_ref().map(Duration::as_secs_f64),
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
