//! Devices by the Container Device Interface: a tree of specifications as vendors write them.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{Scratch, text};

fn sandcell(dirs: &[&Path], options: &[&str], script: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandcell"));
    command.arg("run");
    for dir in dirs {
        command.arg("--cdi-dir").arg(dir);
    }
    command.args(options).args(["--", "sh", "-c", script]).output().unwrap()
}

const ACME: &str = r#"{ "cdiVersion": "0.6.0", "kind": "acme.com/card",
  "containerEdits": { "env": ["ACME=all"], "hooks": [ { "hookName": "createContainer", "path": "/opt/acme/hook", "args": ["hook"] } ] },
  "devices": [
    { "name": "one", "containerEdits": {
        "deviceNodes": [ { "path": "/dev/acme/one", "hostPath": "/dev/full", "type": "c", "major": 1, "minor": 7, "permissions": "rw" } ],
        "mounts": [ { "hostPath": "LIBRARY", "containerPath": "/opt/acme/lib", "options": ["ro", "nosuid", "nodev", "bind", "noatime"] } ],
        "env": ["ACME_ONE=1"], "additionalGids": [44] } },
    { "name": "two", "containerEdits": { "deviceNodes": [ { "path": "/dev/acme/two", "hostPath": "/dev/zero" } ] } },
    { "name": "liar", "containerEdits": { "deviceNodes": [ { "path": "/dev/acme/x", "hostPath": "/dev/full", "major": 1, "minor": 5 } ] } },
    { "name": "odd", "containerEdits": { "wishes": [ 1 ] } }
  ] }"#;

#[test]
fn what_a_specification_asks_for_is_given_or_named() {
    let scratch = Scratch::new();
    let library = scratch.file("lib/file", "library").parent().unwrap().to_owned();
    let dir = scratch.dir("cdi");
    scratch.file("cdi/acme.json", &ACME.replace("LIBRARY", library.to_str().unwrap()));
    let script = "echo $ACME $ACME_ONE; test -c /dev/acme/one && echo one; test -c /dev/acme/two && echo two; \
        cat /opt/acme/lib/file; (: >/opt/acme/lib/new) 2>/dev/null || echo ' read-only'; head -c1 /dev/acme/one | wc -c";
    let one = sandcell(&[&dir], &["--device", "acme.com/card=one"], script);
    assert_eq!(text(&one.stdout), "all 1\none\nlibrary read-only\n1");
    let said = text(&one.stderr);
    for words in ["hook createContainer (/opt/acme/hook) is not run", "group 44 is not given", "without \"noatime\""] {
        assert!(said.contains(words), "{said}");
    }
    // Two of one file: what is for all of them is made once.
    let options = ["--device", "acme.com/card=one", "--device", "acme.com/card=two", "-e", "ACME=mine"];
    let both = sandcell(&[&dir], &options, script);
    assert_eq!(text(&both.stdout), "mine 1\none\ntwo\nlibrary read-only\n1");
    assert_eq!(text(&both.stderr).matches("is not run").count(), 1);
    let none = sandcell(&[&dir], &[], "echo ${ACME-none}; ls /dev/acme 2>/dev/null");
    assert_eq!(text(&none.stdout), "none");
}

#[test]
fn what_a_specification_cannot_mean_is_refused() {
    let scratch = Scratch::new();
    let dir = scratch.dir("cdi");
    scratch.file("cdi/acme.json", ACME);
    scratch.file("cdi/vendor.yaml", "kind: vendor.com/net");
    scratch.file("cdi/broken.json", "{");
    scratch.file("cdi/new.json", r#"{ "cdiVersion": "9.0", "kind": "new.com/x", "devices": [] }"#);
    for (name, words) in [
        ("acme.com/card=liar", "is not the device that the specification says"),
        ("acme.com/card=odd", "wants wishes, which is not known"),
        ("acme.com/card=three", "no specification has this device"),
        ("acme.com/card=one", "LIBRARY"),
        ("vendor.com/net=0", "YAML is not read"),
        ("new.com/x=0", "\"9.0\" is not known"),
    ] {
        let output = sandcell(&[&dir], &["--device", name], "echo ran");
        let said = text(&output.stderr);
        assert!(
            output.status.code() == Some(125) && said.contains(words) && output.stdout.is_empty(),
            "{name}: {said}"
        );
    }
}

#[test]
fn the_last_directory_counts_most_and_one_directory_does_not_say_two_things() {
    let scratch = Scratch::new();
    let (first, second) = (scratch.dir("first"), scratch.dir("second"));
    let spec = |value: &str| {
        format!(
            r#"{{ "cdiVersion": "1.0.0", "kind": "acme.com/card", "devices": [
            {{ "name": "0", "containerEdits": {{ "env": ["FROM={value}"] }} }} ] }}"#
        )
    };
    scratch.file("first/a.json", &spec("first"));
    scratch.file("second/a.json", &spec("second"));
    let from = |dirs: &[&Path]| sandcell(dirs, &["--device", "acme.com/card=0"], "echo $FROM");
    assert_eq!(text(&from(&[&first, &second]).stdout), "second");
    assert_eq!(text(&from(&[&second, &first]).stdout), "first");
    scratch.file("second/b.json", &spec("other"));
    let output = from(&[&first, &second]);
    assert!(text(&output.stderr).contains("both have it") && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn gpu_is_every_device_of_nvidias_specification() {
    let scratch = Scratch::new();
    let dir = scratch.dir("cdi");
    scratch.file(
        "cdi/nvidia.json",
        r#"{ "cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [ { "name": "all", "containerEdits": {
            "deviceNodes": [ { "path": "/dev/nvidia0", "hostPath": "/dev/full" } ], "env": ["NVIDIA_VISIBLE_DEVICES=void"] } } ] }"#,
    );
    let script = "test -c /dev/nvidia0 && echo $NVIDIA_VISIBLE_DEVICES";
    assert_eq!(text(&sandcell(&[&dir], &["--gpu"], script).stdout), "void");
    assert_eq!(text(&sandcell(&[&dir], &[], script).stdout), "");
    if !Path::new("/dev/dri").exists() {
        let output = sandcell(&[&scratch.dir("empty")], &["--gpu"], "echo ran");
        assert!(output.status.code() == Some(125) && text(&output.stderr).contains("nvidia.com/gpu"), "{output:?}");
    }
}
