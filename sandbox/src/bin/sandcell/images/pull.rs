//! `sandcell pull`.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use sandcell::Error;
use sandcell::image::{Platform, Progress, Pull, Reference, Store};

use super::bar;

#[derive(Args)]
pub struct PullOptions {
    /// [HOST[:PORT]/]NAME[:TAG][@DIGEST]; without a host it is docker.io's
    #[arg(value_name = "IMAGE")]
    image: Reference,
    /// The image's name in the store, instead of the registry's
    #[arg(short = 't', long = "tag", visible_alias = "name", value_name = "NAME[:TAG]")]
    name: Option<Reference>,
    /// Credentials as `docker login` keeps them [default: Docker's and podman's files]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// A user, whose password is read from standard input
    #[arg(long, value_name = "USER", conflicts_with = "authfile")]
    user: Option<String>,
    /// Trust this authority's certificate (PEM) too
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The platform that is meant, instead of this host's: to hand the image on
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<Platform>,
    /// HTTP without TLS
    #[arg(long, conflicts_with = "ca_file")]
    plain_http: bool,
    /// Wait until everything is on the disk
    #[arg(long)]
    durable: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

/// The image's id: what scripts go on with.
pub fn pull(store: &Store, options: &PullOptions) -> Result<Vec<u8>, Error> {
    let bar = bar(options.quiet);
    bar.set_message("Pulling");
    let told = |progress| {
        if let Progress::Bytes { done, total, .. } = progress {
            bar.set_length(total);
            bar.set_position(done);
        }
    };
    let mut how = Pull::new().progress(&told);
    if let Some(name) = &options.name {
        how = how.name(name.clone());
    }
    if let Some(file) = &options.authfile {
        how = how.auth_file(file);
    }
    if let Some(user) = &options.user {
        let mut password = String::new();
        std::io::stdin().read_to_string(&mut password).map_err(|e| Error::option("--user", e.to_string()))?;
        how = how.credentials(user, password.trim_end_matches(['\r', '\n']));
    }
    if let Some(file) = &options.ca_file {
        how = how.ca_file(file);
    }
    if let Some(platform) = &options.platform {
        how = how.platform(platform.clone());
    }
    if options.plain_http {
        how = how.plain_http();
    }
    if options.durable {
        how = how.durable();
    }
    let pulled = store.pull(&options.image, &how);
    bar.finish_and_clear();
    Ok(format!("{}\n", pulled?.id).into_bytes())
}
