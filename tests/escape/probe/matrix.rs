//! Mounts with every set of flags, 32 below a read-only mount and the same below a writable one: none loses any.

use crate::check::{Facts, Held, NotApplicable, Open, Verdict, not_planted};
use crate::mounts::own_mount_table;
use crate::sys::{c, call};
use std::fs;

/// As statvfs(3) and as mount(2) have it. The numbers of the directories are sets of these, the first the lowest bit.
const FLAGS: [(u64, u64); 5] = [
    (libc::ST_RDONLY, libc::MS_RDONLY),
    (libc::ST_NOSUID, libc::MS_NOSUID),
    (libc::ST_NODEV, libc::MS_NODEV),
    (libc::ST_NOEXEC, libc::MS_NOEXEC),
    (libc::ST_NOATIME, libc::MS_NOATIME),
];

struct Cell {
    path: String,
    /// What it had outside.
    set: u64,
    read_only: bool,
}

impl Cell {
    fn wanted(&self, which: fn(&(u64, u64)) -> u64) -> u64 {
        FLAGS.iter().enumerate().filter(|(bit, _)| self.set >> bit & 1 == 1).map(|(_, flag)| which(flag)).sum()
    }

    /// What is wrong with it now. Where Landlock stands for the flag, nothing can be written all the same.
    fn lost(&self) -> Option<String> {
        let path = c(&self.path);
        // SAFETY: an all-zero `statvfs` is valid, both pointers are live.
        let flags = unsafe {
            let mut about: libc::statvfs = std::mem::zeroed();
            if libc::statvfs(path.as_ptr(), &raw mut about) != 0 {
                return None;
            }
            about.f_flag
        };
        let lost = self.wanted(|flag| flag.0) & !flags;
        if lost != 0 {
            return Some(format!("{} has lost {lost:#x}", self.path));
        }
        let file = format!("{}/written", self.path);
        if (self.read_only || self.set & 1 == 1) && fs::write(&file, "").is_ok() {
            let _ = fs::remove_file(&file);
            return Some(format!("{} can be written", self.path));
        }
        None
    }

    /// Without any flag, without each one, by both calls.
    fn remount(&self) {
        let path = c(&self.path);
        let own = self.wanted(|flag| flag.1);
        for flags in FLAGS.iter().map(|(_, flag)| own & !flag).chain([0, libc::MS_RELATIME, libc::MS_STRICTATIME]) {
            let (bind, all) = (libc::MS_REMOUNT | libc::MS_BIND | flags, libc::MS_REMOUNT | flags);
            for how in [bind, all, bind | libc::MS_REC] {
                let _ = call!(libc::SYS_mount, 0, path.as_ptr(), 0, how, 0);
            }
        }
        clear(&self.path, 0);
    }
}

/// Takes every flag off that mount_setattr(2) knows.
fn clear(path: &str, how: i32) {
    const MOUNT_SETATTR: i64 = 442;
    const ATIME: u64 = 0x70;
    const STRICT: u64 = 0x20;
    let path = c(path);
    for (set, take) in [(0, 1u64), (0, 2), (0, 4), (0, 8), (STRICT, ATIME), (STRICT, 15 | ATIME)] {
        let attributes = [set, take, 0, 0];
        let _ = call!(MOUNT_SETATTR, libc::AT_FDCWD, path.as_ptr(), how, attributes.as_ptr(), 32);
    }
}

fn cells(facts: &Facts) -> Vec<Cell> {
    let tops = [("matrix", true), ("matrix_rw", false)];
    let tops = tops.into_iter().filter_map(|(name, read_only)| Some((facts.get(name)?, read_only)));
    tops.flat_map(|(top, read_only)| (0..32).map(move |set| Cell { path: format!("{top}/{set}"), set, read_only }))
        .collect()
}

fn judge(cells: &[Cell]) -> Verdict {
    let lost: Vec<String> = cells.iter().filter_map(Cell::lost).collect();
    match (cells.len(), lost.first()) {
        (0, _) => not_planted("mounts with flags"),
        (count, None) => Held(format!("{count} mounts")),
        (count, Some(first)) => Open(format!("{} of {count}: {first}", lost.len())),
    }
}

pub fn kept(facts: &Facts) -> Verdict {
    judge(&cells(facts))
}

pub fn remounted(facts: &Facts) -> Verdict {
    let mut cells = cells(facts);
    if let (true, Open(before)) = (!facts.control(), judge(&cells)) {
        return NotApplicable(format!("less strict before: {before}"));
    }
    if facts.control() {
        own_mount_table();
        // Only what is lost by a remount counts.
        cells.iter_mut().for_each(|cell| cell.read_only = false);
    }
    cells.iter().for_each(Cell::remount);
    for top in ["matrix", "matrix_rw"].iter().filter_map(|name| facts.get(name)) {
        const RECURSIVE: i32 = 0x8000;
        clear(top, RECURSIVE);
    }
    judge(&cells)
}
