//! The root file system that the program sees, and what its writes to an overlay come to.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::{Scratch, run, shell, text, told};
use sandcell::{Builder, ChangeKind, Outcome, Root, Sandbox, Upper};

/// An overlay that has the host's programs mounted into it.
fn overlay(layers: &[&Path]) -> Builder {
    with_programs(Sandbox::builder().root(Root::Layers(layers.iter().map(|path| path.to_path_buf()).collect())))
}

fn with_programs(mut builder: Builder) -> Builder {
    for path in ["/usr", "/bin", "/lib", "/lib64"] {
        if Path::new(path).exists() {
            builder = builder.ro(path, path);
        }
    }
    builder
}

/// Everything in a tree with type, mode and content.
fn fingerprint(dir: &Path) -> String {
    let script = "find . -printf '%p %y %m %l %T@\\n' | sort; find . -type f | sort | xargs -r sha256sum";
    let output = std::process::Command::new("sh").args(["-c", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success());
    text(&output.stdout)
}

fn changes(report: &sandcell::Report) -> Vec<(ChangeKind, String)> {
    let list = report.changes.as_ref().expect("changes were asked for");
    list.iter().map(|change| (change.kind, change.path.display().to_string())).collect()
}

#[test]
fn the_host_view_shows_the_system_and_not_the_homes() {
    let said = told(
        Sandbox::builder(),
        "test -x /usr/bin/env && echo usr; ls -A /root /home /srv /mnt /var 2>/dev/null; true",
    );
    assert!(said.starts_with("usr"), "{said}");
    assert!(!said.contains("/root:") && !said.contains("/srv:") && !said.contains("/mnt:"), "{said}");
    assert!(said.contains("/home:\ncell") && said.contains("/var:\ntmp"), "{said}");
}

#[test]
fn a_file_of_the_caller_is_seen_only_where_it_is_mounted() {
    let scratch = Scratch::new();
    let file = scratch.file("secret", "canary");
    let look = format!("cat {} 2>/dev/null || echo hidden", file.display());
    assert_eq!(told(Sandbox::builder(), &look), "hidden");
    assert_eq!(told(Sandbox::builder().ro(&file, &file), &look), "canary");
}

#[test]
fn the_host_view_can_be_written_nowhere_but_in_the_private_directories() {
    let script = "for d in / /usr /etc /bin /proc/sys /dev /opt; do touch $d/x 2>/dev/null && echo $d; done;
                  for d in /tmp /var/tmp /dev/shm /run ~; do touch $d/x || echo no $d; done; true";
    let said = told(Sandbox::builder(), script);
    assert_eq!(said, "");
}

#[test]
fn private_directories_are_new_in_every_sandbox() {
    let sandbox = common::sandbox();
    let script = "ls -A /tmp /var/tmp /dev/shm ~ | grep -c left; touch /tmp/left /var/tmp/left /dev/shm/left ~/left";
    for _ in 0..2 {
        assert_eq!(text(&shell(&sandbox, script).output().unwrap().stdout), "0");
    }
    assert!(!Path::new("/tmp/left").exists());
}

#[test]
fn an_empty_root_holds_only_what_is_mounted() {
    let builder = with_programs(Sandbox::builder().root(Root::Empty));
    let said = told(builder, "ls /; test -e /usr/bin/env && echo usr; test -e /opt || echo none");
    assert!(!said.contains("opt\n") && !said.contains("srv"), "{said}");
    assert!(said.ends_with("usr\nnone"), "{said}");
}

#[test]
fn a_directory_as_root_is_shown_and_not_changed() {
    let scratch = Scratch::new();
    scratch.file("data/file", "from the directory");
    let before = fingerprint(scratch.path());
    let builder = with_programs(Sandbox::builder().root(Root::Dir(scratch.path().to_owned())));
    let said = told(builder, "cat /data/file; touch /data/x /x 2>/dev/null || echo read-only");
    assert_eq!(said, "from the directoryread-only");
    assert_eq!(fingerprint(scratch.path()), before);
}

#[test]
fn the_highest_of_three_layers_wins_and_none_is_changed() {
    let scratch = Scratch::new();
    let layers = ["low", "middle", "high"].map(|name| {
        scratch.file(&format!("{name}/who"), name);
        scratch.file(&format!("{name}/only-{name}"), "x");
        scratch.dir(name)
    });
    let before = fingerprint(scratch.path());
    let all: Vec<&Path> = layers.iter().map(|path| path.as_path()).collect();
    let script = "cat /who; ls / | grep only; echo new > /who; rm /only-low; rm -f /only-high; mkdir /d; cat /who";
    assert_eq!(told(overlay(&all), script), "highonly-high\nonly-low\nonly-middle\nnew");
    assert_eq!(fingerprint(scratch.path()), before, "layers changed");
    assert_eq!(told(overlay(&all), "cat /who; ls -d /d 2>/dev/null || echo gone"), "highgone", "an upper was kept");
}

#[test]
fn a_kept_upper_keeps_what_was_written() {
    let scratch = Scratch::new();
    let lower = scratch.dir("lower");
    scratch.file("lower/old", "old");
    let before = fingerprint(&lower);
    let kept = scratch.dir("kept");
    let builder = || overlay(&[&lower]).upper(Upper::Dir(kept.clone()));
    told(builder(), "echo one > /first; rm /old");
    assert_eq!(told(builder(), "cat /first; test -e /old || echo deleted"), "one\ndeleted");
    assert_eq!(fs::read_to_string(kept.join("upper/first")).unwrap(), "one\n");
    assert_eq!(fingerprint(&lower), before);
}

#[test]
fn changes_name_what_was_added_modified_and_deleted() {
    let scratch = Scratch::new();
    let lower = scratch.dir("lower");
    for name in ["stays", "changes", "goes", "dir/a", "dir/b", "tree/deep/file", "type"] {
        scratch.file(&format!("lower/{name}"), "x");
    }
    let script = "echo y > /changes; rm /goes; echo n > /new; rm -r /dir; mkdir /dir; echo c > /dir/c;
                  rm -r /tree; rm /type; mkdir /type; chmod 700 /stays";
    let sandbox = overlay(&[&lower]).build().unwrap();
    let output = shell(&sandbox, script).track_changes(true).output().unwrap();
    assert_eq!(output.outcome, Outcome::Exited(0), "{}", text(&output.stderr));
    use ChangeKind::{Added, Deleted, Modified};
    let expected = [
        (Modified, "/changes"),
        (Deleted, "/dir/a"),
        (Deleted, "/dir/b"),
        (Added, "/dir/c"),
        (Deleted, "/goes"),
        (Added, "/new"),
        (Modified, "/stays"),
        (Deleted, "/tree"),
        (Modified, "/type"),
    ];
    assert_eq!(changes(&output), expected.map(|(kind, path)| (kind, path.to_owned())));
}

#[test]
fn a_run_that_changes_nothing_lists_nothing() {
    let scratch = Scratch::new();
    scratch.file("lower/file", "x");
    let sandbox = overlay(&[&scratch.dir("lower")]).build().unwrap();
    let output = shell(&sandbox, "cat /file; echo > /tmp/x").track_changes(true).output().unwrap();
    assert_eq!(changes(&output), []);
}

#[test]
fn a_cell_tells_its_changes_so_far() {
    let scratch = Scratch::new();
    let sandbox = overlay(&[&scratch.dir("lower")]).build().unwrap();
    let cell = sandbox.start().unwrap();
    assert_eq!(cell.changes().unwrap(), []);
    let report = cell.command("/bin/sh").args(["-c", "echo > /new"]).status().unwrap();
    assert_eq!(report.outcome, Outcome::Exited(0));
    let list = cell.changes().unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!((list[0].kind, list[0].path.as_path()), (ChangeKind::Added, Path::new("/new")));
}

/// A layer whose directories are links; a canary that they lead to outside.
fn hostile(scratch: &Scratch, links: &[(&str, &str)]) -> std::path::PathBuf {
    let layer = scratch.dir("layer");
    for (name, target) in links {
        symlink(target, layer.join(name)).unwrap();
    }
    layer
}

#[test]
fn links_of_a_layer_lead_no_mount_outside() {
    let scratch = Scratch::new();
    let canary = scratch.dir("canary");
    let target = canary.to_str().unwrap().to_owned();
    let links = [("etc", "/"), ("tmp", target.as_str()), ("run", "../../../../../.."), ("home", "/tmp")];
    let layer = hostile(&scratch, &links);
    let before = fingerprint(scratch.path());
    let sandbox = overlay(&[&layer]).file("/etc/injected", "x").build().unwrap();
    // Refused or resolved inside, but never outside.
    match shell(&sandbox, "echo started; echo > /tmp/x; echo > ~/x").output() {
        Ok(output) => assert!(text(&output.stdout).starts_with("started")),
        Err(error) => assert_eq!(error.kind(), "setup", "{error}"),
    }
    assert_eq!(fingerprint(scratch.path()), before);
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 0);
    assert!(!Path::new("/injected").exists());
}

#[test]
fn a_link_inside_the_root_is_followed_inside() {
    let scratch = Scratch::new();
    let layer = hostile(&scratch, &[("short", "/long/way")]);
    scratch.dir("layer/long/way");
    let said = told(overlay(&[&layer]).file("/short/file", "inside"), "cat /long/way/file");
    assert_eq!(said, "inside");
}

#[test]
fn proc_and_dev_as_links_of_a_layer_are_no_way_out() {
    for name in ["proc", "dev"] {
        let scratch = Scratch::new();
        let canary = scratch.dir("canary");
        let layer = hostile(&scratch, &[(name, canary.to_str().unwrap())]);
        let before = fingerprint(scratch.path());
        let sandbox = overlay(&[&layer]).build().unwrap();
        if let Ok(output) = shell(&sandbox, "cat /proc/1/comm; echo > /dev/null").output() {
            assert_eq!(output.outcome, Outcome::Exited(0), "{name}: {}", text(&output.stderr));
            assert_eq!(text(&output.stdout), "sandcell-init");
        }
        assert_eq!(fingerprint(scratch.path()), before, "{name}");
    }
}

#[test]
fn an_account_file_that_never_ends_is_refused() {
    let scratch = Scratch::new();
    scratch.dir("layer/etc");
    nix::unistd::mkfifo(&scratch.path().join("layer/etc/passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let sandbox = overlay(&[&scratch.dir("layer")]).build().unwrap();
    let error = shell(&sandbox, "true").output().unwrap_err();
    assert_eq!((error.kind(), error.stage()), ("config", "account"), "{error}");
}

#[test]
fn an_account_of_the_image_gives_its_name_and_home() {
    let scratch = Scratch::new();
    scratch.file("layer/etc/passwd", "builder:x:1000:1000::/work:/bin/sh");
    let output = run(overlay(&[&scratch.dir("layer")]).user(sandcell::User::fixed(1000, 1000)), "whoami; echo $HOME");
    assert_eq!(text(&output.stdout), "builder\n/work");
}
