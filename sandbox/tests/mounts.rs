//! Binds, directories in memory, injected files and the budget of all that is private.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use common::{Scratch, again_in_own_mounts, run, text, told};
use sandcell::{Outcome, Sandbox, User};

/// Tries to write a file and says how that went.
const TRY: &str = "try() { if ( : > \"$1\" ) 2>/tmp/why; then echo written; else
    case $(cat /tmp/why) in *'Read-only'*) echo read-only;; *) cat /tmp/why;; esac; fi; }";

fn tried(builder: sandcell::Builder, path: &str) -> String {
    told(builder, &format!("{TRY}; try {path}"))
}

#[test]
fn a_read_only_bind_is_read_only_and_a_writable_one_is_not() {
    let scratch = Scratch::new();
    let dir = scratch.dir("shared");
    assert_eq!(tried(Sandbox::builder().ro(&dir, "/shared"), "/shared/file"), "read-only");
    assert!(!dir.join("file").exists());
    assert_eq!(tried(Sandbox::builder().rw(&dir, "/shared"), "/shared/file"), "written");
    assert!(dir.join("file").exists());
}

#[test]
fn files_written_through_a_bind_belong_to_the_caller() {
    let scratch = Scratch::new();
    let dir = scratch.dir("shared");
    run(Sandbox::builder().rw(&dir, "/shared"), "echo hello > /shared/file");
    let meta = fs::metadata(dir.join("file")).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o777), (nix::unistd::geteuid().as_raw(), 0o644));
    fs::remove_file(dir.join("file")).expect("the caller can delete it");
}

#[test]
fn root_inside_cannot_lift_a_read_only_mount() {
    let scratch = Scratch::new();
    let builder = Sandbox::builder().user(User::Root).ro(scratch.dir("shared"), "/shared");
    let script = format!("{TRY}; mount -o remount,rw,bind /shared; umount /shared; try /shared/file; try /usr/file");
    assert_eq!(told(builder, &script), "read-only\nread-only");
    assert_eq!(fs::read_dir(scratch.path().join("shared")).unwrap().count(), 0);
}

#[test]
fn what_is_mounted_beneath_a_read_only_bind_is_read_only_too() {
    let setup = "mount -t tmpfs t /mnt; mkdir -p /mnt/src/sub; mount -t tmpfs t /mnt/src/sub";
    let name = "what_is_mounted_beneath_a_read_only_bind_is_read_only_too";
    if !again_in_own_mounts(name, setup) {
        return;
    }
    let source = Path::new("/mnt/src");
    let both = format!("{TRY}; try /src/file; try /src/sub/file");
    assert_eq!(told(Sandbox::builder().ro(source, "/src"), &both), "read-only\nread-only");
    assert_eq!(fs::read_dir(source.join("sub")).unwrap().count(), 0);
    assert_eq!(told(Sandbox::builder().rw(source, "/src"), &both), "written\nwritten");
}

#[test]
fn flags_of_the_source_do_not_make_a_read_only_bind_writable() {
    let setup = "mount -t tmpfs -o nosuid,nodev,noexec,noatime t /mnt";
    if !again_in_own_mounts("flags_of_the_source_do_not_make_a_read_only_bind_writable", setup) {
        return;
    }
    let place = Path::new("/mnt");
    fs::write(place.join("program"), "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(place.join("program"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(tried(Sandbox::builder().ro(place, "/src"), "/src/file"), "read-only");
    let script = "/src/program 2>/dev/null || echo noexec";
    assert_eq!(told(Sandbox::builder().rw(place, "/src"), script), "noexec", "the flags of the source are kept");
}

#[test]
fn a_mount_made_by_the_caller_does_not_leave_the_sandbox() {
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let scratch = Scratch::new();
    told(Sandbox::builder().rw(scratch.dir("a"), "/a").tmpfs("/b", None).file("/c", "x"), "true");
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}

#[test]
fn a_single_file_can_be_bound_over_another() {
    let scratch = Scratch::new();
    let file = scratch.file("issue", "from the caller");
    assert_eq!(told(Sandbox::builder().ro(&file, "/etc/os-release"), "cat /etc/os-release"), "from the caller");
}

#[test]
fn later_mounts_lie_on_earlier_ones() {
    let scratch = Scratch::new();
    scratch.dir("outer/inner");
    scratch.file("other/file", "other");
    let builder = Sandbox::builder().ro(scratch.path().join("outer"), "/outer");
    let builder = builder.ro(scratch.path().join("other"), "/outer/inner");
    assert_eq!(told(builder, "cat /outer/inner/file"), "other");
}

#[test]
fn a_directory_in_memory_holds_what_was_asked_for_and_no_more() {
    let fill = |size: &str| format!("head -c {size} /dev/zero > /space/file && echo fits || wc -c < /space/file");
    let builder = || Sandbox::builder().tmpfs("/space", Some(1 << 20));
    assert_eq!(told(builder(), &fill("1000000")), "fits");
    let output = run(builder(), &fill("2000000"));
    assert_eq!(text(&output.stdout), (1 << 20).to_string());
    assert!(text(&output.stderr).contains("No space left"), "{}", text(&output.stderr));
    // The others are not touched by its size.
    assert_eq!(told(builder(), "head -c 2000000 /dev/zero > /tmp/file && echo fits"), "fits");
}

#[test]
fn a_disk_budget_holds_for_all_private_directories_together() {
    let script =
        "for d in /tmp /var/tmp ~ /dev/shm /run /space; do head -c 1000000 /dev/zero > $d/file || echo full; done";
    let builder = || Sandbox::builder().tmpfs("/space", None);
    assert_eq!(told(builder(), script), "");
    assert_eq!(told(builder().disk(16 << 20), script), "");
    let output = run(builder().disk(3 << 20), script);
    assert_eq!(text(&output.stdout), "full\nfull\nfull", "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("No space left"));
    assert!(output.enforced.iter().any(|line| line.item == "disk" && line.by == sandcell::Mechanism::Tmpfs));
}

#[test]
fn a_disk_budget_holds_for_an_overlay() {
    let scratch = Scratch::new();
    let mut builder = Sandbox::builder().layer(scratch.dir("layer")).disk(2 << 20);
    for path in ["/usr", "/bin", "/lib", "/lib64"].into_iter().filter(|path| fs::exists(path).unwrap()) {
        builder = builder.ro(path, path);
    }
    let output = run(builder.clone(), "head -c 1000000 /dev/zero > /file && echo fits");
    assert_eq!(text(&output.stdout), "fits");
    let output = run(builder, "head -c 3000000 /dev/zero > /file || echo full");
    assert_eq!(text(&output.stdout), "full");
}

#[test]
fn an_inode_budget_is_the_programs_own() {
    let script = "i=0; while ( : > /tmp/$i ) 2>/dev/null; do i=$((i+1)); [ $i -lt 400 ] || break; done; echo $i";
    let count = |builder| told(builder, script).parse::<u32>().unwrap();
    assert_eq!(count(Sandbox::builder()), 400);
    let made = count(Sandbox::builder().inodes(100));
    assert!((100..200).contains(&made), "{made}");
}

#[test]
fn an_injected_file_is_there_and_read_only() {
    let content = b"bytes\0and more\n".repeat(1000);
    let builder = || Sandbox::builder().file("/conf/file", content.clone());
    let output = run(builder(), "cat /conf/file");
    assert_eq!(output.outcome, Outcome::Exited(0));
    assert_eq!(output.stdout, content);
    assert_eq!(tried(builder(), "/conf/file"), "read-only");
}

#[test]
fn a_mount_of_the_other_kind_than_its_place_says_what_to_do() {
    let scratch = Scratch::new();
    let (file, dir) = (scratch.dir("shared").join("file"), scratch.dir("dir"));
    fs::write(&file, "").unwrap();
    let hint = |from: &Path, to: &str| {
        let sandbox = Sandbox::builder().ro(from, to).build().unwrap();
        let error = sandbox.command("true").status().expect_err(to);
        assert_eq!(error.subject(), to);
        error.hint().to_owned()
    };
    assert!(hint(&file, "/usr/lib").contains("A file can only be mounted over a file"));
    assert!(hint(&dir, "/etc/passwd").contains("A directory can only be mounted over a directory"));
    // The controls: each over its like.
    assert!(Sandbox::builder().ro(&file, "/etc/passwd").build().unwrap().command("true").status().unwrap().success());
    assert!(Sandbox::builder().ro(&dir, "/usr/lib/none").build().unwrap().command("true").status().unwrap().success());
}
