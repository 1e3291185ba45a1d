//! What filters cost: `cargo bench --bench seccomp`.
//!
//! - Installing the default filter (each time in a thread that ends after it).
//! - A start with a profile that ends programs, whose listener names the call, against the same profile that refuses.
//! - Calls under the default filter, against the same loop without a filter, with a filter of one instruction (what the
//!   kernel charges for having any), and with the default filter behind one more instruction that looks at an argument:
//!   the kernel cannot keep such a one in its bitmap of calls that are always allowed, so it shows what the bitmap saves.

use std::hint::black_box;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use sandcell::seccomp::{Action, Profile};
use sandcell::{Sandbox, Seccomp};
use seccompiler::{BpfProgram, sock_filter};

const CALLS: u32 = 100_000;

fn main() {
    let start = Instant::now();
    let default = program(&Profile::default());
    println!("compile  {:>8.1} us, {} instructions", start.elapsed().as_secs_f64() * 1e6, default.len());
    let one = |_| in_thread(|| install(&default));
    println!("install  {:>8.1} us (median of 1000)", median((0..1000).map(one)).as_secs_f64() * 1e6);
    starts();

    let allow = vec![sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 }];
    // Loads the first argument, then goes on as before.
    let first = sock_filter { code: 0x20, jt: 0, jf: 0, k: 16 };
    let unkept: BpfProgram = std::iter::once(first).chain(default.iter().cloned()).collect();
    let filters =
        [("no filter", None), ("ret allow", Some(&allow)), ("default", Some(&default)), ("unkept", Some(&unkept))];
    let calls: [(&str, fn()); 5] =
        [("getppid", getppid), ("read", read), ("statx", stat), ("ioctl", ioctl), ("openat+close", open)];
    println!("\nns a call (median of 15 rounds of {CALLS}), and times the unfiltered loop");
    for (name, call) in calls {
        let mut rounds: [Vec<Duration>; 4] = Default::default();
        for _ in 0..15 {
            // Interleaved, so that the machine's moods hit all.
            for ((_, filter), times) in filters.iter().zip(&mut rounds) {
                times.push(in_thread(|| {
                    if let Some(filter) = filter {
                        install(filter);
                    }
                    let start = Instant::now();
                    (0..CALLS).for_each(|_| call());
                    start.elapsed()
                }));
            }
        }
        let medians = rounds.map(|times| median(times.into_iter()).as_secs_f64() * 1e9 / f64::from(CALLS));
        let column = |((name, _), ns): (&(&str, _), &f64)| format!("{name} {ns:>7.1} x{:<5.3}", ns / medians[0]);
        let columns: Vec<String> = filters.iter().zip(&medians).map(column).collect();
        println!("{name:<13} {}", columns.join(" | "));
    }
}

/// Whole starts of /bin/true.
fn starts() {
    let with = |action| {
        let profile = Profile::new(Action::Allow).rule(&["reboot", "swapon"], action, &[]).unwrap();
        Sandbox::builder().seccomp(Seccomp::Profile(profile)).build().unwrap()
    };
    let (refuses, ends) = (with(Action::Errno(1)), with(Action::KillProcess));
    let run = |sandbox: &Sandbox| {
        let start = Instant::now();
        assert!(sandbox.command("/bin/true").output().unwrap().outcome.success());
        start.elapsed()
    };
    let (refusing, ending): (Vec<_>, Vec<_>) = (0..300).map(|_| (run(&refuses), run(&ends))).unzip();
    let (refusing, ending) = (median(refusing.into_iter()), median(ending.into_iter()));
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    println!("start    {:>8.1} us without, {:.1} us with a listener (median of 300)", us(refusing), us(ending));
}

fn program(profile: &Profile) -> BpfProgram {
    let bytes = profile.to_bpf(&[]).unwrap();
    let instruction = |b: &[u8]| sock_filter {
        code: u16::from_ne_bytes([b[0], b[1]]),
        jt: b[2],
        jf: b[3],
        k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
    };
    bytes.chunks_exact(8).map(instruction).collect()
}

fn install(program: &BpfProgram) -> Duration {
    let start = Instant::now();
    seccompiler::apply_filter(program).unwrap();
    start.elapsed()
}

fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn getppid() {
    black_box(nix::unistd::getppid());
}

thread_local! {
    static ZERO: std::fs::File = std::fs::File::open("/dev/zero").unwrap();
}

fn read() {
    ZERO.with(|file| black_box(nix::unistd::read(file.as_fd(), &mut [0; 64])).unwrap());
}

fn stat() {
    black_box(std::fs::metadata("/etc/passwd")).unwrap();
}

fn open() {
    black_box(std::fs::File::open("/etc/passwd")).unwrap();
}

/// The filter looks at its arguments. It asks TCGETS; with /dev/null as input the answer is no at once.
fn ioctl() {
    black_box(std::io::IsTerminal::is_terminal(&std::io::stdin()));
}
