//! Readers that a layer passes through on its way: bounded, counted and hashed exactly as it is used.

use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use sha2::Digest as _;

use super::manifest::Compression;
use super::reference::Digest;

/// One read, one hash update, one write: large enough that their own cost vanishes, small enough for the cache.
pub(crate) const CHUNK: usize = 256 << 10;

/// The largest zstd window that is accepted: as much as the program `zstd` takes without being told to, and its levels
/// up to `--ultra -22` use. A decoder has that much in memory, where the layer is as large.
const ZSTD_WINDOW: u64 = 128 << 20;
/// The same for xz: the dictionary of `xz -9`, and what the decoder needs beside it.
const XZ_MEMORY_KIB: u32 = 80 << 10;

/// How something is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// As the store keeps layers.
    Kept(Compression),
    Xz,
    Bzip2,
}

impl From<Compression> for Packing {
    fn from(compression: Compression) -> Packing {
        Packing::Kept(compression)
    }
}

impl Packing {
    /// As many first bytes tell.
    pub const START: usize = 6;

    pub fn sniff(start: &[u8]) -> Packing {
        match start {
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Packing::Bzip2,
            start => Packing::Kept(Compression::sniff(start)),
        }
    }
}

/// The packing of a stream, and the stream from its start.
pub(crate) fn sniffed(mut inner: Box<dyn Read>) -> io::Result<(Packing, Box<dyn Read>)> {
    let mut start = Vec::new();
    (&mut inner).take(Packing::START as u64).read_to_end(&mut start)?;
    Ok((Packing::sniff(&start), Box::new(io::Cursor::new(start).chain(inner))))
}

/// A part of a file, by position: many can be read at once from one descriptor.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub file: Arc<std::fs::File>,
    pub offset: u64,
    pub len: u64,
}

/// What a layer is read from, once.
#[derive(Debug, Clone)]
pub(crate) enum Blob {
    Part(Part),
    #[cfg(feature = "pull")]
    Remote(super::pull::RemoteBlob),
}

impl Blob {
    pub fn len(&self) -> u64 {
        match self {
            Blob::Part(part) => part.len,
            #[cfg(feature = "pull")]
            Blob::Remote(remote) => remote.len,
        }
    }

    pub fn open(self) -> Box<dyn Read> {
        match self {
            Blob::Part(part) => Box::new(part),
            #[cfg(feature = "pull")]
            Blob::Remote(remote) => Box::new(remote.open()),
        }
    }
}

impl From<Part> for Blob {
    fn from(part: Part) -> Blob {
        Blob::Part(part)
    }
}

#[cfg(feature = "pull")]
impl From<super::pull::RemoteBlob> for Blob {
    fn from(remote: super::pull::RemoteBlob) -> Blob {
        Blob::Remote(remote)
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.len).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let bytes = self.file.read_at(&mut buffer[..most], self.offset)?;
        if bytes == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "cut off"));
        }
        self.offset += bytes as u64;
        self.len -= bytes as u64;
        Ok(bytes)
    }
}

/// Hashes what passes, and writes it to a file too where there is one.
pub(crate) struct Tee<R> {
    inner: R,
    hasher: sha2::Sha256,
    copy: Option<std::fs::File>,
    pub bytes: u64,
}

impl<R: Read> Tee<R> {
    pub fn new(inner: R, copy: Option<std::fs::File>) -> Tee<R> {
        Tee { inner, hasher: sha2::Sha256::new(), copy, bytes: 0 }
    }

    pub fn digest(self) -> Digest {
        Digest::from_hasher(self.hasher)
    }
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..bytes]);
        if let Some(copy) = &mut self.copy {
            io::Write::write_all(copy, &buffer[..bytes])?;
        }
        self.bytes += bytes as u64;
        Ok(bytes)
    }
}

/// A buffer whose reads are always large, so that what lies beneath works in chunks.
pub(crate) fn chunked<R: Read>(inner: R) -> io::BufReader<R> {
    io::BufReader::with_capacity(CHUNK, inner)
}

/// The layer's tar out of its packing.
pub(crate) enum Decoder<R: BufRead> {
    None(R),
    Gzip(Box<flate2::bufread::MultiGzDecoder<R>>),
    Zstd(ZstdFrames<R>),
    Xz(Box<lzma_rust2::XzReader<R>>),
    Bzip2(Box<bzip2::bufread::MultiBzDecoder<R>>),
}

impl<R: BufRead> Decoder<R> {
    pub fn new(inner: R, packing: impl Into<Packing>) -> Decoder<R> {
        match packing.into() {
            Packing::Kept(Compression::None) => Decoder::None(inner),
            Packing::Kept(Compression::Gzip) => Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(inner))),
            Packing::Kept(Compression::Zstd) => Decoder::Zstd(ZstdFrames::new(inner)),
            Packing::Xz => Decoder::Xz(Box::new(lzma_rust2::XzReader::new_mem_limit(inner, true, XZ_MEMORY_KIB))),
            Packing::Bzip2 => Decoder::Bzip2(Box::new(bzip2::bufread::MultiBzDecoder::new(inner))),
        }
    }

    pub fn get_ref(&self) -> &R {
        match self {
            Decoder::None(inner) => inner,
            Decoder::Gzip(gzip) => gzip.get_ref(),
            Decoder::Zstd(zstd) => &zstd.inner,
            Decoder::Xz(xz) => xz.inner(),
            Decoder::Bzip2(bzip2) => bzip2.get_ref(),
        }
    }

    pub fn into_inner(self) -> R {
        match self {
            Decoder::None(inner) => inner,
            Decoder::Gzip(gzip) => gzip.into_inner(),
            Decoder::Zstd(zstd) => zstd.inner,
            Decoder::Xz(xz) => xz.into_inner(),
            Decoder::Bzip2(bzip2) => bzip2.into_inner(),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::None(inner) => inner.read(buffer),
            Decoder::Gzip(gzip) => gzip.read(buffer),
            Decoder::Zstd(zstd) => zstd.read(buffer),
            Decoder::Xz(xz) => xz.read(buffer),
            Decoder::Bzip2(bzip2) => bzip2.read(buffer),
        }
    }
}

/// Frame after frame; frames that a decoder has to skip (indexes of zstd:chunked and the like) are skipped.
pub(crate) struct ZstdFrames<R> {
    inner: R,
    decoder: Box<structured_zstd::decoding::FrameDecoder>,
    in_frame: bool,
}

impl<R: BufRead> ZstdFrames<R> {
    fn new(inner: R) -> ZstdFrames<R> {
        let mut decoder = Box::new(structured_zstd::decoding::FrameDecoder::new());
        decoder.set_max_window_size(ZSTD_WINDOW).expect("a window that the format has");
        ZstdFrames { inner, decoder, in_frame: false }
    }

    /// False at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        use structured_zstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
        while !self.inner.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.inner) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut (&mut self.inner).take(u64::from(length)), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "cut off inside a skippable frame"));
                    }
                }
                Err(error) => return Err(bad(error)),
            }
        }
        Ok(false)
    }
}

fn bad(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("this zstd stream does not decode: {error}"))
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame {
                if !self.next_frame()? {
                    return Ok(0);
                }
                self.in_frame = true;
            }
            if self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let how = structured_zstd::decoding::BlockDecodingStrategy::UptoBytes(buffer.len());
                self.decoder.decode_blocks(&mut self.inner, how).map_err(bad)?;
            }
            let bytes = Read::read(&mut *self.decoder, buffer).map_err(bad)?;
            if bytes > 0 {
                return Ok(bytes);
            }
            if self.decoder.is_finished() {
                self.decoder.verify_content_size().map_err(bad)?;
                let (said, is) = (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
                if said.is_some() && said != is {
                    return Err(bad("its checksum is wrong"));
                }
                self.in_frame = false;
            }
        }
    }
}

/// When to stop: a deadline, and a word from another layer's worker that failed.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    pub deadline: Option<Instant>,
    pub stopped: Arc<AtomicBool>,
}

impl Stop {
    pub fn check(&self) -> io::Result<()> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(io::Error::other(STOPPED));
        }
        if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the time limit is over"));
        }
        Ok(())
    }
}

/// What a worker says that ended because another one failed, or because the caller wants no more of it.
pub(crate) const STOPPED: &str = "it was stopped";
