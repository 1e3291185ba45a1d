//! Good layers with a few bytes changed: whatever comes of them stays inside.
//!
//! `SANDCELL_FUZZ=100000` sets how many (2,000), `SANDCELL_FUZZ_SEED` where to begin.

#![cfg(feature = "image")]

mod image_support;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use image_support::*;
use sandcell::image::{Limits, Load, Reference, Source};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

fn seeds(up: &str) -> Vec<Vec<u8>> {
    vec![
        tar(&[dir("a"), file("a/b", "content"), symlink("l", up), file("x", ""), hard("h", "a/b")]),
        tar(&[
            symlink("d", up),
            dir("e"),
            file("e/.wh.f", ""),
            file("e/.wh..wh..opq", ""),
            file("long", "1").pax("path", "e/very/deep"),
        ]),
        tar(&[
            file("././@LongLink", "e/long/name").kind(b'L'),
            file("x", "y"),
            file("f", "").kind(b'6'),
            file("c", "").kind(b'3'),
        ]),
        tar(&[
            file("m", "x").pax("uid", "1000").pax("mtime", "1.5").pax("SCHILY.xattr.user.n", "v"),
            hard("n", "m"),
            file("m", "z"),
        ]),
    ]
}

/// Changes that a tar reader notices: bytes, whole blocks, numbers; the checksum is mended mostly, or nothing else
/// would ever be reached.
fn mutate(seed: &[u8], random: &mut Random, up: &str) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let blocks = bytes.len() / 512;
        let at = random.below(blocks) * 512;
        match random.below(9) {
            0 => bytes[at + random.below(512)] = random.below(256) as u8,
            1 => bytes[at + random.below(512)] ^= 1 << random.below(8),
            2 => bytes[at + 156] = b"01234567xgLKSVZ\0"[random.below(16)],
            3 => {
                let name =
                    [up, "../../../x", "/", ".", "..", "a/../..", ".wh.", ".wh..wh..opq", "e/.wh..", "d/new", "l/new"]
                        [random.below(11)];
                let field = if random.below(2) == 0 { 0 } else { 157 };
                bytes[at + field..at + field + 100].fill(0);
                let name = &name.as_bytes()[..name.len().min(100)];
                bytes[at + field..at + field + name.len()].copy_from_slice(name);
            }
            4 => {
                let size = [0u64, 1, 511, 512, 513, 0o77777777777][random.below(6)];
                bytes[at + 124..at + 135].copy_from_slice(format!("{size:011o}").as_bytes());
            }
            5 => {
                let from = random.below(blocks) * 512;
                bytes.copy_within(from..from + 512, at);
            }
            6 => bytes.truncate(at + random.below(512)),
            7 => bytes[at + 100 + random.below(48)] = b"\xff\x80 -7\0"[random.below(6)],
            _ => {
                let block = bytes[at..at + 512].to_vec();
                bytes.splice(at..at, block);
            }
        }
        if bytes.len() < 512 {
            break;
        }
        let at = at.min(bytes.len() / 512 * 512 - 512);
        if random.below(8) != 0 && bytes[at..at + 512].iter().any(|b| *b != 0) {
            let header: &mut [u8; 512] = (&mut bytes[at..at + 512]).try_into().unwrap();
            // Content too, where it is no header: that does not matter.
            checksum(header);
        }
    }
    bytes
}

fn damage(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes[at] = random.below(256) as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at.max(1)),
            _ => {
                let byte = bytes[at];
                bytes.insert(at, byte);
            }
        }
    }
    bytes
}

#[test]
fn no_mutant_touches_anything_outside_its_layer() {
    let scratch = Scratch::new("fuzz");
    let canary = scratch.path("canary");
    fs::create_dir_all(canary.join("dir")).unwrap();
    fs::write(canary.join("dir/file"), "untouched").unwrap();
    let up = canary.to_str().unwrap().to_owned();
    let before = snapshot(&canary);
    let mut limits = Limits::default();
    limits.layer_bytes = 64 << 20;
    let store = scratch.store().with_limits(limits);
    let archive = scratch.path("layer.tar");
    let seeds = seeds(&up);
    let first = number("SANDCELL_FUZZ_SEED", 0);
    let (mut accepted, mut refused) = (0, 0);
    for n in first..first + number("SANDCELL_FUZZ", 2000) {
        let mut random = Random(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let seed = &seeds[random.below(seeds.len())];
        let mutant = match random.below(8) {
            // What the decompressors see changed, not what is in it.
            0 => damage(gzip(seed), &mut random),
            1 => damage(zstd(seed), &mut random),
            _ => mutate(seed, &mut random, &up),
        };
        fs::write(&archive, mutant).unwrap();
        let name: Reference = "mutant:1".parse().unwrap();
        match store.load(&Source::RootFs(archive.clone()), &Load::new().name(name)) {
            Ok(_) => {
                accepted += 1;
                let kept = store.use_image("mutant:1").unwrap();
                for path in snapshot(&kept.layers[0]).keys() {
                    let meta = kept.layers[0].join(path).symlink_metadata().unwrap();
                    let kind = meta.file_type();
                    assert!(kind.is_symlink() || meta.mode() & 0o6000 == 0, "mutant {n}: {path:?}");
                    assert!(
                        !kind.is_block_device() && (!kind.is_char_device() || meta.rdev() == 0),
                        "mutant {n}: {path:?}"
                    );
                    assert!(!kind.is_dir() || meta.mode() & 0o700 == 0o700, "mutant {n}: {path:?}");
                }
                drop(kept);
                store.remove("mutant:1").unwrap();
            }
            Err(error) => {
                refused += 1;
                assert_eq!(error.kind(), "setup", "mutant {n}: {error}");
                assert!(!error.subject().is_empty(), "mutant {n}: the error names nothing: {error}");
            }
        }
        assert_eq!(snapshot(&canary), before, "mutant {n} changed something outside");
        assert_eq!(fs::read_dir(store.dir().join("layers")).unwrap().count(), 0, "mutant {n} left a layer");
    }
    let memory = peak_memory();
    assert!(memory < 64 << 20, "{memory} bytes of memory");
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused: the mutants show nothing");
    eprintln!("{accepted} accepted, {refused} refused, {} MiB of memory at most", memory >> 20);
}
