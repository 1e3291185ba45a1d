#[test] fn tmpdir() { std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/x"), "x").unwrap(); }
#[test] fn source_is_ro() { assert!(std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/x"), "x").is_err()); assert!(std::fs::read_to_string("Cargo.toml").is_ok()); }
#[test] fn port() { std::net::TcpListener::bind("127.0.0.1:8080").unwrap(); }
