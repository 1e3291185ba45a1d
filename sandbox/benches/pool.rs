//! A program from a pool against `posix_spawn` (std::process) of the same one, interleaved: from the call to the first
//! instruction, which the program itself tells by the clock, and from the call to its return when the program has ended.
//! And the memory of a sandbox that waits.
//!
//! `cargo bench --bench pool`; a number after `--` is how many rounds.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use sandcell::Sandbox;

/// Writes what clock_gettime(CLOCK_MONOTONIC) says, and ends.
const SOURCE: &str = ".globl _start\n_start: mov $228, %eax\nmov $1, %edi\nlea -64(%rsp), %rsi\nsyscall\n\
    mov $1, %eax\nmov $1, %edi\nlea -64(%rsp), %rsi\nmov $16, %edx\nsyscall\nmov $60, %eax\nxor %edi, %edi\nsyscall\n";
/// What the next one may take to be built between two commands.
const PAUSES: [(&str, Duration); 2] = [("after 3 ms", Duration::from_millis(3)), ("at once", Duration::ZERO)];

fn program() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("sandcell-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let (source, program) = (dir.join("now.s"), dir.join("now"));
    std::fs::write(&source, SOURCE).expect("a file");
    let status = Command::new("cc").args(["-nostdlib", "-static", "-o"]).arg(&program).arg(&source).status();
    assert!(status.expect("a C compiler").success());
    program
}

/// Microseconds of the monotonic clock.
fn now() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
    time.tv_sec() as f64 * 1e6 + time.tv_nsec() as f64 / 1e3
}

/// To the first instruction and to the end, of a run that gives back what its program wrote.
fn measure(lists: &mut [Vec<f64>; 2], pause: Duration, run: impl FnOnce() -> Vec<u8>) {
    std::thread::sleep(pause);
    let start = now();
    let said = run();
    let end = now();
    let number = |at: usize| i64::from_ne_bytes(said[at..at + 8].try_into().expect("16 bytes"));
    lists[0].push(number(0) as f64 * 1e6 + number(8) as f64 / 1e3 - start);
    lists[1].push(end - start);
}

fn median(list: &mut [f64]) -> f64 {
    list.sort_by(f64::total_cmp);
    list[list.len() / 2]
}

/// Memory that is neither free nor a cache that could be dropped.
fn used_kb() -> i64 {
    let (start, mut text) = (Instant::now(), String::new());
    while start.elapsed() < Duration::from_secs(2) {
        text = std::fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
        std::thread::sleep(Duration::from_millis(100));
    }
    let value = |name: &str| -> i64 {
        let line = text.lines().find(|line| line.starts_with(name)).expect("a line");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
    };
    value("MemTotal:") - value("MemFree:") - value("Cached:") - value("Buffers:") - value("SReclaimable:")
        + value("Shmem:")
}

fn main() {
    let rounds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(1000);
    let program = program();
    let sandbox = Sandbox::builder().ro(&program, "/run/now").build().expect("a sandbox");
    let pool = sandbox.pool(2).expect("a pool");
    for (name, pause) in PAUSES {
        let mut lists: [[Vec<f64>; 2]; 3] = Default::default();
        for _ in 0..rounds {
            measure(&mut lists[0], pause, || {
                let mut child = Command::new(&program).stdout(Stdio::piped()).spawn().expect("a program");
                let mut said = Vec::new();
                child.stdout.take().expect("a pipe").read_to_end(&mut said).expect("what it says");
                child.wait().expect("its end");
                said
            });
            measure(&mut lists[1], pause, || pool.command("/run/now").output().expect("a run").stdout);
            measure(&mut lists[2], pause, || sandbox.command("/run/now").output().expect("a run").stdout);
        }
        let [plain, pooled, cold] = lists.each_mut().map(|both| both.each_mut().map(|list| median(list)));
        println!("the next command {name}, median of {rounds}; {:?}", pool.stats());
        for (at, what) in ["first instruction", "exit"].into_iter().enumerate() {
            let (pooled, cold) = (pooled[at] / plain[at], cold[at] / plain[at]);
            println!("  to {what}: posix_spawn {:.0} µs, from the pool {pooled:.2} ×, cold {cold:.2} ×", plain[at]);
        }
    }
    for count in [100, 1000] {
        let before = used_kb();
        let waiting = sandbox.pool(count).expect("a pool");
        let each = (used_kb() - before) as f64 / count as f64;
        println!("{:5} wait: {each:.0} KB each", waiting.stats().waiting);
    }
    let _ = std::fs::remove_dir_all(program.parent().expect("its directory"));
}
