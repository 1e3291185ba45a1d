//! Trees that a program writes to while the library reads, changes or removes them: nothing outside is read or changed,
//! and nothing blocks. `SANDCELL_RACES=100000` makes it long.

#![cfg(feature = "image")]

mod image_support;
mod live;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use image_support::{Scratch, busybox, kept_upper, store_image, tar};
use live::{Exchanging, Outside, in_time};
use sandcell::image::{Commit, Format, Store, changes};
use sandcell::{Outcome, Root, Sandbox, Upper, User, subid_tree};
use serde_json::json;

type Start = fn(&Path, &Path, &Outside) -> Exchanging;

/// A kept upper whose file `data/spot` is exchanged all the time, and an image below it.
struct Site {
    scratch: Scratch,
    store: Store,
    outside: Outside,
    dir: PathBuf,
}

impl Site {
    fn new(name: &str) -> Site {
        let scratch = Scratch::new(name);
        let store = scratch.store();
        store_image(&store, "base:1", &[tar(&busybox())], json!({}));
        let outside = Outside::new(scratch.path("outside"));
        let dir = scratch.path("kept");
        let upper = kept_upper(&dir);
        fs::create_dir_all(upper.join("data/below")).unwrap();
        fs::write(upper.join("data/below/file"), "content").unwrap();
        fs::write(upper.join("data/spot"), "x".repeat(outside.secret.len())).unwrap();
        // Not even its owner may read it, as /etc/gshadow: what is not root changes the mode for a moment.
        fs::write(upper.join("data/unreadable"), "x").unwrap();
        fs::set_permissions(upper.join("data/unreadable"), PermissionsExt::from_mode(0o4001)).unwrap();
        Site { scratch, store, outside, dir }
    }

    fn exchanging(&self, spot: &str) -> Exchanging {
        Exchanging::start(&self.dir.join("upper").join(spot), &self.scratch.path("pool"), &self.outside)
    }

    /// Whatever came of it, it left alone what it was not about.
    fn is_untouched(&self) {
        self.outside.is_as_before();
        self.outside.is_not_in(&self.scratch.path("store"));
        self.outside.is_not_in(&self.scratch.path("copies"));
        self.outside.is_not_in(&self.scratch.path("saved"));
    }
}

#[test]
fn commit_and_save_take_nothing_from_outside() {
    let cases: [(&str, Start); 4] = [
        ("data/spot", Exchanging::start),
        ("data/unreadable", Exchanging::start),
        ("data/spot", Exchanging::with_link),
        ("data/unreadable", Exchanging::with_link),
    ];
    for (number, (spot, start)) in cases.into_iter().enumerate() {
        let site = Site::new(&format!("live-commit-{number}"));
        let exchanging = start(&site.dir.join("upper").join(spot), &site.scratch.path("pool"), &site.outside);
        let mut committed = 0;
        fs::create_dir(site.scratch.path("saved")).unwrap();
        exchanging.meanwhile(30, || {
            let (store, dir) = (site.store.clone(), site.dir.clone());
            let image = in_time("commit", move || store.commit(Some(&dir), &Commit::on("base:1")));
            if let Ok(image) = image {
                let to = site.scratch.path("saved").join(committed.to_string());
                site.store.export(&[&image.id.to_string()], Format::OciArchive, &to).expect("saved");
                committed += 1;
            }
        });
        drop(exchanging);
        assert!(committed > 0, "the control: now and then nothing is in the way");
        site.is_untouched();
    }
}

#[test]
fn diff_reads_nothing_from_outside() {
    let site = Site::new("live-diff");
    let exchanging = site.exchanging("data/spot");
    let layers = site.store.use_image("base:1").unwrap().layers.clone();
    let mut listed = 0;
    exchanging.meanwhile(10, || {
        let (dir, layers) = (site.dir.clone(), layers.clone());
        if let Ok(all) = in_time("diff", move || changes(&dir, &layers)) {
            listed += 1;
            assert!(all.iter().all(|change| !change.path.ends_with("secret")), "{all:?}");
            assert!(all.iter().any(|change| change.path == Path::new("/data/below/file")), "{all:?}");
        }
    });
    drop(exchanging);
    assert!(listed > 0);
    site.is_untouched();
}

#[test]
fn files_list_copy_and_reclaim_stay_in_the_tree() {
    let site = Site::new("live-files");
    let exchanging = site.exchanging("data/spot");
    let (mut number, mut done) = (0, [0; 3]);
    fs::create_dir(site.scratch.path("copies")).unwrap();
    exchanging.meanwhile(10, || {
        number += 1;
        let (tree, copy) = (site.dir.join("upper"), site.scratch.path(&format!("copies/{number}")));
        let results = in_time("files", move || {
            let listed = subid_tree::list(&tree);
            if let Ok(listed) = &listed {
                assert!(listed.iter().all(|entry| entry.path.components().count() <= 3), "{listed:?}");
            }
            [listed.is_ok(), subid_tree::copy_out(&tree, copy).is_ok(), subid_tree::reclaim(&tree).is_ok()]
        });
        for (count, is_ok) in done.iter_mut().zip(results) {
            *count += usize::from(is_ok);
        }
    });
    drop(exchanging);
    assert!(done.iter().all(|count| *count > 0), "{done:?}");
    site.is_untouched();
}

#[test]
fn removing_stays_in_the_tree() {
    let site = Site::new("live-remove");
    let mut number = 0;
    let exchanging = site.exchanging("data/spot");
    exchanging.meanwhile(10, || {
        number += 1;
        let tree = site.scratch.path(&format!("tree-{number}"));
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::set_permissions(tree.join("a/b"), PermissionsExt::from_mode(0o000)).unwrap();
        symlink(&site.outside.dir, tree.join("a/link")).unwrap();
        // The one that others exchange goes in and out of this tree, too.
        let spot = site.dir.join("upper/data/spot");
        let _ = fs::rename(&spot, tree.join("a/spot"));
        let removed = tree.clone();
        let result = in_time("remove", move || subid_tree::remove(removed));
        result.unwrap_or_else(|error| panic!("{error}"));
        assert!(!tree.exists());
        let _ = fs::write(&spot, "again");
    });
    drop(exchanging);
    site.is_untouched();
}

#[test]
fn a_kept_upper_starts_again_whatever_is_in_it() {
    let site = Site::new("live-again");
    fs::create_dir_all(site.dir.join("upper/etc")).unwrap();
    fs::write(site.dir.join("upper/etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    let exchanging = site.exchanging("etc/passwd");
    let (mut started, mut last) = (0, String::new());
    exchanging.meanwhile(10, || {
        let (store, dir) = (site.store.dir().to_owned(), site.dir.clone());
        let output = in_time("a start", move || {
            let builder = Sandbox::builder().store(store).root(Root::image("base:1")).upper(Upper::Dir(dir));
            builder.user(User::Root).build()?.command("/bin/sh").args(["-c", ":"]).output()
        });
        started += usize::from(output.is_ok());
        if let Err(error) = output {
            last = error.to_string();
            assert!(!last.contains(&site.outside.secret), "{last}");
        }
    });
    drop(exchanging);
    assert!(started > 0, "the control: now and then nothing is in the way: {last}");
    site.outside.is_as_before();
}

#[test]
fn changes_of_a_cell_are_listed_while_it_writes() {
    let scratch = Scratch::new("live-cell");
    let store = scratch.store();
    store_image(&store, "base:1", &[tar(&busybox())], json!({}));
    let sandbox = Sandbox::builder().store(store.dir()).root(Root::image("base:1")).user(User::Root).build().unwrap();
    let cell = sandbox.start().unwrap();
    let script = "mkdir -p /w/a/b /w/c; echo > /w/a/b/f; ln -s / /w/l; while :; do mv /w/a/b /w/c/b; mv /w/c/b /w/a/b; \
        mv /w/l /w/a/l; mv /w/a/l /w/l; done";
    let mut child = cell.command("/bin/sh").args(["-c", script]).spawn().unwrap();
    let mut listed = 0;
    for _ in 0..(live::races() / 20) {
        match cell.changes() {
            Ok(all) => {
                listed += 1;
                let odd =
                    all.iter().find(|change| !change.path.starts_with("/w") && change.path.components().count() > 2);
                assert!(odd.is_none(), "{odd:?}");
            }
            Err(error) => assert!(error.to_string().contains("was moved while"), "{error}"),
        }
    }
    assert!(listed > 0);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().outcome, Outcome::Killed);
}

#[test]
fn a_volume_is_removed_without_leaving_it() {
    let scratch = Scratch::new("live-volume");
    let store = scratch.store();
    store_image(&store, "base:1", &[tar(&busybox())], json!({}));
    let outside = Outside::new(scratch.path("outside"));
    let sandbox = || {
        let builder = Sandbox::builder().store(store.dir()).root(Root::image("base:1")).user(User::Root);
        builder.volume("data", "/data", true).build().unwrap()
    };
    let run = |script: &str| sandbox().command("/bin/sh").args(["-c", script]).output().unwrap();
    let path = store.dir().join("volumes/data/data");
    assert_eq!(run("mkdir -p /data/dir; echo > /data/spot; echo > /data/dir/f").outcome, Outcome::Exited(0));
    let exchanging = Exchanging::start(&path.join("spot"), &scratch.path("pool"), &outside);
    exchanging.meanwhile(10, || assert_eq!(run("ls -laR /data >/dev/null; true").outcome, Outcome::Exited(0)));
    drop(exchanging);
    symlink(&outside.dir, path.join("link")).unwrap();
    store.remove_volume("data").unwrap();
    outside.is_as_before();
    assert!(!path.exists());
}

#[test]
fn volumes_are_started_listed_and_removed_while_what_is_in_them_is_exchanged() {
    let site = Site::new("live-volumes");
    let (spot, mut number, mut seen) = (site.dir.join("upper/data/spot"), 0, 0);
    let exchanging = site.exchanging("data/spot");
    exchanging.meanwhile(10, || {
        number += 1;
        let name = format!("v{number}");
        let (store, volume) = (site.store.clone(), name.clone());
        let run = move |script: &'static str| {
            let builder = Sandbox::builder().store(store.dir()).root(Root::image("base:1")).user(User::Root);
            let sandbox = builder.volume(&volume, "/data", true).build().unwrap();
            in_time("a run", move || sandbox.command("/bin/sh").args(["-c", script]).output().unwrap())
        };
        assert_eq!(run("mkdir /data/a; echo > /data/a/f").outcome, Outcome::Exited(0));
        // What others exchange goes in and out of the volume, too.
        let inside = site.store.dir().join("volumes").join(&name).join("data/a/spot");
        let _ = fs::rename(&spot, &inside);
        let output = run("cat /data/a/spot 2>/dev/null & sleep 0.01; kill $! 2>/dev/null; true");
        seen += usize::from(!output.stdout.is_empty());
        // What a link leads to is not there inside.
        assert!(!String::from_utf8_lossy(&output.stdout).contains(&site.outside.secret));
        let (store, volume) = (site.store.clone(), name);
        let removed = in_time("removing", move || {
            assert!(store.volumes().unwrap().iter().any(|info| info.name == volume));
            store.remove_volume(&volume)
        });
        removed.unwrap_or_else(|error| panic!("{error}"));
        assert!(!inside.exists());
        let _ = fs::write(&spot, "again");
    });
    drop(exchanging);
    assert!(seen > 0, "the control: now and then there is a file to read");
    site.is_untouched();
}

/// A socket that is shown by its name: the caller has named it, and its directory belongs to a program.
#[test]
fn a_socket_shown_by_name_is_that_socket_or_a_clean_error_whatever_takes_its_place() {
    let scratch = Scratch::new("live-socket");
    let outside = Outside::new(scratch.path("outside"));
    fs::create_dir(scratch.path("shared")).unwrap();
    let (spot, pool) = (scratch.path("shared/socket"), scratch.path("pool"));
    let listener = UnixListener::bind(&spot).unwrap();
    let answering = std::thread::spawn(move || {
        let mut answered = 0;
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = String::new();
            let _ = stream.read_to_string(&mut request);
            if request == "end" {
                break;
            }
            answered += 1;
        }
        answered
    });
    let script = "import socket, sys
try:
    s = socket.socket(socket.AF_UNIX); s.connect('/tmp/socket'); s.sendall(b'hello')
except OSError as error: print(error.strerror)";
    let kept = fs::File::open(scratch.path("shared")).unwrap();
    let exchanging = Exchanging::start(&spot, &pool, &outside);
    let (mut started, mut refused) = (0, 0);
    exchanging.meanwhile(20, || {
        let source = spot.clone();
        let result = in_time("a start", move || {
            let builder = Sandbox::builder().rw(&source, "/tmp/socket").timeout(std::time::Duration::from_secs(60));
            builder.build()?.command("python3").args(["-c", script]).output()
        });
        match result {
            Ok(output) => {
                started += 1;
                assert_eq!(output.outcome, Outcome::Exited(0), "{}", String::from_utf8_lossy(&output.stderr));
            }
            Err(error) => {
                refused += 1;
                assert!(matches!(error.kind(), "config" | "setup"), "{error}");
                assert!(!error.hint().is_empty() && error.subject().contains("socket"), "{error}");
            }
        }
    });
    drop((exchanging, kept));
    // Whichever of them is at which place now.
    let places = fs::read_dir(&pool).unwrap().map(|entry| entry.unwrap().path()).chain([spot]);
    let mut ended = places.filter_map(|place| UnixStream::connect(place).ok());
    ended.next().expect("the socket").write_all(b"end").unwrap();
    let answered = answering.join().unwrap();
    assert!(answered > 0 && started >= answered, "{answered} of {started}, {refused} refused");
    outside.is_as_before();
}
