//! A start with leased ids against one with the caller's own, interleaved in one run. The first start of a handle,
//! which prepares the kept namespace, is told apart. Bar: 1.5 times.

use std::time::Instant;

use sandcell::{HostIds, Sandbox};

const ROUNDS: usize = 400;

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let program = std::env::var("BENCH_PROGRAM").unwrap_or_else(|_| "/bin/busybox".into());
    let make = |ids| Sandbox::builder().host_ids(ids).build().expect("a sandbox");
    let (shared, leased) = (make(HostIds::Shared), make(HostIds::Disjoint));
    let run = |sandbox: &Sandbox| {
        let start = Instant::now();
        assert!(sandbox.command(&program).arg("true").status().expect("a run").outcome.success());
        start.elapsed().as_secs_f64() * 1e6
    };
    let first = run(&leased);
    let (mut one, mut range) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        one.push(run(&shared));
        range.push(run(&leased));
    }
    let (one, range) = (median(&mut one), median(&mut range));
    println!("the caller's own id  {one:8.0} µs");
    println!("leased, first start  {first:8.0} µs");
    println!("leased, later        {range:8.0} µs = {:.2} ×", range / one);
}
