//! No type of another crate is part of the library's interface, where a new version of that crate would break its users:
//! this reads every public item of the sources. (`From` and `Into` behind the features `caps` and `nix` are on request.)

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What the library uses inside.
const CRATES: [&str; 13] = [
    "base64",
    "caps",
    "flate2",
    "landlock",
    "libc",
    "nix",
    "rustix",
    "rustls",
    "seccompiler",
    "serde_json",
    "sha2",
    "ureq",
    "zbus",
];

/// The source without comments, texts in quotation marks and what is for tests.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let text = lines.collect::<Vec<_>>().join("\n");
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
    text.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty())
}

/// What a source calls the types of these crates: the last names of its `use` lines, and what they are renamed to.
fn imported(code: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let uses = code.split(';').filter_map(|item| item.split_once("use ").map(|(_, tree)| tree.trim()));
    for tree in uses {
        let first = names(tree).next().unwrap_or_default();
        if let Some(of) = CRATES.iter().find(|name| **name == first) {
            let words: Vec<&str> = names(tree).collect();
            let renamed = |at: usize| words.get(at + 1) == Some(&"as");
            let types =
                words.iter().enumerate().filter(|(at, name)| name.starts_with(char::is_uppercase) && !renamed(*at));
            found.extend(types.map(|(_, name)| (*name, *of)));
        }
    }
    found
}

/// The text up to the first of `ends` that stands outside of all brackets.
fn until<'a>(text: &'a str, ends: &[char]) -> &'a str {
    let mut depth = 0i32;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        if depth == 0 && ends.contains(&c) {
            return &text[..at];
        }
        match c {
            '(' | '[' | '<' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '>' if before != '-' && before != '=' => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return &text[..at];
        }
        before = c;
    }
    text
}

/// The public items of a source: signatures of functions, fields of public structures, variants of public enums, types,
/// constants, and what a public trait is implemented with.
fn public(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("pub ") {
        let item = &code[at + 4..];
        let kind = names(item).find(|word| !["const", "unsafe", "async", "extern"].contains(word)).unwrap_or_default();
        match kind {
            "fn" => found.push(until(item, &['{', ';']).to_owned()),
            "struct" => {
                let (head, body) = item.split_at(item.find(['{', '(', ';']).unwrap_or(item.len()));
                found.push(head.to_owned());
                let body = until(body.get(1..).unwrap_or_default(), &[]);
                found.extend(body.match_indices("pub ").map(|(at, _)| until(&body[at..], &[',']).to_owned()));
            }
            "enum" | "trait" => {
                let open = item.find('{').unwrap_or(item.len());
                found.push(format!("{}{}", &item[..open], until(item.get(open + 1..).unwrap_or_default(), &[])));
            }
            "type" | "static" => found.push(until(item, &[';']).to_owned()),
            // `pub const NAME: TYPE = …` is found by its name.
            name if item.starts_with("const ") => found.push(format!("{name}{}", until(item, &['=', ';']))),
            _ => {}
        }
    }
    found
}

/// The heads of `impl Trait<Of> for Type` that stand at the beginning of a line, where the type is public, but for those
/// behind a feature.
fn implemented(code: &str, types: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("\nimpl") {
        let behind = code[..at].lines().next_back().unwrap_or_default();
        let head = until(&code[at + 1..], &['{']);
        let on_request = behind == "#[cfg(feature = \"\")]";
        let of_public =
            head.rsplit_once(" for ").and_then(|(_, name)| names(name).next()).is_some_and(|name| types.contains(name));
        if of_public && !on_request {
            found.push(head.to_owned());
        }
    }
    found
}

/// The public types that a source declares.
fn types(text: &str) -> Vec<String> {
    let text = code(text);
    let declared =
        ["pub struct ", "pub enum "].map(|kind| text.split(kind).skip(1).filter_map(|rest| names(rest).next()));
    declared.into_iter().flatten().map(str::to_owned).collect()
}

/// The items of a source that name a type of these crates. `types`: the public types of all sources.
fn leaks(text: &str, types: &BTreeSet<String>) -> Vec<String> {
    let code = code(text);
    let imported = imported(&code);
    let foreign = |item: &String| {
        let whole = CRATES.iter().any(|name| {
            item.match_indices(&format!("{name}::"))
                .any(|(at, _)| !item[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
        });
        whole || names(item).any(|name| imported.iter().any(|(known, _)| *known == name))
    };
    let mut found = public(&code);
    found.extend(implemented(&code, types));
    found.into_iter().filter(foreign).collect()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // The program, and what is for tests alone, are no part of the interface.
        if path.is_dir() && !["bin", "fuzz", "tests"].contains(&&*name) {
            sources(&path, found);
        } else if name.ends_with(".rs") && !name.ends_with("_tests.rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_public_item_names_a_type_of_a_crate_that_is_used_inside() {
    let mut all = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    assert!(all.len() > 100, "the sources were not found");
    let types = all.iter().flat_map(|path| types(&fs::read_to_string(path).unwrap())).collect();
    let (mut wrong, mut items) = (String::new(), 0);
    for path in all {
        let text = fs::read_to_string(&path).unwrap();
        items += public(&code(&text)).len();
        for item in leaks(&text, &types) {
            wrong += &format!("{}: {}\n", path.display(), item.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    assert!(items > 500, "{items} public items: they were not found");
    assert!(
        wrong.is_empty(),
        "public items with types of other crates (make them pub(crate), or use a type of our own):\n{wrong}"
    );
}

#[test]
fn a_type_of_another_crate_is_found_wherever_it_stands() {
    let found = |text: &str| leaks(text, &["Error", "Capability"].map(str::to_owned).into()).len();
    assert_eq!(found("use nix::sys::resource::Resource;\npub fn f(a: u8, r: Resource) {}\n"), 1);
    assert_eq!(found("pub fn f() -> Result<serde_json::Value> {\n"), 1);
    assert_eq!(found("use caps::{self, Capability as Cap};\npub struct A { pub a: Vec<(Cap, u64)>, b: Cap }\n"), 1);
    assert_eq!(found("use nix::unistd::{Pid, Uid};\npub struct A(pub Pid, Uid);\n"), 1);
    assert_eq!(found("pub enum A { B { c: nix::errno::Errno } }\n"), 1);
    assert_eq!(found("pub type A = Vec<libc::stat>;\n"), 1);
    assert_eq!(found("\nimpl From<nix::errno::Errno> for Error {\n"), 1);
    assert_eq!(found("\n#[cfg(feature = \"caps\")]\nimpl From<caps::Capability> for Capability {\n"), 0);
    assert_eq!(
        found(
            "use nix::unistd::Pid;\npub(crate) fn f(a: Pid) {}\npub fn g() { let a: Pid; }\nstruct A { pub a: Pid }\n"
        ),
        0
    );
    assert_eq!(found("\nimpl From<nix::errno::Errno> for Private {\n"), 0);
    assert_eq!(found("use sha2::Digest as _;\npub fn f() -> Digest {\n"), 0);
    assert_eq!(found("pub fn f(kind: options::landlock::Kind) {}\n"), 0);
}
