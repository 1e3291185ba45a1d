//! A registry as small as can be, which lies as it is told.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use sandcell::image::Digest;

pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The byte that a Range begins with.
    pub fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// What Content-Length says; without it the body is sent in chunks.
    pub length: Option<usize>,
    /// The connection ends after so many bytes of the body.
    pub cut: Option<usize>,
}

pub fn reply(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    let body = body.into();
    Reply { status, headers: Vec::new(), length: Some(body.len()), body, cut: None }
}

impl Reply {
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn cut(mut self, after: usize) -> Reply {
        self.cut = Some(after);
        self
    }
}

pub fn redirect(to: impl Into<String>) -> Reply {
    reply(307, "").header("Location", to)
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// Serves until the test ends; its threads end with the test's process.
pub struct Server {
    /// `127.0.0.1:PORT`
    pub host: String,
    pub seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn new(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        Server::start("127.0.0.1", None, handler)
    }

    pub fn start(
        address: &str,
        tls: Option<Arc<rustls::ServerConfig>>,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (handler, log): (Arc<Handler>, _) = (Arc::new(handler), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, handler, log, tls) = (stream.unwrap(), handler.clone(), log.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    Some(config) => {
                        let connection = rustls::ServerConnection::new(config).unwrap();
                        serve(rustls::StreamOwned::new(connection, stream), &*handler, &log)
                    }
                    None => serve(stream, &*handler, &log),
                });
            }
        });
        Server { host, seen }
    }

    /// How often a path was asked for that has this in it.
    pub fn asked(&self, part: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|request| request.path.contains(part)).count()
    }
}

/// Errors end the connection: the client went away, or it speaks TLS.
fn serve<S: Read + Write>(stream: S, handler: &Handler, log: &Mutex<Vec<Request>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream) {
        let reply = handler(&request);
        log.lock().unwrap().push(request);
        if write(stream.get_mut(), &reply).is_err() || reply.cut.is_some() {
            return;
        }
    }
    // What is no request is answered in plain text, as every server does.
    let _ = stream.get_mut().write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
}

fn read(stream: &mut impl BufRead) -> Option<Request> {
    let mut line = Vec::new();
    stream.take(8192).read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body: String::from_utf8(body).ok()? })
}

fn write(stream: &mut impl Write, reply: &Reply) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {} Reason\r\n", reply.status)?;
    for (name, value) in &reply.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    let body = &reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())];
    match reply.length {
        Some(length) => {
            write!(stream, "Content-Length: {length}\r\n\r\n")?;
            stream.write_all(body)?;
        }
        None => {
            write!(stream, "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len())?;
            stream.write_all(body)?;
            write!(stream, "\r\n0\r\n\r\n")?;
        }
    }
    stream.flush()
}

/// The documents and blobs of a repository, by what they are asked for as.
#[derive(Clone, Default)]
pub struct Content(pub BTreeMap<String, (String, Vec<u8>)>);

impl Content {
    /// Under its digest, which is given back.
    pub fn put(&mut self, media_type: &str, bytes: impl Into<Vec<u8>>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.0.insert(digest.to_string(), (media_type.to_owned(), bytes));
        digest
    }

    pub fn tag(&mut self, tag: &str, digest: Digest) {
        let content = self.0[&digest.to_string()].clone();
        self.0.insert(tag.to_owned(), content);
    }

    /// As an honest registry would answer, ranges included.
    pub fn serve(&self, request: &Request) -> Reply {
        let named = request.path.rsplit('/').next().unwrap();
        if request.path == "/v2/" {
            return reply(200, "{}");
        }
        let Some((media_type, bytes)) = self.0.get(named) else {
            return reply(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown \u001b[31m"}]}"#);
        };
        match request.from() {
            Some(from) => reply(206, &bytes[from..])
                .header("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
            None => reply(200, &bytes[..]).header("Content-Type", media_type),
        }
    }
}

/// A test authority and a certificate of it for 127.0.0.1, as files: `ca.pem`, `cert.pem`, `key.pem`.
pub fn certificates(dir: &Path) {
    let openssl = |args: &str| {
        let output = Command::new("openssl").args(args.split(' ')).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=test"));
    openssl(&format!("req {key} -keyout key.pem -out request.pem -subj /CN=registry"));
    std::fs::write(dir.join("extensions"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl(
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out cert.pem",
    );
}

pub fn tls(dir: &Path) -> Arc<rustls::ServerConfig> {
    use rustls::pki_types::pem::PemObject;
    let cert = rustls::pki_types::CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(vec![cert], key).unwrap())
}

pub fn wait_until_it_listens(host: &str) {
    for _ in 0..500 {
        if TcpStream::connect(host).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("nothing listens on {host}");
}
