//! Where something can be mounted: anywhere in the host view, and in a root that has mounts of its own.

mod common;

use std::fs;
use std::path::Path;

use common::{Scratch, again_in_own_mounts, run, text, told};
use sandcell::{Outcome, Root, Sandbox};

/// A name that no host has.
const NEW: &str = "sandcell-mount-point-of-a-test";

#[test]
fn a_mount_point_may_be_anywhere_in_the_read_only_view_of_the_host() {
    let scratch = Scratch::new();
    let dir = scratch.dir("project");
    scratch.file("project/file", "shown\n");
    let file = dir.join("file");
    for top in ["/opt", "/etc", "/usr", "/usr/local", "/usr/local/bin", "/usr/share", "/lib"] {
        if !Path::new(top).is_dir() {
            continue;
        }
        let (place, deeper, alone) =
            (format!("{top}/{NEW}"), format!("{top}/{NEW}-a/b/c"), format!("{top}/{NEW}-file"));
        let builder = Sandbox::builder().ro(&dir, &place).rw(&dir, &deeper).ro(&file, &alone);
        let script =
            format!("cat {place}/file {deeper}/file {alone}; ! touch {top}/x {place}/x 2>/dev/null && echo shut");
        assert_eq!(told(builder, &script), "shown\nshown\nshown\nshut", "{top}");
        assert!(!Path::new(&place).exists(), "made on the host: {place}");
    }
}

#[test]
fn what_was_in_the_directory_of_a_new_mount_point_is_still_there() {
    let scratch = Scratch::new();
    let names = |dir: &str| {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let builder = Sandbox::builder().ro(scratch.dir("a"), format!("/etc/{NEW}"));
    let inside = told(builder, "ls -A /etc; cat /etc/passwd | grep -c ^cell: >&2");
    let mut expected = names("/etc");
    expected.push(NEW.to_owned());
    expected.sort();
    let mut inside: Vec<_> = inside.lines().map(str::to_owned).collect();
    inside.sort();
    assert_eq!(inside, expected);
}

#[test]
fn a_mount_point_in_what_was_mounted_before_is_made_there() {
    let scratch = Scratch::new();
    let file = scratch.file("file", "shown\n");
    let place = format!("/opt/{NEW}");
    let builder = Sandbox::builder().tmpfs(&place, None).ro(&file, format!("{place}/inner/file"));
    assert_eq!(
        told(builder, &format!("touch {place}/own && cat {place}/inner/file && ls {place}")),
        "shown\ninner\nown"
    );
}

#[test]
fn a_link_that_leads_nowhere_is_a_place_like_any_other() {
    let setup = "mount -t tmpfs t /opt; ln -s /nowhere/at/all /opt/link";
    let name = "a_link_that_leads_nowhere_is_a_place_like_any_other";
    if !again_in_own_mounts(name, setup) {
        return;
    }
    let scratch = Scratch::new();
    let file = scratch.file("file", "shown\n");
    assert_eq!(told(Sandbox::builder().ro(&file, "/opt/link"), "cat /opt/link"), "shown");
    assert_eq!(told(Sandbox::builder().ro(scratch.path(), "/opt/link/x"), "cat /opt/link/x/file"), "shown");
}

#[test]
fn a_directory_with_mounts_in_it_takes_no_new_mount_point_and_the_error_says_so() {
    let setup = "mount -t tmpfs t /opt; mkdir /opt/sub; mount -t tmpfs t /opt/sub";
    let name = "a_directory_with_mounts_in_it_takes_no_new_mount_point_and_the_error_says_so";
    if !again_in_own_mounts(name, setup) {
        return;
    }
    let scratch = Scratch::new();
    // What is there is a mount point, whatever else is mounted.
    assert_eq!(told(Sandbox::builder().ro(scratch.dir("a"), "/opt/sub"), "ls -d /opt/sub"), "/opt/sub");
    let sandbox = Sandbox::builder().ro(scratch.dir("a"), "/opt/new").build().unwrap();
    let error = sandbox.command("/bin/true").output().unwrap_err();
    assert_eq!(error.stage(), "mount-point");
    assert!(
        error.to_string().contains("/opt") && error.hint().contains("another destination"),
        "{error} {}",
        error.hint()
    );
}

#[test]
fn noexec_holds_in_a_directory_with_a_new_mount_point() {
    let setup = "mount -t tmpfs -o noexec t /opt; printf '#!/bin/sh\\necho ran\\n' >/opt/script; chmod 755 /opt/script";
    if !again_in_own_mounts("noexec_holds_in_a_directory_with_a_new_mount_point", setup) {
        return;
    }
    let scratch = Scratch::new();
    let script = "cp /opt/script /tmp/script && /tmp/script && ! /opt/script";
    let output = run(Sandbox::builder().ro(scratch.dir("a"), "/opt/new"), script);
    assert_eq!(
        (&output.outcome, text(&output.stdout).as_str()),
        (&Outcome::Exited(0), "ran"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn the_root_may_be_the_hosts_own() {
    let scratch = Scratch::new();
    let secret = scratch.file("secret", "");
    let builder = Sandbox::builder().root(Root::Dir("/".into()));
    let script =
        format!("ls -d /var/log /usr/bin && touch /tmp/own && ! touch /usr/x /x 2>/dev/null && ls -A {}", "/tmp");
    assert_eq!(told(builder, &script), "/usr/bin\n/var/log\nown");
    assert!(secret.exists());
}

#[test]
fn nothing_is_removed_from_a_directory_that_the_caller_binds() {
    let scratch = Scratch::new();
    let shared = scratch.dir("shared");
    let link = shared.join("link");
    std::os::unix::fs::symlink("/nowhere/at/all", &link).unwrap();
    let builder = || Sandbox::builder().rw(&shared, "/shared");
    // The control: beside the link there is a place.
    assert_eq!(told(builder().tmpfs("/shared/beside", None), "ls /shared"), "beside\nlink");
    for dest in ["/shared/link", "/shared/link/deeper"] {
        let error = builder().tmpfs(dest, None).build().unwrap().command("/bin/true").output().unwrap_err();
        assert_eq!(error.stage(), "mount-point", "{dest}: {error}");
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("/nowhere/at/all"), "{dest}");
    }
    // The same beneath a root of layers, where links of the layers give way.
    let layer = scratch.dir("layer");
    std::os::unix::fs::symlink("/nowhere/at/all", layer.join("own")).unwrap();
    for dir in ["/usr", "/bin", "/lib", "/lib64"] {
        fs::create_dir(layer.join(&dir[1..])).unwrap();
    }
    let shown = |builder: sandcell::Builder| {
        ["/usr", "/bin", "/lib", "/lib64"].iter().fold(builder, |builder, dir| builder.ro(dir, dir))
    };
    let layered = || shown(Sandbox::builder().layer(&layer)).rw(&shared, "/shared");
    assert_eq!(told(layered().tmpfs("/own", None), "touch /own/x && ls /own"), "x");
    let error = layered().tmpfs("/shared/link", None).build().unwrap().command("/bin/true").output().unwrap_err();
    assert_eq!(error.stage(), "mount-point", "{error}");
    assert!(link.is_symlink() && layer.join("own").is_symlink());
}

#[test]
fn names_are_looked_up_by_the_hosts_file_wherever_its_link_leads() {
    let name = "names_are_looked_up_by_the_hosts_file_wherever_its_link_leads";
    // A copy of /etc that may be changed, and a place that the view does not show.
    let setup = "T=$(mktemp -d)\nmount -t tmpfs none $T\ncp /etc/passwd /etc/group $T\nmount -t tmpfs none /mnt\nmkdir /mnt/net\n\
        mount --bind $T /etc\numount $T\nrmdir $T\necho 'nameserver 192.0.2.7' > /mnt/net/file";
    if !again_in_own_mounts(name, setup) {
        return;
    }
    let shown = |builder: sandcell::Builder| run(builder, "cat /etc/resolv.conf");
    let host = || Sandbox::builder().network(sandcell::Network::Host);
    let link = Path::new("/etc/resolv.conf");
    std::os::unix::fs::symlink("net/file", "/mnt/chain").unwrap();
    std::os::unix::fs::symlink("../mnt/chain", "/etc/near").unwrap();
    for to in ["/mnt/net/file", "../mnt/net/file", "/mnt/chain", "near"] {
        std::os::unix::fs::symlink(to, link).unwrap();
        assert_eq!(text(&shown(host()).stdout), "nameserver 192.0.2.7", "{to}");
        // The control: with a network of its own nothing of that is shown.
        assert_ne!(shown(Sandbox::builder()).outcome, Outcome::Exited(0), "{to}");
        fs::remove_file(link).unwrap();
    }
    // And a link to nowhere, or none, is no reason not to start.
    assert_eq!(told(host(), "echo runs"), "runs");
    std::os::unix::fs::symlink("/mnt/none", link).unwrap();
    assert_eq!(told(host(), "echo runs"), "runs");
}
