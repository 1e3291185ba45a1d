//! The store of images, for `sandcell.Store`. What is an object in Python comes as JSON.

use std::path::PathBuf;

use pyo3::prelude::*;
use sandcell::image::{Build, Commit, Format, Load, Owners, Reference, Source, base_of};
use sandcell::{Error, Network};

use crate::raise;

/// A directory of images and volumes.
#[pyclass(frozen, module = "sandcell._native")]
pub struct Store {
    inner: sandcell::image::Store,
}

fn unknown(option: &str, given: &str, known: &str) -> PyErr {
    raise(Error::option(option, format!("{given:?} is not {known}")))
}

fn name(text: Option<&str>) -> PyResult<Option<Reference>> {
    text.map(|text| text.parse().map_err(raise)).transpose()
}

#[pymethods]
impl Store {
    #[new]
    fn new(py: Python<'_>, dir: Option<PathBuf>) -> PyResult<Store> {
        let open = || match dir {
            Some(dir) => sandcell::image::Store::open(dir),
            None => sandcell::image::Store::open_default(),
        };
        Ok(Store { inner: py.detach(open).map_err(raise)? })
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.inner.dir().to_owned()
    }

    fn load(&self, py: Python<'_>, path: PathBuf, format: &str, as_name: Option<&str>) -> PyResult<Vec<String>> {
        let source = match format {
            "detect" => Source::Detect(path),
            "oci" => Source::Oci(path),
            "docker" => Source::Docker(path),
            "rootfs" => Source::RootFs(path),
            other => return Err(unknown("format", other, "detect, oci, docker or rootfs")),
        };
        let mut how = Load::new();
        if let Some(name) = name(as_name)? {
            how = how.name(name);
        }
        // `Load` may hold a callback, which is not for another thread.
        let loaded = py.detach(move || self.inner.load(&source, &how)).map_err(raise)?;
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

    fn commit(&self, py: Python<'_>, upper: PathBuf, as_name: Option<&str>) -> PyResult<String> {
        let name = name(as_name)?;
        let commit = || {
            let base =
                base_of(&upper)?.ok_or_else(|| Error::option("upper", "nothing in it says which image it lies on"))?;
            let mut commit = Commit::on(base).owners(Owners::of_upper(&upper)?).created_by("sandcell commit");
            if let Some(name) = name {
                commit = commit.name(name);
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
    ) -> PyResult<String> {
        let network = match network {
            "none" => Network::None,
            "loopback" => Network::Loopback,
            "host" => Network::Host,
            other => return Err(unknown("network", other, "none, loopback or host")),
        };
        let name = name(as_name)?;
        let build = || {
            let file = dockerfile.display().to_string();
            let text = std::fs::read_to_string(&dockerfile)
                .map_err(|e| Error::option(format!("dockerfile {file}"), format!("cannot be read: {e}")))?;
            let sandbox = sandcell::Sandbox::builder().network(network);
            let mut build = Build::dockerfile(&text, &file)?.context(context).sandbox(sandbox).cache(cache);
            for (key, value) in args {
                build = build.arg(key, value);
            }
            if let Some(name) = name {
                build = build.name(name);
            }
            if let Some(seconds) = timestamp {
                build = build.timestamp(seconds);
            }
            self.inner.build(&build, &|_| {})
        };
        py.detach(build).map(|image| image.id.to_string()).map_err(raise)
    }
}
