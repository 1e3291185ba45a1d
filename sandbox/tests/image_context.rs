//! The context of a build is somebody else's: nothing outside is read, nothing blocks, and nothing takes without end.
//! `SANDCELL_RACES=100000` makes the race long, as in live_trees.rs.

#![cfg(feature = "image")]

mod image_support;
mod live;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use image_support::{Scratch, installed, peak_memory};
use live::{Exchanging, Outside, in_time};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use sandcell::Error;
use sandcell::image::{Build, Store};
use serde_json::json;

type Make = fn(PathBuf);

struct Site {
    scratch: Scratch,
    store: Store,
    context: PathBuf,
}

impl Site {
    fn new(name: &str) -> Site {
        let scratch = Scratch::new(name);
        let (store, context) = (scratch.store(), scratch.path("context"));
        fs::create_dir(&context).unwrap();
        fs::write(context.join("file"), "content").unwrap();
        Site { scratch, store, context }
    }

    /// Builds an image of what `COPY` copies, with a deadline.
    fn copy_in_time(&self, source: &str) -> Result<(), Error> {
        let (store, context, source) = (self.store.clone(), self.context.clone(), source.to_owned());
        in_time("the build", move || {
            let build = Build::from("scratch").context(context).copy([source], "/c/");
            store.build(&build, &|_| {}).map(drop)
        })
    }
}

fn fifo(path: PathBuf) {
    mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
}

fn huge(path: PathBuf) {
    File::create(path).unwrap().set_len(1 << 40).unwrap();
}

#[test]
fn a_dockerignore_that_is_no_short_file_is_refused() {
    let kinds: [(&str, &str, Make); 5] = [
        ("fifo", "a FIFO", fifo),
        ("directory", "a directory", |path| fs::create_dir(path).unwrap()),
        ("huge", "longer than", huge),
        ("outside", "leads out of the context", |path| symlink("/etc/passwd", path).unwrap()),
        ("dangling", "No such file", |path| symlink("nothing", path).unwrap()),
    ];
    for (name, why, make) in kinds {
        let site = Site::new(&format!("context-ignore-{name}"));
        site.copy_in_time("file").expect("the control: without it the file is copied");
        make(site.context.join(".dockerignore"));
        let error = site.copy_in_time("file").expect_err(name);
        assert!(format!("{error} {}", error.hint()).contains(why), "{name}: {error}");
    }
    let site = Site::new("context-ignore-link");
    fs::write(site.context.join("rules"), "file\n").unwrap();
    symlink("rules", site.context.join(".dockerignore")).unwrap();
    let error = site.copy_in_time("file").expect_err("a link within the context counts");
    assert!(error.to_string().contains(".dockerignore takes it out"), "{error}");
}

#[test]
fn a_device_as_dockerignore_is_refused() {
    let site = Site::new("context-ignore-device");
    let zero = rustix::fs::makedev(1, 5);
    if mknodat(CWD, site.context.join(".dockerignore"), FileType::CharacterDevice, Mode::RWXU, zero).is_err() {
        eprintln!("SKIPPED: only the host's root can make a device");
        return;
    }
    let error = site.copy_in_time("file").expect_err("a device");
    assert!(error.to_string().contains("is a device"), "{error}");
}

#[test]
fn a_dockerfile_that_is_no_short_file_is_refused() {
    let kinds: [(&str, &str, Make); 3] = [
        ("fifo", "a FIFO", fifo),
        ("huge", "longer than", huge),
        ("zero", "a device", |path| symlink("/dev/zero", path).unwrap()),
    ];
    for (name, why, make) in kinds {
        let site = Site::new(&format!("context-dockerfile-{name}"));
        let path = site.context.join("Dockerfile");
        make(path.clone());
        let error = in_time("reading a Dockerfile", move || Build::dockerfile_at(path)).expect_err(name);
        assert!(error.to_string().contains(why), "{name}: {error}");
        assert!(error.subject().contains("Dockerfile"), "{error}");
    }
    let site = Site::new("context-dockerfile-fine");
    fs::write(site.context.join("real"), "FROM scratch\nCOPY file /f\n").unwrap();
    symlink("real", site.context.join("Dockerfile")).unwrap();
    let build = Build::dockerfile_at(site.context.join("Dockerfile")).expect("a link to a file");
    site.store.build(&build.context(&site.context), &|_| {}).expect("built");
}

/// Each line may repeat what others have said: a short text stands for one without end.
#[test]
fn a_dockerfile_whose_variables_repeat_each_other_is_refused() {
    let doubled = |times: usize| format!("FROM scratch\nENV A=0123456789abcdef\n{}", "ENV A=$A$A\n".repeat(times));
    let repeated = |line: fn(usize) -> String| doubled(14) + &(0..1000).map(line).collect::<String>();
    let nested = format!("FROM scratch\nENV A={}b{}\n", "${x:-".repeat(50_000), "}".repeat(50_000));
    let cases = [
        ("one", doubled(40), "longer than"),
        ("variables", repeated(|number| format!("ENV B{number}=$A\n")), "variables and labels"),
        ("arguments", repeated(|number| format!("ARG B{number}=$A\n")), "variables and labels"),
        ("labels", repeated(|number| format!("LABEL B{number}=$A\n")), "variables and labels"),
        ("nested", nested, "nested"),
    ];
    let site = Site::new("repeated");
    let built = |text: &str| {
        let (store, build) = (site.store.clone(), Build::dockerfile(text, "Dockerfile").unwrap());
        in_time("the build", move || store.build(&build, &|_| {}).map(drop))
    };
    // The control: a value of 256 KiB is taken.
    built(&doubled(14)).unwrap();
    for (name, text, why) in cases {
        let error = built(&text).expect_err(name);
        assert!(matches!(error, Error::Config(_)) && error.to_string().contains(why), "{name}: {error}");
    }
}

#[test]
fn patterns_that_fit_in_many_ways_take_no_time() {
    let site = Site::new("context-patterns");
    fs::write(site.context.join("a".repeat(200)), "").unwrap();
    let pattern = "*a".repeat(100) + "b";
    let error = site.copy_in_time(&pattern).expect_err("fits nothing");
    assert!(error.to_string().contains("no such file"), "{error}");
    fs::create_dir_all(site.context.join("a/".repeat(60))).unwrap();
    fs::write(site.context.join(".dockerignore"), "**/a/".repeat(40) + "b\n" + &pattern).unwrap();
    site.copy_in_time(".").expect("copied");
}

#[test]
fn a_link_put_in_the_place_of_a_file_copies_nothing_from_outside() {
    let site = Site::new("context-race");
    let outside = Outside::new(site.scratch.path("outside"));
    fs::create_dir(site.context.join("dir")).unwrap();
    let spot = site.context.join("dir/spot");
    // As long as the secret, so that it would fit; and what takes its time comes before it.
    fs::write(&spot, "x".repeat(outside.secret.len())).unwrap();
    fs::write(site.context.join("dir/large"), vec![7; 1 << 20]).unwrap();
    let mut copied = 0;
    for start in [Exchanging::with_link, Exchanging::start] {
        let exchanging = start(&spot, &site.scratch.path(&format!("pool-{copied}")), &outside);
        exchanging.meanwhile(30, || {
            for source in ["dir", "dir/sp*", "."] {
                copied += usize::from(site.copy_in_time(source).is_ok());
            }
        });
    }
    assert!(copied > 0, "the control: now and then nothing is in the way");
    outside.is_as_before();
    outside.is_not_in(&site.scratch.path("store"));
}

#[test]
fn a_context_of_any_depth_is_copied_or_refused_with_few_descriptors() {
    if !installed("prlimit") {
        return;
    }
    if std::env::var_os("SANDCELL_FEW").is_none() {
        let test = std::env::current_exe().unwrap();
        let mut few = std::process::Command::new("prlimit");
        few.args(["--nofile=64:64"]).arg(test).env("SANDCELL_FEW", "1");
        few.args(["--exact", "a_context_of_any_depth_is_copied_or_refused_with_few_descriptors", "--nocapture"]);
        let output = few.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let site = Site::new("context-deep");
    fs::create_dir_all(site.context.join("d/".repeat(1000))).unwrap();
    site.copy_in_time(".").expect("1,000 directories in each other");
    let mut dir = rustix::fs::open(site.context.join("d"), rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    for _ in 0..5000 {
        let _ = rustix::fs::mkdirat(&dir, "d", Mode::RWXU);
        dir = rustix::fs::openat(&dir, "d", rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    }
    let error = site.copy_in_time(".").expect_err("no layer can hold such a path");
    assert!(error.to_string().contains("too long for a layer"), "{error}");
    sandcell::subid_tree::remove(&site.context).expect("removed");
}

/// What a program of a step writes is for the error alone, of which it is the end.
#[test]
fn the_output_of_a_step_that_is_not_shown_takes_no_memory() {
    let site = Site::new("context-output");
    image_support::store_image(&site.store, "base:1", &[image_support::tar(&image_support::busybox())], json!({}));
    let text = "FROM base:1\nRUN yes 0123456789 | head -c 400000000; echo the end; echo of both >&2; exit 3\n";
    let (store, build) = (site.store.clone(), Build::dockerfile(text, "Dockerfile").unwrap());
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak_memory();
    let error = in_time("the build", move || store.build(&build, &|_| {}).map(drop)).expect_err("a step that fails");
    let grown = peak_memory().saturating_sub(before);
    assert!(error.hint().contains("the end") && error.hint().contains("of both"), "{}", error.hint());
    // Others of these tests may run beside.
    assert!(grown < 100 << 20, "{} MiB", grown >> 20);
}
