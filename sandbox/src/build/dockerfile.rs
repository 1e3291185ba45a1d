//! Reading a Dockerfile: which instructions, in which line. What is not understood is an error that names it.

use std::io;
use std::path::{Path, PathBuf};

use super::flags::{Wrong, chmod, healthcheck, leading, mount, unsupported};
use super::lines::{Line, lines};
use super::{Build, CopyStep, Instruction, Program, RunStep, Stage, Step};
use crate::error::{Failure, Result};
use crate::sys::beneath;

impl Build {
    /// The build that a Dockerfile describes, which is read now; see [`Build::dockerfile`]. Links are followed. What is
    /// beside it under its name and `.dockerignore` counts instead of the context's own.
    ///
    /// # Errors
    /// `Config` where it is no ordinary file, is longer than 1 MiB or is not UTF-8, and those of
    /// [`Build::dockerfile`].
    pub fn dockerfile_at(path: impl AsRef<Path>) -> Result<Build> {
        let name = path.as_ref().display().to_string();
        let failure = || Failure::new("option", format!("dockerfile {name}"), "cannot be read");
        let bytes = beneath::read_named(path.as_ref(), beneath::SHORT).map_err(|why| why.told(failure()).config())?;
        let text = String::from_utf8(bytes).map_err(|_| {
            failure().cause(&io::Error::other("it is not UTF-8")).hint("Save it as UTF-8 text.").config()
        })?;
        let mut build = Build::dockerfile(&text, &name)?;
        let mut ignore = path.as_ref().as_os_str().to_owned();
        ignore.push(".dockerignore");
        build.ignore_file = Some(PathBuf::from(ignore));
        Ok(build)
    }

    /// The build that a Dockerfile describes; `name` stands in errors. All instructions are understood but for `ADD` of
    /// addresses and `RUN --security`.
    ///
    /// # Errors
    /// `Config` for what is not understood, with the line.
    pub fn dockerfile(text: &str, name: &str) -> Result<Build> {
        let mut build = Build::from("scratch");
        build.stages.clear();
        build.file = name.to_owned();
        for line in lines(text, name)? {
            let wrong = |message: String| at(name, line.number, message);
            if line.word == "FROM" {
                let stage = from(&line).map_err(|(message, hint)| wrong(message).hint(hint).config())?;
                build.stages.push(stage);
                continue;
            }
            let step = Step {
                line: Some(line.number),
                text: format!("{} {}", line.word, line.rest),
                what: instruction(&line).map_err(|(message, hint)| wrong(message).hint(hint).config())?,
            };
            match (build.stages.last_mut(), &step.what) {
                (Some(stage), _) => stage.steps.push(step),
                (None, Instruction::Arg(..)) => build.global.push(step),
                (None, _) => return Err(wrong(format!("{} before FROM", line.word)).config()),
            }
        }
        if build.stages.is_empty() {
            let failure = Failure::new("dockerfile", name, "there is no FROM in it");
            return Err(failure.hint("name the base image: FROM app:1").config());
        }
        Ok(build)
    }
}

/// A single instruction that changes the configuration only.
pub(crate) fn configuration(line: &str) -> Result<Instruction> {
    let wrong = |message: &str, hint: &str| {
        Failure::new("option", line.escape_debug().to_string(), message).hint(hint).config()
    };
    let lines = lines(line, "change")?;
    let [line] = &lines[..] else { return Err(wrong("not one instruction", "write one at a time")) };
    match instruction(line) {
        Ok(Instruction::Run(_) | Instruction::Copy(_) | Instruction::Arg(_)) => {
            Err(wrong("changes more than the configuration", "use a Dockerfile"))
        }
        Ok(instruction) => Ok(instruction),
        Err((message, hint)) => Err(wrong(&message, hint)),
    }
}

/// What an image asks to be done in the builds that begin with it.
pub(super) fn trigger(text: &str, image: &str) -> Result<Step> {
    let wrong = |message: &str| {
        Failure::new("image-build", text.escape_debug().to_string(), format!("ONBUILD of {image}: {message}"))
    };
    let read = lines(text, "ONBUILD")?;
    let [line] = &read[..] else { return Err(wrong("not one instruction").config()) };
    let what = instruction(line).map_err(|(message, hint)| wrong(&message).hint(hint).config())?;
    Ok(Step { line: None, text: format!("{} {}", line.word, line.rest), what })
}

pub(super) fn at(name: &str, line: usize, message: impl Into<String>) -> Failure {
    Failure::new("dockerfile", format!("{name}:{line}"), message)
}

/// `[--platform=…] IMAGE [AS NAME]`.
fn from(line: &Line) -> std::result::Result<Stage, Wrong> {
    let (flags, rest) = leading(&line.rest);
    let mut platform = None;
    for flag in flags {
        match flag {
            ("--platform", Some(value)) => platform = Some(value.to_owned()),
            flag => return Err(unsupported("FROM", flag, "leave it out")),
        }
    }
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (base, name) = match words[..] {
        [image] => (image, None),
        [image, r#as, name] if r#as.eq_ignore_ascii_case("as") => (image, Some(name.to_lowercase())),
        _ => return Err(("FROM takes the name of an image".to_owned(), "write FROM IMAGE, or FROM IMAGE AS NAME")),
    };
    Ok(Stage { base: base.to_owned(), name, platform, line: Some(line.number), steps: Vec::new() })
}

fn instruction(line: &Line) -> std::result::Result<Instruction, Wrong> {
    let word = line.word.as_str();
    if line.rest.is_empty() {
        return Err(if KNOWN.contains(&word) { (format!("{word} says nothing"), "") } else { unknown(word) });
    }
    let rest = line.rest.clone();
    Ok(match word {
        "RUN" => run(line)?,
        "CMD" => Instruction::Cmd(program(&rest)),
        "ENTRYPOINT" => Instruction::Entrypoint(program(&rest)),
        "COPY" | "ADD" => copy(line)?,
        "ENV" => Instruction::Env(rest),
        "LABEL" => Instruction::Label(rest),
        "ARG" => Instruction::Arg(rest),
        "WORKDIR" => Instruction::Workdir(rest),
        "USER" => Instruction::User(rest),
        "EXPOSE" => Instruction::Expose(rest),
        "STOPSIGNAL" => Instruction::StopSignal(rest),
        "VOLUME" => Instruction::Volume(match json(&rest) {
            Some(list) => list.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
            None => rest,
        }),
        "SHELL" => match json(&rest).filter(|words| !words.is_empty()) {
            Some(words) => Instruction::Shell(words),
            None => return Err(("SHELL takes a JSON array".to_owned(), "write SHELL [\"/bin/bash\", \"-c\"]")),
        },
        "HEALTHCHECK" => healthcheck(&rest)?,
        "MAINTAINER" => Instruction::Maintainer(rest),
        "ONBUILD" => {
            let inner = rest.split_whitespace().next().unwrap_or_default().to_uppercase();
            if matches!(inner.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
                return Err((format!("ONBUILD {inner} is not allowed"), "leave it out"));
            }
            // What it says must be understood when its time comes.
            let read = lines(&rest, "ONBUILD").map_err(|_| (format!("ONBUILD {rest}: does not parse"), ""))?;
            read.iter().try_for_each(|line| instruction(line).map(drop))?;
            Instruction::Onbuild(rest)
        }
        other => return Err(unknown(other)),
    })
}

const KNOWN: [&str; 18] = [
    "RUN",
    "CMD",
    "ENTRYPOINT",
    "COPY",
    "ADD",
    "ENV",
    "LABEL",
    "ARG",
    "WORKDIR",
    "USER",
    "EXPOSE",
    "STOPSIGNAL",
    "VOLUME",
    "SHELL",
    "HEALTHCHECK",
    "MAINTAINER",
    "ONBUILD",
    "FROM",
];

fn unknown(word: &str) -> Wrong {
    (format!("{} is no instruction", word.escape_debug()), "see docs/images.md for those that are understood")
}

fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A JSON array of words, or a line for the shell.
pub(super) fn program(rest: &str) -> Program {
    json(rest).map_or_else(|| Program::Shell(rest.to_owned()), Program::Words)
}

fn json(rest: &str) -> Option<Vec<String>> {
    rest.starts_with('[').then(|| serde_json::from_str(rest).ok()).flatten()
}

fn run(line: &Line) -> std::result::Result<Instruction, Wrong> {
    let (flags, rest) = leading(&line.rest);
    let mut step = RunStep { program: program(rest), mounts: Vec::new(), no_network: false };
    for flag in flags {
        match flag {
            ("--mount", Some(value)) => step.mounts.push(mount(value)?),
            ("--network", Some("none")) => step.no_network = true,
            ("--network", Some("default")) => {}
            flag => return Err(unsupported("RUN", flag, "leave it out; the network is the build's: --network host")),
        }
    }
    if rest.is_empty() {
        return Err(("RUN says nothing".to_owned(), ""));
    }
    match &line.documents[..] {
        [] => {}
        // A document alone is a script: of the program that it names, or of the shell.
        [only] if rest == only.written => {
            let text = only.plain();
            step.program = if text.starts_with("#!") { Program::Script(text) } else { Program::Shell(text) };
        }
        documents => {
            let bodies: String = documents.iter().map(super::lines::Document::whole).collect();
            step.program = Program::Shell(format!("{rest}\n{bodies}"));
        }
    }
    Ok(Instruction::Run(step))
}

fn copy(line: &Line) -> std::result::Result<Instruction, Wrong> {
    let word = line.word.as_str();
    let (flags, rest) = leading(&line.rest);
    let mut step = CopyStep { unpacks: word == "ADD", ..CopyStep::default() };
    for flag in flags {
        match flag {
            ("--chown", Some(value)) => step.owner = Some(value.to_owned()),
            ("--chmod", Some(value)) => {
                if !value.contains('$') {
                    chmod(value.trim_matches(['"', '\'']))?;
                }
                step.mode = Some(value.to_owned());
            }
            ("--parents", None | Some("true")) if word == "COPY" => step.parents = true,
            ("--parents", Some("false")) if word == "COPY" => {}
            ("--exclude", Some(value)) => step.excluded.push(value.to_owned()),
            ("--unpack", None | Some("true")) if word == "ADD" => {}
            ("--unpack", Some("false")) if word == "ADD" => step.unpacks = false,
            ("--from", Some(value)) if word == "COPY" => step.from = Some(value.to_owned()),
            // How a layer is put together; what is in the image is the same.
            ("--link", None | Some("true" | "false")) => {}
            flag => return Err(unsupported(word, flag, "leave it out")),
        }
    }
    let list = json(rest);
    for source in list.clone().unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect()) {
        let is_address =
            ["http://", "https://", "git@", "git://", "ssh://"].iter().any(|start| source.starts_with(start));
        if word == "ADD" && is_address {
            return Err((
                format!("ADD {source}: addresses are not supported"),
                "download it with RUN, or before the build into its directory",
            ));
        }
    }
    let mut rest = rest.to_owned();
    for document in &line.documents {
        rest = rest.replacen(&document.written, "", 1);
    }
    step.documents = line.documents.clone();
    step.paths = match list {
        Some(list) => list.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
        None => rest.trim().to_owned(),
    };
    Ok(Instruction::Copy(step))
}
