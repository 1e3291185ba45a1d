//! What is made from the options table is what the table says now, in every language.
//!
//! `SANDCELL_WRITE_OPTIONS=1 cargo test -p sandcell --all-features --test options` writes it anew; the C header is made from
//! the setters then: `SANDCELL_WRITE_HEADER=1 cargo test -p sandcell-ffi --test header`.

mod c;
mod cases;
mod docs;
mod python;

use std::fs;
use std::path::Path;

use sandcell::options::{self, Kind, Spec};

const WRITE: &str = "SANDCELL_WRITE_OPTIONS";

/// Compares a file of the repository with what the table makes of it, or writes it.
fn compare(file: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, made).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == made,
        "{file} is out of date; write it with: {WRITE}=1 cargo test -p sandcell --all-features --test options"
    );
}

/// The file with what stands between the lines that contain `BEGIN name` and `END name` replaced.
fn with_region(file: &str, name: &str, region: &str) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).unwrap();
    let (begin, end) = (format!("BEGIN {name}"), format!("END {name}"));
    let (mut made, mut inside) = (String::new(), false);
    for line in text.lines() {
        inside &= !line.contains(&end);
        if !inside {
            made += &format!("{line}\n");
        }
        if line.contains(&begin) {
            inside = true;
            made += region;
        }
    }
    assert!(text.contains(&begin) && text.contains(&end) && !inside, "{file} has no region {name}");
    made
}

/// Those whose setters are made from the table.
fn plain() -> impl Iterator<Item = &'static Spec> {
    options::all().filter(|spec| spec.is_plain())
}

/// Help, range and default in sentences.
fn described(spec: &Spec) -> String {
    let (least, most) = spec.range;
    let bound = |bound: u64| match spec.kind {
        Kind::Duration => options::duration_text(std::time::Duration::from_millis(bound)),
        Kind::Fraction => (bound as f64 / 100.0).to_string(),
        Kind::Mode => format!("{bound:03o}"),
        _ => bound.to_string(),
    };
    let range = match (least, most) {
        (0, u64::MAX) | (1, u64::MAX) => String::new(),
        // What no machine has is no bound that anybody needs to know.
        (least, most) if most > 1 << 40 && least <= 1 => String::new(),
        (least, most) if most > 1 << 40 => format!(" At least {}.", bound(least)),
        (least, most) => format!(" {} to {}.", bound(least), bound(most)),
    };
    let words = match spec.kind {
        Kind::Words(words) => format!(" One of {}.", words.join(", ")),
        _ => String::new(),
    };
    format!("{}.{words}{range} Default: {}.", spec.summary(), spec.default)
}

/// Words in lines of at most `width` characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().unwrap();
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines
}

#[test]
fn the_setters_of_c_are_those_of_the_table() {
    compare("ffi/src/setters.rs", &c::setters());
}

#[test]
fn the_setters_of_c_plus_plus_are_those_of_the_table() {
    compare("include/sandcell_options.hpp", &c::methods());
}

#[test]
fn the_keywords_of_python_are_those_of_the_table() {
    let file = "python/sandcell/_options.py";
    compare(file, &with_region(file, "options", &python::keywords()));
}

#[test]
fn the_documented_options_are_those_of_the_table() {
    compare("docs/options.md", &docs::page());
}

#[test]
fn every_setter_by_hand_that_the_table_names_is_in_the_header() {
    let header = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../include/sandcell.h")).unwrap();
    for spec in options::all().filter(|spec| !spec.is_plain()) {
        assert!(header.contains(&format!("int sandcell_policy_{}(", spec.c)), "{}", spec.name);
    }
}

#[test]
fn documented_defaults_are_those_of_a_new_policy() {
    let policy = sandcell::Policy::default();
    for spec in options::all() {
        match &spec.shown(&policy)[..] {
            [] => {}
            [one] if spec.name == "user" => assert!(spec.default.contains(one)),
            shown => assert_eq!(shown, [spec.default], "{}", spec.name),
        }
    }
}

#[test]
fn the_cases_for_the_other_languages_are_what_the_library_makes_of_them() {
    compare("python/tests/options.json", &cases::json());
}

/// Each option has a text that is taken and one that is refused, with what would be right.
#[test]
fn every_option_takes_a_right_text_and_refuses_a_wrong_one() {
    let cases = cases::all();
    for spec in options::all() {
        let of_it = || cases.iter().filter(|case| case.spec.name == spec.name);
        assert!(of_it().any(|case| case.expected.is_ok()), "{}", spec.name);
        // Any text is a name for these: the kernel and the store say what is wrong with it.
        let free = matches!(spec.kind, Kind::Text) || spec.name == "image";
        assert!(free || of_it().any(|case| case.expected.is_err()), "{}", spec.name);
        for error in of_it().filter_map(|case| case.expected.as_ref().err()) {
            assert_eq!((error.kind(), error.stage().is_empty()), ("config", false), "{error}");
            assert!(!error.hint().is_empty() && !error.failure().message.is_empty(), "{error}");
        }
    }
}

/// What a policy shows of an option is a text that means the same.
#[test]
fn what_is_shown_can_be_said_again() {
    for case in cases::all() {
        let Ok(options) = case.expected else { continue };
        // Contents and values are not shown; sets of calls are part of the profile.
        if matches!(case.spec.name, "env" | "env_file" | "file" | "seccomp_with" | "seccomp_without") {
            continue;
        }
        let again = options.iter().flat_map(|(name, texts)| texts.iter().map(move |text| (name, text)));
        let again = again.fold(sandcell::Sandbox::builder(), |builder, (name, text)| {
            builder.set(name, text.as_str()).unwrap_or_else(|e| panic!("{name} {text}: {e}"))
        });
        let first = sandcell::Sandbox::builder().set(case.spec.name, case.text.as_str()).unwrap();
        assert!(again.policy() == first.policy(), "{} {:?}: {:?}", case.spec.name, case.text, again);
    }
}

#[test]
fn the_program_takes_each_option_as_the_library_does() {
    for case in cases::all() {
        let option = format!("--{}={}", case.spec.name.replace('_', "-"), case.text);
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_sandcell"))
            .args(["explain", "--options", &option, "true"])
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        match case.expected {
            Ok(options) => {
                // The program takes its working directory from where it is called, as a shell's user means it.
                let here = std::env::current_dir().unwrap();
                let meant = |name: &str, text: &str| match name {
                    "chdir" => here.join(text).display().to_string(),
                    _ => text.to_owned(),
                };
                let line = |(name, text): (&str, &String)| format!("{name}={}\n", meant(name, text));
                let lines: String =
                    options.iter().flat_map(|(name, texts)| texts.iter().map(|text| line((name, text)))).collect();
                assert_eq!((output.status.code(), &*out), (Some(0), &*lines), "{option}: {err}");
            }
            Err(error) => {
                assert_eq!(output.status.code(), Some(125), "{option}: {out}");
                // Hints name options as the command line does.
                let named = |hint: String, name: &str| {
                    hint.replace(&format!("`{name}`"), &format!("`--{}`", name.replace('_', "-")))
                };
                let hint = options::all().map(|spec| spec.name).fold(error.hint().to_owned(), named);
                assert_eq!(err, format!("sandcell: {error}\nhint: {hint}\n"), "{option}");
            }
        }
    }
}

/// The names from before still say the same.
#[test]
fn names_from_before_are_understood() {
    for spec in options::all() {
        for old in spec.deprecated {
            let now = sandcell::Sandbox::builder().set(spec.name, "true").unwrap();
            assert!(sandcell::Sandbox::builder().set(old, "true").unwrap().policy() == now.policy(), "{old}");
            let output = std::process::Command::new(env!("CARGO_BIN_EXE_sandcell"))
                .args(["explain", "--options", &format!("--{}", old.replace('_', "-")), "true"])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}=true\n", spec.name));
        }
    }
}

/// What nothing consults is no promise: each item that is accepted is asked for somewhere in the library.
#[test]
fn best_effort_accepts_only_what_is_asked_for() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let enforcing: String = [
        "cgroup/settings.rs",
        "cgroup/mod.rs",
        "overlay/upper.rs",
        "api/sandbox.rs",
        "plan/isolation.rs",
        "api/system.rs",
        "plan/enforced.rs",
    ]
    .iter()
    .map(|file| fs::read_to_string(source.join(file)).unwrap())
    .collect();
    for item in options::best_effort_items().filter(|item| !item.contains(':') && *item != "all") {
        assert!(enforcing.contains(&format!("\"{item}\"")), "{item}");
    }
    for item in ["timeout", "output_limit", "network", "seccomp"] {
        let error = sandcell::Sandbox::builder().best_effort(item).build().unwrap_err();
        assert_eq!((error.kind(), error.subject()), ("config", "best_effort"), "{error}");
        assert!(error.hint().contains("cpu_time") && error.hint().contains("landlock:files"), "{}", error.hint());
    }
}
