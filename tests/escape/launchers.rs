//! How each sandbox is started. A new one is one more entry of `ALL`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where the caller's directories appear inside sandboxes that have a root of their own.
pub const INSIDE: &str = "/escape";

/// The directories of the caller that every launcher hands in, in the same way.
pub struct Shared {
    /// Not handed in: where all of these lie.
    pub base: PathBuf,
    /// Read-only, with the probe and its facts.
    pub bin: PathBuf,
    /// Read-only, with a mount below it where the caller could make one.
    pub ro: PathBuf,
    /// Mounted nosuid,nodev,noexec outside: handed in read-only, and once more writable.
    pub flagged: Option<PathBuf>,
    /// 32 mounts, one for each set of flags: handed in read-only, and once more writable.
    pub matrix: Option<PathBuf>,
    /// Writable.
    pub rw: PathBuf,
}

pub struct Launcher {
    pub name: &'static str,
    /// For the table.
    pub about: &'static str,
    /// Whether the directories keep their place: no root of its own.
    pub in_place: bool,
    /// Serves only to show that checks can fail.
    pub control: bool,
    /// A limit of processes was asked for.
    pub pids_limit: bool,
    /// Where groups of the kernel are for root only.
    pub needs_root: bool,
    /// The program's supervisor is its parent, not PID 1 of a namespace.
    pub no_namespaces: bool,
    /// What it is given leads out: to be refused, or to be harmless.
    pub hostile: bool,
    /// The program to look for before it is used, and the arguments up to the probe.
    pub arguments: fn(&Shared) -> Vec<OsString>,
}

/// Held to the list in `exceptions.md`.
pub const LANDLOCK_TIER: &str = "sandcell-landlock";

pub const ALL: &[Launcher] = &[
    Launcher {
        name: "none",
        about: "no sandbox",
        in_place: true,
        control: true,
        pids_limit: false,
        needs_root: false,
        no_namespaces: false,
        hostile: false,
        arguments: |_| Vec::new(),
    },
    Launcher {
        name: "unshare",
        about: "unshare with every namespace, root mapped",
        in_place: true,
        control: true,
        pids_limit: false,
        needs_root: false,
        no_namespaces: false,
        hostile: false,
        arguments: |_| {
            words(&[
                "unshare",
                "--user",
                "--map-root-user",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--net",
                "--ipc",
                "--uts",
                "--cgroup",
            ])
        },
    },
    Launcher {
        name: "careless",
        about: "a shell script that does everything wrong",
        in_place: true,
        control: true,
        pids_limit: false,
        needs_root: false,
        no_namespaces: false,
        hostile: false,
        arguments: careless,
    },
    Launcher {
        name: "bwrap",
        about: "bubblewrap with every hardening option it has",
        in_place: false,
        control: false,
        pids_limit: false,
        needs_root: false,
        no_namespaces: false,
        hostile: false,
        arguments: bubblewrap,
    },
    cell("sandcell", "sandcell run, default options", |s| program(s, &[])),
    cell("sandcell-library", "the same by the library", |s| library(s, &[])),
    cell("sandcell-started", "a started cell", |s| library(s, &["--started"])),
    cell("sandcell-pooled", "one that a pool had built", |s| library(s, &["--pooled"])),
    cell("sandcell-empty", "an empty root", |s| program(s, &["--root", "empty"])),
    Launcher {
        needs_root: true,
        pids_limit: true,
        ..cell("sandcell-limits", "64 processes and 1 GiB at most", |s| program(s, &["--pids", "64", "--memory", "1G"]))
    },
    cell("sandcell-allow-ptrace", "programs may trace each other", |s| program(s, &["--allow", "ptrace"])),
    cell("sandcell-allow-nested", "programs may make namespaces", |s| program(s, &["--allow", "nested"])),
    cell("sandcell-root", "root inside", |s| program(s, &["--user", "root"])),
    cell("sandcell-caller", "the caller's number inside", |s| program(s, &["--user", "caller"])),
    cell("sandcell-no-landlock", "without Landlock", |s| program(s, &["--landlock", "off"])),
    cell("sandcell-layers", "an overlay of an empty layer", |s| layer(s, "plain")),
    cell("sandcell-kept", "the same with an upper that is kept", |s| {
        let upper = s.base.join("upper").to_string_lossy().into_owned();
        program(s, &["--layer", &s.base.join("layers/plain").to_string_lossy(), "--upper", &upper])
    }),
    cell("sandcell-dir", "a directory as the root", |s| {
        program(s, &["--root", &s.base.join("layers/plain").to_string_lossy()])
    }),
    Launcher {
        needs_root: true,
        ..cell("sandcell-init", "the init of a system", |s| {
            program(s, &["--init", "--layer", &s.base.join("layers/plain").to_string_lossy()])
        })
    },
    cell("sandcell-nested", "inside a container made by unshare", |s| {
        let mut argv = words(&["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]);
        argv.push("--mount-proc".into());
        argv.extend(program(s, &[]));
        argv
    }),
    Launcher {
        in_place: true,
        no_namespaces: true,
        ..cell(LANDLOCK_TIER, "without namespaces: Landlock, seccomp and resource limits only", |s| {
            let mut argv = sandcell();
            argv.extend(words(&["--isolation", "landlock"]));
            let read_only = [Some(&s.bin), Some(&s.ro), s.flagged.as_ref(), s.matrix.as_ref()];
            for (option, directory) in
                read_only.map(|directory| ("--ro", directory)).into_iter().chain([("--rw", Some(&s.rw))])
            {
                argv.extend(directory.into_iter().flat_map(|directory| [option.into(), directory.into()]));
            }
            argv.push("--".into());
            argv
        })
    },
    hostile("hostile-layer-dev", "a layer whose /dev is a link out", |s| layer(s, "dev")),
    hostile("hostile-layer-proc", "a layer whose /proc is a link out", |s| layer(s, "proc")),
    hostile("hostile-layer-tmp", "a layer whose /tmp is a link out", |s| layer(s, "tmp")),
    hostile("hostile-layer-etc", "a layer whose /etc is a link out", |s| layer(s, "etc")),
    hostile("hostile-layer-etc-files", "a layer whose files in /etc are links out", |s| layer(s, "etc-files")),
    hostile("hostile-layer-fifo", "a layer whose files in /etc are pipes", |s| layer(s, "fifo")),
    hostile("hostile-layer-target", "a layer with a link out where a mount goes", |s| layer(s, "escape")),
    hostile("hostile-layer-file", "a layer with a file where /proc goes", |s| layer(s, "proc-file")),
    hostile("hostile-bind-target", "a link out, left by an earlier run, where a mount goes", |s| {
        let source = s.ro.display();
        program(s, &["--late", "--ro", &format!("{source}:{INSIDE}/rw/left-behind")])
    }),
];

const fn cell(name: &'static str, about: &'static str, arguments: fn(&Shared) -> Vec<OsString>) -> Launcher {
    Launcher {
        name,
        about,
        in_place: false,
        control: false,
        pids_limit: false,
        needs_root: false,
        no_namespaces: false,
        hostile: false,
        arguments,
    }
}

pub fn named(name: &str) -> Option<&'static Launcher> {
    ALL.iter().find(|launcher| launcher.name == name)
}

impl Launcher {
    /// Why it cannot be used here, if so.
    pub fn unavailable(&self) -> Option<String> {
        let shared = Shared {
            base: PathBuf::new(),
            bin: PathBuf::new(),
            ro: PathBuf::new(),
            flagged: None,
            matrix: None,
            rw: PathBuf::new(),
        };
        let program = (self.arguments)(&shared).into_iter().next()?;
        let path = Path::new(&program);
        let found = if path.components().count() > 1 {
            path.is_file()
        } else {
            let directories = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&directories).any(|directory| directory.join(path).is_file())
        };
        (!found).then(|| format!("{} is not there", path.display()))
    }
}

fn words(list: &[&str]) -> Vec<OsString> {
    list.iter().map(OsString::from).collect()
}

/// What no other control does: flags lost at a remount, capabilities kept, a working directory that is gone, a
/// directory as stdin, a group left behind, a status that is not the program's, an end that waits for stdout.
fn careless(shared: &Shared) -> Vec<OsString> {
    const SCRIPT: &str = r#"
        flagged=$1; shift
        ulimit -n 1048576; ulimit -l unlimited; ulimit -u unlimited
        echo 100 >/proc/self/oom_score_adj
        [ -n "$flagged" ] && mount -o remount,bind,suid,dev,exec "$flagged"
        for top in /sys/fs/cgroup/pids /sys/fs/cgroup; do
            mkdir $top/sandcell-escape-$$ && echo $$ >$top/sandcell-escape-$$/cgroup.procs && break
        done
        cd "$(mktemp -d)" && rmdir "$PWD"
        if setpriv --inh-caps +net_raw --ambient-caps +net_raw true; then
            set -- setpriv --inh-caps +net_raw --ambient-caps +net_raw "$@"
        fi
        "$@" </ | cat
        exit 7"#;
    let mut argv = words(&["sh", "-c", SCRIPT, "careless"]);
    argv.push(shared.flagged.as_deref().map(Into::into).unwrap_or_default());
    argv
}

fn bubblewrap(shared: &Shared) -> Vec<OsString> {
    let mut argv = words(&["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"]);
    argv.extend(words(&["--new-session", "--cap-drop", "ALL", "--hostname", "cell", "--clearenv"]));
    argv.extend(words(&["--setenv", "PATH", "/usr/bin:/bin", "--uid", "4242", "--gid", "4242"]));
    for directory in ["/usr", "/etc"] {
        argv.extend(words(&["--ro-bind", directory, directory]));
    }
    for directory in ["/bin", "/sbin", "/lib", "/lib64"] {
        match std::fs::read_link(directory) {
            Ok(target) => argv.extend(["--symlink".into(), target.into_os_string(), directory.into()]),
            Err(_) if Path::new(directory).is_dir() => argv.extend(words(&["--ro-bind", directory, directory])),
            Err(_) => {}
        }
    }
    argv.extend(words(&["--proc", "/proc", "--dev", "/dev"]));
    for directory in ["/tmp", "/run", "/home"] {
        argv.extend(words(&["--tmpfs", directory]));
    }
    let mut bind = |option: &str, source: &Path, name: &str| {
        argv.extend([option.into(), source.into(), format!("{INSIDE}/{name}").into()]);
    };
    bind("--ro-bind", &shared.bin, "bin");
    bind("--ro-bind", &shared.ro, "ro");
    if let Some(flagged) = &shared.flagged {
        bind("--ro-bind", flagged, "flagged");
        bind("--bind", flagged, "flagged_rw");
    }
    if let Some(matrix) = &shared.matrix {
        bind("--ro-bind", matrix, "matrix");
        bind("--bind", matrix, "matrix_rw");
    }
    bind("--bind", &shared.rw, "rw");
    argv.extend(words(&["--chdir", "/", "--"]));
    argv
}

const fn hostile(name: &'static str, about: &'static str, arguments: fn(&Shared) -> Vec<OsString>) -> Launcher {
    Launcher { hostile: true, ..cell(name, about, arguments) }
}

fn layer(shared: &Shared, name: &str) -> Vec<OsString> {
    program(shared, &["--layer", &shared.base.join("layers").join(name).to_string_lossy()])
}

/// A program of this workspace, beside the one that runs.
fn beside(name: &str) -> PathBuf {
    let directory = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_path_buf()));
    directory.unwrap_or_default().join(name)
}

fn library(shared: &Shared, options: &[&str]) -> Vec<OsString> {
    let mut argv = vec![beside("escape-cell").into_os_string()];
    add_options(&mut argv, shared, options);
    argv
}

/// Every program of ours that is started: they must be there when the stage is set.
pub fn programs(probe: &Path) -> Vec<PathBuf> {
    [Some(probe.to_owned()), super::build::sandcell().ok(), Some(beside("escape-cell"))].into_iter().flatten().collect()
}

fn sandcell() -> Vec<OsString> {
    // What cannot be built is reported by name when it is looked for.
    let path = super::build::sandcell().unwrap_or_else(|message| PathBuf::from(format!("./sandcell: {message}")));
    vec![path.into_os_string(), "run".into()]
}

fn program(shared: &Shared, options: &[&str]) -> Vec<OsString> {
    let mut argv = sandcell();
    add_options(&mut argv, shared, options);
    argv
}

/// The same words for both.
fn add_options(argv: &mut Vec<OsString>, shared: &Shared, options: &[&str]) {
    // A mount into a mount comes after it.
    let (late, early) = if options.first() == Some(&"--late") { (&options[1..], &[][..]) } else { (&[][..], options) };
    argv.extend(words(early));
    let mut bind = |option: &str, source: &Path, name: &str| {
        let mut pair = source.as_os_str().to_os_string();
        pair.push(format!(":{INSIDE}/{name}"));
        argv.extend([option.into(), pair]);
    };
    bind("--ro", &shared.bin, "bin");
    bind("--ro", &shared.ro, "ro");
    if let Some(flagged) = &shared.flagged {
        bind("--ro", flagged, "flagged");
        bind("--rw", flagged, "flagged_rw");
    }
    if let Some(matrix) = &shared.matrix {
        bind("--ro", matrix, "matrix");
        bind("--rw", matrix, "matrix_rw");
    }
    bind("--rw", &shared.rw, "rw");
    argv.extend(words(late));
    argv.push("--".into());
}
