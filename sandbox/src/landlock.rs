//! Landlock, the second wall behind the namespaces: landlock(7).
//!
//! The parent computes what is wanted as plain numbers, [`plan`]; init makes the ruleset of it inside, where the paths
//! are those that the program sees. Whatever the kernel's ABI cannot do is a line of the report with the reason.

use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope, make_bitflags,
};

use crate::policy::Network;
use crate::report::{Enforced, Mechanism, Requested};

/// What a program may do with a file, or with everything beneath a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Only see which names there are, in it and beneath.
    List,
    /// Look at it and execute it.
    Read,
    /// Everything, except commands to devices.
    Write,
    /// Read it, and give it commands: a device that is not to be written to.
    Commands,
    /// What `Write` gives, and commands to devices (ioctl(2)): for /dev.
    Devices,
}

impl Access {
    /// `allowed_access` in this ABI.
    pub(crate) fn rights(self, abi: ABI) -> u64 {
        let all = AccessFs::from_all(abi);
        let rights = match self {
            Access::List => AccessFs::ReadDir.into(),
            Access::Read => AccessFs::from_read(abi),
            Access::Write => all & !make_bitflags!(AccessFs::{IoctlDev | MakeChar | MakeBlock}),
            Access::Commands => all & make_bitflags!(AccessFs::{ReadFile | IoctlDev}),
            Access::Devices => all,
        };
        rights.bits()
    }
}

/// What a sandbox is to be able to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Absolute paths and what may be done beneath them; everything else cannot even be read.
    pub paths: Vec<(PathBuf, Access)>,
    pub network: Network,
    /// Whether programs may mount (CAP_SYS_ADMIN, nested namespaces): Landlock forbids that to whom it restricts files.
    pub mounts: bool,
}

/// What the kernel is to be told, in the numbers of `linux/landlock.h`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LandlockPlan {
    /// `handled_access_fs`; 0 if files are not restricted.
    pub handled_fs: u64,
    /// `handled_access_net`, supported since ABI 4; no rule allows anything of it.
    pub handled_net: u64,
    /// `scoped`, supported since ABI 6.
    pub scoped: u64,
    /// `LANDLOCK_RULE_PATH_BENEATH`: path and `allowed_access`.
    pub rules: Vec<(PathBuf, u64)>,
    /// The rights that make sense for a path that is no directory: others are EINVAL there.
    pub file_rights: u64,
    /// What is enforced, and what this kernel cannot enforce.
    pub report: Vec<Enforced>,
}

impl LandlockPlan {
    /// Whether there is nothing that the kernel could be told.
    pub fn is_empty(&self) -> bool {
        self.handled_fs | self.handled_net | self.scoped == 0
    }
}

/// What of the wishes this ABI can enforce.
pub(crate) fn plan(wanted: &Wanted, abi: ABI) -> LandlockPlan {
    let mut plan = LandlockPlan {
        handled_fs: 0,
        handled_net: 0,
        scoped: 0,
        rules: Vec::new(),
        file_rights: AccessFs::from_file(abi).bits(),
        report: Vec::new(),
    };
    plan.files(wanted, abi);
    if wanted.network.reaches_nothing() {
        plan.handled_net = AccessNet::from_all(abi).bits();
        plan.note("TCP ports", plan.handled_net != 0, "needs ABI 4, Linux 6.7");
        plan.note("UDP ports", abi >= ABI::V10, "needs ABI 10, Linux 7.2");
    }
    let scopes = Scope::from_all(abi);
    if scopes.contains(Scope::Signal) {
        plan.scoped |= Scope::Signal as u64;
    }
    plan.note("signals", scopes.contains(Scope::Signal), "needs ABI 6, Linux 6.12");
    // The host's network is promised with its abstract sockets.
    if wanted.network.has_own_namespace() {
        if scopes.contains(Scope::AbstractUnixSocket) {
            plan.scoped |= Scope::AbstractUnixSocket as u64;
        }
        plan.note("abstract sockets", scopes.contains(Scope::AbstractUnixSocket), "needs ABI 6, Linux 6.12");
    }
    plan
}

impl LandlockPlan {
    fn files(&mut self, wanted: &Wanted, abi: ABI) {
        if wanted.mounts {
            return self.note("files", false, "programs that may mount cannot be restricted so");
        }
        // ABI 1 forbids every rename and link between directories, which breaks ordinary programs.
        if abi < ABI::V2 {
            return self.note("files", false, "needs ABI 2, Linux 5.19");
        }
        // Connecting to a socket in the file system is left to the permissions of the socket.
        let all = AccessFs::from_all(abi) & !AccessFs::ResolveUnix;
        self.handled_fs = all.bits();
        for (path, access) in &wanted.paths {
            self.rules.push((path.clone(), access.rights(abi) & all.bits()));
        }
        self.note("files", true, "");
        self.note("truncate", abi >= ABI::V3, "truncate(2) of read-only files: needs ABI 3, Linux 6.2");
        self.note("device commands", abi >= ABI::V5, "ioctl(2) on devices: needs ABI 5, Linux 6.10");
    }

    fn note(&mut self, what: &str, enforced: bool, why: &str) {
        let by = if enforced { Mechanism::Landlock } else { Mechanism::Nothing };
        let line = Enforced::new("landlock", Requested::Word(what.to_owned()), by);
        self.report.push(if enforced { line } else { line.why(why) });
    }
}

/// The ABI of the running kernel, as far as it brings rights that [`plan`] knows (7 and 8 bring none).
pub(crate) fn running_abi() -> ABI {
    let fs = |right: AccessFs| strict().handle_access(right).is_ok();
    let net = |right: AccessNet| strict().handle_access(right).is_ok();
    match () {
        _ if net(AccessNet::BindUdp) => ABI::V10,
        _ if fs(AccessFs::ResolveUnix) => ABI::V9,
        _ if strict().scope(Scope::Signal).is_ok() => ABI::V6,
        _ if fs(AccessFs::IoctlDev) => ABI::V5,
        _ if net(AccessNet::BindTcp) => ABI::V4,
        _ if fs(AccessFs::Truncate) => ABI::V3,
        _ if fs(AccessFs::Refer) => ABI::V2,
        _ if fs(AccessFs::Execute) => ABI::V1,
        _ => ABI::Unsupported,
    }
}

/// A ruleset that refuses what the kernel does not know instead of leaving it out.
fn strict() -> Ruleset {
    Ruleset::default().set_compatibility(CompatLevel::HardRequirement)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use landlock::{BitFlags, PathBeneath, PathFd, RulesetCreatedAttr};

    use super::*;

    fn wanted(network: Network) -> Wanted {
        let path = |p: &str, access| (PathBuf::from(p), access);
        let paths = vec![path("/", Access::Read), path("/tmp", Access::Write), path("/dev", Access::Devices)];
        Wanted { paths, network, mounts: false }
    }

    fn unenforced(plan: &LandlockPlan) -> Vec<String> {
        let word = |e: &Enforced| match &e.requested {
            Requested::Word(word) => word.clone(),
            other => panic!("{other:?}"),
        };
        let nothing = plan.report.iter().filter(|e| e.by == Mechanism::Nothing);
        nothing.inspect(|e| assert!(e.why.is_some())).map(word).collect()
    }

    #[test]
    fn every_abi_does_what_it_can_and_reports_the_rest() {
        let (files, net, scope) = (["files"], ["TCP ports"], ["signals", "abstract sockets"]);
        let expected: [(i32, u64, u64, u64, Vec<&str>); 8] = [
            (0, 0, 0, 0, [&files[..], &net, &["UDP ports"], &scope].concat()),
            (1, 0, 0, 0, [&files[..], &net, &["UDP ports"], &scope].concat()),
            (2, 0x3fff, 0, 0, [&["truncate", "device commands"][..], &net, &["UDP ports"], &scope].concat()),
            (3, 0x7fff, 0, 0, [&["device commands"][..], &net, &["UDP ports"], &scope].concat()),
            (4, 0x7fff, 3, 0, [&["device commands"][..], &["UDP ports"], &scope].concat()),
            (5, 0xffff, 3, 0, [&["UDP ports"][..], &scope].concat()),
            (6, 0xffff, 3, 3, vec!["UDP ports"]),
            (7, 0xffff, 3, 3, vec!["UDP ports"]),
        ];
        for (abi, fs, net, scoped, missing) in expected {
            let plan = plan(&wanted(Network::None), ABI::from(abi));
            assert_eq!((plan.handled_fs, plan.handled_net, plan.scoped), (fs, net, scoped), "ABI {abi}");
            assert_eq!(unenforced(&plan), missing, "ABI {abi}");
            assert_eq!(plan.is_empty(), abi < 2, "ABI {abi}");
            assert!(plan.rules.iter().all(|(_, rights)| rights & !fs == 0), "a right that is not handled is EINVAL");
        }
        assert_eq!(plan(&wanted(Network::None), ABI::V10).handled_net, 15);
        assert!(unenforced(&plan(&wanted(Network::None), ABI::V10)).is_empty());
    }

    #[test]
    fn reading_is_not_writing_and_writing_makes_no_devices() {
        let plan = plan(&wanted(Network::Loopback), ABI::V5);
        let rights = |i: usize| BitFlags::<AccessFs>::from_bits(plan.rules[i].1).unwrap();
        assert_eq!(rights(0), make_bitflags!(AccessFs::{Execute | ReadFile | ReadDir}));
        assert!(rights(1).contains(make_bitflags!(AccessFs::{WriteFile | Truncate | Refer | MakeReg})));
        assert!(!rights(1).intersects(make_bitflags!(AccessFs::{MakeBlock | MakeChar | IoctlDev})));
        assert!(rights(2).contains(AccessFs::IoctlDev));
    }

    #[test]
    fn ports_are_shut_only_without_a_network_and_abstract_sockets_only_without_the_hosts() {
        for (network, net, scoped) in [(Network::None, 3, 3), (Network::Loopback, 0, 3), (Network::Host, 0, 2)] {
            let plan = plan(&wanted(network), ABI::V6);
            assert_eq!((plan.handled_net, plan.scoped), (net, scoped), "{network:?}");
        }
    }

    #[test]
    fn who_may_mount_is_not_restricted_in_files_and_the_report_says_so() {
        let plan = plan(&Wanted { mounts: true, ..wanted(Network::None) }, ABI::V6);
        assert_eq!((plan.handled_fs, plan.rules.len()), (0, 0));
        assert!(unenforced(&plan).contains(&"files".to_owned()));
        assert_eq!(plan.scoped, 3);
    }

    #[test]
    fn a_plan_holds_on_the_running_kernel() {
        let abi = running_abi();
        let directory = std::env::temp_dir().join(format!("sandcell-landlock-{}", std::process::id()));
        let (open, shut) = (directory.join("open"), directory.join("shut"));
        std::fs::create_dir_all(&open).unwrap();
        std::fs::create_dir_all(&shut).unwrap();
        let paths = vec![(PathBuf::from("/"), Access::Read), (open.clone(), Access::Write)];
        let plan = plan(&Wanted { paths, network: Network::None, mounts: false }, abi);
        if plan.handled_fs == 0 {
            eprintln!("SKIPPED: this kernel's Landlock is too old for files");
            return;
        }
        let write = |d: &Path| std::fs::write(d.join("f"), "x").map_err(|e| e.raw_os_error());
        let (before, after) = std::thread::scope(|scope| {
            // A thread, because the restriction lasts as long as its task.
            let restricted = scope.spawn(|| {
                let before = (write(&open), write(&shut));
                let made = strict()
                    .handle_access(BitFlags::<AccessFs>::from_bits_truncate(plan.handled_fs))
                    .and_then(Ruleset::create);
                let rules = plan.rules.iter().map(|(path, rights)| {
                    let rights = BitFlags::<AccessFs>::from_bits_truncate(*rights);
                    Ok::<_, landlock::RulesetError>(PathBeneath::new(PathFd::new(path).unwrap(), rights))
                });
                made.and_then(|r| r.add_rules(rules)).and_then(|r| r.restrict_self()).unwrap();
                (before, (write(&open), write(&shut)))
            });
            restricted.join().unwrap()
        });
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(before, (Ok(()), Ok(())));
        assert_eq!(after, (Ok(()), Err(Some(libc::EACCES))));
    }
}
