//! The grammar by itself: what is shown is read as the same value, and nothing else is taken than what is documented.

use std::time::Duration;

use super::grammar::{duration, duration_text, escaped, size, split, unescaped};
use super::*;

/// Numbers without end, the same in each run.
fn random() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(0x9e37_79b9_7f4a_7c15_u64), |state| {
        let mut next = *state;
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        Some(next)
    })
}

#[test]
fn sizes_are_digits_and_a_power_of_1024_in_either_case() {
    for (text, bytes) in [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("512k", 512 << 10),
        ("512K", 512 << 10),
        ("512KiB", 512 << 10),
        ("512kib", 512 << 10),
        ("64M", 64 << 20),
        ("2G", 2 << 30),
        ("3TiB", 3 << 40),
        ("18446744073709551615", u64::MAX),
    ] {
        assert_eq!(size(text), Ok(bytes), "{text}");
    }
    for text in
        ["", "K", "5iB", "5KB", "5kb", "5bK", "5 K", " 5", "5 ", "1.5G", "0x10", "1e3", "+5", "-5", "５", "16777216T"]
    {
        assert!(size(text).is_err(), "{text}");
    }
}

#[test]
fn durations_have_a_unit_and_are_exact() {
    for (text, nanos) in [
        ("0s", 0),
        ("500ms", 500_000_000),
        ("1.5s", 1_500_000_000),
        ("0.25ms", 250_000),
        ("0.000001ms", 1),
        ("5m", 300_000_000_000),
        ("1.5h", 5_400_000_000_000),
    ] {
        assert_eq!(duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
    }
    for text in [
        "",
        "5",
        "s",
        ".5s",
        "5.s",
        "5S",
        "5us",
        "5d",
        "1h30m",
        "-5s",
        "+5s",
        "5 s",
        "1.1234567s",
        "99999999999999999h",
    ] {
        assert!(duration(text).is_err(), "{text}");
    }
}

#[test]
fn a_value_is_shown_as_text_that_is_read_as_the_same_value() {
    for number in random().take(20_000) {
        let number = number >> (number % 64);
        for (kind, value) in [
            (Kind::Size, Value::Number(number)),
            (Kind::Size, Value::Number(number & !0xfffff)),
            (Kind::Count, Value::Number(number)),
            (Kind::SmallCount, Value::Number(number >> 32)),
            (Kind::Mode, Value::Number(number & 0o777)),
            (Kind::Fraction, Value::Fraction((number >> 40) as f64 / 100.0)),
            (Kind::Duration, Value::Duration(Duration::from_nanos(number))),
            (Kind::Duration, Value::Duration(Duration::from_millis(number))),
            (Kind::Flag, Value::Flag(number % 2 == 0)),
        ] {
            let text = kind.show(&value);
            assert_eq!(kind.read(Value::from(text.as_str())), Ok(value), "{text}");
        }
    }
    assert_eq!(duration_text(Duration::from_millis(1500)), "1500ms");
}

/// Any bytes at all: read or refused, and what is read is shown as text that is read as the same.
#[test]
fn any_text_is_read_or_refused_with_words() {
    const LETTERS: &[u8] = b"0123456789.-+ KMGTBibmsh:=,\\/xX\xff";
    let (mut taken, mut refused) = (0, 0);
    for seed in random().take(3000) {
        let length = (seed >> 56) % 9;
        let bytes: Vec<u8> =
            (0..length).map(|at| LETTERS[((seed >> (at * 6)) & 63) as usize % LETTERS.len()]).collect();
        let text: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(&bytes[..]);
        for spec in all() {
            match spec.read(text) {
                Ok(value) => {
                    taken += 1;
                    let shown = spec.kind.show(&value);
                    if let (Ok(again), true) = (spec.read(shown.as_str()), text.to_str().is_some()) {
                        assert_eq!(again, value, "{} {text:?}", spec.name);
                    }
                }
                Err(error) => {
                    refused += 1;
                    assert!(!error.hint().is_empty() && error.subject() == spec.name, "{error}");
                }
            }
        }
    }
    assert!(taken > 1000 && refused > 1000, "{taken} taken, {refused} refused");
}

#[test]
fn a_separator_in_a_path_has_a_backslash_and_other_backslashes_are_themselves() {
    for path in ["/plain", "/a:b", ":", "a:b:c", "/with\\slash", "\\x:", "::"] {
        let text = escaped(path.as_ref(), b':');
        assert_eq!(split(&text, b':'), (path.into(), None), "{path}");
        let mut both = text.clone();
        both.push(":/dest");
        assert_eq!(split(&both, b':'), (path.into(), Some("/dest".into())), "{path}");
    }
    assert_eq!(unescaped(br"a\:b\=c\d", b':'), r"a:b\=c\d");
}

#[test]
fn numbers_outside_of_their_range_are_refused_however_they_were_set() {
    for spec in all().filter(|spec| matches!(spec.kind, Kind::Size | Kind::Count | Kind::SmallCount | Kind::Mode)) {
        let (least, most) = spec.range;
        for beyond in [least.checked_sub(1), most.checked_add(1)].into_iter().flatten() {
            let error = spec.apply(Builder::default(), beyond).unwrap_err();
            assert_eq!(error.subject(), spec.name);
        }
        assert!(spec.apply(Builder::default(), least).is_ok(), "{}", spec.name);
    }
    let error = check(Builder::default().cpu_weight(0).policy()).unwrap_err();
    let text = find("cpu_weight").unwrap().read("0").unwrap_err();
    assert_eq!((error.to_string(), error.hint()), (text.to_string(), text.hint()));
}

#[test]
fn limits_that_cannot_change_any_more_are_refused() {
    let limits = |set: fn(&mut Limits)| {
        let mut limits = Limits::default();
        set(&mut limits);
        check_changeable(&limits)
    };
    assert!(limits(|limits| limits.memory = Some(1 << 26)).is_ok());
    for set in [
        |limits: &mut Limits| limits.disk = Some(1),
        |l: &mut Limits| l.cpu_time = Some(Duration::from_secs(1)),
        |l: &mut Limits| l.cgroup = Some("/x".into()),
    ] {
        assert!(limits(set).unwrap_err().hint().contains("memory"));
    }
}

#[test]
fn a_policy_prints_what_differs_and_no_secrets() {
    let builder =
        Builder::default().memory(64 << 20).env("TOKEN", "hunter2").file("/run/key", "hunter2").keep_env(true);
    let text = format!("{builder:?}");
    assert!(text.contains("memory: 64M") && text.contains("TOKEN") && text.contains("/run/key"), "{text}");
    assert!(!text.contains("hunter2") && !text.contains("104, 117") && text.len() < 200, "{text}");
    assert_eq!(format!("{:?}", Policy::default()), "Policy");
}
