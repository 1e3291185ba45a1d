use std::path::PathBuf;
use std::time::Duration;

use super::hosts::FakeHost;
use crate::cgroup::settings::{Cannot, Write, compile, parse_cpus};
use crate::{IoMax, Limits};

/// Compiles on a host with CPUs 0 to 3, a disk 8:0 and a partition 8:1 of it.
fn ask(change: impl Fn(&mut Limits)) -> crate::Result<Vec<(&'static str, String, String)>> {
    let mut limits = Limits::default();
    change(&mut limits);
    let host = FakeHost::new("requests")
        .file("sys/devices/system/cpu/online", "0-3\n")
        .dir("sys/dev/block/8:0")
        .file("sys/dev/block/8:1/partition", "1");
    let words = |writes: &Result<Vec<Write>, Cannot>| match writes {
        Ok(writes) => writes.iter().map(|w| format!("{}={}", w.file, w.value)).collect::<Vec<_>>().join(" "),
        Err(cannot) => format!("cannot: {}", cannot.why),
    };
    let settings = compile(&limits, &host.read())?;
    Ok(settings.iter().map(|s| (s.item, words(&s.v2), words(&s.v1))).collect())
}

#[track_caller]
fn refused(change: impl Fn(&mut Limits), item: &str, message: &str) {
    let error = ask(change).expect_err("should be refused");
    assert_eq!((error.kind(), error.subject()), ("config", item), "{error}");
    assert!(error.to_string().contains(message), "{error}");
    assert!(!error.hint().is_empty());
}

#[test]
fn a_memory_limit_shuts_swap_and_kills_the_whole_group() {
    let settings = ask(|l| l.memory = Some(64 << 20)).unwrap();
    assert_eq!(settings[0].1, "memory.max=67108864 memory.swap.max=0 memory.oom.group=1");
    assert_eq!(settings[0].2, "memory.limit_in_bytes=67108864 memory.memsw.limit_in_bytes=67108864");
}

#[test]
fn swap_comes_on_top_of_memory() {
    let settings = ask(|l| (l.memory, l.swap) = (Some(8192), Some(4096))).unwrap();
    assert_eq!(settings[0].1, "memory.max=8192 memory.swap.max=4096 memory.oom.group=1");
    assert_eq!(settings[0].2, "memory.limit_in_bytes=8192 memory.memsw.limit_in_bytes=12288");
    assert_eq!(settings[1].0, "swap");
}

#[test]
fn swap_alone_is_possible_on_v2_only() {
    let settings = ask(|l| l.swap = Some(4096)).unwrap();
    assert_eq!(settings[0].1, "memory.swap.max=4096");
    assert!(settings[0].2.starts_with("cannot: cgroup v1 limits swap only together with memory"));
}

#[test]
fn the_sandboxes_own_init_does_not_count() {
    assert_eq!(ask(|l| l.pids = Some(1)).unwrap()[0].1, "pids.max=2");
}

#[test]
fn cpus_become_a_share_of_a_tenth_of_a_second() {
    let settings = ask(|l| l.cpus = Some(0.5)).unwrap();
    assert_eq!(settings[0].1, "cpu.max=50000 100000");
    assert_eq!(settings[0].2, "cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000");
    assert_eq!(ask(|l| l.cpus = Some(0.01)).unwrap()[0].1, "cpu.max=1000 100000");
}

#[test]
fn weights_are_scaled_to_the_versions_own_units() {
    for (weight, shares) in [(1, 10), (100, 1024), (10_000, 102_400)] {
        assert_eq!(ask(|l| l.cpu_weight = Some(weight)).unwrap()[0].2, format!("cpu.shares={shares}"));
    }
}

#[test]
fn a_disk_is_limited_by_its_number() {
    let limit = IoMax { device: "8:0".into(), read_bytes: Some(1000), write_ops: Some(5), ..IoMax::default() };
    let settings = ask(|l| l.io_max = vec![limit.clone()]).unwrap();
    assert_eq!(settings[0].1, "io.max=8:0 rbps=1000 wiops=5");
    assert_eq!(settings[0].2, "blkio.throttle.read_bps_device=8:0 1000 blkio.throttle.write_iops_device=8:0 5");
}

#[test]
fn a_weight_that_no_disk_looks_at_is_not_pretended() {
    let settings = ask(|l| l.io_weight = Some(50)).unwrap();
    assert!(settings[0].1.starts_with("cannot: no disk"), "{settings:?}");
    assert!(settings[0].2.starts_with("cannot: no disk"), "{settings:?}");
}

#[test]
fn zero_is_refused() {
    refused(|l| l.memory = Some(0), "memory", "a limit of 0 lets nothing run");
    refused(|l| l.memory_high = Some(0), "memory_high", "a limit of 0");
    refused(|l| l.pids = Some(0), "pids", "a limit of 0");
    refused(|l| l.cpus = Some(0.0), "cpus", "a limit of 0");
    refused(|l| l.cpu_weight = Some(0), "cpu_weight", "0 is less than the smallest possible, 1");
    refused(|l| l.io_weight = Some(0), "io_weight", "smallest possible, 1");
    refused(|l| l.cpu_time = Some(Duration::ZERO), "cpu_time", "a limit of 0");
    refused(
        |l| l.io_max = vec![IoMax { device: "8:0".into(), read_bytes: Some(0), ..IoMax::default() }],
        "io_max",
        "rbps of 0",
    );
}

#[test]
fn what_overflows_is_refused() {
    refused(|l| l.memory = Some(u64::MAX), "memory", "more than the largest possible");
    refused(|l| (l.memory, l.swap) = (Some(1 << 62), Some(1 << 62)), "memory", "with swap");
    refused(|l| l.swap = Some(u64::MAX), "swap", "more than the largest possible");
    refused(|l| l.pids = Some(u64::MAX), "pids", "more than the largest possible, 4194303");
    refused(|l| l.cpu_weight = Some(10_001), "cpu_weight", "more than the largest possible, 10000");
    for cpus in [f64::NAN, f64::INFINITY] {
        refused(|l| l.cpus = Some(cpus), "cpus", "is not a number");
    }
    refused(|l| l.cpus = Some(1e300), "cpus", "more than the largest possible");
    for cpus in [-1.0, f64::NEG_INFINITY] {
        assert_eq!(ask(|l| l.cpus = Some(cpus)).unwrap_err().subject(), "cpus");
    }
}

#[test]
fn less_than_a_page_of_memory_is_refused() {
    refused(|l| l.memory = Some(4095), "memory", "4095 is less than the smallest possible, 4K");
    assert!(ask(|l| l.memory = Some(4096)).is_ok());
}

#[test]
fn a_slowdown_above_the_limit_is_refused() {
    refused(|l| (l.memory, l.memory_high) = (Some(8192), Some(8193)), "memory_high", "never be reached");
    assert!(ask(|l| (l.memory, l.memory_high) = (Some(8192), Some(8192))).is_ok());
}

#[test]
fn cpus_that_do_not_exist_are_named() {
    refused(|l| l.cpuset = Some("0-3,8".into()), "cpuset", "CPU 8 does not exist; this machine has 0-3");
    assert_eq!(ask(|l| l.cpuset = Some("0-1,3".into())).unwrap()[0].1, "cpuset.cpus=0-1,3");
}

#[test]
fn what_is_no_list_of_cpus_is_refused() {
    for list in ["", ",", "a", "1-", "-1", "2-1", "1--2", "+1", " 1, 2", "0-99999", "4294967296"] {
        refused(|l| l.cpuset = Some(list.into()), "cpuset", "no list of CPUs");
    }
    assert_eq!(parse_cpus("3,0-1,1\n"), Some(vec![0, 1, 3]));
}

#[test]
fn a_device_that_cannot_be_limited_is_named() {
    let device = |device: &str| IoMax { device: device.into(), read_bytes: Some(1), ..IoMax::default() };
    refused(|l| l.io_max = vec![device("8:7")], "io_max", "no block device 8:7");
    refused(|l| l.io_max = vec![device("8:1")], "io_max", "8:1 is a partition");
    refused(|l| l.io_max = vec![device("/dev/null")], "io_max", "/dev/null is no block device");
    refused(|l| l.io_max = vec![device("/nonexistent")], "io_max", "/nonexistent");
    refused(|l| l.io_max = vec![IoMax { device: "8:0".into(), ..IoMax::default() }], "io_max", "no figure");
}

#[test]
fn a_path_that_is_no_cgroup_is_refused() {
    refused(|l| l.cgroup = Some(PathBuf::from("/tmp")), "cgroup", "/tmp is no cgroup v2 directory");
}
