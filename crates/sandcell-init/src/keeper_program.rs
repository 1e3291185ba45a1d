//! The keeper of a named cell as a program: its entry point. `build.rs` compiles it.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

use sandcell_init::keep;

sandcell_raw::entry!(keep);
