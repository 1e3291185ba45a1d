//! Which network a sandbox has, and what each of them means.

/// Which network the program sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Network {
    /// None: a private network namespace in which even loopback is down.
    None,
    /// A private loopback and nothing else.
    #[default]
    Loopback,
    /// The host's network, abstract sockets included.
    Host,
    /// A private one with a way out: the public internet, and what rules allow. `docs/network.md` tells how.
    User,
}

/// What each word means. Whoever adds one is led here by the compiler, and asks these instead of comparing words.
impl Network {
    /// It has a network namespace of its own, and with it abstract sockets of its own.
    pub(crate) fn has_own_namespace(self) -> bool {
        match self {
            Network::None | Network::Loopback | Network::User => true,
            Network::Host => false,
        }
    }

    /// A relay is its way out.
    pub(crate) fn has_relay(self) -> bool {
        match self {
            Network::User => true,
            Network::None | Network::Loopback | Network::Host => false,
        }
    }

    /// `lo` is up in the namespace of its own.
    pub(crate) fn brings_loopback_up(self) -> bool {
        match self {
            Network::Loopback | Network::User => true,
            Network::None | Network::Host => false,
        }
    }

    /// Names are looked up as the host does: its resolv.conf is shown.
    pub(crate) fn uses_host_resolver(self) -> bool {
        match self {
            Network::Host | Network::User => true,
            Network::None | Network::Loopback => false,
        }
    }

    /// There is nothing that TCP or UDP could reach: Landlock refuses every port.
    #[cfg(feature = "landlock")]
    pub(crate) fn reaches_nothing(self) -> bool {
        match self {
            Network::None => true,
            Network::Loopback | Network::Host | Network::User => false,
        }
    }
}

/// Names of options that were said. Whether a default was said makes no other policy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said(pub(crate) Vec<&'static str>);

impl PartialEq for Said {
    fn eq(&self, _: &Said) -> bool {
        true
    }
}
