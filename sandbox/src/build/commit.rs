//! A run's changes as a new layer, and a new image on top of the one that it ran.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::fcntl::OFlag;
use serde_json::{Map, Value, json};

use super::Instruction;
use super::change::change;
use super::dockerfile::configuration as instruction;
use super::words::Variables;
use crate::error::{Failure, Result};
use crate::images::layer::{make, of_packed_file};
use crate::images::pack::{Below, Owners, pack_opened};
use crate::images::reference::{Digest, Reference};
use crate::images::store::{Image, Store, failed};
use crate::images::stream::Stop;
use crate::images::unpack::unescape;
use crate::subid_tree::Reach;

/// A new image out of an old one; see [`Store::commit`].
#[derive(Debug, Clone)]
pub struct Commit {
    base: String,
    name: Option<Reference>,
    owners: Option<Owners>,
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
            owners: None,
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

    /// Whom the changed files belong to in the image; by default whom they belonged to in the run that wrote them
    /// ([`Owners::of_upper`]).
    pub fn owners(mut self, owners: Owners) -> Commit {
        self.owners = Some(owners);
        self
    }

    /// The default again.
    pub(super) fn owners_noted(mut self) -> Commit {
        self.owners = None;
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

    /// Sets a key of the image's `config` object (`Env`, `Cmd`, `User`, `Labels`, …) to a value in JSON, such as
    /// `["/bin/app"]`; `null` takes it away.
    ///
    /// # Errors
    /// `Config` where the value is not JSON.
    pub fn set(mut self, key: impl Into<String>, json: &str) -> Result<Commit> {
        let key = key.into();
        let value = serde_json::from_str(json).map_err(|e| {
            let failure = Failure::new("commit-config", &key, format!("the value is not JSON: {e}"));
            failure.hint("Write a JSON value: a string needs quotation marks, as in `\"name\"`.").config()
        })?;
        self.config.insert(key, value);
        Ok(self)
    }
}

impl Store {
    /// Makes a new image: the base with what runs changed in a kept upper (the directory that was given as
    /// [`Upper::Dir`](crate::Upper::Dir)) as one more layer, or with a changed configuration only where `upper` is none.
    /// The same upper gives the same layer.
    ///
    /// # Errors
    /// Those of [`Store::image`]; `Config` where the directory is no kept upper; `Setup` where the upper cannot be read or has something that a layer cannot express.
    pub fn commit(&self, upper: Option<&Path>, commit: &Commit) -> Result<Image> {
        let _held = crate::sys::HeldFileSizeSignal::new();
        if let Some(name) = commit.name.as_ref().filter(|name| name.digest().is_some()) {
            return Err(Failure::new("image-reference", name.to_string(), "a digest cannot be given").config());
        }
        // The base must stay until the new image is there; both locks are shared.
        let kept = self.use_image(&commit.base)?;
        let base = &kept.image;
        let _lock = self.shared()?;
        let layer = |upper: &Path| {
            let owners = commit.owners.clone().map_or_else(|| Owners::of_upper(upper), Ok)?;
            self.commit_layer(upper, base, &owners, None)
        };
        let diff_id = upper.map(layer).transpose()?;
        let config = changed_config(base, diff_id, commit)?;
        let id = self.publish_image(&config, None)?;
        let name = commit.name.as_ref().map(Reference::to_string);
        let refs = self.change_refs(|refs| {
            refs.extend(name.map(|name| (name, id)));
            refs.clone()
        })?;
        self.read_image(id, &refs)
    }

    /// `upper`: the directory of a kept upper. `latest`: no file is to seem younger.
    pub(crate) fn commit_layer(
        &self,
        upper: &Path,
        base: &Image,
        owners: &Owners,
        latest: Option<i64>,
    ) -> Result<Digest> {
        let opened = crate::overlay::upper::open_kept(upper)?;
        let upper = &upper.join("upper");
        let temp = self.temp_dir()?;
        let path = temp.path.join("packed");
        let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(|e| failed(&path, "packing a layer", &e))?;
        let below = self.below(opened.as_fd(), base)?;
        let out = std::io::BufWriter::with_capacity(crate::images::stream::CHUNK, file);
        let out = pack_opened(upper, opened, out, owners, Some(&below), latest)?;
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
    fn below(&self, upper: BorrowedFd<'_>, base: &Image) -> Result<Below> {
        let reach = Reach::default();
        let mut below: Below = HashMap::new();
        for layer in &base.layers {
            for withheld in self.withheld(layer.diff_id)? {
                let withheld = withheld?;
                let path = unescape(&withheld.path);
                let there = Path::new(OsStr::from_bytes(&path));
                if reach.open_below(upper, there, OFlag::O_PATH | OFlag::O_NOFOLLOW).is_ok() {
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
