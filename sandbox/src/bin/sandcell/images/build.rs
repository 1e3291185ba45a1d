//! `sandcell build`: an image from a Dockerfile.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use sandcell::image::{Build, Reference};
use sandcell::{Error, Sandbox};

use super::StoreOption;
use crate::options::{NetworkWord, wrong};

#[derive(Args)]
pub struct BuildOptions {
    #[command(flatten)]
    store: StoreOption,
    /// The image's name
    #[arg(short = 't', long = "tag", value_name = "NAME[:TAG]")]
    name: Option<Reference>,
    /// The Dockerfile; `-` is standard input [default: DIR/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The value of an ARG
    #[arg(long, value_name = "KEY=VALUE")]
    build_arg: Vec<String>,
    /// The network of RUN; `loopback` is a private one
    #[arg(long, value_enum, default_value = "loopback")]
    network: NetworkWord,
    /// Make every layer anew
    #[arg(long)]
    no_cache: bool,
    /// Date of the image, and latest date of its new files, in seconds since 1970 [env: SOURCE_DATE_EPOCH]
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH", hide_env = true)]
    timestamp: Option<i64>,
    /// Print the id only
    #[arg(short, long)]
    quiet: bool,
    /// The directory that COPY copies from
    #[arg(value_name = "DIR")]
    context: PathBuf,
}

pub fn build(options: &BuildOptions) -> Result<Vec<u8>, Error> {
    let path = options.file.clone().unwrap_or_else(|| options.context.join("Dockerfile"));
    let text = read(&path)?;
    let mut build = Build::dockerfile(&text, &path.display().to_string())?
        .context(&options.context)
        .sandbox(Sandbox::builder().network(options.network.into()))
        .cache(!options.no_cache)
        .show_output(!options.quiet);
    for word in &options.build_arg {
        build = match (word.split_once('='), std::env::var(word)) {
            (Some((key, value)), _) => build.arg(key, value),
            (None, Ok(value)) => build.arg(word, value),
            (None, Err(_)) => return Err(wrong("--build-arg", word.as_ref(), "has no value, and is in no variable")),
        };
    }
    if let Some(name) = &options.name {
        build = build.name(name.clone());
    }
    if let Some(seconds) = options.timestamp {
        build = build.timestamp(seconds);
    }
    // Programs write to both; what is ours goes where it does not mix with an id that is read by another program.
    let bold = std::io::stderr().is_terminal();
    let image = options.store.open()?.build(&build, &|step| {
        if !options.quiet {
            let (on, off) = if bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
            let cached = if step.cached { " (cached)" } else { "" };
            let text: String = step.text.chars().filter(|c| !c.is_control()).collect();
            complain!("{on}STEP {}/{}: {text}{cached}{off}", step.number, step.total);
        }
    })?;
    Ok(format!("{}\n", image.id).into())
}

fn read(path: &Path) -> Result<String, Error> {
    let read = || match path.to_str() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        }
        _ => std::fs::read_to_string(path),
    };
    read().map_err(|error| wrong("--file", path.as_os_str(), format!("cannot be read: {error}")))
}
