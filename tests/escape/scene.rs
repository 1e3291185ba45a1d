//! The careless caller's side of the stage: files that must not be seen, directories that are handed in, and mounts.
//!
//! As root everything lies on temporary file systems of a mount namespace of our own and ends with the process. An
//! ordinary user gets plain directories, removed at the end, and fewer checks: the probe says which.

use super::launchers::{INSIDE, Launcher, Shared};
use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

/// Who calls the sandbox.
#[derive(Clone, Debug)]
pub struct Caller {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl Caller {
    pub fn current() -> Caller {
        // SAFETY: calls without arguments or effects.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        let name = passwd().into_iter().find(|c| c.uid == uid).map_or_else(|| uid.to_string(), |c| c.name);
        Caller { name, uid, gid }
    }

    /// The ordinary user of the tests; root makes it where it is missing.
    pub fn ordinary() -> io::Result<Caller> {
        const NAME: &str = "sandcell-test";
        let find = || passwd().into_iter().find(|caller| caller.name == NAME);
        if let Some(caller) = find() {
            return Ok(caller);
        }
        let status = std::process::Command::new("useradd").args(["--create-home", NAME]).status()?;
        find().ok_or_else(|| io::Error::other(format!("useradd {NAME}: {status}")))
    }
}

fn passwd() -> Vec<Caller> {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            Some(Caller {
                name: fields.first()?.to_string(),
                uid: fields.get(2)?.parse().ok()?,
                gid: fields.get(3)?.parse().ok()?,
            })
        })
        .collect()
}

/// Groups that only the caller has: one that a file is open to, one that a file is closed to.
pub const EXTRA_GROUPS: [u32; 2] = [61_234, 61_235];

pub struct Scene {
    pub caller: Caller,
    pub secret: String,
    pub place: String,
    /// Made mounts and may change ids.
    pub privileged: bool,
    pub base: PathBuf,
    pub home: PathBuf,
    pub tmp: PathBuf,
    pub run: Option<PathBuf>,
    pub log: PathBuf,
    pub shared: Shared,
    facts: Vec<(String, String)>,
    remove: Vec<PathBuf>,
    /// Held, so that /proc/locks of the host is not empty.
    _lock: fs::File,
}

impl Scene {
    pub fn new(probe: &Path, caller: Caller, secret: &str, place: &str) -> io::Result<Scene> {
        let privileged = Caller::current().uid == 0;
        let (srv, homes, tmps, runs) = if privileged {
            own_mounts(&super::launchers::programs(probe))?;
            (PathBuf::from("/srv"), PathBuf::from("/home"), PathBuf::from("/tmp"), Some(PathBuf::from("/run")))
        } else {
            let home = std::env::home_dir().unwrap_or_else(|| "/tmp".into());
            (home.clone(), home, PathBuf::from("/tmp"), None)
        };
        let base = srv.join(place);
        let home = homes.join(format!("{place}-home"));
        let tmp = tmps.join(place);
        let run = runs.map(|runs| runs.join(place));
        let mut remove = vec![];
        for directory in [Some(&base), Some(&home), Some(&tmp), run.as_ref()].into_iter().flatten() {
            fs::create_dir_all(directory)?;
            mode(directory, 0o755)?;
            remove.push(directory.clone());
        }
        let shared = Shared {
            base: base.clone(),
            bin: base.join("bin"),
            ro: base.join("ro"),
            flagged: privileged.then(|| base.join("flagged")),
            matrix: privileged.then(|| base.join("matrix")),
            rw: base.join("rw"),
        };
        let lock = fs::File::open(std::env::current_exe()?)?;
        // Of the open file and not of a process: those of processes that a reader cannot see are not shown to it.
        let range = libc::flock { l_type: libc::F_RDLCK as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
        nix::fcntl::fcntl(&lock, nix::fcntl::FcntlArg::F_OFD_SETLK(&range)).map_err(std::io::Error::from)?;
        let mut scene = Scene {
            log: base.join("caller.log"),
            caller,
            secret: secret.into(),
            place: place.into(),
            privileged,
            base,
            home,
            tmp,
            run,
            shared,
            facts: vec![],
            remove,
            _lock: lock,
        };
        scene.files(probe)?;
        scene.directories(probe)?;
        scene.layers()?;
        Ok(scene)
    }

    pub fn fact(&mut self, name: &str, value: impl ToString) {
        self.facts.push((name.into(), value.to_string()));
    }

    /// Files outside, which nobody inside may see.
    fn files(&mut self, _probe: &Path) -> io::Result<()> {
        let owner = self.caller.clone();
        let secret = self.secret.clone();
        let host_file = self.base.join("canary");
        let tmp_file = self.tmp.join("canary");
        let home_file = self.home.join("canary");
        let key = self.home.join("id_ed25519");
        let open = self.base.join("open");
        for file in [&host_file, &tmp_file, &home_file, &key] {
            fs::write(file, &secret)?;
            mode(file, 0o644)?;
        }
        mode(&key, 0o600)?;
        fs::create_dir(&open)?;
        mode(&open, 0o777)?;
        fs::write(&self.log, format!("{secret} written before\n"))?;
        mode(&self.log, 0o600)?;
        for path in [&self.home, &home_file, &key, &self.tmp, &tmp_file, &self.log] {
            chown(path, Some(owner.uid), Some(owner.gid))?;
        }
        let root = fs::metadata("/")?;
        let system = ["/usr", "/etc", "/usr/bin", "/usr/lib"].iter().filter_map(|d| fs::metadata(d).ok());
        let system: Vec<String> = system.map(|m| format!("{}.{}", m.dev(), m.ino())).collect();
        self.fact("system_ids", system.join(":"));
        self.fact("root_id", format!("{}:{}", root.dev(), root.ino()));
        self.fact("host_file", host_file.display());
        self.fact("tmp_file", tmp_file.display());
        self.fact("home_file", home_file.display());
        self.fact("private_key", key.display());
        let (home, log) = (self.home.display().to_string(), self.log.display().to_string());
        self.fact("home", home);
        self.fact("cwd_canary", "canary");
        self.fact("log", log);
        self.fact("log_is_file", "yes");
        self.fact("canaries", format!("{}:{}:{}", host_file.display(), tmp_file.display(), home_file.display()));
        let places = format!("{}:{}:{}", open.display(), self.home.display(), self.tmp.display());
        self.fact("write_places", places);
        if let Some(handle) = file_handle(&host_file) {
            self.fact("canary_handle", handle);
        }
        Ok(())
    }

    /// Directories that are handed in.
    fn directories(&mut self, probe: &Path) -> io::Result<()> {
        let shared = &self.shared;
        for directory in [Some(&shared.bin), Some(&shared.ro), shared.flagged.as_ref(), Some(&shared.rw)] {
            let Some(directory) = directory else { continue };
            fs::create_dir(directory)?;
        }
        fs::copy(probe, shared.bin.join("escape-probe"))?;
        mode(&shared.bin.join("escape-probe"), 0o755)?;
        let ro = shared.ro.clone();
        if self.privileged {
            // A mount, so that its flags can be changed where nothing forbids it.
            mount("tmpfs", &ro, "tmpfs", 0)?;
        }
        // Everybody may write there as far as modes go: what refuses must be the mount.
        for directory in [&shared.bin, &shared.ro, &shared.rw] {
            mode(directory, 0o777)?;
        }
        fs::write(ro.join("open-to-all"), "")?;
        mode(&ro.join("open-to-all"), 0o666)?;
        fs::write(ro.join("locked"), "")?;
        mode(&ro.join("locked"), 0o666)?;
        fs::write(ro.join("mode-000"), "")?;
        mode(&ro.join("mode-000"), 0)?;
        if !self.privileged {
            return Ok(());
        }
        let sub = ro.join("sub");
        fs::create_dir(&sub)?;
        mount("tmpfs", &sub, "tmpfs", 0)?;
        mode(&sub, 0o777)?;
        if let Some(flagged) = &shared.flagged {
            mount("tmpfs", flagged, "tmpfs", libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC)?;
            mode(flagged, 0o777)?;
            fs::copy(probe, flagged.join("escape-probe"))?;
        }
        if let Some(matrix) = &shared.matrix {
            mounts_of_all_flags(matrix)?;
        }
        // Set-id programs of an id that nobody has: what they would give is harmless.
        for (name, bits) in [("suid", 0o4755), ("sgid", 0o2755), ("filecap", 0o755)] {
            let path = ro.join(name);
            fs::copy(probe, &path)?;
            chown(&path, Some(61_236), Some(61_236))?;
            mode(&path, bits)?;
        }
        file_capability(&ro.join("filecap"))?;
        for (name, group, bits) in [("group", EXTRA_GROUPS[0], 0o640), ("negative-group", EXTRA_GROUPS[1], 0o604)] {
            let path = ro.join(name);
            fs::write(&path, "for the group")?;
            chown(&path, Some(61_236), Some(group))?;
            mode(&path, bits)?;
        }
        Ok(())
    }

    /// Layers whose contents point out of them, as a hostile image's do: at a directory that anybody may write.
    fn layers(&self) -> io::Result<()> {
        let outside = self.base.join("open");
        let layers = self.base.join("layers");
        // What is kept has to belong to the caller.
        let upper = self.base.join("upper");
        fs::create_dir(&upper)?;
        chown(&upper, Some(self.caller.uid), Some(self.caller.gid))?;
        for name in ["plain", "dev", "proc", "tmp", "etc", "etc-files", "fifo", "escape", "proc-file"] {
            let layer = layers.join(name);
            fs::create_dir_all(&layer)?;
            let etc = layer.join("etc");
            match name {
                "plain" => {}
                "proc-file" => fs::write(layer.join("proc"), "")?,
                "etc-files" | "fifo" => {
                    fs::create_dir(&etc)?;
                    for file in ["passwd", "group", "hosts", "hostname", "resolv.conf"] {
                        if name == "fifo" {
                            let path = c(&etc.join(file).to_string_lossy())?;
                            // SAFETY: a live string and a number.
                            check(unsafe { libc::mkfifo(path.as_ptr(), 0o666) })?;
                        } else {
                            symlink(self.base.join("canary"), etc.join(file))?;
                        }
                    }
                }
                link => symlink(&outside, layer.join(link))?,
            }
        }
        symlink(&outside, self.shared.rw.join("left-behind"))
    }

    /// Writes what the probe is told. Paths of handed-in directories are those of the inside.
    pub fn write_facts(&mut self, launcher: &Launcher) -> io::Result<PathBuf> {
        let inside = |path: &Path| -> String {
            let tail = path.strip_prefix(&self.base).unwrap_or(path);
            if launcher.in_place { path.display().to_string() } else { format!("{INSIDE}/{}", tail.display()) }
        };
        let ro = inside(&self.shared.ro);
        let mut lines = vec![
            ("secret".to_string(), self.secret.clone()),
            ("place".into(), self.place.clone()),
            ("caller_argument".into(), format!("--place={}", self.place)),
            ("user".into(), self.caller.name.clone()),
            ("bin".into(), inside(&self.shared.bin)),
            ("ro".into(), ro.clone()),
            ("rw".into(), inside(&self.shared.rw)),
            ("mode_000".into(), format!("{ro}/mode-000")),
            ("locked_file".into(), format!("{ro}/locked")),
            ("handle_anchor".into(), inside(&self.shared.bin)),
            ("boot_id".into(), fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().into()),
            ("machine_id".into(), fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().into()),
            ("hostname".into(), fs::read_to_string("/proc/sys/kernel/hostname")?.trim().into()),
        ];
        if self.privileged {
            let flagged = self.base.join("flagged");
            let second = if launcher.in_place { flagged.clone() } else { self.base.join("flagged_rw") };
            lines.push(("matrix".into(), inside(&self.base.join("matrix"))));
            if !launcher.in_place {
                lines.push(("matrix_rw".into(), inside(&self.base.join("matrix_rw"))));
            }
            lines.extend([
                ("ro_sub".into(), format!("{ro}/sub")),
                ("flagged".into(), inside(&flagged)),
                ("flagged_rw".into(), inside(&second)),
                ("suid".into(), format!("{ro}/suid")),
                ("sgid".into(), format!("{ro}/sgid")),
                ("filecap".into(), format!("{ro}/filecap")),
                ("groups".into(), format!("{}:{}", EXTRA_GROUPS[0], EXTRA_GROUPS[1])),
                ("group_file".into(), format!("{ro}/group")),
                ("negative_group_file".into(), format!("{ro}/negative-group")),
            ]);
        }
        for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
            let link = fs::read_link(format!("/proc/self/ns/{kind}"))?;
            lines.push((format!("ns.{kind}"), link.to_string_lossy().into_owned()));
        }
        let yes = [("pids_limit", launcher.pids_limit), ("control", launcher.control)];
        lines.extend(yes.iter().filter(|(_, is)| *is).map(|(name, _)| ((*name).into(), "yes".into())));
        if launcher.no_namespaces {
            lines.push(("supervisor".into(), "parent".into()));
        }
        if launcher.name == "none" {
            lines.push(("supervisor".into(), std::process::id().to_string()));
        }
        lines.append(&mut self.facts);
        let text: String = lines.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let path = self.shared.bin.join("facts");
        fs::write(&path, text)?;
        mode(&path, 0o644)?;
        Ok(path)
    }
}

/// A mount for each set of flags.
fn mounts_of_all_flags(matrix: &Path) -> io::Result<()> {
    const FLAGS: [libc::c_ulong; 5] =
        [libc::MS_RDONLY, libc::MS_NOSUID, libc::MS_NODEV, libc::MS_NOEXEC, libc::MS_NOATIME];
    fs::create_dir(matrix)?;
    // As all that is writable: what only the caller may change would have the caller's id used.
    mode(matrix, 0o777)?;
    // The number says which: the probe counts in the same way.
    for set in 0..1 << FLAGS.len() {
        let directory = matrix.join(set.to_string());
        fs::create_dir(&directory)?;
        mount("tmpfs", &directory, "tmpfs", 0)?;
        mode(&directory, 0o777)?;
        let flags = FLAGS.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, flag)| flag).sum::<u64>();
        mount("none", &directory, "none", libc::MS_REMOUNT | libc::MS_BIND | flags)?;
    }
    Ok(())
}

impl Drop for Scene {
    fn drop(&mut self) {
        for directory in self.remove.drain(..) {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// A mount namespace with temporary directories over the ones that the scene uses. Its mounts are shared among
/// themselves, as systemd leaves them on most hosts: a sandbox that does not cut itself off changes them. Programs that
/// are covered by them, because the checkout lies there, are copied to where they were.
fn own_mounts(programs: &[PathBuf]) -> io::Result<()> {
    // SAFETY: a call without memory; this process has one thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    propagate(libc::MS_PRIVATE)?;
    for directory in ["/srv", "/home", "/tmp"] {
        let covered = programs.iter().filter(|path| path.starts_with(directory) && path.exists());
        let kept = covered.map(|path| Ok((path, fs::read(path)?))).collect::<io::Result<Vec<_>>>()?;
        fs::create_dir_all(directory)?;
        mount("tmpfs", Path::new(directory), "tmpfs", 0)?;
        for (path, content) in kept {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            fs::write(path, content)?;
            mode(path, 0o755)?;
        }
    }
    mode(Path::new("/tmp"), 0o1777)?;
    propagate(libc::MS_SHARED)
}

fn propagate(kind: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the path is a literal; the other pointers may be null here.
    check(unsafe {
        libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), kind | libc::MS_REC, std::ptr::null())
    })
}

fn mount(source: &str, target: &Path, kind: &str, flags: libc::c_ulong) -> io::Result<()> {
    let (source, target, kind) = (c(source)?, c(&target.to_string_lossy())?, c(kind)?);
    // SAFETY: three live strings and no data.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) })
}

/// cap_net_raw, permitted and effective, as `setcap` writes it (version 2).
fn file_capability(path: &Path) -> io::Result<()> {
    const VERSION_2_EFFECTIVE: u32 = 0x0200_0001;
    const NET_RAW: u32 = 1 << 13;
    let value: Vec<u8> = [VERSION_2_EFFECTIVE, NET_RAW, 0, 0, 0].iter().flat_map(|w| w.to_le_bytes()).collect();
    let path = c(&path.to_string_lossy())?;
    // SAFETY: live strings and a buffer of the length given.
    check(unsafe {
        libc::setxattr(path.as_ptr(), c"security.capability".as_ptr(), value.as_ptr().cast(), value.len(), 0)
    })
}

/// The kernel's handle of a file, one number a byte.
fn file_handle(path: &Path) -> Option<String> {
    let mut handle = [0u8; 136];
    handle[0] = 128;
    let mut mount = 0;
    let path = c(&path.to_string_lossy()).ok()?;
    // SAFETY: the handle begins with its capacity, as the call wants it; all pointers are live.
    let made = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            handle.as_mut_ptr(),
            &raw mut mount,
            0,
        )
    };
    let used = 8 + usize::from(handle[0]);
    (made == 0).then(|| handle[..used].iter().map(u8::to_string).collect::<Vec<_>>().join("."))
}

pub fn mode(path: &Path, bits: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(bits))
}

pub fn c(text: &str) -> io::Result<CString> {
    Ok(CString::new(text)?)
}

pub fn check(answer: libc::c_int) -> io::Result<()> {
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
