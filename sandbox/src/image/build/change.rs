//! Steps that change the configuration only.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::words::{Variables, expand, pairs, split};
use super::{Instruction, Program};
use crate::image::run::clean;

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
            let mut lines: Vec<Value> = run.get("Env").and_then(Value::as_array).cloned().unwrap_or_default();
            for (key, value) in pairs(&expand(text, variables)?)? {
                let start = format!("{key}=");
                let line = json!(format!("{start}{value}"));
                match lines.iter_mut().find(|line| line.as_str().is_some_and(|line| line.starts_with(&start))) {
                    Some(old) => *old = line,
                    None => lines.push(line),
                }
            }
            run.insert("Env".to_owned(), Value::Array(lines));
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
        Instruction::StopSignal(text) => drop(run.insert("StopSignal".to_owned(), json!(one(text)?))),
        Instruction::Expose(text) => {
            for port in words(text)? {
                let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
                if number.parse::<u16>().is_err() || !matches!(protocol, "tcp" | "udp" | "sctp") {
                    return Err(format!("{port:?} is no port: write 80 or 53/udp"));
                }
                object(run, "ExposedPorts").insert(format!("{number}/{protocol}"), json!({}));
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
            run.insert("Cmd".to_owned(), json!(program.words()));
        }
        Instruction::Entrypoint(program) => {
            // The base's arguments were meant for the base's entry point.
            if !*cmd_said {
                run.remove("Cmd");
            }
            let words = match program {
                Program::Words(words) => words.clone(),
                shell => shell.words(),
            };
            run.insert("Entrypoint".to_owned(), json!(words));
        }
        Instruction::Arg(_) | Instruction::Run(_) | Instruction::Copy { .. } => return Ok(false),
    }
    Ok(true)
}

fn object<'a>(run: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = run.entry(key).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it was made one above")
}
