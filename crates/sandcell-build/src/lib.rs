//! Builds a program: static, without libc and without the standard library, and small. Cargo cannot build a program for the
//! library that depends on it, so this calls the compiler for each of the crates that the program is made of.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the program of the crate whose build script this is: `src/lib.rs` as the crate `name`, `src/program.rs` as the
/// program `file` in the output directory.
pub fn program(name: &'static str, file: &str) {
    programs(name, &[("src/program.rs", file)]);
}

/// The same where a crate has several programs: the source and the file of each.
pub fn programs(name: &'static str, all: &[(&str, &str)]) {
    println!("cargo::rustc-check-cfg=cfg(sandcell_init_program)");
    println!("cargo::rerun-if-changed=src");
    let compiler = Compiler::new();
    let raw = compiler.library("sandcell_raw", &source_of("SANDCELL_RAW"), &[]);
    let protocol = compiler.library("sandcell_protocol", &source_of("SANDCELL_PROTOCOL"), &[]);
    let crates = [("sandcell_raw", raw), ("sandcell_protocol", protocol)];
    let own = compiler.library(name, Path::new("src/lib.rs"), &crates);
    let [raw, protocol] = crates;
    let crates = [raw, protocol, (name, own)];
    for (source, file) in all {
        compiler.program(source, file, &crates);
    }
}

/// Where a crate's source is, as its build script has told.
fn source_of(links: &str) -> PathBuf {
    let name = format!("DEP_{links}_SOURCE");
    let path = PathBuf::from(env::var_os(&name).unwrap_or_else(|| panic!("cargo sets {name}")));
    println!("cargo::rerun-if-changed={}", path.parent().expect("its directory").display());
    path
}

type Crate = (&'static str, PathBuf);

struct Compiler {
    rustc: OsString,
    out: PathBuf,
    target: String,
}

impl Compiler {
    fn new() -> Compiler {
        Compiler {
            rustc: env::var_os("RUSTC").expect("cargo sets RUSTC"),
            out: PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")),
            target: env::var("TARGET").expect("cargo sets TARGET"),
        }
    }

    fn library(&self, name: &'static str, source: &Path, crates: &[Crate]) -> PathBuf {
        let out = self.out.join(format!("lib{name}.rlib"));
        let mut command = self.command(crates);
        command.args(["--crate-type=rlib", "--crate-name", name, "-o"]).arg(&out).arg(source);
        run(command);
        out
    }

    fn program(&self, source: &str, file: &str, crates: &[Crate]) {
        let mut command = self.command(crates);
        command
            .args(["--crate-type=bin", "--crate-name=sandcell_program"])
            .args(["-Clto=fat", "-Cstrip=symbols", "-Crelocation-model=static"])
            .args(["-Clink-arg=-nostartfiles", "-Clink-arg=-nostdlib", "-Clink-arg=-static"])
            .args(["-Clink-arg=-Wl,--build-id=none", "-Clink-arg=-Wl,-z,noexecstack", "-Clink-arg=-Wl,-z,norelro"]);
        if let Some(linker) = env::var_os("RUSTC_LINKER") {
            let mut option = OsString::from("-Clinker=");
            option.push(linker);
            command.arg(option);
        }
        command.arg("-o").arg(self.out.join(file)).arg(source);
        run(command);
    }

    fn command(&self, crates: &[Crate]) -> Command {
        let mut command = Command::new(&self.rustc);
        command
            .args(["--edition=2024", "--cfg=sandcell_init_program", "--cap-lints=warn", "--target", &self.target])
            .args(["-Cpanic=abort", "-Copt-level=s", "-Cdebuginfo=0", "-Ccodegen-units=1"])
            .args(["-Coverflow-checks=on", "-Cforce-unwind-tables=no"]);
        if self.target.starts_with("aarch64-") {
            // Otherwise atomics are functions that ask libc which instructions there are.
            command.arg("-Ctarget-feature=-outline-atomics");
        }
        command.arg("-L").arg(&self.out);
        for (name, path) in crates {
            command.arg("--extern").arg(format!("{name}={}", path.display()));
        }
        command
    }
}

fn run(mut command: Command) {
    let status = command.status().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(status.success(), "building the program failed: {command:?}");
}
