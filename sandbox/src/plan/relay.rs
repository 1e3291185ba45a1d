//! What the relay is told: the rules as numbers, the filter of its system calls, and whom to ask for names.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::path::Path;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::error::{Failure, Result};
use crate::policy::rules::Rules;
use crate::policy::{HostRule, NetRule, Policy, PublishRule, UpstreamProxy};
use crate::report::PlannedStep;
use crate::sys::beneath;
use crate::wire::network::{HOST_IPV4, HOST_NAME, MOST_RULES, PROXY_HTTP, PROXY_SOCKS5, Relay};

/// The calls that a relay makes once it runs. No file, no program, no signal to another process.
const CALLS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_close,
    crate::rawsys::nr::WAIT_EPOLL as i64,
    libc::SYS_epoll_ctl,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_shutdown,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_exit_group,
];

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

/// And with published ports: addresses for the sockets that it makes inside.
const INBOUND: &[libc::c_long] = &[libc::SYS_bind];

/// Its filter: any other call ends it.
fn filter(inbound: bool) -> Result<Vec<u8>> {
    let failed = |error: seccompiler::BackendError| {
        Failure::new("relay-filter", "relay", format!("cannot compile the relay's filter: {error}")).setup()
    };
    let family = |family: libc::c_int| {
        let family = u64::from(family.cast_unsigned());
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family)?;
        SeccompRule::new(vec![condition])
    };
    let more = if inbound { INBOUND } else { &[] };
    let mut rules: BTreeMap<_, _> = CALLS.iter().chain(more).map(|call| (*call, Vec::new())).collect();
    let sockets = vec![family(libc::AF_INET).map_err(failed)?, family(libc::AF_INET6).map_err(failed)?];
    rules.insert(libc::SYS_socket, sockets);
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, ARCH);
    let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(failed)?;
    Ok(program
        .iter()
        .flat_map(|instruction| {
            let [low, high] = instruction.code.to_ne_bytes();
            let [a, b, c, d] = instruction.k.to_ne_bytes();
            [low, high, instruction.jt, instruction.jf, a, b, c, d]
        })
        .collect())
}

/// Everything in one message. `published`: with those of the image.
pub(crate) fn config(policy: &Policy, published: &[PublishRule]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    if let Some(proxy) = &policy.upstream_proxy {
        let (address, kind) = (proxy_address(proxy)?, if proxy.socks5 { PROXY_SOCKS5 } else { PROXY_HTTP });
        Relay::Proxy { address: &bytes(address), port: proxy.port.into(), kind }.write(&mut out);
    }
    Relay::Filter { program: &filter(!published.is_empty())? }.write(&mut out);
    for rule in published {
        Relay::Publish { port: rule.cell_port.into(), protocol: rule.protocol() }.write(&mut out);
    }
    let rules = Rules { policy };
    if rules.is_public() {
        Relay::Public {}.write(&mut out);
    }
    let mut number = 0;
    for (allow, list) in [(true, &policy.allow_net), (false, &policy.deny_net)] {
        list.iter().for_each(|rule| net(rule, &mut number, allow, &mut out));
    }
    for (allow, list) in [(true, &policy.allow_host), (false, &policy.deny_host)] {
        list.iter().for_each(|rule| host(rule, &mut number, allow, &mut out));
    }
    for rule in &policy.host_port {
        Relay::HostPort { rule: number, port: rule.port.into(), protocol: rule.protocol() }.write(&mut out);
        number += 1;
    }
    if !policy.host_port.is_empty() {
        Relay::Known { name: HOST_NAME.as_bytes(), address: &bytes(Ipv4Addr::from(HOST_IPV4).into()) }.write(&mut out);
    }
    for server in servers() {
        Relay::Server { address: &bytes(server) }.write(&mut out);
    }
    for (name, address) in known() {
        Relay::Known { name: name.as_bytes(), address: &bytes(address) }.write(&mut out);
    }
    Ok(out)
}

/// What the relay will do, in words.
pub(crate) fn explain(policy: &Policy, published: &[PublishRule]) -> Vec<PlannedStep> {
    if !policy.network_in_effect().has_relay() {
        return Vec::new();
    }
    let step = |name: &str, subject: String, words: &str| PlannedStep {
        name: name.to_owned(),
        subject,
        words: words.to_owned(),
    };
    let mut steps = vec![step(
        "relay",
        String::new(),
        "start the relay beside it, in the host's network, behind a filter of its own",
    )];
    let allowed = "may be reached";
    let denied = "is refused, whatever else is allowed";
    steps.extend(policy.deny_net.iter().map(|rule| step("network-rule", rule.to_string(), denied)));
    steps.extend(policy.deny_host.iter().map(|rule| step("network-rule", rule.to_string(), denied)));
    steps.extend(policy.allow_net.iter().map(|rule| step("network-rule", rule.to_string(), allowed)));
    for rule in &policy.allow_host {
        let words = match rule.ports {
            Some(_) => "may be reached, at the public addresses to which the name leads",
            None => "may be reached at TCP ports 80 and 443, at the public addresses to which the name leads",
        };
        steps.push(step("network-rule", rule.to_string(), words));
    }
    for rule in &policy.host_port {
        steps.push(step(
            "host-port",
            rule.to_string(),
            "of the host's own 127.0.0.1 may be reached, as host.containers.internal",
        ));
    }
    for rule in published {
        let words = match rule.host_port {
            0 => "is published: host address, a free port, port of the sandbox",
            _ => "is published: host address and port, port of the sandbox",
        };
        steps.push(step("publish", rule.to_string(), words));
    }
    if let Some(proxy) = &policy.upstream_proxy {
        let words = "take all connections by this proxy, which looks names up; no datagrams";
        steps.push(step("upstream-proxy", proxy.to_string(), words));
    }
    let rest = if (Rules { policy }).is_public() {
        "the public internet may be reached; private, special and the host's own addresses are refused"
    } else {
        "is refused; names that no rule allows are not looked up"
    };
    steps.push(step("network-rule", "everything else".to_owned(), rest));
    steps
}

fn net(rule: &NetRule, number: &mut u32, allow: bool, out: &mut Vec<u8>) {
    let (address, prefix) = rule.bytes();
    for (first, last) in rule.ports.spans() {
        let (first, last, protocols) = (first.into(), last.into(), rule.ports.protocols());
        Relay::Net { rule: *number, allow: allow.into(), address: &address, prefix, first, last, protocols }.write(out);
    }
    *number += 1;
}

fn host(rule: &HostRule, number: &mut u32, allow: bool, out: &mut Vec<u8>) {
    let (ports, plain) = rule.ports(allow);
    for (first, last) in ports.spans() {
        let (first, last, protocols) = (first.into(), last.into(), ports.protocols() | plain);
        Relay::Host { rule: *number, allow: allow.into(), name: rule.name.as_bytes(), first, last, protocols }
            .write(out);
    }
    *number += 1;
}

fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Where the proxy is, as programs of the host find it: the first of its addresses, IPv4 before IPv6.
fn proxy_address(proxy: &UpstreamProxy) -> Result<IpAddr> {
    let failed = |message: String| {
        let hint = "Name a proxy whose name the host can look up, or its address.";
        Failure::new("upstream-proxy", proxy.to_string(), message).hint(hint).setup()
    };
    let found = (proxy.host.as_str(), proxy.port).to_socket_addrs();
    let found = found.map_err(|e| failed(format!("its name cannot be looked up: {e}")))?;
    let first = found.map(|address| address.ip().to_canonical()).min_by_key(IpAddr::is_ipv6);
    first.ok_or_else(|| failed("its name leads to no address".to_owned()))
}

/// A file of the host's settings; what cannot be read says nothing.
fn lines(path: &str) -> Vec<String> {
    let text = beneath::read_settings(Path::new(path)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let without_comment = |line: &str| line.split(['#', ';']).next().unwrap_or_default().to_owned();
    text.lines().map(without_comment).collect()
}

/// The host's servers for names: resolv.conf(5).
fn servers() -> Vec<IpAddr> {
    let server = |line: &String| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
    };
    let found: Vec<IpAddr> = lines("/etc/resolv.conf").iter().filter_map(server).take(3).collect();
    if found.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { found }
}

/// The names that the host knows by itself: hosts(5).
fn known() -> Vec<(String, IpAddr)> {
    let names = |line: String| {
        let mut words = line.split_whitespace();
        let address: Option<IpAddr> = words.next().and_then(|word| word.parse().ok());
        let names: Vec<_> = words.map(str::to_ascii_lowercase).collect();
        address
            .into_iter()
            .flat_map(move |address| names.clone().into_iter().map(move |name| (name, address)))
            .collect()
    };
    let all = lines("/etc/hosts").into_iter().flat_map(|line| -> Vec<_> { names(line) });
    all.filter(|(_, address)| !address.is_loopback()).take(MOST_RULES / 2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Reader;

    #[test]
    fn rules_have_the_numbers_of_their_texts() {
        let policy = crate::policy::builder::Builder::default()
            .allow_net("10.0.0.0/8:1,2".parse().unwrap())
            .deny_net("10.1.0.0/16".parse().unwrap())
            .allow_host("a.org".parse().unwrap())
            .deny_host("b.org".parse().unwrap())
            .policy()
            .clone();
        let texts = Rules { policy: &policy }.texts();
        assert_eq!(texts, ["allow-net 10.0.0.0/8:1,2", "deny-net 10.1.0.0/16", "allow-host a.org", "deny-host b.org"]);
        let bytes = config(&policy, &[]).unwrap();
        let mut reader = Reader::new(&bytes);
        let mut seen = Vec::new();
        while let Some(record) = Relay::next(&mut reader).unwrap() {
            match record {
                Relay::Net { rule, allow, first, .. } => seen.push((rule, allow, first)),
                Relay::Host { rule, allow, first, .. } => seen.push((rule, allow, first)),
                Relay::Public {} => panic!("nobody asked for the public internet"),
                _ => {}
            }
        }
        assert_eq!(seen, [(0, 1, 1), (0, 1, 2), (1, 0, 0), (2, 1, 80), (2, 1, 443), (3, 0, 0)]);
    }
}
