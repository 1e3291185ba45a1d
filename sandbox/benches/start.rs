//! Start to exit of a static program, against `posix_spawn` (std::process) and bubblewrap, interleaved in one run.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 400;
const SETTLE: Duration = Duration::from_millis(3);

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A program of two instructions: a libc would cost more than the sandbox.
fn static_true() -> String {
    let dir = std::env::temp_dir().join(format!("sandcell-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let (source, program) = (dir.join("true.s"), dir.join("true"));
    std::fs::write(&source, ".globl _start\n_start: mov $60, %eax\nxor %edi, %edi\nsyscall\n").expect("a file");
    let status = Command::new("cc").args(["-nostdlib", "-static", "-o"]).arg(&program).arg(&source).status();
    assert!(status.expect("a C compiler").success());
    program.to_str().expect("UTF-8").to_owned()
}

fn main() {
    let program = static_true();
    let sandbox = sandcell::Sandbox::builder().ro(&program, "/run/true").build().expect("a sandbox");
    let cell = sandbox.start().expect("a cell");
    let mut plain = Vec::new();
    let mut bwrap = Vec::new();
    let mut ours = Vec::new();
    let mut inside = Vec::new();
    let time = |list: &mut Vec<f64>, run: &mut dyn FnMut()| {
        // The kernel takes network namespaces apart behind the back of whoever ends them: what one has left behind
        // must not be counted as the next one's time.
        std::thread::sleep(SETTLE);
        let start = Instant::now();
        run();
        list.push(start.elapsed().as_secs_f64() * 1e6);
    };
    for _ in 0..ROUNDS {
        time(&mut plain, &mut || assert!(Command::new(&program).status().unwrap().success()));
        time(&mut bwrap, &mut || {
            let status = Command::new("bwrap")
                .args(["--unshare-all", "--new-session", "--die-with-parent", "--ro-bind", "/usr", "/usr"])
                .args(["--ro-bind", "/etc", "/etc", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"])
                .args(["--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"])
                .args(["--tmpfs", "/var/tmp", "--tmpfs", "/run", "--tmpfs", "/home/cell", "--cap-drop", "ALL"])
                .args(["--ro-bind", &program, "/run/true"])
                .arg("/run/true")
                .stdin(Stdio::null())
                .status();
            assert!(status.unwrap().success());
        });
        time(&mut ours, &mut || assert!(sandbox.command("/run/true").status().unwrap().outcome.success()));
        time(&mut inside, &mut || assert!(cell.command("/run/true").status().unwrap().outcome.success()));
    }
    let (plain, bwrap) = (median(&mut plain), median(&mut bwrap));
    let (ours, inside) = (median(&mut ours), median(&mut inside));
    println!("posix_spawn       {plain:8.0} µs");
    println!("bwrap             {bwrap:8.0} µs");
    println!("sandcell, cold    {ours:8.0} µs = {:.2} × bwrap", ours / bwrap);
    println!("sandcell, in cell {inside:8.0} µs = {:.2} × posix_spawn", inside / plain);
}
