//! Ways round the rules, other than to ask for what they refuse.

use nix::libc;
use sandcell::Capability;
use sandcell::{Sandbox, Seccomp};

use crate::world::within;
use crate::{tried, user};

/// A policy that gives a program as much as there is to give: all capabilities, and no filter.
fn mighty() -> sandcell::Builder {
    let all = Capability::ALL.iter().copied().filter(|capability| *capability != Capability::CAP_CHECKPOINT_RESTORE);
    all.fold(user().seccomp(Seccomp::Off).landlock(sandcell::Landlock::Off), |builder, capability| {
        builder.cap_add(capability)
    })
}

#[test]
fn no_capability_reaches_the_routes_rules_and_raw_packets() {
    within("no_capability_reaches_the_routes_rules_and_raw_packets", |world| {
        let raw = libc::SOCK_RAW;
        let ways = [
            "flush".to_owned(),
            "route 24".to_owned(),
            "route 25".to_owned(),
            "option mark".to_owned(),
            "option transparent".to_owned(),
            format!("socket {} {raw}", libc::AF_INET),
            format!("socket {} {raw}", libc::AF_INET6),
            format!("socket {} {raw}", libc::AF_PACKET),
            format!("socket {} {}", libc::AF_PACKET, libc::SOCK_DGRAM),
        ];
        for builder in [user(), mighty()] {
            let after = ["tcp 10.9.9.9 80", "udp 10.9.9.9 123", "tcp 8.8.8.8 80"];
            let all: Vec<&str> = ways.iter().map(String::as_str).chain(after).collect();
            let tried = tried(builder, &all);
            for way in &ways {
                let said = tried.of(way);
                assert!(matches!(said, "EPERM" | "EACCES" | "EAFNOSUPPORT"), "{way}: {said}");
            }
            assert_eq!((tried.of(after[0]), tried.of(after[1])), ("EHOSTUNREACH", "EHOSTUNREACH"));
            assert_eq!(tried.of(after[2]), "ok", "the twin: what is allowed goes on");
        }
        assert!(!world.was_reached("10.9.9.9"));
    });
}

#[test]
fn packets_with_forged_sources_go_nowhere() {
    within("packets_with_forged_sources_go_nowhere", |world| {
        let ways = [
            "from 8.8.8.8 1.1.1.1 80",
            "from 192.168.77.1 10.9.9.9 80",
            "from 2606:4700::1 2a00:1450::5 80",
            "from 1.1.1.1 10.9.9.9 80",
        ];
        let twins = ["from 10.0.2.100 1.1.1.1 80", "from 127.0.0.1 8.8.8.8 80", "from fd00::100 2a00:1450::5 80"];
        let tried = tried(user(), &[&ways[..], &twins].concat());
        for way in ways {
            assert_ne!(tried.of(way), "ok", "{way}");
        }
        assert!(!world.was_reached("10.9.9.9"));
        for twin in twins {
            assert_eq!(tried.of(twin), "ok", "{twin}");
        }
    });
}

#[test]
fn a_socket_pointed_elsewhere_is_decided_anew() {
    within("a_socket_pointed_elsewhere_is_decided_anew", |world| {
        let tried = tried(
            user(),
            &["unspec 8.8.8.8 10.9.9.9 80", "unspec 8.8.8.8 1.1.1.1 80", "unspec 2606:4700::1 fd12::1 80"],
        );
        assert_eq!(tried.of("unspec 8.8.8.8 10.9.9.9 80"), "EHOSTUNREACH");
        assert_eq!(tried.of("unspec 2606:4700::1 fd12::1 80"), "EHOSTUNREACH");
        assert_eq!(tried.of("unspec 8.8.8.8 1.1.1.1 80"), "ok", "the twin");
        assert!(!world.was_reached("10.9.9.9") && !world.was_reached("fd12::1"));
    });
}

#[test]
fn data_in_the_first_packet_is_decided_first() {
    within("data_in_the_first_packet_is_decided_first", |world| {
        let tried = tried(user(), &["fastopen 10.9.9.9 80", "fastopen 8.8.8.8 80", "fastopen fd12::1 80"]);
        for way in ["fastopen 10.9.9.9 80", "fastopen fd12::1 80"] {
            assert_eq!(tried.of(way), "EHOSTUNREACH", "{way}");
        }
        assert_eq!(tried.of("fastopen 8.8.8.8 80"), "ok", "the twin");
        assert!(!world.was_reached("10.9.9.9") && !world.was_reached("fd12::1"));
    });
}

#[test]
fn many_forms_of_one_address_are_the_same_address() {
    within("many_forms_of_one_address_are_the_same_address", |world| {
        // As programs write them; the C library makes addresses of all.
        let forms = [
            "0xa090909",
            "012.011.011.011",
            "10.592137",
            "168364297",
            "10.9.2313",
            "::ffff:10.9.9.9",
            "::ffff:a09:909",
        ];
        let hosts: Vec<_> = forms.iter().map(|form| format!("host {form} 80")).collect();
        let refused = tried(user(), &hosts);
        for attempt in &hosts {
            assert_eq!(refused.of(attempt), "EHOSTUNREACH", "{attempt}");
        }
        assert!(!world.was_reached("10.9.9.9"));
        let allowed = tried(user().allow_net("10.9.9.9".parse().unwrap()), &hosts);
        for attempt in &hosts {
            assert_eq!(allowed.of(attempt), "ok", "{attempt}");
        }
    });
}

/// They have no namespace, or none that is ours.
#[test]
fn sockets_of_other_families_stay_shut() {
    within("sockets_of_other_families_stay_shut", |_| {
        let ways = [libc::AF_VSOCK, libc::AF_BLUETOOTH, libc::AF_CAN, libc::AF_TIPC, libc::AF_XDP]
            .map(|family| format!("socket {family} {}", libc::SOCK_STREAM));
        let twin = format!("socket {} {}", libc::AF_INET, libc::SOCK_STREAM);
        let tried = tried(user(), &[&ways[..], std::slice::from_ref(&twin)].concat());
        for way in &ways {
            assert_ne!(tried.of(way), "ok", "{way}");
        }
        assert_eq!(tried.of(&twin), "ok");
    });
}

#[test]
fn broadcasts_and_groups_go_nowhere() {
    within("broadcasts_and_groups_go_nowhere", |_| {
        for address in ["224.0.0.251", "239.255.255.250", "255.255.255.255", "ff02::fb", "ff05::2"] {
            let attempt = format!("udp {address} 5353");
            let said = tried(user(), std::slice::from_ref(&attempt)).of(&attempt).to_owned();
            assert!(!matches!(&*said, "ok" | "other bytes"), "{attempt}: {said}");
        }
        assert_eq!(tried(user(), &["udp 8.8.8.8 123"]).of("udp 8.8.8.8 123"), "ok", "the twin");
    });
}

/// Without a rule that allows it, nothing is a way out: the network `loopback` as before.
#[test]
fn without_the_network_user_there_is_no_way_at_all() {
    within("without_the_network_user_there_is_no_way_at_all", |world| {
        let program = std::env::current_exe().unwrap();
        let sandbox = Sandbox::builder().ro(&program, "/probe").build().unwrap();
        let mut command = sandbox.command("/probe");
        command.args(["--exact", "inside", "--nocapture"]).env(crate::probe::TRIES, "tcp 8.8.8.8 80;udp 8.8.8.8 123");
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            text.contains("=tcp 8.8.8.8 80=ENETUNREACH") && text.contains("=udp 8.8.8.8 123=ENETUNREACH"),
            "{text}"
        );
        assert!(output.network.is_none() && !world.was_reached("8.8.8.8"));
    });
}

#[test]
fn resets_and_storms_of_the_program_harm_the_relay_not() {
    within("resets_and_storms_of_the_program_harm_the_relay_not", |_| {
        let mut attempts: Vec<String> =
            (0..300).map(|n| format!("reset {} 80", ["8.8.8.8", "1.1.1.1"][n % 2])).collect();
        attempts.extend((0..300).map(|port| format!("tcp 10.9.9.9 {}", 1000 + port)));
        attempts.push("tcp 8.8.8.8 80".to_owned());
        let tried = tried(user(), &attempts);
        assert_eq!(tried.of("tcp 8.8.8.8 80"), "ok");
        let network = &tried.network;
        assert!(network.connections.len() == 256 && network.more > 0 && !network.lost, "{}", network.more);
    });
}
