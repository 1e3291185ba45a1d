//! Mistakes of the caller: one clear error each, found before anything starts, and the thing done right beside it.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use common::{Scratch, processes_with, run, sandbox, shell, text, told};
use sandcell::Resource;
use sandcell::{Builder, Error, Outcome, Root, Sandbox, Stdio};

/// The error of a policy that cannot be built, or cannot run. Each says what to do.
fn error(builder: Builder) -> Error {
    let error = match builder.build() {
        Err(error) => error,
        Ok(sandbox) => sandbox.command("/bin/true").output().expect_err("this must not run"),
    };
    assert!(!error.hint().is_empty(), "{error}");
    error
}

/// What an error is: kind, stage, number.
fn facts(error: &Error) -> (&'static str, &'static str, Option<i32>) {
    assert!(!error.to_string().is_empty() && !error.to_string().contains('\0'));
    (error.kind(), error.stage(), error.errno())
}

fn exec(command: &mut sandcell::Command) -> Error {
    let error = command.output().expect_err("this must not run");
    assert!(!error.hint().is_empty(), "{error}");
    error
}

#[test]
fn a_root_that_is_missing_or_no_directory_is_named() {
    let scratch = Scratch::new();
    let file = scratch.file("file", "");
    for (path, errno) in [(scratch.path().join("none"), libc::ENOENT), (file, libc::ENOTDIR)] {
        for builder in [Sandbox::builder().root(Root::Dir(path.clone())), Sandbox::builder().layer(&path)] {
            let error = error(builder);
            assert_eq!(facts(&error), ("config", "option", Some(errno)));
            assert_eq!(error.subject(), path.to_str().unwrap());
        }
    }
}

#[test]
fn a_bind_source_that_is_missing_is_named() {
    let scratch = Scratch::new();
    let path = scratch.path().join("none");
    let error = error(Sandbox::builder().ro(&path, "/x"));
    assert_eq!(facts(&error), ("config", "option", Some(libc::ENOENT)));
    assert_eq!(error.subject(), path.to_str().unwrap());
}

#[test]
fn a_file_has_the_mode_that_was_asked_for_and_no_set_id_bits() {
    let script = |mode| Sandbox::builder().file_mode("/script", "#!/bin/sh\necho yes\n", mode);
    assert_eq!(told(script(0o755), "/script"), "yes");
    assert_eq!(told(script(0o640), "stat -c %a /script; /script 2>/dev/null || echo no"), "640\nno");
    let error = error(script(0o4755));
    assert_eq!((facts(&error), error.subject()), (("config", "option", None), "file"));
}

#[test]
fn destinations_are_absolute_and_lead_nowhere_else() {
    for dest in ["relative", "", ".", "/a/../b", "/..", "/", "//", "/./", "/nul\0byte"] {
        for builder in [
            Sandbox::builder().ro("/usr", dest),
            Sandbox::builder().tmpfs(dest, None),
            Sandbox::builder().file(dest, "x"),
        ] {
            assert_eq!(builder.build().expect_err(dest).kind(), "config", "{dest:?}");
        }
    }
    for dest in ["/a", "//a//b/", "/a/./b", "/..a"] {
        assert_eq!(told(Sandbox::builder().tmpfs(dest, None), &format!("test -w {dest} && echo yes")), "yes");
    }
}

#[test]
fn a_layer_stands_in_an_overlay_once() {
    let scratch = Scratch::new();
    let (layer, usr) = (scratch.dir("layer"), "/usr");
    let overlay = || Sandbox::builder().layer(&layer).ro(usr, usr).ro("/usr/lib64", "/lib64").ro("/usr/lib", "/lib");
    let error = error(overlay().layer(&layer));
    assert!(error.hint().contains("once"), "{error}: {}", error.hint());
    let output = overlay().layer(scratch.dir("another")).build().unwrap().command("/usr/bin/true").output().unwrap();
    assert_eq!(output.outcome, Outcome::Exited(0));
}

#[test]
fn an_overlay_needs_layers() {
    assert_eq!(error(Sandbox::builder().root(Root::Layers(vec![]))).subject(), "layers");
    assert_eq!(error(Sandbox::builder().upper(sandcell::Upper::Tmpfs)).subject(), "upper");
}

#[test]
fn limits_of_zero_are_refused() {
    let new = Sandbox::builder;
    for (name, builder) in [
        ("timeout", new().timeout(Duration::ZERO)),
        ("output_limit", new().output_limit(0)),
        ("memory", new().memory(0)),
        ("pids", new().pids(0)),
        ("disk", new().disk(0)),
        ("inodes", new().inodes(0)),
        ("cpus", new().cpus(0.0)),
        ("cpus", new().cpus(f64::NAN)),
        ("cpus", new().cpus(-1.0)),
        ("tmpfs", new().tmpfs("/x", Some(0))),
        ("timeout", new().timeout(Duration::from_secs(200 * 365 * 86400))),
        ("umask", new().umask(0o1000)),
        ("hostname", new().hostname("")),
        ("hostname", new().hostname("a b")),
        ("hostname", new().hostname("x".repeat(64))),
        ("chdir", new().current_dir("relative")),
        ("env", new().env("A=B", "c")),
        ("env", new().env("", "c")),
        ("env", new().env("A", "c\0d")),
        ("best_effort", new().best_effort("everything")),
        ("rlimit", new().rlimit(Resource::RLIMIT_NOFILE, 2, 1)),
        ("rlimit", new().rlimit(Resource::RLIMIT_CORE, 1, 1)),
    ] {
        let error = builder.build().expect_err(name);
        assert_eq!((error.kind(), error.subject()), ("config", name), "{error}");
        assert!(!error.hint().is_empty(), "{error}");
    }
}

#[test]
fn a_disk_budget_too_small_for_the_sandbox_itself_says_so() {
    let error = error(Sandbox::builder().disk(4096));
    assert_eq!((error.kind(), error.errno()), ("setup", Some(libc::ENOSPC)), "{error}");
    assert!(error.hint().contains("disk"), "{}", error.hint());
}

#[test]
fn nul_bytes_and_empty_programs_are_refused() {
    let sandbox = sandbox();
    assert_eq!(exec(&mut sandbox.command("")).kind(), "config");
    assert_eq!(exec(&mut sandbox.command("/bin/tr\0ue")).kind(), "config");
    assert_eq!(exec(sandbox.command("/bin/echo").arg("a\0b")).kind(), "config");
    assert_eq!(exec(sandbox.command("/bin/echo").env("A", "a\0b")).kind(), "config");
    assert_eq!(exec(sandbox.command("/bin/echo").current_dir("relative")).kind(), "config");
    let output = sandbox.command("/bin/echo").args(["", "a b", "-n", "*"]).output().unwrap();
    assert_eq!(text(&output.stdout), " a b -n *");
}

#[test]
fn ten_thousand_arguments_arrive() {
    let numbers = (0..10_000).map(|number| number.to_string());
    let output = sandbox().command("/bin/sh").args(["-c", "echo $# ${10000}", "sh"]).args(numbers).output().unwrap();
    assert_eq!(text(&output.stdout), "10000 9999");
}

#[test]
fn arguments_beyond_what_the_kernel_takes_are_an_error_of_the_program() {
    let sandbox = sandbox();
    let long = "x".repeat(100_000);
    let error = exec(sandbox.command("/bin/true").args(std::iter::repeat_n(&long, 100)));
    assert_eq!((error.kind(), error.errno()), ("exec", Some(libc::E2BIG)), "{error}");
    let error = exec(sandbox.command("/bin/true").arg("x".repeat(200_000)));
    assert_eq!((error.kind(), error.errno()), ("exec", Some(libc::E2BIG)), "{error}");
    let output = sandbox.command("/bin/true").args(std::iter::repeat_n(&long, 10)).output().unwrap();
    assert_eq!(output.outcome, Outcome::Exited(0));
}

#[test]
fn paths_need_not_be_utf_8() {
    let scratch = Scratch::new();
    let name = OsStr::from_bytes(b"caf\xe9 \n:,\\=");
    let dir = scratch.path().join(name);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join(name), "content").unwrap();
    let sandbox = Sandbox::builder().ro(&dir, Path::new("/dest").join(name)).build().unwrap();
    let output = sandbox.command("/bin/cat").arg(Path::new("/dest").join(name).join(name)).output().unwrap();
    assert_eq!(text(&output.stdout), "content");
    // As a layer too: nothing in a name is taken for an option of the mount.
    let mut builder = Sandbox::builder().layer(&dir);
    for path in ["/usr", "/bin", "/lib", "/lib64"].into_iter().filter(|path| Path::new(path).exists()) {
        builder = builder.ro(path, path);
    }
    assert_eq!(told(builder, "cat /caf*"), "content");
}

#[test]
fn what_cannot_be_executed_is_told_as_the_kernel_says_it() {
    let scratch = Scratch::new();
    let script = |name: &str, content: &str, mode| {
        let path = scratch.file(name, content);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    script("plain", "#!/bin/sh\nexit 7\n", 0o644);
    script("good", "#!/bin/sh\nexit 7\n", 0o755);
    script("orphan", "#!/no/such/interpreter\n", 0o755);
    script("noise", "this is no program", 0o755);
    let sandbox = Sandbox::builder().ro(scratch.path(), "/x").build().unwrap();
    for (program, errno) in [
        ("/x/plain", libc::EACCES),
        ("/x", libc::EACCES),
        ("/x/none", libc::ENOENT),
        ("no-such-program", libc::ENOENT),
        ("/x/orphan", libc::ENOENT),
        ("/x/noise", libc::ENOEXEC),
    ] {
        let error = exec(&mut sandbox.command(program));
        assert_eq!((error.kind(), error.errno()), ("exec", Some(errno)), "{program}: {error}");
        assert!(error.to_string().contains(program), "{error}");
    }
    let orphan = exec(&mut sandbox.command("/x/orphan"));
    assert_eq!((orphan.stage(), exec(&mut sandbox.command("/x/none")).stage()), ("interpreter", "exec"), "{orphan}");
    assert_eq!(sandbox.command("/x/good").output().unwrap().outcome, Outcome::Exited(7));
    let cell = sandbox.start().unwrap();
    assert_eq!(cell.command("/x/none").output().unwrap_err().kind(), "exec");
    assert_eq!(cell.command("/x/good").output().unwrap().outcome, Outcome::Exited(7), "the cell lives on");
}

#[test]
fn a_working_directory_that_is_missing_is_no_failure_of_the_program() {
    let error = exec(sandbox().command("/bin/true").current_dir("/no/such"));
    assert_eq!(error.errno(), Some(libc::ENOENT), "{error}");
    assert_ne!(error.kind(), "config");
    // Paths that lead out of a mount namespace through a descriptor are no directory: CVE-2024-21626.
    for dir in ["/proc/self/fd/5", "/proc/1/cwd", "/proc/1/root"] {
        exec(sandbox().command("/bin/true").current_dir(dir));
    }
}

#[test]
fn a_directory_is_no_stream() {
    let open = || fs::File::open("/").unwrap();
    let sandbox = sandbox();
    for command in [
        sandbox.command("/bin/true").stdin(open()),
        sandbox.command("/bin/true").stdout(open()),
        sandbox.command("/bin/true").stderr(open()),
        sandbox.command("/bin/true").pass_fd(open(), 5),
    ] {
        assert_eq!(facts(&exec(command)), ("config", "option", None));
    }
    let path = nix::fcntl::open("/etc/passwd", nix::fcntl::OFlag::O_PATH, nix::sys::stat::Mode::empty()).unwrap();
    assert_eq!(exec(sandbox.command("/bin/true").stdin(path)).kind(), "config");
    let file = fs::File::open("/etc/passwd").unwrap();
    assert_eq!(sandbox.command("/bin/true").stdin(file).output().unwrap().outcome, Outcome::Exited(0));
    for number in [-1, 0, 2, 1024, i32::MAX] {
        let error = exec(sandbox.command("/bin/true").pass_fd(fs::File::open("/etc/passwd").unwrap(), number));
        assert_eq!(error.kind(), "config", "{number}");
    }
}

#[test]
fn a_fifo_is_no_bind_source() {
    let scratch = Scratch::new();
    let fifo = scratch.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(error(Sandbox::builder().ro(&fifo, "/x")).kind(), "config");
}

#[test]
fn an_error_leaves_nothing_behind() {
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let sandbox = sandbox();
    let marker = common::marker();
    // Other tests of this file run beside this one: what leaks adds up over many errors.
    let before = descriptors();
    for _ in 0..50 {
        sandbox.command("/no/such").arg(&marker).stdin(Stdio::Piped).spawn().unwrap_err();
        error(Sandbox::builder().disk(4096));
    }
    assert!(descriptors() < before + 40, "{} → {}", before, descriptors());
    assert!(processes_with(&marker).is_empty());
    assert_eq!(shell(&sandbox, "true").output().unwrap().outcome, Outcome::Exited(0), "the next run works");
    assert_eq!(run(Sandbox::builder(), "exit 4").outcome, Outcome::Exited(4));
}

#[test]
fn a_cell_that_runs_as_much_as_it_can_refuses_one_more_until_something_ends() {
    let cell = Sandbox::builder().build().unwrap().start().unwrap();
    let sleep = || cell.command("/bin/sleep").arg("1000").stdin(Stdio::Null).spawn();
    let mut children: Vec<_> = (0..256).map(|number| sleep().unwrap_or_else(|e| panic!("{number}: {e}"))).collect();
    for _ in 0..3 {
        let error = sleep().unwrap_err();
        assert_eq!((error.stage(), error.errno()), ("too-many-commands", Some(libc::EAGAIN)), "{error}");
        assert!(error.hint().contains("another cell"), "{}", error.hint());
    }
    let mut last = children.pop().unwrap();
    last.kill().unwrap();
    assert_eq!(last.wait().unwrap().outcome, Outcome::Killed);
    children.push(sleep().unwrap());
}
