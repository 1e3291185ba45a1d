//! What a cell has left when it ended: lines of `name number`, and copies of what its groups had counted.

use std::collections::HashMap;
use std::io::{self, Read};
use std::time::Duration;

use nix::fcntl::OFlag;

use super::note::Note;
use super::place::Place;
use crate::api::child::identity_report;
use crate::cgroup;
use crate::error::{Failure, Result};
use crate::policy::{Leftovers, Seccomp};
use crate::report::{Outcome, Report, TimeLimit, Usage};
use crate::supervise::ended;
use crate::wire::keeper::{BY_INIT, BY_KILL, BY_STOP, OUTCOME};
use crate::wire::{self, Reply, reply};

/// No outcome is longer.
const MOST: u64 = 1 << 20;

/// The outcome, read.
#[derive(Debug)]
pub(crate) struct Left {
    numbers: HashMap<String, u64>,
    figures: HashMap<String, String>,
}

/// Reads it; `None` where there is none.
pub(crate) fn read(place: &Place) -> io::Result<Option<Left>> {
    let name = OUTCOME.to_str().unwrap_or_default();
    let file = match place.open(name, OFlag::O_RDONLY) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    parse(&bytes).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

pub(crate) fn parse(mut bytes: &[u8]) -> Option<Left> {
    let mut left = Left { numbers: HashMap::new(), figures: HashMap::new() };
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let line = std::str::from_utf8(&bytes[..end]).ok()?;
        bytes = &bytes[end + 1..];
        let mut words = line.splitn(3, ' ');
        match (words.next()?, words.next()?.parse::<u64>().ok()?, words.next()) {
            ("figure", length, Some(name)) => {
                let text = bytes.get(..usize::try_from(length).ok()?)?;
                left.figures.insert(name.to_owned(), String::from_utf8_lossy(text).into_owned());
                bytes = &bytes[text.len()..];
            }
            (name, number, None) => {
                left.numbers.insert(name.to_owned(), number);
            }
            _ => return None,
        }
    }
    (left.number("version") == 1).then_some(left)
}

impl Left {
    fn number(&self, name: &str) -> u64 {
        self.numbers.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.number("restarts")
    }

    fn reply(&self) -> Reply {
        let word = |name| self.number(name) as u32;
        Reply {
            kind: word("kind"),
            value: word("value"),
            detail: word("detail"),
            errno: self.number("errno") as i32,
            wall_ns: self.number("wall_ns"),
            user_us: self.number("user_us"),
            system_us: self.number("system_us"),
            max_rss_kb: self.number("max_rss_kb"),
            output: self.number("output"),
            call: self.number("call"),
        }
    }

    /// What came of the cell, as of any run.
    pub(crate) fn report(&self, note: &Note) -> Result<Report> {
        let reply = self.reply();
        let lived = Duration::from_nanos(self.number("lived_ns"));
        let counted = cgroup::figures(&note.groups, &|name| self.figures.get(name).cloned());
        let mut usage = match reply.kind {
            reply::ENDED => ended::usage(&reply, false),
            _ => Usage::default(),
        };
        counted.fill(&mut usage);
        usage.wall = lived;
        let out_of_memory = usage.oom_kills.is_some_and(|kills| kills > 0);
        let filtered = note.policy.seccomp != Seccomp::Off;
        let mut warnings = Vec::new();
        if self.number("log_lost") > 0 {
            warnings.push(format!("{} bytes of the log could not be written and were lost", self.number("log_lost")));
        }
        let outcome = match (reply.kind, self.number("reason")) {
            (reply::ENDED, _) => match ended::outcome(&reply, filtered) {
                Outcome::Signaled { .. } if out_of_memory => Outcome::OutOfMemory,
                other => other,
            },
            (reply::NOT_STARTED, _) => {
                let program = note.words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
                return Err(ended::not_started(&program, &note.plan.home, &reply));
            }
            (_, BY_STOP | BY_KILL) => Outcome::Killed,
            (_, BY_INIT) if out_of_memory => Outcome::OutOfMemory,
            _ => {
                return Err(Failure::new("wait", "supervisor", "ended without a word: something outside killed it")
                    .hint("Look for an out-of-memory kill in the kernel's log.")
                    .io());
            }
        };
        let timed_out = (outcome == Outcome::TimedOut).then_some(match reply.detail & wire::ENDED_CPU_TIME {
            0 => TimeLimit::Wall,
            _ => TimeLimit::Cpu,
        });
        Ok(Report {
            outcome,
            timed_out,
            usage,
            identity: identity_report(&note.identity),
            enforced: note.enforced.clone(),
            leftovers: Vec::new(),
            leftovers_fail: note.policy.leftovers == Leftovers::Fail,
            changes: None,
            changes_truncated: false,
            learned: None,
            network: None,
            warnings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_read_as_it_was_written_and_half_of_one_is_none() {
        let text = b"version 1\nreason 2\nfigure 9 0/cpu.stat\nuser_u 1\nlived_ns 5\nfigure 0 0/empty\n";
        let left = parse(text).unwrap();
        assert_eq!((left.number("reason"), left.number("lived_ns"), left.number("absent")), (2, 5, 0));
        assert_eq!(left.figures["0/cpu.stat"], "user_u 1\n");
        assert!(parse(&text[..30]).is_none() && parse(b"version 2\n").is_none() && parse(b"\n").is_none());
        assert!(parse(b"version 1\nfigure 99999999999 x\nab").is_none());
    }
}
