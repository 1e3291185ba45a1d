//! `sandcell run` at somebody's terminal, without and with one of the sandbox's own: an interactive shell has the same from it as
//! from the program itself.

#![cfg(feature = "cli")]

mod common;
#[path = "common/screen.rs"]
mod screen;

use std::process::{Command, Stdio};

use common::{marker, patiently, processes_with};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use screen::{PROMPT, Screen};

const SANDCELL: &str = env!("CARGO_BIN_EXE_sandcell");
const RUN: &str = "$SANDCELL run --";

/// Waits until a sleep of this length has been executed. Others may have it among their arguments, too.
fn until_runs(marker: &str) {
    let is_sleep = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n");
    patiently("the program", || processes_with(marker).iter().any(is_sleep));
}

#[test]
fn what_ends_a_script_ends_it_in_a_sandbox() {
    let mut screen = Screen::shell();
    // Without a sandbox, in one, and in one with a terminal of its own.
    for run in ["", RUN, "$SANDCELL run -it --"] {
        for (key, status) in [("\x03", "130"), ("\x1c", "131")] {
            let marker = marker();
            screen.send(&format!("{run} sh -c 'sleep {marker}; echo ne''xt'\n"));
            until_runs(&marker);
            screen.send(key);
            let shown = screen.expect(PROMPT);
            assert!(!shown.contains("next"), "{run} {key:?}: {shown:?}");
            assert_eq!(screen.ask("echo $?"), format!("{status}\n"), "{run} {key:?}");
        }
    }
}

#[test]
fn a_program_is_stopped_and_goes_on() {
    let mut screen = Screen::shell();
    for run in ["", RUN, "$SANDCELL run -it --"] {
        screen.send(&format!("{run} cat\n"));
        screen.send("one\n");
        screen.expect("one\r\none\r\n");
        screen.send("\x1a");
        let shown = screen.expect(PROMPT);
        assert!(shown.contains("Stopped"), "{run}: {shown:?}");
        // The shell has its terminal as it was.
        assert!(screen.ask("stty -a").contains(" icanon"));
        screen.send("fg\n");
        screen.expect("cat\r\n");
        screen.send("two\n");
        screen.expect("two\r\ntwo\r\n");
        screen.send("\x04");
        screen.expect(PROMPT);
        assert_eq!(screen.ask("echo $?"), "0\n", "{run}");
    }
}

#[test]
fn in_the_background_who_reads_is_stopped_and_who_does_not_is_not() {
    let mut screen = Screen::shell();
    for run in ["", RUN] {
        let marker = marker();
        screen.ask(&format!("{run} cat - /no/{marker} 2>/dev/null &"));
        let stopped =
            |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default().contains(") T ");
        patiently("the job to be stopped", || {
            let processes = processes_with(&format!("/no/{marker}"));
            processes.len() == if run.is_empty() { 1 } else { 2 } && processes.iter().all(stopped)
        });
        assert!(screen.ask("jobs").contains("Stopped"));
        screen.send("fg\n");
        screen.expect("/dev/null\r\n");
        screen.send("read\n");
        screen.expect("read\r\nread\r\n");
        screen.send("\x04");
        screen.expect(PROMPT);
        // Control: its terminal is read by nobody, and it ends by itself.
        screen.send(&format!("{run} sh -c 'sleep 0.3; echo do''ne' & wait; echo st=$?\n"));
        screen.expect("done\r\n");
        screen.expect("st=0");
        screen.expect(PROMPT);
    }
}

#[test]
fn a_new_size_is_told() {
    let mut screen = Screen::shell();
    for (run, rows) in [("", 30), (RUN, 31), ("$SANDCELL run -it --", 32)] {
        let script = "trap 'stty size; exit' WINCH; echo re''ady; while :; do sleep 0.05; done";
        screen.send(&format!("{run} sh -c \"{script}\"\n"));
        screen.expect("ready\r\n");
        screen.resize(rows, 70);
        screen.expect(&format!("{rows} 70\r\n"));
        screen.expect(PROMPT);
    }
}

#[test]
fn a_terminal_that_is_gone_ends_the_program() {
    for run in [RUN, "$SANDCELL run -it --"] {
        let mut screen = Screen::shell();
        let marker = marker();
        screen.send(&format!("{run} sleep {marker}\n"));
        until_runs(&marker);
        screen.hang_up();
        patiently("the end of the program", || processes_with(&marker).is_empty());
    }
}

#[test]
fn a_shell_inside_has_job_control() {
    let mut screen = Screen::shell();
    screen.resize(40, 100);
    screen.send("$SANDCELL run -it -e PS1='IN''> ' -- bash --norc --noediting -i\n");
    screen.expect("IN> ");
    let mut inside = |line: &str| {
        screen.send(&format!("{line}\n"));
        screen.expect("IN> ").replace('\r', "")
    };
    let shown = inside("tty; stty size");
    assert!(shown.contains("/dev/pts/0\n40 100\n") && !shown.contains("no job control"), "{shown}");
    let marker = marker();
    screen.send(&format!("sleep {marker}\n"));
    until_runs(&marker);
    screen.send("\x1a");
    assert!(screen.expect("IN> ").contains("Stopped"));
    screen.send("fg\n");
    screen.expect("sleep");
    patiently("the job to go on", || {
        processes_with(&marker).iter().any(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.contains(" S ")
        })
    });
    screen.send("\x03");
    screen.expect("IN> ");
    screen.send("exit 7\n");
    screen.expect(PROMPT);
    assert_eq!(screen.ask("echo $?"), "7\n");
}

#[test]
fn the_terminal_is_restored_however_the_run_ends() {
    let mut screen = Screen::shell();
    let before = screen.ask("stty -g");
    let mut check = |options: &str, signal: Option<&str>| {
        let marker = marker();
        screen.send(&format!("$SANDCELL run -it {options} -- sleep {marker}\n"));
        until_runs(&marker);
        if let Some(signal) = signal {
            let tty = format!("/proc/{}/fd/0", screen.child.id());
            let tty = std::fs::read_link(tty).unwrap();
            let name = tty.strip_prefix("/dev").unwrap().to_str().unwrap();
            let kill = Command::new("pkill").args(["-t", name, &format!("-{signal}"), "-x", "sandcell"]).status();
            assert!(kill.unwrap().success());
        }
        screen.expect(PROMPT);
        let status = screen.ask("echo $?");
        assert_eq!(screen.ask("stty -g"), before, "{options} {signal:?}");
        status
    };
    assert_eq!(check("", Some("TERM")), "143\n");
    assert_eq!(check("", Some("USR1")), "138\n");
    assert_eq!(check("", Some("ALRM")), "142\n");
    assert_eq!(check("--timeout 300ms", None), "124\n");
    assert_eq!(screen.ask("$SANDCELL run -it -- /no/such/program 2>/dev/null; echo $?"), "127\n");
    assert_eq!(screen.ask("stty -g"), before);
}

#[test]
fn input_that_is_no_terminal_is_typed_and_ends() {
    let run = |input: &[u8], program: &[&str]| {
        let mut child = Command::new(SANDCELL)
            .args(["run", "-t", "--"])
            .args(program)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().replace('\r', "")
    };
    // It may be echoed before.
    let typed = run(b"a\nb", &["sh", "-c", "stty -echo; cat; echo .; tty"]);
    assert!(typed.ends_with("a\nb.\n/dev/pts/0\n"), "{typed:?}");
    assert_eq!(run(b"", &["cat"]), "");
    assert_eq!(run(b"", &["sh", "-c", "echo shown; exec <&- >&- 2>&-; sleep 0.3"]), "shown\n");
    // All of it, although nobody takes it as fast as it comes.
    let long = run(b"", &["seq", "100000"]);
    assert!(long.lines().count() == 100_000 && long.ends_with("100000\n"));
}

#[test]
fn a_program_that_reads_nothing_keeps_nobody_waiting() {
    for hangs_up in [true, false] {
        let mut screen = Screen::shell();
        screen.send("exec $SANDCELL run -it -- sh -c 'stty raw -echo; trap \"echo t\"\"ick\" WINCH; echo re\"\"ady; while :; do sleep 0.05; done'\n");
        screen.expect("ready");
        screen.fill();
        screen.resize(50, 50);
        screen.expect("tick");
        match hangs_up {
            true => screen.hang_up(),
            // The program ends, and its terminal is still full.
            false => kill(Pid::from_raw(screen.child.id().cast_signed()), Signal::SIGTERM).unwrap(),
        }
        patiently("the end of sandcell", || screen.child.try_wait().unwrap().is_some());
    }
}

#[test]
fn a_program_that_lets_go_of_a_full_terminal_keeps_nobody_past_its_time() {
    let script = "stty raw -echo; sleep 0.5; exec <&- >&- 2>&-; exec sleep 1000";
    let mut command = Command::new(SANDCELL);
    command.args(["run", "-it", "--timeout", "2s", "--", "sh", "-c", script]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let typing = std::thread::spawn(move || drop(std::io::Write::write_all(&mut stdin, &vec![b'x'; 1 << 20])));
    let ended = end_of(&mut child);
    typing.join().unwrap();
    assert_eq!(ended, Some(124));
}

#[test]
fn a_reader_that_takes_nothing_keeps_nobody_past_the_programs_time() {
    let mut command = Command::new(SANDCELL);
    command.args(["run", "-t", "--timeout", "1s", "--", "yes"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let reader = child.stdout.take();
    assert_eq!(end_of(&mut child), Some(124));
    drop(reader);
}

/// The terminal of `sandcell` itself is one that nobody reads: neither what the program shows nor what is said of it is taken.
#[test]
fn a_terminal_that_nobody_reads_keeps_nobody_past_the_programs_time() {
    let cell = format!("unread-{}", std::process::id());
    assert!(Command::new(SANDCELL).args(["start", &cell]).status().unwrap().success());
    let run = ["run", "-it", "--timeout", "1s", "--grace", "0s", "--", "yes"];
    let exec = ["exec", "-it", "--timeout", "1s", &cell, "--", "yes"];
    // Once as it is, and once so that it cannot be opened a second time by who is not root.
    for (words, mode) in [(&run[..], 0o620), (&exec[..], 0o620), (&run[..], 0), (&exec[..], 0)] {
        let program = [&[SANDCELL], words].concat();
        let mut screen = Screen::closed(&program, mode);
        let begun = std::time::Instant::now();
        let status = end_of(&mut screen.child);
        println!("{words:?}: {:?}", begun.elapsed());
        assert_eq!(status, Some(124), "{words:?}");
    }
    // The same for standard error that is a pipe.
    let mut command = Command::new(SANDCELL);
    command.args(["run", "--timeout", "1s", "--grace", "0s", "--", "sh", "-c", "yes >&2"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let reader = child.stderr.take();
    assert_eq!(end_of(&mut child), Some(124));
    drop(reader);
    // The control: who reads learns why.
    let mut screen = Screen::of(&[&[SANDCELL], &run[..run.len() - 1], &["sleep", "1000"]].concat());
    screen.expect("timed out after 1s");
    assert!(Command::new(SANDCELL).args(["rm", "-f", &cell]).status().unwrap().success());
}

/// The status of a process that should end soon, and ends at last.
fn end_of(child: &mut std::process::Child) -> Option<i32> {
    let ended = (0..600).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        child.try_wait().unwrap()
    });
    let _ = child.kill();
    child.wait().unwrap();
    ended.and_then(|status| status.code())
}

#[test]
fn a_shell_of_ones_own_is_at_a_terminal() {
    let mut screen = Screen::shell();
    screen.send("SHELL=/bin/sh PS1= $SANDCELL shell -e PS1='IN''> '\n");
    screen.expect("IN> ");
    screen.send("tty; echo $0; exit 3\n");
    let shown = screen.expect(PROMPT);
    assert!(shown.contains("/dev/pts/0\r\n/bin/sh\r\n"), "{shown:?}");
    assert_eq!(screen.ask("echo $?"), "3\n");
    // Without one it takes commands as any shell does.
    assert_eq!(screen.ask("echo 'tty; exit 4' | $SANDCELL shell; echo $?"), "not a tty\n4\n");
}

#[test]
fn what_cannot_be_had_with_a_terminal_is_refused() {
    let refused = |options: &[&str]| {
        let output = Command::new(SANDCELL).arg("run").args(options).args(["-t", "--", "true"]).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{options:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&["--output-limit", "1M"]).contains("output_limit: what goes to a terminal"));
    assert!(refused(&["--isolation", "landlock"]).contains("no devpts of the sandbox's own"));
}
