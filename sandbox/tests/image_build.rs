//! Images from a base and steps, by calls and from Dockerfiles.

#![cfg(feature = "image")]

mod image_support;

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use image_support::*;
use sandcell::image::{Build, Image, Store};
use sandcell::{Error, Outcome, Root, Sandbox, User};
use serde_json::{Value, json};

/// A store with a base image, and a context.
struct Site {
    scratch: Scratch,
    store: Store,
}

impl Site {
    fn new(name: &str) -> Site {
        let scratch = Scratch::new(name);
        let store = scratch.store();
        let mut members = busybox();
        members.extend([
            symlink_member("lib", "usr/lib"),
            dir("usr"),
            dir("usr/lib").mode(0o775),
            file("etc/old", "old"),
        ]);
        store_image(&store, "base:1", &[tar(&members)], json!({"Env": ["PATH=/bin", "A=a"], "Cmd": ["sh"]}));
        fs::create_dir(scratch.path("context")).unwrap();
        Site { scratch, store }
    }

    fn context(&self) -> PathBuf {
        self.scratch.path("context")
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn make(&self, dockerfile: &str) -> Result<(Image, Vec<String>), Error> {
        let build = Build::dockerfile(dockerfile, "Dockerfile")?.context(self.context()).name("made".parse().unwrap());
        let told = RefCell::new(Vec::new());
        let image = self.store.build(&build, &|step| {
            let cached = if step.cached { " (cached)" } else { "" };
            told.borrow_mut().push(format!("{}/{} {}{cached}", step.number, step.total, step.text));
        })?;
        Ok((image, told.into_inner()))
    }

    fn made(&self, dockerfile: &str) -> Image {
        self.make(dockerfile).unwrap_or_else(|e| panic!("{e} ({})", e.hint())).0
    }

    fn refused(&self, dockerfile: &str, place: &str, why: &str) {
        let error = self.make(dockerfile).expect_err(dockerfile);
        assert!(matches!(error, Error::Config(_)), "{dockerfile}: {error}");
        let text = format!("{error} ({})", error.hint());
        assert!(text.contains(place) && text.contains(why), "{dockerfile}: {text}");
    }

    fn told(&self, script: &str) -> String {
        let builder = Sandbox::builder().store(self.store.dir()).root(Root::image("made")).user(User::Root);
        let output = builder.build().unwrap().command("/bin/sh").args(["-c", script]).output().unwrap();
        assert_eq!(output.outcome, Outcome::Exited(0), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

fn symlink_member(name: &str, to: &str) -> Member {
    image_support::symlink(name, to)
}

fn config(image: &Image) -> Value {
    inspected(image)["Config"].clone()
}

#[test]
fn a_dockerfile_becomes_an_image() {
    let site = Site::new("build-whole");
    site.write("app/run.sh", "echo $GREETING from $(pwd)");
    site.write("app/data/x", "x");
    let dockerfile = "# syntax=docker/dockerfile:1\n\
        ARG VERSION=1\n\
        FROM base:$VERSION AS only\n\
        LABEL org.example.a=\"b c\" d=e\n\
        ENV GREETING=hello \\\n    # a comment in between\n    OTHER=\"$A-${NONE:-none}\"\n\
        WORKDIR /srv\n\
        WORKDIR app\n\
        copy app .\n\
        RUN echo $OTHER > made; echo \"$GREETING\" >> made\n\
        EXPOSE 80 53/udp\n\
        VOLUME [\"/data\"]\n\
        USER web:staff\n\
        STOPSIGNAL SIGINT\n\
        ENTRYPOINT [\"sh\", \"run.sh\"]\n";
    let (image, told) = site.make(dockerfile).unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
    assert_eq!((told.len(), &told[0][..], &told[5][..]), (12, "1/12 FROM base:1", "6/12 COPY app ."));
    assert_eq!(image.names, ["made:latest"]);
    assert_eq!(
        config(&image),
        json!({
            "Env": ["PATH=/bin", "A=a", "GREETING=hello", "OTHER=a-none"],
            "Entrypoint": ["sh", "run.sh"], "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "Labels": {"org.example.a": "b c", "d": "e"}, "StopSignal": "SIGINT", "User": "web:staff",
            "Volumes": {"/data": {}}, "WorkingDir": "/srv/app",
        })
    );
    let sandbox = Sandbox::builder().store(site.store.dir()).root(Root::image("made")).build().unwrap();
    assert_eq!(sandbox.image_command([""; 0]).unwrap().output().unwrap().stdout, b"hello from /srv/app\n");
    assert_eq!(site.told("cat /srv/app/made /srv/app/data/x"), "a-none\nhello\nx");
    let history: Vec<(String, bool)> =
        image.history().iter().map(|row| (row.created_by.clone(), row.layer.is_some())).collect();
    assert_eq!(history.len(), 12);
    assert_eq!(history[0], ("ENTRYPOINT [\"sh\", \"run.sh\"]".to_owned(), false));
    assert!(history[6].0.starts_with("COPY app") && history[6].1, "{history:?}");
    // Nothing of the way is left but layers and their cache.
    assert_eq!(site.store.images().unwrap().len(), 2);
    assert_eq!(fs::read_dir(site.store.dir().join("builds")).unwrap().count(), 0);
    assert!(site.store.prune().unwrap().layers.is_empty());
}

#[test]
fn calls_make_the_same_image_as_a_dockerfile_and_mean_their_words_as_they_are() {
    let site = Site::new("build-calls");
    site.write("a file", "content");
    let build = Build::from("base:1")
        .context(site.context())
        .env("K", "$A \"quoted\" 'x' \\")
        .label("l", "${no}")
        .workdir("/a b")
        .copy(["a file"], "./")
        .run("echo \"$K\" > /said")
        .run_words(["/bin/touch", "/a $b"])
        .user("7:8")
        .expose("80")
        .volume("/v")
        .entrypoint(["/bin/echo", "$K"])
        .cmd(["x"])
        .name("made".parse().unwrap());
    let image = site.store.build(&build, &|_| {}).unwrap();
    assert_eq!(config(&image)["Env"][2], "K=$A \"quoted\" 'x' \\");
    assert_eq!(config(&image)["Labels"]["l"], "${no}");
    assert_eq!((config(&image)["Cmd"].clone(), config(&image)["WorkingDir"].clone()), (json!(["x"]), json!("/a b")));
    assert_eq!(site.told("cat '/a b/a file'; echo; cat /said; ls '/a $b'"), "content\n$A \"quoted\" 'x' \\\n/a $b");
}

#[test]
fn steps_are_found_again_until_what_they_depend_on_changes() {
    let site = Site::new("build-cache");
    site.write("f", "1");
    let text = "FROM base:1\nRUN echo a > /a\nCOPY f /f\nRUN cat /f > /b\n";
    let cached =
        |text: &str| -> Vec<bool> { site.make(text).unwrap().1.iter().map(|l| l.contains("(cached)")).collect() };
    assert_eq!(cached(text), [false, false, false, false]);
    let first = site.store.image("made").unwrap();
    assert_eq!(cached(text), [false, true, false, true]);
    assert_eq!(site.store.image("made").unwrap().id, first.id);
    site.write("f", "2");
    assert_eq!(cached(text), [false, true, false, false]);
    assert_eq!(site.told("cat /b"), "2");
    assert_eq!(cached(&text.replace("FROM base:1\n", "FROM base:1\nENV X=y\n")), [false, false, false, false, false]);
    // What prune has taken is made again.
    site.store.remove("made").unwrap();
    site.store.prune().unwrap();
    assert_eq!(fs::read_dir(site.store.dir().join("cache")).unwrap().count(), 0);
    assert_eq!(cached(text), [false, false, false, false]);
    let build = Build::dockerfile(text, "Dockerfile").unwrap().context(site.context()).cache(false);
    let hits = RefCell::new(0);
    site.store.build(&build, &|step| *hits.borrow_mut() += usize::from(step.cached)).unwrap();
    assert_eq!(hits.into_inner(), 0);
}

#[test]
fn with_a_timestamp_the_same_steps_make_the_same_image_in_any_store() {
    let mut ids = Vec::new();
    for name in ["build-same-1", "build-same-2"] {
        let site = Site::new(name);
        site.write("d/f", "1");
        let text = "FROM base:1\nCOPY d /d\nRUN mkdir /x && echo 1 > /x/y && touch /d/f\nENV A=1\n";
        let build = Build::dockerfile(text, "Dockerfile").unwrap().context(site.context()).timestamp(1_700_000_000);
        let image = site.store.build(&build, &|_| {}).unwrap();
        assert_eq!(image.config.created.as_deref(), Some("2023-11-14T22:13:20Z"));
        ids.push(image.id);
    }
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn copy_goes_where_other_builders_put_it() {
    let site = Site::new("build-copy");
    site.write("one", "one");
    site.write("two.txt", "two");
    site.write("tree/lib/so", "so");
    site.write("tree/sub/deep/f", "f");
    site.write("tree/web/page", "new page");
    symlink("sub/deep", site.context().join("tree/link")).unwrap();
    symlink("one", site.context().join("named")).unwrap();
    fs::set_permissions(site.context().join("one"), fs::Permissions::from_mode(0o751)).unwrap();
    site.made(
        "FROM base:1\nWORKDIR /w\nCOPY one two.txt named many/\nCOPY one /renamed\nCOPY one /etc\nCOPY tree /\nCOPY tree/sub x\n\
         COPY *.txt [o]ne /globbed/\nCOPY --chown=web:staff --chmod=600 one /owned/one\nCOPY --chown=5 one /owned/five\nCOPY tree/web /srv/web\n",
    );
    assert_eq!(site.told("ls /w/many /globbed"), "/globbed:\none\ntwo.txt\n\n/w/many:\nnamed\none\ntwo.txt");
    assert_eq!(site.told("cat /renamed /etc/one /w/many/named /etc/old /w/x/deep/f /link/f"), "oneoneoneoldff");
    // A directory goes through the image's link, and does not replace it.
    assert_eq!(
        site.told("cat /usr/lib/so; stat -c '%N' /lib; stat -c %a /usr/lib /renamed /owned/one"),
        "so'/lib' -> 'usr/lib'\n775\n751\n600"
    );
    assert_eq!(site.told("cat /srv/web/page"), "new page");
    let many = Sandbox::builder().store(site.store.dir()).root(Root::image("made")).user(User::Root).id_count(65536);
    let many = many.wait_for_ids(std::time::Duration::from_secs(100));
    let output = many
        .build()
        .unwrap()
        .command("/bin/stat")
        .args(["-c", "%u:%g", "/owned/one", "/owned/five", "/srv/web", "/etc"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "33:50\n5:5\n33:34\n0:0\n");
}

#[test]
fn dockerignore_takes_files_out_and_the_context_is_not_left() {
    let site = Site::new("build-ignore");
    for path in ["keep", "a.log", "logs/b.log", "logs/need.log", "target/x/y", "src/target"] {
        site.write(path, path);
    }
    site.write(".dockerignore", "# what is built\ntarget\n**/*.log\n!logs/need.log\n");
    site.made("FROM base:1\nCOPY . /c\n");
    assert_eq!(
        site.told("cd /c; ls -A . logs src"),
        ".:\n.dockerignore\nkeep\nlogs\nsrc\n\nlogs:\nneed.log\n\nsrc:\ntarget"
    );
    site.refused("FROM base:1\nCOPY a.log /\n", "Dockerfile:2", "no such file in the context");
    // `..` leads no higher than the context, in the words of docker.
    site.refused("FROM base:1\n\nCOPY ../build-ignore /\n", "Dockerfile:3", "no such file in the context");
    site.made("FROM base:1\nCOPY ../../keep src/../keep /two/\n");
    assert_eq!(site.told("cat /two/keep"), "keep");
    symlink("/etc/hostname", site.context().join("out")).unwrap();
    site.refused("FROM base:1\nCOPY out /\n", "Dockerfile:2", "out of the context");
    // A link that is only copied may lead anywhere: it is the image's then.
    site.write("dir/f", "");
    symlink("/etc/old", site.context().join("dir/abs")).unwrap();
    site.made("FROM base:1\nCOPY dir /d\n");
    assert_eq!(site.told("cat /d/abs"), "old");
}

#[test]
fn arguments_have_defaults_and_are_given_by_the_caller() {
    let site = Site::new("build-args");
    let text = "ARG TAG=1\nFROM base:${TAG}\nARG TAG\nARG WORD=default OTHER\nRUN echo \"$WORD-$OTHER-$TAG\" > /said\nENV WORD=env\nRUN echo $WORD >> /said\n";
    site.made(text);
    assert_eq!(site.told("cat /said"), "default--1\nenv");
    let build = Build::dockerfile(text, "f").unwrap().arg("WORD", "given").name("made".parse().unwrap());
    site.store.build(&build, &|_| {}).unwrap();
    assert_eq!(site.told("cat /said"), "given--1\nenv");
    assert!(!inspected(&site.store.image("made").unwrap())["Config"].to_string().contains("given"));
    // Many Dockerfiles are built with the same arguments: one that nothing declares is no mistake, but told of.
    let build = Build::dockerfile(text, "f").unwrap().arg("NONE", "x").arg("WORD", "x").arg("HTTP_PROXY", "x");
    assert_eq!(build.undeclared_args(), ["NONE"]);
    site.store.build(&build, &|_| {}).unwrap();
}

#[test]
fn what_is_not_supported_is_named_with_its_line() {
    let site = Site::new("build-refused");
    for (text, place, why) in [
        ("FROM base:1\nADD https://example.com/x /x\n", "Dockerfile:2", "addresses are not supported"),
        ("FROM base:1\nADD --checksum=x a /x\n", "Dockerfile:2", "--checksum=x is not supported"),
        ("FROM base:1\n\n# c\nRUN true && \\\n  true\nHEALTHCHECK true\n", "Dockerfile:6", "HEALTHCHECK takes"),
        ("FROM base:1\nSHELL x\n", "Dockerfile:2", "SHELL takes a JSON array"),
        ("FROM base:1\nCOPY --from=x a b\n", "Dockerfile:2", "no stage before this one and no image"),
        ("FROM base:1 AS x\nCOPY --from=x a b\n", "Dockerfile:2", "no stage before this one and no image"),
        ("FROM base:1\nADD --parents a b\n", "Dockerfile:2", "--parents is not supported"),
        ("FROM base:1\nCOPY --chmod=u+q a b\n", "Dockerfile:2", "not a mode"),
        ("FROM base:1\nSTOPSIGNAL NONSENSE\n", "Dockerfile:2", "is no signal"),
        ("FROM base:1\nENV A=${NONE:?say it}\n", "Dockerfile:2", "NONE: say it"),
        ("FROM base:1\nRUN --mount=type=cache true\n", "Dockerfile:2", "it has no target"),
        ("FROM base:1\nRUN --mount=type=ssh,required true\n", "Dockerfile:2", "ssh agent \"default\" is required"),
        ("FROM base:1\nRUN --security=insecure true\n", "Dockerfile:2", "--security=insecure is not supported"),
        ("FROM base:1\nRUN cat <<EOF\nx\n", "Dockerfile:2", "does not end"),
        ("FROM base:1\nONBUILD ONBUILD RUN true\n", "Dockerfile:2", "is not allowed"),
        ("FROM base:1\nONBUILD FETCH x\n", "Dockerfile:2", "FETCH is no instruction"),
        ("FROM --platform=linux/s390x base:1\n", "Dockerfile:1", "and this stage for linux/s390x"),
        ("FROM --platform=windows/amd64 base:1\n", "Dockerfile:1", "only images of Linux"),
        ("# escape=x\nFROM base:1\n", "Dockerfile:1", "escape character"),
        ("FROM base:1\nFETCH x\n", "Dockerfile:2", "FETCH is no instruction"),
        ("RUN true\nFROM base:1\n", "Dockerfile:1", "RUN before FROM"),
        ("FROM base:1\nENV\n", "Dockerfile:2", "ENV says nothing"),
        ("FROM base:1\nENV A\n", "Dockerfile:2", "A has no value"),
        ("FROM base:1\nENV A=${B\n", "Dockerfile:2", "no closing brace"),
        ("FROM base:1\nWORKDIR a b\n", "Dockerfile:2", "takes one word"),
        ("FROM base:1\nEXPOSE 99999\n", "Dockerfile:2", "is no port"),
        ("FROM base:1\nCOPY a\n", "Dockerfile:2", "sources and a destination"),
        ("FROM base:1\nLABEL \"a=b\n", "Dockerfile:2", "without its partner"),
        ("\n# nothing\n", "Dockerfile", "there is no FROM"),
        ("FROM nowhere\n", "nowhere", "no such image"),
        ("FROM scratch\nRUN true\n", "Dockerfile:2", "no file in the image"),
    ] {
        site.refused(text, place, why);
    }
    assert_eq!(site.store.images().unwrap().len(), 1, "the store is as before");
}

#[test]
fn a_program_that_fails_ends_the_build_with_what_it_said() {
    let site = Site::new("build-fails");
    let error =
        site.make("FROM base:1\nRUN echo before > /x\nRUN echo the reason >&2; exit 3\n").expect_err("it fails");
    assert!(matches!(error, Error::Setup(_)), "{error}");
    assert!(error.to_string().contains("Dockerfile:3") && error.to_string().contains("status 3"), "{error}");
    assert!(error.hint().contains("the reason"), "{}", error.hint());
    assert!(site.store.image("made").is_err());
    // What was made before is not lost to the next try.
    let (_, told) = site.make("FROM base:1\nRUN echo before > /x\nRUN true\n").unwrap();
    assert!(told[1].contains("(cached)"), "{told:?}");
}

#[test]
fn programs_of_a_build_are_root_have_no_network_and_leave_no_trace_of_the_sandbox() {
    let site = Site::new("build-inside");
    site.made("FROM base:1\nRUN id -u > /id; ls /sys/class/net > /net 2>/dev/null; cat /proc/net/dev | cat > /dev-list; echo t > /tmp/t; chown 33:34 /etc/old; ls /proc > /dev/null\n");
    assert_eq!(
        site.told("cat /id; cat /tmp/t; ls -A /"),
        "0\nt\nbin\ndev\ndev-list\netc\nid\nlib\nnet\nproc\nroot\nrun\nsrv\ntmp\nusr\nvar"
    );
    let devices = site.told("cat /dev-list");
    assert!(devices.contains("lo:") && !devices.contains("eth"), "{devices}");
}

#[test]
fn an_image_can_begin_with_nothing() {
    let site = Site::new("build-scratch");
    fs::copy("/bin/busybox", site.context().join("busybox")).unwrap();
    let image = site.made("FROM scratch\nCOPY --chmod=755 busybox /bin/sh\nRUN echo made > /made\nCMD [\"/bin/sh\", \"-c\", \"read x < /made; echo $x\"]\n");
    assert_eq!(image.layers.len(), 2);
    let sandbox = Sandbox::builder().store(site.store.dir()).root(Root::image("made")).build().unwrap();
    assert_eq!(sandbox.image_command([""; 0]).unwrap().output().unwrap().stdout, b"made\n");
}

#[test]
fn what_a_build_or_a_commit_is_told_by_name_is_what_its_methods_say() {
    let said = |name: &str, text: &str| Build::from("scratch").option(name, text).map(|build| format!("{build:?}"));
    let method = |build: Build| format!("{build:?}");
    assert_eq!(said("name", "app:1").unwrap(), method(Build::from("scratch").name("app:1".parse().unwrap())));
    assert_eq!(said("arg", "A=b=c").unwrap(), method(Build::from("scratch").arg("A", "b=c")));
    assert_eq!(said("secret", "id=key,src=/f").unwrap(), method(Build::from("scratch").secret_file("key", "/f")));
    assert_eq!(said("show-output", "true").unwrap(), method(Build::from("scratch").show_output(true)));
    assert_eq!(said("timestamp", "7").unwrap(), method(Build::from("scratch").timestamp(7)));
    for (name, text) in
        [("timestamp", "now"), ("cache", "yes"), ("arg", "A"), ("network", "wide"), ("secret", "key"), ("none", "")]
    {
        let error = said(name, text).unwrap_err();
        assert!(error.kind() == "config" && !error.hint().is_empty(), "{name}: {error}");
    }
    let commit = sandcell::image::Commit::on("a");
    let by_name = commit.clone().option("base", "b").and_then(|commit| commit.option("created-by", "me")).unwrap();
    assert_eq!(format!("{by_name:?}"), format!("{:?}", commit.clone().base("b").created_by("me")));
    assert!(commit.option("owners", "nobody").unwrap_err().hint().contains("noted"));
    // Every row can be said: an option that is in the table, and in no method, would be an error of its name.
    for option in Build::OPTIONS {
        let error = said(option.name, "\0").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(!error.contains("no option of that name"), "{error}");
    }
}
