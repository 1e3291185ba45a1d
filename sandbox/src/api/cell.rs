//! A started sandbox in which many programs can be run.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::api::child::identity_report;
use crate::api::sandbox::Sandbox;
use crate::api::shared::Shared;
use crate::error::{Failure, Result};
use crate::overlay::changes;
use crate::plan::Plan;
use crate::policy::Limits;
use crate::report::{Change, Enforced, IdentityReport, NetworkReport, Published, Usage};
use crate::supervise::controller::another_pidfd;
use crate::supervise::init::Init;
use crate::wire::keeper::ask;

/// A started sandbox in which many programs can be run. Clones share it; it ends with the last one.
///
/// ```
/// let cell = sandcell::Sandbox::builder().build()?.start()?;
/// cell.command("touch").arg("/tmp/kept").status()?;
/// assert!(cell.command("test").args(["-e", "/tmp/kept"]).status()?.success());
/// cell.kill();
/// # Ok::<(), sandcell::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Cell {
    inside: Arc<Inside>,
}

struct Inside {
    shared: Arc<Shared>,
    init: Arc<Init>,
    plan: Plan,
}

impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.shared.fmt(f)
    }
}

impl Sandbox {
    /// Starts a sandbox in which many programs can be run, one after another or at once.
    pub fn start(&self) -> Result<Cell> {
        if self.policy().init {
            let failure = Failure::new("option", "init", "a cell without a name has no program that it lives for");
            return Err(failure.hint("Run the init as a command, or start the cell with a name: `Detach`.").config());
        }
        let (init, plan) = self.shared.launch(true, false, None, None)?;
        Ok(Cell::new(self.shared.clone(), init, plan))
    }
}

impl Cell {
    pub(crate) fn new(shared: Arc<Shared>, init: Init, plan: Plan) -> Cell {
        Cell { inside: Arc::new(Inside { shared, init: Arc::new(init), plan }) }
    }

    /// Who its programs are.
    pub fn identity(&self) -> IdentityReport {
        identity_report(&self.inside.init.identity)
    }

    /// What is enforced, and by what.
    pub fn enforced(&self) -> &[Enforced] {
        &self.inside.init.enforced
    }

    /// The ports that are published on the host, with those that were chosen for 0.
    pub fn published(&self) -> &[Published] {
        self.inside.init.published()
    }

    /// What was reached so far with the network `user`, what was refused, and what came by published ports.
    pub fn network(&self) -> Option<NetworkReport> {
        self.inside.init.network()
    }

    /// A new pidfd: readable when the cell has ended; see [`Child::pidfd`].
    pub fn pidfd(&self) -> Result<OwnedFd> {
        another_pidfd(self.inside.init.pidfd.as_fd())
    }

    /// The files that differ from the layers so far. Empty for a root that is no overlay.
    pub fn changes(&self) -> Result<Vec<Change>> {
        match self.inside.init.upper()? {
            Some(upper) => changes::list(upper.as_fd(), &self.inside.shared.resolved.files, &self.inside.init.identity),
            None => Ok(Vec::new()),
        }
    }

    /// What the cell has used so far: how long it has lived, and what its cgroups count.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage { wall: self.inside.init.lived(), ..Usage::default() };
        self.inside.init.count(&mut usage);
        usage
    }

    /// Stops everything in it until `thaw`. It needs a cgroup: start the cell with a limit.
    ///
    /// What ends a program thaws the cell: its timeout, [`Child::kill`], and the end of the cell or of the caller. A
    /// program that is to be started meanwhile waits for the thaw as long as its timeout allows, and without a timeout is
    /// refused.
    pub fn freeze(&self) -> Result<()> {
        self.inside.init.freeze()
    }

    /// Lets everything in it go on.
    pub fn thaw(&self) -> Result<()> {
        self.inside.init.thaw()
    }

    /// Changes the limits that are named; the others stay. Only kinds of limits that it was started with.
    pub fn set_limits(&self, limits: &Limits) -> Result<()> {
        let init = &self.inside.init;
        init.control(|group| group.update(limits))?;
        if let (true, Some(pids)) = (init.is_kept(), limits.pids) {
            init.ask(ask::PIDS, u32::try_from(pids).unwrap_or(u32::MAX), &[], &[])?;
        }
        Ok(())
    }

    /// Ends it now and everything in it, whoever else holds a clone.
    pub fn kill(&self) {
        self.inside.init.killed.store(true, Ordering::Release);
        self.inside.init.kill();
        self.inside.init.reap();
    }

    /// What its programs share, its supervisor and how it was made.
    pub(crate) fn parts(&self) -> (&Arc<Shared>, &Arc<Init>, &Plan) {
        (&self.inside.shared, &self.inside.init, &self.inside.plan)
    }
}

impl AsFd for Cell {
    /// A pidfd: readable when the cell has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inside.init.pidfd.as_fd()
    }
}
