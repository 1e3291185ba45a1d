//! Trees of leased ids: looked at, copied out, given back and removed by the caller, without root.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::unistd::{User, getegid, geteuid};
use sandcell::subid_tree::{self, EntryKind};
use sandcell::{Sandbox, Upper};

/// Whether there are ids to lease here; if not, says so.
fn has_ids() -> bool {
    let uid = geteuid();
    let name = User::from_uid(uid).ok().flatten().map(|user| user.name).unwrap_or_default();
    let named = |file| fs::read_to_string(file).is_ok_and(|t| t.lines().any(|l| l.starts_with(&format!("{name}:"))));
    let found =
        uid.is_root() || named("/etc/subuid") && named("/etc/subgid") && Path::new("/usr/bin/newuidmap").exists();
    if !found {
        eprintln!("SKIPPED: needs root, or an ordinary user with sub-ids and newuidmap");
    }
    found
}

/// A directory of the caller's that goes away with the value, whoever owns what is in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("sandcell-owned-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("a directory");
        Scratch(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = subid_tree::remove(&self.0);
    }
}

/// Has a sandbox with 1,000 ids make files of several of them in a kept upper: in `DIR/upper/data`.
fn write_as_many(dir: &Path, layer: &Path, script: &str) -> Result<(), sandcell::Error> {
    fs::create_dir_all(layer.join("bin")).expect("bin");
    fs::create_dir_all(layer.join("data")).expect("data");
    fs::set_permissions(layer, PermissionsExt::from_mode(0o755)).expect("chmod");
    if !layer.join("bin/sh").exists() {
        fs::copy("/bin/busybox", layer.join("bin/busybox")).expect("busybox is installed");
        for name in ["sh", "chown", "mkdir", "chmod", "cat", "ls", "id", "ln", "mkfifo", "dd", "stat"] {
            symlink("busybox", layer.join("bin").join(name)).expect("a link");
        }
    }
    let sandbox = Sandbox::builder()
        .layer(layer)
        .upper(Upper::Dir(dir.to_owned()))
        .user(sandcell::User::Root)
        .id_count(1000)
        .cap_add(sandcell::Capability::CAP_CHOWN)
        .cap_add(sandcell::Capability::CAP_DAC_OVERRIDE)
        .build()?;
    let output = sandbox.command("/bin/sh").args(["-c", script]).output()?;
    assert!(output.outcome.success(), "{output:?}");
    Ok(())
}

const MAKE: &str = "cd /data && echo secret > of33 && chmod 600 of33 && chown 33:44 of33 \
    && mkdir closed && echo deep > closed/file && chmod 600 closed/file && chown 7:7 closed/file && chmod 0 closed \
    && chown 33:33 closed && ln -s /etc/passwd link && mkfifo pipe && chown 5:5 pipe \
    && dd if=/dev/zero of=sparse bs=1 count=1 seek=1000000 2>/dev/null && chmod 751 .";

#[test]
fn a_kept_upper_of_many_ids_is_listed_with_the_owners_inside() {
    if !has_ids() {
        return;
    }
    let scratch = Scratch::new("list");
    let upper = scratch.at("kept");
    write_as_many(&upper, &scratch.at("layer"), MAKE).expect("a run");
    let entries = subid_tree::list(upper.join("upper")).expect("listed");
    let find = |path: &str| {
        entries.iter().find(|e| e.path == Path::new(path)).unwrap_or_else(|| panic!("{path}: {entries:?}"))
    };
    let of33 = find("data/of33");
    assert_eq!((of33.uid, of33.gid, of33.mode, of33.kind, of33.size), (Some(33), Some(44), 0o600, EntryKind::File, 7));
    let (closed, inner) = (find("data/closed"), find("data/closed/file"));
    assert_eq!((closed.uid, closed.mode, closed.kind), (Some(33), 0, EntryKind::Directory));
    assert_eq!((inner.uid, inner.gid), (Some(7), Some(7)), "behind a directory that nobody may enter");
    assert_eq!(find("data/link").kind, EntryKind::Symlink);
    assert_eq!(find("data/pipe").kind, EntryKind::Other);
    assert_eq!(find("data").uid, Some(0));
    // The whole, with the kernel's work directory.
    let all = subid_tree::list(&upper).expect("listed");
    assert!(all.iter().any(|e| e.path == Path::new("work/work")), "{all:?}");
    if !geteuid().is_root() {
        fs::read_to_string(upper.join("upper/data/of33")).expect_err("the twin: the caller itself may not read it");
        fs::read_dir(upper.join("upper/data/closed")).expect_err("nor look into it");
    }
}

#[test]
fn what_is_copied_out_is_the_callers() {
    if !has_ids() {
        return;
    }
    let scratch = Scratch::new("copy");
    let (upper, copy) = (scratch.at("kept"), scratch.at("copy"));
    write_as_many(&upper, &scratch.at("layer"), MAKE).expect("a run");
    let left_out = subid_tree::copy_out(upper.join("upper/data"), &copy).expect("copied");
    assert_eq!(left_out, [Path::new("pipe")]);
    assert_eq!(fs::read(copy.join("of33")).expect("readable"), b"secret\n");
    assert_eq!(fs::read_link(copy.join("link")).expect("a link"), Path::new("/etc/passwd"));
    let mode = |name: &str| fs::symlink_metadata(copy.join(name)).expect(name).mode() & 0o7777;
    assert_eq!((mode("."), mode("of33"), mode("closed")), (0o751, 0o600, 0));
    let sparse = fs::metadata(copy.join("sparse")).expect("a file");
    assert_eq!(sparse.len(), 1_000_001);
    assert!(sparse.blocks() < 100, "holes stay holes: {} blocks", sparse.blocks());
    for entry in subid_tree::list(&copy).expect("listed") {
        assert_eq!((entry.host_uid, entry.host_gid), (geteuid().as_raw(), getegid().as_raw()), "{entry:?}");
    }
    let again = subid_tree::copy_out(upper.join("upper/data"), &copy).expect_err("must be refused");
    assert_eq!(again.errno(), Some(libc::EEXIST), "{again}");
}

#[test]
fn a_reclaimed_tree_is_the_callers_and_can_be_used_again() {
    if !has_ids() {
        return;
    }
    let scratch = Scratch::new("reclaim");
    let (upper, layer) = (scratch.at("kept"), scratch.at("layer"));
    write_as_many(&upper, &layer, MAKE).expect("a run");
    let foreign = |path: &Path| {
        let all = subid_tree::list(path).expect("listed");
        all.iter().filter(|e| (e.host_uid, e.host_gid) != (geteuid().as_raw(), getegid().as_raw())).count()
    };
    assert!(foreign(&upper) > 3, "before, much belongs to others");
    subid_tree::reclaim(&upper).expect("reclaimed");
    assert_eq!(foreign(&upper), 0);
    assert_eq!(fs::read(upper.join("upper/data/of33")).expect("readable"), b"secret\n");
    write_as_many(&upper, &layer, "cat /data/of33 && echo more >> /data/of33").expect("a run");
    assert_eq!(fs::read(upper.join("upper/data/of33")).expect("readable"), b"secret\nmore\n");
}

#[test]
fn the_next_sandbox_on_an_upper_finds_its_owners_as_they_were() {
    if !has_ids() {
        return;
    }
    let scratch = Scratch::new("again");
    let (upper, layer) = (scratch.at("kept"), scratch.at("layer"));
    write_as_many(&upper, &layer, MAKE).expect("a run");
    let check = "set -- $(stat -c %u:%g /data/of33 /data/closed /data/closed/file) && [ \"$*\" = '33:44 33:33 7:7' ]";
    for _ in 0..3 {
        write_as_many(&upper, &layer, check).expect("a run");
    }
}

#[test]
fn roots_kept_upper_holds_the_numbers_that_the_program_sees_and_no_id_of_the_host() {
    if !geteuid().is_root() {
        return eprintln!("SKIPPED: needs root");
    }
    let scratch = Scratch::new("plain");
    let (upper, layer) = (scratch.at("kept"), scratch.at("layer"));
    write_as_many(&upper, &layer, MAKE).expect("a run");
    let owner =
        |name: &str| fs::symlink_metadata(upper.join("upper/data").join(name)).map(|m| (m.uid(), m.gid())).expect(name);
    assert_eq!((owner("of33"), owner("closed/file"), owner("link")), ((33, 44), (7, 7), (0, 0)));
    // A layer's files are those of its users too.
    std::os::unix::fs::chown(layer.join("data"), Some(12), Some(13)).expect("chown");
    let fresh = scratch.at("fresh");
    write_as_many(&fresh, &layer, "[ $(stat -c %u:%g /data) = 12:13 ] && echo > /data/new").expect("a run");
}

#[test]
fn an_upper_whose_ids_are_in_use_is_refused_by_name() {
    if !has_ids() || geteuid().is_root() {
        return; // root's go through an idmapped mount: no id of the host is in the files
    }
    let scratch = Scratch::new("busy");
    let (upper, layer) = (scratch.at("kept"), scratch.at("layer"));
    write_as_many(&upper, &layer, "true").expect("a run");
    let on = |upper: &Path| {
        let builder = Sandbox::builder().layer(&layer).upper(Upper::Dir(upper.to_owned())).user(sandcell::User::Root);
        builder.id_count(1000).build().expect("a sandbox")
    };
    let cell = on(&upper).start().expect("a cell");
    let error = on(&upper).start().expect_err("one at a time");
    assert_eq!(error.errno(), Some(libc::EBUSY), "{error}");
    // Another upper, whose files belong to the same ids.
    let other = scratch.at("other");
    fs::create_dir(&other).expect("a directory");
    fs::copy(upper.join("sandcell-ids"), other.join("sandcell-ids")).expect("the note");
    let error = on(&other).start().expect_err("must be refused");
    assert!(error.to_string().contains("in use by a sandbox") && error.hint().contains("reclaim"), "{error}");
    drop(cell);
    let fewer = Sandbox::builder().layer(&layer).upper(Upper::Dir(upper.clone())).build().expect("a sandbox");
    let error = fewer.start().expect_err("must be refused");
    assert!(error.to_string().contains("1000 ids, and 1 were asked for"), "{error}");
}

#[test]
fn a_tree_goes_whatever_its_owners_modes_and_depth() {
    if !has_ids() {
        return;
    }
    let scratch = Scratch::new("remove");
    let upper = scratch.at("kept");
    let deep = "i=0; while [ $i -lt 1200 ]; do mkdir d && cd d || exit 1; i=$((i+1)); done; echo > file; chmod 0 .";
    write_as_many(&upper, &scratch.at("layer"), &format!("{MAKE} && {deep}")).expect("a run");
    if !geteuid().is_root() {
        fs::remove_dir_all(&upper).expect_err("the twin: the caller itself cannot");
    }
    let deepest = subid_tree::list(&upper).expect("listed").iter().map(|entry| entry.path.components().count()).max();
    assert_eq!(deepest, Some(2 + 1200 + 1));
    subid_tree::remove(&upper).expect("removed");
    assert!(!upper.exists());
    let error = subid_tree::remove(&upper).expect_err("gone");
    assert_eq!(error.errno(), Some(libc::ENOENT), "{error}");
}

#[test]
fn no_link_is_followed_out_of_a_tree() {
    let scratch = Scratch::new("links");
    let (tree, outside) = (scratch.at("tree"), scratch.at("outside"));
    fs::create_dir_all(tree.join("sub")).expect("a tree");
    fs::create_dir(&outside).expect("a directory");
    fs::write(outside.join("file"), "kept").expect("a file");
    symlink(&outside, tree.join("sub/link")).expect("a link");
    symlink(&tree, scratch.at("to-tree")).expect("a link");
    subid_tree::reclaim(&tree).expect("reclaimed");
    assert_eq!(subid_tree::list(&tree).expect("listed").len(), 2);
    for at in ["to-tree", "to-tree/", "tree/sub/link"] {
        let error = subid_tree::remove(scratch.at(at)).expect_err("a link is no tree");
        assert!(matches!(error.errno(), Some(libc::ENOTDIR | libc::ELOOP)), "{at}: {error}");
    }
    subid_tree::remove(&tree).expect("removed");
    assert!(!tree.exists() && outside.join("file").exists());
}

#[test]
fn what_belongs_to_somebody_else_is_named() {
    if geteuid().is_root() {
        return; // root may do all of it
    }
    let error = subid_tree::list("/root").expect_err("not ours");
    assert!(
        error.to_string().starts_with("/root: ") && error.hint().contains("/etc/subuid"),
        "{error} {}",
        error.hint()
    );
}

#[test]
fn a_name_that_is_not_text_is_listed_as_it_is() {
    let scratch = Scratch::new("names");
    let name = std::ffi::OsStr::from_bytes(b"a\xff\n");
    fs::write(scratch.0.join(name), "").expect("a file");
    assert_eq!(subid_tree::list(&scratch.0).expect("listed")[0].path.as_os_str(), name);
}

/// What `rm -rf` says, as the caller.
fn rm(dir: &Path) {
    let told = std::process::Command::new("rm").arg("-rf").arg(dir).output().expect("rm");
    assert!(told.status.success() && !dir.exists(), "{}", String::from_utf8_lossy(&told.stderr));
}

#[test]
fn a_kept_upper_can_be_removed_with_rm() {
    let scratch = Scratch::new("rm");
    let (upper, layer) = (scratch.at("kept"), scratch.at("layer"));
    fs::create_dir(&layer).expect("a layer");
    let run = |program: &str| {
        let builder = Sandbox::builder().layer(&layer).upper(Upper::Dir(upper.clone()));
        let builder = ["/bin", "/lib", "/lib64", "/usr"].into_iter().fold(builder, |b, dir| b.ro(dir, dir));
        builder.build().expect("a sandbox").command("/bin/sh").args(["-c", program]).status().expect("a run")
    };
    assert!(run("mkdir -p /a/b && echo x > /a/b/c").success());
    rm(&upper);
    // Also where the program was killed, and where a cell ended.
    assert!(!run("mkdir -p /a/b && kill -KILL $$").success());
    rm(&upper);
    let builder = Sandbox::builder().layer(&layer).upper(Upper::Dir(upper.clone()));
    drop(builder.build().expect("a sandbox").start().expect("a cell"));
    rm(&upper);
}

#[test]
fn a_kept_upper_of_many_ids_can_be_removed_with_rm_once_it_is_reclaimed() {
    if !has_ids() {
        return;
    }
    let scratch = Scratch::new("rm-many");
    let upper = scratch.at("kept");
    write_as_many(
        &upper,
        &scratch.at("layer"),
        "mkdir /data/of33 && echo x > /data/of33/file && chown -R 33:33 /data/of33",
    )
    .expect("a run");
    subid_tree::reclaim(&upper).expect("reclaimed");
    rm(&upper);
}
