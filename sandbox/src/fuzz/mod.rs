//! Inputs with a few bytes changed, from a seed: what reads them must not crash, hang or believe them.
//!
//! Short by default; `SANDCELL_FUZZ=100000` makes that many rounds of each, `SANDCELL_FUZZ_SEED` says where to begin.
//! `tests/fuzz/run` feeds the same functions with what libFuzzer makes up from the code that was reached.
#![allow(missing_docs)]

mod decode;
mod hostile_init;
mod hostile_parent;
mod ids;
mod records;

#[cfg(fuzzing)]
pub use self::records::{cell_log, cell_note, cell_outcome, relay};
#[cfg(fuzzing)]
pub use self::{decode::plan, decode::reply, hostile_init::hostile_init, hostile_parent::hostile_parent, ids::subuid};

/// How many rounds, and a source of chance for them.
#[cfg(test)]
pub(crate) fn rounds(default: usize) -> (usize, Random) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let count = number("SANDCELL_FUZZ").unwrap_or(default as u64) as usize;
    (count, Random::Seed(number("SANDCELL_FUZZ_SEED").unwrap_or(1)))
}

/// Chance that comes again.
pub(crate) enum Random {
    /// Numbers without end, from a seed.
    #[cfg(test)]
    Seed(u64),
    /// As many as there are bytes for; then all are 0.
    #[cfg(fuzzing)]
    Bytes(std::vec::IntoIter<u8>),
}

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        match self {
            #[cfg(test)]
            Random::Seed(seed) => {
                *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = *seed;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^ (mixed >> 31)
            }
            // Two make every choice that is made here.
            #[cfg(fuzzing)]
            Random::Bytes(bytes) => u64::from(bytes.next().unwrap_or(0)) | u64::from(bytes.next().unwrap_or(0)) << 8,
        }
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Numbers that programs stumble over.
    pub(crate) fn edge(&mut self) -> u64 {
        const EDGES: [u64; 12] =
            [0, 1, 2, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 32, u64::MAX / 2, u64::MAX];
        EDGES[self.below(EDGES.len())].wrapping_add(self.below(3) as u64).wrapping_sub(1)
    }

    /// The bytes with some of them changed, moved, doubled or gone.
    pub(crate) fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(8) {
                _ if bytes.is_empty() => bytes.push(self.next() as u8),
                0 => bytes[at] = self.next() as u8,
                1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(at..(at + self.below(16)).min(bytes.len()))),
                4 => {
                    let end = (at + self.below(64)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
                5 => {
                    let end = (at + 4).min(bytes.len());
                    let edge = self.edge().to_le_bytes();
                    bytes[at..end].copy_from_slice(&edge[..end - at]);
                }
                6 => {
                    let end = (at + 8).min(bytes.len());
                    let edge = self.edge().to_le_bytes();
                    bytes[at..end].copy_from_slice(&edge[..end - at]);
                }
                _ => {
                    let filler = self.next() as u8;
                    let count = self.below(300);
                    bytes.splice(at..at, std::iter::repeat_n(filler, count));
                }
            }
        }
    }
}
