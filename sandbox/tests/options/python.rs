//! The keywords of `sandcell.Sandbox` and their types.

use sandcell::options::{self, Kind, Spec};

/// Keywords that `Sandbox` and `run` name themselves: each run may say them anew.
const OWN: [&str; 3] = ["timeout", "env", "cwd"];

/// The type of a keyword.
fn annotation(spec: &Spec) -> String {
    match (spec.kind, spec.name) {
        (Kind::Size, _) => "Size".to_owned(),
        (Kind::Count | Kind::SmallCount | Kind::Mode, _) => "Count".to_owned(),
        (Kind::Fraction, _) => "Fraction".to_owned(),
        (Kind::Duration, _) => "Duration".to_owned(),
        (Kind::Flag, _) => "bool".to_owned(),
        (Kind::Text, _) => "str".to_owned(),
        (Kind::Path, _) | (Kind::Form, "root" | "upper" | "store" | "seccomp") => "Path".to_owned(),
        (Kind::Words(words), _) => {
            format!("Literal[{}]", words.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(", "))
        }
        (_, "layer" | "env_file") => "Iterable[Path]".to_owned(),
        (_, "ro" | "rw") => "Iterable[Bind]".to_owned(),
        (_, "tmpfs") => "Iterable[Path | tuple[Path, Size]]".to_owned(),
        (_, "file") => "Mapping[Path, str | bytes | tuple[str | bytes, int]] | Sequence[str]".to_owned(),
        (_, "volume") => "Iterable[str | tuple[str, Path] | tuple[str, Path, str]]".to_owned(),
        (_, "user") => "str | int | tuple[int, int]".to_owned(),
        (_, "rlimit") => "Mapping[str, Size | tuple[Size, Size]] | Sequence[str]".to_owned(),
        (_, "io_max") => "Mapping[str, IoMax] | Sequence[str]".to_owned(),
        (_, "publish") => "Mapping[int | str, int | str] | Sequence[str]".to_owned(),
        (_, "host_port") => "Iterable[int | str]".to_owned(),
        _ if spec.repeats => "Iterable[str]".to_owned(),
        _ => "str".to_owned(),
    }
}

fn row(spec: &Spec, keyword: &str) -> String {
    let help: String = spec.summary().replace('`', "");
    let lines: String = crate::wrapped(&help, 108).iter().map(|line| format!("    #: {line}\n")).collect();
    format!("{lines}    {keyword}: {}\n", annotation(spec))
}

pub fn keywords() -> String {
    let mut made = String::from(
        "class Policy(TypedDict, total=False):\n    \"\"\"The options of the program `sandcell`, `-` as `_`; docs/options.md has them all.\"\"\"\n\n",
    );
    for spec in options::all().filter(|spec| !OWN.contains(&spec.python)) {
        made += &row(spec, spec.python);
    }
    made += "    #: Deprecated: cwd.\n    chdir: Path\n";
    for spec in options::all() {
        for old in spec.deprecated {
            made += &format!("    #: Deprecated: {}.\n    {old}: {}\n", spec.python, annotation(spec));
        }
    }
    made +=
        "\n\nclass Limits(TypedDict, total=False):\n    \"\"\"What Cell.set_limits can change; as in Policy.\"\"\"\n\n";
    for spec in options::all().filter(|spec| spec.cell) {
        made += &format!("    {}: {}\n", spec.python, annotation(spec));
    }
    made
}
