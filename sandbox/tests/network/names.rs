//! Names: what is looked up, what stays inside, and that only what a name led to is reached by it.

use sandcell::{Sandbox, Verdict};

use crate::world::{SPECIAL, within};
use crate::{tried, user};

fn listed() -> sandcell::Builder {
    Sandbox::builder()
        .allow_host("*.example.org:80,443,7000".parse().unwrap())
        .deny_host("other.example.org".parse().unwrap())
}

#[test]
fn names_are_looked_up_whatever_server_is_asked() {
    within("names_are_looked_up_whatever_server_is_asked", |world| {
        let servers = [
            "9.9.9.9",
            "127.0.0.1",
            "127.0.0.53",
            "10.0.2.100",
            "192.0.2.77",
            "8.8.4.4",
            "::1",
            "2606:4700::77",
            "fd12::77",
        ];
        let asked: Vec<_> = servers.iter().map(|server| format!("dns {server} good.example.org 1")).collect();
        let streams = ["dns-tcp 9.9.9.9 good.example.org", "dns-tcp 127.0.0.53 good.example.org"];
        let hosts = [
            "host good.example.org 80",
            "host alias.example.org 80",
            "host six.example.org 80",
            "host nope.example.org 80",
        ];
        let all: Vec<&str> = asked.iter().map(String::as_str).chain(streams).chain(hosts).collect();
        let tried = tried(user(), &all);
        for attempt in asked.iter().map(String::as_str).chain(streams) {
            assert_eq!(tried.of(attempt), "0 1", "{attempt}");
        }
        for attempt in &hosts[..3] {
            assert_eq!(tried.of(attempt), "ok", "{attempt}");
        }
        assert_eq!(tried.of(hosts[3]), "no name");
        assert!(world.asked().contains(&"good.example.org".to_owned()));
        let named = tried.network.connections.iter().any(|one| one.host.as_deref() == Some("six.example.org"));
        assert!(named, "{:?}", tried.network);
    });
}

#[test]
fn a_name_that_no_rule_allows_never_leaves_the_host() {
    within("a_name_that_no_rule_allows_never_leaves_the_host", |world| {
        let names =
            ["secret.evil.test", "example.org", "org", "xexample.org", "a.example.org.evil.test", "other.example.org"];
        let attempts: Vec<_> = names
            .iter()
            .flat_map(|name| {
                [1, 28, 16, 15, 12, 65]
                    .map(|kind| format!("dns 9.9.9.9 {name} {kind}"))
                    .into_iter()
                    .chain([format!("dns-tcp 9.9.9.9 {name}"), format!("host {name} 80")])
            })
            .collect();
        let all: Vec<_> = attempts.iter().cloned().chain(["dns 9.9.9.9 good.example.org 1".to_owned()]).collect();
        let tried = tried(listed(), &all);
        for attempt in &attempts {
            let refused = if attempt.starts_with("host") { "no name" } else { "3 0" };
            assert_eq!(tried.of(attempt), refused, "{attempt}");
        }
        assert_eq!(tried.of("dns 9.9.9.9 good.example.org 1"), "0 1", "the twin");
        let asked = world.asked();
        assert!(asked.iter().all(|name| name == "good.example.org") && !asked.is_empty(), "{asked:?}");
        for name in names {
            assert!(tried.network.refused().any(|one| one.host.as_deref() == Some(name)), "{name} is in the account");
        }
    });
}

#[test]
fn only_what_a_name_led_to_is_reached_at_the_ports_of_its_rule() {
    within("only_what_a_name_led_to_is_reached_at_the_ports_of_its_rule", |_| {
        let cases = [
            ("tcp 8.8.8.8 80", "EHOSTUNREACH", "before the name was asked for"),
            ("host good.example.org 80", "ok", "the twin"),
            ("host alias.example.org 7000", "ok", ""),
            ("host six.example.org 80", "ok", ""),
            ("host good.example.org 4444", "EHOSTUNREACH", "no rule for the port"),
            ("udp 8.8.8.8 123", "EHOSTUNREACH", "no rule for UDP"),
            ("tcp 1.1.1.1 80", "EHOSTUNREACH", "a literal that no name led to"),
            ("tcp 2606:4700::2 80", "EHOSTUNREACH", ""),
        ];
        let tried = tried(listed(), &cases.map(|(attempt, ..)| attempt));
        for (attempt, said, why) in cases {
            assert_eq!(tried.of(attempt), said, "{attempt} {why}");
        }
        let allowed = tried.network.connections.iter().find(|one| one.verdict == Verdict::Allowed).unwrap();
        assert_eq!(allowed.rule.as_deref(), Some("allow-host *.example.org:80,443,7000"));
    });
}

#[test]
fn a_name_leads_to_no_address_that_is_not_public() {
    within("a_name_leads_to_no_address_that_is_not_public", |world| {
        let name = |address: &&str| match address.contains(':') {
            true => format!("{}.v6.example.org", address.replace(':', "-")),
            false => format!("{}.v4.example.org", address.replace('.', "-")),
        };
        let special: Vec<_> = SPECIAL.iter().chain(&["127.0.0.1", "5.5.5.5", "192.168.77.1"]).collect();
        let hosts: Vec<_> = special.iter().map(|address| format!("host {} 80", name(address))).collect();
        let twin = "host 8-8-8-8.v4.example.org 80".to_owned();
        let both = "host both.example.org 80".to_owned();
        for builder in [user(), listed()] {
            let all: Vec<_> = hosts.iter().chain([&twin, &both]).collect();
            let tried = tried(builder, &all);
            for (address, attempt) in special.iter().zip(&hosts) {
                // The host's own public one is found, and refused when it is dialled.
                let refused = if **address == "5.5.5.5" { "EHOSTUNREACH" } else { "no name" };
                assert_eq!(tried.of(attempt), refused, "{attempt}");
                assert!(!world.was_reached(address), "{address}");
            }
            assert_eq!((tried.of(&twin), tried.of(&both)), ("ok", "ok"), "the twins");
            assert!(tried.network.refused().count() >= special.len(), "{:?}", tried.network);
        }
        let tried = tried(listed().allow_net("10.9.9.9:80".parse().unwrap()), &["host 10-9-9-9.v4.example.org 80"]);
        assert_eq!(tried.of("host 10-9-9-9.v4.example.org 80"), "ok", "with a rule for the address");
    });
}

/// Whoever answers for an allowed name would choose the ports of a private address otherwise.
#[test]
fn a_name_opens_no_port_of_a_private_address_that_no_rule_for_the_address_names() {
    within("a_name_opens_no_port_of_a_private_address_that_no_rule_for_the_address_names", |world| {
        let attempts = ["host 10-9-9-9.v4.example.org 80", "host 10-9-9-9.v4.example.org 7000", "tcp 10.9.9.9 80"];
        let tried = tried(listed().allow_net("10.9.9.9:7000".parse().unwrap()), &attempts);
        assert_eq!(tried.of(attempts[1]), "ok", "the twin");
        assert_eq!((tried.of(attempts[0]), tried.of(attempts[2])), ("EHOSTUNREACH", "EHOSTUNREACH"));
        assert!(world.was_reached("10.9.9.9"));
        let ports: Vec<_> = tried.network.connections.iter().filter(|one| one.verdict == Verdict::Allowed).collect();
        assert!(ports.iter().all(|one| one.port == 7000), "{ports:?}");
    });
}

/// The address that the name led to is the one that is dialled, and another answer later changes nothing for it.
#[test]
fn a_name_that_leads_elsewhere_later_opens_nothing() {
    within("a_name_that_leads_elsewhere_later_opens_nothing", |world| {
        let attempts = [
            "host rebind.example.org 80",
            "dns 9.9.9.9 rebind.example.org 1",
            "tcp 10.9.9.9 80",
            "tcp 93.184.215.14 80",
        ];
        let tried = tried(listed(), &attempts);
        assert_eq!(tried.of(attempts[0]), "ok");
        assert_eq!(tried.of(attempts[1]), "0 0", "the private address is not told");
        assert_eq!((tried.of(attempts[2]), tried.of(attempts[3])), ("EHOSTUNREACH", "ok"));
        assert!(!world.was_reached("10.9.9.9"));
    });
}

#[test]
fn tls_names_a_host_that_was_allowed_for_the_address() {
    within("tls_names_a_host_that_was_allowed_for_the_address", |_| {
        let cases = [
            ("tls 8.8.8.8 443 good.example.org", "ok"),
            ("tls-slow 8.8.8.8 443 good.example.org", "ok"),
            ("tls 8.8.8.8 443 GOOD.example.org", "ok"),
            ("tls 8.8.8.8 443 front.evil.test", "ECONNRESET"),
            ("tls 8.8.8.8 443 six.example.org", "ECONNRESET"),
            ("tls 8.8.8.8 443 unasked.example.org", "ECONNRESET"),
            ("tls 8.8.8.8 443 other.example.org", "ECONNRESET"),
            ("tls 8.8.8.8 443 -", "ECONNRESET"),
            ("tls-split 8.8.8.8 443 good.example.org", "ECONNRESET"),
            ("tls-split 8.8.8.8 443 front.evil.test", "ECONNRESET"),
            ("tls-slow 8.8.8.8 443 front.evil.test", "ECONNRESET"),
            ("tls 8.8.8.8 80 front.evil.test", "ECONNRESET"),
            ("tls 8.8.8.8 7000 front.evil.test", "ECONNRESET"),
            ("tcp 8.8.8.8 443", "ECONNRESET"),
            ("tcp 8.8.8.8 7000", "ok"),
        ];
        let first = ["host good.example.org 80", "host six.example.org 80"];
        let all: Vec<_> = first.into_iter().chain(cases.map(|(attempt, _)| attempt)).collect();
        let listed_only = tried(listed(), &all);
        for (attempt, said) in cases {
            // A reset may meet a program while it writes.
            let found = listed_only.of(attempt);
            let same = found == said || said == "ECONNRESET" && matches!(found, "EPIPE" | "UnexpectedEof");
            assert!(same, "{attempt}: {found}");
        }
        assert!(listed_only.network.refused().any(|one| one.host.as_deref() == Some("front.evil.test")));
        // The twins: without rules for names nothing is looked at; and with one that says so, what is not TLS may pass.
        for (attempt, _) in cases {
            assert_eq!(tried(user(), &[attempt]).of(attempt), "ok", "{attempt}");
        }
        let plain = Sandbox::builder().allow_host("good.example.org:80,443/tcp".parse().unwrap());
        assert_eq!(tried(plain, &["host good.example.org 80", "tcp 8.8.8.8 443"]).of("tcp 8.8.8.8 443"), "ok");
    });
}

#[test]
fn a_denied_name_is_refused_where_all_others_are_allowed() {
    within("a_denied_name_is_refused_where_all_others_are_allowed", |_| {
        let builder = user().deny_host("other.example.org".parse().unwrap());
        let cases = [
            ("host good.example.org 80", "ok"),
            ("host other.example.org 80", "no name"),
            ("tls 1.1.1.1 443 other.example.org", "ECONNRESET"),
            ("tls 1.1.1.1 443 good.example.org", "ok"),
            ("tcp 1.1.1.1 80", "ok"),
        ];
        let tried = tried(builder, &cases.map(|(attempt, _)| attempt));
        for (attempt, said) in cases {
            assert_eq!(tried.of(attempt), said, "{attempt}");
        }
    });
}
