//! The relay while it runs: what it waits for, and who is told of it.

use sandcell_protocol::network::{
    NO_RULE, OWN_IPV4, OWN_IPV6, RELAY_SOCKETS, ROLE_NONE, ROLE_RAW4, ROLE_RAW6, ROLE_SYNS, ROLE_TCP4, ROLE_TCP6,
    ROLE_UDP4, ROLE_UDP6, ROLES, TCP, UDP, WHY_DENIED, WHY_HOST, WHY_METADATA, WHY_NONE, WHY_PRIVATE, WHY_UNLISTED,
};
use sandcell_raw as raw;

use crate::account::Account;
use crate::connections::{CHUNK, Connections, State};
use crate::dns::{NO_NAME, Name};
use crate::flows::Flows;
use crate::inbound::Inbound;
use crate::packet::{Flow, IPPROTO_TCP, NO_FLOW, NO_PACKET, Packet, ipv4};
use crate::pins::{Pins, is_stand_in};
use crate::policy::{Decision, Policy};
use crate::questions::Questions;
use crate::sys::{self, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, Event};

/// Where the library is.
pub const CONTROL: i32 = 0;
/// How long the last bytes of a program that is over may take to its peer, in milliseconds.
const LAST_BYTES: u64 = 1000;
/// How often what waits in vain is looked at.
const TICK: u64 = 1000;
/// Descriptors for other things than connections.
const RESERVE: usize = 16;

/// What a descriptor is for; in the events of epoll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    Control,
    Init,
    Socket,
    Connection,
    Flow,
    Question,
    Published,
}

/// A descriptor with its place; the generation tells an event of what had the place before.
pub fn token(kind: Watched, side: usize, generation: u32, at: usize) -> u64 {
    (kind as u64) << 60 | (side as u64) << 59 | u64::from(generation) << 24 | at as u64
}

fn parts(token: u64) -> (u64, usize, u32, usize) {
    (token >> 60, (token >> 59 & 1) as usize, (token >> 24) as u32, (token & 0xff_ffff) as usize)
}

pub const BOTH_WAYS: u32 = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;

/// What a decision is about, for reports too.
#[derive(Clone, Copy)]
pub struct Verdict {
    pub decision: Decision,
    /// The name that led to the address, as far as one is known.
    pub name: Name,
    /// It is the name that was allowed.
    pub by_name: bool,
}

/// Refusals that are told once more.
///
/// The kernel drops an ICMP message for a socket that is being used at that moment: a program that has just sent its first
/// packet may still be in connect(2) on another processor, and would wait a second until it sends it again.
pub struct Refusals {
    all: [(Flow, Packet, u64); MOST_REFUSALS],
    count: usize,
}

const MOST_REFUSALS: usize = 64;
/// When they are told again, in milliseconds.
const AGAIN: u64 = 2;

impl Refusals {
    const NONE: Refusals = Refusals { all: [(NO_FLOW, NO_PACKET, 0); MOST_REFUSALS], count: 0 };

    fn pending(&self) -> bool {
        self.count > 0
    }

    /// Where there are too many, some are told once only.
    pub fn note(&mut self, flow: &Flow, packet: &Packet) {
        if let Some(place) = self.all.get_mut(self.count) {
            *place = (*flow, *packet, sys::now() + AGAIN);
            self.count += 1;
        }
    }
}

pub struct Relay {
    pub epoll: i32,
    pub init: i32,
    pub sockets: [i32; ROLES + 1],
    pub policy: Policy,
    pub pins: Pins,
    pub account: Account,
    pub connections: Connections,
    pub flows: Flows,
    pub inbound: Inbound,
    pub questions: Questions,
    /// How many descriptors there may be.
    pub descriptors: usize,
    /// When the relay ends, where the sandbox has ended; or 0.
    ending: u64,
    pub refusals: Refusals,
}

static mut RELAY: Relay = Relay {
    epoll: 0,
    init: 0,
    sockets: [0; ROLES + 1],
    policy: Policy::new(),
    pins: Pins::new(),
    account: Account::NONE,
    connections: Connections::new(),
    flows: Flows::new(),
    inbound: Inbound::new(),
    questions: Questions::new(),
    descriptors: 0,
    ending: 0,
    refusals: Refusals::NONE,
};

static mut BUFFER: [u8; CHUNK] = [0; CHUNK];

/// The one relay, and a buffer for what is on its way.
pub fn relay() -> (&'static mut Relay, &'static mut [u8; CHUNK]) {
    // SAFETY: one thread; taken once, at the start.
    unsafe { (&mut *(&raw mut RELAY), &mut *(&raw mut BUFFER)) }
}

/// Whether a packet comes from an address that the sandbox has. Others could be forged by programs that may bind them.
pub fn is_inside(address: &[u8; 16]) -> bool {
    const LOOPBACK: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    match ipv4(address) {
        Some(address) => address == OWN_IPV4 || address[0] == 127,
        None => *address == OWN_IPV6 || *address == LOOPBACK,
    }
}

impl Relay {
    /// Never returns.
    pub fn run(&mut self, buffer: &mut [u8; CHUNK]) -> ! {
        let mut events = [Event { events: 0, data: 0 }; 64];
        let mut looked = sys::now();
        loop {
            let count = sys::wait(self.epoll, &mut events, self.patience());
            for event in &events[..count] {
                let (kind, side, generation, at) = parts(event.data);
                match kind {
                    // The library says nothing more; it is gone, or wants us to be.
                    kind if kind == Watched::Control as u64 => raw::exit(0),
                    kind if kind == Watched::Init as u64 => self.hear_init(),
                    kind if kind == Watched::Socket as u64 => self.socket(at as u32, buffer),
                    kind if kind == Watched::Flow as u64 => self.flow(at, generation, buffer),
                    kind if kind == Watched::Published as u64 => self.come_in(at, buffer),
                    kind if kind == Watched::Question as u64 => self.answered(at, generation, buffer),
                    _ => self.connection(at, side, generation, event.events, buffer),
                }
            }
            let now = sys::now();
            self.keep_questions(now, buffer);
            self.refuse_again(now);
            if now >= looked + TICK {
                looked = now;
                self.expire(now);
            }
            if self.ending != 0 && (now >= self.ending || !self.connections.any_up()) {
                raw::exit(0);
            }
        }
    }

    fn patience(&self) -> i32 {
        if self.refusals.pending() {
            AGAIN as i32
        } else if self.ending != 0 || self.questions.pending() {
            100
        } else if !self.connections.all_waiting().is_empty() || self.flows.any() || self.inbound.any() {
            TICK as i32
        } else {
            -1
        }
    }

    /// Takes the sockets; or learns that the sandbox is over.
    fn hear_init(&mut self) {
        let (mut head, mut roles, mut fds) = ([0; 16], [0; 4 * ROLES], [-1; ROLES]);
        let heard = sys::receive_descriptors(self.init, &mut head, &mut roles, &mut fds);
        let Some((length, count)) = heard else { return self.end() };
        let kind = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]);
        if kind != RELAY_SOCKETS || length != 4 * count || self.sockets[ROLE_SYNS as usize] != 0 {
            raw::exit(72);
        }
        for (fd, role) in fds[..count].iter().zip(roles.chunks_exact(4)) {
            let role = u32::from_ne_bytes([role[0], role[1], role[2], role[3]]);
            if role == ROLE_NONE || role as usize > ROLES {
                raw::exit(72);
            }
            self.sockets[role as usize] = *fd;
            let reads = role <= ROLE_SYNS && !matches!(role, ROLE_RAW4 | ROLE_RAW6);
            if reads && sys::watch(self.epoll, *fd, EPOLLIN, token(Watched::Socket, 0, 0, role as usize)).is_err() {
                raw::exit(73);
            }
        }
        // Not before there is somebody to let them in.
        if self.open_doors().is_err() {
            raw::exit(73);
        }
    }

    /// What was sent before is carried to its end; nothing new begins.
    fn end(&mut self) {
        self.ending = sys::now() + LAST_BYTES;
        raw::close(self.init);
        self.init = -1;
        while let Some(at) = self.connections.all_waiting().first() {
            self.connections.end(*at as usize, true);
        }
        self.inbound.close();
        for at in ROLE_TCP4..=ROLES as u32 {
            if self.sockets[at as usize] > 0 {
                raw::close(self.sockets[at as usize]);
                self.sockets[at as usize] = 0;
            }
        }
    }

    fn socket(&mut self, role: u32, buffer: &mut [u8; CHUNK]) {
        // An event of a socket that was closed by the one before it.
        if self.sockets[role as usize] == 0 {
            return;
        }
        match role {
            ROLE_TCP4 | ROLE_TCP6 => self.accept(self.sockets[role as usize], buffer),
            ROLE_UDP4 | ROLE_UDP6 => self.datagrams(self.sockets[role as usize], buffer),
            _ => self.first_packets(buffer),
        }
    }

    /// Puts a packet into the namespace: back to a program, or on to our own socket.
    pub fn put(&self, packet: &[u8], to: &[u8; 16]) {
        let role = if ipv4(to).is_some() { ROLE_RAW4 } else { ROLE_RAW6 };
        let socket = self.sockets[role as usize];
        if socket > 0 {
            let _ = sys::send_packet(socket, packet, to);
        }
    }

    pub fn put_back(&self, flow: &Flow, packet: &Packet) {
        self.put(packet.bytes(), &flow.source);
    }

    fn refuse_again(&mut self, now: u64) {
        let mut at = 0;
        while at < self.refusals.count {
            let (flow, packet, due) = self.refusals.all[at];
            if now < due {
                at += 1;
                continue;
            }
            self.put_back(&flow, &packet);
            self.refusals.count -= 1;
            self.refusals.all[at] = self.refusals.all[self.refusals.count];
        }
    }

    /// Whether there is a descriptor left for each of so many things.
    pub fn has_room(&self, more: usize) -> bool {
        2 * self.connections.open + self.flows.open + self.questions.open + more + RESERVE <= self.descriptors
    }

    /// Decides by addresses first, and by names where those do not.
    pub fn decide(&mut self, flow: &Flow, protocol: u8) -> Verdict {
        let bit = if protocol == IPPROTO_TCP { TCP } else { UDP };
        let literal = self.policy.decide(&flow.target, flow.target_port, bit);
        let any_name = |pins: &mut Pins| pins.find(&flow.target, Name::of).unwrap_or(NO_NAME);
        if self.policy.proxy.is_some() && literal.why == WHY_PRIVATE && is_stand_in(&flow.target) {
            return self.decide_stand_in(flow, bit, literal);
        }
        // What is not public takes a rule of its own for the port: a name leads where whoever answers for it wants.
        let is_final = [WHY_DENIED, WHY_PRIVATE, WHY_METADATA, WHY_HOST].contains(&literal.why);
        if literal.allowed && !literal.if_not_own || is_final {
            return Verdict { decision: literal, name: any_name(&mut self.pins), by_name: false };
        }
        let policy = &self.policy;
        let mut spoken = |wanted: bool| {
            self.pins.find(&flow.target, |name| {
                let decision = policy.decide_name(name, flow.target_port, bit)?;
                (decision.allowed == wanted).then(|| Name::of(name).map(|name| (decision, name))).flatten()
            })
        };
        let mut verdict = match spoken(true).or_else(|| spoken(false)) {
            Some((decision, name)) => Verdict { decision, name, by_name: decision.allowed },
            None => Verdict { decision: literal, name: any_name(&mut self.pins), by_name: false },
        };
        if verdict.decision.allowed && verdict.decision.if_not_own && sys::is_own(&flow.target) {
            verdict.decision = Decision::refused(WHY_HOST, NO_RULE);
        }
        verdict
    }

    /// An address that stands for a name says nothing by itself: the name decides.
    fn decide_stand_in(&mut self, flow: &Flow, bit: u32, literal: Decision) -> Verdict {
        let policy = &self.policy;
        let decided = self.pins.find(&flow.target, |name| {
            let by_name = policy.decide_name(name, flow.target_port, bit);
            let public =
                policy.public.then_some(Decision { allowed: true, why: WHY_NONE, rule: NO_RULE, if_not_own: false });
            let unlisted = Decision::refused(WHY_UNLISTED, NO_RULE);
            Some((by_name.or(public).unwrap_or(unlisted), by_name.is_some_and(|one| one.allowed), Name::of(name)?))
        });
        match decided {
            Some((decision, by_name, name)) => Verdict { decision, name, by_name },
            None => Verdict { decision: literal, name: NO_NAME, by_name: false },
        }
    }

    fn connection(&mut self, at: usize, side: usize, generation: u32, events: u32, buffer: &mut [u8; CHUNK]) {
        let connection = self.connections.get(at);
        if connection.generation != generation {
            return;
        }
        match connection.state {
            State::Free | State::Admitted => {}
            State::Dialling if side == 1 => self.dialled(at, events),
            State::Entering if side == 0 => self.entered(at, events, buffer),
            State::Asking if side == 1 => self.hear_proxy(at, buffer),
            State::Dialling | State::Asking | State::Entering => {}
            State::Up => self.drive(at, buffer),
        }
    }
}
