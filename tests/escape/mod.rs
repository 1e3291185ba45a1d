//! The escape suite: one careless caller, one probe inside, many sandboxes.
//!
//! | room | what it does |
//! |---|---|
//! | `probe/` | the program that runs inside and tries things, one file a class |
//! | `build` | builds the probe, static |
//! | `launchers` | how each sandbox is started: a name and an argument list |
//! | `scene` | the careless caller's files, mounts and other things to be found |
//! | `plants` | sockets, IPC objects, a terminal, a process to signal |
//! | `child` | what the caller's child inherits: descriptors, groups, keys, signals, limits |
//! | `host` | what the host looks like before, while and after the probe runs |
//! | `cell` | a program that makes a sandbox with the library, one of the launchers |
//! | `run` | one run of the probe under one launcher, and its rows |
//! | `judge` | what a run must show, and whether each check was seen to fail |
//! | `table` | the comparison in `results.md` |
//!
//! By hand: `cargo run -p sandcell-tests --bin escape -- run sandcell` (add `--user` when root, to run as an ordinary user).

pub mod build;
pub mod child;
pub mod host;
pub mod judge;
pub mod launchers;
pub mod plants;
pub mod run;
pub mod scene;
pub mod table;

use serde_json::Value;

/// One answer, of the probe or of the host's side.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub id: String,
    pub class: String,
    pub priority: u64,
    /// `held`, `open` or `n/a`.
    pub result: String,
    pub detail: String,
}

impl Row {
    /// Reads a line of the probe; events and other lines are none.
    pub fn parse(line: &str) -> Option<Row> {
        let value: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_string);
        Some(Row {
            id: text("id")?,
            class: text("class")?,
            priority: value.get("priority")?.as_u64()?,
            result: text("result")?,
            detail: text("detail").unwrap_or_default(),
        })
    }

    pub fn to_json(&self) -> String {
        serde_json::json!({
            "id": self.id, "class": self.class, "priority": self.priority, "result": self.result, "detail": self.detail,
        })
        .to_string()
    }

    pub fn is_open(&self) -> bool {
        self.result == "open"
    }

    pub fn is_held(&self) -> bool {
        self.result == "held"
    }
}

/// The table of a check: what it remembers and tries.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: String,
    pub class: String,
    pub priority: u64,
    pub remembers: String,
    pub tries: String,
}
