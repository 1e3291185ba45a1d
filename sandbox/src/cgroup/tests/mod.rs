//! `requests`: what the caller may ask for. `hosts`: made-up hosts. `kernel`: the kernel that the tests run on.

mod hosts;
mod kernel;
mod requests;
