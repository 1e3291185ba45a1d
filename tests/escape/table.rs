//! The comparison in `docs/security.md`.
