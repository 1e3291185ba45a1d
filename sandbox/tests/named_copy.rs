//! `sandcell cp` of directories and archives, also where the cell, or the tree, is hostile.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use common::{Scratch, text};

/// A cell that is gone with the test.
struct Named(String);

impl Named {
    fn new() -> Named {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("copy-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        done(&["start", &name]);
        Named(name)
    }

    fn at(&self, path: &str) -> String {
        format!("{}:{path}", self.0)
    }

    /// What a shell in it says.
    fn tell(&self, script: &str) -> String {
        done(&["exec", &self.0, "--", "sh", "-c", script])
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        run(&["rm", "-f", &self.0]);
    }
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandcell"));
    command.args(words).stdin(Stdio::null());
    command
}

fn run(words: &[&str]) -> Output {
    command(words).output().expect("the program starts")
}

fn done(words: &[&str]) -> String {
    let output = run(words);
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Refused with this in the message and 125.
fn refused(words: &[&str], message: &str) {
    let output = run(words);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{words:?}: {said}");
    assert!(said.contains(message), "{words:?}: {said}");
}

fn path(scratch: &Scratch, name: &str) -> String {
    scratch.path().join(name).to_str().unwrap().to_owned()
}

/// A tree with what a tree can have.
fn tree(scratch: &Scratch) -> String {
    scratch.dir("tree/deep/er");
    scratch.dir("tree/empty");
    fs::write(path(scratch, "tree/deep/er/file"), "content").unwrap();
    fs::write(path(scratch, "tree/program"), "#!/bin/sh").unwrap();
    fs::set_permissions(path(scratch, "tree/program"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(path(scratch, "tree/empty"), fs::Permissions::from_mode(0o555)).unwrap();
    symlink("/etc/passwd", path(scratch, "tree/link")).unwrap();
    nix::unistd::mkfifo(&scratch.path().join("tree/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    path(scratch, "tree")
}

#[test]
fn a_directory_goes_where_podman_would_put_it_both_ways() {
    let (cell, scratch) = (Named::new(), Scratch::new());
    let tree = tree(&scratch);
    // A destination that is missing becomes the directory; one that is there gets it; `/.` is the content.
    done(&["cp", &tree, &cell.at("/tmp/new")]);
    done(&["cp", &tree, &cell.at("/tmp")]);
    cell.tell("mkdir /tmp/content");
    done(&["cp", &format!("{tree}/."), &cell.at("/tmp/content")]);
    for place in ["new", "tree", "content"] {
        let script = format!("cd /tmp/{place} && cat deep/er/file && ls && stat -c %a program empty && readlink link");
        assert_eq!(cell.tell(&script), "contentdeep\nempty\nlink\nprogram\n755\n555\n/etc/passwd", "{place}");
    }
    assert_eq!(cell.tell("[ -O /tmp/new/program ] && echo mine"), "mine");
    done(&["cp", &cell.at("/tmp/new"), &path(&scratch, "back")]);
    done(&["cp", &cell.at("/tmp/new"), scratch.path().to_str().unwrap()]);
    scratch.dir("there");
    done(&["cp", &cell.at("/tmp/new/."), &path(&scratch, "there")]);
    for place in ["back", "new", "there"] {
        assert_eq!(fs::read(path(&scratch, &format!("{place}/deep/er/file"))).unwrap(), b"content");
        let program = fs::metadata(path(&scratch, &format!("{place}/program"))).unwrap();
        assert_eq!((program.mode() & 0o7777, program.uid()), (0o755, nix::unistd::geteuid().as_raw()));
        assert_eq!(fs::read_link(path(&scratch, &format!("{place}/link"))).unwrap().to_str(), Some("/etc/passwd"));
    }
    // Again: what is there is replaced.
    done(&["cp", &cell.at("/tmp/new/."), &path(&scratch, "there")]);
}

#[test]
fn what_is_neither_file_nor_directory_is_left_out_and_told() {
    let (cell, scratch) = (Named::new(), Scratch::new());
    let said = text(&run(&["cp", &tree(&scratch), &cell.at("/tmp")]).stderr);
    assert!(said.contains("left out: fifo: a FIFO"), "{said}");
    cell.tell("mkfifo /tmp/tree/other");
    let output = run(&["cp", &cell.at("/tmp/tree"), &path(&scratch, "out")]);
    assert!(output.status.success() && text(&output.stderr).contains("left out: other: a FIFO"));
    assert!(!scratch.path().join("out/other").exists());
    for device in [cell.at("/dev/zero"), "/dev/zero".to_owned()] {
        let to = if device.starts_with('/') { cell.at("/tmp/z") } else { path(&scratch, "z") };
        let said = text(&run(&["cp", &device, &to]).stderr);
        assert!(said.contains("no ordinary file") && said.contains("head -c SIZE"), "{said}");
    }
}

#[test]
fn archives_go_through_standard_streams() {
    let (cell, scratch) = (Named::new(), Scratch::new());
    done(&["cp", &tree(&scratch), &cell.at("/tmp/in")]);
    let archive = run(&["cp", &cell.at("/tmp/in"), "-"]).stdout;
    let mut tar = Command::new("tar").args(["tf", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    tar.stdin.take().unwrap().write_all(&archive).unwrap();
    let listed = text(&tar.wait_with_output().unwrap().stdout);
    assert!(listed.starts_with("in/\nin/deep/") && listed.contains("in/deep/er/file"), "{listed}");
    cell.tell("mkdir /tmp/again");
    let into = |bytes: &[u8], place: &str| {
        let mut cp =
            command(&["cp", "-", &cell.at(place)]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It may have ended.
        let _ = cp.stdin.take().unwrap().write_all(bytes);
        cp.wait_with_output().unwrap()
    };
    assert!(into(&archive, "/tmp/again").status.success());
    assert_eq!(cell.tell("cat /tmp/again/in/deep/er/file"), "content");
    assert_eq!(into(b"no archive", "/tmp/again").status.code(), Some(125));
    assert_eq!(into(&archive[..archive.len() / 2], "/tmp/again").status.code(), Some(125));
    assert_eq!(into(&archive, "/tmp/absent").status.code(), Some(125), "it must be there");
}

#[test]
fn nothing_outside_is_reached_through_links_whoever_has_put_them_there() {
    let (cell, scratch) = (Named::new(), Scratch::new());
    let victim = scratch.dir("victim");
    fs::write(victim.join("file"), "kept").unwrap();
    cell.tell("mkdir -p /tmp/t/sub; echo evil >/tmp/t/sub/file; echo evil >/tmp/t/file");
    // Links in the destination: as the directory itself, within it, and as a file.
    scratch.dir("dest");
    symlink(&victim, path(&scratch, "dest/t")).unwrap();
    refused(&["cp", &cell.at("/tmp/t"), &path(&scratch, "dest")], "dest/t: ");
    scratch.dir("dest2/t");
    symlink(&victim, path(&scratch, "dest2/t/sub")).unwrap();
    refused(&["cp", &cell.at("/tmp/t"), &path(&scratch, "dest2")], "something else is in its place");
    fs::remove_file(path(&scratch, "dest2/t/sub")).unwrap();
    fs::remove_file(path(&scratch, "dest2/t/file")).unwrap();
    symlink(victim.join("file"), path(&scratch, "dest2/t/file")).unwrap();
    done(&["cp", &cell.at("/tmp/t"), &path(&scratch, "dest2")]);
    assert_eq!(fs::read(path(&scratch, "dest2/t/file")).unwrap(), b"evil\n", "the link made room");
    assert_eq!(fs::read(victim.join("file")).unwrap(), b"kept");
    // Links in the source lead nowhere but in the cell, and are copied as links.
    cell.tell(&format!("ln -s {} /tmp/t/out", victim.display()));
    done(&["cp", &cell.at("/tmp/t"), &path(&scratch, "links")]);
    assert!(fs::symlink_metadata(path(&scratch, "links/out")).unwrap().is_symlink());
    refused(&["cp", &cell.at("/tmp/t/out/."), &path(&scratch, "led")], "No such file");
}

#[test]
fn a_tree_that_changes_all_the_time_gives_an_answer_and_nothing_of_the_host() {
    let (cell, scratch) = (Named::new(), Scratch::new());
    let secret = scratch.file("secret", "the secret");
    let script = format!(
        "mkdir -p /tmp/t/a/b; cd /tmp/t; for i in $(seq 50); do echo $i >a/b/$i; done; \
         while :; do mv a c; ln -s {} a; rm a; mv c a; mv a/b d; mv d a/b; rm -f a/b/1; echo x >a/b/1; done",
        secret.parent().unwrap().display()
    );
    let mut changer = command(&["exec", &cell.0, "--", "sh", "-c", &script]).spawn().unwrap();
    while run(&["exec", &cell.0, "--", "test", "-e", "/tmp/t/a/b/50"]).status.code() != Some(0) {}
    for turn in 0..20 {
        let dest = path(&scratch, &format!("out{turn}"));
        let output = run(&["cp", &cell.at("/tmp/t"), &dest]);
        assert!([Some(0), Some(125)].contains(&output.status.code()), "{}", text(&output.stderr));
        let found = Command::new("grep").args(["-r", "the secret", &dest]).output().unwrap();
        assert_eq!(text(&found.stdout), "", "turn {turn}");
    }
    changer.kill().unwrap();
    changer.wait().unwrap();
}

#[test]
fn deep_trees_are_copied_as_far_as_a_path_reaches_and_holes_stay_holes() {
    let (cell, scratch) = (Named::new(), Scratch::new());
    // Two halves, of which each has a path that the kernel takes.
    let script = "half=$(printf 'abcd/%.0s' $(seq 600)); mkdir -p /tmp/deep/$half /tmp/$half; \
                  cd /tmp/deep/$half && mv /tmp/abcd . && truncate -s 200M /tmp/deep/hole";
    cell.tell(script);
    let output = run(&["cp", &cell.at("/tmp/deep/abcd"), &path(&scratch, "deep")]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("its path is too long"), "{}", text(&output.stderr));
    cell.tell("rm -r /tmp/deep/abcd");
    done(&["cp", &cell.at("/tmp/deep"), &path(&scratch, "holes")]);
    let hole = fs::metadata(path(&scratch, "holes/hole")).unwrap();
    assert!(hole.len() == 200 << 20 && hole.blocks() < 1000, "{} blocks", hole.blocks());
    done(&["cp", &path(&scratch, "deep"), &cell.at("/tmp/again")]);
    assert!(run(&["rm", "-f", &cell.0]).status.success());
    Command::new("rm").arg("-rf").arg(path(&scratch, "deep")).status().unwrap();
}
