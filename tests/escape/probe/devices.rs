//! Device nodes: a handful of harmless ones, and no way to others.

use crate::check::{Check, Facts, Held, NotApplicable, Open, Verdict, p1, p2};
use crate::sys::openable;
use std::fs;
use std::os::unix::fs::FileTypeExt;

pub const CHECKS: &[Check] = &[
    p1("dev.nodes", "nodes nobody asked for", "a device beyond the harmless ones", nodes),
    p1("dev.block", "disk read past the file system", "opens any block device", block),
    p1("dev.kmsg", "kernel log", "/dev/kmsg", |_| device("kmsg")),
    p1("dev.mem", "physical memory", "/dev/mem", |_| device("mem")),
    p1("dev.port", "port I/O", "/dev/port", |_| device("port")),
    p1("dev.kvm", "CVE-2021-22543 class", "/dev/kvm", |_| device("kvm")),
    p1("dev.fuse", "file systems answered by the program", "/dev/fuse", |_| device("fuse")),
    p1("dev.vsock", "the hypervisor's side", "/dev/vsock", |_| device("vsock")),
    p1("dev.vhost_vsock", "CVE-2019-14835 class", "/dev/vhost-vsock", |_| device("vhost-vsock")),
    p1("dev.vhost_net", "CVE-2019-14835", "/dev/vhost-net", |_| device("vhost-net")),
    p1("dev.tun", "packets forged", "/dev/net/tun", |_| device("net/tun")),
    p1("dev.loop_control", "host files as disks", "/dev/loop-control", |_| device("loop-control")),
    p1("dev.loop0", "host files as disks", "/dev/loop0", |_| device("loop0")),
    p1("dev.mapper", "disks", "/dev/mapper/control", |_| device("mapper/control")),
    p1("dev.uinput", "key presses for the host", "/dev/uinput", |_| device("uinput")),
    p1("dev.tty0", "the console", "/dev/tty0", |_| device("tty0")),
    p2("dev.hwrng", "hardware of the host", "/dev/hwrng", |_| device("hwrng")),
    p2("dev.cpu_latency", "power management", "/dev/cpu_dma_latency", |_| device("cpu_dma_latency")),
    p2("dev.btrfs", "file systems of the host", "/dev/btrfs-control", |_| device("btrfs-control")),
    p2("dev.autofs", "mounts of the host", "/dev/autofs", |_| device("autofs")),
    p2("dev.snapshot", "hibernation image", "/dev/snapshot", |_| device("snapshot")),
    p2("dev.nvram", "hardware of the host", "/dev/nvram", |_| device("nvram")),
];

fn device(name: &str) -> Verdict {
    let path = format!("/dev/{name}");
    match openable(&path, libc::O_RDWR) {
        // Write-only and read-only nodes: some drivers refuse one of them.
        Held(_) => openable(&path, libc::O_RDONLY),
        open => open,
    }
}

fn nodes(_: &Facts) -> Verdict {
    const HARMLESS: [&str; 14] = [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "console", "fd", "stdin", "stdout",
        "stderr", "shm",
    ];
    let entries = match fs::read_dir("/dev") {
        Ok(entries) => entries,
        Err(e) => return Held(format!("/dev: {e}")),
    };
    let others: Vec<String> = entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_char_device() || t.is_block_device()))
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|name| !HARMLESS.contains(&name.as_str()))
        .collect();
    match others.len() {
        0 => Held("only the harmless ones".into()),
        count => Open(format!("{count} others, {}", others[..count.min(4)].join(" "))),
    }
}

fn block(facts: &Facts) -> Verdict {
    let mut seen = 0;
    for entry in fs::read_dir("/dev").into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_block_device()) {
            seen += 1;
            if let open @ Open(_) = openable(&entry.path().to_string_lossy(), libc::O_RDONLY) {
                return open;
            }
        }
    }
    if facts.control() && seen == 0 {
        return NotApplicable("this host has no block devices".into());
    }
    Held(format!("{seen} to be seen, none to be opened"))
}
