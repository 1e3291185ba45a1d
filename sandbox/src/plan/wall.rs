//! Landlock's part of the Plan: what may be read and written inside, as a second wall behind the mounts.

use std::path::Path;

use super::{Steps, path_string};
use crate::error::Result;
use landlock::ABI;

use crate::landlock::{Access, LandlockPlan, Wanted, plan};
use crate::outcome::Enforced;
use crate::policy::{Isolation, Landlock, Mount, Policy, Root, Seccomp};
use crate::wire::Step;

/// The lines of the report: what is enforced, and what this kernel cannot.
pub(crate) fn report(policy: &Policy, abi: ABI) -> Vec<Enforced> {
    if policy.landlock == Landlock::Off { Vec::new() } else { numbers(policy, Path::new("/home"), abi).report }
}

pub(super) fn compile(policy: &Policy, home: &Path, abi: ABI, steps: &mut Steps) -> Result<()> {
    if policy.landlock == Landlock::Off {
        return Ok(());
    }
    let plan = numbers(policy, home, abi);
    if plan.is_empty() {
        return Ok(());
    }
    rules(&plan, steps)?;
    steps.push(Step::LandlockEnter {});
    Ok(())
}

/// The tier without namespaces: of the host's paths, and not for the supervisor.
pub(super) fn for_each_program(policy: &Policy, abi: ABI, steps: &mut Steps) -> Result<()> {
    let plan = numbers(policy, Path::new("/"), abi);
    rules(&plan, steps)?;
    steps.push(Step::LandlockEach {});
    Ok(())
}

fn rules(plan: &LandlockPlan, steps: &mut Steps) -> Result<()> {
    steps.push(Step::LandlockRules { files: plan.handled_fs, network: plan.handled_net, scoped: plan.scoped });
    for (path, access) in &plan.rules {
        steps.push(Step::LandlockPath { path: &path_string(path)?, access: *access, file_rights: plan.file_rights });
    }
    Ok(())
}

fn numbers(policy: &Policy, home: &Path, abi: ABI) -> LandlockPlan {
    if policy.isolation == Isolation::Landlock {
        let paths = crate::isolation::paths(policy);
        return plan(&Wanted { paths, network: policy.network, mounts: false }, abi);
    }
    let root = if matches!(policy.root, Root::Layers(_)) { Access::Write } else { Access::Read };
    let mut paths = vec![("/".into(), root), ("/dev".into(), Access::Devices), (home.to_owned(), Access::Write)];
    paths.extend(["/proc", "/tmp", "/var/tmp", "/run"].map(|path| (path.into(), Access::Write)));
    for mount in &policy.mounts {
        match mount {
            Mount::Bind { dest, writable: true, .. } => paths.push((dest.clone(), Access::Devices)),
            Mount::Tmpfs { dest, .. } => paths.push((dest.clone(), Access::Write)),
            Mount::Bind { .. } | Mount::File { .. } => {}
        }
    }
    // Landlock forbids every mount to whom it restricts files: not to those who asked for the means to mount.
    let mounts = !policy.cap_add.is_empty() || policy.seccomp != Seccomp::Default;
    plan(&Wanted { paths, network: policy.network, mounts }, abi)
}
