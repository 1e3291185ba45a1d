//! Runs of images: what an image says is the default, what the caller says wins.

#![cfg(feature = "image")]

mod image_support;

use std::fs;

use image_support::*;
use sandcell::image::{Commit, Store, base_of, changes};
use sandcell::{Builder, Error, Outcome, Root, Sandbox, Upper, User};
use serde_json::json;

fn builder(store: &Store, image: &str) -> Builder {
    Sandbox::builder().store(store.dir()).root(Root::image(image))
}

/// What the image's own program, with these words, writes to stdout.
fn told(builder: Builder, words: &[&str]) -> String {
    let sandbox = builder.build().unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
    let output = sandbox.image_command(words).unwrap().output().unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    assert_eq!(output.outcome, Outcome::Exited(0), "{words:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn what_an_image_says_is_the_default_of_a_run() {
    let scratch = Scratch::new("run-defaults");
    let store = scratch.store();
    store_image(
        &store,
        "app:1",
        &[tar(&busybox())],
        json!({
            "Entrypoint": ["sh", "-c"],
            "Cmd": ["id -u; id -g; pwd; echo $GREETING $HOME; cat page; ls /run"],
            "Env": ["PATH=/bin", "GREETING=hello", "nonsense"],
            "User": "web",
            "WorkingDir": "/srv/web/",
            "ExposedPorts": {"80/tcp": {}},
        }),
    );
    assert_eq!(told(builder(&store, "app:1"), &[]), "33\n34\n/srv/web\nhello /srv/web\npageapp");
    // Each of them is the caller's to change.
    let own = builder(&store, "app:1").user(User::fixed(7, 8)).current_dir("/etc").env("GREETING", "bye");
    assert_eq!(told(own, &["id -u; id -g; pwd; echo $GREETING"]), "7\n8\n/etc\nbye");
    let sandbox = builder(&store, "app:1").build().unwrap();
    assert_eq!(sandbox.image().unwrap().config.run().exposed_ports.unwrap().len(), 1);
    let output = sandbox.command("/bin/echo").arg("past the entry point").output().unwrap();
    assert_eq!(output.stdout, b"past the entry point\n");
}

#[test]
fn the_ports_that_an_image_exposes_are_published_where_that_is_asked_for() {
    let scratch = Scratch::new("run-exposed");
    let store = scratch.store();
    let config = json!({"Cmd": ["sleep", "1000"], "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8080/tcp": {}}});
    store_image(&store, "app", &[tar(&busybox())], config);
    store_image(&store, "shut", &[tar(&busybox())], json!({"Cmd": ["true"]}));
    // Those that are published by name keep what was said of them.
    let named = builder(&store, "app").publish_all(true).publish("127.0.0.2:0:80".parse().unwrap());
    let sandbox = named.build().unwrap();
    let mut child = sandbox.image_command([""; 0]).unwrap().spawn().unwrap();
    let mut ports: Vec<_> = child.published().iter().map(|one| (one.cell_port, one.protocol)).collect();
    ports.sort_unstable();
    assert_eq!(ports, [(53, "udp"), (80, "tcp"), (8080, "tcp")]);
    assert!(child.published().iter().all(|one| one.host_port != 0 && one.address.is_loopback()));
    assert_eq!(child.published()[0].address.to_string(), "127.0.0.2");
    child.kill().unwrap();
    child.wait().unwrap();
    let error = builder(&store, "shut").publish_all(true).build().expect_err("it exposes none");
    assert_eq!((error.kind(), error.subject()), ("config", "publish_all"), "{error}");
    // Without the option an image opens nothing.
    let child = builder(&store, "app").build().unwrap().image_command([""; 0]).unwrap().spawn().unwrap();
    assert!(child.published().is_empty());
}

#[test]
fn without_a_user_of_its_own_an_image_runs_as_a_random_one() {
    let scratch = Scratch::new("run-random");
    let store = scratch.store();
    store_image(&store, "app", &[tar(&busybox())], json!({"Cmd": ["sh", "-c", "id -u; id -g; pwd"]}));
    let said = told(builder(&store, "app"), &[]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].parse::<u32>().unwrap() >= 1_000_000, "{said}");
    assert_eq!(lines[1..], ["0", "/"]);
}

#[test]
fn users_and_groups_are_those_of_the_image_and_numbers_are_only_numbers() {
    let scratch = Scratch::new("run-users");
    let store = scratch.store();
    let layers = [tar(&busybox())];
    let run = |user: &str| {
        store_image(&store, "app", &layers, json!({"User": user}));
        builder(&store, "app").build().map(|sandbox| sandbox.user())
    };
    for (text, user) in [
        ("web", User::fixed(33, 34)),
        ("33", User::fixed(33, 34)),
        ("web:staff", User::fixed(33, 50)),
        ("web:7", User::fixed(33, 7)),
        ("5:web", User::fixed(5, 34)),
        ("77", User::fixed(77, 0)),
        ("root", User::Root),
        ("0:0", User::Root),
        ("1", User::fixed(1, 0)),
        ("", User::Random),
    ] {
        assert_eq!(run(text).unwrap(), user, "{text}");
    }
    for text in ["nobody", "web:nogroup", "-1", "0x0", "4294967296", "2147483648:1", "web:", ":web", "web:-1", " 0"] {
        let error = run(text).expect_err(text);
        assert!(matches!(error, Error::Config(_)) && error.stage() == "image-user", "{text}: {error}");
    }
}

#[test]
fn account_files_that_lead_out_of_the_image_are_not_followed() {
    let scratch = Scratch::new("run-accounts");
    let store = scratch.store();
    // The host has a user and a group of that name.
    let links = [symlink("etc/passwd", "/../../../etc/passwd"), symlink("etc/group", "/proc/self/root/etc/group")];
    for user in ["daemon", "1:daemon"] {
        store_image(&store, "app", &[tar(&links)], json!({"User": user}));
        let error = builder(&store, "app").build().expect_err("the host's accounts are not the image's");
        assert_eq!(error.stage(), "image-user");
    }
    let good = tar(&[file("etc/passwd", "daemon:x:1:1::/:/bin/sh\n"), file("etc/group", "daemon:x:1:\n")]);
    store_image(&store, "app", &[good], json!({"User": "daemon:daemon"}));
    assert_eq!(builder(&store, "app").build().unwrap().user(), User::fixed(1, 1));
}

#[test]
fn a_working_directory_that_the_image_lacks_is_there_all_the_same() {
    let scratch = Scratch::new("run-workdir");
    let store = scratch.store();
    for (said, is) in [("/new/place", "/new/place"), ("a/../../../b", "/b"), ("/..", "/")] {
        store_image(&store, "app", &[tar(&busybox())], json!({"Cmd": ["pwd"], "WorkingDir": said}));
        assert_eq!(told(builder(&store, "app"), &[]), is);
    }
}

#[test]
fn an_image_without_a_program_says_so_and_one_that_is_not_there_too() {
    let scratch = Scratch::new("run-none");
    let store = scratch.store();
    store_image(&store, "app", &[tar(&busybox())], json!({}));
    let sandbox = builder(&store, "app").build().unwrap();
    let error = sandbox.image_command([""; 0]).expect_err("nothing names a program");
    assert!(error.to_string().contains("names no program"), "{error}");
    assert_eq!(told(builder(&store, "app"), &["/bin/echo", "named"]), "named");
    let error = builder(&store, "other").build().expect_err("no such image");
    assert!(matches!(error, Error::Config(_)), "{error}");
}

#[test]
fn an_image_stays_in_the_store_while_a_sandbox_of_it_lives() {
    let scratch = Scratch::new("run-kept");
    let store = scratch.store();
    store_image(&store, "app", &[tar(&busybox())], json!({"Cmd": ["echo", "here"]}));
    let sandbox = builder(&store, "app").build().unwrap();
    let error = store.remove("app").expect_err("it is in use");
    assert!(error.to_string().contains("a run is using"), "{error}");
    assert!(store.prune().unwrap().layers.is_empty());
    let cell = sandbox.start().unwrap();
    drop(sandbox);
    store.remove("app").expect_err("the cell has it");
    assert_eq!(cell.command("/bin/echo").arg("here").output().unwrap().stdout, b"here\n");
    drop(cell);
    assert_eq!(store.remove("app").unwrap().layers.len(), 1);
}

#[test]
fn a_volume_outlives_runs_and_goes_only_when_nobody_has_it() {
    let scratch = Scratch::new("run-volume");
    let store = scratch.store();
    store_image(&store, "app", &[tar(&busybox())], json!({"Entrypoint": ["sh", "-c"]}));
    assert!(store.volumes().unwrap().is_empty());
    told(builder(&store, "app").volume("data", "/data", true), &["echo kept > /data/file"]);
    let reader = builder(&store, "app").volume("data", "/seen", false);
    assert_eq!(told(reader.clone(), &["cat /seen/file; touch /seen/new 2>/dev/null || echo refused"]), "kept\nrefused");
    let volumes = store.volumes().unwrap();
    assert_eq!((volumes.len(), &volumes[0].name[..], volumes[0].in_use), (1, "data", false));
    assert!(volumes[0].path.join("file").exists());
    let sandbox = reader.build().unwrap();
    assert!(store.volumes().unwrap()[0].in_use);
    let error = store.remove_volume("data").expect_err("it is in use");
    assert!(error.to_string().contains("a run is using"), "{error}");
    drop(sandbox);
    store.remove_volume("data").unwrap();
    assert!(store.volumes().unwrap().is_empty());
    assert!(matches!(store.remove_volume("data"), Err(Error::Config(_))));
    for name in ["", "..", "a/b", ".hidden", "a b", "é", "a\0b"] {
        let error = builder(&store, "app").volume(name, "/data", true).build().expect_err(name);
        assert!(matches!(error, Error::Config(_)), "{name}: {error}");
        assert!(store.remove_volume(name).is_err());
    }
    // A volume needs no image.
    let host = Sandbox::builder().store(store.dir()).volume("other", "/other", true).build().unwrap();
    assert_eq!(host.command("/bin/sh").args(["-c", "echo x > /other/x"]).output().unwrap().outcome, Outcome::Exited(0));
    assert!(store.volumes().unwrap()[0].path.join("x").exists());
}

#[test]
fn a_kept_upper_becomes_an_image_that_runs() {
    let scratch = Scratch::new("run-commit");
    let store = scratch.store();
    let base = store_image(&store, "app:1", &[tar(&busybox())], json!({"Entrypoint": ["sh", "-c"]}));
    let dir = scratch.path("changes");
    let kept = builder(&store, "app:1").upper(Upper::Dir(dir.clone())).user(User::Root);
    told(kept.clone(), &["echo new > /srv/new; rm /srv/web/page; echo line >> /etc/passwd; echo t > /tmp/t"]);
    assert_eq!(base_of(&dir).unwrap().unwrap(), base.to_string());
    let image = store.use_image("app:1").unwrap();
    let changed: Vec<String> = changes(&dir, &image.layers)
        .unwrap()
        .iter()
        .map(|change| format!("{} {}", change.kind.letter(), change.path.display()))
        .collect();
    assert_eq!(changed, ["C /etc", "C /etc/passwd", "C /srv", "A /srv/new", "C /srv/web", "D /srv/web/page"]);
    let commit = Commit::on(base_of(&dir).unwrap().unwrap()).name("app:2".parse().unwrap());
    store.commit(Some(&dir), &commit).unwrap();
    assert_eq!(told(builder(&store, "app:2"), &["cat /srv/new; ls /srv/web; ls /tmp"]), "new");
    // The same upper on another image would mean something else.
    store_image(&store, "other", &[tar(&busybox()), tar(&[file("x", "")])], json!({}));
    let error = builder(&store, "other").upper(Upper::Dir(dir.clone())).build().expect_err("another base");
    assert!(error.to_string().contains("it was written on image"), "{error}");
    assert_eq!(told(kept, &["cat /srv/new"]), "new", "on its own it goes on");
    let _ = fs::remove_dir_all(dir.join("work"));
}

#[test]
fn a_directory_that_a_layer_does_not_list_is_what_the_layers_below_say() {
    let scratch = Scratch::new("run-implied");
    let store = scratch.store();
    let note = |member: Member| member.pax("SCHILY.xattr.user.note", "below");
    let mut base = busybox();
    base.extend([
        dir("closed").mode(0o711),
        dir("closed/deep").mode(0o1777),
        file("closed/gone", ""),
        note(dir("noted")),
        dir("again").mode(0o700),
        dir("opaque").mode(0o700),
        file("opaque/x", ""),
        dir("replaced").mode(0o700),
        dir("hidden").mode(0o700),
        dir("hidden/dir").mode(0o700),
    ]);
    let unlisted = [
        file("closed/deep/new", "new"),
        file("closed/.wh.gone", ""),
        file("noted/new", ""),
        file("opaque/.wh..wh..opq", ""),
        file("fresh/dir/new", ""),
        // A file in it before the directory itself: listed all the same.
        file("again/new", ""),
        dir("again").mode(0o750),
        file("hidden/.wh..wh..opq", ""),
        file("hidden/dir/new", ""),
    ];
    let third = [file("fresh/more", ""), file(".wh.replaced", ""), file("again/more", "")];
    let fourth = [file("replaced/new", "")];
    let layers = [tar(&base), tar(&unlisted), tar(&third), tar(&fourth)];
    store_image(&store, "app", &layers, json!({"Env": ["PATH=/bin"], "User": "root"}));
    let script = "stat -c '%n %a' /closed /closed/deep /noted /again /opaque /replaced /hidden /hidden/dir /fresh \
        /fresh/dir; ls /closed /opaque; cat /closed/deep/new";
    let modes = "/closed 711\n/closed/deep 1777\n/noted 755\n/again 750\n/opaque 700\n/replaced 755\n\
        /hidden 700\n/hidden/dir 755\n/fresh 755\n/fresh/dir 755\n/closed:\ndeep\n\n/opaque:\nnew";
    assert_eq!(told(builder(&store, "app"), &["sh", "-c", script]), modes);
    let kept = store.use_image("app").unwrap();
    let top = kept.layers.last().unwrap();
    assert_eq!(xattr(&top.join("noted"), "user.note").unwrap(), b"below");
    assert!(!top.join("fresh").exists() && !top.join("replaced").exists(), "only what is needed is there");
    drop(kept);
    // A commit on top keeps it so, and everything goes with the image.
    let commit =
        Commit::on("app").name("app:2".parse().unwrap()).set("Cmd", &json!(["sh", "-c", script]).to_string()).unwrap();
    store.commit(None, &commit).unwrap();
    assert_eq!(told(builder(&store, "app:2"), &[]), modes);
    store.remove("app").unwrap();
    store.remove("app:2").unwrap();
    for dir in ["images", "layers", "tmp"] {
        assert_eq!(fs::read_dir(store.dir().join(dir)).unwrap().count(), 0, "{dir}");
    }
}

#[test]
fn an_image_whose_layers_list_their_directories_has_only_its_layers() {
    let scratch = Scratch::new("run-listed");
    let store = scratch.store();
    let mut base = busybox();
    base.push(dir("closed").mode(0o711));
    let second = [dir("./"), dir("closed").mode(0o755), file("closed/new", "")];
    store_image(&store, "app", &[tar(&base), tar(&second)], json!({"Env": ["PATH=/bin"]}));
    assert_eq!(store.use_image("app").unwrap().layers.len(), 2);
    assert_eq!(told(builder(&store, "app"), &["stat", "-c", "%a", "/closed"]), "755");
}

#[test]
fn an_image_of_as_many_layers_as_the_kernel_stacks_runs_and_one_of_more_is_refused() {
    let scratch = Scratch::new("run-layers");
    let store = scratch.store();
    let mut tars = vec![tar(&busybox())];
    tars.extend((1..499).map(|n| tar(&[file(format!("layer-{n}"), n.to_string())])));
    let upper = scratch.path("upper");
    for count in [131, 498] {
        let name = format!("many:{count}");
        store_image(&store, &name, &tars[..count], json!({"Entrypoint": ["sh", "-c"]}));
        let look = format!("cat /layer-1 /layer-{}; echo x > /new; cat /new", count - 1);
        assert_eq!(told(builder(&store, &name), &[&look]), format!("1{}x", count - 1));
        let kept = builder(&store, &name).upper(Upper::Dir(upper.join(count.to_string())));
        assert_eq!(told(kept, &[&look]), format!("1{}x", count - 1));
    }
    store_image(&store, "many:499", &tars, json!({"Entrypoint": ["sh", "-c"]}));
    let error = builder(&store, "many:499").build().expect_err("the kernel refuses them");
    assert!(matches!(error, Error::Config(_)) && error.to_string().contains("at most 498 layers"), "{error}");
}

/// CVE-2022-1227: a tool of the host that enters a container and runs what it takes for its own `ps`.
#[test]
fn nothing_of_an_image_is_executed_outside_of_its_sandbox() {
    use std::os::unix::fs::PermissionsExt;
    const TOOLS: [&str; 16] = [
        "sh",
        "ps",
        "nsenter",
        "newuidmap",
        "newgidmap",
        "getsubids",
        "getent",
        "id",
        "tar",
        "gzip",
        "cp",
        "mount",
        "umount",
        "sandcell-init",
        "bwrap",
        "true",
    ];
    let scratch = Scratch::new("run-canaries");
    let store = scratch.store();
    let marker = scratch.path("marker");
    // On the host, whose shell there is, it leaves a mark; inside, the shell is another one of these.
    let canary = format!("#!/bin/sh\necho \"$0 $$\" >>'{}'\n", marker.display());
    let is_tool = |member: &Member| TOOLS.iter().any(|tool| member.name == format!("bin/{tool}").as_bytes());
    let mut members: Vec<Member> = busybox().into_iter().filter(|member| !is_tool(member)).collect();
    members.extend([dir("usr"), dir("usr/bin"), dir("sbin")]);
    for place in ["bin", "sbin", "usr/bin"] {
        members.extend(TOOLS.map(|tool| file(format!("{place}/{tool}"), &canary).mode(0o755)));
    }
    store_image(&store, "canaries", &[tar(&members)], json!({"Entrypoint": ["/bin/busybox"], "User": "web:staff"}));
    // The twin: whoever executes one outside is seen.
    let tree = store.use_image("canaries").unwrap().layers[0].join("usr/bin/ps");
    assert_eq!(fs::metadata(&tree).unwrap().permissions().mode() & 0o111, 0o111);
    assert!(std::process::Command::new(&tree).status().unwrap().success());
    assert_eq!(fs::read_to_string(&marker).unwrap().lines().count(), 1);
    fs::remove_file(&marker).unwrap();

    let upper = scratch.path("upper");
    let kept = builder(&store, "canaries").upper(Upper::Dir(upper.clone()));
    assert_eq!(told(kept.clone(), &["id", "-u"]), "33");
    let sandbox = kept.leftovers(sandcell::Leftovers::Report).build().unwrap();
    sandbox.explain().unwrap();
    let cell = sandbox.start().unwrap();
    let output = cell.command("/bin/busybox").args(["id", "-g"]).output().unwrap();
    assert_eq!(output.stdout, b"50\n");
    // A canary inside finds no shell but another of its kind.
    assert!(cell.command("/usr/bin/ps").output().is_err());
    drop(cell);
    changes(&upper, &store.use_image("canaries").unwrap().layers).unwrap();
    let commit = Commit::on(base_of(&upper).unwrap().unwrap()).name("canaries:2".parse().unwrap());
    store.commit(Some(&upper), &commit).unwrap();
    store.export(&["canaries:2"], sandcell::image::Format::OciDir, &scratch.path("out")).unwrap();
    drop(sandbox);
    let copy = scratch.path("copy");
    sandcell::subid_tree::copy_out(&upper, &copy).unwrap();
    sandcell::subid_tree::remove(&copy).unwrap();
    sandcell::subid_tree::remove(&upper).unwrap();
    assert!(!marker.exists(), "{}", fs::read_to_string(&marker).unwrap());
}
