//! What a run or a cell used.

use std::ffi::c_int;
use std::mem::offset_of;
use std::time::Duration;

use crate::error::SANDCELL_ERROR_CONFIG;
use crate::text::{Answer, BeginsWithSize};

/// A figure that nothing on this host counted. In a `double` the same bytes are a NaN.
pub const SANDCELL_UNKNOWN: u64 = u64::MAX;

/// What a run or a cell used. Set `size` to `sizeof` before you pass it: as many bytes are written, however many figures
/// the library knows.
#[derive(Debug)]
#[repr(C)]
pub struct Usage {
    /// sizeof(sandcell_usage_t)
    pub size: usize,
    /// Nanoseconds from the start of the program to its end.
    pub wall_ns: u64,
    /// CPU time in user mode, all processes, nanoseconds.
    pub user_ns: u64,
    /// CPU time in the kernel, all processes, nanoseconds.
    pub system_ns: u64,
    /// The most memory held at once: of the cgroup where there is one, otherwise of the largest process.
    pub memory_peak_bytes: u64,
    /// The most processes and threads at once (cgroup only).
    pub pids_peak: u64,
    /// Bytes written to standard output and error, where the library carried them.
    pub output_bytes: u64,
    /// Bytes read from block devices (cgroup only).
    pub io_read_bytes: u64,
    /// Bytes written to block devices (cgroup only).
    pub io_write_bytes: u64,
    /// Nanoseconds that processes had to wait because of the CPU limit (cgroup only).
    pub throttled_ns: u64,
    /// Processes killed for memory (cgroup only).
    pub oom_kills: u64,
    /// Forks and threads refused because of the pids limit (cgroup only).
    pub pids_refused: u64,
    /// Percent of the time in which some process waited for memory, the average over 10 s (cgroup v2 only).
    pub memory_pressure: f64,
    /// The same for the CPU.
    pub cpu_pressure: f64,
    /// The same for input and output.
    pub io_pressure: f64,
}

// SAFETY: as the trait asks.
unsafe impl BeginsWithSize for Usage {}

/// Writes the figures; those that this library does not know of are SANDCELL_UNKNOWN.
pub(crate) fn fill(usage: Option<&sandcell::Usage>, place: Answer<'_, Usage>) -> c_int {
    let Some(usage) = usage else {
        return SANDCELL_ERROR_CONFIG;
    };
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(SANDCELL_UNKNOWN - 1);
    let percent = |share: Option<f32>| share.map_or(f64::from_bits(SANDCELL_UNKNOWN), f64::from);
    let make = |size| Usage {
        size,
        wall_ns: nanoseconds(usage.wall),
        user_ns: usage.user.map_or(SANDCELL_UNKNOWN, nanoseconds),
        system_ns: usage.system.map_or(SANDCELL_UNKNOWN, nanoseconds),
        memory_peak_bytes: usage.memory_peak_bytes.unwrap_or(SANDCELL_UNKNOWN),
        pids_peak: usage.pids_peak.unwrap_or(SANDCELL_UNKNOWN),
        output_bytes: usage.output_bytes.unwrap_or(SANDCELL_UNKNOWN),
        io_read_bytes: usage.io_read_bytes.unwrap_or(SANDCELL_UNKNOWN),
        io_write_bytes: usage.io_write_bytes.unwrap_or(SANDCELL_UNKNOWN),
        throttled_ns: usage.throttled.map_or(SANDCELL_UNKNOWN, nanoseconds),
        oom_kills: usage.oom_kills.unwrap_or(SANDCELL_UNKNOWN),
        pids_refused: usage.pids_refused.unwrap_or(SANDCELL_UNKNOWN),
        memory_pressure: percent(usage.memory_pressure),
        cpu_pressure: percent(usage.cpu_pressure),
        io_pressure: percent(usage.io_pressure),
    };
    place.fill(offset_of!(Usage, user_ns), make)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_caller_gets_its_figures_and_a_newer_one_is_told_what_is_not_known() {
        let used = sandcell::Usage::default();
        let mut room = [7usize; size_of::<Usage>() / 8 + 2];
        for words in [2, 4, room.len() - 1] {
            room = [7; size_of::<Usage>() / 8 + 2];
            room[0] = words * 8;
            assert_eq!(fill(Some(&used), Answer::new(&mut room)), 0);
            assert_eq!((room[0], room[1], room[words]), (words * 8, 0, 7));
        }
        assert_eq!(room[room.len() - 2], usize::MAX);
        room[0] = 8;
        assert_eq!(fill(Some(&used), Answer::new(&mut room)), SANDCELL_ERROR_CONFIG);
    }
}
