//! What programs get only where it is asked for: tracing, and namespaces of their own.

mod common;

use std::path::Path;

use common::{is_root, run, sandbox, text, told};
use sandcell::{Allow, Builder, HostIds, Mechanism, Sandbox, User};

fn nested() -> Builder {
    Sandbox::builder().allow(Allow::Nested)
}

fn lacks(program: &str) -> bool {
    let lacks = !Path::new("/usr/bin").join(program).exists();
    if lacks {
        println!("SKIPPED: {program} is not installed");
    }
    lacks
}

#[test]
fn strace_and_gdb_work_inside_where_tracing_is_allowed_and_not_otherwise() {
    let ptrace = || Sandbox::builder().allow(Allow::Ptrace);
    if !lacks("strace") {
        let script = "strace -f -e trace=execve -o /tmp/log sh -c '/bin/echo traced; true'; grep -c execve /tmp/log";
        assert_eq!(told(ptrace(), script), "traced\n2");
        assert!(!run(Sandbox::builder(), script).success());
        // One that runs already, by its number.
        let attach = "sleep 1000 & pid=$!; strace -p $pid -o /tmp/log 2>/dev/null & \
            until grep -q 'TracerPid:.[1-9]' /proc/$pid/status; do sleep 0.01; done; echo attached";
        assert_eq!(told(ptrace(), attach), "attached");
    }
    if !lacks("gdb") {
        let script = "gdb -q -batch -ex 'break exit' -ex run -ex bt -ex 'info proc' /bin/true 2>&1";
        let output = text(&run(ptrace(), script).stdout);
        assert!(output.contains("Breakpoint 1, ") && output.contains("#0 "), "{output}");
        assert!(!output.contains("disabling address space randomization"), "{output}");
        let output = text(&run(Sandbox::builder(), script).stdout);
        assert!(!output.contains("#0 "), "{output}");
    }
}

/// Landlock stays, and so does what keeps the supervisor out of reach.
#[test]
fn tracing_opens_nothing_else() {
    let output = run(
        Sandbox::builder().allow(Allow::Ptrace),
        "strace -p 1 2>&1 | tail -1; unshare -r true 2>/dev/null || echo no namespaces",
    );
    if !lacks("strace") {
        assert!(text(&output.stdout).contains("not permitted"), "{output:?}");
    }
    assert!(text(&output.stdout).ends_with("no namespaces"), "{output:?}");
    let files = |output: &sandcell::Output| {
        let lines = output.report.enforced.iter().filter(|line| line.item == "landlock");
        lines.map(|line| format!("{line:?}")).collect::<Vec<_>>()
    };
    assert_eq!(files(&output), files(&run(Sandbox::builder(), "true")));
}

#[test]
fn namespaces_are_made_inside_where_that_is_allowed_and_the_mounts_stay_locked() {
    let script = "unshare -rmpf --mount-proc sh -c 'id -u; for one in /proc/[0-9]*; do echo ${one#/proc/}; done | head -1; mount -t tmpfs t /tmp && echo mounted; \
        mount -o remount,rw,bind /usr 2>/dev/null || echo locked; umount /proc/sys 2>/dev/null; touch /usr/x 2>/dev/null || echo read-only'";
    assert_eq!(told(nested(), script), "0\n1\nmounted\nlocked\nread-only");
    let output = run(Sandbox::builder(), script);
    assert!(text(&output.stderr).contains("not permitted"), "{output:?}");
    // The report says what goes with it.
    let output = run(nested(), "true");
    let files =
        output.report.enforced.iter().find(|line| format!("{:?}", line.requested).contains("\"files\"")).unwrap();
    assert!(files.by == Mechanism::Nothing && files.why.as_deref().unwrap_or_default().contains("mount"), "{files:?}");
}

#[test]
fn bubblewrap_runs_inside() {
    if lacks("bwrap") {
        return;
    }
    let script = "bwrap --unshare-all --ro-bind /usr /usr --symlink usr/lib /lib --symlink usr/lib64 /lib64 \
        --symlink usr/bin /bin --proc /proc --dev /dev --tmpfs /tmp sh -c 'ls /; ls -d /proc/[0-9]* | wc -l; : >/dev/null && echo wrote'";
    assert_eq!(told(nested(), script), "bin\ndev\nlib\nlib64\nproc\ntmp\nusr\n4\nwrote");
    assert!(!run(Sandbox::builder(), script).success());
}

/// Where an id of the sandbox is the host's root, what is masked in /proc would be in reach: it stays, and a new /proc is refused.
#[test]
fn masks_stay_where_the_hosts_root_is_mapped() {
    if !is_root() {
        return;
    }
    let root = nested().user(User::Root).host_ids(HostIds::Shared);
    let script = "unshare -U true && echo made; unshare -Umpf --mount-proc true 2>/dev/null || echo no proc; \
        cat /proc/kallsyms 2>/dev/null || echo masked; echo x >/proc/sysrq-trigger";
    let output = run(root, script);
    assert_eq!(text(&output.stdout), "made\nno proc\nmasked");
    assert!(text(&output.stderr).contains("/proc/sysrq-trigger"), "{output:?}");
}

/// This program again, as a caller that is in a sandbox itself.
#[test]
fn a_sandbox_is_made_in_a_sandbox_with_namespaces_of_its_own() {
    const INNER: &str = "SANDCELL_INNER";
    let script =
        "id -u; readlink /proc/self/ns/user; touch /usr/x 2>/dev/null || echo read-only; ls -d /proc/[0-9]* | wc -l";
    if std::env::var_os(INNER).is_some() {
        let output = run(Sandbox::builder().user(User::fixed(77, 77)), script);
        print!("INNER {}", text(&output.stdout).replace('\n', " "));
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let name = "a_sandbox_is_made_in_a_sandbox_with_namespaces_of_its_own";
    let inner = |builder: Builder| {
        let builder = builder.ro(exe.parent().unwrap(), "/tests").env(INNER, "1");
        let program = Path::new("/tests").join(exe.file_name().unwrap());
        builder.build().unwrap().command(program).args(["--exact", name, "--nocapture"]).output().unwrap()
    };
    let output = inner(nested());
    let told = text(&output.stdout);
    let said = told.split("INNER ").nth(1).unwrap_or_else(|| panic!("{told}\n{}", text(&output.stderr)));
    let words: Vec<_> = said.split_whitespace().collect();
    assert_eq!((words[0], words[2]), ("77", "read-only"), "{said}");
    assert_ne!(words[1], std::fs::read_link("/proc/self/ns/user").unwrap().to_str().unwrap());
    let outside = inner(Sandbox::builder());
    assert!(!outside.success() && text(&outside.stderr).contains("user namespace"), "{}", text(&outside.stderr));
    drop(sandbox());
}
