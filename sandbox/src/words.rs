//! The words of options: one parser for the command line, C and Python. Every refusal names what would be right.

use std::str::FromStr;

use caps::Capability;
use nix::sys::resource::Resource;

use crate::error::{Error, Result};
use crate::policy::{HostIds, Isolation, Landlock, Leftovers, Network, User};

fn unknown(option: &str, given: &str, wanted: &str) -> Error {
    Error::option(option, format!("{given:?} is not {wanted}"))
}

/// `random`, `root`, `caller`, `UID` or `UID:GID`, as `--user` takes them.
impl FromStr for User {
    type Err = Error;

    fn from_str(text: &str) -> Result<User> {
        let wrong = || unknown("user", text, "a user; write random, root, caller or UID[:GID] in numbers");
        // A sign is no part of an id, though Rust would read one.
        let id = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse().map_err(|_| wrong()),
            false => Err(wrong()),
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

/// `none`, `loopback` or `host`.
impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Network> {
        Ok(match text {
            "none" => Network::None,
            "loopback" => Network::Loopback,
            "host" => Network::Host,
            _ => return Err(unknown("network", text, "none, loopback or host")),
        })
    }
}

/// `auto`, `disjoint` or `shared`.
impl FromStr for HostIds {
    type Err = Error;

    fn from_str(text: &str) -> Result<HostIds> {
        Ok(match text {
            "auto" => HostIds::Auto,
            "disjoint" => HostIds::Disjoint,
            "shared" => HostIds::Shared,
            _ => return Err(unknown("host_ids", text, "auto, disjoint or shared")),
        })
    }
}

/// `namespaces` or `landlock`.
impl FromStr for Isolation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Isolation> {
        Ok(match text {
            "namespaces" => Isolation::Namespaces,
            "landlock" => Isolation::Landlock,
            _ => return Err(unknown("isolation", text, "namespaces or landlock")),
        })
    }
}

/// `default`, `required` or `off`.
impl FromStr for Landlock {
    type Err = Error;

    fn from_str(text: &str) -> Result<Landlock> {
        Ok(match text {
            "default" => Landlock::Default,
            "required" => Landlock::Required,
            "off" => Landlock::Off,
            _ => return Err(unknown("landlock", text, "default, required or off")),
        })
    }
}

/// `kill`, `report` or `fail`.
impl FromStr for Leftovers {
    type Err = Error;

    fn from_str(text: &str) -> Result<Leftovers> {
        Ok(match text {
            "kill" => Leftovers::Kill,
            "report" => Leftovers::Report,
            "fail" => Leftovers::Fail,
            _ => return Err(unknown("leftovers", text, "kill, report or fail")),
        })
    }
}

/// The resource of [`Builder::rlimit`](crate::Builder::rlimit) by its name in setrlimit(2), in either case, with or
/// without `RLIMIT_`.
pub fn resource(name: &str) -> Result<Resource> {
    let upper = name.to_ascii_uppercase();
    Ok(match upper.strip_prefix("RLIMIT_").unwrap_or(&upper) {
        "AS" => Resource::RLIMIT_AS,
        "CORE" => Resource::RLIMIT_CORE,
        "CPU" => Resource::RLIMIT_CPU,
        "DATA" => Resource::RLIMIT_DATA,
        "FSIZE" => Resource::RLIMIT_FSIZE,
        "LOCKS" => Resource::RLIMIT_LOCKS,
        "MEMLOCK" => Resource::RLIMIT_MEMLOCK,
        "MSGQUEUE" => Resource::RLIMIT_MSGQUEUE,
        "NICE" => Resource::RLIMIT_NICE,
        "NOFILE" => Resource::RLIMIT_NOFILE,
        "NPROC" => Resource::RLIMIT_NPROC,
        "RSS" => Resource::RLIMIT_RSS,
        "RTPRIO" => Resource::RLIMIT_RTPRIO,
        "RTTIME" => Resource::RLIMIT_RTTIME,
        "SIGPENDING" => Resource::RLIMIT_SIGPENDING,
        "STACK" => Resource::RLIMIT_STACK,
        _ => {
            let message = format!("{name} is no resource; see setrlimit(2): as, core, cpu, fsize, nofile, stack, …");
            return Err(Error::option("rlimit", message));
        }
    })
}

/// A capability by its name, such as `CAP_NET_RAW` or `net_raw`: capabilities(7).
pub fn capability(name: &str) -> Result<Capability> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    full.parse().map_err(|_| unknown("cap_add", name, "a capability; see capabilities(7)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_word_or_numbers_and_the_gid_is_the_uid_where_none_is_given() {
        for (text, user) in [
            ("random", User::Random),
            ("root", User::Root),
            ("caller", User::Caller),
            ("7", User::fixed(7, 7)),
            ("7:8", User::fixed(7, 8)),
        ] {
            assert_eq!(text.parse::<User>().unwrap(), user);
        }
        for text in ["", "me", "7:", ":7", "7:8:9", "-1", "+1", "4294967296", "7 "] {
            let error = text.parse::<User>().unwrap_err().to_string();
            assert!(error.contains("not a user") && error.contains("UID[:GID]"), "{text:?}: {error}");
        }
    }

    #[test]
    fn resources_and_capabilities_are_named_with_and_without_their_prefix() {
        assert_eq!(resource("nofile").unwrap(), Resource::RLIMIT_NOFILE);
        assert_eq!(resource("RLIMIT_STACK").unwrap(), Resource::RLIMIT_STACK);
        assert!(resource("luck").unwrap_err().to_string().contains("no resource"));
        assert_eq!(capability("net_raw").unwrap(), Capability::CAP_NET_RAW);
        assert_eq!(capability("CAP_NET_RAW").unwrap(), Capability::CAP_NET_RAW);
        assert!(capability("flying").unwrap_err().to_string().contains("not a capability"));
    }
}
