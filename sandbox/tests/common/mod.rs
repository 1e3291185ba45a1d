//! What several test files need. Programs inside are /bin/sh and coreutils of the host view.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sandcell::{Builder, Command, Outcome, Output, Sandbox};

/// A default sandbox.
pub fn sandbox() -> Sandbox {
    Sandbox::builder().build().expect("the default policy")
}

/// A shell command to run.
pub fn shell(sandbox: &Sandbox, script: &str) -> Command {
    let mut command = sandbox.command("/bin/sh");
    command.args(["-c", script]);
    command
}

/// Runs a shell script in a sandbox of this policy; it must start.
pub fn run(builder: Builder, script: &str) -> Output {
    let sandbox = builder.build().expect("the policy");
    shell(&sandbox, script).output().unwrap_or_else(|error| panic!("{error} ({})", error.hint()))
}

/// Runs a shell script that must succeed; what it wrote, without the last newline.
pub fn told(builder: Builder, script: &str) -> String {
    let output = run(builder, script);
    assert_eq!(output.outcome, Outcome::Exited(0), "{script}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Bytes as text, without the last newline.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned()
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A directory of this test, gone when it is dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sandcell-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a new directory in TMPDIR");
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a directory in it.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(&path).expect("a directory in the scratch directory");
        path
    }

    /// Makes a file in it, with its directories.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("its directories");
        std::fs::write(&path, content).expect("a file in the scratch directory");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The kernel's overlay work directory has mode 0.
        let _ = std::process::Command::new("chmod").args(["-R", "u+rwX"]).arg(&self.0).status();
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs the calling test again in a mount namespace of its own, after `setup` in a shell. True in that second run;
/// the first has the same outcome as it.
pub fn again_in_own_mounts(test: &str, setup: &str) -> bool {
    if std::env::var_os("SANDCELL_OWN_MOUNTS").is_some() {
        return true;
    }
    let options = if is_root() { "-m" } else { "-rm" };
    let script = format!("{setup}\nexec \"$0\" --exact {test} --nocapture");
    let mut command = std::process::Command::new("unshare");
    command.args([options, "--propagation", "private", "sh", "-ec", &script]).env("SANDCELL_OWN_MOUNTS", "1");
    let output = command.arg(std::env::current_exe().unwrap()).output().unwrap();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// A number that no other test has, to find processes by: `sleep MARKER`.
pub fn marker() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("9{:09}{:03}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Shell: starts a command beside, and goes on when it has been executed. Until then its process is a copy of the shell, with
/// the shell's name and command line; in the middle it has the new name and an empty command line.
pub fn beside(command: &str) -> String {
    let program = command.split(' ').next().expect("a program");
    format!("{command} & until [ \"$(cat /proc/$!/comm)\" = {program} ] && grep -q . /proc/$!/cmdline; do :; done")
}

/// Shell: waits until so many programs with this marker have been executed, whoever started them. The shells around them have
/// it within a longer argument, and grep has it in brackets.
pub fn until_executed(marker: &str, count: usize) -> String {
    let (first, rest) = marker.split_at(1);
    let those = format!("grep -lzx '[{first}]{rest}' /proc/[0-9]*/cmdline 2>/dev/null");
    format!("until [ $({those} | wc -l) -ge {count} ]; do :; done")
}

/// Host pids whose command line has this argument.
pub fn processes_with(marker: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        // A helper that is told the marker has it in its environment, not here.
        if line.split(|byte| *byte == 0).any(|arg| arg == marker.as_bytes()) {
            found.push(pid);
        }
    }
    found
}

/// Waits until `done` says so; a minute is not a measure but the end of patience.
pub fn patiently(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{what} did not come about within a minute");
}

/// Does something that must come to an end: a minute is not a measure but the end of patience.
pub fn within_a_minute<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    within_minutes(1, what, work)
}

/// The same for what is long by itself.
pub fn within_minutes<T: Send + 'static>(minutes: u64, what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, ready) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = done.send(work());
    });
    match ready.recv_timeout(std::time::Duration::from_secs(60 * minutes)) {
        Ok(value) => value,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("{what} does not come to an end"),
        Err(_) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => panic!("{what} said nothing"),
        },
    }
}

/// Names the test that the calling test binary, started again, is to run in the place of a caller: see `doomed_caller`.
pub const DOOMED: &str = "SANDCELL_DOOMED";

/// Starts this test binary again with only `test`, which acts as a caller there (`DOOMED` is set to the marker), waits until
/// `alive` processes have the marker, kills that caller by SIGKILL, and waits until none of them is left.
pub fn kill_the_caller(test: &str, alive: usize) {
    let marker = marker();
    let mut caller = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DOOMED, &marker)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    patiently("the programs of the caller", || {
        assert!(caller.try_wait().unwrap().is_none(), "the caller has ended by itself");
        processes_with(&marker).len() >= alive
    });
    // The control: they live as long as their caller does.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(processes_with(&marker).len() >= alive);
    caller.kill().unwrap();
    caller.wait().unwrap();
    patiently("the end of what the caller has started", || processes_with(&marker).is_empty());
}
