//! The Landlock domain of the sandbox: landlock(7). The library computed the numbers; the paths are those inside.

use core::ffi::CStr;

use crate::rawsys::{self, call, nr};
use crate::wire::{At, Fault, stage};

/// A ruleset in the making.
pub fn ruleset(files: u64, network: u64, scoped: u64) -> Result<i32, Fault> {
    rawsys::landlock_create_ruleset(&[files, network, scoped]).at(stage::LANDLOCK_RULESET)
}

/// Allows `access` at and beneath a path. What is not there needs no permission.
pub fn allow(ruleset: i32, path: &CStr, access: u64, file_rights: u64) -> Result<(), Fault> {
    let open = |flags| rawsys::open(path, rawsys::O_PATH | flags);
    let (parent, access) = match open(rawsys::O_DIRECTORY) {
        Err(rawsys::ENOENT) => return Ok(()),
        Err(rawsys::ENOTDIR) => (open(0).at(stage::LANDLOCK_RULE)?, access & file_rights),
        other => (other.at(stage::LANDLOCK_RULE)?, access),
    };
    allow_opened(ruleset, parent, access)
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
    const CLOEXEC: usize = 1;
    let context = rawsys::fsopen(c"mqueue", CLOEXEC).at(stage::FS_OPEN)?;
    rawsys::fsconfig_create(context).at(stage::FS_OPTION)?;
    let mount = rawsys::fsmount(context, CLOEXEC, 0).at(stage::FS_MOUNT)?;
    rawsys::close(context);
    Ok(mount)
}

/// Init enters itself, and with it every program that it will start.
pub fn enter(ruleset: i32) -> Result<(), Fault> {
    restrict(ruleset).at(stage::LANDLOCK_ENTER)?;
    rawsys::close(ruleset);
    Ok(())
}

/// Restricts the calling process for good.
pub fn restrict(ruleset: i32) -> Result<(), i32> {
    rawsys::set_no_new_privs()?;
    rawsys::landlock_restrict_self(ruleset)
}
