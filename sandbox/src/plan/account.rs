//! The program's account: its line in the sandbox's /etc/passwd and /etc/group, its name and its home.

use std::path::PathBuf;

use nix::unistd::Uid;

use crate::error::Result;
use crate::ids::{Assigned, name_of};
use crate::policy::User;
use crate::policy::files::RootFs;
use crate::resolve::{Resolved, read_beneath};

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
    pub(super) fn find(resolved: &Resolved, identity: &Assigned) -> Result<Account> {
        let (mut passwd, mut group) = match &resolved.files.root {
            RootFs::Host | RootFs::Empty => (
                "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
                    .to_owned(),
                "root:x:0:\nnogroup:x:65534:\n".to_owned(),
            ),
            RootFs::Dir(_) | RootFs::Layers(_) => {
                let topmost_first = resolved.files.topmost_first();
                (read_beneath(&topmost_first, "etc/passwd")?, read_beneath(&topmost_first, "etc/group")?)
            }
        };
        // An account that the image has for this UID is the image's business.
        if let Some((name, home)) = line_of(&passwd, identity.uid) {
            return Ok(Account { name, home, passwd, group, known: true });
        }
        let name = match resolved.user {
            User::Root => "root".to_owned(),
            User::Caller => caller_name(identity.uid)?,
            User::Random | User::Fixed { .. } => "cell".to_owned(),
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
