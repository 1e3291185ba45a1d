//! Tells `sandcell-init`, which is built without cargo's help, where this crate's source is.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(sandcell_init_program)");
    println!("cargo::metadata=source={}/src/lib.rs", env!("CARGO_MANIFEST_DIR"));
}
