//! What a check is, what it can answer, and what the caller tells it about the host.

use std::collections::HashMap;
use std::fs;

/// The answer of one check.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// The sandbox refused or hid it.
    Held(String),
    /// It was possible.
    Open(String),
    /// It could not be tried, and why.
    NotApplicable(String),
}

pub use Verdict::{Held, NotApplicable, Open};

/// One thing that is tried.
pub struct Check {
    pub id: &'static str,
    /// 1: no release without it. 2: hardening.
    pub priority: u8,
    /// The published bug, or the class of bugs, that this check would have found.
    pub remembers: &'static str,
    /// What it tries, in words for the table.
    pub tries: &'static str,
    pub run: fn(&Facts) -> Verdict,
}

pub const fn p1(id: &'static str, remembers: &'static str, tries: &'static str, run: fn(&Facts) -> Verdict) -> Check {
    Check { id, priority: 1, remembers, tries, run }
}

pub const fn p2(id: &'static str, remembers: &'static str, tries: &'static str, run: fn(&Facts) -> Verdict) -> Check {
    Check { id, priority: 2, remembers, tries, run }
}

/// What the caller knows of its own side, as `name=value` lines of a file: the probe compares the inside with it.
pub struct Facts {
    values: HashMap<String, String>,
    /// Descriptors above 2 that were open when the probe began.
    pub descriptors: Vec<i32>,
    /// Who started the probe; checks run in children of it.
    parent: u32,
}

impl Facts {
    pub fn read(path: &str, descriptors: Vec<i32>) -> Result<Facts, String> {
        let text = fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
        let values = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        Ok(Facts { values, descriptors, parent: std::os::unix::process::parent_id() })
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.get(name)?.parse().ok()
    }

    /// Values that hold several paths, one `:` between two.
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.get(name).map(|v| v.split(':').filter(|s| !s.is_empty()).collect()).unwrap_or_default()
    }

    /// The text that must appear nowhere inside unless it leaked.
    pub fn secret(&self) -> &str {
        self.get("secret").unwrap_or("no-secret-was-planted")
    }

    /// A directory name of the host's side that no path inside should show.
    pub fn place(&self) -> &str {
        self.get("place").unwrap_or("no-place-was-named")
    }

    /// The process that set this sandbox up, as seen from inside: PID 1, the probe's parent where there is no PID
    /// namespace, or the caller itself where there is no sandbox.
    pub fn supervisor(&self) -> i32 {
        if self.get("supervisor") == Some("parent") {
            return self.parent as i32;
        }
        self.number("supervisor").unwrap_or(1)
    }

    /// Whether this run is a positive control: what the kernel lacks is then told apart from what is refused.
    pub fn control(&self) -> bool {
        self.get("control") == Some("yes")
    }
}

/// The check needs something that this caller could not prepare.
pub fn not_planted(what: &str) -> Verdict {
    NotApplicable(format!("the caller planted no {what}"))
}
