//! Images that skopeo, umoci and podman write are read here, and theirs is what is written here: the same tree, owners,
//! modes, times, attributes and configuration both ways.
//!
//! `SANDCELL_TEST_IMAGE=DIR:TAG` runs the same on a real image in an OCI layout.

#![cfg(feature = "image")]

mod image_support;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use image_support::*;
use sandcell::image::{Commit, Digest, Format, Load, Source, Store};

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
}

/// A layout and the tag in it.
fn original(scratch: &Scratch) -> (PathBuf, String) {
    if let Ok(given) = std::env::var("SANDCELL_TEST_IMAGE") {
        let (dir, tag) = given.rsplit_once(':').unwrap();
        return (dir.into(), tag.to_owned());
    }
    let me = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let root = me.0 == 0;
    let owner = |member: Member, uid, gid| if root { member.owner(uid, gid) } else { member };
    let layers = [
        tar(&[
            dir("./"),
            dir("./etc"),
            owner(file("./etc/shadow", "secret").mode(0o640), 0, 42),
            owner(dir("./var/mail").mode(0o2775), 0, 8),
            file("./usr/bin/su", "su").mode(0o4755),
            hard("./usr/bin/again", "./usr/bin/su"),
            symlink("./bin", "usr/bin"),
            dir("./tmp").mode(0o1777),
            file("./noted", "x").pax("SCHILY.xattr.user.note", "hello"),
            file("./fine", "x").pax("mtime", "1234567.5"),
            file("./gone", "x"),
            dir("./emptied"),
            file("./emptied/old", "x"),
            file("x", "long").pax("path", format!("./{}/name", "long-".repeat(30))),
            file("x", "utf8").pax("path", "./n\u{e4}me"),
        ]),
        tar(&[
            file("./.wh.gone", ""),
            dir("./emptied"),
            file("./emptied/.wh..wh..opq", ""),
            file("./emptied/new", "y"),
        ]),
        tar(&[file("./etc/shadow", "changed").mode(0o600), dir("./late")]),
    ];
    let layout = Layout::image(scratch.path("original"), "1", &layers, "+gzip", gzip);
    (layout.dir, "1".to_owned())
}

/// The whole tree of an image as umoci sees it.
fn tree(scratch: &Scratch, name: &str, layout: &Path, tag: &str) -> BTreeMap<PathBuf, String> {
    let bundle = scratch.path(name);
    let mut umoci = Command::new("umoci");
    umoci.arg("unpack").arg("--image").arg(format!("{}:{tag}", layout.display()));
    if !nix::unistd::geteuid().is_root() {
        umoci.arg("--rootless");
    }
    run(umoci.arg(&bundle));
    let mut seen = snapshot(&bundle.join("rootfs"));
    // Directories that a member made implicitly or whose content changed last have the time of the unpacking.
    for line in seen.values_mut().filter(|line| line.starts_with('4')) {
        let fields: Vec<&str> = line.split(' ').collect();
        *line = [&fields[..3], &fields[4..]].concat().join(" ");
    }
    assert!(seen.len() > 10);
    seen
}

fn diff_ids(store: &Store, id: Digest) -> Vec<Digest> {
    store.image(&id.to_string()).unwrap().config.rootfs.diff_ids
}

fn assert_same(a: &BTreeMap<PathBuf, String>, b: &BTreeMap<PathBuf, String>, what: &str) {
    for (path, line) in a {
        assert_eq!(b.get(path), Some(line), "{what}: {}", path.display());
    }
    assert_eq!(a.len(), b.len(), "{what}");
}

#[test]
fn skopeo_and_umoci_read_what_is_written_here() {
    if !installed("umoci") || !installed("skopeo") {
        return;
    }
    let scratch = Scratch::new("umoci");
    let (layout, tag) = original(&scratch);
    let theirs = tree(&scratch, "theirs", &layout, &tag);
    let store = scratch.store();
    let name = "localhost/sandcell-test:1";
    let loaded = store.load(&Source::Detect(layout.clone()), &Load::new().name(name.parse().unwrap())).unwrap();

    let oci = scratch.path("oci");
    store.export(&[name], Format::OciDir, &oci).unwrap();
    assert_same(&theirs, &tree(&scratch, "oci-tree", &oci, "1"), "an OCI layout");
    let oci_archive = scratch.path("oci.tar");
    store.export(&[name], Format::OciArchive, &oci_archive).unwrap();
    let docker_archive = scratch.path("docker.tar");
    store.export(&[name], Format::DockerArchive, &docker_archive).unwrap();
    for (from, to) in [
        (format!("oci-archive:{}:1", oci_archive.display()), "from-oci"),
        (format!("docker-archive:{}", docker_archive.display()), "from-docker"),
    ] {
        let copy = scratch.path(to);
        run(Command::new("skopeo")
            .args(["--insecure-policy", "copy", "-q"])
            .arg(from)
            .arg(format!("oci:{}:1", copy.display())));
        assert_same(&theirs, &tree(&scratch, &format!("{to}-tree"), &copy, "1"), to);
        // And back again.
        let other = Store::open(scratch.path(&format!("{to}-store"))).unwrap();
        let back = other.load(&Source::Detect(copy), &Load::new()).unwrap();
        assert_eq!(diff_ids(&other, back[0].id), diff_ids(&store, loaded[0].id));
    }
    let docker = scratch.path("skopeo-docker.tar");
    run(Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q"])
        .arg(format!("oci:{}:{tag}", layout.display()))
        .arg(format!("docker-archive:{}:localhost/other:2", docker.display())));
    let other = Store::open(scratch.path("docker-store")).unwrap();
    let back = other.load(&Source::Detect(docker), &Load::new()).unwrap();
    assert_eq!(back[0].names, ["localhost/other:2"]);
    assert_eq!(diff_ids(&other, back[0].id), diff_ids(&store, loaded[0].id));
}

#[test]
fn podman_and_the_store_read_each_other() {
    if !installed("podman") || !installed("umoci") {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: podman is tested as root only: an ordinary user needs sub-ids for it");
        return;
    }
    let scratch = Scratch::new("podman");
    let (layout, tag) = original(&scratch);
    let theirs = tree(&scratch, "theirs", &layout, &tag);
    let store = scratch.store();
    let name = "localhost/sandcell-test:1";
    let loaded = store.load(&Source::Detect(layout), &Load::new().name(name.parse().unwrap())).unwrap();
    // podman takes no more than 50 bytes for it.
    let runroot = std::env::temp_dir().join(format!("sc{}", std::process::id()));
    let podman = || {
        let mut podman = Command::new("podman");
        podman.arg("--root").arg(scratch.path("podman")).arg("--runroot").arg(&runroot);
        podman.args(["--storage-driver", "vfs"]);
        podman
    };
    for (format, file) in [(Format::OciArchive, "oci.tar"), (Format::DockerArchive, "docker.tar")] {
        let archive = scratch.path(file);
        store.export(&[name], format, &archive).unwrap();
        run(podman().args(["load", "-q", "-i"]).arg(&archive));
        let inspected = podman().args(["image", "inspect", "--format", "{{.Id}}", name]).output().unwrap();
        assert_eq!(String::from_utf8(inspected.stdout).unwrap().trim(), loaded[0].id.hex(), "{file}");
        for (their_format, suffix) in [("oci-archive", "oci"), ("docker-archive", "docker")] {
            let saved = scratch.path(&format!("{file}-{suffix}"));
            run(podman().args(["save", "-q", "--format", their_format, "-o"]).arg(&saved).arg(name));
            let other = Store::open(scratch.path(&format!("{file}-{suffix}-store"))).unwrap();
            let back = other.load(&Source::Detect(saved), &Load::new()).unwrap();
            assert_eq!(back[0].names, [name]);
            assert_eq!(diff_ids(&other, back[0].id), diff_ids(&store, loaded[0].id));
            let again = scratch.path(&format!("{file}-{suffix}-again"));
            other.export(&[name], Format::OciDir, &again).unwrap();
            assert_same(&theirs, &tree(&scratch, &format!("{file}-{suffix}-tree"), &again, "1"), suffix);
        }
        run(podman().args(["rmi", "-f", name]));
    }
    run(podman().args(["system", "reset", "-f"]));
    let _ = std::fs::remove_dir_all(&runroot);
}

/// What overlayfs and the records beside a layer's tree make of an image in the store, in the words of [`snapshot`].
fn tree_in_store(store: &Store, image: &str) -> BTreeMap<PathBuf, String> {
    struct Entry {
        line: Vec<String>,
        /// Which layer and which file in it: what has the same one is linked.
        file: (usize, u64),
    }
    let kept = store.use_image(image).unwrap();
    let mut merged: BTreeMap<PathBuf, Entry> = BTreeMap::new();
    // Paths are sorted by their components: what is beneath one follows it.
    let beneath = |merged: &mut BTreeMap<PathBuf, Entry>, path: &Path| {
        let behind = (std::ops::Bound::Excluded(path), std::ops::Bound::Unbounded);
        let gone: Vec<PathBuf> = merged
            .range::<Path, _>(behind)
            .map(|(other, _)| other.clone())
            .take_while(|p| p.starts_with(path))
            .collect();
        gone.iter().for_each(|other| drop(merged.remove(other)));
    };
    for (number, (layer, root)) in kept.image.layers.iter().zip(&kept.layers).enumerate() {
        let listed = Command::new("tar").args(["-t", "-f"]).arg(root.with_file_name("blob")).output().unwrap();
        // Directories that no member names are as they were.
        let members: BTreeSet<PathBuf> = String::from_utf8(listed.stdout)
            .unwrap()
            .lines()
            .map(|name| name.trim_start_matches("./").trim_end_matches('/').into())
            .collect();
        let mut withheld = BTreeMap::new();
        for record in store.withheld(layer.diff_id).unwrap() {
            let record = record.unwrap();
            withheld.insert(PathBuf::from(&record.path), record);
        }
        for (path, line) in snapshot(root) {
            let meta = root.join(&path).symlink_metadata().unwrap();
            let (is_dir, inode) = (meta.is_dir(), meta.ino());
            let mut line: Vec<String> = line.splitn(6, ' ').map(str::to_owned).collect();
            if line[0] == "20000" {
                beneath(&mut merged, &path);
                merged.remove(&path);
                continue;
            }
            let opaque = xattr(&root.join(&path), "user.overlay.opaque").is_some();
            let was_dir = merged.get(&path).is_some_and(|entry| entry.line[0].starts_with('4'));
            if opaque || !(is_dir && was_dir) {
                beneath(&mut merged, &path);
            }
            if is_dir && was_dir && !members.contains(&path) {
                continue;
            }
            line[1] = "0:0".into();
            let mut names: Vec<String> =
                xattrs(&root.join(&path)).into_iter().filter(|name| !name.starts_with("user.overlay.")).collect();
            line[5] = format!("{names:?}");
            if let Some(record) = withheld.remove(&path) {
                line[0] = format!("{:o}", meta.mode() & 0o170000 | record.mode);
                line[1] = format!("{}:{}", record.uid, record.gid);
                names.extend(record.xattrs.into_iter().map(|(name, _)| name));
                names.sort();
                line[5] = format!("{names:?}");
            }
            merged.insert(path, Entry { line, file: (number, inode) });
        }
        for (path, record) in withheld {
            let (kind, major, minor) = record.device.expect("only a device is not in the tree");
            let mode = record.mode | if kind == 'c' { 0o20000 } else { 0o60000 };
            let owner = format!("{}:{}", record.uid, record.gid);
            let device = nix::sys::stat::makedev(major.into(), minor.into());
            let line = [format!("{mode:o}"), owner, "1".into(), "any".into(), device.to_string(), "[]".into()];
            beneath(&mut merged, &path);
            merged.insert(path, Entry { line: line.to_vec(), file: (number, u64::MAX) });
        }
    }
    // One file has one owner and mode whichever of its names the record stands by, and as many links as names now.
    let mut files: BTreeMap<(usize, u64), Vec<PathBuf>> = BTreeMap::new();
    for (path, entry) in merged.iter().filter(|(_, entry)| entry.file.1 != u64::MAX) {
        files.entry(entry.file).or_default().push(path.clone());
    }
    for paths in files.values().filter(|paths| paths.len() > 1) {
        let first = paths.iter().find(|path| merged[*path].line[1] != "0:0").unwrap_or(&paths[0]);
        let mut line = merged[first].line.clone();
        line[2] = paths.len().to_string();
        for path in paths {
            merged.get_mut(path).unwrap().line = line.clone();
        }
    }
    for paths in files.values().filter(|paths| paths.len() == 1) {
        let line = &mut merged.get_mut(&paths[0]).unwrap().line;
        line[2] = if line[0].starts_with('4') { "0" } else { "1" }.into();
    }
    merged.into_iter().map(|(path, entry)| (path, entry.line.join(" "))).map(without_time).collect()
}

/// Without what umoci does in its own way: directories and devices have the time of its unpacking where it has to make
/// them, and a file with several names loses its set-id bits when the second is given to its owner.
fn without_time((path, line): (PathBuf, String)) -> (PathBuf, String) {
    let mut fields: Vec<&str> = line.splitn(6, ' ').collect();
    let mode = format!("{:o}", u32::from_str_radix(fields[0], 8).unwrap() & !0o6000);
    if !matches!(fields[2], "0" | "1") {
        fields[0] = &mode;
    }
    if ["4", "2", "6"].iter().any(|kind| fields[0].starts_with(kind) && fields[0].len() < 6) {
        fields[3] = "any";
    }
    let line = fields.join(" ");
    (path, line)
}

#[test]
fn the_tree_in_the_store_is_the_tree_that_umoci_unpacks() {
    if !installed("umoci") {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root's umoci gives files to their owners");
        return;
    }
    let scratch = Scratch::new("tree");
    let (layout, tag) = original(&scratch);
    let store = scratch.store();
    let name = "localhost/sandcell-test:1";
    store.load(&Source::Detect(layout.clone()), &Load::new().name(name.parse().unwrap())).unwrap();
    let theirs = |name: &str, layout: &Path, tag: &str| -> BTreeMap<PathBuf, String> {
        let bundle = scratch.path(name);
        run(Command::new("umoci").args(["unpack", "--image"]).arg(format!("{}:{tag}", layout.display())).arg(&bundle));
        snapshot(&bundle.join("rootfs")).into_iter().map(without_time).collect()
    };
    assert_same(&theirs("before", &layout, &tag), &tree_in_store(&store, name), "as it was loaded");

    // And a layer that was written here.
    let dir = scratch.path("kept");
    let upper = kept_upper(&dir);
    std::fs::create_dir_all(upper.join("new/deep")).unwrap();
    std::fs::write(upper.join("new/deep/file"), "content").unwrap();
    std::fs::hard_link(upper.join("new/deep/file"), upper.join("new/again")).unwrap();
    std::os::unix::fs::symlink("deep/file", upper.join("new/link")).unwrap();
    std::os::unix::fs::chown(upper.join("new/deep"), Some(33), Some(44)).unwrap();
    rustix::fs::lsetxattr(upper.join("new/again"), "user.note", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    let removed = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, upper.join("bin"), removed, rustix::fs::Mode::empty(), 0).unwrap();
    let committed = "localhost/sandcell-test:2";
    store.commit(Some(&dir), &Commit::on(name).name(committed.parse().unwrap())).unwrap();
    let written = scratch.path("written");
    store.export(&[committed], Format::OciDir, &written).unwrap();
    let after = theirs("after", &written, "2");
    assert!(after.contains_key(Path::new("new/deep/file")) && !after.contains_key(Path::new("bin")));
    assert_same(&after, &tree_in_store(&store, committed), "with a layer that was committed");
}
