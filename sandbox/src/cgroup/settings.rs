//! What was asked for, in the kernel's words: which files of a cgroup get which values.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::hierarchy::{Controller, Host};
use crate::error::Result;
use crate::policy::options;
use crate::{Error, Failure, IoMax, Limits, Requested};

/// The kernel's default, and systemd's: long enough to be cheap, short enough not to be felt.
const CPU_PERIOD_MICROSECONDS: u64 = 100_000;

/// One limit as each version of cgroups spells it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting {
    /// The option's name.
    pub(super) item: &'static str,
    pub(super) requested: Requested,
    pub(super) controller: Controller,
    /// What to write on v2, or why v2 cannot.
    pub(super) v2: Result<Vec<Write>, Cannot>,
    /// The same for v1.
    pub(super) v1: Result<Vec<Write>, Cannot>,
    /// In what it is weaker on v1 than it sounds.
    pub(super) v1_weaker: Option<&'static str>,
}

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) file: &'static str,
    pub(super) value: String,
    /// A kernel without the file is as good: it is about swap, and the host has none.
    pub(super) optional: bool,
}

/// Why a limit cannot be had in some way, and what would help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cannot {
    pub(crate) why: String,
    pub(crate) remedy: String,
}

impl Cannot {
    pub(super) fn new(why: impl Into<String>, remedy: impl Into<String>) -> Cannot {
        Cannot { why: why.into(), remedy: remedy.into() }
    }
}

fn write(file: &'static str, value: impl ToString) -> Write {
    Write { file, value: value.to_string(), optional: false }
}

fn config(item: &str, message: impl Into<String>, hint: &str) -> Error {
    Failure::new("option", item, message).hint(hint).config()
}

/// Finds the mistakes in `limits` that can be seen without a cgroup: [`Error::Config`], before anything starts.
pub(crate) fn check(limits: &Limits) -> Result<()> {
    if *limits == Limits::default() {
        return Ok(());
    }
    compile(limits, &Host::read(Path::new("/"))).map(drop)
}

/// The settings for `limits`, in the order in which they are to be written.
pub(super) fn compile(limits: &Limits, host: &Host) -> Result<Vec<Setting>> {
    options::check_limits(limits)?;
    let mut settings = Vec::new();
    memory(limits, host, &mut settings)?;
    let mut add = |item, requested, controller, v2, v1, v1_weaker| {
        settings.push(Setting { item, requested, controller, v2, v1, v1_weaker });
    };
    if let Some(count) = limits.pids {
        // One more, because PID 1 of the sandbox is ours.
        let file = vec![write("pids.max", count + 1)];
        add("pids", Requested::Number(count), Controller::Pids, Ok(file.clone()), Ok(file), None);
    }
    if let Some(cpus) = limits.cpus {
        let quota = (cpus * CPU_PERIOD_MICROSECONDS as f64).round() as u64;
        let v2 = vec![write("cpu.max", format!("{quota} {CPU_PERIOD_MICROSECONDS}"))];
        let v1 = vec![write("cpu.cfs_period_us", CPU_PERIOD_MICROSECONDS), write("cpu.cfs_quota_us", quota)];
        add("cpus", Requested::Fraction(cpus), Controller::Cpu, Ok(v2), Ok(v1), None);
    }
    if let Some(weight) = limits.cpu_weight {
        // 100 here is 1024 there.
        let shares = (u64::from(weight) * 1024 / 100).max(2);
        let (v2, v1) = (vec![write("cpu.weight", weight)], vec![write("cpu.shares", shares)]);
        add("cpu_weight", Requested::Number(weight.into()), Controller::Cpu, Ok(v2), Ok(v1), None);
    }
    if let Some(list) = &limits.cpuset {
        existing_cpus(list, host)?;
        let file = vec![write("cpuset.cpus", list)];
        add("cpuset", Requested::Word(list.clone()), Controller::Cpuset, Ok(file.clone()), Ok(file), None);
    }
    if let Some(weight) = limits.io_weight {
        let (v2, v1) = io_weight(weight, host);
        add("io_weight", Requested::Number(weight.into()), Controller::Io, v2, v1, Some(V1_IO));
    }
    for limit in &limits.io_max {
        let (word, v2, v1) = io_max(limit, host)?;
        add("io_max", Requested::Word(word), Controller::Io, Ok(v2), Ok(v1), Some(V1_IO));
    }
    limits.cgroup.as_deref().map_or(Ok(()), is_group)?;
    Ok(settings)
}

/// The settings of memory and swap, the limit of memory first.
fn memory(limits: &Limits, host: &Host, settings: &mut Vec<Setting>) -> Result<()> {
    let mut add = |item, bytes, v2, v1| {
        let requested = Requested::Number(bytes);
        settings.push(Setting { item, requested, controller: Controller::Memory, v2: Ok(v2), v1, v1_weaker: None });
    };
    if let Some(bytes) = limits.memory {
        // Without this a program could keep on growing into swap.
        let swap = limits.swap.unwrap_or(0);
        let both = bytes.checked_add(swap).filter(|both| *both <= i64::MAX as u64);
        let both = both.ok_or_else(|| config("memory", "with swap this is more than 8 EiB", "ask for less"))?;
        let optional = limits.swap.is_none() && !host.uses_swap();
        let v2 = vec![
            write("memory.max", bytes),
            Write { file: "memory.swap.max", value: swap.to_string(), optional },
            write("memory.oom.group", 1),
        ];
        let v1 = vec![
            write("memory.limit_in_bytes", bytes),
            Write { file: "memory.memsw.limit_in_bytes", value: both.to_string(), optional },
        ];
        add("memory", bytes, v2, Ok(v1));
    }
    if let Some(bytes) = limits.memory_high {
        if limits.memory.is_some_and(|max| bytes > max) {
            let message = "above `memory`, so it can never be reached";
            return Err(config("memory_high", message, "ask for less than `memory`"));
        }
        let hint = "leave it out, or boot with systemd.unified_cgroup_hierarchy=1";
        let v1 = Cannot::new("cgroup v1 has no such limit", hint);
        add("memory_high", bytes, vec![write("memory.high", bytes)], Err(v1));
    }
    if let Some(bytes) = limits.swap {
        // With `memory` it has been written there: v1 counts the two together, and in that order.
        let written = limits.memory.is_some();
        let v2 = if written { vec![] } else { vec![write("memory.swap.max", bytes)] };
        let v1 = match written {
            true => Ok(vec![]),
            false => Err(Cannot::new("cgroup v1 limits swap only together with memory", "set a memory limit as well")),
        };
        add("swap", bytes, v2, v1);
    }
    Ok(())
}

const V1_IO: &str = "cgroup v1 does not count what is written through the page cache";

fn is_group(dir: &Path) -> Result<()> {
    if dir.join("cgroup.controllers").exists() {
        return Ok(());
    }
    let message = format!("{} is no cgroup v2 directory", dir.display());
    Err(config("cgroup", message, "name one below /sys/fs/cgroup"))
}

/// The numbers in a list such as `0-3,8`, ascending, each once. `None` where it is no such list.
pub(super) fn parse_cpus(list: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        // `parse` takes a plus sign, the kernel does not.
        let number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u32>().ok())?;
        let (first, last) = (number(first)?, number(last)?);
        // The kernel's largest possible number of CPUs; more would only fill memory here.
        if first > last || last >= 8192 {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

fn existing_cpus(list: &str, host: &Host) -> Result<()> {
    let asked = parse_cpus(list)
        .ok_or_else(|| config("cpuset", format!("`{list}` is no list of CPUs"), "give one such as 0-3,8"))?;
    let online = fs::read_to_string(host.root.join("sys/devices/system/cpu/online")).unwrap_or_default();
    // Where /sys is hidden the kernel will tell.
    let Some(there) = parse_cpus(&online) else { return Ok(()) };
    match asked.iter().find(|cpu| !there.contains(cpu)) {
        Some(cpu) => Err(config(
            "cpuset",
            format!("CPU {cpu} does not exist; this machine has {}", online.trim()),
            "name only CPUs that exist",
        )),
        None => Ok(()),
    }
}

type Writes = Result<Vec<Write>, Cannot>;

/// A weight without a scheduler that looks at it would be accepted by the kernel and do nothing.
fn io_weight(weight: u32, host: &Host) -> (Writes, Writes) {
    let cost = host.v2().and_then(|v2| fs::read_to_string(v2.mount.join("io.cost.qos")).ok());
    let disks = fs::read_dir(host.root.join("sys/block")).into_iter().flatten().flatten();
    let mut schedulers = disks.filter_map(|disk| fs::read_to_string(disk.path().join("queue/scheduler")).ok());
    let bfq = schedulers.any(|line| line.contains("[bfq]"));
    // BFQ knows 1 to 1,000 with the same default of 100; the same fold as systemd's.
    let folded = if weight <= 100 { weight } else { 100 + (weight - 100) * 900 / 9900 };
    let cannot = Cannot::new(
        "no disk of this host divides its time by weight",
        "`echo bfq > /sys/block/DISK/queue/scheduler`, or enable io.cost.qos for it",
    );
    let v2 = match cost.is_some_and(|lines| lines.contains("enable=1")) {
        true => Ok(vec![write("io.weight", weight)]),
        false if bfq => Ok(vec![write("io.bfq.weight", folded)]),
        false => Err(cannot.clone()),
    };
    let v1 = if bfq { Ok(vec![write("blkio.bfq.weight", folded)]) } else { Err(cannot) };
    (v2, v1)
}

fn io_max(limit: &IoMax, host: &Host) -> Result<(String, Vec<Write>, Vec<Write>)> {
    let device = device_number(&limit.device, host)?;
    let (mut v2, mut v1) = (device.clone(), Vec::new());
    for (value, key, file) in [
        (limit.read_bytes, "rbps", "blkio.throttle.read_bps_device"),
        (limit.write_bytes, "wbps", "blkio.throttle.write_bps_device"),
        (limit.read_ops, "riops", "blkio.throttle.read_iops_device"),
        (limit.write_ops, "wiops", "blkio.throttle.write_iops_device"),
    ] {
        let Some(value) = value else { continue };
        if value == 0 {
            return Err(config(
                "io_max",
                format!("{key} of 0 would stop {} for good", limit.device),
                "leave it out for no limit",
            ));
        }
        v2.push_str(&format!(" {key}={value}"));
        v1.push(write(file, format!("{device} {value}")));
    }
    if v1.is_empty() {
        return Err(config("io_max", format!("no figure for {}", limit.device), "give bytes or operations per second"));
    }
    Ok((v2.clone(), vec![write("io.max", v2)], v1))
}

/// `8:0` for `8:0` or `/dev/sda`.
fn device_number(device: &str, host: &Host) -> Result<String> {
    let digits = |part: &str| !part.is_empty() && part.len() < 10 && part.bytes().all(|b| b.is_ascii_digit());
    let number = match device.split_once(':') {
        Some((major, minor)) if digits(major) && digits(minor) => device.to_owned(),
        _ => {
            let hint = "give a disk such as /dev/sda, or its number such as 8:0 (see lsblk)";
            let found = fs::metadata(device)
                .map_err(|e| Failure::new("option", "io_max", device).cause(&e).hint(hint).config())?;
            if !found.file_type().is_block_device() {
                return Err(config("io_max", format!("{device} is no block device"), hint));
            }
            let number = found.rdev();
            format!("{}:{}", nix::sys::stat::major(number), nix::sys::stat::minor(number))
        }
    };
    let known = host.root.join("sys/dev/block");
    if known.is_dir() && !known.join(&number).exists() {
        return Err(config("io_max", format!("there is no block device {device}"), "see lsblk"));
    }
    // The kernel answers ENODEV to a partition.
    if known.join(&number).join("partition").exists() {
        return Err(config("io_max", format!("{device} is a partition"), "name the disk that it is on: see lsblk"));
    }
    Ok(number)
}
