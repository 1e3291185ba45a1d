//! What a program can make of the things that come back from it: changed files, leftovers, what was learned, notes.
//! Each reply is data: bounded in memory and time, nothing of the host is read or changed, nothing is executed.

#![cfg(feature = "image")]

mod image_support;
mod live;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use image_support::{Scratch, dir, file, kept_upper, peak_memory, snapshot, store_image, tar};
use live::in_time;
use rustix::fs::{CWD, FileType, Mode, OFlags, XattrFlags, mkdirat, mknodat, openat, setxattr};
use sandcell::image::{Commit, Owners, changes};
use sandcell::{Leftovers, Outcome, Sandbox, printable, subid_tree};
use serde_json::json;

/// What a reply may take of the caller's memory.
const MOST: u64 = 64 << 20;

type Make = Box<dyn Fn(&Path)>;
type Kind = fn(&Path);

/// Names of files that are more than names.
fn names() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x1b]8;;x\x1b\\",
        "\u{9b}31m",
        "\u{90}q\u{9c}",
        "a\nforged",
        "a\r",
        "\t",
        "\x08\x08",
        "\x7f",
        "\u{202e}gpj.exe",
        "\u{2066}x\u{2069}",
        "\u{200b}",
        "\u{feff}",
        "\u{2028}",
        "\u{e0041}",
        "-rf",
        "--help",
        " ",
        "*",
        "$(touch x)",
        "`x`",
        "a;b",
        "\\",
        "\\n",
        "\"",
        "'",
        "%s%n",
        "{}",
        "...",
        "sandcell-ids",
        "sandcell-ids.new",
        "image",
        "lock",
        "upper",
        "work",
        ".removing-1",
        ".dockerignore",
        "con",
        "e\u{301}\u{301}\u{301}",
    ]
    .map(|name| name.as_bytes().to_vec())
    .into();
    all.extend([
        vec![0xff],
        vec![0xc3],
        vec![0xed, 0xa0, 0x80],
        vec![0x80; 255],
        vec![b'x'; 255],
        b"\xf4\x90\x80\x80".to_vec(),
    ]);
    all
}

fn whiteout(path: PathBuf) {
    let _ = mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0);
}

/// Trees that are more than files.
fn trees() -> Vec<(String, Make)> {
    let mut all: Vec<(String, Make)> = Vec::new();
    let mut add = |name: &str, make: Make| all.push((name.to_owned(), make));
    add("fifo", Box::new(|at| mknodat(CWD, at.join("f"), FileType::Fifo, Mode::RWXU, 0).unwrap()));
    add("socket", Box::new(|at| drop(UnixListener::bind(at.join("s")).unwrap())));
    add("link to root", Box::new(|at| symlink("/", at.join("l")).unwrap()));
    add("link to itself", Box::new(|at| symlink("l", at.join("l")).unwrap()));
    add("long link", Box::new(|at| symlink("x/".repeat(2000), at.join("l")).unwrap()));
    add("link to /proc/self/fd", Box::new(|at| symlink("/proc/self/fd", at.join("l")).unwrap()));
    add("endless file", Box::new(|at| File::create(at.join("e")).unwrap().set_len(1 << 42).unwrap()));
    add(
        "unreadable file",
        Box::new(|at| {
            fs::write(at.join("u"), "x").unwrap();
            fs::set_permissions(at.join("u"), PermissionsExt::from_mode(0o000)).unwrap();
        }),
    );
    add(
        "set-id file",
        Box::new(|at| {
            fs::write(at.join("s"), "x").unwrap();
            fs::set_permissions(at.join("s"), PermissionsExt::from_mode(0o6777)).unwrap();
        }),
    );
    add(
        "many names of one file",
        Box::new(|at| {
            fs::write(at.join("0"), "x").unwrap();
            (1..500).for_each(|n| fs::hard_link(at.join("0"), at.join(n.to_string())).unwrap());
        }),
    );
    add("whiteouts of nothing", Box::new(|at| (0..2000).for_each(|n| whiteout(at.join(n.to_string())))));
    add("whiteout of a file", Box::new(|at| whiteout(at.join("old"))));
    add("name of a layer's whiteout", Box::new(|at| fs::write(at.join(".wh.old"), "").unwrap()));
    add("name of a layer's opaque mark", Box::new(|at| fs::write(at.join(".wh..wh..opq"), "").unwrap()));
    for (name, value) in [
        ("opaque", &b"y"[..]),
        ("opaque", b"x"),
        ("opaque", b""),
        ("opaque", &[b'y'; 4000]),
        ("redirect", b"/etc"),
        ("redirect", b"../../../.."),
        ("metacopy", b""),
        ("origin", &[0xff; 64]),
        ("impure", b"y"),
        ("nlink", b"U-1"),
        ("whiteout", b"y"),
        ("protattr", b"i"),
    ] {
        add(
            &format!("overlay.{name} {}", value.len()),
            Box::new(move |at| {
                let place = at.join("d");
                fs::create_dir(&place).unwrap();
                // Some file systems have no space for the longest.
                let _ = setxattr(&place, format!("user.overlay.{name}"), value, XattrFlags::empty());
            }),
        );
    }
    for (name, depth, letters) in [("deep", 5000, 1), ("deep and long", 5000, 255), ("2,000 deep", 2000, 10)] {
        add(
            name,
            Box::new(move |at| {
                let name = "d".repeat(letters);
                let mut dir = rustix::fs::open(at, OFlags::PATH, Mode::empty()).unwrap();
                for _ in 0..depth {
                    mkdirat(&dir, &*name, Mode::RWXU).unwrap();
                    dir = openat(&dir, &*name, OFlags::PATH, Mode::empty()).unwrap();
                }
            }),
        );
    }
    add("wide", Box::new(|at| (0..20_000).for_each(|n| fs::write(at.join(format!("{n:0>200}")), "").unwrap())));
    add("very wide", Box::new(|at| (0..200_000).for_each(|n| whiteout(at.join(n.to_string())))));
    add(
        "opaque over everything",
        Box::new(|at| {
            let _ = setxattr(at, "user.overlay.opaque", b"y", XattrFlags::empty());
        }),
    );
    all
}

/// The memory of the process from now on, above what it has.
fn memory_of(work: impl FnOnce()) -> u64 {
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak_memory();
    work();
    // What was in use before may have been given back since.
    peak_memory().saturating_sub(before)
}

/// One test for all, because memory is counted for the whole process.
#[test]
fn whatever_is_in_an_upper_is_listed_or_refused_within_bounds() {
    let scratch = Scratch::new("replies-upper");
    let store = scratch.store();
    store_image(&store, "base:1", &[tar(&[dir("etc"), file("old", "old"), dir("d"), file("d/x", "x")])], json!({}));
    let layers = store.use_image("base:1").unwrap().layers.clone();
    let before: Vec<_> = layers.iter().map(|layer| snapshot(layer)).collect();
    let mut replies = trees();
    for name in names() {
        let make = move |at: &Path| fs::write(at.join(OsStr::from_bytes(&name)), "x").unwrap();
        replies.push(("a name".to_owned(), Box::new(make)));
    }
    assert!(replies.len() >= 60, "{}", replies.len());
    let mut listed = 0;
    for (number, (name, make)) in replies.iter().enumerate() {
        let kept = scratch.path(&format!("kept-{number}"));
        make(&kept_upper(&kept));
        let (kept, layers, store) = (kept.clone(), layers.clone(), store.clone());
        let taken = memory_of(|| {
            let here = kept.clone();
            listed += in_time(name, move || match changes(&here, &layers) {
                Ok(all) => {
                    for change in &all {
                        let line = printable(change.path.as_os_str().as_bytes());
                        assert!(!line.contains(|c: char| c.is_control()), "{line}");
                    }
                    1
                }
                Err(error) => {
                    assert!(!error.to_string().contains(|c: char| c.is_control()), "{error}");
                    0
                }
            });
        });
        println!("{name}: {} KiB", taken >> 10);
        assert!(taken <= MOST, "{name}: {} MiB", taken >> 20);
        if name == "very wide" {
            in_time(name, move || subid_tree::remove(&kept).unwrap());
            continue;
        }
        // The other readers of the same tree; what they take is theirs (a file that is copied has its size).
        let here = kept.clone();
        in_time(name, move || {
            let _ = subid_tree::list(&here);
            let _ = Owners::of_upper(&here).unwrap();
            let _ = sandcell::image::base_of(&here).unwrap();
        });
        if name != "endless file" && name != "wide" {
            let here = kept.clone();
            in_time(name, move || drop(store.commit(Some(&here), &Commit::on("base:1"))));
        }
        in_time(name, move || subid_tree::remove(&kept).unwrap());
    }
    assert!(listed > 60, "most of them are files like others: {listed} of {}", replies.len());
    assert_eq!(layers.iter().map(|layer| snapshot(layer)).collect::<Vec<_>>(), before);
}

#[test]
fn what_the_library_did_not_write_is_not_its_note() {
    let scratch = Scratch::new("replies-notes");
    let kinds: [(&str, Kind); 5] = [
        ("fifo", |at| mknodat(CWD, at, FileType::Fifo, Mode::RWXU, 0).unwrap()),
        ("directory", |at| fs::create_dir(at).unwrap()),
        ("link", |at| symlink("/etc/passwd", at).unwrap()),
        ("long", |at| File::create(at).unwrap().set_len(1 << 40).unwrap()),
        ("nonsense", |at| fs::write(at, "uid 0 0 0\n\x1b").unwrap()),
    ];
    for (name, make) in kinds {
        for note in ["sandcell-ids", "image"] {
            let kept = scratch.path(&format!("{name}-{note}"));
            kept_upper(&kept);
            make(&kept.join(note));
            let here = kept.clone();
            let (owners, base) = in_time(name, move || (Owners::of_upper(&here), sandcell::image::base_of(&here)));
            if note == "sandcell-ids" {
                assert!(!owners.expect_err(name).to_string().contains("root:"), "{name}");
            } else if name != "nonsense" {
                assert!(!base.expect_err(name).to_string().contains("root:"), "{name}");
            }
        }
    }
}

#[test]
fn a_note_in_what_a_program_wrote_tells_nothing() {
    let scratch = Scratch::new("replies-false-note");
    let false_note = "uid 77 0 4294967295\ngid 77 0 4294967295\n";
    let kept = scratch.path("kept");
    let upper = kept_upper(&kept);
    fs::create_dir(kept.join("work/work")).unwrap();
    fs::write(upper.join("file"), "").unwrap();
    fs::write(upper.join("sandcell-ids"), false_note).unwrap();
    // And one that looks like a whole kept upper.
    fs::create_dir_all(upper.join("fake/work/work")).unwrap();
    fs::create_dir_all(upper.join("fake/upper")).unwrap();
    fs::write(upper.join("fake/upper/file"), "").unwrap();
    fs::write(upper.join("fake/sandcell-ids"), false_note).unwrap();
    for tree in ["kept", "kept/upper", "kept/upper/fake", "kept/upper/fake/upper"] {
        let entries = subid_tree::list(scratch.path(tree)).unwrap();
        assert!(entries.iter().all(|entry| entry.uid.is_none() && entry.gid.is_none()), "{tree}: {entries:?}");
    }
    // The control: beside the upper it is the library's.
    fs::write(kept.join("sandcell-ids"), "uid 0 0 4294967295\ngid 0 0 4294967295\n").unwrap();
    assert!(subid_tree::list(&upper).unwrap().iter().all(|entry| entry.uid == Some(entry.host_uid)));
    // What is given to the caller loses the library's note, and the program's file stays.
    subid_tree::reclaim(&upper).unwrap();
    assert!(!kept.join("sandcell-ids").exists() && upper.join("sandcell-ids").exists());
}

#[test]
fn leftovers_are_bounded_whatever_they_call_themselves() {
    if !image_support::installed("python3") {
        return;
    }
    // Each with a name of its own for the whole command line; the last is as long as the kernel takes. Then those whose
    // short name looks like fields of /proc/PID/stat, and one whose main thread has ended, of which no command line is left.
    let script = "import ctypes, os, platform, sys, threading, time
libc = ctypes.CDLL(None)
def child(act):
    read, write = os.pipe()
    if os.fork() == 0:
        act(write)
        time.sleep(1000)
    assert os.read(read, 1) == b'.'
def named(name):
    return lambda write: (libc.prctl(15, name), os.write(write, b'.'))
def headless(write):
    def rest():
        while open(f'/proc/self/task/{os.getpid()}/stat', 'rb').read().rpartition(b')')[2].split()[0] != b'Z':
            pass
        os.write(write, b'.')
        time.sleep(1000)
    threading.Thread(target=rest).start()
    libc.syscall(93 if platform.machine() == 'aarch64' else 60, 0)
for word in sys.argv[2].split(','):
    child(named(bytes.fromhex(word)))
child(headless)
names = [bytes.fromhex(word) for word in sys.argv[1].split(',')] + [b'x' * 100000, b'\\xff' * 100000]
for name in names:
    if os.fork() == 0:
        os.execv('/bin/sleep', [name, '1000'])
while sum(open(f'/proc/{p}/cmdline', 'rb').read().endswith(b'\\x001000\\x00') for p in os.listdir('/proc') if p.isdigit()) < len(names):
    pass
print('all')
";
    let names: Vec<Vec<u8>> = names().into_iter().chain((0..20).map(|n| format!("\x1b[{n}m").into_bytes())).collect();
    let comms: [&[u8]; 12] = [
        b"\x1b[2J\x1b[31m",
        b"\x1b]0;t\x07",
        b"\xff\xfe\xed\xa0\x80",
        b"\xc2\x9b31m",
        b"",
        b"\n",
        b"a\nforged 1 2",
        b") Z 1 1 1 0 (",
        b"x) R 0 0 0",
        b"((((((((((((((((",
        b"\xe2\x80\xaegpj.exe",
        b"pid 1: init",
    ];
    let hex = |names: &[&[u8]]| {
        let of = |name: &&[u8]| name.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        names.iter().map(of).collect::<Vec<_>>().join(",")
    };
    let names: Vec<&[u8]> = names.iter().map(|name| &name[..]).collect();
    // A report has 64 at most: all of two halves are told.
    let halves =
        [names.split_at(names.len() / 2).0, names.split_at(names.len() / 2).1].into_iter().zip(comms.chunks(6));
    let mut told = 0;
    for (names, comms) in halves {
        let sandbox = Sandbox::builder().leftovers(Leftovers::Report).build().unwrap();
        let (by_line, by_name) = (hex(names), hex(comms));
        let run = move || sandbox.command("python3").args(["-c", script, &by_line, &by_name]).output();
        let output = in_time("the run", run).unwrap_or_else(|error| panic!("{error} {}", error.hint()));
        assert_eq!(output.outcome, Outcome::Exited(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.report.leftovers.len(), names.len() + 2 + comms.len() + 1, "{:?}", output.report.leftovers);
        for left in &output.report.leftovers {
            assert!(left.command.len() <= 4096, "{}", left.command.len());
            assert!(!printable(&left.command).contains(|c: char| c.is_control()));
        }
        told += output.report.leftovers.len();
        let json = sandcell::report::to_json(&Ok(output.report));
        assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok() && json.len() < 1 << 20);
    }
    println!("{told} replies");
    assert!(told >= 60, "{told}");
}

#[test]
fn what_is_learned_is_a_profile_whatever_was_called() {
    if !image_support::installed("python3") {
        return;
    }
    // Calls of no number, of other tables, with arguments that are none: one after another, 4,000 in all.
    let script = "import ctypes, random
libc = ctypes.CDLL(None, use_errno=True)
skip = {15, 56, 57, 58, 59, 60, 61, 62, 231, 234, 247, 322, 435, 34, 35, 230, 23, 7, 202, 271, 270, 48, 219, 128, 130, 0, 1, 19, 45, 47, 232, 281, 449, 9, 10, 11, 12, 25, 3, 436, 33, 292, 72, 13, 14, 131, 158, 218, 273, 334, 435, 41, 43, 288, 65, 71, 220, 208, 243, 299, 295, 17, 213, 291}
random.seed(7)
for n in list(range(0, 480)) + [2**31 - 1, 2**30, 0x40000000, 0x40000001, 1023, 4095, 65535, -1]:
    if n in skip:
        continue
    for k in range(8):
        libc.syscall(ctypes.c_long(n), *[ctypes.c_long(random.choice([0, 1, -1, 2**63 - 1, 7 << 32, 255])) for _ in range(2)])
print('done')
";
    let sandbox = Sandbox::builder().build().unwrap();
    let output = in_time("learning", move || sandbox.command("python3").args(["-c", script]).learn(true).output());
    let report = output.unwrap_or_else(|error| panic!("{error} {}", error.hint())).report;
    // The program may well end by what it did to itself; what was learned until then is a profile.
    let profile = report.learned.expect("a profile");
    let text = profile.to_json().unwrap();
    assert!(text.len() < 1 << 20, "{}", text.len());
    let again = sandcell::seccomp::Profile::from_json(&text).expect("its own JSON");
    assert_eq!(again.to_json().unwrap(), text);
}
