//! Registries that mean harm: what they do costs a bounded time and memory, and leads nowhere.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::image_support::*;
use crate::server::*;
use crate::*;

/// A connection is given up after this; an attack may have several.
const PATIENCE: Duration = Duration::from_millis(500);
/// What nothing here may take longer than; it only bounds a hang.
const BOUND: Duration = Duration::from_secs(60);
const MEMORY: u64 = 64 << 20;

type Stream<'a> = &'a mut TcpStream;

/// Answers each connection's first request by hand; the error is the client's, which went away.
fn raw(answer: impl Fn(&str, Stream<'_>) -> std::io::Result<()> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut first = String::new();
                if reader.read_line(&mut first).is_err() || !first.starts_with("GET ") {
                    // It speaks TLS: a registry on the loopback interface is asked for that first.
                    let _ = stream.write_all(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n");
                    return;
                }
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 2) {
                    line.clear();
                }
                let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                let _ = answer(&path, &mut stream);
            });
        }
    });
    host
}

/// The same piece for ever, until nobody listens any more.
fn forever(stream: Stream<'_>, piece: &[u8], pause: Duration) -> std::io::Result<()> {
    loop {
        stream.write_all(piece)?;
        stream.flush()?;
        std::thread::sleep(pause);
    }
}

fn chunks(stream: Stream<'_>, head: &str, piece: &[u8], pause: Duration) -> std::io::Result<()> {
    stream.write_all(format!("HTTP/1.1 {head}\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes())?;
    let piece = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
    forever(stream, &piece, pause)
}

fn whole(stream: Stream<'_>, head: &str, body: &[u8]) -> std::io::Result<()> {
    stream.write_all(format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())?;
    stream.write_all(body)
}

/// Where the process that pulls finds its registry, and its directory.
const HOST: &str = "SANDCELL_TEST_HOSTILE_REGISTRY";
const PLACE: &str = "SANDCELL_TEST_HOSTILE_PLACE";

/// Pulls in a process of its own, whose memory is the pull's alone, and sees to it that it costs little; the error.
fn refused(name: &str, host: &str) -> String {
    let scratch = Scratch::new(&format!("pull-hostile-{name}"));
    let start = Instant::now();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hostile::a_pull_of_its_own", "--nocapture", "--test-threads=1"])
        .env(HOST, host)
        .env(PLACE, &scratch.0)
        .output()
        .unwrap();
    assert!(start.elapsed() < BOUND, "{name}: {:?}", start.elapsed());
    let text = String::from_utf8_lossy(&output.stdout);
    let said = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
    let error = said("error: ").unwrap_or_else(|| panic!("{name}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let peak: u64 = said("peak: ").unwrap().parse().unwrap();
    assert!(peak < MEMORY, "{name}: {peak} bytes");
    assert_empty(&Store::open(scratch.path("store")).unwrap(), name);
    assert!(error.len() < 8192 && !error.contains('\u{1b}'), "{name}: {} bytes of error", error.len());
    error
}

/// The other side of `refused`; by itself it does nothing.
#[test]
fn a_pull_of_its_own() {
    let (Ok(host), Some(place)) = (std::env::var(HOST), std::env::var_os(PLACE)) else { return };
    let place = std::path::PathBuf::from(place);
    let none = place.join("no-credentials.json");
    fs::write(&none, "{}").unwrap();
    let store = Store::open(place.join("store")).unwrap();
    let how = Pull::new().auth_file(none).plain_http().patience(PATIENCE);
    let error = store.pull(&format!("{host}/app:1").parse().unwrap(), &how).expect_err("it should have been refused");
    println!("\nerror: {}\npeak: {}", error.to_string().escape_debug(), peak_memory());
}

const FAST: Duration = Duration::ZERO;
const DRIP: Duration = Duration::from_millis(20);

/// An honest repository but for its largest layer.
fn with_layer(answer: impl Fn(Stream<'_>, &[u8]) -> std::io::Result<()> + Send + Sync + 'static) -> String {
    let content = honest();
    let layer = largest(&content).0;
    raw(move |path, stream| {
        let named = path.rsplit('/').next().unwrap_or_default();
        match content.0.get(named) {
            Some((_, bytes)) if named == layer => answer(stream, bytes),
            Some((media_type, bytes)) => {
                whole(stream, &format!("200 OK\r\nConnection: close\r\nContent-Type: {media_type}"), bytes)
            }
            None => whole(stream, "404 Not\r\nConnection: close", b"{}"),
        }
    })
}

#[test]
fn registries_that_are_silent_or_drip_are_given_up() {
    for (name, host) in [
        (
            "silent",
            raw(|_, _| {
                loop {
                    std::thread::park();
                }
            }),
        ),
        (
            "headers-drip",
            raw(|_, stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\nX-Slow: ")?;
                forever(stream, b"x", DRIP)
            }),
        ),
        (
            "headers-many",
            raw(|_, stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
                forever(stream, b"X-A: b\r\n", DRIP)
            }),
        ),
        ("continue", raw(|_, stream| forever(stream, b"HTTP/1.1 100 Continue\r\n\r\n", DRIP))),
        (
            "body-silent",
            raw(|_, stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")?;
                loop {
                    std::thread::park();
                }
            }),
        ),
        ("body-drip", raw(|_, stream| chunks(stream, "200 OK", b" ", DRIP))),
        ("error-drip", raw(|_, stream| chunks(stream, "403 No", b" ", DRIP))),
        (
            "layer-silent",
            with_layer(|_, _| {
                loop {
                    std::thread::park();
                }
            }),
        ),
        (
            "layer-drip",
            with_layer(|stream, bytes| {
                stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()).as_bytes())?;
                for byte in bytes {
                    stream.write_all(&[*byte])?;
                    std::thread::sleep(DRIP);
                }
                Ok(())
            }),
        ),
        // Each connection brings something, and so little that the layer would never be there.
        (
            "layer-bytes",
            with_layer(|stream, bytes| {
                stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()).as_bytes())?;
                stream.write_all(&bytes[..100])
            }),
        ),
    ] {
        refused(name, &host);
    }
}

#[test]
fn registries_that_send_without_end_are_not_listened_to() {
    let deep: &'static [u8] = &[b'['; 1 << 16];
    for (name, host, word) in [
        (
            "header-huge",
            raw(|_, stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\nX-Huge: ")?;
                forever(stream, &[b'x'; 1 << 16], FAST)
            }),
            "no answer",
        ),
        (
            "headers-endless",
            raw(|_, stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
                forever(stream, &b"X-A: b\r\n".repeat(1000), FAST)
            }),
            "no answer",
        ),
        ("continue-endless", raw(|_, stream| forever(stream, &b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100), FAST)), ""),
        (
            "manifest-endless",
            raw(|_, stream| chunks(stream, "200 OK", &[b' '; 1 << 16], FAST)),
            "more than 4194304 bytes",
        ),
        ("manifest-deep", raw(move |_, stream| whole(stream, "200 OK", &deep.repeat(32))), "does not parse"),
        ("error-endless", raw(|_, stream| chunks(stream, "403 No", &[b'x'; 1 << 16], FAST)), "refuses"),
        ("trouble-endless", raw(|_, stream| chunks(stream, "503 No", &[b'x'; 1 << 16], FAST)), "trouble"),
        (
            "error-terminal",
            raw(|_, stream| whole(stream, "403 No", br#"{"errors":[{"code":"\u001b]0;x","message":"\u001b[31m"}]}"#)),
            "refuses",
        ),
        (
            "chunk-lies",
            raw(|_, stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n")
            }),
            "",
        ),
        (
            "chunk-huge",
            raw(|_, stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n")?;
                forever(stream, &[b' '; 1 << 16], FAST)
            }),
            "more than",
        ),
        (
            "chunk-extension",
            raw(|_, stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=")?;
                forever(stream, &[b'x'; 1 << 16], FAST)
            }),
            "",
        ),
        (
            "length-huge",
            raw(|_, stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n")?;
                forever(stream, &[b' '; 1 << 16], FAST)
            }),
            "",
        ),
        ("length-negative", raw(|_, stream| stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}")), ""),
        ("no-http", raw(|_, stream| forever(stream, &[0; 1 << 16], FAST)), ""),
        (
            "packed-bomb",
            raw(|_, stream| {
                let bomb = gzip(&vec![b' '; 32 << 20]);
                whole(stream, "200 OK\r\nContent-Encoding: gzip", &bomb)
            }),
            "",
        ),
        ("layer-endless", with_layer(|stream, _| chunks(stream, "200 OK", &[0; 1 << 16], FAST)), ""),
        (
            "layer-noise",
            with_layer(|stream, bytes| {
                let noise = noise(bytes.len());
                whole(stream, "200 OK", &noise)
            }),
            "layer",
        ),
        (
            "redirects-endless",
            raw(|path, stream| whole(stream, &format!("302 Found\r\nLocation: {path}x"), b"")),
            "more than 5 redirects",
        ),
    ] {
        let error = refused(name, &host);
        assert!(error.contains(word), "{name}: {error:?} does not say {word:?}");
    }
}

#[test]
fn documents_that_are_bombs_are_refused() {
    let scratch = Scratch::new("pull-bombs");
    let tagged = |mut content: Content, media_type: &str, bytes: Vec<u8>| {
        let digest = content.put(media_type, bytes);
        content.tag("1", digest);
        let server = Server::new(move |request| content.serve(request));
        refused("bomb", &server.host)
    };
    let digest = Digest::of(b"");
    let entry = json!({"mediaType": MANIFEST, "digest": digest, "size": 1, "platform": {"os": "linux", "architecture": "amd64"}});
    let entries = vec![entry; 15_000];
    let many = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
    assert!(many.len() < 4 << 20, "it is the entries that are too many, not the bytes");
    assert!(!tagged(Content::default(), INDEX, many.into_bytes()).is_empty());
    let layers = vec![json!({"mediaType": LAYER, "digest": digest, "size": 1}); 20_000];
    let config = json!({"mediaType": CONFIG, "digest": digest, "size": 1});
    let many = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).to_string();
    assert!(tagged(Content::default(), MANIFEST, many.into_bytes()).contains("20000 layers"));
    let annotated: serde_json::Map<String, Value> = (0..100_000).map(|n| (n.to_string(), json!("x"))).collect();
    let entry = json!({"mediaType": MANIFEST, "digest": digest, "size": 1, "annotations": annotated});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string();
    assert!(!tagged(Content::default(), INDEX, index.into_bytes()).is_empty());
    // A layer that grows without end.
    let mut content = Content::default();
    let mut manifest = image(&mut content, &tars());
    let bomb = gzip(&vec![0; 128 << 20]);
    manifest["layers"][0] = descriptor(&mut content, &format!("{LAYER}+gzip"), &bomb);
    drop(scratch);
    assert!(tagged(content, MANIFEST, manifest.to_string().into_bytes()).contains("layer"));
}

#[test]
fn tokens_and_redirects_lead_to_no_neighbour_and_end() {
    let scratch = Scratch::new("pull-neighbours");
    let metadata = [
        "http://169.254.169.254/latest/meta-data/iam/",
        "http://[fe80::1]/x",
        "http://[::ffff:169.254.169.254]/x",
        "http://2852039166/x",
        "http://0xa9fea9fe/x",
        "http://100.100.100.200/x",
        "http://0.0.0.0/x",
    ];
    for to in metadata {
        let server = Server::new(move |_| redirect(to));
        let error = refused("redirect", &server.host);
        assert!(error.contains("an address of this host or its neighbours"), "{to}: {error}");
        let server = Server::new(move |_| reply(401, "").header("WWW-Authenticate", format!("Bearer realm=\"{to}\"")));
        let error = refused("realm", &server.host);
        assert!(error.contains("an address of this host or its neighbours"), "{to}: {error}");
    }
    for to in
        ["file:///etc/passwd", "FILE:/etc/passwd", "gopher://127.0.0.1/x", "unix:/run/x", "data:,x", "//", "http://"]
    {
        let server = Server::new(move |_| redirect(to));
        let error = refused("scheme", &server.host);
        assert!(error.contains("no address of a server"), "{to}: {error}");
    }
    // Tokens: without end, slowly, deep, from somewhere that asks for another one.
    let token = |answer: fn(Stream<'_>) -> std::io::Result<()>| {
        let tokens = raw(move |_, stream| answer(stream));
        raw(move |_, stream| {
            whole(stream, &format!("401 No\r\nWWW-Authenticate: Bearer realm=\"http://{tokens}/token\""), b"")
        })
    };
    for (name, host) in [
        ("token-endless", token(|stream| chunks(stream, "200 OK", &[b' '; 1 << 16], FAST))),
        ("token-drip", token(|stream| chunks(stream, "200 OK", b" ", DRIP))),
        ("token-deep", token(|stream| whole(stream, "200 OK", &[b'['; 1 << 20]))),
        (
            "token-huge",
            token(|stream| whole(stream, "200 OK", format!("{{\"token\":\"{}\"}}", "x".repeat(1 << 19)).as_bytes())),
        ),
        (
            "token-again",
            token(|stream| whole(stream, "401 No\r\nWWW-Authenticate: Bearer realm=\"http://127.0.0.1:1/\"", b"")),
        ),
        ("token-redirect", token(|stream| whole(stream, "302 No\r\nLocation: http://169.254.169.254/", b""))),
        ("token-lines", token(|stream| whole(stream, "200 OK", b"{\"token\":\"a\\r\\nX-Evil: b\"}"))),
        (
            "challenge-huge",
            raw(|_, stream| {
                whole(stream, &format!("401 No\r\nWWW-Authenticate: Bearer {}", "a=\"b\",".repeat(5000)), b"")
            }),
        ),
    ] {
        refused(name, &host);
    }
    drop(scratch);
}

#[test]
fn a_time_limit_ends_a_pull_whatever_the_registry_does() {
    let host = with_layer(|stream, bytes| {
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()).as_bytes())?;
        // Fast enough to be no drip, too slow to be there in time.
        for piece in bytes.chunks(200) {
            stream.write_all(piece)?;
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    });
    let scratch = Scratch::new("pull-time");
    let mut store = scratch.store();
    store.limits_mut().time = Some(Duration::from_secs(2));
    let start = Instant::now();
    let error =
        store.pull(&format!("{host}/app:1").parse().unwrap(), &plain(&scratch).plain_http()).expect_err("too slow");
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    assert!(error.to_string().contains("time limit"), "{error}");
    assert_empty(&store, "time");
}

/// Says what `refused` does, for a helper that is found in a directory of its own.
fn helped(name: &str, script: &str, pid_file: &std::path::Path) -> String {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new(&format!("pull-helper-{name}"));
    let program = scratch.path("docker-credential-sandcell-test");
    fs::write(&program, format!("#!/bin/sh\necho $$ >{}\n{script}\n", pid_file.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let start = Instant::now();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hostile::a_pull_with_a_helper", "--nocapture", "--test-threads=1"])
        .env("PATH", format!("{}:{path}", scratch.0.display()))
        .env(PLACE, &scratch.0)
        .output()
        .unwrap();
    assert!(start.elapsed() < BOUND, "{name}: {:?}", start.elapsed());
    let text = String::from_utf8_lossy(&output.stdout);
    let said = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
    let error = said("error: ").unwrap_or_else(|| panic!("{name}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let peak: u64 = said("peak: ").unwrap().parse().unwrap();
    assert!(peak < MEMORY && error.len() < 8192, "{name}: {peak} bytes, {error}");
    error
}

/// The other side of `helped`; by itself it does nothing.
#[test]
fn a_pull_with_a_helper() {
    let (Err(_), Some(place)) = (std::env::var(HOST), std::env::var_os(PLACE)) else { return };
    let place = std::path::PathBuf::from(place);
    let file = place.join("config.json");
    fs::write(&file, r#"{"credsStore": "sandcell-test"}"#).unwrap();
    let how = Pull::new().auth_file(file).plain_http().patience(PATIENCE);
    let store = Store::open(place.join("store")).unwrap();
    // Nobody listens there.
    let error = store.pull(&"127.0.0.1:1/app:1".parse().unwrap(), &how).expect_err("nobody is there");
    println!("\nerror: {}\npeak: {}", error.to_string().escape_debug(), peak_memory());
}

#[test]
fn a_credential_helper_that_hangs_or_floods_is_ended_with_all_that_it_has_started() {
    let scratch = Scratch::new("pull-helper-pids");
    for (name, script, said) in [
        ("hangs", "sleep 1000 & wait", "was killed"),
        ("closes", "exec >&-; sleep 1000 & wait", "was killed"),
        ("drips", "while :; do echo x; sleep 0.1; done", "was killed"),
        ("floods", "cat /dev/zero", "more than 1048576 bytes"),
        ("fails", "echo 'no such thing'; exit 1", "the credential helper failed: no such thing"),
        ("babbles", "echo nonsense", "does not parse"),
        // The control: one that answers leads to the registry, though what it has started holds its output open.
        ("answers", r#"echo '{"Username":"u","Secret":"s"}'; sleep 5 &"#, "Connection refused"),
    ] {
        let pid_file = scratch.path(name);
        let error = helped(name, script, &pid_file);
        assert!(error.contains(said), "{name}: {error}");
        let pid = fs::read_to_string(&pid_file).unwrap();
        let group = |group: &str| {
            fs::read_dir("/proc").unwrap().flatten().any(|process| {
                let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
                let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
                fields.get(2) == Some(&group) && fields.first() != Some(&"Z")
            })
        };
        let begun = Instant::now();
        while name != "answers" && group(pid.trim()) {
            assert!(begun.elapsed() < BOUND, "{name}: something is left of it");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
