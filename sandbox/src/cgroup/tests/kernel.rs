//! What the kernel makes of it, on whatever this machine has: v1, v2 in a delegated subtree, or neither. The processes
//! step into the groups by themselves here, as init does on v1.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::hosts::each_limit;
use crate::cgroup::hierarchy::{Controller, Host, Version};
use crate::cgroup::{Facts, Placed, Placement, delegation, prepare};
use crate::{BestEffort, Limits, Mechanism};

fn place(limits: &Limits, best_effort: &BestEffort, usage: bool) -> crate::Result<Placed> {
    // Outlives what it made, as in a `Sandbox`: a scope of systemd goes with it.
    Box::leak(Box::new(prepare(limits, best_effort, usage)?)).place(Facts::default())
}

/// Groups with these limits. Where the host has none to give the refusal is checked instead, and the skip said aloud.
fn placed(limits: &Limits) -> Option<Placed> {
    match place(limits, &BestEffort::default(), true) {
        Ok(placed) => Some(placed),
        Err(error) => {
            assert_eq!(error.kind(), "unsupported", "{error}");
            assert!(!error.hint().is_empty(), "{error}");
            skip(&error.to_string());
            None
        }
    }
}

fn placement(change: impl Fn(&mut Limits)) -> Option<Placement> {
    let mut limits = Limits::default();
    change(&mut limits);
    placed(&limits)?.placement
}

fn skip(why: &str) {
    assert!(std::env::var_os("SANDCELL_NO_SKIP").is_none(), "skipped where nothing may be: {why}");
    eprintln!("SKIPPED: {why}");
}

/// Runs a shell script in the groups; returns when it is in all of them.
fn spawn(placement: &Placement, script: &str) -> Child {
    let enter: String =
        placement.groups.iter().map(|g| format!("echo 0 > {}/cgroup.procs && ", g.path.display())).collect();
    let mut child = Command::new("/bin/sh")
        .args(["-c", &format!("{enter} echo && exec > /dev/null && {{ {script}\n}}")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut entered = [0];
    child.stdout.take().unwrap().read_exact(&mut entered).expect("it could not enter");
    child
}

fn run(placement: &Placement, script: &str) -> ExitStatus {
    spawn(placement, script).wait().unwrap()
}

fn paths(placement: &Placement) -> Vec<PathBuf> {
    placement.groups.iter().map(|g| g.path.clone()).collect()
}

/// Waits for something that will be so; what it takes is not what is tested.
#[track_caller]
fn eventually(what: &str, so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const MEMORY: u64 = 64 << 20;
/// Fills memory until it is stopped; 256 MiB if nobody does.
const MEMORY_BOMB: &str = "head -c 268435456 /dev/zero | tail > /dev/null";

#[test]
fn a_memory_bomb_is_killed_at_the_limit_and_that_is_known() {
    let Some(placement) = placement(|l| l.memory = Some(MEMORY)) else { return };
    let status = run(&placement, MEMORY_BOMB);
    assert!(!status.success(), "{status}");
    assert!(placement.oom_killed());
    let closed = placement.close();
    closed.removed.unwrap();
    assert!(closed.usage.oom_kills.unwrap() >= 1);
    let peak = closed.usage.memory_peak_bytes.unwrap();
    assert!((MEMORY * 95 / 100..=MEMORY * 105 / 100).contains(&peak), "{peak}");
    assert_eq!(closed.lost, []);
}

#[test]
fn the_same_program_ends_well_with_more_memory() {
    let Some(placement) = placement(|l| l.memory = Some(MEMORY * 16)) else { return };
    assert!(run(&placement, MEMORY_BOMB).success());
    assert!(!placement.oom_killed());
}

#[test]
fn a_grandchild_killed_for_memory_is_known_though_the_program_goes_on() {
    let Some(placement) = placement(|l| l.memory = Some(MEMORY)) else { return };
    let status = run(&placement, &format!("({MEMORY_BOMB}; true); true"));
    // v2 kills the whole group; v1 the grandchild alone.
    let group = placement.group(Controller::Memory).unwrap();
    match group.version {
        Version::V2 => assert_eq!(status.signal(), Some(libc::SIGKILL)),
        Version::V1 => assert!(status.success(), "{status}"),
    }
    assert!(placement.oom_killed());
}

#[test]
fn memory_peak_is_what_was_allocated() {
    let Some(placement) = placement(|_| {}) else { return };
    if placement
        .group(Controller::Memory)
        .is_none_or(|g| g.read("memory.peak").or_else(|_| g.read("memory.max_usage_in_bytes")).is_err())
    {
        return skip("nothing here counts the peak of memory");
    }
    assert!(run(&placement, "dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null").success());
    let peak = placement.close().usage.memory_peak_bytes.unwrap();
    let allocated = 100 << 20;
    assert!((allocated..allocated * 105 / 100).contains(&peak), "{peak}");
}

#[test]
fn a_fork_bomb_stops_at_the_limit_and_its_refusals_are_counted() {
    let Some(placement) = placement(|l| l.pids = Some(10)) else { return };
    run(&placement, "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 60 & done 2>/dev/null");
    let closed = placement.close();
    closed.removed.unwrap();
    // Ten and the place that is our init's, which is not there in this test.
    assert_eq!(closed.usage.pids_refused, Some(1));
    if let Some(peak) = closed.usage.pids_peak {
        assert_eq!(peak, 10);
    }
}

#[test]
fn as_many_processes_as_were_asked_for_can_run() {
    let Some(placement) = placement(|l| l.pids = Some(10)) else { return };
    assert!(run(&placement, "for i in 1 2 3 4 5 6 7 8 9; do sleep 60 & done").success());
    assert_eq!(placement.usage().pids_refused, Some(0));
}

#[test]
fn four_busy_processes_get_half_a_cpu_together() {
    let Some(placement) = placement(|l| l.cpus = Some(0.5)) else { return };
    let start = Instant::now();
    let mut child = spawn(&placement, "for i in 1 2 3; do while :; do :; done & done; while :; do :; done");
    std::thread::sleep(Duration::from_secs(5));
    let closed = placement.close();
    let wall = start.elapsed();
    closed.removed.unwrap();
    child.wait().unwrap();
    let used = closed.usage.user.unwrap() + closed.usage.system.unwrap();
    let cpus = used.as_secs_f64() / wall.as_secs_f64();
    eprintln!("{cpus:.3} CPUs of 0.5 over {wall:?}, throttled for {:?}", closed.usage.throttled);
    // No lower bound: on a busy machine four processes may get less, and then nothing has to hold them back.
    assert!(cpus <= 0.55, "{cpus}");
    let throttled = closed.usage.throttled.unwrap();
    assert!(cpus < 0.45 || throttled > Duration::ZERO, "{cpus}");
}

#[test]
fn a_program_stays_on_the_cpus_of_its_set() {
    let Some(placement) = placement(|l| l.cpuset = Some("0".into())) else { return };
    assert!(run(&placement, r#"test "$(nproc)" = 1"#).success());
}

#[test]
fn cpu_time_is_told_by_the_clock_that_init_watches() {
    let Some(placement) = placement(|l| l.cpu_time = Some(Duration::from_secs(100))) else { return };
    run(&placement, "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done");
    let clock = placement.cpu_clock().unwrap().unwrap();
    let mut text = [0; 64];
    let length = nix::sys::uio::pread(&clock.file, &mut text, 0).unwrap();
    let text = std::str::from_utf8(&text[..length]).unwrap();
    let (digits, unit) = match clock.nanoseconds {
        true => (text.trim(), 1),
        false => (text.strip_prefix("usage_usec ").unwrap().lines().next().unwrap(), 1000),
    };
    let told = Duration::from_nanos(digits.parse::<u64>().unwrap() * unit);
    let usage = placement.usage();
    let counted = usage.user.unwrap() + usage.system.unwrap();
    assert!(told > Duration::ZERO && told.abs_diff(counted) < Duration::from_millis(20), "{told:?} {counted:?}");
}

#[test]
fn what_was_started_in_a_group_is_killed_with_it_daemons_too() {
    let Some(placement) = placement(|l| l.pids = Some(50)) else { return };
    let paths = paths(&placement);
    assert!(run(&placement, "for i in 1 2 3 4 5; do (setsid sleep 1000 &); done").success());
    placement.close().removed.unwrap();
    assert!(paths.iter().all(|path| !path.exists()), "{paths:?}");
}

#[test]
fn a_dropped_placement_leaves_nothing() {
    let Some(placement) = placement(|l| l.pids = Some(50)) else { return };
    let paths = paths(&placement);
    let mut child = spawn(&placement, "sleep 1000 & sleep 1000");
    eventually("both run", || placement.groups[0].read("cgroup.procs").unwrap().lines().count() >= 2);
    drop(placement);
    assert!(paths.iter().all(|path| !path.exists()), "{paths:?}");
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
}

#[test]
fn frozen_processes_stand_still_until_they_are_thawed_and_their_supervisor_does_not() {
    let Some(mut placement) = placement(|l| l.pids = Some(50)) else { return };
    let mut child = spawn(&placement, "while :; do :; done");
    let mut supervisor = spawn(&placement, "while :; do :; done");
    let pid = supervisor.id().cast_signed();
    // A loop like this is never seen asleep by itself.
    let runs = |child: &Child| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('R')
    };
    eventually("it runs", || runs(&child));
    for _ in 0..2 {
        placement.freeze(pid).unwrap();
        eventually("it stands still", || !runs(&child));
        assert!(runs(&supervisor) && placement.is_frozen());
        placement.thaw(pid).unwrap();
        eventually("it goes on", || runs(&child));
        assert!(!placement.is_frozen());
        let procs = placement.freezer("test").unwrap().read("cgroup.procs").unwrap();
        assert!(procs.lines().any(|line| line == pid.to_string()), "{procs}");
    }
    // Frozen processes can be killed too.
    placement.freeze(pid).unwrap();
    placement.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    let aside = placement.aside.as_ref().unwrap().path.clone();
    placement.close().removed.unwrap();
    assert!(!aside.exists());
}

#[test]
fn a_limit_can_be_raised_and_lowered_while_programs_run() {
    let Some(mut placement) = placement(|l| (l.memory, l.pids) = (Some(MEMORY), Some(50))) else { return };
    for memory in [MEMORY * 16, MEMORY / 2, MEMORY * 16] {
        placement.update(&Limits { memory: Some(memory), ..Limits::default() }).unwrap();
        let group = placement.group(Controller::Memory).unwrap();
        let file = if group.version == Version::V2 { "memory.max" } else { "memory.limit_in_bytes" };
        assert_eq!(group.read(file).unwrap().trim(), memory.to_string());
    }
    assert!(run(&placement, MEMORY_BOMB).success());
    let error = placement.update(&Limits { cpuset: Some("0".into()), ..Limits::default() }).unwrap_err();
    assert_eq!((error.kind(), error.subject()), ("unsupported", "cpuset"));
}

#[test]
fn a_limit_that_someone_lifts_is_reported_as_lost() {
    let Some(placement) = placement(|l| (l.memory, l.pids) = (Some(MEMORY), Some(50))) else { return };
    placement.group(Controller::Pids).unwrap().write("pids.max", "max").unwrap();
    let lost = placement.close().lost;
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!(lost[0].0, "pids");
    assert!(lost[0].1.contains("lifted"), "{lost:?}");
}

#[test]
fn a_controller_that_is_taken_away_is_reported_as_lost() {
    let Some(outer) = placement(|l| l.memory = Some(MEMORY)) else { return };
    let Some(v2) = outer.v2().filter(|group| group.controllers.contains(&Controller::Memory)) else {
        return skip("controllers can be taken away on v2 only");
    };
    let limits = Limits { memory: Some(MEMORY), cgroup: Some(v2.path.clone()), ..Limits::default() };
    let mut inner = placed(&limits).unwrap().placement.unwrap();
    v2.write("cgroup.subtree_control", "-memory -io -pids").unwrap();
    let error = inner.update(&Limits { memory: Some(MEMORY), ..Limits::default() }).unwrap_err();
    assert!(error.hint().contains("taken away"), "{error}");
    let lost = inner.close().lost;
    assert!(lost.iter().any(|(item, why)| *item == "memory" && why.contains("taken away")), "{lost:?}");
}

#[test]
fn groups_whose_maker_was_killed_are_collected_by_the_next_start() {
    let Some(placement) = placement(|l| l.pids = Some(50)) else { return };
    // Like ours, but by another process.
    let orphan = |path: &Path, random: u64| path.with_file_name(format!("sandcell-4194305-{random:015x}"));
    for path in paths(&placement) {
        fs::create_dir(orphan(&path, 1)).unwrap();
        fs::create_dir(orphan(&path, 2)).unwrap();
    }
    let alive: Vec<fs::File> = paths(&placement)
        .iter()
        .map(|path| {
            let parent = fs::File::open(path.parent().unwrap()).unwrap();
            let number = crate::cgroup::parent::place(orphan(path, 2).to_str().unwrap());
            let lock = crate::sys::lock::bytes(libc::F_RDLCK, number, 1);
            nix::fcntl::fcntl(&parent, nix::fcntl::FcntlArg::F_OFD_SETLK(&lock)).unwrap();
            parent
        })
        .collect();
    let next = placed(&Limits { pids: Some(50), ..Limits::default() }).unwrap();
    for path in paths(&placement) {
        assert!(!orphan(&path, 1).exists());
        assert!(orphan(&path, 2).exists(), "its maker, in another PID namespace, still has it");
    }
    drop(alive);
    drop(next);
    drop(placed(&Limits { pids: Some(50), ..Limits::default() }));
    assert!(paths(&placement).iter().all(|path| !orphan(path, 2).exists()));
}

/// Prints what tests/vm/limits-table puts into docs/limits.md.
#[test]
fn every_limit_is_enforced_here_or_refused_with_the_remedy() {
    for (item, limits) in each_limit() {
        let word = match place(&limits, &BestEffort::default(), false) {
            Ok(placed) => {
                let [line] = &placed.enforced[..] else { panic!("{item}: {:?}", placed.enforced) };
                assert_eq!(line.item, item);
                assert_ne!(line.by, Mechanism::Nothing);
                let by = line.by.as_str();
                assert_eq!(placed.placement.unwrap().close().lost, []);
                by.to_owned()
            }
            Err(error) => {
                assert_eq!((error.kind(), error.subject()), ("unsupported", item), "{error}");
                assert!(!error.hint().is_empty(), "{error}");
                let mut best_effort = BestEffort::default();
                best_effort.add(item);
                let [line] = &place(&limits, &best_effort, false).unwrap().enforced[..] else { panic!("{item}") };
                assert!(line.why.is_some());
                format!("refused (best effort: {})", line.by.as_str())
            }
        };
        println!("limit {item}: {word}");
    }
}

const STEP_DOWN: &str = "SANDCELL_TEST_STEP_DOWN";

#[test]
fn a_caller_in_its_delegated_group_can_step_down_and_have_limits_beside_itself() {
    if let Some(own) = std::env::var_os(STEP_DOWN) {
        return step_down(Path::new(&own));
    }
    let Some(placement) = placement(|_| {}) else { return };
    let Some(v2) = placement.v2() else { return skip("no cgroup v2 subtree") };
    let exe = std::env::current_exe().unwrap();
    let name = "cgroup::tests::kernel::a_caller_in_its_delegated_group_can_step_down_and_have_limits_beside_itself";
    let enter =
        format!("echo 0 > {}/cgroup.procs; exec '{}' --exact {name} --nocapture", v2.path.display(), exe.display());
    let status = Command::new("/bin/sh").args(["-c", &enter]).env(STEP_DOWN, &v2.path).status().unwrap();
    assert!(status.success());
    // And with another process beside it, it stays where it was.
    let crowded = format!("sleep 60 & {enter}");
    let enter = format!("echo 0 > {}/cgroup.procs; {crowded}", v2.path.display());
    let status =
        Command::new("/bin/sh").args(["-c", &enter]).env(STEP_DOWN, &v2.path).env("CROWDED", "1").status().unwrap();
    assert!(status.success());
    placement.close().removed.unwrap();
}

/// In a process of its own, which sees its group as the topmost: as in a container.
fn step_down(own: &Path) {
    let mut host = Host::read(Path::new("/"));
    let v2 = host.hierarchies.iter_mut().find(|h| h.version == Version::V2).unwrap();
    assert_eq!(v2.own.as_deref(), Some(own));
    v2.mount = own.to_owned();
    let why = delegation::find(&host, None).unwrap_err();
    assert!(why.remedy.contains("adopt_cgroup"), "{why:?}");
    let adopted = delegation::adopt(&host);
    let now = Host::read(Path::new("/"));
    let now = now.v2().unwrap().own.as_deref().unwrap();
    if std::env::var_os("CROWDED").is_some() {
        let error = adopted.unwrap_err();
        assert!(error.to_string().contains("other processes are in it"), "{error}");
        assert_eq!(now, own);
        assert!(!own.join("sandcell-caller").exists());
    } else {
        assert_eq!(adopted.unwrap(), own);
        assert_eq!(now, own.join("sandcell-caller"));
        // Once is enough; a second call finds all in order.
        assert_eq!(delegation::find(&host_below(own), None).unwrap().dir, own);
    }
}

fn host_below(own: &Path) -> Host {
    let mut host = Host::read(Path::new("/"));
    host.hierarchies.iter_mut().find(|h| h.version == Version::V2).unwrap().mount = own.to_owned();
    host
}
