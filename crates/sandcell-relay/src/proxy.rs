//! The upstream proxy: what is said to one for a connection, and how its answers are read. HTTP CONNECT (RFC 9110) and SOCKS5
//! (RFC 1928), without a password. No system calls.

use sandcell_protocol::network::PROXY_HTTP;

use crate::packet::ipv4;
use crate::sys::{ECONNREFUSED, EHOSTUNREACH, ENETUNREACH};

/// The longest answer that is read.
pub const MOST: usize = 8192;
/// The longest that is said: a name twice, with what stands around it.
pub const LONGEST: usize = 640;

/// To whom a connection goes: by name where there is one.
pub struct Target<'a> {
    pub name: &'a [u8],
    pub address: [u8; 16],
    pub port: u16,
}

/// What an answer comes to. `usize`: how much of what was read belongs to it.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    More,
    /// Say the next thing.
    Next(usize),
    Connected(usize),
    /// It cannot or will not: an errno.
    Refused(i32),
}

struct Text<'a> {
    out: &'a mut [u8; LONGEST],
    length: usize,
}

impl Text<'_> {
    fn push(&mut self, bytes: &[u8]) {
        if let Some(place) = self.out.get_mut(self.length..self.length + bytes.len()) {
            place.copy_from_slice(bytes);
            self.length += bytes.len();
        }
    }

    fn number(&mut self, number: u32, base: u32) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        if number >= base {
            self.number(number / base, base);
        }
        self.push(&[DIGITS[(number % base) as usize]]);
    }

    fn authority(&mut self, to: &Target<'_>) {
        match (to.name, ipv4(&to.address)) {
            ([], Some(address)) => {
                for (at, byte) in address.iter().enumerate() {
                    self.push(if at > 0 { b"." } else { b"" });
                    self.number((*byte).into(), 10);
                }
            }
            ([], None) => {
                self.push(b"[");
                for (at, pair) in to.address.chunks_exact(2).enumerate() {
                    self.push(if at > 0 { b":" } else { b"" });
                    self.number(u32::from(pair[0]) << 8 | u32::from(pair[1]), 16);
                }
                self.push(b"]");
            }
            (name, _) => self.push(name),
        }
        self.push(b":");
        self.number(to.port.into(), 10);
    }
}

/// What is said first (`step` 0), and next; its length.
pub fn say(kind: u32, step: u8, to: &Target<'_>, out: &mut [u8; LONGEST]) -> usize {
    let mut text = Text { out, length: 0 };
    match (kind, step) {
        (PROXY_HTTP, _) => {
            text.push(b"CONNECT ");
            text.authority(to);
            text.push(b" HTTP/1.1\r\nHost: ");
            text.authority(to);
            text.push(b"\r\n\r\n");
        }
        (_, 0) => text.push(&[5, 1, 0]),
        _ => {
            text.push(&[5, 1, 0]);
            match (to.name, ipv4(&to.address)) {
                ([], Some(address)) => {
                    text.push(&[1]);
                    text.push(&address);
                }
                ([], None) => {
                    text.push(&[4]);
                    text.push(&to.address);
                }
                (name, _) => {
                    text.push(&[3, name.len() as u8]);
                    text.push(name);
                }
            }
            text.push(&to.port.to_be_bytes());
        }
    }
    text.length
}

/// Reads what was answered to it so far.
pub fn hear(kind: u32, step: u8, bytes: &[u8]) -> Answer {
    match (kind, step) {
        (PROXY_HTTP, _) => hear_http(bytes),
        (_, 0) => match bytes {
            [5, 0, ..] => Answer::Next(2),
            [] | [5] => Answer::More,
            // It wants a password, or is something else.
            _ => Answer::Refused(ECONNREFUSED),
        },
        _ => hear_socks(bytes),
    }
}

fn hear_http(bytes: &[u8]) -> Answer {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() >= MOST { Answer::Refused(ECONNREFUSED) } else { Answer::More };
    };
    match bytes {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', b'2', b'0'..=b'9', b'0'..=b'9', b' ' | b'\r', ..] => {
            Answer::Connected(end + 4)
        }
        _ => Answer::Refused(ECONNREFUSED),
    }
}

fn hear_socks(bytes: &[u8]) -> Answer {
    let length = match bytes {
        [5, 0, _, 1, ..] => 10,
        [5, 0, _, 4, ..] => 22,
        [5, 0, _, 3, length, ..] => 7 + usize::from(*length),
        [5, 3, ..] => return Answer::Refused(ENETUNREACH),
        [5, 2 | 4 | 6, ..] => return Answer::Refused(EHOSTUNREACH),
        [] | [5] | [5, 0] | [5, 0, _] | [5, 0, _, 3] => return Answer::More,
        _ => return Answer::Refused(ECONNREFUSED),
    };
    if bytes.len() < length { Answer::More } else { Answer::Connected(length) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::mapped;
    use sandcell_protocol::network::PROXY_SOCKS5;
    use std::vec::Vec;

    fn said(kind: u32, step: u8, name: &[u8], address: [u8; 16]) -> Vec<u8> {
        let mut out = [0; LONGEST];
        let length = say(kind, step, &Target { name, address, port: 443 }, &mut out);
        out[..length].to_vec()
    }

    #[test]
    fn a_target_is_said_by_name_or_by_address() {
        let v4 = mapped([10, 0, 2, 100]);
        let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x1f];
        assert_eq!(said(PROXY_HTTP, 0, b"a.org", v4), b"CONNECT a.org:443 HTTP/1.1\r\nHost: a.org:443\r\n\r\n");
        assert!(said(PROXY_HTTP, 0, b"", v4).starts_with(b"CONNECT 10.0.2.100:443 HTTP"));
        assert!(said(PROXY_HTTP, 0, b"", v6).starts_with(b"CONNECT [2001:db8:0:0:0:0:0:1f]:443 HTTP"));
        assert!(said(PROXY_HTTP, 0, &[b'a'; 253], v4).ends_with(b"a:443\r\n\r\n"), "the longest name");
        assert_eq!(said(PROXY_SOCKS5, 0, b"a.org", v4), [5, 1, 0]);
        assert_eq!(said(PROXY_SOCKS5, 1, b"a.org", v4), b"\x05\x01\0\x03\x05a.org\x01\xbb");
        assert_eq!(said(PROXY_SOCKS5, 1, b"", v4), [5, 1, 0, 1, 10, 0, 2, 100, 1, 187]);
        assert_eq!(said(PROXY_SOCKS5, 1, b"", v6).len(), 22);
    }

    #[test]
    fn answers_are_read_to_their_end_and_no_further() {
        let http = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nrest";
        assert_eq!(hear(PROXY_HTTP, 0, http), Answer::Connected(http.len() - 4));
        (0..http.len() - 4).for_each(|length| assert_eq!(hear(PROXY_HTTP, 0, &http[..length]), Answer::More));
        for refusal in ["HTTP/1.1 403 No\r\n\r\n", "HTTP/1.1 2000 ok\r\n\r\n", "SSH-2.0\r\n\r\n", "\r\n\r\n"] {
            assert_eq!(hear(PROXY_HTTP, 0, refusal.as_bytes()), Answer::Refused(ECONNREFUSED), "{refusal}");
        }
        assert_eq!(hear(PROXY_HTTP, 0, &[b'x'; MOST]), Answer::Refused(ECONNREFUSED), "no end");
        assert_eq!(hear(PROXY_SOCKS5, 0, &[5, 0, 9]), Answer::Next(2));
        assert_eq!(hear(PROXY_SOCKS5, 0, &[5, 2]), Answer::Refused(ECONNREFUSED), "a password");
        assert_eq!(hear(PROXY_SOCKS5, 1, &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0, 7]), Answer::Connected(10));
        assert_eq!(hear(PROXY_SOCKS5, 1, &[5, 0, 0, 3, 1, b'a', 0, 0]), Answer::Connected(8));
        assert_eq!(hear(PROXY_SOCKS5, 1, &[5, 0, 0, 4, 0]), Answer::More);
        assert_eq!(hear(PROXY_SOCKS5, 1, &[5, 2, 0, 1]), Answer::Refused(EHOSTUNREACH));
        assert_eq!(hear(PROXY_SOCKS5, 1, &[4, 0]), Answer::Refused(ECONNREFUSED));
    }
}
