//! Where people start it: `sandcell doctor` recognises each place, says the line that it takes, and with that line a sandbox
//! runs. The rows are the program's own (`doctor --places`); docs/hosts.md has the same table.
//!
//! What cannot be had on a test machine is imitated by its filter, mounts, maps and marks.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sandcell_tests::escape::build;
use serde_json::Value;

const HERE: &str = env!("CARGO_MANIFEST_DIR");
const UNSHARE: [&str; 5] = ["unshare", "--user", "--map-root-user", "--mount", "--"];

fn program() -> PathBuf {
    build::sandcell().unwrap()
}

fn is_root() -> bool {
    // SAFETY: a call without arguments or effects.
    unsafe { libc::geteuid() == 0 }
}

fn installed(program: &str) -> bool {
    let there = Command::new("sh").args(["-c", "command -v \"$1\" >/dev/null", "sh", program]).status();
    there.is_ok_and(|status| status.success())
}

/// A directory that goes away with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("sandcell-places-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn text(&self) -> String {
        self.0.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn rows() -> Vec<Value> {
    let output = Command::new(program()).args(["doctor", "--places", "--json"]).output().unwrap();
    serde_json::from_slice::<Value>(&output.stdout).unwrap().as_array().unwrap().clone()
}

fn row(place: &str) -> Value {
    rows().into_iter().find(|row| row["place"] == place).unwrap_or_else(|| panic!("{place} is no row"))
}

/// What the doctor says behind `wrapper`, whose last word may be the name that the program has there.
fn doctor(wrapper: &[String]) -> Vec<Value> {
    let output = Command::new("timeout").args(["-k", "1", "60"]).args(wrapper).args(["doctor", "--json"]).output();
    let output: Output = output.unwrap();
    serde_json::from_slice::<Value>(&output.stdout)
        .unwrap_or_else(|error| panic!("{wrapper:?}: {error}: {}", String::from_utf8_lossy(&output.stderr)))
        .as_array()
        .unwrap()
        .clone()
}

fn one<'a>(findings: &'a [Value], name: &str) -> &'a Value {
    findings.iter().find(|finding| finding["name"] == name).unwrap()
}

/// In the place as it is: recognised, and what the row says of it holds. `changed` is the same place with the row's line.
fn holds(place: &str, unchanged: &[String], changed: Option<&[String]>) {
    let row = row(place);
    let findings = doctor(unchanged);
    let told = one(&findings, "place");
    assert_eq!(told["place"], place, "{told} {}", one(&findings, "sandbox"));
    let (sandbox, weaker) = (one(&findings, "sandbox"), one(&findings, "landlock-only"));
    assert_eq!(sandbox["ok"], row["verdict"] == "works", "{sandbox} {told}");
    assert_eq!(told["ok"], sandbox["ok"], "{told}");
    assert_eq!(weaker["ok"], row["landlock"], "{weaker}");
    let line = if sandbox["ok"] == true { &Value::from("") } else { &row["line"] };
    assert_eq!(&told["remedy"], line, "{told}");
    assert_eq!(row["verdict"] == "with-line", changed.is_some(), "{row}");
    if let Some(changed) = changed {
        let findings = doctor(changed);
        let (told, sandbox) = (one(&findings, "place"), one(&findings, "sandbox"));
        assert!(told["ok"] == true && sandbox["ok"] == true && told["remedy"] == "", "{told} {sandbox}");
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// `wrapper` and the program under its own name.
fn with_program(wrapper: &[&str]) -> Vec<String> {
    let mut words = words(wrapper);
    words.push(program().to_str().unwrap().to_owned());
    words
}

fn filter(rules: &str) -> [String; 3] {
    ["/usr/bin/python3".to_owned(), format!("{HERE}/imitation.py"), rules.to_owned()]
}

/// A root of its own in namespaces of its own, without the marks of where the tests run; `script` changes it, and `rules` refuse
/// calls. $new is the root before it becomes one.
fn imitated(scratch: &Scratch, script: &str, rules: &str) -> Vec<String> {
    let whole = format!(
        r#"set -e
        new=$1; shift; program=$1
        mount -t tmpfs none "$new"; mount --make-unbindable "$new"
        mkdir "$new/marks"; mount -t tmpfs none "$new/marks"
        for entry in /*; do
            name=$new/${{entry#/}}
            if [ -L "$entry" ]; then cp -P "$entry" "$name"
            elif [ -d "$entry" ]; then mkdir "$name"; mount --rbind "$entry" "$name"; fi
        done
        {script}
        cd "$new"; pivot_root . .; umount -l .; cd /
        exec "$@""#
    );
    let mut words = words(&UNSHARE);
    words.extend(["sh".to_owned(), "-c".to_owned(), whole, "sh".to_owned(), scratch.text()]);
    if !rules.is_empty() {
        words.extend(filter(rules));
    }
    words.push(program().to_str().unwrap().to_owned());
    words
}

/// What AppArmor, Debian's setting and filters of containers do to whoever asks for a user namespace.
const NO_NAMESPACES: &str = "clone3=ENOSYS clone+newuser=EPERM unshare=EPERM setns=EPERM";

/// A setting of the kernel that this kernel may not have: /proc/sys/kernel as files.
fn setting(name: &str, value: &str) -> String {
    format!(
        r#"mkdir -p "$new/run" && mount -t tmpfs none "$new/run"
        for file in osrelease cap_last_cap overflowuid overflowgid pid_max ngroups_max; do
            [ ! -e /proc/sys/kernel/$file ] || cat /proc/sys/kernel/$file >"$new/run/$file"
        done
        echo {value} >"$new/run/{name}"
        mount --bind "$new/run" "$new/proc/sys/kernel""#
    )
}

#[test]
fn a_host_and_a_container_that_allows_everything_hold_sandboxes() {
    let scratch = Scratch::new("host");
    holds("host", &imitated(&scratch, ":", ""), None);
}

#[test]
fn debian_without_unprivileged_user_namespaces_is_told_its_sysctl() {
    let scratch = Scratch::new("debian");
    let with = imitated(&scratch, ":", "");
    holds(
        "debian-restricted",
        &imitated(&scratch, &setting("unprivileged_userns_clone", "0"), NO_NAMESPACES),
        Some(&with),
    );
}

#[test]
fn a_host_with_no_user_namespaces_left_is_told_its_sysctl() {
    let scratch = Scratch::new("none");
    // In a user namespace the number holds for that namespace alone.
    let number = |number| imitated(&scratch, &format!("echo {number} >/proc/sys/user/max_user_namespaces"), "");
    holds("no-user-namespaces", &number(0), Some(&number(15000)));
}

#[test]
fn a_hosted_runner_and_ubuntu_are_told_what_apparmor_wants() {
    let scratch = Scratch::new("ubuntu");
    let restricts = setting("apparmor_restrict_unprivileged_userns", "1");
    // With a profile of its own nothing is refused to the program.
    holds("ubuntu-restricted", &imitated(&scratch, &restricts, NO_NAMESPACES), Some(&imitated(&scratch, ":", "")));
    let runner = r#"mount -t tmpfs none "$new/opt"; mkdir -p "$new/opt/hostedtoolcache"
        mount -t tmpfs none "$new/home"; mkdir -p "$new/home/runner/work""#;
    holds(
        "actions",
        &imitated(&scratch, &format!("{restricts}\n{runner}"), NO_NAMESPACES),
        Some(&imitated(&scratch, runner, "")),
    );
}

/// The calls that gVisor and WSL 1 do not have.
const OLD_KERNEL: &str = "clone3=ENOSYS open_tree=ENOSYS move_mount=ENOSYS fsopen=ENOSYS fsconfig=ENOSYS fsmount=ENOSYS \
    fspick=ENOSYS mount_setattr=ENOSYS landlock_create_ruleset=ENOSYS landlock_add_rule=ENOSYS \
    landlock_restrict_self=ENOSYS";

fn kernel(name: &str, version: &str) -> String {
    format!(
        r#"echo '{name}' >"$new/marks/osrelease"; echo 'Linux version {name} {version}' >"$new/marks/version"
        mount --bind "$new/marks/osrelease" "$new/proc/sys/kernel/osrelease"
        mount --bind "$new/marks/version" "$new/proc/version""#
    )
}

#[test]
fn gvisor_is_refused_with_what_to_do_instead() {
    let scratch = Scratch::new("gvisor");
    for name in ["4.19.0-gvisor", "4.4.0"] {
        let kernel = kernel(name, "#1 SMP Sun Jan 10 15:06:54 PST 2016");
        holds("gvisor", &imitated(&scratch, &kernel, OLD_KERNEL), None);
    }
}

#[test]
fn wsl_1_is_told_to_become_2() {
    let scratch = Scratch::new("wsl1");
    let kernel = kernel("4.4.0-19041-Microsoft", "#1-Microsoft");
    holds("wsl1", &imitated(&scratch, &kernel, OLD_KERNEL), None);
}

#[test]
fn wsl_2_holds_sandboxes() {
    let scratch = Scratch::new("wsl2");
    // The kernel's name is put over the real one; a second, whole /proc makes up for that.
    let kernel = kernel("5.15.167.4-microsoft-standard-WSL2", "#1 SMP");
    let whole = r#"mkdir "$new/whole"; mount --rbind /proc "$new/whole""#;
    holds("wsl2", &imitated(&scratch, &format!("{kernel}\n{whole}"), ""), None);
}

#[test]
fn sandcell_in_sandcell_is_refused_and_runs_without_namespaces() {
    let show = format!("{}:/inner", program().display());
    holds("sandcell", &[with_program(&[]), words(&["run", "--ro", &show, "--", "/inner"])].concat(), None);
}

#[test]
fn flatpak_is_refused_with_what_to_do_instead() {
    let scratch = Scratch::new("flatpak");
    let mark = scratch.0.join("info");
    std::fs::write(&mark, "[Application]\nname=org.example.App\n").unwrap();
    let rules = format!(
        "{NO_NAMESPACES} mount=EPERM umount2=EPERM pivot_root=EPERM open_tree=ENOSYS move_mount=ENOSYS fsopen=ENOSYS \
         fsconfig=ENOSYS fsmount=ENOSYS fspick=ENOSYS mount_setattr=ENOSYS add_key=EPERM keyctl=EPERM request_key=EPERM"
    );
    let [python, imitation, rules] = filter(&rules);
    let mark = mark.to_str().unwrap();
    let wrapper = [
        "bwrap",
        "--unshare-user",
        "--unshare-pid",
        "--tmpfs",
        "/",
        "--ro-bind",
        "/usr",
        "/usr",
        "--ro-bind",
        "/etc",
        "/etc",
        "--symlink",
        "usr/bin",
        "/bin",
        "--symlink",
        "usr/lib",
        "/lib",
        "--symlink",
        "usr/lib64",
        "/lib64",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
    ];
    let own = program();
    let (directory, inner) = (own.parent().unwrap().to_str().unwrap(), "/run/sandcell-tests");
    let shown =
        ["--ro-bind", directory, inner, "--ro-bind", HERE, "/run/imitation", "--ro-bind", mark, "/.flatpak-info"];
    let imitation = imitation.replace(HERE, "/run/imitation");
    let last = [&python[..], &imitation, &rules, "/run/sandcell-tests/sandcell"];
    holds("flatpak", &words(&[&wrapper[..], &shown, &last].concat()), None);
}

#[test]
fn bubblewrap_is_told_to_show_a_whole_proc() {
    let own = |proc: &[&str]| {
        let all = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--dev", "/dev"];
        with_program(&[&all[..], proc, &["--tmpfs", "/tmp"]].concat())
    };
    // A program beneath /tmp would be covered.
    let shown = |mut words: Vec<String>| {
        let program = words.pop().unwrap();
        words.extend(["--ro-bind".to_owned(), program, "/tmp/sandcell".to_owned(), "/tmp/sandcell".to_owned()]);
        words
    };
    let masked = shown(own(&["--proc", "/proc"]));
    match is_root() {
        true => holds("bubblewrap", &masked, Some(&shown(own(&["--bind", "/proc", "/proc"])))),
        // Only root is given masks.
        false => {
            let findings = doctor(&masked);
            let (told, sandbox) = (one(&findings, "place"), one(&findings, "sandbox"));
            assert!(told["place"] == "bubblewrap" && told["ok"] == true && sandbox["ok"] == true, "{told} {sandbox}");
        }
    }
}

#[test]
fn a_nix_build_holds_sandboxes() {
    let scratch = Scratch::new("nix");
    let marks = r#"mkdir -p "$new/nix/store" "$new/build"; mount -t tmpfs none "$new/nix/store"
        echo 'nixbld:x:0:0:Nix build user:/build:/noshell' >"$new/marks/passwd"; mount --bind "$new/marks/passwd" "$new/etc/passwd""#;
    holds("nix", &imitated(&scratch, marks, "setxattr=EOPNOTSUPP"), None);
}

#[test]
fn systemd_nspawn_is_told_its_filter_and_a_whole_proc() {
    let scratch = Scratch::new("nspawn");
    let marks = r#"mount -t tmpfs none "$new/run"; mkdir "$new/run/host"; echo systemd-nspawn >"$new/run/host/container-manager"
        mount --bind /proc/sys "$new/proc/sys"; mount -o remount,bind,ro "$new/proc/sys"
        mount --bind "$new/run/host/container-manager" "$new/proc/kmsg""#;
    let keyring = "keyctl=EPERM add_key=EPERM request_key=EPERM";
    let landlock = "landlock_create_ruleset=EPERM landlock_add_rule=EPERM landlock_restrict_self=EPERM";
    let whole = r#"mkdir -p "$new/run/proc"; mount --rbind /proc "$new/run/proc""#;
    holds(
        "nspawn",
        &imitated(&scratch, marks, &format!("{keyring} {landlock}")),
        Some(&imitated(&scratch, &format!("{marks}\n{whole}"), landlock)),
    );
}

#[test]
fn a_container_of_lxc_is_told_to_be_nesting() {
    let scratch = Scratch::new("lxc");
    let marks = r#"mkdir -p "$new/lxcfs"; mount -t tmpfs lxcfs "$new/lxcfs"; echo >"$new/lxcfs/uptime"
        mount --bind "$new/lxcfs/uptime" "$new/proc/uptime"
        mount --bind /proc/sys "$new/proc/sys"; mount -o remount,bind,ro "$new/proc/sys""#;
    let nesting = r#"mkdir "$new/whole"; mount --rbind /proc "$new/whole""#;
    let changed = imitated(&scratch, &format!("{marks}\n{nesting}"), "");
    holds("lxc", &imitated(&scratch, marks, ""), Some(&changed));
}

#[test]
fn a_changed_root_is_told_to_be_a_pivoted_one() {
    let scratch = Scratch::new("chroot");
    let pivoted = imitated(&scratch, ":", "");
    let changed = |word: &String| {
        word.replace(r#"pivot_root . .; umount -l .; cd /"#, "").replace(r#"exec "$@""#, r#"exec chroot . "$@""#)
    };
    holds("chroot", &pivoted.iter().map(changed).collect::<Vec<_>>(), Some(&pivoted));
}

/// A container of podman's with a small root, and of Docker's kind where that is asked for. `None` where there is no podman.
struct Engine {
    scratch: Scratch,
    run: PathBuf,
}

impl Engine {
    fn new(name: &str) -> Option<Engine> {
        if !is_root() || !installed("podman") {
            println!("SKIPPED: podman is tested as root only: an ordinary user needs sub-ids for it");
            return None;
        }
        let scratch = Scratch::new(name);
        // podman takes no more than 50 bytes for it.
        let run = std::env::temp_dir().join(format!("sp{name}{}", std::process::id()));
        for dir in ["tmp", "proc", "sys", "dev", "etc", "usr", "root", "run"] {
            std::fs::create_dir_all(scratch.0.join("root").join(dir)).unwrap();
        }
        for link in ["bin", "sbin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{link}"), scratch.0.join("root").join(link)).unwrap();
        }
        for file in ["passwd", "group"] {
            std::fs::copy(format!("/etc/{file}"), scratch.0.join("root/etc").join(file)).unwrap();
        }
        Some(Engine { scratch, run })
    }

    /// The program in a container with these options. The engine's runtime knows no hybrid cgroups, so it sees none.
    fn container(&self, options: &[&str]) -> Vec<String> {
        let podman = [
            "sh",
            "-c",
            r#"mount --make-rprivate / && { [ ! -d /sys/fs/cgroup/unified ] ||
            { umount -l /sys/fs/cgroup && mount -t tmpfs -o ro none /sys/fs/cgroup; }; } && exec podman "$@""#,
            "sh",
        ];
        let storage = [self.scratch.0.join("storage"), self.run.clone()].map(|path| path.to_str().unwrap().to_owned());
        let storage = ["--root", &storage[0], "--runroot", &storage[1], "--storage-driver", "vfs"];
        let own = program();
        let show = format!("{}:/inner:ro", own.parent().unwrap().display());
        let root = self.scratch.0.join("root").to_str().unwrap().to_owned();
        let run = [
            "run",
            "--rm",
            "--network",
            "none",
            "--cgroups=disabled",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
            "-v",
            "/usr:/usr:ro",
            "-v",
            &show,
        ];
        let last = ["--rootfs", &root, "/inner/sandcell"];
        words(&[&["unshare", "-m"][..], &podman, &storage, &run, options, &last].concat())
    }

    /// Docker's filter and mark: its masks are podman's.
    fn docker<'a>(&self, options: &[&'a str], profile: &'a str, more: &[&'a str]) -> Vec<String> {
        let seccomp = format!("seccomp={profile}");
        self.container(&[options, &["--security-opt", &seccomp], more].concat())
    }

    fn directory(&self, name: &str, inside: &str) -> String {
        let path = self.scratch.0.join(name);
        std::fs::create_dir_all(&path).unwrap();
        format!("{}:{inside}", path.display())
    }

    fn mark(&self) {
        std::fs::write(self.scratch.0.join("root/.dockerenv"), "").unwrap();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.run);
    }
}

const MOBY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sandbox/tests/data/moby-default-seccomp.json");
const OPEN: [&str; 4] = ["--security-opt", "unmask=ALL", "--user", "1000:1000"];

#[test]
fn podmans_defaults_are_told_the_two_options_that_it_takes() {
    let Some(engine) = Engine::new("podman") else { return };
    let options = ["--security-opt", "seccomp=unconfined", "--security-opt", "unmask=ALL"];
    for user in ["0:0", "1000:1000"] {
        let user = ["--user", user];
        let changed = engine.container(&[&options[..], &user].concat());
        holds("podman", &engine.container(&user), Some(&changed));
        assert!(row("podman")["line"].as_str().unwrap().contains(&options.join(" ")));
        // Neither alone is enough.
        for part in options.chunks(2) {
            let findings = doctor(&engine.container(&[part, &user].concat()));
            assert_eq!(one(&findings, "sandbox")["ok"], false, "{part:?} {findings:?}");
        }
    }
}

#[test]
fn dockers_defaults_are_told_the_options_that_it_takes() {
    let Some(engine) = Engine::new("docker") else { return };
    engine.mark();
    let unchanged = engine.docker(&[], MOBY, &[]);
    holds("docker", &unchanged, Some(&engine.docker(&OPEN, "unconfined", &[])));
}

#[test]
fn container_jobs_and_devcontainers_are_told_their_own_words() {
    let Some(engine) = Engine::new("jobs") else { return };
    engine.mark();
    for (place, mount) in
        [("gitlab", "/builds"), ("actions-container", "/__w"), ("devcontainer", "/workspaces/project")]
    {
        let volume = engine.directory(place, mount);
        let volume = ["-v", &volume];
        // GitLab's runner has no word for the masks: there it takes all that `privileged` is.
        let changed = match place {
            "gitlab" => engine.container(&[&["--privileged", "--user", "1000:1000"][..], &volume].concat()),
            _ => engine.docker(&OPEN, "unconfined", &volume),
        };
        holds(place, &engine.docker(&[], MOBY, &volume), Some(&changed));
    }
}

#[test]
fn a_restricted_pod_is_told_its_yaml() {
    let Some(engine) = Engine::new("pod") else { return };
    let volume = engine.directory("token", "/run/secrets/kubernetes.io/serviceaccount:ro");
    let pod = ["--user", "1000:1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "-v", &volume];
    let unchanged = engine.docker(&pod, MOBY, &[]);
    // hostUsers: false is ids of its own.
    let mapped = ["--security-opt", "unmask=ALL", "--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536"];
    holds("kubernetes", &unchanged, Some(&engine.docker(&pod, "unconfined", &mapped)));
}

#[test]
fn the_table_of_the_documentation_is_the_programs_own() {
    let path = Path::new(HERE).join("../docs/hosts.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- places -->\n", "<!-- end of places -->");
    let (before, rest) = text.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let output = Command::new(program()).args(["doctor", "--places"]).output().unwrap();
    let wanted = format!("{before}{begin}{}{end}{after}", String::from_utf8(output.stdout).unwrap());
    if std::env::var_os("SANDCELL_WRITE_PLACES").is_some() {
        std::fs::write(&path, &wanted).unwrap();
        return;
    }
    assert!(text == wanted, "docs/hosts.md: SANDCELL_WRITE_PLACES=1 cargo test -p sandcell-tests --test places");
}

#[test]
fn every_place_is_tried_by_a_test_of_its_own() {
    let source = include_str!("places.rs");
    let rows = rows();
    assert!(rows.len() >= 16, "{}", rows.len());
    for row in &rows {
        let test = row["test"].as_str().unwrap();
        assert!(source.contains(&format!("#[test]\nfn {test}()")), "{row}");
        let (_, body) = source.split_once(&format!("fn {test}()")).unwrap();
        let body = body.split("\n}\n").next().unwrap();
        assert!(
            body.contains(&format!("{:?}", row["place"].as_str().unwrap())),
            "{test} does not name {}",
            row["place"]
        );
    }
}
