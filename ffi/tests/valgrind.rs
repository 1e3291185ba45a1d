//! The C programs that look for themselves, and the examples, under valgrind: no error, no leak. Sandboxes are really
//! started; what valgrind does not know of them stands in `c/valgrind.c` and in docs/c.md.

mod common;

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Link, Scratch, arguments, compile, said};

/// Without `image` and `entry`, which make calls that valgrind does not know past syscall(3), and `owned`, which is about
/// leased ids.
const SUITE: [&str; 6] = ["misuse", "settings", "command", "child", "cell", "threads"];

fn build(source: &Path, scratch: &Scratch) -> PathBuf {
    let program = scratch.path("program");
    let cpp = source.extension().is_some_and(|extension| extension == "cpp");
    let (compiler, standard) = if cpp { ("c++", "-std=c++17") } else { ("cc", "-std=gnu11") };
    let shim = scratch.path("shim.o");
    compile("cc", &["-std=gnu11", "-c"], Path::new("tests/c/valgrind.c"), Link::Not, &shim);
    compile(compiler, &[standard, "-g", "-DUNDER_VALGRIND", shim.to_str().unwrap()], source, Link::Static, &program);
    program
}

/// valgrind does not know the clone(2) by which leased ids are entered: where the caller has some they are left behind.
fn valgrind(program: &Path, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    let valgrind = [
        "valgrind",
        "-q",
        "--error-exitcode=99",
        "--child-silent-after-fork=yes",
        "--leak-check=full",
        "--errors-for-leak-kinds=definite,indirect,possible",
    ];
    let mut command = match std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        true => Command::new(valgrind[0]),
        false => {
            let mut unshare = Command::new("unshare");
            unshare.args(["-r", valgrind[0]]);
            unshare
        }
    };
    let output = command.args(&valgrind[1..]).arg(program).args(arguments).output().unwrap();
    assert!(output.status.code() != Some(99), "{command:?}:\n{}", said(&output));
    output
}

#[test]
fn the_c_suite_shows_no_error_and_no_leak_under_valgrind() {
    for name in SUITE {
        let scratch = Scratch::new(&format!("valgrind {name}"));
        let program = build(Path::new(&format!("tests/c/{name}.c")), &scratch);
        let output = valgrind(&program, arguments(name, &scratch));
        assert!(output.status.success() && output.stdout.is_empty(), "{name}: {}\n{}", output.status, said(&output));
    }
}

#[test]
fn the_examples_show_no_error_and_no_leak_under_valgrind() {
    let scratch = Scratch::new("valgrind examples");
    let example = |name: &str, arguments: &[&str]| {
        let program = build(&Path::new("../examples").join(name), &scratch);
        let output = valgrind(&program, arguments);
        (String::from_utf8(output.stdout.clone()).unwrap(), output.status.code())
    };
    for run in ["c/run.c", "cpp/run.cpp"] {
        let script = "echo $GREETING; exit 7";
        assert_eq!(example(run, &["/bin/sh", "-c", script]), ("hello\n".to_owned(), Some(7)), "{run}");
    }
    let (said, status) = example("c/poll.c", &["3"]);
    assert_eq!((said.lines().count(), status), (3, Some(0)));
    assert_eq!(example("cpp/cell.cpp", &[]), ("1\n4\n9\n16\nkilled\n".to_owned(), Some(0)));
}

/// The check is really made: this is how the others would look if there were something to find.
#[test]
fn valgrind_finds_a_handle_that_was_not_freed() {
    let scratch = Scratch::new("valgrind leak");
    let source = scratch.path("leaks.c");
    std::fs::write(&source, "#include <sandcell.h>\nint main(void) { return sandcell_policy_new() == NULL; }\n")
        .unwrap();
    let program = build(&source, &scratch);
    let found = std::panic::catch_unwind(|| valgrind(&program, [""; 0]));
    assert!(found.is_err(), "the leak was not found");
}
