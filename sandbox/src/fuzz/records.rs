//! What lies beside a named cell's socket, what its keeper answers, and what a relay has counted.

use crate::named::{log, note, outcome};
use crate::report::network;

const LOG: &str = "2026-11-30T01:14:44.000000001Z stdout F text";
const OUTCOME: &str = "version 1\nkind 2\nstarted 17\nfigure 5 cpu.stat\nabcd\n";

fn log_line(bytes: &[u8]) -> bool {
    let Some(line) = log::parse(bytes, 7) else { return false };
    assert!(line.next == 8 + bytes.len() as u64 && bytes.ends_with(&line.text));
    true
}

fn left(bytes: &[u8]) -> bool {
    outcome::parse(bytes).is_some()
}

/// What does not stand in them cannot come out of them.
fn connections(bytes: &[u8]) {
    let report = network::read(bytes, &["allow-host a.org".to_owned()], Vec::new(), false);
    let room = bytes.len() / size_of::<sandcell_protocol::network::Entry>();
    assert!(report.connections.len() <= room);
    for host in report.connections.iter().filter_map(|connection| connection.host.as_deref()) {
        assert!(host.len() <= bytes.len() && !host.contains(char::is_control), "{host:?}");
    }
}

#[cfg(fuzzing)]
mod targets {
    use super::*;
    use crate::fuzz::Random;

    fn changed(text: &str, bytes: &[u8]) -> Vec<u8> {
        let mut changed = text.as_bytes().to_vec();
        Random::Bytes(bytes.to_vec().into_iter()).mutate(&mut changed);
        changed
    }

    pub fn cell_log(bytes: &[u8]) {
        log_line(bytes);
        log_line(&changed(LOG, bytes));
    }

    pub fn cell_note(bytes: &[u8]) {
        let _ = note::read(bytes);
    }

    pub fn cell_outcome(bytes: &[u8]) {
        left(bytes);
        left(&changed(OUTCOME, bytes));
    }

    pub fn relay(bytes: &[u8]) {
        connections(bytes);
    }
}

#[cfg(fuzzing)]
pub use targets::{cell_log, cell_note, cell_outcome, relay};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::rounds;

    #[test]
    fn what_lies_beside_a_cell_with_changes_is_read_or_refused() {
        assert!(log_line(LOG.as_bytes()) && left(OUTCOME.as_bytes()), "the control");
        let (count, mut random) = rounds(2000);
        let mut refused = [0; 2];
        for _ in 0..count {
            let (mut line, mut outcome) = (LOG.as_bytes().to_vec(), OUTCOME.as_bytes().to_vec());
            random.mutate(&mut line);
            random.mutate(&mut outcome);
            let _ = note::read(&outcome);
            connections(&line);
            refused[0] += usize::from(!log_line(&line));
            refused[1] += usize::from(!left(&outcome));
        }
        assert!(refused.iter().all(|refused| *refused > count / 10), "{refused:?} of {count}");
    }
}
