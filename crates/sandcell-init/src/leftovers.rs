//! What is alive when a program has ended.

use crate::proc::{self, Stat};
use crate::text::Text;
use crate::wire::{Reply, reply};
use crate::{end, socket};

/// Leftovers beyond these are not listed.
const MOST: u32 = 64;

/// Names every process of the sandbox but us, or every one beneath a keeper.
pub fn list(socket: i32, beneath: Option<i32>) {
    let mut listed = 0;
    let looked = proc::each(|pid| {
        let ours = match beneath {
            _ if listed == MOST => false,
            Some(keeper) => proc::descends(pid, keeper as u32)?,
            None if end::is_first() => pid > 1,
            None => proc::descends(pid, end::own_pid())?,
        };
        if ours && let Some(stat) = Stat::of(pid)?.filter(Stat::is_alive) {
            listed += 1;
            name(socket, pid, &stat)?;
        }
        Ok(())
    });
    if looked.is_err() {
        // Never less than there is without a word.
        tell(socket, 0, b"[what is left cannot be listed]");
    }
}

fn name(socket: i32, pid: u32, stat: &Stat) -> Result<(), i32> {
    let mut line = [0u8; 256];
    let line = proc::read(pid, b"cmdline", &mut line)?;
    let mut text = Text::<300>::new();
    match line.iter().rposition(|&byte| byte != 0) {
        None => {
            text.push(b"[");
            text.push(stat.name());
            text.push(b"]");
        }
        Some(last) => {
            line[..last].iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
            text.push(&line[..=last]);
        }
    }
    tell(socket, pid, text.bytes());
    Ok(())
}

fn tell(socket: i32, pid: u32, text: &[u8]) {
    socket::tell(socket, &Reply { kind: reply::LEFTOVER, value: pid, ..Reply::default() }, text, -1);
}
