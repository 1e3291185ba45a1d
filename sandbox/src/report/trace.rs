//! How long each stage of a start takes, told as it goes on.

use std::fmt;
#[cfg(feature = "tracing")]
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A stage of a start that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StartStage<'a> {
    /// Stable name: `ids`, `clone`, or of one of init's steps, as [`PlannedStep::name`](crate::PlannedStep::name).
    pub name: &'a str,
    /// The path or name that it is about; may be empty.
    pub subject: &'a str,
    /// It is a step of init's, within the stage `setup`, which is told when all of them are over.
    pub inside: bool,
    /// How long it took.
    pub took: Duration,
}

#[cfg(feature = "tracing")]
type Hook = dyn Fn(&StartStage<'_>) + Send + Sync;

/// Whom to tell. Without one, no clock is read.
#[derive(Clone, Default)]
pub(crate) struct Trace {
    #[cfg(feature = "tracing")]
    hook: Option<Arc<Hook>>,
}

impl Trace {
    #[cfg(feature = "tracing")]
    pub(crate) fn to(hook: impl Fn(&StartStage<'_>) + Send + Sync + 'static) -> Trace {
        Trace { hook: Some(Arc::new(hook)) }
    }

    pub(crate) fn is_on(&self) -> bool {
        #[cfg(feature = "tracing")]
        return self.hook.is_some();
        #[cfg(not(feature = "tracing"))]
        false
    }

    #[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "there is nobody to tell"))]
    pub(crate) fn tell(&self, stage: &StartStage<'_>) {
        #[cfg(feature = "tracing")]
        if let Some(hook) = &self.hook {
            hook(stage);
        }
    }

    /// From now on.
    pub(crate) fn clock(&self) -> Clock<'_> {
        Clock { trace: self, since: self.is_on().then(Instant::now) }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("on", &self.is_on()).finish()
    }
}

/// What tells one stage after another.
pub(crate) struct Clock<'a> {
    trace: &'a Trace,
    since: Option<Instant>,
}

impl Clock<'_> {
    /// A stage is over, and the next begins.
    pub(crate) fn lap(&mut self, name: &'static str) {
        if let Some(since) = self.since {
            self.trace.tell(&StartStage { name, subject: "", inside: false, took: since.elapsed() });
            self.since = Some(Instant::now());
        }
    }
}
