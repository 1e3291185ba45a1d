//! A layer as it arrives. A connection that breaks is made again, from the byte where it broke: what was read before
//! is already hashed and unpacked.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use super::registry::Registry;
use crate::images::reference::Digest;

/// Connections in a row that brought next to nothing.
const FRUITLESS: u32 = 4;
/// So much is worth another one.
const WORTH: u64 = 64 << 10;

/// A blob that its descriptor announced.
#[derive(Clone)]
pub(crate) struct RemoteBlob {
    pub registry: Arc<Registry>,
    pub digest: Digest,
    pub len: u64,
}

impl fmt::Debug for RemoteBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteBlob({}, {})", self.digest, self.len)
    }
}

impl RemoteBlob {
    pub fn open(self) -> impl Read {
        Reader { blob: self, at: 0, body: None, fruitless: 0, from: 0, excess: false }
    }
}

struct Reader {
    blob: RemoteBlob,
    at: u64,
    body: Option<Box<dyn Read>>,
    /// Connections since the last that was worth it, and where this one began.
    fruitless: u32,
    from: u64,
    excess: bool,
}

impl Reader {
    fn body(&mut self) -> io::Result<&mut Box<dyn Read>> {
        if self.body.is_none() {
            if self.fruitless > 0 {
                self.blob.registry.wait(Duration::from_millis(100) * self.fruitless)?;
            }
            self.from = self.at;
            self.body = Some(self.blob.registry.blob(self.blob.digest, self.at, self.blob.len)?);
        }
        self.body.as_mut().ok_or_else(|| io::Error::other("no body"))
    }

    /// After the last byte: a body without a length can go on.
    fn end(&mut self) -> io::Result<usize> {
        self.excess |= self.body.take().is_some_and(|mut body| matches!(body.read(&mut [0]), Ok(1)));
        if self.excess {
            let message = format!("the registry sends more than the {} bytes that the manifest says", self.blob.len);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(0)
    }
}

impl Read for Reader {
    /// Fills the whole buffer: what follows works in chunks, and looks at the first bytes to know the packing.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.piece(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                // It comes again when nothing is held back any more.
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl Reader {
    fn piece(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.blob.len - self.at;
        if left == 0 || buffer.is_empty() {
            return self.end();
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        loop {
            self.blob.registry.check()?;
            let broken = match self.body()?.read(&mut buffer[..most]) {
                Ok(0) => io::Error::new(io::ErrorKind::UnexpectedEof, "the registry ended the connection"),
                Ok(bytes) => {
                    self.at += bytes as u64;
                    return Ok(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            self.body = None;
            self.fruitless = if self.at - self.from >= WORTH { 1 } else { self.fruitless + 1 };
            if self.fruitless > FRUITLESS {
                let message = format!("cut off after {} of {} bytes: {broken}", self.at, self.blob.len);
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
        }
    }
}
