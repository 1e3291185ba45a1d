//! Programs for async callers: they are awaited, streamed and cancelled on one thread that never waits.

mod common;

use std::future::Future;
use std::time::Duration;

use common::{Scratch, marker, patiently, processes_with, sandbox, shell, text, within_minutes};
use sandcell::{Error, Outcome, Sandbox, Stdio, TimeLimit};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::task::JoinSet;

/// One thread does everything: what waits in it keeps all others waiting.
fn alone<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn a_program_is_awaited_with_its_output_and_its_input() {
    alone(async {
        let sandbox = sandbox();
        let mut command = shell(&sandbox, "cat; echo err >&2; exit 3").input("in\n").tokio();
        for _ in 0..2 {
            let output = command.output().await.unwrap();
            assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("in", "err"));
            assert_eq!(output.outcome, Outcome::Exited(3));
        }
        let report = shell(&sandbox, "exit 4").tokio().status().await.unwrap();
        assert_eq!(report.outcome, Outcome::Exited(4));
    });
}

#[test]
fn more_than_a_pipe_holds_goes_in_and_out() {
    alone(async {
        let input: Vec<u8> = (0..3_000_000u32).map(|at| at as u8).collect();
        let output = sandbox().command("cat").input(input.clone()).tokio().output().await.unwrap();
        assert!(output.stdout == input, "{} bytes of {}", output.stdout.len(), input.len());
    });
}

#[test]
fn errors_come_as_they_do_elsewhere() {
    alone(async {
        let sandbox = sandbox();
        let error = sandbox.command("/no/such").tokio().output().await.unwrap_err();
        assert!(matches!(error, Error::Exec(_)), "{error}");
        let error = sandbox.command("true").current_dir("relative").tokio().spawn().await.unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{error}");
    });
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let sandbox = sandbox();
    let mut command = sandbox.command("true").tokio();
    let mut future = std::pin::pin!(command.status());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(Err(error)) => assert!(error.hint().contains("runtime"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn lines_come_as_they_are_written_and_answers_go_back() {
    alone(async {
        let script = "echo first; read answer; echo got $answer";
        let mut command = shell(&sandbox(), script);
        command.stdin(Stdio::Piped).stdout(Stdio::Piped);
        let mut child = command.tokio().spawn().await.unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("first"));
        child.stdin.as_mut().unwrap().write_all(b"it\n").await.unwrap();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("got it"));
        assert_eq!(lines.next_line().await.unwrap(), None);
        assert_eq!(child.wait().await.unwrap().outcome, Outcome::Exited(0));
    });
}

#[test]
fn what_is_left_in_the_pipes_is_read_and_a_wait_may_be_given_up_and_begun_again() {
    alone(async {
        let mut command = shell(&sandbox(), "echo one; read x; echo two; echo err >&2");
        command.stdin(Stdio::Piped).stdout(Stdio::Piped).stderr(Stdio::Piped);
        let mut child = command.tokio().spawn().await.unwrap();
        let stdin = child.stdin.take();
        assert!(tokio::time::timeout(Duration::from_millis(50), child.wait()).await.is_err(), "it reads");
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("one\ntwo", "err"));
    });
}

#[test]
fn what_is_dropped_is_killed() {
    alone(async {
        let sandbox = sandbox();
        let (first, second, third) = (marker(), marker(), marker());
        // A future that has begun, a child, and a program of a cell with one that has left its session.
        let mut command = sandbox.command("sleep").arg(&first).tokio();
        let running = Box::pin(async move { command.output().await });
        let running = tokio::spawn(running);
        let child = sandbox.command("sleep").arg(&second).tokio().spawn().await.unwrap();
        let cell = sandcell::tokio::start(&sandbox).await.unwrap();
        let script = format!("setsid sleep {third} & wait");
        let in_cell = cell.command("sh").args(["-c", &script]).tokio().spawn().await.unwrap();
        let all = [&first, &second, &third];
        let alive = |at: usize| !processes_with(all[at]).is_empty();
        while !(0..3).all(alive) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running.abort();
        drop((child, in_cell));
        assert!(running.await.unwrap_err().is_cancelled());
        while (0..3).any(alive) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(cell.command("true").tokio().status().await.unwrap().success(), "the cell lives on");
    });
}

#[test]
fn a_start_that_nobody_awaits_any_more_leaves_nothing() {
    let mark = marker();
    alone(async {
        let sandbox = sandbox();
        for turn in 0..40u64 {
            let mut command = sandbox.command("sleep").arg(&mark).tokio();
            let time = Duration::from_micros(turn * 100);
            drop(tokio::time::timeout(time, command.spawn()).await);
        }
    });
    patiently("the end of all", || processes_with(&mark).is_empty());
}

#[test]
fn a_runtime_that_ends_leaves_nothing() {
    let mark = marker();
    alone(async {
        let sandbox = sandbox();
        let mut command = sandbox.command("sleep").arg(&mark).tokio();
        tokio::spawn(async move { command.output().await });
        let child = sandbox.command("sleep").arg(&mark).tokio().spawn().await.unwrap();
        tokio::spawn(async move {
            let _child = child;
            std::future::pending::<()>().await;
        });
        while processes_with(&mark).len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    patiently("the end of all", || processes_with(&mark).is_empty());
}

#[test]
fn time_limits_and_signals_are_told() {
    alone(async {
        let sandbox = Sandbox::builder().grace(Duration::ZERO).build().unwrap();
        let slow = sandbox.command("sleep").arg("1000").timeout(Duration::from_millis(100)).tokio().output().await;
        assert_eq!(slow.unwrap().timed_out, Some(TimeLimit::Wall));
        let mut child = sandbox.command("sleep").arg("1000").tokio().spawn().await.unwrap();
        child.signal(15).unwrap();
        assert_eq!(child.wait().await.unwrap().exit_status(), 128 + 15);
        assert_eq!(child.wait().await.unwrap().exit_status(), 128 + 15, "the same again");
        let mut child = sandbox.command("sleep").arg("1000").tokio().spawn().await.unwrap();
        assert_eq!(child.kill().await.unwrap().outcome, Outcome::Killed);
    });
}

/// Half of them in sandboxes of their own, half in a cell: a user has 200 keyrings (kernel.keys.maxkeys), of which each sandbox takes one.
#[test]
fn two_hundred_at_once_run_and_the_thread_never_waits() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    within_minutes(5, "two hundred", || {
        alone(async {
            let scratch = Scratch::new();
            let sandbox = Sandbox::builder().rw(scratch.path(), "/gate").build().unwrap();
            let cell = sandcell::tokio::start(&sandbox).await.unwrap();
            let mut all = JoinSet::new();
            for number in 0..200 {
                // They wait for each other: none ends before all run.
                let script = "cat; : >/gate/$0; until [ -e /gate/open ]; do sleep 0.1; done; echo $0";
                let mut command = if number % 2 == 0 { sandbox.command("sh") } else { cell.command("sh") };
                command.args(["-c", script, &number.to_string()]).input(format!("in {number}\n"));
                let mut command = command.tokio();
                all.spawn(async move { (number, command.output().await) });
            }
            while std::fs::read_dir(scratch.path()).unwrap().count() < 200 {
                if let Some(done) = all.try_join_next() {
                    panic!("it cannot have ended: {:?}", done.unwrap().1);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            std::fs::write(scratch.path().join("open"), "").unwrap();
            while let Some(done) = all.join_next().await {
                let (number, output) = done.unwrap();
                let output = output.unwrap();
                assert_eq!(text(&output.stdout), format!("in {number}\n{number}"));
            }
        });
    });
}

#[test]
fn a_program_that_writes_without_end_leaves_others_their_turn() {
    alone(async {
        let sandbox = Sandbox::builder().output_limit(64 << 20).build().unwrap();
        let mut loud = sandbox.command("yes").tokio();
        let loud = tokio::spawn(async move { loud.output().await });
        let mut turns = 0;
        while !loud.is_finished() {
            turns += 1;
            tokio::task::yield_now().await;
        }
        let output = loud.await.unwrap().unwrap();
        assert_eq!(output.outcome, Outcome::OutputLimit);
        assert!(turns > 10, "{turns} turns");
    });
}

#[test]
fn outputs_of_a_terminal_are_gathered_and_its_end_is_typed() {
    alone(async {
        let mut command = shell(&sandbox(), "tty; cat; echo end");
        command.stdin(Stdio::terminal(sandcell::TerminalSize::new(24, 80)));
        let output = command.tokio().output().await.unwrap();
        assert!(text(&output.stdout).contains("/dev/pts/") && text(&output.stdout).contains("end"), "{output:?}");
        let mut command = shell(&sandbox(), "echo hello");
        command.stdout(Stdio::terminal(sandcell::TerminalSize::new(24, 80)));
        let mut child = command.tokio().spawn().await.unwrap();
        assert!(child.terminal.is_some());
        assert!(child.wait().await.unwrap().success());
        let mut rest = Vec::new();
        if let Some(mut stdout) = child.stdout.take() {
            stdout.read_to_end(&mut rest).await.unwrap();
        }
        assert!(rest.is_empty());
    });
}
