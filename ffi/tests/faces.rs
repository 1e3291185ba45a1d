//! C and C++ take every option of the table as the library does: by text and by value, right and wrong.

mod common;

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Link, Scratch, compile, said};
use sandcell::options::{self, Kind, Spec, Value};
use sandcell::{Builder, Error, Sandbox};

/// Name and text of each case, as sandbox/tests/options writes them.
fn cases() -> Vec<(&'static Spec, String)> {
    let text = fs::read_to_string(Path::new(common::HERE).join("../python/tests/options.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let of = |case: &serde_json::Value, key: &str| case[key].as_str().unwrap().to_owned();
    // Without images there are fewer options.
    cases.iter().filter_map(|case| Some((options::find(&of(case, "name"))?, of(case, "text")))).collect()
}

/// What the programs print of a policy.
fn line(policy: Result<Builder, Error>) -> String {
    match policy {
        Ok(builder) => {
            let options = builder.policy().options();
            let options: serde_json::Map<_, _> =
                options.into_iter().map(|(name, texts)| (name.to_owned(), texts.into())).collect();
            format!("= {}", serde_json::Value::from(options))
        }
        Err(error) => format!("! {}\t{error}\t{}", error.subject(), error.hint()),
    }
}

/// Without the hint, which names C's functions where the library's names options; there is one all the same.
fn without_hint(line: &str) -> &str {
    match line.strip_prefix("! ").and_then(|error| error.rsplit_once('\t')) {
        Some((error, hint)) if !hint.is_empty() => &line[..2 + error.len()],
        _ => line,
    }
}

fn prints(program: &Path, input: &str) -> Vec<String> {
    let mut child =
        Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn by_text(compiler: &str, flags: &[&str], source: &str) {
    let scratch = Scratch::new(&format!("faces {compiler}"));
    let program = scratch.path("program");
    compile(compiler, flags, Path::new(source), Link::Beside, &program);
    let cases = cases();
    assert!(cases.len() > 200);
    let input: String = cases.iter().map(|(spec, text)| format!("{}\t{text}\n", spec.name)).collect();
    let lines = prints(&program, &input);
    assert_eq!(lines.len(), cases.len());
    for ((spec, text), found) in cases.iter().zip(lines) {
        let wanted = line(Sandbox::builder().set(spec.name, text.as_str()));
        assert_eq!(without_hint(&found), without_hint(&wanted), "{} {text:?}", spec.name);
    }
}

#[test]
fn c_takes_each_text_as_the_library_does() {
    by_text("cc", &["-std=gnu11"], "tests/c/options.c");
}

#[test]
fn c_plus_plus_takes_each_text_as_the_library_does() {
    by_text("c++", &["-std=c++17"], "tests/c/options.cpp");
}

/// A value of the setter's own type, where the text stands for one: as C and C++ write it, and itself.
fn typed(spec: &Spec, text: &str) -> Option<(String, String, Value)> {
    let quoted = || format!("{text:?}");
    let same = |literal: String, value| Some((literal.clone(), literal, value));
    let digits = || text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match spec.kind {
        Kind::Size | Kind::Count => {
            let number = digits().or_else(|| match spec.read(text) {
                Ok(Value::Number(number)) => Some(number),
                _ => None,
            })?;
            same(format!("{number}u"), Value::Number(number))
        }
        Kind::SmallCount => {
            let number = u32::try_from(digits()?).ok()?;
            same(format!("{number}u"), number.into())
        }
        Kind::Mode => {
            let Value::Number(mode) = spec.read(text).ok()? else { return None };
            same(format!("{mode}u"), Value::Number(mode))
        }
        Kind::Fraction => {
            let Value::Fraction(number) = spec.read(text).ok()? else { return None };
            same(format!("{number:?}"), Value::Fraction(number))
        }
        Kind::Duration => {
            let Value::Duration(time) = spec.read(text).ok()? else { return None };
            let millis = (time.subsec_nanos() % 1_000_000 == 0).then_some(time.as_millis())?;
            Some((format!("{millis}u"), format!("std::chrono::milliseconds({millis})"), time.into()))
        }
        Kind::Flag => {
            let Value::Flag(flag) = spec.read(text).ok()? else { return None };
            same(flag.to_string(), flag.into())
        }
        _ => same(quoted(), text.into()),
    }
}

fn by_value(
    compiler: &str,
    flags: &[&str],
    source: &str,
    statement: impl Fn(&Spec, &(String, String, Value)) -> String,
) {
    let scratch = Scratch::new(&format!("faces typed {compiler}"));
    let program = scratch.path("program");
    let (mut wanted, mut body, mut seen) = (Vec::new(), String::new(), Vec::new());
    for (spec, text) in cases().iter().filter(|(spec, _)| spec.is_plain()) {
        let Some(value) = typed(spec, text) else { continue };
        writeln!(body, "    {}", statement(spec, &value)).unwrap();
        wanted.push((spec.name, text.clone(), line(Sandbox::builder().set(spec.name, value.2))));
        seen.push(spec.name);
    }
    for spec in options::all().filter(|spec| spec.is_plain()) {
        assert!(seen.contains(&spec.name), "{}", spec.name);
    }
    let text = fs::read_to_string(Path::new(common::HERE).join(source)).unwrap();
    let at = scratch.path(Path::new(source).file_name().unwrap().to_str().unwrap());
    assert!(text.contains("/* STATEMENTS */"));
    fs::write(&at, text.replace("/* STATEMENTS */", &body)).unwrap();
    compile(compiler, flags, &at, Link::Beside, &program);
    let lines = prints(&program, "");
    assert_eq!(lines.len(), wanted.len());
    for ((name, text, wanted), found) in wanted.into_iter().zip(lines) {
        assert_eq!(without_hint(&found), without_hint(&wanted), "{name} {text:?}");
    }
}

#[test]
fn c_takes_each_value_as_the_library_does() {
    by_value("cc", &["-std=gnu11"], "tests/c/options.c", |spec, (value, ..)| {
        let unit = if spec.kind == Kind::Duration { "_ms" } else { "" };
        format!("sandcell_policy_set_{}{unit}(next(), {value}); tell();", spec.name)
    });
}

#[test]
fn c_plus_plus_takes_each_value_as_the_library_does() {
    by_value("c++", &["-std=c++17"], "tests/c/options.cpp", |spec, (_, value, _)| {
        format!("tell(sandcell::Policy().{}({value}));", spec.name)
    });
}
