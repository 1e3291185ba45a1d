//! What C adds to a run: the installed library against Rust, in one process, one run of each in turn.
//!
//! `cargo bench -p sandcell-ffi`. The bar is 1.02.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::process::Command;
use std::ptr::null_mut;
use std::time::Instant;

const ROUNDS: usize = 2000;

type Run = unsafe extern "C" fn(*const c_void, *const *const c_char, *mut *mut c_void, *mut *mut c_void) -> c_int;

/// The shared library, as a C program has it.
struct Library(*mut c_void);

impl Library {
    fn open() -> Library {
        let prefix = std::env::temp_dir().join(format!("sandcell-bench-c-{}", std::process::id()));
        let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("install");
        assert!(Command::new(install).arg("--prefix").arg(&prefix).status().expect("ffi/install").success());
        let path = prefix.join("lib/libsandcell.so").into_os_string().into_encoded_bytes();
        let path = CString::new(path).expect("no NUL");
        // SAFETY: a path.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!library.is_null());
        let _ = std::fs::remove_dir_all(prefix);
        Library(library)
    }

    /// # Safety
    /// `T` is the type of that function.
    unsafe fn function<T>(&self, name: &CStr) -> T {
        // SAFETY: an open library and a name.
        let found = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!found.is_null(), "{name:?}");
        // SAFETY: a pointer to a function of this type, by this function's contract.
        unsafe { std::mem::transmute_copy(&found) }
    }
}

/// A program of two instructions: a libc would cost more than the sandbox.
fn static_true() -> CString {
    let dir = std::env::temp_dir().join(format!("sandcell-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let (source, program) = (dir.join("true.s"), dir.join("true"));
    std::fs::write(&source, ".globl _start\n_start: mov $60, %eax\nxor %edi, %edi\nsyscall\n").expect("a file");
    let status = Command::new("cc").args(["-nostdlib", "-static", "-o"]).arg(&program).arg(&source).status();
    assert!(status.expect("a C compiler").success());
    CString::new(program.into_os_string().into_encoded_bytes()).expect("no NUL")
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let program = static_true();
    let path = program.to_str().expect("UTF-8");
    let sandbox = sandcell::Sandbox::builder().ro(path, "/run/true").build().expect("a sandbox");
    let library = Library::open();
    // SAFETY: the types are those of sandcell.h; handles and texts are good.
    let (policy, run, free) = unsafe {
        let new: unsafe extern "C" fn() -> *mut c_void = library.function(c"sandcell_policy_new");
        let ro: unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char) -> c_int =
            library.function(c"sandcell_policy_add_ro");
        let run: Run = library.function(c"sandcell_run");
        let free: unsafe extern "C" fn(*mut c_void) = library.function(c"sandcell_result_free");
        let policy = new();
        assert_eq!(ro(policy, program.as_ptr(), c"/run/true".as_ptr()), 0);
        (policy, run, free)
    };
    let argv = [c"/run/true".as_ptr(), std::ptr::null()];
    let (mut rust, mut c) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for turn in 0..2 {
            let start = Instant::now();
            // Who comes first changes, so that neither always finds what the other has left in the caches.
            if (round + turn) % 2 == 0 {
                assert!(sandbox.command("/run/true").output().unwrap().outcome.success());
                rust.push(start.elapsed().as_secs_f64() * 1e6);
            } else {
                let (mut result, mut error) = (null_mut(), null_mut());
                // SAFETY: good handles, an argv with a NULL at its end, places for both answers.
                assert_eq!(unsafe { run(policy, argv.as_ptr(), &mut result, &mut error) }, 0);
                // SAFETY: the result of this run, freed once.
                unsafe { free(result) };
                c.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
    let (rust, c) = (median(&mut rust), median(&mut c));
    println!("Rust {rust:8.1} µs\nC    {c:8.1} µs = {:.3} × Rust", c / rust);
    let _ = std::fs::remove_dir_all(Path::new(path).parent().expect("a directory"));
}
