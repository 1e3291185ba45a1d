//! The probe, linked static so that it runs in a root without any library.

use super::Entry;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Builds the probe (again only where something changed) and returns its path.
///
/// A cargo of its own and a target directory of its own: `-C target-feature=+crt-static` for the whole workspace would
/// break the dynamic libraries in it. `SANDCELL_ESCAPE_PROBE` names a ready one instead, for machines without cargo.
pub fn probe() -> Result<PathBuf, String> {
    static PROBE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PROBE.get_or_init(build).clone()
}

fn build() -> Result<PathBuf, String> {
    if let Some(ready) = std::env::var_os("SANDCELL_ESCAPE_PROBE") {
        return Ok(PathBuf::from(ready));
    }
    let target = target().join("escape");
    let package = ["rustc", "--package", "sandcell-tests", "--bin", "escape-probe"];
    cargo(&package, &target, &["--", "-C", "target-feature=+crt-static"])?;
    let path = target.join("debug/escape-probe");
    path.canonicalize().map_err(|e| format!("{}: {e}", path.display()))
}

/// The `sandcell` program, which cargo does not build for the tests of another package. `SANDCELL_BIN` names a ready
/// one.
pub fn sandcell() -> Result<PathBuf, String> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let find = || {
        if let Some(ready) = std::env::var_os("SANDCELL_BIN") {
            return Ok(PathBuf::from(ready));
        }
        cargo(&["build", "--package", "sandcell", "--features", "cli", "--bin", "sandcell"], &target(), &[])?;
        let path = target().join("debug/sandcell");
        path.canonicalize().map_err(|e| format!("{}: {e}", path.display()))
    };
    PROGRAM.get_or_init(find).clone()
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
}

fn cargo(arguments: &[&str], target: &Path, last: &[&str]) -> Result<(), String> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments)
        .args(["--quiet", "--target-dir"])
        .arg(target)
        .args(last)
        .output()
        .map_err(|e| format!("cargo: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("cargo {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)))
}

/// The probe's own table, with the host's checks after it.
pub fn catalogue(probe: &Path) -> Result<Vec<Entry>, String> {
    let output = Command::new(probe).arg("--list").output().map_err(|e| format!("{}: {e}", probe.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut entries: Vec<Entry> = text.lines().filter_map(entry).collect();
    entries.extend(super::host::catalogue());
    Ok(entries)
}

fn entry(line: &str) -> Option<Entry> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_string);
    Some(Entry {
        id: text("id")?,
        class: text("class")?,
        priority: value.get("priority")?.as_u64()?,
        remembers: text("remembers")?,
        tries: text("tries")?,
    })
}
