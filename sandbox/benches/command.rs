//! A program in a started cell against `posix_spawn` (std::process) of the same one, start to exit, interleaved: where the
//! next command comes at once, and where the cell has had a moment to make ready for it.
//!
//! `cargo bench --bench command`; a number after `--` is how many rounds.

use std::process::Command;
use std::time::{Duration, Instant};

use sandcell::Sandbox;

#[path = "common/program.rs"]
mod program;

/// What a cell may do between two commands.
const PAUSES: [(&str, Duration); 2] = [("after 3 ms", Duration::from_millis(3)), ("at once", Duration::ZERO)];

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn time(list: &mut Vec<f64>, pause: Duration, run: &dyn Fn()) {
    if !pause.is_zero() {
        std::thread::sleep(pause);
    }
    let start = Instant::now();
    run();
    list.push(start.elapsed().as_secs_f64() * 1e6);
}

fn main() {
    let rounds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(1000);
    let program = program::Static::new();
    let sandbox = Sandbox::builder().ro(program.path(), "/run/true").build().expect("a sandbox");
    let cell = sandbox.start().expect("a cell");
    for (name, pause) in PAUSES {
        let mut lists: [Vec<f64>; 2] = Default::default();
        for _ in 0..rounds {
            time(&mut lists[0], pause, &|| assert!(Command::new(program.path()).status().unwrap().success()));
            time(&mut lists[1], pause, &|| assert!(cell.command("/run/true").status().unwrap().outcome.success()));
        }
        let [plain, inside] = lists.each_mut().map(|list| median(list));
        println!("the next command {name}, median of {rounds}");
        println!("  posix_spawn    {plain:8.0} µs");
        println!("  in a cell      {inside:8.0} µs = {:.2} × posix_spawn", inside / plain);
    }
}
