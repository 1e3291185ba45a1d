//! The host's files that a sandbox uses, once all names are resolved: for everything that needs paths and nothing else.

use std::path::PathBuf;

use super::Mount;

/// The root file system: [`Root`](super::Root) with layers in place of an image's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RootFs {
    Host,
    Empty,
    Dir(PathBuf),
    Layers(Vec<PathBuf>),
}

#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub root: RootFs,
    /// The directory of an upper that is kept.
    pub upper: Option<PathBuf>,
    /// Destinations are absolute and clean. Volumes are among them.
    pub mounts: Vec<Mount>,
    /// The layers are an image's: what is the image's own is not covered by private directories and files.
    pub of_image: bool,
    /// Directories of the image that no private one covers: of `/tmp` and `/var/tmp` those that have files in them.
    pub kept_dirs: Vec<PathBuf>,
}

impl Files {
    pub(crate) fn layers(&self) -> Option<&[PathBuf]> {
        match &self.root {
            RootFs::Layers(layers) => Some(layers),
            RootFs::Host | RootFs::Empty | RootFs::Dir(_) => None,
        }
    }

    /// The directories of the root's own tree, the one that hides the others first. Empty where it has none.
    pub(crate) fn topmost_first(&self) -> Vec<PathBuf> {
        match &self.root {
            RootFs::Host | RootFs::Empty => Vec::new(),
            RootFs::Dir(dir) => vec![dir.clone()],
            RootFs::Layers(layers) => {
                let upper = self.upper.iter().map(|dir| dir.join("upper"));
                upper.chain(layers.iter().rev().cloned()).collect()
            }
        }
    }
}
