//! The addresses to which names have led. Only these may be reached by a rule for a name, and exactly these are dialled: what
//! a name leads to a moment later is of no matter.

use sandcell_protocol::network::STAND_INS;

use crate::packet::{ipv4, mapped};

/// How many are kept; the one that was of use longest ago makes room.
pub const MOST: usize = 4096;
pub const LONGEST: usize = 253;

/// As many as 198.18.0.0/15 has.
const STAND_IN_COUNT: u32 = 1 << 17;

pub fn is_stand_in(address: &[u8; 16]) -> bool {
    ipv4(address).is_some_and(|[a, b, ..]| a == STAND_INS[0] && b & !1 == STAND_INS[1])
}

#[derive(Clone, Copy)]
struct Name {
    length: u8,
    bytes: [u8; LONGEST],
}

pub struct Pins {
    count: usize,
    clock: u64,
    stand_ins: u32,
    addresses: [[u8; 16]; MOST],
    used: [u64; MOST],
    names: [Name; MOST],
}

impl Pins {
    pub const fn new() -> Pins {
        let names = [Name { length: 0, bytes: [0; LONGEST] }; MOST];
        Pins { count: 0, clock: 0, stand_ins: 0, addresses: [[0; 16]; MOST], used: [0; MOST], names }
    }

    fn name(&self, at: usize) -> &[u8] {
        let name = &self.names[at];
        &name.bytes[..usize::from(name.length)]
    }

    pub fn add(&mut self, name: &[u8], address: &[u8; 16]) {
        if name.len() > LONGEST {
            return;
        }
        self.clock += 1;
        let known = (0..self.count).find(|&at| self.addresses[at] == *address && self.name(at) == name);
        let at = match known {
            Some(at) => at,
            None if self.count < MOST => {
                self.count += 1;
                self.count - 1
            }
            None => (0..MOST).min_by_key(|&at| self.used[at]).unwrap_or(0),
        };
        (self.addresses[at], self.used[at]) = (*address, self.clock);
        self.names[at].length = name.len() as u8;
        self.names[at].bytes[..name.len()].copy_from_slice(name);
    }

    /// An address of nobody that stands for a name.
    pub fn stand_in(&mut self, name: &[u8]) -> [u8; 16] {
        let known = (0..self.count).find(|&at| is_stand_in(&self.addresses[at]) && self.name(at) == name);
        let address = match known {
            Some(at) => self.addresses[at],
            None => {
                self.stand_ins = self.stand_ins % (STAND_IN_COUNT - 1) + 1;
                let [_, high, low, lowest] = self.stand_ins.to_be_bytes();
                mapped([STAND_INS[0], STAND_INS[1] + high, low, lowest])
            }
        };
        self.add(name, &address);
        address
    }

    /// The names that led to an address, the latest first as far as `choose` wants: the first for which it has an answer.
    pub fn find<T>(&mut self, address: &[u8; 16], mut choose: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
        for at in (0..self.count).rev() {
            if self.addresses[at] == *address
                && let Some(answer) = choose(self.name(at))
            {
                self.clock += 1;
                self.used[at] = self.clock;
                return Some(answer);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::sync::Mutex;

    fn address(number: u32) -> [u8; 16] {
        u128::from(number).to_be_bytes()
    }

    #[test]
    fn an_address_has_the_names_that_led_to_it() {
        static PINS: Mutex<Pins> = Mutex::new(Pins::new());
        let mut pins = PINS.lock().unwrap();
        pins.add(b"a.org", &address(1));
        pins.add(b"b.org", &address(1));
        pins.add(b"b.org", &address(2));
        assert!(pins.find(&address(1), |name| (name == b"a.org").then_some(())).is_some());
        assert!(pins.find(&address(2), |name| (name == b"a.org").then_some(())).is_none());
        assert!(pins.find(&address(3), |_| Some(())).is_none());
    }

    #[test]
    fn the_least_recently_used_one_makes_room() {
        static PINS: Mutex<Pins> = Mutex::new(Pins::new());
        let mut pins = PINS.lock().unwrap();
        for number in 0..MOST as u32 {
            pins.add(format!("h{number}.org").as_bytes(), &address(number));
        }
        assert!(pins.find(&address(0), |_| Some(())).is_some(), "of use again");
        pins.add(b"new.org", &address(1 << 20));
        assert!(pins.find(&address(0), |_| Some(())).is_some());
        assert!(pins.find(&address(1), |_| Some(())).is_none());
        assert_eq!(pins.count, MOST);
    }
}
