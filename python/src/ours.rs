//! What only the process that made it may end.

use std::ops::{Deref, DerefMut};

/// A value that is dropped only in the process that made it. A forked Python (multiprocessing) has a copy of every
/// object, and tidies up: that must not end the programs of its parent.
pub struct Ours<T> {
    /// Nothing only while it is dropped.
    value: Option<T>,
    maker: u32,
}

impl<T> Ours<T> {
    pub fn new(value: T) -> Ours<T> {
        Ours { value: Some(value), maker: std::process::id() }
    }
}

impl<T> Deref for Ours<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("there until it is dropped")
    }
}

impl<T> DerefMut for Ours<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("there until it is dropped")
    }
}

impl<T> Drop for Ours<T> {
    fn drop(&mut self) {
        if self.maker != std::process::id() {
            std::mem::forget(self.value.take());
        }
    }
}
