//! The store of images, for `sandcell.Store`. What is an object in Python comes as JSON.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use sandcell::Error;
use sandcell::image::{
    Build, Commit, Format, Load, Platform, Progress, Pruned, Pull, Reference, Source, base_of, changes,
};

use crate::options;
use crate::patience::{Watch, patiently};
use crate::raise;

/// A directory of images and volumes.
#[pyclass(frozen, module = "sandcell._native")]
pub struct Store {
    inner: Arc<sandcell::image::Store>,
}

fn unknown(option: &str, given: &str, known: &str) -> PyErr {
    raise(Error::option(option, format!("{given:?} is not {known}")))
}

fn name(text: Option<&str>) -> PyResult<Option<Reference>> {
    text.map(|text| text.parse().map_err(raise)).transpose()
}

fn platform(text: Option<&str>) -> PyResult<Option<Platform>> {
    text.map(|text| text.parse().map_err(raise)).transpose()
}

/// The ids of the images and of the layers that went, and bytes.
fn gone(pruned: Pruned) -> (Vec<String>, Vec<String>, u64) {
    let words = |digests: Vec<sandcell::image::Digest>| digests.iter().map(ToString::to_string).collect();
    (words(pruned.images), words(pruned.layers), pruned.bytes)
}

/// A step of a build that is calls: its kind and its words.
fn step(build: Build, kind: &str, mut words: Vec<String>) -> Result<Build, Error> {
    let mut take = || if words.is_empty() { String::new() } else { words.remove(0) };
    Ok(match kind {
        "run" => build.run(take()),
        "workdir" => build.workdir(take()),
        "user" => build.user(take()),
        "expose" => build.expose(take()),
        "volume" => build.volume(take()),
        "stop_signal" => build.stop_signal(take()),
        "env" => build.env(take(), take()),
        "label" => build.label(take(), take()),
        "copy" => {
            let (dest, owner, mode) = (take(), take(), take());
            let owner = Some(owner).filter(|owner| !owner.is_empty());
            let mode = u32::from_str_radix(&mode, 8).ok();
            build.copy_as(words, dest, owner, mode)
        }
        "run_words" => build.run_words(words),
        "cmd" => build.cmd(words),
        "entrypoint" => build.entrypoint(words),
        other => return Err(Error::option("build", format!("{other:?} is no step"))),
    })
}

/// The image that an upper lies on: what was said, or what the run noted in it.
fn base(upper: &Path, said: Option<String>) -> sandcell::Result<String> {
    match said {
        Some(said) => Ok(said),
        None => base_of(upper)?.ok_or_else(|| Error::option("upper", "nothing in it says which image it lies on")),
    }
}

#[pymethods]
impl Store {
    #[new]
    fn new(py: Python<'_>, dir: Option<PathBuf>, limits: Vec<(String, f64)>) -> PyResult<Store> {
        let open = || match dir {
            Some(dir) => sandcell::image::Store::open(dir),
            None => sandcell::image::Store::open_default(),
        };
        let mut inner = py.detach(open).map_err(raise)?;
        let of = inner.limits_mut();
        for (name, number) in limits {
            // Whole numbers below 2^53, and seconds: the Python half has looked.
            match name.as_str() {
                "layers" => of.layers = number as usize,
                "members" => of.members = number as u64,
                "layer_bytes" => of.layer_bytes = number as u64,
                "ratio" => of.ratio = number as u64,
                _ => of.time = Some(Duration::from_secs_f64(number)),
            }
        }
        Ok(Store { inner: Arc::new(inner) })
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.inner.dir().to_owned()
    }

    #[allow(clippy::too_many_arguments, reason = "the Python half has keywords for them")]
    fn pull(
        &self,
        py: Python<'_>,
        image: &str,
        as_name: Option<&str>,
        auth_file: Option<PathBuf>,
        credentials: Option<(String, String)>,
        ca_file: Option<PathBuf>,
        platform: Option<&str>,
        plain_http: bool,
        durable: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let image: Reference = image.parse().map_err(raise)?;
        let (name, platform, store) = (name(as_name)?, self::platform(platform)?, self.inner.clone());
        let pulled = patiently(py, Watch::new(progress), move |watch| {
            let tell = |progress| {
                if let Progress::Bytes { done, total, .. } = progress {
                    watch.tell_bytes(done, total);
                }
            };
            let mut how = Pull::new().progress(&tell).stop(watch.stop.clone());
            if let Some(name) = name {
                how = how.name(name);
            }
            if let Some(platform) = platform {
                how = how.platform(platform);
            }
            if let Some(file) = auth_file {
                how = how.auth_file(file);
            }
            if let Some((user, password)) = credentials {
                how = how.credentials(user, password);
            }
            if let Some(file) = ca_file {
                how = how.ca_file(file);
            }
            if plain_http {
                how = how.plain_http();
            }
            if durable {
                how = how.durable();
            }
            store.pull(&image, &how)
        });
        pulled.map(|image| image.id.to_string())
    }

    #[allow(clippy::too_many_arguments, reason = "the Python half has keywords for them")]
    fn load(
        &self,
        py: Python<'_>,
        path: PathBuf,
        descriptor: Option<i32>,
        format: &str,
        as_name: Option<&str>,
        created: Option<String>,
        platform: Option<&str>,
        durable: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Vec<String>> {
        let source = match format {
            "detect" => Source::Detect(path),
            "oci" => Source::Oci(path),
            "docker" => Source::Docker(path),
            "rootfs" => Source::RootFs(path),
            other => return Err(unknown("format", other, "detect, oci, docker or rootfs")),
        };
        // A file of its own: the caller may close the other meanwhile.
        let input = descriptor.map(crate::sys::duplicate).transpose()?.map(std::fs::File::from);
        let (name, platform, store) = (name(as_name)?, self::platform(platform)?, self.inner.clone());
        let loaded = patiently(py, Watch::new(progress), move |watch| {
            let tell = |progress| {
                if let Progress::Bytes { done, total, .. } = progress {
                    watch.tell_bytes(done, total);
                }
            };
            let mut how = Load::new().progress(&tell).stop(watch.stop.clone());
            if let Some(name) = name {
                how = how.name(name);
            }
            if let Some(platform) = platform {
                how = how.platform(platform);
            }
            if let Some(date) = created {
                how = how.created(date);
            }
            if durable {
                how = how.durable();
            }
            match input {
                Some(input) => store.load_from(input, &source, &how),
                None => store.load(&source, &how),
            }
        })?;
        Ok(loaded.into_iter().flat_map(|image| image.names).collect())
    }

    fn images(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.inner.images_json()).map_err(raise)
    }

    fn inspect(&self, py: Python<'_>, image: &str) -> PyResult<String> {
        py.detach(|| self.inner.image(image)).map(|image| image.inspect()).map_err(raise)
    }

    fn history(&self, py: Python<'_>, image: &str) -> PyResult<String> {
        py.detach(|| self.inner.image(image)).map(|image| image.history_json()).map_err(raise)
    }

    fn volumes(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.inner.volumes_json()).map_err(raise)
    }

    /// What a kept upper changes about its image: `A`, `C` or `D`, and the path.
    fn diff(&self, py: Python<'_>, upper: PathBuf, said: Option<String>) -> PyResult<Vec<(char, OsString)>> {
        let look = || {
            let kept = self.inner.use_image(&base(&upper, said)?)?;
            changes(&upper, &kept.layers)
        };
        let found = py.detach(look).map_err(raise)?;
        Ok(found.into_iter().map(|change| (change.kind.letter(), change.path.into_os_string())).collect())
    }

    #[allow(clippy::too_many_arguments, reason = "the Python half has keywords for them")]
    fn commit(
        &self,
        py: Python<'_>,
        upper: Option<PathBuf>,
        as_name: Option<&str>,
        said: Option<String>,
        change: Vec<String>,
        message: Option<String>,
        author: Option<String>,
        created: Option<String>,
        created_by: String,
    ) -> PyResult<String> {
        let name = name(as_name)?;
        let commit = || {
            let commit = match (&upper, said) {
                (Some(upper), said) => Commit::on(base(upper, said)?),
                (None, Some(said)) => Commit::on(said),
                (None, None) => return Err(Error::option("base", "is needed where there is no upper")),
            };
            let commit = commit.created_by(created_by);
            let mut commit = change.iter().try_fold(commit, |commit, line| commit.change(line))?;
            if let Some(name) = name {
                commit = commit.name(name);
            }
            if let Some(text) = message {
                commit = commit.comment(text);
            }
            if let Some(author) = author {
                commit = commit.author(author);
            }
            if let Some(date) = created {
                commit = commit.created(date);
            }
            self.inner.commit(upper.as_deref(), &commit)
        };
        py.detach(commit).map(|image| image.id.to_string()).map_err(raise)
    }

    fn save(&self, py: Python<'_>, images: Vec<String>, path: PathBuf, format: &str) -> PyResult<()> {
        let format = match format {
            "oci-archive" => Format::OciArchive,
            "oci-dir" => Format::OciDir,
            "docker-archive" => Format::DockerArchive,
            other => return Err(unknown("format", other, "oci-archive, oci-dir or docker-archive")),
        };
        let images: Vec<&str> = images.iter().map(String::as_str).collect();
        py.detach(|| self.inner.export(&images, format, &path)).map_err(raise)
    }

    fn tag(&self, py: Python<'_>, image: &str, new_name: &str) -> PyResult<()> {
        let name: Reference = new_name.parse().map_err(raise)?;
        py.detach(|| self.inner.tag(image, &name)).map_err(raise)
    }

    fn remove(&self, py: Python<'_>, image: &str) -> PyResult<(Vec<String>, Vec<String>, u64)> {
        py.detach(|| self.inner.remove(image)).map(gone).map_err(raise)
    }

    fn remove_volume(&self, py: Python<'_>, volume: &str) -> PyResult<()> {
        py.detach(|| self.inner.remove_volume(volume)).map_err(raise)
    }

    fn prune(&self, py: Python<'_>) -> PyResult<(Vec<String>, Vec<String>, u64)> {
        py.detach(|| self.inner.prune()).map(gone).map_err(raise)
    }

    #[allow(clippy::too_many_arguments, reason = "the Python half has keywords for them")]
    fn build(
        &self,
        py: Python<'_>,
        dockerfile: Option<PathBuf>,
        base: &str,
        steps: Vec<(String, Vec<String>)>,
        context: Option<PathBuf>,
        as_name: Option<&str>,
        args: Vec<(String, String)>,
        target: Option<String>,
        platform: Option<&str>,
        secrets: Vec<(String, Vec<u8>)>,
        secret_files: Vec<(String, PathBuf)>,
        ssh_agents: Vec<(String, PathBuf)>,
        policy: &Bound<'_, PyDict>,
        timestamp: Option<i64>,
        cache: bool,
        show_output: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let sandbox = options::builder(policy)?;
        let (name, platform) = (name(as_name)?, self::platform(platform)?);
        let (store, base) = (self.inner.clone(), base.to_owned());
        let built = patiently(py, Watch::new(progress), move |watch| {
            let mut build = match dockerfile {
                Some(path) => Build::dockerfile_at(path)?,
                None => Build::from(base),
            };
            for (kind, words) in steps {
                build = step(build, &kind, words)?;
            }
            build = build.sandbox(sandbox).cache(cache).show_output(show_output).stop(watch.stop.clone());
            if let Some(dir) = context {
                build = build.context(dir);
            }
            for (key, value) in args {
                build = build.arg(key, value);
            }
            if let Some(stage) = target {
                build = build.target(stage);
            }
            if let Some(platform) = platform {
                build = build.platform(platform);
            }
            build = secrets.into_iter().fold(build, |build, (id, content)| build.secret(id, content));
            build = secret_files.into_iter().fold(build, |build, (id, file)| build.secret_file(id, file));
            build = ssh_agents.into_iter().fold(build, |build, (id, socket)| build.ssh_agent(id, socket));
            if let Some(name) = name {
                build = build.name(name);
            }
            if let Some(seconds) = timestamp {
                build = build.timestamp(seconds);
            }
            store.build(&build, &|step| watch.tell((step.number, step.total, &step.text, step.cached)))
        });
        built.map(|image| image.id.to_string())
    }
}
