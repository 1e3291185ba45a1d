//! The bars of limits, on whatever holds them here: cgroup v1, or v2 in the second kernel (`tests/bench/limits --vm`).
//!
//! - how fast the caller and a sandbox beside it work while a third sandbox does its worst, against before; bar 90 %,
//!   and the same beside nothing and beside a plain process of the same weight, which is what the machine takes
//! - the most memory that a bomb held, against its limit (105 %), and what a known allocation came to (±5 %)
//! - what four busy threads use of half a CPU in five seconds; bar 0.45 to 0.55
//! - a start with limits against one without, in turn; bar 1.3 times

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sandcell::{Builder, Sandbox};

const LIMIT: u64 = 64 << 20;
const KNOWN: u64 = 100 << 20;
const PAUSE: Duration = Duration::from_millis(250);
const SLICE: Duration = Duration::from_millis(1200);

/// Each is started again when it has ended, as long as others are being measured.
const BOMBS: [(&str, &str); 7] = [
    ("memory bomb", "head -c 268435456 /dev/zero | tail > /dev/null"),
    ("fork bomb", "bomb() { bomb | bomb & }; bomb 2>/dev/null; sleep 5"),
    ("CPU spinner x4", "for i in 1 2 3 4; do while :; do :; done & done; wait"),
    ("disk filler", "while :; do cat /dev/zero > /tmp/full; rm /tmp/full; done 2>/dev/null"),
    ("inode filler", "i=0; while :; do : > /tmp/$i || rm -rf /tmp/*; i=$((i + 1)); done 2>/dev/null"),
    ("output flood", "cat /dev/zero"),
    ("daemons", "while :; do (setsid sleep 1000 &) || sleep 0.1; done 2>/dev/null"),
];

/// Each is the median of so many. Under emulation, where a start takes a tenth of a second, fewer do.
fn rounds() -> usize {
    std::env::var("BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5)
}

fn limited() -> Builder {
    Sandbox::builder()
        .memory(LIMIT)
        .pids(32)
        .cpus(0.1)
        .disk(16 << 20)
        .inodes(1000)
        .output_limit(1 << 20)
        .timeout(Duration::from_secs(5))
        .grace(Duration::from_millis(10))
}

/// This program, inside: what the library's own figures are compared with.
fn inside(builder: Builder) -> Sandbox {
    let exe = std::env::current_exe().expect("this program");
    builder.ro(exe.parent().expect("a directory"), "/bench").build().expect("a sandbox")
}

fn program() -> String {
    let exe = std::env::current_exe().expect("this program");
    format!("/bench/{}", exe.file_name().expect("a name").to_str().expect("text"))
}

/// Steps of plain work in a time.
fn work(time: Duration) -> u64 {
    let (start, mut steps, mut number) = (Instant::now(), 0u64, 1u64);
    while start.elapsed() < time {
        for _ in 0..10_000 {
            number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        steps += 1;
    }
    steps
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Steps of the caller and of a sandbox beside it, both at work at once.
fn both(beside: &Sandbox) -> (f64, f64) {
    let mut command = beside.command(program());
    let mut child = command.args(["work"]).stdout(sandcell::Stdio::Piped).spawn().expect("a neighbour");
    let own = work(SLICE);
    let output = child.wait_with_output(None).expect("its end");
    let steps: f64 = std::str::from_utf8(&output.stdout).expect("text").trim().parse().expect("a number");
    (own as f64, steps)
}

/// The share of their speed that caller and sandbox keep while something else goes on, until it is told to stop.
fn beside_it(beside: &Sandbox, rounds: usize, it: impl Fn(&AtomicBool) + Sync) -> (f64, f64) {
    let (mut caller, mut other) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let quiet = both(beside);
        let stop = AtomicBool::new(false);
        let loud = std::thread::scope(|scope| {
            let at_work = scope.spawn(|| it(&stop));
            std::thread::sleep(Duration::from_millis(100));
            let loud = both(beside);
            stop.store(true, Ordering::Relaxed);
            at_work.join().expect("its end");
            loud
        });
        caller.push(loud.0 / quiet.0);
        other.push(loud.1 / quiet.1);
    }
    (median(&mut caller) * 100.0, median(&mut other) * 100.0)
}

/// Starts a bomb, and again when it has ended: a few times a second, for starting is the caller's own work.
fn bombs(sandbox: &Sandbox, script: &str, stop: &AtomicBool, starts: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        starts.fetch_add(1, Ordering::Relaxed);
        let next = Instant::now() + PAUSE;
        let mut command = sandbox.command("/bin/sh");
        let command = command.args(["-c", script]).stdout(sandcell::Stdio::Piped).stderr(sandcell::Stdio::Null);
        let mut child = command.spawn().expect("a bomb");
        let controller = child.controller();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn({
                let ended = &ended;
                move || {
                    while !stop.load(Ordering::Relaxed) && !ended.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    let _ = controller.kill();
                }
            });
            let _ = child.wait_with_output(None);
            ended.store(true, Ordering::Relaxed);
        });
        while !stop.load(Ordering::Relaxed) && Instant::now() < next {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A program without any sandbox.
fn plain(argument: &str, stop: &AtomicBool) {
    let exe = std::env::current_exe().expect("this program");
    let mut child = std::process::Command::new(exe).arg(argument).spawn().expect("a process");
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("its end");
    child.wait().expect("its end");
}

fn neighbours() {
    let rounds = rounds();
    println!(
        "speed beside a sandbox that does its worst, of that before (median of {rounds}, caller / other sandbox):"
    );
    let beside = inside(Sandbox::builder());
    let show = |name: &str, (caller, other): (f64, f64)| println!("  {name:<32} {caller:3.0} % / {other:3.0} %");
    // What the machine itself takes: caller and sandbox leave no processor idle, so a tenth of one is taken from them.
    show("nothing", beside_it(&beside, rounds, |_| ()));
    show("a tenth of a CPU, no sandbox", beside_it(&beside, rounds, |stop| plain("tenth", stop)));
    for (name, script) in [("an empty program, now and again", "")].into_iter().chain(BOMBS) {
        let sandbox = limited().build().expect("a sandbox");
        let starts = AtomicUsize::new(0);
        let speeds = beside_it(&beside, rounds, |stop| bombs(&sandbox, script, stop, &starts));
        show(name, speeds);
        println!("  {:<32} {:.1} starts each", "", starts.into_inner() as f64 / rounds as f64);
    }
}

fn memory() {
    let bomb = Sandbox::builder().memory(LIMIT).build().expect("a sandbox");
    let output = bomb.command("/bin/sh").args(["-c", BOMBS[0].1]).output().expect("a bomb");
    let share = output.usage.memory_peak_bytes.map_or(f64::NAN, |peak| peak as f64 / LIMIT as f64);
    println!("memory bomb: {}, at most {:.1} % of its limit", output.outcome, share * 100.0);
    let sandbox = inside(Sandbox::builder().memory(KNOWN * 2));
    let output = sandbox.command(program()).args(["allocate"]).output().expect("an allocation");
    assert!(output.outcome.success(), "{output:?}");
    let share = output.usage.memory_peak_bytes.map_or(f64::NAN, |peak| peak as f64 / KNOWN as f64);
    println!("an allocation of {} MiB: memory_peak_bytes is {:.1} % of it", KNOWN >> 20, share * 100.0);
}

fn cpu() {
    let sandbox = inside(Sandbox::builder().cpus(0.5));
    let output = sandbox.command(program()).args(["spin"]).output().expect("a run");
    let used =
        (output.usage.user.unwrap() + output.usage.system.unwrap()).as_secs_f64() / output.usage.wall.as_secs_f64();
    println!("cpus 0.5, four busy threads, {:.1} s: {used:.3} CPUs", output.usage.wall.as_secs_f64());
}

fn starts() {
    let plain = Sandbox::builder().build().expect("a sandbox");
    let limited = Sandbox::builder().memory(LIMIT).pids(32).cpus(0.5).build().expect("a sandbox");
    let run = |sandbox: &Sandbox| {
        let start = Instant::now();
        assert!(sandbox.command("/bin/true").status().expect("a run").outcome.success());
        start.elapsed().as_secs_f64() * 1e6
    };
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..rounds() * 60 {
        without.push(run(&plain));
        with.push(run(&limited));
    }
    let (without, with) = (median(&mut without), median(&mut with));
    println!(
        "start of /bin/true: {without:.0} µs, with memory, pids and cpus {with:.0} µs = {:.2} times",
        with / without
    );
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("work") => println!("{}", work(SLICE)),
        Some("allocate") => {
            let bytes = vec![1u8; KNOWN as usize];
            std::hint::black_box(&bytes);
        }
        Some("tenth") => loop {
            work(Duration::from_millis(10));
            std::thread::sleep(Duration::from_millis(90));
        },
        Some("spin") => std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| work(Duration::from_secs(5)));
            }
        }),
        Some("neighbours") => neighbours(),
        _ => {
            starts();
            memory();
            cpu();
            neighbours();
        }
    }
}
