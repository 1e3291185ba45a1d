//! Names the shared library for the linker: the number changes when programs must be built anew.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libsandcell.so.0");
}
