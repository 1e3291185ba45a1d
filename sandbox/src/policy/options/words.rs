//! The options that are one of some words, and names of the system: resources and capabilities.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use crate::kernel_names::{Capability, Resource};

use super::grammar::Wrong;
use crate::error::{Error, Failure, Result};
use crate::policy::{Allow, HostIds, Isolation, Landlock, Leftovers, Network, User};

pub(super) fn wrong(option: &str, Wrong { message, hint }: Wrong) -> Error {
    Failure::new("option", option, message).hint(hint).config()
}

/// `a, b or c`.
pub(super) fn or(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

macro_rules! words {
    ($($type:ident, $option:literal: $($word:literal => $variant:ident),+;)+) => {
        $(
            impl $type {
                /// The words that stand for it in text.
                pub const WORDS: &'static [&'static str] = &[$($word),+];

                /// The word that stands for it in text.
                pub fn word(self) -> &'static str {
                    match self {
                        $($type::$variant => $word),+
                    }
                }
            }

            impl fmt::Display for $type {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.pad(self.word())
                }
            }

            impl FromStr for $type {
                type Err = Error;

                fn from_str(text: &str) -> Result<$type> {
                    Ok(match text {
                        $($word => $type::$variant,)+
                        _ => {
                            let words = or($type::WORDS);
                            return Err(wrong(
                                $option,
                                Wrong::not(OsStr::new(text), &words, format!("Write {words}.")),
                            ));
                        }
                    })
                }
            }
        )+
    };
}

words! {
    Network, "network": "none" => None, "loopback" => Loopback, "host" => Host, "user" => User;
    HostIds, "host_ids": "auto" => Auto, "disjoint" => Disjoint, "shared" => Shared;
    Isolation, "isolation": "namespaces" => Namespaces, "landlock" => Landlock;
    Landlock, "landlock": "default" => Default, "required" => Required, "off" => Off;
    Allow, "allow": "ptrace" => Ptrace, "nested" => Nested, "engine-socket" => EngineSocket;
    Leftovers, "leftovers": "kill" => Kill, "report" => Report, "fail" => Fail;
}

/// `random`, `root`, `caller`, `UID` or `UID:GID`.
impl FromStr for User {
    type Err = Error;

    fn from_str(text: &str) -> Result<User> {
        let not = || Wrong::not(text.as_ref(), "a user", "Write random, root, caller or UID[:GID] in numbers.");
        // A sign is no part of an id, though Rust would read one.
        let id = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse().map_err(|_| wrong("user", not())),
            false => Err(wrong("user", not())),
        };
        Ok(match text {
            "random" => User::Random,
            "root" => User::Root,
            "caller" => User::Caller,
            _ => {
                let (uid, gid) = text.split_once(':').unwrap_or((text, text));
                User::fixed(id(uid)?, id(gid)?)
            }
        })
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.word())
    }
}

/// The resource of [`Builder::rlimit`](crate::Builder::rlimit) by its name in setrlimit(2), in either case, with or
/// without `RLIMIT_`.
pub fn resource(name: &str) -> Result<Resource> {
    let lower = name.to_ascii_lowercase();
    let short = lower.strip_prefix("rlimit_").unwrap_or(&lower);
    Resource::ALL.iter().copied().find(|known| resource_name(*known) == short).ok_or_else(|| {
        let mut names: Vec<_> = Resource::ALL.iter().map(|known| resource_name(*known)).collect();
        names.sort_unstable();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        wrong(
            "rlimit",
            Wrong::new(format!("{name:?} is no resource of setrlimit(2)"), format!("Write {}.", or(&names))),
        )
    })
}

/// Its name as [`resource`] takes it.
pub(super) fn resource_name(resource: Resource) -> String {
    resource.name().trim_start_matches("RLIMIT_").to_ascii_lowercase()
}

/// A capability by its name, such as `CAP_NET_RAW` or `net_raw`: capabilities(7).
pub fn capability(name: &str) -> Result<Capability> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    Capability::ALL.iter().copied().find(|known| known.name() == full).ok_or_else(|| {
        wrong(
            "cap_add",
            Wrong::not(OsStr::new(name), "a capability", "Write a name of capabilities(7), such as net_raw."),
        )
    })
}

impl std::str::FromStr for Capability {
    type Err = crate::Error;

    fn from_str(name: &str) -> Result<Capability> {
        capability(name)
    }
}

impl std::str::FromStr for Resource {
    type Err = crate::Error;

    fn from_str(name: &str) -> Result<Resource> {
        resource(name)
    }
}
