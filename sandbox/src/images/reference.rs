//! Names of images and digests of content, read strictly: both end up in paths of the store and in requests to
//! registries, so nothing that is not in the grammar gets further than here.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

use crate::error::{Failure, Result};

/// The SHA-256 of some content, written `sha256:` and 64 lower-case hexadecimal digits.
///
/// No other algorithm is accepted: OCI registers SHA-512 too, but no registry or tool in use writes it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(sha2::Sha256::digest(bytes).into())
    }

    pub(crate) fn from_hasher(hasher: sha2::Sha256) -> Digest {
        Digest(hasher.finalize().into())
    }

    /// The 64 digits without the algorithm: the only form that is ever part of a path.
    pub fn hex(&self) -> String {
        use fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// The first 12 digits, as `podman images` and `docker images` show them.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }

    pub(crate) fn from_hex(hex: &str) -> Option<Digest> {
        let digits = hex.as_bytes();
        if digits.len() != 64 || !digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Digest(bytes))
    }
}

impl FromStr for Digest {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Digest> {
        let refuse = |why: &str| {
            let shown: String = text.chars().take(100).flat_map(char::escape_default).collect();
            Err(Failure::new("image-digest", shown, why)
                .hint("a digest is sha256: and 64 lower-case hexadecimal digits")
                .config())
        };
        match text.split_once(':') {
            Some(("sha256", hex)) => match Digest::from_hex(hex) {
                Some(digest) => Ok(digest),
                None => refuse("not a SHA-256 digest"),
            },
            Some(_) => refuse("unknown digest algorithm"),
            None => refuse("not a digest"),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The name of an image: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`, in the grammar of the OCI distribution specification.
///
/// A name without a tag and a digest means the tag `latest`. Short names stay short in the store; only
/// `pull` adds `docker.io/library/`, as every other tool does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    name: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Everything before the tag: `docker.io/library/debian`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag; `latest` where the text had neither tag nor digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, where the text had one.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The registry's host and port, where the name begins with one: it has a dot or a port or is `localhost`.
    pub fn host(&self) -> Option<&str> {
        let (first, _) = self.name.split_once('/')?;
        (first.contains(['.', ':']) || first == "localhost").then_some(first)
    }

    /// The name without the registry's host.
    pub fn path(&self) -> &str {
        match self.host() {
            Some(host) => &self.name[host.len() + 1..],
            None => &self.name,
        }
    }

    /// The names under which an image is looked up, in this order: as it is, as podman writes it for images made here,
    /// and as docker.io's. One with either host is found by its short name, too.
    pub(crate) fn candidates(&self) -> Vec<String> {
        let tag = self.tag().unwrap_or("latest");
        let mut names = vec![format!("{}:{tag}", self.name)];
        if self.host().is_none() {
            names.push(format!("localhost/{}:{tag}", self.name));
            let library = if self.name.contains('/') { "" } else { "library/" };
            names.push(format!("docker.io/{library}{}:{tag}", self.name));
        }
        // docker's archives have the short form of what podman and Dockerfiles write in full.
        let short = match self.host() {
            Some("localhost") => Some(self.path()),
            Some("docker.io" | "index.docker.io") => {
                let path = self.path();
                let path = path.strip_prefix("library/").unwrap_or(path);
                if !path.contains('/') {
                    names.push(format!("docker.io/library/{path}:{tag}"));
                }
                Some(path)
            }
            _ => None,
        };
        names.extend(short.map(|path| format!("{path}:{tag}")));
        names
    }
}

impl FromStr for Reference {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Reference> {
        let refuse = |why: &str| {
            let shown: String = text.chars().take(300).flat_map(char::escape_default).collect();
            Failure::new("image-reference", shown, why)
                .hint("an image is named [HOST[:PORT]/]path[:tag][@sha256:digest], the path in lower case")
                .config()
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        // The colon of a tag stands behind the last slash; one before it belongs to a port.
        let path_at = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[path_at..].find(':') {
            Some(at) => (&rest[..path_at + at], Some(&rest[path_at + at + 1..])),
            None => (rest, None),
        };
        if name.len() > 255 {
            return Err(refuse("a name of more than 255 bytes"));
        }
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(refuse("this tag does not parse"));
        }
        let mut parts: Vec<&str> = name.split('/').collect();
        if parts.len() > 1 && (parts[0].contains(['.', ':']) || parts[0] == "localhost") {
            if !is_host(parts[0]) {
                return Err(refuse("this registry host does not parse"));
            }
            parts.remove(0);
        }
        if !parts.iter().all(|part| is_path_component(part)) {
            return Err(refuse("this image name does not parse"));
        }
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Reference { name: name.to_owned(), tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    (1..=128).contains(&bytes.len())
        && !matches!(bytes[0], b'.' | b'-')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or dashes.
fn is_path_component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().is_some_and(|b| alphanumeric(*b)) || !bytes.last().is_some_and(|b| alphanumeric(*b)) {
        return false;
    }
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    separators.into_iter().all(|s| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !host.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    if port.is_some_and(|port| port.is_empty() || port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    name.split('.').all(|label| {
        let bytes = label.as_bytes();
        !bytes.is_empty()
            && bytes[0].is_ascii_alphanumeric()
            && bytes[bytes.len() - 1].is_ascii_alphanumeric()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_that_people_write_parse_and_are_written_back() {
        for (text, written) in [
            ("app", "app:latest"),
            ("app:1", "app:1"),
            ("localhost:5000/a/b_c/d--e:v1.2-3", "localhost:5000/a/b_c/d--e:v1.2-3"),
            ("docker.io/library/debian:bookworm-slim", "docker.io/library/debian:bookworm-slim"),
            ("[::1]:5000/x:y", "[::1]:5000/x:y"),
            (&format!("x.org/y@sha256:{HEX}"), &format!("x.org/y@sha256:{HEX}")),
            (&format!("y:t@sha256:{HEX}"), &format!("y:t@sha256:{HEX}")),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), written);
            assert_eq!(written.parse::<Reference>().unwrap(), reference);
        }
        let reference: Reference = "localhost:5000/a/b".parse().unwrap();
        assert_eq!((reference.host(), reference.path()), (Some("localhost:5000"), "a/b"));
        let reference: Reference = "a/b".parse().unwrap();
        assert_eq!((reference.host(), reference.path()), (None, "a/b"));
    }

    #[test]
    fn a_name_outside_the_grammar_is_refused() {
        let long = "a/".repeat(200);
        let tag = format!("a:{}", "t".repeat(129));
        for text in [
            "",
            ":",
            "a:",
            ":a",
            "A",
            "a b",
            "a//b",
            "/a",
            "a/",
            "../a",
            "a/../b",
            "a:.b",
            "a:-b",
            "a:b:c",
            "a:b/c/..",
            "a\0",
            "a\n:1",
            "é",
            "a___b",
            ".a",
            "a.",
            "-a",
            "a_",
            "x..y.z/a",
            "h.x:/a",
            "h.x:123456/a",
            "h.x:5a/a",
            "[::1/a",
            "[x]/a",
            "[::1]5/a",
            "a@sha256:..",
            "a@md5:00",
            "a@",
            "a@@",
            "a:é",
            "--help",
            &long,
            &tag,
        ] {
            let error = text.parse::<Reference>().expect_err(text);
            assert_eq!(error.kind(), "config", "{text}");
            assert!(!error.hint().is_empty());
        }
    }

    #[test]
    fn a_digest_with_a_path_in_it_is_refused_before_any_path_is_made_of_it() {
        let good: Digest = format!("sha256:{HEX}").parse().unwrap();
        assert_eq!(good.hex(), HEX);
        for text in [
            "sha256:../../x".to_owned(),
            format!("sha256:{}", &HEX[1..]),
            format!("sha256:{HEX}0"),
            format!("sha256:{}", HEX.to_uppercase()),
            format!("sha512:{HEX}{HEX}"),
            format!("sha256:{}/../x", &HEX[..59]),
            format!("SHA256:{HEX}"),
            format!("sha256:{}é", &HEX[2..]),
            HEX.to_owned(),
            String::new(),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
