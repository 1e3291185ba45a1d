//! Texts for the kernel, put together without an allocator.

use core::ffi::CStr;

use crate::rawsys;

const ENAMETOOLONG: i32 = 36;

/// A text put together without an allocator; too long a text is noticed at its end.
pub struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
    full: bool,
}

impl<const N: usize> Text<N> {
    pub fn new() -> Text<N> {
        Text { bytes: [0; N], length: 0, full: false }
    }

    pub fn push(&mut self, text: &[u8]) {
        if self.length + text.len() > N {
            self.full = true;
            return;
        }
        self.bytes[self.length..self.length + text.len()].copy_from_slice(text);
        self.length += text.len();
    }

    pub fn push_number(&mut self, number: u64) {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        let mut rest = number;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Where the text starts, if all of it found room.
    pub fn checked(&self) -> Result<*const u8, i32> {
        if self.full { Err(ENAMETOOLONG) } else { Ok(self.bytes.as_ptr()) }
    }

    pub fn c_str(&self) -> Result<&CStr, i32> {
        self.checked()?;
        CStr::from_bytes_until_nul(self.bytes()).map_err(|_| rawsys::EINVAL)
    }
}
