//! What a run must show, and which checks were seen to fail where nothing guards.

use super::Row;
use super::launchers::Launcher;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// The rows of one launcher, under the current user or, as root, under the ordinary user of the tests.
pub struct Report {
    pub title: String,
    /// The launcher's name.
    pub mode: &'static str,
    /// The caller was root.
    pub roots: bool,
    pub rows: Vec<Row>,
    /// The sandbox was not started, with an error: right where what it was given leads out.
    pub refused: bool,
}

/// Runs the caller's program (`escape`), which spoils its own process.
pub fn gather(escape: &Path, launcher: &Launcher, as_user: bool) -> Result<Report, String> {
    let mut command = Command::new(escape);
    command.env("SANDCELL_ESCAPE_PROBE", super::build::probe()?);
    command.args(["run", "--json"]).args(as_user.then_some("--user")).arg(launcher.name);
    let output = command.output().map_err(|e| format!("{}: {e}", escape.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rows: Vec<Row> = text.lines().filter_map(Row::parse).collect();
    let title = format!("{}{}", launcher.name, if as_user { " by an ordinary user" } else { " by the current user" });
    let end = text.lines().last().unwrap_or_default();
    let refused = launcher.hostile && rows.iter().all(|row| row.id != "ns.user") && end.contains("sandcell: ");
    if !end.contains("\"complete\":true") && !refused {
        return Err(format!("{title} did not come to its end: {end} {}", String::from_utf8_lossy(&output.stderr)));
    }
    let roots = !as_user && super::scene::Caller::current().uid == 0;
    Ok(Report { title, mode: launcher.name, roots, rows, refused })
}

/// A first-priority check that a mode does not hold, and why.
#[derive(Debug, Clone)]
pub struct Exception {
    pub id: String,
    /// The launcher.
    pub mode: String,
    pub who: Who,
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Anyone,
    Root,
    /// Everybody but root.
    Ordinary,
    /// An ordinary user who runs the suite, so that the layers are that user's own.
    Owner,
}

impl Who {
    pub fn parse(word: &str) -> Option<Who> {
        Some(match word {
            "anyone" => Who::Anyone,
            "root" => Who::Root,
            "an ordinary user" => Who::Ordinary,
            "the layers' owner" => Who::Owner,
            _ => return None,
        })
    }
}

impl Exception {
    /// None where the suite's runs have no such caller.
    pub fn for_caller(self, suite_is_roots: bool) -> Option<Exception> {
        let absent = if suite_is_roots { Who::Owner } else { Who::Root };
        (self.who != absent).then_some(self)
    }

    fn is_about(&self, report: &Report) -> bool {
        self.mode == report.mode
            && match self.who {
                Who::Anyone => true,
                Who::Root => report.roots,
                Who::Ordinary | Who::Owner => !report.roots,
            }
    }
}

/// What is wrong with a run. `no_control` are checks that cannot be tried on this machine at all.
pub fn failures(report: &Report, exceptions: &[Exception], no_control: &BTreeSet<String>) -> Vec<String> {
    let excused = |row: &Row| exceptions.iter().any(|e| e.id == row.id && e.is_about(report));
    report
        .rows
        .iter()
        .filter(|row| row.priority == 1 && !row.is_held() && !excused(row))
        // What could not be prepared is no failure; a check that died or was never answered is.
        .filter(|row| row.is_open() || !(row.detail.starts_with("the caller") || no_control.contains(&row.id)))
        .map(|row| format!("{}: {} is {}: {}", report.title, row.id, row.result, row.detail))
        .collect()
}

/// Open or held as the host's own mounts are, where a mode keeps those: systemd shares them, other hosts do not.
const AS_THE_HOST_IS: [&str; 1] = ["fs.no_shared_mounts"];

/// Exceptions that no run needs, though the check was open for the same caller where nothing guards.
pub fn needless(reports: &[Report], exceptions: &[Exception], controls: &[Report]) -> Vec<String> {
    let open = |report: &Report, id: &str| report.rows.iter().any(|row| row.id == id && row.is_open());
    let could = |report: &&Report, id: &str| controls.iter().any(|c| c.roots == report.roots && open(c, id));
    let mut found = vec![];
    for exception in exceptions.iter().filter(|exception| !AS_THE_HOST_IS.contains(&exception.id.as_str())) {
        let mut runs = reports.iter().filter(|r| exception.is_about(r)).filter(|r| could(r, &exception.id)).peekable();
        if runs.peek().is_some() && !runs.any(|report| open(report, &exception.id)) {
            found.push(format!("{} of {} ({:?})", exception.id, exception.mode, exception.who));
        }
    }
    found
}

/// For each check the best answer of all controls: open in one of them, or why not.
pub fn controls(reports: &[Report]) -> BTreeMap<String, Result<String, String>> {
    let mut best: BTreeMap<String, Result<String, String>> = BTreeMap::new();
    for report in reports {
        for row in &report.rows {
            let answer = match row.result.as_str() {
                "open" => Ok(report.title.clone()),
                "n/a" => Err(format!("unavailable: {}", row.detail)),
                _ => Err(format!("held: {}", row.detail)),
            };
            match best.get(&row.id) {
                Some(Ok(_)) => {}
                Some(Err(known)) if known.starts_with("unavailable") && answer.is_err() => {}
                _ => drop(best.insert(row.id.clone(), answer)),
            }
        }
    }
    best
}

pub fn held(report: &Report) -> usize {
    report.rows.iter().filter(|row| row.is_held()).count()
}
