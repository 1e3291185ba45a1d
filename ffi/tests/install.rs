//! What is installed: symbols and their versions, the three places of the version, pkg-config, CMake, meson.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{HERE, PlainPrefix, Scratch, declarations, default_prefix, holds, prefix, said};

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}:\n{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Functions that the header of an installed library declares.
fn declared(prefix: &Path) -> BTreeSet<String> {
    let name = |head: &str| head.rsplit([' ', '*']).next().unwrap().to_owned();
    declarations(prefix).iter().map(|(head, _)| name(head)).collect()
}

/// Symbols that a shared library defines for others, versions included.
fn exported(library: &Path) -> BTreeSet<String> {
    let symbols = output(Command::new("nm").args(["-D", "--defined-only"]).arg(library));
    symbols.lines().filter_map(|line| line.rsplit(' ').next()).map(str::to_owned).collect()
}

fn shared_in(prefix: &Path) -> PathBuf {
    prefix.join(format!("lib/libsandcell.so.{VERSION}"))
}

fn shared() -> PathBuf {
    shared_in(prefix())
}

fn exports_what_it_declares(prefix: &Path) {
    let mut wanted: BTreeSet<String> = declared(prefix).iter().map(|name| format!("{name}@@SANDCELL_0")).collect();
    assert!(wanted.len() > 100, "{wanted:?}");
    wanted.insert("SANDCELL_0".to_owned());
    assert_eq!(exported(&shared_in(prefix)), wanted);
}

#[test]
fn what_the_header_declares_is_exported_with_a_version_and_nothing_else_is() {
    exports_what_it_declares(prefix());
}

#[test]
fn images_are_declared_and_exported_where_they_were_asked_for() {
    assert_eq!(declared(prefix()).contains("sandcell_store_open"), cfg!(feature = "image"));
    if let Some(default) = default_prefix() {
        assert!(!declared(&default).contains("sandcell_store_open"));
        exports_what_it_declares(&default);
    }
}

/// In C++, as in C from C23 on, what is not declared is an error; before, compilers may leave it to the linker.
#[test]
fn a_program_that_uses_images_is_not_built_with_a_library_that_has_none() {
    let Some(default) = default_prefix() else { return };
    let scratch = Scratch::new("no images");
    let file = scratch.path("images.c");
    let text = "#include <sandcell.h>\nint main(void) { sandcell_store_free(0); return 0; }\n";
    fs::write(&file, text).unwrap();
    let build = |prefix: &Path, compiler: &[&str]| {
        let mut cc = Command::new(compiler[0]);
        cc.args(&compiler[1..]).arg("-I").arg(prefix.join("include")).arg(&file).arg("-L").arg(prefix.join("lib"));
        cc.args(["-lsandcell", "-o"]).arg(scratch.path("program")).output().unwrap()
    };
    for compiler in [&["c++", "-x", "c++"][..], &["clang", "-std=c2x"], &["cc", "-std=gnu89"]] {
        let output = build(&default, compiler);
        assert!(!output.status.success() && said(&output).contains("sandcell_store_free"), "{}", said(&output));
        let output = build(prefix(), compiler);
        assert!(output.status.success(), "{}", said(&output));
    }
}

/// What cargo builds by itself has no versions, but no other names either.
#[test]
fn the_library_that_cargo_builds_exports_the_same_names() {
    let library = std::env::current_exe().unwrap().with_file_name("libsandcell_ffi.so");
    let declared = declared(prefix());
    assert_eq!(exported(&library), declared);
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
fn the_shared_library_is_stripped() {
    let sections = output(Command::new("readelf").arg("-SW").arg(shared()));
    assert!(!sections.contains(".symtab") && !sections.contains(".debug_info"), "{sections}");
}

#[test]
fn what_is_installed_by_default_is_no_larger_than_two_megabytes() {
    let Some(default) = default_prefix() else { return };
    let size = |prefix: &Path| fs::metadata(shared_in(prefix)).unwrap().size();
    let (default, with_images) = (size(&default), size(prefix()));
    println!("{default} bytes, with images {with_images}");
    assert!(default <= 2_000_000 && with_images <= 3_500_000, "{default} bytes, with images {with_images}");
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
fn a_program_that_is_static_as_a_whole_is_built_with_the_flags_that_pkg_config_tells() {
    let scratch = Scratch::new("static");
    let project = consumer(&scratch);
    for (compiler, source) in [("cc", "consumer.c"), ("clang", "consumer.c"), ("c++", "consumer.cpp")] {
        let shell =
            format!("eval {compiler} -static {source} -o program $(pkg-config --static --cflags --libs sandcell)");
        output(pkg_config(Command::new("sh").args(["-c", &shell]).current_dir(&project)));
        let headers = output(Command::new("readelf").arg("-lW").arg(project.join("program")));
        assert!(!headers.contains("INTERP"), "{compiler}: {headers}");
        holds(&mut Command::new(project.join("program")));
    }
}

#[test]
fn a_program_finds_the_library_in_a_private_prefix_by_the_rpath_that_the_docs_name() {
    let scratch = Scratch::new("rpath");
    let project = consumer(&scratch);
    let docs = fs::read_to_string(Path::new(HERE).join("../docs/c.md")).unwrap();
    let mut lines = docs.lines().filter_map(|line| line.strip_prefix("$ cc run.c -o run "));
    let line = lines.find(|line| line.contains("-rpath")).expect("docs/c.md shows how");
    let plain = PlainPrefix::new("rpath");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("cc consumer.c -o program {line}")]).current_dir(&project);
    output(shell.env("PKG_CONFIG_PATH", plain.0.join("lib/pkgconfig")));
    holds(Command::new(project.join("program")).env_remove("LD_LIBRARY_PATH"));
}

#[test]
fn what_valgrind_needs_is_installed() {
    let scratch = Scratch::new("valgrind.c");
    let shim = prefix().join("share/sandcell/valgrind.c");
    output(Command::new("cc").args(["-c", "-Wall", "-Werror", "-o"]).arg(scratch.path("shim.o")).arg(shim));
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

/// Whether CMake goes on where a project wants this of the package, and what it says.
fn cmake_wants(what: &str, prefix: &Path) -> (bool, String) {
    let scratch = Scratch::new(&format!("cmake {what}"));
    let project = consumer(&scratch);
    let lists = fs::read_to_string(project.join("CMakeLists.txt")).unwrap();
    fs::write(project.join("CMakeLists.txt"), lists.replace("sandcell 0.1 REQUIRED", what)).unwrap();
    let mut cmake = Command::new("cmake");
    cmake.args(["-S", ".", "-B", "build", "-DCMAKE_PREFIX_PATH="]).current_dir(&project);
    let output = cmake.env("CMAKE_PREFIX_PATH", prefix).output().unwrap();
    (output.status.success(), said(&output))
}

#[test]
fn a_cmake_project_that_wants_a_later_version_is_told_so() {
    let (found, said) = cmake_wants("sandcell 0.999 REQUIRED", prefix());
    assert!(!found && said.contains("0.999"), "{said}");
}

#[test]
fn a_project_that_wants_images_is_told_whether_they_are_there() {
    let images = |prefix: &Path| {
        let mut pkg_config = Command::new("pkg-config");
        pkg_config.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
        output(pkg_config.args(["--variable=images", "sandcell"])).trim() == "true"
    };
    let wanted = "sandcell 0.1 REQUIRED COMPONENTS images";
    let (found, said) = cmake_wants(wanted, prefix());
    assert_eq!((found, images(prefix())), (cfg!(feature = "image"), cfg!(feature = "image")), "{said}");
    if let Some(default) = default_prefix() {
        let (found, said) = cmake_wants(wanted, &default);
        assert!(!found && !images(&default) && said.contains("built without images"), "{said}");
        let (found, said) = cmake_wants("sandcell 0.1 REQUIRED OPTIONAL_COMPONENTS images", &default);
        assert!(found, "{said}");
    }
}

#[test]
fn a_meson_project_finds_the_library_through_pkg_config() {
    let scratch = Scratch::new("meson");
    let project = consumer(&scratch);
    output(pkg_config(Command::new("meson").args(["setup", "build"]).current_dir(&project)));
    output(Command::new("ninja").args(["-C", "build"]).current_dir(&project));
    runs(&project.join("build/consumer"));
}
