//! Requests to one registry about one repository.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Response, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::auth::Auth;
use super::guard::{Paced, forbidden};
use super::{Pull, read_config};
use crate::error::{Failure, Result};
use crate::images::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, DOCUMENT_LIMIT, Descriptor, OCI_INDEX, OCI_MANIFEST};
use crate::images::reference::{Digest, Reference};
use crate::images::stream::Stop;

/// Registries hand blobs out through one redirect to their storage; some have one more in front.
const REDIRECTS: usize = 5;
/// Requests for the same thing, where a connection fails or the registry is in trouble.
const ATTEMPTS: u32 = 3;
/// How long a connection may be silent.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
/// The same for what it says about a failure.
const SAID: Duration = Duration::from_secs(2);
/// Where distributions keep the authorities that they trust; `SSL_CERT_FILE` comes before.
const SYSTEM_CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

pub(crate) struct Registry {
    agent: Agent,
    /// Scheme, host and port.
    origin: Origin,
    /// The repository: `library/debian`.
    name: String,
    /// As people write the registry: `docker.io`.
    host: String,
    auth: Auth,
    stop: Stop,
    subject: String,
    /// How long a connection may be silent.
    patience: Duration,
}

/// Who is spoken to. Credentials are for one of these and no other.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: String,
    authority: String,
}

impl Origin {
    fn new(scheme: &str, authority: &str) -> Origin {
        let standard = if scheme == "https" { ":443" } else { ":80" };
        let authority = authority.to_ascii_lowercase();
        let authority = authority.strip_suffix(standard).unwrap_or(&authority).to_owned();
        Origin { scheme: scheme.to_owned(), authority }
    }

    /// None for anything but a whole http or https address without a user in it.
    pub fn of(url: &str) -> Option<Origin> {
        let uri: Uri = url.parse().ok()?;
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str());
        (matches!(scheme, "http" | "https") && !authority.contains('@')).then(|| Origin::new(scheme, authority))
    }

    pub fn is_plain(&self) -> bool {
        self.scheme == "http"
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

impl Registry {
    pub fn connect(image: &Reference, how: &Pull<'_>, stop: Stop) -> Result<Registry> {
        let host = image.host().unwrap_or("docker.io").to_owned();
        let library = if host == "docker.io" && !image.path().contains('/') { "library/" } else { "" };
        let name = format!("{library}{}", image.path());
        let authority = if host == "docker.io" { "registry-1.docker.io".to_owned() } else { host.clone() };
        let loopback = is_loopback(&authority);
        let subject = image.to_string();
        let auth = Auth::find(&host, &name, how, &stop)?;
        let agent = agent(how, loopback, stop.deadline)?;
        let scheme = if how.plain_http { "http" } else { "https" };
        let origin = Origin::new(scheme, &authority);
        let patience = how.patience.unwrap_or(SILENCE);
        let mut registry = Registry { agent, origin, name, host, auth, stop, subject, patience };
        if loopback && !how.plain_http && registry.is_not_tls() {
            registry.origin = Origin::new("http", &authority);
        }
        Ok(registry)
    }

    /// Whether what answers speaks something else than TLS. A certificate that is not trusted is no reason to go on
    /// without one.
    fn is_not_tls(&self) -> bool {
        let rustls = match self.agent.get(format!("{}/v2/", self.origin)).call() {
            Err(ureq::Error::Rustls(error)) => Some(error),
            Err(ureq::Error::Io(error)) => error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()).cloned(),
            _ => None,
        };
        matches!(rustls, Some(rustls::Error::InvalidMessage(_)))
    }

    /// The name that the store keeps: with the registry, without a digest; none where there is no tag.
    pub fn full_name(&self, image: &Reference) -> Option<Reference> {
        format!("{}/{}:{}", self.host, self.name, image.tag()?).parse().ok()
    }

    pub fn failure(&self, message: impl Into<String>) -> Failure {
        Failure::new("image-pull", self.subject.clone(), message)
    }

    pub fn check(&self) -> io::Result<()> {
        self.stop.check()
    }

    pub fn wait(&self, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.check()?;
            std::thread::sleep(Duration::from_millis(20).min(time));
        }
        self.check()
    }

    /// A manifest or index and its media type. `digest` and `size` are what a descriptor says of it; a tag has none.
    pub fn manifest(
        &self,
        named: &str,
        digest: Option<Digest>,
        size: Option<u64>,
    ) -> Result<(Vec<u8>, Option<String>)> {
        let accept = [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST].join(", ");
        let path = format!("/v2/{}/manifests/{named}", self.name);
        let (bytes, headers) = self.whole(&path, Some(&accept), "the manifest", size)?;
        let is = Digest::of(&bytes);
        // What the registry itself says of a tag must be true as well.
        let said = match digest {
            Some(digest) => Some(digest),
            None => header(&headers, "docker-content-digest").and_then(|text| text.parse().ok()),
        };
        if let Some(said) = said.filter(|said| *said != is) {
            return Err(self.failure(format!("a manifest with the digest {is} came for {said}")).hint(CHANGED).setup());
        }
        let media_type = header(&headers, "content-type").and_then(|text| text.split(';').next());
        Ok((bytes, media_type.map(|text| text.trim().to_owned())))
    }

    /// A small blob, verified.
    pub fn document(&self, of: &Descriptor) -> Result<Vec<u8>> {
        let path = format!("/v2/{}/blobs/{}", self.name, of.digest);
        let (bytes, _) = self.whole(&path, None, "the configuration", Some(of.size))?;
        let is = Digest::of(&bytes);
        if is != of.digest {
            let message = format!("a configuration with the digest {is} came for {}", of.digest);
            return Err(self.failure(message).hint(CHANGED).setup());
        }
        Ok(bytes)
    }

    fn whole(&self, path: &str, accept: Option<&str>, what: &str, size: Option<u64>) -> Result<(Vec<u8>, HeaderMap)> {
        if let Some(size) = size.filter(|size| *size > DOCUMENT_LIMIT) {
            let message = format!("{what} has {size} bytes; at most {DOCUMENT_LIMIT} are read");
            return Err(self.failure(message).setup());
        }
        let mut attempt = 1;
        loop {
            let (parts, body) = self.get(path, accept, 0)?.into_parts();
            let mut bytes = Vec::new();
            let most = size.unwrap_or(DOCUMENT_LIMIT);
            match self.reader(body).take(most + 1).read_to_end(&mut bytes) {
                Ok(_) if bytes.len() as u64 > most => {
                    let message = format!("the registry sends more than {most} bytes for {what}");
                    return Err(self.failure(message).setup());
                }
                Ok(_) if size.is_some_and(|size| size != bytes.len() as u64) => {
                    let message = format!("{what} has {} bytes, its descriptor says {most}", bytes.len());
                    return Err(self.failure(message).setup());
                }
                Ok(_) => return Ok((bytes, parts.headers)),
                Err(error) if attempt >= ATTEMPTS => {
                    return Err(self.failure(format!("reading {what}")).cause(&error).setup());
                }
                Err(_) => attempt += 1,
            }
        }
    }

    /// A layer from a byte on. The registry may begin anew although it was asked not to.
    pub fn blob(&self, digest: Digest, at: u64, len: u64) -> io::Result<Box<dyn Read>> {
        let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidData, message);
        let path = format!("/v2/{}/blobs/{digest}", self.name);
        let (parts, body) = self.get(&path, None, at).map_err(|e| io::Error::other(e.to_string()))?.into_parts();
        let from = match (parts.status.as_u16(), header(&parts.headers, "content-range")) {
            (206, Some(range)) => {
                let (from, total) = content_range(range).ok_or_else(|| invalid(format!("Content-Range: {range}")))?;
                if from != at || total.is_some_and(|total| total != len) {
                    return Err(invalid(format!(
                        "asked for what follows byte {at} of {len}, and the registry sends {range}"
                    )));
                }
                at
            }
            _ => 0,
        };
        if let Some(length) = body.content_length().filter(|length| *length != len - from) {
            let message = format!("the registry sends {} bytes, and the manifest says {len}", length + from);
            return Err(invalid(message));
        }
        let mut body = self.reader(body);
        if from < at {
            io::copy(&mut (&mut body).take(at - from), &mut io::sink())?;
        }
        Ok(Box::new(body))
    }

    /// A request that is answered with content: through redirects, with credentials where they belong, and again where
    /// that may help.
    fn get(&self, path: &str, accept: Option<&str>, from: u64) -> Result<Response<Body>> {
        let mut attempt = 0;
        let mut challenged = false;
        loop {
            self.check().map_err(|e| self.failure("pulling").cause(&e).setup())?;
            attempt += 1;
            let trouble = match self.follow(path, accept, from)? {
                Ok(response) => match response.status().as_u16() {
                    200 | 206 => return Ok(response),
                    401 if !challenged => {
                        challenged = true;
                        self.auth.answer(self, response.headers())?;
                        continue;
                    }
                    status @ (500 | 502..=504) => format!("the registry is in trouble: {}", said(status, response)),
                    status => return Err(self.refused(status, response)),
                },
                Err(error) => error,
            };
            if attempt >= ATTEMPTS {
                return Err(self.failure(trouble).setup());
            }
            let pause = Duration::from_millis(200) * attempt;
            self.wait(pause).map_err(|e| self.failure("pulling").cause(&e).setup())?;
        }
    }

    /// One request and its redirects; the inner error is worth another attempt.
    fn follow(
        &self,
        path: &str,
        accept: Option<&str>,
        from: u64,
    ) -> Result<std::result::Result<Response<Body>, String>> {
        let mut url = format!("{}{path}", self.origin);
        for _ in 0..=REDIRECTS {
            let refuse = |why: &str| self.failure(format!("the registry redirects to {url:?}, {why}")).setup();
            let to = Origin::of(&url).ok_or_else(|| refuse("which is no address of a server"))?;
            if to.is_plain() && !self.origin.is_plain() {
                return Err(refuse("which is without TLS"));
            }
            self.check_address(&to, &url, "redirects to")?;
            let mut request = self.agent.get(&url);
            // Credentials are this registry's and nobody else's (CVE-2020-15157).
            if let Some(authorization) = self.auth.header().filter(|_| to == self.origin) {
                request = request.header("authorization", authorization);
            }
            if let Some(accept) = accept {
                request = request.header("accept", accept);
            }
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            let response = match request.call() {
                Ok(response) => response,
                Err(error) => return self.unreachable(&to, error).map(Err),
            };
            // Only the registry itself may ask for its credentials.
            if response.status().as_u16() == 401 && to != self.origin {
                return Err(self.refused(401, response));
            }
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(Ok(response));
            }
            let location = header(response.headers(), "location").unwrap_or_default();
            url = match location.as_bytes() {
                [b'/', b'/', ..] => format!("{}:{location}", to.scheme),
                [b'/', ..] => format!("{to}{location}"),
                _ => location.to_owned(),
            };
        }
        Err(self.failure(format!("more than {REDIRECTS} redirects")).setup())
    }

    /// Refuses an address that the registry has no business with.
    pub(super) fn check_address(&self, to: &Origin, url: &str, does: &str) -> Result<()> {
        if *to == self.origin {
            return Ok(());
        }
        let proxied = self.agent.config().proxy().is_some();
        match forbidden(url, is_loopback(&self.origin.authority), proxied) {
            None => Ok(()),
            Some(ip) => Err(self
                .failure(format!(
                    "the registry {does} {url:?}, which is {ip}: an address of this host or its neighbours"
                ))
                .hint("ask whoever runs the registry; nothing was sent there")
                .setup()),
        }
    }

    pub(super) fn reader(&self, body: Body) -> impl Read + 'static {
        Paced::new(reader(body), self.patience)
    }

    /// What is worth another attempt comes back as text.
    pub(super) fn unreachable(&self, to: &Origin, error: ureq::Error) -> Result<String> {
        let message = format!("no answer from {to}: {error}");
        let failure = self.failure(message.clone());
        let text = error.to_string();
        if text.contains("certificate") {
            return Err(failure.hint("give the file of the authority's certificate if it is yours").setup());
        }
        match error {
            ureq::Error::HostNotFound => Err(failure.hint("look at the registry's name").setup()),
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => Err(failure.hint(NOT_TLS).setup()),
            ureq::Error::Io(e) if e.get_ref().is_some_and(|e| e.is::<rustls::Error>()) => {
                Err(failure.hint(NOT_TLS).setup())
            }
            _ => Ok(message),
        }
    }

    fn refused(&self, status: u16, response: Response<Body>) -> crate::Error {
        let text = said(status, response);
        match status {
            401 | 403 => self.failure(format!("the registry refuses: {text}")).hint(self.auth.hint()).setup(),
            404 => self.failure(format!("not in the registry: {text}")).hint("look at the name and the tag").setup(),
            429 => self
                .failure(format!("the registry refuses: {text}"))
                .hint("too many pulls: log in, or wait, or use a mirror")
                .setup(),
            _ => self.failure(format!("the registry answers {text}")).setup(),
        }
    }

    pub(super) fn agent(&self) -> &Agent {
        &self.agent
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

const CHANGED: &str = "the image was damaged or changed on its way; pull it again";
const NOT_TLS: &str = "ask for plain HTTP if this registry has no TLS";

fn agent(how: &Pull<'_>, loopback: bool, deadline: Option<Instant>) -> Result<Agent> {
    let patience = how.patience.unwrap_or(SILENCE);
    let left = deadline.map_or(patience, |deadline| deadline.saturating_duration_since(Instant::now()));
    // Zero would mean no limit.
    let silence = Some(patience.min(left).max(Duration::from_millis(1)));
    let mut tls = TlsConfig::builder();
    if !how.plain_http {
        tls = tls.root_certs(RootCerts::from(certificates(how)?));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(concat!("sandcell/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .timeout_connect(silence.min(Some(Duration::from_secs(30))))
        .timeout_recv_response(silence)
        .timeout_per_read(silence)
        .timeout_per_write(silence)
        .tls_config(tls.unversioned_rustls_crypto_provider(provider).build());
    if loopback {
        config = config.proxy(None);
    }
    Ok(config.build().into())
}

fn certificates(how: &Pull<'_>) -> Result<Vec<Certificate<'static>>> {
    let mut found = Vec::new();
    let mut add = |path: &Path| {
        let pem = read_config(path, "certificates")?;
        let before = found.len();
        for item in parse_pem(&pem) {
            if let Ok(PemItem::Certificate(certificate)) = item {
                found.push(certificate);
            }
        }
        if found.len() == before {
            let failure = Failure::new("image-pull", path.display().to_string(), "no certificate in it");
            return Err(failure.hint("give a file in PEM").config());
        }
        Ok(())
    };
    let given = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let system = given.or_else(|| SYSTEM_CERTIFICATES.iter().map(PathBuf::from).find(|path| path.exists()));
    // None at all: no certificate is trusted then, and the error says so.
    if let Some(system) = system {
        add(&system)?;
    }
    if let Some(file) = &how.ca_file {
        add(file)?;
    }
    Ok(found)
}

fn is_loopback(authority: &str) -> bool {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest
            .split(']')
            .next()
            .and_then(|ip| ip.parse::<std::net::Ipv6Addr>().ok())
            .is_some_and(|ip| ip.is_loopback());
    }
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host == "localhost" || host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn reader(body: Body) -> impl Read + 'static {
    // ureq has a limit of its own for what it collects; here every reader has one.
    body.into_with_config().limit(u64::MAX).reader()
}

/// The start of a range and the whole size, where it is said.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let from = range.split_once('-')?.0.parse().ok()?;
    Some((from, if total == "*" { None } else { Some(total.parse().ok()?) }))
}

/// A status and what the registry says about it, made harmless for a terminal.
pub(super) fn said(status: u16, response: Response<Body>) -> String {
    let mut bytes = Vec::new();
    let _ = Paced::new(reader(response.into_body()), SAID).take(4096).read_to_end(&mut bytes);
    let errors: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
    let first = errors.as_ref().and_then(|v| v.get("errors")?.get(0));
    let word = |key| first.and_then(|e| e.get(key)?.as_str()).unwrap_or_default();
    let text: String = format!("{} {}", word("code"), word("message"));
    let text: String = text.trim().chars().take(200).flat_map(char::escape_default).collect();
    if text.is_empty() { format!("status {status}") } else { format!("status {status}, {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_scheme_host_and_port_are_the_same_server() {
        let origin = Origin::of("https://r.example/v2/x").unwrap();
        assert!(origin == Origin::of("https://R.example:443/other?x=y").unwrap());
        for other in ["http://r.example/", "https://r.example:444/", "https://r.example.org/", "https://xr.example/"] {
            assert!(origin != Origin::of(other).unwrap(), "{other}");
        }
        for bad in ["https://u@r.example/", "ftp://r.example/", "file:///etc/passwd", "/v2/", "", "https://"] {
            assert!(Origin::of(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn loopback_is_this_host_and_no_name_that_looks_like_it() {
        for here in ["localhost", "localhost:5000", "127.0.0.1:1", "127.9.8.7", "[::1]:5000"] {
            assert!(is_loopback(here), "{here}");
        }
        for there in ["localhost.example:5000", "127.0.0.1.example", "10.0.0.1", "[::2]:1", "128.0.0.1"] {
            assert!(!is_loopback(there), "{there}");
        }
    }

    #[test]
    fn ranges_are_read_as_the_standard_writes_them() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes */10", "5-9/10", "bytes 5/10", "bytes x-9/10", "bytes 5-9/x"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
