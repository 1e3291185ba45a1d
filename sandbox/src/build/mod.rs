//! Images from a base image and steps, given by calls or by a Dockerfile.
//!
//! | file | what |
//! |---|---|
//! | `lines`, `dockerfile`, `flags`, `words` | reading a Dockerfile: lines, instructions, their flags, quotes and variables |
//! | `change` | steps that change the configuration only |
//! | `context`, `glob`, `copy` | files of the caller into a layer |
//! | `files`, `archive` | files of another stage or image; archives that `ADD` unpacks |
//! | `run`, `mount` | programs, each in a sandbox, with their mounts, and the layers that are known already |
//! | `stages`, `make` | which stages are needed; one step after another |

mod archive;
mod change;
mod commit;
mod context;
mod copy;
mod dockerfile;
mod files;
mod flags;
mod glob;
mod lines;
mod make;
mod mount;
mod options;
mod run;
mod stages;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::Value;

use crate::images::platform::Platform;
use crate::images::reference::Reference;
use crate::policy::builder::Builder;
use crate::report::Outcome;

pub use commit::Commit;
pub use options::ImageOption;

/// How to make an image; [`Store::build`](super::Store::build) makes it.
///
/// ```no_run
/// use sandcell::image::{Build, Store};
///
/// let build = Build::from("debian:12").context(".").copy(["app"], "/usr/bin/app").cmd(["app"]).name("app:1".parse()?);
/// let image = Store::open_default()?.build(&build, &|step| println!("{}", step.text))?;
/// # Ok::<(), sandcell::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Build {
    stages: Vec<Stage>,
    /// ARG before the first FROM.
    global: Vec<Step>,
    target: Option<String>,
    platform: Option<Platform>,
    context: Option<PathBuf>,
    /// What counts instead of the context's `.dockerignore`, where it is there.
    ignore_file: Option<PathBuf>,
    secrets: BTreeMap<String, Secret>,
    /// Sockets of ssh agents.
    agents: BTreeMap<String, PathBuf>,
    name: Option<Reference>,
    sandbox: Builder,
    args: BTreeMap<String, String>,
    timestamp: Option<i64>,
    cache: bool,
    show: bool,
    stop: Option<Arc<AtomicBool>>,
    /// The Dockerfile's name, for errors.
    file: String,
}

/// A stage: a base and what is done with it.
#[derive(Debug, Clone)]
struct Stage {
    base: String,
    /// In small letters.
    name: Option<String>,
    platform: Option<String>,
    line: Option<usize>,
    steps: Vec<Step>,
}

/// What a step may see and the image never has.
#[derive(Clone)]
enum Secret {
    File(PathBuf),
    Value(Vec<u8>),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Secret::File(path) => write!(f, "{}", path.display()),
            Secret::Value(_) => f.write_str("(a secret)"),
        }
    }
}

/// A step that is about to be made, for whoever watches.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuildStep {
    /// From 1 on; 1 is the base image.
    pub number: usize,
    /// How many there are.
    pub total: usize,
    /// As a Dockerfile has it.
    pub text: String,
    /// Its layer was made before, and is taken as it is.
    pub cached: bool,
    /// How its program ended, where that was not well: it is told a second time then, before the error.
    pub outcome: Option<Outcome>,
}

#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub line: Option<usize>,
    pub text: String,
    pub what: Instruction,
}

/// What programs are named by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Program {
    /// For the shell: `/bin/sh -c` unless SHELL says otherwise.
    Shell(String),
    Words(Vec<String>),
    /// A text that names its interpreter in the first line.
    Script(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunStep {
    program: Program,
    mounts: Vec<flags::MountFlag>,
    no_network: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CopyStep {
    paths: String,
    owner: Option<String>,
    mode: Option<String>,
    /// The sources' directories are kept: `--parents`.
    parents: bool,
    /// Patterns of what is left out: `--exclude`.
    excluded: Vec<String>,
    /// A stage or an image; the context otherwise.
    from: Option<String>,
    /// Archives are unpacked: ADD.
    unpacks: bool,
    documents: Vec<lines::Document>,
}

/// Texts are as in a Dockerfile: with variables and quotes still in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Instruction {
    Arg(String),
    Run(RunStep),
    Copy(CopyStep),
    Env(String),
    Label(String),
    Workdir(String),
    User(String),
    Expose(String),
    Volume(String),
    StopSignal(String),
    Cmd(Program),
    Entrypoint(Program),
    Shell(Vec<String>),
    Healthcheck(Value),
    Onbuild(String),
    Maintainer(String),
}

/// Where the text of a script is while it runs.
const SCRIPT: &str = "/run/sandcell-build-script";

impl Program {
    /// `shell`: what SHELL says, or nothing.
    pub(crate) fn words(&self, shell: &[String]) -> Vec<String> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match self {
            Program::Shell(line) if shell.is_empty() => owned(&["/bin/sh", "-c", line]),
            Program::Shell(line) => [shell, std::slice::from_ref(line)].concat(),
            Program::Words(words) => words.clone(),
            Program::Script(text) => {
                // As the kernel has it: one argument at most.
                let first = text.lines().next().unwrap_or_default().trim_start_matches("#!").trim();
                let (interpreter, argument) = first.split_once(char::is_whitespace).unwrap_or((first, ""));
                let words = [interpreter, argument.trim(), SCRIPT].into_iter().filter(|word| !word.is_empty());
                words.map(str::to_owned).collect()
            }
        }
    }
}

/// A word that means itself.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$"))
}

fn run_step(program: Program) -> Instruction {
    Instruction::Run(RunStep { program, mounts: Vec::new(), no_network: false })
}

fn list(words: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    words.into_iter().map(Into::into).collect()
}

impl Build {
    /// On top of an image of the store, or of nothing: `scratch`.
    pub fn from(base: impl Into<String>) -> Build {
        Build {
            stages: vec![Stage { base: base.into(), name: None, platform: None, line: None, steps: Vec::new() }],
            global: Vec::new(),
            target: None,
            platform: None,
            context: None,
            ignore_file: None,
            secrets: BTreeMap::new(),
            agents: BTreeMap::new(),
            name: None,
            sandbox: Builder::default(),
            args: BTreeMap::new(),
            timestamp: None,
            cache: true,
            show: false,
            stop: None,
            file: String::new(),
        }
    }

    fn step(mut self, word: &str, rest: String, what: Instruction) -> Build {
        let step = Step { line: None, text: format!("{word} {rest}"), what };
        if let Some(stage) = self.stages.last_mut() {
            stage.steps.push(step);
        }
        self
    }

    /// Runs a line of shell; what it changes is a layer. It is root inside, with many ids where the caller has
    /// sub-ids, and has no network but a private loopback unless [`Build::sandbox`] says otherwise.
    pub fn run(self, line: impl Into<String>) -> Build {
        let line = line.into();
        self.step("RUN", line.clone(), run_step(Program::Shell(line)))
    }

    /// Runs a program, without a shell.
    pub fn run_words(self, words: impl IntoIterator<Item = impl Into<String>>) -> Build {
        let words = list(words);
        self.step("RUN", format!("{words:?}"), run_step(Program::Words(words)))
    }

    /// Copies files and the content of directories of the context; a layer. `dest` is a directory where it ends with
    /// a slash, is one in the image, or where there are several sources. `*`, `?` and `[…]` in sources are patterns.
    pub fn copy(self, sources: impl IntoIterator<Item = impl Into<String>>, dest: impl Into<String>) -> Build {
        self.copy_as(sources, dest, None, None)
    }

    /// The same with an owner (`USER[:GROUP]`; root otherwise) and permission bits (those of the files otherwise).
    pub fn copy_as(
        self,
        sources: impl IntoIterator<Item = impl Into<String>>,
        dest: impl Into<String>,
        owner: Option<String>,
        mode: Option<u32>,
    ) -> Build {
        let (mut all, mut paths) = (list(sources), Vec::new());
        all.push(dest.into());
        paths.extend(all.iter().map(|path| quoted(path)));
        let (owner, mode) = (owner.map(|owner| quoted(&owner)), mode.map(|mode| format!("{mode:o}")));
        let step = CopyStep { paths: paths.join(" "), owner, mode, ..CopyStep::default() };
        self.step("COPY", all.join(" "), Instruction::Copy(step))
    }

    /// The same from another image of the store, owners and all, or from an earlier stage by its name or number.
    pub fn copy_from(
        self,
        from: impl Into<String>,
        sources: impl IntoIterator<Item = impl Into<String>>,
        dest: impl Into<String>,
    ) -> Build {
        let (mut all, from) = (list(sources), from.into());
        all.push(dest.into());
        let paths = all.iter().map(|path| quoted(path)).collect::<Vec<_>>().join(" ");
        let text = format!("--from={from} {}", all.join(" "));
        self.step("COPY", text, Instruction::Copy(CopyStep { paths, from: Some(from), ..CopyStep::default() }))
    }

    /// Begins another stage, as a further `FROM … AS name`: the stages before are there to copy from, and the last one
    /// is the image, unless [`Build::target`] says otherwise.
    pub fn stage(mut self, base: impl Into<String>, name: impl Into<String>) -> Build {
        let (base, name) = (base.into(), Some(name.into().to_lowercase()));
        self.stages.push(Stage { base, name, platform: None, line: None, steps: Vec::new() });
        self
    }

    /// The stage that becomes the image, by its name or number. Stages that it does not need are not made.
    pub fn target(mut self, stage: impl Into<String>) -> Build {
        self.target = Some(stage.into());
        self
    }

    /// What the image is for, instead of this host. `FROM --platform=$BUILDPLATFORM` makes a stage for this host all the same;
    /// programs of another architecture do not run.
    pub fn platform(mut self, platform: Platform) -> Build {
        self.platform = Some(platform);
        self
    }

    fn wanted(&self) -> Platform {
        self.platform.clone().unwrap_or_else(Platform::host)
    }

    /// A secret for `RUN --mount=type=secret,id=…`: what the file has when the step runs. It is in no layer, and a step
    /// is found again whatever it was.
    pub fn secret_file(mut self, id: impl Into<String>, file: impl Into<PathBuf>) -> Build {
        self.secrets.insert(id.into(), Secret::File(file.into()));
        self
    }

    /// The same with its content.
    pub fn secret(mut self, id: impl Into<String>, content: impl Into<Vec<u8>>) -> Build {
        self.secrets.insert(id.into(), Secret::Value(content.into()));
        self
    }

    /// The socket of an ssh agent for `RUN --mount=type=ssh`, which most steps know as `default`.
    pub fn ssh_agent(mut self, id: impl Into<String>, socket: impl Into<PathBuf>) -> Build {
        self.agents.insert(id.into(), socket.into());
        self
    }

    /// Sets an environment variable, for the steps that follow and for runs.
    pub fn env(self, key: impl AsRef<str>, value: impl AsRef<str>) -> Build {
        let (key, value) = (key.as_ref(), value.as_ref());
        self.step("ENV", format!("{key}={value}"), Instruction::Env(format!("{}={}", quoted(key), quoted(value))))
    }

    /// Sets a label.
    pub fn label(self, key: impl AsRef<str>, value: impl AsRef<str>) -> Build {
        let (key, value) = (key.as_ref(), value.as_ref());
        self.step("LABEL", format!("{key}={value}"), Instruction::Label(format!("{}={}", quoted(key), quoted(value))))
    }

    /// The working directory, for the steps that follow and for runs; from the one before where it is relative.
    pub fn workdir(self, dir: impl Into<String>) -> Build {
        let dir = dir.into();
        self.step("WORKDIR", dir.clone(), Instruction::Workdir(quoted(&dir)))
    }

    /// Who the programs are, of the steps that follow and of runs: `USER[:GROUP]`, names or numbers.
    pub fn user(self, user: impl Into<String>) -> Build {
        let user = user.into();
        self.step("USER", user.clone(), Instruction::User(quoted(&user)))
    }

    /// A port that the image's program listens at: `80` or `53/udp`. For people to read.
    pub fn expose(self, port: impl Into<String>) -> Build {
        let port = port.into();
        self.step("EXPOSE", port.clone(), Instruction::Expose(quoted(&port)))
    }

    /// A directory whose content is worth keeping.
    pub fn volume(self, dir: impl Into<String>) -> Build {
        let dir = dir.into();
        self.step("VOLUME", dir.clone(), Instruction::Volume(quoted(&dir)))
    }

    /// The signal that ends the image's program gently: `SIGTERM`. For other tools to read.
    pub fn stop_signal(self, signal: impl Into<String>) -> Build {
        let signal = signal.into();
        self.step("STOPSIGNAL", signal.clone(), Instruction::StopSignal(quoted(&signal)))
    }

    /// The program of a run, or the arguments of the entry point.
    pub fn cmd(self, words: impl IntoIterator<Item = impl Into<String>>) -> Build {
        let words = list(words);
        self.step("CMD", format!("{words:?}"), Instruction::Cmd(Program::Words(words)))
    }

    /// The program of a run that the caller's words are arguments of.
    pub fn entrypoint(self, words: impl IntoIterator<Item = impl Into<String>>) -> Build {
        let words = list(words);
        self.step("ENTRYPOINT", format!("{words:?}"), Instruction::Entrypoint(Program::Words(words)))
    }

    /// Where the files to be copied are; with its `.dockerignore`.
    pub fn context(mut self, dir: impl Into<PathBuf>) -> Build {
        self.context = Some(dir.into());
        self
    }

    /// The new image's name.
    pub fn name(mut self, name: Reference) -> Build {
        self.name = Some(name);
        self
    }

    /// The value of an `ARG` of the Dockerfile; see [`Build::undeclared_args`].
    pub fn arg(mut self, key: impl Into<String>, value: impl Into<String>) -> Build {
        self.args.insert(key.into(), value.into());
        self
    }

    /// The arguments that were given and that no `ARG` declares: they change nothing, and may be misspelt.
    pub fn undeclared_args(&self) -> Vec<&str> {
        self.args.keys().map(String::as_str).filter(|key| !self.declares(key)).collect()
    }

    /// What the programs of the steps run in: limits, network, mounts. Root, upper, user, working directory and
    /// environment are the build's.
    pub fn sandbox(mut self, sandbox: Builder) -> Build {
        self.sandbox = sandbox;
        self
    }

    /// The image's date, and the latest that a file in a new layer can have, in seconds since 1970
    /// (`SOURCE_DATE_EPOCH`): the same steps then make the same image whenever they run, as far as the programs do the
    /// same. Without it the image has no date.
    pub fn timestamp(mut self, seconds: i64) -> Build {
        self.timestamp = Some(seconds);
        self
    }

    /// Whether layers that were made before by the same step on the same layers are taken as they are; they are by
    /// default.
    pub fn cache(mut self, cache: bool) -> Build {
        self.cache = cache;
        self
    }

    /// Ends with an error soon after this is set: the program that runs is killed, and no further step is made.
    pub fn stop(mut self, stop: Arc<AtomicBool>) -> Build {
        self.stop = Some(stop);
        self
    }

    /// Lets programs write to the caller's own standard output and error. Otherwise the end of what they wrote is in
    /// the error of a step that fails.
    pub fn show_output(mut self, show: bool) -> Build {
        self.show = show;
        self
    }
}
