//! A program of two instructions: a libc would cost more than the sandbox.

use std::path::PathBuf;
use std::process::Command;

/// The program, in a directory of its own that goes with it.
pub struct Static(PathBuf);

impl Static {
    pub fn new() -> Static {
        let dir = std::env::temp_dir().join(format!("sandcell-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let (source, program) = (dir.join("true.s"), dir.join("true"));
        std::fs::write(&source, ".globl _start\n_start: mov $60, %eax\nxor %edi, %edi\nsyscall\n").expect("a file");
        let status = Command::new("cc").args(["-nostdlib", "-static", "-o"]).arg(&program).arg(&source).status();
        assert!(status.expect("a C compiler").success());
        Static(dir)
    }

    pub fn path(&self) -> String {
        self.0.join("true").to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Static {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
