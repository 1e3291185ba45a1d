//! What is installed: symbols and their versions, the three places of the version, pkg-config, CMake, meson.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{HERE, Scratch, holds, is_release, prefix, said};

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}:\n{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Functions that the header declares.
fn declared() -> BTreeSet<String> {
    let header = fs::read_to_string(Path::new(HERE).join("../include/sandcell.h")).unwrap();
    header
        .lines()
        .filter(|line| !line.starts_with(['/', ' ', '#']))
        .filter_map(|line| line.split_once('(')?.0.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("sandcell_"))
        .map(str::to_owned)
        .collect()
}

/// Symbols that a shared library defines for others, versions included.
fn exported(library: &Path) -> BTreeSet<String> {
    let symbols = output(Command::new("nm").args(["-D", "--defined-only"]).arg(library));
    symbols.lines().filter_map(|line| line.rsplit(' ').next()).map(str::to_owned).collect()
}

fn shared() -> PathBuf {
    prefix().join(format!("lib/libsandcell.so.{VERSION}"))
}

#[test]
fn what_the_header_declares_is_exported_with_a_version_and_nothing_else_is() {
    let mut wanted: BTreeSet<String> = declared().iter().map(|name| format!("{name}@@SANDCELL_0")).collect();
    assert!(wanted.len() > 100, "{wanted:?}");
    wanted.insert("SANDCELL_0".to_owned());
    assert_eq!(exported(&shared()), wanted);
}

/// What cargo builds by itself has no versions, but no other names either.
#[test]
fn the_library_that_cargo_builds_exports_the_same_names() {
    let library = std::env::current_exe().unwrap().with_file_name("libsandcell_ffi.so");
    assert_eq!(exported(&library), declared());
    let dynamic = output(Command::new("readelf").arg("-d").arg(library));
    assert!(dynamic.contains("[libsandcell.so.0]"), "{dynamic}");
}

#[test]
fn the_shared_library_has_its_number_in_its_name_and_needs_only_the_c_library() {
    let dynamic = output(Command::new("readelf").arg("-d").arg(shared()));
    assert!(dynamic.contains("soname: [libsandcell.so.0]"), "{dynamic}");
    let needed: BTreeSet<&str> = dynamic
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split_once('[')?.1.split(".so").next())
        .collect();
    assert!(needed.is_subset(&BTreeSet::from(["libc", "libgcc_s", "libm", "ld-linux-x86-64"])), "{needed:?}");
    for name in ["libsandcell.so", "libsandcell.so.0"] {
        assert_eq!(fs::canonicalize(prefix().join("lib").join(name)).unwrap(), fs::canonicalize(shared()).unwrap());
    }
}

#[test]
fn the_shared_library_is_stripped_and_no_larger_than_a_megabyte_and_a_half() {
    let sections = output(Command::new("readelf").arg("-SW").arg(shared()));
    assert!(!sections.contains(".symtab") && !sections.contains(".debug_info"), "{sections}");
    if is_release() {
        let with_images = fs::metadata(shared()).unwrap().size();
        let without = std::env::var_os("SANDCELL_C_SMALL").expect("a prefix of `ffi/install --without-images`");
        let file = Path::new(&without).join("lib").join(shared().file_name().unwrap());
        let size = fs::metadata(file).unwrap().size();
        println!("{size} bytes, with images {with_images}");
        assert!(size <= 1_500_000 && with_images <= 2_500_000, "{size} bytes, with images {with_images}");
    } else {
        println!("SKIPPED: only a release has a size that counts: set SANDCELL_C_PREFIX");
    }
}

/// The third place, the library itself, is looked at by `misuse.c`.
#[test]
fn header_and_package_files_have_the_version_of_the_crate() {
    let header = fs::read_to_string(prefix().join("include/sandcell.h")).unwrap();
    assert!(header.contains(&format!("#define SANDCELL_VERSION \"{VERSION}\"\n")));
    let told = output(pkg_config(&mut Command::new("pkg-config")).args(["--modversion", "sandcell"]));
    assert_eq!(told.trim(), VERSION);
}

/// Files below a directory that give rights to whoever executes them.
fn privileged(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(top).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            found.extend(privileged(&path));
        } else if meta.is_file() {
            let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
            #[allow(unsafe_code)]
            // SAFETY: two strings; no room for the value is no question for it.
            let length =
                unsafe { libc::getxattr(name.as_ptr(), c"security.capability".as_ptr(), std::ptr::null_mut(), 0) };
            if meta.mode() & 0o6000 != 0 || length > 0 {
                found.push(path);
            }
        }
    }
    found
}

/// No set-id helper is shipped, so that there is none to be fooled (CVE-2016-8659, CVE-2020-5291).
#[test]
fn nothing_that_is_installed_gives_rights_to_whoever_executes_it() {
    assert_eq!(privileged(prefix()), Vec::<PathBuf>::new());
    // The twin.
    let scratch = Scratch::new("set-id");
    let program = scratch.path("program");
    fs::write(&program, "").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o2755)).unwrap();
    assert_eq!(privileged(&scratch.0), [program]);
}

fn pkg_config(command: &mut Command) -> &mut Command {
    command.env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig"))
}

/// A copy of the small project, in a directory with a blank in its name.
fn consumer(scratch: &Scratch) -> PathBuf {
    let project = scratch.path("a project");
    fs::create_dir(&project).unwrap();
    for entry in fs::read_dir(Path::new(HERE).join("tests/consumer")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), project.join(entry.file_name())).unwrap();
    }
    project
}

/// Programs find the library where it was installed, not where the loader looks.
fn runs(program: &Path) {
    holds(Command::new(program).env("LD_LIBRARY_PATH", prefix().join("lib")));
}

#[test]
fn a_program_is_built_with_the_flags_that_pkg_config_tells() {
    let scratch = Scratch::new("pkg-config");
    let project = consumer(&scratch);
    let shell = "eval cc consumer.c -o shared $(pkg-config --cflags --libs sandcell) && \
                 eval cc consumer.c -o static $(pkg-config --cflags sandcell) -Wl,-Bstatic \
                 $(pkg-config --libs sandcell) -Wl,-Bdynamic $(pkg-config --static --libs-only-l sandcell | sed s/-lsandcell//)";
    output(pkg_config(Command::new("sh").args(["-c", shell]).current_dir(&project)));
    runs(&project.join("shared"));
    holds(&mut Command::new(project.join("static")));
}

#[test]
fn a_cmake_project_finds_the_package() {
    let scratch = Scratch::new("cmake");
    let project = consumer(&scratch);
    let mut root = std::ffi::OsString::from("-DCMAKE_PREFIX_PATH=");
    root.push(prefix());
    output(Command::new("cmake").args(["-S", ".", "-B", "build"]).arg(root).current_dir(&project));
    output(Command::new("cmake").args(["--build", "build"]).current_dir(&project));
    for name in ["consumer", "consumer-static", "consumer-cpp"] {
        runs(&project.join("build").join(name));
    }
}

#[test]
fn a_cmake_project_that_wants_a_later_version_is_told_so() {
    let scratch = Scratch::new("cmake later");
    let project = consumer(&scratch);
    let lists = fs::read_to_string(project.join("CMakeLists.txt")).unwrap();
    fs::write(project.join("CMakeLists.txt"), lists.replace("sandcell 0.1", "sandcell 0.999")).unwrap();
    let mut cmake = Command::new("cmake");
    cmake.args(["-S", ".", "-B", "build", "-DCMAKE_PREFIX_PATH="]).current_dir(&project);
    let output = cmake.env("CMAKE_PREFIX_PATH", prefix()).output().unwrap();
    assert!(!output.status.success() && said(&output).contains("0.999"), "{}", said(&output));
}

#[test]
fn a_meson_project_finds_the_library_through_pkg_config() {
    let scratch = Scratch::new("meson");
    let project = consumer(&scratch);
    output(pkg_config(Command::new("meson").args(["setup", "build"]).current_dir(&project)));
    output(Command::new("ninja").args(["-C", "build"]).current_dir(&project));
    runs(&project.join("build/consumer"));
}
