//! Nothing may be left: 10,000 runs one after another and 1,000 cells alive at once, with a count of everything that a
//! sandbox is made of before and after. `cargo bench --bench leaks`, on a machine where nobody else starts sandboxes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use sandcell::{Cell, Sandbox};

fn entries(path: &str) -> usize {
    fs::read_dir(path).map_or(0, |dir| dir.count())
}

fn directories(path: &Path) -> usize {
    let Ok(dir) = fs::read_dir(path) else { return 0 };
    dir.flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| 1 + directories(&entry.path()))
        .sum()
}

/// Processes whose name says that they belong to a sandbox, ours or anybody's.
fn supervisors() -> usize {
    let dir = fs::read_dir("/proc").expect("/proc");
    dir.flatten()
        .filter(|entry| fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.trim() == "sandcell-init"))
        .count()
}

fn children() -> usize {
    fs::read_to_string("/proc/thread-self/children").map_or(0, |text| text.split_whitespace().count())
}

fn count() -> BTreeMap<&'static str, usize> {
    let places = ["/tmp", "/var/tmp", "/run", "/dev/shm"];
    BTreeMap::from([
        ("descriptors", entries("/proc/self/fd")),
        ("children", children()),
        ("supervisors", supervisors()),
        ("mounts", fs::read_to_string("/proc/self/mountinfo").map_or(0, |text| text.lines().count())),
        ("threads", entries("/proc/self/task")),
        ("cgroups", directories(Path::new("/sys/fs/cgroup"))),
        ("files", places.into_iter().map(entries).sum()),
    ])
}

fn compare(what: &str, before: &BTreeMap<&'static str, usize>) {
    // The kernel takes some things apart a little later.
    std::thread::sleep(Duration::from_millis(500));
    let after = count();
    println!("{what}: {}", if *before == after { "nothing is left" } else { "SOMETHING IS LEFT" });
    for (name, number) in before.iter().filter(|(name, number)| after[*name] != **number) {
        println!("  {name}: {number} before, {} after", after[name]);
    }
    assert_eq!(*before, after);
}

fn main() {
    // With limits where the caller can have any, so that cgroups are among what is made.
    let limited = Sandbox::builder().memory(64 << 20).pids(32).build().expect("a sandbox");
    let sandbox = match limited.command("/bin/true").status() {
        Ok(_) => limited,
        Err(error) => {
            println!("without limits: {error}");
            Sandbox::builder().build().expect("a sandbox")
        }
    };
    sandbox.command("/bin/true").status().expect("a run");
    let before = count();
    let start = Instant::now();
    for _ in 0..10_000 {
        assert!(sandbox.command("/bin/true").status().expect("a run").outcome.success());
    }
    println!("10,000 runs in {:.1?}", start.elapsed());
    compare("10,000 runs", &before);

    let start = Instant::now();
    let cells: Vec<Cell> = (0..1000).map(|_| sandbox.start().expect("a cell")).collect();
    for cell in &cells {
        assert!(cell.command("/bin/true").status().expect("a run").outcome.success());
    }
    println!("1,000 cells alive at once, a program in each: {:.1?}", start.elapsed());
    drop(cells);
    compare("1,000 cells", &before);
}
