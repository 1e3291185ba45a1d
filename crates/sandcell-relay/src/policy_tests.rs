use super::*;
use sandcell_protocol::network::{WHY_DENIED, WHY_METADATA, WHY_PRIVATE, WHY_UNLISTED};
use std::boxed::Box;
use std::net::{IpAddr, Ipv6Addr};
use std::vec::Vec;

fn address(text: &str) -> [u8; 16] {
    match text.parse().unwrap() {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn leaked(bytes: Vec<u8>) -> &'static [u8] {
    Box::leak(bytes.into_boxed_slice())
}

fn policy(records: &[Relay<'static>]) -> Box<Policy> {
    let mut policy = Box::new(Policy::new());
    records.iter().for_each(|record| policy.take(*record).unwrap());
    policy
}

fn net(rule: u32, allow: bool, text: &str, prefix: u32, ports: (u32, u32)) -> Relay<'static> {
    let prefix = if text.contains(':') { prefix } else { prefix + 96 };
    Relay::Net {
        rule,
        allow: allow.into(),
        address: leaked(address(text).to_vec()),
        prefix,
        first: ports.0,
        last: ports.1,
        protocols: TCP | UDP,
    }
}

fn host(rule: u32, allow: bool, name: &'static str, port: u32) -> Relay<'static> {
    let (first, last) = if port == 0 { (0, 65535) } else { (port, port) };
    Relay::Host { rule, allow: allow.into(), name: name.as_bytes(), first, last, protocols: TCP | UDP }
}

const ALL: (u32, u32) = (0, 65535);

#[test]
fn the_public_internet_is_what_the_registries_leave() {
    for public in
        ["8.8.8.8", "1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.0.1", "223.255.255.255", "2606:4700::1", "2a00::1"]
    {
        assert!(is_public(&address(public)), "{public}");
    }
    for private in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.1.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fec0::1",
        "fc00::1",
        "fd00::1",
        "ff02::1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "2001::1",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:808:808::1",
        "3fff::1",
        "100::1",
        "::808:808",
        "::ffff:0:808:808",
        "4000::1",
    ] {
        assert!(!is_public(&address(private)), "{private}");
    }
}

#[test]
fn denials_win_and_private_addresses_need_a_rule() {
    let policy = policy(&[
        Relay::Public {},
        net(1, true, "10.1.0.0", 16, (5432, 5432)),
        net(2, false, "10.1.9.0", 24, ALL),
        net(3, false, "8.8.4.4", 32, ALL),
        net(4, true, "169.254.0.0", 16, ALL),
        net(5, true, "::", 0, (7, 7)),
    ]);
    let decide = |text: &str, port| policy.decide(&address(text), port, TCP);
    assert_eq!(decide("8.8.8.8", 1), Decision { allowed: true, why: 0, rule: NO_RULE, if_not_own: true });
    assert_eq!(decide("10.1.2.3", 5432), Decision { allowed: true, why: 0, rule: 1, if_not_own: false });
    assert_eq!(decide("10.1.2.3", 5433), Decision::refused(WHY_PRIVATE, NO_RULE));
    assert_eq!(decide("10.2.2.3", 5432), Decision::refused(WHY_PRIVATE, NO_RULE));
    assert_eq!(decide("10.1.9.3", 5432), Decision::refused(WHY_DENIED, 2));
    assert_eq!(decide("8.8.4.4", 53), Decision::refused(WHY_DENIED, 3));
    assert_eq!(decide("169.254.1.1", 80).rule, 4);
    assert_eq!(decide("169.254.169.254", 80), Decision::refused(WHY_METADATA, NO_RULE));
    assert_eq!(decide("168.63.129.16", 80), Decision::refused(WHY_METADATA, NO_RULE), "it looks public");
    // Other forms of the same: denied as they are, and a rule for all of IPv6 is no rule for them.
    assert_eq!(decide("64:ff9b::a01:903", 7), Decision::refused(WHY_DENIED, 2));
    assert_eq!(decide("64:ff9b::a02:203", 7), Decision::refused(WHY_PRIVATE, NO_RULE));
    assert_eq!(decide("2002:a9fe:a9fe::1", 7), Decision::refused(WHY_METADATA, NO_RULE));
    assert_eq!(decide("fd00::1", 7).rule, 5);
    assert_eq!(decide("fd00::1", 8), Decision::refused(WHY_PRIVATE, NO_RULE));
}

#[test]
fn a_metadata_service_takes_a_rule_for_it_alone() {
    let policy = policy(&[net(1, true, "169.254.169.254", 32, (80, 80))]);
    assert!(policy.decide(&address("169.254.169.254"), 80, TCP).allowed);
    assert!(!policy.decide(&address("169.254.169.253"), 80, TCP).allowed);
}

#[test]
fn without_public_only_what_is_listed_may_be_reached() {
    let policy = policy(&[net(0, true, "8.8.8.0", 24, ALL)]);
    assert!(policy.decide(&address("8.8.8.8"), 1, UDP).allowed);
    assert_eq!(policy.decide(&address("8.8.9.8"), 1, UDP), Decision::refused(WHY_UNLISTED, NO_RULE));
    assert_eq!(policy.decide_lookup(b"pypi.org"), Decision::refused(WHY_UNLISTED, NO_RULE));
}

#[test]
fn names_are_whole_or_below_a_star() {
    let policy = policy(&[
        host(0, true, "pypi.org", 443),
        host(1, true, "*.pythonhosted.org", 443),
        host(2, false, "bad.pythonhosted.org", 0),
        host(3, false, "pypi.org", 80),
    ]);
    for (name, rule) in [("pypi.org", 0), ("files.pythonhosted.org", 1), ("a.b.pythonhosted.org", 1)] {
        assert_eq!(policy.decide_lookup(name.as_bytes()), Decision { allowed: true, why: 0, rule, if_not_own: true });
        assert!(policy.decide_name(name.as_bytes(), 443, TCP).unwrap().allowed);
        assert!(policy.decide_name(name.as_bytes(), 22, TCP).is_none());
    }
    for name in ["pypi.org.evil", "xpypi.org", "pythonhosted.org", ".pythonhosted.org", "xpythonhosted.org", "", "org"]
    {
        assert_eq!(policy.decide_lookup(name.as_bytes()), Decision::refused(WHY_UNLISTED, NO_RULE), "{name}");
    }
    assert_eq!(policy.decide_lookup(b"bad.pythonhosted.org"), Decision::refused(WHY_DENIED, 2));
    assert_eq!(policy.decide_name(b"pypi.org", 80, TCP), Some(Decision::refused(WHY_DENIED, 3)));
}

#[test]
fn names_lead_to_public_addresses_unless_a_rule_says_so() {
    let mut policy = policy(&[net(0, true, "10.0.0.0", 8, ALL), net(1, false, "9.9.9.9", 32, ALL)]);
    for (text, may) in [
        ("8.8.8.8", true),
        ("10.1.1.1", true),
        ("192.168.1.1", false),
        ("127.0.0.1", false),
        ("9.9.9.9", false),
        ("169.254.169.254", false),
        ("::1", false),
        ("64:ff9b::808:808", false),
        ("2606:4700::1", true),
    ] {
        assert_eq!(policy.may_lead_to(&address(text)), may, "{text}");
    }
    policy.take(net(2, true, "169.254.169.254", 32, ALL)).unwrap();
    assert!(!policy.may_lead_to(&address("169.254.169.254")), "never by a name");
}

#[test]
fn records_that_make_no_sense_are_refused() {
    let mut policy = Box::new(Policy::new());
    let right = net(0, true, "10.0.0.0", 8, ALL);
    assert!(policy.take(right).is_some(), "the control");
    let Relay::Net { rule, allow, address, prefix, first, last, protocols } = right else { unreachable!() };
    assert!(policy.take(Relay::Net { rule, allow, address, prefix: 129, first, last, protocols }).is_none());
    assert!(policy.take(Relay::Net { rule, allow, address: b"4", prefix, first, last, protocols }).is_none());
    assert!(policy.take(Relay::Net { rule, allow, address, prefix, first, last: 65536, protocols }).is_none());
    for _ in 0..2 * MOST_RULES {
        policy.take(right);
    }
    assert!(policy.take(right).is_none(), "no more room");
    let _ = Ipv6Addr::UNSPECIFIED;
}
