//! One step after another. After each that has a layer, the image so far is in the store and in use, so that its layers
//! stay; what is left of those at the end goes.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};

use super::change::{change, environment};
use super::context::Context;
use super::files::{Files, ImageFiles};
use super::stages::{base_of, platforms};
use super::words::{Variables, expand, split};
use super::{Build, BuildStep, Instruction, Stage, Step, dockerfile};
use crate::error::{Error, Failure, Result};
use crate::images::platform::Platform;
use crate::images::reference::{Digest, Reference};
use crate::images::store::{Image, InUse, Store};
use crate::images::stream::STOPPED;
use crate::report::Outcome;
use crate::sys::lock::Lock;

/// Bytes of variables and labels at one place of a build. The kernel passes no program more than 6 MiB of them.
const MOST_TEXT: usize = 8 << 20;

/// What an image made of nothing has in its environment, as other builders give it.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Hears of a step: whether its layer was made before, and how its program ended where that was not well.
pub(super) type Tell<'a> = &'a mut dyn FnMut(bool, Option<Outcome>);

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
    context: Option<Rc<Context>>,
    /// The stage that is being made, and what those before came to.
    stage: usize,
    done: BTreeMap<usize, Done>,
}

/// A stage that was made; its layers stay while others may need them.
struct Done {
    kept: InUse,
    config: Value,
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
        let _held = crate::sys::HeldFileSizeSignal::new();
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
            stage: 0,
            done: BTreeMap::new(),
        };
        let result = making.all(tell);
        let Making { kept, made, done, .. } = making;
        drop((kept, done));
        let keep = result.as_ref().ok().map(|image| image.id);
        self.forget(made.into_iter().filter(|id| Some(*id) != keep));
        result
    }
}

impl Making<'_> {
    fn all(&mut self, tell: &dyn Fn(&BuildStep)) -> Result<Image> {
        let build = self.build;
        self.args = platforms(&self.build.wanted());
        for step in &build.global {
            self.declare(step)?;
        }
        self.global = std::mem::take(&mut self.args);
        let needed = build.needed(&self.global).map_err(|message| {
            Failure::new("dockerfile", build.file.clone(), message)
                .hint("Look at the names in FROM … AS NAME.")
                .config()
        })?;
        let mut total = needed.iter().map(|stage| 1 + build.stages[*stage].steps.len()).sum();
        let mut number = 0;
        for stage in &needed {
            self.begin(*stage);
            let stage = &build.stages[*stage];
            let wrong = |message: String| self.failure("FROM", stage.line, message).config();
            let base = base_of(stage, &self.global).map_err(wrong)?;
            let platform = self.platform_of(stage)?;
            number += 1;
            tell(&BuildStep { number, total, text: format!("FROM {base}"), cached: false, outcome: None });
            let triggers = self.start(&base, &platform, stage)?;
            total += triggers.len();
            for step in triggers.iter().chain(&stage.steps) {
                number += 1;
                let mut told =
                    |cached, outcome| tell(&BuildStep { number, total, text: step.text.clone(), cached, outcome });
                if build.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                    return Err(self.failure(&step.text, step.line, STOPPED).setup());
                }
                self.step(step, &mut told)?;
            }
            self.publish()?;
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

    /// Puts the stage before where later ones find it.
    fn begin(&mut self, stage: usize) {
        if let Some(kept) = self.kept.take() {
            self.done.insert(self.stage, Done { kept, config: std::mem::take(&mut self.config) });
        }
        self.stage = stage;
        self.args.clear();
        self.cmd_said = false;
    }

    fn platform_of(&self, stage: &Stage) -> Result<Platform> {
        let Some(platform) = &stage.platform else { return Ok(self.build.wanted()) };
        let wrong = |message: String| self.failure("FROM", stage.line, message).config();
        let text = expand(platform, &self.global).map_err(wrong)?;
        text.parse().map_err(|error: Error| wrong(format!("--platform={text}: {}", error.failure().message)))
    }

    /// Where the files of a step come from: the context, or a stage or image.
    pub(super) fn files(&mut self, step: &Step, from: Option<&str>) -> Result<Rc<dyn Files>> {
        let Some(from) = from else { return Ok(self.context(step)?) };
        if let Some(done) = self.build.stage_named(from, self.stage).and_then(|stage| self.done.get(&stage)) {
            return Ok(Rc::new(ImageFiles::new(from, &done.kept)?));
        }
        let kept = self.store.use_image(from).map_err(|error| {
            let message = format!("{from:?} is no stage before this one and no image: {}", error.failure().message);
            self.failure(&step.text, step.line, message).hint(error.failure().hint.clone()).config()
        })?;
        let files = ImageFiles::new(from, &kept)?;
        // Until the end of the build: the layers must stay.
        self.done.insert(usize::MAX - self.done.len(), Done { kept, config: Value::Null });
        Ok(Rc::new(files))
    }

    fn context(&mut self, step: &Step) -> Result<Rc<Context>> {
        if let Some(context) = &self.context {
            return Ok(context.clone());
        }
        let dir = self.build.context.as_deref().ok_or_else(|| {
            let failure = self.failure(&step.text, step.line, "there is no context to copy from");
            failure.hint("name a directory").config()
        })?;
        let context = Rc::new(Context::open(dir, self.build.ignore_file.as_deref())?);
        self.context = Some(context.clone());
        Ok(context)
    }

    /// The steps that the base asks for.
    fn start(&mut self, base: &str, platform: &Platform, from: &Stage) -> Result<Vec<Step>> {
        let stage = self.build.stage_named(base, self.stage);
        if let Some(done) = stage.and_then(|stage| self.done.get(&stage)) {
            self.config = done.config.clone();
            self.kept = Some(self.store.use_image(&done.kept.image.id.to_string())?);
            return Ok(Vec::new());
        }
        if base == "scratch" {
            self.config = json!({
                "architecture": platform.architecture, "os": platform.os, "config": {"Env": [PATH]},
                "rootfs": {"type": "layers", "diff_ids": []}, "history": [],
            });
        } else {
            let kept = self.store.use_image(base)?;
            let is = &kept.image.config.architecture;
            if !is.is_empty() && *is != platform.architecture {
                let message = format!("{base} is for linux/{}, and this stage for {platform}", is.escape_debug());
                return Err(self
                    .failure("FROM", from.line, message)
                    .hint(format!(
                        "Pull the base with --platform {platform}, or say --platform in FROM or for the build."
                    ))
                    .config());
            }
            self.config = serde_json::from_slice(&kept.image.config_bytes)
                .map_err(|e| Failure::new("image-config", base, e.to_string()).setup())?;
            super::commit::tidy(&mut self.config, kept.image.layers.len());
            self.kept = Some(kept);
        }
        let date = self.build.timestamp.map(crate::images::date::of);
        match (self.config.as_object_mut(), date) {
            (Some(config), Some(date)) => drop(config.insert("created".to_owned(), json!(date))),
            (Some(config), None) => drop(config.remove("created")),
            (None, _) => {}
        }
        let triggers = self.run_config().remove("OnBuild").unwrap_or_default();
        let triggers = triggers.as_array().into_iter().flatten().filter_map(Value::as_str);
        triggers.map(|text| dockerfile::trigger(text, base)).collect()
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
        self.bounded(step)
    }

    /// Each line of a Dockerfile may repeat what others have said: together they are bounded, too.
    fn bounded(&self, step: &Step) -> Result<()> {
        let said: usize = self.args.iter().map(|(key, value)| key.len() + value.len()).sum();
        let kept: usize = ["Env", "Labels"].iter().filter_map(|key| self.config["config"].get(key)).map(size).sum();
        if said + kept <= MOST_TEXT {
            return Ok(());
        }
        let message = format!("variables and labels of more than {MOST_TEXT} bytes");
        Err(self.failure(&step.text, step.line, message).config())
    }

    fn step(&mut self, step: &Step, tell: Tell<'_>) -> Result<()> {
        let layer = match &step.what {
            Instruction::Arg(_) => {
                tell(false, None);
                self.declare(step)?;
                None
            }
            Instruction::Run(run) => Some(self.run(step, run, tell)?),
            Instruction::Copy(copy) => {
                tell(false, None);
                Some(self.copy(step, copy)?)
            }
            Instruction::Maintainer(text) => {
                tell(false, None);
                let author = text.trim().to_owned();
                self.config.as_object_mut().map(|config| config.insert("author".to_owned(), json!(author)));
                None
            }
            what => {
                tell(false, None);
                let (variables, mut cmd_said) = (self.variables(), self.cmd_said);
                let changed = change(self.run_config(), what, &variables, &mut cmd_said);
                changed.map_err(|message| self.failure(&step.text, step.line, message).config())?;
                self.bounded(step)?;
                self.cmd_said = cmd_said;
                if matches!(what, Instruction::Workdir(_)) { self.working_dir(step)? } else { None }
            }
        };
        if let (Some(layer), Some(ids)) = (&layer, self.config["rootfs"]["diff_ids"].as_array_mut()) {
            ids.push(json!(layer.diff_id));
        }
        let mut entry = json!({"created_by": step.text});
        if let Some(date) = self.build.timestamp {
            entry["created"] = json!(crate::images::date::of(date));
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

/// Bytes of text in it.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(all) => all.iter().map(size).sum(),
        Value::Object(all) => all.iter().map(|(key, value)| key.len() + size(value)).sum(),
        _ => 0,
    }
}
