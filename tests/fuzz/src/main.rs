//! One program for all targets: `sandcell-fuzz` reads in `SANDCELL_FUZZ_TARGET` which one it is to be.
#![no_main]

#[path = "../../../sandbox/tests/fuzz/targets.rs"]
mod targets;

mod network;

use libfuzzer_sys::fuzz_target;
use sandcell::fuzz;
use std::sync::OnceLock;

fn named(name: &str) -> fn(&[u8]) {
    match name {
        "plan" => fuzz::plan,
        "reply" => fuzz::reply,
        "subuid" => fuzz::subuid,
        "hostile_init" => fuzz::hostile_init,
        "hostile_parent" => fuzz::hostile_parent,
        "cell_log" => fuzz::cell_log,
        "cell_note" => fuzz::cell_note,
        "cell_outcome" => fuzz::cell_outcome,
        "relay" => fuzz::relay,
        "names" => network::names,
        "syn" => network::syn,
        "hello" => network::hello,
        "proxy" => network::proxy,
        "profile" => |bytes| _ = targets::profile(bytes),
        "values" => |bytes| _ = targets::values(bytes),
        "mounts" => |bytes| _ = targets::mounts(bytes),
        other => panic!("SANDCELL_FUZZ_TARGET={other}: there is no such target"),
    }
}

fuzz_target!(|bytes: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    TARGET.get_or_init(|| named(&std::env::var("SANDCELL_FUZZ_TARGET").unwrap_or_default()))(bytes);
});
