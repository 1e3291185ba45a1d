//! The store of images, for `sandcell.Store`. What is an object in Python comes as JSON.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyo3::prelude::*;
use sandcell::image::{Build, Commit, Format, Load, Owners, Progress, Pull, Reference, Source, base_of, changes};
use sandcell::{Error, Network};

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
    fn new(py: Python<'_>, dir: Option<PathBuf>) -> PyResult<Store> {
        let open = || match dir {
            Some(dir) => sandcell::image::Store::open(dir),
            None => sandcell::image::Store::open_default(),
        };
        Ok(Store { inner: Arc::new(py.detach(open).map_err(raise)?) })
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
        plain_http: bool,
        durable: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let image: Reference = image.parse().map_err(raise)?;
        let (name, store) = (name(as_name)?, self.inner.clone());
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

    fn load(
        &self,
        py: Python<'_>,
        path: PathBuf,
        format: &str,
        as_name: Option<&str>,
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
        let (name, store) = (name(as_name)?, self.inner.clone());
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
            if durable {
                how = how.durable();
            }
            store.load(&source, &how)
        })?;
        Ok(loaded.into_iter().flat_map(|image| image.names).collect())
    }

    fn images(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.inner.images_json()).map(|json| json.to_string()).map_err(raise)
    }

    fn inspect(&self, py: Python<'_>, image: &str) -> PyResult<String> {
        py.detach(|| self.inner.image(image)).map(|image| image.inspect().to_string()).map_err(raise)
    }

    fn history(&self, py: Python<'_>, image: &str) -> PyResult<String> {
        py.detach(|| self.inner.image(image)).map(|image| image.history_json().to_string()).map_err(raise)
    }

    fn volumes(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.inner.volumes_json()).map(|json| json.to_string()).map_err(raise)
    }

    /// What a kept upper changes about its image: `A`, `C` or `D`, and the path.
    fn diff(&self, py: Python<'_>, upper: PathBuf, said: Option<String>) -> PyResult<Vec<(char, OsString)>> {
        let look = || {
            let kept = self.inner.use_image(&base(&upper, said)?)?;
            changes(&upper.join("upper"), &kept.layers)
        };
        let found = py.detach(look).map_err(raise)?;
        Ok(found.into_iter().map(|change| (change.kind.letter(), change.path.into_os_string())).collect())
    }

    #[allow(clippy::too_many_arguments, reason = "the Python half has keywords for them")]
    fn commit(
        &self,
        py: Python<'_>,
        upper: PathBuf,
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
            let commit = Commit::on(base(&upper, said)?).owners(Owners::of_upper(&upper)?).created_by(created_by);
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
            self.inner.commit(Some(&upper.join("upper")), &commit)
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

    fn remove(&self, py: Python<'_>, image: &str) -> PyResult<()> {
        py.detach(|| self.inner.remove(image)).map(drop).map_err(raise)
    }

    fn remove_volume(&self, py: Python<'_>, volume: &str) -> PyResult<()> {
        py.detach(|| self.inner.remove_volume(volume)).map_err(raise)
    }

    fn prune(&self, py: Python<'_>) -> PyResult<u64> {
        py.detach(|| self.inner.prune()).map(|pruned| pruned.bytes).map_err(raise)
    }

    #[allow(clippy::too_many_arguments, reason = "the Python half has keywords for them")]
    fn build(
        &self,
        py: Python<'_>,
        dockerfile: PathBuf,
        context: PathBuf,
        as_name: Option<&str>,
        args: Vec<(String, String)>,
        network: &str,
        timestamp: Option<i64>,
        cache: bool,
        show_output: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let network: Network = network.parse().map_err(raise)?;
        let (name, store) = (name(as_name)?, self.inner.clone());
        let built = patiently(py, Watch::new(progress), move |watch| {
            let file = dockerfile.display().to_string();
            let text = std::fs::read_to_string(&dockerfile)
                .map_err(|e| Error::option(format!("dockerfile {file}"), format!("cannot be read: {e}")))?;
            let sandbox = sandcell::Sandbox::builder().network(network);
            let mut build = Build::dockerfile(&text, &file)?.context(context).sandbox(sandbox).cache(cache);
            build = build.show_output(show_output).stop(watch.stop.clone());
            for (key, value) in args {
                build = build.arg(key, value);
            }
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
