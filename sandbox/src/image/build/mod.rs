//! Images from a base image and steps, given by calls or by a Dockerfile.
//!
//! | file | what |
//! |---|---|
//! | `dockerfile`, `words` | reading a Dockerfile: lines and instructions, quotes and variables |
//! | `change` | steps that change the configuration only |
//! | `context`, `copy` | files of the caller into a layer |
//! | `run` | programs, each in a sandbox, and the layers that are known already |
//! | `make` | one step after another |

mod change;
mod context;
mod copy;
mod dockerfile;
mod make;
mod run;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::reference::Reference;
use crate::builder::Builder;

pub(crate) use change::change;
pub(crate) use dockerfile::configuration as instruction;
pub(crate) use words::Variables;

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
    base: String,
    context: Option<PathBuf>,
    steps: Vec<Step>,
    name: Option<Reference>,
    sandbox: Builder,
    args: BTreeMap<String, String>,
    timestamp: Option<i64>,
    cache: bool,
    show: bool,
    stop: Option<Arc<AtomicBool>>,
    /// The Dockerfile's name, for errors.
    file: String,
    from_line: Option<usize>,
    /// So many steps stand before FROM.
    global_args: usize,
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
    /// For `/bin/sh -c`.
    Shell(String),
    Words(Vec<String>),
}

/// Texts are as in a Dockerfile: with variables and quotes still in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Instruction {
    Arg(String),
    Run(Program),
    Copy { paths: String, owner: Option<String>, mode: Option<u32> },
    Env(String),
    Label(String),
    Workdir(String),
    User(String),
    Expose(String),
    Volume(String),
    StopSignal(String),
    Cmd(Program),
    Entrypoint(Program),
}

impl Program {
    pub(crate) fn words(&self) -> Vec<String> {
        match self {
            Program::Shell(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
            Program::Words(words) => words.clone(),
        }
    }
}

/// A word that means itself.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$"))
}

fn list(words: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    words.into_iter().map(Into::into).collect()
}

impl Build {
    /// On top of an image of the store, or of nothing: `scratch`.
    pub fn from(base: impl Into<String>) -> Build {
        Build {
            base: base.into(),
            context: None,
            steps: Vec::new(),
            name: None,
            sandbox: Builder::default(),
            args: BTreeMap::new(),
            timestamp: None,
            cache: true,
            show: false,
            stop: None,
            file: String::new(),
            from_line: None,
            global_args: 0,
        }
    }

    fn step(mut self, word: &str, rest: String, what: Instruction) -> Build {
        self.steps.push(Step { line: None, text: format!("{word} {rest}"), what });
        self
    }

    /// Runs a line of shell; what it changes is a layer. It is root inside, with many ids where the caller has
    /// sub-ids, and has no network but a private loopback unless [`Build::sandbox`] says otherwise.
    pub fn run(self, line: impl Into<String>) -> Build {
        let line = line.into();
        self.step("RUN", line.clone(), Instruction::Run(Program::Shell(line)))
    }

    /// Runs a program, without a shell.
    pub fn run_words(self, words: impl IntoIterator<Item = impl Into<String>>) -> Build {
        let words = list(words);
        self.step("RUN", format!("{words:?}"), Instruction::Run(Program::Words(words)))
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
        let owner = owner.map(|owner| quoted(&owner));
        self.step("COPY", all.join(" "), Instruction::Copy { paths: paths.join(" "), owner, mode })
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

    /// The value of an `ARG` of the Dockerfile.
    pub fn arg(mut self, key: impl Into<String>, value: impl Into<String>) -> Build {
        self.args.insert(key.into(), value.into());
        self
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
