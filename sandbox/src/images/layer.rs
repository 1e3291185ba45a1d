//! One layer into the store, in one pass: the bytes that are hashed are the bytes that are decompressed, unpacked and
//! kept, so there is nothing that could be changed in between.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::implied::Implied;
use super::manifest::Compression;
use super::reference::Digest;
use super::store::{LayerInfo, Store, TempDir, because, failed};
use super::stream::{Blob, CHUNK, Decoder, Packing, Part, STOPPED, Stop, Tee, chunked, sniffed};
use super::tar::{Reader, Refusal};
use super::unpack::{Unpacker, private_umask};
use crate::error::{Failure, Result};

/// A layer as a source has it.
#[derive(Debug, Clone)]
pub(crate) struct LayerSource {
    pub blob: Blob,
    /// What the manifest says of the packing; found from the first bytes where nobody says anything.
    pub compression: Option<Compression>,
    /// What the manifest says of the blob.
    pub digest: Option<Digest>,
    /// What the configuration says of the tar.
    pub diff_id: Option<Digest>,
    /// For errors.
    pub name: String,
}

/// A layer that is whole and verified, and not yet in its place.
#[derive(Debug)]
pub(crate) struct Made {
    pub info: LayerInfo,
    pub temp: TempDir,
}

/// Makes a layer in `tmp/`. Under the shared lock and, where the diff id is known, the layer's own.
pub(crate) fn make(store: &Store, source: LayerSource, stop: &Stop, progress: &(dyn Fn(u64) + Sync)) -> Result<Made> {
    let name = source.name.clone();
    let subject = |message: &str| Failure::new("image-layer", name.clone(), message);
    let temp = store.temp_dir()?;
    let path = |name: &str| temp.path.join(name);
    let create = |name: &str| File::create_new(path(name)).map_err(|e| failed(&path(name), "writing a layer", &e));
    fs::DirBuilder::new().mode(0o755).create(path("fs")).map_err(|e| failed(&path("fs"), "writing a layer", &e))?;
    let root = File::open(path("fs")).map_err(|e| failed(&path("fs"), "writing a layer", &e))?;
    let times = File::options().read(true).write(true).create_new(true).open(path("times"));
    let times = times.map_err(|e| failed(&path("times"), "writing a layer", &e))?;
    let (copy, withheld) = (create("blob")?, create("withheld")?);

    let (packing, input) = sniffed(source.blob.open()).map_err(|e| because(subject("reading it"), &e))?;
    check_packing(&name, source.compression, packing)?;
    // In forms that no other tool takes for a layer nothing is kept: then it is the tar itself that is.
    let (copy, tar_copy, compression) = match packing {
        Packing::Kept(compression) => (Some(copy), None, compression),
        Packing::Xz | Packing::Bzip2 => (None, Some(copy), Compression::None),
    };
    let input = chunked(Tee::new(input, copy));
    let stream = Stream {
        decoder: Decoder::new(input, packing),
        stop,
        progress,
        reported: 0,
        bytes: 0,
        most: store.limits.layer_bytes,
        ratio: store.limits.ratio,
    };
    let (unpacked, hashed) = unpack(store, stream, root.into(), times, withheld, tar_copy);
    // The stream's own failure is the cause where both failed: the unpacker then only saw its end.
    let hashed = hashed.map_err(|e| not_read(&name, &e, unpacked.as_ref().err()))?;
    let counts = unpacked.map_err(|refusal| refused(&name, refusal))?;
    let Some(hashed) = hashed else {
        return Err(subject("the layer was not read to its end").setup());
    };
    check_digests(&name, (source.digest, source.diff_id), (hashed.blob, hashed.diff_id))?;
    let as_tar = !matches!(packing, Packing::Kept(_));
    let info = LayerInfo {
        diff_id: hashed.diff_id,
        blob: if as_tar { hashed.diff_id } else { hashed.blob },
        blob_size: if as_tar { hashed.tar_size } else { hashed.blob_size },
        compression,
        tar_size: hashed.tar_size,
        bytes: counts.bytes,
        members: counts.members,
        implied: Implied { implied: counts.implied, whiteouts: counts.whiteouts, devices: counts.devices },
        tree_bytes: counts.tree_bytes,
        boot: boot_id(),
    };
    fs::remove_file(path("times")).map_err(|e| failed(&path("times"), "writing a layer", &e))?;
    let text = serde_json::to_vec(&info).map_err(|e| failed(&path("layer.json"), "writing a layer", &e.into()))?;
    fs::write(path("layer.json"), text).map_err(|e| failed(&path("layer.json"), "writing a layer", &e))?;
    Ok(Made { info, temp })
}

fn not_read(name: &str, error: &io::Error, refusal: Option<&Refusal>) -> crate::Error {
    let subject = |message: &str| Failure::new("image-layer", name, message);
    if error.to_string() == STOPPED {
        return subject(STOPPED).setup();
    }
    let member = refusal.filter(|refusal| !refusal.member.is_empty());
    let member = member.map_or(String::new(), |refusal| format!(" (at {})", refusal.member));
    because(subject(&format!("reading the layer{member}")), error)
}

fn check_packing(name: &str, said: Option<Compression>, packing: Packing) -> Result<()> {
    let Some(said) = said.filter(|said| Packing::Kept(*said) != packing) else { return Ok(()) };
    let is = match packing {
        Packing::Kept(is) => format!("{is:?}"),
        other => format!("{other:?}"),
    };
    let message = format!("its media type says {said:?}, but its content is {is}");
    Err(Failure::new("image-layer", name, message).setup())
}

/// The digests of the blob and of its tar, as they are said to be and as they are.
fn check_digests(name: &str, said: (Option<Digest>, Option<Digest>), is: (Digest, Digest)) -> Result<()> {
    let message = match said {
        (Some(blob), _) if blob != is.0 => format!("its content has the digest {}", is.0),
        (_, Some(diff_id)) if diff_id != is.1 => {
            format!("its tar has the digest {}, the configuration says {diff_id}", is.1)
        }
        _ => return Ok(()),
    };
    Err(Failure::new("image-layer", name, message).hint(CHANGED).setup())
}

const CHANGED: &str = "the image was damaged or changed on its way; get it again";

fn refused(layer: &str, refusal: Refusal) -> crate::Error {
    // A member can be without a name; the error never is.
    let failure = if refusal.member.is_empty() {
        Failure::new("image-layer", layer, refusal.message)
    } else {
        Failure::new("image-layer", refusal.member, format!("{} (in {layer})", refusal.message))
    };
    match refusal.io {
        Some(e) if e.kind() == io::ErrorKind::NotFound => {
            failure.cause(&e).hint("the layer is damaged, or lacks a file that it links to; get it again").setup()
        }
        Some(e) => because(failure, &e),
        None => failure.hint("the layer is damaged or made to do harm").setup(),
    }
}

/// The decoded stream with its limits.
struct Stream<'a> {
    decoder: Decoder<io::BufReader<Tee<Box<dyn Read>>>>,
    stop: &'a Stop,
    progress: &'a (dyn Fn(u64) + Sync),
    reported: u64,
    bytes: u64,
    most: u64,
    ratio: u64,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stop.check()?;
        let bytes = self.decoder.read(buffer)?;
        self.bytes += bytes as u64;
        let packed = self.decoder.get_ref().get_ref().bytes;
        if packed > self.reported {
            (self.progress)(packed - self.reported);
            self.reported = packed;
        }
        if self.bytes > self.most {
            return Err(io::Error::other(format!("more than {} bytes in a layer", self.most)));
        }
        if self.bytes > 64 << 20 && self.bytes / self.ratio > packed {
            return Err(io::Error::other(format!("a layer that grows to more than {} times its size", self.ratio)));
        }
        Ok(bytes)
    }
}

struct Hashed {
    blob: Digest,
    blob_size: u64,
    diff_id: Digest,
    tar_size: u64,
}

type Unpacked = std::result::Result<super::unpack::Counts, Refusal>;

/// Decodes and hashes on this thread and unpacks on another: each is about half of the work, and a large layer would
/// otherwise keep one processor busy while the others have finished theirs.
///
/// No digests where the unpacker stopped before the end.
fn unpack(
    store: &Store,
    mut stream: Stream<'_>,
    root: OwnedFd,
    times: File,
    withheld: File,
    tar_copy: Option<File>,
) -> (Unpacked, io::Result<Option<Hashed>>) {
    let (send, receive) = sync_channel::<io::Result<Vec<u8>>>(4);
    let (give_back, empty) = sync_channel::<Vec<u8>>(8);
    let limits = &store.limits;
    std::thread::scope(|scope| {
        let writer = std::thread::Builder::new().name("sandcell-unpack".into()).spawn_scoped(scope, move || {
            let exact_modes = private_umask();
            let pieces = Pieces { receive, give_back, piece: Vec::new(), at: 0 };
            let mut reader = Reader::new(pieces);
            let counts = Unpacker::new(root, times, withheld, limits, exact_modes).run(&mut reader)?;
            Ok(counts)
        });
        let writer = match writer {
            Ok(writer) => writer,
            Err(e) => return (Ok(Default::default()), Err(e)),
        };
        let hashed = pump(&mut stream, tar_copy, &send, &empty);
        drop(send);
        let counts = match writer.join() {
            Ok(counts) => counts,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let hashed = hashed.and_then(|tar| match tar {
            Some((diff_id, tar_size)) => {
                let mut blob = stream.decoder.into_inner();
                // Behind the last frame or member; gzip's decoder has refused anything that is not one.
                io::copy(&mut blob, &mut io::sink())?;
                let tee = blob.into_inner();
                let blob_size = tee.bytes;
                Ok(Some(Hashed { blob: tee.digest(), blob_size, diff_id, tar_size }))
            }
            None => Ok(None),
        });
        (counts, hashed)
    })
}

/// None where the other side stopped listening.
fn pump(
    stream: &mut Stream<'_>,
    copy: Option<File>,
    send: &SyncSender<io::Result<Vec<u8>>>,
    empty: &Receiver<Vec<u8>>,
) -> io::Result<Option<(Digest, u64)>> {
    let mut tar = Tee::new(stream, copy);
    loop {
        let mut piece = empty.try_recv().unwrap_or_default();
        piece.resize(CHUNK, 0);
        let mut filled = 0;
        while filled < CHUNK {
            match tar.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    // The unpacker must not take a broken stream for a complete one.
                    let _ = send.send(Err(io::Error::other("the stream broke")));
                    return Err(e);
                }
            }
        }
        piece.truncate(filled);
        let last = filled < CHUNK;
        if filled > 0 && send.send(Ok(piece)).is_err() {
            return Ok(None);
        }
        if last {
            let bytes = tar.bytes;
            return Ok(Some((tar.digest(), bytes)));
        }
    }
}

/// The other end of the channel as a reader.
struct Pieces {
    receive: Receiver<io::Result<Vec<u8>>>,
    give_back: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl io::BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.piece.len() {
            match self.receive.recv() {
                Ok(piece) => {
                    let used = std::mem::replace(&mut self.piece, piece?);
                    self.at = 0;
                    let _ = self.give_back.try_send(used);
                }
                // The sender is gone: the end.
                Err(_) => return Ok(&[]),
            }
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = io::BufRead::fill_buf(self)?.read(buffer)?;
        io::BufRead::consume(self, bytes);
        Ok(bytes)
    }
}

/// Makes a layer of an archive that was packed here: its tar lies in `temp` as `blob` would.
pub(crate) fn of_packed_file(file: File, name: &str) -> Result<LayerSource> {
    let len = file.metadata().map_err(|e| Failure::new("image-layer", name, "reading it").cause(&e).setup())?.len();
    let blob = Part { file: file.into(), offset: 0, len }.into();
    let compression = Some(Compression::None);
    Ok(LayerSource { blob, compression, digest: None, diff_id: None, name: name.to_owned() })
}

/// Empty where the kernel does not say: no layer then counts as made since the last boot.
pub(crate) fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// Sizes of all files in a tree, by name.
pub(crate) fn tree_bytes(dir: &Path) -> io::Result<u64> {
    let mut total = 0;
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                total += entry.metadata()?.len();
            }
        }
    }
    Ok(total)
}
