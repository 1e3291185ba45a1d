//! Memory of an idle cell, system-wide with the kernel's, at 100 and at 1,000 alive at once; bubblewrap beside it.
//!
//! `cargo bench --bench density`. What the system has available is read before and after (/proc/meminfo): on a machine
//! that does nothing else.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use sandcell::{Cell, Sandbox};

/// Memory that is neither free nor a cache that could be dropped.
fn used_kb() -> i64 {
    std::thread::sleep(std::time::Duration::from_secs(2));
    let text = std::fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
    let value = |name: &str| -> i64 {
        let line = text.lines().find(|line| line.starts_with(name)).expect("a line");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
    };
    value("MemTotal:") - value("MemFree:") - value("Cached:") - value("Buffers:") - value("SReclaimable:")
        + value("Shmem:")
}

fn bwrap() -> Child {
    let mut child = Command::new("bwrap")
        .args([
            "--unshare-all",
            "--die-with-parent",
            "--ro-bind",
            "/usr",
            "/usr",
            "--symlink",
            "usr/bin",
            "/bin",
            "--symlink",
            "usr/lib",
            "/lib",
        ])
        .args(["--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"])
        .args(["/bin/sh", "-c", "echo; exec sleep 1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bubblewrap");
    child.stdout.take().expect("a pipe").read_exact(&mut [0]).expect("a sign of life");
    child
}

fn main() {
    // One of each first: what is loaded once for all is not the cells' own.
    let sandbox = Sandbox::builder().build().expect("a sandbox");
    let first = sandbox.start().expect("a cell");
    let mut other = bwrap();
    for count in [100, 1000] {
        let before = used_kb();
        let cells: Vec<Cell> = (0..count).map(|_| sandbox.start().expect("a cell")).collect();
        let each = (used_kb() - before) as f64 / f64::from(count);
        println!("{count:5} idle cells: {each:6.0} KB each");
        drop(cells);
    }
    let before = used_kb();
    let mut others: Vec<Child> = (0..100).map(|_| bwrap()).collect();
    println!("  100 bwrap with a sleep in it: {:6.0} KB each", (used_kb() - before) as f64 / 100.0);
    for child in others.iter_mut().chain([&mut other]) {
        let _ = child.kill();
        let _ = child.wait();
    }
    drop(first);
}
