//! `sandcell cp` of directories and archives, also where the cell, or the tree, is hostile.

mod common;
#[path = "common/program.rs"]
mod program;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};

use common::{Scratch, text};
use program::{Named, command, done, refused, run};

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
    let (cell, scratch) = (Named::started(&[], &[]), Scratch::new());
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
    let (cell, scratch) = (Named::started(&[], &[]), Scratch::new());
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
    let (cell, scratch) = (Named::started(&[], &[]), Scratch::new());
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
    let (cell, scratch) = (Named::started(&[], &[]), Scratch::new());
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
    let (cell, scratch) = (Named::started(&[], &[]), Scratch::new());
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
    let (cell, scratch) = (Named::started(&[], &[]), Scratch::new());
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

/// The words, which must end within a minute: status and standard error.
fn ends(mut command: Command) -> (Option<i32>, String) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if std::time::Instant::now() > until {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} does not end");
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code(), text(&output.stderr))
}

/// Whether it can be paused here.
fn paused(cell: &Named) -> bool {
    let output = run(&["pause", &cell.0]);
    let said = text(&output.stderr);
    assert!(output.status.success() || said.contains("cgroup"), "{said}");
    if !output.status.success() {
        println!("SKIPPED: no cgroup here that can be frozen: {said}");
    }
    output.status.success()
}

#[test]
fn a_cell_that_is_paused_is_neither_copied_from_nor_into() {
    let (cell, scratch) = (Named::started(&[], &[]), Scratch::new());
    cell.tell("mkdir /tmp/dir; echo inside > /tmp/dir/file");
    fs::write(path(&scratch, "file"), "outside").unwrap();
    scratch.dir("tree");
    if !paused(&cell) {
        return;
    }
    let ways = [
        [cell.at("/tmp/dir/file"), path(&scratch, "out")],
        [cell.at("/tmp/dir"), path(&scratch, "out")],
        [cell.at("/tmp/dir"), "-".to_owned()],
        [path(&scratch, "file"), cell.at("/tmp/in")],
        [path(&scratch, "tree"), cell.at("/tmp")],
        ["-".to_owned(), cell.at("/tmp/dir")],
    ];
    for [from, to] in &ways {
        let mut words = command(&["cp", from, to]);
        words.stdout(Stdio::piped());
        let (status, said) = ends(words);
        assert_eq!(status, Some(125), "{from} {to}: {said}");
        assert!(said.contains("is frozen") && said.contains("sandcell resume"), "{from} {to}: {said}");
    }
    assert!(!scratch.path().join("out").exists());
    // The control.
    done(&["unpause", &cell.0]);
    done(&["cp", &ways[0][0], &ways[0][1]]);
    done(&["cp", &ways[3][0], &ways[3][1]]);
    assert_eq!(cell.tell("cat /tmp/in; ls -d /tmp/tree 2>&1 | grep -c cannot"), "outside1");
}

#[test]
fn a_copy_ends_when_its_cell_is_paused_meanwhile() {
    let cell = Named::started(&[], &[]);
    cell.tell("mkdir /tmp/dir; head -c 10M /dev/urandom > /tmp/dir/file");
    // Out: who reads it waits until the cell is paused. The pipe is full by then.
    let mut out = command(&["cp", &cell.at("/tmp/dir"), "-"]);
    let mut child = out.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdout.take().unwrap();
    std::io::Read::read_exact(&mut pipe, &mut [0; 512]).unwrap();
    if !paused(&cell) {
        let _ = child.kill();
        child.wait().unwrap();
        return;
    }
    let reading = std::thread::spawn(move || std::io::copy(&mut pipe, &mut std::io::sink()).map(drop));
    let output = child.wait_with_output().unwrap();
    reading.join().unwrap().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(125) && said.contains("was paused while files were copied"), "{said}");
    assert!(said.contains("`sandcell unpause"), "{said}");
    done(&["unpause", &cell.0]);
    // In: the archive comes only when it is paused.
    let mut into = command(&["cp", "-", &cell.at("/tmp")]);
    let mut child = into.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    common::patiently("a process that unpacks", || inside(&child).is_some());
    assert!(paused(&cell));
    let writing = std::thread::spawn(move || pipe.write_all(&vec![0; 64 << 20]));
    let output = child.wait_with_output().unwrap();
    let _ = writing.join().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(125) && said.contains("was paused while files were copied"), "{said}");
    done(&["unpause", &cell.0]);
    // Nothing of ours is left in it.
    common::patiently("the end of what copied", || {
        cell.tell("ls -d /proc/[0-9]* | wc -l").trim().parse::<u32>().unwrap() <= 6
    });
    assert_eq!(cell.tell("echo on"), "on");
}

/// The process inside that copies for this one.
fn inside(child: &std::process::Child) -> Option<i32> {
    let children = |pid: &str| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let outside = children(&child.id().to_string());
    outside.split_whitespace().find_map(|pid| children(pid).trim().parse().ok())
}

/// The cell is not paused, and the process stands all the same.
#[test]
fn a_copy_whose_process_stands_still_is_given_up() {
    use nix::sys::signal::{Signal, kill};
    let cell = Named::started(&[], &[]);
    cell.tell("mkdir /tmp/dir; head -c 10M /dev/urandom > /tmp/dir/file");
    let mut out = command(&["cp", &cell.at("/tmp/dir"), "-"]);
    let mut child = out.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdout.take().unwrap();
    std::io::Read::read_exact(&mut pipe, &mut [0; 512]).unwrap();
    let process = nix::unistd::Pid::from_raw(inside(&child).expect("it copies"));
    // Not by a program of the cell.
    cell.tell("for p in /proc/[0-9]*; do [ \"$(cat $p/comm)\" = sandcell ] && ! kill -STOP ${p#/proc/} || true; done");
    kill(process, Signal::SIGSTOP).unwrap();
    let reading = std::thread::spawn(move || std::io::copy(&mut pipe, &mut std::io::sink()).map(drop));
    let output = child.wait_with_output().unwrap();
    reading.join().unwrap().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(125) && said.contains("has not gone on for"), "{said}");
    common::patiently("the end of what copied", || kill(process, None).is_err());
}

const TERABYTE: u64 = 1 << 40;

#[test]
fn holes_stay_holes_however_large_both_ways() {
    let (cell, scratch) = (Named::started(&[], &[]), Scratch::new());
    cell.tell("mkdir /tmp/dir; cd /tmp/dir; echo first > f; truncate -s 512G f; echo second >> f; truncate -s 1T f; truncate -s 1T hole; seq 100000 > plain");
    let check = |file: &str| {
        let metadata = fs::metadata(file).unwrap();
        assert_eq!(metadata.len(), TERABYTE, "{file}");
        assert!(metadata.blocks() * 512 < 1 << 20, "{file}: {} blocks", metadata.blocks());
        if file.ends_with("hole") {
            return;
        }
        let mut bytes = [0; 8];
        let read =
            |at, bytes: &mut [u8]| std::os::unix::fs::FileExt::read_exact_at(&fs::File::open(file).unwrap(), bytes, at);
        read(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"first\n\0\0");
        read(512 << 30, &mut bytes).unwrap();
        assert_eq!(&bytes, b"second\n\0");
    };
    if fs::File::create(path(&scratch, "try")).unwrap().set_len(TERABYTE).is_err() {
        return println!("SKIPPED: no file of 1 TB in this file system");
    }
    for name in ["f", "hole"] {
        let (from, to) = (cell.at(&format!("/tmp/dir/{name}")), path(&scratch, name));
        assert_eq!(ends(command(&["cp", &from, &to])), (Some(0), String::new()), "{from}");
        check(&to);
    }
    // In a directory, as an archive that tar knows, and back.
    assert_eq!(ends(command(&["cp", &cell.at("/tmp/dir"), &path(&scratch, "dir")])).0, Some(0));
    let mut archive = command(&["cp", &cell.at("/tmp/dir"), "-"]);
    archive.stdout(fs::File::create(path(&scratch, "dir.tar")).unwrap());
    assert_eq!(ends(archive).0, Some(0));
    scratch.dir("by-tar");
    let mut tar = Command::new("tar");
    tar.args(["-xf", &path(&scratch, "dir.tar"), "-C", &path(&scratch, "by-tar")]);
    assert_eq!(ends(tar), (Some(0), String::new()));
    for dir in ["dir", "by-tar/dir"] {
        check(&path(&scratch, &format!("{dir}/f")));
        check(&path(&scratch, &format!("{dir}/hole")));
        assert!(fs::read_to_string(path(&scratch, &format!("{dir}/plain"))).unwrap().ends_with("\n100000\n"));
    }
    for (from, to) in [("f", "/tmp/in"), ("dir", "/tmp/back")] {
        assert_eq!(ends(command(&["cp", &path(&scratch, from), &cell.at(to)])).0, Some(0), "{from}");
    }
    let all = cell.tell("cd /tmp; stat -c '%s %b' in back/f back/hole | while read s b; do echo $s $((b < 2000)); done; head -c 5 back/f; tail -n 1 back/plain");
    assert_eq!(all, format!("{TERABYTE} 1\n{TERABYTE} 1\n{TERABYTE} 1\nfirst100000"));
    // What cannot have holes gets zeros, and a file of /proc is copied although it says that it is empty.
    cell.tell("printf x > /tmp/small; truncate -s 1M /tmp/small");
    let output = run(&["cp", &cell.at("/tmp/small"), "/dev/stdout"]);
    assert_eq!((output.stdout.len(), output.stdout[0]), (1 << 20, b'x'));
    done(&["cp", &cell.at("/proc/version"), &path(&scratch, "version")]);
    assert!(fs::read_to_string(path(&scratch, "version")).unwrap().starts_with("Linux"));
}

#[test]
fn what_cannot_be_copied_is_told_once_and_with_what_to_do() {
    let (cell, scratch) = (Named::started(&[], &[]), Scratch::new());
    let told = |words: &[&str], input: &str, lines: [&str; 2]| {
        let script = format!("printf %s '{input}' | \"$0\" \"$@\"");
        let output =
            Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_sandcell")]).args(words).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{words:?}: {said}");
        let [error, hint] = said.trim_end().split('\n').collect::<Vec<_>>()[..] else { panic!("two lines: {said}") };
        assert!(error.contains(lines[0]) && hint.contains(lines[1]), "{words:?}: {said}");
        assert!(!error.contains("os error"), "{said}");
        error.to_owned()
    };
    let absent = path(&scratch, "absent");
    let missing = [": No such file or directory", "Name one that is there"];
    told(&["cp", &absent, &cell.at("/tmp")], "", missing);
    told(&["cp", &cell.at("/absent"), &absent], "", missing);
    let deep = format!("{absent}/deep");
    let error = told(&["cp", &cell.at("/tmp"), &deep], "", missing);
    assert_eq!(error.matches(&deep).count(), 1, "{error}");
    told(&["cp", "-", &cell.at("/tmp")], "hello", ["this is no tar archive", "Give it a tar archive"]);
    told(&["cp", &absent, "there-is-none:/tmp"], "", missing);
    scratch.file("file", "");
    told(&["cp", &path(&scratch, "file"), "there-is-none:/tmp"], "", ["there-is-none: ", "sandcell ps -a"]);
}
