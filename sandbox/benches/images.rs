//! Loading and unpacking an image, against `podman load` and `umoci unpack`, interleaved in one run.
//!
//! Arguments: DIR, ROUNDS. DIR is a layout from tests/images/make; `tests/bench/images` makes it and calls this. Each
//! figure is the wall time of a whole load of the image into an empty store: every digest verified, every layer
//! unpacked, files in the page cache as with the others.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use sandcell::image::{Load, Source, Store};

fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?}");
}

/// Seconds of a run, which does not pay for what the one before it left to be written and discarded.
fn time(list: &mut Vec<f64>, run: impl FnOnce()) {
    rustix::fs::sync();
    let start = Instant::now();
    run();
    list.push(start.elapsed().as_secs_f64());
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn gone(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}: {error}", path.display());
    }
}

fn skopeo(from: String, to: String, options: &[&str]) {
    run(Command::new("skopeo").args(["--insecure-policy", "copy", "-q"]).args(options).args([from, to]));
}

fn main() {
    // cargo says --bench too.
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let Some(dir) = args.next().map(PathBuf::from) else {
        eprintln!("nothing measured: give the directory that tests/images/make has made");
        return;
    };
    let rounds: usize = args.next().map_or(3, |n| n.parse().expect("a number of rounds"));
    let scratch = dir.with_extension("bench");
    gone(&scratch);
    std::fs::create_dir(&scratch).expect("a directory");
    let path = |name: &str| scratch.join(name);
    let only_ours = std::env::var_os("SANDCELL_BENCH_ALONE").is_some();
    for packing in ["gzip", "zstd"] {
        let (layout, archive) = (path(packing), path(&format!("{packing}.tar")));
        let options = ["--dest-compress", "--dest-compress-format", packing];
        skopeo(format!("oci:{}:five", dir.display()), format!("oci:{}:five", layout.display()), &options);
        skopeo(format!("oci:{}:five", layout.display()), format!("oci-archive:{}:five", archive.display()), &[]);
        let (mut ours, mut podman, mut umoci) = (Vec::new(), Vec::new(), Vec::new());
        // Nothing is removed before the last round: ext4 looks for a new inode among those freed in the last seconds,
        // one after the other, and whoever comes next would pay for it.
        for round in 0..rounds {
            let path = |name: &str| path(&format!("{name}-{round}"));
            let store = Store::open(path("store")).expect("a store");
            time(&mut ours, || {
                let loaded = store.load(&Source::Detect(archive.clone()), &Load::new()).expect("a load");
                assert_eq!(loaded[0].new_layers, 5);
            });
            if only_ours {
                continue;
            }
            let mut command = Command::new("podman");
            command.arg("--root").arg(path("podman")).arg("--runroot").arg(path("podman-run"));
            command.args(["--storage-driver", "overlay"]);
            time(&mut podman, || run(command.args(["load", "-q", "-i"]).arg(&archive)));
            let _ = Command::new("umount").arg(path("podman").join("overlay")).stderr(Stdio::null()).status();
            // umoci 0.4 does not read zstd.
            if packing == "gzip" {
                let mut command = Command::new("umoci");
                command.arg("unpack").arg("--image").arg(format!("{}:five", layout.display())).arg(path("bundle"));
                time(&mut umoci, || run(&mut command));
            }
        }
        for round in 0..rounds {
            for name in ["store", "podman", "podman-run", "bundle"] {
                gone(&path(&format!("{name}-{round}")));
            }
        }
        let ours = median(&mut ours);
        print!("{packing}: sandcell {ours:.2} s");
        for (name, times) in [("podman load", &mut podman), ("umoci unpack", &mut umoci)] {
            if !times.is_empty() {
                let peer = median(times);
                print!("; {name} {peer:.2} s, ratio {:.2}", ours / peer);
            }
        }
        println!(" (medians of {rounds})");
    }
    // A second image with the lower four layers of the first.
    let store = Store::open(path("store")).expect("a store");
    let load = |tag: &str| {
        let layout = path(tag);
        skopeo(format!("oci:{}:{tag}", dir.display()), format!("oci:{}:{tag}", layout.display()), &[]);
        let start = Instant::now();
        let loaded = store.load(&Source::Detect(layout), &Load::new()).expect("a load");
        (loaded[0].new_layers, start.elapsed().as_secs_f64())
    };
    let (first, second) = (load("five"), load("other"));
    assert_eq!((first.0, second.0), (5, 1), "layers unpacked");
    println!("shared: the first image 5 layers in {:.2} s, the second one of 5 in {:.2} s", first.1, second.1);
    gone(&scratch);
}
