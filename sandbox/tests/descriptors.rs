//! How many descriptors the caller holds for each sandbox that runs: docs/rust.md has the figures.
//! One test, because the figures are those of the whole process.

use std::collections::BTreeMap;
use std::fs;

use sandcell::{Builder, Child, HostIds, Sandbox, Stdio};

/// How many sandboxes are counted together, and of those with every limit.
const SOME: usize = 8;
const MANY: usize = 50;
/// The hierarchies that limits can be in: five of v1, the freezer and the clock of v1, v2.
const HIERARCHIES: usize = 8;

/// What is open here, by number.
fn open() -> BTreeMap<i32, String> {
    let dir = fs::read_dir("/proc/self/fd").unwrap();
    let link = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, target.to_string_lossy().into_owned()))
    };
    // The list itself is one of them.
    dir.filter_map(|entry| link(entry.unwrap())).filter(|(_, target)| !target.ends_with("/fd")).collect()
}

fn start(sandbox: &Sandbox) -> Child {
    let mut command = sandbox.command("/bin/sleep");
    command.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("a run")
}

/// What is open more while `make` has made so many things than before; and nothing of it afterwards.
fn more<T>(many: usize, make: impl Fn() -> T) -> Vec<String> {
    // What is loaded once for all is not their own.
    drop(make());
    let before = open();
    let made: Vec<T> = (0..many).map(|_| make()).collect();
    let more: Vec<String> =
        open().into_iter().filter(|(fd, _)| !before.contains_key(fd)).map(|(_, what)| what).collect();
    drop(made);
    assert_eq!(open(), before, "left open");
    more
}

/// Whether each takes what docs/rust.md says.
fn check(what: &str, many: usize, builder: Builder) {
    let sandbox = builder.build().expect(what);
    if let Err(error) = sandbox.command("/bin/true").status() {
        assert_eq!(error.kind(), "unsupported", "{what}: {error}");
        return eprintln!("SKIPPED: {what}: {error}");
    }
    for many in [1, many] {
        let kinds = [
            ("a run", 3, more(many, || start(&sandbox))),
            ("a cell", 2, more(many, || sandbox.start().expect("a cell"))),
            // One of them is the pool's own.
            ("a pool of one", 3, more(many, || sandbox.pool(1).expect("a pool"))),
        ];
        for (kind, most, open) in kinds {
            of_one_kind(&format!("{what}, {many} of {kind}"), many * most, &open);
        }
    }
}

/// `most`: what all together may take, besides what the process has for all of its sandboxes.
fn of_one_kind(what: &str, most: usize, open: &[String]) {
    let count = |wanted: fn(&str) -> bool| open.iter().filter(|place| wanted(place)).count();
    let (groups, leases) = (count(|place| place.starts_with("/sys/fs/cgroup")), count(|place| place.ends_with("/ids")));
    let own = open.len() - groups - leases;
    eprintln!("{what}: {own} + {leases} of leases + {groups} of cgroups");
    assert!(own <= most, "{what}: {open:?}");
    // One for each directory in which they are locked, for all sandboxes of the process together.
    assert!(leases <= 2, "{what}: {open:?}");
    // The same for groups: one for each hierarchy, and none for a group or for what is in it.
    assert!(groups <= HIERARCHIES, "{what}: {open:?}");
    assert_eq!(count(|place| place.contains("/sandcell-") && !place.ends_with("/ids")), 0, "{what}: {open:?}");
}

#[test]
fn a_sandbox_that_runs_takes_few_descriptors_of_its_caller() {
    let new = Sandbox::builder;
    check("ids of the caller", SOME, new().host_ids(HostIds::Shared));
    check("leased ids", SOME, new());
    check("limits", SOME, new().memory(64 << 20).pids(16).cpus(0.5));
    check("all limits", MANY, new().memory(64 << 20).pids(16).cpus(0.5).cpuset("0").cpu_weight(50));
    check("CPU time", SOME, new().cpu_time(std::time::Duration::from_secs(60)));
}
