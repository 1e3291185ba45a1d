//! `sandcell test`: what a test program needs to see, found from where it is started and what it is.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use sandcell::{Builder, Error, Leftovers, Sandbox};

use crate::options::{Options, wrong};

/// What lies in the top directory of a source tree.
const SOURCE: [&str; 10] = [
    ".git",
    "Cargo.toml",
    "CMakeLists.txt",
    "meson.build",
    "go.mod",
    "configure.ac",
    "MODULE.bazel",
    "WORKSPACE",
    "pyproject.toml",
    "package.json",
];
/// What lies in the top directory of a build: of Cargo, CMake, Meson, autotools.
const BUILD: [&str; 4] = ["CACHEDIR.TAG", "CMakeCache.txt", "meson-private", "config.status"];
/// Directories, or files in directories, that runners tell their tests to write to: Bazel and Go.
const OUTPUTS: [&str; 3] = ["TEST_TMPDIR", "TEST_UNDECLARED_OUTPUTS_DIR", "GOCOVERDIR"];
/// What every sandbox shows: the host view of the library.
const SYSTEM: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt"];

pub fn sandbox(
    options: &Options,
    source: Option<&Path>,
    build: &[PathBuf],
    program: Option<&OsString>,
) -> Result<Sandbox, Error> {
    let here = std::env::current_dir().map_err(|e| wrong("--chdir", OsStr::new("."), e.to_string()))?;
    let mut shown = Shown::default();
    match source {
        Some(dir) => shown.add(real(&absolute(dir)), false),
        None => source_tree(&here).into_iter().for_each(|dir| shown.add(dir, false)),
    }
    let top = shown.mounts.first().map(|(dir, _)| dir.clone());
    // A build in the middle of its sources would make these writable: then only what --build says.
    let separate = |dir: &PathBuf| top.as_ref().is_none_or(|top| !top.starts_with(dir)) && !holds_home(dir);
    let program = program.map(|program| absolute(Path::new(program))).filter(|program| program.exists());
    let own = program.as_ref().and_then(|program| Some(real(program.parent()?))).filter(|dir| dir != Path::new("/"));
    if build.is_empty() {
        build_dirs(&here, own.as_deref(), top.as_deref()).into_iter().filter(separate).for_each(|d| shown.add(d, true));
    } else {
        build.iter().for_each(|dir| shown.add(real(&absolute(dir)), true));
    }
    let outputs = OUTPUTS.iter().filter_map(|name| variable_path(name));
    let outputs = outputs.chain(variable_path("XML_OUTPUT_FILE").and_then(|file| Some(file.parent()?.to_owned())));
    outputs.filter(|dir| dir.is_dir()).filter(separate).for_each(|dir| shown.add(dir, true));
    // A directory that the runner made for this run alone (`go test`, doctests) holds what the test writes, too.
    if let Some(dir) = own {
        let temporary = dir.starts_with(std::env::temp_dir()) && separate(&dir);
        shown.add(dir, temporary);
    }
    // A project reached through a link: what its build has written down begins with the link.
    let here_by_name = variable_path("PWD").filter(|path| path.canonicalize().is_ok_and(|real| real == here));
    let named = here_by_name.into_iter().chain(program.clone()).chain(source.map(absolute));
    named.chain(build.iter().map(|dir| absolute(dir))).for_each(|path| shown.add_link(&path));
    let libraries = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    std::env::split_paths(&libraries).filter(|dir| dir.is_absolute() && dir.is_dir()).for_each(|d| shown.add(d, false));

    // What a test writes is the caller's. Root's files can be mapped to a stranger (idmapped mounts), and the stranger
    // cannot read what only root may; nobody else's can, so that tests of others keep the caller's UID.
    let keep = !nix::unistd::geteuid().is_root();
    let mut builder =
        Sandbox::builder().keep_env(true).keep_id(keep).leftovers(Leftovers::Report).current_dir(here.clone());
    builder = profiles(builder, &mut shown, &here, separate)?;
    // Merged doctests run themselves again, each in a process of its own, if they know where they are: rustdoc tells them,
    // but not where they have a runner. In one process, one that exits would end all others as if they had passed.
    if let Some(program) = program.filter(|program| program.file_name() == Some(OsStr::new("rust_out"))) {
        builder = builder.env("RUSTDOC_DOCTEST_BIN_PATH", program);
    }
    // Beneath its old value there is nothing inside.
    if std::env::var_os("TMPDIR").is_some() {
        builder = builder.env("TMPDIR", "/tmp");
    }
    let same = shown.mounts.iter().map(|(dir, writable)| (dir, dir, *writable));
    for (dir, dest, writable) in same.chain(shown.links.iter().map(|(dir, link, writable)| (dir, link, *writable))) {
        builder = if writable { builder.rw(dir, dest) } else { builder.ro(dir, dest) };
    }
    options.applied_to(builder)?.build()
}

/// The directories of the host that are shown at their own paths, and whether they can be written to.
#[derive(Default)]
struct Shown {
    mounts: Vec<(PathBuf, bool)>,
    /// What of these is shown a second time, where a link leads to it.
    links: Vec<(PathBuf, PathBuf, bool)>,
}

impl Shown {
    fn add(&mut self, dir: PathBuf, writable: bool) {
        // A path with `..` in it is shown where it leads to.
        let dir = if dir.iter().any(|part| part == "..") { real(&dir) } else { dir };
        let covered = self.mounts.iter().rev().find(|(other, _)| dir.starts_with(other)).map(|(_, writable)| *writable);
        let system = SYSTEM.iter().any(|system| dir.starts_with(system));
        if covered == Some(true) || (!writable && (covered.is_some() || system)) {
            return;
        }
        match self.mounts.iter_mut().find(|(other, _)| *other == dir) {
            Some(known) => known.1 = true,
            None => self.mounts.push((dir, writable)),
        }
    }
}

impl Shown {
    /// Shows what a path leads to by links under the names of the links, too.
    fn add_link(&mut self, path: &Path) {
        for (dir, writable) in &self.mounts {
            let leads_there = |link: &&Path| *link != dir && link.canonicalize().is_ok_and(|real| real == *dir);
            // The shortest path: what lies beneath it is there with it.
            if let Some(link) = path.ancestors().filter(leads_there).last() {
                let entry = (dir.clone(), link.to_owned(), *writable);
                if !self.links.contains(&entry) && !self.mounts.iter().any(|(other, _)| link.starts_with(other)) {
                    self.links.push(entry);
                }
            }
        }
    }
}

/// The repository that the working directory is in; without one, the outermost project around it.
fn source_tree(here: &Path) -> Option<PathBuf> {
    let around = || here.ancestors().take_while(|dir| !holds_home(dir) && *dir != std::env::temp_dir());
    let repository = around().find(|dir| dir.join(".git").exists());
    let project = || around().filter(|dir| SOURCE.iter().any(|name| dir.join(name).exists())).last();
    repository.or_else(project).or_else(|| around().next()).map(Path::to_owned)
}

/// Whether showing it would show homes: / and what lies between it and the caller's home, the home included.
fn holds_home(dir: &Path) -> bool {
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    dir.parent().is_none() || dir == Path::new("/home") || home.is_some_and(|home| home.starts_with(dir))
}

fn build_dirs(here: &Path, own: Option<&Path>, top: Option<&Path>) -> Vec<PathBuf> {
    let is_build = |dir: &&Path| BUILD.iter().any(|name| dir.join(name).exists());
    let above = |dir: &Path| dir.ancestors().find(is_build).map(Path::to_owned);
    let target = variable_path("CARGO_TARGET_DIR").or(top.map(|top| top.join("target")));
    let target = target.filter(|dir| dir.join("CACHEDIR.TAG").exists());
    [own.and_then(above), above(here), target].into_iter().flatten().collect()
}

/// Coverage of LLVM: the directory of the profiles is writable, and their names tell apart what each sandbox, in
/// which process numbers begin anew, writes.
fn profiles(
    builder: Builder,
    shown: &mut Shown,
    here: &Path,
    separate: impl Fn(&PathBuf) -> bool,
) -> Result<Builder, Error> {
    let Some(pattern) = std::env::var_os("LLVM_PROFILE_FILE").filter(|pattern| !pattern.is_empty()) else {
        return Ok(builder);
    };
    let path = here.join(&pattern);
    let fixed = path.ancestors().skip(1).find(|dir| !dir.as_os_str().as_bytes().contains(&b'%'));
    let dir = fixed.unwrap_or(here).to_owned();
    if !separate(&dir) {
        const REMEDY: &str = "lies in the read-only source tree: name a directory, as target/profiles/%p.profraw does";
        return Err(wrong("LLVM_PROFILE_FILE", &pattern, REMEDY));
    }
    let failed = |e: std::io::Error| wrong("LLVM_PROFILE_FILE", &pattern, format!("no directory for it: {e}"));
    fs::create_dir_all(&dir).map_err(failed)?;
    shown.add(dir, true);
    let mut name = Vec::new();
    let mut rest = path.as_os_str().as_bytes();
    while let Some(at) = rest.windows(2).position(|two| two == b"%p") {
        name.extend_from_slice(&rest[..at]);
        name.extend_from_slice(format!("{}-%p", std::process::id()).as_bytes());
        rest = &rest[at + 2..];
    }
    name.extend_from_slice(rest);
    Ok(builder.env("LLVM_PROFILE_FILE", OsString::from_vec(name)))
}

fn variable_path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Where a path leads to. What is not there is named in the error of the mount.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn absolute(path: &Path) -> PathBuf {
    // Fails for an empty path only, which names nothing.
    std::path::absolute(path).unwrap_or_default()
}
