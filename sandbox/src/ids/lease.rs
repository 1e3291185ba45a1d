//! Leases of ids: which ones are taken by live sandboxes of the same user, known to all of that user's processes.
//!
//! A lease is a byte-range lock on an empty file, one byte an id. It belongs to an open file description
//! (`F_OFD_SETLK`, fcntl(2)), so the kernel drops it when the last descriptor of it is closed, whatever happens to its
//! holder; there is nothing to clean up. All leases of a process are locked through one description of the file, so that they
//! take no descriptor each; locks of one and the same never stand in each other's way, so the process notes what it holds.
//! A process forked without exec shares the description: where the holder ends without letting go, the leases last until that
//! process ends too. It makes a description of its own for what it leases itself.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, fcntl, openat};
use nix::sys::stat::{FileStat, Mode, fstat, mkdirat};

use crate::error::{Failure, Result};
use crate::ids::Refusal;
use crate::ids::ranges::{Range, Ranges};
use crate::ids::source::Source;
use crate::sys::lock::{briefly, bytes};

/// UIDs are locked at the byte of their number, GIDs above all UIDs.
const GIDS: u64 = 1 << 32;
/// So many of the last leases are remembered in the file, so as not to be given out again at once.
const MEMORY: u64 = 32;
/// Bytes of such a note: first id, count, running number.
const RECORD: u64 = 16;

/// Where the lock files lie.
///
/// All that exist are used, not the first: a process may have no /run/user (started by cron) and another a private
/// /tmp, and both must see what the other holds. The environment has no say, for it differs between processes.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// An existing directory, and the directory to be made in it.
    pub candidates: Vec<(PathBuf, String)>,
    pub uid: u32,
}

/// What is leased, as long as the value lives.
#[derive(Debug)]
pub(crate) struct Lease {
    pub uid: u32,
    pub gid: u32,
    count: u32,
    book: Arc<Book>,
    /// No other lease is locked through the same description.
    apart: bool,
    handed_over: bool,
}

impl Lease {
    fn ranges(&self) -> [Range; 2] {
        [Range::new(self.uid, self.count), of_gids(Range::new(self.gid, self.count))]
    }

    /// Moves it to a description that has no other: for somebody who is to hold it and nothing else of this process. At no
    /// moment does nobody hold it.
    pub(crate) fn set_apart(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.apart, true) {
            return Ok(());
        }
        let own = self.book.again().map_err(|e| failed("the leases cannot be opened once more", &e))?;
        for range in self.ranges() {
            // Others could only lock it for reading meanwhile, and then it is an error.
            let shared = self.book.lock_as(libc::F_RDLCK, range)? && own.lock_as(libc::F_RDLCK, range)?;
            self.book.let_go(range);
            if !shared || !own.lock_as(libc::F_WRLCK, range)? {
                return Err(failed("a lease cannot be moved", &ErrorKind::WouldBlock.into()));
            }
            own.held().push(range);
        }
        self.book = Arc::new(own);
        Ok(())
    }

    /// What holds it, once it is set apart: whoever has a copy of each of these holds it, too.
    pub(crate) fn locks(&self) -> &[File] {
        &self.book.files
    }

    /// Closed and not let go: somebody else holds it now.
    pub(crate) fn hand_over(mut self) {
        self.handed_over = true;
    }
}

/// Let go and not only closed, as `crate::sys::lock::Lock` is and for its reasons.
impl Drop for Lease {
    fn drop(&mut self) {
        if self.book.is_own() && !self.handed_over {
            self.ranges().into_iter().for_each(|range| self.book.let_go(range));
        }
    }
}

#[cfg(test)]
impl Lease {
    pub(crate) fn copies(&self) -> Vec<File> {
        self.book.files.iter().map(|file| file.try_clone().expect("a descriptor is free")).collect()
    }
}

impl Places {
    pub(crate) fn of(uid: u32) -> Places {
        let run = if uid == 0 { PathBuf::from("/run") } else { PathBuf::from(format!("/run/user/{uid}")) };
        let candidates = vec![(run, "sandcell".to_owned()), (PathBuf::from("/tmp"), format!("sandcell-{uid}"))];
        Places { candidates, uid }
    }

    /// A random slice of `count` UIDs and one of `count` GIDs that no live sandbox has.
    pub(crate) fn lease(
        &self,
        uids: &Ranges,
        gids: &Ranges,
        count: u32,
        wait: Option<Duration>,
    ) -> Result<Lease, Refusal> {
        // Where the wait is too long to be added, it is for ever.
        let deadline = Instant::now().checked_add(wait.unwrap_or_default());
        let mut pause = Duration::from_millis(2);
        loop {
            let book = self.book()?;
            let full = match book.take_both(uids, gids, count)? {
                // Somebody tidied up: the next process would make another file.
                Ok(ids) if book.is_unlinked() => {
                    drop(Lease::new(ids, count, book));
                    continue;
                }
                Ok(ids) => return Ok(Lease::new(ids, count, book)),
                Err(full) => full,
            };
            drop(book);
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Err(full.refusal(wait));
            }
            let left = deadline.map_or(pause, |deadline| deadline - now);
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// The slices that begin with these ids, and no others: files belong to them.
    pub(crate) fn lease_again(
        &self,
        source: &Source,
        slices: (u32, u32),
        count: u32,
        wait: Option<Duration>,
    ) -> Result<Lease, Refusal> {
        let (uids, gids) = (Range::new(slices.0, count), Range::new(slices.1, count));
        let whose = format!("ids {} to {}", uids.start, uids.end - 1);
        if !uids.is_within(&source.uids) || !gids.is_within(&source.gids) {
            let failure = Failure::new("upper", whose, "the files belong to ids that are not the caller's sub-ids now");
            let hint = "Have root give them back (/etc/subuid, /etc/subgid), or give the files to the caller.";
            return Err(Refusal::Broken(failure.hint(hint).setup()));
        }
        let only = |range| std::iter::once(range).collect::<Ranges>();
        self.lease(&only(uids), &only(gids), count, wait).map_err(|refusal| match refusal {
            Refusal::Broken(error) if error.errno() == Some(libc::EAGAIN) => {
                let failure = Failure::new("upper", whose, "the ids that its files belong to are in use by a sandbox");
                let hint = "Wait for the end of the sandbox that has them (`wait_for_ids`), or give the files to the \
                            caller: `sandcell files reclaim DIR`.";
                Refusal::Broken(failure.errno(libc::EAGAIN).hint(hint).setup())
            }
            other => other,
        })
    }

    /// The slices that begin with these ids, together with others who lease them so; nobody has them alone meanwhile.
    #[cfg(feature = "image")]
    pub(crate) fn lease_shared(
        &self,
        (uid, gid): (u32, u32),
        count: u32,
        wait: Option<Duration>,
    ) -> Result<Lease, Refusal> {
        let deadline = Instant::now().checked_add(wait.unwrap_or_default());
        let mut pause = Duration::from_millis(2);
        loop {
            // One of its own: what two runs of this process have together is let go by each of them.
            let mut lease = Lease::new((uid, gid), count, Arc::new(self.open()?));
            lease.apart = true;
            let [uids, gids] = lease.ranges();
            let lock = |range| lease.book.lock_as(libc::F_RDLCK, range);
            if lock(uids)? && lock(gids)? && !lease.book.is_unlinked() {
                return Ok(lease);
            }
            drop(lease);
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                let whose = format!("ids {uid} to {}", u64::from(uid) + u64::from(count) - 1);
                let failure = Failure::new("lease", whose, "a live sandbox has some of the ids of the image's files");
                let hint = "End the user's other sandboxes, those with a name too (`sandcell ps`), wait longer \
                            (`wait_for_ids`), or have root add ids, which the others take then: usermod --add-subuids \
                            200000-265535 --add-subgids 200000-265535 USER.";
                return Err(Refusal::Broken(failure.hint(hint).errno(libc::EAGAIN).setup()));
            }
            std::thread::sleep(pause.min(deadline.map_or(pause, |deadline| deadline - now)));
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// The files through which this process locks, opened where no lease is alive. Never waited for: a thread may have had it
    /// when this process was forked, and then each lease has files of its own.
    fn book(&self) -> Result<Arc<Book>, Refusal> {
        static OPEN: Mutex<Vec<Weak<Book>>> = Mutex::new(Vec::new());
        let Some(mut open) = briefly(&OPEN) else { return Ok(Arc::new(self.open()?)) };
        let usable = |book: &Arc<Book>| book.is_own() && book.candidates == self.candidates && !book.is_unlinked();
        if let Some(book) = open.iter().filter_map(Weak::upgrade).find(usable) {
            return Ok(book);
        }
        let book = Arc::new(self.open()?);
        open.retain(|book| book.strong_count() > 0);
        open.push(Arc::downgrade(&book));
        Ok(book)
    }

    /// The lock file of each place that is there and safe.
    fn open(&self) -> Result<Book, Refusal> {
        let mut files = Vec::new();
        let mut reasons = Vec::new();
        let mut errno = None;
        for (parent, name) in &self.candidates {
            match self.open_in(parent, name) {
                Ok(file) => files.push(file),
                Err(e) => {
                    reasons.push(format!("{}: {e}", parent.join(name).display()));
                    errno = e.raw_os_error();
                }
            }
        }
        if files.is_empty() {
            let mut failure =
                Failure::new("lease", reasons.join("; "), "there is no place to note which ids are in use");
            failure.errno = errno;
            return Err(Refusal::Absent(
                failure
                    .hint("Give the caller a writable /run/user/UID or /tmp, or remove what stands in the way there."),
            ));
        }
        Ok(Book { files, owner: std::process::id(), candidates: self.candidates.clone(), held: Mutex::default() })
    }

    fn open_in(&self, parent: &Path, name: &str) -> io::Result<File> {
        let directory = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_PATH;
        let parent = openat(AT_FDCWD, parent, directory, Mode::empty())?;
        // Another user's directory would only be safe with the sticky bit, as /tmp has it.
        let stat = fstat(&parent)?;
        if !(stat.st_uid == self.uid || stat.st_uid == 0) || (stat.st_mode & 0o022 != 0 && stat.st_mode & 0o1000 == 0) {
            return Err(io::Error::other("the directory above it is writable by others"));
        }
        match mkdirat(&parent, name, Mode::S_IRWXU) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let dir = openat(&parent, name, directory | OFlag::O_NOFOLLOW, Mode::empty())?;
        self.check(&fstat(&dir)?)?;
        // The sticky bit keeps those who tidy up old files in /tmp and /run/user off this one.
        let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_ISVTX;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file: OwnedFd = openat(&dir, "ids", flags, mode)?;
        self.check(&fstat(&file)?)?;
        Ok(File::from(file))
    }

    fn check(&self, stat: &FileStat) -> io::Result<()> {
        match () {
            () if stat.st_uid != self.uid => Err(io::Error::other(format!("belongs to UID {}", stat.st_uid))),
            () if stat.st_mode & 0o077 != 0 => Err(io::Error::other("others have permissions on it (chmod 700)")),
            () => Ok(()),
        }
    }
}

/// The lock files of all places: what is locked is locked in each of them.
#[derive(Debug)]
struct Book {
    files: Vec<File>,
    owner: u32,
    candidates: Vec<(PathBuf, String)>,
    /// The bytes that are locked through it: to the kernel they are free for another lock through it.
    held: Mutex<Vec<Range>>,
}

/// Nothing is free.
struct Full {
    kind: &'static str,
    count: u32,
    total: u64,
    used: u64,
    holders: usize,
    /// Runs of images have some of them together.
    lent: bool,
}

impl Lease {
    fn new((uid, gid): (u32, u32), count: u32, book: Arc<Book>) -> Lease {
        Lease { uid, gid, count, book, apart: false, handed_over: false }
    }
}

impl Book {
    fn is_own(&self) -> bool {
        self.owner == std::process::id()
    }

    fn held(&self) -> MutexGuard<'_, Vec<Range>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same files by another description.
    fn again(&self) -> io::Result<Book> {
        let reopen = |file: &File| {
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
            File::options().read(true).write(true).open(path)
        };
        let files = self.files.iter().map(reopen).collect::<io::Result<_>>()?;
        Ok(Book { files, owner: self.owner, candidates: self.candidates.clone(), held: Mutex::default() })
    }

    fn let_go(&self, range: Range) {
        let mut held = self.held();
        self.unlock(&self.files, range);
        if let Some(at) = held.iter().position(|other| *other == range) {
            held.swap_remove(at);
        }
    }

    fn unlock(&self, files: &[File], range: Range) {
        for file in files {
            let _ = fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&bytes(libc::F_UNLCK, range.start, range.len())));
        }
    }

    /// A free slice of each, or of none.
    fn take_both(&self, uids: &Ranges, gids: &Ranges, count: u32) -> Result<Result<(u32, u32), Full>> {
        let uid = match self.take("UID", uids, 0, count, None)? {
            Ok(uid) => uid,
            Err(full) => return Ok(Err(full)),
        };
        let gid = self.take("GID", gids, GIDS, count, Some(uid));
        if !matches!(gid, Ok(Ok(_))) {
            self.let_go(Range::new(uid, count));
        }
        Ok(gid?.map(|gid| (uid, gid)))
    }

    /// Takes a free slice at random, `same` where that is one; the inner error says that there is none.
    fn take(
        &self,
        kind: &'static str,
        ids: &Ranges,
        offset: u64,
        count: u32,
        same: Option<u32>,
    ) -> Result<Result<u32, Full>> {
        let recent = self.recent(offset, ids.slices(count));
        let fresh = |start: u32| recent.iter().all(|old| !old.overlaps(&Range::new(start, count)));
        // Equal numbers for UID and GID make the lists of files easier to read; that is all.
        let mut next = same.filter(|&id| Range::new(id, count).is_within(ids));
        // Guessing is cheaper than looking at all locks, as long as most ids are free.
        for _ in 0..16 {
            let guess = if next.is_some() { next.take() } else { random_slice(ids, count)? };
            let Some(id) = guess.filter(|&id| fresh(id)) else { continue };
            if self.lock(offset + u64::from(id), count)? {
                self.remember(offset, id, count);
                return Ok(Ok(id));
            }
        }
        let (mut held, mut lent) = self.in_use(ids, offset)?;
        // Between the look and the lock somebody else may be faster; not for ever.
        for _ in 0..1000 {
            let taken: Ranges = held.iter().copied().collect();
            let free = ids.without(&taken);
            let unused = free.without(&recent.iter().copied().collect());
            let choice = if unused.slices(count) > 0 { unused } else { free };
            let Some(id) = random_slice(&choice, count)? else { break };
            if self.lock(offset + u64::from(id), count)? {
                self.remember(offset, id, count);
                return Ok(Ok(id));
            }
            (held, lent) = self.in_use(ids, offset)?;
        }
        let used = ids.within(&held.iter().copied().collect()).total();
        Ok(Err(Full { kind, count, total: ids.total(), used, holders: held.len(), lent }))
    }

    fn is_unlinked(&self) -> bool {
        self.files.iter().any(|file| fstat(file).is_ok_and(|stat| stat.st_nlink == 0))
    }

    /// Locks the bytes in every place, or in none.
    fn lock(&self, start: u64, count: u32) -> Result<bool> {
        let range = Range { start, end: start + u64::from(count) };
        let mut held = self.held();
        let locked = !held.iter().any(|other| other.overlaps(&range)) && self.lock_as(libc::F_WRLCK, range)?;
        if locked {
            held.push(range);
        }
        Ok(locked)
    }

    fn lock_as(&self, kind: i32, range: Range) -> Result<bool> {
        for (i, file) in self.files.iter().enumerate() {
            match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&bytes(kind, range.start, range.len()))) {
                Ok(_) => {}
                Err(errno) => {
                    self.unlock(&self.files[..i], range);
                    return match errno {
                        nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES => Ok(false),
                        errno => Err(failed("a lease cannot be locked", &errno.into())),
                    };
                }
            }
        }
        Ok(true)
    }

    /// The ids that are held, and whether some are held by several together.
    fn in_use(&self, ids: &Ranges, offset: u64) -> Result<(Vec<Range>, bool)> {
        let of_kind = |range: &Range| (range.start >= GIDS) == (offset == GIDS);
        let ids_of = |range: &Range| Range { start: range.start - offset, end: range.end - offset };
        let mut held: Vec<Range> = self.held().iter().filter(|range| of_kind(range)).map(ids_of).collect();
        let mut lent = false;
        for file in &self.files {
            // The kernel names any lock in the way, not the first: what lies left and right of it is asked about next.
            let mut open: Vec<Range> = ids.iter().copied().collect();
            while let Some(range) = open.pop() {
                let mut lock = bytes(libc::F_WRLCK, offset + range.start, range.len());
                fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock))
                    .map_err(|errno| failed("the leases cannot be read", &errno.into()))?;
                if i32::from(lock.l_type) == libc::F_UNLCK {
                    continue;
                }
                lent |= i32::from(lock.l_type) == libc::F_RDLCK;
                let start = (lock.l_start as u64).saturating_sub(offset);
                // Length 0 stands for "to the end of time"; we never lock so, but must not run in circles over it.
                let end = if lock.l_len > 0 { start + lock.l_len as u64 } else { range.end };
                let found = Range { start, end };
                if !held.contains(&found) {
                    held.push(found);
                }
                open.push(Range { start: range.start, end: found.start.max(range.start) });
                open.push(Range { start: found.end.min(range.end), end: range.end });
                open.retain(|r| r.len() > 0);
            }
        }
        Ok((held, lent))
    }

    /// The last leases, but of no more than half of the `slices` that there are. Only the wish not to give ids out
    /// again at once hangs on them, so two that are noted at the same moment may overwrite each other.
    fn recent(&self, offset: u64, slices: u64) -> Vec<Range> {
        let mut records = self.records(offset);
        records.sort_by_key(|record| std::cmp::Reverse(record.number));
        records.truncate((slices / 2) as usize);
        records.iter().map(|record| record.ids).collect()
    }

    fn remember(&self, offset: u64, id: u32, count: u32) {
        let number = self.records(offset).iter().map(|record| record.number).max().unwrap_or(0).wrapping_add(1);
        let mut bytes = [0; RECORD as usize];
        bytes[0..4].copy_from_slice(&id.to_le_bytes());
        bytes[4..8].copy_from_slice(&count.to_le_bytes());
        bytes[8..16].copy_from_slice(&number.to_le_bytes());
        // A full disk only costs the memory.
        let _ = self.files[0].write_at(&bytes, page(offset) + number % MEMORY * RECORD);
    }

    fn records(&self, offset: u64) -> Vec<Record> {
        let mut bytes = [0; (MEMORY * RECORD) as usize];
        let length = self.files[0].read_at(&mut bytes, page(offset)).unwrap_or(0);
        let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let record = |b: &[u8]| Record {
            ids: Range::new(word(b), word(&b[4..])),
            number: u64::from(word(&b[8..])) | u64::from(word(&b[12..])) << 32,
        };
        bytes[..length].chunks_exact(RECORD as usize).map(record).filter(|record| record.number > 0).collect()
    }
}

/// A lease that was given out; the newest has the highest number.
struct Record {
    ids: Range,
    number: u64,
}

/// Where the GIDs are locked.
fn of_gids(ids: Range) -> Range {
    Range { start: GIDS + ids.start, end: GIDS + ids.end }
}

/// Where the records of one kind of id begin in the file. (Bytes are locked by number, whatever is in them.)
fn page(offset: u64) -> u64 {
    if offset == 0 { 0 } else { MEMORY * RECORD }
}

impl Full {
    fn refusal(&self, wait: Option<Duration>) -> Refusal {
        let Full { kind, count, total, used, holders, lent } = self;
        let waited = wait.map(|w| format!(" after waiting {w:?}")).unwrap_or_default();
        let message = format!(
            "no slice of {count} {kind}s is free{waited}: {used} of {total} are in use by {holders} live sandboxes"
        );
        let failure = Failure::new("lease", "", message)
            .hint("End sandboxes, wait longer (`wait_for_ids`), or have root add ids: usermod --add-subuids 200000-265535 \
                   --add-subgids 200000-265535 USER.")
            .errno(libc::EAGAIN);
        // A single long run of an image would otherwise stop every other sandbox of a user with few ids.
        if *lent { Refusal::Absent(failure) } else { Refusal::Broken(failure.setup()) }
    }
}

fn random_slice(ids: &Ranges, count: u32) -> Result<Option<u32>> {
    let slices = ids.slices(count);
    if slices == 0 {
        return Ok(None);
    }
    // The remainder's bias is below 2^-32 and nobody can predict it.
    let random = crate::sys::random().map_err(|e| failed("the kernel gives no random numbers", &e.into()))?;
    Ok(ids.slice(u64::from_ne_bytes(random) % slices, count))
}

fn failed(message: &str, error: &io::Error) -> crate::Error {
    let hint = match error.kind() {
        ErrorKind::Unsupported => "Open file description locks want Linux 3.15 and a file system that has them.",
        _ => "",
    };
    Failure::new("lease", "", message).cause(error).hint(hint).setup()
}
