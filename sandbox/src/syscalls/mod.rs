//! Which system calls a program may make: profiles, and their translation to BPF.

/// A seccomp profile.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Profile {}
