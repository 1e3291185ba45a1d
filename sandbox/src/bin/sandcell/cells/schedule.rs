//! `sandcell start --schedule`: a process of this program stays, runs the program at its times, and ends with the name.

use std::ffi::OsString;
use std::fs::File;

use sandcell::{Detach, Error, Schedule};

use crate::options::{Options, amended};
use crate::sys;

pub fn start(detach: Detach, text: &str, options: &Options, words: &[OsString]) -> Result<(), Error> {
    let detach = detach.schedule(Schedule::parse(text)?);
    let sandbox = options.sandbox()?;
    if words.is_empty() && !options.names_program() {
        let error = Error::option("schedule", "there is no program to be run");
        return Err(amended(error, |failure| failure.hint = "Name one.".to_owned()));
    }
    let mut command = options.command(&sandbox, words)?;
    let scheduler = detach.scheduler(&mut command)?;
    let parked = sys::forked(move || {
        let _ = nix::unistd::setsid();
        let _ = leave_streams();
        i32::from(scheduler.run().is_err())
    });
    parked.map(|_| ()).map_err(|errno| Error::option("schedule", format!("no process can be had: {errno}")))
}

/// Whoever waits for the end of our outputs does not wait for the schedule.
fn leave_streams() -> std::io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}
