//! COPY, ADD, WORKDIR and what steps of a build leave for each other: as docker and podman have it.

#![cfg(feature = "image")]

mod image_support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use image_support::*;
use sandcell::image::{Build, Store};
use sandcell::{Outcome, Root, Sandbox, User};
use serde_json::json;

struct Site {
    scratch: Scratch,
    store: Store,
}

impl Site {
    fn new(name: &str) -> Site {
        let scratch = Scratch::new(name);
        let store = scratch.store();
        let mut members = busybox();
        members.extend(["ln", "find", "sort"].map(symlink_member));
        members.extend([dir("real"), symlink("link", "real"), file("file", "old"), symlink("to-file", "file")]);
        store_image(&store, "base:1", &[tar(&members)], json!({"Env": ["PATH=/bin"], "Cmd": ["sh"]}));
        fs::create_dir(scratch.path("context")).unwrap();
        Site { scratch, store }
    }

    fn context(&self) -> PathBuf {
        self.scratch.path("context")
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn build(&self, steps: &str) -> Build {
        let build = Build::dockerfile(&format!("FROM base:1\n{steps}"), "Dockerfile");
        build
            .unwrap_or_else(|e| panic!("{steps}: {e} ({})", e.hint()))
            .context(self.context())
            .name("made".parse().unwrap())
    }

    fn made(&self, steps: &str) {
        let made = self.store.build(&self.build(steps), &|_| {});
        made.unwrap_or_else(|e| panic!("{steps}: {e} ({})", e.hint()));
    }

    fn refused(&self, steps: &str, why: &str) {
        let error = self.store.build(&self.build(steps), &|_| {}).expect_err(steps);
        assert!(error.to_string().contains(why), "{steps}: {error}");
    }

    fn told(&self, script: &str) -> String {
        let builder = Sandbox::builder().store(self.store.dir()).root(Root::image("made"));
        let output = builder.build().unwrap().command("/bin/sh").args(["-c", script]).output().unwrap();
        assert_eq!(output.outcome, Outcome::Exited(0), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Whether programs of a build are root of many ids: owners can be seen then.
    fn has_many_ids(&self) -> bool {
        let many = Sandbox::builder().store(self.store.dir()).root(Root::image("base:1"));
        match many.user(User::Root).id_count(65536).build() {
            Ok(_) => true,
            Err(error) => {
                eprintln!("SKIPPED: no range of ids for this user: {error}");
                false
            }
        }
    }
}

fn symlink_member(name: &str) -> Member {
    symlink(format!("bin/{name}"), "busybox")
}

#[test]
fn steps_of_a_build_find_what_earlier_ones_left_in_tmp() {
    let site = Site::new("copy-tmp");
    site.write("requirements.txt", "wanted");
    site.made(
        "COPY requirements.txt /tmp/\nRUN cat /tmp/requirements.txt > /seen; mkdir -p /var/tmp/d; echo x > /var/tmp/d/x\n\
        RUN cat /var/tmp/d/x >> /seen; ls /tmp >> /seen; rm /tmp/*\nRUN ls /tmp >> /seen\n",
    );
    assert_eq!(site.told("cat /seen /var/tmp/d/x"), "wantedx\nrequirements.txt\nx");
    // In a run an empty one is private, and another is the image's.
    assert_eq!(site.told("ls -A /tmp; echo y > /tmp/y; ls /tmp"), "y");
    site.made("COPY requirements.txt /tmp/\n");
    assert_eq!(site.told("echo y > /tmp/y; ls /tmp"), "requirements.txt\ny");
}

#[test]
fn a_working_directory_is_made_and_belongs_to_the_images_user() {
    let site = Site::new("copy-workdir");
    site.made("WORKDIR /a/b\nWORKDIR c\nWORKDIR /real\nWORKDIR /link\nWORKDIR /\n");
    assert_eq!(site.store.image("made").unwrap().layers.len(), 3, "what is there needs no layer");
    assert_eq!(site.told("find /a | sort"), "/a\n/a/b\n/a/b/c");
    site.refused("WORKDIR /file/x\n", "/file is no directory in the image");
    if site.has_many_ids() {
        site.made("USER web\nWORKDIR /w/x\nRUN echo mine > f\nUSER root\nRUN stat -c %u:%g /w /w/x /w/x/f > /said\n");
        assert_eq!(site.told("cat /said"), "33:34\n33:34\n33:34");
    }
}

#[test]
fn what_is_in_the_way_of_a_copy_is_replaced_only_by_its_like() {
    let site = Site::new("copy-way");
    site.write("a", "new");
    site.write("d/x", "x");
    site.write("e/real", "file");
    // A link to a file is replaced, one to a directory gone through.
    site.made("COPY a /to-file\nCOPY a /link\nCOPY d /link\n");
    assert_eq!(site.told("test ! -L /to-file; cat /to-file /file /real/a /real/x; ls /real"), "newoldnewxa\nx");
    site.refused("COPY d /file\n", "/file is no directory in the image");
    site.refused("COPY a /file/x\n", "/file is no directory in the image");
    site.refused("COPY a /file/\n", "/file is no directory in the image");
    site.refused("COPY e /\n", "/real is a directory in the image");
}

#[test]
fn directories_that_a_copy_makes_have_its_owner_and_their_own_mode() {
    let site = Site::new("copy-made");
    site.write("d/x", "x");
    fs::set_permissions(site.context().join("d"), fs::Permissions::from_mode(0o700)).unwrap();
    site.made("COPY d /one\nCOPY d /two/\nCOPY d/ /three/four\n");
    assert_eq!(site.told("stat -c %a /one /two /three /three/four"), "700\n755\n755\n700");
    if site.has_many_ids() {
        let owners = "COPY --chown=web d /a/b/\nCOPY --chown=7 d /c\nCOPY --chown=:8 d /d\nCOPY --chown=web: d /e\n\
            COPY --chown=web:staff d /f\nCOPY --chown=root:9 d /g\n";
        site.made(&format!("{owners}RUN stat -c %u:%g /a /a/b /a/b/x /c/x /d/x /e/x /f/x /g/x > /said\n"));
        assert_eq!(site.told("cat /said"), "33:34\n33:34\n33:34\n7:7\n0:8\n33:34\n33:50\n0:9");
    }
}

#[test]
fn modes_are_numbers_or_changes_of_those_that_files_have() {
    let site = Site::new("copy-chmod");
    site.write("d/plain", "");
    site.write("d/program", "");
    fs::set_permissions(site.context().join("d/program"), fs::Permissions::from_mode(0o700)).unwrap();
    site.made(
        "ARG MODE=go=rX\nCOPY --chmod=$MODE d /a\nCOPY --chmod=640 d/plain /b\nCOPY --chmod=+x d/plain /c\n\
        COPY --chmod=u=rw,go= <<EOF /e\nx\nEOF\n",
    );
    assert_eq!(site.told("stat -c %a /a /a/plain /a/program /b /c /e"), "755\n644\n755\n640\n755\n600");
}

#[test]
fn parents_of_sources_are_kept_and_patterns_leave_files_out() {
    let site = Site::new("copy-parents");
    for path in ["x/a/1.txt", "x/b/2.txt", "x/b/n.md", "y/1.txt", "top.txt"] {
        site.write(path, path);
    }
    let found = |steps: &str| {
        site.made(steps);
        site.told("cd /p; find . -type f | sort").replace('\n', " ")
    };
    assert_eq!(found("COPY --parents x/a/1.txt y/1.txt /p/\n"), "./x/a/1.txt ./y/1.txt");
    assert_eq!(found("COPY --parents x/*/*.txt /p\n"), "./x/a/1.txt ./x/b/2.txt");
    assert_eq!(found("COPY --parents ./x/./b/*.txt /p/\n"), "./b/2.txt");
    assert_eq!(found("COPY --parents **/*.txt /p/\n"), "./top.txt ./x/a/1.txt ./x/b/2.txt ./y/1.txt");
    assert_eq!(found("COPY --parents x/b /p/\n"), "./x/b/2.txt ./x/b/n.md");
    assert_eq!(found("COPY --exclude=*.md x/b /p/\n"), "./2.txt");
    assert_eq!(found("COPY --exclude=**/*.txt --exclude=y . /p/\n"), "./x/b/n.md");
    assert_eq!(found("COPY --exclude=n* x/b/* /p/\n"), "./2.txt");
    assert_eq!(
        found("FROM base:1 AS s\nCOPY . /s\nFROM base:1\nCOPY --from=s --parents /s/./**/*.md /p/\n"),
        "./x/b/n.md"
    );
}

#[test]
fn names_of_one_file_stay_names_of_one_file() {
    let site = Site::new("copy-links");
    site.write("d/a", "content");
    fs::hard_link(site.context().join("d/a"), site.context().join("d/b")).unwrap();
    site.write("d/c", "content");
    let same = "cd /p; test a -ef b && ! test a -ef c && cat a b";
    site.made("COPY d /p\n");
    assert_eq!(site.told(same), "contentcontent");
    site.made("RUN mkdir /o; echo x > /o/a; ln /o/a /o/b; echo x > /o/c\nFROM base:1\nCOPY --from=0 /o /p\n");
    assert_eq!(site.told(same), "x\nx");
}

#[test]
fn no_path_is_twice_in_the_layer_of_archives() {
    let site = Site::new("copy-twice");
    site.write("one.tar", tar(&[dir("d"), file("d/f", "first"), file("d/f", "second"), file("d/one", "1")]));
    site.write("two.tar", tar(&[dir("d"), file("d/f", "third"), file("d/two", "2")]));
    site.write("f", "copied");
    site.made("ADD f one.tar two.tar /x/d/\nADD one.tar f /x/\n");
    assert_eq!(site.told("cat /x/d/d/f /x/d/f /x/f; cat /x/d/d/one /x/d/d/two"), "thirdsecondcopied12");
    let kept = site.store.image("made").unwrap();
    for layer in &kept.layers[1..] {
        let blob = site.store.dir().join("layers").join(layer.diff_id.hex()).join("blob");
        let listed = std::process::Command::new("tar").arg("-tf").arg(&blob).output().unwrap();
        let names: Vec<String> = String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect();
        let mut once = names.clone();
        once.sort();
        once.dedup();
        assert!(names.len() > 4 && once.len() == names.len(), "{names:?} {}", blob.display());
    }
}

#[test]
fn users_of_a_step_have_their_groups_and_what_mounts_give_them() {
    let site = Site::new("copy-users");
    if !site.has_many_ids() {
        return;
    }
    let steps = "RUN echo staff2:x:51:web >> /etc/group\nUSER web\n\
        RUN id -G > /tmp/groups\n\
        RUN --mount=type=cache,target=/c,uid=33,gid=34,mode=0750,id=own echo x > /c/f && stat -c %u:%g:%a /c > /tmp/cache\n\
        RUN --mount=type=secret,id=s,uid=33 cat /run/secrets/s > /tmp/secret\n";
    site.store.build(&site.build(steps).secret("s", "hunter"), &|_| {}).unwrap_or_else(|e| panic!("{e} {}", e.hint()));
    assert_eq!(site.told("cat /tmp/cache /tmp/secret"), "33:34:750\nhunter");
    assert!(site.told("cat /tmp/groups").split_whitespace().any(|group| group == "51"));
}

#[test]
fn a_secret_belongs_to_its_steps_user_and_to_nobody_else_in_silence() {
    let site = Site::new("copy-secret-owner");
    let run = |user: &str, flags: &str| {
        let steps =
            format!("USER {user}\nRUN --mount=type=secret,id=s,target=/s{flags} stat -c %u:%g:%a:%s /s > /tmp/seen\n");
        site.store.build(&site.build(&steps).secret("s", "hunter").cache(false), &|_| {})
    };
    // The control: what it has may be asked for.
    for (user, flags, seen) in [
        ("root", "", "0:0:400:6"),
        ("root", ",uid=0,gid=0,mode=0440", "0:0:440:6"),
        ("web", ",uid=33,gid=34", "33:34:400:6"),
        ("33:7", ",gid=7", "33:7:400:6"),
    ] {
        run(user, flags).unwrap_or_else(|e| panic!("{user}{flags}: {e} {}", e.hint()));
        assert_eq!(site.told("cat /tmp/seen"), seen, "{user}{flags}");
    }
    for (user, flags, said, hint) in [
        ("root", ",uid=33", "uid=33", "uid=0"),
        ("root", ",gid=33", "gid=33", "gid=0"),
        ("web", ",uid=0", "uid=0", "uid=33"),
        ("web", ",uid=33,gid=0", "gid=0", "gid=34"),
    ] {
        let error = run(user, flags).map(drop).expect_err(flags);
        assert!(matches!(error, sandcell::Error::Config(_)), "{user}{flags}: {error}");
        assert!(error.to_string().contains("Dockerfile:3") && error.to_string().contains(said), "{error}");
        assert!(error.hint().contains(hint) && error.hint().contains("USER"), "{}", error.hint());
    }
    // Nor without the secret: whether it is given changes nothing. In a variable it has no owner.
    site.refused("RUN --mount=type=secret,id=none,gid=5 true\n", "gid=5");
    let variable = "RUN --mount=type=secret,id=s,env=S,uid=5 test $S = hunter\n";
    site.store.build(&site.build(variable).secret("s", "hunter"), &|_| {}).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn an_owner_of_a_mount_that_has_none_is_refused() {
    for mount in ["type=ssh,uid=5", "type=ssh,mode=0600", "type=tmpfs,target=/t,gid=5", "type=bind,target=/b,mode=0700"]
    {
        let text = format!("FROM base:1\nRUN --mount={mount} true\n");
        let error = Build::dockerfile(&text, "Dockerfile").map(drop).expect_err(mount);
        assert!(
            error.to_string().contains("Dockerfile:2") && error.to_string().contains("caches and secrets"),
            "{error}"
        );
        assert!(error.hint().starts_with("Leave them out"), "{}", error.hint());
    }
    Build::dockerfile("FROM base:1\nRUN --mount=type=cache,target=/c,uid=5,mode=0700 true\n", "Dockerfile").unwrap();
}

/// The attributes of a file in the layer of the last step.
fn noted(site: &Site, path: &str) -> Vec<(String, Vec<u8>)> {
    let kept = site.store.use_image("made").unwrap();
    let place = kept.layers.iter().map(|layer| layer.join(path)).find(|place| place.exists()).expect(path);
    xattrs(&place).into_iter().filter_map(|name| Some((name.clone(), xattr(&place, &name)?))).collect()
}

#[test]
fn attributes_of_users_are_kept_by_copies_and_by_archives_and_no_others() {
    let site = Site::new("copy-attributes");
    let set = |name: &str, attribute: &str, value: &[u8]| {
        let place = site.context().join(name);
        rustix::fs::setxattr(&place, attribute, value, rustix::fs::XattrFlags::empty())
    };
    site.write("f", "f");
    site.write("plain", "p");
    site.write("d/inner", "i");
    set("f", "user.note", b"kept\0\xff\n=7").unwrap();
    set("f", "user.empty", b"").unwrap();
    set("d/inner", "user.note", b"inner").unwrap();
    set("d", "user.note", b"of a directory").unwrap();
    set("plain", "user.overlay.metacopy", b"").unwrap();
    // Only the host's root may: rights that a file gives, and what only root sees.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let _ = (set("plain", "security.capability", &capability), set("plain", "trusted.note", b"t"));
    site.write("a.tar", tar(&[file("packed", "x").pax("SCHILY.xattr.user.note", "packed")]));
    site.made("COPY f plain /x/\nCOPY d /x/d\nADD a.tar /x/\nCOPY --from=base:1 file /x/\n");
    let both = [("user.empty", &b""[..]), ("user.note", b"kept\0\xff\n=7")].map(|(k, v)| (k.to_owned(), v.to_vec()));
    assert_eq!(noted(&site, "x/f"), both);
    assert_eq!(noted(&site, "x/d/inner"), [("user.note".to_owned(), b"inner".to_vec())]);
    assert_eq!(noted(&site, "x/packed"), [("user.note".to_owned(), b"packed".to_vec())]);
    for without in ["x/plain", "x/d", "x/file"] {
        assert_eq!(noted(&site, without), [], "{without}");
    }
    // From a stage, and under another owner, as from the context.
    site.made("COPY f /f\nFROM base:1\nCOPY --from=0 --chown=33:33 --chmod=0400 /f /again\n");
    assert_eq!(noted(&site, "again"), both);
}

#[test]
fn a_hard_link_of_an_archive_to_a_file_of_the_image_is_refused_with_what_to_do() {
    let site = Site::new("copy-link-below");
    site.write("below.tar", tar(&[hard("name", "file")]));
    let error = site.store.build(&site.build("ADD below.tar /\n"), &|_| {}).expect_err("no layer can hold it");
    assert!(matches!(error, sandcell::Error::Config(_)), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("Dockerfile:2") && text.contains("name: a hard link to file, which is in the image"),
        "{text}"
    );
    assert!(error.hint().contains("RUN ln"), "{}", error.hint());
    // What the hint says, and what the layer itself has: the controls.
    site.write("with.tar", tar(&[file("file", "new"), hard("name", "file")]));
    site.write("beside", "beside");
    site.write("to-beside.tar", tar(&[hard("name", "beside")]));
    site.made("ADD with.tar /\nADD beside to-beside.tar /x/\nRUN ln /file /by-run\n");
    assert_eq!(site.told("cat /name /x/name /by-run"), "newbesidenew");
    // One that is nowhere.
    site.write("nowhere.tar", tar(&[hard("name", "missing")]));
    let error = site.store.build(&site.build("ADD nowhere.tar /\n"), &|_| {}).expect_err("nothing to link to");
    assert!(error.to_string().contains("a hard link to missing, which this layer does not have"), "{error}");
    assert!(!error.hint().is_empty(), "{error}");
}

#[test]
fn an_agent_is_seen_by_the_steps_that_ask_for_it() {
    let site = Site::new("copy-agent");
    let socket = site.scratch.path("agent");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let steps = "RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo $SSH_AUTH_SOCK > /seen\nRUN echo [$SSH_AUTH_SOCK] >> /seen\n";
    let build = site.build(steps).ssh_agent("default", &socket);
    site.store.build(&build, &|_| {}).unwrap_or_else(|e| panic!("{e} {}", e.hint()));
    assert_eq!(site.told("cat /seen; test ! -e /run/buildkit"), "/run/buildkit/ssh_agent.0\n[]");
    site.made("RUN --mount=type=ssh test -z \"$SSH_AUTH_SOCK\"\n");
    site.refused("RUN --mount=type=ssh,required=true true\n", "is required and not given");
}

#[test]
fn an_image_is_found_by_the_full_and_the_short_form_of_its_name() {
    let site = Site::new("copy-names");
    for (stored, written) in [
        ("docker.io/library/one:1", "one:1"),
        ("two:1", "docker.io/library/two:1"),
        ("three:1", "localhost/three:1"),
        ("localhost/four:1", "four:1"),
        ("team/five:1", "docker.io/team/five:1"),
        ("docker.io/library/six:1", "docker.io/six:1"),
    ] {
        site.store.tag("base:1", &stored.parse().unwrap()).unwrap();
        let build = Build::dockerfile(&format!("FROM {written}\nLABEL a=b\n"), "f").unwrap();
        site.store.build(&build, &|_| {}).unwrap_or_else(|e| panic!("{written}: {e}"));
    }
    let other = Build::dockerfile("FROM quay.io/two:1\n", "f").unwrap();
    assert!(site.store.build(&other, &|_| {}).is_err(), "another registry's is another image");
}

#[test]
fn what_a_dockerfile_says_of_its_image_is_kept_word_for_word() {
    let site = Site::new("copy-words");
    site.made("MAINTAINER \"Some One\" <a@b>\nENV A \"x  y\" 'z'\nSTOPSIGNAL RTMIN+3\n");
    let image = inspected(&site.store.image("made").unwrap());
    assert_eq!(image["Author"], "\"Some One\" <a@b>");
    assert!(image["Config"]["Env"].to_string().contains("A=x  y z"), "{image}");
    assert_eq!(image["Config"]["StopSignal"], "RTMIN+3");
    site.write("a", "");
    let scratch = Build::dockerfile("FROM scratch\nCOPY a /\n", "f").unwrap().context(site.context());
    let image = inspected(&site.store.build(&scratch, &|_| {}).unwrap());
    assert!(image["Config"]["Env"].to_string().contains("PATH=/usr/local/sbin:"), "{image}");
}
