//! Tells `sandcell-init`, which is built without cargo's help, where this crate's source is.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::metadata=source={}/src/lib.rs", env!("CARGO_MANIFEST_DIR"));
}
