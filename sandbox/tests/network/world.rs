//! A world of its own for a test: a network namespace that is the "host", and another one that is the "internet", with public,
//! private and special addresses. Nothing leaves the machine. As root or as an ordinary user (then in a user namespace).
//!
//! A test runs itself anew in these namespaces, because a process with several threads cannot enter a user namespace.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::process::Command;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sched::{CloneFlags, unshare};

/// Where the test is inside already.
const INSIDE: &str = "SANDCELL_TEST_WORLD";

/// Addresses of the internet that are public.
pub const PUBLIC: [&str; 6] = ["8.8.8.8", "1.1.1.1", "9.9.9.9", "93.184.215.14", "2606:4700::1", "2a00:1450::5"];

/// Addresses that are there, too, and that no name and no public network leads to.
pub const SPECIAL: [&str; 32] = [
    "0.1.2.3",
    "10.9.9.9",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.1.1",
    "169.254.169.254",
    "169.254.169.253",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.1",
    "198.51.100.1",
    "203.0.113.1",
    "240.0.0.1",
    "64:ff9b::808:808",
    "64:ff9b::a09:909",
    "64:ff9b:1::a09:909",
    "2001::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:a09:909::1",
    "3fff::1",
    "fc00::1",
    "fd12::1",
    "fd00:ec2::254",
    "fec0::1",
];

/// Addresses of the host itself: one of the internet's kind, and the one towards the internet.
pub const OF_HOST: [&str; 3] = ["5.5.5.5", "192.168.77.1", "2a00:77::1"];

/// What is served at every address of the internet, by TCP.
pub const PORTS: [u16; 5] = [80, 443, 7000, 53, SINK];
/// Here nothing comes back.
const SINK: u16 = 9000;

/// What the internet has seen.
#[derive(Default)]
pub struct Seen {
    /// Addresses and ports to which somebody connected, or sent a datagram.
    pub reached: BTreeSet<String>,
    /// Names that somebody asked for.
    pub asked: Vec<String>,
}

#[derive(Clone)]
pub struct World {
    pub seen: Arc<Mutex<Seen>>,
}

/// Runs a test in a world of its own. `name`: the test's own.
pub fn within(name: &str, test: impl FnOnce(&World)) {
    if std::env::var_os(INSIDE).is_some() {
        return test(&World::new());
    }
    if Command::new("ip").arg("-V").output().is_err() || Command::new("unshare").arg("-V").output().is_err() {
        return println!("SKIPPED: needs ip(8) and unshare(1)");
    }
    let root = nix::unistd::geteuid().is_root();
    let places = std::env::temp_dir().join(format!("sandcell-test-{name}-{}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&places).unwrap();
    let output = Command::new("unshare")
        .args(if root { &["-nm"][..] } else { &["-Urnm"] })
        .arg(std::env::current_exe().unwrap())
        .args([name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        // Named cells have a place of the test's own there.
        .env("XDG_RUNTIME_DIR", &places)
        .output()
        .unwrap();
    std::fs::remove_dir_all(&places).unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    // Just this one test, and not none.
    assert!(output.status.success() && text[0].contains("ok. 1 passed"), "in its world: {}{}", text[0], text[1]);
}

fn ip(command: &str) {
    let output = Command::new("ip").args(command.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {command}: {}", String::from_utf8_lossy(&output.stderr));
}

fn add(address: &str, device: &str) {
    let (prefix, nodad) = if address.contains(':') { (128, " nodad") } else { (32, "") };
    ip(&format!("addr add {address}/{prefix} dev {device}{nodad}"));
}

impl World {
    fn new() -> World {
        let world = World { seen: Arc::default() };
        let resolv = std::env::temp_dir().join(format!("sandcell-test-resolv-{}", std::process::id()));
        std::fs::write(&resolv, "nameserver 9.9.9.9\n").unwrap();
        let real = std::fs::canonicalize("/etc/resolv.conf").unwrap();
        let mounted = Command::new("mount").arg("--bind").arg(&resolv).arg(&real).status().unwrap();
        assert!(mounted.success(), "the internet's own resolv.conf");
        std::fs::remove_file(&resolv).unwrap();
        ip("link set lo up");
        let (told, internet) = channel();
        let (go, may_go) = channel::<()>();
        let (ready, is_ready) = channel();
        let seen = world.seen.clone();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            told.send(nix::unistd::gettid()).unwrap();
            may_go.recv().unwrap();
            internet_of(seen);
            ready.send(()).unwrap();
            // The namespace is there as long as somebody is in it.
            loop {
                thread::park();
            }
        });
        let internet = internet.recv().unwrap();
        ip(&format!("link add veth0 type veth peer name veth1 netns {internet}"));
        ip("addr add 192.168.77.1/24 dev veth0");
        ip("addr add 2a00:77::1/64 dev veth0 nodad");
        ip("link set veth0 up");
        add(OF_HOST[0], "lo");
        go.send(()).unwrap();
        is_ready.recv().unwrap();
        ip("route add default via 192.168.77.2");
        ip("route add 169.254.0.0/16 via 192.168.77.2");
        ip("route add default via 2a00:77::2");
        // Names and addresses of the link are known once it was used.
        crate::common::patiently("the internet by IPv6", || {
            std::net::TcpStream::connect_timeout(
                &"[2606:4700::1]:80".parse().unwrap(),
                std::time::Duration::from_secs(1),
            )
            .is_ok()
        });
        serve(&world.seen, true);
        world.seen.lock().unwrap().reached.clear();
        world
    }

    /// Whether somebody came to this address since it was last asked.
    pub fn was_reached(&self, address: &str) -> bool {
        let mut seen = self.seen.lock().unwrap();
        let address: std::net::IpAddr = address.parse().unwrap();
        let before = seen.reached.len();
        seen.reached.retain(|one| !one.starts_with(&format!("{address} ")));
        before != seen.reached.len()
    }

    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap().asked)
    }
}

fn internet_of(seen: Arc<Mutex<Seen>>) {
    ip("link set lo up");
    ip("addr add 192.168.77.2/24 dev veth1");
    ip("addr add 2a00:77::2/64 dev veth1 nodad");
    ip("link set veth1 up");
    ip("route add default via 192.168.77.1");
    ip("route add default via 2a00:77::1");
    PUBLIC.iter().chain(&SPECIAL).for_each(|address| add(address, "lo"));
    serve(&seen, false);
    for address in PUBLIC.iter().chain(&SPECIAL) {
        datagrams(address, seen.clone());
    }
    let dns = UdpSocket::bind("9.9.9.9:53").unwrap();
    thread::spawn(move || names(&dns, &seen));
}

/// Echoes at every port and address. `host`: those of the host.
fn serve(seen: &Arc<Mutex<Seen>>, host: bool) {
    for port in PORTS {
        for any in [SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))] {
            // The one of IPv6 is for IPv4 as well.
            let Ok(listener) = TcpListener::bind(any) else { continue };
            let seen = seen.clone();
            thread::spawn(move || {
                for connection in listener.incoming().flatten() {
                    let Ok(own) = connection.local_addr() else { continue };
                    if !host || !own.ip().is_loopback() {
                        seen.lock().unwrap().reached.insert(format!("{} {}", own.ip().to_canonical(), own.port()));
                    }
                    thread::spawn(move || echo(connection, port != SINK));
                }
            });
        }
    }
}

fn echo(mut connection: std::net::TcpStream, back: bool) {
    let mut buffer = [0; 65536];
    while let Ok(length @ 1..) = connection.read(&mut buffer) {
        if back && connection.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

fn datagrams(address: &str, seen: Arc<Mutex<Seen>>) {
    let ip: std::net::IpAddr = address.parse().unwrap();
    let socket = UdpSocket::bind((ip, 123)).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            seen.lock().unwrap().reached.insert(format!("{ip} 123"));
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
}

/// What a name leads to. `a.b.c.d.at.example.org` is a.b.c.d, with `-` for `.`; and so for IPv6.
fn addresses(name: &str, asked: usize) -> Option<Vec<std::net::IpAddr>> {
    let of = |text: &str| text.parse().ok().map(|ip| vec![ip]);
    if let Some(text) = name.strip_suffix(".v4.example.org") {
        return of(&text.replace('-', "."));
    }
    if let Some(text) = name.strip_suffix(".v6.example.org") {
        return of(&text.replace('-', ":"));
    }
    match name {
        "good.example.org" | "alias.example.org" => of("8.8.8.8"),
        "other.example.org" => of("1.1.1.1"),
        "six.example.org" => of("2606:4700::1"),
        "both.example.org" => Some(vec!["8.8.8.8".parse().unwrap(), "169.254.169.254".parse().unwrap()]),
        // To another address each time.
        "rebind.example.org" => of(if asked == 0 { "93.184.215.14" } else { "10.9.9.9" }),
        _ => None,
    }
}

/// Answers for names (RFC 1035), as far as these tests need it.
fn names(socket: &UdpSocket, seen: &Mutex<Seen>) {
    let mut buffer = [0; 2048];
    let mut rebound = 0;
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let question = &buffer[..length];
        let (mut at, mut labels) = (12, Vec::new());
        while question[at] != 0 {
            let end = at + 1 + usize::from(question[at]);
            labels.push(String::from_utf8_lossy(&question[at + 1..end]).into_owned());
            at = end;
        }
        let name = labels.join(".");
        seen.lock().unwrap().asked.push(name.clone());
        let kind = question[at + 2];
        let found = addresses(&name, rebound);
        rebound += usize::from(name == "rebind.example.org" && kind == 1);
        let mut answer = question[..at + 5].to_vec();
        answer[2..12].copy_from_slice(&[0x81, if found.is_some() { 0x80 } else { 0x83 }, 0, 1, 0, 0, 0, 0, 0, 0]);
        let mut owner = vec![0xc0, 12];
        if name == "alias.example.org" {
            let alias = b"\x04good\x07example\x03org\0";
            answer.extend([&owner[..], &[0, 5, 0, 1, 0, 0, 0, 9, 0, alias.len() as u8], alias].concat());
            answer[7] += 1;
            owner = alias.to_vec();
        }
        for address in found.unwrap_or_default() {
            let (of, data) = match address {
                std::net::IpAddr::V4(v4) => (1, v4.octets().to_vec()),
                std::net::IpAddr::V6(v6) => (28, v6.octets().to_vec()),
            };
            if of == kind {
                answer.extend([&owner[..], &[0, kind, 0, 1, 0, 0, 0, 9, 0, data.len() as u8], &data].concat());
                answer[7] += 1;
            }
        }
        let _ = socket.send_to(&answer, from);
    }
}
