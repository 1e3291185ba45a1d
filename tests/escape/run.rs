//! One run: the stage is set, the launcher starts the probe, the host looks on.

use super::child::{Careless, IO_PRIORITY, PERSONALITY, TIMER_SLACK};
use super::host::{self, Before, During, End};
use super::launchers::{INSIDE, Launcher};
use super::plants::Plants;
use super::scene::{Caller, Scene};
use super::{Row, build};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any run: what takes more hangs.
const RUN_LIMIT: Duration = Duration::from_secs(180);
/// From the program's last line to the launcher's end.
const END_LIMIT: Duration = Duration::from_secs(2);

pub struct Run {
    pub rows: Vec<Row>,
    pub wall: Duration,
    /// What went to the caller's log: launchers complain there.
    pub complaint: String,
    /// The probe came to its end.
    pub complete: bool,
}

/// Must be called in a process with one thread that may be spoiled: it changes its own mounts.
pub fn run(launcher: &Launcher, caller: Caller, secret: &str, place: &str, only: &[String]) -> io::Result<Run> {
    let probe = build::probe().map_err(io::Error::other)?;
    let mut scene = Scene::new(&probe, caller, secret, place)?;
    let plants = Plants::new(&mut scene)?;
    scene.fact("personality", PERSONALITY);
    scene.fact("timer_slack", TIMER_SLACK);
    scene.fact("io_priority", IO_PRIORITY);
    let facts = scene.write_facts(launcher)?;
    let facts = OpenOptions::new().append(true).open(facts)?;

    let mut argv = (launcher.arguments)(&scene.shared);
    let program = own_copy(&scene, &mut argv)?;
    let inside = if launcher.in_place { scene.shared.bin.clone() } else { PathBuf::from(INSIDE).join("bin") };
    argv.extend([inside.join("escape-probe").into_os_string(), "--facts".into()]);
    argv.push(inside.join("facts").into_os_string());
    argv.extend(only.iter().map(OsString::from));

    let before = Before::new(&scene, program.as_deref());
    let started = Instant::now();
    let mut child = start(&mut scene, &plants, facts, &argv)?;
    let (mut rows, during, complete) = listen(&mut child, &scene, &before);
    let end = finish(&mut child);
    let wall = started.elapsed();
    if !launcher.control {
        during.excuse_negative_group(&scene, &mut rows);
    }
    rows.extend(host::after(&scene, &plants, &before, during, &end, program.as_deref()));
    let log = fs::read(&scene.log).unwrap_or_default();
    let complaint = String::from_utf8_lossy(&log).lines().skip(1).take(20).collect::<Vec<_>>().join("\n");
    Ok(Run { rows, wall, complaint, complete })
}

/// A launcher from a build directory may lie where an ordinary user cannot go: it is started from a copy. That copy
/// belongs to the caller, so that overwriting it would be the worst case (CVE-2019-5736).
fn own_copy(scene: &Scene, argv: &mut [OsString]) -> io::Result<Option<PathBuf>> {
    let Some(first) = argv.first_mut() else { return Ok(None) };
    let path = Path::new(first.as_os_str());
    if path.components().count() < 2 {
        return Ok(None);
    }
    let copy = scene.base.join("launcher");
    fs::copy(path, &copy)?;
    super::scene::mode(&copy, 0o755)?;
    std::os::unix::fs::chown(&copy, Some(scene.caller.uid), Some(scene.caller.gid))?;
    *first = copy.clone().into_os_string();
    Ok(Some(copy))
}

fn start(scene: &mut Scene, plants: &Plants, facts: File, argv: &[OsString]) -> io::Result<Child> {
    let mut careless = Careless::new(scene, plants, facts)?;
    let log = OpenOptions::new().append(true).open(&scene.log)?;
    let mut command = Command::new(&argv[0]);
    command
        .args(&argv[1..])
        .stdin(Stdio::from(plants.terminal_slave.try_clone()?))
        .stdout(Stdio::piped())
        .stderr(Stdio::from(log))
        .env("SANDCELL_ESCAPE_SECRET", &scene.secret)
        .env("HOME", &scene.home)
        .env("USER", &scene.caller.name)
        .env("LOGNAME", &scene.caller.name)
        .env("PWD", &scene.home)
        .env("TMPDIR", &scene.tmp)
        .env("XDG_RUNTIME_DIR", scene.run.as_ref().unwrap_or(&scene.tmp))
        .env("SSH_AUTH_SOCK", scene.tmp.join("socket"))
        .env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}/socket", scene.tmp.display()))
        .env("LD_LIBRARY_PATH", "/nonexistent")
        .env("BASH_ENV", "/nonexistent")
        .env("PYTHONPATH", "/nonexistent");
    // SAFETY: this process has one thread, so that the child may allocate.
    unsafe { command.pre_exec(move || careless.apply()) };
    command.spawn()
}

/// Reads what the probe says; looks at the host when it says `ready`.
fn listen(child: &mut Child, scene: &Scene, before: &Before) -> (Vec<Row>, During, bool) {
    let mut rows = vec![];
    let mut during = During::default();
    let Some(stdout) = child.stdout.take() else { return (rows, during, false) };
    // A launcher that hangs must not hang the caller: an alarm in a process that only waits.
    let guard = Guard::new(child.id() as i32, RUN_LIMIT);
    for line in BufReader::new(stdout).lines() {
        let Ok(line) = line else { break };
        if line.contains("\"event\":\"done\"") {
            drop(guard);
            return (rows, during, true);
        } else if line.contains("\"event\":\"ready\"") {
            during = During::look(scene, before, child.id() as i32);
            let _ = fs::write(scene.shared.rw.join("go"), "");
        } else if let Some(row) = Row::parse(&line) {
            rows.push(row);
        }
    }
    (rows, during, false)
}

/// Kills a child when the time is over, from a process of its own: no thread may run here (see `run`).
struct Guard(i32);

impl Guard {
    fn new(pid: i32, time: Duration) -> Guard {
        // SAFETY: this process has one thread; the child sleeps, kills and leaves.
        unsafe {
            let guard = libc::fork();
            if guard == 0 {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::sleep(time.as_secs() as u32);
                libc::kill(pid, libc::SIGKILL);
                libc::_exit(0);
            }
            Guard(guard)
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: a child of this process that was not waited for.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

fn finish(child: &mut Child) -> End {
    let limit = Instant::now() + END_LIMIT;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return End { status: status.code(), hung: false },
            Ok(None) if Instant::now() < limit => std::thread::sleep(Duration::from_millis(2)),
            _ => {
                let _ = child.kill();
                return End { status: child.wait().ok().and_then(|s| s.code()), hung: true };
            }
        }
    }
}
