//! The subcommands about images: what is in the store, how it gets there and out of it.

mod build;
#[cfg(feature = "pull")]
mod pull;
mod said;
pub mod table;

use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sandcell::image::{
    Change, Commit, Format, Image, Load, Platform, Progress, Pruned, Reference, Source, Store, base_of, changes,
};
use sandcell::{Error, printable, printable_json};
use serde_json::{Value, json};

use crate::options::{amended, wrong};
use said::Said;
use table::{Table, ago, size};

#[derive(Args)]
pub struct StoreOption {
    /// The store of images and volumes [default: $XDG_DATA_HOME/sandcell/images]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

impl StoreOption {
    fn is_given(&self) -> bool {
        self.store.is_some()
    }

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
        /// An archive (plain, gzip, zstd, xz or bzip2) or a directory; `-` is standard input
        #[arg(value_name = "FILE|DIR", default_value = "-")]
        from: PathBuf,
        /// The image's name, instead of the archive's own
        #[arg(short = 't', long = "tag", visible_alias = "name", value_name = "NAME[:TAG]")]
        name: Option<Reference>,
        /// What it is
        #[arg(long, value_enum, default_value = "detect")]
        format: SourceWord,
        /// The platform that is meant, instead of this host's: to hand the images on
        #[arg(long, value_name = "OS/ARCHITECTURE")]
        platform: Option<Platform>,
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
    /// Print all about cells and images, as JSON; where both have the name, about the cell
    Inspect {
        #[command(flatten)]
        store: StoreOption,
        #[arg(required = true, value_name = "NAME")]
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
        /// A new file or directory; `-` is standard output
        #[arg(short, long, value_name = "FILE|DIR", default_value = "-")]
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
    /// Remove what cells that have ended have left, and images; where both have the name, the cell's
    Rm {
        #[command(flatten)]
        store: StoreOption,
        /// End cells that live
        #[arg(short, long)]
        force: bool,
        #[arg(required = true, value_name = "NAME")]
        images: Vec<String>,
    },
    /// Remove images, and the layers that no other image has
    Rmi {
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
    #[command(flatten)]
    said: Said<Commit>,
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

/// Carries it out; what is to be printed. `status` is changed where an error is a program's own.
pub fn act(action: &ImageAction, status: &mut u8) -> Result<Vec<u8>, Error> {
    match action {
        ImageAction::Load { store, from, name, format, platform, durable, quiet } => {
            let source = match format {
                SourceWord::Detect => Source::Detect(from.clone()),
                SourceWord::Oci => Source::Oci(from.clone()),
                SourceWord::Docker => Source::Docker(from.clone()),
                SourceWord::Rootfs => Source::RootFs(from.clone()),
            };
            let mut how = Load::new();
            if let Some(name) = name {
                how = how.name(name.clone());
            }
            if let Some(platform) = platform {
                how = how.platform(platform.clone());
            }
            load(&store.open()?, &source, if *durable { how.durable() } else { how }, *quiet)
        }
        #[cfg(feature = "pull")]
        ImageAction::Pull { store, pull } => pull::pull(&store.open()?, pull),
        ImageAction::Images { store, json, quiet } => images(&store.open()?, json.json, *quiet),
        ImageAction::Inspect { store, images } => inspect(store, images),
        ImageAction::History { store, json, no_trunc, image } => {
            Ok(history(&store.open()?.image(image)?, json.json, *no_trunc))
        }
        ImageAction::Diff { store, json, base, upper } => diff(&store.open()?, base.as_deref(), upper, json.json),
        ImageAction::Commit { store, commit } => commit_upper(&store.open()?, commit),
        ImageAction::Save { store, format, output, images } => save(&store.open()?, *format, output, images),
        ImageAction::Build(options) => build::build(options, status),
        ImageAction::Tag { store, image, name } => store.open()?.tag(image, name).map(|()| Vec::new()),
        ImageAction::Rm { store, force, images } => {
            let (cells, images): (Vec<_>, Vec<_>) = images.iter().partition(|name| is_cell(store, name));
            cells.into_iter().try_for_each(|name| crate::cells::remove(name, *force))?;
            match images.is_empty() {
                true => Ok(Vec::new()),
                false if store.is_given() => remove(store, images),
                false => remove(store, images).map_err(either),
            }
        }
        ImageAction::Rmi { store, images } => remove(store, images),
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

fn save(store: &Store, format: FormatWord, output: &Path, images: &[String]) -> Result<Vec<u8>, Error> {
    let format = match format {
        FormatWord::OciArchive => Format::OciArchive,
        FormatWord::OciDir => Format::OciDir,
        FormatWord::DockerArchive => Format::DockerArchive,
    };
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    match output.to_str() {
        Some("-") => save_to_output(store, &images, format)?,
        _ => store.export(&images, format, output)?,
    }
    Ok(Vec::new())
}

/// `sandcell save app:1 | docker load`.
fn save_to_output(store: &Store, images: &[&str], format: Format) -> Result<(), Error> {
    let out = std::io::stdout();
    if out.is_terminal() {
        return Err(wrong("--output", "-".as_ref(), "is a terminal: name a file, or send it to a pipe or file"));
    }
    store.export_to(images, format, out.lock())
}

/// Whether a cell has the name, and nobody has said that it is one in a store.
fn is_cell(store: &StoreOption, name: &str) -> bool {
    !store.is_given() && sandcell::Cell::find(name).is_ok()
}

/// Where a name may be that of a cell, too.
fn either(error: Error) -> Error {
    amended(error, |failure| {
        if failure.message == "no such image in the store" {
            // The tag is not what was written.
            failure.subject = failure.subject.trim_end_matches(":latest").to_owned();
            failure.message = "there is neither a cell nor an image of this name".to_owned();
            failure.hint = "List them: `sandcell ps -a`, `sandcell images`.".to_owned();
        }
    })
}

fn inspect(store: &StoreOption, names: &[String]) -> Result<Vec<u8>, Error> {
    let one = |name: &String| match is_cell(store, name) {
        true => crate::cells::inspect(name),
        false if store.is_given() => Ok(read(&store.open()?.image(name)?.inspect())),
        false => Ok(read(&store.open()?.image(name).map_err(either)?.inspect())),
    };
    Ok(pretty(&Value::Array(names.iter().map(one).collect::<Result<_, Error>>()?)))
}

fn remove<'a>(store: &StoreOption, images: impl IntoIterator<Item = &'a String>) -> Result<Vec<u8>, Error> {
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

fn load(store: &Store, source: &Source, how: Load<'_>, quiet: bool) -> Result<Vec<u8>, Error> {
    let bar = bar(quiet);
    bar.set_message("Loading");
    let told = |progress| {
        if let Progress::Bytes { done, total, .. } = progress {
            bar.set_length(total);
            bar.set_position(done);
        }
    };
    let how = how.progress(&told);
    let loaded = match source {
        Source::Detect(path) | Source::Oci(path) | Source::Docker(path) | Source::RootFs(path)
            if path.as_os_str() == "-" =>
        {
            let stdin = std::io::stdin();
            if stdin.is_terminal() {
                return Err(wrong("FILE|DIR", path.as_os_str(), "standard input is a terminal: name a file"));
            }
            store.load_from(stdin.lock(), source, &how)
        }
        source => store.load(source, &how),
    };
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
        return Ok(pretty(&read(&store.images_json()?)));
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
        return pretty(&read(&image.history_json()));
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
    let all = changes(upper, &kept.layers)?;
    if as_json {
        let one = |change: &Change| json!({"path": change.path, "kind": change.kind.letter()});
        return Ok(pretty(&Value::Array(all.iter().map(one).collect())));
    }
    let mut text = Vec::new();
    for change in &all {
        let _ = writeln!(text, "{} {}", change.kind.letter(), printable(change.path.as_os_str().as_bytes()));
    }
    Ok(text)
}

fn commit_upper(store: &Store, options: &CommitOptions) -> Result<Vec<u8>, Error> {
    let base = base(&options.upper, options.said.get("base"))?;
    let commit = options.said.say(Commit::on(base).created_by("sandcell commit"))?;
    let commit = match &options.name {
        Some(name) => commit.name(name.clone()),
        None => commit,
    };
    let image = store.commit(Some(&options.upper), &commit)?;
    Ok(format!("{}\n", image.id).into())
}

fn volumes(store: &Store, as_json: bool) -> Result<Vec<u8>, Error> {
    let volumes = store.volumes()?;
    if as_json {
        return Ok(pretty(&read(&store.volumes_json()?)));
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

fn read(json: &str) -> Value {
    serde_json::from_str(json).expect("it was just made")
}

fn pretty(value: &Value) -> Vec<u8> {
    let text = serde_json::to_string_pretty(value).expect("a value is always JSON");
    (printable_json(&text) + "\n").into()
}
