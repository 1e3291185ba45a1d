//! The subcommands about images, as their users meet them.

#![cfg(feature = "image")]

mod image_support;

use std::path::PathBuf;
use std::process::Command;

use image_support::*;
use serde_json::{Value, json};

/// A store of this test and the program's way to it.
struct Desk {
    scratch: Scratch,
}

impl Desk {
    fn new(name: &str) -> Desk {
        Desk { scratch: Scratch::new(name) }
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path(name).to_str().unwrap().to_owned()
    }

    /// Status, standard output, standard error.
    fn run(&self, words: &[&str]) -> (Option<i32>, String, String) {
        // The store is the default one of this test's data directory.
        let output = Command::new(env!("CARGO_BIN_EXE_sandcell"))
            .args(words)
            .env("XDG_DATA_HOME", self.scratch.path("data"))
            .output()
            .expect("the program starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    fn done(&self, words: &[&str]) -> String {
        let (status, out, err) = self.run(words);
        assert_eq!(status, Some(0), "{words:?}: {err}");
        out
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.done(words)).unwrap()
    }

    fn refused(&self, words: &[&str], why: &str) {
        let (status, _, err) = self.run(words);
        assert_eq!(status, Some(125), "{words:?}: {err}");
        assert!(err.contains(why), "{words:?}: {err}");
    }

    /// An archive of an image of busybox, named `app:1`.
    fn archive(&self) -> PathBuf {
        let layout = Layout::new(self.scratch.path("layout"));
        let tars = [tar(&busybox()), tar(&[file("srv/new", "new")])];
        let layers = tars.iter().map(|tar| layout.descriptor(LAYER, tar)).collect();
        let mut config = layout.config(&tars);
        config["config"] = json!({"Entrypoint": ["sh", "-c"], "Cmd": ["echo the image; id -u"], "User": "7"});
        config["history"][1]["created_by"] =
            json!("a command that is much too long to stand in a table of the terminal");
        let manifest = layout.manifest(&config, layers);
        layout.index(vec![layout.entry(&manifest, "app:1")]);
        layout.dir
    }
}

fn rows(table: &str) -> Vec<Vec<String>> {
    table
        .lines()
        .map(|line| line.split("  ").filter(|c| !c.is_empty()).map(|c| c.trim().to_owned()).collect())
        .collect()
}

#[test]
fn an_image_goes_through_its_life_on_the_command_line() {
    let desk = Desk::new("cli-life");
    let archive = desk.archive();
    assert_eq!(desk.done(&["load", archive.to_str().unwrap()]), "Loaded image: app:1\n");
    assert_eq!(desk.done(&["run", "--image", "app:1"]), "the image\n7\n");
    assert_eq!(desk.done(&["run", "--image", "app:1", "--user", "root", "--", "id -u"]), "0\n");
    assert_eq!(desk.done(&["run", "--image", "app:1", "--entrypoint", "/bin/echo", "--", "-n", "own"]), "own");

    let upper = desk.path("upper");
    desk.done(&["run", "--image", "app:1", "--upper", &upper, "--", "echo x > /srv/x"]);
    assert_eq!(desk.done(&["diff", &upper]), "C /srv\nA /srv/x\n");
    assert_eq!(desk.json(&["diff", "--json", &upper])[1], json!({"path": "/srv/x", "kind": "A"}));
    let id =
        desk.done(&["commit", "--author", "me", "-m", "why", "--created", "2026-01-02T03:04:05Z", &upper, "app:2"]);
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(desk.done(&["run", "--image", "app:2", "--", "cat /srv/x"]), "x\n");

    let history = rows(&desk.done(&["history", "app:2"]));
    assert_eq!(history[0], ["ID", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    assert_eq!((&history[1][2][..], &history[1][4][..]), ("sandcell commit", "why"));
    assert!(history[2].iter().any(|cell| cell.starts_with("a command that is") && cell.ends_with('…')), "{history:?}");
    assert!(desk.done(&["history", "--no-trunc", "app:2"]).contains("table of the terminal"));
    assert_eq!(desk.json(&["history", "--json", "app:2"]).as_array().unwrap().len(), 3);
    assert_eq!(desk.json(&["inspect", "app:2"])[0]["Config"]["User"], "7");

    desk.done(&["tag", "app:2", "localhost/other"]);
    let images = rows(&desk.done(&["images"]));
    assert_eq!(images[0], ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED"]);
    let names: Vec<String> = images[1..].iter().map(|row| row[..2].join(":")).collect();
    assert_eq!(names, ["app:1", "app:2", "localhost/other:latest"]);
    assert_eq!(desk.json(&["images", "--json"])[0]["Names"], json!(["app:1"]));
    assert_eq!(desk.done(&["images", "-q"]).lines().count(), 2);

    let copy = desk.path("copy.tar");
    desk.done(&["save", "--format", "docker-archive", "-o", &copy, "app:2"]);
    desk.refused(&["save", "-o", &copy, "app:2"], "already");
    let gone = desk.done(&["rm", "app:2", "localhost/other"]);
    assert!(gone.starts_with("Untagged: app:2\nDeleted: sha256:"), "{gone}");
    assert_eq!(desk.done(&["load", &copy]), "Loaded image: app:2\n");
    desk.done(&["rm", "app:1", "app:2"]);
    assert!(desk.done(&["prune"]).contains("Reclaimed: 0 B"));
    assert_eq!(rows(&desk.done(&["images"])).len(), 1);
}

#[test]
fn volumes_are_listed_and_removed_on_the_command_line() {
    let desk = Desk::new("cli-volumes");
    desk.done(&["load", desk.archive().to_str().unwrap()]);
    let run = ["run", "--image", "app:1", "--user", "root", "--volume"];
    desk.done(&[&run[..], &["data:/data", "--", "echo kept > /data/x"]].concat());
    assert_eq!(
        desk.done(&[&run[..], &["data:/seen:ro", "--", "cat /seen/x; touch /seen/y || echo no"]].concat()),
        "kept\nno\n"
    );
    let table = rows(&desk.done(&["volume", "ls"]));
    assert_eq!(
        (&table[0][..], &table[1][0][..]),
        (&["VOLUME NAME", "CREATED", "IN USE"].map(String::from)[..], "data")
    );
    assert_eq!(desk.json(&["volume", "ls", "--json"])[0]["InUse"], false);
    assert_eq!(desk.done(&["volume", "rm", "data"]), "data\n");
    desk.refused(&["volume", "rm", "data"], "no such volume");
    desk.refused(&[&run[..], &["data", "--", "true"]].concat(), "NAME:DEST");
}

#[test]
fn a_root_file_system_becomes_an_image_on_the_command_line() {
    let desk = Desk::new("cli-rootfs");
    let archive = desk.path("root.tar");
    std::fs::write(&archive, tar(&busybox())).unwrap();
    desk.refused(&["load", &archive], "neither an OCI layout");
    assert_eq!(desk.done(&["load", "--format", "rootfs", "-t", "base", &archive]), "Loaded image: base:latest\n");
    assert_eq!(desk.done(&["run", "--image", "base", "--", "/bin/echo", "here"]), "here\n");
    assert_eq!(desk.done(&["load", "-q", "--format", "rootfs", "-t", "base", &archive]), "");
}

#[test]
fn a_dockerfile_is_built_on_the_command_line() {
    let desk = Desk::new("cli-build");
    desk.done(&["load", desk.archive().to_str().unwrap()]);
    let context = desk.scratch.path("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("page"), "page\n").unwrap();
    let dockerfile = "FROM app:1\nARG WORD=none\nCOPY page /srv/\nUSER root\nRUN echo $WORD; echo $WORD > /srv/word\nENTRYPOINT [\"cat\"]\n";
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let context = context.to_str().unwrap();
    let build = ["build", "-t", "made:1", "--build-arg", "WORD=given", "--timestamp", "1700000000"];
    let (status, out, err) = desk.run(&[&build[..], &[context]].concat());
    assert_eq!(status, Some(0), "{err}");
    assert!(err.contains("STEP 1/6: FROM app:1") && err.contains("STEP 5/6: RUN echo $WORD"), "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0] == "given" && lines[1].starts_with("sha256:"), "{out}");
    assert_eq!(desk.done(&[&build[..], &["-q", context]].concat()), format!("{}\n", lines[1]), "the same again");
    assert_eq!(desk.done(&["run", "--image", "made:1", "--", "/srv/word", "/srv/page"]), "given\npage\n");
    assert_eq!(desk.json(&["inspect", "made:1"])[0]["Created"], "2023-11-14T22:13:20Z");

    std::fs::write(desk.path("Other"), "FROM app:1\nADD https://example.com/x /\n").unwrap();
    desk.refused(
        &["build", "-f", &desk.path("Other"), context],
        "Other:2: ADD https://example.com/x: addresses are not supported",
    );
    desk.refused(&["build", "-f", "/nonexistent", context], "cannot be read");
    let saved = Command::new("sh")
        .args(["-c", "XDG_DATA_HOME=\"$1\" \"$0\" save --format docker-archive made:1 | \"$0\" load --store \"$2\""])
        .args([env!("CARGO_BIN_EXE_sandcell"), &desk.path("data"), &desk.path("other")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&saved.stdout), "Loaded image: made:1\n", "{saved:?}");
    desk.refused(&["save", "--format", "oci-dir", "made:1"], "a directory cannot be written to a stream");
    let (status, _, err) = desk.run(&["build", "--build-arg", "NONE=1", context]);
    assert!(status == Some(0) && err.contains("warning: --build-arg NONE: no ARG of that name"), "{err}");

    let upper = desk.path("upper");
    desk.done(&["run", "--image", "made:1", "--upper", &upper, "--", "/srv/page"]);
    desk.done(&["commit", "-c", "ENV A=\"b c\"", "-c", "CMD [\"/srv/word\"]", &upper, "made:2"]);
    assert_eq!(desk.done(&["run", "--image", "made:2"]), "given\n");
    desk.refused(&["commit", "-c", "RUN true", &upper], "more than the configuration");
}

#[test]
fn mistakes_about_images_are_one_error_and_status_125() {
    let desk = Desk::new("cli-mistakes");
    desk.refused(&["run", "--image", "nowhere", "true"], "no such image");
    desk.refused(&["run", "--image", "a", "--root", "host", "true"], "cannot be used with");
    desk.refused(&["run", "--entrypoint", "x"], "required");
    desk.refused(&["run"], "required");
    desk.refused(&["rm", "nowhere"], "neither a cell nor an image");
    desk.refused(&["inspect", "a b"], "does not parse");
    desk.refused(&["load", "/nonexistent"], "No such file");
    desk.refused(&["load", "-t", "UPPER", "/"], "does not parse");
    desk.refused(&["diff", "/nonexistent"], "which image it lies on");
    desk.refused(&["images", "--store", "/proc/nonexistent"], "No such file");
}
