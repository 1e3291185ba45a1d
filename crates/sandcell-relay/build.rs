//! Builds the relay as a program.

fn main() {
    sandcell_build::program("sandcell_relay", "relay");
}
