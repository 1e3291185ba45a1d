//! Texts of every option, right and wrong, with what the library makes of each. They are written to
//! `python/tests/options.json`, against which the program, C, C++ and Python are compared.

use sandcell::options::{self, Kind, Spec, Value};
use sandcell::{Error, Sandbox};
use serde_json::{Value as Json, json};

/// One text of one option.
pub struct Case {
    pub spec: &'static Spec,
    pub text: String,
    /// The options that differ from the defaults then, or why it is refused.
    pub expected: Result<Vec<(&'static str, Vec<String>)>, Error>,
}

pub fn all() -> Vec<Case> {
    let of = |spec: &'static Spec| texts(spec).into_iter().map(move |text| case(spec, text));
    options::all().flat_map(of).collect()
}

fn case(spec: &'static Spec, text: String) -> Case {
    let expected = Sandbox::builder().set(spec.name, text.as_str()).map(|builder| builder.policy().options());
    Case { spec, text, expected }
}

/// Where one is right, another wrong, is for the kind to say; a form of its own says it below.
fn texts(spec: &Spec) -> Vec<String> {
    let (least, most) = spec.range;
    let mut texts: Vec<String> = match spec.kind {
        Kind::Size => &[
            "67108864",
            "64M",
            "65536k",
            "64MiB",
            "64mib",
            "1g",
            "8T",
            "4096B",
            "12X",
            "64MB",
            "1.5G",
            "",
            "-1",
            " 64M",
            "5iB",
            "99999999999G",
        ][..],
        Kind::Count | Kind::SmallCount => &["7", "007", "x", "-1", "+1", "", "7K", "7.0", "99999999999999999999999"],
        Kind::Fraction => &["0.5", "2", "0.01", "1e3", "nan", "inf", "-1", ".5", "1.", "", "0.001"],
        Kind::Duration => &[
            "500ms",
            "1.5s",
            "30s",
            "2h",
            "0.25ms",
            "1.000001s",
            "3",
            "soon",
            "-3s",
            "1.s",
            "1.1234567s",
            "1h30m",
            "",
            "5 s",
            "99999999999999999h",
        ],
        Kind::Flag => &["true", "false", "yes", "1", "TRUE"],
        Kind::Mode => &["027", "0o27", "7", "888", "", "1000", "-1", "0x1f"],
        Kind::Text => &["box", "0"],
        Kind::Path => &["/tmp/x", "relative", ""],
        Kind::Words(words) => {
            let shouted = words[0].to_uppercase();
            return words
                .iter()
                .map(|word| (*word).to_owned())
                .chain([shouted, "nonsense".to_owned(), String::new()])
                .collect();
        }
        Kind::Form => form(spec.name),
        _ => panic!("say texts of this kind for {}", spec.name),
    }
    .iter()
    .map(|text| (*text).to_owned())
    .collect();
    // The bounds, and what is just beyond them.
    if matches!(spec.kind, Kind::Size | Kind::Count | Kind::SmallCount) {
        let beyond = [least.checked_sub(1), Some(least), Some(most), most.checked_add(1)];
        texts.extend(beyond.iter().flatten().map(u64::to_string));
    }
    texts
}

fn form(name: &str) -> &'static [&'static str] {
    match name {
        "root" => &["empty", "/usr", "./host", "host", ""],
        "image" => &["app:1", "debian"],
        "store" => &["/srv/store", ""],
        "layer" => &["/srv/layer", ""],
        "upper" => &["tmpfs", "/srv/kept", "./tmpfs", ""],
        "ro" | "rw" => &["/usr", "/usr:/x", r"/a\:b:/c\:d", r"/a\b:/c", ":/x", "/x:", ""],
        "tmpfs" => &["/x", "/x:64M", "/x:64m", r"/a\:b:4096", "/x:big", "/x:", "", ":1M"],
        "file" => &["/x=text", "/x:755=a=b", r"/a\=b\:c:600=", "/x", "=text", "/x:999=text", ""],
        "volume" => {
            &["data:/data", "data:/data:ro", "data:/data:rw", r"data:/a\:b:ro", "data", "data:/data:no", ":/x", ""]
        }
        "user" => &[
            "random",
            "root",
            "caller",
            "7",
            "7:8",
            "me",
            "me:staff",
            "7:",
            ":7",
            "7:8:9",
            "-1",
            "+1",
            "4294967296",
            "",
        ],
        "allow_host" | "deny_host" => &[
            "pypi.org",
            "PyPI.org.",
            "*.example.org:443",
            "github.com:22,443",
            "db:*",
            "example.org:443/udp",
            "example.org:443/tcp",
            "10.0.0.1",
            "*",
            "a b",
            "example.org:0",
            "example.org:65536",
            "bücher.example",
            "",
        ],
        "publish" => &[
            "8080:80",
            "0:80",
            "0.0.0.0:5353:53/udp",
            "[::1]:8080:80/tcp",
            "80",
            "80:0",
            "65536:80",
            "80:65536",
            "localhost:80:80",
            "80:80/sctp",
            "::1:80:80",
            "",
        ],
        "upstream_proxy" => &[
            "http://proxy.example.org:3128",
            "http://127.0.0.1:3128/",
            "socks5://[::1]:1080",
            "http://proxy.example.org",
            "http://user:word@proxy.example.org:80",
            "https://proxy.example.org:443",
            "http://:80",
            "http://::1:80",
            "socks5://proxy:0",
            "proxy:3128",
            "",
        ],
        "device" => &[
            "/dev/kvm",
            "/dev/kvm:ro",
            "/dev/kvm:rw",
            r"/dev/a\:b:/dev/c",
            "/dev/sda:/dev/disk:ro",
            "/dev/sda:/dev/disk:rwm",
            "/dev/kvm:",
            "",
        ],
        "socket" => &["/run/agent", "/run/agent:/run/ssh", "/run/agent:", ""],
        "allow" => &["ptrace", "nested", "engine-socket", "everything", ""],
        "host_port" => &["5432", "53/udp", "1/tcp", "0", "65536", "80:80", "*", "80/icmp", ""],
        "allow_net" | "deny_net" => &[
            "10.1.0.0/16:5432",
            "10.1.2.3",
            "2001:db8::/32",
            "[2001:db8::/32]:80,8000-8080/tcp",
            "192.0.2.7:53/udp",
            "10.1.2.3/16",
            "10.0.0.0/33",
            "127.0.0.1",
            "::ffff:10.0.0.1",
            "10.0.0.1:0",
            "10.0.0.1:65536",
            "example.org",
            "",
        ],
        "rlimit" => &[
            "nofile=256",
            "RLIMIT_NOFILE=256:512",
            "fsize=64M",
            "fsize=512k",
            "stack=unlimited",
            "nofile",
            "luck=3",
            "nofile=x",
            "nofile=1:",
            "",
        ],
        "seccomp" => &["default", "off", "/no/such/file", ""],
        "seccomp_with" | "seccomp_without" => &["network-client", "everything", ""],
        "cap_add" => &["net_raw", "CAP_NET_RAW", "flying", ""],
        "env" => &["A=b", "A=", "A=b=c", "", "=b"],
        "env_file" => &["/dev/null", "/no/such/file"],
        "best_effort" => &[
            "all",
            "memory",
            "cpu-time",
            "landlock",
            "landlock:device commands",
            "timeout",
            "output_limit",
            "network",
            "seccomp",
            "luck",
            "",
        ],
        "io_max" => &[
            "8:0,read_bytes=1M",
            "/dev/sda,write_ops=100,read_ops=5,write_bytes=2k",
            "8:0,bytes=1",
            "8:0,read_bytes",
            "8:0,read_bytes=x",
        ],
        _ => panic!("say right and wrong texts of the option {name} here"),
    }
}

/// The value itself, for setters that take one; seconds for a time.
fn typed(spec: &Spec, text: &str) -> Json {
    match spec.read(text) {
        Ok(Value::Number(number)) => json!(number),
        Ok(Value::Fraction(number)) => json!(number),
        Ok(Value::Duration(time)) => json!(time.as_secs_f64()),
        Ok(Value::Flag(flag)) => json!(flag),
        _ => Json::Null,
    }
}

/// One case a line.
pub fn json() -> String {
    let line = |case: &Case| {
        let spec = case.spec;
        let expected = match &case.expected {
            Ok(options) => {
                let options: serde_json::Map<_, _> =
                    options.iter().map(|(name, texts)| ((*name).to_owned(), json!(texts))).collect();
                json!({"options": options})
            }
            Err(error) => {
                let failure = error.failure();
                json!({"subject": failure.subject, "message": failure.message, "hint": failure.hint})
            }
        };
        json!({
            "name": spec.name,
            "keyword": spec.python,
            "repeats": spec.repeats,
            "text": case.text,
            "typed": if spec.is_plain() { typed(spec, &case.text) } else { Json::Null },
            "expected": expected,
        })
        .to_string()
    };
    let lines: Vec<_> = all().iter().map(line).collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}
