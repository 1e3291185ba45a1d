/// ```
/// assert_eq!(ct::two(), 2);
/// ```
pub fn two() -> u32 { 2 }
#[test] fn unit() { assert_eq!(two(), 2); }
