//! Questions for names: every one that is sent to port 53 of anybody is answered here. What no rule allows is answered
//! without asking anyone, so that no question carries anything out.

use sandcell_protocol::network::{HOST_NAME, MOST_RULES, NO_RULE, VERDICT_REFUSED, WHY_NAME_PRIVATE};
use sandcell_raw as raw;

use crate::account::Note;
use crate::connections::{CHUNK, State};
use crate::dns::{self, A, AAAA, NO_ERROR, NO_NAME, NO_QUERY, NO_SUCH_NAME, Name, Query, SERVER_FAILED};
use crate::gate::DNS;
use crate::packet::{self, DATAGRAM_ROOM, Flow, IPPROTO_UDP, NO_FLOW};
use crate::relay::{Relay, Watched, token};
use crate::sys::{self, EPOLLIN, SOCK_DGRAM};

/// How many may wait for an answer at once.
const MOST: usize = 128;
const MOST_SERVERS: usize = 4;
/// How long a server may take, in milliseconds.
const PATIENCE: u64 = 2000;
/// How often each server is asked.
const ROUNDS: usize = 2;

/// Who has asked: by a datagram, or on a connection.
#[derive(Clone, Copy)]
struct Asker {
    flow: Flow,
    /// The place of a connection, and its generation; `NO_CONNECTION` for a datagram.
    connection: usize,
    generation: u32,
}

const NO_CONNECTION: usize = usize::MAX;

#[derive(Clone, Copy)]
struct Question {
    /// 0: the place is free.
    fd: i32,
    generation: u32,
    asker: Asker,
    query: Query,
    id: u16,
    asked: usize,
    until: u64,
}

#[derive(Clone, Copy)]
struct Known {
    name: Name,
    address: [u8; 16],
}

pub struct Questions {
    all: [Question; MOST],
    pub open: usize,
    servers: [[u8; 16]; MOST_SERVERS],
    server_count: usize,
    known: [Known; MOST_RULES],
    known_count: usize,
}

impl Questions {
    /// All zeros.
    pub const fn new() -> Questions {
        let asker = Asker { flow: NO_FLOW, connection: 0, generation: 0 };
        let none = Question { fd: 0, generation: 0, asker, query: NO_QUERY, id: 0, asked: 0, until: 0 };
        Questions {
            all: [none; MOST],
            open: 0,
            servers: [[0; 16]; MOST_SERVERS],
            server_count: 0,
            known: [Known { name: NO_NAME, address: [0; 16] }; MOST_RULES],
            known_count: 0,
        }
    }

    pub fn pending(&self) -> bool {
        self.open > 0
    }

    pub fn add_server(&mut self, address: [u8; 16]) {
        if self.server_count < MOST_SERVERS {
            self.servers[self.server_count] = address;
            self.server_count += 1;
        }
    }

    pub fn add_known(&mut self, name: &[u8], address: [u8; 16]) {
        if let (Some(name), true) = (Name::of(name), self.known_count < MOST_RULES) {
            self.known[self.known_count] = Known { name, address };
            self.known_count += 1;
        }
    }

    fn close(&mut self, at: usize) {
        let question = &mut self.all[at];
        if question.fd > 0 {
            raw::close(question.fd);
            question.fd = 0;
            question.generation = question.generation.wrapping_add(1);
            self.open -= 1;
        }
    }
}

impl Relay {
    /// A question in a datagram, behind `DATAGRAM_ROOM` of the buffer.
    pub fn datagram_question(&mut self, flow: &Flow, length: usize, buffer: &mut [u8; CHUNK]) {
        let message = &buffer[DATAGRAM_ROOM..DATAGRAM_ROOM + length];
        let asker = Asker { flow: *flow, connection: NO_CONNECTION, generation: 0 };
        match dns::query(message) {
            Some(query) => self.ask(asker, query, buffer),
            None => {
                let mut out = [0; dns::MOST];
                let length = dns::malformed(message, &mut out);
                self.tell(&asker, &out[..length], buffer);
            }
        }
    }

    /// A question on a connection: its length in two bytes, and itself. One after the other.
    pub fn stream_question(&mut self, at: usize, buffer: &mut [u8; CHUNK]) {
        loop {
            let connection = *self.connections.get(at);
            if connection.state != State::Up || connection.asking {
                return;
            }
            let mut message = [0; 2 + dns::MOST];
            let had = match sys::peek(connection.fds[0], &mut message) {
                Err(raw::EAGAIN) => return,
                Err(_) | Ok(0) => return self.connections.end(at, false),
                Ok(had) => had,
            };
            let length = usize::from(message[0]) << 8 | usize::from(message[1]);
            if had >= 2 && length > dns::MOST {
                return self.connections.end(at, true);
            }
            if had < 2 || had < 2 + length {
                return;
            }
            let _ = sys::discard(connection.fds[0], 2 + length);
            let asker = Asker { flow: connection.flow, connection: at, generation: connection.generation };
            match dns::query(&message[2..2 + length]) {
                Some(query) => {
                    self.connections.get(at).asking = true;
                    self.ask(asker, query, buffer);
                }
                None => return self.connections.end(at, true),
            }
        }
    }

    /// Hands an answer to whoever has asked.
    fn tell(&mut self, asker: &Asker, message: &[u8], buffer: &mut [u8; CHUNK]) {
        if message.is_empty() {
            return;
        }
        if asker.connection == NO_CONNECTION {
            buffer[DATAGRAM_ROOM..DATAGRAM_ROOM + message.len()].copy_from_slice(message);
            let packet = packet::answer(&asker.flow, &mut buffer[..], message.len());
            return self.put(packet, &asker.flow.source);
        }
        let connection = self.connections.get(asker.connection);
        if connection.generation != asker.generation || connection.state != State::Up {
            return;
        }
        connection.asking = false;
        let mut framed = [0; 2 + dns::MOST];
        framed[..2].copy_from_slice(&(message.len() as u16).to_be_bytes());
        framed[2..2 + message.len()].copy_from_slice(message);
        // It fits into the socket's buffer, or the asker reads nothing.
        if sys::send(connection.fds[0], &framed[..2 + message.len()]) != Ok(2 + message.len()) {
            self.connections.end(asker.connection, true);
        }
    }

    fn reply(&mut self, asker: &Asker, query: &Query, code: u8, addresses: &[[u8; 16]], buffer: &mut [u8; CHUNK]) {
        let mut out = [0; dns::MOST];
        let length = dns::reply(query, code, addresses, &mut out);
        self.tell(asker, &out[..length], buffer);
    }

    fn ask(&mut self, asker: Asker, query: Query, buffer: &mut [u8; CHUNK]) {
        let decision = self.policy.decide_lookup(query.name.text());
        if !decision.allowed {
            self.note_name(&query.name, [0; 16], decision.why, decision.rule);
            return self.reply(&asker, &query, NO_SUCH_NAME, &[], buffer);
        }
        // Other kinds have no answer: those for HTTPS would keep keys from us that hide the name in TLS.
        if !matches!(query.kind, A | AAAA) || query.kind == AAAA && !sys::has_ipv6() {
            return self.reply(&asker, &query, NO_ERROR, &[], buffer);
        }
        let is_host = query.name.text() == HOST_NAME.as_bytes();
        if self.policy.proxy.is_some() && !is_host {
            // The proxy looks it up.
            let address = (query.kind == A).then(|| self.pins.stand_in(query.name.text()));
            return self.reply(&asker, &query, NO_ERROR, address.as_slice(), buffer);
        }
        if self.reply_known(&asker, &query, buffer) {
            return;
        }
        let Some(at) = self.questions.all.iter().position(|question| question.fd == 0) else {
            return self.reply(&asker, &query, SERVER_FAILED, &[], buffer);
        };
        let question = &mut self.questions.all[at];
        (question.asker, question.query, question.asked) = (asker, query, 0);
        self.ask_next(at, buffer);
    }

    /// Answers with what the host knows by itself; whether it does.
    fn reply_known(&mut self, asker: &Asker, query: &Query, buffer: &mut [u8; CHUNK]) -> bool {
        let mut addresses = [[0; 16]; dns::MOST_ADDRESSES];
        let (mut count, mut known) = (0, false);
        for at in 0..self.questions.known_count {
            let Known { name, address } = self.questions.known[at];
            if name.text() != query.name.text() {
                continue;
            }
            known = true;
            let of_kind = packet::ipv4(&address).is_some() == (query.kind == A);
            if of_kind && count < addresses.len() && self.pin(&query.name, &address) {
                addresses[count] = address;
                count += 1;
            }
        }
        if known {
            self.reply(asker, query, NO_ERROR, &addresses[..count], buffer);
        }
        known
    }

    /// Notes that a name leads to an address, if it may.
    fn pin(&mut self, name: &Name, address: &[u8; 16]) -> bool {
        let may = self.policy.may_lead_to(address);
        if may {
            self.pins.add(name.text(), address);
        } else {
            self.note_name(name, *address, WHY_NAME_PRIVATE, NO_RULE);
        }
        may
    }

    fn note_name(&mut self, name: &Name, address: [u8; 16], why: u8, rule: u32) {
        self.account.note(Note {
            address,
            port: DNS,
            protocol: IPPROTO_UDP,
            verdict: VERDICT_REFUSED,
            why,
            rule,
            errno: 0,
            name: name.text(),
        });
    }

    /// Asks the next server, or gives up.
    fn ask_next(&mut self, at: usize, buffer: &mut [u8; CHUNK]) {
        self.questions.close(at);
        while self.questions.all[at].asked < ROUNDS * self.questions.server_count && self.has_room(1) {
            let question = &mut self.questions.all[at];
            let server = self.questions.servers[question.asked % self.questions.server_count];
            question.asked += 1;
            question.id = sys::random();
            let mut out = [0; dns::MOST];
            let length = dns::ask(&question.query.name, question.query.kind, question.id, &mut out);
            let Ok(fd) = sys::socket(&server, SOCK_DGRAM) else { continue };
            let token = token(Watched::Question, 0, question.generation, at);
            let sent = sys::connect(fd, &server, DNS)
                .and_then(|()| sys::watch(self.epoll, fd, EPOLLIN, token))
                .and_then(|()| sys::send(fd, &out[..length]));
            if sent.is_err() {
                raw::close(fd);
                continue;
            }
            (question.fd, question.until) = (fd, sys::now() + PATIENCE);
            self.questions.open += 1;
            return;
        }
        let Question { asker, query, .. } = self.questions.all[at];
        self.reply(&asker, &query, SERVER_FAILED, &[], buffer);
    }

    /// A server has answered.
    pub fn answered(&mut self, at: usize, generation: u32, buffer: &mut [u8; CHUNK]) {
        let question = self.questions.all[at];
        if question.generation != generation || question.fd == 0 {
            return;
        }
        let query = question.query;
        let answer = match sys::receive(question.fd, &mut buffer[..]) {
            Err(raw::EAGAIN) => return,
            // Nobody answers there.
            Err(_) => return self.ask_next(at, buffer),
            Ok(length) => dns::answer(&buffer[..length], question.id, &query.name, query.kind),
        };
        match answer {
            // It is not from whom we have asked.
            None => {}
            Some(answer) if answer.code != NO_ERROR && answer.code != NO_SUCH_NAME => self.ask_next(at, buffer),
            Some(mut answer) => {
                self.questions.close(at);
                answer.retain(|address| self.pin(&query.name, address));
                self.reply(&question.asker, &query, answer.code, answer.addresses(), buffer);
                self.go_on(&question.asker, buffer);
            }
        }
    }

    /// The next question on a connection may have come meanwhile.
    fn go_on(&mut self, asker: &Asker, buffer: &mut [u8; CHUNK]) {
        if asker.connection != NO_CONNECTION && self.connections.get(asker.connection).generation == asker.generation {
            self.stream_question(asker.connection, buffer);
        }
    }

    /// Asks others where a server takes too long.
    pub fn keep_questions(&mut self, now: u64, buffer: &mut [u8; CHUNK]) {
        if !self.questions.pending() {
            return;
        }
        for at in 0..MOST {
            if self.questions.all[at].fd > 0 && now >= self.questions.all[at].until {
                self.ask_next(at, buffer);
            }
        }
    }
}
