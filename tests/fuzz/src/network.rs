//! What the relay reads of programs, servers and proxies.

use sandcell_relay::dns::{self, Name};
use sandcell_relay::packet::{self, Refusal};
use sandcell_relay::proxy::{self, Answer, Target};
use sandcell_relay::tls::{self, Hello};

/// Questions for names, and answers to one.
pub fn names(bytes: &[u8]) {
    let mut out = [0; dns::MOST];
    dns::malformed(bytes, &mut out);
    if let Some(query) = dns::query(bytes) {
        for addresses in [&[][..], &[packet::mapped([8, 8, 8, 8])], &[[0x20; 16]; dns::MOST_ADDRESSES]] {
            assert!(dns::reply(&query, dns::NO_ERROR, addresses, &mut out) <= dns::MOST);
        }
        let length = dns::ask(&query.name, query.kind, 7, &mut out);
        let again = dns::query(&out[..length]).expect("what we ask is a question");
        assert_eq!(again.name.text(), query.name.text());
    }
    let asked = Name::of(b"good.example.org").expect("a name");
    let id = bytes.get(..2).map_or(0, |id| u16::from_be_bytes([id[0], id[1]]));
    for kind in [dns::A, dns::AAAA] {
        if let Some(answer) = dns::answer(bytes, id, &asked, kind) {
            assert!(answer.addresses().iter().all(|one| packet::ipv4(one).is_some() == (kind == dns::A)));
        }
    }
}

/// First packets of connections.
pub fn syn(bytes: &[u8]) {
    let Some((flow, first)) = packet::syn(bytes) else { return };
    let (again, same) = packet::syn(first.bytes()).expect("what is made anew is one");
    assert!(again == flow && same.bytes() == first.bytes());
    for kind in [Refusal::Reset, Refusal::Host, Refusal::Net] {
        assert!(!packet::refusal(&flow, first.bytes(), kind, packet::IPPROTO_TCP).bytes().is_empty());
    }
}

/// First bytes of TLS. What was understood of a part of them is not understood otherwise when more has come.
pub fn hello(bytes: &[u8]) {
    let whole = tls::hello(bytes);
    if let Hello::Name(name) = whole {
        assert!(!name.is_empty());
    }
    if matches!(whole, Hello::Partial) {
        return;
    }
    let more = [bytes, &[22, 3, 1, 0, 0]].concat();
    assert_eq!(std::mem::discriminant(&tls::hello(&more)), std::mem::discriminant(&whole));
}

/// Answers of an upstream proxy.
pub fn proxy(bytes: &[u8]) {
    for (kind, step) in [(1, 0), (2, 0), (2, 1)] {
        match proxy::hear(kind, step, bytes) {
            Answer::Next(length) | Answer::Connected(length) => assert!(length <= bytes.len()),
            Answer::More => assert!(bytes.len() < proxy::MOST),
            Answer::Refused(errno) => assert!(errno > 0),
        }
        let name = &bytes[..bytes.len().min(253)];
        let mut out = [0; proxy::LONGEST];
        assert!(proxy::say(kind, step, &Target { name, address: [9; 16], port: 443 }, &mut out) > 0);
    }
}
