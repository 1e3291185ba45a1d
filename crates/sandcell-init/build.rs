//! Builds init, and the keeper of named cells, as programs.

fn main() {
    sandcell_build::programs("sandcell_init", &[("src/program.rs", "init"), ("src/keeper_program.rs", "keeper")]);
}
