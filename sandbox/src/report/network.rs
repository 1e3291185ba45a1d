//! The account of a sandbox's connections, as the relay has kept it. The relay is not trusted further than its table is read:
//! every number and name in it is checked.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::wire::network::{
    ENTRIES, Entry, Table, VERDICT_ALLOWED, VERDICT_FAILED, VERDICT_INBOUND, VERDICT_REFUSED, WHY_DENIED, WHY_FULL,
    WHY_HOST, WHY_METADATA, WHY_NAME_PRIVATE, WHY_PRIVATE, WHY_PROXY, WHY_TLS, WHY_UNLISTED,
};

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It was made.
    Allowed,
    /// The policy does not allow it.
    Refused,
    /// It is allowed, and the peer could not be reached.
    Failed,
}

impl Verdict {
    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Allowed => "allowed",
            Verdict::Refused => "refused",
            Verdict::Failed => "failed",
        }
    }
}

/// Connections of one kind to one target.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connection {
    /// The name that led there, or that was asked for, where there was one.
    pub host: Option<String>,
    /// The address; none for a name that was not looked up.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// `tcp`, `udp`, or `dns` for a name.
    pub protocol: &'static str,
    /// What became of it.
    pub verdict: Verdict,
    /// The rule that decided, as an option of the program: `allow-host pypi.org`.
    pub rule: Option<String>,
    /// Why it was refused or failed.
    pub why: Option<String>,
    /// How often.
    pub count: u64,
    /// Bytes to the peer.
    pub bytes_sent: u64,
    /// Bytes from the peer.
    pub bytes_received: u64,
}

impl Connection {
    /// `pypi.org (151.101.0.223) port 443/tcp`.
    pub fn target(&self) -> String {
        let of = match (&self.host, self.address) {
            (Some(host), Some(address)) => format!("{host} ({address})"),
            (Some(host), None) => host.clone(),
            (None, Some(address)) => address.to_string(),
            (None, None) => "?".to_owned(),
        };
        if self.protocol == "dns" {
            format!("the name {of}")
        } else {
            format!("{of} port {}/{}", self.port, self.protocol)
        }
    }
}

/// A port of the sandbox that is published on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Where the host listens.
    pub address: IpAddr,
    /// The port of the host: the one that was chosen, where 0 was asked for.
    pub host_port: u16,
    /// The port of the sandbox.
    pub cell_port: u16,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// How many connections, or clients of UDP, have come so far. Counted in reports.
    pub connections: u64,
    /// Bytes that the sandbox has sent to them.
    pub bytes_sent: u64,
    /// Bytes that it was sent.
    pub bytes_received: u64,
}

impl Published {
    /// Where a client on the host connects to. An address that stands for all is the loopback there.
    pub fn host(&self) -> SocketAddr {
        let address = match self.address {
            IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            address => address,
        };
        SocketAddr::new(address, self.host_port)
    }
}

/// `127.0.0.1:8080->80/tcp`.
impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{}/{}", SocketAddr::new(self.address, self.host_port), self.cell_port, self.protocol)
    }
}

/// What the programs of a sandbox with the network `user` have reached, and what was refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NetworkReport {
    /// Each target once for each thing that became of it, 256 at most.
    pub connections: Vec<Connection>,
    /// The published ports, and what came by them.
    pub published: Vec<Published>,
    /// Connections and refusals beyond these.
    pub more: u64,
    /// The relay ended before the sandbox did: from then on nothing could be reached.
    pub lost: bool,
}

impl NetworkReport {
    /// What the policy has refused.
    pub fn refused(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(|connection| connection.verdict == Verdict::Refused)
    }
}

macro_rules! at {
    ($field:ident) => {
        std::mem::offset_of!(Entry, $field)
    };
}

/// The bytes of a table; the rules and the published ports by their numbers.
pub(crate) fn read(table: &[u8], rules: &[String], mut published: Vec<Published>, lost: bool) -> NetworkReport {
    let at = Bytes(table);
    let used = (at.word(std::mem::offset_of!(Table, used)) as usize).min(ENTRIES);
    let entry = |index: usize| {
        let start = std::mem::offset_of!(Table, entries) + index * size_of::<Entry>();
        table.get(start..start + size_of::<Entry>())
    };
    for of in (0..used).filter_map(entry).map(Bytes).filter(|of| of.byte(at!(verdict)) == VERDICT_INBOUND) {
        if let Some(port) = published.get_mut(of.word(at!(rule)) as usize) {
            port.connections = of.long(at!(count));
            (port.bytes_sent, port.bytes_received) = (of.long(at!(sent)), of.long(at!(received)));
        }
    }
    NetworkReport {
        connections: (0..used).filter_map(entry).filter_map(|entry| connection(entry, rules)).collect(),
        published,
        more: at.long(std::mem::offset_of!(Table, more)),
        lost,
    }
}

/// Fields of what another process has written.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
    }

    fn byte(&self, at: usize) -> u8 {
        self.array::<1>(at)[0]
    }

    fn half(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.array(at))
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.array(at))
    }

    fn long(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.array(at))
    }
}

fn connection(entry: &[u8], rules: &[String]) -> Option<Connection> {
    let of = Bytes(entry);
    let verdict = match of.byte(at!(verdict)) {
        VERDICT_ALLOWED => Verdict::Allowed,
        VERDICT_REFUSED => Verdict::Refused,
        VERDICT_FAILED => Verdict::Failed,
        _ => return None,
    };
    let address = of.array::<16>(at!(address));
    let no_address = address == [0; 16];
    let v6 = Ipv6Addr::from(address);
    let name = entry.get(at!(name)..at!(name) + usize::from(of.byte(at!(name_length))))?;
    let fine = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if !name.iter().all(fine) {
        return None;
    }
    let why = of.byte(at!(why));
    let errno = of.half(at!(errno));
    let host = (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned());
    let protocol = match of.byte(at!(protocol)) {
        _ if host.is_some() && (no_address || why == WHY_NAME_PRIVATE) => "dns",
        6 => "tcp",
        17 => "udp",
        _ => return None,
    };
    Some(Connection {
        host,
        address: (!no_address).then(|| v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)),
        port: of.half(at!(port)),
        protocol,
        verdict,
        rule: rules.get(of.word(at!(rule)) as usize).cloned(),
        why: match verdict {
            Verdict::Allowed => None,
            Verdict::Refused => Some(reason(why).to_owned()),
            Verdict::Failed => Some(nix::errno::Errno::from_raw(errno.into()).desc().to_owned()),
        },
        count: of.long(at!(count)),
        bytes_sent: of.long(at!(sent)),
        bytes_received: of.long(at!(received)),
    })
}

fn reason(why: u8) -> &'static str {
    match why {
        WHY_DENIED => "a rule denies it",
        WHY_UNLISTED => "no rule allows it",
        WHY_PRIVATE => "it is not on the public internet, and no allow-net names it",
        WHY_METADATA => "it is a metadata service, and no allow-net names this one address",
        WHY_HOST => "it is an address of the host itself, and no allow-net or host-port names it",
        WHY_FULL => "there are too many connections at once",
        WHY_TLS => "the TLS handshake does not name a host that a rule allows there",
        WHY_PROXY => "datagrams do not go by the upstream proxy",
        WHY_NAME_PRIVATE => {
            "the name leads to an address that is not on the public internet, and no allow-net names it"
        }
        _ => "it is not allowed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[Vec<u8>], used: u32) -> Vec<u8> {
        let mut table = vec![0; size_of::<Table>()];
        table[..4].copy_from_slice(&used.to_ne_bytes());
        for (index, entry) in entries.iter().enumerate() {
            let start = std::mem::offset_of!(Table, entries) + index * size_of::<Entry>();
            table[start..start + entry.len()].copy_from_slice(entry);
        }
        table
    }

    fn entry(name: &str, address: &str, verdict: u8) -> Vec<u8> {
        let mut entry = vec![0; size_of::<Entry>()];
        let address: Ipv6Addr = address.parse().unwrap();
        entry[at!(address)..][..16].copy_from_slice(&address.octets());
        entry[at!(port)..][..2].copy_from_slice(&443u16.to_ne_bytes());
        (entry[at!(protocol)], entry[at!(verdict)], entry[at!(why)]) = (6, verdict, WHY_UNLISTED);
        entry[at!(name_length)] = name.len() as u8;
        entry[at!(name)..][..name.len()].copy_from_slice(name.as_bytes());
        entry[at!(count)..][..8].copy_from_slice(&3u64.to_ne_bytes());
        entry
    }

    #[test]
    fn a_table_is_read_by_its_fields() {
        let bytes =
            table(&[entry("pypi.org", "::ffff:8.8.8.8", VERDICT_REFUSED), entry("x.org", "::", VERDICT_REFUSED)], 2);
        let report = read(&bytes, &["allow-host pypi.org".to_owned()], Vec::new(), false);
        let first = &report.connections[0];
        assert_eq!((first.host.as_deref(), first.address), (Some("pypi.org"), Some("8.8.8.8".parse().unwrap())));
        assert_eq!((first.port, first.protocol, first.count, first.rule.is_some()), (443, "tcp", 3, true));
        assert_eq!(first.target(), "pypi.org (8.8.8.8) port 443/tcp");
        assert_eq!(report.connections[1].target(), "the name x.org");
        assert_eq!(report.refused().count(), 2);
    }

    #[test]
    fn a_hostile_table_is_read_without_harm() {
        let mut wrong = entry("a\x1b[2J.org", "::1", VERDICT_ALLOWED);
        assert!(
            read(&table(std::slice::from_ref(&wrong), 1), &[], Vec::new(), false).connections.is_empty(),
            "a name for a terminal"
        );
        wrong[at!(name_length)] = 0;
        assert_eq!(
            read(&table(std::slice::from_ref(&wrong), u32::MAX), &[], Vec::new(), false).connections.len(),
            1,
            "the control"
        );
        for length in [0, 3, 16, 100, 1000] {
            read(&table(std::slice::from_ref(&wrong), u32::MAX)[..length], &[], Vec::new(), false);
        }
        let mut state = 1u64;
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..2000)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            read(&bytes, &[], Vec::new(), false);
        }
    }
}
