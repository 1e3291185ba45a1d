//! The installed library, compilers, and programs built with them.
#![allow(dead_code)] // Each test binary uses its part.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

pub const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// What a C library that is built with care builds without.
pub const WARNINGS: [&str; 5] = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"];

/// What a program that is linked with the static library needs besides.
const STATIC: [&str; 5] = ["-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];

/// A directory of the test's own, gone with it. Its name has a blank: paths are passed whole or not at all.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("sandcell c {name} {}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where the library is installed: by tests/run as a release, otherwise here, from what cargo built beside this test.
pub fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        if let Some(prefix) = std::env::var_os("SANDCELL_C_PREFIX") {
            return prefix.into();
        }
        let library = beside();
        let name = if cfg!(feature = "image") { "c prefix images" } else { "c prefix" };
        let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&prefix).unwrap();
        // Several processes want it at once: the first installs, and none while another one compiles with it.
        let lock = File::create(prefix.join("lock")).unwrap();
        lock.lock().unwrap();
        let stamp = prefix.join("installed");
        if is_newer(&stamp, &library) {
            return prefix;
        }
        let images: &[&OsStr] = if cfg!(feature = "image") { &["--with-images".as_ref()] } else { &[] };
        let places = ["--prefix".as_ref(), prefix.as_os_str(), "--library".as_ref(), library.as_os_str()];
        install(&[images, &places].concat());
        fs::write(stamp, "").unwrap();
        prefix
    })
}

/// The same place by a path without blanks, for tools that take no others.
pub struct PlainPrefix(pub PathBuf);

impl PlainPrefix {
    pub fn new(name: &str) -> PlainPrefix {
        let link = std::env::temp_dir().join(format!("sandcell-prefix-{name}-{}", std::process::id()));
        std::os::unix::fs::symlink(prefix(), &link).unwrap();
        PlainPrefix(link)
    }
}

impl Drop for PlainPrefix {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn beside() -> PathBuf {
    let library = std::env::current_exe().unwrap().with_file_name("libsandcell_ffi.a");
    assert!(library.exists(), "{} is not there: cargo build -p sandcell-ffi", library.display());
    library
}

pub fn install(arguments: &[&OsStr]) {
    let output = Command::new(Path::new(HERE).join("install")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Whether what was installed is newer than all that it was installed from.
fn is_newer(stamp: &Path, library: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|about| about.modified()).ok();
    let headers = fs::read_dir(Path::new(HERE).join("../include")).unwrap().map(|file| file.unwrap().path());
    let packaging = fs::read_dir(Path::new(HERE).join("packaging")).unwrap().map(|file| file.unwrap().path());
    let sources = headers.chain(packaging).chain([library.to_owned(), Path::new(HERE).join("install")]);
    time(stamp).is_some_and(|made| sources.into_iter().all(|source| time(&source).is_some_and(|time| time < made)))
}

/// Where tests/run has installed the library as it is by default: a release, without images.
pub fn default_prefix() -> Option<PathBuf> {
    let prefix = std::env::var_os("SANDCELL_C_SMALL").map(PathBuf::from);
    if prefix.is_none() {
        println!("SKIPPED: there is a release only where SANDCELL_C_SMALL says");
    }
    prefix
}

/// What the header of an installed library declares, as a compiler reads it: type and name of each function, and what it takes.
pub fn declarations(prefix: &Path) -> Vec<(String, String)> {
    let mut cc = Command::new("cc");
    let output = cc.args(["-E", "-P"]).arg(prefix.join("include/sandcell.h")).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    let functions = text.split(';').filter_map(|one| one.trim().strip_suffix(')')?.split_once('('));
    let ours = functions.filter(|(head, _)| !head.starts_with("typedef") && head.contains("sandcell_"));
    ours.map(|(head, inside)| (head.to_owned(), inside.to_owned())).collect()
}

/// Whether this is the release as it is shipped, and not what a plain `cargo test` has built.
pub fn is_release() -> bool {
    std::env::var_os("SANDCELL_C_PREFIX").is_some()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    Shared,
    Static,
    /// The shared one of `default_prefix`, which must be there.
    Default,
    /// The static library that cargo built beside this test, with the features that the test was built with.
    Beside,
    /// Not at all: an object.
    Not,
}

/// A program from a source below `ffi/`, with every warning an error; `program` is where it is put.
pub fn compile(compiler: &str, flags: &[&str], source: &Path, link: Link, program: &Path) {
    let prefix = if link == Link::Default { &default_prefix().unwrap() } else { prefix() };
    let mut cc = Command::new(compiler);
    cc.args(WARNINGS).args(flags).arg("-I").arg(prefix.join("include")).arg("-I").arg(Path::new(HERE).join("tests/c"));
    cc.arg(Path::new(HERE).join(source)).arg("-o").arg(program);
    match link {
        Link::Shared | Link::Default => {
            let mut rpath = std::ffi::OsString::from("-Wl,-rpath,");
            rpath.push(prefix.join("lib"));
            cc.arg("-L").arg(prefix.join("lib")).arg("-lsandcell").arg(rpath)
        }
        Link::Static => cc.arg(prefix.join("lib/libsandcell.a")).args(STATIC),
        Link::Not => return finish(cc),
        Link::Beside => cc.arg(beside()).args(STATIC),
    };
    cc.arg("-pthread");
    finish(cc)
}

fn finish(mut cc: Command) {
    let compiler = cc.get_program().display().to_string();
    let output = cc.output().unwrap_or_else(|e| panic!("{compiler}: {e}"));
    assert!(output.status.success(), "{cc:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{cc:?}:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// The programs that look for themselves, with what they are given.
pub const SUITE: [&str; 11] =
    ["misuse", "settings", "caller", "command", "child", "terminal", "cell", "named", "entry", "owned", "threads"];

/// The one that needs images, where the installed library has them.
pub const IMAGES: &[&str] = if cfg!(feature = "image") { &["image"] } else { &[] };

/// A layer for the program that wants one, and a directory.
pub fn arguments(name: &str, scratch: &Scratch) -> Vec<PathBuf> {
    match name {
        "cell" => vec![layer(scratch)],
        "image" => vec![scratch.0.clone()],
        "owned" => {
            layer(scratch);
            vec![scratch.0.clone()]
        }
        _ => Vec::new(),
    }
}

/// A directory that can be the lowest layer of a root: a file `old`, and the links that a merged /usr has.
pub fn layer(scratch: &Scratch) -> PathBuf {
    let layer = scratch.path("layer");
    fs::create_dir(&layer).unwrap();
    fs::write(layer.join("old"), "old\n").unwrap();
    for name in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), layer.join(name)).unwrap();
    }
    layer
}

/// Runs a program that prints nothing and ends with 0 where all holds.
pub fn holds(program: &mut Command) {
    let output = program.output().unwrap();
    assert!(output.status.success(), "{program:?}: {}\n{}", output.status, said(&output));
    // Nothing is printed by the library, whatever goes wrong.
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{program:?}:\n{}", said(&output));
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
