//! Images into the store, out of it and what becomes of them in between.

#![cfg(feature = "image")]

mod image_support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use image_support::*;
use sandcell::image::{Digest, Format, Load, Progress, Source, Store};

/// Everything that a reader of the store sees; locks and leftovers of names aside.
fn content(store: &Store) -> Vec<(PathBuf, String)> {
    let skip = |path: &Path| {
        path.starts_with("locks")
            || path.to_str() == Some("lock")
            || path.as_os_str().is_empty()
            || path.to_str() == Some("tmp")
    };
    snapshot(store.dir()).into_iter().filter(|(path, _)| !skip(path)).collect()
}

#[test]
fn every_packing_and_container_of_an_image_loads_to_the_same_tree() {
    let scratch = Scratch::new("packings");
    let mut ids = Vec::new();
    for (name, suffix, pack) in
        [("plain", "", <[u8]>::to_vec as fn(&[u8]) -> Vec<u8>), ("gzip", "+gzip", gzip), ("zstd", "+zstd", zstd)]
    {
        let store = Store::open(scratch.path(&format!("store-{name}"))).unwrap();
        let layout = Layout::image(scratch.path(name), "app:1", &[base(), second()], suffix, pack);
        let loaded = store.load(&Source::Detect(layout.dir.clone()), &Load::new()).unwrap();
        assert_eq!((loaded.len(), loaded[0].new_layers, &loaded[0].names[..]), (1, 2, &["app:1".to_owned()][..]));
        ids.push(loaded[0].id);
        let again = store.load(&Source::Oci(layout.dir.clone()), &Load::new()).unwrap();
        assert_eq!(again[0].new_layers, 0, "what is there is not made again");
        let kept = store.use_image("app:1").unwrap();
        assert_eq!(fs::read(kept.layers[0].join("etc/passwd")).unwrap(), b"root:x:0:0::/:/bin/sh\n");
        assert_eq!(fs::metadata(kept.layers[0].join("bin/su")).unwrap().nlink(), 2);
        assert_eq!(kept.layers[1].join("etc/passwd").symlink_metadata().unwrap().rdev(), 0);
        assert_eq!(xattr(&kept.layers[1].join("var/mail"), "user.overlay.opaque").unwrap(), b"y");
        assert_eq!(fs::metadata(kept.layers[0].join("etc/passwd")).unwrap().mtime(), 1_000_000);
        assert_eq!(fs::metadata(kept.layers[0].join("etc")).unwrap().mtime(), 1_000_000);
        // The same image in archives of every kind.
        for (format, file) in [(Format::OciArchive, "oci"), (Format::DockerArchive, "docker")] {
            let archive = scratch.path(&format!("{name}-{file}.tar"));
            store.export(&["app:1"], format, &archive).unwrap();
            for (suffix, packed) in [
                ("", fs::read(&archive).unwrap()),
                ("gz", gzip(&fs::read(&archive).unwrap())),
                ("zst", zstd(&fs::read(&archive).unwrap())),
            ] {
                let path = scratch.path(&format!("{name}-{file}.{suffix}"));
                fs::write(&path, packed).unwrap();
                let other = Store::open(scratch.path(&format!("other-{name}-{file}-{suffix}"))).unwrap();
                let loaded = other.load(&Source::Detect(path), &Load::new()).unwrap();
                assert_eq!((loaded[0].id, &loaded[0].names[..]), (ids[0], &["app:1".to_owned()][..]));
                let theirs = other.use_image("app:1").unwrap();
                for (ours, theirs) in kept.layers.iter().zip(&theirs.layers) {
                    assert_eq!(snapshot(ours).keys().collect::<Vec<_>>(), snapshot(theirs).keys().collect::<Vec<_>>());
                }
                assert_eq!(fs::read_dir(other.dir().join("tmp")).unwrap().count(), 0);
            }
        }
    }
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[test]
fn an_oci_export_is_the_same_to_the_byte() {
    let scratch = Scratch::new("export");
    let store = scratch.store();
    let layout = Layout::image(scratch.path("in"), "app:1", &[base(), second()], "+gzip", gzip);
    store.load(&Source::Detect(layout.dir.clone()), &Load::new()).unwrap();
    let out = scratch.path("out");
    store.export(&["app:1"], Format::OciDir, &out).unwrap();
    let blobs = |dir: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(dir.join("blobs/sha256")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(blobs(&layout.dir), blobs(&out));
    for name in blobs(&out) {
        let path = Path::new("blobs/sha256").join(&name);
        let bytes = fs::read(out.join(&path)).unwrap();
        assert_eq!(bytes, fs::read(layout.dir.join(&path)).unwrap());
        assert_eq!(Digest::of(&bytes).hex(), name.to_str().unwrap());
    }
    let error = store.export(&["app:1"], Format::OciDir, &out).unwrap_err();
    assert_eq!(error.kind(), "config", "an export overwrites nothing: {error}");
}

#[test]
fn a_damaged_layer_of_the_store_is_not_exported() {
    let scratch = Scratch::new("export-damaged");
    let store = scratch.store();
    let layout = Layout::image(scratch.path("in"), "app:1", &[base()], "", <[u8]>::to_vec);
    store.load(&Source::Detect(layout.dir), &Load::new()).unwrap();
    let layer = store.image("app:1").unwrap().layers[0].diff_id;
    let blob = store.dir().join("layers").join(layer.hex()).join("blob");
    let mut bytes = fs::read(&blob).unwrap();
    bytes[600] ^= 1;
    fs::write(&blob, bytes).unwrap();
    for format in [Format::OciDir, Format::OciArchive, Format::DockerArchive] {
        let out = scratch.path("out");
        let error = store.export(&["app:1"], format, &out).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
        assert!(!out.exists(), "half an export was left");
    }
}

/// Changes a good layout so that it is bad.
type Spoil = fn(&Layout, &[Vec<u8>]);

fn layer(layout: &Layout, tar: &[u8]) -> serde_json::Value {
    layout.descriptor(LAYER, tar)
}

fn with_manifest(layout: &Layout, tars: &[Vec<u8>], change: impl Fn(&mut serde_json::Value)) {
    let mut manifest = layout.manifest(&layout.config(tars), tars.iter().map(|tar| layer(layout, tar)).collect());
    change(&mut manifest);
    layout.index(vec![layout.entry(&manifest, "bad:1")]);
}

fn with_config(layout: &Layout, tars: &[Vec<u8>], change: impl Fn(&mut serde_json::Value)) {
    let mut config = layout.config(tars);
    change(&mut config);
    let manifest = layout.manifest(&config, tars.iter().map(|tar| layer(layout, tar)).collect());
    layout.index(vec![layout.entry(&manifest, "bad:1")]);
}

#[test]
fn a_bad_image_is_one_clear_error_and_the_store_as_before() {
    let cases: &[(&str, Spoil, &str)] = &[
        (
            "layer_digest",
            |l, t| {
                let other = tar(&[file("x", "y")]);
                fs::write(l.blob_path(Digest::of(&t[0])), &other[..]).unwrap();
                with_manifest(l, t, |m| m["layers"][0]["size"] = other.len().into());
                fs::write(l.blob_path(Digest::of(&t[0])), &other[..]).unwrap();
            },
            "has the digest",
        ),
        (
            "layer_digest_of_the_same_tar",
            |l, t| {
                let packed = gzip(&t[0]);
                with_manifest(l, t, |m| m["layers"][0] = l.descriptor(&format!("{LAYER}+gzip"), &packed));
                // The header's time: the tar inside is what the configuration says.
                let mut other = packed.clone();
                other[4] ^= 1;
                fs::write(l.blob_path(Digest::of(&packed)), other).unwrap();
            },
            "has the digest",
        ),
        ("layer_size", |l, t| with_manifest(l, t, |m| m["layers"][0]["size"] = 5.into()), "its descriptor says 5"),
        ("layer_size_negative", |l, t| with_manifest(l, t, |m| m["layers"][0]["size"] = (-5).into()), "does not parse"),
        (
            "layer_truncated",
            |l, t| {
                with_manifest(l, t, |_| {});
                fs::write(l.blob_path(Digest::of(&t[0])), &t[0][..700]).unwrap();
            },
            "its descriptor says",
        ),
        (
            "layer_missing",
            |l, t| {
                with_manifest(l, t, |_| {});
                fs::remove_file(l.blob_path(Digest::of(&t[0]))).unwrap();
            },
            "opening it",
        ),
        (
            "layer_fifo",
            |l, t| {
                with_manifest(l, t, |_| {});
                let path = l.blob_path(Digest::of(&t[0]));
                fs::remove_file(&path).unwrap();
                nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            },
            "not a regular file",
        ),
        (
            "layer_media_type",
            |l, t| with_manifest(l, t, |m| m["layers"][0]["mediaType"] = "text/plain".into()),
            "text/plain",
        ),
        (
            "layer_not_gzip",
            |l, t| with_manifest(l, t, |m| m["layers"][0]["mediaType"] = format!("{LAYER}+gzip").into()),
            "media type says Gzip",
        ),
        (
            "layers_too_few",
            |l, t| with_manifest(l, t, |m| m["layers"] = serde_json::json!([])),
            "0 layers in the manifest",
        ),
        (
            "layers_10000",
            |l, t| with_manifest(l, t, |m| m["layers"] = vec![m["layers"][0].clone(); 10_000].into()),
            "10000 layers",
        ),
        (
            "diff_id",
            |l, t| with_config(l, t, |c| c["rootfs"]["diff_ids"][0] = Digest::of(b"x").to_string().into()),
            "the configuration says",
        ),
        (
            "diff_ids_10000",
            |l, t| {
                with_config(l, t, |c| c["rootfs"]["diff_ids"] = vec![c["rootfs"]["diff_ids"][0].clone(); 10_000].into())
            },
            "10000 layers",
        ),
        ("rootfs_type", |l, t| with_config(l, t, |c| c["rootfs"]["type"] = "disk".into()), "rootfs.type"),
        ("config_of_windows", |l, t| with_config(l, t, |c| c["os"] = "windows".into()), "windows"),
        ("config_is_list", |l, t| with_config(l, t, |c| *c = serde_json::json!([])), "does not parse"),
        (
            "config_media_type",
            |l, t| {
                with_manifest(l, t, |m| m["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into())
            },
            "helm",
        ),
        (
            "digest_with_path",
            |l, t| with_manifest(l, t, |m| m["layers"][0]["digest"] = "sha256:../../../../etc/passwd".into()),
            "not a SHA-256 digest",
        ),
        (
            "digest_algorithm",
            |l, t| with_manifest(l, t, |m| m["layers"][0]["digest"] = "md5:00".into()),
            "unknown digest algorithm",
        ),
        ("manifest_and_index", |l, t| with_manifest(l, t, |m| m["manifests"] = serde_json::json!([])), "at once"),
        (
            "manifest_media_type",
            |l, t| with_manifest(l, t, |m| m["mediaType"] = "application/vnd.oci.image.index.v1+json".into()),
            "calls itself",
        ),
        (
            "manifest_twice_a_key",
            |l, t| {
                let manifest = l.manifest(&l.config(t), vec![]).to_string().replacen('{', "{\"layers\":[],", 1);
                let mut entry = l.entry(&serde_json::json!({}), "bad:1");
                entry["digest"] = l.blob(manifest.as_bytes()).to_string().into();
                entry["size"] = manifest.len().into();
                l.index(vec![entry]);
            },
            "duplicate field",
        ),
        (
            "manifest_digest",
            |l, t| {
                with_manifest(l, t, |_| {});
                let index: serde_json::Value =
                    serde_json::from_slice(&fs::read(l.dir.join("index.json")).unwrap()).unwrap();
                let digest: Digest = index["manifests"][0]["digest"].as_str().unwrap().parse().unwrap();
                let mut bytes = fs::read(l.blob_path(digest)).unwrap();
                let last = bytes.len() - 1;
                bytes[last] = b' ';
                fs::write(l.blob_path(digest), bytes).unwrap();
            },
            "has the digest",
        ),
        (
            "index_deep",
            |l, t| {
                with_manifest(l, t, |_| {});
                let mut inner: serde_json::Value =
                    serde_json::from_slice(&fs::read(l.dir.join("index.json")).unwrap()).unwrap();
                for _ in 0..10 {
                    let bytes = serde_json::to_vec(&inner).unwrap();
                    let entry = l.descriptor("application/vnd.oci.image.index.v1+json", &bytes);
                    inner = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
                }
                fs::write(l.dir.join("index.json"), inner.to_string()).unwrap();
            },
            "indexes in indexes",
        ),
        (
            "index_loop",
            |l, t| {
                // A true loop would need a digest that is known before its content: the closest is a blob that is not what
                // its name says.
                with_manifest(l, t, |_| {});
                let digest = Digest::of(b"loop");
                let inner = serde_json::json!({"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": 0}]});
                let mut inner = inner.to_string();
                let size = inner.len() + 2;
                inner = inner.replace("\"size\":0", &format!("\"size\":{size}"));
                fs::write(l.blob_path(digest), &inner).unwrap();
                fs::write(l.dir.join("index.json"), &inner).unwrap();
            },
            "has the digest",
        ),
        (
            "index_other_platform",
            |l, t| {
                with_manifest(l, t, |_| {});
                let mut index: serde_json::Value =
                    serde_json::from_slice(&fs::read(l.dir.join("index.json")).unwrap()).unwrap();
                index["manifests"][0]["platform"] = serde_json::json!({"os": "linux", "architecture": "s390x"});
                fs::write(l.dir.join("index.json"), index.to_string()).unwrap();
            },
            "linux/s390x",
        ),
        ("index_empty", |l, _| l.index(vec![]), "no image"),
        ("index_huge", |l, _| fs::write(l.dir.join("index.json"), vec![b' '; 5 << 20]).unwrap(), "at most"),
        ("index_garbage", |l, _| fs::write(l.dir.join("index.json"), "{").unwrap(), "does not parse"),
        ("index_missing", |l, _| fs::remove_file(l.dir.join("index.json")).unwrap(), "opening it"),
        ("no_layout", |l, _| fs::remove_file(l.dir.join("oci-layout")).unwrap(), "neither"),
    ];
    let scratch = Scratch::new("bad");
    let store = scratch.store();
    let good = Layout::image(scratch.path("good"), "good:1", &[base()], "+gzip", gzip);
    store.load(&Source::Detect(good.dir), &Load::new()).unwrap();
    let before = content(&store);
    for (id, spoil, why) in cases {
        let tars = [tar(&[file("a", *id)]), second()];
        let layout = Layout::image(scratch.path(id), "bad:1", &tars, "", <[u8]>::to_vec);
        spoil(&layout, &tars);
        let error = store.load(&Source::Detect(layout.dir.clone()), &Load::new()).expect_err(id);
        assert!(error.to_string().contains(why), "{id}: {error}");
        assert_eq!(content(&store), before, "{id} changed the store");
        assert_eq!(fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0, "{id}");
    }
}

#[test]
fn a_docker_archive_names_only_its_own_files() {
    let scratch = Scratch::new("docker");
    let store = scratch.store();
    let layer = base();
    let config = |tars: &[Vec<u8>]| Layout::new(scratch.path("unused")).config(tars).to_string();
    let good = config(std::slice::from_ref(&layer));
    let archive = |manifest: &str, extra: &[Member]| {
        let mut members =
            vec![file("c.json", &good), dir("l"), file("l/layer.tar", &layer), file("manifest.json", manifest)];
        members.extend_from_slice(extra);
        let path = scratch.path("docker.tar");
        fs::write(&path, tar(&members)).unwrap();
        Source::Detect(path)
    };
    let manifest = |config: &str, layer: &str, tag: &str| {
        format!(r#"[{{"Config":"{config}","RepoTags":["{tag}"],"Layers":["{layer}"]}}]"#)
    };
    for (config, layer, tag, extra, why) in [
        ("../../etc/passwd", "l/layer.tar", "a:1", None, "no name of a file"),
        ("/etc/passwd", "l/layer.tar", "a:1", None, "not in the archive"),
        ("c.json", "x/layer.tar", "a:1", None, "not in the archive"),
        ("c.json", "l/layer.tar", "A B", None, "does not parse"),
        ("c.json", "s", "a:1", Some(symlink("s", "../../../etc/passwd")), "leads out"),
        ("c.json", "s", "a:1", Some(symlink("s", "s")), "chain of links"),
        ("c.json", "l/layer.tar", "a:1", Some(file("c.json", "{}")), "twice"),
    ] {
        let source = archive(&manifest(config, layer, tag), extra.as_slice());
        let error = store.load(&source, &Load::new()).expect_err(why);
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(store.images().unwrap().len(), 0);
    }
    // The twin: links inside the archive are how several images share a layer.
    let source = archive(&manifest("c.json", "m/layer.tar", "a:1"), &[symlink("m/layer.tar", "../l/layer.tar")]);
    assert_eq!(store.load(&source, &Load::new()).unwrap()[0].names, ["a:1"]);
}

#[test]
fn layers_that_images_share_are_kept_once_and_as_long_as_one_needs_them() {
    let scratch = Scratch::new("shared");
    let store = scratch.store();
    let third = tar(&[file("third", "3")]);
    let one = Layout::image(scratch.path("one"), "one:1", &[base(), second()], "+gzip", gzip);
    let two = Layout::image(scratch.path("two"), "two:1", &[base(), third.clone()], "+gzip", gzip);
    assert_eq!(store.load(&Source::Detect(one.dir), &Load::new()).unwrap()[0].new_layers, 2);
    assert_eq!(store.load(&Source::Detect(two.dir), &Load::new()).unwrap()[0].new_layers, 1);
    let image = store.image("two:1").unwrap();
    let sizes = store.sizes(&image).unwrap();
    assert_eq!(sizes.total - sizes.shared, 1, "one byte is its own");
    let (a, b) = (store.use_image("one:1").unwrap(), store.use_image("two").unwrap_err());
    assert_eq!(b.kind(), "config");
    let b = store.use_image("two:1").unwrap();
    let inode = |path: &Path| fs::metadata(path.join("etc/shadow")).unwrap().ino();
    assert_eq!(inode(&a.layers[0]), inode(&b.layers[0]));
    drop((a, b));
    let pruned = store.remove("one:1").unwrap();
    assert_eq!((pruned.images.len(), pruned.layers.len()), (1, 1));
    assert!(store.use_image("two:1").unwrap().layers.iter().all(|layer| layer.exists()));
    let pruned = store.remove("two:1").unwrap();
    assert_eq!((pruned.images.len(), pruned.layers.len()), (1, 2));
    assert!(store.images().unwrap().is_empty());
}

#[test]
fn an_image_in_use_stays_until_the_run_ends() {
    let scratch = Scratch::new("in-use");
    let store = scratch.store();
    let one = Layout::image(scratch.path("one"), "app:1", &[base()], "", <[u8]>::to_vec);
    store.load(&Source::Detect(one.dir), &Load::new()).unwrap();
    let run = store.use_image("app:1").unwrap();
    let error = store.remove("app:1").unwrap_err();
    assert!(error.to_string().contains("using this image"), "{error}");
    // Its name goes over to a newer image: then it has none, and still stays.
    let two = Layout::image(scratch.path("two"), "app:1", &[second()], "", <[u8]>::to_vec);
    store.load(&Source::Detect(two.dir), &Load::new()).unwrap();
    assert!(store.prune().unwrap().images.is_empty());
    assert!(run.layers[0].join("etc/passwd").exists());
    let old = run.image.id;
    let layer = run.layers[0].clone();
    drop(run);
    assert_eq!(store.prune().unwrap().images, [old]);
    assert!(!layer.exists());
    assert_eq!(store.images().unwrap().len(), 1);
}

#[test]
fn debug_of_an_image_shows_no_variables_of_its_configuration() {
    let scratch = Scratch::new("store-debug");
    let store = scratch.store();
    store_image(&store, "secretive:1", &[base()], serde_json::json!({"Env": ["TOKEN=hunter2"]}));
    let kept = store.use_image("secretive:1").unwrap();
    assert_eq!(kept.image.config.config.as_ref().unwrap().env.as_deref().unwrap(), ["TOKEN=hunter2"], "the control");
    let said = format!("{:?} {kept:?}", kept.image);
    assert!(said.contains("secretive:1") && !said.contains("hunter2") && said.len() < 4096, "{said}");
}

#[test]
fn names_are_found_as_people_write_them() {
    let scratch = Scratch::new("names");
    let store = scratch.store();
    let layout = Layout::image(scratch.path("in"), "docker.io/library/debian:12", &[base()], "", <[u8]>::to_vec);
    let id = store.load(&Source::Detect(layout.dir), &Load::new()).unwrap()[0].id;
    store.tag("debian:12", &"localhost/mine:latest".parse().unwrap()).unwrap();
    for name in [
        "debian:12",
        "docker.io/library/debian:12",
        "mine",
        "localhost/mine",
        &id.to_string(),
        &id.short(),
        &id.hex()[..6],
    ] {
        assert_eq!(store.image(name).unwrap().id, id, "{name}");
    }
    assert_eq!(store.image("mine").unwrap().names, ["docker.io/library/debian:12", "localhost/mine:latest"]);
    for name in ["debian", "debian:13", &id.hex()[..5], "ffffffffffff", "sha256:..", "", "../x"] {
        assert_eq!(store.image(name).unwrap_err().kind(), "config", "{name}");
    }
    assert!(store.remove("mine").unwrap().images.is_empty(), "it has another name");
    assert_eq!(store.image("debian:12").unwrap().names.len(), 1);
}

#[test]
fn many_loads_at_once_make_each_layer_once() {
    let scratch = Scratch::new("at-once");
    let store = scratch.store();
    let tars: Vec<Vec<u8>> = (0..6).map(|n| tar(&[file(format!("f{n}"), vec![n as u8; 100_000])])).collect();
    let reversed: Vec<Vec<u8>> = tars.iter().rev().cloned().collect();
    let up = Layout::image(scratch.path("up"), "up:1", &tars, "+gzip", gzip);
    let down = Layout::image(scratch.path("down"), "down:1", &reversed, "+gzip", gzip);
    let made = Mutex::new(0);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (store, made) = (&store, &made);
            let dir = if n % 2 == 0 { up.dir.clone() } else { down.dir.clone() };
            scope.spawn(move || {
                let loaded = store.load(&Source::Detect(dir), &Load::new()).unwrap();
                *made.lock().unwrap() += loaded[0].new_layers;
            });
        }
    });
    assert_eq!(*made.lock().unwrap(), 6);
    assert_eq!(store.images().unwrap().len(), 2);
    assert_eq!(fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_root_file_system_becomes_an_image_from_a_tar_or_a_directory() {
    let scratch = Scratch::new("rootfs");
    let store = scratch.store();
    let tree = scratch.path("tree");
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::write(tree.join("bin/sh"), "#!").unwrap();
    fs::set_permissions(tree.join("bin/sh"), fs::Permissions::from_mode(0o000)).unwrap();
    let how = || Load::new().name("tree:1".parse().unwrap());
    let one = store.load(&Source::RootFs(tree.clone()), &how()).unwrap();
    assert_eq!(fs::metadata(tree.join("bin/sh")).unwrap().mode() & 0o777, 0, "its mode is as it was");
    let two = store.load(&Source::RootFs(tree), &how()).unwrap();
    assert_eq!(one[0].id, two[0].id);
    fs::write(scratch.path("root.tar.gz"), gzip(&base())).unwrap();
    let loaded = store
        .load(
            &Source::RootFs(scratch.path("root.tar.gz")),
            &Load::new().name("tar:1".parse().unwrap()).created("2026-01-01T00:00:00Z"),
        )
        .unwrap();
    let image = store.image("tar:1").unwrap();
    assert_eq!((image.id, image.config.created.as_deref()), (loaded[0].id, Some("2026-01-01T00:00:00Z")));
    assert!(store.load(&Source::RootFs(scratch.path("nowhere")), &Load::new()).is_err());
}

#[test]
fn progress_reaches_what_it_announced() {
    let scratch = Scratch::new("progress");
    let store = scratch.store();
    let layout = Layout::image(scratch.path("in"), "app:1", &[base(), second()], "+gzip", gzip);
    let seen = Mutex::new(Vec::new());
    let tell = |progress: Progress| seen.lock().unwrap().push(progress);
    store.load(&Source::Detect(layout.dir.clone()), &Load::new().progress(&tell)).unwrap();
    let last = seen
        .lock()
        .unwrap()
        .iter()
        .filter_map(|p| match p {
            Progress::Bytes { done, total, .. } => Some((*done, *total)),
            _ => None,
        })
        .max();
    let (done, total) = last.unwrap();
    assert_eq!(done, total);
    seen.lock().unwrap().clear();
    store.load(&Source::Detect(layout.dir), &Load::new().progress(&tell)).unwrap();
    assert_eq!(seen.lock().unwrap().iter().filter(|p| matches!(p, Progress::Present { .. })).count(), 2);
}

#[test]
fn the_store_is_closed_to_others_and_opens_only_what_is_a_store() {
    let scratch = Scratch::new("open");
    let store = scratch.store();
    assert_eq!(fs::metadata(store.dir()).unwrap().mode() & 0o7777, 0o700);
    fs::set_permissions(store.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let store = Store::open(store.dir()).unwrap();
    assert_eq!(fs::metadata(store.dir()).unwrap().mode() & 0o7777, 0o700);
    let other = scratch.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("thesis.txt"), "").unwrap();
    assert_eq!(Store::open(&other).unwrap_err().kind(), "config");
    assert_eq!(Store::open(other.join("thesis.txt")).unwrap_err().kind(), "config");
    fs::write(store.dir().join("version"), "2\n").unwrap();
    assert!(Store::open(store.dir()).unwrap_err().to_string().contains("version"));
}

#[test]
fn a_layer_that_a_power_cut_has_damaged_counts_as_not_there() {
    let scratch = Scratch::new("power");
    let store = scratch.store();
    let layout = Layout::image(scratch.path("in"), "app:1", &[base()], "", <[u8]>::to_vec);
    store.load(&Source::Detect(layout.dir.clone()), &Load::new()).unwrap();
    let layer = store.dir().join("layers").join(store.image("app:1").unwrap().layers[0].diff_id.hex());
    // As if it had been made before the last boot.
    let info = fs::read_to_string(layer.join("layer.json")).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fs::write(layer.join("layer.json"), info.replace(boot.trim(), "another")).unwrap();
    assert!(store.use_image("app:1").is_ok(), "whole layers survive a boot");
    assert!(layer.join("settled").exists());
    fs::remove_file(layer.join("settled")).unwrap();
    fs::write(layer.join("fs/etc/passwd"), "").unwrap();
    let error = store.use_image("app:1").unwrap_err();
    assert!(error.hint().contains("load it again"), "{error}");
    assert_eq!(store.load(&Source::Detect(layout.dir), &Load::new().durable()).unwrap()[0].new_layers, 1);
    let kept = store.use_image("app:1").unwrap();
    assert_eq!(fs::metadata(kept.layers[0].join("etc/passwd")).unwrap().len(), 22);
    assert!(layer.join("settled").exists(), "a durable load is known to be on the disk");
}
