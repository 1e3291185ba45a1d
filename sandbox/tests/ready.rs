//! What a cell makes ahead for its next command: nothing of what programs do to it meanwhile reaches that command.

mod common;

use std::io::{BufRead, BufReader, Write};

use sandcell::{Cell, Child, Outcome, Sandbox, Seccomp, Stdio};

/// A shell in a cell that runs what it is told, beside what is ready for the next command.
struct Neighbour {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Neighbour {
    fn new(cell: &Cell) -> Neighbour {
        let mut command = cell.command("sh");
        let mut child = command.stdin(Stdio::Piped).stdout(Stdio::Piped).spawn().expect("a shell");
        let answers = BufReader::new(child.stdout.take().expect("its output"));
        Neighbour { child, answers }
    }

    /// The last line that a piece of shell writes.
    fn tell(&mut self, script: &str) -> String {
        let stdin = self.child.stdin.as_mut().expect("its input");
        writeln!(stdin, "{}", script.replace('\n', " ")).expect("a shell that listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }

    /// The processes of the supervisor that are there, but for the first one and our own keeper: keeper and process.
    fn ready(&mut self) -> Vec<u32> {
        let found = self.tell(
            "found=; for dir in /proc/[0-9]*; do pid=${dir#/proc/};
             if [ \"$(cat $dir/comm 2>/dev/null)\" = sandcell-init ] && [ $pid != 1 ] && [ $pid != $PPID ];
             then found=\"$found $pid\"; fi; done; echo $found",
        );
        let mut found: Vec<u32> = found.split_whitespace().map(|pid| pid.parse().expect("a number")).collect();
        found.sort_unstable();
        found
    }

    /// The same, as soon as there are both.
    fn both(&mut self) -> (u32, u32) {
        let mut found = Vec::new();
        common::patiently("a keeper and its process", || {
            found = self.ready();
            found.len() == 2
        });
        (found[0], found[1])
    }
}

fn cell() -> Cell {
    Sandbox::builder().build().expect("a sandbox").start().expect("a cell")
}

fn output(cell: &Cell, script: &str) -> (Outcome, String) {
    let output = cell.command("sh").args(["-c", script]).output().expect("a run");
    (output.report.outcome, String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

#[test]
fn what_is_ready_becomes_the_next_command() {
    let cell = cell();
    let mut neighbour = Neighbour::new(&cell);
    assert!(cell.command("true").status().expect("a run").success());
    let (keeper, next) = neighbour.both();
    assert_eq!(output(&cell, "echo $$ $PPID").1, format!("{next} {keeper}"));
    // And there is another one then.
    assert_ne!(neighbour.both().1, next);
}

#[test]
fn a_signal_to_what_is_ready_does_not_reach_the_next_command() {
    let cell = cell();
    let mut neighbour = Neighbour::new(&cell);
    assert!(cell.command("true").status().expect("a run").success());
    let (_, next) = neighbour.both();
    neighbour.tell(&format!("kill -TERM {next}; kill -USR1 {next}; kill -RTMIN {next}; echo done"));
    let pending = neighbour.tell(&format!("grep ShdPnd /proc/{next}/status"));
    assert!(!pending.ends_with("0000000000000000"), "the signals wait there: {pending}");
    let (outcome, text) = output(&cell, "echo $$; grep -E 'S.*Pnd|SigBlk|SigIgn' /proc/self/status");
    assert_eq!(outcome, Outcome::Exited(0));
    assert!(text.starts_with(&format!("{next}\n")), "{text}");
    assert!(text.lines().skip(1).all(|line| line.ends_with("0000000000000000")), "{text}");
}

#[test]
fn limits_set_on_what_is_ready_do_not_reach_the_next_command() {
    // The default filter refuses limits of others.
    let sandbox = Sandbox::builder().seccomp(Seccomp::Off).build().expect("a sandbox");
    let cell = sandbox.start().expect("a cell");
    let mut neighbour = Neighbour::new(&cell);
    assert!(cell.command("true").status().expect("a run").success());
    let before = output(&cell, "ulimit -Sn; ulimit -Hn");
    let (_, next) = neighbour.both();
    let limit = |next: u32, hard: &str| {
        format!(
            "python3 -c \"import resource as r; h = r.prlimit({next}, r.RLIMIT_NOFILE)[1]; \
         r.prlimit({next}, r.RLIMIT_NOFILE, (7, {hard})); print(r.prlimit({next}, r.RLIMIT_NOFILE)[0])\""
        )
    };
    assert_eq!(neighbour.tell(&limit(next, "h")), "7");
    assert_eq!(output(&cell, "ulimit -Sn; ulimit -Hn"), before);
    // A hard limit cannot be raised again: then another process is the next command.
    let (_, next) = neighbour.both();
    assert_eq!(neighbour.tell(&limit(next, "7")), "7");
    assert_eq!(output(&cell, "ulimit -Sn; ulimit -Hn"), before);
    assert_ne!(output(&cell, "echo $$").1, next.to_string());
}

#[test]
fn the_next_command_runs_whatever_is_done_to_what_is_ready() {
    let cell = cell();
    let mut neighbour = Neighbour::new(&cell);
    for signal in ["KILL", "STOP"] {
        for which in 0..2 {
            assert!(cell.command("true").status().expect("a run").success());
            let (keeper, next) = neighbour.both();
            let pid = [keeper, next][which];
            neighbour.tell(&format!("kill -{signal} {pid}; echo done"));
            if signal == "KILL" {
                neighbour.tell(&format!("while [ -d /proc/{pid} ]; do :; done; echo gone"));
            }
            if (signal, which) == ("STOP", 0) {
                // A keeper that is stopped tells nothing: its command ends when somebody lets it go on.
                neighbour.tell(&format!("(sleep 0.3; kill -CONT {pid}) >/dev/null & echo done"));
            }
            assert_eq!(output(&cell, "echo here"), (Outcome::Exited(0), "here".to_owned()), "{signal} {which}");
        }
    }
    assert_eq!(neighbour.tell("echo alive"), "alive");
}

#[test]
fn what_a_command_leaves_behind_stays_in_its_cell() {
    let cell = cell();
    let (outcome, pid) = output(&cell, "sleep 1000 >/dev/null 2>&1 & echo $!");
    assert_eq!(outcome, Outcome::Exited(0));
    for _ in 0..3 {
        assert_eq!(output(&cell, &format!("kill -0 {pid} && echo alive")).1, "alive");
    }
    // It is a child of the supervisor's by then, and not of a keeper that is there for others.
    common::patiently("the supervisor has it", || output(&cell, &format!("cut -d' ' -f4 /proc/{pid}/stat")).1 == "1");
}

#[test]
fn a_limit_of_processes_counts_none_that_is_ready() {
    let sandbox = match Sandbox::builder().pids(4).build().expect("a sandbox").start() {
        Ok(cell) => cell,
        Err(error) => {
            println!("SKIPPED: no limit of processes here: {error}");
            return;
        }
    };
    let mut neighbour = Neighbour::new(&sandbox);
    assert!(sandbox.command("true").status().expect("a run").success());
    assert!(sandbox.command("true").status().expect("a run").success());
    assert_eq!(neighbour.ready(), Vec::<u32>::new());
}

#[test]
fn many_commands_at_once_leave_one_that_is_ready() {
    let cell = cell();
    let mut neighbour = Neighbour::new(&cell);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let cell = &cell;
            scope.spawn(move || {
                for round in 0..25 {
                    let text = format!("{thread} {round}");
                    assert_eq!(output(cell, &format!("echo {text}")), (Outcome::Exited(0), text));
                }
            });
        }
    });
    assert!(cell.command("true").status().expect("a run").success());
    neighbour.both();
}

#[test]
fn a_program_that_cannot_be_executed_is_an_error_of_the_next_command_alone() {
    let cell = cell();
    for _ in 0..3 {
        assert!(cell.command("true").status().expect("a run").success());
        let error = cell.command("/nowhere").status().expect_err("there is no such program");
        assert_eq!(error.errno(), Some(libc::ENOENT), "{error}");
        let error = cell.command("true").current_dir("/nowhere").status().expect_err("there is no such directory");
        assert_eq!((error.stage(), error.errno()), ("chdir", Some(libc::ENOENT)), "{error}");
    }
    assert!(cell.command("true").status().expect("a run").success());
}
