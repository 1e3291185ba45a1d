//! Who a sandbox is on the host: leased ids, and the user namespaces that map them. See `docs/identity.md`.

mod namespace;
mod ranges;
mod sys;
#[cfg(test)]
mod tests;
