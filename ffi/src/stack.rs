//! Threads with little stack: those of musl have 128 KiB, some callers give theirs 16, and coroutines bring their own.
//! What needs more than is left there is done by a thread that ends with the call.

use std::any::Any;
use std::cell::Cell;
use std::ops::Range;

/// More than any call takes: a start takes 47 KiB where nothing is optimized, 25 KiB otherwise.
const ENOUGH: usize = 256 << 10;

thread_local! {
    /// Where the stack of this thread is; empty where nothing tells.
    static BOUNDS: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
}

/// Whether the calling thread may have too little stack left.
#[inline(never)]
pub(crate) fn is_small() -> bool {
    let (low, high) = BOUNDS.get().unwrap_or_else(|| {
        let bounds = bounds().map_or((0, 0), |bounds| (bounds.start, bounds.end));
        BOUNDS.set(Some(bounds));
        bounds
    });
    let here = (&raw const low).addr();
    // On no stack that is known: that of a coroutine, or of a signal handler.
    let known = (low..high).contains(&here);
    high != 0 && (!known || here - low < ENOUGH)
}

/// Where the stack of this thread is, as pthread_getattr_np(3) says.
fn bounds() -> Option<Range<usize>> {
    // SAFETY: the attributes are filled by the first call, read by the second, and destroyed where they were filled.
    unsafe {
        let mut attributes = std::mem::zeroed::<libc::pthread_attr_t>();
        if libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) != 0 {
            return None;
        }
        let (mut low, mut size) = (std::ptr::null_mut(), 0);
        let told = libc::pthread_attr_getstack(&raw const attributes, &raw mut low, &raw mut size);
        libc::pthread_attr_destroy(&raw mut attributes);
        (told == 0).then(|| low.addr()..low.addr() + size)
    }
}

/// What may go to the other thread, because this one does nothing meanwhile.
struct Handed<'a>(&'a mut dyn FnMut());

// SAFETY: the thread that handed it over waits until the other one has ended.
unsafe impl Send for Handed<'_> {}

impl Handed<'_> {
    fn work(self) {
        (self.0)();
    }
}

/// Does the work in a thread of its own, and waits for it; what it panicked with. An error where there is no thread.
pub(crate) fn elsewhere(work: &mut dyn FnMut()) -> std::io::Result<Option<Box<dyn Any + Send>>> {
    let handed = Handed(work);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(2 << 20).spawn_scoped(scope, || handed.work())?;
        Ok(thread.join().err())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_stack_is_known_and_what_is_done_elsewhere_is_done_on_a_large_one() {
        let on = |size| std::thread::Builder::new().stack_size(size).spawn(is_small).unwrap().join().unwrap();
        assert!(on(64 << 10) && !on(1 << 20));
        let mut small = true;
        assert!(elsewhere(&mut || small = is_small()).unwrap().is_none());
        assert!(!small);
        assert!(elsewhere(&mut || panic!("told")).unwrap().is_some());
    }
}
