//! What a program can write is opened by `src/sys/beneath.rs` and nothing else: this reads the source of the library and
//! names every call that opens, reads or changes a file by its path, in a place that is not known to need it.

use std::fs;
use std::path::{Path, PathBuf};

/// Calls that take a path, or follow what a name means now.
const CALLS: [&str; 30] = [
    "fs::read(",
    "fs::read_to_string(",
    "fs::read_dir(",
    "fs::metadata(",
    "fs::symlink_metadata(",
    "fs::canonicalize(",
    "fs::copy(",
    "fs::write(",
    "fs::set_permissions(",
    "fs::read_link(",
    "fs::hard_link(",
    "fs::remove_dir_all(",
    "File::open(",
    "File::create(",
    "File::options(",
    "OpenOptions::new(",
    "chmodat(",
    "chownat(",
    "utimensat(",
    "statat(",
    "getxattr(",
    "setxattr(",
    "listxattr(",
    "fcntl::open(",
    "fs::open(",
    "openat(",
    "openat2(",
    ".symlink_metadata()",
    ".exists()",
    ".read_dir()",
];

/// Files that only touch places which no program in a sandbox can write, each with the reason.
const FILES: [(&str, &str); 54] = [
    ("sys/beneath.rs", "the safe calls themselves"),
    ("sys/calls.rs", "extended attributes, called with a descriptor's own path"),
    ("subid_tree/sys.rs", "the same calls for whoever has the caller's sub-ids"),
    ("sys/namespaces.rs", "settings of the kernel in /proc/sys"),
    ("sys/lock.rs", "locks of files that are open"),
    ("doctor.rs", "doctor looks at the host"),
    ("plan/isolation.rs", "looks at the host's /proc and /sys before a program runs"),
    ("landlock.rs", "its tests"),
    ("resolve/host_view.rs", "looks at the host before a program runs"),
    ("resolve/passed.rs", "looks at the devices and sockets that the caller names, and opens none of them"),
    ("plan/landlock.rs", "looks which devices the host has"),
    ("plan/root.rs", "looks at what the caller names, and opens none of it"),
    ("plan/view.rs", "lists the root that the caller names and looks at names, and opens no file"),
    ("launch/mod.rs", "the library's own program, and /proc"),
    ("launch/attach.rs", "/proc/self/fd"),
    ("ids/caller.rs", "/etc/passwd and /proc of the caller"),
    ("ids/idmapped.rs", "file systems of the host"),
    ("ids/lease.rs", "the caller's own directory of leases, mode 0700"),
    ("ids/newidmap.rs", "programs of the host"),
    ("ids/ranges.rs", "/etc/subuid and /etc/subgid"),
    ("ids/source.rs", "the caller's own directory of leases, mode 0700"),
    ("ids/namespace.rs", "the caller's own directory of leases, mode 0700"),
    ("cgroup/delegation.rs", "the host's cgroups"),
    ("cgroup/group.rs", "the host's cgroups"),
    ("cgroup/hand_over.rs", "the host's cgroups"),
    ("cgroup/hierarchy.rs", "the host's cgroups"),
    ("cgroup/mod.rs", "the host's cgroups"),
    ("cgroup/parent.rs", "the host's cgroups"),
    ("cgroup/placement.rs", "the host's cgroups"),
    ("cgroup/settings.rs", "the host's cgroups"),
    ("cgroup/sys.rs", "the host's cgroups"),
    ("cgroup/system.rs", "the host's cgroups, and a new one before anything is in it"),
    ("cgroup/systemd.rs", "the host's sockets and cgroups"),
    ("cgroup/usage.rs", "the host's cgroups"),
    ("named/info.rs", "/proc of the host"),
    ("named/log.rs", "the caller's own directory of logs, mode 0700, which no program sees"),
    ("named/place.rs", "the caller's own directories of cells and logs, mode 0700, which no program sees"),
    ("images/store.rs", "the store: the caller's alone, mode 0700, and no program sees it"),
    ("images/lock.rs", "locks in the store"),
    ("images/collect.rs", "the store"),
    ("images/implied.rs", "trees of layers, which the store made and no program can write"),
    ("images/layer.rs", "the store"),
    ("images/load.rs", "the store"),
    ("images/merged.rs", "trees of layers, which the store made and no program can write"),
    ("images/owners.rs", "trees of layers, which the store made and no program can write"),
    ("images/export.rs", "the store, and new files where the caller wants them"),
    ("images/unpack/mod.rs", "a new tree in the store; links in it have a resolver of their own"),
    ("images/unpack/whiteouts.rs", "the same tree"),
    ("images/pull/auth.rs", "the caller's own settings"),
    ("images/pull/mod.rs", "the store"),
    ("images/pull/registry.rs", "certificates of the host"),
    ("images/source/files.rs", "an archive or layout that the caller names; its own checks"),
    ("images/source/rootfs.rs", "an archive or directory that the caller names"),
    ("images/stream.rs", "the store"),
];

/// Functions in files that do touch what programs wrote, each with the reason why this call is none of those.
const FUNCTIONS: [(&str, &str, &str); 31] = [
    ("launch/child.rs", "write", "its own maps in a /proc of the host, before there is a program"),
    ("api/pool.rs", "pool", "/proc of the host"),
    ("api/pool.rs", "places", "looks at what the caller names, and opens none of it"),
    ("api/system.rs", "real_name", "what the kernel says of a descriptor"),
    ("subid_tree/give_back.rs", "open", "what the caller names, without opening its content, before a program runs"),
    ("api/streams.rs", "null_device", "the host's /dev/null"),
    ("ids/record.rs", "write", "a new file in the directory that the caller gave as the upper"),
    ("build/context.rs", "open", "the directory that the caller names"),
    ("build/context.rs", "real", "computes a name, which is opened beneath the context without links"),
    ("build/copy.rs", "write_layer", "a new file in the store"),
    ("build/files.rs", "file", "trees of layers, which the store made and no program can write"),
    ("build/files.rs", "link", "trees of layers, which the store made and no program can write"),
    ("build/files.rs", "open", "trees of layers, which the store made and no program can write"),
    ("build/files.rs", "copy_out", "a new copy in the store, which no program has yet"),
    ("build/mount.rs", "copy_for_mount", "the same copy"),
    ("build/run.rs", "cached", "the store's cache of steps"),
    ("build/run.rs", "remember", "the store's cache of steps"),
    ("build/commit.rs", "commit_layer", "a new file in the store"),
    ("resolve/image.rs", "settings", "the host's /etc/resolv.conf"),
    ("images/volume.rs", "volumes", "the store's directory of a volume, beside its data"),
    ("images/volume.rs", "remove_volume", "the store's directory of a volume, beside its data"),
    ("policy/options/forms.rs", "contents", "/dev/fd, where no program can put anything"),
    ("subid_tree/copy.rs", "tree", "a new directory where the caller wants the copy"),
    ("subid_tree/copy.rs", "one", "a new file in that copy"),
    ("sys/procfs.rs", "child_named", "/proc of the host"),
    ("sys/procfs.rs", "field", "/proc of the host"),
    ("sys/procfs.rs", "motion", "/proc of the host"),
    ("overlay/upper.rs", "check_owners", "layers that the caller names; looks at owners and modes, and opens no file"),
    ("overlay/upper.rs", "private", "/var/tmp/sandcell-UID: the caller's alone, mode 0700"),
    ("overlay/upper.rs", "sweep", "/var/tmp/sandcell-UID: the caller's alone, mode 0700"),
    ("overlay/upper.rs", "lock", "the directory that the caller gave as the upper, or one in /var/tmp/sandcell-UID"),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // The program is the caller; init runs inside; tests make what they want.
        if path.is_dir() {
            if !["bin", "init", "fuzz", "tests"].contains(&&name[..]) {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") && !name.ends_with("_tests.rs") {
            found.push(path);
        }
    }
}

/// Calls in a source that are not allowed there: function, line number, line.
fn offences(file: &str, text: &str) -> Vec<String> {
    if FILES.iter().any(|(allowed, _)| *allowed == file) {
        return Vec::new();
    }
    let mut function = String::new();
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.starts_with("#[cfg(test)]") {
            break;
        }
        let code = line.split("//").next().unwrap_or_default();
        if let Some((_, rest)) = code.split_once("fn ") {
            function = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        }
        let allowed = FUNCTIONS.iter().any(|(of, name, _)| *of == file && *name == function);
        let import = code.trim_start().starts_with("use ");
        if !allowed && !import && CALLS.iter().any(|call| holds(code, call)) {
            found.push(format!("src/{file}:{number} in {function}: {}", line.trim()));
        }
    }
    found
}

/// Whether the code has the call itself: not one of a longer name (`fgetxattr` takes a descriptor), and not the safe one.
fn holds(code: &str, call: &str) -> bool {
    code.match_indices(call).any(|(at, _)| {
        let before = &code[..at];
        let longer = call.starts_with(|c: char| c.is_alphanumeric())
            && before.ends_with(|c: char| c.is_alphanumeric() && c != 'l' || c == '_');
        !longer && !before.ends_with("beneath::") && !before.ends_with("fn ")
    })
}

#[test]
fn every_file_that_a_program_could_write_is_opened_by_the_safe_calls() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&top, &mut files);
    assert!(files.len() > 60, "{}", files.len());
    let mut found = Vec::new();
    for path in &files {
        let name = path.strip_prefix(&top).unwrap().to_string_lossy().into_owned();
        found.extend(offences(&name, &fs::read_to_string(path).unwrap()));
    }
    assert!(
        found.is_empty(),
        "these calls take a path in a place where a program could put a link, a FIFO or a device:\n{}\n\
         Use crate::sys::beneath (open, regular, read, chmod, Trail), crate::subid_tree::Reach or Hands. If no program can write \
         there, name the function and the reason in {}.",
        found.join("\n"),
        file!()
    );
}

#[test]
fn the_check_finds_what_it_is_for() {
    let bad = "fn a() {\n    let x = fs::read(&path)?;\n    rustix::fs::chmodat(dir, name, mode, flags)?;\n\
        path.symlink_metadata();\n    // fs::read(\n    rustix::fs::lgetxattr(path, name)?;\n}\n#[cfg(test)]\nfs::read(p)";
    assert_eq!(offences("overlay/changes.rs", bad).len(), 4, "{:?}", offences("overlay/changes.rs", bad));
    let fine = "use std::fs::read(;\nfn b() {\n    beneath::open(dir, path)?;\n    my_fs::reader(x);\n}\n";
    assert_eq!(offences("overlay/changes.rs", fine), [""; 0]);
    assert_eq!(offences("a/new/file.rs", "fn a() { File::open(p) }").len(), 1);
}

#[test]
fn every_exception_is_still_needed_and_has_a_reason() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (file, reason) in FILES {
        assert!(!reason.is_empty() && top.join(file).exists(), "{file}");
    }
    for (file, function, reason) in FUNCTIONS {
        let text = fs::read_to_string(top.join(file)).unwrap();
        assert!(!reason.is_empty() && text.contains(&format!("fn {function}(")), "{file} {function}");
    }
}
