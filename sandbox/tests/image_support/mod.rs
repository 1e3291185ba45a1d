//! Archives made by hand, so that they can be wrong in every way, and a directory that must not change.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sandcell::image::{Digest, Store};

/// A directory of this test's own, gone with the value.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        // An ordinary user cannot write where root has built the tests.
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let base =
            if rustix::fs::access(base, rustix::fs::Access::WRITE_OK).is_ok() { base } else { Path::new("/var/tmp") };
        let path = base.join(format!("sandcell-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn store(&self) -> Store {
        Store::open(self.path("store")).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if fs::remove_dir_all(&self.0).is_err() {
            // Runs of many ids leave files of the user's sub-ids.
            let _ = sandcell::subid_tree::remove(&self.0);
        }
    }
}

/// A member of an archive; every field goes into the header as it is.
#[derive(Clone)]
pub struct Member {
    pub name: Vec<u8>,
    pub kind: u8,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: u64,
    pub link: Vec<u8>,
    pub data: Vec<u8>,
    /// Says something else than the length of the data.
    pub size: Option<u64>,
    pub pax: Vec<(String, Vec<u8>)>,
    /// Last change to the header, before its checksum.
    pub patch: Option<fn(&mut [u8; 512])>,
}

pub fn file(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Member {
    Member {
        name: name.as_ref().to_vec(),
        kind: b'0',
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: 1_000_000,
        link: Vec::new(),
        data: data.as_ref().to_vec(),
        size: None,
        pax: Vec::new(),
        patch: None,
    }
}

pub fn dir(name: impl AsRef<[u8]>) -> Member {
    Member { kind: b'5', mode: 0o755, ..file(name, "") }
}

pub fn symlink(name: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Member {
    Member { kind: b'2', mode: 0o777, link: to.as_ref().to_vec(), ..file(name, "") }
}

pub fn hard(name: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Member {
    Member { kind: b'1', link: to.as_ref().to_vec(), ..file(name, "") }
}

impl Member {
    pub fn kind(mut self, kind: u8) -> Member {
        self.kind = kind;
        self
    }

    pub fn mode(mut self, mode: u32) -> Member {
        self.mode = mode;
        self
    }

    pub fn owner(mut self, uid: u32, gid: u32) -> Member {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    pub fn size(mut self, size: u64) -> Member {
        self.size = Some(size);
        self
    }

    pub fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Member {
        self.pax.push((key.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub fn patch(mut self, patch: fn(&mut [u8; 512])) -> Member {
        self.patch = Some(patch);
        self
    }
}

pub fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..8).map(|digits| rest + digits).find(|n| n.to_string().len() + rest == *n).unwrap();
    [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}

/// Members, and the two empty blocks at the end.
pub fn tar(members: &[Member]) -> Vec<u8> {
    let mut out = open_tar(members);
    out.extend([0; 1024]);
    out
}

pub fn open_tar(members: &[Member]) -> Vec<u8> {
    let mut out = Vec::new();
    for member in members {
        if !member.pax.is_empty() {
            let records: Vec<u8> = member.pax.iter().flat_map(|(k, v)| pax_record(k, v)).collect();
            put(&mut out, &file("pax", records).kind(b'x'));
        }
        put(&mut out, member);
    }
    out
}

fn put(out: &mut Vec<u8>, member: &Member) {
    let mut header = [0u8; 512];
    let mut set = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    set(0, &member.name[..member.name.len().min(100)]);
    set(100, format!("{:07o}", member.mode).as_bytes());
    set(108, format!("{:07o}", member.uid.min(0o7777777)).as_bytes());
    set(116, format!("{:07o}", member.gid.min(0o7777777)).as_bytes());
    set(124, format!("{:011o}", member.size.unwrap_or(member.data.len() as u64)).as_bytes());
    set(136, format!("{:011o}", member.mtime).as_bytes());
    set(156, &[member.kind]);
    set(157, &member.link[..member.link.len().min(100)]);
    set(257, b"ustar\x0000");
    if let Some(patch) = member.patch {
        patch(&mut header);
    }
    checksum(&mut header);
    out.extend(header);
    out.extend(&member.data);
    out.resize(out.len().next_multiple_of(512), 0);
}

pub fn checksum(header: &mut [u8; 512]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

pub fn zstd(data: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest)
}

pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An OCI layout in a directory, of layers as (media type, blob, diff id).
pub struct Layout {
    pub dir: PathBuf,
}

impl Layout {
    pub fn new(dir: PathBuf) -> Layout {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Layout { dir }
    }

    pub fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        fs::write(self.blob_path(digest), bytes).unwrap();
        digest
    }

    pub fn blob_path(&self, digest: Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    pub fn descriptor(&self, media_type: &str, bytes: &[u8]) -> serde_json::Value {
        serde_json::json!({"mediaType": media_type, "digest": self.blob(bytes), "size": bytes.len()})
    }

    pub fn config(&self, tars: &[Vec<u8>]) -> serde_json::Value {
        let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
        serde_json::json!({
            "architecture": sandcell::image::Platform::host().architecture, "os": "linux", "created": "2026-01-02T03:04:05Z",
            "config": {"Env": ["A=b"], "Cmd": ["/bin/sh"], "Labels": {"k": "v"}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": tars.iter().enumerate().map(|(i, _)| serde_json::json!({"created_by": format!("step {i}")})).collect::<Vec<_>>(),
        })
    }

    pub fn manifest(&self, config: &serde_json::Value, layers: Vec<serde_json::Value>) -> serde_json::Value {
        let config = serde_json::to_vec(config).unwrap();
        serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers,
        })
    }

    /// The whole index from its entries.
    pub fn index(&self, entries: Vec<serde_json::Value>) {
        let index = serde_json::json!({"schemaVersion": 2, "manifests": entries});
        fs::write(self.dir.join("index.json"), index.to_string()).unwrap();
    }

    /// An entry of the index for a manifest, with a name.
    pub fn entry(&self, manifest: &serde_json::Value, name: &str) -> serde_json::Value {
        let bytes = serde_json::to_vec(manifest).unwrap();
        let mut entry = self.descriptor("application/vnd.oci.image.manifest.v1+json", &bytes);
        entry["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": name});
        entry
    }

    /// An image of these uncompressed tars, each packed by `pack`.
    pub fn image(dir: PathBuf, name: &str, tars: &[Vec<u8>], suffix: &str, pack: fn(&[u8]) -> Vec<u8>) -> Layout {
        let layout = Layout::new(dir);
        let layers = tars.iter().map(|tar| layout.descriptor(&format!("{LAYER}{suffix}"), &pack(tar))).collect();
        let manifest = layout.manifest(&layout.config(tars), layers);
        layout.index(vec![layout.entry(&manifest, name)]);
        layout
    }
}

/// Path → kind, mode, links, time, size or target, attributes: everything that an attack could change.
pub fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let content = if kind.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            String::new()
        } else if kind.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else if kind.is_file() {
            Digest::of(&fs::read(&path).unwrap_or_default()).to_string()
        } else {
            format!("{}", meta.rdev())
        };
        let links = if kind.is_dir() { 0 } else { meta.nlink() };
        let line = format!(
            "{:o} {}:{} {links} {}.{} {content} {:?}",
            meta.permissions().mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            xattrs(&path)
        );
        seen.insert(path.strip_prefix(root).unwrap().to_owned(), line);
    }
    seen
}

pub fn xattrs(path: &Path) -> Vec<String> {
    let mut list = vec![0u8; 4096];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap_or(0);
    let mut names: Vec<String> = list[..length]
        .split(|b| *b == 0)
        .filter(|n| !n.is_empty())
        .map(|n| String::from_utf8_lossy(n).into_owned())
        .collect();
    names.sort();
    names
}

pub fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0u8; 4096];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

/// What `inspect` says of an image.
pub fn inspected(image: &sandcell::image::Image) -> serde_json::Value {
    serde_json::from_str(&image.inspect()).expect("what inspect says is JSON")
}

/// Whether a program is installed; says so loudly where not.
pub fn installed(program: &str) -> bool {
    let there =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()));
    if !there {
        eprintln!("SKIPPED: {program} is not installed, so nothing was tested against it");
        assert!(
            std::env::var_os("SANDCELL_NO_SKIP").is_none(),
            "{program} is not installed, and skips are failures here"
        );
    }
    there
}

/// Members of a root file system in which shell scripts run: busybox under its names, and accounts.
pub fn busybox() -> Vec<Member> {
    let program = ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| fs::read(path).ok());
    let mut members = vec![
        dir("bin"),
        file("bin/busybox", program.expect("busybox-static is installed")).mode(0o755),
        dir("etc"),
        file("etc/passwd", "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv/web:/bin/sh\n"),
        file("etc/group", "root:x:0:\nweb:x:34:\nstaff:x:50:\n"),
        dir("root").mode(0o700),
        dir("tmp").mode(0o1777),
        dir("srv"),
        dir("srv/web").owner(33, 34),
        file("srv/web/page", "page").owner(33, 34),
        dir("run"),
        dir("run/app"),
    ];
    let names = [
        "sh", "cat", "echo", "id", "ls", "stat", "touch", "mkdir", "rm", "sleep", "pwd", "env", "cp", "mv", "chown",
        "chmod",
    ];
    members.extend(names.iter().map(|name| symlink(format!("bin/{name}"), "busybox")));
    members
}

/// Puts an image of these layers into the store, with this `config`.
pub fn store_image(store: &Store, name: &str, tars: &[Vec<u8>], config: serde_json::Value) -> Digest {
    let scratch =
        Scratch::new(&format!("stored-{}", Digest::of(store.dir().join(name).as_os_str().as_encoded_bytes()).short()));
    let layout = Layout::new(scratch.path("layout"));
    let layers = tars.iter().map(|tar| layout.descriptor(LAYER, tar)).collect();
    let mut whole = layout.config(tars);
    whole["config"] = config;
    let manifest = layout.manifest(&whole, layers);
    layout.index(vec![layout.entry(&manifest, name)]);
    store.load(&sandcell::image::Source::Oci(layout.dir.clone()), &Default::default()).unwrap()[0].id
}

/// The directories of a kept upper; the upper itself.
pub fn kept_upper(dir: &Path) -> PathBuf {
    fs::create_dir_all(dir.join("work")).unwrap();
    fs::create_dir(dir.join("upper")).unwrap();
    dir.join("upper")
}

/// The most that this process ever had in memory, in bytes.
pub fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The lower layer of an image of two.
pub fn base() -> Vec<u8> {
    tar(&[
        dir("./").mode(0o755),
        dir("./etc"),
        file("./etc/passwd", "root:x:0:0::/:/bin/sh\n"),
        file("./etc/shadow", "secret").mode(0o640).owner(0, 42),
        dir("./var"),
        dir("./var/mail").mode(0o2775).owner(0, 8),
        file("./bin/su", "su").mode(0o4755),
        hard("./bin/su2", "./bin/su"),
        symlink("./sh", "bin/su"),
        file("./dev/null", "").kind(b'3').mode(0o666),
        file("./man", "man").owner(6, 12),
    ])
}

/// The layer above it.
pub fn second() -> Vec<u8> {
    tar(&[file("etc/.wh.passwd", ""), file("etc/new", "new"), dir("var/mail"), file("var/mail/.wh..wh..opq", "")])
}
