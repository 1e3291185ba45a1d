//! How many descriptors the caller holds for each sandbox that runs: docs/rust.md has the figures.
//! One test, because the figures are those of the whole process.

use std::collections::BTreeMap;
use std::fs;

use sandcell::{Builder, Child, HostIds, Sandbox, Stdio};

/// How many sandboxes are counted together.
const MANY: usize = 8;

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

/// What is open more while `make` has made things than before; and nothing of it afterwards.
fn more<T>(make: impl Fn() -> T) -> Vec<String> {
    // What is loaded once for all is not their own.
    drop(make());
    let before = open();
    let made: Vec<T> = (0..MANY).map(|_| make()).collect();
    let more: Vec<String> =
        open().into_iter().filter(|(fd, _)| !before.contains_key(fd)).map(|(_, what)| what).collect();
    drop(made);
    assert_eq!(open(), before, "left open");
    more
}

/// Whether each takes what docs/rust.md says.
fn check(what: &str, builder: Builder) {
    let sandbox = builder.build().expect(what);
    if let Err(error) = sandbox.command("/bin/true").status() {
        assert_eq!(error.kind(), "unsupported", "{what}: {error}");
        return eprintln!("SKIPPED: {what}: {error}");
    }
    let kinds = [
        ("a run", 3, more(|| start(&sandbox))),
        ("a cell", 2, more(|| sandbox.start().expect("a cell"))),
        // One of them is the pool's own.
        ("a pool of one", 3, more(|| sandbox.pool(1).expect("a pool"))),
    ];
    for (kind, most, open) in kinds {
        let count = |wanted: fn(&str) -> bool| open.iter().filter(|what| wanted(what)).count();
        let groups =
            count(|what| what.starts_with("/sys/fs/cgroup/") || what.contains("/sandcell-") && !what.ends_with("/ids"));
        let leases = count(|what| what.ends_with("/ids"));
        let own = open.len() - groups - leases;
        eprintln!("{what}, {kind}: {own} + {leases} of leases + {groups} of cgroups for {MANY}");
        assert!(own <= MANY * most, "{what}, {kind}: {open:?}");
        // One for each directory in which they are locked, for all sandboxes of the process together.
        assert!(leases <= 2, "{what}, {kind}: {open:?}");
        // Each group once, and nothing in it.
        let mut places: Vec<&String> =
            open.iter().filter(|what| what.contains("/sandcell-") && !what.ends_with("/ids")).collect();
        places.sort();
        assert!(places.windows(2).all(|two| two[0] != two[1]), "{what}, {kind}: {open:?}");
        assert!(groups == places.len() && !places.iter().any(|what| is_in_group(what)), "{what}, {kind}: {open:?}");
    }
}

/// Whether it is a file of a group, and not the group.
fn is_in_group(path: &str) -> bool {
    path.rsplit_once("/sandcell-").is_some_and(|(_, name)| name.contains('/'))
}

#[test]
fn a_sandbox_that_runs_takes_few_descriptors_of_its_caller() {
    let new = Sandbox::builder;
    check("ids of the caller", new().host_ids(HostIds::Shared));
    check("leased ids", new());
    check("limits", new().memory(64 << 20).pids(16).cpus(0.5));
    check("CPU time", new().cpu_time(std::time::Duration::from_secs(60)));
}
