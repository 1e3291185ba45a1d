//! The Landlock domain of the sandbox: landlock(7). The library computed the numbers; the paths are those inside.

use core::ffi::CStr;

use crate::rawsys::{self, call, nr};
use crate::wire::{At, Fault, stage};

/// A ruleset in the making.
pub fn ruleset(files: u64, network: u64, scoped: u64) -> Result<i32, Fault> {
    let attributes = [files, network, scoped];
    // SAFETY: the layout of struct landlock_ruleset_attr; older kernels accept a tail of zeros.
    let fd = unsafe { call!(nr::LANDLOCK_CREATE_RULESET, attributes.as_ptr(), size_of_val(&attributes), 0) };
    Ok(fd.at(stage::LANDLOCK_RULESET)? as i32)
}

/// Allows `access` at and beneath a path. What is not there needs no permission.
pub fn allow(ruleset: i32, path: &CStr, access: u64, file_rights: u64) -> Result<(), Fault> {
    let open = |flags| {
        // SAFETY: NUL-terminated path.
        unsafe { call!(nr::OPENAT, rawsys::AT_FDCWD, path.as_ptr(), rawsys::O_PATH | rawsys::O_CLOEXEC | flags) }
    };
    let (parent, access) = match open(rawsys::O_DIRECTORY) {
        Err(rawsys::ENOENT) => return Ok(()),
        Err(rawsys::ENOTDIR) => (open(0).at(stage::LANDLOCK_RULE)?, access & file_rights),
        other => (other.at(stage::LANDLOCK_RULE)?, access),
    };
    allow_opened(ruleset, parent as i32, access)
}

/// Allows `access` at and beneath what a descriptor names, and closes it.
pub fn allow_opened(ruleset: i32, parent: i32, access: u64) -> Result<(), Fault> {
    const RULE_PATH_BENEATH: usize = 1;
    #[repr(C, packed)]
    struct Rule {
        access: u64,
        parent: i32,
    }
    let rule = Rule { access, parent };
    // SAFETY: the packed layout of struct landlock_path_beneath_attr.
    unsafe { call!(nr::LANDLOCK_ADD_RULE, ruleset, RULE_PATH_BENEATH, &raw const rule, 0) }.at(stage::LANDLOCK_RULE)?;
    rawsys::close(parent);
    Ok(())
}

/// A mount of the POSIX message queues of the IPC namespace.
pub fn open_mqueue() -> Result<i32, Fault> {
    const FSCONFIG_CMD_CREATE: usize = 6;
    const CLOEXEC: usize = 1;
    // SAFETY: NUL-terminated name, numbers, and a descriptor of our own.
    unsafe {
        let context = call!(nr::FSOPEN, c"mqueue".as_ptr(), CLOEXEC).at(stage::FS_OPEN)?;
        call!(nr::FSCONFIG, context, FSCONFIG_CMD_CREATE, 0, 0, 0).at(stage::FS_OPTION)?;
        let mount = call!(nr::FSMOUNT, context, CLOEXEC, 0).at(stage::FS_MOUNT)?;
        rawsys::close(context as i32);
        Ok(mount as i32)
    }
}

/// Init enters itself, and with it every program that it will start.
pub fn enter(ruleset: i32) -> Result<(), Fault> {
    restrict(ruleset).at(stage::LANDLOCK_ENTER)?;
    rawsys::close(ruleset);
    Ok(())
}

/// Restricts the calling process for good.
pub fn restrict(ruleset: i32) -> Result<(), i32> {
    // SAFETY: numbers only.
    unsafe {
        call!(nr::PRCTL, rawsys::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)?;
        call!(nr::LANDLOCK_RESTRICT_SELF, ruleset, 0)?;
    }
    Ok(())
}
