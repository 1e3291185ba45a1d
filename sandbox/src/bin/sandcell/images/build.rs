//! `sandcell build`: an image from a Dockerfile.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use clap::Args;
use sandcell::image::Build;
use sandcell::{Error, printable};

use super::StoreOption;
use super::said::Said;
use crate::options::wrong;

/// Longer Dockerfiles are refused.
const MOST: u64 = 1 << 20;

#[derive(Args)]
pub struct BuildOptions {
    #[command(flatten)]
    store: StoreOption,
    #[command(flatten)]
    said: Said<Build>,
    /// The Dockerfile; `-` is standard input [default: DIR/Dockerfile, or DIR/Containerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Make every layer anew
    #[arg(long)]
    no_cache: bool,
    /// Print the id only
    #[arg(short, long)]
    quiet: bool,
    /// The directory that COPY copies from
    #[arg(value_name = "DIR")]
    context: PathBuf,
}

/// `status`: that of a program that failed, as a shell has it.
pub fn build(options: &BuildOptions, status: &mut u8) -> Result<Vec<u8>, Error> {
    let path = options.file.clone().unwrap_or_else(|| {
        let [first, second] = ["Dockerfile", "Containerfile"].map(|name| options.context.join(name));
        if !first.exists() && second.exists() { second } else { first }
    });
    let mut build = match path.to_str() {
        Some("-") => Build::dockerfile(&standard_input()?, "-"),
        _ => Build::dockerfile_at(&path),
    }?
    .context(&options.context)
    .cache(!options.no_cache)
    .show_output(!options.quiet);
    build = options.said.say(build)?;
    for name in build.undeclared_args() {
        complain!("warning: --build-arg {}: no ARG of that name is declared", printable(name));
    }
    // Programs write to both; what is ours goes where it does not mix with an id that is read by another program.
    let bold = std::io::stderr().is_terminal();
    let failed = std::cell::Cell::new(None);
    let image = options.store.open()?.build(&build, &|step| {
        if let Some(outcome) = &step.outcome {
            failed.set(u8::try_from(outcome.exit_status()).ok());
        } else if !options.quiet {
            let (on, off) = if bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
            let cached = if step.cached { " (cached)" } else { "" };
            complain!("{on}STEP {}/{}: {}{cached}{off}", step.number, step.total, printable(&step.text));
        }
    });
    if let Some(own) = failed.get() {
        *status = own;
    }
    Ok(format!("{}\n", image?.id).into())
}

/// A Dockerfile that is longer than others may be is refused here too.
fn standard_input() -> Result<String, Error> {
    let mut text = String::new();
    let read = std::io::stdin().take(MOST + 1).read_to_string(&mut text);
    read.map_err(|error| wrong("--file", "-".as_ref(), format!("cannot be read: {error}")))?;
    if text.len() as u64 > MOST {
        return Err(wrong("--file", "-".as_ref(), "is longer than 1 MiB"));
    }
    Ok(text)
}
