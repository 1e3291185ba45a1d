//! A library whose tests misbehave, those in its documentation too.

/// ```
/// assert_eq!(misbehaving::two(), 2);
/// assert!(std::fs::write("left-by-a-test", "").is_err());
/// ```
///
/// A /tmp of its own, and one process for each, as without a sandbox:
///
/// ```
/// std::fs::write("/tmp/left-by-a-doctest", "").unwrap();
/// std::process::exit(0);
/// ```
///
/// ```should_panic
/// assert_eq!(misbehaving::two(), 3);
/// ```
///
/// ```compile_fail
/// let two: String = misbehaving::two();
/// ```
pub fn two() -> u32 {
    2
}
