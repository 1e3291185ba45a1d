//! A module imports only from modules below it. The order is the table in docs/architecture.md: this reads it, and every
//! path of the library's source that begins with `crate::` or `super::`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The rows of the table between the two marks, the lowest first: `sys` for a directory or `sys.rs`, `api::cell` for a file in one.
fn layers(document: &str) -> Vec<String> {
    let (_, rest) = document.split_once("<!-- layers -->").expect("the beginning of the table");
    let (table, _) = rest.split_once("<!-- end of layers -->").expect("the end of the table");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(path, _)| path.trim_end_matches(".rs").trim_end_matches('/').replace('/', "::")).collect()
}

/// A source without comments, in lines.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The paths that a use tree names: `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`. What is left of the text.
fn tree<'a>(text: &'a str, before: &str, found: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if let Some(rest) = rest.strip_prefix('}') {
                return rest;
            }
            rest = tree(rest, before, found).trim_start();
            rest = match rest.find([',', '}']) {
                Some(at) if rest[at..].starts_with(',') => &rest[at + 1..],
                Some(at) => &rest[at..],
                None => return "",
            };
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let path = if before.is_empty() { text[..end].to_owned() } else { format!("{before}::{}", &text[..end]) };
    match text[end..].strip_prefix("::") {
        Some(rest) if rest.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '{') => tree(rest, &path, found),
        _ => {
            found.push(path);
            &text[end..]
        }
    }
}

/// The paths of a source, seen from the root of the crate. `module`: where it stands.
fn paths(module: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            tree(&code[at + "crate::".len()..], "", &mut found);
        }
    }
    let mut segments: Vec<&str> = module.split("::").collect();
    segments.pop();
    for (at, _) in code.match_indices("super::") {
        // `super::super::` is one level more, and counted with the first.
        if code[..at].ends_with("::") {
            continue;
        }
        let (mut rest, mut up) = (&code[at + "super::".len()..], segments.clone());
        while let Some(more) = rest.strip_prefix("super::") {
            up.pop();
            rest = more;
        }
        // `super::*` is of tests within their file.
        if !rest.starts_with('*') && !up.is_empty() {
            tree(rest, &up.join("::"), &mut found);
        }
    }
    found
}

/// What the crate's root has under another name: `Sandbox` → `api::sandbox::Sandbox`; other crates under names of their own.
struct Root {
    names: BTreeMap<String, String>,
    crates: Vec<String>,
}

impl Root {
    fn read(lib: &str) -> Root {
        let code = code(lib);
        let mut root = Root { names: BTreeMap::new(), crates: Vec::new() };
        for (at, _) in code.match_indices("use ") {
            let statement = code[at + 4..].split(';').next().unwrap_or_default();
            match statement.split_once(" as ") {
                Some((_, name)) => root.crates.push(name.trim().to_owned()),
                None => {
                    let mut found = Vec::new();
                    tree(statement.trim_start_matches("crate::"), "", &mut found);
                    root.names.extend(found.into_iter().filter_map(|path| {
                        let name = path.rsplit("::").next()?.to_owned();
                        (name != path).then_some((name, path))
                    }));
                }
            }
        }
        root
    }
}

/// The module of a file below `src`, and whether it is one of the library's own.
fn module(file: &Path) -> Option<String> {
    let path = file.with_extension("");
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).filter(|part| part != "mod").collect();
    (!["bin", "lib", "fuzz"].contains(&&*parts[0])).then(|| parts.join("::"))
}

/// The sources of the library: module and text.
type Sources = Vec<(String, String)>;

fn sources(top: &Path, dir: &Path, found: &mut Sources) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(top, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(module) = module(path.strip_prefix(top).unwrap())
        {
            found.push((module, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The most exact row that a path belongs to.
fn layer_of(layers: &[String], path: &str) -> Option<usize> {
    let holds = |layer: &str| path == layer || path.strip_prefix(layer).is_some_and(|rest| rest.starts_with("::"));
    (0..layers.len()).filter(|at| holds(&layers[*at])).max_by_key(|at| layers[*at].len())
}

/// Everything that is wrong: modules without a layer, layers without a module, names that lead nowhere, upward imports.
fn offences(layers: &[String], root: &Root, sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for layer in layers {
        if !sources.iter().any(|(module, _)| layer_of(layers, module).is_some_and(|at| layers[at] == *layer)) {
            found.push(format!("{layer} is in the table, and no module is of that name"));
        }
    }
    for (module, text) in sources {
        let Some(from) = layer_of(layers, module) else {
            // A directory whose files have rows of their own may have a mod.rs that only declares them.
            if !declares_only(text) {
                found.push(format!("{module} is in no layer"));
            }
            continue;
        };
        for path in paths(module, text) {
            let first = path.split("::").next().unwrap_or_default();
            if root.crates.iter().any(|name| name == first) {
                continue;
            }
            let path = root.names.get(first).unwrap_or(&path);
            match layer_of(layers, path) {
                Some(to) if to > from => found.push(format!("{module} imports {path}: {} is above it", layers[to])),
                Some(_) => {}
                None => found.push(format!("{module} names {path}, which is in no layer")),
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

fn declares_only(text: &str) -> bool {
    code(text)
        .lines()
        .map(str::trim)
        .all(|line| line.is_empty() || line.starts_with("pub(crate) mod ") || line.starts_with("#["))
}

#[test]
fn every_module_imports_only_from_layers_below_its_own() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let layers = layers(&fs::read_to_string(here.join("../docs/architecture.md")).unwrap());
    let root = Root::read(&fs::read_to_string(here.join("src/lib.rs")).unwrap());
    let mut all = Sources::new();
    sources(&here.join("src"), &here.join("src"), &mut all);
    assert!(all.len() > 100 && layers.len() > 15, "{} {}", all.len(), layers.len());
    assert_eq!(root.names.get("Sandbox").map(String::as_str), Some("api::sandbox::Sandbox"));
    let found = offences(&layers, &root, &all);
    assert!(
        found.is_empty(),
        "{}\nA module imports only from rows above its own in the table of docs/architecture.md: move what is shared down, or \
         what uses it up.",
        found.join("\n")
    );
}

#[test]
fn an_upward_import_a_circle_and_a_module_without_a_layer_are_found() {
    let layers: Vec<String> = ["low", "middle::first", "middle::second", "high"].map(str::to_owned).into();
    let root = Root::read("pub use high::{Top, other::Thing};\nuse some_crate as raw;\n");
    let wrong = |module: &str, text: &str| {
        let mut sources: Sources = layers.iter().map(|layer| (layer.clone(), String::new())).collect();
        sources.push((module.to_owned(), text.to_owned()));
        offences(&layers, &root, &sources)
    };
    for (module, text, offence) in [
        ("low", "use crate::high::X;", "low imports high::X: high is above it"),
        ("low", "use crate::{\n    low::a,\n    high::{self, Y},\n};", "low imports high::Y: high is above it"),
        ("low::deep", "fn f() -> crate::Thing {}", "low::deep imports high::other::Thing: high is above it"),
        ("low", "pub(in crate::high) fn f() {}", "low imports high: high is above it"),
        (
            "middle::first",
            "use super::second::Z;",
            "middle::first imports middle::second::Z: middle::second is above it",
        ),
        (
            "middle::first::deep",
            "use super::super::second::Z;",
            "middle::first::deep imports middle::second::Z: middle::second is above it",
        ),
        ("new", "", "new is in no layer"),
        ("low", "use crate::gone::X;", "low names gone::X, which is in no layer"),
    ] {
        let found = wrong(module, text);
        // A new module that only declares others needs no row.
        let expected = if text.is_empty() { wrong(module, "fn f() {}") } else { found };
        assert!(expected.iter().any(|line| line == offence), "{offence}: {expected:?}");
    }
    // A circle has an upward import in it, whichever way round the table is.
    let circle: Sources = [("low", "use crate::high::A;"), ("high", "use crate::low::B;")]
        .map(|(module, text)| (module.to_owned(), text.to_owned()))
        .into();
    for layers in [["low", "high"], ["high", "low"]] {
        assert_eq!(offences(&layers.map(str::to_owned), &root, &circle).len(), 1);
    }
    let fine = "use crate::low::X;\nuse crate::{Top, raw::call};\n// use crate::gone\nuse super::*;";
    assert_eq!(wrong("high", fine), [""; 0]);
    assert_eq!(
        offences(&["low".to_owned(), "none".to_owned()], &root, &vec![("low".to_owned(), String::new())]).len(),
        1
    );
}
