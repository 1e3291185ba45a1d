//! What the processes of a group have used, read from its files.

use std::time::Duration;

use super::group::Group;
use super::hierarchy::{Controller, Version};
use crate::Usage;
use crate::policy::options::decimal;

/// What the kernel has counted for a sandbox; `None` where nothing counted it. Our init is not in `pids_peak`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct GroupUsage {
    pub(crate) user: Option<Duration>,
    pub(crate) system: Option<Duration>,
    pub(crate) memory_peak_bytes: Option<u64>,
    pub(crate) pids_peak: Option<u64>,
    pub(crate) io_read_bytes: Option<u64>,
    pub(crate) io_write_bytes: Option<u64>,
    pub(crate) throttled: Option<Duration>,
    pub(crate) oom_kills: Option<u64>,
    pub(crate) pids_refused: Option<u64>,
    pub(crate) memory_pressure: Option<f32>,
    pub(crate) cpu_pressure: Option<f32>,
    pub(crate) io_pressure: Option<f32>,
}

impl GroupUsage {
    /// Puts the figures into a report; what was not counted here keeps its value.
    pub(crate) fn fill(&self, usage: &mut Usage) {
        usage.user = self.user.or(usage.user);
        usage.system = self.system.or(usage.system);
        usage.memory_peak_bytes = self.memory_peak_bytes.or(usage.memory_peak_bytes);
        usage.pids_peak = self.pids_peak;
        usage.io_read_bytes = self.io_read_bytes;
        usage.io_write_bytes = self.io_write_bytes;
        usage.throttled = self.throttled;
        usage.oom_kills = self.oom_kills;
        usage.pids_refused = self.pids_refused;
        usage.memory_pressure = self.memory_pressure;
        usage.cpu_pressure = self.cpu_pressure;
        usage.io_pressure = self.io_pressure;
    }
}

/// How the control files of one group are read.
pub(super) type Files<'a> = &'a dyn Fn(&str) -> Option<String>;

/// All that `read_one` may look at.
pub(super) const FIGURES: [&str; 15] = [
    "memory.peak",
    "memory.max_usage_in_bytes",
    "memory.events",
    "memory.oom_control",
    "pids.peak",
    "pids.events",
    "cpu.stat",
    "io.stat",
    "memory.pressure",
    "cpu.pressure",
    "io.pressure",
    "cpuacct.usage_user",
    "cpuacct.usage_sys",
    "blkio.throttle.io_service_bytes",
    "cgroup.events",
];

/// Reads all that the groups of one sandbox have to tell.
pub(super) fn read(groups: &[Group]) -> GroupUsage {
    let mut usage = GroupUsage::default();
    for group in groups {
        read_one(group.version, &group.controllers, &|name| group.read(name).ok(), &mut usage);
    }
    usage
}

/// Reads what one group has to tell.
pub(super) fn read_one(version: Version, controllers: &[Controller], file: Files<'_>, usage: &mut GroupUsage) {
    let has = |controller| controllers.contains(&controller);
    if has(Controller::Memory) {
        let peak = if version == Version::V2 { "memory.peak" } else { "memory.max_usage_in_bytes" };
        usage.memory_peak_bytes = file(peak).and_then(|text| number(&text));
        usage.oom_kills = oom_kills_in(version, file);
    }
    if has(Controller::Pids) {
        usage.pids_peak = file("pids.peak").and_then(|text| number(&text)).map(|peak| peak.saturating_sub(1));
        usage.pids_refused = file("pids.events").and_then(|text| field(&text, "max"));
    }
    match version {
        Version::V2 => read_v2(controllers, file, usage),
        Version::V1 => read_v1(controllers, file, usage),
    }
}

fn read_v2(controllers: &[Controller], file: Files<'_>, usage: &mut GroupUsage) {
    if let Some(text) = file("cpu.stat") {
        let microseconds = |key| field(&text, key).map(Duration::from_micros);
        usage.user = microseconds("user_usec");
        usage.system = microseconds("system_usec");
        usage.throttled = microseconds("throttled_usec").or(usage.throttled);
    }
    if controllers.contains(&Controller::Io) {
        let text = file("io.stat");
        usage.io_read_bytes = text.as_deref().map(|text| io_sum(text, "rbytes"));
        usage.io_write_bytes = text.as_deref().map(|text| io_sum(text, "wbytes"));
    }
    let some = |name| file(name).and_then(|text| pressure(&text));
    usage.memory_pressure = some("memory.pressure");
    usage.cpu_pressure = some("cpu.pressure");
    usage.io_pressure = some("io.pressure");
}

fn read_v1(controllers: &[Controller], file: Files<'_>, usage: &mut GroupUsage) {
    let has = |controller| controllers.contains(&controller);
    if has(Controller::Cpuacct) {
        let nanoseconds = |name| file(name).and_then(|text| number(&text)).map(Duration::from_nanos);
        usage.user = nanoseconds("cpuacct.usage_user").or(usage.user);
        usage.system = nanoseconds("cpuacct.usage_sys").or(usage.system);
    }
    if has(Controller::Cpu) {
        usage.throttled = file("cpu.stat").and_then(|text| field(&text, "throttled_time")).map(Duration::from_nanos);
    }
    if has(Controller::Io) {
        let text = file("blkio.throttle.io_service_bytes");
        usage.io_read_bytes = text.as_deref().map(|text| blkio_sum(text, "Read"));
        usage.io_write_bytes = text.as_deref().map(|text| blkio_sum(text, "Write"));
    }
}

/// How many processes of the group, at any depth, were killed for memory. v1 counts since Linux 4.13.
pub(super) fn oom_kills(group: &Group) -> Option<u64> {
    oom_kills_in(group.version, &|name| group.read(name).ok())
}

fn oom_kills_in(version: Version, file: Files<'_>) -> Option<u64> {
    let name = if version == Version::V2 { "memory.events" } else { "memory.oom_control" };
    field(&file(name)?, "oom_kill")
}

/// What is in use now: memory in bytes, processes and threads.
pub(super) fn current(groups: &[Group]) -> (Option<u64>, Option<u64>) {
    let of = |controller, v2, v1| {
        let group = groups.iter().find(|group| group.controllers.contains(&controller))?;
        number(&group.read(if group.version == Version::V2 { v2 } else { v1 }).ok()?)
    };
    let memory = of(Controller::Memory, "memory.current", "memory.usage_in_bytes");
    (memory, of(Controller::Pids, "pids.current", "pids.current"))
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number in the line `key number`.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| number(line.strip_prefix(key)?.strip_prefix(' ')?))
}

/// io.stat has lines such as `8:0 rbytes=4096 wbytes=0 rios=1 …`, one a device.
fn io_sum(text: &str, key: &str) -> u64 {
    text.split_whitespace().filter_map(|word| number(word.strip_prefix(key)?.strip_prefix('=')?)).sum()
}

/// blkio has lines such as `8:0 Read 4096`, and a total without a device.
fn blkio_sum(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [_, kind, bytes] if kind == key => number(bytes),
            _ => None,
        })
        .sum()
}

/// `some avg10=1.23 avg60=…`: the share of the last 10 s in which some process had to wait.
fn pressure(text: &str) -> Option<f32> {
    text.lines()
        .find_map(|line| decimal(line.strip_prefix("some avg10=")?.split(' ').next()?))
        .map(|share| share as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let events = "low 0\nhigh 0\nmax 7\noom 1\noom_kill 3\noom_group_kill 1\n";
        assert_eq!(field(events, "oom_kill"), Some(3));
        assert_eq!(field(events, "oom"), Some(1));
        assert_eq!(field(events, "oom_"), None);
        assert_eq!(field("max nonsense", "max"), None);
    }

    #[test]
    fn block_traffic_is_summed_over_the_devices() {
        let stat = "8:0 rbytes=4096 wbytes=1 rios=1 wios=0 dbytes=9 dios=0\n254:0 rbytes=1000 wbytes=2\n";
        assert_eq!((io_sum(stat, "rbytes"), io_sum(stat, "wbytes")), (5096, 3));
        let v1 = "8:0 Read 4096\n8:0 Write 1\n8:0 Total 4097\n254:0 Read 4\nTotal 4101\n";
        assert_eq!((blkio_sum(v1, "Read"), blkio_sum(v1, "Write")), (4100, 1));
        assert_eq!((io_sum("", "rbytes"), blkio_sum("Total 0\n", "Read")), (0, 0));
    }

    #[test]
    fn pressure_is_the_share_of_the_last_ten_seconds() {
        assert_eq!(pressure("some avg10=12.50 avg60=1.00 avg300=0 total=1\nfull avg10=1.00\n"), Some(12.5));
        assert_eq!(pressure(""), None);
    }
}
