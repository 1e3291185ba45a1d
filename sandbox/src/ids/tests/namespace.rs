//! The process that makes system calls in another user namespace.

use std::os::fd::AsRawFd;

use crate::ids::namespace::Proxy;

fn link(path: &str) -> std::path::PathBuf {
    std::fs::read_link(path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn a_proxy_is_in_a_namespace_of_its_own_and_is_gone_when_dropped() {
    let proxy = Proxy::in_new_namespace().expect("user namespaces are allowed here");
    let pid = proxy.pid();
    let namespace = proxy.namespace().expect("a descriptor of it");
    let theirs = link(&format!("/proc/{pid}/ns/user"));
    assert_ne!(theirs, link("/proc/self/ns/user"));
    drop(proxy);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    // The descriptor keeps it, and it can be entered again: the same one.
    let again = Proxy::in_namespace(&namespace).expect("entered again");
    assert_eq!(link(&format!("/proc/{}/ns/user", again.pid())), theirs);
}

#[test]
fn a_descriptor_that_is_no_user_namespace_is_an_error_and_leaves_no_process() {
    let file = std::fs::File::open("/dev/null").expect("open /dev/null");
    let error = Proxy::in_namespace(&file).map(|p| p.pid()).expect_err("must be refused");
    assert_eq!(error.errno(), Some(libc::EINVAL), "{error}");
}

#[test]
fn what_a_proxy_opens_the_caller_can_use_and_dumpability_stays() {
    let before = nix::sys::prctl::get_dumpable();
    let proxy = Proxy::in_new_namespace().expect("user namespaces are allowed here");
    let namespace = proxy.namespace().expect("a descriptor");
    let flags = nix::fcntl::fcntl(&namespace, nix::fcntl::FcntlArg::F_GETFD).expect("open here too");
    assert_eq!(flags, libc::FD_CLOEXEC);
    assert!(namespace.as_raw_fd() > 2);
    drop(Proxy::in_namespace(&namespace).expect("entered"));
    assert_eq!(nix::sys::prctl::get_dumpable(), before);
}

#[test]
fn proxies_work_from_many_threads_at_once() {
    let pids: Vec<u32> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let proxy = Proxy::in_new_namespace().expect("user namespaces are allowed here");
                    proxy.namespace().expect("answers");
                    proxy.pid()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("no panic")).collect()
    });
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}

#[test]
fn user_namespaces_that_are_switched_off_are_unsupported_with_the_remedy() {
    let name = "ids::tests::namespace::user_namespaces_that_are_switched_off_are_unsupported_with_the_remedy";
    if std::env::var_os("SANDCELL_TEST_NO_NAMESPACES").is_some() {
        let Err(error) = Proxy::in_new_namespace() else { panic!("there is one all the same") };
        assert_eq!(error.kind(), "unsupported", "{error}");
        assert!(error.hint().contains("user.max_user_namespaces"), "{error:?}");
        return;
    }
    let script = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$0\" --exact \"$1\" --nocapture";
    let mut unshare = std::process::Command::new("unshare");
    unshare.args(["-Ur", "sh", "-c", script]).arg(std::env::current_exe().unwrap()).arg(name);
    let output = unshare.env("SANDCELL_TEST_NO_NAMESPACES", "1").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}
