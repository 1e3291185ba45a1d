//! A program that changes a tree while the library works on it: what a name stands for is exchanged, again and again,
//! with a link to a secret, a FIFO, a device, a directory and another file.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};

/// No call may take longer; a busy machine is no reason to fail.
const PATIENCE: Duration = Duration::from_secs(300);

/// How many exchanges there must have been at least: some thousand, or what `SANDCELL_RACES` says.
pub fn races() -> usize {
    std::env::var("SANDCELL_RACES").ok().and_then(|text| text.parse().ok()).unwrap_or(2000)
}

/// What is not to be read or changed: a tree with a secret in it.
pub struct Outside {
    pub dir: PathBuf,
    pub secret: String,
    before: BTreeMap<PathBuf, String>,
}

impl Outside {
    pub fn new(dir: PathBuf) -> Outside {
        let secret = format!("secret-of-the-caller-{}", std::process::id());
        fs::create_dir_all(dir.join("inner")).unwrap();
        fs::write(dir.join("secret"), &secret).unwrap();
        fs::write(dir.join("inner/secret"), &secret).unwrap();
        fs::write(dir.join("closed"), &secret).unwrap();
        fs::set_permissions(dir.join("closed"), std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
        let before = super::image_support::snapshot(&dir);
        Outside { dir, secret, before }
    }

    /// Nothing of it has changed.
    pub fn is_as_before(&self) {
        assert_eq!(super::image_support::snapshot(&self.dir), self.before);
    }

    /// No file beneath this directory holds the secret.
    pub fn is_not_in(&self, tree: &Path) {
        let mut pending = vec![tree.to_owned()];
        while let Some(path) = pending.pop() {
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() {
                pending.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            } else if meta.is_file() {
                let content = fs::read(&path).unwrap_or_default();
                let found = content.windows(self.secret.len()).any(|part| part == self.secret.as_bytes());
                assert!(!found, "{} holds the secret", path.display());
            }
        }
    }
}

/// Exchanges what a name means until it is dropped.
pub struct Exchanging {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Exchanging {
    /// With a link to a secret only, which is in the way half of the time.
    pub fn with_link(spot: &Path, pool: &Path, outside: &Outside) -> Exchanging {
        fs::create_dir_all(pool).unwrap();
        symlink(outside.dir.join("closed"), pool.join("link")).unwrap();
        Exchanging::between(spot, vec![pool.join("link")])
    }

    /// `spot`: a file that is there. `pool`: a new directory beside the tree, on the same file system.
    pub fn start(spot: &Path, pool: &Path, outside: &Outside) -> Exchanging {
        fs::create_dir_all(pool).unwrap();
        symlink(outside.dir.join("closed"), pool.join("link")).unwrap();
        symlink(&outside.dir, pool.join("link-to-directory")).unwrap();
        mknodat(CWD, pool.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        fs::create_dir(pool.join("directory")).unwrap();
        symlink(outside.dir.join("secret"), pool.join("directory/inner")).unwrap();
        fs::write(pool.join("file"), "another").unwrap();
        // Only the host's root can: /dev/zero, which has no end.
        let _ = mknodat(CWD, pool.join("device"), FileType::CharacterDevice, Mode::RWXU, rustix::fs::makedev(1, 5));
        Exchanging::between(spot, fs::read_dir(pool).unwrap().map(|entry| entry.unwrap().path()).collect())
    }

    fn between(spot: &Path, others: Vec<PathBuf>) -> Exchanging {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (spot, stopped, counted) = (spot.to_owned(), stop.clone(), count.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for other in &others {
                    // There and back, so that the spot is a file half of the time.
                    for _ in 0..2 {
                        if renameat_with(CWD, &spot, CWD, other, RenameFlags::EXCHANGE).is_ok() {
                            counted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            }
        });
        Exchanging { stop, count, thread: Some(thread) }
    }

    /// Does something until there were exchanges enough, and at least so often.
    pub fn meanwhile(&self, least: usize, mut work: impl FnMut()) {
        let mut times = 0;
        while self.count.load(Ordering::Relaxed) < races() || times < least {
            work();
            times += 1;
        }
        println!("{times} times, {} exchanges", self.count.load(Ordering::Relaxed));
    }
}

impl Drop for Exchanging {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The result of something that must not block.
pub fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    match wait.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what} did not come to an end"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("{what} panicked"),
    }
}
