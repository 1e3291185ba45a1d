//! What a registry may not do with a client's time, and where it may not send it.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};
use std::time::{Duration, Instant};

use ureq::http::Uri;

/// A connection brings as many bytes a second while it is waited for, or counts as broken.
const LEAST: u64 = 1 << 10;

/// A reader that gives up on a source that only drips.
pub(super) struct Paced<R> {
    inner: R,
    patience: Duration,
    waited: Duration,
    bytes: u64,
}

impl<R: Read> Paced<R> {
    /// `patience`: how long it is looked at before it is judged.
    pub fn new(inner: R, patience: Duration) -> Paced<R> {
        Paced { inner, patience, waited: Duration::ZERO, bytes: 0 }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Only what was waited for the source counts: whoever reads may be slow.
        let start = Instant::now();
        let read = self.inner.read(buffer);
        self.waited += start.elapsed();
        self.bytes += *read.as_ref().unwrap_or(&0) as u64;
        if self.waited >= self.patience {
            if (self.bytes as f64) < LEAST as f64 * self.waited.as_secs_f64() && !matches!(read, Ok(0)) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the registry is slower than 1 KiB a second"));
            }
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
        read
    }
}

/// The address behind a URL that no registry has a reason to send anybody to: those of the host itself where the
/// registry is elsewhere, and those that only reach the next machine, where clouds have their metadata.
///
/// `proxied`: names are the proxy's to look up, and perhaps nobody here could.
pub(super) fn forbidden(url: &str, registry_is_here: bool, proxied: bool) -> Option<IpAddr> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let is_number = host.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b'x' | b'X' | b'.' | b':'));
    if proxied && !is_number {
        return None;
    }
    let port = uri.port_u16().unwrap_or(443);
    // A name is looked up as the connection will look it up; one that leads nowhere fails there.
    let addresses = (host, port).to_socket_addrs().ok()?;
    addresses.map(|address| address.ip()).find(|ip| is_forbidden(*ip, registry_is_here))
}

fn is_forbidden(ip: IpAddr, registry_is_here: bool) -> bool {
    const METADATA: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254))];
    let ip = ip.to_canonical();
    let near = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    near || ip.is_unspecified() || ip.is_multicast() || METADATA.contains(&ip) || ip.is_loopback() && !registry_is_here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_lead_to_this_host_or_the_next_are_told_in_every_way_of_writing_them() {
        for url in [
            "http://169.254.169.254/latest/meta-data/",
            "https://[fe80::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://2852039166/",
            "http://0xa9fea9fe:80/x",
            "http://0.0.0.0/",
            "http://[fd00:ec2::254]/",
            "http://100.100.100.200/",
            "http://224.0.0.1/",
        ] {
            assert!(forbidden(url, true, false).is_some() && forbidden(url, true, true).is_some(), "{url}");
        }
        for url in ["http://127.0.0.1:5000/", "http://localhost/", "https://[::1]/"] {
            assert!(forbidden(url, false, false).is_some() && forbidden(url, true, false).is_none(), "{url}");
        }
        for url in ["https://10.0.0.1/", "https://192.0.2.1/", "https://[2001:db8::1]/"] {
            assert!(forbidden(url, false, false).is_none(), "{url}");
        }
    }
}
