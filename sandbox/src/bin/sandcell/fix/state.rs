//! What was changed, noted before it is done: `/var/lib/sandcell/doctor.json`.

use serde::{Deserialize, Serialize};

use super::changes::Change;
use super::{Host, Result, files};

const PATH: &str = "/var/lib/sandcell/doctor.json";

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// Directories on the way to the note that were not there.
    made: Vec<String>,
    changes: Vec<Change>,
    /// How many of them are done. Those behind may be, or half, or not.
    done: usize,
}

impl State {
    pub fn read(host: &Host) -> Result<State> {
        let path = host.path(PATH);
        let Some(bytes) = files::read(&path)? else { return Ok(State { version: 1, ..State::default() }) };
        let state: State = serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        match (state.version, state.done <= state.changes.len()) {
            (1, true) => Ok(state),
            _ => Err(format!("{} is of another version of sandcell", path.display())),
        }
    }

    pub fn is_half_done(&self) -> bool {
        self.done < self.changes.len()
    }

    pub fn unfinished(&self) -> Vec<Change> {
        self.changes[self.done..].to_vec()
    }

    pub fn to_take_back(&self, only_unfinished: bool) -> Vec<Change> {
        if only_unfinished { self.unfinished() } else { self.changes.clone() }
    }

    pub fn begin(&mut self, host: &Host, changes: Vec<Change>) -> Result<()> {
        let missing = files::missing_directories(&host.path(PATH));
        self.made.extend(missing.iter().map(|dir| relative(host, dir)));
        missing.iter().try_for_each(|dir| files::make_directory(dir))?;
        self.changes.extend(changes);
        self.write(host)
    }

    pub fn finish(&mut self, host: &Host) -> Result<()> {
        self.done = self.changes.len();
        self.write(host)
    }

    /// What was taken back needs no note.
    pub fn forget(&mut self, host: &Host, only_unfinished: bool) -> Result<()> {
        if !only_unfinished {
            self.done = 0;
        }
        self.changes.truncate(self.done);
        if !self.changes.is_empty() {
            return self.write(host);
        }
        let path = host.path(PATH);
        if files::draft(&path).exists()
            && self.made.is_empty()
            && let Some(dir) = path.parent()
        {
            self.made.push(relative(host, dir));
        }
        files::remove(&path)?;
        for dir in self.made.drain(..).rev() {
            files::remove_directory(&host.path(&dir));
        }
        Ok(())
    }

    fn write(&self, host: &Host) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("strings and lists can always be written");
        files::replace(&host.path(PATH), (text + "\n").as_bytes())
    }
}

/// A path as it is seen from the root.
pub fn relative(host: &Host, path: &std::path::Path) -> String {
    let path = path.strip_prefix(&host.root).unwrap_or(path);
    format!("/{}", path.display())
}
