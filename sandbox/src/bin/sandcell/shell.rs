//! `sandcell shell`: the caller's shell with the host's programs, or a shell of an image.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::path::Path;

use sandcell::{Command, Sandbox};

use crate::options::Options;
use crate::run::{Ended, Run};

pub fn run(options: Options, report: Option<&OsStr>, image: Option<OsString>) -> Ended {
    let options = match image {
        Some(image) => options.with_image(image),
        None => options,
    };
    let tty = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let commands = |sandbox: &Sandbox| Ok(shells(options.has_image()).map(|shell| command(sandbox, &shell)).collect());
    Run { report, tty }.run_first(|| options.sandbox(), commands)
}

fn command(sandbox: &Sandbox, shell: &OsStr) -> Command {
    sandbox.command(shell)
}

/// What is tried, in order. Whatever the caller uses may not be there inside.
fn shells(image: bool) -> impl Iterator<Item = OsString> {
    let own = std::env::var_os("SHELL").filter(|shell| !image && Path::new(shell).is_absolute());
    own.into_iter().chain(["bash", "/bin/sh"].map(OsString::from))
}
