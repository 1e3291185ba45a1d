//! What a program finds about itself: no rights, namespaces of its own, nothing of the host.

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{again_in_own_mounts, run, sandbox, shell, text, told};
use sandcell::{Sandbox, Seccomp, User};

fn status(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once(':')).map(|(key, value)| (key, value.trim())).collect()
}

#[test]
fn a_program_has_no_capability_and_can_get_none() {
    for user in [User::Random, User::Root, User::Caller, User::fixed(1000, 1000)] {
        let said = told(Sandbox::builder().user(user), "cat /proc/self/status");
        let status = status(&said);
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set} of {user:?}");
        }
        assert_eq!(status["NoNewPrivs"], "1", "{user:?}");
    }
}

#[test]
fn a_capability_that_was_asked_for_is_there_and_no_other() {
    let builder = Sandbox::builder().cap_add(sandcell::Capability::CAP_NET_BIND_SERVICE);
    let said = told(builder, "cat /proc/self/status");
    assert_eq!(status(&said)["CapEff"], "0000000000000400");
    assert_eq!(status(&said)["CapBnd"], "0000000000000400");
}

#[test]
fn the_supervisor_keeps_nothing_but_the_right_to_kill() {
    let said = told(Sandbox::builder(), "cat /proc/1/status");
    let status = status(&said);
    assert_eq!((status["CapEff"], status["CapBnd"]), ("0000000000000020", "0000000000000000"));
}

#[test]
fn the_supervisor_is_behind_the_default_filter_itself() {
    for (seccomp, mode) in [(Seccomp::Default, "2"), (Seccomp::Off, "0")] {
        let said = told(Sandbox::builder().seccomp(seccomp), "cat /proc/1/status");
        assert_eq!(status(&said)["Seccomp"], mode);
    }
}

#[test]
fn every_namespace_is_the_sandboxs_own() {
    let said = told(Sandbox::builder(), "for n in user mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done");
    let inside: Vec<_> = said.lines().collect();
    assert_eq!(inside.len(), 7, "{said}");
    for line in inside {
        let name = line.split(':').next().unwrap();
        let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(host.to_str().unwrap(), line);
    }
}

#[test]
fn two_sandboxes_share_no_namespace() {
    // Both alive at once: the kernel uses the numbers of namespaces that are gone again.
    let cells = [0, 1].map(|_| Sandbox::builder().build().unwrap().start().unwrap());
    let [one, other] = cells.each_ref().map(|cell| {
        let mut command = cell.command("/usr/bin/readlink");
        let names = ["user", "mnt", "net", "pid", "ipc", "uts"].map(|name| format!("/proc/self/ns/{name}"));
        text(&command.args(names).output().unwrap().stdout).to_owned()
    });
    assert_eq!(one.lines().count(), 6, "{one}");
    assert!(one.lines().zip(other.lines()).all(|(a, b)| a != b), "{one}\n{other}");
}

#[test]
fn the_network_of_the_host_is_shared_only_on_request() {
    let host = fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap().to_owned();
    let look = |network| told(Sandbox::builder().network(network), "readlink /proc/self/ns/net");
    assert_eq!(look(sandcell::Network::Host), host);
    assert_ne!(look(sandcell::Network::Loopback), host);
}

#[test]
fn the_supervisor_shows_programs_nothing_of_the_caller() {
    let script = "for f in environ maps mem; do cat /proc/1/$f 2>/dev/null | tr '\\0' ' '; done
                  for n in 0 1 2 3 4 5 6 7 8 9; do cat /proc/1/fd/$n </dev/null 2>/dev/null; readlink /proc/1/fd/$n; done
                  readlink /proc/1/exe /proc/1/root /proc/1/cwd /proc/1/ns/mnt; ls /proc/1/root/ /proc/1/cwd/ 2>/dev/null
                  tr '\\0' '\\n' < /proc/1/cmdline; readlink /proc/self/fd/0";
    for user in [User::Random, User::Root, User::Caller] {
        let said = run(Sandbox::builder().user(user), script);
        assert_eq!(text(&said.stdout), "sandcell-init\n/dev/null", "{user:?}");
    }
}

#[test]
fn no_process_of_the_host_is_seen() {
    let said =
        told(Sandbox::builder(), "ls /proc | grep '^[0-9]*$' | tr '\\n' ' '; echo; echo $$; kill -0 $PPID || true");
    let pids: Vec<u32> = said.lines().next().unwrap().split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.len() <= 5 && pids.iter().all(|pid| *pid < 20), "{said}");
}

#[test]
fn the_mount_table_names_no_root_of_the_host() {
    let said = told(Sandbox::builder(), "cat /proc/self/mountinfo");
    let points: Vec<_> = said.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
    assert_eq!(points.iter().filter(|point| **point == "/").count(), 1, "{said}");
    assert!(said.lines().filter(|line| line.split(' ').nth(4) == Some("/")).all(|line| line.contains(" tmpfs ")));
    for line in said.lines() {
        assert!(!line.contains(" shared:") && !line.contains(" master:"), "propagates: {line}");
        let (point, options) = (line.split(' ').nth(4).unwrap(), line.split(' ').nth(5).unwrap());
        assert!(options.contains("nosuid"), "{line}");
        assert!(options.contains("nodev") || point.starts_with("/dev/"), "{line}");
    }
}

#[test]
fn no_mount_made_inside_or_outside_passes_the_border() {
    // The caller's mounts are shared, as systemd makes them.
    let setup = "mount -t tmpfs t /mnt; mount --make-rshared /";
    if !again_in_own_mounts("no_mount_made_inside_or_outside_passes_the_border", setup) {
        return;
    }
    fs::create_dir("/mnt/dir").unwrap();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let cell = Sandbox::builder().ro("/mnt", "/seen").build().unwrap().start().unwrap();
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "later", "/mnt/dir"]).status().unwrap();
    assert!(mounted.success());
    let output = cell.command("/bin/cat").arg("/proc/self/mountinfo").output().unwrap();
    assert!(!text(&output.stdout).contains("/seen/dir"), "{}", text(&output.stdout));
}

#[test]
fn dangerous_files_of_proc_are_covered_or_read_only() {
    let script = "for f in kcore keys kallsyms timer_list; do head -c 1 /proc/$f 2>/dev/null; done
                  for f in sysrq-trigger sys/kernel/core_pattern sys/vm/drop_caches irq/default_smp_affinity; do
                    ( echo > /proc/$f ) 2>/dev/null && echo $f; done
                  test -r /proc/cpuinfo && echo end";
    assert_eq!(told(Sandbox::builder().user(User::Root), script), "end");
}

#[test]
fn only_harmless_devices_are_there() {
    let said = told(Sandbox::builder(), "ls /dev | tr '\\n' ' '; echo > /dev/null && head -c 2 /dev/zero | wc -c");
    let known = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(said, format!("{known} 2"));
}

#[test]
fn the_hostname_is_the_sandboxs_own_and_new_each_time() {
    let sandbox = sandbox();
    let name = || text(&shell(&sandbox, "hostname; cat /etc/hostname").output().unwrap().stdout);
    let (one, other) = (name(), name());
    let lines: Vec<_> = one.lines().collect();
    assert!(lines[0].len() == 11 && lines[0].starts_with("cell-") && lines[0] == lines[1], "{one}");
    assert_ne!(one, other);
    assert_eq!(told(Sandbox::builder().hostname("my.host"), "hostname"), "my.host");
}
