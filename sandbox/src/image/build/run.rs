//! `RUN`: a program in a sandbox on the image so far, and what it changed as a layer.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caps::Capability;
use serde_json::json;

use super::Step;
use super::make::{Layer, Making};
use crate::command::Stdio;
use crate::error::Result;
use crate::identity::IdPool;
use crate::image::lock;
use crate::image::pack::Owners;
use crate::image::reference::Digest;
use crate::image::run::user_of;
use crate::image::store::{Store, failed, list, remove_any};
use crate::lock::Lock;
use crate::outcome::{Outcome, Output};
use crate::policy::{Identity, Root, Upper, User};
use crate::running::Child;

/// The ids of a whole distribution, for package managers.
const IDS: u32 = 65536;
/// What root in a container usually has: enough to install packages, nothing that reaches the kernel.
const CAPABILITIES: [Capability; 9] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SYS_CHROOT,
];
/// As much of a failed program's output goes into the error.
const TAIL: usize = 2000;

impl Making<'_> {
    pub(super) fn run(&mut self, step: &Step, words: &[String], tell: &mut dyn FnMut(bool)) -> Result<Layer> {
        let wrong = |making: &Making<'_>, message: &str| making.failure(&step.text, step.line, message);
        let Some((program, arguments)) = words.split_first() else {
            return Err(wrong(self, "names no program").config());
        };
        if self.config["rootfs"]["diff_ids"].as_array().is_none_or(Vec::is_empty) {
            return Err(wrong(self, "there is no file in the image yet").hint("copy something first").config());
        }
        self.publish()?;
        let Some(kept) = &self.kept else { return Err(wrong(self, "there is no image yet").config()) };
        let image = kept.image.id.to_string();
        let user = self.config["config"]["User"].as_str().unwrap_or_default();
        let user = if user.is_empty() { User::Root } else { user_of(user, &kept.layers, None)? };
        let many = self.many_ids()?;

        let key = self.key(words, many)?;
        let lock = self.store.shared()?;
        if self.build.cache
            && let Some(diff_id) = self.store.cached(key)?
        {
            tell(true);
            return Ok(Layer { diff_id, _lock: lock });
        }
        drop(lock);
        tell(false);

        let place = self.store.build_dir()?;
        let mut builder = self.build.sandbox.clone().store(self.store.dir()).root(Root::image(image)).user(user);
        builder = builder.upper(Upper::Dir(place.dir.clone()));
        let environment = super::change::environment(self.run_config());
        for (name, value) in self.args.iter().filter(|(name, _)| !environment.contains_key(*name)) {
            builder = builder.env(name, value);
        }
        if many {
            builder = builder.id_count(IDS).wait_for_ids(Duration::from_secs(30));
            if matches!(user, User::Root | User::Fixed { uid: 0, .. }) {
                builder = CAPABILITIES.into_iter().fold(builder, |builder, cap| builder.cap_add(cap));
            }
        }
        let sandbox = builder.build()?;
        let mut command = sandbox.command(program);
        command.args(arguments);
        let stdio = || if self.build.show { Stdio::Inherit } else { Stdio::Piped };
        let mut child = command.stdin(Stdio::Null).stdout(stdio()).stderr(stdio()).spawn()?;
        let output = finish(&mut child, self.build.stop.as_deref())?;
        let (outcome, said) = (output.outcome.clone(), [&output.stdout[..], &output.stderr[..]].concat());
        if outcome != Outcome::Exited(0) {
            let said = String::from_utf8_lossy(&said[said.len().saturating_sub(TAIL)..]).trim().to_owned();
            let failure = wrong(self, &format!("`{}` {outcome}", words.join(" ")));
            return Err(failure.hint(said).setup());
        }
        drop(sandbox);
        let lock = self.store.shared()?;
        let Some(kept) = &self.kept else { return Err(wrong(self, "there is no image yet").config()) };
        let owners = Owners::of_upper(&place.dir)?;
        let upper = place.dir.join("upper");
        let diff_id = self.store.commit_layer(&upper, &kept.image, &owners, self.build.timestamp)?;
        self.store.remember(key, diff_id)?;
        Ok(Layer { diff_id, _lock: lock })
    }

    /// Whether there are ids for a whole distribution.
    fn many_ids(&self) -> Result<bool> {
        let identity = Identity { count: IDS, user: User::Root, ..Identity::default() };
        match IdPool::new(&identity)?.store_ids() {
            Ok(_) => Ok(true),
            Err(crate::Error::Unsupported(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the result of a program depends on.
    fn key(&self, words: &[String], many: bool) -> Result<Digest> {
        let run = &self.config["config"];
        let text = json!({
            "version": 1,
            "layers": self.config["rootfs"]["diff_ids"],
            "words": words,
            "env": run["Env"],
            "args": self.args,
            "user": run["User"],
            "dir": run["WorkingDir"],
            "network": self.build.sandbox.policy().network.word(),
            "many": many,
            "timestamp": self.build.timestamp,
        });
        Ok(Digest::of(text.to_string().as_bytes()))
    }
}

/// To the program's end, or until the caller wants no more of it.
fn finish(child: &mut Child, stop: Option<&AtomicBool>) -> Result<Output> {
    let Some(stop) = stop else { return child.wait_with_output(None) };
    let controller = child.controller();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if stop.load(Ordering::Relaxed) {
                    return controller.kill();
                }
                std::thread::park_timeout(Duration::from_millis(50));
            }
            Ok(())
        });
        let output = child.wait_with_output(None);
        over.store(true, Ordering::Relaxed);
        watcher.thread().unpark();
        output
    })
}

/// A directory for the changes of one program. Locked, so that others see that it is in use.
pub(super) struct BuildDir {
    pub dir: PathBuf,
    _lock: Lock,
}

impl Drop for BuildDir {
    fn drop(&mut self) {
        // What cannot be removed now, the next build tries again.
        let _ = remove_any(&self.dir);
    }
}

impl Store {
    pub(super) fn build_dir(&self) -> Result<BuildDir> {
        let all = self.dir().join("builds");
        let _guard = self.shared()?;
        fs::create_dir_all(&all).map_err(|e| failed(&all, "making a directory for builds", &e))?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let dir = all.join(format!("{}-{now:x}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&dir).map_err(|e| failed(&dir, "making a directory for a build", &e))?;
        let lock = lock::shared(&dir.join("lock"))?;
        Ok(BuildDir { dir, _lock: lock })
    }

    /// Removes what builds left that were killed. Nothing depends on it.
    pub(crate) fn sweep_builds(&self) {
        let Ok(_guard) = lock::exclusive_now(&self.dir().join("lock")) else { return };
        for name in list(&self.dir().join("builds")).unwrap_or_default() {
            let dir = self.dir().join("builds").join(name);
            if let Ok(Some(_lock)) = lock::try_exclusive(&dir.join("lock")) {
                let _ = remove_any(&dir);
            }
        }
    }

    fn cache_path(&self, key: Digest) -> PathBuf {
        self.dir().join("cache").join(key.hex())
    }

    /// The layer that the same program made before, where it is still there.
    fn cached(&self, key: Digest) -> Result<Option<Digest>> {
        let Ok(text) = fs::read_to_string(self.cache_path(key)) else { return Ok(None) };
        let Some(diff_id) = Digest::from_hex(text.trim()) else { return Ok(None) };
        Ok(self.layer(diff_id)?.map(|layer| layer.diff_id))
    }

    fn remember(&self, key: Digest, diff_id: Digest) -> Result<()> {
        let temp = self.temp_dir()?;
        let (from, to) = (temp.path.join("entry"), self.cache_path(key));
        let write = || {
            fs::create_dir_all(self.dir().join("cache"))?;
            fs::write(&from, diff_id.hex())?;
            fs::rename(&from, &to)
        };
        write().map_err(|e| failed(&to, "remembering a layer", &e))
    }

    /// Forgets layers that are gone. Under the exclusive lock.
    pub(crate) fn sweep_cache(&self) {
        for name in list(&self.dir().join("cache")).unwrap_or_default() {
            let key = name.to_str().and_then(Digest::from_hex);
            if !key.is_some_and(|key| self.cached(key).is_ok_and(|layer| layer.is_some())) {
                let _ = fs::remove_file(self.dir().join("cache").join(name));
            }
        }
    }
}
