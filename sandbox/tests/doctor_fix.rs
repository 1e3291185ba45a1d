//! `sandcell doctor --fix` makes the changes that sandboxes need, and `--unfix` leaves no byte of them: the whole tree before and after
//! is compared, in a small root of files of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const SANDCELL: &str = env!("CARGO_BIN_EXE_sandcell");
const USERS: &str =
    "root:x:0:0::/root:/bin/sh\nanna:x:1000:1000::/home/anna:/bin/sh\nbert:x:1001:1001::/home/bert:/bin/sh\n";

/// A host in files: restricted in every way, with systemd and AppArmor, whose programs note what they were asked.
struct Host(PathBuf);

impl Host {
    fn new(name: &str) -> Host {
        let host = Host(std::env::temp_dir().join(format!("sandcell-fix-{name}-{}", std::process::id())));
        let _ = fs::remove_dir_all(&host.0);
        host.write("etc/passwd", USERS);
        host.write("etc/subuid", "bert:100000:65536\n");
        // The newline is missing, and there is no /etc/subgid at all.
        host.write("etc/apparmor.d/abi/4.0", "");
        host.write("etc/sysctl.d/10-theirs.conf", "kernel.pid_max = 100000\n");
        host.write("proc/sys/kernel/unprivileged_userns_clone", "0\n");
        host.write("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n");
        host.write("proc/sys/user/max_user_namespaces", "0\n");
        host.write("sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n");
        host.write("usr/local/bin/sandcell", "");
        host.write("usr/bin/newuidmap", "");
        fs::create_dir_all(host.0.join("run/systemd/system")).unwrap();
        fs::create_dir_all(host.0.join("var/lib")).unwrap();
        host.program("usr/sbin/apparmor_parser", "");
        host.program("usr/bin/systemctl", "");
        host
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        for dir in path.ancestors().take_while(|dir| dir.starts_with(&self.0)) {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    /// What it was asked stands in a file beside the root; then `more` is done.
    fn program(&self, path: &str, more: &str) {
        self.write(path, &format!("#!/bin/sh\necho \"${{0##*/}} $*\" >>\"{}\"\n{more}\n", self.asked().display()));
    }

    fn asked(&self) -> PathBuf {
        self.0.with_extension("asked")
    }

    /// What the host's programs have been asked since the last time.
    fn taken(&self) -> Vec<String> {
        let text = fs::read_to_string(self.asked()).unwrap_or_default();
        let _ = fs::remove_file(self.asked());
        text.lines().map(str::to_owned).collect()
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn doctor(&self, words: &[&str]) -> Output {
        self.answered(words, "")
    }

    fn answered(&self, words: &[&str], answer: &str) -> Output {
        let mut command = Command::new(SANDCELL);
        command.arg("doctor").args(words).arg("--root").arg(&self.0).env_remove("SUDO_USER");
        if words.contains(&"--fix") {
            command.args(["--program", "/usr/local/bin/sandcell"]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), answer.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Every name with its kind, mode, owner and content.
    fn tree(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut dirs = vec![self.0.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let metadata = path.symlink_metadata().unwrap();
                let mut words = format!("{:o} {}:{}", metadata.mode(), metadata.uid(), metadata.gid());
                match metadata.is_dir() {
                    true => dirs.push(path.clone()),
                    false => words += &format!(" {:?}", fs::read(&path).unwrap()),
                }
                found.insert(path, words);
            }
        }
        found
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        let _ = fs::remove_file(self.asked());
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{:?} {}", output.status, said(output));
    said(output)
}

const FIX: [&str; 4] = ["--fix", "--yes", "--user", "anna"];
const UNFIX: [&str; 2] = ["--unfix", "--yes"];

#[test]
fn what_was_changed_is_taken_back_to_the_last_byte() {
    for subuid in ["bert:100000:65536\n", "bert:100000:65536", ""] {
        let host = Host::new("whole");
        host.write("etc/subuid", subuid);
        fs::set_permissions(host.0.join("etc/subuid"), fs::Permissions::from_mode(0o640)).unwrap();
        let before = host.tree();
        succeeds(&host.doctor(&FIX));
        // The range is one that nobody has, and the same in both files.
        let start = if subuid.is_empty() { 100_000 } else { 165_536 };
        let line = format!("anna:{start}:65536\n");
        assert_eq!(host.text("etc/subgid"), line);
        let theirs = if subuid.is_empty() { "" } else { "bert:100000:65536\n" };
        assert_eq!(host.text("etc/subuid"), format!("{theirs}{line}"));
        assert_eq!(fs::metadata(host.0.join("etc/subuid")).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(host.text("proc/sys/kernel/unprivileged_userns_clone"), "1\n");
        assert_eq!(host.text("proc/sys/user/max_user_namespaces"), "15000\n");
        let settings = host.text("etc/sysctl.d/99-zz-sandcell.conf");
        assert!(settings.contains("unprivileged_userns_clone = 1") && settings.contains("max_user_namespaces = 15000"));
        // The restriction stays: a profile is what it asks for.
        assert_eq!(host.text("proc/sys/kernel/apparmor_restrict_unprivileged_userns"), "1\n");
        let profile = host.text("etc/apparmor.d/sandcell");
        assert!(
            profile.contains("profile sandcell /usr/local/bin/sandcell flags=(unconfined) {\n  userns,"),
            "{profile}"
        );
        assert!(
            host.text("etc/systemd/system/user@.service.d/sandcell.conf")
                .contains("Delegate=cpu cpuset io memory pids")
        );
        assert_eq!(host.taken(), ["systemctl daemon-reload", "apparmor_parser -r /etc/apparmor.d/sandcell"]);
        succeeds(&host.doctor(&UNFIX));
        assert_eq!(host.tree(), before);
        // The profile is unloaded while its file is there, and systemd reads again when its file has gone.
        assert_eq!(host.taken(), ["apparmor_parser -R /etc/apparmor.d/sandcell", "systemctl daemon-reload"]);
        assert!(succeeds(&host.doctor(&UNFIX)).contains("Nothing to take back"));
        assert_eq!(host.tree(), before);
    }
}

#[test]
fn a_second_time_there_is_nothing_to_do() {
    let host = Host::new("twice");
    let before = host.tree();
    succeeds(&host.doctor(&FIX));
    let (after, _) = (host.tree(), host.taken());
    assert!(succeeds(&host.doctor(&FIX)).contains("Nothing to do"));
    assert_eq!(host.tree(), after);
    assert!(host.taken().is_empty());
    // Another user is one more change, and all of them are taken back.
    host.write("etc/passwd", &format!("{USERS}cleo:x:1002:1002::/:/bin/sh\n"));
    succeeds(&host.doctor(&["--fix", "--yes", "--user", "cleo"]));
    assert!(host.text("etc/subgid").contains("cleo:231072:65536\n"));
    host.write("etc/passwd", USERS);
    succeeds(&host.doctor(&UNFIX));
    assert_eq!(host.tree(), before);
}

#[test]
fn it_shows_and_asks_and_takes_nothing_but_yes_for_yes() {
    let host = Host::new("asks");
    let before = host.tree();
    let shown = succeeds(&host.doctor(&["--fix", "--dry-run", "--user", "anna"]));
    for line in
        ["would add to /etc/subuid: anna:165536:65536", "would set kernel.unprivileged_userns_clone=1 now", "userns,"]
    {
        assert!(shown.contains(line), "{shown}");
    }
    assert_eq!(host.tree(), before);
    for answer in ["", "\n", "n\n", "yours\n"] {
        let output = host.answered(&["--fix", "--user", "anna"], answer);
        assert!(!output.status.success() && said(&output).contains("Nothing was changed"), "{}", said(&output));
        assert_eq!(host.tree(), before, "{answer:?}");
    }
    assert!(host.taken().is_empty());
    succeeds(&host.answered(&["--fix", "--user", "anna"], "y\n"));
    let after = host.tree();
    assert_ne!(after, before);
    let shown = succeeds(&host.doctor(&["--unfix", "--dry-run"]));
    assert!(shown.contains("would remove from /etc/subuid: anna:165536:65536"), "{shown}");
    assert!(!host.answered(&["--unfix"], "no\n").status.success());
    assert_eq!(host.tree(), after);
    succeeds(&host.answered(&["--unfix"], "YES\n"));
    assert_eq!(host.tree(), before);
}

#[test]
fn what_others_wrote_is_never_changed() {
    let host = Host::new("others");
    // A profile and a delegation of somebody's, and sub-ids that anna has already by her number.
    host.write("etc/apparmor.d/sandcell", "profile sandcell /opt/sandcell { }\n");
    host.write("etc/systemd/system/user@.service.d/delegate.conf", "[Service]\nDelegate=cpu cpuset io memory pids\n");
    host.write("etc/subuid", "1000:500000:65536\nbert:100000:65536\n");
    host.write("etc/subgid", "anna:700000:1000\n");
    let before = host.tree();
    let output = host.doctor(&FIX);
    assert!(!output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("/etc/apparmor.d/sandcell is there with other content"), "{}", said(&output));
    let changed: Vec<_> = host.tree().into_iter().filter(|(path, words)| before.get(path) != Some(words)).collect();
    let changed: Vec<_> =
        changed.iter().map(|(path, _)| path.strip_prefix(&host.0).unwrap().to_str().unwrap()).collect();
    let ours = [
        "etc/sysctl.d/99-zz-sandcell.conf",
        "proc/sys/kernel/unprivileged_userns_clone",
        "proc/sys/user/max_user_namespaces",
        "var/lib/sandcell",
        "var/lib/sandcell/doctor.json",
    ];
    assert_eq!(changed, ours);
    succeeds(&host.doctor(&UNFIX));
    assert_eq!(host.tree(), before);
}

#[test]
fn what_others_changed_afterwards_stays_as_they_left_it() {
    let host = Host::new("later");
    succeeds(&host.doctor(&FIX));
    host.write("etc/subuid", &format!("{}dora:900000:65536\n", host.text("etc/subuid")));
    host.write("etc/sysctl.d/99-zz-sandcell.conf", "kernel.unprivileged_userns_clone = 1\n");
    host.write("proc/sys/user/max_user_namespaces", "77\n");
    host.write("etc/systemd/system/user@.service.d/theirs.conf", "[Service]\n");
    let said = succeeds(&host.doctor(&UNFIX));
    assert_eq!(host.text("etc/subuid"), "bert:100000:65536\ndora:900000:65536\n");
    assert_eq!(host.text("etc/sysctl.d/99-zz-sandcell.conf"), "kernel.unprivileged_userns_clone = 1\n");
    assert_eq!(host.text("proc/sys/user/max_user_namespaces"), "77\n");
    assert_eq!(host.text("etc/systemd/system/user@.service.d/theirs.conf"), "[Service]\n");
    assert!(!host.0.join("etc/systemd/system/user@.service.d/sandcell.conf").exists());
    assert!(!host.0.join("etc/subgid").exists() && !host.0.join("var/lib/sandcell").exists());
    for word in ["99-zz-sandcell.conf stays", "max_user_namespaces=77 stays", "user@.service.d stays"] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn what_was_interrupted_half_way_is_undone() {
    for program in ["usr/sbin/apparmor_parser", "usr/bin/systemctl"] {
        let host = Host::new("killed");
        let (before, tame) = (host.tree(), host.text(program));
        for next in [&UNFIX[..], &FIX] {
            host.program(program, "kill -KILL $PPID; sleep 1");
            let output = host.doctor(&FIX);
            assert!(output.status.code().is_none(), "{}", said(&output));
            assert!(host.text("etc/subuid").contains("anna") && host.0.join("var/lib/sandcell/doctor.json").exists());
            host.write(program, &tame);
            // Whoever was killed while it held the lock of shadow's programs holds it no more.
            host.write("etc/subuid.lock", "2147483646\0");
            let told = succeeds(&host.doctor(next));
            if next == FIX {
                assert!(told.contains("interrupted") && host.text("etc/subuid").matches("anna").count() == 1, "{told}");
                succeeds(&host.doctor(&UNFIX));
            }
            assert_eq!(host.tree(), before, "{program} {next:?}");
        }
    }
}

#[test]
fn what_fails_half_way_is_undone_at_once() {
    let host = Host::new("fails");
    host.program("usr/sbin/apparmor_parser", "[ \"$1\" = -R ] || exit 1");
    let before = host.tree();
    let output = host.doctor(&FIX);
    assert_eq!(output.status.code(), Some(125), "{}", said(&output));
    assert!(said(&output).contains("has been taken back"), "{}", said(&output));
    assert_eq!(host.tree(), before);
    // Another program is at work on the same file: nothing is done, either.
    host.write("usr/sbin/apparmor_parser", "#!/bin/sh\n");
    host.write("etc/subuid.lock", &format!("{}\0", std::process::id()));
    let before = host.tree();
    let output = host.doctor(&FIX);
    assert!(said(&output).contains("is being changed by another program"), "{}", said(&output));
    assert!(host.text("etc/subuid") == "bert:100000:65536\n" && !host.0.join("etc/subgid").exists());
    fs::remove_file(host.0.join("etc/subuid.lock")).unwrap();
    succeeds(&host.doctor(&UNFIX));
    let mut before = before;
    before.remove(&host.0.join("etc/subuid.lock"));
    assert_eq!(host.tree(), before);
}

/// What somebody did to the root of a host.
type Change = fn(&Path);

#[test]
fn a_program_that_others_can_change_gets_no_profile() {
    let others: [(&str, Change); 3] = [
        ("the file", |root| {
            fs::set_permissions(root.join("usr/local/bin/sandcell"), fs::Permissions::from_mode(0o775)).unwrap()
        }),
        ("a directory", |root| fs::set_permissions(root.join("usr/local"), fs::Permissions::from_mode(0o777)).unwrap()),
        ("a link", |root| {
            fs::rename(root.join("usr/local/bin"), root.join("usr/local/other")).unwrap();
            std::os::unix::fs::symlink("other", root.join("usr/local/bin")).unwrap();
        }),
    ];
    for (what, change) in others {
        let host = Host::new("unsafe");
        change(&host.0);
        let output = host.doctor(&FIX);
        assert!(said(&output).contains("no AppArmor profile: others than root"), "{what}: {}", said(&output));
        assert!(!output.status.success() && !host.0.join("etc/apparmor.d/sandcell").exists(), "{what}");
        assert!(host.text("etc/subuid").contains("anna"), "{what}");
    }
}

#[test]
fn users_and_mistakes_are_named() {
    let host = Host::new("users");
    let before = host.tree();
    for (words, about) in [
        (&["--fix", "--yes", "--user", "nobody-here"][..], "there is no user"),
        (&["--fix", "--yes", "--user", "anna:0:1\nroot"], "there is no user"),
        (&["--yes"], "go with --fix"),
    ] {
        let output = host.doctor(words);
        assert!(output.status.code() == Some(125) && said(&output).contains(about), "{}", said(&output));
        assert_eq!(host.tree(), before);
    }
    let shown = said(&host.doctor(&["--fix", "--dry-run"]));
    assert!(shown.contains("say --user NAME") && !shown.contains("subuid:"), "{shown}");
    if !nix::unistd::geteuid().is_root() {
        let output = Command::new(SANDCELL).args(["doctor", "--fix", "--yes", "--user", "root"]).output().unwrap();
        assert!(
            output.status.code() == Some(125) && said(&output).contains("sudo sandcell doctor --fix"),
            "{output:?}"
        );
    }
}

/// On the machine itself, beneath overlays: what is written there is read by newuidmap, and by nobody else.
#[test]
fn the_sub_ids_that_it_writes_are_good_for_a_sandbox() {
    let has = |program: &str| Path::new("/usr/bin").join(program).exists();
    let user = nix::unistd::User::from_name("sandcell-test").ok().flatten();
    let (true, true, Some(user)) = (nix::unistd::geteuid().is_root(), has("newuidmap"), user) else {
        println!("SKIPPED: it takes root, newuidmap and the user sandcell-test");
        return;
    };
    let top = std::env::temp_dir().join(format!("sandcell-fix-over-{}", std::process::id()));
    fs::create_dir_all(&top).unwrap();
    // The user's leases are kept beside: they are of a range that is not there now.
    let script = r#"set -e
        top=$1 sandcell=$2 user=$3
        mount --make-rprivate /; mount -t tmpfs none "$top"
        for dir in etc var/lib; do
            mkdir -p "$top/$dir/upper" "$top/$dir/work"
            mount -t overlay -o "lowerdir=/$dir,upperdir=$top/$dir/upper,workdir=$top/$dir/work" none "/$dir"
        done
        grep -v "^$user:" /etc/subuid >"$top/rest" || :; cat "$top/rest" >/etc/subuid
        grep -v "^$user:" /etc/subgid >"$top/rest" || :; cat "$top/rest" >/etc/subgid
        touch /etc/subuid /etc/subgid; cp -a /etc "$top/before"
        mkdir -m 1777 "$top/run"; export XDG_RUNTIME_DIR="$top/run/user" HOME="$top/run"
        try() { runuser -u "$user" -- mkdir -p -m 700 "$XDG_RUNTIME_DIR"; runuser -u "$user" -- "$sandcell" run --host-ids disjoint -- true; }
        ! try 2>/dev/null || { echo "works before"; exit 1; }
        "$sandcell" doctor --fix --yes --user "$user" || [ $? = 1 ]
        try || { echo "does not work after"; exit 1; }
        "$sandcell" doctor --unfix --yes
        diff -r --no-dereference "$top/before" /etc && [ ! -e /var/lib/sandcell ] && echo "as before""#;
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(&top)
        .args([SANDCELL, &user.name])
        .output()
        .unwrap();
    let _ = fs::remove_dir(&top);
    assert!(output.status.success() && said(&output).contains("as before"), "{}", said(&output));
}
