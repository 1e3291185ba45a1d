//! Sandboxes that are built before a request comes.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{DOOMED, Scratch, again_in_own_mounts, patiently, sandbox, text};
use sandcell::{Command, HostIds, Outcome, Pool, Root, Sandbox, Stdio, Upper, User};

fn shell(pool: &Pool, script: &str) -> Command {
    let mut command = pool.command("/bin/sh");
    command.args(["-c", script]);
    command
}

fn told(pool: &Pool, script: &str) -> String {
    let output = shell(pool, script).output().unwrap_or_else(|error| panic!("{error} ({})", error.hint()));
    assert_eq!(output.outcome, Outcome::Exited(0), "{script}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Host pids of our supervisors that are alive.
fn supervisors() -> Vec<u32> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|pid| is_supervisor(*pid)));
    }
    found
}

fn is_supervisor(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.starts_with("Name:\tsandcell-init") && !status.contains("State:\tZ")
}

/// Runs the calling test in a process of its own: it counts all supervisors.
fn alone(test: &str) -> bool {
    const ALONE: &str = "SANDCELL_POOL_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

#[test]
fn a_command_takes_what_waits_and_another_one_is_launched() {
    let pool = sandbox().pool(2).unwrap();
    assert_eq!((pool.stats().hits, pool.stats().misses, pool.stats().waiting), (0, 0, 2));
    let mut command = shell(&pool, "echo $NAME $0 $1; cat; cat <&7; pwd; exit 7");
    let file = fs::File::open("/proc/self/comm").unwrap();
    let own = fs::read("/proc/self/comm").unwrap();
    command.args(["zero", "one"]).env("NAME", "bound").input("typed\n").pass_fd(file, 7).current_dir("/usr");
    let output = command.output().unwrap();
    let wanted = [b"bound zero one\ntyped\n", &own[..], b"/usr\n"].concat();
    assert_eq!((text(&output.stdout), &output.outcome), (text(&wanted), &Outcome::Exited(7)));
    assert_eq!((pool.stats().hits, pool.stats().misses, pool.stats().waiting), (1, 0, 2));
}

#[test]
fn where_nothing_waits_a_command_makes_its_own() {
    let pool = sandbox().pool(1).unwrap();
    // They run at once, and each launches one.
    let mut first = shell(&pool, "read line").stdin(Stdio::piped()).spawn().unwrap();
    let parts: Vec<_> = (0..8).map(|_| pool.clone()).collect();
    std::thread::scope(|scope| {
        for pool in &parts {
            scope.spawn(move || {
                (0..10).for_each(|round| assert_eq!(told(pool, &format!("echo {round}")), round.to_string()))
            });
        }
    });
    let stats = pool.stats();
    assert_eq!(stats.hits + stats.misses, 81, "{stats:?}");
    assert!(stats.waiting <= 1, "{stats:?}");
    drop(first.stdin.take());
    assert_eq!(first.wait().unwrap().outcome, Outcome::Exited(1));
}

#[test]
fn a_program_of_a_pool_finds_itself_as_one_of_a_sandbox_that_was_made_for_it() {
    let builder = Sandbox::builder().host_ids(HostIds::Shared).user(User::fixed(1000, 1000));
    let sandbox = builder.build().unwrap();
    let pool = sandbox.pool(1).unwrap();
    let script = "grep -v 'ctxt\\|Vm\\|Rss\\|Name\\|Speculation\\|Mems\\|Cpus' /proc/self/status; cat /proc/self/limits /proc/self/cgroup; \
        ls -l /proc/self/fd | sed 's/.*[0-9]:[0-9]* //; s/pipe:.*/pipe/'; umask; env; pwd; id; cut -d' ' -f5- /proc/self/mountinfo | sort; \
        grep Seccomp /proc/1/status; ls /proc | grep -c '^[0-9]'";
    let of = |mut command: Command| text(&command.args(["-c", script]).output().unwrap().stdout);
    assert_eq!(of(pool.command("/bin/sh")), of(sandbox.command("/bin/sh")));
    assert_eq!(pool.stats().hits, 1);
}

#[test]
fn two_requests_against_each_other_see_nothing_of_one_another() {
    const LEAVES: &str = "echo secret >/tmp/left; echo secret >/dev/shm/left; exec sleep 1000";
    const LOOKS: &str = "cat /tmp/left /dev/shm/left; cat /proc/[0-9]*/cmdline | tr '\\0' ' '; cat /proc/[0-9]*/environ; \
        kill -0 -1 && echo oth''ers; hostname; readlink /proc/self/ns/*; cat /proc/sys/kernel/random/boot_id /etc/machine-id";
    let sandbox = sandbox();
    let look = |leaves: Command, looks: Command| {
        let (mut leaves, mut looks) = (leaves, looks);
        leaves.args(["-c", LEAVES, "secret"]).env("TOKEN", "secret").stdout(Stdio::null());
        let other = leaves.spawn().unwrap();
        patiently("the other one", || {
            let said = text(&looks.args(["-c", LOOKS]).output().unwrap().stdout);
            said.contains("sleep 1000") || said.lines().count() > 5
        });
        let own = text(&looks.output().unwrap().stdout);
        other.kill().unwrap();
        own
    };
    let pool = sandbox.pool(2).unwrap();
    let seen = look(pool.command("/bin/sh"), pool.command("/bin/sh"));
    assert!(!seen.contains("secret") && !seen.contains("sleep") && !seen.contains("others"), "{seen}");
    let (first, second) = (told(&pool, LOOKS), told(&pool, LOOKS));
    for (one, other) in first.lines().zip(second.lines()) {
        // Command lines are the same; names, namespaces and numbers are not.
        let is_own =
            |line: &str| line.contains(":[") || line.starts_with("cell-") || line.len() >= 32 && !line.contains(' ');
        assert!(!is_own(one) || one != other || one.starts_with("time"), "{one} in both");
    }
    // The control: in a cell all of it is seen.
    let cell = sandbox.start().unwrap();
    let seen = look(cell.command("/bin/sh"), cell.command("/bin/sh"));
    for word in ["secret\nsecret", "TOKEN=secret", "sleep 1000", "others"] {
        assert!(seen.contains(word), "{word} is missing: {seen}");
    }
}

#[test]
fn what_waits_and_was_killed_is_replaced_and_never_handed_out() {
    if !alone("what_waits_and_was_killed_is_replaced_and_never_handed_out") {
        return;
    }
    // Of the caller's own id, so that an ordinary caller may kill it from outside.
    let pool = Sandbox::builder().host_ids(HostIds::Shared).build().unwrap().pool(2).unwrap();
    patiently("both of them", || supervisors().len() == 2);
    let killed = supervisors();
    for pid in &killed {
        let status = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
        assert!(status.success());
    }
    patiently("their end", || pool.stats().waiting == 0);
    assert_eq!(told(&pool, "echo here"), "here");
    assert_eq!((pool.stats().hits, pool.stats().misses, pool.stats().waiting), (0, 1, 2));
    assert_eq!(told(&pool, "echo again"), "again");
    assert_eq!((pool.stats().hits, pool.stats().waiting), (1, 2));
    assert!(supervisors().iter().all(|pid| !killed.contains(pid)));
}

#[test]
fn what_waits_ends_with_the_pool() {
    if !alone("what_waits_ends_with_the_pool") {
        return;
    }
    let pool = sandbox().pool(3).unwrap();
    let (other, command) = (pool.clone(), pool.command("/bin/true"));
    told(&pool, "true");
    drop((pool, other));
    // That of the command that has ended may be about to end, too.
    patiently("a command holds its pool", || supervisors().len() == 3);
    drop(command);
    assert_eq!(supervisors(), Vec::<u32>::new());
}

#[test]
fn what_waits_ends_with_a_caller_that_is_killed() {
    const TEST: &str = "what_waits_ends_with_a_caller_that_is_killed";
    if let Ok(place) = std::env::var(DOOMED) {
        let pool = sandbox().pool(3).unwrap();
        told(&pool, "true");
        patiently("the end of the one that was used", || supervisors().len() == 3);
        let pids: Vec<String> = supervisors().iter().map(u32::to_string).collect();
        fs::write(format!("{place}.new"), pids.join(" ")).unwrap();
        fs::rename(format!("{place}.new"), place).unwrap();
        std::thread::sleep(Duration::from_secs(600));
        drop(pool);
    }
    let scratch = Scratch::new();
    let place = scratch.path().join("pids");
    let mut caller = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(DOOMED, &place)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    patiently("the pool", || place.exists() || caller.try_wait().unwrap().is_some());
    let pids: Vec<u32> = fs::read_to_string(&place).unwrap().split(' ').map(|pid| pid.parse().unwrap()).collect();
    let lived = pids.iter().filter(|pid| is_supervisor(**pid)).count();
    caller.kill().unwrap();
    caller.wait().unwrap();
    assert_eq!(lived, 3, "the control: {pids:?}");
    patiently("their end", || !pids.iter().any(|pid| is_supervisor(*pid)));
}

#[test]
fn what_a_mount_shows_is_what_lies_there_when_a_command_comes() {
    let scratch = Scratch::new();
    let dir = scratch.dir("source");
    fs::write(dir.join("file"), "old").unwrap();
    let pool = Sandbox::builder().ro(&dir, "/run/source").build().unwrap().pool(2).unwrap();
    assert_eq!(told(&pool, "cat /run/source/file"), "old");
    fs::write(dir.join("file"), "changed").unwrap();
    assert_eq!(told(&pool, "cat /run/source/file"), "changed");
    assert_eq!((pool.stats().hits, pool.stats().misses), (2, 0), "the directory is the same");
    fs::rename(&dir, scratch.path().join("away")).unwrap();
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "another").unwrap();
    assert_eq!(told(&pool, "cat /run/source/file"), "another");
    assert_eq!((pool.stats().hits, pool.stats().misses), (2, 1));
    assert_eq!(told(&pool, "cat /run/source/file"), "another");
    assert_eq!((pool.stats().hits, pool.stats().misses), (3, 1));
    fs::rename(&dir, scratch.path().join("gone")).unwrap();
    let error = shell(&pool, "true").status().expect_err("as a sandbox that is made now");
    assert!(error.to_string().contains("bind source"), "{error}");
}

#[test]
fn the_account_files_of_a_root_are_those_of_the_moment() {
    let scratch = Scratch::new();
    let passwd = scratch.file("layer/etc/passwd", "one:x:4242:4242::/one:/bin/sh\n");
    for dir in ["usr", "bin", "lib", "lib64", "proc", "dev", "tmp", "run"] {
        scratch.dir(&format!("layer/{dir}"));
    }
    let mut builder = Sandbox::builder().root(Root::Dir(scratch.path().join("layer"))).user(User::fixed(4242, 4242));
    for dir in ["/usr", "/bin", "/lib", "/lib64"].into_iter().filter(|dir| fs::metadata(dir).is_ok()) {
        builder = builder.ro(dir, dir);
    }
    let pool = builder.build().unwrap().pool(1).unwrap();
    assert_eq!(told(&pool, "echo $USER $HOME"), "one /one");
    fs::write(passwd, "two:x:4242:4242::/two:/bin/sh\n").unwrap();
    assert_eq!(told(&pool, "echo $USER $HOME"), "two /two");
    assert_eq!((pool.stats().hits, pool.stats().misses), (1, 1));
}

#[test]
fn what_was_mounted_since_is_there() {
    let scratch = Scratch::new();
    let outer = scratch.dir("outer/inner");
    if !again_in_own_mounts("what_was_mounted_since_is_there", "") {
        return;
    }
    let outer = outer.parent().unwrap();
    let pool = Sandbox::builder().host_ids(HostIds::Shared).ro(outer, "/run/outer").build().unwrap().pool(1).unwrap();
    assert_eq!(told(&pool, "ls /run/outer/inner"), "");
    let inner = outer.join("inner");
    let status = std::process::Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&inner).status().unwrap();
    assert!(status.success());
    fs::write(inner.join("mounted"), "").unwrap();
    assert_eq!(told(&pool, "ls /run/outer/inner"), "mounted");
    assert_eq!((pool.stats().hits, pool.stats().misses), (1, 1));
    assert!(std::process::Command::new("umount").arg(&inner).status().unwrap().success());
}

#[test]
fn time_and_usage_count_from_the_claim() {
    let sandbox = Sandbox::builder().timeout(Duration::from_secs(2)).build().unwrap();
    let pool = sandbox.pool(1).unwrap();
    let waits = Instant::now();
    // Nothing else tells that it has waited for longer than it may run.
    std::thread::sleep(Duration::from_millis(2500));
    let began = Instant::now();
    let report = shell(&pool, "exit 3").status().unwrap();
    assert_eq!((report.outcome, pool.stats().hits), (Outcome::Exited(3), 1));
    assert!(report.usage.wall <= began.elapsed() && began.elapsed() < waits.elapsed(), "{:?}", report.usage);
    let report = shell(&pool, "exec sleep 1000").timeout(Duration::from_millis(100)).status().unwrap();
    assert_eq!((report.outcome, pool.stats().hits), (Outcome::TimedOut, 2));
}

#[test]
fn what_is_bound_before_the_claim_is_refused_and_a_mistake_uses_up_nothing() {
    let pool = sandbox().pool(1).unwrap();
    for (word, command) in [
        ("track_changes", &mut *shell(&pool, "true").track_changes(true)),
        ("learn", shell(&pool, "true").learn(true)),
        ("NUL", shell(&pool, "true").arg("a\0b")),
    ] {
        let error = command.status().expect_err(word);
        assert_eq!(error.kind(), "config", "{error}");
        assert!(error.to_string().contains(word) && !error.hint().is_empty(), "{error}");
    }
    assert_eq!((pool.stats().hits, pool.stats().misses, pool.stats().waiting), (0, 0, 1));
    let missing = shell(&pool, "true").current_dir("/nowhere").status().expect_err("a directory that is not there");
    assert_eq!((missing.stage(), pool.stats().hits, pool.stats().waiting), ("chdir", 1, 1));
    let scratch = Scratch::new();
    let kept = Sandbox::builder()
        .root(Root::Layers(vec![scratch.dir("layer")]))
        .upper(Upper::Dir(scratch.path().join("upper")));
    let error = kept.build().unwrap().pool(2).expect_err("an upper that is kept");
    assert!(error.to_string().contains("only one"), "{error}");
    for size in [0, 1001] {
        assert_eq!(sandbox().pool(size).expect_err("no size").kind(), "config");
    }
}

#[test]
fn limits_hold_and_are_the_programs_own() {
    let pool =
        match Sandbox::builder().pids(20).build().and_then(|sandbox| sandbox.command("true").status().map(|_| sandbox))
        {
            Ok(sandbox) => sandbox.pool(1).unwrap(),
            Err(error) => return eprintln!("SKIPPED: {error}"),
        };
    let script = "i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i + 1)); done";
    let output = shell(&pool, script).output().unwrap();
    assert_ne!(output.outcome, Outcome::Exited(0), "a hundred processes");
    assert!(told(&pool, "sleep 0 & sleep 0 & wait; echo fine").contains("fine"), "the next one has room of its own");
    assert_eq!(pool.stats().hits, 2);
}
