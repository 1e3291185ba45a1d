//! What may be reached: rules for addresses and names, and the addresses to which names have led. No system calls.

use sandcell_protocol::network::{
    HOST_IPV4, HOST_NAME, MOST_RULES, NO_RULE, PLAIN, Relay, TCP, UDP, WHY_DENIED, WHY_HOST, WHY_METADATA, WHY_NONE,
    WHY_PRIVATE, WHY_UNLISTED,
};

use crate::packet::{ipv4, mapped};

#[derive(Clone, Copy)]
struct Net {
    rule: u32,
    allow: bool,
    address: [u8; 16],
    prefix: u32,
    ports: Ports,
}

#[derive(Clone, Copy)]
struct Host {
    rule: u32,
    allow: bool,
    /// None only where there is no rule: so that all of it is zero at first.
    name: Option<&'static [u8]>,
    ports: Ports,
}

#[derive(Clone, Copy)]
struct Ports {
    first: u16,
    last: u16,
    protocols: u32,
}

impl Ports {
    fn hold(&self, port: u16, protocol: u32) -> bool {
        (self.first..=self.last).contains(&port) && self.protocols & protocol != 0
    }
}

const NO_PORTS: Ports = Ports { first: 0, last: 0, protocols: 0 };
const NO_NET: Net = Net { rule: 0, allow: false, address: [0; 16], prefix: 0, ports: NO_PORTS };
const NO_HOST: Host = Host { rule: 0, allow: false, name: None, ports: NO_PORTS };

/// A port of the host's own loopback.
#[derive(Clone, Copy)]
struct HostPort {
    rule: u32,
    port: u16,
    protocol: u32,
}

/// The proxy by which connections go.
#[derive(Clone, Copy)]
pub struct Proxy {
    pub address: [u8; 16],
    pub port: u16,
    pub kind: u32,
}

pub struct Policy {
    pub public: bool,
    pub proxy: Option<Proxy>,
    host_ports: [HostPort; MOST_RULES],
    host_port_count: usize,
    nets: [Net; MOST_RULES],
    net_count: usize,
    hosts: [Host; MOST_RULES],
    host_count: usize,
}

/// What is decided of a target, why, and by which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub why: u8,
    pub rule: u32,
    /// It is allowed only as a part of the public internet, to which the host's own addresses do not belong.
    pub if_not_own: bool,
}

impl Decision {
    pub const fn refused(why: u8, rule: u32) -> Decision {
        Decision { allowed: false, why, rule, if_not_own: false }
    }

    const fn allowed(rule: u32, if_not_own: bool) -> Decision {
        Decision { allowed: true, why: WHY_NONE, rule, if_not_own }
    }
}

impl Policy {
    pub const fn new() -> Policy {
        Policy {
            public: false,
            proxy: None,
            host_ports: [HostPort { rule: 0, port: 0, protocol: 0 }; MOST_RULES],
            host_port_count: 0,
            nets: [NO_NET; MOST_RULES],
            net_count: 0,
            hosts: [NO_HOST; MOST_RULES],
            host_count: 0,
        }
    }

    /// Takes a record of the policy; `None` where it makes no sense.
    pub fn take(&mut self, record: Relay<'static>) -> Option<()> {
        let ports = |first: u32, last: u32, protocols: u32| {
            Some(Ports { first: u16::try_from(first).ok()?, last: u16::try_from(last).ok()?, protocols })
        };
        match record {
            Relay::Public {} => self.public = true,
            Relay::Proxy { address, port, kind } => {
                let port = u16::try_from(port).ok()?;
                self.proxy = Some(Proxy { address: address.try_into().ok()?, port, kind });
            }
            Relay::HostPort { rule, port, protocol } => {
                let port = u16::try_from(port).ok()?;
                *self.host_ports.get_mut(self.host_port_count)? = HostPort { rule, port, protocol };
                self.host_port_count += 1;
            }
            Relay::Net { rule, allow, address, prefix, first, last, protocols } if prefix <= 128 => {
                let ports = ports(first, last, protocols)?;
                let net = Net { rule, allow: allow != 0, address: address.try_into().ok()?, prefix, ports };
                *self.nets.get_mut(self.net_count)? = net;
                self.net_count += 1;
            }
            Relay::Host { rule, allow, name, first, last, protocols } => {
                let ports = ports(first, last, protocols)?;
                *self.hosts.get_mut(self.host_count)? = Host { rule, allow: allow != 0, name: Some(name), ports };
                self.host_count += 1;
            }
            _ => return None,
        }
        Some(())
    }

    fn net(&self, allow: bool, address: &[u8; 16], port: u16, protocol: u32) -> Option<&Net> {
        let fits = |net: &&Net| {
            net.allow == allow && net.ports.hold(port, protocol) && begins_alike(&net.address, address, net.prefix)
        };
        self.nets[..self.net_count].iter().find(fits)
    }

    /// Whether the literal address may be reached; names are another matter.
    pub fn decide(&self, address: &[u8; 16], port: u16, protocol: u32) -> Decision {
        let inner = embedded(address);
        for address in [Some(*address), inner].iter().flatten() {
            if let Some(net) = self.net(false, address, port, protocol) {
                return Decision::refused(WHY_DENIED, net.rule);
            }
        }
        if self.is_host(address) {
            // No rule for addresses speaks of it: it stands for the host's own loopback.
            let fits = |one: &&HostPort| (one.port, one.protocol) == (port, protocol);
            let found = self.host_ports[..self.host_port_count].iter().find(fits);
            return found.map_or(Decision::refused(WHY_HOST, NO_RULE), |one| Decision::allowed(one.rule, false));
        }
        let metadata = is_metadata(address) || inner.is_some_and(|inner| is_metadata(&inner));
        // A rule for all of IPv6 does not speak of IPv4 in another form, nor one for a network of the services that have
        // credentials of the machine.
        let least = if metadata {
            128
        } else if inner.is_some() {
            16
        } else {
            0
        };
        if let Some(net) = self.net(true, address, port, protocol)
            && net.prefix >= least
        {
            return Decision::allowed(net.rule, false);
        }
        if metadata {
            return Decision::refused(WHY_METADATA, NO_RULE);
        }
        if !is_public(address) {
            return Decision::refused(WHY_PRIVATE, NO_RULE);
        }
        if self.public { Decision::allowed(NO_RULE, true) } else { Decision::refused(WHY_UNLISTED, NO_RULE) }
    }

    /// Whether it stands for the host's own loopback. Without a port there it is an address like others.
    fn is_host(&self, address: &[u8; 16]) -> bool {
        self.host_port_count > 0 && *address == mapped(HOST_IPV4)
    }

    /// The proxy by which an address is reached: all but the host's own loopback.
    pub fn proxy_to(&self, address: &[u8; 16]) -> Option<Proxy> {
        self.proxy.filter(|_| !self.is_host(address))
    }

    /// What is dialled for an address that was allowed.
    pub fn outside(&self, address: &[u8; 16]) -> [u8; 16] {
        if self.is_host(address) { mapped([127, 0, 0, 1]) } else { *address }
    }

    /// The rule for a name at a port; `port` 0: at any.
    fn host(&self, allow: bool, name: &[u8], port: u16, protocol: u32) -> Option<&Host> {
        let whole =
            |ports: &Ports| ports.first == 0 && ports.last == u16::MAX && ports.protocols & (TCP | UDP) == TCP | UDP;
        let fits = |host: &&Host| {
            host.allow == allow
                && host.name.is_some_and(|pattern| matches_name(pattern, name))
                && match port {
                    // A name is looked up if it may be of use, and is not denied altogether.
                    0 => allow || whole(&host.ports),
                    port => host.ports.hold(port, protocol),
                }
        };
        self.hosts[..self.host_count].iter().find(fits)
    }

    /// Whether a name may be looked up.
    pub fn decide_lookup(&self, name: &[u8]) -> Decision {
        if let Some(host) = self.host(false, name, 0, 0) {
            return Decision::refused(WHY_DENIED, host.rule);
        }
        match self.host(true, name, 0, 0) {
            None if self.host_port_count > 0 && name == HOST_NAME.as_bytes() => Decision::allowed(NO_RULE, false),
            Some(host) => Decision::allowed(host.rule, true),
            None if self.public => Decision::allowed(NO_RULE, true),
            None => Decision::refused(WHY_UNLISTED, NO_RULE),
        }
    }

    /// Whether a name that led to an address lets a port of it be reached. `None`: no rule speaks of it.
    pub fn decide_name(&self, name: &[u8], port: u16, protocol: u32) -> Option<Decision> {
        if let Some(host) = self.host(false, name, port, protocol) {
            return Some(Decision::refused(WHY_DENIED, host.rule));
        }
        self.host(true, name, port, protocol).map(|host| Decision::allowed(host.rule, true))
    }

    /// Whether a name may lead to an address: the public internet, and what a rule allows by itself.
    pub fn may_lead_to(&self, address: &[u8; 16]) -> bool {
        let denied = |protocol| self.net(false, address, 0, protocol).is_some();
        let listed = self.nets[..self.net_count]
            .iter()
            .any(|net| net.allow && begins_alike(&net.address, address, net.prefix) && !is_metadata(address));
        !denied(TCP) && (listed || self.is_host(address) || is_public(address) && !is_metadata(address))
    }

    /// Whether what is not TLS may go to port 443 of a name.
    pub fn allows_plain(&self, rule: u32) -> bool {
        self.hosts[..self.host_count].iter().any(|host| host.rule == rule && host.ports.protocols & PLAIN != 0)
    }

    /// Whether names matter: then those in the handshakes of TLS are looked at.
    pub fn has_names(&self) -> bool {
        self.host_count > 0
    }
}

fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.strip_prefix(b"*.") {
        Some(rest) => name.len() > rest.len() + 1 && name.ends_with(rest) && name[name.len() - rest.len() - 1] == b'.',
        None => pattern == name,
    }
}

fn begins_alike(one: &[u8; 16], other: &[u8; 16], bits: u32) -> bool {
    let shift = 128 - bits;
    let number = |address: &[u8; 16]| u128::from_be_bytes(*address).checked_shr(shift).unwrap_or(0);
    number(one) == number(other)
}

fn within(address: &[u8; 16], words: &[u16], bits: u32) -> bool {
    let mut network = [0u8; 16];
    for (at, word) in words.iter().enumerate() {
        network[2 * at..2 * at + 2].copy_from_slice(&word.to_be_bytes());
    }
    begins_alike(&network, address, bits)
}

/// The IPv4 address for which one of IPv6 stands: NAT64, 6to4, and the forms of old.
fn embedded(address: &[u8; 16]) -> Option<[u8; 16]> {
    let at = |at: usize| Some(mapped([address[at], address[at + 1], address[at + 2], address[at + 3]]));
    match address {
        _ if ipv4(address).is_some() => None,
        _ if within(address, &[0x64, 0xff9b], 96) || within(address, &[0x64, 0xff9b, 1], 48) => at(12),
        _ if within(address, &[0x2002], 16) => at(2),
        _ if within(address, &[0], 96) || within(address, &[0, 0, 0, 0, 0xffff, 0], 96) => at(12),
        _ => None,
    }
}

/// Services that hand out credentials of the machine, or configure it.
fn is_metadata(address: &[u8; 16]) -> bool {
    const SERVICES: [[u8; 4]; 7] = [
        [169, 254, 169, 254],
        [169, 254, 169, 253],
        [169, 254, 170, 2],
        [169, 254, 170, 23],
        [100, 100, 100, 200],
        [168, 63, 129, 16],
        [192, 0, 0, 192],
    ];
    match ipv4(address) {
        Some(address) => SERVICES.contains(&address),
        None => {
            within(address, &[0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128)
                || within(address, &[0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128)
                || within(address, &[0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128)
        }
    }
}

/// Whether it is an address of the public internet, by the registries of IANA for special purposes.
pub fn is_public(address: &[u8; 16]) -> bool {
    let Some([a, b, c, _]) = ipv4(address) else {
        let special = within(address, &[0x2001, 0], 23)
            || within(address, &[0x2001, 0xdb8], 32)
            || within(address, &[0x2002], 16)
            || within(address, &[0x3fff], 20);
        return within(address, &[0x2000], 3) && !special;
    };
    !matches!(
        (a, b, c),
        (0 | 10 | 127, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            | (224.., ..)
    )
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
