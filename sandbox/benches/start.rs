//! Start to exit of a static program, against `posix_spawn` (std::process) and bubblewrap, interleaved in one run: one
//! at a time, two at a time, and from callers of 10 MB, 1 GB and 4 GB.
//!
//! `cargo bench --bench start`; with `-- large` the callers of several sizes too (they need 5 GB of memory).

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sandcell::{Landlock, Sandbox, Seccomp};

#[path = "common/program.rs"]
mod program;

const ROUNDS: usize = 400;
/// The kernel takes network namespaces apart behind the back of whoever ends them: what one has left behind must not be
/// counted as the next one's time.
const SETTLE: Duration = Duration::from_millis(3);
/// How long two at a time start what they can.
const SPELL: Duration = Duration::from_secs(3);

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn time(list: &mut Vec<f64>, run: &dyn Fn()) {
    std::thread::sleep(SETTLE);
    let start = Instant::now();
    run();
    list.push(start.elapsed().as_secs_f64() * 1e6);
}

fn bwrap(program: &str) {
    let status = Command::new("bwrap")
        .args(["--unshare-all", "--new-session", "--die-with-parent", "--ro-bind", "/usr", "/usr"])
        .args(["--ro-bind", "/etc", "/etc", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"])
        .args(["--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"])
        .args(["--tmpfs", "/var/tmp", "--tmpfs", "/run", "--tmpfs", "/home/cell", "--cap-drop", "ALL"])
        .args(["--ro-bind", program, "/run/true"])
        .arg("/run/true")
        .stdin(Stdio::null())
        .status();
    assert!(status.expect("bubblewrap").success());
}

fn cold(sandbox: &Sandbox) {
    assert!(sandbox.command("/run/true").status().expect("a run").outcome.success());
}

/// Runs a second of two threads that start one after another.
fn two_at_a_time(run: &(dyn Fn() + Sync)) -> f64 {
    let count = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while start.elapsed() < SPELL {
                    run();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    count.into_inner() as f64 / start.elapsed().as_secs_f64()
}

fn main() {
    let made = program::Static::new();
    let program = made.path();
    let builder = || Sandbox::builder().ro(&program, "/run/true");
    let sandbox = builder().build().expect("a sandbox");
    // What bubblewrap does, and no more: namespaces, mounts, no capabilities.
    let like_bwrap = builder().seccomp(Seccomp::Off).landlock(Landlock::Off).build().expect("a sandbox");
    let cell = sandbox.start().expect("a cell");

    let mut lists: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        time(&mut lists[0], &|| assert!(Command::new(&program).status().unwrap().success()));
        time(&mut lists[1], &|| bwrap(&program));
        time(&mut lists[2], &|| cold(&like_bwrap));
        time(&mut lists[3], &|| cold(&sandbox));
        time(&mut lists[4], &|| assert!(cell.command("/run/true").status().unwrap().outcome.success()));
    }
    drop(cell);
    let [plain, bubble, like, ours, inside] = lists.each_mut().map(|list| median(list));
    println!("one at a time, median of {ROUNDS}");
    println!("  posix_spawn                            {plain:8.0} µs");
    println!("  bwrap                                  {bubble:8.0} µs");
    println!("  sandcell, no seccomp and Landlock      {like:8.0} µs = {:.2} × bwrap", like / bubble);
    println!("  sandcell, everything                   {ours:8.0} µs = {:.2} × bwrap", ours / bubble);
    println!("  sandcell, in a started cell            {inside:8.0} µs = {:.2} × posix_spawn", inside / plain);

    let bubble = two_at_a_time(&|| bwrap(&program));
    let ours = two_at_a_time(&|| cold(&sandbox));
    println!("two at a time, {SPELL:?} each");
    println!("  bwrap                                  {bubble:8.0} runs/s");
    println!("  sandcell, everything                   {ours:8.0} runs/s = {:.2} × bwrap", ours / bubble);

    if std::env::args().any(|argument| argument == "large") {
        callers(&sandbox);
    }
}

/// The memory stays what it was: growing and shrinking alternate, so that the machine's moods fall on all alike.
fn callers(sandbox: &Sandbox) {
    const SIZES: [(&str, usize); 3] = [("10 MB", 10 << 20), ("1 GB", 1 << 30), ("4 GB", 4 << 30)];
    let mut lists: [Vec<f64>; SIZES.len()] = Default::default();
    for _ in 0..6 {
        for ((_, size), list) in SIZES.into_iter().zip(&mut lists) {
            let memory = vec![1u8; size];
            for _ in 0..40 {
                time(list, &|| cold(sandbox));
            }
            assert_eq!(std::hint::black_box(&memory)[size / 2], 1);
        }
    }
    println!("from a caller that holds so much memory");
    let mut base = 0.0;
    for ((name, _), list) in SIZES.into_iter().zip(&mut lists) {
        let median = median(list);
        base = if base == 0.0 { median } else { base };
        println!("  {name:38} {median:8.0} µs = {:.2} × that from 10 MB", median / base);
    }
}
