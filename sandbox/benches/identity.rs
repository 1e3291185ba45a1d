//! A start with leased ids against one with the caller's own, interleaved in one run; for root also with files of the
//! caller's, which are mapped for the leased ids (idmapped mounts). The first start of a handle, which prepares the
//! kept namespace, is told apart. Bar: 1.5 times.

use std::path::Path;
use std::time::Instant;

use sandcell::{Builder, HostIds, Sandbox};

const ROUNDS: usize = 400;

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// One kind of sandbox under the caller's own id and under leased ones.
fn compare(what: &str, make: impl Fn(Builder) -> Builder) {
    let program = std::env::var("BENCH_PROGRAM").unwrap_or_else(|_| "/bin/busybox".into());
    let sandbox = |ids| make(Sandbox::builder()).host_ids(ids).build().expect("a sandbox");
    let (shared, leased) = (sandbox(HostIds::Shared), sandbox(HostIds::Disjoint));
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
    println!("{what}: the caller's own id  {one:8.0} µs");
    println!("{what}: leased, first start  {first:8.0} µs");
    println!("{what}: leased, later        {range:8.0} µs = {:.2} ×", range / one);
}

/// Directories of the caller's for the mounts, gone with the value.
struct Place(std::path::PathBuf);

impl Place {
    fn dir(&self, name: &str) -> std::path::PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(&path).expect("a directory");
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn main() {
    compare("host root", |builder| builder);
    if !nix::unistd::geteuid().is_root() {
        println!("files of the caller's are mapped for leased ids by root only");
        return;
    }
    let place = Place(std::env::temp_dir().join(format!("sandcell-bench-{}", std::process::id())));
    let system = ["/usr", "/bin", "/lib", "/lib64"].into_iter().filter(|path| Path::new(path).exists());
    compare("one bind", |builder| builder.rw(place.dir("bind"), "/mnt/a"));
    compare("four binds", |builder| {
        (0..4).fold(builder, |builder, n| builder.rw(place.dir(&format!("bind{n}")), format!("/mnt/{n}")))
    });
    compare("overlay of four layers", |builder| {
        let builder = (0..4).fold(builder, |builder, n| builder.layer(place.dir(&format!("layer{n}"))));
        system.clone().fold(builder, |builder, path| builder.ro(path, path))
    });
}
