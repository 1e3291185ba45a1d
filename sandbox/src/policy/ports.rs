//! Ports: those of the sandbox that are published on the host, and those of the host's loopback that are shown inside.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use crate::error::{Error, Failure, Result};
use crate::policy::{Policy, Root};
use crate::wire::network::{MOST_PUBLISHED, TCP, UDP};

/// A port of the sandbox that is published on the host: `8080:80`, `0:80`, `192.0.2.1:5353:53/udp`, `[::1]:8080:80`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishRule {
    /// Where the host listens: 127.0.0.1 unless another address is said.
    pub address: IpAddr,
    /// The port of the host; 0: one that is free, see [`Published`](crate::Published).
    pub host_port: u16,
    /// The port of the sandbox.
    pub cell_port: u16,
    /// UDP instead of TCP.
    pub udp: bool,
}

/// A port of the host's own 127.0.0.1 that programs reach as `host.containers.internal`: `5432`, `53/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostPortRule {
    /// The port.
    pub port: u16,
    /// UDP instead of TCP.
    pub udp: bool,
}

const PUBLISH: &str = "published port";
const PUBLISH_HINT: &str = "Write HOST:CELL, such as 8080:80, 0:80 for a free port, 127.0.0.1:8080:80 or 5353:53/udp.";

fn wrong(subject: &str, message: impl Into<String>, hint: &str) -> Error {
    Failure::new("option", subject, message).hint(hint).config()
}

/// A number from `least` to 65535.
fn port(subject: &str, text: &str, least: u16) -> Result<u16> {
    let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
    number.filter(|port| *port >= least).ok_or_else(|| {
        wrong(subject, format!("{text:?} is not a port"), &format!("Write a number from {least} to 65535."))
    })
}

/// What stands in front of `/tcp` or `/udp`, and whether it is the latter.
fn protocol<'a>(subject: &str, text: &'a str) -> Result<(&'a str, bool)> {
    match text.rsplit_once('/') {
        None => Ok((text, false)),
        Some((text, "tcp")) => Ok((text, false)),
        Some((text, "udp")) => Ok((text, true)),
        Some((_, other)) => {
            Err(wrong(subject, format!("{other:?} is not a protocol"), "Write /udp, or nothing for TCP."))
        }
    }
}

impl FromStr for PublishRule {
    type Err = Error;

    fn from_str(text: &str) -> Result<PublishRule> {
        let (rest, udp) = protocol(PUBLISH, text)?;
        let not = || wrong(PUBLISH, format!("{text:?} is not a published port"), PUBLISH_HINT);
        let (rest, cell) = rest.rsplit_once(':').ok_or_else(not)?;
        let (address, host) = match rest.rsplit_once(':') {
            None => (IpAddr::V4(Ipv4Addr::LOCALHOST), rest),
            Some((address, host)) => {
                let plain = match address.strip_prefix('[') {
                    Some(rest) => rest.strip_suffix(']').filter(|inner| inner.contains(':')).ok_or_else(not)?,
                    None if address.contains(':') => return Err(not()),
                    None => address,
                };
                (plain.parse().map_err(|_| not())?, host)
            }
        };
        Ok(PublishRule { address, host_port: port(PUBLISH, host, 0)?, cell_port: port(PUBLISH, cell, 1)?, udp })
    }
}

impl PublishRule {
    pub(crate) fn protocol(&self) -> u32 {
        if self.udp { UDP } else { TCP }
    }

    /// One that an image exposes, such as `80/tcp`.
    #[cfg(feature = "image")]
    pub(crate) fn exposed(text: &str) -> Result<PublishRule> {
        let (number, udp) = protocol("publish_all", text)?;
        let cell_port = port("publish_all", number, 1)?;
        Ok(PublishRule { address: Ipv4Addr::LOCALHOST.into(), host_port: 0, cell_port, udp })
    }
}

impl fmt::Display for PublishRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = SocketAddr::new(self.address, self.host_port);
        write!(f, "{place}:{}{}", self.cell_port, if self.udp { "/udp" } else { "" })
    }
}

impl FromStr for HostPortRule {
    type Err = Error;

    fn from_str(text: &str) -> Result<HostPortRule> {
        let (number, udp) = protocol("host port", text)?;
        Ok(HostPortRule { port: port("host port", number, 1)?, udp })
    }
}

impl HostPortRule {
    pub(crate) fn protocol(&self) -> u32 {
        if self.udp { UDP } else { TCP }
    }
}

impl fmt::Display for HostPortRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.port, if self.udp { "/udp" } else { "" })
    }
}

/// Ports that do not go together, or with the rest.
pub(crate) fn check(policy: &Policy) -> Result<()> {
    let hint = "Set `network` to user, or leave it out.";
    let given = [
        ("publish", !policy.publish.is_empty()),
        ("publish_all", policy.publish_all),
        ("host_port", !policy.host_port.is_empty()),
    ];
    if let Some((option, _)) = given.iter().find(|(_, given)| *given)
        && !policy.network_in_effect().has_relay()
    {
        let message = format!("makes no sense with the network `{}`", policy.network.word());
        return Err(wrong(option, message, hint));
    }
    if policy.publish_all && !is_image(&policy.root) {
        let hint = "Name the ports: `publish` 0:80; or choose an image as the root.";
        return Err(wrong("publish_all", "there is no image that exposes ports", hint));
    }
    for (at, rule) in policy.publish.iter().enumerate() {
        // Of those made in Rust.
        if rule.cell_port == 0 {
            return Err(wrong("publish", "0 is not a port of the sandbox", PUBLISH_HINT));
        }
        let same = |other: &&PublishRule| {
            (other.address, other.host_port, other.udp) == (rule.address, rule.host_port, rule.udp)
        };
        if rule.host_port != 0 && policy.publish[..at].iter().find(same).is_some() {
            let message = format!("port {} of {} is published twice", rule.host_port, rule.address);
            return Err(wrong("publish", message, "Choose another port of the host."));
        }
    }
    if policy.host_port.iter().any(|rule| rule.port == 0) {
        return Err(wrong("host_port", "0 is not a port", "Write a number from 1 to 65535."));
    }
    check_count(policy.publish.len())
}

/// How many ports may be published.
pub(crate) fn check_count(count: usize) -> Result<()> {
    if count > MOST_PUBLISHED {
        let message = format!("{count} ports are more than the {MOST_PUBLISHED} that may be published");
        return Err(wrong("publish", message, "Publish fewer, or put a proxy in front inside."));
    }
    Ok(())
}

fn is_image(root: &Root) -> bool {
    #[cfg(feature = "image")]
    return root.is_image();
    #[cfg(not(feature = "image"))]
    {
        let _ = root;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_ports_are_read_and_shown() {
        for (text, shown) in [
            ("8080:80", "127.0.0.1:8080:80"),
            ("0:80", "127.0.0.1:0:80"),
            ("0.0.0.0:53:5353/udp", "0.0.0.0:53:5353/udp"),
            ("8080:80/tcp", "127.0.0.1:8080:80"),
            ("[::1]:8080:80", "[::1]:8080:80"),
        ] {
            let rule: PublishRule = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(rule.to_string(), shown);
            assert_eq!(shown.parse::<PublishRule>().unwrap(), rule);
        }
        for text in [
            "",
            "80",
            ":80",
            "80:",
            "8080:0",
            "65536:80",
            "80:65536",
            "+1:80",
            "-1:80",
            "a:80",
            "::1:8080:80",
            "[::1]:80",
            "[127.0.0.1]:80:80",
            "example.org:80:80",
            "80:80/sctp",
            "80:80/",
            "1:2:3:4",
            "80:80\0",
            "10.0.0.0/8:80:80",
        ] {
            let error = text.parse::<PublishRule>().expect_err(text);
            assert!(error.kind() == "config" && !error.hint().is_empty(), "{text}: {error}");
        }
    }

    #[test]
    fn ports_of_the_host_are_read_and_shown() {
        assert_eq!("5432".parse::<HostPortRule>().unwrap().to_string(), "5432");
        assert_eq!("53/udp".parse::<HostPortRule>().unwrap().to_string(), "53/udp");
        for text in ["", "0", "65536", "5432:5432", "*", "80,443", "80-90", "53/dns", "5432\0", "127.0.0.1:80"] {
            let error = text.parse::<HostPortRule>().expect_err(text);
            assert!(error.kind() == "config" && !error.hint().is_empty(), "{text}: {error}");
        }
    }
}
