//! A library whose tests misbehave, the one in its documentation too.

/// ```
/// assert_eq!(misbehaving::two(), 2);
/// assert!(std::fs::write("left-by-a-test", "").is_err());
/// ```
pub fn two() -> u32 {
    2
}
