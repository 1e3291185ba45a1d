//! Published ports: what comes from outside is carried to the sandbox's own address, as if from whoever has sent it.
//!
//! Only init could make sockets in the sandbox's network, and it has made its last. But a socket that was accepted there is of
//! that network, and undone (connect(2), AF_UNSPEC) it is as good as new: the seed connects to the door, and what the door
//! accepts is the next socket. It may bind addresses that the sandbox has not (IP_TRANSPARENT, from the door).

use sandcell_protocol::network::{
    DOOR_PORT, HOST_IPV4, HOST_IPV6, MOST_PUBLISHED, OWN_IPV4, OWN_IPV6, ROLE_DOOR4, ROLE_DOOR6, ROLE_SEED4,
    ROLE_SEED6, UDP, VERDICT_INBOUND, WHY_NONE,
};
use sandcell_raw::{self as raw, EAGAIN};

use crate::account::{Note, Place};
use crate::connections::{CHUNK, Purpose, State};
use crate::packet::{self, DATAGRAM_ROOM, Flow, IPPROTO_TCP, IPPROTO_UDP, MOST_PAYLOAD, NO_PACKET, ipv4, mapped};
use crate::relay::{BOTH_WAYS, Relay, Watched, is_inside, token};
use crate::sys::{self, ECONNABORTED, EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT};

/// How many are let in before others have their turn.
const TURNS: usize = 64;
/// How long the seed waits for the door, in milliseconds: it is a matter of microseconds, unless programs crowd it.
const PATIENCE: u64 = 100;
/// How many of those are turned away for one seed.
const CROWD: usize = 64;
/// How many clients of datagrams there may be at once; the one that was heard of longest ago makes room.
const MOST_GUESTS: usize = 256;
/// How long one may be answered, in milliseconds.
const IDLE: u64 = 180_000;

/// A published port.
#[derive(Clone, Copy)]
struct Published {
    /// Of the host: it listens, or takes datagrams.
    fd: i32,
    /// Of the sandbox.
    port: u16,
    udp: bool,
}

/// A client of a port for datagrams.
#[derive(Clone, Copy)]
struct Guest {
    /// Who it is, to the published port at `published`; 0: the place is free.
    used: u64,
    client: sys::End,
    published: usize,
    /// As the program sees the two.
    flow: Flow,
    place: Place,
}

pub struct Inbound {
    ports: [Published; MOST_PUBLISHED],
    count: usize,
    guests: [Guest; MOST_GUESTS],
    guest_count: usize,
}

impl Inbound {
    /// All zeros.
    pub const fn new() -> Inbound {
        let guest = Guest { used: 0, client: ([0; 16], 0), published: 0, flow: crate::packet::NO_FLOW, place: 0 };
        Inbound {
            ports: [Published { fd: 0, port: 0, udp: false }; MOST_PUBLISHED],
            count: 0,
            guests: [guest; MOST_GUESTS],
            guest_count: 0,
        }
    }

    pub fn any(&self) -> bool {
        self.guest_count > 0
    }

    pub fn expire(&mut self, now: u64) {
        if self.any() {
            let over = |guest: &&mut Guest| guest.used != 0 && now > guest.used + IDLE;
            self.guests.iter_mut().filter(over).for_each(|guest| guest.used = 0);
            self.guest_count = self.guests.iter().filter(|guest| guest.used != 0).count();
        }
    }

    /// Lets nobody in any more.
    pub fn close(&mut self) {
        self.ports[..self.count].iter().for_each(|port| raw::close(port.fd));
        self.count = 0;
    }
}

/// The sandbox's own address of the same kind, and what its programs see of a client: its own address, if there that is the
/// client's alone.
fn seen(client: &[u8; 16]) -> ([u8; 16], [u8; 16]) {
    let is_local = match ipv4(client) {
        Some([a, b, ..]) => a == 0 || a == 127 || (a, b) == (169, 254),
        None => client[..8] == [0; 8] || client[..2] == [0xfe, 0x80],
    };
    let (own, host) =
        if ipv4(client).is_some() { (mapped(OWN_IPV4), mapped(HOST_IPV4)) } else { (OWN_IPV6, HOST_IPV6) };
    (own, if is_local || is_inside(client) { host } else { *client })
}

impl Relay {
    /// Takes over a published port.
    pub fn publish(&mut self, fd: i32, port: u16, protocol: u32) -> Option<()> {
        *self.inbound.ports.get_mut(self.inbound.count)? = Published { fd, port, udp: protocol == UDP };
        self.inbound.count += 1;
        Some(())
    }

    /// From now on they may come.
    pub fn open_doors(&mut self) -> sys::Result<()> {
        for role in ROLE_SEED4..=ROLE_DOOR6 {
            if self.sockets[role as usize] > 0 {
                sys::set_patience(self.sockets[role as usize], PATIENCE);
            }
        }
        for at in 0..self.inbound.count {
            sys::watch(self.epoll, self.inbound.ports[at].fd, EPOLLIN, token(Watched::Published, 0, 0, at))?;
        }
        Ok(())
    }

    /// One more socket of the sandbox's network.
    fn sow(&self, is_ipv4: bool) -> Option<i32> {
        const LOOPBACK: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let (seed, door) = if is_ipv4 { (ROLE_SEED4, ROLE_DOOR4) } else { (ROLE_SEED6, ROLE_DOOR6) };
        let (seed, door) = (self.sockets[seed as usize], self.sockets[door as usize]);
        if seed == 0 || door == 0 {
            return None;
        }
        let loopback = if is_ipv4 { mapped([127, 0, 0, 1]) } else { LOOPBACK };
        // Undone in any case: it is of use again.
        let _ = sys::disconnect(seed);
        sys::connect(seed, &loopback, DOOR_PORT).ok()?;
        let name = sys::own_name(seed)?;
        for _ in 0..CROWD {
            let new = sys::accept(door).ok()?;
            if sys::peer_name(new) == Some(name) && sys::disconnect(new).is_ok() {
                return Some(new);
            }
            sys::reset_on_close(new);
            raw::close(new);
        }
        None
    }

    /// Somebody outside wants in.
    pub fn come_in(&mut self, at: usize, buffer: &mut [u8; CHUNK]) {
        // The last event of one that is closed.
        if at >= self.inbound.count {
            return;
        }
        if self.inbound.ports[at].udp {
            return self.guests(at, buffer);
        }
        for _ in 0..TURNS {
            // ECONNABORTED and the like: it is gone already.
            let client = match sys::accept(self.inbound.ports[at].fd) {
                Err(ECONNABORTED | raw::EINTR) => continue,
                Err(_) => return,
                Ok(client) => client,
            };
            if self.enter(at, client, buffer).is_none() {
                sys::reset_on_close(client);
                raw::close(client);
            }
        }
    }

    /// Connects a client to the program, or begins to.
    fn enter(&mut self, at: usize, client: i32, buffer: &mut [u8; CHUNK]) -> Option<()> {
        let port = self.inbound.ports[at].port;
        let from = sys::peer_name(client)?;
        let (own, source) = seen(&from.0);
        // The client has a descriptor already.
        if !self.has_room(1) {
            return None;
        }
        let inside = self.sow(ipv4(&own).is_some())?;
        // The client's own port, unless something of the sandbox's still uses it.
        let begun = sys::bind(inside, &source, from.1)
            .or_else(|_| sys::bind(inside, &source, 0))
            .and_then(|()| sys::connect(inside, &own, port))
            .ok()
            .and_then(|()| {
                let flow = Flow { source, target: own, source_port: from.1, target_port: port };
                self.connections.begin(flow, NO_PACKET)
            });
        let Some(place) = begun else {
            raw::close(inside);
            return None;
        };
        let account = self.note_entry(at, IPPROTO_TCP);
        let connection = self.connections.get(place);
        (connection.state, connection.purpose, connection.since) = (State::Entering, Purpose::Carry, sys::now());
        (connection.fds, connection.place) = ([inside, client], account);
        sys::no_delay(inside);
        sys::no_delay(client);
        let generation = connection.generation;
        for (side, fd) in [inside, client].into_iter().enumerate() {
            if sys::watch(self.epoll, fd, BOTH_WAYS, token(Watched::Connection, side, generation, place)).is_err() {
                self.connections.end(place, true);
                break;
            }
        }
        // On a loopback it is over with the call, mostly.
        if self.connections.get(place).state == State::Entering && sys::peer_name(inside).is_some() {
            self.entered(place, EPOLLOUT, buffer);
        }
        Some(())
    }

    /// The program has taken the connection, or nobody listens there.
    pub fn entered(&mut self, at: usize, events: u32, buffer: &mut [u8; CHUNK]) {
        if events & (EPOLLOUT | EPOLLERR | EPOLLHUP) == 0 {
            return;
        }
        let inside = self.connections.get(at).fds[0];
        if sys::error_of(inside) != 0 {
            return self.connections.end(at, true);
        }
        self.connections.waits_no_more(at);
        self.connections.get(at).state = State::Up;
        self.drive(at, buffer);
    }

    fn note_entry(&mut self, at: usize, protocol: u8) -> Place {
        self.account.note(Note {
            address: [0; 16],
            port: self.inbound.ports[at].port,
            protocol,
            verdict: VERDICT_INBOUND,
            why: WHY_NONE,
            rule: at as u32,
            errno: 0,
            name: &[],
        })
    }

    /// Takes datagrams from outside.
    fn guests(&mut self, at: usize, buffer: &mut [u8; CHUNK]) {
        let Published { fd, port, .. } = self.inbound.ports[at];
        for _ in 0..TURNS {
            let room = &mut buffer[DATAGRAM_ROOM..DATAGRAM_ROOM + MOST_PAYLOAD];
            let (length, client) = match sys::receive_datagram(fd, room) {
                Err(EAGAIN) => return,
                Ok((length, Some(client), _)) => (length, client),
                _ => continue,
            };
            let known = |guest: &Guest| guest.used != 0 && (guest.client, guest.published) == (client, at);
            let place = self.inbound.guests.iter().position(known).unwrap_or_else(|| {
                let (own, source) = seen(&client.0);
                let flow = Flow { source: own, target: source, source_port: port, target_port: client.1 };
                let oldest = (0..MOST_GUESTS).min_by_key(|&at| self.inbound.guests[at].used).unwrap_or(0);
                let place = self.note_entry(at, IPPROTO_UDP);
                self.inbound.guests[oldest] = Guest { used: 0, client, published: at, flow, place };
                self.inbound.guest_count = (self.inbound.guest_count + 1).min(MOST_GUESTS);
                oldest
            });
            let guest = &mut self.inbound.guests[place];
            guest.used = sys::now().max(1);
            let (flow, place) = (guest.flow, guest.place);
            self.account.add(place, 0, length as u64);
            let packet = packet::answer(&flow, &mut buffer[..], length);
            self.put(packet, &flow.source);
        }
    }

    /// A datagram of the program's that answers somebody outside is sent there, from the published port. Whether it is one.
    pub fn answer_guest(&mut self, flow: &Flow, length: usize, buffer: &[u8; CHUNK]) -> bool {
        let is = |guest: &&Guest| guest.used != 0 && guest.flow == *flow;
        let Some(guest) = self.inbound.guests.iter().filter(|_| self.inbound.guest_count > 0).find(is).copied() else {
            return false;
        };
        if guest.published < self.inbound.count {
            let fd = self.inbound.ports[guest.published].fd;
            let _ = sys::send_to(fd, &buffer[DATAGRAM_ROOM..DATAGRAM_ROOM + length], &guest.client.0, guest.client.1);
            self.account.add(guest.place, length as u64, 0);
        }
        true
    }
}
