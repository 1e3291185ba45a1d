//! What users of the library rely on beside what runs: text in and out, what is shown of a value, how values are made.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use sandcell::{
    Builder, Capability, HostIds, HostRule, IoMax, Isolation, Landlock, Leftovers, Mount, NetRule, Network, Resource,
    Sandbox, Stdio, User,
};

const SECRET: &str = "s3cret-of-9-lives";

/// Neither as text nor as numbers.
#[track_caller]
fn shows_nothing(value: &impl Debug, name: &str) {
    let bytes: Vec<String> = SECRET.bytes().take(5).map(|byte| byte.to_string()).collect();
    let pretty = format!("{value:#?}");
    let shown = format!("{value:?}");
    assert!(!shown.contains(SECRET) && !pretty.contains(SECRET), "{shown}");
    assert!(!shown.contains(&bytes.join(", ")), "{shown}");
    assert!(shown.contains(name), "{name} is missing: {shown}");
    assert!(shown.len() < 4000, "{} bytes: {shown}", shown.len());
}

#[test]
fn debug_is_short_and_shows_no_value_of_a_variable_no_content_of_a_file_and_no_input() {
    let file = Mount::file("/etc/token", SECRET, 0o600);
    shows_nothing(&file, "/etc/token");
    let builder = Sandbox::builder().host_ids(HostIds::Shared).env("TOKEN", SECRET).mount(file);
    shows_nothing(&builder, "TOKEN");
    shows_nothing(builder.policy(), "TOKEN");
    let sandbox = builder.build().unwrap();
    shows_nothing(&sandbox, "TOKEN");
    let mut command = sandbox.command("/bin/cat");
    command.arg("/etc/token").env("OTHER", SECRET).input(SECRET);
    shows_nothing(&command, "OTHER");
    // The control: it is there.
    assert_eq!(command.output().unwrap().stdout, SECRET.as_bytes());
    let cell = sandbox.start().unwrap();
    shows_nothing(&cell, "TOKEN");
    shows_nothing(&cell.command("/bin/cat").env("OTHER", SECRET), "OTHER");
    let mut child = sandbox.command("/bin/cat").stdin(Stdio::piped()).spawn().unwrap();
    shows_nothing(&child, "Child");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What is read from text is written as text that is read as the same.
#[track_caller]
fn there_and_back<T: FromStr<Err: Debug> + Display + PartialEq + Debug>(texts: &[&str]) {
    for text in texts {
        let value: T = text.parse().expect(text);
        assert_eq!(value.to_string().parse::<T>().expect("what was written is read"), value, "{text}");
    }
    assert!("no such word".parse::<T>().is_err());
}

#[test]
fn what_is_read_from_text_is_written_as_text() {
    there_and_back::<User>(&["random", "root", "caller", "7", "7:8"]);
    there_and_back::<HostIds>(&["auto", "disjoint", "shared"]);
    there_and_back::<Isolation>(&["namespaces", "landlock"]);
    there_and_back::<Network>(&["none", "loopback", "host", "user"]);
    there_and_back::<Landlock>(&["default", "required", "off"]);
    there_and_back::<Leftovers>(&["kill", "report", "fail"]);
    there_and_back::<HostRule>(&["example.org", "*.example.org:443"]);
    there_and_back::<NetRule>(&["10.0.0.0/8:53/udp", "2001:db8::/32"]);
    there_and_back::<Capability>(&["CAP_NET_RAW", "net_raw", "cap_chown"]);
    there_and_back::<Resource>(&["RLIMIT_NOFILE", "nofile", "As"]);
}

#[test]
fn a_builder_goes_on_from_a_policy_that_was_built_before() {
    let disk = IoMax { device: "8:0".to_owned(), read_bytes: Some(1 << 20), ..IoMax::default() };
    let first = Sandbox::builder().hostname("first").umask(0o077).rlimit(Resource::RLIMIT_NOFILE, 64, 64).io_max(disk);
    let second = Builder::from(first.policy().clone());
    assert_eq!(second.policy(), first.policy());
    let second = second.hostname("second");
    assert_eq!(second.policy().hostname.as_deref(), Some("second"));
    assert_eq!(second.policy().rlimits, [(Resource::RLIMIT_NOFILE, 64, 64)]);
}
