//! A terminal of the sandbox's own: what the program finds, what its caller can do with it, and how it ends.

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::{sandbox, shell, text};
use sandcell::{Command, Outcome, Sandbox, Stdio, Terminal, TerminalSize};

const SIZE: (u16, u16) = (33, 99);

fn terminal() -> Stdio {
    Stdio::terminal(TerminalSize::new(SIZE.0, SIZE.1))
}

#[test]
fn the_program_has_a_controlling_terminal_in_the_sandboxs_own_devpts() {
    let script =
        "tty; stty size; ps -o tty= -p $$; test -c /dev/tty && echo ctty > /dev/tty; echo err >&2; ls -1 /dev/pts";
    let output = shell(&sandbox(), script).stdin(terminal()).output().unwrap();
    let shown = text(&output.stdout).replace('\r', "");
    assert_eq!(shown, "/dev/pts/0\n33 99\npts/0\nctty\nerr\n0\nptmx", "{:?}", output.outcome);
    assert!(output.stderr.is_empty());
}

#[test]
fn output_that_is_still_in_the_terminal_is_not_lost_when_the_program_ends() {
    for _ in 0..20 {
        let mut child = shell(&sandbox(), "seq 20000").stdin(terminal()).spawn().unwrap();
        let mut master = child.terminal.take().unwrap();
        let mut shown = String::new();
        // The reader is late.
        std::thread::sleep(Duration::from_millis(5));
        master.read_to_string(&mut shown).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(shown.lines().count(), 20000);
        assert!(shown.ends_with("20000\r\n"));
    }
}

/// Reads until the text has come; all that came.
fn until(terminal: &Terminal, text: &str) -> String {
    let end = Instant::now() + Duration::from_secs(60);
    let mut shown = String::new();
    let mut buffer = [0; 4096];
    while !shown.contains(text) {
        assert!(Instant::now() < end, "{text:?} does not come: {shown:?}");
        match terminal.read_timeout(&mut buffer, Duration::from_secs(1)).unwrap() {
            Some(0) => panic!("{text:?} did not come: {shown:?}"),
            count => shown += &String::from_utf8_lossy(&buffer[..count.unwrap_or(0)]),
        }
    }
    shown
}

#[test]
fn programs_of_a_cell_have_terminals_of_their_own() {
    let cell = sandbox().start().unwrap();
    let start = || {
        let mut command = cell.command("/bin/sh");
        let mut child =
            command.args(["-c", "tty; read line; echo got $line; stty size"]).stdin(terminal()).spawn().unwrap();
        let terminal = child.terminal.take().unwrap();
        (child, terminal)
    };
    let ((mut one, mut first), (mut other, mut second)) = (start(), start());
    until(&first, "/dev/pts/0");
    until(&second, "/dev/pts/1");
    first.resize(TerminalSize::new(5, 6)).unwrap();
    assert_eq!((first.size().unwrap(), second.size().unwrap().rows), (TerminalSize::new(5, 6), SIZE.0));
    first.write_all(b"first\n").unwrap();
    second.write_all(b"second\n").unwrap();
    assert!(until(&first, "5 6").contains("got first"));
    assert!(until(&second, "33 99").contains("got second"));
    assert!(one.wait().unwrap().success() && other.wait().unwrap().success());
    // The cell is as before: without a terminal there is none.
    let mut command = cell.command("/bin/sh");
    let output = command.args(["-c", "tty; (: < /dev/tty) 2>&1 | grep -c 'No such device'"]).output().unwrap();
    assert_eq!(text(&output.stdout), "not a tty\n1");
}

#[test]
fn what_a_command_leaves_in_a_cell_does_not_cost_its_output() {
    let cell = sandbox().start().unwrap();
    for _ in 0..10 {
        let mut command = cell.command("/bin/sh");
        let mut child = command.args(["-c", "sleep 1000 & seq 9000"]).stdin(terminal()).spawn().unwrap();
        let mut terminal = child.terminal.take().unwrap();
        std::thread::sleep(Duration::from_millis(5));
        let shown = until(&terminal, "\r\n9000\r\n");
        assert_eq!(shown.lines().count(), 9000);
        assert!(child.wait().unwrap().success());
        // Who still has it can read what is typed; nobody is told to end.
        terminal.write_all(b"x").unwrap();
    }
}

#[test]
fn ctrl_c_and_a_hang_up_are_the_programs_affair() {
    let begin = |script: &str| {
        let mut child = shell(&sandbox(), script).stdin(terminal()).spawn().unwrap();
        let terminal = child.terminal.take().unwrap();
        until(&terminal, "ready");
        (child, terminal)
    };
    let (mut child, mut master) = begin("trap 'echo trapped; exit 5' INT; echo ready; while :; do sleep 0.01; done");
    master.write_all(b"\x03").unwrap();
    until(&master, "trapped");
    assert_eq!(child.wait().unwrap().outcome, Outcome::Exited(5));
    let (mut child, master) = begin("echo ready; exec sleep 1000");
    drop(master);
    assert!(matches!(child.wait().unwrap().outcome, Outcome::Signaled { signal: 1, .. }));
    // Where nobody could let it go on, Ctrl-Z stops nothing for good.
    let (mut child, mut master) = begin("echo ready; read line; echo got $line");
    master.write_all(b"\x1azz\n").unwrap();
    until(&master, "got zz");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_program_that_closes_its_streams_is_not_hung_up() {
    let script = "echo shown; exec <&- >&- 2>&-; sleep 0.3; exit 5";
    let output = shell(&sandbox(), script).stdin(terminal()).output().unwrap();
    assert_eq!((output.outcome.clone(), text(&output.stdout)), (Outcome::Exited(5), "shown\r".to_owned()));
}

#[test]
fn a_stop_is_told_where_that_was_asked_for() {
    let mut command = shell(&sandbox(), "echo ready; read line; echo got $line");
    let mut child = command.stdin(terminal()).report_stops(true).spawn().unwrap();
    let mut master = child.terminal.take().unwrap();
    until(&master, "ready");
    assert_eq!(child.stopped(), None);
    master.write_all(b"\x1a").unwrap();
    common::patiently("the stop", || child.try_wait().unwrap().is_none() && child.stopped() == Some(20));
    assert_eq!(child.stopped(), None);
    child.signal_group(18).unwrap();
    master.write_all(b"line\n").unwrap();
    until(&master, "got line");
    assert!(child.wait().unwrap().success());
}

#[test]
fn limits_of_time_and_an_end_by_the_caller_hold() {
    let script = "trap '' TERM HUP INT; echo ready; sleep 1000";
    let sandbox =
        Sandbox::builder().timeout(Duration::from_millis(300)).grace(Duration::from_millis(50)).build().unwrap();
    let output = shell(&sandbox, script).stdin(terminal()).output().unwrap();
    assert_eq!((output.outcome.clone(), text(&output.stdout)), (Outcome::TimedOut, "ready\r".to_owned()));
    let mut child = shell(&common::sandbox(), script).stdin(terminal()).spawn().unwrap();
    until(child.terminal.as_ref().unwrap(), "ready");
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().outcome, Outcome::Killed);
    // A program that is stopped ends, too.
    let mut child = shell(&sandbox, "kill -STOP $$").stdin(terminal()).spawn().unwrap();
    assert_eq!(child.wait().unwrap().outcome, Outcome::TimedOut);
}

#[test]
fn nobody_waits_longer_than_the_caller_wants() {
    let mut child = shell(&sandbox(), "stty raw -echo; echo ready; exec sleep 1000").stdin(terminal()).spawn().unwrap();
    let master = child.terminal.take().unwrap();
    until(&master, "ready");
    let since = Instant::now();
    assert_eq!(master.read_timeout(&mut [0; 64], Duration::from_millis(50)).unwrap(), None);
    let written = master.write_timeout(&vec![b'x'; 1 << 20], Duration::from_millis(50)).unwrap();
    assert!(written < 1 << 20 && since.elapsed() < Duration::from_secs(30), "{written}");
    child.kill().unwrap();
    child.wait().unwrap();
    // It is full, and nobody will read it any more.
    let (timed, untimed) = common::within_a_minute("a write", move || {
        (master.write_timeout(b"x", Duration::from_millis(50)), (&master).write(b"x"))
    });
    assert_eq!((timed.unwrap_err().raw_os_error(), untimed.unwrap_err().raw_os_error()), (Some(5), Some(5)));
}

#[test]
fn a_terminal_that_is_full_and_that_nobody_has_keeps_nobody_waiting() {
    let script = "stty raw -echo; echo ready; sleep 0.5; exec <&- >&- 2>&-; while :; do sleep 0.05; done";
    let mut child = shell(&sandbox(), script).stdin(terminal()).spawn().unwrap();
    let master = child.terminal.take().unwrap();
    until(&master, "ready");
    let typing = std::thread::spawn(move || {
        let begun = Instant::now();
        // More than every buffer takes.
        let bytes = vec![b'x'; 1 << 20];
        let mut last = Ok(0);
        while begun.elapsed() < Duration::from_secs(1) && last.is_ok() {
            last = master.write_timeout(&bytes, Duration::from_millis(100));
        }
        (last, (&master).write(&bytes).map_err(|error| error.raw_os_error()))
    });
    common::patiently("an end of the typing", || typing.is_finished());
    let (last, forever) = typing.join().unwrap();
    assert_eq!(last.unwrap_err().raw_os_error(), Some(nix::libc::EIO));
    assert_eq!(forever, Err(Some(nix::libc::EIO)), "without a time, too");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn streams_can_be_set_one_by_one() {
    let script = "for fd in 0 1 2; do test -t $fd && echo $fd >> /tmp/ttys; done; cat /tmp/ttys; echo err >&2";
    let run = |prepare: fn(&mut Command) -> &mut Command| {
        let output = prepare(&mut shell(&sandbox(), script)).output().unwrap();
        (text(&output.stdout).replace('\r', ""), text(&output.stderr).replace('\r', ""))
    };
    let told = |out: &str, err: &str| (out.to_owned(), err.to_owned());
    assert_eq!(run(|c| c.stdout(terminal())), told("0\n1\n2\nerr", ""));
    assert_eq!(run(|c| c.stdin(terminal()).stderr(Stdio::Piped)), told("0\n1", "err"));
    assert_eq!(run(|c| c.stderr(terminal()).stdout(Stdio::Piped)), told("0\n2", "err"));
    assert_eq!(run(|c| c.stdout(terminal()).input("text")), told("1\n2\nerr", ""));
    let mut command = shell(&sandbox(), script);
    let error = command.stdin(terminal()).stdout(Stdio::terminal(TerminalSize::new(1, 1))).output().unwrap_err();
    assert_eq!(error.kind(), "config");
    let error = shell(&sandbox(), script).stdin(terminal()).count_output(true).output().unwrap_err();
    assert_eq!((error.kind(), error.subject()), ("config", "count_output"));
}

#[test]
fn processes_are_limited_for_the_program_and_not_for_what_serves_it() {
    let script = "exec 2>&1; for n in 1 2 3; do sleep 1000 & done; echo begun";
    let counted = |pids: u64| {
        let sandbox = Sandbox::builder().pids(pids).best_effort("pids").build().unwrap();
        let mut outputs = [false, true].map(|at_terminal| {
            let mut command = shell(&sandbox, script);
            if at_terminal {
                command.stdin(terminal());
            }
            text(&command.output().unwrap().stdout).replace('\r', "")
        });
        outputs.sort();
        outputs
    };
    // As many with a terminal as without, wherever the limit comes from.
    for pids in [4, 5, 6, 7] {
        let [one, other] = counted(pids);
        assert_eq!(one, other, "{pids}");
    }
}
