//! The program's account: its line in the sandbox's /etc/passwd and /etc/group, its name and its home.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::unistd::Uid;

use crate::error::{Failure, Result};
use crate::identity::{Assigned, name_of};
use crate::policy::{Policy, Root, User};

/// A layer's account files are read only up to this size: they are the image's word, not ours.
const MOST: u64 = 1 << 20;

/// Who the program is, in names.
#[derive(Debug)]
pub(super) struct Account {
    pub name: String,
    pub home: PathBuf,
    pub passwd: String,
    pub group: String,
    /// The account is the root file system's own, in its own files.
    pub known: bool,
}

impl Account {
    pub(super) fn find(policy: &Policy, identity: &Assigned) -> Result<Account> {
        let (mut passwd, mut group) = match &policy.root {
            Root::Host | Root::Empty => (
                "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
                    .to_owned(),
                "root:x:0:\nnogroup:x:65534:\n".to_owned(),
            ),
            Root::Dir(dir) => (read_beneath(&[dir], "etc/passwd")?, read_beneath(&[dir], "etc/group")?),
            #[cfg(feature = "image")]
            Root::Image(_) => unreachable!("`build` has made layers of it"),
            Root::Layers(layers) => {
                let upper = match &policy.upper {
                    Some(crate::policy::Upper::Dir(dir)) => Some(dir.join("upper")),
                    _ => None,
                };
                let topmost_first: Vec<&Path> =
                    upper.iter().map(PathBuf::as_path).chain(layers.iter().rev().map(PathBuf::as_path)).collect();
                (read_beneath(&topmost_first, "etc/passwd")?, read_beneath(&topmost_first, "etc/group")?)
            }
        };
        // An account that the image has for this UID is the image's business.
        if let Some((name, home)) = line_of(&passwd, identity.uid) {
            return Ok(Account { name, home, passwd, group, known: true });
        }
        let name = match policy.identity.user {
            User::Root => "root".to_owned(),
            User::Caller => caller_name(identity.uid)?,
            _ => "cell".to_owned(),
        };
        let home = PathBuf::from(if identity.uid == 0 { "/root".to_owned() } else { format!("/home/{name}") });
        passwd.push_str(&format!("{name}:x:{}:{}:{name}:{}:/bin/sh\n", identity.uid, identity.gid, home.display()));
        if !group.lines().any(|line| line.split(':').nth(2) == Some(&identity.gid.to_string())) {
            group.push_str(&format!("{name}:x:{}:\n", identity.gid));
        }
        Ok(Account { name, home, passwd, group, known: false })
    }
}

/// The caller's own name, unless it would not fit into a line of /etc/passwd or a path.
fn caller_name(uid: u32) -> Result<String> {
    let fits = |name: &String| !name.is_empty() && !name.contains([':', '/', '\n']);
    Ok(name_of(Uid::from_raw(uid))?.filter(fits).unwrap_or_else(|| "cell".to_owned()))
}

/// Name and home of a UID, where they are of use.
fn line_of(passwd: &str, uid: u32) -> Option<(String, PathBuf)> {
    passwd.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let [name, _, id, _, _, home, ..] = fields[..] else { return None };
        (id.parse() == Ok(uid) && home.starts_with('/')).then(|| (name.to_owned(), PathBuf::from(home)))
    })
}

/// A file of the topmost layer that has it. Links in it lead nowhere outside the layer, and a file that is none, or
/// is huge, is an error: CVE-2024-9676.
pub(crate) fn read_beneath(topmost_first: &[impl AsRef<Path>], path: &str) -> Result<String> {
    for layer in topmost_first {
        let dir =
            match nix::fcntl::open(layer.as_ref(), OFlag::O_PATH | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty()) {
                Ok(dir) => dir,
                Err(_) => continue,
            };
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let fail = |message: &str| {
            let subject = layer.as_ref().join(path).display().to_string();
            Failure::new("account", subject, message).hint("the account files of a root must be ordinary files")
        };
        // Again where something was renamed elsewhere in the system while the kernel walked a `..` of a link.
        let open = || openat2(&dir, path, how);
        let again = |opened: &nix::Result<_>| matches!(opened, Err(Errno::EAGAIN));
        let opened = std::iter::repeat_with(open).take(64).find(|opened| !again(opened)).unwrap_or(Err(Errno::EAGAIN));
        let file = match opened {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
            // A whiteout, which nobody can open: deleted in this layer.
            Err(Errno::ENXIO) => break,
            Err(errno) => return Err(fail("cannot be opened").errno(errno as i32).config()),
        };
        let meta = file.metadata().map_err(|e| fail("cannot be examined").cause(&e).config())?;
        if !meta.is_file() {
            return Err(fail("is not an ordinary file").config());
        }
        if meta.len() > MOST {
            return Err(fail("is larger than 1 MiB").config());
        }
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes).map_err(|e| fail("cannot be read").cause(&e).config())?;
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        return Ok(text);
    }
    Ok(String::new())
}
