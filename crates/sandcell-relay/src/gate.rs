//! The gate: the first packet of a connection is held until the peer has answered, so that programs see what came of it, and
//! not of a connection to us.

use sandcell_protocol::network::{
    NO_RULE, ROLE_SYNS, VERDICT_ALLOWED, VERDICT_FAILED, VERDICT_REFUSED, WHY_FULL, WHY_NONE, WHY_TLS,
};
use sandcell_raw as raw;

use crate::account::Note;
use crate::connections::{CHUNK, Carried, Purpose, State};
use crate::dns::{NO_NAME, Name};
use crate::packet::{self, Flow, IPPROTO_TCP, NO_PACKET, Packet, Refusal};
use crate::pins::is_stand_in;
use crate::policy::Decision;
use crate::proxy::{self, Answer, Target};
use crate::relay::{BOTH_WAYS, Relay, Verdict, Watched, is_inside, token};
use crate::sys::{self, ECONNREFUSED, EMFILE, ENETUNREACH, EPOLLERR, EPOLLHUP, EPOLLOUT, ETIMEDOUT, SOCK_STREAM};
use crate::tls::{self, Hello};

/// How many packets are taken before others have their turn.
const TURNS: usize = 64;
/// How long a connection that was let through may take to be accepted, in milliseconds.
const ADMISSION: u64 = 10_000;
/// How long a proxy may take to reach a peer, in milliseconds.
const PROXY_PATIENCE: u64 = 60_000;
pub const DNS: u16 = 53;

impl Relay {
    /// Reads what the kernel has logged.
    pub fn first_packets(&mut self, buffer: &mut [u8; CHUNK]) {
        for _ in 0..TURNS {
            // An error of the queue (ENOBUFS: some were lost, and will come again) is read once.
            let length = match sys::receive(self.sockets[ROLE_SYNS as usize], buffer) {
                Err(raw::EAGAIN) => return,
                Err(_) => continue,
                Ok(length) => length,
            };
            let mut at = 0;
            while let Some((payload, next)) = logged(&buffer[..length], at) {
                at = next;
                if let Some((flow, first)) = payload.and_then(packet::syn)
                    && is_inside(&flow.source)
                {
                    self.first_packet(flow, first);
                }
            }
        }
    }

    fn first_packet(&mut self, flow: Flow, first: Packet) {
        if let Some(at) = self.connections.waiting(&flow) {
            // Once more, or a new one with the same ends: the one that the program waits for is the latest.
            self.connections.get(at).first = first;
            if self.connections.get(at).state == State::Admitted {
                self.put(first.bytes(), &flow.target);
            }
            return;
        }
        if flow.target_port == DNS {
            return self.admit_questions(flow, first);
        }
        let verdict = self.decide(&flow, IPPROTO_TCP);
        if !verdict.decision.allowed {
            return self.refuse(&flow, &first, &verdict, Refusal::Host);
        }
        if let Err(errno) = self.dial(flow, first, &verdict) {
            match errno {
                EMFILE => {
                    let decision = Decision::refused(WHY_FULL, NO_RULE);
                    self.refuse(&flow, &first, &Verdict { decision, ..verdict }, Refusal::Host);
                }
                errno => self.failed(&flow, &first, &verdict, errno),
            }
        }
    }

    fn dial(&mut self, flow: Flow, first: Packet, verdict: &Verdict) -> sys::Result<()> {
        if !self.has_room(2) {
            return Err(EMFILE);
        }
        let (address, port) = match self.policy.proxy_to(&flow.target) {
            Some(proxy) => (proxy.address, proxy.port),
            None => (self.policy.outside(&flow.target), flow.target_port),
        };
        let peer = match sys::socket(&address, SOCK_STREAM) {
            Err(23 | EMFILE) => return Err(EMFILE),
            other => other?,
        };
        sys::no_delay(peer);
        let begun = sys::connect(peer, &address, port).and_then(|()| {
            let at = self.connections.begin(flow, first).ok_or(EMFILE)?;
            let connection = self.connections.get(at);
            connection.fds[1] = peer;
            connection.since = sys::now();
            (connection.rule, connection.by_name) = (verdict.decision.rule, verdict.by_name);
            let token = token(Watched::Connection, 1, connection.generation, at);
            sys::watch(self.epoll, peer, BOTH_WAYS, token).inspect_err(|_| {
                self.connections.get(at).fds[1] = -1;
                self.connections.end(at, true);
            })
        });
        begun.inspect_err(|_| raw::close(peer))
    }

    /// Lets a connection through that asks for names; there is nobody to dial.
    fn admit_questions(&mut self, flow: Flow, first: Packet) {
        if !self.has_room(1) {
            return;
        }
        if let Some(at) = self.connections.begin(flow, first) {
            let connection = self.connections.get(at);
            (connection.state, connection.purpose, connection.since) = (State::Admitted, Purpose::Names, sys::now());
            self.put(first.bytes(), &flow.target);
        }
    }

    /// The peer has answered, or cannot be reached.
    pub fn dialled(&mut self, at: usize, events: u32) {
        if events & (EPOLLOUT | EPOLLERR | EPOLLHUP) == 0 {
            return;
        }
        let connection = *self.connections.get(at);
        let verdict = self.verdict_of(at);
        match sys::error_of(connection.fds[1]) {
            0 if self.policy.proxy_to(&connection.flow.target).is_some() => self.ask_proxy(at, 0),
            0 => self.admit(at),
            errno => {
                self.failed(&connection.flow, &connection.first, &verdict, errno);
                self.connections.end(at, true);
            }
        }
    }

    /// The peer is there: the program may connect.
    fn admit(&mut self, at: usize) {
        let connection = *self.connections.get(at);
        let verdict = self.verdict_of(at);
        let place = self.account.note(note(&connection.flow, &verdict, VERDICT_ALLOWED, 0));
        let waiting = self.connections.get(at);
        (waiting.state, waiting.since, waiting.place) = (State::Admitted, sys::now(), place);
        self.put(connection.first.bytes(), &connection.flow.target);
    }

    fn not_reached(&mut self, at: usize, errno: i32) {
        let connection = *self.connections.get(at);
        let verdict = self.verdict_of(at);
        self.failed(&connection.flow, &connection.first, &verdict, errno);
        self.connections.end(at, true);
    }

    /// Says the next thing to the proxy.
    fn ask_proxy(&mut self, at: usize, step: u8) {
        let connection = *self.connections.get(at);
        let Some(proxy) = self.policy.proxy else { return };
        // A name that led to a real address is none that the program has asked for now.
        let name = if is_stand_in(&connection.flow.target) { self.verdict_of(at).name } else { NO_NAME };
        let target = Target { name: name.text(), address: connection.flow.target, port: connection.flow.target_port };
        let mut out = [0; proxy::LONGEST];
        let length = proxy::say(proxy.kind, step, &target, &mut out);
        let asking = self.connections.get(at);
        (asking.state, asking.since, asking.step) = (State::Asking, sys::now(), step);
        if sys::send(connection.fds[1], &out[..length]) != Ok(length) {
            self.not_reached(at, ECONNREFUSED);
        }
    }

    /// The proxy has answered, or a part of it has come.
    pub fn hear_proxy(&mut self, at: usize, buffer: &mut [u8; CHUNK]) {
        loop {
            let connection = *self.connections.get(at);
            let Some(proxy) = self.policy.proxy.filter(|_| connection.state == State::Asking) else { return };
            let heard = match sys::peek(connection.fds[1], &mut buffer[..proxy::MOST]) {
                Err(raw::EAGAIN) => return,
                Err(_) | Ok(0) => return self.not_reached(at, ECONNREFUSED),
                Ok(length) => proxy::hear(proxy.kind, connection.step, &buffer[..length]),
            };
            match heard {
                Answer::More => return,
                Answer::Refused(errno) => return self.not_reached(at, errno),
                Answer::Next(length) => {
                    let _ = sys::discard(connection.fds[1], length);
                    self.ask_proxy(at, connection.step + 1);
                }
                Answer::Connected(length) => {
                    let _ = sys::discard(connection.fds[1], length);
                    return self.admit(at);
                }
            }
        }
    }

    /// What was decided of a connection, for the account.
    fn verdict_of(&mut self, at: usize) -> Verdict {
        let connection = *self.connections.get(at);
        let rule = connection.rule;
        let name = self.pins.find(&connection.flow.target, |name| {
            let policy = &self.policy;
            let by_it = !connection.by_name
                || policy
                    .decide_name(name, connection.flow.target_port, sandcell_protocol::network::TCP)
                    .is_some_and(|decision| decision.rule == rule);
            by_it.then(|| Name::of(name)).flatten()
        });
        let decision = Decision { allowed: true, why: WHY_NONE, rule, if_not_own: false };
        Verdict { decision, name: name.unwrap_or(crate::dns::NO_NAME), by_name: connection.by_name }
    }

    fn refuse(&mut self, flow: &Flow, first: &Packet, verdict: &Verdict, refusal: Refusal) {
        self.account.note(note(flow, verdict, VERDICT_REFUSED, 0));
        self.tell_refusal(flow, first, refusal);
    }

    fn tell_refusal(&mut self, flow: &Flow, first: &Packet, refusal: Refusal) {
        let packet = packet::refusal(flow, first.bytes(), refusal, IPPROTO_TCP);
        self.put_back(flow, &packet);
        if refusal != Refusal::Reset {
            self.refusals.note(flow, &packet);
        }
    }

    fn failed(&mut self, flow: &Flow, first: &Packet, verdict: &Verdict, errno: i32) {
        self.account.note(note(flow, verdict, VERDICT_FAILED, errno));
        let refusal = match errno {
            ECONNREFUSED => Refusal::Reset,
            ENETUNREACH => Refusal::Net,
            _ => Refusal::Host,
        };
        self.tell_refusal(flow, first, refusal);
    }

    /// Takes connections that were let through. Whatever else comes here is reset: it has passed by the gate.
    pub fn accept(&mut self, listener: i32, buffer: &mut [u8; CHUNK]) {
        for _ in 0..TURNS {
            let Ok(inside) = sys::accept(listener) else { return };
            let flow = sys::peer_name(inside).zip(sys::own_name(inside)).map(|(source, target)| Flow {
                source: source.0,
                target: target.0,
                source_port: source.1,
                target_port: target.1,
            });
            let waiting = flow.and_then(|flow| self.connections.waiting(&flow));
            let admitted = waiting.filter(|at| self.connections.get(*at).state == State::Admitted);
            let Some(at) = admitted else {
                sys::reset_on_close(inside);
                raw::close(inside);
                continue;
            };
            sys::no_delay(inside);
            self.connections.waits_no_more(at);
            let names = self.policy.has_names();
            let connection = self.connections.get(at);
            (connection.state, connection.fds[0], connection.first) = (State::Up, inside, NO_PACKET);
            connection.unseen = names && connection.purpose == Purpose::Carry;
            let token = token(Watched::Connection, 0, connection.generation, at);
            if sys::watch(self.epoll, inside, BOTH_WAYS, token).is_err() {
                self.connections.end(at, true);
            } else {
                self.drive(at, buffer);
            }
        }
    }

    /// Carries both ways.
    pub fn drive(&mut self, at: usize, buffer: &mut [u8; CHUNK]) {
        if self.connections.get(at).purpose == Purpose::Names {
            return self.stream_question(at, buffer);
        }
        for from in 0..2 {
            if from == 0 && self.connections.get(at).unseen && !self.look(at, buffer) {
                continue;
            }
            let connection = self.connections.get(at);
            if connection.state != State::Up {
                return;
            }
            let (carried, bytes) = connection.carry(from, buffer);
            let (place, fd, generation) = (connection.place, connection.fds[from], connection.generation);
            let (sent, received) = if from == 0 { (bytes, 0) } else { (0, bytes) };
            self.account.add(place, sent, received);
            match carried {
                Carried::Broken => return self.connections.end(at, true),
                Carried::More => {
                    let token = token(Watched::Connection, from, generation, at);
                    if sys::watch_again(self.epoll, fd, BOTH_WAYS, token).is_err() {
                        return self.connections.end(at, true);
                    }
                }
                Carried::Waits => {}
            }
        }
        if self.connections.get(at).is_over() {
            self.connections.end(at, false);
        }
    }

    /// Looks at the first bytes of a program. Whether they may go on; where not, more must come, or it is over.
    fn look(&mut self, at: usize, buffer: &mut [u8; CHUNK]) -> bool {
        let connection = *self.connections.get(at);
        let bytes = match sys::peek(connection.fds[0], &mut buffer[..tls::MOST]) {
            Ok(length) if length > 0 => &buffer[..length],
            // Its end, or an error: nothing to be looked at any more.
            Ok(_) => {
                self.connections.get(at).unseen = false;
                return true;
            }
            Err(raw::EAGAIN) => return false,
            Err(_) => return true,
        };
        let (port, rule, by_name) = (connection.flow.target_port, connection.rule, connection.by_name);
        let mut named = None;
        let fine = match tls::hello(bytes) {
            Hello::Partial => return false,
            Hello::Other => !by_name || port != 443 || self.policy.allows_plain(rule),
            Hello::Nameless => !by_name,
            Hello::Broken => false,
            Hello::Name(name) => {
                named = Name::of(name);
                named.is_some_and(|name| self.is_name_fine(name.text(), &connection.flow, by_name))
            }
        };
        self.connections.get(at).unseen = false;
        if !fine {
            let decision = Decision::refused(WHY_TLS, rule);
            let name = named.unwrap_or(self.verdict_of(at).name);
            self.account.note(note(&connection.flow, &Verdict { decision, name, by_name }, VERDICT_REFUSED, 0));
            self.connections.end(at, true);
        }
        fine
    }

    /// Whether TLS may be spoken with a name at an address: one that led there and is allowed, or is not denied where names
    /// need no rule.
    fn is_name_fine(&mut self, name: &[u8], flow: &Flow, by_name: bool) -> bool {
        let decision = self.policy.decide_name(name, flow.target_port, sandcell_protocol::network::TCP);
        if !by_name {
            let looked_up = self.policy.decide_lookup(name);
            let denied = sandcell_protocol::network::WHY_DENIED;
            return decision.is_none_or(|decision| decision.allowed) && looked_up.why != denied;
        }
        let led_there = self.pins.find(&flow.target, |pinned| (pinned == name).then_some(())).is_some();
        led_there && decision.is_some_and(|decision| decision.allowed)
    }

    /// What waits in vain: connections that nobody accepts, flows that nobody uses.
    pub fn expire(&mut self, now: u64) {
        let mut at = 0;
        while let Some(&waiting) = self.connections.all_waiting().get(at) {
            let connection = self.connections.get(waiting as usize);
            let asks = connection.state == State::Asking;
            if asks && now > connection.since + PROXY_PATIENCE {
                self.not_reached(waiting as usize, ETIMEDOUT);
            } else if !asks && connection.state != State::Dialling && now > connection.since + ADMISSION {
                self.connections.end(waiting as usize, true);
            } else {
                at += 1;
            }
        }
        self.expire_flows(now);
        self.inbound.expire(now);
    }
}

/// An entry of the account.
pub fn note<'a>(flow: &Flow, verdict: &'a Verdict, kind: u8, errno: i32) -> Note<'a> {
    Note {
        address: flow.target,
        port: flow.target_port,
        protocol: IPPROTO_TCP,
        verdict: kind,
        why: verdict.decision.why,
        rule: verdict.decision.rule,
        errno: errno as u16,
        name: verdict.name.text(),
    }
}

/// The packet in a message of nfnetlink_log at `at`, and where the next message is.
fn logged(bytes: &[u8], at: usize) -> Option<(Option<&[u8]>, usize)> {
    const HEADERS: usize = 20;
    const NFULA_PAYLOAD: u16 = 9;
    let word = |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_ne_bytes);
    let half = |at: usize| bytes.get(at..at + 2).and_then(|half| half.try_into().ok()).map(u16::from_ne_bytes);
    let length = word(at)? as usize;
    let end = at.checked_add(length).filter(|end| length >= HEADERS && *end <= bytes.len())?;
    let mut attribute = at + HEADERS;
    let mut payload = None;
    while let (Some(length), Some(kind)) = (half(attribute), half(attribute + 2)) {
        let length = usize::from(length);
        if length < 4 || attribute + length > end {
            break;
        }
        if kind & 0x3fff == NFULA_PAYLOAD {
            payload = bytes.get(attribute + 4..attribute + length);
        }
        attribute += length.next_multiple_of(4);
    }
    Some((payload, end.next_multiple_of(4)))
}
