//! Archives in the shapes that other tools write, made by hand: each is loaded, named and run.

#![cfg(feature = "image")]

mod image_support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use image_support::*;
use sandcell::image::{Digest, Load, Source, Store};
use sandcell::{Outcome, Root, Sandbox};
use serde_json::{Value, json};

const OCI: &str = "application/vnd.oci.image.";
const DOCKER: &str = "application/vnd.docker.";

/// The image inside: busybox, a program's files, and a layer that takes one of them away.
fn layers(change: fn(Member) -> Member) -> Vec<Vec<u8>> {
    let app = [dir("app"), file("app/hello", "hello"), file("app/old", "old"), symlink("app/link", "hello")];
    let late = [dir("app"), file("app/.wh.old", ""), file("app/late", "late")];
    [busybox(), app.to_vec(), late.to_vec()]
        .map(|members| tar(&members.into_iter().map(change).collect::<Vec<_>>()))
        .into()
}

fn same(member: Member) -> Member {
    member
}

fn config(tars: &[Vec<u8>]) -> Value {
    let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
    json!({
        "architecture": sandcell::image::Platform::host().architecture, "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
}

/// An archive as `docker save` has it, with its own names for everything.
struct Saved {
    tars: Vec<Vec<u8>>,
    config: fn(&str) -> String,
    layer: fn(&str) -> String,
    pack: fn(&[u8]) -> Vec<u8>,
    tags: Value,
    /// In front of each name in the archive, and of each in manifest.json.
    start: (&'static str, &'static str),
    /// What the tool writes beside it.
    more: fn(&[String]) -> Vec<Member>,
}

impl Default for Saved {
    fn default() -> Saved {
        Saved {
            tars: layers(same),
            config: |hex| format!("{hex}.json"),
            layer: |hex| format!("{hex}/layer.tar"),
            pack: <[u8]>::to_vec,
            tags: json!(["app:1"]),
            start: ("", ""),
            more: |_| Vec::new(),
        }
    }
}

impl Saved {
    fn bytes(self) -> Vec<u8> {
        let config = config(&self.tars).to_string();
        let config_name = (self.config)(&Digest::of(config.as_bytes()).hex());
        let named: Vec<(String, Vec<u8>)> =
            self.tars.iter().map(|tar| ((self.layer)(&Digest::of(tar).hex()), (self.pack)(tar))).collect();
        let names: Vec<String> = named.iter().map(|(name, _)| name.clone()).collect();
        let of_manifest = |name: &str| format!("{}{name}", self.start.1);
        let manifest = json!([{
            "Config": of_manifest(&config_name), "RepoTags": self.tags,
            "Layers": names.iter().map(|name| of_manifest(name)).collect::<Vec<_>>(),
        }]);
        let put = |name: &str, content: &[u8]| file("x", content).pax("path", format!("{}{name}", self.start.0));
        let mut members = (self.more)(&names);
        let mut seen = std::collections::BTreeSet::new();
        members.extend(named.iter().filter(|(name, _)| seen.insert(name.clone())).map(|(name, tar)| put(name, tar)));
        members.push(put(&config_name, config.as_bytes()));
        members.push(put("manifest.json", manifest.to_string().as_bytes()));
        tar(&members)
    }
}

/// An OCI layout, as an archive or a directory.
struct Laid {
    tars: Vec<Vec<u8>>,
    /// Which media types: OCI's, or Docker's.
    docker: bool,
    suffix: &'static str,
    pack: fn(&[u8]) -> Vec<u8>,
    annotations: Value,
    /// An index of platforms and attestations in between.
    nested: bool,
    /// The archive has Docker's manifest.json too.
    both: bool,
}

impl Default for Laid {
    fn default() -> Laid {
        let annotations = json!({"org.opencontainers.image.ref.name": "app:1"});
        Laid { tars: layers(same), docker: false, suffix: "+gzip", pack: gzip, annotations, nested: false, both: false }
    }
}

impl Laid {
    fn files(self) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        let mut blob = |media_type: String, bytes: Vec<u8>| {
            let digest = Digest::of(&bytes);
            let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
            files.push((format!("blobs/sha256/{}", digest.hex()), bytes));
            descriptor
        };
        let (config_type, manifest_type, layer_type) = match self.docker {
            false => (format!("{OCI}config.v1+json"), format!("{OCI}manifest.v1+json"), format!("{OCI}layer.v1.tar")),
            true => (
                format!("{DOCKER}container.image.v1+json"),
                format!("{DOCKER}distribution.manifest.v2+json"),
                format!("{DOCKER}image.rootfs.diff.tar"),
            ),
        };
        let suffix = if self.docker { self.suffix.replace('+', ".") } else { self.suffix.to_owned() };
        let layers: Vec<Value> =
            self.tars.iter().map(|tar| blob(format!("{layer_type}{suffix}"), (self.pack)(tar))).collect();
        let config = blob(config_type, config(&self.tars).to_string().into_bytes());
        let manifest = json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers});
        let mut entry = blob(manifest_type.clone(), manifest.to_string().into_bytes());
        if self.nested {
            let platform = |entry: &Value, os: &str, arch: &str| {
                let mut entry = entry.clone();
                entry["platform"] = json!({"os": os, "architecture": arch});
                entry
            };
            let attestation = blob(manifest_type, br#"{"schemaVersion": 2, "config": {}, "layers": []}"#.to_vec());
            let index = json!({
                "schemaVersion": 2, "mediaType": format!("{OCI}index.v1+json"),
                "manifests": [platform(&attestation, "linux", "s390x"), platform(&entry, "linux", &sandcell::image::Platform::host().architecture), platform(&attestation, "unknown", "unknown")],
            });
            entry = blob(format!("{OCI}index.v1+json"), index.to_string().into_bytes());
        }
        if self.annotations.is_object() {
            entry["annotations"] = self.annotations;
        }
        let name =
            |of: &Value| format!("blobs/sha256/{}", of["digest"].as_str().unwrap().trim_start_matches("sha256:"));
        if self.both {
            let layers: Vec<String> = layers.iter().map(name).collect();
            let manifest = json!([{"Config": name(&config), "RepoTags": ["app:1"], "Layers": layers}]);
            files.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
        }
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion": "1.0.0"}"#.to_vec()));
        files.sort();
        files.dedup();
        files
    }

    fn bytes(self) -> Vec<u8> {
        let mut members = vec![dir("blobs/"), dir("blobs/sha256/")];
        members.extend(self.files().iter().map(|(name, bytes)| file("x", bytes).pax("path", name)));
        tar(&members)
    }
}

/// What is loaded, and the names that the image has then.
enum Shape {
    Archive(Vec<u8>, &'static [&'static str]),
    Dir(Vec<(String, Vec<u8>)>, &'static [&'static str]),
    RootFs(Vec<u8>),
}
use Shape::{Archive, Dir, RootFs};

const ONE: &[&str] = &["app:1"];

fn whole() -> Vec<Member> {
    let mut members = busybox();
    members.extend([dir("app"), file("app/hello", "hello"), symlink("app/link", "hello"), file("app/late", "late")]);
    members
}

fn packed_by(program: &str, tar: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let mut stdin = child.stdin.take().unwrap();
    let tar = tar.to_vec();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &tar).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

/// Each file a gzip member of its own, as eStargz has it.
fn by_member(tar: &[u8]) -> Vec<u8> {
    tar.chunks(1024).flat_map(gzip).collect()
}

/// Frames to be skipped in front and behind, as zstd:chunked has its table.
fn chunked(tar: &[u8]) -> Vec<u8> {
    let skipped = |bytes: &[u8]| [&b"\x50\x2a\x4d\x18"[..], &(bytes.len() as u32).to_le_bytes(), bytes].concat();
    let half = tar.len() / 1024 * 512;
    [skipped(b""), zstd(&tar[..half]), zstd(&tar[half..]), skipped(b"GNUlInUx table")].concat()
}

fn leading_dot(mut member: Member) -> Member {
    member.name = [b"./", &member.name[..]].concat();
    if member.kind == b'5' {
        member.name.push(b'/');
    }
    member
}

fn gnu(member: Member) -> Member {
    let member = leading_dot(member);
    member.patch(|header| header[257..265].copy_from_slice(b"ustar  \0"))
}

fn v7(member: Member) -> Member {
    member.patch(|header| header[257..265].fill(0))
}

/// Read-only directories of the first second, as the Nix store has them.
fn nix(member: Member) -> Member {
    let mode = if member.kind == b'5' && !member.name.starts_with(b"tmp") { 0o555 } else { member.mode };
    leading_dot(Member { mtime: 1, ..member }).mode(mode)
}

fn no_dirs(member: Member) -> Member {
    // A repeated file in place of what would be the directory: only files are listed.
    if member.kind == b'5' && member.name.starts_with(b"app") { file("app/hello", "hello") } else { member }
}

fn buildpack(member: Member) -> Member {
    Member { mtime: 315_532_801, ..member }.owner(1000, 1000)
}

fn shapes() -> Vec<(&'static str, Shape)> {
    let many = |count: usize| {
        let mut tars = layers(nix);
        tars.extend(
            (0..count)
                .map(|n| tar(&[dir("./nix/"), dir("./nix/store/"), dir(format!("./nix/store/{n}/")).mode(0o555)])),
        );
        tars
    };
    let twice = || {
        let mut tars = layers(same);
        let empty = tar(&[]);
        tars.extend([empty.clone(), empty]);
        tars
    };
    let v1 = |names: &[String]| {
        let mut members = vec![file("repositories", r#"{"app":{"1":"x"}}"#)];
        for name in names {
            let id = name.split('/').next().unwrap();
            members.extend([dir("x").pax("path", id), file("x", "1.0").pax("path", format!("{id}/VERSION"))]);
            members.push(file("x", r#"{"id":"x"}"#).pax("path", format!("{id}/json")));
        }
        members
    };
    let podman_links = |names: &[String]| {
        let link = |name: &String| {
            let id = name.trim_end_matches(".tar");
            symlink("x", format!("../{name}")).pax("path", format!("{id}/layer.tar"))
        };
        names.iter().map(link).collect::<Vec<_>>()
    };
    let gz: fn(&str) -> String = |hex| format!("{hex}.tar.gz");
    let sha: fn(&str) -> String = |hex| format!("sha256:{hex}");
    let blobs: fn(&str) -> String = |hex| format!("blobs/sha256/{hex}");
    vec![
        ("docker save, 1.10 to 24", Archive(Saved { more: v1, ..Saved::default() }.bytes(), ONE)),
        (
            "docker save of two names",
            Archive(Saved { tags: json!(["app:1", "localhost:5000/app:2"]), ..Saved::default() }.bytes(), &["app:1", "localhost:5000/app:2"]),
        ),
        ("docker save of an id", Archive(Saved { tags: Value::Null, ..Saved::default() }.bytes(), &[])),
        ("docker save, a layer twice", Archive(Saved { tars: twice(), ..Saved::default() }.bytes(), ONE)),
        ("docker save | gzip", Archive(gzip(&Saved::default().bytes()), ONE)),
        ("docker save | zstd", Archive(zstd(&Saved::default().bytes()), ONE)),
        ("docker save | xz", Archive(packed_by("xz", &Saved::default().bytes()), ONE)),
        ("docker save | bzip2", Archive(packed_by("bzip2", &Saved::default().bytes()), ONE)),
        ("docker save, 25 and later", Archive(Laid { suffix: "", pack: <[u8]>::to_vec, both: true, ..Laid::default() }.bytes(), ONE)),
        ("docker save, 28, with attestations", Archive(Laid { nested: true, both: true, ..Laid::default() }.bytes(), ONE)),
        ("buildkit type=docker", Archive(Laid { both: true, ..Laid::default() }.bytes(), ONE)),
        ("buildkit type=oci, several platforms", Archive(Laid { nested: true, ..Laid::default() }.bytes(), ONE)),
        ("buildkit type=oci, zstd", Archive(Laid { suffix: "+zstd", pack: zstd, ..Laid::default() }.bytes(), ONE)),
        ("buildkit type=oci, uncompressed", Archive(Laid { suffix: "", pack: <[u8]>::to_vec, ..Laid::default() }.bytes(), ONE)),
        ("buildkit type=oci, eStargz", Archive(Laid { pack: by_member, ..Laid::default() }.bytes(), ONE)),
        ("buildkit type=oci, Docker's media types", Archive(Laid { docker: true, ..Laid::default() }.bytes(), ONE)),
        ("buildkit type=oci, a layer twice", Archive(Laid { tars: twice(), ..Laid::default() }.bytes(), ONE)),
        (
            "podman save, docker-archive",
            Archive(Saved { layer: |hex| format!("{hex}.tar"), more: podman_links, ..Saved::default() }.bytes(), ONE),
        ),
        ("podman save, oci-archive", Archive(Laid::default().bytes(), ONE)),
        ("podman save, oci-dir", Dir(Laid::default().files(), ONE)),
        ("podman save, zstd:chunked", Archive(Laid { suffix: "+zstd", pack: chunked, ..Laid::default() }.bytes(), ONE)),
        ("skopeo, docker-archive without a name", Archive(Saved { layer: |hex| format!("{hex}.tar"), tags: json!([]), ..Saved::default() }.bytes(), &[])),
        ("skopeo, oci with a tag only", Dir(Laid { annotations: json!({"org.opencontainers.image.ref.name": "latest"}), ..Laid::default() }.files(), &["latest:latest"])),
        ("umoci, a layout", Dir(Laid { annotations: json!({"org.opencontainers.image.ref.name": "app:1"}), docker: false, ..Laid::default() }.files(), ONE)),
        ("kaniko --tar-path", Archive(Saved { config: sha, layer: gz, pack: gzip, ..Saved::default() }.bytes(), ONE)),
        ("kaniko, empty layers", Archive(Saved { config: sha, layer: gz, pack: gzip, tars: twice(), ..Saved::default() }.bytes(), ONE)),
        ("kaniko --oci-layout-path", Dir(Laid { annotations: Value::Null, docker: true, ..Laid::default() }.files(), &[])),
        ("jib buildTar", Archive(Saved { config: |_| "config.json".into(), layer: gz, pack: gzip, ..Saved::default() }.bytes(), ONE)),
        ("jib, files without directories", Archive(Saved { config: |_| "config.json".into(), layer: gz, pack: gzip, tars: layers(no_dirs), ..Saved::default() }.bytes(), ONE)),
        ("ko --tarball", Archive(Saved { config: sha, layer: gz, pack: gzip, ..Saved::default() }.bytes(), ONE)),
        ("ko --oci-layout-path", Dir(Laid { annotations: Value::Null, nested: true, ..Laid::default() }.files(), &[])),
        ("nix buildImage", Archive(Saved { tars: layers(nix), start: ("./", ""), ..Saved::default() }.bytes(), ONE)),
        ("nix buildLayeredImage", Archive(gzip(&Saved { tars: many(90), ..Saved::default() }.bytes()), ONE)),
        ("nix streamLayeredImage", Archive(Saved { tars: many(5), ..Saved::default() }.bytes(), ONE)),
        ("bazel rules_docker", Archive(Saved { tars: layers(gnu), start: ("./", "./"), ..Saved::default() }.bytes(), ONE)),
        ("bazel rules_docker, absolute names", Archive(Saved { tars: layers(leading_dot), start: ("/", "/"), ..Saved::default() }.bytes(), ONE)),
        ("bazel rules_oci, a layout", Dir(Laid { tars: layers(gnu), annotations: Value::Null, ..Laid::default() }.files(), &[])),
        ("bazel rules_oci, oci_load", Archive(Saved { config: blobs, layer: |hex| format!("blobs/sha256/{hex}.tar.gz"), pack: gzip, ..Saved::default() }.bytes(), ONE)),
        ("crane pull", Archive(Saved { config: sha, layer: gz, pack: gzip, tags: json!(["registry.example/team/app:1"]), ..Saved::default() }.bytes(), &["registry.example/team/app:1"])),
        ("crane pull, xz layers", Archive(Saved { config: sha, layer: |hex| format!("{hex}.tar.xz"), pack: |tar| packed_by("xz", tar), ..Saved::default() }.bytes(), ONE)),
        (
            "ctr images export",
            Archive(
                Laid {
                    both: true,
                    annotations: json!({"io.containerd.image.name": "docker.io/library/app:1", "org.opencontainers.image.ref.name": "1"}),
                    ..Laid::default()
                }
                .bytes(),
                &["docker.io/library/app:1"],
            ),
        ),
        ("pack (buildpacks)", Archive(Saved { tars: layers(buildpack), layer: |hex| format!("{hex}.tar"), ..Saved::default() }.bytes(), ONE)),
        ("apko", Archive(Laid { tars: vec![tar(&whole().into_iter().map(|m| m.pax("APK-TOOLS.checksum.SHA1", "00")).collect::<Vec<_>>())], ..Laid::default() }.bytes(), ONE)),
        ("docker export", RootFs(tar(&whole()))),
        ("mmdebstrap root.tar.gz", RootFs(gzip(&tar(&whole().into_iter().map(gnu).collect::<Vec<_>>())))),
        ("a distribution's root.tar.xz", RootFs(packed_by("xz", &tar(&whole().into_iter().map(leading_dot).collect::<Vec<_>>())))),
        ("a distribution's root.tar.bz2", RootFs(packed_by("bzip2", &tar(&whole())))),
        ("a tar of the seventies", RootFs(tar(&whole().into_iter().map(v7).collect::<Vec<_>>()))),
    ]
}

fn told(store: &Store, image: &str) -> String {
    let sandbox = Sandbox::builder().store(store.dir()).root(Root::image(image)).build();
    let sandbox = sandbox.unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
    let output = sandbox.command("/bin/sh").args(["-c", "cat /app/hello /app/link; ls /app"]).output();
    let output = output.unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
    assert_eq!(output.outcome, Outcome::Exited(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn archives_of_all_shapes_are_loaded_named_and_run() {
    if !["xz", "bzip2"].into_iter().all(installed) {
        return;
    }
    let scratch = Scratch::new("shapes");
    // To try other tools on them by hand.
    let keep = std::env::var_os("SANDCELL_TEST_SHAPES").map(PathBuf::from);
    let shapes = shapes();
    assert!(shapes.len() >= 40, "{}", shapes.len());
    let mut failures = Vec::new();
    for (number, (name, shape)) in shapes.into_iter().enumerate() {
        let run = std::panic::AssertUnwindSafe(|| {
            let store = Store::open(scratch.path(&format!("store-{number}"))).unwrap();
            let path: PathBuf = scratch.path(&format!("shape-{number}"));
            let (source, names) = match &shape {
                Archive(bytes, names) => {
                    fs::write(&path, bytes).unwrap();
                    (Source::Detect(path.clone()), *names)
                }
                Dir(files, names) => {
                    for (name, bytes) in files {
                        let path = path.join(name);
                        fs::create_dir_all(path.parent().unwrap()).unwrap();
                        fs::write(path, bytes).unwrap();
                    }
                    (Source::Detect(path.clone()), *names)
                }
                RootFs(bytes) => {
                    fs::write(&path, bytes).unwrap();
                    (Source::RootFs(path.clone()), &[][..])
                }
            };
            let loaded = store.load(&source, &Load::new()).unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
            if let Some(keep) = &keep {
                let to = keep.join(name.replace([' ', ',', '/'], "_"));
                Command::new("cp").arg("-a").arg(&path).arg(to).status().unwrap();
            }
            assert_eq!(loaded.len(), 1);
            assert_eq!(loaded[0].names, names);
            assert_eq!(told(&store, &loaded[0].id.to_string()), "hellohellohello\nlate\nlink\n");
            // From a stream it is the same image.
            if let Archive(bytes, _) | RootFs(bytes) = &shape {
                let again = store.load_from(&bytes[..], &source, &Load::new()).unwrap();
                assert_eq!((again[0].id, again[0].names.clone()), (loaded[0].id, loaded[0].names.clone()));
            }
        });
        if std::panic::catch_unwind(run).is_err() {
            failures.push(name);
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
