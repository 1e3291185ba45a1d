//! What can be said on the command line, and the [`Builder`] that it comes to.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, PossibleValue, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand};
use sandcell::options::{self, Kind, Spec};
use sandcell::{Builder, Command, Error, Failure, Sandbox, Seccomp};

use crate::cdi::{Name, Specs};
use crate::cells::CellAction;
use crate::images::ImageAction;

/// Runs a program in a rootless sandbox.
#[derive(Parser)]
#[command(name = "sandcell", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub action: Action,
}

// `sandcell run` alone, too: a command line that is right is read without the description of all the others.
#[derive(Parser)]
#[command(name = "sandcell run")]
pub struct Run {
    #[command(flatten)]
    pub options: Box<Options>,
    #[command(flatten)]
    pub terminal: Terminal,
    /// Where the JSON report goes when the run ends, also when it failed: a file, or fd:N
    #[arg(long, value_name = "FILE|fd:N")]
    pub report: Option<OsString>,
    /// Tell on standard error how long each stage of the start takes
    #[arg(long)]
    pub trace: bool,
    #[command(flatten)]
    pub program: Program,
}

/// What the words of a command line say, the program's own name first.
pub fn understood(words: Vec<OsString>) -> Result<Cli, clap::Error> {
    if words.get(1).is_some_and(|word| word == "run")
        && let Ok(run) = Run::try_parse_from(&words[1..])
    {
        return Ok(Cli { action: Action::Run(run) });
    }
    // Of a mistake, and of a request for help, the whole description tells.
    Cli::try_parse_from(words)
}

#[derive(Subcommand)]
pub enum Action {
    /// Run a program and pass its exit status on
    #[command(after_help = STATUSES)]
    Run(Run),
    /// Run a shell, in an image of the store or with the host's programs; with a terminal where standard input and output are
    /// one
    #[command(after_help = STATUSES)]
    Shell {
        #[command(flatten)]
        options: Box<Options>,
        /// Where the JSON report goes when the run ends, also when it failed: a file, or fd:N
        #[arg(long, value_name = "FILE|fd:N")]
        report: Option<OsString>,
        /// An image of the store
        #[arg(id = "shell image", value_name = "IMAGE", conflicts_with_all = ["image", "root", "layer", "entrypoint"])]
        image: Option<OsString>,
    },
    /// Run a test program: the source tree read-only, the build directory writable, the environment kept
    #[command(after_help = STATUSES)]
    Test {
        #[command(flatten)]
        options: Box<Options>,
        /// The source tree, shown read-only [default: found from the working directory]
        #[arg(long, value_name = "DIR")]
        source: Option<PathBuf>,
        /// A build directory, shown writable; repeat [default: found from the program and the working directory]
        #[arg(long, value_name = "DIR")]
        build: Vec<PathBuf>,
        /// Where the JSON report goes when the run ends, also when it failed: a file, or fd:N
        #[arg(long, value_name = "FILE|fd:N")]
        report: Option<OsString>,
        #[command(flatten)]
        program: Program,
    },
    /// Print every step that a run would take; nothing is run
    Explain {
        #[command(flatten)]
        options: Box<Options>,
        #[command(flatten)]
        terminal: Terminal,
        /// As a JSON array
        #[arg(long)]
        json: bool,
        /// The system call profile in words, instead of the steps
        #[arg(long, conflicts_with = "json")]
        syscalls: bool,
        /// The options that differ from the defaults, one NAME=VALUE a line, instead of the steps; the host is not asked
        #[arg(long = "options", conflicts_with_all = ["json", "syscalls"])]
        only_options: bool,
        #[command(flatten)]
        program: Program,
    },
    /// Run a program and write the smallest system call profile that it needs
    Learn {
        #[command(flatten)]
        options: Box<Options>,
        /// Where the profile goes, in the JSON form of Docker's
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        program: Program,
    },
    /// Tell what this host allows, what blocks, and the remedy; status 1 where nothing can run
    Doctor(crate::doctor::Doctor),
    /// Work on trees whose files belong to leased ids: kept uppers, homes, images
    #[command(subcommand)]
    Files(crate::files::Files),
    /// Print a completion script
    Completions { shell: clap_complete::Shell },
    /// Print the manual page
    Man,
    #[command(flatten)]
    Image(ImageAction),
    #[command(flatten)]
    Cell(CellAction),
}

const STATUSES: &str = "Exit status: the program's own; 128+n ended by signal n; 124 timed out; 125 the sandbox \
    failed; 126 cannot be executed; 127 not found; 137 out of memory; 153 output limit; 159 system call denied.";

#[derive(Args)]
pub struct Terminal {
    /// Give the program a terminal of the sandbox's own, connected with ours: job control, its size, /dev/tty
    #[arg(short, long)]
    pub tty: bool,
    /// Keep standard input open, which it always is: for those who type -it
    #[arg(short, long)]
    interactive: bool,
}

#[derive(Args)]
pub struct Program {
    /// The program and its arguments; those of the image's entry point with --image, if any; /sbin/init with --init
    #[arg(required_unless_present_any = ["image", "init"], trailing_var_arg = true, value_name = "PROGRAM")]
    pub words: Vec<OsString>,
}

/// What a sandbox is to be like: the options of the library's table, read by it.
#[derive(Debug, Clone)]
pub struct Options {
    /// In the order of the table: variables of files come before those of the command line, which win.
    given: Vec<(&'static Spec, OsString)>,
    entrypoint: Option<OsString>,
    gpu: bool,
    /// Where specifications of devices lie.
    cdi_dirs: Vec<OsString>,
}

impl Args for Options {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = options::all().fold(command, |command, spec| command.arg(argument(spec)));
        let entrypoint = Arg::new("entrypoint").long("entrypoint").value_name("PROGRAM").requires("image");
        let gpu = Arg::new("gpu").long("gpu").action(ArgAction::SetTrue);
        let dirs = Arg::new("cdi_dir").long("cdi-dir").value_name("DIR").action(ArgAction::Append);
        let dirs = dirs.value_parser(OsStringValueParser::new()).help(
            "Where specifications of devices (CDI) lie, instead of /etc/cdi and /var/run/cdi; repeat, the last counts most",
        );
        let command =
            command.arg(dirs).arg(gpu.help("Show the graphics processors: NVIDIA's by CDI, or /dev/dri/renderD*"));
        command.arg(
            entrypoint.value_parser(OsStringValueParser::new()).help("Run this instead of the image's entry point"),
        )
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Options::augment_args(command)
    }
}

impl FromArgMatches for Options {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Options, clap::Error> {
        let values = |spec: &'static Spec| {
            let values = matches.get_many::<OsString>(spec.name).unwrap_or_default();
            values.map(move |value| (spec, value.clone()))
        };
        Ok(Options {
            given: options::all().flat_map(values).collect(),
            entrypoint: matches.get_one::<OsString>("entrypoint").cloned(),
            gpu: matches.get_flag("gpu"),
            cdi_dirs: matches.get_many::<OsString>("cdi_dir").unwrap_or_default().cloned().collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Options::from_arg_matches(matches)?;
        Ok(())
    }
}

/// An option of the table as clap wants it. The value is any text: the library reads it, and says what is wrong with it.
fn argument(spec: &'static Spec) -> Arg {
    let (words, form): (&'static [&'static str], _) = match spec.kind {
        Kind::Words(words) => (words, words.join("|")),
        Kind::Flag => (&["true", "false"], spec.form.to_owned()),
        _ => (&[], spec.form.to_owned()),
    };
    let default = if spec.default == "none" { String::new() } else { format!(" [default: {}]", spec.default) };
    let repeat = if spec.repeats { "; repeat" } else { "" };
    let argument = Arg::new(spec.name)
        .long(dashed(spec.name))
        .value_name(form)
        .value_parser(AnyText(words))
        .hide_possible_values(true)
        .action(if spec.repeats { ArgAction::Append } else { ArgAction::Set })
        .aliases(spec.deprecated.iter().map(|name| dashed(name)))
        .help(format!("{}{repeat}{default}", for_the_program(spec)));
    let argument = match spec.kind {
        Kind::Flag => {
            argument.num_args(0..=1).require_equals(true).default_missing_value("true").hide_default_value(true)
        }
        _ => argument,
    };
    match spec.name {
        "root" => argument.conflicts_with("layer"),
        "image" => argument.conflicts_with_all(["root", "layer"]),
        "env" => argument.short('e'),
        "chdir" => argument.short('C'),
        _ => argument,
    }
}

fn dashed(name: &str) -> String {
    name.replace('_', "-")
}

/// The help, in which names of other options are as the program spells them: `cap_add` is `--cap-add`.
fn for_the_program(spec: &Spec) -> String {
    let other = |word: &str| match spec.kind {
        Kind::Words(words) if words.contains(&word) => None,
        _ => options::find(word),
    };
    let part = |(number, part): (usize, &str)| match (number % 2, other(part)) {
        (0, _) => part.to_owned(),
        (_, Some(option)) => format!("`--{}`", dashed(option.name)),
        (_, None) => format!("`{part}`"),
    };
    spec.summary().split('`').enumerate().map(part).collect()
}

/// Any text; some words are offered for completion.
#[derive(Clone)]
struct AnyText(&'static [&'static str]);

impl TypedValueParser for AnyText {
    type Value = OsString;

    fn parse_ref(&self, _: &clap::Command, _: Option<&Arg>, value: &OsStr) -> Result<OsString, clap::Error> {
        Ok(value.to_owned())
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let words = || self.0.iter().map(PossibleValue::new);
        (!self.0.is_empty()).then(|| Box::new(words()) as Box<_>)
    }
}

impl Options {
    /// The program that was asked for, in a sandbox of its own.
    pub fn command(&self, sandbox: &Sandbox, words: &[OsString]) -> Result<Command, Error> {
        let argv = self.argv(sandbox, words)?;
        let mut command = sandbox.command(&argv[0]);
        command.args(&argv[1..]);
        Ok(command)
    }

    /// The same with this image as the root.
    pub fn with_image(mut self, image: OsString) -> Options {
        if let Some(spec) = options::find("image") {
            self.given.push((spec, image));
        }
        self
    }

    /// Whether an image is the root, which may name a program itself.
    pub fn has_image(&self) -> bool {
        self.given.iter().any(|(spec, _)| spec.name == "image")
    }

    /// Whether these options name a program.
    pub fn names_program(&self) -> bool {
        self.entrypoint.is_some() || self.has_image() && !self.given.iter().any(|(spec, _)| spec.name == "init")
    }

    /// The program and its arguments: at least one word, which is not empty.
    pub fn argv(&self, sandbox: &Sandbox, words: &[OsString]) -> Result<Vec<OsString>, Error> {
        let image = self.has_image();
        let argv = match &self.entrypoint {
            Some(program) => std::iter::once(program).chain(words).cloned().collect(),
            None if sandbox.policy().init && words.is_empty() => vec!["/sbin/init".into()],
            None if image => sandbox.image_argv(words)?,
            None => words.to_vec(),
        };
        if argv.first().is_none_or(|program| program.is_empty()) {
            let error = Error::option("program", "no program is named");
            return Err(amended(error, |failure| failure.hint = "name one".to_owned()));
        }
        Ok(argv)
    }

    /// The sandbox that was asked for, or what is wrong with what was said.
    pub fn sandbox(&self) -> Result<Sandbox, Error> {
        self.builder()?.build()
    }

    /// What was asked for, not yet compared with what the host can do.
    pub fn builder(&self) -> Result<Builder, Error> {
        self.applied_to(Sandbox::builder())
    }

    /// The system call profile in words.
    pub fn syscalls(&self) -> Result<String, Error> {
        let builder = self.builder()?;
        let policy = builder.policy();
        Ok(match &policy.seccomp {
            Seccomp::Off => "Every system call: allowed.\n".to_owned(),
            _ => policy.profile().explain(&policy.cap_add),
        })
    }

    /// What was said, over the defaults that `builder` comes with.
    pub fn applied_to(&self, builder: Builder) -> Result<Builder, Error> {
        let named = |(spec, value): &(&Spec, OsString)| spec.name == "device" && Name::of(value).is_some();
        let mut specs = Specs::default();
        if self.gpu || self.given.iter().any(named) {
            specs.read(&self.cdi_dirs);
        }
        // Before variables of the command line, which win over those of a device.
        let builder = if self.gpu { specs.gpu(builder)? } else { builder };
        self.given.iter().try_fold(builder, |builder, (spec, value)| match (spec.name, Name::of(value)) {
            ("chdir", _) => spec.apply(builder, from_here(value).as_os_str()),
            ("device", Some(name)) => specs.add(builder, &name),
            _ => spec.apply(builder, value.as_os_str()),
        })
    }
}

/// A working directory as a shell's user means it. What is no path stays as it is: the library says what is wrong with it.
fn from_here(dir: &OsStr) -> OsString {
    match dir.is_empty() {
        true => dir.to_owned(),
        false => options::from_here(dir.as_ref()).map_or_else(|_| dir.to_owned(), OsString::from),
    }
}

/// A mistake in what was said on the command line.
pub fn wrong(option: &str, value: &OsStr, message: impl Into<String>) -> Error {
    Error::option(format!("{option} {}", value.to_string_lossy()), message)
}

/// The same error with more said of it.
pub fn amended(mut error: Error, amend: impl FnOnce(&mut Failure)) -> Error {
    if let Error::Config(failure)
    | Error::Unsupported(failure)
    | Error::Setup(failure)
    | Error::Exec(failure)
    | Error::Io(failure) = &mut error
    {
        amend(failure);
    }
    error
}
