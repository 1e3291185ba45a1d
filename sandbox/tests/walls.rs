//! The smaller walls, each with its twin: keyrings, core dumps, terminal commands, personalities, locked mounts,
//! Landlock as a requirement.

mod common;

use std::process::Command;

use common::{run, text, told};
use sandcell::{Builder, Landlock, Mechanism, Network, Outcome, Sandbox, Seccomp, User};

/// Runs a Python script that has `call`, a system call by number: its result, or the error's name.
fn python(builder: Builder, script: &str) -> String {
    let output =
        builder.build().unwrap().command("/usr/bin/python3").args(["-c", &with_call(script)]).output().unwrap();
    assert_eq!(output.outcome, Outcome::Exited(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn python_outside(script: &str) -> String {
    let output = Command::new("/usr/bin/python3").args(["-c", &with_call(script)]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn with_call(script: &str) -> String {
    let call = "import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    return errno.errorcode[ctypes.get_errno()] if result == -1 else result
";
    format!("{call}{script}")
}

fn unfiltered() -> Builder {
    Sandbox::builder().seccomp(Seccomp::Off)
}

#[test]
fn the_callers_session_keyring_stays_outside() {
    // In a session keyring of its own: what a caller has there, a program can otherwise use (keyctl(2) search).
    let add = "call(250, 1, 0)
key = call(248, ctypes.c_char_p(b'user'), ctypes.c_char_p(b'sandcell-test'), ctypes.c_char_p(b'x'), 1, -3)
assert isinstance(key, int), key\n";
    let search = "print(call(250, 10, -3, ctypes.c_char_p(b'user'), ctypes.c_char_p(b'sandcell-test'), 0))";
    let outside = python_outside(&format!("{add}{search}"));
    if outside.starts_with('E') {
        println!("SKIPPED: no keyrings here: {outside}");
        return;
    }
    assert!(outside.parse::<i64>().is_ok(), "{outside}");
    // The twin has the key, then starts this test again, whose sandbox must not.
    if std::env::var_os("SANDCELL_KEY").is_some() {
        assert_eq!(python(unfiltered(), search), "ENOKEY");
        assert_eq!(python(Sandbox::builder(), search), "EPERM");
        return;
    }
    let test = std::env::current_exe().unwrap();
    let again = format!(
        "{add}os.environ['SANDCELL_KEY'] = '1'
os.execv('{0}', ['{0}', '--exact', 'the_callers_session_keyring_stays_outside'])",
        test.display()
    );
    assert!(python_outside(&again).contains("1 passed"));
}

#[test]
fn a_crash_leaves_no_core_dump() {
    let said = told(Sandbox::builder(), "ulimit -Sc; ulimit -Hc");
    assert_eq!(said, "0\n0");
    let output = run(Sandbox::builder(), "kill -SEGV $$");
    assert!(matches!(output.outcome, Outcome::Signaled { signal: 11, core_dumped: false, .. }), "{}", output.outcome);
}

#[test]
fn nothing_can_be_typed_into_the_callers_terminal() {
    // TIOCSTI, TIOCLINUX, TIOCSETD, and the first again with bits that the kernel ignores (CVE-2019-10063).
    let script =
        "print(*[call(16, 0, c, ctypes.c_char_p(b'x' * 64)) for c in (0x5412, 0x541c, 0x5423, 0x5412 | 1 << 32)])";
    assert_eq!(python(Sandbox::builder(), script), "EPERM EPERM EPERM EPERM");
    // The twin reaches the device, which is none of a terminal.
    assert_eq!(python(unfiltered(), script), "ENOTTY ENOTTY ENOTTY ENOTTY");
    assert_eq!(python(Sandbox::builder(), "print(call(16, 0, 0x5413, ctypes.c_char_p(b'x' * 64)))"), "ENOTTY");
}

#[test]
fn only_the_native_personality_can_be_taken_on() {
    let script = "print(*[call(135, p) for p in (0xffffffff, 0, 0x0040000, 0x0400000, 8)])";
    assert_eq!(python(Sandbox::builder(), script), "0 0 EPERM EPERM EPERM");
    assert_ne!(python(unfiltered(), script).split(' ').nth(2), Some("EPERM"));
}

#[test]
fn the_processor_is_left_as_it_was() {
    // PR_GET_TSC, PR_GET_SPECULATION_CTRL of store bypass and indirect branches.
    let script =
        "tsc = ctypes.c_int(); print(call(157, 25, ctypes.byref(tsc)), tsc.value, call(157, 52, 0), call(157, 52, 1))";
    assert_eq!(python(Sandbox::builder(), script), python_outside(script));
}

#[test]
fn whoever_keeps_the_right_to_mount_cannot_change_the_mounts_made_for_it() {
    let builder = || Sandbox::builder().cap_add(sandcell::Capability::CAP_SYS_ADMIN).user(User::Root);
    let script = "mkdir /tmp/d /tmp/e; mount -t tmpfs t /tmp/d && touch /tmp/d/f && echo mounted
        mount -o remount,bind,rw /usr && echo rw; touch /usr/f && echo written
        umount -l /proc && echo unmounted; umount -l /usr && echo unmounted
        mount -o remount,bind,suid,dev,exec /tmp && echo flags
        mount --bind /usr /tmp/e && touch /tmp/e/f && echo copied; echo end";
    assert_eq!(text(&run(builder(), script).stdout), "mounted\nend");
    // Without the capability not even a mount of its own.
    let output =
        run(Sandbox::builder().user(User::Root), "mkdir /tmp/d; mount -t tmpfs t /tmp/d && echo mounted; echo end");
    assert_eq!(text(&output.stdout), "end");
}

#[test]
#[cfg(feature = "landlock")]
fn landlock_can_be_required_as_a_whole_or_but_for_single_rules() {
    let required = |network| Sandbox::builder().landlock(Landlock::Required).network(network);
    let missing = |builder: Builder| {
        let lines = run(builder, "true").report.enforced;
        let open = lines.iter().filter(|line| line.item == "landlock" && line.by == Mechanism::Nothing);
        open.map(|line| format!("{:?} {:?}", line.requested, line.why)).collect::<Vec<_>>()
    };
    // What this kernel can do, it must.
    let lacking = missing(Sandbox::builder().network(Network::None));
    match required(Network::None).build() {
        Ok(_) => assert_eq!(lacking, Vec::<String>::new()),
        Err(error) => {
            assert_eq!((error.kind(), error.stage()), ("unsupported", "landlock"), "{error}");
            assert!(lacking.iter().any(|line| line.contains(error.subject())), "{error} is none of {lacking:?}");
            let item = format!("landlock:{}", error.subject());
            assert!(error.hint().contains(&item), "{}", error.hint());
            let but = required(Network::None).best_effort(&item);
            let left = but.clone().build().map(|_| missing(but)).unwrap_or_else(|error| vec![error.to_string()]);
            assert_eq!(left.len(), 1, "{left:?}");
        }
    }
    assert_eq!(missing(required(Network::None).best_effort("landlock")), lacking);
    let error = Sandbox::builder().best_effort("landlock:files and more").build().unwrap_err();
    assert_eq!((error.kind(), error.subject()), ("config", "best_effort"));
}
