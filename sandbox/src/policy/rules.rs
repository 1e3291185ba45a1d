//! Rules: their text, and what of them makes sense together.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::error::{Error, Failure, Result};
use crate::policy::Policy;
use crate::wire::network::{MOST_RULES, PLAIN, TCP, UDP};

/// Ports of a rule: ranges, and of which protocols.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ports {
    /// First and last of each range; none is all.
    pub ranges: Vec<(u16, u16)>,
    /// TCP.
    pub tcp: bool,
    /// UDP.
    pub udp: bool,
}

impl Ports {
    const fn all() -> Ports {
        Ports { ranges: Vec::new(), tcp: true, udp: true }
    }

    pub(crate) fn protocols(&self) -> u32 {
        let bit = |set, bit| if set { bit } else { 0 };
        bit(self.tcp, TCP) | bit(self.udp, UDP)
    }

    /// As numbers for the relay.
    pub(crate) fn spans(&self) -> Vec<(u16, u16)> {
        if self.ranges.is_empty() { vec![(0, u16::MAX)] } else { self.ranges.clone() }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |&(first, last): &(u16, u16)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        };
        let ranges: Vec<_> = self.ranges.iter().map(range).collect();
        let ranges = if ranges.is_empty() { "*".to_owned() } else { ranges.join(",") };
        let protocol = match (self.tcp, self.udp) {
            (true, false) => "/tcp",
            (false, true) => "/udp",
            _ => "",
        };
        write!(f, "{ranges}{protocol}")
    }
}

/// Addresses and ports: `10.1.0.0/16:5432`, `[2001:db8::/32]:443`, `192.0.2.7:53/udp`, `10.0.0.0/8`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetRule {
    /// The first address.
    pub address: IpAddr,
    /// How many bits of it count.
    pub prefix: u8,
    /// All ports where none are named.
    pub ports: Ports,
}

/// A name and ports: `pypi.org`, `*.example.org:443`, `github.com:22`, `example.org:*`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostRule {
    /// In lower case; `*.` in front stands for every name below, not for the name itself.
    pub name: String,
    /// To allow a name without ports is to allow TCP 80 and 443; to deny it, all of them.
    pub ports: Option<Ports>,
}

fn wrong(subject: &str, message: impl Into<String>, hint: &str) -> Error {
    Failure::new("option", subject, message).hint(hint).config()
}

const NET: &str = "network rule";
const NET_HINT: &str = "Write 10.1.0.0/16, 10.1.2.3:5432, [2001:db8::/32]:443 or 192.0.2.7:53/udp.";
const HOST: &str = "host rule";
const HOST_HINT: &str = "Write example.org, example.org:22, *.example.org:443 or example.org:*.";

/// `80`, `80,443`, `8000-8080` or `*`, and perhaps `/tcp` or `/udp` behind.
fn ports(subject: &str, text: &str) -> Result<Ports> {
    let hint = "Write 443, 80,443, 8000-8080 or *, and /tcp or /udp behind where only one is meant.";
    let (numbers, protocol) = text.split_once('/').map_or((text, None), |(numbers, rest)| (numbers, Some(rest)));
    let (tcp, udp) = match protocol {
        None => (true, true),
        Some("tcp") => (true, false),
        Some("udp") => (false, true),
        Some(other) => return Err(wrong(subject, format!("{other:?} is not a protocol"), hint)),
    };
    if numbers == "*" {
        return Ok(Ports { ranges: Vec::new(), tcp, udp });
    }
    let port = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>()) {
        Some(Ok(port)) if port > 0 => Ok(port),
        _ => Err(wrong(subject, format!("{text:?} is not a port"), "Write a number from 1 to 65535, or *.")),
    };
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(wrong(subject, format!("{text:?} ends before it begins"), "Write the lower port first."));
        }
        Ok((first, last))
    };
    let ranges = numbers.split(',').map(range).collect::<Result<Vec<_>>>()?;
    Ok(Ports { ranges, tcp, udp })
}

impl FromStr for NetRule {
    type Err = Error;

    fn from_str(text: &str) -> Result<NetRule> {
        let not = || wrong(NET, format!("{text:?} is not a network"), NET_HINT);
        let (network, of_ports) = match text.strip_prefix('[') {
            Some(rest) => {
                let (network, rest) = rest.split_once(']').ok_or_else(not)?;
                match rest.strip_prefix(':') {
                    Some(ports) => (network, Some(ports)),
                    None if rest.is_empty() => (network, None),
                    None => return Err(not()),
                }
            }
            // An IPv6 address without brackets has no ports.
            None if text.matches(':').count() > 1 => (text, None),
            None => text.split_once(':').map_or((text, None), |(network, ports)| (network, Some(ports))),
        };
        let (address, prefix) = network.split_once('/').map_or((network, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| not())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse::<u8>().ok().filter(|prefix| *prefix <= most).ok_or_else(|| {
                    wrong(
                        NET,
                        format!("{digits} bits are more than an address has"),
                        "Write at most /32, or /128 for IPv6.",
                    )
                })?
            }
            Some(_) => return Err(not()),
        };
        let rule = NetRule { address, prefix, ports: of_ports.map_or(Ok(Ports::all()), |text| ports(NET, text))? };
        rule.check().map(|()| rule)
    }
}

impl NetRule {
    /// As the relay writes it: IPv4 within IPv6.
    pub(crate) fn bytes(&self) -> ([u8; 16], u32) {
        match self.address {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), u32::from(self.prefix) + 96),
            IpAddr::V6(v6) => (v6.octets(), self.prefix.into()),
        }
    }

    fn check(&self) -> Result<()> {
        let (bytes, prefix) = self.bytes();
        let number = u128::from_be_bytes(bytes);
        let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
        if number & !mask != 0 {
            let first = Ipv6Addr::from(number & mask);
            let first = first.to_ipv4_mapped().filter(|_| self.address.is_ipv4()).map_or(IpAddr::V6(first), IpAddr::V4);
            let message = format!("{}/{} has bits behind the network", self.address, self.prefix);
            return Err(wrong(NET, message, &format!("Write {first}/{}, or {} alone.", self.prefix, self.address)));
        }
        let hint = "Leave it out: the sandbox has a loopback of its own there, and no rule leads to the host's.";
        if self.address.is_loopback() {
            return Err(wrong(NET, format!("{} is a loopback address", self.address), hint));
        }
        if let IpAddr::V6(v6) = self.address
            && let (Some(v4), true) = (v6.to_ipv4_mapped(), self.prefix >= 96)
        {
            let message = format!("{v6} is an IPv4 address in the form of IPv6");
            return Err(wrong(NET, message, &format!("Write {v4}.")));
        }
        Ok(())
    }
}

impl fmt::Display for NetRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NetRule { address, prefix, ports } = self;
        match (address, *ports == Ports::all()) {
            (_, true) => write!(f, "{address}/{prefix}"),
            (IpAddr::V4(_), false) => write!(f, "{address}/{prefix}:{ports}"),
            (IpAddr::V6(_), false) => write!(f, "[{address}/{prefix}]:{ports}"),
        }
    }
}

impl FromStr for HostRule {
    type Err = Error;

    fn from_str(text: &str) -> Result<HostRule> {
        let (name, of_ports) = text.split_once(':').map_or((text, None), |(name, ports)| (name, Some(ports)));
        let is_address = text.parse::<IpAddr>().is_ok() || name.parse::<IpAddr>().is_ok() || text.starts_with('[');
        if is_address {
            let hint = "Use `allow_net` or `deny_net` for addresses.";
            return Err(wrong(HOST, format!("{text:?} is an address and not a name"), hint));
        }
        if of_ports.is_some_and(|rest| rest.starts_with("//")) {
            let hint = "Write the name alone: example.org, or with a port: example.org:8443.";
            return Err(wrong(HOST, format!("{text:?} is a URL and not a name"), hint));
        }
        let name = host_name(name)?;
        Ok(HostRule { name, ports: of_ports.map(|text| ports(HOST, text)).transpose()? })
    }
}

/// The name as DNS has it, checked.
fn host_name(text: &str) -> Result<String> {
    if !text.is_ascii() {
        let hint = "Write it in the ASCII form of DNS: xn--bcher-kva.example for bücher.example.";
        return Err(wrong(HOST, format!("{text:?} has letters beyond ASCII"), hint));
    }
    let name = text.to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let plain = name.strip_prefix("*.").unwrap_or(name);
    if plain.len() > 253 || plain.split('.').any(|label| label.len() > 63) {
        let hint = "Write a name of at most 253 letters, with at most 63 between two dots.";
        return Err(wrong(HOST, format!("a name of {} letters is too long", plain.len()), hint));
    }
    let fine = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if !plain.split('.').all(fine) {
        return Err(wrong(HOST, format!("{text:?} is not the name of a host"), HOST_HINT));
    }
    Ok(name.to_owned())
}

impl HostRule {
    /// What is allowed, or denied, and whether anything but TLS may go to port 443.
    pub(crate) fn ports(&self, allow: bool) -> (Ports, u32) {
        match &self.ports {
            // Said for itself.
            Some(ports) if ports.tcp && !ports.udp => (ports.clone(), PLAIN),
            // DNS names are for TCP unless UDP is meant.
            Some(ports) if ports.udp && ports.tcp && allow => (Ports { udp: false, ..ports.clone() }, 0),
            Some(ports) => (ports.clone(), 0),
            None if allow => (Ports { ranges: vec![(80, 80), (443, 443)], tcp: true, udp: false }, 0),
            None => (Ports::all(), 0),
        }
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ports {
            Some(ports) => write!(f, "{}:{ports}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The rules of a policy, in the order of their numbers.
pub(crate) struct Rules<'a> {
    pub(crate) policy: &'a Policy,
}

impl Rules<'_> {
    /// Each in words that are an option again.
    pub(crate) fn texts(&self) -> Vec<String> {
        let policy = self.policy;
        let net = |name: &str, rules: &[NetRule]| rules.iter().map(|rule| format!("{name} {rule}")).collect::<Vec<_>>();
        let host =
            |name: &str, rules: &[HostRule]| rules.iter().map(|rule| format!("{name} {rule}")).collect::<Vec<_>>();
        [
            net("allow-net", &policy.allow_net),
            net("deny-net", &policy.deny_net),
            host("allow-host", &policy.allow_host),
            host("deny-host", &policy.deny_host),
            policy.host_port.iter().map(|rule| format!("host-port {rule}")).collect(),
        ]
        .concat()
    }

    /// Whether the public internet may be reached: it was asked for, and no names were listed.
    pub(crate) fn is_public(&self) -> bool {
        self.policy.network.has_relay() && self.policy.allow_host.is_empty()
    }
}

/// Rules that do not go together with the rest.
pub(crate) fn check(policy: &Policy) -> Result<()> {
    let given = [
        ("allow_host", policy.allow_host.len()),
        ("allow_net", policy.allow_net.len()),
        ("deny_host", policy.deny_host.len()),
        ("deny_net", policy.deny_net.len()),
    ];
    policy.allow_net.iter().chain(&policy.deny_net).try_for_each(NetRule::check)?;
    for rule in policy.allow_host.iter().chain(&policy.deny_host) {
        host_name(&rule.name)?;
    }
    if let Some((option, _)) = given.iter().find(|(_, count)| *count > 0)
        && !policy.network_in_effect().has_relay()
    {
        let message = format!("makes no sense with the network `{}`", policy.network.word());
        return Err(wrong(option, message, "Set `network` to user, or leave the rule out."));
    }
    if given.iter().map(|(_, count)| count).sum::<usize>() > MOST_RULES / 4 {
        let message = format!("there are more than {} rules", MOST_RULES / 4);
        return Err(wrong("allow_net", message, "Put networks together, or use *. for the names below one."));
    }
    if policy.network_in_effect().has_relay() && !policy.isolation.has_namespaces() {
        let message = "needs namespaces: without them a program would use the host's network past every rule";
        return Err(wrong("network", message, "Leave `isolation` out, or set `network` to none."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_for_networks_are_read_and_shown() {
        for (text, shown) in [
            ("10.1.0.0/16", "10.1.0.0/16"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.1.2.3:5432", "10.1.2.3/32:5432"),
            ("10.0.0.0/8:80,443,8000-8080", "10.0.0.0/8:80,443,8000-8080"),
            ("10.0.0.1:53/udp", "10.0.0.1/32:53/udp"),
            ("10.0.0.1:*/tcp", "10.0.0.1/32:*/tcp"),
            ("10.0.0.1:*", "10.0.0.1/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("[2001:db8::1]", "2001:db8::1/128"),
            ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            let rule: NetRule = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(rule.to_string(), shown);
            assert_eq!(shown.parse::<NetRule>().unwrap(), rule);
        }
        for text in [
            "",
            "example.org",
            "10.1.0.0/33",
            "10.1.0.0/",
            "10.1.0.0/+8",
            "10.1.0.1/16",
            "10.1.0.0/16:0",
            "10.1.0.0:65536",
            "10.1.0.0:",
            "10.1.0.0:80-",
            "10.1.0.0:90-80",
            "10.1.0.0:80/icmp",
            "10.1.0.0:-1",
            "127.0.0.1",
            "127.0.0.0/8",
            "::1",
            "[2001:db8::1",
            "[2001:db8::1]443",
            "::ffff:10.0.0.1",
            "2001:db8::1/64",
            "10.1",
            "010.1.2.3",
            "10.0.0.0/8\0",
        ] {
            let error = text.parse::<NetRule>().expect_err(text);
            assert!(error.kind() == "config" && !error.hint().is_empty(), "{text}: {error}");
        }
    }

    #[test]
    fn rules_for_hosts_are_read_and_shown() {
        for (text, shown) in [
            ("PyPI.org", "pypi.org"),
            ("pypi.org.", "pypi.org"),
            ("*.pythonhosted.org:443", "*.pythonhosted.org:443"),
            ("github.com:22", "github.com:22"),
            ("a_b.example:*", "a_b.example:*"),
            ("example.org:443/udp", "example.org:443/udp"),
            ("db", "db"),
        ] {
            let rule: HostRule = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(rule.to_string(), shown);
            assert_eq!(shown.parse::<HostRule>().unwrap(), rule);
        }
        let long = format!("{}.org", "a".repeat(64));
        let longer = format!("{}org", "abcdefg.".repeat(40));
        for text in [
            "",
            "*",
            "*.",
            ".org",
            "a..org",
            "a b",
            "bücher.example",
            "a.org:0",
            "a.org:65536",
            "a.org:",
            "10.0.0.1",
            "10.0.0.1:80",
            "::1",
            "[::1]:80",
            "a.*.org",
            "**.org",
            "a/b",
            "http://a.org",
            "a\0b",
            &long,
            &longer,
        ] {
            let error = text.parse::<HostRule>().expect_err(text);
            assert!(error.kind() == "config" && !error.hint().is_empty(), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_without_ports_allows_the_web_and_denies_all() {
        let rule: HostRule = "a.org".parse().unwrap();
        let (ports, _) = rule.ports(true);
        assert_eq!((ports.spans(), ports.protocols()), (vec![(80, 80), (443, 443)], TCP));
        assert_eq!(rule.ports(false).0, Ports::all());
        assert_eq!("a.org:443/tcp".parse::<HostRule>().unwrap().ports(true).1, PLAIN);
        assert_eq!("a.org:443".parse::<HostRule>().unwrap().ports(true).0.protocols(), TCP);
        assert_eq!("a.org:443/udp".parse::<HostRule>().unwrap().ports(true).0.protocols(), UDP);
    }
}
