//! Datagrams: each pair of ends has a socket of its own outside, as long as it is of use.

use sandcell_protocol::network::{NO_RULE, VERDICT_ALLOWED, VERDICT_FAILED, VERDICT_REFUSED, WHY_PROXY};
use sandcell_raw::{self as raw, EAGAIN};

use crate::account::Place;
use crate::connections::CHUNK;
use crate::gate::{DNS, note};
use crate::packet::{self, DATAGRAM_ROOM, Flow, IPPROTO_UDP, MOST_PAYLOAD, NO_FLOW, Refusal};
use crate::policy::Decision;
use crate::relay::{Relay, Watched, is_inside, token};
use crate::sys::{self, ECONNREFUSED, EPOLLIN, SOCK_DGRAM};

/// How many there may be at once; the one that was of use longest ago makes room.
const MOST: usize = 256;
/// How long one is kept without use, in milliseconds.
const IDLE: u64 = 60_000;
const TURNS: usize = 64;

#[derive(Clone, Copy)]
struct Pair {
    flow: Flow,
    fd: i32,
    generation: u32,
    used: u64,
    place: Place,
}

pub struct Flows {
    all: [Pair; MOST],
    pub open: usize,
}

impl Flows {
    pub const fn new() -> Flows {
        Flows { all: [Pair { flow: NO_FLOW, fd: 0, generation: 0, used: 0, place: 0 }; MOST], open: 0 }
    }

    pub fn any(&self) -> bool {
        self.open > 0
    }

    fn close(&mut self, at: usize) {
        let pair = &mut self.all[at];
        if pair.fd > 0 {
            raw::close(pair.fd);
            pair.fd = 0;
            pair.generation = pair.generation.wrapping_add(1);
            self.open -= 1;
        }
    }

    /// A free place, if need be one that is made so.
    fn place(&mut self) -> usize {
        match self.all.iter().position(|pair| pair.fd == 0) {
            Some(at) => at,
            None => {
                let at = (0..MOST).min_by_key(|&at| self.all[at].used).unwrap_or(0);
                self.close(at);
                at
            }
        }
    }
}

impl Relay {
    /// Takes what programs send.
    pub fn datagrams(&mut self, socket: i32, buffer: &mut [u8; CHUNK]) {
        for _ in 0..TURNS {
            let payload = &mut buffer[DATAGRAM_ROOM..];
            let (length, source, target) = match sys::receive_datagram(socket, payload) {
                Err(EAGAIN) => return,
                Err(_) => continue,
                Ok(received) => received,
            };
            let (Some(source), Some(target)) = (source, target) else { continue };
            let flow = Flow { source: source.0, target: target.0, source_port: source.1, target_port: target.1 };
            if !is_inside(&flow.source) {
                continue;
            }
            if self.answer_guest(&flow, length, buffer) {
                continue;
            }
            if flow.target_port == DNS {
                self.datagram_question(&flow, length, buffer);
            } else {
                self.datagram(&flow, length, buffer);
            }
        }
    }

    fn datagram(&mut self, flow: &Flow, length: usize, buffer: &mut [u8; CHUNK]) {
        let known = self.flows.all.iter().position(|pair| pair.fd > 0 && pair.flow == *flow);
        let at = match known {
            Some(at) => at,
            None => match self.open_flow(flow, length) {
                Some(at) => at,
                None => return,
            },
        };
        let pair = &mut self.flows.all[at];
        pair.used = sys::now();
        let (fd, place) = (pair.fd, pair.place);
        match sys::send(fd, &buffer[DATAGRAM_ROOM..DATAGRAM_ROOM + length]) {
            Ok(sent) => self.account.add(place, sent as u64, 0),
            Err(errno) => self.flow_failed(at, errno),
        }
    }

    fn open_flow(&mut self, flow: &Flow, length: usize) -> Option<usize> {
        let mut verdict = self.decide(flow, IPPROTO_UDP);
        if verdict.decision.allowed && self.policy.proxy_to(&flow.target).is_some() {
            verdict.decision = Decision::refused(WHY_PROXY, NO_RULE);
        }
        let mut entry = note(flow, &verdict, VERDICT_ALLOWED, 0);
        entry.protocol = IPPROTO_UDP;
        if !verdict.decision.allowed {
            entry.verdict = VERDICT_REFUSED;
            self.account.note(entry);
            self.put_back(
                flow,
                &packet::refusal(flow, packet::datagram_head(flow, length).bytes(), Refusal::Host, IPPROTO_UDP),
            );
            return None;
        }
        if !self.has_room(1) {
            // The last resort of a table that is full serves here, too.
            let at = (0..MOST).filter(|&at| self.flows.all[at].fd > 0).min_by_key(|&at| self.flows.all[at].used)?;
            self.flows.close(at);
        }
        let fd = sys::socket(&flow.target, SOCK_DGRAM).ok()?;
        if let Err(errno) = sys::connect(fd, &self.policy.outside(&flow.target), flow.target_port) {
            raw::close(fd);
            (entry.verdict, entry.errno) = (VERDICT_FAILED, errno as u16);
            self.account.note(entry);
            self.put_back(
                flow,
                &packet::refusal(flow, packet::datagram_head(flow, length).bytes(), Refusal::Net, IPPROTO_UDP),
            );
            return None;
        }
        let place = self.account.note(entry);
        let at = self.flows.place();
        let pair = &mut self.flows.all[at];
        let token = token(Watched::Flow, 0, pair.generation, at);
        if sys::watch(self.epoll, fd, EPOLLIN, token).is_err() {
            raw::close(fd);
            return None;
        }
        *pair = Pair { flow: *flow, fd, generation: pair.generation, used: 0, place };
        self.flows.open += 1;
        Some(at)
    }

    /// Takes what comes back.
    pub fn flow(&mut self, at: usize, generation: u32, buffer: &mut [u8; CHUNK]) {
        for _ in 0..TURNS {
            let pair = &mut self.flows.all[at];
            if pair.generation != generation || pair.fd == 0 {
                return;
            }
            let (flow, fd, place) = (pair.flow, pair.fd, pair.place);
            match sys::receive(fd, &mut buffer[DATAGRAM_ROOM..DATAGRAM_ROOM + MOST_PAYLOAD]) {
                Err(EAGAIN) => return,
                Err(errno) => return self.flow_failed(at, errno),
                Ok(length) => {
                    pair.used = sys::now();
                    self.account.add(place, 0, length as u64);
                    let answer = packet::answer(&flow, &mut buffer[..], length);
                    self.put(answer, &flow.source);
                }
            }
        }
    }

    /// Tells the program what its peer has answered.
    fn flow_failed(&mut self, at: usize, errno: i32) {
        let pair = self.flows.all[at];
        if errno == ECONNREFUSED {
            let head = packet::datagram_head(&pair.flow, 0);
            self.put_back(&pair.flow, &packet::refusal(&pair.flow, head.bytes(), Refusal::Reset, IPPROTO_UDP));
        }
        if errno != EAGAIN {
            self.flows.close(at);
        }
    }

    pub fn expire_flows(&mut self, now: u64) {
        for at in 0..MOST {
            if self.flows.all[at].fd > 0 && now > self.flows.all[at].used + IDLE {
                self.flows.close(at);
            }
        }
    }
}
