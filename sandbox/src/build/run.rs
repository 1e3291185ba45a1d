//! `RUN`: a program in a sandbox on the image so far, and what it changed as a layer.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::kernel_names::Capability;
use serde_json::{Value, json};

use super::change::shell;
use super::make::{Layer, Making, Tell};
use super::stages::PREDEFINED;
use super::{Program, RunStep, SCRIPT, Step};
use crate::api::child::Child;
use crate::api::streams::Stdio;
use crate::error::Result;
use crate::ids::IdPool;
use crate::images::lock;
use crate::images::pack::Owners;
use crate::images::reference::Digest;
use crate::images::store::{Store, failed, list, remove_any};
use crate::policy::builder::Builder;
use crate::policy::rules::Rules;
use crate::policy::{Identity, Network, Root, Upper, User};
use crate::printable::printable_lines;
use crate::report::{Outcome, Output};
use crate::resolve::image::{topmost_first, user_of};
use crate::sys::lock::Lock;

/// The ids of a whole distribution, for package managers.
pub(super) const IDS: u32 = 65536;
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

/// What a step says of its program: the user, its network, its text where it is a script.
fn with_program(mut builder: Builder, run: &RunStep, named: String) -> Builder {
    if !named.is_empty() {
        // With the groups that it is in.
        builder = builder.image_user(named);
    }
    if run.no_network {
        builder = builder.without_rules().network(Network::None);
    }
    match &run.program {
        Program::Script(text) => builder.file_mode(SCRIPT, text.clone(), 0o555),
        _ => builder,
    }
}

fn with_many_ids(builder: Builder, user: User) -> Builder {
    let builder = builder.id_count(IDS).wait_for_ids(Duration::from_secs(30));
    match user {
        User::Root | User::Fixed { uid: 0, .. } => CAPABILITIES.into_iter().fold(builder, Builder::cap_add),
        _ => builder,
    }
}

/// The end of what a failed program wrote.
fn last_words(output: &Output) -> String {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said[said.len().saturating_sub(TAIL)..]);
    printable_lines(said.trim(), "")
}

impl Making<'_> {
    pub(super) fn run(&mut self, step: &Step, run: &RunStep, tell: Tell<'_>) -> Result<Layer> {
        let wrong = |making: &Making<'_>, message: &str| making.failure(&step.text, step.line, message);
        let words = &run.program.words(&shell(self.run_config()));
        let Some((program, arguments)) = words.split_first() else {
            return Err(wrong(self, "names no program").config());
        };
        if self.config["rootfs"]["diff_ids"].as_array().is_none_or(Vec::is_empty) {
            return Err(wrong(self, "there is no file in the image yet").hint("copy something first").config());
        }
        self.publish()?;
        let Some(kept) = &self.kept else { return Err(wrong(self, "there is no image yet").config()) };
        let image = kept.image.id.to_string();
        let named = self.config["config"]["User"].as_str().unwrap_or_default().to_owned();
        let user = if named.is_empty() { User::Root } else { user_of(&named, &topmost_first(&kept.layers))? };
        let many = self.many_ids()?;

        let place = self.store.build_dir()?;
        let mut builder = self.build.sandbox.clone().store(self.store.dir()).root(Root::image(image)).user(user);
        builder = builder.upper(Upper::Dir(place.dir.clone())).keep_temporary_files();
        builder = with_program(builder, run, named);
        let (mut builder, mounts) = self.mounts(step, (&run.mounts, user), &place, builder)?;
        let key = self.key(words, run, mounts, many)?;
        let lock = self.store.shared()?;
        if self.build.cache
            && let Some(diff_id) = self.store.cached(key)?
        {
            tell(true, None);
            return Ok(Layer { diff_id, _lock: lock });
        }
        drop(lock);
        tell(false, None);

        builder = self.with_arguments(builder);
        if many {
            builder = with_many_ids(builder, user);
        }
        let sandbox = builder.build()?;
        let mut command = sandbox.command(program);
        command.args(arguments);
        let stdio = || if self.build.show { Stdio::Inherit } else { Stdio::Piped };
        let mut child = command.stdin(Stdio::Null).stdout(stdio()).stderr(stdio()).spawn()?;
        child.keep_tail(TAIL);
        let output = finish(&mut child, self.build.stop.as_deref())?;
        if output.outcome != Outcome::Exited(0) {
            tell(false, Some(output.outcome.clone()));
            let failure = wrong(self, &format!("`{}` {}", words.join(" "), output.outcome));
            return Err(failure.hint(last_words(&output)).setup());
        }
        drop(sandbox);
        let lock = self.store.shared()?;
        let Some(kept) = &self.kept else { return Err(wrong(self, "there is no image yet").config()) };
        let owners = Owners::of_upper(&place.dir)?;
        let diff_id = self.store.commit_layer(&place.dir, &kept.image, &owners, self.build.timestamp)?;
        self.store.remember(key, diff_id)?;
        Ok(Layer { diff_id, _lock: lock })
    }

    /// The build's arguments are variables of its programs, but for those that the image sets.
    fn with_arguments(&mut self, builder: Builder) -> Builder {
        let environment = super::change::environment(self.run_config());
        let given =
            PREDEFINED.iter().filter_map(|name| Some(((*name).to_owned(), self.build.args.get(*name)?.clone())));
        let all = self.args.clone().into_iter().chain(given);
        let new = all.filter(|(name, _)| !environment.contains_key(name));
        new.fold(builder, |builder, (name, value)| builder.env(name, value))
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
    fn key(&self, words: &[String], run: &RunStep, mounts: Value, many: bool) -> Result<Digest> {
        let script = if let Program::Script(text) = &run.program { text } else { "" };
        let network = if run.no_network { Network::None } else { self.build.sandbox.policy().network };
        let run_without_network = run.no_network;
        let run = &self.config["config"];
        let mut text = json!({
            "version": 2,
            "layers": self.config["rootfs"]["diff_ids"],
            "words": words,
            "env": run["Env"],
            "args": self.args,
            "user": run["User"],
            "dir": run["WorkingDir"],
            "network": network.word(),
            "many": many,
            "timestamp": self.build.timestamp,
        });
        // Not for the steps that have none: what was made before they existed is found again.
        if mounts.as_array().is_some_and(|mounts| !mounts.is_empty()) {
            text["mounts"] = mounts;
        }
        let rules = Rules { policy: self.build.sandbox.policy() }.texts();
        if !run_without_network && !rules.is_empty() {
            text["rules"] = json!(rules);
        }
        if !script.is_empty() {
            text["script"] = json!(script);
        }
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
