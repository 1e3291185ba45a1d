//! Steps that change the configuration only.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Instruction;
use super::words::{Variables, expand, pairs, split};
use crate::resolve::image::clean;

/// What is wrong with an instruction.
pub(crate) type Wrong = String;

/// The environment of an image's `config` object.
pub(crate) fn environment(run: &Map<String, Value>) -> Variables {
    let lines = run.get("Env").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Carries an instruction out on an image's `config` object, where it is one of those: else false.
pub(crate) fn change(
    run: &mut Map<String, Value>,
    what: &Instruction,
    variables: &Variables,
    cmd_said: &mut bool,
) -> Result<bool, Wrong> {
    let words = |text: &str| split(&expand(text, variables)?);
    let one = |text: &str| match &words(text)?[..] {
        [word] if !word.is_empty() => Ok(word.clone()),
        words => Err(format!("takes one word, and has {}", words.len())),
    };
    match what {
        Instruction::Env(text) => {
            for (key, value) in pairs(&expand(text, variables)?)? {
                set_variable(list(run, "Env"), &key, &value);
            }
        }
        Instruction::Label(text) => {
            for (key, value) in pairs(&expand(text, variables)?)? {
                object(run, "Labels").insert(key, json!(value));
            }
        }
        Instruction::Workdir(text) => {
            let before = run.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
            let dir = clean(&Path::new("/").join(before), &one(text)?);
            run.insert("WorkingDir".to_owned(), json!(dir));
        }
        Instruction::User(text) => drop(run.insert("User".to_owned(), json!(one(text)?))),
        Instruction::StopSignal(text) => drop(run.insert("StopSignal".to_owned(), json!(signal(one(text)?)?))),
        Instruction::Expose(text) => {
            for port in words(text)? {
                let (numbers, protocol) = ports(&port)?;
                for number in numbers {
                    object(run, "ExposedPorts").insert(format!("{number}/{protocol}"), json!({}));
                }
            }
        }
        Instruction::Volume(text) => {
            for dir in words(text)? {
                let dir = clean(Path::new("/"), &dir);
                object(run, "Volumes").insert(dir.to_string_lossy().into_owned(), json!({}));
            }
        }
        Instruction::Cmd(program) => {
            *cmd_said = true;
            let words = program.words(&shell(run));
            run.insert("Cmd".to_owned(), json!(words));
        }
        Instruction::Entrypoint(program) => {
            // The base's arguments were meant for the base's entry point.
            if !*cmd_said {
                run.remove("Cmd");
            }
            let words = program.words(&shell(run));
            run.insert("Entrypoint".to_owned(), json!(words));
        }
        Instruction::Shell(words) => drop(run.insert("Shell".to_owned(), json!(words))),
        Instruction::Healthcheck(check) => drop(run.insert("Healthcheck".to_owned(), check.clone())),
        Instruction::Onbuild(text) => list(run, "OnBuild").push(json!(text)),
        Instruction::Maintainer(text) => drop(object(run, "Labels").insert("maintainer".to_owned(), json!(text))),
        Instruction::Arg(_) | Instruction::Run(_) | Instruction::Copy(_) => return Ok(false),
    }
    Ok(true)
}

/// Sets a variable in the lines of `Env`, at its place where it is there.
fn set_variable(lines: &mut Vec<Value>, key: &str, value: &str) {
    let start = format!("{key}=");
    let line = json!(format!("{start}{value}"));
    match lines.iter_mut().find(|line| line.as_str().is_some_and(|line| line.starts_with(&start))) {
        Some(old) => *old = line,
        None => lines.push(line),
    }
}

/// What `EXPOSE` names: `80`, `53/udp`, `8000-8010`.
fn ports(port: &str) -> Result<(std::ops::RangeInclusive<u16>, String), Wrong> {
    let (numbers, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let protocol = protocol.to_lowercase();
    match (first.parse(), last.parse(), &protocol[..]) {
        (Ok(first), Ok(last), "tcp" | "udp" | "sctp") => Ok((first..=last, protocol)),
        _ => Err(format!("{port:?} is no port: write 80, 53/udp or 8000-8010")),
    }
}

/// A signal's name or number, as it is written.
fn signal(text: String) -> Result<String, Wrong> {
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = |text: &str| text.parse::<i32>().ok();
    let is_real_time = || {
        let (base, offset) = name.split_at_checked(5)?;
        let offset = if offset.is_empty() { 0 } else { number(offset)? };
        Some(match base {
            "RTMIN" => (0..=30).contains(&offset),
            "RTMAX" => (-30..=0).contains(&offset),
            _ => false,
        })
    };
    let known = name.parse::<i32>().is_ok_and(|number| (1..=64).contains(&number))
        || matches!(name, "CLD" | "POLL")
        || format!("SIG{name}").parse::<nix::sys::signal::Signal>().is_ok()
        || is_real_time() == Some(true);
    if known { Ok(text) } else { Err(format!("{text:?} is no signal: write SIGTERM or 15")) }
}

/// What SHELL said last.
pub(super) fn shell(run: &Map<String, Value>) -> Vec<String> {
    let words = run.get("Shell").and_then(Value::as_array).into_iter().flatten();
    words.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn list<'a>(run: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let value = run.entry(key).or_insert_with(|| json!([]));
    if !value.is_array() {
        *value = json!([]);
    }
    value.as_array_mut().expect("it was made one above")
}

fn object<'a>(run: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = run.entry(key).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it was made one above")
}
