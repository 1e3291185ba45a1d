//! An upstream proxy: connections go by it, names are looked up by it, and the rules hold as without.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sandcell::{Builder, Sandbox};

use crate::world::within;
use crate::{tried, user};

/// What was asked of a proxy.
type Asked = Arc<Mutex<Vec<String>>>;

/// A proxy at the host's loopback. Names lead to 8.8.8.8; `refused.example.org` and port 4444 to nothing.
fn proxy(socks5: bool) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Asked::default();
    let noted = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let noted = noted.clone();
            std::thread::spawn(move || if socks5 { serve_socks(stream, &noted) } else { serve_http(stream, &noted) });
        }
    });
    (format!("{}://127.0.0.1:{port}", if socks5 { "socks5" } else { "http" }), asked)
}

fn reached(target: &str, asked: &Asked) -> Option<TcpStream> {
    asked.lock().unwrap().push(target.to_owned());
    let (host, port) = target.rsplit_once(':').unwrap();
    if host == "refused.example.org" || port == "4444" {
        return None;
    }
    let address: SocketAddr =
        format!("{}:{port}", if host.ends_with(".org") { "8.8.8.8" } else { host }).parse().unwrap();
    TcpStream::connect(address).ok()
}

fn carry(one: TcpStream, other: TcpStream) {
    let (mut from, mut to) = (one.try_clone().unwrap(), other.try_clone().unwrap());
    let there = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let (mut from, mut to) = (other, one);
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Write);
    there.join().unwrap();
}

fn serve_http(mut stream: TcpStream, asked: &Asked) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    assert!(lines.any(|line| line.is_empty()));
    let target = first.strip_prefix("CONNECT ").unwrap().strip_suffix(" HTTP/1.1").unwrap();
    match reached(target, asked) {
        None => stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno").unwrap(),
        Some(peer) => {
            // In pieces, as the network may have it.
            for piece in ["HTTP/1.1 2", "00 OK\r\nVia: a", "\r\n\r\n"] {
                stream.write_all(piece.as_bytes()).unwrap();
                stream.flush().unwrap();
            }
            carry(stream, peer);
        }
    }
}

fn serve_socks(mut stream: TcpStream, asked: &Asked) {
    let mut read = |count: usize| {
        let mut bytes = vec![0; count];
        stream.read_exact(&mut bytes).unwrap();
        bytes
    };
    assert_eq!(read(3), [5, 1, 0]);
    (&stream).write_all(&[5, 0]).unwrap();
    let read = |count: usize| {
        let mut bytes = vec![0; count];
        (&stream).read_exact(&mut bytes).unwrap();
        bytes
    };
    let head = read(4);
    let host = match head[3] {
        1 => read(4).iter().map(u8::to_string).collect::<Vec<_>>().join("."),
        _ => {
            let length = read(1)[0];
            String::from_utf8(read(length.into())).unwrap()
        }
    };
    let port = read(2);
    let target = format!("{host}:{}", u16::from(port[0]) << 8 | u16::from(port[1]));
    match reached(&target, asked) {
        None => stream.write_all(&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap(),
        Some(peer) => {
            stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
            carry(stream, peer);
        }
    }
}

fn by(builder: Builder, url: &str) -> Builder {
    builder.upstream_proxy(url.parse().unwrap())
}

fn listed() -> Builder {
    ["good.example.org", "refused.example.org:80", "only-there.example.org:80"]
        .iter()
        .fold(Sandbox::builder(), |builder, rule| builder.allow_host(rule.parse().unwrap()))
        .allow_net("10.9.9.9:80".parse().unwrap())
        .allow_net("1.1.1.1".parse().unwrap())
}

#[test]
fn connections_go_by_the_proxy_with_their_names_and_the_rules_hold() {
    within("connections_go_by_the_proxy_with_their_names_and_the_rules_hold", |world| {
        for socks5 in [false, true] {
            let (url, asked) = proxy(socks5);
            let attempts = [
                "host good.example.org 80",
                "host only-there.example.org 80",
                "tcp 10.9.9.9 80",
                "tcp 1.1.1.1 80",
                "host good.example.org 7000",
                "host other.example.org 80",
                "tcp 8.8.8.8 80",
                "tcp 198.18.9.9 80",
                "tcp 169.254.169.254 80",
                "host refused.example.org 80",
                "tcp 1.1.1.1 4444",
                "udp 1.1.1.1 123",
            ];
            let tried = tried(by(listed(), &url), &attempts);
            let said: Vec<_> = attempts.iter().map(|attempt| tried.of(attempt)).collect();
            let refused = if socks5 { "EHOSTUNREACH" } else { "ECONNREFUSED" };
            let no = "EHOSTUNREACH";
            assert_eq!(said[..5], ["ok", "ok", "ok", "ok", no], "{:?}", tried.network);
            assert_ne!(said[5], "ok", "a name that no rule allows");
            assert_eq!(said[6..], [no, no, no, refused, refused, no], "{:?}", tried.network);
            let told = std::mem::take(&mut *asked.lock().unwrap());
            assert_eq!(
                told,
                [
                    "good.example.org:80",
                    "only-there.example.org:80",
                    "10.9.9.9:80",
                    "1.1.1.1:80",
                    "refused.example.org:80",
                    "1.1.1.1:4444"
                ]
            );
            assert!(world.asked().is_empty(), "the host's resolver is asked for nothing");
            let line =
                tried.network.connections.iter().find(|one| one.host.as_deref() == Some("good.example.org")).unwrap();
            assert_eq!(line.rule.as_deref(), Some("allow-host good.example.org"));
        }
    });
}

#[test]
fn tls_by_a_proxy_names_the_host_that_was_looked_up() {
    within("tls_by_a_proxy_names_the_host_that_was_looked_up", |_| {
        let (url, asked) = proxy(false);

        // The first name has the first address.
        let attempts = [
            "dns 9.9.9.9 good.example.org 1",
            "dns 9.9.9.9 good.example.org 28",
            "tls 198.18.0.1 443 good.example.org",
            "tls 198.18.0.1 443 refused.example.org",
            "tcp 198.18.0.1 443",
        ];
        let tried = tried(by(listed(), &url), &attempts);
        assert_eq!((tried.of(attempts[0]), tried.of(attempts[1])), ("0 1", "0 0"), "{:?}", tried.network);
        assert_eq!(tried.of(attempts[2]), "ok", "{:?}", tried.network);
        assert!(attempts[3..].iter().all(|attempt| tried.of(attempt) != "ok"));
        assert!(asked.lock().unwrap().iter().all(|target| target == "good.example.org:443"));
    });
}

#[test]
fn a_proxy_for_the_whole_internet_keeps_denials_and_large_transfers_whole() {
    within("a_proxy_for_the_whole_internet_keeps_denials_and_large_transfers_whole", |_| {
        let (url, _) = proxy(true);
        let builder = by(user(), &url)
            .deny_host("other.example.org".parse().unwrap())
            .deny_net("8.8.8.8:443".parse().unwrap())
            .host_port("7000".parse().unwrap());
        let attempts = [
            "host any.example.org 80",
            "host other.example.org 80",
            "tcp 8.8.8.8 443",
            "tcp 10.9.9.9 80",
            "bulk 8.8.8.8 80 5000000",
            "host host.containers.internal 7000",
        ];
        let tried = tried(builder, &attempts);
        let said: Vec<_> = attempts.iter().map(|attempt| tried.of(attempt)).collect();
        assert_ne!(said[1], "ok");
        assert_eq!([said[0], said[2], said[3], said[4], said[5]], ["ok", "EHOSTUNREACH", "EHOSTUNREACH", "ok", "ok"]);
    });
}

#[test]
fn a_proxy_that_is_not_there_is_told_by_each_connection() {
    within("a_proxy_that_is_not_there_is_told_by_each_connection", |_| {
        let tried = tried(by(user(), "http://127.0.0.1:9"), &["tcp 8.8.8.8 80"]);
        assert_eq!(tried.of("tcp 8.8.8.8 80"), "ECONNREFUSED");
        let error =
            by(user(), "http://nowhere.invalid:9").build().unwrap().command("true").status().expect_err("no name");
        assert_eq!((error.kind(), error.stage()), ("setup", "upstream-proxy"), "{error}");
        assert!(!error.hint().is_empty());
        let error = by(Sandbox::builder(), "http://127.0.0.1:9").build().expect_err("the network is a loopback");
        assert_eq!((error.kind(), error.subject()), ("config", "upstream_proxy"), "{error}");
    });
}
