//! What people write by hand, with a few bytes changed: understood or refused with words, never a crash.
//!
//! `SANDCELL_FUZZ=100000` sets how many rounds, `SANDCELL_FUZZ_SEED` where to begin.

#![cfg(feature = "cli")]

#[path = "targets.rs"]
mod targets;

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }

    /// Bytes and words changed, doubled, taken away, exchanged with those of other seeds.
    fn mutate(&mut self, seeds: &[&[u8]]) -> Vec<u8> {
        const WORDS: [&[u8]; 16] = [
            b"0",
            b"-1",
            b"18446744073709551615",
            b"18446744073709551616",
            b"4294967296",
            b"1e999",
            b"..",
            b"/",
            b":",
            b"=",
            b"\0",
            b"\xff",
            b"\n",
            b"\"",
            b"null",
            b"[[[[[[[[",
        ];
        let mut bytes = seeds[self.below(seeds.len())].to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let end = (at + self.below(12)).min(bytes.len());
            match self.below(5) {
                0 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                3 => drop(bytes.splice(at..end, WORDS[self.below(WORDS.len())].iter().copied())),
                _ => {
                    let other = seeds[self.below(seeds.len())];
                    let from = self.below(other.len() + 1);
                    let to = (from + self.below(40)).min(other.len());
                    bytes.splice(at..at, other[from..to].iter().copied());
                }
            }
        }
        bytes
    }
}

fn rounds(default: usize) -> (usize, Random) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    (number("SANDCELL_FUZZ").unwrap_or(default as u64) as usize, Random(number("SANDCELL_FUZZ_SEED").unwrap_or(1)))
}

#[test]
fn a_changed_profile_is_read_or_refused_with_words() {
    const SMALL: &str = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,
        "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]}],
        "syscalls":[{"names":["read","clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,
        "valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}],"includes":{"caps":["CAP_SYS_ADMIN"],"minKernel":"4.8"},
        "excludes":{"arches":["s390"]},"comment":"x","errnoRet":1}]}"#;
    let moby = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/moby-default-seccomp.json")).unwrap();
    let (count, mut random) = rounds(1500);
    let mut read = 0;
    for round in 0..count {
        // The long one now and then: it takes a hundred times as long.
        let bytes = if round % 50 == 0 { random.mutate(&[&moby]) } else { random.mutate(&[SMALL.as_bytes()]) };
        read += usize::from(targets::profile(&bytes));
    }
    assert!(read > count / 20 && read < count, "{read} of {count}");
}

#[test]
fn changed_values_of_options_are_understood_or_refused_with_words() {
    let seeds: [&[u8]; 14] = [
        b"64M",
        b"1.5G",
        b"1h30m",
        b"500ms",
        b"/a:/b:ro",
        b"/a b:/c",
        b"1000:1000",
        b"random",
        b"nofile=100:200",
        b"cpu=unlimited",
        b"/tmp:size=1M",
        b"CAP_NET_ADMIN",
        b"net_admin",
        b"4096",
    ];
    let (count, mut random) = rounds(20_000);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..count {
        let (understood, refused) = targets::values(&random.mutate(&seeds));
        (good, bad) = (good + understood, bad + refused);
    }
    assert!(good > count / 10 && bad > count, "{good} good, {bad} bad");
}

#[test]
fn changed_paths_of_mounts_are_used_or_refused_and_never_lead_up() {
    let seeds: [&[u8]; 6] = [b"/data", b"/a/./b//c", b"/usr/../etc", b"relative", b"/", b"/a:b,c=d\\e"];
    let (count, mut random) = rounds(3000);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..count {
        let used = targets::mounts(&random.mutate(&seeds));
        (good, bad) = (good + usize::from(used), bad + usize::from(!used));
    }
    assert!(good > count / 20 && bad > count / 20, "{good} good, {bad} bad");
}
