//! Init as a program: its entry point. `build.rs` compiles it.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

use sandcell_init::main;

sandcell_raw::entry!(main);
