//! Carries out the Plan, step by step. The first step that fails ends it, and the library is told which.

use core::ffi::CStr;

use crate::mounts;
use crate::rawsys::{self, call, nr};
use crate::spawn;
use crate::wire::{Reader, Reply, Step, reply, stage};
use crate::{At, CONTROL, Fault, landlock, network, serve, socket, steering, system};

/// On failure: the index of the step and what in it failed.
pub fn carry_out(plan: &'static [u8], mounts: &[i32]) -> Result<(), (u32, Fault)> {
    let _ = rawsys::umask(0);
    let tree = mounts::tree();
    tree.give(mounts);
    let mut reader = Reader::new(plan);
    let mut index = 0;
    let mut traced = None;
    loop {
        let step = match Step::next(&mut reader) {
            Ok(Some(step)) => step,
            Ok(None) => break,
            Err(_) => return Err((index, Fault { stage: stage::PROTOCOL, errno: rawsys::EPROTO })),
        };
        match step {
            Step::Trace {} => traced = Some(crate::now()),
            // The library hears no more of steps after this.
            Step::Announce {} => traced = None,
            _ => {}
        }
        one(tree, step).map_err(|fault| (index, fault))?;
        if let Some(since) = &mut traced {
            let told = Reply { kind: reply::STEP, value: index, wall_ns: crate::now() - *since, ..Reply::default() };
            socket::send(CONTROL, &told, &[], -1).at(stage::PROTOCOL).map_err(|fault| (index, fault))?;
            *since = crate::now();
        }
        index += 1;
    }
    spawn::shed_capabilities().and_then(|()| spawn::enter_filter()).map_err(|fault| (index, fault))
}

fn one(tree: &mut mounts::Tree, step: Step<'static>) -> Result<(), Fault> {
    match step {
        Step::Trace {} => Ok(()),
        Step::PrivateMounts {} => mounts::private(),
        Step::OpenDir { slot, path } => tree.open_dir(slot, path),
        Step::OpenTree { slot, path } => tree.open_tree(slot, path),
        Step::TakeTree { slot, index, .. } => tree.take_tree(slot, index),
        Step::AttachTree { slot, path } => tree.attach_tree(slot, path),
        Step::OpenIn { slot, tree: from, path, make } => tree.open_in(slot, from, path, make != 0),
        Step::Become { uid, gid, groups, list } => r#become(uid, gid, (groups != 0).then_some(list)),
        Step::Base { size, inodes } => tree.base(size, inodes),
        Step::Dir { path, mode } => tree.dir(path, mode),
        Step::File { path, mode, content } => tree.file(path, mode, content),
        Step::Symlink { path, target } => tree.symlink(path, target),
        Step::RootBase { path } => tree.root_base(path),
        Step::RootTree { slot, attributes } => tree.root_tree(slot, attributes),
        Step::RootOverlay { lower, upper, work, writable, keep } => {
            tree.root_overlay(lower, upper, work, writable != 0, keep != 0)
        }
        Step::Overlay { slot, points, above, dest, attributes } => {
            tree.overlay(slot, points, above != 0, dest, attributes)
        }
        Step::Bind { slot, dest, attributes, make } => tree.bind(slot, dest, attributes, make),
        Step::Usable { dest, read, write } => usable(tree, dest, read != 0, write != 0),
        Step::BindBase { path, dest, attributes, make } => tree.bind_base(path, dest, attributes, make),
        Step::NewFs { kind, options, dest, attributes, make } => tree.new_fs(kind, options, dest, attributes, make),
        Step::Restrict { dest, attributes } => tree.restrict(dest, attributes),
        Step::Attributes { dest, attributes } => tree.attributes(dest, attributes),
        Step::Move { path, dest, make } => tree.move_to(path, dest, make),
        Step::RootAttributes { attributes } => tree.root_attributes(attributes),
        Step::Hostname { name } => hostname(name),
        Step::Network { loopback } => network::begin(loopback != 0),
        Step::Steering { script } => {
            steering::prepare(script);
            Ok(())
        }
        Step::NetworkEnter {} => network::enter(),
        Step::CgroupNamespace {} => cgroup_namespace(),
        Step::Pivot {} => tree.pivot(),
        Step::Keyring { shut } => keyring(shut != 0),
        Step::NestedNamespace { uid_map, gid_map } => nested(uid_map, gid_map),
        Step::Capabilities { keep } => spawn::bound_capabilities(keep),
        Step::Filter { program, flags } => {
            spawn::set_filter(program, flags);
            Ok(())
        }
        Step::FilterEnter {} => {
            spawn::share_filter();
            Ok(())
        }
        Step::Listener { program, flags, learn } => {
            spawn::set_listener(program, flags, learn != 0);
            Ok(())
        }
        Step::LandlockRules { files, network, scoped } => {
            tree.landlock = landlock::ruleset(files, network, scoped)?;
            Ok(())
        }
        Step::LandlockPath { path, access, file_rights } => landlock::allow(tree.landlock, path, access, file_rights),
        Step::LandlockMqueue { access } => {
            landlock::allow_opened(tree.landlock, core::mem::take(&mut tree.mqueue), access)
        }
        Step::Mqueue {} => tree.mqueue(),
        Step::CpuTime { limit, scale } => {
            serve::limit_cpu_time(limit, scale);
            Ok(())
        }
        Step::LandlockEach {} => {
            spawn::set_ruleset(tree.landlock);
            rawsys::set_child_subreaper().at(stage::SUBREAPER).map(drop)
        }
        Step::LandlockEnter {} => landlock::enter(tree.landlock),
        Step::System {} => {
            system::expect();
            Ok(())
        }
        Step::Announce {} => announce(tree),
    }
}

fn hostname(name: &CStr) -> Result<(), Fault> {
    rawsys::sethostname(name).at(stage::HOSTNAME).map(drop)
}

fn cgroup_namespace() -> Result<(), Fault> {
    rawsys::unshare(rawsys::CLONE_NEWCGROUP).at(stage::CGROUP_NAMESPACE).map(drop)
}

/// A keyring of its own. `shut`: something around the caller may refuse all of them.
fn keyring(shut: bool) -> Result<(), Fault> {
    match rawsys::join_session_keyring() {
        // A kernel without keyrings has none to leak.
        Ok(()) | Err(rawsys::ENOSYS) => Ok(()),
        Err(rawsys::EPERM) if shut => Ok(()),
        Err(errno) => Err(Fault { stage: stage::KEYRING, errno }),
    }
}

/// Tells the caller, who waits for it, that all is made. The socket stays open.
fn announce(tree: &mounts::Tree) -> Result<(), Fault> {
    let upper = if tree.upper > 0 { tree.upper } else { -1 };
    socket::send(CONTROL, &Reply { kind: reply::READY, ..Reply::default() }, &[], upper).at(stage::PROTOCOL)?;
    rawsys::close(upper);
    Ok(())
}

/// Asked of the kernel, which knows of groups and access lists; for the real ids, and so without capabilities.
fn usable(tree: &mounts::Tree, dest: &CStr, read: bool, write: bool) -> Result<(), Fault> {
    const R_OK: usize = 4;
    const W_OK: usize = 2;
    let fd = tree.beneath(dest, 0).at(stage::MOUNT_POINT)?;
    let mode = if read { R_OK } else { 0 } | if write { W_OK } else { 0 };
    let may = rawsys::faccessat2(fd, c"", mode, rawsys::AT_EMPTY_PATH);
    rawsys::close(fd);
    may.at(stage::USABLE)?;
    Ok(())
}

fn r#become(uid: u32, gid: u32, groups: Option<&[u8]>) -> Result<(), Fault> {
    if let Some(list) = groups {
        rawsys::setgroups(list).at(stage::BECOME_GROUPS)?;
    }
    rawsys::setresgid(gid).at(stage::BECOME_GID)?;
    // Where the caller's UID is root here, the capabilities with which everything is built would go with it.
    let keep = uid != 0;
    if keep {
        rawsys::set_securebits(rawsys::SECBIT_NO_SETUID_FIXUP).at(stage::BECOME_UID)?;
    }
    rawsys::setresuid(uid).at(stage::BECOME_UID)?;
    if keep {
        rawsys::set_securebits(0).at(stage::BECOME_UID)?;
    }
    Ok(())
}

/// Enters a nested user and mount namespace: whoever has capabilities there has none over the mounts made so far.
/// Its maps are written by a short-lived child that stays outside.
fn nested(uid_map: &[u8], gid_map: &[u8]) -> Result<(), Fault> {
    // SAFETY: numbers and NUL-terminated strings; the child is a copy of this single-threaded process and ends in
    // `rawsys::exit`.
    unsafe {
        // Our own files in /proc belong to us only while we are dumpable. There is no program yet that could use it.
        rawsys::set_dumpable(true).at(stage::NESTED)?;
        let mut pipe = [0i32; 2];
        rawsys::pipe2(&mut pipe, rawsys::O_CLOEXEC).at(stage::NESTED)?;
        let child = call!(nr::CLONE, rawsys::SIGCHLD, 0, 0, 0, 0).at(stage::NESTED)?;
        if child == 0 {
            rawsys::close(pipe[1]);
            let mut byte = 0u8;
            // The parent has entered when it closes its end.
            let entered = loop {
                match call!(nr::READ, pipe[0], &raw mut byte, 1) {
                    Err(rawsys::EINTR) => {}
                    other => break other,
                }
            };
            let result = entered
                .and_then(|_| write_map(c"/proc/1/uid_map", uid_map))
                .and_then(|()| write_map(c"/proc/1/gid_map", gid_map));
            rawsys::exit(result.err().unwrap_or(0));
        }
        rawsys::unshare(rawsys::CLONE_NEWUSER | rawsys::CLONE_NEWNS).at(stage::NESTED)?;
        rawsys::close(pipe[0]);
        rawsys::close(pipe[1]);
        let mut status = 0i32;
        call!(nr::WAIT4, child, &raw mut status, 0, 0).at(stage::NESTED_MAP)?;
        if status != 0 {
            return Err(Fault { stage: stage::NESTED_MAP, errno: (status >> 8) & 0xff });
        }
        rawsys::set_dumpable(false).at(stage::DUMPABLE)?;
    }
    Ok(())
}

fn write_map(path: &core::ffi::CStr, map: &[u8]) -> Result<(), i32> {
    let fd = rawsys::open(path, rawsys::O_WRONLY)?;
    rawsys::write(fd, map)?;
    Ok(())
}
