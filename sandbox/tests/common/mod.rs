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
