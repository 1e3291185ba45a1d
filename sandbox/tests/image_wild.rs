//! Layers as they are in the wild, which `docker load` and skopeo take: each is loaded, run, and shows what it should.

#![cfg(feature = "image")]

mod image_support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::{Command, Stdio};

use image_support::*;
use sandcell::image::{Load, Reference, Source, Store};
use sandcell::{Outcome, Root, Sandbox, Upper, User};
use serde_json::json;

/// What a shell in the image writes to its standard output; everything else is a failure.
fn told(store: &Store, image: &str, script: &str) -> String {
    told_by(Sandbox::builder().store(store.dir()).root(Root::image(image)), script)
}

fn told_by(builder: sandcell::Builder, script: &str) -> String {
    let sandbox = builder.build().unwrap_or_else(|e| panic!("{script}: {e} ({})", e.hint()));
    let output = sandbox.command("/bin/sh").args(["-c", script]).output();
    let output = output.unwrap_or_else(|e| panic!("{script}: {e} ({})", e.hint()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    assert_eq!(output.outcome, Outcome::Exited(0), "{script}: {} {}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// An image of busybox and these layers above it; what the script says.
fn above(name: &str, layers: &[Vec<u8>], script: &str) -> String {
    let scratch = Scratch::new(&format!("wild-{name}"));
    let store = scratch.store();
    let all: Vec<Vec<u8>> = [vec![tar(&busybox())], layers.to_vec()].concat();
    store_image(&store, "app", &all, json!({}));
    told(&store, "app", script)
}

#[test]
fn the_same_layer_twice_counts_where_it_stands_last() {
    let empty = tar(&[]);
    let add = tar(&[dir("d"), file("d/a", "a"), file("d/b", "b")]);
    let delete = tar(&[dir("d"), file("d/.wh.a", "")]);
    let opaque = tar(&[dir("d"), file("d/.wh..wh..opq", "")]);
    let instead = tar(&[file(".wh.d", ""), file("d", "file")]);
    let list = "cd /d 2>/dev/null && ls -A | cat || cat /d";
    for (name, layers, want) in [
        ("empty", vec![&empty, &empty], "ls: /d: No such file or directory"),
        ("add", vec![&add, &add], "a\nb"),
        ("again", vec![&add, &delete, &add], "a\nb"),
        ("deleted", vec![&add, &delete, &add, &delete], "b"),
        ("opaque", vec![&add, &opaque, &add, &opaque], ""),
        ("opaque-back", vec![&add, &opaque, &add], "a\nb"),
        ("replaced", vec![&add, &instead, &add], "a\nb"),
        ("replaced-again", vec![&add, &instead, &add, &instead], "file"),
    ] {
        let layers: Vec<Vec<u8>> = layers.into_iter().cloned().collect();
        let script = if name == "empty" { "ls /d 2>&1 || true" } else { list };
        assert_eq!(above(&format!("twice-{name}"), &layers, script), want, "{name}");
    }
}

#[test]
fn an_image_with_a_layer_twice_is_built_kept_and_exported() {
    let scratch = Scratch::new("wild-twice-out");
    let store = scratch.store();
    let add = tar(&[file("etc/x", "x").owner(33, 34)]);
    let layers = [tar(&busybox()), add.clone(), tar(&[file("etc/.wh.x", "")]), add];
    store_image(&store, "app:1", &layers, json!({}));
    let many = || {
        let builder = Sandbox::builder().store(store.dir()).root(Root::image("app:1"));
        let builder = builder.user(User::Root).id_count(65536).upper(Upper::Dir(scratch.path("upper")));
        builder.wait_for_ids(std::time::Duration::from_secs(100))
    };
    match many().build() {
        Ok(_) => assert_eq!(told_by(many(), "stat -c %u:%g /etc/x"), "33:34"),
        Err(error) => eprintln!("SKIPPED: no range of ids for this user: {error}"),
    }
    for (format, name) in
        [(sandcell::image::Format::OciArchive, "oci.tar"), (sandcell::image::Format::DockerArchive, "docker.tar")]
    {
        store.export(&["app:1"], format, &scratch.path(name)).unwrap();
        let other = Store::open(scratch.path(&format!("store-{name}"))).unwrap();
        let loaded = other.load(&Source::Detect(scratch.path(name)), &Load::new()).unwrap();
        assert_eq!(loaded[0].id, store.image("app:1").unwrap().id);
        assert_eq!(told(&other, "app:1", "cat /etc/x"), "x");
    }
}

#[test]
fn links_that_lead_nowhere_do_not_stand_in_the_way_of_mounts() {
    let links = [
        ("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
        ("etc/hosts", "/nowhere/hosts"),
        ("etc/hostname", "hostname"),
        ("etc/passwd", "/run/none/passwd"),
        ("etc/group", "../../../../x/y"),
        ("tmp", "mnt/none"),
        ("var/tmp", "/mnt/loop"),
        ("mnt/loop", "loop"),
        ("home", "/mnt/homes"),
        ("dev", "/mnt/dev"),
        ("proc", "/mnt/proc"),
        ("root", "/mnt/root"),
    ];
    let mut members: Vec<Member> = busybox();
    members.retain(|member| links.iter().all(|(path, _)| member.name != path.as_bytes()));
    members.extend([dir("var"), dir("mnt")]);
    members.extend(links.iter().map(|(path, to)| symlink(path, to)));
    let scratch = Scratch::new("wild-links");
    let store = scratch.store();
    store_image(&store, "app", &[tar(&members)], json!({}));
    fs::write(scratch.path("bound"), "bound").unwrap();
    let script = "set -e; grep localhost /etc/hosts >/dev/null; test -s /etc/hostname; id -u >/dev/null; \
        for d in /tmp /var/tmp /dev/shm \"$HOME\"; do test ! -L $d; echo x >$d/x; cat $d/x; done; cat /etc/resolv.conf; \
        test -e /proc/self/status";
    let with_grep = |mut members: Vec<Member>| {
        members.extend([symlink("bin/grep", "busybox"), symlink("bin/test", "busybox")]);
        members
    };
    store_image(&store, "app", &[tar(&with_grep(members))], json!({}));
    let builder = || Sandbox::builder().store(store.dir()).root(Root::image("app"));
    let bound = |b: sandcell::Builder| b.ro(scratch.path("bound"), "/etc/resolv.conf");
    assert_eq!(told_by(bound(builder()), script), "x\nx\nx\nx\nbound");
    // A kept upper: the second time too, and for somebody else.
    for user in [User::Root, User::Random, User::Root] {
        let kept = bound(builder()).upper(Upper::Dir(scratch.path(&format!("upper-{}", user == User::Root))));
        assert_eq!(told_by(kept.user(user), script), "x\nx\nx\nx\nbound", "{user:?}");
    }
    // A file is mounted on the link itself: no trace of it is left.
    let changed = sandcell::image::changes(&scratch.path("upper-true"), &store.use_image("app").unwrap().layers);
    let changed: Vec<_> = changed.unwrap().into_iter().map(|change| change.path).collect();
    assert!(!changed.iter().any(|path| path.starts_with("/etc/hosts")), "{changed:?}");
    // And what leads somewhere is followed, as ever.
    let good = [tar(&busybox()), tar(&[dir("else"), file("else/hosts", "old"), symlink("etc/hosts", "../else/hosts")])];
    store_image(&store, "good", &good, json!({}));
    assert_eq!(
        told(&store, "good", "cat /else/hosts | while read a b c; do echo $b; done").lines().next(),
        Some("localhost")
    );
}

#[test]
fn a_whiteout_is_one_whatever_its_file_is() {
    let lower = tar(&[dir("d"), file("d/a", "a"), file("d/b", "b"), file("d/keep", "k")]);
    for (name, members) in [
        ("content", vec![file("d/.wh.a", "content"), file("d/.wh.b", "x".repeat(5000))]),
        ("linked", vec![file("d/.wh.a", ""), hard("d/.wh.b", "d/.wh.a")]),
        (
            "linked-to-aufs",
            vec![
                dir(".wh..wh.plnk"),
                file(".wh..wh.aufs", ""),
                file(".wh..wh.plnk/1.2", ""),
                hard("d/.wh.a", ".wh..wh.aufs"),
                hard("d/.wh.b", ".wh..wh.plnk/.wh.x"),
            ],
        ),
        (
            "with-aufs",
            vec![
                dir(".wh..wh.plnk/"),
                dir(".wh..wh.orph/"),
                file(".wh..wh.orph/deep", "x"),
                file("d/.wh.a", ""),
                file("d/.wh.b", ""),
            ],
        ),
    ] {
        assert_eq!(
            above(&format!("wh-{name}"), &[lower.clone(), tar(&members)], "ls -A /d; ls -Ad /.wh* 2>/dev/null | cat"),
            "keep",
            "{name}"
        );
    }
    let opaque = tar(&[dir("d"), file("d/.wh..wh..opq", "with content"), file("d/new", "n")]);
    assert_eq!(above("wh-opaque", &[lower.clone(), opaque], "ls -A /d | cat"), "new");
    let linked = tar(&[file("e/.wh..wh..opq", ""), hard("d/.wh..wh..opq", "e/.wh..wh..opq"), file("d/new", "n")]);
    assert_eq!(above("wh-opaque-link", &[lower, linked], "ls -A /d | cat"), "new");
}

#[test]
fn files_that_aufs_kept_for_hard_links_are_where_the_links_are() {
    let layer = tar(&[
        dir(".wh..wh.plnk"),
        file(".wh..wh.plnk/12.34", "shared").mode(0o640).owner(33, 34),
        dir("d"),
        hard("d/one", ".wh..wh.plnk/12.34").mode(0o640).owner(33, 34),
        hard("d/two", ".wh..wh.plnk/12.34").mode(0o640).owner(33, 34),
    ]);
    assert_eq!(
        above("plnk", &[layer], "cat /d/one /d/two; stat -c ' %h %a' /d/one; ls -Ad /.wh* 2>/dev/null | cat"),
        "sharedshared 2 640"
    );
}

#[test]
fn a_whiteout_before_new_files_in_its_place_makes_a_new_directory() {
    let lower = tar(&[dir("a").mode(0o700), file("a/old", "old"), dir("a/b"), file("a/b/old", "old")]);
    for (name, members) in [
        ("first", vec![file(".wh.a", ""), file("a/new", "new")]),
        ("last", vec![file("a/new", "new"), file(".wh.a", "")]),
        ("listed", vec![file(".wh.a", ""), dir("a"), file("a/new", "new")]),
        ("deep", vec![file(".wh.a", ""), file("a/b/c/new", "new")]),
        ("inner", vec![file("a/.wh.b", ""), file("a/.wh.old", ""), file("a/b/new", "new")]),
    ] {
        let said = above(
            &format!("order-{name}"),
            &[lower.clone(), tar(&members)],
            "ls -AR /a | while read l; do echo $l; done",
        );
        assert!(said.contains("new") && !said.contains("old"), "{name}: {said}");
    }
}

#[test]
fn a_whiteout_with_nothing_below_is_nowhere_to_be_seen() {
    let copy = "set -e; ls -A /d | cat; cp -a /d /tmp/copy; ls -AR /tmp/copy >/dev/null";
    let layer = tar(&[dir("d"), file("d/.wh.gone", ""), file("d/a", "a"), dir("d/e"), file("d/e/.wh.x", "")]);
    assert_eq!(above("nothing-below", std::slice::from_ref(&layer), copy), "a\ne");
    // In the lowest layer, and in an opaque directory over another.
    let scratch = Scratch::new("wild-lowest");
    let store = scratch.store();
    let mut members = busybox();
    members.extend([dir("d"), file("d/.wh.gone", ""), file("d/a", "a"), dir("d/e")]);
    store_image(&store, "app", &[tar(&members)], json!({}));
    assert_eq!(told(&store, "app", copy), "a\ne");
    let lower = tar(&[dir("d"), file("d/b", "b")]);
    let opaque =
        tar(&[dir("d").mode(0o750), file("d/.wh..wh..opq", ""), file("d/.wh.b", ""), file("d/a", "a"), dir("d/e")]);
    assert_eq!(above("opaque-alone", &[lower, opaque], &format!("{copy}; stat -c %a /d")), "a\ne\n750");
}

#[test]
fn a_device_hides_what_it_replaces() {
    let lower = tar(&[dir("d"), file("d/null", "secret"), dir("d/tree"), file("d/tree/x", "x")]);
    let device = |name: &str| file(name, "").kind(b'3');
    let script = "ls -A /d | cat; cat /d/null 2>/dev/null || true";
    assert_eq!(above("dev-file", &[lower.clone(), tar(&[device("d/null")])], script), "tree");
    assert_eq!(above("dev-tree", &[lower.clone(), tar(&[device("d/tree"), device("d/new")])], script), "null\nsecret");
    // Of the same layer, and what a later layer has there again.
    assert_eq!(above("dev-own", &[tar(&[file("d/null", "secret"), device("d/null")])], script), "");
    assert_eq!(
        above("dev-again", &[lower, tar(&[device("d/null")]), tar(&[file("d/null", "new")])], script),
        "null\ntree\nnew"
    );
}

#[test]
fn names_times_and_ends_that_others_accept_are_accepted() {
    let odd = tar(&[
        dir("a"),
        file("a/../good", "good"),
        file("./b/./c/..//d", "d"),
        hard("link", "a/../good"),
        file("old", "o").pax("mtime", "-9223372036854775808"),
        file("older", "o").patch(|h| {
            h[136..148].fill(0xff);
            h[140..148].copy_from_slice(&i64::MIN.to_be_bytes());
        }),
        dir("olddir").pax("mtime", "-9223372036854775808"),
    ]);
    let behind = [&odd[..], &[7; 1000], &tar(&[file("hidden", "x")])].concat();
    let script = "cat /good /b/d /link /old /older; ls -d /olddir; ls /hidden 2>/dev/null | cat";
    assert_eq!(above("odd", &[odd], script), "gooddgoodoo/olddir");
    assert_eq!(above("behind", &[behind], script), "gooddgoodoo/olddir");
}

#[test]
fn history_may_speak_of_more_steps_than_there_are_layers() {
    let scratch = Scratch::new("wild-history");
    let store = scratch.store();
    let layout = Layout::new(scratch.path("layout"));
    let layers = vec![tar(&busybox())];
    let mut config = layout.config(&layers);
    config["history"] = json!([{"created_by": "a"}, {"created_by": "b"}, {"created_by": "c"}]);
    let manifest = layout.manifest(&config, vec![layout.descriptor(LAYER, &layers[0])]);
    layout.index(vec![layout.entry(&manifest, "app")]);
    store.load(&Source::Oci(layout.dir.clone()), &Load::new()).unwrap();
    assert_eq!(told(&store, "app", "echo runs"), "runs");
    assert_eq!(store.image("app").unwrap().history().len(), 3);
}

#[test]
fn sparse_files_have_their_holes_in_every_form_of_tar() {
    if !installed("tar") {
        return;
    }
    let scratch = Scratch::new("wild-sparse");
    let store = scratch.store();
    let tree = scratch.path("tree");
    fs::create_dir(&tree).unwrap();
    let mut contents = Vec::new();
    // No content, one piece, many (more than a header has room for), content at the end and at the start.
    for (name, len, pieces) in [
        ("empty", 1 << 20, vec![]),
        ("one", 3 << 20, vec![1 << 20]),
        ("many", 8 << 20, (0..60).map(|n| n * 131_072).collect::<Vec<u64>>()),
        ("end", (2 << 20) + 100, vec![2 << 20]),
        ("start", 1 << 20, vec![0]),
    ] {
        let file = fs::File::create(tree.join(name)).unwrap();
        file.set_len(len).unwrap();
        for (n, at) in pieces.iter().enumerate() {
            file.write_all_at(format!("piece {n}").as_bytes(), *at).unwrap();
        }
        contents.push((name, fs::read(tree.join(name)).unwrap()));
    }
    for form in ["--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"] {
        let archive = scratch.path("sparse.tar");
        let posix = if form == "--format=gnu" { "" } else { "--format=posix" };
        let mut tar = Command::new("tar");
        tar.args([form, "--sparse", "--hole-detection=raw", "-cf"]).args(Some(posix).filter(|a| !a.is_empty()));
        let args: Vec<_> = tar.get_args().map(ToOwned::to_owned).collect();
        let mut tar = Command::new("tar");
        // The archive's name follows -cf.
        tar.args(args.iter().filter(|a| *a != "-cf" && !a.is_empty()))
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&tree)
            .arg(".");
        assert!(tar.status().unwrap().success());
        assert!(fs::metadata(&archive).unwrap().len() < 2 << 20, "{form}: the archive is not sparse");
        let name: Reference = "sparse".parse().unwrap();
        store.load(&Source::RootFs(archive), &Load::new().name(name)).unwrap_or_else(|e| panic!("{form}: {e}"));
        let kept = store.use_image("sparse").unwrap();
        for (name, content) in &contents {
            let path = kept.layers[0].join(name);
            assert!(&fs::read(&path).unwrap() == content, "{form}: {name}");
            assert!(fs::metadata(&path).unwrap().blocks() * 512 < content.len() as u64, "{form}: {name} has no hole");
        }
    }
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let scratch = Scratch::new("wild-sparse-lies");
    let store = scratch.store();
    let sparse = |map: &str, size: &str, data: &str| {
        let member = file("s", data).pax("GNU.sparse.major", "0").pax("GNU.sparse.minor", "1");
        member.pax("GNU.sparse.map", map).pax("GNU.sparse.size", size)
    };
    let in_content = |map: &str, size: &str, data: &str| {
        let mut content = map.as_bytes().to_vec();
        content.resize(content.len().next_multiple_of(512), 0);
        let member = file("GNUSparseFile.0/s", [&content[..], data.as_bytes()].concat());
        let member = member.pax("GNU.sparse.major", "1").pax("GNU.sparse.minor", "0").pax("GNU.sparse.name", "s");
        member.pax("GNU.sparse.realsize", size)
    };
    let load = |member: Member| {
        let path = scratch.path("layer.tar");
        fs::write(&path, tar(&[member, file("after", "after")])).unwrap();
        store.load(&Source::RootFs(path), &Load::new().name("s".parse().unwrap())).map(|_| {
            let kept = store.use_image("s").unwrap();
            assert_eq!(fs::read(kept.layers[0].join("after")).unwrap(), b"after");
            fs::read(kept.layers[0].join("s")).unwrap()
        })
    };
    assert_eq!(load(sparse("1,2,5,1", "7", "abc")).unwrap(), b"\0ab\0\0c\0");
    assert_eq!(load(in_content("2\n1\n2\n5\n1\n", "7", "abc")).unwrap(), b"\0ab\0\0c\0");
    for (name, member) in [
        ("beyond the end", sparse("1,2,5,1", "5", "abc")),
        ("overlapping", sparse("1,2,2,1", "7", "abc")),
        ("backwards", sparse("5,1,1,2", "7", "abc")),
        ("too little", sparse("1,2", "7", "abc")),
        ("too much", sparse("1,200", "700", "abc")),
        ("odd", sparse("1,2,5", "7", "abc")),
        ("text", sparse("1,x", "7", "abc")),
        ("huge", sparse("0,3", "9000000000000000000", "abc")),
        ("overflow", sparse("9223372036854775807,9223372036854775807", "9223372036854775807", "abc")),
        ("no size", file("s", "abc").pax("GNU.sparse.map", "0,3")),
        ("unknown version", file("s", "abc").pax("GNU.sparse.major", "2").pax("GNU.sparse.realsize", "3")),
        ("count that lies", in_content("99\n1\n2\n", "7", "abc")),
        ("count that is huge", in_content("99999999999\n1\n2\n", "7", "abc")),
        ("no number", in_content("x\n", "7", "abc")),
        ("no map", in_content("", "7", "")),
    ] {
        assert!(load(member).is_err(), "{name} was accepted");
    }
}

#[test]
fn large_windows_and_other_packings_are_read() {
    let scratch = Scratch::new("wild-packed");
    let store = scratch.store();
    // So large that the windows are used: what repeats is 9 MB away.
    let noise: Vec<u8> = (0..9_000_000u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect();
    let mut members = busybox();
    members.extend([file("noise", &noise), file("again", &noise)]);
    let plain = scratch.path("plain.tar");
    fs::write(&plain, tar(&members)).unwrap();
    let mut ids = Vec::new();
    for (program, args) in [
        ("cat", vec![]),
        ("gzip", vec!["-1"]),
        ("zstd", vec!["--ultra", "-22"]),
        ("zstd", vec!["--long=27", "-3"]),
        ("xz", vec!["-1"]),
        ("xz", vec!["-9", "-T1"]),
        ("bzip2", vec!["-1"]),
    ] {
        if !installed(program) {
            continue;
        }
        let packed = scratch.path(&format!("root.{program}{}", args.len()));
        let output = fs::File::create(&packed).unwrap();
        let mut command = Command::new(program);
        command.args(&args).stdin(fs::File::open(&plain).unwrap()).stdout(output);
        assert!(command.status().unwrap().success());
        for from_stream in [false, true] {
            let name = Load::new().name("packed".parse().unwrap());
            let loaded = if from_stream {
                store.load_from(fs::File::open(&packed).unwrap(), &Source::RootFs("stream".into()), &name)
            } else {
                store.load(&Source::RootFs(packed.clone()), &name)
            };
            ids.push(loaded.unwrap_or_else(|e| panic!("{program} {args:?}: {e}"))[0].id);
        }
        assert_eq!(told(&store, "packed", "ls -l /again | while read a b c d e f; do echo $e; done"), "9000000");
        // What is kept of xz and bzip2 can be exported for tools that know neither.
        let layer = store.image("packed").unwrap().layers[0].clone();
        store.export(&["packed"], sandcell::image::Format::OciDir, &scratch.path("out")).unwrap();
        fs::remove_dir_all(scratch.path("out")).unwrap();
        assert!(store.remove("packed").is_ok(), "{}", layer.diff_id);
    }
    assert!(ids.len() >= 2 && ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    // An xz dictionary of more than any level has.
    if installed("xz") {
        let archive = scratch.path("dictionary.xz");
        let mut command = Command::new("xz");
        command.args(["--format=xz", "--lzma2=preset=0,dict=1GiB", "-c"]);
        command.stdin(fs::File::open(&plain).unwrap()).stdout(fs::File::create(&archive).unwrap());
        assert!(command.status().unwrap().success());
        let error = store.load(&Source::RootFs(archive), &Load::new()).unwrap_err();
        assert!(error.to_string().contains("mem"), "{error}");
    }
}

#[test]
fn names_in_a_manifest_may_be_written_in_every_way_that_names_the_file() {
    let scratch = Scratch::new("wild-manifest");
    let store = scratch.store();
    let layer = tar(&busybox());
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [sandcell::image::Digest::of(&layer)]},
    });
    let archive = |config_name: &str, layer_name: &str| {
        let manifest = json!([{"Config": config_name, "RepoTags": ["app:1"], "Layers": [layer_name]}]);
        tar(&[
            file("manifest.json", manifest.to_string()),
            file("c.json", config.to_string()),
            dir("dir"),
            file("dir/b.tar", &layer),
        ])
    };
    for (config, layer) in
        [("c.json", "dir/b.tar"), ("./c.json", "./dir/b.tar"), ("/c.json", "/dir/b.tar"), ("c.json", "dir//./b.tar")]
    {
        let loaded = store.load_from(&archive(config, layer)[..], &Source::Detect("x".into()), &Load::new());
        assert_eq!(loaded.unwrap_or_else(|e| panic!("{config}: {e}"))[0].names, ["app:1"]);
        assert_eq!(told(&store, "app:1", "echo runs"), "runs");
        store.remove("app:1").unwrap();
    }
    for layer in ["../dir/b.tar", "dir/../../b.tar", "", "/", "dir/", "dir/b.tar/", "missing.tar"] {
        let loaded = store.load_from(&archive("c.json", layer)[..], &Source::Detect("x".into()), &Load::new());
        assert!(loaded.is_err(), "{layer:?} was accepted");
    }
}

#[test]
fn a_working_directory_may_lie_behind_a_link() {
    let scratch = Scratch::new("wild-workdir");
    let store = scratch.store();
    let more = tar(&[
        dir("real"),
        dir("real/there"),
        symlink("link", "/real"),
        symlink("srv/up", "../link"),
        symlink("loose", "/not/there"),
    ]);
    for (dir, is) in [
        ("/link", "/real"),
        ("/link/there", "/real/there"),
        ("/link/new/deep", "/real/new/deep"),
        ("/srv/up/new", "/real/new"),
        ("/loose/x", "/not/there/x"),
        ("/loose", "/not/there"),
    ] {
        store_image(&store, "app", &[tar(&busybox()), more.clone()], json!({"WorkingDir": dir}));
        assert_eq!(told(&store, "app", "pwd -P; echo x >x; cat x"), format!("{is}\nx"), "{dir}");
    }
}

#[test]
fn a_user_can_be_named_as_the_image_names_it() {
    let scratch = Scratch::new("wild-user");
    let store = scratch.store();
    store_image(&store, "app", &[tar(&busybox())], json!({"User": "7"}));
    let builder = |name: &str| Sandbox::builder().store(store.dir()).root(Root::image("app")).image_user(name);
    for (name, ids) in
        [("web", "33:34"), ("web:staff", "33:50"), ("web:7", "33:7"), ("root", "0:0"), ("5:staff", "5:50")]
    {
        assert_eq!(told_by(builder(name), "echo $(id -u):$(id -g)"), ids, "{name}");
    }
    for name in ["nobody-here", "web:none", "", "../web"] {
        assert_eq!(builder(name).build().expect_err(name).stage(), "image-user");
    }
    let error = Sandbox::builder().image_user("web").build().expect_err("there is no image");
    assert!(error.to_string().contains("names a user of an image"), "{error}");
}

#[test]
fn an_archive_comes_from_a_pipe() {
    let Some(program) = std::env::var_os("SANDCELL_BIN").or(option_env!("CARGO_BIN_EXE_sandcell").map(Into::into))
    else {
        eprintln!("SKIPPED: the program sandcell was not built");
        return;
    };
    let scratch = Scratch::new("wild-pipe");
    let layout = Layout::image(scratch.path("layout"), "piped:1", &[tar(&busybox())], "", |tar| tar.to_vec());
    let archive = Command::new("tar").arg("-C").arg(&layout.dir).args(["-cf", "-", "."]).output().unwrap().stdout;
    for from in [vec![], vec!["-"]] {
        let mut child = Command::new(&program)
            .arg("load")
            .args(&from)
            .arg("--store")
            .arg(scratch.path("store"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &archive).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "Loaded image: piped:1");
    }
    assert_eq!(told(&scratch.store(), "piped:1", "echo runs"), "runs");
}

#[test]
fn files_of_ids_that_a_sandbox_has_not_are_named_before_a_kept_upper_fails_at_them() {
    let scratch = Scratch::new("wild-owners");
    let layer = scratch.path("layer");
    fs::create_dir_all(layer.join("deep/open")).unwrap();
    let groups = nix::unistd::getgroups().unwrap();
    let own = nix::unistd::getegid();
    let other =
        if nix::unistd::geteuid().is_root() { Some(4321.into()) } else { groups.into_iter().find(|g| *g != own) };
    let Some(other) = other else {
        eprintln!("SKIPPED: this user has no second group to give a file to");
        return;
    };
    let kept = || Sandbox::builder().layer(&layer).upper(Upper::Dir(scratch.path("kept")));
    assert!(kept().build().is_ok(), "the layer is the caller's as a whole");
    nix::unistd::chown(&layer.join("deep/open"), None, Some(other)).unwrap();
    let error = kept().build().expect_err("the first write there would fail");
    assert!(matches!(error, sandcell::Error::Config(_)), "{error}");
    assert!(error.to_string().contains("EOVERFLOW") && error.to_string().contains("deep/open"), "{error}");
    assert!(error.hint().contains("chown -R") && error.hint().contains("sandcell load"), "{}", error.hint());
    // Nobody keeps the first write, or nobody may write there.
    assert!(Sandbox::builder().layer(&layer).build().is_ok());
    fs::set_permissions(layer.join("deep/open"), std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
    assert!(kept().build().is_ok());
}

#[test]
fn a_user_has_the_groups_that_the_image_gives_it() {
    let scratch = Scratch::new("wild-groups");
    let store = scratch.store();
    let group = "root:x:0:\nweb:x:34:\nstaff:x:50:web,other\nmail:x:8:other,web\nnone:x:9:webs\nhuge:x:99999999:web\n";
    store_image(&store, "app", &[tar(&busybox()), tar(&[file("etc/group", group)])], json!({"User": "web"}));
    let builder = || {
        let builder = Sandbox::builder().store(store.dir()).root(Root::image("app")).id_count(65536);
        builder.wait_for_ids(std::time::Duration::from_secs(100))
    };
    if let Err(error) = builder().build() {
        eprintln!("SKIPPED: no range of ids for this user: {error}");
        return;
    }
    let groups = |builder| {
        let mut groups: Vec<u32> = told_by(builder, "id -G").split(' ').map(|id| id.parse().unwrap()).collect();
        groups.sort_unstable();
        groups
    };
    assert_eq!(groups(builder()), [8, 34, 50]);
    assert_eq!(groups(builder().image_user("33")), [8, 34, 50]);
    assert_eq!(groups(builder().image_user("web:web")), [34]);
    assert_eq!(groups(builder().user(User::Root)), [0]);
    assert_eq!(groups(builder().user(User::fixed(33, 34))), [34]);
    // With a single id there are no others to have.
    let single = Sandbox::builder().store(store.dir()).root(Root::image("app"));
    assert_eq!(groups(single), [34]);
}
