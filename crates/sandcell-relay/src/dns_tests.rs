use super::*;
use std::vec;
use std::vec::Vec;

fn asked(labels: &[&[u8]], kind: u16) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in labels {
        message.push(label.len() as u8);
        message.extend_from_slice(label);
    }
    message.extend_from_slice(&[0, (kind >> 8) as u8, kind as u8, 0, 1]);
    message
}

fn response(question: &[u8], records: &[&[u8]]) -> Vec<u8> {
    let mut message = question.to_vec();
    (message[2], message[3]) = (0x81, 0x80);
    message[7] = records.len() as u8;
    message[11] = 0;
    records.iter().for_each(|record| message.extend_from_slice(record));
    message
}

fn a(owner: &[u8], address: [u8; 4]) -> Vec<u8> {
    [owner, &[0, 1, 0, 1, 0, 0, 0, 9, 0, 4], &address].concat()
}

#[test]
fn a_question_is_read_and_answered() {
    let query = query(&asked(&[b"PyPI", b"org"], A)).unwrap();
    assert_eq!((query.id, query.name.text(), query.kind), (0x1234, &b"pypi.org"[..], A));
    let mut out = [0; MOST];
    let length = reply(&query, NO_ERROR, &[mapped([8, 8, 8, 8]), mapped([9, 9, 9, 9])], &mut out);
    let answer = answer(&out[..length], 0x1234, &query.name, A).unwrap();
    assert_eq!(answer.addresses(), [mapped([8, 8, 8, 8]), mapped([9, 9, 9, 9])]);
    let length = reply(&query, NO_SUCH_NAME, &[], &mut out);
    assert_eq!((out[3] & 15, length), (NO_SUCH_NAME, HEADER + 14));
}

#[test]
fn more_addresses_than_fit_are_cut_off() {
    let query = query(&asked(&[&[b'a'; 63], &[b'b'; 63], &[b'c'; 63], &[b'd'; 61]], AAAA)).unwrap();
    let mut out = [0; MOST];
    let length = reply(&query, NO_ERROR, &[[7; 16]; 16], &mut out);
    assert!(length <= MOST && out[7] > 2 && out[7] < 16);
}

#[test]
fn names_that_no_host_has_are_no_questions() {
    assert!(query(&asked(&[b"a-b_c", b"org"], A)).is_some(), "the control");
    for labels in [
        &[&b"a b"[..]] as &[&[u8]],
        &[b"a.b", b"org"],
        &[b"a\0b"],
        &[b"b\xc3\xbccher"],
        &[b"a/b"],
        &[&[b'a'; 64]],
        &[&[b'a'; 63], &[b'a'; 63], &[b'a'; 63], &[b'a'; 63]],
    ] {
        assert!(query(&asked(labels, A)).is_none(), "{labels:?}");
    }
}

#[test]
fn what_is_no_question_is_an_error() {
    let right = asked(&[b"a", b"org"], A);
    for (at, byte) in [(2, 0x81), (2, 0x28), (4, 1), (5, 0), (5, 2), (7, 1), (right.len() - 1, 3)] {
        let mut wrong = right.clone();
        wrong[at] = byte;
        assert!(query(&wrong).is_none(), "{at} {byte}");
    }
    for length in 0..right.len() {
        assert!(query(&right[..length]).is_none());
    }
    let mut pointing = right.clone();
    (pointing[12], pointing[13]) = (0xc0, 0);
    assert!(query(&pointing).is_none());
    let mut out = [0; MOST];
    assert_eq!(malformed(&right, &mut out), HEADER);
    assert_eq!(malformed(&[0; 3], &mut out), 0);
    assert_eq!(malformed(&response(&right, &[]), &mut out), 0, "no answer to an answer");
}

#[test]
fn aliases_are_followed_in_any_order_and_to_an_end() {
    let name = Name::of(b"a.org").unwrap();
    let mut question = [0; MOST];
    let length = ask(&name, A, 7, &mut question);
    let question = &question[..length - 11];
    // a.org -> b.org -> c.org; c.org before.
    let (b, c) = (b"\x01b\x03org\0", b"\x01c\x03org\0");
    let alias = |owner: &[u8], to: &[u8]| [owner, &[0, 5, 0, 1, 0, 0, 0, 9, 0, to.len() as u8], to].concat();
    let records = [a(c, [8, 8, 8, 8]), alias(b, c), alias(&[0xc0, 12], b), a(b"\x01x\0", [1, 1, 1, 1])];
    let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
    assert_eq!(answer(&response(question, &records), 7, &name, A).unwrap().addresses(), [mapped([8, 8, 8, 8])]);
    let ring = [alias(&[0xc0, 12], b), alias(b, &[0xc0, 12])];
    let ring: Vec<&[u8]> = ring.iter().map(Vec::as_slice).collect();
    assert_eq!(answer(&response(question, &ring), 7, &name, A).unwrap().count, 0);
}

#[test]
fn an_answer_to_something_else_is_none() {
    let name = Name::of(b"a.org").unwrap();
    let mut question = [0; MOST];
    let length = ask(&name, A, 7, &mut question);
    let right = response(&question[..length - 11], &[&a(&[0xc0, 12], [8, 8, 8, 8])]);
    assert_eq!(answer(&right, 7, &name, A).unwrap().count, 1, "the control");
    assert!(answer(&right, 8, &name, A).is_none());
    assert!(answer(&right, 7, &Name::of(b"b.org").unwrap(), A).is_none());
    assert!(answer(&right, 7, &name, AAAA).is_none());
    assert!(answer(&question[..length], 7, &name, A).is_none(), "a question");
}

#[test]
fn hostile_messages_break_nothing() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let name = Name::of(b"a.org").unwrap();
    let mut question = [0; MOST];
    let length = ask(&name, A, 7, &mut question);
    let right = response(&question[..length - 11], &[&a(&[0xc0, 12], [8, 8, 8, 8]), &a(&[0xc0, 12], [9, 9, 9, 9])]);
    let (mut read, mut asked_right) = (0, 0);
    for _ in 0..300_000 {
        let mut message = right.clone();
        for _ in 0..next() % 4 {
            let at = next() as usize % message.len();
            message[at] = next() as u8;
        }
        message.truncate(next() as usize % (2 * message.len()));
        read += usize::from(answer(&message, 7, &name, A).is_some());
        if message.len() > 7 {
            (message[2], message[7]) = (1, 0);
        }
        if let Some(query) = query(&message) {
            asked_right += 1;
            let mut out = [0; MOST];
            reply(&query, NO_ERROR, &[[1; 16]; 3], &mut out);
        }
    }
    assert!(read > 10_000 && asked_right > 10_000, "{read} {asked_right}");
}

#[test]
fn the_root_is_asked_for_by_a_question_too() {
    let root = Name::of(b"").unwrap_or(NO_QUERY.name);
    let mut question = [0; MOST];
    let length = ask(&root, A, 7, &mut question);
    let asked = query(&question[..length]).expect("a question");
    assert_eq!((asked.name.text(), asked.kind), (&b""[..], A));
}
