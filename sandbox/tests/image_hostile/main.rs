//! Layers made to break out, to fill the disk or to mean two things at once.

#![cfg(feature = "image")]

#[path = "../image_support/mod.rs"]
mod image_support;

mod cases;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cases::cases;
use image_support::*;
use sandcell::image::{Limits, Load, Reference, Source, Store};

/// What must come of an archive.
enum Want {
    /// An error whose text has this in it: the member, or the reason where there is no member.
    Refused(&'static str),
    /// It is unpacked, all of it inside its root, and this holds for the layer's directory.
    Inside(fn(&Path)),
}
use Want::{Inside, Refused};

struct Case {
    id: &'static str,
    archive: Vec<u8>,
    want: Want,
}

fn case(id: &'static str, members: &[Member], want: Want) -> Case {
    Case { id, archive: tar(members), want }
}

fn has(root: &Path, path: &str) -> bool {
    root.join(path).symlink_metadata().is_ok()
}

fn is_whiteout(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

fn long(part: &str, times: usize) -> String {
    part.repeat(times)
}

/// 100 MiB of zeros, made without having them.
fn zeros_in_gzip() -> Vec<u8> {
    use std::io::Write;
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(&open_tar(&[file("zeros", "").size(100 << 20)])).unwrap();
    for _ in 0..100 {
        out.write_all(&[0; 1 << 20]).unwrap();
    }
    out.finish().unwrap()
}

fn mode(root: &Path, name: &str) -> u32 {
    root.join(name).metadata().unwrap().permissions().mode() & 0o7777
}

fn no_xattrs_of_ping(root: &Path) {
    assert_eq!(xattrs(&root.join("ping")), Vec::<String>::new());
}

/// Nothing that gives anybody anything, and nothing that its owner cannot remove.
fn assert_harmless(id: &str, root: &Path) {
    for (path, line) in snapshot(root) {
        let meta = root.join(&path).symlink_metadata().unwrap();
        let kind = meta.file_type();
        assert!(kind.is_symlink() || meta.mode() & 0o6000 == 0, "{id}: {path:?} has a set-id bit: {line}");
        assert!(!kind.is_block_device() && (!kind.is_char_device() || meta.rdev() == 0), "{id}: {path:?} is a device");
        assert!(!kind.is_dir() || meta.mode() & 0o700 == 0o700, "{id}: {path:?} shuts its owner out");
        assert_eq!(meta.uid(), nix::unistd::geteuid().as_raw(), "{id}: {path:?} belongs to another");
        for name in xattrs(&root.join(&path)) {
            assert!(name.starts_with("user."), "{id}: {path:?} has {name}");
            assert!(
                !name.contains("overlay")
                    || ["user.overlay.opaque", "user.overlay.sandcell.implied"].contains(&&name[..]),
                "{id}: {path:?} has {name}"
            );
        }
    }
}

type Tree = std::collections::BTreeMap<PathBuf, String>;

fn plant_canary(scratch: &Scratch) -> PathBuf {
    let canary = scratch.path("canary");
    fs::create_dir_all(canary.join("dir")).unwrap();
    for name in ["file", "passwd", "dir/x"] {
        fs::write(canary.join(name), name).unwrap();
    }
    fs::set_permissions(canary.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
    canary
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.members = 2000;
    limits.layer_bytes = 1 << 30;
    limits
}

#[test]
fn no_archive_touches_anything_outside_its_layer() {
    let scratch = Scratch::new("hostile");
    let canary = plant_canary(&scratch);
    let before = snapshot(&canary);
    let store = scratch.store().with_limits(limits());
    let archive = scratch.path("layer.tar");
    let cases = cases(&canary);
    assert!(cases.len() >= 100, "{} cases", cases.len());
    let mut failures = Vec::new();
    for case in cases {
        let id = case.id;
        let run = std::panic::AssertUnwindSafe(|| check(case, &store, &archive, &canary, &before));
        if std::panic::catch_unwind(run).is_err() {
            failures.push(id);
            let _ = store.remove("hostile:1");
            let _ = store.prune();
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
    let memory = peak_memory();
    assert!(memory < 64 << 20, "{memory} bytes");
}

fn check(case: Case, store: &Store, archive: &Path, canary: &Path, before: &Tree) {
    let Case { id, archive: bytes, want } = case;
    let name: Reference = "hostile:1".parse().unwrap();
    fs::write(archive, &bytes).unwrap();
    let source = Source::RootFs(archive.to_owned());
    let loaded = store.load(&source, &Load::new().name(name.clone()));
    assert_eq!(&snapshot(canary), before, "{id} changed something outside");
    match (loaded, want) {
        (Err(error), Refused(why)) => {
            assert!(error.to_string().contains(why), "{id}: {error}");
            assert!(store.image("hostile:1").is_err(), "{id} left an image");
            let left = fs::read_dir(store.dir().join("layers")).unwrap().count();
            assert_eq!(left, 0, "{id} left a layer");
        }
        (Ok(loaded), Inside(holds)) => {
            let kept = store.use_image("hostile:1").unwrap();
            assert_harmless(id, &kept.layers[0]);
            holds(&kept.layers[0]);
            let first = snapshot(&kept.layers[0]);
            drop(kept);
            // Again from the start: the same image, the same tree.
            store.remove("hostile:1").unwrap();
            assert_eq!(fs::read_dir(store.dir().join("layers")).unwrap().count(), 0, "{id} cannot be removed");
            let again = store.load(&source, &Load::new().name(name.clone())).unwrap();
            assert_eq!(again[0].id, loaded[0].id, "{id}");
            let kept = store.use_image("hostile:1").unwrap();
            assert_eq!(without_times_of_dirs(snapshot(&kept.layers[0])), without_times_of_dirs(first), "{id}");
            drop(kept);
            same_members_as_gnu_tar(id, archive, store);
            store.remove("hostile:1").unwrap();
        }
        (Ok(_), Refused(why)) => panic!("{id} was accepted; it should have been refused: {why}"),
        (Err(error), Inside(_)) => panic!("{id} was refused: {error}"),
    }
    assert_eq!(fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0, "{id} left something in tmp/");
}

/// Directories that no member names and whiteouts get the time of the moment.
fn without_times_of_dirs(tree: Tree) -> Vec<(PathBuf, String)> {
    tree.into_iter()
        .map(|(path, line)| {
            let fields: Vec<&str> = line.split(' ').collect();
            let keep = if fields[0].starts_with("4") || fields[0] == "20000" {
                [fields[0], fields[1]].join(" ")
            } else {
                line.clone()
            };
            (path, keep)
        })
        .collect()
}

/// What GNU tar lists is what we unpacked, whiteouts and devices aside.
fn same_members_as_gnu_tar(id: &str, archive: &Path, store: &Store) {
    // GNU tar's own opinions: it does not read zstd by itself here, and escapes names that it lists. And a name through
    // a link that a later member points elsewhere does not lead to its file any more.
    if [
        "sym_repointed",
        "raw_zstd",
        "raw_zstd_skippable",
        "name_newline",
        "name_not_utf8",
        "raw_gzip_two_members",
        "raw_empty",
    ]
    .contains(&id)
        || !installed("tar")
    {
        return;
    }
    let listed = std::process::Command::new("tar").args(["-t", "-P", "-f"]).arg(archive).output().unwrap();
    assert!(listed.status.success(), "{id}: GNU tar: {}", String::from_utf8_lossy(&listed.stderr));
    let root = &store.use_image("hostile:1").unwrap().layers[0];
    for name in String::from_utf8(listed.stdout).unwrap().lines() {
        let inside = name.trim_matches('/');
        if id.starts_with("dev_") || inside.contains(".wh.") || id.starts_with("name_dash") && inside.is_empty() {
            continue;
        }
        // As a whole path: links on the way count as they do inside.
        let there = rustix::fs::openat2(
            fs::File::open(root).unwrap(),
            if inside.is_empty() { "." } else { inside },
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW,
            rustix::fs::Mode::empty(),
            rustix::fs::ResolveFlags::IN_ROOT,
        );
        assert!(there.is_ok(), "{id}: GNU tar lists {name:?}, which was not unpacked");
    }
}

#[test]
fn a_tree_deeper_than_any_path_is_removed() {
    let scratch = Scratch::new("hostile-deep");
    let store = scratch.store();
    let archive = scratch.path("layer.tar");
    let deep = "d/".repeat(2000);
    // A link to the deepest directory, and from there on down as deep again.
    let members = [
        file("x", "").pax("path", format!("{deep}f")),
        symlink("l", "x").pax("linkpath", deep.trim_end_matches('/')),
        file("y", "").pax("path", format!("l/{deep}g")),
    ];
    fs::write(&archive, tar(&members)).unwrap();
    let name: Reference = "deep:1".parse().unwrap();
    store.load(&Source::RootFs(archive), &Load::new().name(name)).unwrap();
    assert_eq!(store.remove("deep:1").unwrap().layers.len(), 1);
    assert_eq!(fs::read_dir(store.dir().join("layers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
}
