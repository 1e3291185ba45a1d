#![cfg(feature = "image")]
//! Images that skopeo, umoci and podman write are read here, and theirs is what is written here: the same tree, owners,
//! modes, times, attributes and configuration both ways.
//!
//! `SANDCELL_TEST_IMAGE=DIR:TAG` runs the same on a real image in an OCI layout.

mod image_support;

use std::path::{Path, PathBuf};
use std::process::Command;

use image_support::*;
use sandcell::image::{Digest, Format, Load, Source, Store};

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
fn tree(scratch: &Scratch, name: &str, layout: &Path, tag: &str) -> std::collections::BTreeMap<PathBuf, String> {
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

fn assert_same(
    a: &std::collections::BTreeMap<PathBuf, String>,
    b: &std::collections::BTreeMap<PathBuf, String>,
    what: &str,
) {
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
