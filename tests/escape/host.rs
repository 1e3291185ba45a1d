//! What the host sees: before the probe starts, while it waits inside, and after everything ended.

use super::plants::Plants;
use super::scene::{EXTRA_GROUPS, Scene};
use super::{Entry, Row};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// id, class, priority, what it remembers, what is looked for.
const CHECKS: &[(&str, &str, u64, &str, &str)] = &[
    (
        "id.payload_uid",
        "identity",
        1,
        "a shared id with the caller",
        "the program runs as the caller or as root, seen from the host",
    ),
    (
        "id.payload_gid",
        "identity",
        1,
        "a shared group with the caller",
        "the program has the caller's or root's group, seen from the host",
    ),
    ("id.payload_groups", "identity", 1, "CVE-2018-7169", "the program keeps groups of the caller, seen from the host"),
    (
        "id.rw_owner",
        "identity",
        1,
        "trees that their owner cannot remove",
        "files made inside cannot be removed by the caller",
    ),
    (
        "id.setid_left",
        "identity",
        2,
        "CVE-2021-41091, CVE-2023-0386",
        "set-id files of the caller or root made inside stay on the host",
    ),
    ("host.mounts", "host", 1, "mounts propagated to the host", "the caller's mount table changes"),
    ("host.abstract_sockets", "host", 1, "CVE-2020-15257", "a new abstract socket in the caller's network"),
    ("host.files", "host", 1, "CVE-2019-5736, CVE-2024-21626", "a file of the caller changes, or a new one appears"),
    ("host.log", "host", 1, "the caller's log cut or overwritten", "what stood in the caller's log changes"),
    ("host.terminal", "host", 1, "CVE-2017-5226, CVE-2019-10063", "a key press arrives in the caller's terminal"),
    ("host.victim", "host", 1, "a shared PID namespace", "the caller's other process ends"),
    ("host.cgroups", "host", 1, "trap 26", "a group of the sandbox stays"),
    (
        "life.daemon",
        "life cycle",
        1,
        "bubblewrap 700, nsjail 299",
        "a daemon (double fork, own session) outlives the sandbox",
    ),
    ("life.ignores", "life cycle", 1, "bubblewrap 730", "one that ignores every signal outlives it"),
    ("life.stopped", "life cycle", 1, "trap 26", "one that is stopped outlives it"),
    (
        "life.kept_stdout",
        "life cycle",
        1,
        "arapuca 70",
        "a daemon that keeps stdout open keeps the launcher from ending",
    ),
    ("life.status", "life cycle", 1, "exit status lost", "the launcher's status is not the program's"),
];

pub fn catalogue() -> Vec<Entry> {
    CHECKS
        .iter()
        .map(|(id, class, priority, remembers, tries)| Entry {
            id: id.to_string(),
            class: class.to_string(),
            priority: *priority,
            remembers: remembers.to_string(),
            tries: tries.to_string(),
        })
        .collect()
}

fn row(id: &str, result: &str, detail: impl Into<String>) -> Row {
    let (class, priority) = CHECKS.iter().find(|c| c.0 == id).map_or(("host", 1), |c| (c.1, c.2));
    Row { id: id.into(), class: class.into(), priority, result: result.into(), detail: detail.into() }
}

fn judged(id: &str, open: bool, detail: impl Into<String>) -> Row {
    row(id, if open { "open" } else { "held" }, detail)
}

/// What must be the same afterwards.
pub struct Before {
    mounts: String,
    sockets: BTreeSet<(String, String)>,
    files: BTreeMap<PathBuf, u64>,
    log: Vec<u8>,
    cgroups: HashMap<PathBuf, ()>,
}

impl Before {
    pub fn new(scene: &Scene, program: Option<&Path>) -> Before {
        Before {
            mounts: read("/proc/self/mountinfo"),
            sockets: abstract_sockets(),
            files: fingerprints(scene, program),
            log: fs::read(&scene.log).unwrap_or_default(),
            cgroups: own_cgroups("self").into_iter().map(|path| (path, ())).collect(),
        }
    }
}

/// What was seen while the program waited inside.
#[derive(Default)]
pub struct During {
    rows: Vec<Row>,
    cgroups: Vec<PathBuf>,
    /// The program's groups on the host.
    gids: Vec<u32>,
}

impl During {
    /// `launcher` is the process that the caller started; the program is below it.
    pub fn look(scene: &Scene, before: &Before, launcher: i32) -> During {
        let own = sockets_below(launcher);
        let new: Vec<String> = abstract_sockets()
            .into_iter()
            .filter(|s| !before.sockets.contains(s) && own.contains(&s.1))
            .map(|s| s.0)
            .collect();
        let mut rows = vec![
            judged("host.abstract_sockets", !new.is_empty(), format!("{new:?}")),
            judged("host.mounts", read("/proc/self/mountinfo") != before.mounts, "compared while it ran"),
        ];
        let Some(pid) = payload(launcher) else {
            for id in ["id.payload_uid", "id.payload_gid", "id.payload_groups"] {
                rows.push(row(id, "n/a", "the program was not found from the host"));
            }
            return During { rows, ..During::default() };
        };
        let ids = |field: &str| -> Vec<u32> {
            status(pid, field).split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect()
        };
        let (uids, gids, groups) = (ids("Uid"), ids("Gid"), ids("Groups"));
        let caller = &scene.caller;
        rows.push(judged("id.payload_uid", uids.iter().any(|u| *u == caller.uid || *u == 0), format!("{uids:?}")));
        rows.push(judged("id.payload_gid", gids.iter().any(|g| *g == caller.gid || *g == 0), format!("{gids:?}")));
        let kept: Vec<&u32> = groups.iter().filter(|g| EXTRA_GROUPS.contains(g) || **g == caller.gid).collect();
        rows.push(match (scene.privileged, kept.is_empty()) {
            (_, false) => row("id.payload_groups", "open", format!("{kept:?}")),
            (true, true) => row("id.payload_groups", "held", format!("{groups:?}")),
            (false, true) => row("id.payload_groups", "n/a", "the caller has no supplementary groups"),
        });
        let cgroups =
            own_cgroups(&pid.to_string()).into_iter().filter(|path| !before.cgroups.contains_key(path)).collect();
        During { rows, cgroups, gids }
    }
}

impl During {
    /// Whoever holds a range of groups by /etc/subgid, or is root, may drop groups: a file that is closed to one of
    /// them (CVE-2014-8989) is then no bar. Only where the program has the caller's own group is it an escape.
    pub fn excuse_negative_group(&self, scene: &Scene, rows: &mut [Row]) {
        let by_right = scene.caller.uid == 0 || !(self.gids.is_empty() || self.gids.contains(&scene.caller.gid));
        for row in rows.iter_mut().filter(|row| by_right && row.id == "id.negative_group" && row.is_open()) {
            row.result = "n/a".into();
            row.detail = "the caller may drop groups".into();
        }
    }
}

/// How the launcher ended.
pub struct End {
    pub status: Option<i32>,
    /// It did not end by itself in time and was killed.
    pub hung: bool,
}

pub fn after(
    scene: &Scene,
    plants: &Plants,
    before: &Before,
    during: During,
    end: &End,
    program: Option<&Path>,
) -> Vec<Row> {
    let mut rows = during.rows;
    rows.push(judged("life.kept_stdout", end.hung, if end.hung { "it was ended" } else { "it ended" }));
    rows.push(judged("life.status", end.status != Some(0), format!("{:?}", end.status)));
    rows.extend(daemons(plants));
    if read("/proc/self/mountinfo") != before.mounts {
        rows.retain(|r| r.id != "host.mounts");
        rows.push(row("host.mounts", "open", "another table afterwards"));
    }
    let files = fingerprints(scene, program);
    let changed: Vec<String> = files
        .iter()
        .filter(|(path, print)| before.files.get(*path) != Some(print))
        .map(|(path, _)| path)
        .chain(before.files.keys().filter(|path| !files.contains_key(*path)))
        .map(|path| path.display().to_string())
        .collect();
    rows.push(judged("host.files", !changed.is_empty(), format!("{} files, changed {changed:?}", files.len())));
    let log = fs::read(&scene.log).unwrap_or_default();
    rows.push(judged("host.log", !log.starts_with(&before.log), format!("{} bytes now", log.len())));
    rows.push(match plants.typed() {
        Ok(count) => judged("host.terminal", count > 0, format!("{count} bytes")),
        Err(e) => row("host.terminal", "n/a", e.to_string()),
    });
    rows.push(judged("host.victim", !plants.victim_lives(), "looked for it by waitpid"));
    let left: Vec<&PathBuf> =
        during.cgroups.iter().filter(|path| gone_after(path, Duration::from_millis(500))).collect();
    rows.push(judged("host.cgroups", !left.is_empty(), format!("of {} groups: {left:?}", during.cgroups.len())));
    // Only what this run made: the kernel refuses as long as somebody is in it.
    left.iter().for_each(|path| {
        (0..100)
            .take_while(|_| fs::remove_dir(path).is_err())
            .for_each(|_| std::thread::sleep(Duration::from_millis(5)));
    });
    rows.extend(made_inside(scene));
    rows
}

/// Whether the path is still there when the time is over.
fn gone_after(path: &Path, time: Duration) -> bool {
    let end = Instant::now() + time;
    while path.exists() {
        if Instant::now() > end {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

fn daemons(plants: &Plants) -> Vec<Row> {
    let kinds = [("plain", "life.daemon"), ("ignores", "life.ignores"), ("stopped", "life.stopped")];
    // The kernel tears a PID namespace down after its first process was reaped: give it a moment.
    let mut left: HashMap<String, i32> = HashMap::new();
    for _ in 0..20 {
        left = named_processes(&plants.daemon_name);
        if left.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let rows = kinds
        .iter()
        .map(|(kind, id)| match left.get(&format!("{}-{kind}", plants.daemon_name)) {
            Some(pid) => row(id, "open", format!("process {pid} is still there")),
            None => row(id, "held", "gone"),
        })
        .collect();
    for pid in left.values() {
        // SAFETY: a number and a signal; the process carries a name that only this run gives out.
        unsafe { libc::kill(*pid, libc::SIGKILL) };
    }
    rows
}

fn named_processes(prefix: &str) -> HashMap<String, i32> {
    let all = processes().into_iter();
    all.map(|pid| (status(pid, "Name"), pid)).filter(|(name, _)| name.starts_with(prefix)).collect()
}

fn made_inside(scene: &Scene) -> Vec<Row> {
    let rw = &scene.shared.rw;
    let set_id = match fs::metadata(rw.join("set-id")) {
        Err(e) => row("id.setid_left", "n/a", e.to_string()),
        Ok(meta) => {
            let theirs = meta.uid() == scene.caller.uid || meta.uid() == 0;
            let detail = format!("mode {:o}, owner {}", meta.mode() & 0o7777, meta.uid());
            judged("id.setid_left", meta.mode() & 0o6000 != 0 && theirs, detail)
        }
    };
    let made: Vec<PathBuf> = ["made-inside", "directory-made-inside"].map(|name| rw.join(name)).to_vec();
    if !made[0].exists() {
        return vec![set_id, row("id.rw_owner", "n/a", "the program made no file")];
    }
    let removed =
        as_caller(scene, || made.iter().all(|path| fs::remove_file(path).or_else(|_| fs::remove_dir(path)).is_ok()));
    vec![set_id, judged("id.rw_owner", !removed, if removed { "removed" } else { "the caller cannot remove them" })]
}

/// In a child with the caller's ids.
fn as_caller(scene: &Scene, body: impl FnOnce() -> bool) -> bool {
    // SAFETY: this process has one thread; the child leaves by `_exit`.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            if scene.privileged {
                libc::setgroups(0, std::ptr::null());
                libc::setgid(scene.caller.gid);
                libc::setuid(scene.caller.uid);
            }
            libc::_exit(i32::from(!body()));
        }
        let mut status = -1;
        libc::waitpid(pid, &raw mut status, 0);
        pid > 0 && status == 0
    }
}

/// The program inside, seen from outside: the last below the launcher that is the probe.
fn payload(launcher: i32) -> Option<i32> {
    let is_probe = |pid: &i32| {
        let arguments = read(format!("/proc/{pid}/cmdline"));
        arguments.split('\0').next().is_some_and(|program| program.ends_with("escape-probe"))
    };
    below(launcher).into_iter().rfind(is_probe)
}

/// A process and its descendants, parents first.
fn below(top: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in processes() {
        if let Ok(parent) = status(pid, "PPid").parse() {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![top];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let more = children.get(pid).cloned().unwrap_or_default();
        found.extend(more);
        next += 1;
    }
    found
}

fn processes() -> Vec<i32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

fn status(pid: i32, field: &str) -> String {
    let text = read(format!("/proc/{pid}/status"));
    let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_string()
}

fn read(path: impl AsRef<Path>) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Name and inode of each in the caller's network.
fn abstract_sockets() -> BTreeSet<(String, String)> {
    let text = read("/proc/net/unix");
    let fields = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    fields.filter(|f| f.len() > 7 && f[7].starts_with('@')).map(|f| (f[7].to_string(), f[6].to_string())).collect()
}

/// Inodes of the sockets of a process and of all below it: other programs of the machine make sockets too.
fn sockets_below(launcher: i32) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for pid in below(launcher) {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let link = fs::read_link(entry.path()).unwrap_or_default();
            let inode = link.to_string_lossy().strip_prefix("socket:[").map(|s| s.trim_end_matches(']').to_string());
            found.extend(inode);
        }
    }
    found
}

/// Directories of the groups that a process is in, of every hierarchy.
fn own_cgroups(process: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    for line in read(format!("/proc/{process}/cgroup")).lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let tops: &[&str] = match controllers {
            "" => &["", "unified"],
            name => &[name.trim_start_matches("name=")],
        };
        for top in tops {
            let directory = Path::new("/sys/fs/cgroup").join(top).join(path.trim_start_matches('/'));
            if path != "/" && directory.join("cgroup.procs").exists() {
                found.push(directory);
            }
        }
    }
    found
}

/// Every file of the scene but the writable directories, the log and the facts, and the launcher's program.
fn fingerprints(scene: &Scene, program: Option<&Path>) -> BTreeMap<PathBuf, u64> {
    let mut prints = BTreeMap::new();
    let mut queue: Vec<PathBuf> = vec![scene.base.clone(), scene.home.clone(), scene.tmp.clone()];
    queue.extend(program.map(Path::to_path_buf));
    while let Some(path) = queue.pop() {
        // The child of the caller adds to the facts.
        let meant = [&scene.shared.rw, &scene.log, &scene.shared.bin.join("facts"), &scene.base.join("upper")];
        if meant.contains(&&path) {
            continue;
        }
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let mut hasher = DefaultHasher::new();
        (meta.mode(), meta.uid(), meta.gid(), meta.ino()).hash(&mut hasher);
        if meta.is_dir() {
            queue.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            fs::read_dir(&path).into_iter().flatten().count().hash(&mut hasher);
        } else if meta.is_file() {
            fs::read(&path).unwrap_or_default().hash(&mut hasher);
        }
        prints.insert(path, hasher.finish());
    }
    prints
}
