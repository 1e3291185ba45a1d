//! One step after another. After each that has a layer, the image so far is in the store and in use, so that its layers
//! stay; what is left of those at the end goes.

use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};

use super::change::{change, environment};
use super::context::Context;
use super::words::{Variables, expand, split};
use super::{Build, BuildStep, Instruction, Step, dockerfile};
use crate::error::{Failure, Result};
use crate::image::reference::{Digest, Reference};
use crate::image::store::{Image, InUse, Store};
use crate::image::stream::STOPPED;
use crate::lock::Lock;

/// The image so far.
pub(super) struct Making<'a> {
    pub store: &'a Store,
    pub build: &'a Build,
    pub config: Value,
    /// What the last publication came to; it has the layers of now.
    pub kept: Option<InUse>,
    pub args: Variables,
    global: Variables,
    cmd_said: bool,
    /// Images that this build put into the store.
    made: Vec<Digest>,
    context: Option<Context>,
}

/// What a step with a layer came to.
pub(super) struct Layer {
    pub diff_id: Digest,
    /// The store's: until an image has the layer, nobody may tidy up.
    pub _lock: Lock,
}

impl Store {
    /// Makes an image by steps, each in a sandbox of its own, and names it. `tell` hears of each step before it is
    /// made. Layers of programs' steps are found again by what they depend on: the layers below, the words, the
    /// environment, the user, the working directory, the network and the timestamp.
    ///
    /// # Errors
    /// `Config` for what is wrong with a step, with its line where it comes from a Dockerfile; `Setup` where a
    /// program fails, with its outcome; those of [`Store::image`] for the base.
    pub fn build(&self, build: &Build, tell: &dyn Fn(&BuildStep)) -> Result<Image> {
        if let Some(name) = build.name.as_ref().filter(|name| name.digest().is_some()) {
            return Err(Failure::new("image-reference", name.to_string(), "a digest cannot be given").config());
        }
        self.sweep_builds();
        let mut making = Making {
            store: self,
            build,
            config: Value::Null,
            kept: None,
            args: Variables::new(),
            global: Variables::new(),
            cmd_said: false,
            made: Vec::new(),
            context: None,
        };
        let result = making.all(tell);
        let Making { kept, made, .. } = making;
        drop(kept);
        let keep = result.as_ref().ok().map(|image| image.id);
        self.forget(made.into_iter().filter(|id| Some(*id) != keep));
        result
    }
}

impl Making<'_> {
    fn all(&mut self, tell: &dyn Fn(&BuildStep)) -> Result<Image> {
        let build = self.build;
        let (before, after) = build.steps.split_at(build.global_args);
        let total = 1 + after.len();
        for step in before {
            self.declare(step)?;
        }
        self.global = std::mem::take(&mut self.args);
        let wrong = |message: String| self.failure("FROM", build.from_line, message).config();
        let base = expand(&build.base, &self.global).map_err(wrong)?;
        tell(&BuildStep { number: 1, total, text: format!("FROM {base}"), cached: false });
        self.start(&base)?;
        for (number, step) in (2..).zip(after) {
            let mut told = |cached| tell(&BuildStep { number, total, text: step.text.clone(), cached });
            if build.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Err(self.failure(&step.text, step.line, STOPPED).setup());
            }
            self.step(step, &mut told)?;
        }
        for key in build.args.keys() {
            if !self.args.contains_key(key) && !self.global.contains_key(key) {
                let failure =
                    Failure::new("dockerfile", key.escape_debug().to_string(), "no ARG of that name is declared");
                return Err(failure.hint(format!("write ARG {key} where it is needed")).config());
            }
        }
        let image = self.publish()?.image.clone();
        let _lock = self.store.shared()?;
        let name = build.name.as_ref().map(Reference::to_string);
        let refs = self.store.change_refs(|refs| {
            refs.extend(name.map(|name| (name, image.id)));
            refs.clone()
        })?;
        self.store.read_image(image.id, &refs)
    }

    pub(super) fn failure(&self, text: &str, line: Option<usize>, message: impl Into<String>) -> Failure {
        match line {
            Some(line) => {
                let word = text.split_whitespace().next().unwrap_or_default();
                dockerfile::at(&self.build.file, line, format!("{word}: {}", message.into()))
            }
            None => Failure::new("image-build", text.escape_debug().to_string(), message),
        }
    }

    fn start(&mut self, base: &str) -> Result<()> {
        if base == "scratch" {
            self.config = json!({
                "architecture": "amd64", "os": "linux", "config": {},
                "rootfs": {"type": "layers", "diff_ids": []}, "history": [],
            });
        } else {
            let kept = self.store.use_image(base)?;
            self.config = serde_json::from_slice(&kept.image.config_bytes)
                .map_err(|e| Failure::new("image-config", base, e.to_string()).setup())?;
            crate::image::commit::tidy(&mut self.config, kept.image.layers.len());
            self.kept = Some(kept);
        }
        let date = self.build.timestamp.map(crate::image::date::of);
        match (self.config.as_object_mut(), date) {
            (Some(config), Some(date)) => drop(config.insert("created".to_owned(), json!(date))),
            (Some(config), None) => drop(config.remove("created")),
            (None, _) => {}
        }
        Ok(())
    }

    pub(super) fn run_config(&mut self) -> &mut Map<String, Value> {
        self.config["config"].as_object_mut().expect("`start` sees to it")
    }

    /// What `$NAME` stands for now: the environment's wins.
    pub(super) fn variables(&self) -> Variables {
        let mut all = self.args.clone();
        all.extend(self.config["config"].as_object().map(environment).unwrap_or_default());
        all
    }

    pub(super) fn words(&self, step: &Step, text: &str) -> Result<Vec<String>> {
        let words = expand(text, &self.variables()).and_then(|text| split(&text));
        words.map_err(|message| self.failure(&step.text, step.line, message).config())
    }

    /// `ARG NAME[=DEFAULT] …`.
    fn declare(&mut self, step: &Step) -> Result<()> {
        let Instruction::Arg(text) = &step.what else { return Ok(()) };
        for word in self.words(step, text)? {
            let (key, default) = match word.split_once('=') {
                Some((key, default)) => (key, Some(default.to_owned())),
                None => (&word[..], None),
            };
            let value = self.build.args.get(key).cloned().or(default).or_else(|| self.global.get(key).cloned());
            self.args.insert(key.to_owned(), value.unwrap_or_default());
        }
        Ok(())
    }

    fn step(&mut self, step: &Step, tell: &mut dyn FnMut(bool)) -> Result<()> {
        let layer = match &step.what {
            Instruction::Arg(_) => {
                tell(false);
                self.declare(step)?;
                None
            }
            Instruction::Run(program) => Some(self.run(step, &program.words(), tell)?),
            Instruction::Copy { paths, owner, mode } => {
                if self.context.is_none() {
                    let dir = self.build.context.as_deref().ok_or_else(|| {
                        let failure = self.failure(&step.text, step.line, "there is no context to copy from");
                        failure.hint("name a directory").config()
                    })?;
                    self.context = Some(Context::open(dir)?);
                }
                tell(false);
                let context = self.context.take().expect("it was opened above");
                let layer = self.copy(step, &context, paths, owner.as_deref(), *mode);
                self.context = Some(context);
                Some(layer?)
            }
            what => {
                tell(false);
                let (variables, mut cmd_said) = (self.variables(), self.cmd_said);
                let changed = change(self.run_config(), what, &variables, &mut cmd_said);
                changed.map_err(|message| self.failure(&step.text, step.line, message).config())?;
                self.cmd_said = cmd_said;
                None
            }
        };
        if let (Some(layer), Some(ids)) = (&layer, self.config["rootfs"]["diff_ids"].as_array_mut()) {
            ids.push(json!(layer.diff_id));
        }
        let mut entry = json!({"created_by": step.text});
        if let Some(date) = self.build.timestamp {
            entry["created"] = json!(crate::image::date::of(date));
        }
        if layer.is_none() {
            entry["empty_layer"] = json!(true);
        }
        if let Some(history) = self.config["history"].as_array_mut() {
            history.push(entry);
        }
        if layer.is_some() {
            self.publish()?;
        }
        Ok(())
    }

    /// Puts the image as it is now into the store.
    pub(super) fn publish(&mut self) -> Result<&InUse> {
        let _lock = self.store.shared()?;
        let refuse = |message: String| Failure::new("image-config", "build", message).setup();
        let bytes = serde_json::to_vec(&self.config).map_err(|e| refuse(e.to_string()))?;
        let id = Digest::of(&bytes);
        if self.kept.as_ref().is_none_or(|kept| kept.image.id != id) {
            let is_new = !self.store.has_image(id);
            self.store.publish_image(&bytes, None)?;
            if is_new {
                self.made.push(id);
            }
            self.kept = Some(self.store.use_image(&id.to_string())?);
        }
        Ok(self.kept.as_ref().expect("it was set above"))
    }
}
