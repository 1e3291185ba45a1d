//! The upstream proxy: by which connections go that the rules allow.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::error::{Error, Failure, Result};
use crate::policy::Policy;

/// A proxy of the host's network, without a password: `http://proxy.example.org:3128` (CONNECT) or `socks5://127.0.0.1:1080`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpstreamProxy {
    /// SOCKS5 instead of HTTP CONNECT.
    pub socks5: bool,
    /// Its name or address; IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

const HINT: &str = "Write http://HOST:PORT or socks5://HOST:PORT.";

fn wrong(message: impl Into<String>, hint: &str) -> Error {
    Failure::new("option", "upstream_proxy", message).hint(hint).config()
}

impl FromStr for UpstreamProxy {
    type Err = Error;

    fn from_str(text: &str) -> Result<UpstreamProxy> {
        let not = || wrong(format!("{text:?} is not a proxy"), HINT);
        let (scheme, rest) = text.split_once("://").ok_or_else(not)?;
        let socks5 = match scheme {
            "http" => false,
            "socks5" | "socks5h" => true,
            _ => return Err(wrong(format!("{scheme:?} is not a kind of proxy that is known"), HINT)),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            let hint = "Run one of your own that adds it, and name that.";
            return Err(wrong("a proxy with a user or a password is not supported", hint));
        }
        let (host, port) = rest.rsplit_once(':').ok_or_else(not)?;
        let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten();
        let port = port.filter(|port| *port > 0).ok_or_else(|| wrong(format!("{text:?} has no port"), HINT))?;
        let host = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
            Some(inner) if inner.parse::<Ipv6Addr>().is_ok() => inner,
            Some(_) => return Err(not()),
            None => host,
        };
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_name = !host.is_empty() && host.len() <= 253 && host.bytes().all(fine);
        if !is_name && host.parse::<Ipv6Addr>().is_err() || host.contains(':') && !rest.starts_with('[') {
            return Err(not());
        }
        Ok(UpstreamProxy { socks5, host: host.to_owned(), port })
    }
}

impl fmt::Display for UpstreamProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.socks5 { "socks5" } else { "http" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

pub(crate) fn check(policy: &Policy) -> Result<()> {
    if policy.upstream_proxy.is_some() && !policy.network_in_effect().has_relay() {
        let message = format!("makes no sense with the network `{}`", policy.network.word());
        return Err(wrong(message, "Set `network` to user, allow something by a rule, or leave it out."));
    }
    Ok(())
}
