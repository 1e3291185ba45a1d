//! Races: links and directories swapped under a path that is being walked.
//!
//! The races against the library's own work on mount targets are on the host's side (`host.rs`): here the kernel's
//! walk must never leave the root, however the tree moves.

use crate::check::{Check, Facts, Held, NotApplicable, Open, Verdict, not_planted, p1};
use crate::sys::{c, call};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

pub const CHECKS: &[Check] = &[
    p1("race.symlink_swap", "CVE-2021-30465, CVE-2018-15664", "a directory and a link out are exchanged", |f| {
        swapped(f, false)
    }),
    p1("race.symlink_parent_swap", "CVE-2017-1002101", "the same with a parent of the opened path", |f| {
        swapped(f, true)
    }),
    p1("race.rename_climb", "CVE-2015-2925", "climbs by .. while the directory moves", climb),
    p1("race.proc_fd_swap", "CVE-2025-52881", "follows /proc/self/fd while the descriptor changes", fd_swap),
];

const ROUNDS: usize = 1500;

/// One thread exchanges, the other tries to open; both work in the writable mount.
fn swapped(facts: &Facts, parent: bool) -> Verdict {
    let (Some(rw), Some(canary)) = (facts.get("rw"), facts.list("canaries").first().map(|c| Path::new(*c))) else {
        return not_planted("canary file");
    };
    let base = format!("{rw}/race-{parent}");
    let _ = fs::remove_dir_all(&base);
    let (Some(directory), Some(file)) = (canary.parent(), canary.file_name()) else {
        return NotApplicable("a canary without a directory".into());
    };
    let (target, tail) = match (parent, directory.parent(), directory.file_name()) {
        (true, Some(above), Some(last)) => (above, Path::new(last).join(file)),
        _ => (directory, Path::new(file).to_path_buf()),
    };
    let prepared = fs::create_dir_all(format!("{base}/plain")).and_then(|()| symlink(target, format!("{base}/other")));
    if let Err(e) = prepared {
        return NotApplicable(e.to_string());
    }
    let (one, two) = (c(&format!("{base}/plain")), c(&format!("{base}/other")));
    let wanted = Path::new(&base).join("plain").join(tail);
    let verdict = against(
        move || {
            const EXCHANGE: u32 = 2;
            let cwd = libc::AT_FDCWD;
            let _ = call!(libc::SYS_renameat2, cwd, one.as_ptr(), cwd, two.as_ptr(), EXCHANGE);
        },
        || fs::File::open(&wanted).is_ok().then(|| wanted.display().to_string()),
    );
    let _ = fs::remove_dir_all(&base);
    verdict
}

fn climb(facts: &Facts) -> Verdict {
    let (Some(rw), Some(canary)) = (facts.get("rw"), facts.list("canaries").first().map(|c| c.to_string())) else {
        return not_planted("canary file");
    };
    let base = format!("{rw}/climb-race");
    let _ = fs::remove_dir_all(&base);
    if let Err(e) = fs::create_dir_all(format!("{base}/deep/a/b/c")) {
        return NotApplicable(e.to_string());
    }
    let (low, high) = (format!("{base}/deep/a"), format!("{base}/a"));
    let up = "../".repeat(16);
    let wanted = [format!("{low}/b/c/{up}{canary}"), format!("{high}/b/c/{up}{canary}")];
    let verdict = against(
        move || {
            let _ = fs::rename(&low, &high);
            let _ = fs::rename(&high, &low);
        },
        || wanted.iter().find(|path| fs::File::open(path).is_ok()).cloned(),
    );
    let _ = fs::remove_dir_all(&base);
    verdict
}

fn fd_swap(facts: &Facts) -> Verdict {
    let canaries: Vec<String> = facts.list("canaries").iter().map(|c| c.to_string()).collect();
    if canaries.is_empty() {
        return not_planted("canary file");
    }
    // Any that may be opened will do: where / may not, it is a directory below it.
    let may = |path: &str| crate::sys::open(path, libc::O_RDONLY | libc::O_DIRECTORY);
    let Ok(directory) = may("/").or_else(|_| may("/usr")) else {
        return NotApplicable("neither / nor /usr can be opened".into());
    };
    let other = crate::sys::open("/proc", libc::O_RDONLY | libc::O_DIRECTORY).unwrap_or(directory);
    const FREE: i64 = 200;
    let wanted: Vec<String> = canaries.iter().map(|c| format!("/proc/self/fd/{FREE}/../..{c}")).collect();
    against(
        move || {
            let _ = call!(libc::SYS_dup3, directory, FREE, libc::O_CLOEXEC);
            let _ = call!(libc::SYS_dup3, other, FREE, libc::O_CLOEXEC);
        },
        || wanted.iter().find(|path| fs::File::open(path).is_ok()).cloned(),
    )
}

/// Runs `mover` without pause in a second thread while `opener` tries its luck.
///
/// A few rounds in step follow: what is possible at all is then found whatever the scheduler did.
fn against(mover: impl Fn() + Sync, opener: impl Fn() -> Option<String>) -> Verdict {
    let done = AtomicBool::new(false);
    let raced = std::thread::scope(|scope| {
        let handle = std::thread::Builder::new().spawn_scoped(scope, || {
            while !done.load(Ordering::Relaxed) {
                mover();
            }
        });
        handle.map_err(|e| e.to_string())?;
        let found = (0..ROUNDS).find_map(|_| opener());
        done.store(true, Ordering::Relaxed);
        Ok::<_, String>(found)
    });
    let in_step = || {
        (0..4).find_map(|_| {
            mover();
            opener()
        })
    };
    match raced.map(|found| found.or_else(in_step)) {
        Ok(Some(path)) => Open(path),
        Ok(None) => Held(format!("{ROUNDS} tries")),
        Err(e) => NotApplicable(format!("no second thread: {e}")),
    }
}
