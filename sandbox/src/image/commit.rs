//! A run's changes as a new layer, and a new image on top of the one that it ran.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Map, Value, json};

use super::build::{Instruction, Variables, change, instruction};
use super::layer::{make, of_packed_file};
use super::pack::{Below, Owners, pack};
use super::reference::{Digest, Reference};
use super::store::{Image, Store, failed};
use super::stream::Stop;
use super::unpack::unescape;
use crate::error::{Failure, Result};

/// A new image out of an old one; see [`Store::commit`].
#[derive(Debug, Clone)]
pub struct Commit {
    base: String,
    name: Option<Reference>,
    owners: Owners,
    created: Option<String>,
    created_by: String,
    author: Option<String>,
    comment: Option<String>,
    config: Map<String, Value>,
    changes: Vec<Instruction>,
}

impl Commit {
    /// On top of this image. The date is left out unless given, so that the same changes make the same image.
    pub fn on(base: impl Into<String>) -> Commit {
        Commit {
            base: base.into(),
            name: None,
            owners: Owners::root(),
            created: None,
            created_by: String::new(),
            author: None,
            comment: None,
            config: Map::new(),
            changes: Vec::new(),
        }
    }

    /// On top of another image.
    pub fn base(mut self, base: impl Into<String>) -> Commit {
        self.base = base.into();
        self
    }

    /// The new image's name.
    pub fn name(mut self, name: Reference) -> Commit {
        self.name = Some(name);
        self
    }

    /// Whom the changed files belong to in the image (root).
    pub fn owners(mut self, owners: Owners) -> Commit {
        self.owners = owners;
        self
    }

    /// The date, RFC 3339.
    pub fn created(mut self, date: impl Into<String>) -> Commit {
        self.created = Some(date.into());
        self
    }

    /// The command, for the history.
    pub fn created_by(mut self, command: impl Into<String>) -> Commit {
        self.created_by = command.into();
        self
    }

    /// Who, for the history.
    pub fn author(mut self, author: impl Into<String>) -> Commit {
        self.author = Some(author.into());
        self
    }

    /// Free text, for the history.
    pub fn comment(mut self, comment: impl Into<String>) -> Commit {
        self.comment = Some(comment.into());
        self
    }

    /// Changes the configuration as an instruction of a Dockerfile does: `CMD ["app"]`, `ENV A=b`, ….
    ///
    /// # Errors
    /// `Config` where it is none, or one that changes more than the configuration.
    pub fn change(mut self, line: &str) -> Result<Commit> {
        self.changes.push(instruction(line)?);
        Ok(self)
    }

    /// Sets a key of the image's `config` object (`Env`, `Cmd`, `User`, `Labels`, …); null takes it away.
    pub fn set(mut self, key: impl Into<String>, value: Value) -> Commit {
        self.config.insert(key.into(), value);
        self
    }
}

impl Store {
    /// Makes a new image: the base with the content of an overlay's upper directory as one more layer, or with a
    /// changed configuration only where `upper` is none. The same upper gives the same layer.
    ///
    /// # Errors
    /// Those of [`Store::image`]; `Setup` where the upper cannot be read or has something that a layer cannot express.
    pub fn commit(&self, upper: Option<&Path>, commit: &Commit) -> Result<Image> {
        if let Some(name) = commit.name.as_ref().filter(|name| name.digest().is_some()) {
            return Err(Failure::new("image-reference", name.to_string(), "a digest cannot be given").config());
        }
        // The base must stay until the new image is there; both locks are shared.
        let kept = self.use_image(&commit.base)?;
        let base = &kept.image;
        let _lock = self.shared()?;
        let diff_id = upper.map(|upper| self.commit_layer(upper, base, &commit.owners, None)).transpose()?;
        let config = changed_config(base, diff_id, commit)?;
        let id = self.publish_image(&config, None)?;
        let name = commit.name.as_ref().map(Reference::to_string);
        let refs = self.change_refs(|refs| {
            refs.extend(name.map(|name| (name, id)));
            refs.clone()
        })?;
        self.read_image(id, &refs)
    }

    /// `latest`: no file is to seem younger.
    pub(crate) fn commit_layer(
        &self,
        upper: &Path,
        base: &Image,
        owners: &Owners,
        latest: Option<i64>,
    ) -> Result<Digest> {
        let temp = self.temp_dir()?;
        let path = temp.path.join("packed");
        let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(|e| failed(&path, "packing a layer", &e))?;
        let below = self.below(upper, base)?;
        let out = std::io::BufWriter::with_capacity(super::stream::CHUNK, file);
        let out = pack(upper, out, owners, Some(&below), latest)?;
        let file = out.into_inner().map_err(|e| failed(&path, "packing a layer", e.error()))?;
        self.layer_of_tar(file, &upper.display().to_string())
    }

    /// Makes a layer of an archive that was packed here. Under the shared lock.
    pub(crate) fn layer_of_tar(&self, file: std::fs::File, name: &str) -> Result<Digest> {
        let stop = Stop { deadline: None, stopped: Arc::new(AtomicBool::new(false)) };
        let made = make(self, of_packed_file(file, name)?, &stop, &|_| {})?;
        let _lock = self.lock_layer(made.info.diff_id)?;
        self.publish_layer(&made.temp, &made.info)?;
        Ok(made.info.diff_id)
    }

    /// What the layers withhold about the paths that the upper has; the uppermost layer wins.
    fn below(&self, upper: &Path, base: &Image) -> Result<Below> {
        use std::os::unix::ffi::OsStrExt;
        let mut below: Below = HashMap::new();
        for layer in &base.layers {
            for withheld in self.withheld(layer.diff_id)? {
                let withheld = withheld?;
                let path = unescape(&withheld.path);
                if upper.join(std::ffi::OsStr::from_bytes(&path)).symlink_metadata().is_ok() {
                    below.insert(path, (withheld.uid, withheld.gid, withheld.mode));
                }
            }
        }
        Ok(below)
    }
}

/// Makes a configuration ready for more: with a `config` and a history that speaks of every layer.
pub(crate) fn tidy(config: &mut Value, layers: usize) {
    let Some(object) = config.as_object_mut() else { return };
    // Leftovers of Docker's builder that would contradict the new image.
    for key in ["container", "container_config", "docker_version", "id", "parent"] {
        object.remove(key);
    }
    let run = object.entry("config").or_insert(Value::Null);
    if !run.is_object() {
        *run = json!({});
    }
    let history = object.entry("history").or_insert(Value::Null);
    if !history.is_array() {
        *history = json!([]);
    }
    if let Some(history) = history.as_array_mut() {
        // Layers that the history is silent about would otherwise be taken for the next step's.
        let told = history.iter().filter(|step| step["empty_layer"] != json!(true)).count();
        history.extend((told..layers).map(|_| json!({"created_by": ""})));
    }
}

/// The base's configuration, all of it, also what this program does not know, with the changes.
fn changed_config(base: &Image, diff_id: Option<Digest>, commit: &Commit) -> Result<Vec<u8>> {
    let refuse = |message: String| Failure::new("image-config", base.id.to_string(), message).setup();
    let mut config: Value = serde_json::from_slice(&base.config_bytes).map_err(|e| refuse(e.to_string()))?;
    tidy(&mut config, base.layers.len());
    let object = config.as_object_mut().ok_or_else(|| refuse("no object".into()))?;
    match &commit.created {
        Some(date) => drop(object.insert("created".into(), json!(date))),
        None => drop(object.remove("created")),
    }
    if let Some(author) = &commit.author {
        object.insert("author".into(), json!(author));
    }
    let run = &mut object["config"];
    for (key, value) in &commit.config {
        match value {
            Value::Null => drop(run.as_object_mut().and_then(|run| run.remove(key))),
            value => run[key] = value.clone(),
        }
    }
    let mut cmd_said = false;
    for instruction in &commit.changes {
        if let Some(run) = object["config"].as_object_mut() {
            change(run, instruction, &Variables::new(), &mut cmd_said)
                .map_err(|message| Failure::new("option", "change", message).config())?;
        }
    }
    if let (Some(diff_id), Some(ids)) = (diff_id, object["rootfs"]["diff_ids"].as_array_mut()) {
        ids.push(json!(diff_id));
    }
    let mut step = json!({"created_by": commit.created_by});
    for (key, value) in [("created", &commit.created), ("author", &commit.author), ("comment", &commit.comment)] {
        if let Some(value) = value {
            step[key] = json!(value);
        }
    }
    if diff_id.is_none() {
        step["empty_layer"] = json!(true);
    }
    if let Some(history) = object["history"].as_array_mut() {
        history.push(step);
    }
    serde_json::to_vec(&config).map_err(|e| refuse(e.to_string()))
}
