use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::kernel_names::Resource;

use crate::cgroup::hierarchy::{Controller, Host, Version};
use crate::cgroup::{Driver, Facts, Placed, Sources, delegation, describe_on, prepare_on, settings};
use crate::{BestEffort, Limits, Mechanism};

/// A directory that looks like the root of a host; removed when dropped.
pub(super) struct FakeHost {
    root: PathBuf,
    marked: fn(&Path) -> bool,
}

impl FakeHost {
    pub(super) fn new(name: &str) -> FakeHost {
        let unique = format!("sandcell-limits-{name}-{}-{:?}", std::process::id(), std::thread::current().id());
        let root = std::env::temp_dir().join(unique.replace(['(', ')'], ""));
        fs::create_dir_all(&root).unwrap();
        FakeHost { root, marked: |_| false }
    }

    pub(super) fn dir(self, path: &str) -> FakeHost {
        fs::create_dir_all(self.root.join(path)).unwrap();
        self
    }

    pub(super) fn file(self, path: &str, content: &str) -> FakeHost {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// A cgroup v2 group.
    fn group(self, path: &str, handed_down: &str, procs: &str) -> FakeHost {
        let dir = format!("sys/fs/cgroup/{path}");
        self.file(&format!("{dir}/cgroup.type"), "domain\n")
            .file(&format!("{dir}/cgroup.controllers"), "cpuset cpu io memory pids\n")
            .file(&format!("{dir}/cgroup.subtree_control"), handed_down)
            .file(&format!("{dir}/cgroup.procs"), procs)
    }

    pub(super) fn read(&self) -> Host {
        Host { marked: self.marked, ..Host::read(&self.root) }
    }
}

impl Drop for FakeHost {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// A host with cgroup v2 alone, the caller in `own`.
fn v2(name: &str, own: &str) -> FakeHost {
    FakeHost::new(name)
        .file("proc/self/mountinfo", "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n")
        .file("proc/self/cgroup", &format!("0::{own}\n"))
        .file("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n")
        .file("sys/fs/cgroup/cgroup.procs", "1\n")
        .file("sys/fs/cgroup/cgroup.subtree_control", "cpu memory pids\n")
}

/// A host with v1 alone, of which the caller may write to `memory` only.
fn v1() -> FakeHost {
    FakeHost::new("v1")
        .file("proc/self/mountinfo", "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
        .file("proc/self/cgroup", "4:memory:/a\n3:cpu,cpuacct:/missing\n")
        .dir("sys/fs/cgroup/memory/a")
}

#[test]
fn a_caller_in_a_leaf_of_a_delegated_subtree_gets_groups_beside_itself() {
    let host = v2("leaf", "/d/caller").group("d", "memory pids\n", "").group("d/caller", "", "1\n");
    let base = delegation::find(&host.read(), None).unwrap();
    assert_eq!(base.dir, host.root.join("sys/fs/cgroup/d"));
    // Nothing lives in it, so the rest can be handed down as well.
    assert!(base.controllers.contains(&Controller::Io));
}

#[test]
fn a_group_with_other_processes_gives_only_what_it_hands_down_already() {
    let host = v2("busy", "/d/caller").group("d", "memory\n", "77\n").group("d/caller", "", "1\n");
    assert_eq!(delegation::find(&host.read(), None).unwrap().controllers, [Controller::Memory]);
}

#[test]
fn the_root_of_a_host_may_hold_processes_and_groups() {
    let host = v2("root", "/");
    assert_eq!(delegation::find(&host.read(), None).unwrap().dir, host.root.join("sys/fs/cgroup"));
}

#[test]
fn a_caller_in_the_delegated_group_itself_is_told_to_step_down() {
    // As in a container: the mount shows nothing above the caller's group.
    let mut host = v2("self", "/d").group("d", "", "1\n");
    host = host.file("proc/self/mountinfo", "30 20 0:26 /d /sys/fs/cgroup/d rw - cgroup2 cgroup2 rw\n");
    let cannot = delegation::find(&host.read(), None).unwrap_err();
    assert!(cannot.why.contains("the caller itself sits in"), "{cannot:?}");
    assert!(cannot.remedy.contains("adopt_cgroup"), "{cannot:?}");
}

#[test]
fn under_systemd_only_what_it_has_given_out_is_used() {
    let scope = |host: FakeHost| {
        host.dir("run/systemd/system").group("u/x.scope", "memory\n", "").group("u/x.scope/caller", "", "1\n")
    };
    let mut host = scope(v2("systemd", "/u/x.scope/caller"));
    let cannot = delegation::find(&host.read(), None).unwrap_err();
    assert!(cannot.why.contains("was not delegated"), "{cannot:?}");
    assert!(cannot.remedy.contains("Delegate=yes"), "{cannot:?}");

    host.marked = |group| group.ends_with("x.scope");
    assert!(delegation::find(&host.read(), None).is_ok());
    // What is marked above belongs to the user's systemd, and that has not given this scope out.
    host.marked = |group| group.ends_with("u");
    assert!(delegation::find(&host.read(), None).is_err());
}

#[test]
fn a_named_group_is_used_as_it_is() {
    let host = v2("named", "/elsewhere").group("elsewhere", "", "1\n").group("named", "memory\n", "");
    let named = host.root.join("sys/fs/cgroup/named");
    assert_eq!(delegation::find(&host.read(), Some(&named)).unwrap().dir, named);
}

#[test]
fn each_version_takes_what_it_has_and_v2_comes_first() {
    let both = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n35 31 0:32 / /v1/memory rw - cgroup cgroup rw,memory\n36 31 0:33 / /v1/pids rw - cgroup cgroup rw,pids\n";
    let host = v2("hybrid", "/")
        .file("proc/self/mountinfo", both)
        .file("proc/self/cgroup", "5:pids:/\n4:memory:/\n0::/\n")
        .dir("v1/memory")
        .dir("v1/pids");
    let host = host.file("sys/fs/cgroup/cgroup.controllers", "memory\n");
    let read = host.read();
    let sources = Sources { host: &read, base: delegation::find(&read, None) };
    let limits = Limits { memory: Some(1 << 20), pids: Some(1), ..Limits::default() };
    let settings = settings::compile(&limits, &read).unwrap();
    let chosen: Vec<_> = settings.iter().map(|s| sources.choose(s).unwrap()).collect();
    assert_eq!(chosen, [Version::V2, Version::V1]);
}

#[test]
fn without_cgroups_a_limit_is_refused_with_the_remedy() {
    let host = FakeHost::new("none");
    for (item, limits) in each_limit() {
        let error = place_on(&host.read(), &limits, &BestEffort::default(), Facts::default()).unwrap_err();
        assert_eq!((error.kind(), error.subject()), ("unsupported", item), "{error}");
        assert!(!error.hint().is_empty(), "{error}");
    }
}

#[test]
fn without_cgroups_best_effort_names_what_is_weaker_or_missing() {
    let host = FakeHost::new("weaker");
    for (item, limits) in each_limit() {
        let mut best_effort = BestEffort::default();
        best_effort.add(item);
        let Placed { placement, enforced, rlimits } =
            place_on(&host.read(), &limits, &best_effort, Facts::default()).unwrap();
        assert!(placement.is_none());
        assert_eq!(enforced.len(), 1);
        assert_eq!(enforced[0].item, item);
        assert!(
            enforced[0].why.as_ref().is_some_and(|why| why.contains("no cgroup v2 is mounted") || item == "io_weight"),
            "{enforced:?}"
        );
        let expected = match item {
            "memory" => vec![(Resource::RLIMIT_AS, 1 << 26, 1 << 26)],
            "pids" => vec![(Resource::RLIMIT_NPROC, 6, 6)],
            "cpu_time" => vec![(Resource::RLIMIT_CPU, 2, 3)],
            _ => vec![],
        };
        assert_eq!(rlimits, expected);
        assert_eq!(enforced[0].by, if rlimits.is_empty() { Mechanism::Nothing } else { Mechanism::Rlimit });
    }
}

#[test]
fn root_on_the_host_has_no_process_limit_but_a_cgroup() {
    let mut best_effort = BestEffort::default();
    best_effort.add("all");
    let limits = Limits { pids: Some(5), ..Limits::default() };
    let facts = Facts { host_root: true, ..Facts::default() };
    let placed = place_on(&FakeHost::new("nproc").read(), &limits, &best_effort, facts).unwrap();
    assert_eq!((placed.enforced[0].by, placed.rlimits.len()), (Mechanism::Nothing, 0));
}

#[test]
fn best_effort_for_one_limit_does_not_excuse_another() {
    let mut best_effort = BestEffort::default();
    best_effort.add("pids");
    let limits = Limits { pids: Some(5), memory: Some(1 << 20), ..Limits::default() };
    let error = place_on(&FakeHost::new("other").read(), &limits, &best_effort, Facts::default()).unwrap_err();
    assert_eq!(error.subject(), "memory");
}

#[test]
fn nothing_asked_for_is_nothing_made() {
    let placed =
        place_on(&FakeHost::new("nothing").read(), &Limits::default(), &BestEffort::default(), Facts::default())
            .unwrap();
    assert!(placed.placement.is_none() && placed.enforced.is_empty() && placed.rlimits.is_empty());
    // Figures are no limit: without them the sandbox starts as well.
    let prepared = prepare_on(&FakeHost::new("figures").read(), &Limits::default(), &BestEffort::default(), true);
    assert!(prepared.unwrap().place(Facts::default()).unwrap().placement.is_none());
}

#[test]
fn doctor_names_what_holds_and_what_blocks() {
    let [ours, old, _]: [Driver; 3] = describe_on(&v1().read()).try_into().unwrap();
    assert_eq!((ours.name, ours.holds.len()), ("cgroup2", 0));
    assert_eq!(ours.cannot.len(), 1);
    assert!(ours.cannot[0].why.contains("no cgroup v2"));
    assert_eq!((old.name, old.holds), ("cgroup1", vec!["memory"]));
    assert!(old.cannot.iter().any(|c| c.why.contains("missing")), "{:?}", old.cannot);
    assert!(old.cannot.iter().all(|c| !c.remedy.is_empty()));
}

fn place_on(host: &Host, limits: &Limits, best_effort: &BestEffort, facts: Facts) -> crate::Result<Placed> {
    prepare_on(host, limits, best_effort, false)?.place(facts)
}

/// Every limit alone, by its option.
pub(super) fn each_limit() -> Vec<(&'static str, Limits)> {
    let one = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        limits
    };
    vec![
        ("memory", one(|l| l.memory = Some(1 << 26))),
        ("memory_high", one(|l| l.memory_high = Some(1 << 26))),
        ("swap", one(|l| l.swap = Some(1 << 26))),
        ("pids", one(|l| l.pids = Some(5))),
        ("cpus", one(|l| l.cpus = Some(0.5))),
        ("cpu_weight", one(|l| l.cpu_weight = Some(50))),
        ("cpuset", one(|l| l.cpuset = Some("0".into()))),
        ("io_weight", one(|l| l.io_weight = Some(50))),
        (
            "io_max",
            one(|l| {
                l.io_max = vec![crate::IoMax { device: disk(), read_bytes: Some(1 << 20), ..crate::IoMax::default() }]
            }),
        ),
        ("cpu_time", one(|l| l.cpu_time = Some(Duration::from_millis(1500)))),
    ]
}

/// A disk of this machine that takes limits.
fn disk() -> String {
    let numbers = fs::read_dir("/sys/dev/block").into_iter().flatten().flatten();
    let whole = numbers.filter(|n| !n.path().join("partition").exists() && !n.path().join("loop").exists());
    whole
        .filter_map(|n| n.file_name().into_string().ok())
        .find(|n| !n.starts_with("7:"))
        .unwrap_or_else(|| "8:0".into())
}
