//! `RUN --mount`: what a program sees beside the image, and the image never has.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use serde_json::{Value, json};

use super::flags::{MountFlag, MountKind, secret_place};
use super::make::Making;
use super::run::BuildDir;
use super::words::{expand, split};
use super::{Secret, Step, files};
use crate::error::Result;
use crate::ids::IdPool;
use crate::images::reference::Digest;
use crate::images::store::failed;
use crate::policy::builder::Builder;
use crate::policy::{Identity, User};
use crate::resolve::image::clean;
use crate::subid_tree::Hands;
use crate::sys::beneath;

/// A longer secret is none.
const SECRET: u64 = 1 << 20;

impl Making<'_> {
    /// The mounts of a step in a sandbox, and what the step's result depends on because of them.
    pub(super) fn mounts(
        &mut self,
        step: &Step,
        (mounts, user): (&[MountFlag], User),
        place: &BuildDir,
        mut builder: Builder,
    ) -> Result<(Builder, Value)> {
        let mut key = Vec::new();
        for (number, flag) in mounts.iter().enumerate() {
            let flag = self.expanded(step, flag)?;
            let workdir = self.config["config"]["WorkingDir"].as_str().unwrap_or("/").to_owned();
            let target = clean(&Path::new("/").join(workdir), flag.target.as_deref().unwrap_or_default());
            key.push(json!(format!("{flag:?}")));
            match flag.kind {
                MountKind::Tmpfs => builder = builder.tmpfs(target, flag.size),
                MountKind::Cache if flag.from.is_some() => {
                    let failure =
                        self.failure(&step.text, step.line, "a cache that begins with files is not supported");
                    return Err(failure.hint("Copy them into it with RUN.").config());
                }
                MountKind::Cache => {
                    let id = flag.id.clone().unwrap_or_else(|| target.display().to_string());
                    let name = format!("build-cache-{}", &Digest::of(id.as_bytes()).hex()[..16]);
                    self.own_cache(&name, &flag)?;
                    builder = builder.volume(name, target, flag.writable != Some(false));
                }
                MountKind::Ssh => builder = self.ssh(step, &flag, number, builder)?,
                MountKind::Secret => {
                    self.secret_owner(step, &flag, user)?;
                    builder = self.secret(step, &flag, builder)?;
                }
                MountKind::Bind => {
                    let from = place.dir.join(format!("mount-{number}"));
                    let digest = self.copy_for_mount(step, &flag, &from)?;
                    key.push(json!(digest));
                    builder =
                        if flag.writable == Some(true) { builder.rw(from, target) } else { builder.ro(from, target) };
                }
            }
        }
        Ok((builder, Value::Array(key)))
    }

    /// With the values of variables.
    fn expanded(&self, step: &Step, flag: &MountFlag) -> Result<MountFlag> {
        let mut flag = flag.clone();
        for text in [&mut flag.target, &mut flag.source, &mut flag.from, &mut flag.id].into_iter().flatten() {
            let words = expand(text, &self.variables()).and_then(|text| split(&text));
            let words = words.map_err(|message| self.failure(&step.text, step.line, message).config())?;
            *text = words.concat();
        }
        Ok(flag)
    }

    /// A secret's file belongs to the step's user: who asks for another owner is told so.
    fn secret_owner(&self, step: &Step, flag: &MountFlag, user: User) -> Result<()> {
        // With only a variable there is no file.
        if flag.target.is_none() && flag.env.is_some() {
            return Ok(());
        }
        let (uid, gid) = match user {
            User::Root => (0, 0),
            User::Fixed { uid, gid } => (uid, gid),
            // No step has one of these.
            User::Random | User::Caller => return Ok(()),
        };
        for (key, asked, has) in [("uid", flag.uid, uid), ("gid", flag.gid, gid)] {
            if let Some(asked) = asked.filter(|asked| *asked != has) {
                let message =
                    format!("a secret with {key}={asked}: its file belongs to the step's user, with {key} {has}");
                let hint = format!(
                    "Leave {key}= out, write {key}={has}, or say with USER in front of this step who is to read it."
                );
                return Err(self.failure(&step.text, step.line, message).hint(hint).config());
            }
        }
        Ok(())
    }

    fn secret(&self, step: &Step, flag: &MountFlag, builder: Builder) -> Result<Builder> {
        let named = || Path::new(flag.target.as_deref()?).file_name()?.to_str().map(str::to_owned);
        let id = flag.id.clone().or_else(named).unwrap_or_default();
        let wrong = |message: &str| self.failure(&step.text, step.line, format!("the secret {id:?} {message}"));
        let content = match self.build.secrets.get(&id) {
            Some(Secret::Value(content)) => content.clone(),
            Some(Secret::File(path)) => beneath::read_named(path, SECRET)
                .map_err(|why| why.told(wrong(&format!("cannot be read from {}", path.display()))).config())?,
            None if flag.required => {
                return Err(wrong("is required and not given").hint("Give it: --secret id=NAME,src=FILE.").config());
            }
            None => return Ok(builder),
        };
        let mut builder = builder;
        if let Some(name) = &flag.env {
            use std::os::unix::ffi::OsStringExt;
            builder = builder.env(name, std::ffi::OsString::from_vec(content.clone()));
        }
        if let Some(target) = secret_place(flag, &id) {
            let workdir = self.config["config"]["WorkingDir"].as_str().unwrap_or("/");
            let target = clean(&Path::new("/").join(workdir), &target.to_string_lossy());
            builder = builder.file_mode(target, content, flag.mode.unwrap_or(0o400));
        }
        Ok(builder)
    }

    /// Gives a cache the owner and mode that the step asks for.
    fn own_cache(&self, name: &str, flag: &MountFlag) -> Result<()> {
        if (flag.mode, flag.uid, flag.gid) == (None, None, None) {
            return Ok(());
        }
        let (path, _lock) = self.store.use_volume(name)?;
        let identity = Identity { count: super::run::IDS, user: User::Root, ..Identity::default() };
        let ids = match IdPool::new(&identity)?.store_ids() {
            Ok(ids) => ids,
            // With a single id everything is the program's.
            Err(crate::Error::Unsupported(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let caller = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let (uid, gid) = ids.host((flag.uid.unwrap_or(0), flag.gid.unwrap_or(0)), caller);
        let hands = Hands::new()?;
        let own = || {
            let name = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
            let dir = hands.open(AT_FDCWD, &name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY)?;
            hands.chmod(dir.as_fd(), flag.mode.unwrap_or(0o755))?;
            hands.chown(dir.as_fd(), uid, gid)
        };
        own().map_err(|errno| failed(&path, "giving a cache its owner", &errno.into()))
    }

    /// The agent that the caller gives, at a socket of the sandbox.
    fn ssh(&self, step: &Step, flag: &MountFlag, number: usize, builder: Builder) -> Result<Builder> {
        let id = flag.id.as_deref().unwrap_or("default");
        let Some(socket) = self.build.agents.get(id) else {
            if !flag.required {
                return Ok(builder);
            }
            let failure =
                self.failure(&step.text, step.line, format!("the ssh agent {id:?} is required and not given"));
            return Err(failure.hint("Give it: --ssh default.").config());
        };
        let workdir = self.config["config"]["WorkingDir"].as_str().unwrap_or("/");
        let place = flag.target.clone().unwrap_or_else(|| format!("/run/buildkit/ssh_agent.{number}"));
        let place = clean(&Path::new("/").join(workdir), &place);
        Ok(builder.env("SSH_AUTH_SOCK", &place).rw(socket, place))
    }

    /// A copy that the program may change: nothing of it comes back.
    fn copy_for_mount(&mut self, step: &Step, flag: &MountFlag, to: &Path) -> Result<Digest> {
        let files = self.files(step, flag.from.as_deref())?;
        let source = clean(Path::new("/"), flag.source.as_deref().unwrap_or("/"));
        let located = |error: crate::Error| {
            let failure = error.failure();
            let message = format!("{}: {}", failure.subject, failure.message);
            self.failure(&step.text, step.line, message).hint(failure.hint.clone()).config()
        };
        let digest = files::copy_out(&*files, source.strip_prefix("/").unwrap_or(&source), to).map_err(located)?;
        if !to.exists() {
            return Err(failed(to, "copying what is mounted", &std::io::ErrorKind::NotFound.into()));
        }
        Ok(digest)
    }
}
