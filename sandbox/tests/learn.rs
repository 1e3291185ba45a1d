//! Learning: the smallest profile for what a program does, which then runs the same program.

mod common;

use common::{shell, text};
use sandcell::seccomp::{Action, Profile};
use sandcell::{Builder, Outcome, Sandbox, Seccomp};

/// Runs a program in a learning sandbox; what was learned, and what it wrote.
fn learn(builder: Builder, program: &str, args: &[&str]) -> (Profile, String) {
    let sandbox = builder.build().unwrap();
    let output = sandbox.command(program).args(args).learn(true).output().unwrap();
    assert_eq!(output.outcome, Outcome::Exited(0), "{}", text(&output.stderr));
    (output.report.learned.expect("a profile"), text(&output.stdout))
}

fn run(profile: &Profile, program: &str, args: &[&str]) -> (Outcome, String) {
    let sandbox = Sandbox::builder().seccomp(Seccomp::Profile(profile.clone())).build().unwrap();
    let output = sandbox.command(program).args(args).output().unwrap();
    (output.report.outcome, text(&output.stdout))
}

/// The calls that are allowed whatever their arguments.
fn allowed(profile: &Profile) -> Vec<String> {
    let words = profile.explain(&[]);
    let line = words.lines().find(|line| line.contains(" calls allowed: ")).expect("a line of allowed calls");
    line.rsplit(": ").next().unwrap().trim_end_matches('.').split(' ').map(str::to_owned).collect()
}

#[test]
fn a_learned_profile_runs_the_same_program_and_no_other() {
    let (profile, said) = learn(Sandbox::builder(), "/bin/echo", &["hello"]);
    assert_eq!(said, "hello");
    assert_eq!(run(&profile, "/bin/echo", &["hello"]), (Outcome::Exited(0), said));
    let calls = allowed(&profile);
    assert!(calls.len() < 60 && calls.contains(&"execve".into()) && calls.contains(&"write".into()), "{calls:?}");
    assert!(!calls.iter().any(|call| call.starts_with("mkdir")), "{calls:?}");
    // mkdir makes a call that echo does not; the twin learned from it.
    let made = ["/tmp/a/b", "-p"];
    assert!(!run(&profile, "/bin/mkdir", &made).0.success());
    let (profile, _) = learn(Sandbox::builder(), "/bin/mkdir", &made);
    assert_eq!(run(&profile, "/bin/mkdir", &made).0, Outcome::Exited(0));
}

#[test]
fn threads_and_children_are_learned_from_too() {
    let script = "import os, threading, subprocess
def work(): os.mkdir('/tmp/d'); os.mkfifo('/tmp/f')
thread = threading.Thread(target=work); thread.start(); thread.join()
subprocess.run(['/bin/sh', '-c', 'umask; ln -s a /tmp/link; (sleep 0; rmdir /tmp/d) & wait'], check=True)
print('done')";
    let args = ["-c", script];
    let (profile, said) = learn(Sandbox::builder(), "python3", &args);
    assert_eq!(run(&profile, "python3", &args), (Outcome::Exited(0), said));
    let calls = allowed(&profile);
    for call in ["mkdir", "mknodat", "rmdir"] {
        let old = call.trim_end_matches("at");
        assert!(calls.iter().any(|c| c == call || c == old), "{call} is missing from {calls:?}");
    }
}

#[test]
fn what_the_policy_refuses_is_refused_while_learning_and_is_not_learned() {
    let script = "import os, socket
for act in (lambda: os.chroot('/'), lambda: socket.socket(socket.AF_VSOCK), lambda: socket.socket(socket.AF_INET)):
    try: act(); print('open')
    except PermissionError: print('refused')";
    let (profile, said) = learn(Sandbox::builder(), "python3", &["-c", script]);
    assert_eq!(said, "refused\nrefused\nopen");
    assert_eq!(run(&profile, "python3", &["-c", script]).1, said);
    assert!(!allowed(&profile).contains(&"chroot".into()) && !allowed(&profile).contains(&"socket".into()));
    // The twin: a policy that refuses nothing.
    let off = Sandbox::builder().seccomp(Seccomp::Off).user(sandcell::User::Root);
    let (profile, said) = learn(off, "python3", &["-c", script]);
    assert!(said.ends_with("open\nopen"), "{said}");
    assert!(allowed(&profile).contains(&"socket".into()));
}

#[test]
fn a_refusal_that_programs_go_by_stays_what_it_was() {
    let (profile, _) = learn(Sandbox::builder(), "/bin/true", &[]);
    let words = profile.explain(&[]);
    assert!(words.contains("refused with ENOSYS: clone3"), "{words}");
    // Without threads nothing is said of clone: it falls to the default.
    assert!(!words.contains("clone: allowed"), "{words}");
}

#[test]
fn a_program_that_is_ended_while_learning_ends_as_always() {
    let sandbox = Sandbox::builder().grace(std::time::Duration::ZERO).build().unwrap();
    let mut command = shell(&sandbox, "sleep 60");
    let output = command.learn(true).timeout(std::time::Duration::from_millis(200)).output().unwrap();
    assert_eq!(output.outcome, Outcome::TimedOut);
    assert!(output.learned.is_some());
    let missing = sandbox.command("/no/such/program").learn(true).output().unwrap_err();
    assert_eq!((missing.kind(), missing.errno()), ("exec", Some(2)));
}

#[test]
fn a_cell_does_not_learn_and_says_so() {
    let cell = common::sandbox().start().unwrap();
    let error = cell.command("/bin/true").learn(true).output().unwrap_err();
    assert_eq!((error.kind(), error.subject()), ("config", "learn"));
    assert!(cell.command("/bin/true").output().unwrap().learned.is_none());
}

#[test]
fn where_somebody_listens_already_learning_is_refused_and_a_denied_call_has_no_name() {
    use sandcell::{Error, Result};
    let test = "where_somebody_listens_already_learning_is_refused_and_a_denied_call_has_no_name";
    let outcome = |result: Result<sandcell::Output>| match result {
        Ok(output) => output.outcome.to_string(),
        Err(Error::Unsupported(_)) => "unsupported".to_owned(),
        Err(other) => panic!("{other}"),
    };
    let profile = Profile::new(Action::Allow).rule(&["chroot"], Action::KillProcess, &[]).unwrap();
    let killing = Sandbox::builder().seccomp(Seccomp::Profile(profile)).build().unwrap();
    let denied = || outcome(killing.command("python3").args(["-c", "import os; os.chroot('/')"]).output());
    if std::env::var_os("SANDCELL_LISTENED").is_none() {
        assert_eq!(denied(), "made the denied system call chroot");
        // A sandbox that runs this test again, under a filter with a listener.
        let program = std::env::current_exe().unwrap();
        let script = format!("exec '{}' --exact {test} --nocapture", program.display());
        let listened = Command::new("python3").args(["-c", LISTEN, &script]).env("SANDCELL_LISTENED", "1").output();
        let said = listened.unwrap();
        let said = format!("{}{}", text(&said.stdout), text(&said.stderr));
        assert!(said.contains("1 passed"), "{said}");
        return;
    }
    assert_eq!(denied(), "made the denied system call unknown");
    assert_eq!(outcome(common::sandbox().command("/bin/true").learn(true).output()), "unsupported");
    assert_eq!(outcome(common::sandbox().command("/bin/true").output()), "exited with status 0");
}

use std::process::Command;

/// Installs a filter that allows everything but has a listener, and becomes a shell with this script.
const LISTEN: &str = "
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
allow = (ctypes.c_uint64 * 1)(0x7fff0000 << 32 | 6)
class Program(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
program = Program(1, ctypes.addressof(allow))
assert libc.prctl(38, 1, 0, 0, 0) == 0
listener = libc.syscall(317, 1, 8, ctypes.byref(program))
assert listener >= 0, os.strerror(ctypes.get_errno())
os.set_inheritable(listener, True)
os.execv('/bin/sh', ['sh', '-c', sys.argv[1]])
";
