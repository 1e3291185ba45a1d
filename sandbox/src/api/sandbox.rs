//! A checked policy, ready to run programs.

#[cfg(feature = "image")]
use std::ffi::OsStr;
use std::sync::{Arc, OnceLock};

use crate::api::shared::{Shared, own_rlimits};
use crate::cgroup;
#[cfg(feature = "image")]
use crate::error::Failure;
use crate::error::Result;
use crate::launch::InitBinary;
use crate::overlay::upper::{DiskUpper, check_owners};
use crate::plan::{self, Filter};
use crate::policy::builder::Builder;
use crate::policy::check::check;
use crate::policy::{Policy, Seccomp, User};
use crate::report::PlannedStep;
use crate::report::trace::Trace;
use crate::resolve::Resolved;
use crate::sys;

/// A policy that has been checked, ready to run programs: cheap to clone, usable from any thread.
///
/// ```
/// let sandbox = sandcell::Sandbox::builder().build()?;
/// assert!(sandbox.command("true").status()?.success());
/// assert!(!sandbox.command("false").status()?.success()); // in another one
/// # Ok::<(), sandcell::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sandbox {
    pub(crate) shared: Arc<Shared>,
}

impl Builder {
    /// Checks everything and prepares what all runs share.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for what makes no sense, [`Error::Unsupported`](crate::Error::Unsupported)
    /// for what this host cannot enforce.
    pub fn build(self) -> Result<Sandbox> {
        let mut clock = self.trace.clock();
        check(&self.policy)?;
        cgroup::check(&self.policy.limits)?;
        clock.lap("check");
        let user_given = self.user_given || self.policy.init;
        let resolved = Resolved::new(self.policy.with_implied(), user_given)?;
        clock.lap("resolve");
        let sandbox = Sandbox::prepare(resolved, self.trace.clone())?;
        clock.lap("prepare");
        Ok(sandbox)
    }
}

impl Sandbox {
    /// Everything has a default; see [`Builder`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn prepare(resolved: Resolved, trace: Trace) -> Result<Sandbox> {
        let _held = sys::HeldFileSizeSignal::new();
        let policy = &resolved.policy;
        check_owners(&resolved.files, &policy.identity)?;
        let filter = match &policy.seccomp {
            Seccomp::Off => None,
            Seccomp::Default
                if policy.isolation.has_namespaces() && policy.cap_add.is_empty() && policy.has_built_in_filter() =>
            {
                Some(Filter::of_default())
            }
            Seccomp::Default | Seccomp::Profile(_) => Some(Filter::new(&plan::profile(policy), &policy.cap_add)?),
        };
        plan::require_read_only_devices(&resolved)?;
        #[cfg(feature = "landlock")]
        if !policy.isolation.has_namespaces() {
            crate::plan::isolation::check_kernel(policy, crate::landlock::running_abi())?;
        }
        #[cfg(feature = "landlock")]
        if policy.landlock.must_hold() {
            plan::require_landlock(&resolved)?;
        }
        let with_relay = policy.network_in_effect().has_relay();
        Ok(Sandbox {
            shared: Arc::new(Shared {
                resolved,
                trace,
                image: Some(InitBinary::new(with_relay)?),
                limits: OnceLock::new(),
                host: OnceLock::new(),
                filter,
                #[cfg(feature = "landlock")]
                landlock: crate::landlock::running_abi(),
                rlimits: own_rlimits(),
                stuck: Arc::default(),
            }),
        })
    }

    /// The policy that it was built from.
    pub fn policy(&self) -> &Policy {
        self.shared.policy()
    }

    /// Who its programs are: as it was asked for, or as the image says.
    pub fn user(&self) -> User {
        self.shared.resolved.user
    }

    /// The image that is the root, where it is one. It stays in the store as long as this sandbox lives.
    #[cfg(feature = "image")]
    pub fn image(&self) -> Option<&crate::images::Image> {
        self.shared.resolved.kept.image()
    }

    /// The program of [`Sandbox::image_command`] and its arguments, at least one word.
    ///
    /// # Errors
    /// As there.
    #[cfg(feature = "image")]
    pub fn image_argv(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Vec<std::ffi::OsString>> {
        let words: Vec<_> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        let config = self.image().map(|image| image.config.run()).unwrap_or_default();
        let own = if words.is_empty() { config.cmd.unwrap_or_default() } else { Vec::new() };
        let entrypoint = config.entrypoint.unwrap_or_default();
        let argv: Vec<std::ffi::OsString> = entrypoint.into_iter().chain(own).map(Into::into).chain(words).collect();
        if argv.is_empty() {
            let failure = Failure::new("option", "program", "the image names no program");
            return Err(failure.hint("name one yourself").config());
        }
        Ok(argv)
    }

    /// Does ahead of the first run what takes some milliseconds: newuidmap(1) and newgidmap(1), where sub-ids are used.
    pub fn prepare_ids(&self) -> Result<()> {
        let _held = sys::HeldFileSizeSignal::new();
        self.shared.resolved.ids.prepare()
    }

    /// The steps that a run would take. Nothing is run.
    pub fn explain(&self) -> Result<Vec<PlannedStep>> {
        // Refused where nobody can hold the limits, as a run would be.
        self.shared.limits()?;
        let upper = DiskUpper::of(
            &self.shared.resolved.files,
            self.shared.policy(),
            self.shared.host_files()?.upper_in_memory,
        )?;
        let identity = self.shared.identity()?;
        let (plan, _) = self.shared.plan(&identity, None, upper.as_ref(), false, false)?;
        let steps = plan.steps().map(|step| {
            let (subject, words) = plan::describe(&step);
            PlannedStep { name: plan::name_of(&step), subject, words }
        });
        Ok(steps.chain(plan::relay::explain(self.shared.policy(), &self.shared.resolved.published)).collect())
    }
}
