//! What the compiler expects of a libc and of a standard library, for the static programs.

use crate::arch;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    crate::exit(70)
}

// None of them may call what the compiler would make a call of the same function of: hence the instructions.

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: memcpy's contract.
    unsafe { arch::copy(to, from, count) };
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: memmove's contract; forwards, nothing is overwritten before it was read.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: memmove's contract; backwards from the last byte.
    unsafe { arch::copy_backwards(to, from, count) };
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    // SAFETY: memset's contract.
    unsafe { arch::fill(to, byte as u8, count) };
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    for at in 0..count {
        // SAFETY: memcmp's contract: both have `count` bytes.
        let (a, b) = unsafe { (*left.add(at), *right.add(at)) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(left, right, count) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: strlen's contract: every byte up to the zero may be read.
    while unsafe { *text.add(length) } != 0 {
        length += 1;
    }
    length
}
