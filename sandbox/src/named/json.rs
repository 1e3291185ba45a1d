//! What can be told of named cells as JSON: the same keys in every language.

use std::time::SystemTime;

use serde::Serialize;

use super::CellInfo;
use crate::report::{Enforced, IdentityReport, Published, Report, Usage};

#[derive(Serialize)]
struct Told<'a> {
    name: &'a str,
    state: &'static str,
    started: f64,
    lived_seconds: f64,
    program: Vec<String>,
    image: Option<&'a str>,
    network: &'a str,
    published: &'a [Published],
    identity: IdentityReport,
    pid: Option<u32>,
    keeper_pid: Option<u32>,
    main_pid: Option<u32>,
    memory_bytes: Option<u64>,
    pids: Option<u64>,
    usage: &'a Usage,
    stdin: bool,
    attached: bool,
    log_dir: Option<String>,
    log_bytes: u64,
    log_errno: Option<i32>,
    restarts: u64,
    schedule: Option<&'a str>,
    next_run: Option<f64>,
    exit_status: Option<i32>,
    report: Option<&'a Report>,
    error: Option<String>,
    options: Vec<[&'a str; 2]>,
    enforced: &'a [Enforced],
}

fn told(info: &CellInfo) -> Told<'_> {
    let since = info.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let report = info.outcome.as_ref().and_then(|outcome| outcome.as_ref().ok());
    Told {
        name: &info.name,
        state: info.state.as_str(),
        started: since.as_secs_f64(),
        lived_seconds: info.lived.as_secs_f64(),
        program: info.words.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        image: info.image.as_deref(),
        network: &info.network,
        published: &info.published,
        identity: info.identity,
        pid: info.pid,
        keeper_pid: info.keeper_pid,
        main_pid: info.main_pid,
        memory_bytes: info.memory_bytes,
        pids: info.pids,
        usage: &info.usage,
        stdin: info.stdin,
        attached: info.attached,
        log_dir: info.log_dir.as_ref().map(|dir| dir.to_string_lossy().into_owned()),
        log_bytes: info.log_bytes,
        log_errno: info.log_errno,
        restarts: info.restarts,
        schedule: info.schedule.as_deref(),
        next_run: info.next_run.map(|at| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()),
        exit_status: report.map(Report::exit_status),
        report,
        error: info.outcome.as_ref().and_then(|outcome| outcome.as_ref().err()).map(ToString::to_string),
        options: info.options.iter().map(|(name, value)| [name.as_str(), value.as_str()]).collect(),
        enforced: &info.enforced,
    }
}

/// A JSON array of what is known of named cells: one object each, all keys always there.
pub fn cells_to_json(cells: &[CellInfo]) -> String {
    let cells: Vec<_> = cells.iter().map(told).collect();
    serde_json::to_string(&cells).expect("strings, numbers and lists can always be written")
}
