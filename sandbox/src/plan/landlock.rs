//! Landlock's part of the Plan: what may be read and written inside, as a second wall behind the mounts.

use std::path::Path;

use super::{Inputs, Steps, isolation, path_string};
use crate::error::Result;
use landlock::ABI;

use crate::landlock::{Access, LandlockPlan, Wanted, plan};
use crate::policy::{Allow, Mount, Policy};
use crate::report::Enforced;
use crate::resolve::{Resolved, host_view};
use crate::wire::Step;

/// The lines of the report: what is enforced, and what this kernel cannot.
pub(crate) fn report(resolved: &Resolved, abi: ABI) -> Vec<Enforced> {
    if !resolved.policy.landlock.is_on() {
        return Vec::new();
    }
    numbers(resolved, Path::new("/home"), abi).report
}

pub(super) fn compile(inputs: &Inputs<'_>, home: &Path, steps: &mut Steps) -> Result<()> {
    let (resolved, abi) = (inputs.resolved, inputs.landlock);
    if !resolved.policy.landlock.is_on() {
        return Ok(());
    }
    let plan = numbers(resolved, home, abi);
    if plan.is_empty() {
        return Ok(());
    }
    rules(&plan, steps)?;
    if names_mqueue(inputs) {
        steps.push(Step::LandlockMqueue { access: Access::Write.rights(abi) & plan.handled_fs });
    }
    steps.push(Step::LandlockEnter {});
    Ok(())
}

/// Whether POSIX message queues need a rule: they are files of a file system that no path leads to.
pub(super) fn names_mqueue(inputs: &Inputs<'_>) -> bool {
    let resolved = inputs.resolved;
    let restricted = || numbers(resolved, Path::new("/"), inputs.landlock).handled_fs != 0;
    inputs.host.mqueue && resolved.policy.landlock.is_on() && restricted()
}

/// The tier without namespaces: of the host's paths, and not for the supervisor.
pub(super) fn for_each_program(resolved: &Resolved, abi: ABI, steps: &mut Steps) -> Result<()> {
    let plan = numbers(resolved, Path::new("/"), abi);
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

fn numbers(resolved: &Resolved, home: &Path, abi: ABI) -> LandlockPlan {
    let (policy, files) = (&resolved.policy, &resolved.files);
    if !policy.isolation.has_namespaces() {
        let paths = isolation::paths(policy, &files.mounts);
        return plan(&Wanted { paths, network: policy.network_in_effect(), mounts: false }, abi);
    }
    let root = if files.layers().is_some() { Access::Write } else { Access::Read };
    let mut paths = vec![("/".into(), root), (home.to_owned(), Access::Write)];
    if keeps_read_only(resolved) {
        let own = host_view::DEVICES.into_iter().filter(|path| Path::new(path).exists());
        paths.extend(own.chain(["/dev/pts", "/dev/shm"]).map(|path| (path.into(), Access::Devices)));
    } else {
        paths.push(("/dev".into(), Access::Devices));
    }
    paths.extend(["/proc", "/tmp", "/var/tmp", "/run"].map(|path| (path.into(), Access::Write)));
    for mount in &files.mounts {
        match mount {
            Mount::Bind { dest, writable: true, .. } => paths.push((dest.clone(), Access::Devices)),
            Mount::Tmpfs { dest, .. } => paths.push((dest.clone(), Access::Write)),
            Mount::Device { dest, writable, .. } => {
                paths.push((dest.clone(), if *writable { Access::Devices } else { Access::Commands }));
            }
            Mount::Bind { .. } | Mount::File { .. } | Mount::Socket { .. } => {}
        }
    }
    let mounts = may_mount(policy);
    plan(&Wanted { paths, network: policy.network_in_effect(), mounts }, abi)
}

/// Landlock forbids every mount to whom it restricts files: not to those who asked for the means to mount.
fn may_mount(policy: &Policy) -> bool {
    !policy.cap_add.is_empty() || !policy.seccomp.is_built_in() || policy.allows(Allow::Nested)
}

/// There is a device that is not to be written to: then there is no rule for all of /dev.
fn keeps_read_only(resolved: &Resolved) -> bool {
    resolved.files.mounts.iter().any(|mount| matches!(mount, Mount::Device { writable: false, .. }))
}

/// Why a device can be opened for writing in spite of `ro`. A read-only mount keeps nobody from that.
pub(crate) fn why_writable(resolved: &Resolved, abi: ABI) -> Option<&'static str> {
    let policy = &resolved.policy;
    match () {
        () if !policy.landlock.is_on() => Some("Landlock is off"),
        () if may_mount(policy) => Some("programs that may mount cannot be restricted so"),
        () if abi < ABI::V2 => Some("needs Landlock with ABI 2, Linux 5.19"),
        () if resolved.files.layers().is_some() => Some("Landlock allows to write everywhere in an overlay"),
        () => None,
    }
}
