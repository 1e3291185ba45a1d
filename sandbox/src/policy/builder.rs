//! The caller's words, collected. [`Builder::build`] checks them.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::kernel_names::{Capability, Resource};

use crate::policy::{
    Allow, HostPortRule, HostRule, IoMax, Mount, NetRule, Policy, PublishRule, Root, Seccomp, Upper, UpstreamProxy,
    User,
};
use crate::report::trace::Trace;

/// Puts a [`Sandbox`] together. Everything has a default: a read-only view of the host's system directories, private
/// temporary directories, a random UID, a private loopback, no limits.
///
/// ```
/// use std::time::Duration;
/// use sandcell::{Network, Sandbox};
///
/// let builder = Sandbox::builder().ro("/usr/share", "/data").network(Network::None).timeout(Duration::from_secs(10));
/// let output = builder.build()?.command("ls").arg("/data").output()?;
/// assert!(output.success() && !output.stdout.is_empty());
/// # Ok::<(), sandcell::Error>(())
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct Builder {
    pub(crate) policy: Policy,
    /// The caller said who the program is: an image does not then.
    pub(crate) user_given: bool,
    pub(crate) trace: Trace,
}

impl Builder {
    /// The root file system; [`Root::Host`] by default.
    pub fn root(mut self, root: Root) -> Builder {
        self.policy.root = root;
        self
    }

    /// Adds a read-only layer on top of those before; the root becomes an overlay of them. Linux 5.11.
    pub fn layer(mut self, dir: impl Into<PathBuf>) -> Builder {
        match &mut self.policy.root {
            Root::Layers(layers) => layers.push(dir.into()),
            _ => self.policy.root = Root::Layers(vec![dir.into()]),
        }
        self
    }

    /// Where writes to the overlay go; [`Upper::Tmpfs`] where there are layers.
    pub fn upper(mut self, upper: Upper) -> Builder {
        self.policy.upper = Some(upper);
        self
    }

    /// Shows a file or directory of the host at `dest`, read-only, everything mounted beneath it included.
    pub fn ro(self, source: impl Into<PathBuf>, dest: impl Into<PathBuf>) -> Builder {
        self.mount(Mount::Bind { source: source.into(), dest: dest.into(), writable: false })
    }

    /// Shows a file or directory of the host at `dest`, writable as far as the caller's own rights go.
    pub fn rw(self, source: impl Into<PathBuf>, dest: impl Into<PathBuf>) -> Builder {
        self.mount(Mount::Bind { source: source.into(), dest: dest.into(), writable: true })
    }

    /// The store of images and volumes; by default the user's own, `$XDG_DATA_HOME/sandcell/images`.
    #[cfg(feature = "image")]
    pub fn store(mut self, dir: impl Into<PathBuf>) -> Builder {
        self.policy.store = Some(dir.into());
        self
    }

    /// A named directory of the store at `dest`, made at its first use and kept until it is removed
    /// ([`Store::remove_volume`](crate::images::Store::remove_volume)).
    #[cfg(feature = "image")]
    pub fn volume(mut self, name: impl Into<String>, dest: impl Into<PathBuf>, writable: bool) -> Builder {
        self.policy.volumes.push(crate::policy::Volume { name: name.into(), dest: dest.into(), writable });
        self
    }

    /// An empty writable directory in memory at `dest`, of at most `size` bytes.
    pub fn tmpfs(self, dest: impl Into<PathBuf>, size: Option<u64>) -> Builder {
        self.mount(Mount::Tmpfs { dest: dest.into(), size })
    }

    /// A read-only file with this content at `dest`.
    pub fn file(self, dest: impl Into<PathBuf>, content: impl Into<Vec<u8>>) -> Builder {
        self.file_mode(dest, content, 0o644)
    }

    /// The same with these permission bits: 0o755 for a script.
    pub fn file_mode(self, dest: impl Into<PathBuf>, content: impl Into<Vec<u8>>, mode: u32) -> Builder {
        self.mount(Mount::File { dest: dest.into(), content: content.into(), mode })
    }

    /// What the image has in its directories for temporary files stays to be seen, and what is written there too.
    #[cfg(feature = "image")]
    pub(crate) fn keep_temporary_files(mut self) -> Builder {
        self.policy.keeps_tmp = true;
        self
    }

    /// Shows a device of the host at `dest`, beneath /dev; of a directory each device in it. It is there for reading and writing:
    /// [`Mount::device`] has the other way.
    pub fn device(self, source: impl Into<PathBuf>, dest: impl Into<PathBuf>) -> Builder {
        self.mount(Mount::device(source, dest, true))
    }

    /// Shows a Unix socket of the host at `dest`. Where it is the caller's own SSH agent, Wayland display or D-Bus session, the
    /// variable by which programs find it says so.
    pub fn socket(self, source: impl Into<PathBuf>, dest: impl Into<PathBuf>) -> Builder {
        self.mount(Mount::socket(source, dest))
    }

    /// Gives programs what they only get where it is asked for.
    pub fn allow(mut self, what: Allow) -> Builder {
        self.policy.allow.push(what);
        self
    }

    /// Adds a mount; later ones may lie beneath earlier ones.
    pub fn mount(mut self, mount: Mount) -> Builder {
        self.policy.mounts.push(mount);
        self
    }

    /// Who the program is inside; [`User::Random`] by default, or whom the image names.
    pub fn user(mut self, user: User) -> Builder {
        self.policy.identity.user = user;
        self.user_given = true;
        #[cfg(feature = "image")]
        {
            self.policy.image_user = None;
        }
        self
    }

    /// Who the program is inside, as the image of [`Root::Image`] knows it: `NAME`, `NAME:GROUP` or numbers, as a
    /// Dockerfile's `USER` has it. Names are those of the image's own `/etc/passwd` and `/etc/group`.
    #[cfg(feature = "image")]
    pub fn image_user(mut self, name: impl Into<String>) -> Builder {
        self.policy.image_user = Some(name.into());
        self
    }

    /// The working directory inside; the home, or the image's, by default.
    pub fn current_dir(self, dir: impl Into<PathBuf>) -> Builder {
        self.chdir(dir)
    }

    /// The name of [`Builder::keep_id`] before.
    #[deprecated(since = "0.1.0", note = "use `keep_id`")]
    pub fn keep_caller(self, keep: bool) -> Builder {
        self.keep_id(keep)
    }

    /// Limits one block device.
    pub fn io_max(mut self, limit: IoMax) -> Builder {
        self.policy.limits.io_max.push(limit);
        self
    }

    /// A limit of each process: setrlimit(2). Core dumps are always off.
    pub fn rlimit(mut self, resource: impl Into<Resource>, soft: u64, hard: u64) -> Builder {
        self.policy.rlimits.push((resource.into(), soft, hard));
        self
    }

    /// The system call filter; [`Seccomp::Default`] by default.
    pub fn seccomp(mut self, seccomp: Seccomp) -> Builder {
        self.policy.seccomp = seccomp;
        self
    }

    /// Keeps a capability inside. It reaches what the sandbox owns, never the mounts made for it.
    pub fn cap_add(mut self, capability: impl Into<Capability>) -> Builder {
        self.policy.cap_add.push(capability.into());
        self
    }

    /// Lets a name be reached: TCP ports 80 and 443 where the rule names none. The network is [`Network::User`](crate::Network)
    /// then, and everything that no rule allows is refused. Rules are read from text:
    ///
    /// ```
    /// let builder = sandcell::Sandbox::builder().allow_host("pypi.org".parse()?).allow_host("*.pythonhosted.org:443".parse()?);
    /// # builder.build()?;
    /// # Ok::<(), sandcell::Error>(())
    /// ```
    pub fn allow_host(mut self, rule: HostRule) -> Builder {
        self.policy.allow_host.push(rule);
        self
    }

    /// Refuses a name, whatever else is allowed.
    pub fn deny_host(mut self, rule: HostRule) -> Builder {
        self.policy.deny_host.push(rule);
        self
    }

    /// Lets addresses be reached, private ones too. Without [`Network::User`](crate::Network) everything that no rule allows is
    /// refused then.
    pub fn allow_net(mut self, rule: NetRule) -> Builder {
        self.policy.allow_net.push(rule);
        self
    }

    /// Publishes a port of the sandbox on the host. The network is [`Network::User`](crate::Network) then; nothing more is
    /// allowed by it. A host port of 0 is one that is free: [`Child::published`](crate::Child::published) tells which.
    ///
    /// ```
    /// let builder = sandcell::Sandbox::builder().publish("0:80".parse()?);
    /// # builder.build()?;
    /// # Ok::<(), sandcell::Error>(())
    /// ```
    pub fn publish(mut self, rule: PublishRule) -> Builder {
        self.policy.publish.push(rule);
        self
    }

    /// Lets programs reach a port of the host's own 127.0.0.1, as `host.containers.internal`.
    pub fn host_port(mut self, rule: HostPortRule) -> Builder {
        self.policy.host_port.push(rule);
        self
    }

    /// Has connections that the rules allow go by a proxy of the host's network, and names looked up by it.
    pub fn upstream_proxy(mut self, proxy: UpstreamProxy) -> Builder {
        self.policy.upstream_proxy = Some(proxy);
        self
    }

    /// For what gets no network after all.
    #[cfg(feature = "image")]
    pub(crate) fn without_rules(mut self) -> Builder {
        let Policy { allow_host, deny_host, allow_net, deny_net, .. } = &mut self.policy;
        allow_host.clear();
        deny_host.clear();
        allow_net.clear();
        deny_net.clear();
        self.policy.publish.clear();
        self.policy.host_port.clear();
        self.policy.publish_all = false;
        self.policy.upstream_proxy = None;
        self
    }

    /// Refuses addresses, whatever else is allowed.
    pub fn deny_net(mut self, rule: NetRule) -> Builder {
        self.policy.deny_net.push(rule);
        self
    }

    /// Adds an environment variable to the clean default.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Builder {
        self.policy.env.push((key.into(), value.into()));
        self
    }

    /// Goes on where the host cannot enforce `item`, and says so in the report. Items are `all` and those of
    /// [`options::best_effort_items`](crate::policy::options::best_effort_items), with `_` or `-`.
    pub fn best_effort(mut self, item: &str) -> Builder {
        self.policy.best_effort.add(item);
        self
    }

    /// Calls this for each stage of a start when it is over: of [`Builder::build`], of every run and cell. For `tracing`:
    /// `|stage| tracing::debug!(name = stage.name, took = ?stage.took)`. init tells the time of each of its steps then;
    /// a run waits until its sandbox is ready before it goes on, and takes some tens of microseconds longer.
    #[cfg(feature = "tracing")]
    pub fn on_start_stage(mut self, hook: impl Fn(&crate::StartStage<'_>) + Send + Sync + 'static) -> Builder {
        self.trace = Trace::to(hook);
        self
    }

    /// What has been asked for so far.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Builder").field(&self.policy).finish()
    }
}

impl From<Policy> for Builder {
    /// To go on from a policy that was checked, or put together, before.
    fn from(policy: Policy) -> Builder {
        Builder { user_given: policy.identity.user != User::Random, trace: Trace::default(), policy }
    }
}
