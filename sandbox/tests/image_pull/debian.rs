//! Debian's docker-registry on the loopback interface: with and without TLS, with and without a password.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine;
use sandcell::image::{Load, Pull, Source};

use crate::image_support::*;
use crate::server::{certificates, wait_until_it_listens};
use crate::tars;

const USER: &str = "tester";
const PASSWORD: &str = "a secret word";
/// Of the password, by crypt(3).
const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuujlT32dFnX95MGUmIkXzSWb2/RZskMuS";

struct Registry {
    process: Child,
    host: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    fn start(scratch: &Scratch, tls: bool, password: bool) -> Registry {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = free.local_addr().unwrap().to_string();
        drop(free);
        let path = |name: &str| scratch.path(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            path("registry")
        );
        if tls {
            certificates(&scratch.0);
            config += &format!("  tls:\n    certificate: {}\n    key: {}\n", path("cert.pem"), path("key.pem"));
        }
        if password {
            std::fs::write(scratch.path("htpasswd"), format!("{USER}:{BCRYPT}\n")).unwrap();
            config += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", path("htpasswd"));
        }
        std::fs::write(scratch.path("config.yml"), config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(scratch.path("config.yml"));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until_it_listens(&host);
        Registry { process, host }
    }

    /// With skopeo, so that what is pulled is what another program has pushed.
    fn push(&self, layout: &Path, name: &str) {
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "--dest-creds"]);
        command.arg(format!("{USER}:{PASSWORD}")).arg(format!("oci:{}:1", layout.display()));
        let output = command.arg(format!("docker://{}/{name}", self.host)).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn all_installed() -> bool {
    ["docker-registry", "skopeo", "openssl"].iter().all(|program| installed(program))
}

#[test]
fn an_image_that_skopeo_pushed_is_pulled_once_and_is_what_a_load_makes_of_it() {
    if !all_installed() {
        return;
    }
    let scratch = Scratch::new("pull-plain");
    let registry = Registry::start(&scratch, false, false);
    let layout = Layout::image(scratch.path("layout"), "1", &tars(), "+gzip", gzip);
    registry.push(&layout.dir, "team/app:1");
    let store = scratch.store();
    let name = format!("{}/team/app:1", registry.host);
    let how = crate::plain(&scratch);
    let pulled = store.pull(&name.parse().unwrap(), &how).unwrap();
    assert_eq!((pulled.new_layers, &pulled.names), (2, &vec![name.clone()]));
    crate::assert_pulled(&store, &pulled);
    let loaded = store.load(&Source::Detect(layout.dir.clone()), &Load::new()).unwrap();
    assert_eq!((loaded[0].id, loaded[0].new_layers), (pulled.id, 0));
    // Again: nothing is new. And by digest, which gives no name.
    assert_eq!(store.pull(&name.parse().unwrap(), &how).unwrap().new_layers, 0);
    let entry: serde_json::Value =
        serde_json::from_slice(&std::fs::read(layout.dir.join("index.json")).unwrap()).unwrap();
    let digest = entry["manifests"][0]["digest"].as_str().unwrap();
    let by_digest = store.pull(&format!("{}/team/app@{digest}", registry.host).parse().unwrap(), &how).unwrap();
    assert_eq!((by_digest.id, by_digest.names), (pulled.id, vec![]));
    let error = store.pull(&format!("{}/team/app:2", registry.host).parse().unwrap(), &how).unwrap_err();
    assert!(error.to_string().contains("MANIFEST_UNKNOWN"), "{error}");
}

#[test]
fn tls_is_trusted_with_the_file_of_the_authority_and_never_without() {
    if !all_installed() {
        return;
    }
    let scratch = Scratch::new("pull-tls");
    let registry = Registry::start(&scratch, true, false);
    registry.push(&Layout::image(scratch.path("layout"), "1", &tars(), "+zstd", zstd).dir, "app:1");
    let store = scratch.store();
    let name = format!("{}/app:1", registry.host).parse().unwrap();
    // Although it is on the loopback interface, where no TLS would have been accepted.
    let error = store.pull(&name, &crate::plain(&scratch)).unwrap_err();
    assert!(error.to_string().contains("certificate") && !error.hint().is_empty(), "{error}");
    crate::assert_empty(&store, "untrusted");
    let error = store.pull(&name, &crate::plain(&scratch).plain_http()).unwrap_err();
    assert_eq!(error.kind(), "setup", "{error}");
    let how = crate::plain(&scratch).ca_file(scratch.path("ca.pem"));
    crate::assert_pulled(&store, &store.pull(&name, &how).unwrap());
    for (file, why) in [("config.yml", "no certificate"), ("nowhere", "No such file")] {
        let error = store.pull(&name, &crate::plain(&scratch).ca_file(scratch.path(file))).unwrap_err();
        assert!(error.kind() == "config" && error.to_string().contains(why), "{error}");
    }
}

#[test]
fn a_registry_with_a_password_is_pulled_from_with_dockers_file_a_helper_or_the_callers_word() {
    if !all_installed() {
        return;
    }
    let scratch = Scratch::new("pull-password");
    let registry = Registry::start(&scratch, true, true);
    registry.push(&Layout::image(scratch.path("layout"), "1", &tars(), "", <[u8]>::to_vec).dir, "app:1");
    let name = format!("{}/app:1", registry.host).parse().unwrap();
    let store = scratch.store();
    let ca = |how: Pull<'static>| how.ca_file(scratch.path("ca.pem"));
    let error = store.pull(&name, &ca(crate::plain(&scratch))).unwrap_err();
    assert!(error.hint().starts_with("log in"), "{error} {}", error.hint());
    let error = store.pull(&name, &ca(Pull::new()).credentials(USER, "wrong")).unwrap_err();
    assert!(error.to_string().contains("refuses") && !error.to_string().contains("wrong"), "{error}");
    crate::assert_empty(&store, "refused");

    crate::assert_pulled(&store, &store.pull(&name, &ca(Pull::new()).credentials(USER, PASSWORD)).unwrap());
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let file = scratch.path("config.json");
    let written = serde_json::json!({"auths": {registry.host.clone(): {"auth": auth}}});
    std::fs::write(&file, written.to_string()).unwrap();
    let other = sandcell::image::Store::open(scratch.path("other")).unwrap();
    crate::assert_pulled(&other, &other.pull(&name, &ca(Pull::new().auth_file(&file))).unwrap());
    std::fs::write(&file, r#"{"credsStore": "sandcell-test-is-not-there"}"#).unwrap();
    let error = other.pull(&name, &ca(Pull::new().auth_file(&file))).unwrap_err();
    assert!(error.to_string().contains("docker-credential-sandcell-test-is-not-there"), "{error}");
    std::fs::write(&file, "not json").unwrap();
    let error = other.pull(&name, &ca(Pull::new().auth_file(&file))).unwrap_err();
    assert!(error.kind() == "config" && error.to_string().contains("config.json"), "{error}");
}
