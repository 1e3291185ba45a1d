//! Start to exit of a static program, against `posix_spawn` (std::process) and bubblewrap, interleaved in one run.

use std::process::{Command, Stdio};
use std::time::Instant;

const ROUNDS: usize = 400;

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let program = std::env::var("BENCH_PROGRAM").unwrap_or_else(|_| "/bin/busybox".into());
    let sandbox = sandcell::Sandbox::builder().build().expect("a sandbox");
    let cell = sandbox.start().expect("a cell");
    let mut plain = Vec::new();
    let mut bwrap = Vec::new();
    let mut ours = Vec::new();
    let mut inside = Vec::new();
    let time = |list: &mut Vec<f64>, run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        list.push(start.elapsed().as_secs_f64() * 1e6);
    };
    for _ in 0..ROUNDS {
        time(&mut plain, &mut || assert!(Command::new(&program).arg("true").status().unwrap().success()));
        time(&mut bwrap, &mut || {
            let status = Command::new("bwrap")
                .args(["--unshare-all", "--new-session", "--die-with-parent", "--ro-bind", "/usr", "/usr"])
                .args(["--ro-bind", "/etc", "/etc", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"])
                .args(["--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"])
                .args(["--tmpfs", "/var/tmp", "--tmpfs", "/run", "--tmpfs", "/home/cell", "--cap-drop", "ALL"])
                .args([program.as_str(), "true"])
                .stdin(Stdio::null())
                .status();
            assert!(status.unwrap().success());
        });
        time(&mut ours, &mut || assert!(sandbox.command(&program).arg("true").status().unwrap().outcome.success()));
        time(&mut inside, &mut || assert!(cell.command(&program).arg("true").status().unwrap().outcome.success()));
    }
    let (plain, bwrap) = (median(&mut plain), median(&mut bwrap));
    let (ours, inside) = (median(&mut ours), median(&mut inside));
    println!("posix_spawn       {plain:8.0} µs");
    println!("bwrap             {bwrap:8.0} µs");
    println!("sandcell, cold    {ours:8.0} µs = {:.2} × bwrap", ours / bwrap);
    println!("sandcell, in cell {inside:8.0} µs = {:.2} × posix_spawn", inside / plain);
}
