//! The program `sandcell`, and cells that it starts.

use std::process::{Command, Output, Stdio};

use crate::common::{marker, text};

/// A cell that is gone with the test.
pub struct Named(pub String);

impl Named {
    /// A cell of this name with these options, and with a main program unless that is empty.
    pub fn started(options: &[&str], program: &[&str]) -> Named {
        let named = Named(format!("cell-{}", marker()));
        let mut words = vec!["start", &named.0];
        words.extend(options);
        if !program.is_empty() {
            words.push("--");
            words.extend(program);
        }
        done(&words);
        named
    }

    /// A path in it, as `cp` has it.
    #[allow(dead_code, reason = "not every test copies")]
    pub fn at(&self, path: &str) -> String {
        format!("{}:{path}", self.0)
    }

    /// What a shell in it says.
    #[allow(dead_code, reason = "not every test copies")]
    pub fn tell(&self, script: &str) -> String {
        done(&["exec", &self.0, "--", "sh", "-c", script])
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        run(&["rm", "-f", &self.0]);
    }
}

pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandcell"));
    command.args(words).stdin(Stdio::null());
    command
}

pub fn run(words: &[&str]) -> Output {
    command(words).output().expect("the program starts")
}

pub fn done(words: &[&str]) -> String {
    let output = run(words);
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Refused with this in the message, a hint, and 125.
pub fn refused(words: &[&str], message: &str) {
    let output = run(words);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{words:?}: {said}");
    assert!(said.contains(message) && said.contains("hint: "), "{words:?}: {said}");
}
