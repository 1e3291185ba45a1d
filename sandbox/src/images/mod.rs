//! Images: read-only layers, each stored once, and what makes them.
//!
//! | file | what |
//! |---|---|
//! | `reference` | names of images, digests |
//! | `manifest`, `config` | OCI's and Docker's documents, the choice of a platform |
//! | `source/` | where images come from: OCI layouts, `docker save` archives, plain root file systems |
//! | `tar` | a strict reader of tar streams |
//! | `unpack` | a layer onto the disk, never outside its root |
//! | `layer` | one layer into the store: decompress, hash, unpack in one pass |
//! | `load` | a source into the store, its layers in parallel |
//! | `pull/` | images from registries, feature `pull` |
//! | `store`, `lock` | the directory that holds it all, complete or not at all |
//! | `collect`, `remove` | what goes: images, layers that none has, trees of any depth |
//! | `pack` | a directory or an overlay's upper into a reproducible tar |
//! | `reach` | reading trees that belong to the caller's sub-ids |
//! | `owners` | whom an image's files belong to on the disk, for runs of several ids |
//! | `implied` | directories that a layer needs and does not list: what the layers below say of them shows |
//! | `run`, `volume` | what an image says as the defaults of a run, directories that outlive runs |
//! | `build/` | images from steps: a Dockerfile, or calls |
//! | `merged`, `date` | layers seen as one tree without a mount; dates |
//! | `commit`, `export`, `look` | new layers, archives for other tools, what an image is |
//!
//! Running an image is [`Root::image`](crate::Root::image); its layers stay in the store while the sandbox lives.

pub(crate) mod collect;
pub(crate) mod config;
pub(crate) mod date;
pub(crate) mod export;
pub(crate) mod implied;
pub(crate) mod layer;
pub(crate) mod load;
pub(crate) mod lock;
pub(crate) mod look;
pub(crate) mod manifest;
pub(crate) mod merged;
pub(crate) mod owners;
pub(crate) mod pack;
pub(crate) mod platform;
#[cfg(feature = "pull")]
pub(crate) mod pull;
pub(crate) mod reference;
pub(crate) mod source;
pub(crate) mod store;
pub(crate) mod stream;
pub(crate) mod tar;
pub(crate) mod unpack;
pub(crate) mod volume;

use std::time::Duration;

pub use collect::Pruned;
pub use config::{HistoryEntry, ImageConfig, RootFs, RunConfig};
pub use export::Format;
pub use load::{Load, Loaded, Progress};
pub use look::{Change, ChangeKind, HistoryRow, changes};
pub use manifest::Compression;
pub use pack::{IdRange, Owners};
pub use platform::Platform;
#[cfg(feature = "pull")]
pub use pull::Pull;
pub use reference::{Digest, Reference};
pub use source::Source;
pub use store::{Image, InUse, LayerInfo, Sizes, Store};
pub use unpack::Withheld;
pub use volume::VolumeInfo;

/// What an image may at most be. The defaults let every real image through and stop what was made to fill a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Layers of an image; 500 is the most that overlayfs stacks.
    pub layers: usize,
    /// Members of a layer (1,000,000).
    pub members: u64,
    /// Bytes of a layer's uncompressed tar (32 GiB).
    pub layer_bytes: u64,
    /// How many times larger than the compressed layer the tar may be, counted from 64 MiB on (250). gzip can reach
    /// 1,000, Zstandard much more; programs and documents stay below 20.
    pub ratio: u64,
    /// Time for a whole load (none).
    pub time: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { layers: 500, members: 1_000_000, layer_bytes: 32 << 30, ratio: 250, time: None }
    }
}
