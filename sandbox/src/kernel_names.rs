//! Capabilities and resources by the kernel's names and numbers: types of the library's own, so that no other crate's
//! version is part of its interface. `From` for those of `caps` and `nix` is behind the features of these names.

/// An enum whose variants are names of the kernel, with their numbers.
macro_rules! kernel_names {
    ($(#[$doc:meta])+ $type:ident: $number:ident { $($name:ident = $value:literal,)+ }) => {
        $(#[$doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr($number)]
        #[non_exhaustive]
        #[allow(non_camel_case_types, missing_docs)]
        pub enum $type {
            $($name = $value,)+
        }

        impl $type {
            /// All that there are, in the order of their numbers.
            pub const ALL: &'static [$type] = &[$($type::$name),+];

            /// The kernel's number of it.
            pub const fn number(self) -> $number {
                self as $number
            }

            /// The kernel's name of it.
            pub const fn name(self) -> &'static str {
                match self {
                    $($type::$name => stringify!($name),)+
                }
            }

            /// By the kernel's number.
            pub fn from_number(number: $number) -> Option<$type> {
                $type::ALL.iter().copied().find(|known| known.number() == number)
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

kernel_names! {
    /// A capability: capabilities(7). Read from text, it is `CAP_NET_RAW` or `net_raw`.
    Capability: u8 {
        CAP_CHOWN = 0, CAP_DAC_OVERRIDE = 1, CAP_DAC_READ_SEARCH = 2, CAP_FOWNER = 3, CAP_FSETID = 4, CAP_KILL = 5,
        CAP_SETGID = 6, CAP_SETUID = 7, CAP_SETPCAP = 8, CAP_LINUX_IMMUTABLE = 9, CAP_NET_BIND_SERVICE = 10,
        CAP_NET_BROADCAST = 11, CAP_NET_ADMIN = 12, CAP_NET_RAW = 13, CAP_IPC_LOCK = 14, CAP_IPC_OWNER = 15,
        CAP_SYS_MODULE = 16, CAP_SYS_RAWIO = 17, CAP_SYS_CHROOT = 18, CAP_SYS_PTRACE = 19, CAP_SYS_PACCT = 20,
        CAP_SYS_ADMIN = 21, CAP_SYS_BOOT = 22, CAP_SYS_NICE = 23, CAP_SYS_RESOURCE = 24, CAP_SYS_TIME = 25,
        CAP_SYS_TTY_CONFIG = 26, CAP_MKNOD = 27, CAP_LEASE = 28, CAP_AUDIT_WRITE = 29, CAP_AUDIT_CONTROL = 30,
        CAP_SETFCAP = 31, CAP_MAC_OVERRIDE = 32, CAP_MAC_ADMIN = 33, CAP_SYSLOG = 34, CAP_WAKE_ALARM = 35,
        CAP_BLOCK_SUSPEND = 36, CAP_AUDIT_READ = 37, CAP_PERFMON = 38, CAP_BPF = 39, CAP_CHECKPOINT_RESTORE = 40,
    }
}

kernel_names! {
    /// A resource that each process has a limit of: setrlimit(2). Read from text, it is `RLIMIT_NOFILE` or `nofile`.
    Resource: u32 {
        RLIMIT_CPU = 0, RLIMIT_FSIZE = 1, RLIMIT_DATA = 2, RLIMIT_STACK = 3, RLIMIT_CORE = 4, RLIMIT_RSS = 5,
        RLIMIT_NPROC = 6, RLIMIT_NOFILE = 7, RLIMIT_MEMLOCK = 8, RLIMIT_AS = 9, RLIMIT_LOCKS = 10,
        RLIMIT_SIGPENDING = 11, RLIMIT_MSGQUEUE = 12, RLIMIT_NICE = 13, RLIMIT_RTPRIO = 14, RLIMIT_RTTIME = 15,
    }
}

impl Capability {
    /// The bit that stands for it in a set of capabilities.
    pub const fn bitmask(self) -> u64 {
        1 << self.number()
    }
}

#[cfg(feature = "caps")]
impl From<caps::Capability> for Capability {
    fn from(theirs: caps::Capability) -> Capability {
        Capability::from_number(theirs.index())
            .expect("caps has no capability that is missing here: a test compares them")
    }
}

#[cfg(feature = "caps")]
impl From<Capability> for caps::Capability {
    fn from(ours: Capability) -> caps::Capability {
        ours.name().parse().expect("caps has every capability that is here: a test compares them")
    }
}

#[cfg(feature = "nix")]
impl From<nix::sys::resource::Resource> for Resource {
    fn from(theirs: nix::sys::resource::Resource) -> Resource {
        Resource::from_number(theirs as u32).expect("the kernel has sixteen resources")
    }
}

#[cfg(feature = "nix")]
impl From<Resource> for nix::sys::resource::Resource {
    fn from(ours: Resource) -> nix::sys::resource::Resource {
        use nix::sys::resource::Resource as Theirs;
        match ours {
            Resource::RLIMIT_CPU => Theirs::RLIMIT_CPU,
            Resource::RLIMIT_FSIZE => Theirs::RLIMIT_FSIZE,
            Resource::RLIMIT_DATA => Theirs::RLIMIT_DATA,
            Resource::RLIMIT_STACK => Theirs::RLIMIT_STACK,
            Resource::RLIMIT_CORE => Theirs::RLIMIT_CORE,
            Resource::RLIMIT_RSS => Theirs::RLIMIT_RSS,
            Resource::RLIMIT_NPROC => Theirs::RLIMIT_NPROC,
            Resource::RLIMIT_NOFILE => Theirs::RLIMIT_NOFILE,
            Resource::RLIMIT_MEMLOCK => Theirs::RLIMIT_MEMLOCK,
            Resource::RLIMIT_AS => Theirs::RLIMIT_AS,
            Resource::RLIMIT_LOCKS => Theirs::RLIMIT_LOCKS,
            Resource::RLIMIT_SIGPENDING => Theirs::RLIMIT_SIGPENDING,
            Resource::RLIMIT_MSGQUEUE => Theirs::RLIMIT_MSGQUEUE,
            Resource::RLIMIT_NICE => Theirs::RLIMIT_NICE,
            Resource::RLIMIT_RTPRIO => Theirs::RLIMIT_RTPRIO,
            Resource::RLIMIT_RTTIME => Theirs::RLIMIT_RTTIME,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_those_of_the_crate_caps_by_name_and_number() {
        let theirs: Vec<(String, u8)> = caps::all().iter().map(|cap| (cap.to_string(), cap.index())).collect();
        assert_eq!(theirs.len(), Capability::ALL.len());
        for ours in Capability::ALL {
            assert!(theirs.contains(&(ours.to_string(), ours.number())), "{ours}");
            assert_eq!((ours.bitmask(), Capability::from_number(ours.number())), (1 << ours.number(), Some(*ours)));
        }
        assert_eq!(Capability::from_number(63), None);
    }

    #[test]
    fn resources_are_those_of_libc_by_name_and_number() {
        let of_libc = [
            (libc::RLIMIT_AS, "RLIMIT_AS"),
            (libc::RLIMIT_CORE, "RLIMIT_CORE"),
            (libc::RLIMIT_CPU, "RLIMIT_CPU"),
            (libc::RLIMIT_DATA, "RLIMIT_DATA"),
            (libc::RLIMIT_FSIZE, "RLIMIT_FSIZE"),
            (libc::RLIMIT_LOCKS, "RLIMIT_LOCKS"),
            (libc::RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK"),
            (libc::RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE"),
            (libc::RLIMIT_NICE, "RLIMIT_NICE"),
            (libc::RLIMIT_NOFILE, "RLIMIT_NOFILE"),
            (libc::RLIMIT_NPROC, "RLIMIT_NPROC"),
            (libc::RLIMIT_RSS, "RLIMIT_RSS"),
            (libc::RLIMIT_RTPRIO, "RLIMIT_RTPRIO"),
            (libc::RLIMIT_RTTIME, "RLIMIT_RTTIME"),
            (libc::RLIMIT_SIGPENDING, "RLIMIT_SIGPENDING"),
            (libc::RLIMIT_STACK, "RLIMIT_STACK"),
        ];
        assert_eq!(of_libc.len(), Resource::ALL.len());
        for (number, name) in of_libc {
            assert_eq!(Resource::from_number(number).map(Resource::name), Some(name));
        }
    }

    #[cfg(feature = "caps")]
    #[test]
    fn each_capability_of_caps_is_ours_and_the_other_way_round() {
        for theirs in caps::all() {
            let ours = Capability::from(theirs);
            assert_eq!((ours.to_string(), caps::Capability::from(ours)), (theirs.to_string(), theirs));
        }
    }

    #[cfg(feature = "nix")]
    #[test]
    fn each_resource_of_nix_is_ours_and_the_other_way_round() {
        for ours in Resource::ALL {
            let theirs = nix::sys::resource::Resource::from(*ours);
            assert_eq!((format!("{theirs:?}"), Resource::from(theirs)), (ours.to_string(), *ours));
        }
    }
}
