#![cfg(feature = "image")]
//! Killed, or out of space, at any moment: the store is whole, and trying again works.
//!
//! The tests start themselves: the victim is `a_victim` in a process of its own, which does nothing when it is run as a
//! test. `SANDCELL_FAULTS=200` sets how many moments are tried (20).

mod image_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use image_support::*;
use sandcell::image::{Commit, Load, Source, Store};

fn moments() -> u64 {
    std::env::var("SANDCELL_FAULTS").ok().and_then(|n| n.parse().ok()).unwrap_or(20)
}

/// Loads, commits, untags and prunes in the store of `dir`, whatever is there already.
fn work(dir: &Path) -> sandcell::Result<()> {
    let store = Store::open(dir.join("store"))?;
    for name in ["one", "two"] {
        store.load(&Source::Detect(dir.join(name)), &Load::new())?;
    }
    store.commit(Some(&dir.join("upper")), &Commit::on("two:1").name("three:1".parse()?))?;
    store.remove("one:1")?;
    store.prune()?;
    store.load(&Source::Detect(dir.join("one")), &Load::new())?;
    Ok(())
}

/// Everything that the store offers is whole, and nothing that it hides is left after a prune.
fn assert_whole(dir: &Path) {
    let store = Store::open(dir.join("store")).unwrap();
    let kept: Vec<_> =
        store.images().unwrap().iter().map(|image| store.use_image(&image.id.to_string()).unwrap()).collect();
    for image in &kept {
        for (layer, tree) in image.image.layers.iter().zip(&image.layers) {
            let files: u64 = snapshot(tree).iter().filter(|(_, line)| line.starts_with("100")).count() as u64;
            assert!(files > 0 && files <= layer.members, "{} has {files} files of {}", layer.diff_id, layer.members);
            let blob = fs::metadata(tree.with_file_name("blob")).unwrap().len();
            assert_eq!(blob, layer.blob_size);
            for n in 0..40 {
                let file = tree.join(format!("d/f{n}"));
                assert!(!tree.join("d").exists() || fs::metadata(&file).unwrap().len() == 20_000, "{file:?}");
            }
        }
    }
    drop(kept);
    store.prune().unwrap();
    assert_eq!(fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
}

fn prepare(dir: &Path) {
    let layer = |n: u8| {
        let files = (0..40).map(|at| file(format!("d/f{at}"), vec![n; 20_000]));
        tar(&[dir_of(n)].into_iter().chain(files).collect::<Vec<_>>())
    };
    fn dir_of(n: u8) -> Member {
        file(format!("only{n}"), "x")
    }
    Layout::image(dir.join("one"), "one:1", &[layer(1), layer(2)], "+gzip", gzip);
    Layout::image(dir.join("two"), "two:1", &[layer(1), layer(3), layer(4)], "", <[u8]>::to_vec);
    fs::create_dir(dir.join("upper")).unwrap();
    fs::write(dir.join("upper/changed"), vec![5; 300_000]).unwrap();
}

fn victim(dir: &Path, what: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_victim", "--nocapture"]).env("SANDCELL_VICTIM", what).env("SANDCELL_VICTIM_DIR", dir);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn a_victim() {
    let Some(what) = std::env::var_os("SANDCELL_VICTIM") else { return };
    let dir = PathBuf::from(std::env::var_os("SANDCELL_VICTIM_DIR").unwrap());
    match what.to_str().unwrap() {
        // The first round is cut short somewhere, the store then holds a bit of everything.
        "work" => loop {
            work(&dir).unwrap();
        },
        "full" => full_disk(&dir),
        other => panic!("{other}"),
    }
}

/// A sequence that looks random and is the same each time.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn a_kill_at_any_moment_leaves_a_whole_store() {
    let scratch = Scratch::new("kill");
    prepare(&scratch.0);
    let started = Instant::now();
    work(&scratch.0).unwrap();
    let once = started.elapsed().as_micros() as u64;
    let mut state = 0x5eed;
    for _ in 0..moments() {
        let mut child = victim(&scratch.0, "work").spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random(&mut state) % (2 * once)));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "it failed by itself");
        assert_whole(&scratch.0);
    }
    work(&scratch.0).unwrap();
    assert_whole(&scratch.0);
}

/// In a mount namespace of our own: a small tmpfs, a little larger each time.
fn full_disk(dir: &Path) {
    let small = dir.join("small");
    let mut failures = 0;
    let mut size = 200 << 10;
    loop {
        let options = format!("size={size}");
        nix::mount::mount(Some("small"), &small, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options.as_str()))
            .unwrap();
        for name in ["one", "two", "upper"] {
            std::os::unix::fs::symlink(dir.join(name), small.join(name)).unwrap();
        }
        let result = work(&small);
        match &result {
            Ok(()) => {}
            Err(error) => {
                failures += 1;
                assert_eq!(error.errno(), Some(nix::libc::ENOSPC), "{error}");
                assert!(error.hint().contains("make room"), "{error}");
                if small.join("store/version").exists() {
                    assert_whole(&small);
                }
                // Room is made: the same store, the same work.
                let options = "size=100m";
                nix::mount::mount(Some("small"), &small, Some("tmpfs"), nix::mount::MsFlags::MS_REMOUNT, Some(options))
                    .unwrap();
                work(&small).unwrap();
            }
        }
        assert_whole(&small);
        nix::mount::umount(&small).unwrap();
        if result.is_ok() {
            break;
        }
        size += 8_000_000 / moments() as usize;
    }
    assert!(failures >= 5, "only {failures} moments without space");
    fs::write(dir.join("done"), failures.to_string()).unwrap();
}

#[test]
fn no_space_at_any_moment_leaves_a_whole_store() {
    if !installed("unshare") {
        return;
    }
    let scratch = Scratch::new("nospace");
    prepare(&scratch.0);
    fs::create_dir(scratch.path("small")).unwrap();
    let inner = victim(&scratch.0, "full");
    let mut command = Command::new("unshare");
    command.args(["-rm", "--propagation", "private"]).arg(inner.get_program()).args(inner.get_args());
    for (key, value) in inner.get_envs() {
        command.env(key, value.unwrap());
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("unshare failed") || text.contains("Operation not permitted") && !scratch.path("done").exists() {
        eprintln!("SKIPPED: no user namespace here, so no small file system: {text}");
        assert!(std::env::var_os("SANDCELL_NO_SKIP").is_none());
        return;
    }
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stdout));
    assert!(scratch.path("done").exists(), "{text}");
}
