//! `docs/options.md`.

use sandcell::options::{self, Kind, Spec};

use crate::c::setter;

const HEAD: &str = "\
# Options

Every option of a sandbox in every language. This page is made from the table in `sandbox/src/policy/options/table.rs`; so are the
options of the program, the methods of Rust, C and C++, the keywords of Python, and what `best_effort` accepts.

Each option can be set by its name and text, in one grammar everywhere: `--memory 64M` (the program),
`Builder::set(\"memory\", \"64M\")` (Rust), `sandcell_policy_set(policy, \"memory\", \"64M\")` (C), `policy.set(\"memory\", \"64M\")`
(C++), `memory=\"64M\"` (Python, where numbers, tuples, mappings and lists do as well). A mistake is the same error with the same
subject and the same words everywhere. C's typed setters have `sandcell_policy_…` in front; C++ has methods of the same names without
`set_` and `add_`, and takes `std::chrono` times.

## Text

| type | grammar |
|---|---|
| `SIZE` | Digits, then nothing, `B`, or a power of 1024: `K`, `M`, `G`, `T`, `KiB`, `MiB`, `GiB`, `TiB`, in either case. `4096`, `512k`, `64M`, `2GiB`. Not `64MB` (1000 or 1024?), no fractions, no signs, no spaces. |
| `DUR` | Digits, at most six decimals, and a unit: `ms`, `s`, `m`, `h`. `500ms`, `1.5s`, `5m`. The unit is required. In Python a number is seconds. |
| `N` | Digits. |
| `F` | Digits, also with decimals: `0.5`. No exponent. |
| `MODE` | Octal digits, also with `0o`: `022`, `755`. |
| `true\\|false` | Just that. The program's `--keep-env` is `--keep-env=true`. |
| `DIR`, `FILE`, `SRC`, `DEST` | A path, any bytes but NUL, not empty. Where `:` separates, `\\:` is a colon of the path, where `=` does `\\=`, where `,` does `\\,`; any other backslash is itself. |

Options that repeat add up; others hold as they were set last, in the program once.

## All of them

`program`, `C` and `Python` name it there; Rust's method is the name with `_` unless it says otherwise. In the last column:
**b** `best_effort` accepts it, **c** a running cell can change it (`set_limits`), **+** it repeats.

| program | C | Python | default | meaning | |
|---|---|---|---|---|---|
";

const TAIL: &str = "
## To add an option

One row in `sandbox/src/policy/options/table.rs`, and the code that enforces it. A limit's row makes the field of `Limits`, the
method of `Builder`, the option of the program and all setters; `cgroup/settings.rs` writes it to the cgroup. Then write
what is made from it:

    SANDCELL_WRITE_OPTIONS=1 cargo test -p sandcell --all-features --test options
    SANDCELL_WRITE_HEADER=1 cargo test -p sandcell-ffi --test header

An option with a form of its own (`SRC[:DEST]`) has its reading and its text in `sandbox/src/policy/options/forms.rs`, and its typed
setters by hand. Tests try every option of the table in every language: `options` in `sandbox/tests`, `faces` in `ffi/tests`,
`test_options.py`.
";

pub fn page() -> String {
    let rows: String = options::all().map(row).collect();
    let items: Vec<_> = options::best_effort_items().map(|item| format!("`{item}`")).collect();
    let items = format!("\n`best_effort` accepts {}, and nothing that it would not change.\n", items.join(", "));
    format!("{HEAD}{rows}{items}{TAIL}")
}

fn row(spec: &Spec) -> String {
    let form = match spec.kind {
        Kind::Words(words) => words.join("\\|"),
        Kind::Flag => String::new(),
        _ => spec.form.replace('|', "\\|"),
    };
    let c = if spec.is_plain() { setter(spec, spec.name).replace("sandcell_policy_", "") } else { spec.c.to_owned() };
    let marks = [(spec.best_effort, "b"), (spec.cell, "c"), (spec.repeats, "+")];
    let marks: Vec<_> = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
    let rust = if spec.rust == spec.name { String::new() } else { format!(" Rust: `{}`.", spec.rust) };
    let old = match spec.deprecated {
        [] => String::new(),
        old => format!(" Before: `{}`.", old.join("`, `")),
    };
    let program = format!("--{} {form}", spec.name.replace('_', "-"));
    format!(
        "| `{}` | `{c}` | `{}` | {} | {}.{rust}{old} | {} |\n",
        program.trim_end(),
        spec.python,
        spec.default,
        spec.summary().replace('|', "\\|"),
        marks.join(" "),
    )
}
