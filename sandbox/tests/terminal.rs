//! What programs, images and archives chose is printed by the program `sandcell` without anything that a terminal acts
//! on, and never as a line that looks like one of its own.

#![cfg(feature = "cli")]

mod common;
mod image_support;
#[path = "common/screen.rs"]
mod screen;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use common::patiently;
use image_support::{Scratch, busybox, kept_upper, store_image, tar};
use screen::Screen;
use serde_json::{Value, json};

const SANDCELL: &str = env!("CARGO_BIN_EXE_sandcell");

const HOSTILE: &str = "\x1b[2J\r\nD /etc/shadow\u{9b}31m\u{202e}\u{2066}\u{200b}\x07";

fn sandcell(words: &[&OsStr]) -> (Vec<u8>, Vec<u8>) {
    let output = Command::new(SANDCELL).args(words).output().expect("the program starts");
    (output.stdout, output.stderr)
}

/// Lines of text that a terminal shows as they are.
fn harmless(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    let odd = |c: &char| c.is_control() && *c != '\n' || "\u{202e}\u{2066}\u{200b}\u{9b}".contains(*c);
    let found: Vec<char> = text.chars().filter(odd).collect();
    assert!(found.is_empty(), "{found:?} in {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("D /etc/shadow")), "a forged line: {text}");
    text.to_owned()
}

#[test]
fn names_of_changed_files_are_escaped_and_exact_in_json() {
    let scratch = Scratch::new("terminal-diff");
    let store = scratch.store();
    store_image(&store, "base:1", &[tar(&busybox())], json!({}));
    let kept = scratch.path("kept");
    let upper = kept_upper(&kept);
    fs::write(upper.join(HOSTILE.replace('/', "_")), "").unwrap();
    fs::write(upper.join(OsStr::from_bytes(b"\xff\xfe")), "").unwrap();
    let place = [OsStr::new("--store"), store.dir().as_os_str()];
    let diff = [&[OsStr::new("diff"), OsStr::new("--base"), OsStr::new("base:1")], &place[..]].concat();
    let (out, err) = sandcell(&[&diff[..], &[kept.as_os_str()]].concat());
    let text = harmless(&out);
    assert!(text.contains(r"A /\u{1b}[2J\r\nD _etc_shadow") && text.contains(r"A /\xff\xfe"), "{text} {err:?}");
    fs::remove_file(upper.join(OsStr::from_bytes(b"\xff\xfe"))).unwrap();
    let (out, _) = sandcell(&[&diff[..], &[OsStr::new("--json"), kept.as_os_str()]].concat());
    let list: Value = serde_json::from_str(&harmless(&out)).unwrap();
    assert_eq!(list[0]["path"], json!(format!("/{}", HOSTILE.replace('/', "_"))));
    let (out, _) = sandcell(&[OsStr::new("files"), OsStr::new("list"), kept.as_os_str()]);
    assert!(harmless(&out).contains(r"\u{1b}[2J"));
    // An error that names such a file.
    let bad = upper.join(".wh.\x1b[2J\n");
    fs::write(&bad, "").unwrap();
    let (_, err) =
        sandcell(&[&[OsStr::new("commit")], &place[..], &[OsStr::new("--base=base:1"), kept.as_os_str()]].concat());
    let text = harmless(&err);
    assert!(text.contains(r".wh.\u{1b}[2J\n") || text.contains(r".wh.\x1b[2J\n"), "{text}");
}

#[test]
fn what_an_image_says_of_itself_is_escaped() {
    let scratch = Scratch::new("terminal-image");
    let store = scratch.store();
    let config = json!({"Cmd": [HOSTILE], "Labels": {HOSTILE: HOSTILE}, "User": HOSTILE});
    store_image(&store, "base:1", &[tar(&busybox())], config);
    let change = store.commit(
        None,
        &sandcell::image::Commit::on("base:1").created_by(HOSTILE).comment(HOSTILE).name("base:2".parse().unwrap()),
    );
    change.unwrap();
    let place = [OsStr::new("--store"), store.dir().as_os_str()];
    for words in [&["history", "--no-trunc"][..], &["history"], &["history", "--json"], &["inspect"]] {
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        let (out, err) = sandcell(&[&words[..], &place[..], &[OsStr::new("base:2")]].concat());
        assert!(harmless(&out).contains("[2J"), "{words:?} {err:?}");
    }
    let (out, _) = sandcell(&[&[OsStr::new("inspect")], &place[..], &[OsStr::new("base:2")]].concat());
    let all: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(all[0]["Config"]["Cmd"][0], json!(HOSTILE), "JSON stays exact");
    let run = ["run", "--image", "base:2"].map(OsStr::new);
    let (_, err) = sandcell(&[&run[..], &place[..], &[OsStr::new("--"), OsStr::new("true")]].concat());
    assert!(harmless(&err).contains("[image-user]"), "{err:?}");
}

#[test]
fn steps_of_a_build_and_what_a_failed_one_wrote_are_escaped() {
    let scratch = Scratch::new("terminal-build");
    let store = scratch.store();
    store_image(&store, "base:1", &[tar(&busybox())], json!({}));
    let context = scratch.path("context");
    fs::create_dir(&context).unwrap();
    let script = r"echo -e '\033[2J\r\nD /etc/shadow\033]0;x\007'; exit 3";
    fs::write(context.join("Dockerfile"), format!("FROM base:1\nLABEL a=\x1b[31m\u{202e}\nRUN {script}\n")).unwrap();
    let build =
        [OsStr::new("build"), OsStr::new("--store"), store.dir().as_os_str(), OsStr::new("-q"), context.as_os_str()];
    let (_, err) = sandcell(&build);
    assert!(harmless(&err).contains(r"[2J"), "{err:?}");
    fs::write(context.join("Dockerfile"), "FROM base:1\nLABEL a=\x1b[31m\u{202e}\n").unwrap();
    let build = [OsStr::new("build"), OsStr::new("--store"), store.dir().as_os_str(), context.as_os_str()];
    let (_, err) = sandcell(&build);
    assert!(harmless(&err).contains(r"STEP 2/2: LABEL a=\u{1b}[31m\u{202e}"), "{err:?}");
}

#[test]
fn command_lines_of_leftovers_are_escaped_and_few() {
    // `exec -a` gives a process any name; bash has it.
    let script = r#"for n in $(seq 40); do (exec -a $'\e[2J\r\nD /etc/shadow'"$(printf x%.0s $(seq 3000))" sleep 1000) & done
        until [ "$(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -c '^1000$')" -ge 40 ]; do :; done"#;
    let words = ["run", "--wait-for-ids", "100s", "--leftovers", "report", "--", "bash", "-c", script].map(OsStr::new);
    let (_, err) = sandcell(&words);
    let text = harmless(&err);
    assert!(text.contains(r"\u{1b}[2J\r\nD /etc/shadow") && text.contains("and 2"), "{text}");
    assert!(text.lines().count() == 1 && text.len() < 20 << 10, "{}", text.len());
}

/// A cell that is gone with the test.
struct Gone(String);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = Command::new(SANDCELL).args(["rm", "-f", &self.0]).output();
    }
}

fn said(words: &[&str]) -> (Vec<u8>, Vec<u8>) {
    sandcell(&words.iter().map(OsStr::new).collect::<Vec<_>>())
}

/// Shown to a pipe and at a terminal: both are read by people.
#[test]
fn what_a_cell_and_its_files_call_themselves_is_escaped_in_lists_logs_and_messages_of_copies() {
    let scratch = Scratch::new("terminal-cell");
    let cell = Gone(format!("terminal-{}", std::process::id()));
    let name = cell.0.as_str();
    let hostile = HOSTILE.replace('/', "_");
    let script = r"printf '\033[2J\033]0;x\007\r\342\200\256shown\n'; sleep 1000; true";
    let (_, err) =
        said(&["start", name, "--wait-for-ids", "100s", "--", "env", &format!("{HOSTILE}=x"), "sh", "-c", script]);
    assert!(err.is_empty(), "{}", String::from_utf8_lossy(&err));
    patiently("what it says", || String::from_utf8_lossy(&said(&["logs", name]).0).contains("shown"));
    // The control: to a pipe a log goes as it was written.
    assert!(said(&["logs", name]).0.contains(&0x1b));
    for words in [&["ps"][..], &["ps", "-a"], &["ps", "--json"], &["stats", name], &["inspect", name]] {
        let (out, err) = said(words);
        let text = harmless(&out) + &harmless(&err);
        assert!(text.contains(name), "{words:?}: {text}");
        let shown = if out.starts_with(b"[") { r"\u001b[2J\r\nD /etc/shadow" } else { r"\u{1b}[2J\r\nD /etc/shadow" };
        assert!(words[0] == "stats" || text.contains(shown), "{words:?}: {text}");
    }
    let mut screen = Screen::shell();
    let ps = harmless(screen.ask("$SANDCELL ps").as_bytes());
    assert!(ps.contains(name) && ps.contains(r"\u{1b}[2J\r\nD"), "{ps}");
    let log = harmless(screen.ask(&format!("$SANDCELL logs {name}")).as_bytes());
    assert!(log.contains(r"\u{1b}[2J") && log.contains("shown"), "{log}");

    // Copies: what is left out on either side, and what cannot be copied.
    let made = scratch.path("made");
    fs::create_dir(&made).unwrap();
    nix::unistd::mkfifo(&made.join(&hostile), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let inside = "mkdir /tmp/out && mkfifo \"/tmp/out/$0\" && echo x > \"/tmp/out/$0.txt\"";
    let (_, err) = said(&["exec", name, "--", "sh", "-c", inside, &hostile]);
    assert!(err.is_empty(), "{}", String::from_utf8_lossy(&err));
    let (made, out) = (made.to_str().unwrap().to_owned(), scratch.path("out"));
    let (into, from) = (format!("{name}:/tmp"), format!("{name}:/tmp/out"));
    let out = out.to_str().unwrap();
    let escaped = r"\u{1b}[2J\r";
    for (number, (source, dest)) in [(&made[..], &into[..]), (&from, out)].into_iter().enumerate() {
        let text = harmless(&said(&["cp", source, dest]).1);
        assert!(text.contains(&format!("left out: {escaped}")) && text.contains("a FIFO"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        let dest = if number == 0 { format!("{name}:/tmp/again") } else { format!("{out}-again") };
        let text = harmless(screen.ask(&format!("$SANDCELL cp {source} {dest}")).as_bytes());
        assert!(text.contains("left out") && text.contains(escaped), "{text}");
    }
    for bad in [format!("{from}/{hostile}"), format!("{from}/none{hostile}")] {
        let text = harmless(&said(&["cp", &bad, &format!("{out}-none")]).1);
        assert!(text.contains(escaped), "{text}");
    }
}
