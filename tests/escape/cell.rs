//! A sandbox made with the library: for ways of running that the `sandcell` program has no words for.
//!
//!     escape-cell [--started | --pooled] [--ro SRC:DEST]… [--rw SRC:DEST]… -- PROGRAM [ARG…]

use sandcell::{Builder, Outcome, Sandbox, Stdio};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(status) => ExitCode::from(status as u8),
        Err(message) => {
            eprintln!("escape-cell: {message}");
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<i32, String> {
    let mut builder = Sandbox::builder();
    let (mut started, mut pooled) = (false, false);
    let mut words = std::env::args().skip(1);
    while let Some(option) = words.next() {
        match option.as_str() {
            "--" => break,
            "--started" => started = true,
            "--pooled" => pooled = true,
            _ => builder = set(builder, &option, &words.next().ok_or_else(|| format!("{option} without a value"))?)?,
        }
    }
    let program = words.next().ok_or("no program")?;
    let sandbox = builder.build().map_err(in_words)?;
    let cell = if started { Some(sandbox.start().map_err(in_words)?) } else { None };
    // Another one waits beside it.
    let pool = if pooled { Some(sandbox.pool(2).map_err(in_words)?) } else { None };
    let mut command = match (&cell, &pool) {
        (Some(cell), _) => cell.command(&program),
        (_, Some(pool)) => pool.command(&program),
        _ => sandbox.command(&program),
    };
    command.args(words).stdin(Stdio::Inherit).stdout(Stdio::Inherit).stderr(Stdio::Inherit);
    let report = command.status().map_err(in_words)?;
    if pool.is_some_and(|pool| pool.stats().hits != 1) {
        return Err("nothing waited in the pool".into());
    }
    match report.outcome {
        Outcome::Exited(status) => Ok(status),
        other => Err(other.to_string()),
    }
}

fn in_words(error: sandcell::Error) -> String {
    if error.hint().is_empty() { error.to_string() } else { format!("{error}\nhint: {}", error.hint()) }
}

fn set(builder: Builder, option: &str, value: &str) -> Result<Builder, String> {
    let pair = || value.split_once(':').ok_or_else(|| format!("{option} {value}: SRC:DEST is wanted"));
    Ok(match (option, value) {
        ("--ro", _) => pair().map(|(source, dest)| builder.ro(source, dest))?,
        ("--rw", _) => pair().map(|(source, dest)| builder.rw(source, dest))?,
        _ => return Err(format!("{option} {value} is not known")),
    })
}
