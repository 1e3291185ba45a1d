//! Ports: published ones of the sandbox, those of the host that are shown inside, and what neither opens.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use sandcell::{Builder, Child, Detach, Published, Sandbox, Stdio};

use crate::common::patiently;
use crate::world::within;
use crate::{children_named, probe, tried};

const TIME: Duration = Duration::from_secs(10);

/// Inside, for ever: at this port by TCP and UDP says from where somebody comes, and sends back what it gets. `tcp ADDRESS PORT` in
/// a line is an attempt to connect there.
pub fn serve(port: u16) -> ! {
    for any in ["0.0.0.0", "fd00::100"] {
        let any: IpAddr = any.parse().unwrap();
        let Ok(udp) = UdpSocket::bind((any, port)) else { continue };
        std::thread::spawn(move || {
            let mut buffer = [0; 65536];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let answer = [from.ip().to_string().as_bytes(), b" ", &buffer[..length]].concat();
                udp.send_to(&answer, from).unwrap();
            }
        });
        let listener = TcpListener::bind((any, port)).unwrap();
        std::thread::spawn(move || {
            listener.incoming().flatten().for_each(|one| drop(std::thread::spawn(|| talk(one))))
        });
    }
    println!("serves");
    loop {
        std::thread::park();
    }
}

fn talk(mut stream: TcpStream) {
    let peer = stream.peer_addr().unwrap();
    writeln!(stream, "{}", peer.ip()).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    if line.starts_with("tcp ") {
        return writeln!(stream, "{}", probe::attempt(&line.split_whitespace().collect::<Vec<_>>())).unwrap();
    }
    stream.write_all(line.as_bytes()).unwrap();
    let mut buffer = [0; 65536];
    while let Ok(length @ 1..) = reader.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// A sandbox that serves at port 80.
fn server(builder: Builder) -> Child {
    let program = std::env::current_exe().unwrap();
    let sandbox = builder.ro(&program, "/probe").build().unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
    let mut command = sandbox.command("/probe");
    command.args(["--exact", "inside", "--nocapture"]).env(probe::TRIES, "serve 80").stdout(Stdio::Piped);
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("serves")));
    child
}

fn publish(rules: &[&str]) -> Builder {
    rules.iter().fold(Sandbox::builder(), |builder, rule| builder.publish(rule.parse().unwrap()))
}

/// Says something to a server, from this address; who it takes us for, and what came back.
fn said(from: Option<&str>, to: SocketAddr, line: &str) -> (String, String) {
    let mut stream = match from {
        None => TcpStream::connect_timeout(&to, TIME).unwrap(),
        Some(from) => bound(from, to),
    };
    stream.set_read_timeout(Some(TIME)).unwrap();
    writeln!(stream, "{line}").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    let (who, back) = all.split_once('\n').unwrap_or_else(|| panic!("{all:?}"));
    (who.to_owned(), back.trim_end().to_owned())
}

/// A connection from one of this host's addresses.
fn bound(from: &str, to: SocketAddr) -> TcpStream {
    use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};
    use std::os::fd::AsRawFd;
    let fd = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from.parse().unwrap(), 0))).unwrap();
    socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
    fd.into()
}

fn ends(mut child: Child) -> sandcell::Report {
    child.kill().unwrap();
    child.wait().unwrap()
}

#[test]
fn a_published_port_is_reached_and_the_program_sees_who_comes() {
    within("a_published_port_is_reached_and_the_program_sees_who_comes", |_| {
        let child = server(publish(&["0:80", "0.0.0.0:0:80", "[::1]:0:80", "0:80/udp"]));
        let published = child.published().to_vec();
        assert!(published.iter().all(|one| one.host_port != 0 && one.cell_port == 80), "{published:?}");
        assert_eq!(published[0].to_string(), format!("127.0.0.1:{}->80/tcp", published[0].host_port));
        assert_eq!(said(None, published[0].host(), "hello"), ("169.254.1.2".to_owned(), "hello".to_owned()));
        // Another address of this host's, and not the loopback: as it is.
        let outside: SocketAddr = ([192, 168, 77, 1], published[1].host_port).into();
        assert_eq!(said(Some("192.168.77.1"), outside, "hello").0, "192.168.77.1");
        assert_eq!(said(Some("5.5.5.5"), outside, "hello").0, "5.5.5.5");
        assert_eq!(said(None, published[2].host(), "hello"), ("fd00::2".to_owned(), "hello".to_owned()));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(TIME)).unwrap();
        for size in [1usize, 1200, 9000] {
            socket.send_to(&vec![b'x'; size], published[3].host()).unwrap();
            let mut back = [0; 65536];
            let (length, from) = socket.recv_from(&mut back).unwrap();
            assert_eq!((length, from), (size + 12, published[3].host()), "from the port that was asked");
            assert_eq!(&back[..13], b"169.254.1.2 x");
        }
        let report = ends(child);
        let network = report.network.unwrap();
        let counts: Vec<_> = network.published.iter().map(|one| (one.protocol, one.connections)).collect();
        assert_eq!(counts, [("tcp", 1), ("tcp", 2), ("tcp", 1), ("udp", 1)]);
        assert_eq!((network.published[0].bytes_received, network.published[0].bytes_sent), (6, 18));
        assert_eq!(network.published[3].bytes_received, 10201);
        assert!(network.connections.is_empty(), "{network:?}");
        // And the ports are free again.
        assert!(published.iter().take(3).all(|one| TcpListener::bind(one.host()).is_ok()));
        assert!(children_named("sandcell-relay").is_empty());
    });
}

#[test]
fn a_port_that_is_taken_is_told_before_anything_runs() {
    within("a_port_that_is_taken_is_told_before_anything_runs", |_| {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let rule = format!("{port}:80");
        let sandbox = publish(&[&rule]).build().unwrap();
        let error = sandbox.command("true").status().expect_err("it is taken");
        assert_eq!((error.kind(), error.stage(), error.errno()), ("setup", "publish", Some(nix::libc::EADDRINUSE)));
        assert!(error.subject().contains(&rule) && error.hint().contains("another port"), "{error} {}", error.hint());
        let error =
            publish(&["10.77.77.77:8080:80"]).build().unwrap().command("true").status().expect_err("no address");
        assert_eq!(error.errno(), Some(nix::libc::EADDRNOTAVAIL));
        drop(held);
        assert!(sandbox.command("true").status().unwrap().success(), "the twin");
        assert!(children_named("sandcell-init").is_empty() && children_named("sandcell-relay").is_empty());
    });
}

#[test]
fn what_came_by_a_published_port_is_no_way_out() {
    within("what_came_by_a_published_port_is_no_way_out", |world| {
        let child = server(publish(&["0.0.0.0:0:80"]));
        let to: SocketAddr = ([192, 168, 77, 1], child.published()[0].host_port).into();
        // The client's own address, its port, the internet, and where the host itself stands for.
        let client = TcpListener::bind("192.168.77.1:0").unwrap();
        let port = client.local_addr().unwrap().port();
        let attempts =
            [format!("tcp 192.168.77.1 {port}"), "tcp 8.8.8.8 80".to_owned(), format!("tcp 169.254.1.2 {port}")];
        for attempt in &attempts {
            assert_eq!(said(Some("192.168.77.1"), to, attempt).1, "EHOSTUNREACH", "{attempt}");
        }
        assert!(!world.was_reached("8.8.8.8"));
        assert_eq!(ends(child).network.unwrap().refused().count(), 3);
        // The twin: by a rule.
        let child = server(publish(&["0.0.0.0:0:80"]).allow_net("8.8.8.8".parse().unwrap()));
        let to: SocketAddr = ([192, 168, 77, 1], child.published()[0].host_port).into();
        assert_eq!(said(None, to, "tcp 8.8.8.8 80").1, "ok");
        drop(child);
    });
}

#[test]
fn a_port_where_nobody_listens_ends_the_connection_and_no_other() {
    within("a_port_where_nobody_listens_ends_the_connection_and_no_other", |_| {
        let child = server(publish(&["0:81", "0:80"]));
        let [nobody, somebody] = [0, 1].map(|at: usize| child.published()[at].host());
        for _ in 0..20 {
            let mut back = Vec::new();
            // The reset may come before the call that connects has returned.
            let ended = TcpStream::connect_timeout(&nobody, TIME).and_then(|mut stream| {
                stream.set_read_timeout(Some(TIME))?;
                stream.read_to_end(&mut back)
            });
            assert!(ended.map_or_else(|e| e.raw_os_error() == Some(nix::libc::ECONNRESET), |n| n == 0));
            assert!(back.is_empty());
        }
        assert_eq!(said(None, somebody, "hello").1, "hello");
        drop(child);
    });
}

#[test]
fn bytes_to_a_published_port_arrive_whole_from_many_at_once() {
    within("bytes_to_a_published_port_arrive_whole_from_many_at_once", |_| {
        let child = server(publish(&["0:80"]));
        let to = child.published()[0].host();
        let clients: Vec<_> = (0..40u8)
            .map(|seed| std::thread::spawn(move || whole(to, seed, if seed == 0 { 20_000_000 } else { 200_000 })))
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        // One after the other leaves nothing behind.
        let relay = children_named("sandcell-relay")[0];
        let open = || std::fs::read_dir(format!("/proc/{relay}/fd")).map(Iterator::count);
        assert_eq!(said(None, to, "hello").1, "hello");
        let before = open();
        for _ in 0..300 {
            assert_eq!(said(None, to, "hello").1, "hello");
        }
        if let Ok(before) = before {
            patiently("the end of each", || open().is_ok_and(|now| now <= before));
        }
        assert_eq!(ends(child).network.unwrap().published[0].connections, 341);
    });
}

fn whole(to: SocketAddr, seed: u8, bytes: usize) {
    let mut stream = TcpStream::connect_timeout(&to, TIME).unwrap();
    let mut writing = stream.try_clone().unwrap();
    let all: Vec<u8> = (0..bytes).map(|at| (at.wrapping_mul(2_654_435_761) >> 7) as u8 ^ seed | 128).collect();
    let sent = all.clone();
    let writer = std::thread::spawn(move || {
        writing.write_all(b"begin\n").unwrap();
        writing.write_all(&sent).unwrap();
        writing.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    writer.join().unwrap();
    assert!(back.ends_with(&all) && back.starts_with(b"169.254.1.2\nbegin\n"), "{} of {bytes}", back.len());
    assert_eq!(back.len(), bytes + 18);
}

/// Sockets for connections from outside are made at a door inside, at which a program can knock, too.
#[test]
fn programs_that_crowd_the_door_get_nothing_by_it() {
    within("programs_that_crowd_the_door_get_nothing_by_it", |_| {
        let program = std::env::current_exe().unwrap();
        let cell = publish(&["0:80"]).ro(&program, "/probe").build().unwrap().start().unwrap();
        let script = "for i in $(seq 200); do exec {fd}<>/dev/tcp/127.0.0.1/2; done; echo open; cat";
        let mut crowd = cell.command("bash");
        let mut crowd = crowd.args(["-c", script]).stdin(Stdio::Piped).stdout(Stdio::Piped).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(crowd.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "open\n", "the control: it can knock");
        let mut serving = cell.command("/probe");
        serving.args(["--exact", "inside", "--nocapture"]).env(probe::TRIES, "serve 80").stdout(Stdio::Piped);
        let mut serving = serving.spawn().unwrap();
        assert!(BufReader::new(serving.stdout.take().unwrap()).lines().any(|line| line.unwrap().contains("serves")));
        let to = cell.published()[0].host();
        let mut works = || {
            let Ok(mut stream) = TcpStream::connect_timeout(&to, TIME) else { return false };
            stream.set_read_timeout(Some(TIME)).unwrap();
            let _ = writeln!(stream, "hello");
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).is_ok_and(|_| line == "169.254.1.2\n")
        };
        // The first ones turn the crowd away.
        patiently("a place in the crowd", &mut works);
        assert!(works());
    });
}

#[test]
fn a_port_of_the_hosts_loopback_is_reached_by_its_name_and_no_other_port() {
    within("a_port_of_the_hosts_loopback_is_reached_by_its_name_and_no_other_port", |_| {
        // The world serves 80, 443 and 7000 at its loopback, too.
        let builder =
            || Sandbox::builder().host_port("7000".parse().unwrap()).allow_net("169.254.0.0/16".parse().unwrap());
        let name = "host.containers.internal";
        let attempts = [
            format!("host {name} 7000"),
            "tcp 169.254.1.2 7000".to_owned(),
            "tcp 169.254.1.2 80".to_owned(),
            "udp 169.254.1.2 7000".to_owned(),
            "tcp 127.0.0.1 7000".to_owned(),
            "tcp 192.168.77.1 7000".to_owned(),
            "host HOST.Containers.internal. 7000".to_owned(),
        ];
        let tried = tried(builder(), &attempts);
        let said: Vec<_> = attempts.iter().map(|attempt| tried.of(attempt)).collect();
        assert_eq!(
            said,
            ["ok", "ok", "EHOSTUNREACH", "EHOSTUNREACH", "ECONNREFUSED", "EHOSTUNREACH", "ok"],
            "{:?}",
            tried.network
        );
        let line = tried.network.connections.iter().find(|one| one.port == 7000 && one.rule.is_some()).unwrap();
        assert_eq!((line.host.as_deref(), line.rule.as_deref()), (Some(name), Some("host-port 7000")));
        // A denial wins; without the option there is no such name, and the address is one like others.
        let denied = crate::tried(builder().deny_net("169.254.1.2".parse().unwrap()), &attempts[..2]);
        assert!(attempts[..2].iter().all(|attempt| denied.of(attempt) != "ok"));
        let without = crate::tried(Sandbox::builder().allow_net("169.254.0.0/16".parse().unwrap()), &attempts[..2]);
        assert!(attempts[..2].iter().all(|attempt| without.of(attempt) != "ok"), "no way to 127.0.0.1");
    });
}

/// The account of a cell with a name, of which the keeper holds the relay.
#[test]
fn a_named_cell_has_the_network_and_its_ports_until_it_ends() {
    within("a_named_cell_has_the_network_and_its_ports_until_it_ends", |_| {
        let program = std::env::current_exe().unwrap();
        let name = format!("test-net-{}", std::process::id());
        let sandbox = publish(&["0:80"]).allow_net("8.8.8.8".parse().unwrap()).ro(&program, "/probe").build().unwrap();
        let mut command = sandbox.command("/probe");
        command.args(["--exact", "inside", "--nocapture"]).env(probe::TRIES, "serve 80");
        let cell = Detach::new(&name).run(&mut command).unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
        let _gone = Gone(&cell);
        let published: Vec<Published> = cell.info().unwrap().published;
        assert_eq!((published.len(), published[0].cell_port), (1, 80));
        assert!(children_named("sandcell-relay").is_empty(), "it is nobody's child");
        let to = published[0].host();
        patiently("the server", || {
            TcpStream::connect(to).is_ok_and(|one| BufReader::new(one).lines().next().is_some_and(|line| line.is_ok()))
        });
        assert_eq!(said(None, to, "tcp 8.8.8.8 80").1, "ok");
        assert_eq!(said(None, to, "tcp 1.1.1.1 80").1, "EHOSTUNREACH");
        let output = cell.command("true").unwrap().output().unwrap();
        let network = output.network.as_ref().expect("the account of all its programs");
        assert!(!network.lost && network.published[0].connections >= 3, "{network:?}");
        let rules: Vec<_> = network.connections.iter().filter_map(|one| one.rule.as_deref()).collect();
        assert_eq!(rules, ["allow-net 8.8.8.8/32"]);
        assert_eq!(network.refused().count(), 1);
        cell.stop(None).unwrap();
        let report = cell.wait().unwrap();
        assert_eq!(report.network.unwrap().refused().count(), 1, "the account outlives it");
        patiently("the port", || TcpListener::bind(to).is_ok());
    });
}

struct Gone<'a>(&'a sandcell::NamedCell);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.remove();
    }
}

#[test]
fn a_relay_that_is_killed_is_told_in_the_account_of_a_named_cell() {
    within("a_relay_that_is_killed_is_told_in_the_account_of_a_named_cell", |_| {
        let name = format!("test-lost-{}", std::process::id());
        // What loses its parent comes to this process: among those are the keeper and the relay.
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let cell = publish(&["0:80"]).build().unwrap().detach(&name).unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
        let _gone = Gone(&cell);
        let lost = || cell.command("true").unwrap().output().unwrap().network.clone().unwrap().lost;
        assert!(!lost());
        let relay = children_named("sandcell-relay")[0];
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(relay), nix::sys::signal::Signal::SIGKILL).unwrap();
        patiently("the news of its end", lost);
        cell.stop(None).unwrap();
    });
}

#[test]
fn the_ports_of_a_run_are_explained() {
    let builder = publish(&["0:80", "8080:81"]).host_port("5432".parse().unwrap());
    let steps = builder.build().unwrap().explain().unwrap();
    let subjects: Vec<_> = steps
        .iter()
        .filter(|step| ["publish", "host-port"].contains(&step.name.as_str()))
        .map(|step| step.subject.as_str())
        .collect();
    assert_eq!(subjects, ["5432", "127.0.0.1:0:80", "127.0.0.1:8080:81"]);
}

#[test]
fn ports_that_go_with_no_network_are_refused_before_anything_starts() {
    use sandcell::{Isolation, Network};
    let host_port = || "5432".parse().unwrap();
    for (builder, subject) in [
        (publish(&["8080:80"]).network(Network::None), "publish"),
        (publish(&["8080:80"]).network(Network::Host), "publish"),
        (publish(&["8080:80"]).network(Network::Loopback), "publish"),
        (Sandbox::builder().network(Network::None).host_port(host_port()), "host_port"),
        (Sandbox::builder().network(Network::Host).publish_all(true), "publish_all"),
        (Sandbox::builder().publish_all(true), "publish_all"),
        (publish(&["8080:80", "8080:81"]), "publish"),
        (publish(&vec!["0:80"; 65]), "publish"),
        (publish(&["8080:80"]).isolation(Isolation::Landlock), "network"),
    ] {
        let error = builder.build().expect_err(subject);
        assert_eq!((error.kind(), error.subject()), ("config", subject), "{error}");
        assert!(!error.hint().is_empty(), "{error}");
    }
    assert!(publish(&["8080:80", "8080:80/udp", "127.0.0.2:8080:80"]).build().is_ok(), "the twin");
    assert!(publish(&vec!["0:80"; 64]).build().is_ok());
}
