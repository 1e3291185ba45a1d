//! Reading a Dockerfile: which instructions, in which line. What is not understood is an error that names it.

use super::{Build, Instruction, Program, Step};
use crate::error::{Failure, Result};

/// An instruction with the line that it begins in.
struct Line {
    number: usize,
    word: String,
    rest: String,
}

/// What instructions exist that are not read, and what to write instead.
const OTHERS: [(&str, &str); 6] = [
    ("ADD", "use COPY, and RUN to unpack or download"),
    ("HEALTHCHECK", "leave it out: nothing here would ask"),
    ("MAINTAINER", "use LABEL maintainer=NAME"),
    ("ONBUILD", "write the instruction where it is needed"),
    ("SHELL", "write the words of RUN, CMD and ENTRYPOINT as a JSON array"),
    ("CROSS_BUILD", "leave it out"),
];

impl Build {
    /// The build that a Dockerfile describes; `name` stands in errors. Of its instructions these are understood: FROM
    /// (once), ARG, RUN, COPY (without `--from`), ENV, WORKDIR, USER, EXPOSE, VOLUME, LABEL, CMD, ENTRYPOINT and
    /// STOPSIGNAL.
    ///
    /// # Errors
    /// `Config` for everything else, with the line.
    pub fn dockerfile(text: &str, name: &str) -> Result<Build> {
        let mut build: Option<Build> = None;
        let mut before = Vec::new();
        for line in lines(text, name)? {
            let wrong = |message: String| at(name, line.number, message);
            if line.word == "FROM" {
                if build.is_some() {
                    let message = "a second FROM: builds of several stages are not supported".to_owned();
                    return Err(wrong(message).hint("build the first as an image of its own").config());
                }
                let mut new = Build::from(base(&line.rest).map_err(|e| wrong(e).config())?);
                new.file = name.to_owned();
                new.from_line = Some(line.number);
                new.steps = std::mem::take(&mut before);
                new.global_args = new.steps.len();
                build = Some(new);
                continue;
            }
            let step = Step {
                line: Some(line.number),
                text: format!("{} {}", line.word, line.rest),
                what: instruction(&line).map_err(|(message, hint)| wrong(message).hint(hint).config())?,
            };
            match (&mut build, &step.what) {
                (Some(build), _) => build.steps.push(step),
                (None, Instruction::Arg(..)) => before.push(step),
                (None, _) => return Err(wrong(format!("{} before FROM", line.word)).config()),
            }
        }
        build.ok_or_else(|| {
            Failure::new("dockerfile", name, "there is no FROM in it").hint("name the base image: FROM app:1").config()
        })
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
        Ok(Instruction::Run(_) | Instruction::Copy { .. } | Instruction::Arg(_)) => {
            Err(wrong("changes more than the configuration", "use a Dockerfile"))
        }
        Ok(instruction) => Ok(instruction),
        Err((message, hint)) => Err(wrong(&message, hint)),
    }
}

pub(super) fn at(name: &str, line: usize, message: impl Into<String>) -> Failure {
    Failure::new("dockerfile", format!("{name}:{line}"), message)
}

/// Comments go, lines that end with a backslash are joined.
fn lines(text: &str, name: &str) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    let mut head = true;
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim();
        if let Some(comment) = trimmed.strip_prefix('#') {
            let directive = comment.trim().to_lowercase().replace(' ', "");
            if head && directive.starts_with("escape=") && directive != "escape=\\" {
                return Err(at(name, number, "another escape character than the backslash is not supported").config());
            }
            continue;
        }
        if trimmed.is_empty() {
            continue;
        }
        head = false;
        let (start, mut whole) = open.take().unwrap_or((number, String::new()));
        match line.trim_end().strip_suffix('\\') {
            Some(part) => {
                whole.push_str(part);
                open = Some((start, whole));
            }
            None => {
                whole.push_str(line.trim_end());
                lines.push((start, whole));
            }
        }
    }
    // A backslash on the last line continues into nothing.
    lines.extend(open);
    let cut = |(number, text): (usize, String)| {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        Line { number, word: word.to_uppercase(), rest: rest.trim().to_owned() }
    };
    Ok(lines.into_iter().map(cut).collect())
}

/// `IMAGE [AS NAME]`.
fn base(rest: &str) -> std::result::Result<String, String> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    match words[..] {
        [flag, ..] if flag.starts_with("--") => Err(format!("FROM {flag} is not supported")),
        [image] => Ok(image.to_owned()),
        [image, r#as, _] if r#as.eq_ignore_ascii_case("as") => Ok(image.to_owned()),
        _ => Err("FROM takes the name of an image".to_owned()),
    }
}

type Wrong = (String, &'static str);

fn instruction(line: &Line) -> std::result::Result<Instruction, Wrong> {
    let word = line.word.as_str();
    if line.rest.is_empty() {
        return match OTHERS.iter().find(|(other, _)| *other == word) {
            None if !KNOWN.contains(&word) => Err(unknown(word)),
            Some((_, instead)) => Err((format!("{word} is not supported"), instead)),
            None => Err((format!("{word} says nothing"), "")),
        };
    }
    let rest = line.rest.clone();
    Ok(match word {
        "RUN" => {
            if let Some(flag) = rest.split_whitespace().next().filter(|first| first.starts_with("--")) {
                return Err((format!("RUN {flag} is not supported"), "leave it out"));
            }
            if is_here_document(&rest) {
                return Err(("here-documents are not supported".to_owned(), "join the commands with && and \\"));
            }
            Instruction::Run(program(&rest))
        }
        "CMD" => Instruction::Cmd(program(&rest)),
        "ENTRYPOINT" => Instruction::Entrypoint(program(&rest)),
        "COPY" => copy(&rest)?,
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
        other => {
            return Err(match OTHERS.iter().find(|(word, _)| *word == other) {
                Some((_, instead)) => (format!("{other} is not supported"), instead),
                None => unknown(other),
            });
        }
    })
}

const KNOWN: [&str; 12] =
    ["RUN", "CMD", "ENTRYPOINT", "COPY", "ENV", "LABEL", "ARG", "WORKDIR", "USER", "EXPOSE", "STOPSIGNAL", "VOLUME"];

fn unknown(word: &str) -> Wrong {
    (format!("{} is no instruction", word.escape_debug()), "see docs/images.md for those that are understood")
}

fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

fn is_here_document(text: &str) -> bool {
    text.split_whitespace().any(|word| {
        let name = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<");
        name.is_some_and(|name| name.starts_with(|c: char| c.is_alphabetic() || matches!(c, '-' | '"' | '\'')))
    })
}

/// A JSON array of words, or a line for the shell.
fn program(rest: &str) -> Program {
    json(rest).map_or_else(|| Program::Shell(rest.to_owned()), Program::Words)
}

fn json(rest: &str) -> Option<Vec<String>> {
    rest.starts_with('[').then(|| serde_json::from_str(rest).ok()).flatten()
}

fn copy(rest: &str) -> std::result::Result<Instruction, Wrong> {
    let mut rest = rest;
    let (mut owner, mut mode) = (None, None);
    while let Some(flag) = rest.split_whitespace().next().filter(|first| first.starts_with("--")) {
        match flag.split_once('=') {
            Some(("--chown", value)) => owner = Some(value.to_owned()),
            Some(("--chmod", value)) => match u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777) {
                Some(value) => mode = Some(value),
                None => return Err((format!("COPY {flag}: not a mode"), "write it in octal: --chmod=755")),
            },
            Some(("--from", _)) => {
                return Err((
                    format!("COPY {flag} is not supported"),
                    "build the other image, and copy from a directory",
                ));
            }
            _ => return Err((format!("COPY {flag} is not supported"), "leave it out")),
        }
        rest = rest[flag.len()..].trim_start();
    }
    if is_here_document(rest) {
        return Err(("here-documents are not supported".to_owned(), "put the content into a file"));
    }
    let paths = match json(rest) {
        Some(list) => list.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
        None => rest.to_owned(),
    };
    Ok(Instruction::Copy { paths, owner, mode })
}
