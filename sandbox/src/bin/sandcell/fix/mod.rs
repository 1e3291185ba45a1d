//! `sandcell doctor --fix`: what root can do so that sandboxes work here, shown, asked for, done, and noted down so that
//! `--unfix` takes it back to the last byte. What others wrote is never changed.

mod changes;
mod files;
mod plan;
mod state;

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use changes::Change;
use nix::sys::signal::{SigSet, Signal};
use state::State;

/// A mistake or a failure, in words.
pub type Result<T> = std::result::Result<T, String>;

/// What is said on the command line.
pub struct Fix<'a> {
    pub undo: bool,
    pub dry_run: bool,
    pub yes: bool,
    pub user: Option<&'a str>,
    /// Another root than /, for tests.
    pub root: Option<&'a Path>,
    /// The installed program, seen from that root; else the one that runs.
    pub program: Option<&'a Path>,
}

/// Where the changes are made.
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// An absolute path, beneath the root.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Whether programs of this host are those that run here.
    pub fn is_real(&self) -> bool {
        self.root == Path::new("/")
    }
}

pub fn run(what: &Fix) -> ExitCode {
    match carried_out(what) {
        Ok(status) => status,
        Err(words) => {
            complain!("sandcell: doctor: {words}");
            crate::FAILED.into()
        }
    }
}

fn carried_out(what: &Fix) -> Result<ExitCode> {
    let host = Host { root: what.root.unwrap_or(Path::new("/")).to_owned() };
    if host.is_real() && !nix::unistd::geteuid().is_root() && !what.dry_run {
        return Err("changes to the host are root's to make: sudo sandcell doctor --fix, or --dry-run".to_owned());
    }
    let _lock = if what.dry_run { None } else { Some(files::lock(&host.path("/etc"))?) };
    let mut state = State::read(&host)?;
    if what.undo {
        return undo(what, &host, state);
    }
    if state.is_half_done() {
        println!("A former --fix was interrupted: what it began is taken back first.");
        if !what.dry_run {
            take_back(&host, &mut state, true)?;
        }
    }
    let plan = plan::of(&host, what)?;
    for note in &plan.notes {
        println!("note: {note}");
    }
    let status = if plan.notes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if plan.changes.is_empty() {
        println!("Nothing to do.");
        return Ok(status);
    }
    if !agreed(what, plan.changes.iter().filter_map(Change::in_words)) {
        return Ok(if what.dry_run { status } else { ExitCode::FAILURE });
    }
    // What is not killed ends only between two states.
    let held_back = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT]);
    let _ = held_back.thread_block();
    let applied = apply(&host, &mut state, plan.changes);
    let _ = held_back.thread_unblock();
    applied?;
    println!("Done. `sandcell doctor --unfix` takes it back.");
    Ok(status)
}

/// Shows it, and asks where nobody has said yes beforehand.
fn agreed(what: &Fix, words: impl Iterator<Item = String>) -> bool {
    for line in words {
        println!("{} {line}", if what.dry_run { "would" } else { "will" });
    }
    if what.dry_run || what.yes {
        return what.yes && !what.dry_run;
    }
    print!("Do it? [y/N] ");
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    let yes = ["y", "yes"].contains(&answer.trim().to_lowercase().as_str());
    if !yes {
        println!("Nothing was changed.");
    }
    yes
}

/// All of them or none. What is about to be done is noted before: whoever is killed here leaves a note to go by.
fn apply(host: &Host, state: &mut State, changes: Vec<Change>) -> Result<()> {
    state.begin(host, changes)?;
    let done = state.unfinished().iter().try_for_each(|change| change.apply(host));
    match done {
        Ok(()) => state.finish(host),
        Err(words) => {
            take_back(host, state, true)?;
            Err(format!("{words}; what was done so far has been taken back"))
        }
    }
}

/// Takes back everything, or only what was not finished.
fn take_back(host: &Host, state: &mut State, only_unfinished: bool) -> Result<()> {
    for change in state.to_take_back(only_unfinished).iter().rev() {
        for left in change.take_back(host)? {
            println!("note: {left}");
        }
    }
    state.forget(host, only_unfinished)
}

fn undo(what: &Fix, host: &Host, mut state: State) -> Result<ExitCode> {
    let changes = state.to_take_back(false);
    if changes.is_empty() {
        // Whoever was killed while writing the first note has changed nothing else.
        if !what.dry_run {
            state.forget(host, false)?;
        }
        println!("Nothing to take back.");
        return Ok(ExitCode::SUCCESS);
    }
    if !agreed(what, changes.iter().rev().filter_map(Change::undone_in_words)) {
        return Ok(if what.dry_run { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    take_back(host, &mut state, false)?;
    println!("Done.");
    Ok(ExitCode::SUCCESS)
}
