//! Runs of images with many ids: the image's owners are kept, on the disk, in a commit, and on the way out.

#![cfg(feature = "image")]

mod image_support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use image_support::*;
use sandcell::Capability::*;
use sandcell::image::{Commit, Owners, Store, changes};
use sandcell::{Builder, Error, Outcome, Root, Sandbox, Upper, User};
use serde_json::json;

/// Of a whole distribution, as root inside; other tests of the same user may have the ids for a moment.
fn many(store: &Store, image: &str) -> Builder {
    let caps = [CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SETGID, CAP_SETUID];
    let builder = one(store, image).user(User::Root).id_count(65536).wait_for_ids(Duration::from_secs(100));
    caps.into_iter().fold(builder, Builder::cap_add)
}

fn one(store: &Store, image: &str) -> Builder {
    Sandbox::builder().store(store.dir()).root(Root::image(image))
}

fn told(builder: Builder, script: &str) -> String {
    let sandbox = builder.build().unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
    let output = sandbox.command("/bin/sh").args(["-c", script]).env("PATH", "/bin").output();
    let output = output.unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    assert_eq!(output.outcome, Outcome::Exited(0), "{script}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn layers() -> Vec<Vec<u8>> {
    let mut base = busybox();
    base.extend([
        dir("./").owner(12, 12),
        dir("var"),
        dir("var/mail").mode(0o2775).owner(0, 8),
        dir("var/secret").mode(0o700).owner(42, 42),
        file("var/secret/key", "key").mode(0o600).owner(42, 42),
        hard("var/key2", "var/secret/key"),
        symlink("var/link", "secret/key").owner(7, 7),
        file("var/far", "").owner(4_000_000, 1),
    ]);
    vec![
        tar(&base),
        tar(&[dir("srv/web").owner(33, 34), file("srv/web/.wh.page", ""), file("srv/web/more", "more").owner(33, 0)]),
    ]
}

const STAT: &str =
    "stat -c '%n %u:%g %a' /srv/web /srv/web/* /var/mail /var/secret /var/secret/key /var/key2 /var/link /etc";
const OWNERS: &str = "/srv/web 33:34 755\n/srv/web/more 33:0 644\n/var/mail 0:8 2775\n/var/secret 42:42 700\n\
    /var/secret/key 42:42 600\n/var/key2 42:42 600\n/var/link 7:7 777\n/etc 0:0 755";

#[test]
fn owners_of_an_image_are_kept_where_there_are_many_ids_and_squashed_where_there_is_one() {
    let scratch = Scratch::new("range-owners");
    let store = scratch.store();
    store_image(&store, "app", &layers(), json!({}));
    let before = snapshot(&store.use_image("app").unwrap().layers[0]);
    assert_eq!(told(many(&store, "app"), STAT), OWNERS);
    assert_eq!(told(many(&store, "app"), "cat /var/secret/key /var/link; stat -c %h /var/key2"), "keykey2");
    assert_eq!(told(one(&store, "app").user(User::fixed(9, 9)), "stat -c '%u:%g' /var/secret/key"), "9:9");
    // Another user of the image is another id here, and no more than that.
    let web = many(&store, "app").user(User::fixed(33, 34));
    let web = told(
        web,
        "id -u; cat /var/secret/key 2>/dev/null || echo shut; echo x > /srv/web/x && stat -c %u:%g /srv/web/x",
    );
    assert_eq!(web.lines().collect::<Vec<_>>()[..1], ["33"]);
    assert!(web.ends_with("33:34"), "{web}");
    assert_eq!(snapshot(&store.use_image("app").unwrap().layers[0]), before, "the layers are as they were");
    // Everything goes, also what belongs to others.
    let gone = store.remove("app").unwrap();
    assert_eq!(gone.layers.len(), 2);
    assert_eq!(fs::read_dir(store.dir().join("layers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_directory_that_a_layer_does_not_list_keeps_its_owner() {
    let scratch = Scratch::new("range-implied");
    let store = scratch.store();
    let mut layers = layers();
    layers.push(tar(&[file("var/secret/more", ""), file("var/mail/.wh.x", ""), file("srv/web/last", "")]));
    store_image(&store, "app", &layers, json!({}));
    assert_eq!(
        told(many(&store, "app"), STAT),
        OWNERS.replace("/srv/web/more", "/srv/web/last 0:0 644\n/srv/web/more")
    );
    store.remove("app").unwrap();
    for dir in ["images", "layers", "tmp"] {
        assert_eq!(fs::read_dir(store.dir().join(dir)).unwrap().count(), 0, "{dir}");
    }
}

#[test]
fn an_ordinary_user_of_the_image_is_kept_out_by_its_modes() {
    let scratch = Scratch::new("range-modes");
    let store = scratch.store();
    store_image(&store, "app", &layers(), json!({}));
    let builder = one(&store, "app").id_count(65536).wait_for_ids(Duration::from_secs(100));
    let script = "cat /var/secret/key 2>/dev/null || echo shut; echo x > /etc/x 2>/dev/null || echo closed";
    assert_eq!(told(builder.clone().user(User::fixed(33, 34)), script), "shut\nclosed");
    assert_eq!(told(builder.user(User::fixed(42, 42)), "cat /var/secret/key"), "key");
}

#[test]
fn what_a_run_of_many_ids_wrote_becomes_a_layer_with_its_owners() {
    let scratch = Scratch::new("range-commit");
    let store = scratch.store();
    store_image(&store, "app", &layers(), json!({}));
    let dir = scratch.path("changes");
    let script = "mkdir /srv/db /srv/team && chown 5:6 /srv/team && chmod 2770 /srv/team && echo data > /srv/db/file && chmod 600 /srv/db/file && chmod 700 /srv/db && \
        chown -R 99:98 /srv/db && echo mail > /var/mail/me && chown 0:0 /var/secret/key && chown -h 5:5 /var/link";
    told(many(&store, "app").upper(Upper::Dir(dir.clone())), script);
    let kept = store.use_image("app").unwrap();
    let listed: Vec<String> = changes(&dir, &kept.layers)
        .unwrap()
        .iter()
        .map(|change| format!("{} {}", change.kind.letter(), change.path.display()))
        .collect();
    assert!(
        listed.contains(&"A /srv/db/file".to_owned()) && listed.contains(&"C /var/secret/key".to_owned()),
        "{listed:?}"
    );
    let commit = Commit::on("app").name("app:2".parse().unwrap()).owners(Owners::of_upper(&dir).unwrap());
    let first = store.commit(Some(&dir), &commit).unwrap();
    assert_eq!(store.commit(Some(&dir), &commit).unwrap().id, first.id, "the same again");
    let is = "stat -c '%n %u:%g %a' /srv/db /srv/team /srv/db/file /var/mail /var/mail/me /var/secret /var/secret/key /var/link; cat /srv/db/file";
    let said = "/srv/db 99:98 700\n/srv/team 5:6 2770\n/srv/db/file 99:98 600\n/var/mail 0:8 2775\n/var/mail/me 0:8 644\n/var/secret 42:42 700\n\
        /var/secret/key 0:0 600\n/var/link 5:5 777\ndata";
    assert_eq!(told(many(&store, "app:2"), is), said);
    // The same upper goes on with the same ids, and a random UID of its own runs on what was committed.
    assert_eq!(told(many(&store, "app").upper(Upper::Dir(dir.clone())), "cat /srv/db/file"), "data");
    let random = told(one(&store, "app:2"), "id -u; cat /srv/db/file");
    assert!(
        random.lines().next().unwrap().parse::<u32>().unwrap() >= 1_000_000 && random.ends_with("data"),
        "{random}"
    );
    sandcell::subid_tree::remove(&dir).unwrap();
}

#[test]
fn runs_of_many_ids_share_them() {
    let scratch = Scratch::new("range-together");
    let store = scratch.store();
    store_image(&store, "app", &layers(), json!({}));
    let cells: Vec<_> = (0..3).map(|_| many(&store, "app").build().unwrap().start().unwrap()).collect();
    for cell in &cells {
        let output = cell.command("/bin/stat").args(["-c", "%u", "/var/secret/key"]).output().unwrap();
        assert_eq!(output.stdout, b"42\n");
        let report = output.enforced.iter().find(|line| line.item == "identity").unwrap();
        assert_eq!(report.disjoint, Some(false));
        assert!(report.why.as_ref().unwrap().contains("files of the image"), "{report:?}");
    }
}

#[test]
fn a_sandbox_of_one_id_goes_on_without_its_own_where_runs_of_images_have_them_all() {
    let scratch = Scratch::new("range-lent");
    let store = scratch.store();
    store_image(&store, "app", &layers(), json!({}));
    let _cell = many(&store, "app").build().unwrap().start().unwrap();
    let sandbox = Sandbox::builder().build().unwrap();
    let output = sandbox.command("/bin/true").output().unwrap();
    let report = output.enforced.iter().find(|line| line.item == "identity").unwrap();
    // Root has ids enough for both; the user of these tests has as many as one distribution needs.
    assert_eq!(report.disjoint, Some(nix::unistd::geteuid().is_root()), "{report:?}");
    if report.disjoint == Some(false) {
        assert!(report.why.as_ref().unwrap().contains("no slice of 1 UIDs is free"), "{report:?}");
    }
}

#[test]
fn more_ids_than_there_are_is_an_error_that_says_so() {
    let scratch = Scratch::new("range-most");
    let store = scratch.store();
    store_image(&store, "app", &layers(), json!({}));
    let error = one(&store, "app").id_count(4_000_000_000).build().expect_err("nobody has so many");
    assert!(matches!(error, Error::Unsupported(_)) && error.to_string().contains("4000000000"), "{error}");
    let owner = fs::metadata(store.dir()).unwrap().uid();
    assert_eq!(owner, nix::unistd::geteuid().as_raw());
}
