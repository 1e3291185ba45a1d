//! The subcommands about images: what is in the store, how it gets there and out of it.

mod build;
#[cfg(feature = "pull")]
mod pull;
mod table;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sandcell::Error;
use sandcell::image::{
    Change, Commit, Format, Image, Load, Owners, Progress, Pruned, Reference, Source, Store, base_of, changes,
};
use serde_json::{Value, json};

use table::{Table, ago, size};

#[derive(Args)]
pub struct StoreOption {
    /// The store of images and volumes [default: $XDG_DATA_HOME/sandcell/images]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

impl StoreOption {
    pub fn open(&self) -> Result<Store, Error> {
        match &self.store {
            Some(dir) => Store::open(dir),
            None => Store::open_default(),
        }
    }
}

#[derive(Args)]
pub struct Json {
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum FormatWord {
    OciArchive,
    OciDir,
    DockerArchive,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum SourceWord {
    Detect,
    Oci,
    Docker,
    Rootfs,
}

#[derive(Subcommand)]
pub enum ImageAction {
    /// Load images: an OCI layout, a `docker save` archive, or a root file system
    Load {
        #[command(flatten)]
        store: StoreOption,
        /// An archive (plain, gzip or zstd) or a directory
        #[arg(value_name = "FILE|DIR")]
        from: PathBuf,
        /// The image's name, instead of the archive's own
        #[arg(short = 't', long = "tag", visible_alias = "name", value_name = "NAME[:TAG]")]
        name: Option<Reference>,
        /// What it is
        #[arg(long, value_enum, default_value = "detect")]
        format: SourceWord,
        /// Wait until everything is on the disk
        #[arg(long)]
        durable: bool,
        /// Say nothing but errors
        #[arg(short, long)]
        quiet: bool,
    },
    /// Get an image from its registry
    #[cfg(feature = "pull")]
    Pull {
        #[command(flatten)]
        store: StoreOption,
        #[command(flatten)]
        pull: Box<pull::PullOptions>,
    },
    /// List the images of the store
    Images {
        #[command(flatten)]
        store: StoreOption,
        #[command(flatten)]
        json: Json,
        /// Ids only
        #[arg(short, long)]
        quiet: bool,
    },
    /// Print all about images, as JSON
    Inspect {
        #[command(flatten)]
        store: StoreOption,
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// List the steps that made an image, the newest first
    History {
        #[command(flatten)]
        store: StoreOption,
        #[command(flatten)]
        json: Json,
        /// Whole commands
        #[arg(long)]
        no_trunc: bool,
        #[arg(value_name = "IMAGE")]
        image: String,
    },
    /// List what runs changed: A added, C changed, D deleted
    Diff {
        #[command(flatten)]
        store: StoreOption,
        #[command(flatten)]
        json: Json,
        /// The image that it lies on [default: the one that was run]
        #[arg(long, value_name = "IMAGE")]
        base: Option<String>,
        /// What `run --upper DIR` kept
        #[arg(value_name = "DIR")]
        upper: PathBuf,
    },
    /// Make an image of what runs changed
    Commit {
        #[command(flatten)]
        store: StoreOption,
        #[command(flatten)]
        commit: Box<CommitOptions>,
    },
    /// Write images to an archive or directory for other tools
    #[command(visible_alias = "export")]
    Save {
        #[command(flatten)]
        store: StoreOption,
        #[arg(long, value_enum, default_value = "oci-archive")]
        format: FormatWord,
        /// A new file or directory
        #[arg(short, long, value_name = "FILE|DIR")]
        output: PathBuf,
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Make an image by the steps of a Dockerfile
    Build(Box<build::BuildOptions>),
    /// Give an image another name
    Tag {
        #[command(flatten)]
        store: StoreOption,
        #[arg(value_name = "IMAGE")]
        image: String,
        #[arg(value_name = "NAME[:TAG]")]
        name: Reference,
    },
    /// Remove images, and the layers that no other image has
    #[command(visible_alias = "rmi")]
    Rm {
        #[command(flatten)]
        store: StoreOption,
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Remove images without a name, unused layers, and what killed processes left
    Prune {
        #[command(flatten)]
        store: StoreOption,
    },
    /// Directories that outlive runs
    Volume {
        #[command(subcommand)]
        action: VolumeAction,
    },
}

#[derive(Args)]
pub struct CommitOptions {
    /// The image that it lies on [default: the one that was run]
    #[arg(long, value_name = "IMAGE")]
    base: Option<String>,
    /// Change the configuration: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    #[arg(short, long, value_name = "NAME")]
    author: Option<String>,
    /// The command, for the history
    #[arg(long, value_name = "COMMAND", default_value = "sandcell commit")]
    created_by: String,
    /// The date, RFC 3339; none otherwise, so that the same changes make the same image
    #[arg(long, value_name = "DATE")]
    created: Option<String>,
    /// What `run --upper DIR` kept
    #[arg(value_name = "DIR")]
    upper: PathBuf,
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<Reference>,
}

#[derive(Subcommand)]
pub enum VolumeAction {
    /// List the volumes
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        store: StoreOption,
        #[command(flatten)]
        json: Json,
    },
    /// Remove volumes with all that is in them
    Rm {
        #[command(flatten)]
        store: StoreOption,
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
    },
}

/// Carries it out; what is to be printed.
pub fn act(action: &ImageAction) -> Result<Vec<u8>, Error> {
    match action {
        ImageAction::Load { store, from, name, format, durable, quiet } => {
            let source = match format {
                SourceWord::Detect => Source::Detect(from.clone()),
                SourceWord::Oci => Source::Oci(from.clone()),
                SourceWord::Docker => Source::Docker(from.clone()),
                SourceWord::Rootfs => Source::RootFs(from.clone()),
            };
            load(&store.open()?, &source, name.as_ref(), *durable, *quiet)
        }
        #[cfg(feature = "pull")]
        ImageAction::Pull { store, pull } => pull::pull(&store.open()?, pull),
        ImageAction::Images { store, json, quiet } => images(&store.open()?, json.json, *quiet),
        ImageAction::Inspect { store, images } => {
            let store = store.open()?;
            let all = images.iter().map(|name| Ok(store.image(name)?.inspect())).collect::<Result<Vec<_>, Error>>()?;
            Ok(pretty(&Value::Array(all)))
        }
        ImageAction::History { store, json, no_trunc, image } => {
            Ok(history(&store.open()?.image(image)?, json.json, *no_trunc))
        }
        ImageAction::Diff { store, json, base, upper } => diff(&store.open()?, base.as_deref(), upper, json.json),
        ImageAction::Commit { store, commit } => commit_upper(&store.open()?, commit),
        ImageAction::Save { store, format, output, images } => {
            let format = match format {
                FormatWord::OciArchive => Format::OciArchive,
                FormatWord::OciDir => Format::OciDir,
                FormatWord::DockerArchive => Format::DockerArchive,
            };
            let images: Vec<&str> = images.iter().map(String::as_str).collect();
            store.open()?.export(&images, format, output)?;
            Ok(Vec::new())
        }
        ImageAction::Build(options) => build::build(options),
        ImageAction::Tag { store, image, name } => store.open()?.tag(image, name).map(|()| Vec::new()),
        ImageAction::Rm { store, images } => {
            let store = store.open()?;
            let mut all = Vec::new();
            for image in images {
                let gone = store.remove(image)?;
                if gone.images.is_empty() {
                    let _ = writeln!(all, "Untagged: {image}");
                }
                all.extend(removed(&gone));
            }
            Ok(all)
        }
        ImageAction::Prune { store } => {
            let pruned = store.open()?.prune()?;
            let mut text = removed(&pruned);
            let _ = writeln!(text, "Reclaimed: {}", size(pruned.bytes));
            Ok(text)
        }
        ImageAction::Volume { action: VolumeAction::Ls { store, json } } => volumes(&store.open()?, json.json),
        ImageAction::Volume { action: VolumeAction::Rm { store, names } } => {
            let store = store.open()?;
            for name in names {
                store.remove_volume(name)?;
            }
            Ok(format!("{}\n", names.join("\n")).into())
        }
    }
}

/// Bars on the terminal, where standard error is one.
pub fn bar(quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template("{msg:10} [{bar:40}] {binary_bytes}/{binary_total_bytes} {eta}");
    let bar = ProgressBar::with_draw_target(Some(0), target);
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn load(
    store: &Store,
    source: &Source,
    name: Option<&Reference>,
    durable: bool,
    quiet: bool,
) -> Result<Vec<u8>, Error> {
    let bar = bar(quiet);
    bar.set_message("Loading");
    let told = |progress| {
        if let Progress::Bytes { done, total, .. } = progress {
            bar.set_length(total);
            bar.set_position(done);
        }
    };
    let mut how = Load::new().progress(&told);
    if let Some(name) = name {
        how = how.name(name.clone());
    }
    if durable {
        how = how.durable();
    }
    let loaded = store.load(source, &how);
    bar.finish_and_clear();
    let mut text = Vec::new();
    for image in loaded?.iter().filter(|_| !quiet) {
        match &image.names[..] {
            [] => writeln!(text, "Loaded image: {}", image.id),
            names => writeln!(text, "Loaded image: {}", names.join(", ")),
        }
        .expect("writing to memory does not fail");
    }
    Ok(text)
}

fn images(store: &Store, as_json: bool, quiet: bool) -> Result<Vec<u8>, Error> {
    let images = store.images()?;
    if as_json {
        return Ok(pretty(&store.images_json()?));
    }
    if quiet {
        return Ok(images.iter().map(|image| image.id.short() + "\n").collect::<String>().into());
    }
    let mut table = Table::new(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED"]);
    for image in &images {
        let sizes = store.sizes(image)?;
        let created = ago(image.config.created.as_deref());
        let mut row = |name: &str, tag: &str| {
            table.row(&[name, tag, &image.id.short(), &created, &size(sizes.total), &size(sizes.shared)]);
        };
        if image.names.is_empty() {
            row("<none>", "<none>");
        }
        for name in &image.names {
            match name.parse::<Reference>() {
                Ok(name) => row(name.name(), name.tag().unwrap_or("<none>")),
                Err(_) => row(name, "<none>"),
            }
        }
    }
    Ok(table.text())
}

fn history(image: &Image, as_json: bool, whole: bool) -> Vec<u8> {
    let rows = image.history();
    if as_json {
        return pretty(&image.history_json());
    }
    let mut table = Table::new(&["ID", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    for (number, row) in rows.iter().enumerate() {
        let id = if number == 0 { image.id.short() } else { "<missing>".to_owned() };
        let command: String = row.created_by.split_whitespace().collect::<Vec<_>>().join(" ");
        let command = if whole || command.chars().count() <= 45 {
            command
        } else {
            command.chars().take(44).chain(['…']).collect()
        };
        table.row(&[&id, &ago(Some(&row.created)), &command, &size(row.size), &row.comment]);
    }
    table.text()
}

/// The image that an upper lies on: what was said, or what the run noted.
fn base(upper: &std::path::Path, said: Option<&str>) -> Result<String, Error> {
    match said {
        Some(said) => Ok(said.to_owned()),
        None => base_of(upper)?.ok_or_else(|| {
            let what = format!("{} (run --upper notes the image there; else say --base)", upper.display());
            Error::option(what, "nothing says which image it lies on")
        }),
    }
}

fn diff(store: &Store, said: Option<&str>, upper: &std::path::Path, as_json: bool) -> Result<Vec<u8>, Error> {
    let kept = store.use_image(&base(upper, said)?)?;
    let all = changes(&upper.join("upper"), &kept.layers)?;
    if as_json {
        let one = |change: &Change| json!({"path": change.path, "kind": change.kind.letter()});
        return Ok(pretty(&Value::Array(all.iter().map(one).collect())));
    }
    let mut text = Vec::new();
    for change in &all {
        let _ = writeln!(text, "{} {}", change.kind.letter(), change.path.display());
    }
    Ok(text)
}

fn commit_upper(store: &Store, options: &CommitOptions) -> Result<Vec<u8>, Error> {
    let base = base(&options.upper, options.base.as_deref())?;
    let mut commit = Commit::on(base).created_by(&options.created_by).owners(Owners::of_upper(&options.upper)?);
    if let Some(name) = &options.name {
        commit = commit.name(name.clone());
    }
    if let Some(text) = &options.message {
        commit = commit.comment(text);
    }
    if let Some(author) = &options.author {
        commit = commit.author(author);
    }
    if let Some(date) = &options.created {
        commit = commit.created(date);
    }
    for line in &options.change {
        commit = commit.change(line)?;
    }
    let image = store.commit(Some(&options.upper.join("upper")), &commit)?;
    Ok(format!("{}\n", image.id).into())
}

fn volumes(store: &Store, as_json: bool) -> Result<Vec<u8>, Error> {
    let volumes = store.volumes()?;
    if as_json {
        return Ok(pretty(&store.volumes_json()?));
    }
    let mut table = Table::new(&["VOLUME NAME", "CREATED", "IN USE"]);
    for volume in &volumes {
        table.row(&[&volume.name, &table::since(volume.created), if volume.in_use { "yes" } else { "no" }]);
    }
    Ok(table.text())
}

fn removed(pruned: &Pruned) -> Vec<u8> {
    let ids = pruned.images.iter().chain(&pruned.layers);
    ids.map(|id| format!("Deleted: {id}\n")).collect::<String>().into()
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("a value is always JSON");
    text.push(b'\n');
    text
}
