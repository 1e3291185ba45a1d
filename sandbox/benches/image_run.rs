//! What it costs that a root is an image of the store: the start against the same layers as plain directories, memory
//! of 100 runs of one image alive at once, and what many layers cost. Interleaved in one run; needs a C compiler and
//! busybox-static.
//!
//! cargo bench --features image --bench image_run

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sandcell::image::{Build, Store};
use sandcell::{Cell, Outcome, Root, Sandbox};

const ROUNDS: usize = 200;
const SETTLE: Duration = Duration::from_millis(3);
const ALIVE: usize = 100;

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A directory of this run's own, gone with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        let path = Path::new("/var/tmp").join(format!("sandcell-bench-image-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A program of a few instructions: a libc would cost more than the sandbox.
fn assemble(dir: &Path, name: &str, code: &str) {
    let source = dir.join(format!("{name}.s"));
    std::fs::write(&source, format!(".globl _start\n_start: {code}\n")).expect("a file");
    let mut cc = Command::new("cc");
    let status = cc.args(["-nostdlib", "-static", "-o"]).arg(dir.join(name)).arg(&source).status();
    assert!(status.expect("a C compiler").success());
}

/// An image of so many layers with a hundred files each; its layers' directories.
fn image(store: &Store, context: &Path, name: &str, layers: usize) -> Vec<PathBuf> {
    let mut build = Build::from("scratch").context(context).copy(["true", "pause", "busybox"], "/bin/");
    for layer in 1..layers {
        let dir = context.join(format!("files-{layer}"));
        std::fs::create_dir_all(&dir).expect("a directory");
        for file in 0..100 {
            std::fs::write(dir.join(format!("{layer}-{file}")), name).expect("a file");
        }
        build = build.copy([format!("files-{layer}")], "/files/");
    }
    let build = build.name(name.parse().expect("a name"));
    store.build(&build, &|_| {}).expect("an image");
    store.use_image(name).expect("the image").layers
}

fn time(list: &mut Vec<f64>, run: &mut dyn FnMut()) {
    std::thread::sleep(SETTLE);
    let start = Instant::now();
    run();
    list.push(start.elapsed().as_secs_f64() * 1e6);
}

fn ends_well(sandbox: &Sandbox, words: &[&str]) {
    let output = sandbox.command(words[0]).args(&words[1..]).output().expect("a run");
    assert_eq!(output.outcome, Outcome::Exited(0));
}

fn starts(store: &Store, layers: &[PathBuf]) {
    let plain =
        || layers.iter().fold(Sandbox::builder(), |builder, dir| builder.layer(dir)).build().expect("a sandbox");
    let image = || Sandbox::builder().store(store.dir()).root(Root::image("three")).build().expect("a sandbox");
    let (ready_plain, ready_image) = (plain(), image());
    let mut times: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        time(&mut times[0], &mut || ends_well(&ready_plain, &["/bin/true"]));
        time(&mut times[1], &mut || ends_well(&ready_image, &["/bin/true"]));
        time(&mut times[2], &mut || ends_well(&plain(), &["/bin/true"]));
        time(&mut times[3], &mut || ends_well(&image(), &["/bin/true"]));
    }
    let [plain, image, new_plain, new_image] = times.map(|mut list| median(&mut list));
    println!("start to exit, a sandbox at hand: layers {plain:.0} us, image {image:.0} us, ratio {:.2}", image / plain);
    let ratio = new_image / new_plain;
    println!(
        "the same with the policy checked each time: layers {new_plain:.0} us, image {new_image:.0} us, ratio {ratio:.2} (bar 1.3)"
    );
}

fn available() -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("/proc");
    let line = text.lines().find(|line| line.starts_with("MemAvailable:")).expect("MemAvailable");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}

fn density(store: &Store) {
    let sandbox = Sandbox::builder().store(store.dir()).root(Root::image("three")).build().expect("a sandbox");
    let mut each = Vec::new();
    for _ in 0..3 {
        let before = available();
        let cells: Vec<Cell> = (0..ALIVE).map(|_| sandbox.start().expect("a cell")).collect();
        let running: Vec<_> = cells.iter().map(|cell| cell.command("/bin/pause").spawn().expect("a program")).collect();
        std::thread::sleep(Duration::from_millis(300));
        each.push((before - available()) / ALIVE as f64);
        drop(running);
        drop(cells);
        std::thread::sleep(Duration::from_millis(500));
    }
    println!("{ALIVE} runs of one image alive at once: {:.0} KB each (bar 500)", median(&mut each));
}

fn depth(store: &Store, context: &Path) {
    println!("layers: start to exit, and `ls -lR` of 100 files a layer, against the same files in one layer");
    for count in [3, 10, 30, 60] {
        let name = format!("deep-{count}");
        image(store, context, &name, count);
        // The same files in one layer.
        let all: Vec<String> = (1..count).map(|layer| format!("files-{layer}")).collect();
        let flat = Build::from("scratch").context(context).copy(["true", "pause", "busybox"], "/bin/");
        let flat = flat.copy(all, "/files/").name(format!("flat-{count}").parse().expect("a name"));
        store.build(&flat, &|_| {}).expect("an image");
        let sandbox =
            |name: &str| Sandbox::builder().store(store.dir()).root(Root::image(name)).build().expect("a sandbox");
        let (deep, flat) = (sandbox(&name), sandbox(&format!("flat-{count}")));
        let mut times: [Vec<f64>; 4] = Default::default();
        let list = ["/bin/busybox", "ls", "-lR", "/files"];
        for _ in 0..20 {
            time(&mut times[0], &mut || ends_well(&deep, &["/bin/true"]));
            time(&mut times[1], &mut || ends_well(&flat, &["/bin/true"]));
            time(&mut times[2], &mut || ends_well(&deep, &list));
            time(&mut times[3], &mut || ends_well(&flat, &list));
        }
        let [deep_start, flat_start, deep_list, flat_list] = times.map(|mut list| median(&mut list));
        println!(
            "{count:3} layers: start {deep_start:.0} us ({:.2} x flat), list {deep_list:.0} us ({:.2} x flat)",
            deep_start / flat_start,
            deep_list / flat_list
        );
    }
}

fn main() {
    let scratch = Scratch::new();
    let context = scratch.0.join("context");
    std::fs::create_dir(&context).expect("a directory");
    assemble(&context, "true", "mov $60, %eax\nxor %edi, %edi\nsyscall");
    assemble(&context, "pause", "mov $34, %eax\nsyscall\njmp _start");
    std::fs::copy("/bin/busybox", context.join("busybox")).expect("busybox-static");
    let store = Store::open(scratch.0.join("store")).expect("a store");
    let layers = image(&store, &context, "three", 3);
    starts(&store, &layers);
    density(&store);
    depth(&store, &context);
}
