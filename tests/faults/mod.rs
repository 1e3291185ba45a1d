//! Fault injection: every system call that the library and init make for a sandbox fails, one in each run.
//!
//! | room | what it does |
//! |---|---|
//! | `victim` | the program whose calls fail: builds a sandbox, runs the posture probe in it, tells what came of it |
//! | `tracer` | runs the victim under ptrace(2), lists its calls, lets one of them fail |
//! | `errnos` | how each call can fail |
//! | `judge` | what a run with a failure must show |
//! | `campaign` | all calls of one way of building a sandbox, one after another |
//! | `main` | by hand: the list of calls, one failure, the table in `docs/faults.md` |
//!
//! By hand: `cargo run -p sandcell-tests --bin faults -- list leased`, `… -- one leased init mount 1 EPERM`.

pub mod campaign;
pub mod errnos;
pub mod judge;
mod registers;
pub mod tracer;
