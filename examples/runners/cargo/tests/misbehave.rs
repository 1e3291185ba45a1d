//! Five ways to misbehave; each test passes where it was contained.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn writes_to_the_source_tree() {
    let error = std::fs::write("left-by-a-test", "").expect_err("the tree is read-only");
    println!("source tree: {error}");
    // The build directory is there to be written to.
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/scratch"), "").unwrap();
}

#[test]
fn leaves_a_daemon() {
    let null = Stdio::null;
    Command::new("setsid").args(["sleep", "1000"]).stdin(null()).stdout(null()).stderr(null()).spawn().unwrap();
}

#[test]
fn binds_a_fixed_port() {
    let _listener = TcpListener::bind("127.0.0.1:8080").unwrap();
    println!("port 8080: bound");
    std::thread::sleep(Duration::from_millis(300));
}

#[test]
fn fills_the_disk() {
    let mut file = std::fs::File::create("/tmp/filler").unwrap();
    let full = (0..512).find(|_| file.write_all(&[0; 1 << 20]).is_err());
    println!("disk: full after {} MB", full.expect("there is an end to it"));
}

#[test]
fn kills_its_parent() {
    let parent = std::os::unix::process::parent_id();
    Command::new("kill").args(["-9", &parent.to_string()]).status().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(std::os::unix::process::parent_id(), parent);
    println!("parent: pid {parent}, still there");
}
