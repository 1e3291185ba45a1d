//! What the default filter costs: `cargo bench --bench seccomp`.
//!
//! Installing it (prctl + seccomp, each time in a thread that ends after it), and calls that the kernel's bitmap lets
//! through (getppid) or that the filter looks at (ioctl), each against the same loop without a filter.

use std::time::{Duration, Instant};

fn main() {
    let start = Instant::now();
    let bytes = sandcell::syscalls::Profile::default().to_bpf(&[]).unwrap();
    println!("compile  {:>8.1} us, {} instructions", start.elapsed().as_secs_f64() * 1e6, bytes.len() / 8);
    let program: seccompiler::BpfProgram = bytes
        .chunks_exact(8)
        .map(|b| seccompiler::sock_filter {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        })
        .collect();
    let install = || {
        let start = Instant::now();
        seccompiler::apply_filter(&program).unwrap();
        start.elapsed()
    };
    let one = |_| std::thread::scope(|s| s.spawn(install).join().unwrap());
    println!("install  {:>8.1} us (median of 1000)", median((0..1000).map(one)).as_secs_f64() * 1e6);

    for (name, call) in [("getppid", getppid as fn()), ("ioctl", ioctl)] {
        let run = |filtered: bool| {
            let work = || {
                if filtered {
                    install();
                }
                let start = Instant::now();
                (0..200_000).for_each(|_| call());
                start.elapsed()
            };
            std::thread::scope(|s| s.spawn(work).join().unwrap())
        };
        // Interleaved, so that the machine's moods hit both.
        let (bare, filtered): (Vec<_>, Vec<_>) = (0..21).map(|_| (run(false), run(true))).unzip();
        let (bare, filtered) = (median(bare.into_iter()), median(filtered.into_iter()));
        let each = |d: Duration| d.as_secs_f64() * 1e9 / 200_000.0;
        let ratio = filtered.as_secs_f64() / bare.as_secs_f64();
        println!("{name:<8} {:>8.1} ns bare, {:.1} ns filtered, x{ratio:.3}", each(bare), each(filtered));
    }
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn getppid() {
    std::hint::black_box(nix::unistd::getppid());
}

fn ioctl() {
    // Asks TCGETS; with /dev/null as input the answer is no at once.
    std::hint::black_box(std::io::IsTerminal::is_terminal(&std::io::stdin()));
}
