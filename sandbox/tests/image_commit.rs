//! Commits: what a run changed becomes a layer, and a list of changes.

#![cfg(feature = "image")]

mod image_support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use image_support::*;
use sandcell::image::{ChangeKind, Commit, Format, IdRange, Load, Owners, Source, changes};

/// A kept upper as a run leaves it.
fn upper(dir: &Path) -> PathBuf {
    let path = kept_upper(dir);
    fs::create_dir_all(path.join("etc")).unwrap();
    fs::create_dir_all(path.join("var/mail")).unwrap();
    fs::write(path.join("etc/shadow"), "changed").unwrap();
    fs::write(path.join("etc/added"), "added").unwrap();
    std::os::unix::fs::symlink("/etc/added", path.join("link")).unwrap();
    fs::hard_link(path.join("etc/added"), path.join("etc/again")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path.join("man"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::empty(),
        0,
    )
    .unwrap();
    rustix::fs::setxattr(path.join("var/mail"), "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(path.join("etc"), "user.overlay.impure", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(path.join("etc/added"), "user.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
    fs::set_permissions(path.join("var/mail"), fs::Permissions::from_mode(0o775)).unwrap();
    fs::set_permissions(path.join("etc/shadow"), fs::Permissions::from_mode(0o640)).unwrap();
    let time = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(5_000_000));
    for name in ["etc/shadow", "etc/added", "etc", "var/mail", "var", ""] {
        fs::File::open(path.join(name)).unwrap().set_times(time).unwrap();
    }
    rustix::fs::utimensat(
        rustix::fs::CWD,
        path.join("link"),
        &rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 5, tv_nsec: 0 },
            last_modification: rustix::fs::Timespec { tv_sec: 5, tv_nsec: 0 },
        },
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
    dir.to_owned()
}

#[test]
fn a_commit_is_a_layer_that_is_the_same_for_the_same_changes() {
    let scratch = Scratch::new("commit");
    let store = scratch.store();
    let layout = Layout::image(scratch.path("in"), "app:1", &[base()], "+gzip", gzip);
    store.load(&Source::Detect(layout.dir), &Load::new()).unwrap();
    let commit =
        Commit::on("app:1").name("app:2".parse().unwrap()).created_by("/bin/change").created("2026-01-01T00:00:00Z");
    let image = store.commit(Some(&upper(&scratch.path("one"))), &commit).unwrap();
    let again = store.commit(Some(&upper(&scratch.path("two"))), &commit).unwrap();
    assert_eq!(image.id, again.id, "the same changes make the same image");
    assert_eq!((image.layers.len(), &image.names[..]), (2, &["app:2".to_owned()][..]));
    let history = image.history();
    assert_eq!(
        (history.len(), history[0].created_by.as_str(), history[1].created_by.as_str()),
        (2, "/bin/change", "step 0")
    );
    assert_eq!(history[0].layer, Some(image.layers[1].diff_id));
    assert_eq!(inspected(&image)["Config"]["Cmd"], serde_json::json!(["/bin/sh"]));

    // The layer is what overlayfs had, and in a tar what OCI has.
    let kept = store.use_image("app:2").unwrap();
    let tree = &kept.layers[1];
    assert_eq!(fs::read(tree.join("etc/shadow")).unwrap(), b"changed");
    assert_eq!(tree.join("man").symlink_metadata().unwrap().rdev(), 0);
    assert_eq!(xattr(&tree.join("var/mail"), "user.overlay.opaque").unwrap(), b"y");
    assert_eq!(xattr(&tree.join("etc/added"), "user.note").unwrap(), b"kept");
    assert_eq!(xattrs(&tree.join("etc")), Vec::<String>::new());
    assert_eq!(fs::metadata(tree.join("etc/again")).unwrap().nlink(), 2);

    let out = scratch.path("out");
    store.export(&["app:2"], Format::OciDir, &out).unwrap();
    let blob = out.join("blobs/sha256").join(image.layers[1].blob.hex());
    if installed("tar") {
        let listed = std::process::Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(blob).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let line = |name: &str| {
            listed.lines().find(|line| line.ends_with(name)).unwrap_or_else(|| panic!("{name} in {listed}"))
        };
        // Copied up from a layer whose owners the store knows and the tree does not.
        assert!(line("etc/shadow").starts_with("-rw-r----- 0/42"), "{listed}");
        assert!(line("var/mail/").starts_with("drwxrwsr-x 0/8"), "{listed}");
        assert!(line(" etc/added").starts_with("-rw-r--r-- 0/0"), "{listed}");
        line(".wh.man");
        line("var/mail/.wh..wh..opq");
    }
}

#[test]
fn a_commit_maps_owners_and_changes_the_configuration() {
    let scratch = Scratch::new("commit-config");
    let store = scratch.store();
    let layout = Layout::image(scratch.path("in"), "app:1", &[base()], "", <[u8]>::to_vec);
    store.load(&Source::Detect(layout.dir), &Load::new()).unwrap();
    let dir = scratch.path("kept");
    let changes = kept_upper(&dir);
    fs::write(changes.join("mine"), "x").unwrap();
    let here = fs::metadata(changes.join("mine")).unwrap();
    let ids = |host| vec![IdRange { inside: 1000, host, count: 1 }];
    let commit = Commit::on("app:1")
        .owners(Owners::mapped(ids(here.uid()), ids(here.gid())))
        .set("Cmd", r#"["/x"]"#)
        .unwrap()
        .set("Labels", "null")
        .unwrap();
    let image = store.commit(Some(&dir), &commit).unwrap();
    assert!(image.names.is_empty());
    let run = image.config.run();
    assert_eq!((run.cmd, run.labels, run.env), (Some(vec!["/x".to_owned()]), None, Some(vec!["A=b".to_owned()])));
    let withheld: Vec<_> = store.withheld(image.layers[1].diff_id).unwrap().map(Result::unwrap).collect();
    assert!(withheld.iter().any(|w| (w.path.as_str(), w.uid, w.gid) == ("mine", 1000, 1000)), "{withheld:?}");
    // A change of the configuration only is a step without a layer.
    let image = store.commit(None, &Commit::on(image.id.to_string()).set("User", r#""7""#).unwrap()).unwrap();
    assert_eq!(
        (image.layers.len(), image.history()[0].layer, image.config.run().user.as_deref()),
        (2, None, Some("7"))
    );
}

#[test]
fn what_an_upper_cannot_express_as_a_layer_is_an_error_that_names_it() {
    let scratch = Scratch::new("commit-bad");
    let store = scratch.store();
    let layout = Layout::image(scratch.path("in"), "app:1", &[base()], "", <[u8]>::to_vec);
    store.load(&Source::Detect(layout.dir), &Load::new()).unwrap();
    let dir = scratch.path("kept");
    let changes = kept_upper(&dir);
    fs::write(changes.join(".wh.trick"), "").unwrap();
    let error = store.commit(Some(&dir), &Commit::on("app:1")).unwrap_err();
    assert!(error.subject().ends_with(".wh.trick"), "{error}");
    fs::remove_file(changes.join(".wh.trick")).unwrap();
    fs::create_dir(changes.join("moved")).unwrap();
    rustix::fs::setxattr(changes.join("moved"), "user.overlay.redirect", b"/etc", rustix::fs::XattrFlags::empty())
        .unwrap();
    let error = store.commit(Some(&dir), &Commit::on("app:1")).unwrap_err();
    assert!(error.subject().ends_with("moved"), "{error}");
    // Links in it are packed, not followed, and sockets passed over.
    fs::remove_dir(changes.join("moved")).unwrap();
    std::os::unix::fs::symlink("/etc", changes.join("out")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(changes.join("socket")).unwrap();
    let image = store.commit(Some(&dir), &Commit::on("app:1").name("app:2".parse().unwrap())).unwrap();
    let kept = store.use_image("app:2").unwrap();
    assert_eq!(fs::read_link(kept.layers[1].join("out")).unwrap(), Path::new("/etc"));
    assert!(!kept.layers[1].join("socket").exists());
    assert_eq!(image.layers[1].members, 2);
}

#[test]
fn the_changes_of_a_run_are_listed_against_all_layers() {
    let scratch = Scratch::new("changes");
    let store = scratch.store();
    let layout = Layout::image(scratch.path("in"), "app:1", &[base(), second()], "", <[u8]>::to_vec);
    store.load(&Source::Detect(layout.dir), &Load::new()).unwrap();
    let kept = store.use_image("app:1").unwrap();
    let dir = upper(&scratch.path("kept"));
    let path = dir.join("upper");
    // In the lowest layer, and hidden by the second: new again.
    fs::write(path.join("etc/passwd"), "x").unwrap();
    let listed: Vec<String> = changes(&dir, &kept.layers)
        .unwrap()
        .iter()
        .map(|c| format!("{} {}", c.kind.letter(), c.path.display()))
        .collect();
    assert_eq!(
        listed,
        [
            "C /etc",
            "A /etc/added",
            "A /etc/again",
            "A /etc/passwd",
            "C /etc/shadow",
            "A /link",
            "D /man",
            "C /var",
            "C /var/mail"
        ]
    );
    assert_eq!(changes(&dir, &kept.layers).unwrap()[0].kind, ChangeKind::Modified);
}
