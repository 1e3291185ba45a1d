//! Limits of a whole sandbox: cgroups, and what stands in for them.
