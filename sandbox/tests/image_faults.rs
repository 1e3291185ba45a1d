//! Killed, or out of space, at any moment: the store is whole, and trying again works.
//!
//! The tests start themselves: the victim is `a_victim` in a process of its own, which does nothing when it is run as a
//! test. `SANDCELL_IMAGE_FAULTS=200` sets how many moments are tried (20).

#![cfg(feature = "image")]

mod image_support;
#[cfg(feature = "pull")]
#[allow(dead_code, reason = "these tests need an honest registry only")]
#[path = "image_pull/server.rs"]
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use image_support::*;
use sandcell::image::{Commit, Digest, Load, Source, Store};

fn moments() -> u64 {
    std::env::var("SANDCELL_IMAGE_FAULTS").ok().and_then(|n| n.parse().ok()).unwrap_or(20)
}

/// Loads, pulls, commits, untags and prunes in the store of `dir`, whatever is there already.
fn work(dir: &Path) -> sandcell::Result<()> {
    let store = Store::open(dir.join("store"))?;
    pull(&store, dir)?;
    for name in ["one", "two"] {
        store.load(&Source::Detect(dir.join(name)), &Load::new())?;
    }
    store.commit(Some(&dir.join("kept")), &Commit::on("two:1").name("three:1".parse()?))?;
    store.remove("one:1")?;
    #[cfg(feature = "pull")]
    store.remove("pulled:1")?;
    store.prune()?;
    pull(&store, dir)?;
    store.load(&Source::Detect(dir.join("one")), &Load::new())?;
    Ok(())
}

#[cfg(feature = "pull")]
fn pull(store: &Store, dir: &Path) -> sandcell::Result<()> {
    let host = fs::read_to_string(dir.join("registry")).unwrap();
    let how = sandcell::image::Pull::new().auth_file(dir.join("credentials")).plain_http();
    store.pull(&format!("{host}/app:1").parse()?, &how.name("pulled:1".parse()?)).map(drop)
}

#[cfg(not(feature = "pull"))]
fn pull(_: &Store, _: &Path) -> sandcell::Result<()> {
    Ok(())
}

/// Each layer's tree and the size of its blob.
type Trees = BTreeMap<String, (u64, Vec<(PathBuf, String)>)>;

/// All that is in the layers' places, also where no image has it yet: the next load would take it as it is.
fn trees(store: &Store) -> Trees {
    let mut trees = Trees::new();
    for entry in fs::read_dir(store.dir().join("layers")).unwrap() {
        let entry = entry.unwrap();
        let blob = fs::metadata(entry.path().join("blob")).unwrap().len();
        // Directories that no member names have the time of their making.
        let tree = snapshot(&entry.path().join("fs"));
        let files = tree.into_iter().filter(|(_, line)| !line.starts_with('4')).collect();
        trees.insert(entry.file_name().into_string().unwrap(), (blob, files));
    }
    trees
}

/// Everything that the store has is to the byte what it is in a store that nothing happened to.
fn assert_whole(dir: &Path, whole: &Trees) {
    let store = Store::open(dir.join("store")).unwrap();
    for (diff_id, tree) in trees(&store) {
        assert_eq!(Some(&tree), whole.get(&diff_id), "{diff_id}");
    }
    // No image without one of its layers, or without the directory that all but the lowest do not list.
    for image in store.images().unwrap() {
        let kept = store.use_image(&image.id.to_string()).unwrap();
        assert_eq!(fs::metadata(kept.layers.last().unwrap().join("d")).unwrap().mode() & 0o777, 0o700);
    }
}

/// And nothing that it hides is left after a prune.
fn assert_pruned(dir: &Path) {
    let store = Store::open(dir.join("store")).unwrap();
    store.prune().unwrap();
    assert_eq!(fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
    let images = store.images().unwrap();
    let used: BTreeSet<_> = images.iter().flat_map(|image| image.layers.iter().map(|layer| layer.diff_id)).collect();
    assert_eq!(trees(&store).len(), used.len());
}

/// All layers, `one`'s last.
fn whole_trees(dir: &Path) -> Trees {
    let whole = trees(&Store::open(dir.join("store")).unwrap());
    assert!(whole.len() >= 5, "{} layers", whole.len());
    whole
}

fn prepare(dir: &Path) {
    let layer = |n: u8| {
        let files = (0..40).map(|at| file(format!("d/f{at}"), vec![n; 20_000]));
        let first = if n == 1 { image_support::dir("d").mode(0o700) } else { file(format!("only{n}"), "x") };
        tar(&[first].into_iter().chain(files).collect::<Vec<_>>())
    };
    Layout::image(dir.join("one"), "one:1", &[layer(1), layer(2)], "+gzip", gzip);
    Layout::image(dir.join("two"), "two:1", &[layer(1), layer(3), layer(4)], "", <[u8]>::to_vec);
    #[cfg(feature = "pull")]
    serve(dir, &[layer(1), layer(6), layer(7)]);
    for name in ["upper", "work"] {
        fs::create_dir_all(dir.join("kept").join(name)).unwrap();
    }
    fs::write(dir.join("kept/upper/changed"), vec![5; 300_000]).unwrap();
}

/// A registry that lives as long as this process.
#[cfg(feature = "pull")]
fn serve(dir: &Path, tars: &[Vec<u8>]) {
    let mut content = server::Content::default();
    let mut put = |media_type: &str, bytes: Vec<u8>| {
        let size = bytes.len();
        serde_json::json!({"mediaType": media_type, "digest": content.put(media_type, bytes), "size": size})
    };
    let layers: Vec<_> = tars.iter().map(|tar| put(&format!("{LAYER}+zstd"), zstd(tar))).collect();
    let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
    let config = serde_json::json!({"os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = put("application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": layers});
    let digest = content.put(media_type, manifest.to_string());
    content.tag("1", digest);
    let server = server::Server::new(move |request| content.serve(request));
    fs::write(dir.join("registry"), &server.host).unwrap();
    fs::write(dir.join("credentials"), "{}").unwrap();
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
    let time = || {
        let started = Instant::now();
        work(&scratch.0).unwrap();
        started.elapsed().as_micros() as u64
    };
    let once = time().min(time());
    let whole = whole_trees(&scratch.0);
    let mut state = 0x5eed;
    for moment in 0..moments() {
        let mut child = victim(&scratch.0, "work").spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random(&mut state) % (2 * once)));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "it failed by itself");
        assert_whole(&scratch.0, &whole);
        // Not always: the next round then meets what this one left.
        if moment % 3 == 0 {
            assert_pruned(&scratch.0);
        }
    }
    work(&scratch.0).unwrap();
    assert_whole(&scratch.0, &whole);
    assert_pruned(&scratch.0);
}

/// In a mount namespace of our own: a small tmpfs, a little larger each time.
fn full_disk(dir: &Path) {
    let small = dir.join("small");
    // In a place with room first: what all must be like.
    work(dir).unwrap();
    let whole = whole_trees(dir);
    let mut failures = 0;
    let mut size = 200 << 10;
    loop {
        let options = format!("size={size}");
        nix::mount::mount(Some("small"), &small, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options.as_str()))
            .unwrap();
        for name in ["one", "two", "kept", "registry", "credentials"] {
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
                    assert_whole(&small, &whole);
                }
                // Room is made: the same store, the same work.
                let options = "size=100m";
                nix::mount::mount(Some("small"), &small, Some("tmpfs"), nix::mount::MsFlags::MS_REMOUNT, Some(options))
                    .unwrap();
                work(&small).unwrap();
            }
        }
        assert_whole(&small, &whole);
        assert_pruned(&small);
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
