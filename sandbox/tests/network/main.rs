//! The network `user`: what programs reach, what they do not, and every way round that is known. Each attempt that is refused
//! has a twin that shows it to be possible: from the host itself, or under a rule that allows it.

#[path = "../common/mod.rs"]
mod common;
mod names;
mod ports;
mod probe;
mod proxied;
mod relay;
mod ways;
mod world;

use std::collections::BTreeMap;

use sandcell::{Builder, Network, NetworkReport, Outcome, Sandbox, Verdict};

use world::{OF_HOST, PUBLIC, SPECIAL, within};

/// What came of each attempt, and the account.
pub(crate) struct Tried {
    said: BTreeMap<String, String>,
    pub(crate) network: NetworkReport,
}

impl Tried {
    pub(crate) fn of(&self, attempt: &str) -> &str {
        self.said.get(attempt).unwrap_or_else(|| panic!("{attempt}: {:?}", self.said))
    }
}

pub(crate) fn user() -> Builder {
    Sandbox::builder().network(Network::User)
}

/// Carries out attempts inside.
pub(crate) fn tried(builder: Builder, attempts: &[impl AsRef<str>]) -> Tried {
    let attempts: Vec<&str> = attempts.iter().map(AsRef::as_ref).collect();
    let program = std::env::current_exe().unwrap();
    let sandbox = builder.ro(&program, "/probe").build().unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
    let mut command = sandbox.command("/probe");
    command.args(["--exact", "inside", "--nocapture"]).env(probe::TRIES, attempts.join(";"));
    let output = command.output().unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
    assert_eq!(output.outcome, Outcome::Exited(0), "{}", common::text(&output.stderr));
    let text = common::text(&output.stdout);
    let lines = text.lines().filter_map(|line| line.split_once('=')?.1.split_once('='));
    let said: BTreeMap<_, _> = lines.map(|(one, said)| (one.to_owned(), said.to_owned())).collect();
    assert!(attempts.iter().all(|one| said.contains_key(*one)), "{text}");
    Tried { said, network: output.report.network.expect("it has an account") }
}

#[test]
fn inside() {
    probe::inside();
}

#[test]
fn the_public_internet_is_reached_by_tcp_and_udp() {
    within("the_public_internet_is_reached_by_tcp_and_udp", |world| {
        let attempts: Vec<_> = PUBLIC.iter().flat_map(|a| [format!("tcp {a} 80"), format!("udp {a} 123")]).collect();
        let tried = tried(user(), &attempts);
        for attempt in &attempts {
            assert_eq!(tried.of(attempt), "ok", "{attempt}");
        }
        assert!(PUBLIC.iter().all(|address| world.was_reached(address)));
        assert_eq!(tried.network.connections.len(), attempts.len());
        for connection in &tried.network.connections {
            let bytes = if connection.protocol == "tcp" { 5 } else { 1200 };
            assert_eq!((connection.verdict, connection.count), (Verdict::Allowed, 1), "{connection:?}");
            assert_eq!((connection.bytes_sent, connection.bytes_received), (bytes, bytes), "{connection:?}");
        }
        assert!(!tried.network.lost && tried.network.more == 0);
    });
}

#[test]
fn a_peer_that_refuses_is_told_by_its_own_error() {
    within("a_peer_that_refuses_is_told_by_its_own_error", |_| {
        let tried = tried(user(), &["tcp 8.8.8.8 4444", "tcp 2606:4700::1 4444", "udp 8.8.8.8 4444", "tcp 8.8.8.8 80"]);
        for attempt in ["tcp 8.8.8.8 4444", "tcp 2606:4700::1 4444", "udp 8.8.8.8 4444"] {
            assert_eq!(tried.of(attempt), "ECONNREFUSED", "{attempt}");
        }
        assert_eq!(tried.of("tcp 8.8.8.8 80"), "ok");
        let failed = tried.network.connections.iter().find(|one| one.verdict == Verdict::Failed).unwrap();
        assert_eq!((failed.port, failed.why.as_deref()), (4444, Some("Connection refused")));
    });
}

#[test]
fn bytes_arrive_whole_both_ways_at_once() {
    within("bytes_arrive_whole_both_ways_at_once", |_| {
        let attempts =
            ["bulk 8.8.8.8 80 20000000", "bulk 2606:4700::1 80 3000000", "bulk 1.1.1.1 7000 0", "bulk 8.8.8.8 80 1"];
        let tried = tried(user(), &attempts);
        for attempt in attempts {
            assert_eq!(tried.of(attempt), "ok", "{attempt}");
        }
        assert_eq!(tried.network.connections[0].bytes_sent, 20_000_001, "both to that port");
    });
}

#[test]
fn the_sandbox_talks_to_itself_at_all_of_its_addresses() {
    within("the_sandbox_talks_to_itself_at_all_of_its_addresses", |_| {
        let tried = tried(user(), &["own", "tcp 127.0.0.1 80", "tcp ::1 80"]);
        assert_eq!(tried.of("own"), "ok");
        assert_eq!(tried.of("tcp 127.0.0.1 80"), "ECONNREFUSED", "the host's own is another");
        assert_eq!(tried.of("tcp ::1 80"), "ECONNREFUSED");
        assert!(tried.network.connections.is_empty(), "{:?}", tried.network);
    });
}

/// Everything by which no public network is reached, as text that a rule can name.
fn special() -> impl Iterator<Item = &'static str> {
    SPECIAL.into_iter().chain(OF_HOST)
}

#[test]
fn what_is_not_public_is_refused_and_reached_by_a_rule_alone() {
    within("what_is_not_public_is_refused_and_reached_by_a_rule_alone", |world| {
        let attempts = |address: &str| [format!("tcp {address} 80"), format!("udp {address} 123")];
        let all: Vec<_> = special().flat_map(attempts).collect();
        let refused = tried(user(), &all);
        for attempt in &all {
            // What the kernel makes of the answer of a firewall: for UDP by IPv6 another error.
            let errno = if attempt.starts_with("udp") && attempt.contains("::") { "EACCES" } else { "EHOSTUNREACH" };
            assert_eq!(refused.of(attempt), errno, "{attempt}");
        }
        for address in special() {
            assert!(!world.was_reached(address), "{address}");
            let noted = |one: &&sandcell::Connection| one.address == Some(address.parse().unwrap());
            let lines: Vec<_> = refused.network.connections.iter().filter(noted).collect();
            assert!(lines.len() == 2 && lines.iter().all(|one| one.verdict == Verdict::Refused), "{address} {lines:?}");
        }
        // The twin: each of them by a rule of its own.
        let allowed =
            special().fold(Sandbox::builder(), |builder, address| builder.allow_net(address.parse().unwrap()));
        let reached: Vec<_> = special().map(|address| format!("tcp {address} 80")).collect();
        let tried = tried(allowed, &reached);
        for (address, attempt) in special().zip(&reached) {
            assert_eq!(tried.of(attempt), "ok", "{attempt}");
            assert!(world.was_reached(address), "{address}");
        }
    });
}

#[test]
fn a_rule_that_is_too_wide_does_not_reach_metadata_services() {
    within("a_rule_that_is_too_wide_does_not_reach_metadata_services", |world| {
        let wide = ["0.0.0.0/0", "169.254.0.0/16", "169.254.169.254/31", "::/0"];
        let builder = wide.iter().fold(user(), |builder, rule| builder.allow_net(rule.parse().unwrap()));
        let attempts = [
            "tcp 169.254.169.254 80",
            "tcp 168.63.129.16 80",
            "tcp fd00:ec2::254 80",
            "tcp 169.254.1.1 80",
            "tcp fd12::1 80",
        ];
        let tried = tried(builder, &attempts);
        for attempt in &attempts[..3] {
            assert_eq!(tried.of(attempt), "EHOSTUNREACH", "{attempt}");
        }
        assert!(!world.was_reached("169.254.169.254"));
        assert_eq!((tried.of(attempts[3]), tried.of(attempts[4])), ("ok", "ok"), "the twins");
    });
}

#[test]
fn rules_have_ports_and_protocols_and_denials_win() {
    within("rules_have_ports_and_protocols_and_denials_win", |_| {
        let builder = Sandbox::builder()
            .allow_net("10.0.0.0/8:80,7000/tcp".parse().unwrap())
            .allow_net("8.8.8.8".parse().unwrap())
            .allow_net("2606:4700::/32".parse().unwrap())
            .deny_net("8.8.8.8:443".parse().unwrap())
            .deny_net("2606:4700::1:0/112".parse().unwrap());
        let cases = [
            ("tcp 10.9.9.9 80", "ok"),
            ("tcp 10.9.9.9 7000", "ok"),
            ("tcp 10.9.9.9 443", "EHOSTUNREACH"),
            ("udp 10.9.9.9 123", "EHOSTUNREACH"),
            ("tcp 8.8.8.8 80", "ok"),
            ("udp 8.8.8.8 123", "ok"),
            ("tcp 8.8.8.8 443", "EHOSTUNREACH"),
            ("tcp 1.1.1.1 80", "EHOSTUNREACH"),
            ("tcp 2606:4700::1 80", "ok"),
            ("tcp 2606:4700::1:2 80", "EHOSTUNREACH"),
        ];
        let tried = tried(builder, &cases.map(|(attempt, _)| attempt));
        for (attempt, said) in cases {
            assert_eq!(tried.of(attempt), said, "{attempt}");
        }
        let denied =
            tried.network.refused().find(|one| one.port == 443 && one.address == Some("8.8.8.8".parse().unwrap()));
        assert_eq!(denied.unwrap().rule.as_deref(), Some("deny-net 8.8.8.8/32:443"));
        let unlisted = tried.network.refused().find(|one| one.address == Some("1.1.1.1".parse().unwrap())).unwrap();
        assert_eq!((unlisted.why.as_deref(), &unlisted.rule), (Some("no rule allows it"), &None));
    });
}

#[test]
fn a_cell_has_one_network_for_all_of_its_programs_and_ends_with_its_relay() {
    within("a_cell_has_one_network_for_all_of_its_programs_and_ends_with_its_relay", |_| {
        let sandbox = user().build().unwrap();
        let cell = sandbox.start().unwrap();
        let connect = |address: &str| {
            let script = format!("exec 3<>/dev/tcp/{address}/80 && echo hello >&3 && read line <&3 && echo $line");
            cell.command("bash").args(["-c", &script]).output().unwrap()
        };
        assert_eq!(common::text(&connect("8.8.8.8").stdout), "hello");
        let output = connect("10.9.9.9");
        assert_eq!(output.network.as_ref().unwrap().refused().count(), 1);
        assert_eq!(output.network.as_ref().unwrap().connections.len(), 2, "of all programs so far");
        // The relay is a child of this process; what remains of a sandbox without it refuses connections.
        let children = children_named("sandcell-relay");
        assert_eq!(children.len(), 1);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(children[0]), nix::sys::signal::Signal::SIGKILL).unwrap();
        common::patiently("the end of the relay", || connect("8.8.8.8").network.clone().unwrap().lost);
        let output = connect("8.8.8.8");
        assert!(common::text(&output.stderr).contains("refused"), "{}", common::text(&output.stderr));
        drop(cell);
        assert!(children_named("sandcell-relay").is_empty() && children_named("sandcell-init").is_empty());
    });
}

/// Children of this process with this name, dead or alive.
pub(crate) fn children_named(name: &str) -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<i32> =
        children.flat_map(|text| text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect();
    let is = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
    pids.into_iter().filter(is).collect()
}

#[test]
fn nothing_of_the_relay_is_left_and_its_process_is_shut() {
    within("nothing_of_the_relay_is_left_and_its_process_is_shut", |_| {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let sandbox = user().build().unwrap();
        sandbox.command("true").status().unwrap();
        let before = open();
        let mut child = sandbox.command("sleep").arg("1000").spawn().unwrap();
        let relay = children_named("sandcell-relay")[0];
        let status = || std::fs::read_to_string(format!("/proc/{relay}/status")).unwrap();
        common::patiently("its filter", || status().contains("Seccomp:\t2"));
        for line in ["NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000"] {
            assert!(status().contains(line), "{line}\n{}", status());
        }
        let groups = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert_eq!(groups(&relay.to_string()), groups("self"), "without limits it is where the caller is");
        child.kill().unwrap();
        child.wait().unwrap();
        drop(child);
        assert!(children_named("sandcell-relay").is_empty());
        assert_eq!(open(), before);
    });
}

#[test]
fn what_was_sent_before_the_end_arrives() {
    within("what_was_sent_before_the_end_arrives", |world| {
        for _ in 0..20 {
            let script = "exec 3<>/dev/tcp/8.8.8.8/9000; head -c 300000 /dev/zero >&3";
            let output = user().build().unwrap().command("bash").args(["-c", script]).output().unwrap();
            let network = output.network.as_ref().unwrap();
            assert_eq!(network.connections[0].bytes_sent, 300_000, "{network:?}");
        }
        assert!(world.was_reached("8.8.8.8"));
    });
}

#[test]
fn many_connections_at_once_are_all_whole() {
    within("many_connections_at_once_are_all_whole", |_| {
        let attempts: Vec<_> = (0..200).map(|_| "bulk 8.8.8.8 80 20000".to_owned()).collect();
        let script = "for i in $(seq 300); do (exec 3<>/dev/tcp/8.8.8.8/80 && echo $i >&3 && read n <&3 && echo got $n) & done; wait";
        let output = user().build().unwrap().command("bash").args(["-c", script]).output().unwrap();
        let text = common::text(&output.stdout);
        assert_eq!(
            text.lines().collect::<std::collections::BTreeSet<_>>().len(),
            300,
            "{}",
            common::text(&output.stderr)
        );
        assert_eq!(tried(user(), &attempts).of(&attempts[0]), "ok");
    });
}

#[test]
fn rules_that_go_with_no_network_are_refused_before_anything_starts() {
    let net = |text: &str| text.parse::<sandcell::NetRule>().unwrap();
    let host = |text: &str| text.parse::<sandcell::HostRule>().unwrap();
    let many = (0..257)
        .fold(Sandbox::builder(), |builder, n| builder.allow_net(net(&format!("10.0.{}.{}", n / 256, n % 256))));
    let mut landlock = user();
    landlock = landlock.isolation(sandcell::Isolation::Landlock);
    for (builder, subject) in [
        (Sandbox::builder().network(Network::None).allow_host(host("a.org")), "allow_host"),
        (Sandbox::builder().network(Network::Host).allow_net(net("10.0.0.1")), "allow_net"),
        (Sandbox::builder().deny_net(net("10.0.0.1")), "deny_net"),
        // The private loopback becomes another network by a rule, unless it was asked for.
        (Sandbox::builder().network(Network::Loopback).allow_host(host("a.org")), "allow_host"),
        (Sandbox::builder().allow_net(net("10.0.0.1")).network(Network::Loopback), "allow_net"),
        (Sandbox::builder().deny_host(host("a.org")), "deny_host"),
        (landlock, "network"),
        (many, "allow_net"),
    ] {
        let error = builder.build().expect_err(subject);
        assert_eq!((error.kind(), error.subject()), ("config", subject), "{error}");
        assert!(!error.hint().is_empty(), "{error}");
    }
    assert!(user().deny_net(net("10.0.0.1")).deny_host(host("a.org")).build().is_ok(), "the twin");
    assert!(Sandbox::builder().allow_net(net("10.0.0.1")).build().is_ok());
}

#[test]
fn the_steps_of_a_run_have_the_rules_in_words() {
    let builder = Sandbox::builder().allow_host("a.org".parse().unwrap()).deny_net("10.0.0.0/8".parse().unwrap());
    let steps = builder.build().unwrap().explain().unwrap();
    let of = |name: &str| {
        steps.iter().filter(|step| step.name == name).map(|step| step.subject.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(of("network-rule"), ["10.0.0.0/8", "a.org", "everything else"]);
    assert_eq!((of("steering").len(), of("relay").len()), (1, 1));
    let plain = Sandbox::builder().build().unwrap().explain().unwrap();
    assert!(plain.iter().all(|step| !["network-rule", "steering", "relay"].contains(&&*step.name)));
}

/// The relay is in the sandbox's group, and not among what the limit counts.
#[test]
fn the_relay_is_in_the_group_of_the_sandbox_and_not_counted() {
    let sandbox = match user().pids(1).memory(64 << 20).build() {
        Ok(sandbox) => sandbox,
        Err(error) => return println!("SKIPPED: {error}"),
    };
    let mut child = match sandbox.command("sleep").arg("1000").spawn() {
        Err(error) if error.kind() == "unsupported" => return println!("SKIPPED: {error}"),
        child => child.unwrap(),
    };
    let groups = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let (relay, init) = (children_named("sandcell-relay")[0], children_named("sandcell-init")[0]);
    assert_eq!(groups(relay), groups(init));
    assert_ne!(groups(relay), groups(std::process::id().cast_signed()), "the twin: not the caller's");
    child.kill().unwrap();
    child.wait().unwrap();
    let output = sandbox.command("sh").args(["-c", "true & wait"]).output().unwrap();
    assert!(!output.success(), "one process and no more");
}
