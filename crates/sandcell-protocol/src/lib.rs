//! What travels between the library and init: the steps of the Plan, the request for a program, and the messages on
//! the sockets. Both sides compile this file; only the library writes records, only init reads them.
#![no_std]
#![allow(missing_docs)]

#[cfg(feature = "write")]
extern crate alloc;
#[cfg(feature = "write")]
use alloc::vec::Vec;

use core::ffi::CStr;

/// Stands where a field cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// What failed, for the library to put into words.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub stage: u32,
    pub errno: i32,
}

/// Names the stage of a failed system call.
pub trait At<T> {
    fn at(self, stage: u32) -> Result<T, Fault>;
}

impl<T> At<T> for Result<T, i32> {
    fn at(self, stage: u32) -> Result<T, Fault> {
        self.map_err(|errno| Fault { stage, errno })
    }
}

/// Reads fields one after the other, never past the end.
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        if count > self.bytes.len() {
            return Err(Malformed);
        }
        let (head, tail) = self.bytes.split_at(count);
        self.bytes = tail;
        Ok(head)
    }
}

/// A kind of field: how it is written and read.
pub trait Field<'a>: Sized {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed>;
    #[cfg(feature = "write")]
    fn write(&self, out: &mut Vec<u8>);
}

impl<'a> Field<'a> for u32 {
    fn read(reader: &mut Reader<'a>) -> Result<u32, Malformed> {
        reader.take(4)?.try_into().map(u32::from_le_bytes).map_err(|_| Malformed)
    }
    #[cfg(feature = "write")]
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
}

impl<'a> Field<'a> for u64 {
    fn read(reader: &mut Reader<'a>) -> Result<u64, Malformed> {
        reader.take(8)?.try_into().map(u64::from_le_bytes).map_err(|_| Malformed)
    }
    #[cfg(feature = "write")]
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
}

impl<'a> Field<'a> for &'a [u8] {
    fn read(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
        let length = u32::read(reader)? as usize;
        reader.take(length)
    }
    #[cfg(feature = "write")]
    fn write(&self, out: &mut Vec<u8>) {
        (self.len() as u32).write(out);
        out.extend_from_slice(self);
    }
}

/// Strings travel with their NUL, so that init can hand them to the kernel where they lie.
impl<'a> Field<'a> for &'a CStr {
    fn read(reader: &mut Reader<'a>) -> Result<&'a CStr, Malformed> {
        let bytes = <&[u8]>::read(reader)?;
        CStr::from_bytes_with_nul(bytes).map_err(|_| Malformed)
    }
    #[cfg(feature = "write")]
    fn write(&self, out: &mut Vec<u8>) {
        self.to_bytes_with_nul().write(out);
    }
}

/// Makes an enum of records with its codec. A record is its number, its length, its fields.
macro_rules! records {
    ($(#[$outer:meta])* $name:ident { $( $(#[$inner:meta])* $variant:ident = $number:literal { $( $(#[$fm:meta])* $field:ident : $kind:ty ),* } $($words:literal)? )* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name<'a> {
            $( $(#[$inner])* $variant { $( $(#[$fm])* $field: $kind ),* }, )*
        }

        impl<'a> $name<'a> {
            /// Reads the next record; `None` at the end.
            // Two records with one number.
            #[deny(unreachable_patterns)]
            pub fn next(reader: &mut Reader<'a>) -> Result<Option<Self>, Malformed> {
                if reader.bytes.is_empty() {
                    return Ok(None);
                }
                let number = u32::read(reader)?;
                let mut fields = Reader::new(<&[u8]>::read(reader)?);
                let record = match number {
                    $( $number => $name::$variant { $( $field: Field::read(&mut fields)? ),* }, )*
                    _ => return Err(Malformed),
                };
                if fields.bytes.is_empty() { Ok(Some(record)) } else { Err(Malformed) }
            }

            #[cfg(feature = "write")]
            pub fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $( $name::$variant { $( $field ),* } => {
                        ($number as u32).write(out);
                        let at = out.len();
                        out.extend_from_slice(&[0; 4]);
                        $( Field::write($field, out); )*
                        let length = (out.len() - at - 4) as u32;
                        out[at..at + 4].copy_from_slice(&length.to_le_bytes());
                    } )*
                }
            }

            /// The record's name in the style of stages: `move-mount`.
            #[cfg(feature = "write")]
            pub fn name(&self) -> &'static str {
                match self { $( $name::$variant { .. } => stringify!($variant), )* }
            }

            /// What it does, where that can be said without its fields.
            #[cfg(feature = "write")]
            pub fn words(&self) -> &'static str {
                match self { $( $name::$variant { .. } => concat!($($words)?), )* }
            }
        }
    };
}

pub mod network;

/// No slot: the field is not used.
pub const NO_SLOT: u32 = u32::MAX;
/// How many things of the host a Plan can hold open: layers and bind sources.
pub const SLOTS: usize = 1024;

/// mount_setattr(2) attributes.
pub const ATTR_RDONLY: u64 = 0x1;
pub const ATTR_NOSUID: u64 = 0x2;
pub const ATTR_NODEV: u64 = 0x4;
pub const ATTR_NOEXEC: u64 = 0x8;

/// What is made where a mount point is missing.
pub const MAKE_NOTHING: u32 = 0;
pub const MAKE_DIR: u32 = 1;
pub const MAKE_FILE: u32 = 2;

/// Directories of base that init makes: the place of the new root; and a view of base itself that is read-only and
/// inert, so that what is mounted from it needs no system call for its attributes.
pub const NEW: &CStr = c"new";
pub const INERT_VIEW: &CStr = c"inert";

records! {
    /// One step of building the sandbox, in the order in which init carries them out.
    ///
    /// "base" is the one private tmpfs on which everything writable and everything made lies; it is never visible as
    /// a whole inside. Paths in base are relative to it. A destination that begins with / is resolved beneath the new
    /// root, whatever lies there; one that does not is a path in base, where every name is of our own making: that
    /// costs a fraction of the system calls.
    Step {
        /// Tells how long each step from here on takes. Comes first, and only where somebody wants to know.
        Trace = 63 {} "tell how long each step takes"
        /// Cuts the mounts of this namespace off from the host's.
        PrivateMounts = 1 {} "cut the mounts off from the host's"
        /// Opens a directory of the host: a layer.
        OpenDir = 2 { slot: u32, path: &'a CStr }
        /// Takes a copy of the mounts at and beneath a path of the host.
        OpenTree = 3 { slot: u32, path: &'a CStr }
        /// Gives up the caller's identity for the sandbox's own. `groups`: whether to drop supplementary groups,
        /// and to have those of `list` instead, as 32-bit numbers.
        Become = 4 { uid: u32, gid: u32, groups: u32, list: &'a [u8] }
        /// Mounts base. 0 is no limit.
        Base = 5 { size: u64, inodes: u64 }
        /// A directory in base.
        Dir = 6 { path: &'a CStr, mode: u32 }
        /// A file in base.
        File = 7 { path: &'a CStr, mode: u32, content: &'a [u8] }
        /// A symbolic link in base.
        Symlink = 8 { path: &'a CStr, target: &'a CStr }
        /// The new root is a directory of base.
        RootBase = 9 { path: &'a CStr }
        /// The new root is a tree of the host.
        RootTree = 10 { slot: u32, attributes: u64 }
        /// The new root is an overlay. `lower`: slots as 32-bit numbers, the topmost first, then the stubs of base.
        /// `upper` and `work` lie in base where the slot is `NO_SLOT`.
        RootOverlay = 11 { lower: &'a [u8], upper: u32, work: u32, writable: u32, keep: u32 }
        /// Mounts the POSIX message queues of this IPC namespace in base, for `LandlockMqueue`.
        Mqueue = 61 {} "hold the private POSIX message queues open"
        /// Allows what is done with POSIX message queues of this IPC namespace in the Landlock ruleset.
        LandlockMqueue = 62 { access: u64 } "allow POSIX message queues in the Landlock ruleset"
        /// Mounts a read-only overlay of an opened directory and of a directory of base that holds mount points which are
        /// missing there. `above`: whether these hide what has their names.
        Overlay = 60 { slot: u32, points: &'a CStr, above: u32, dest: &'a CStr, attributes: u64 }
        /// Mounts a tree that was opened before.
        Bind = 12 { slot: u32, dest: &'a CStr, attributes: u64, make: u32 }
        /// Whether the sandbox's own ids may read and write, or connect to, what was mounted there.
        Usable = 66 { dest: &'a CStr, read: u32, write: u32 }
        /// Mounts a file or directory of base.
        BindBase = 13 { path: &'a CStr, dest: &'a CStr, attributes: u64, make: u32 }
        /// Mounts a new file system. `options` are `key=value`, each with its NUL.
        NewFs = 14 { kind: &'a CStr, options: &'a [u8], dest: &'a CStr, attributes: u64, make: u32 }
        /// Mounts what is at `dest`, in base, over itself with these attributes.
        Restrict = 15 { dest: &'a CStr, attributes: u64 }
        /// Adds attributes to what is mounted at `dest`, in base, and beneath it.
        Attributes = 51 { dest: &'a CStr, attributes: u64 }
        /// Moves what is mounted at a path of base, and beneath it, to its destination.
        Move = 52 { path: &'a CStr, dest: &'a CStr, make: u32 }
        /// Sets attributes of the root mount itself.
        RootAttributes = 16 { attributes: u64 }
        /// Sets the host's name.
        Hostname = 17 { name: &'a CStr }
        /// Begins to make a network namespace, while other steps go on. `loopback`: whether to bring that interface up.
        Network = 18 { loopback: u32 }
        /// Waits for that network namespace and enters it.
        NetworkEnter = 50 {} "enter that network"
        /// What is to be done in the network that `Network` makes, which comes later: `network::Steer` records. Their
        /// sockets go to the relay.
        Steering = 64 { script: &'a [u8] }
        /// Makes the cgroup that init is in the root of what it sees.
        CgroupNamespace = 19 {} "hide the cgroups above"
        /// Makes the new root the root and lets go of the old one.
        Pivot = 20 {}
        /// Replaces the session keyring by an empty one.
        /// `shut`: where that is refused it is no harm, because programs may not use keyrings at all.
        Keyring = 21 { shut: u32 } "replace the session keyring by an empty one"
        /// A nested user and mount namespace, so that kept capabilities do not reach the mounts.
        NestedNamespace = 22 { uid_map: &'a [u8], gid_map: &'a [u8] } "enter a nested user and mount namespace, so that kept capabilities reach no mount"
        /// Capabilities that programs keep; all others leave the bounding set.
        Capabilities = 23 { keep: u64 }
        /// The system call filter that programs get. `flags` of seccomp(2).
        Filter = 24 { program: &'a [u8], flags: u32 }
        /// Init enters that filter too, when all else is done, and programs inherit it: a command in a cell does not pay
        /// for its installation. Only where the filter is known to let init do its work.
        FilterEnter = 53 {} "put the supervisor behind that filter, and all programs with it"
        /// The same filter, but that it tells a listener of the calls that end a program; with `learn`, of those that
        /// it lets through. Comes after `Filter`, which stands in where no listener can be had; but not with `learn`.
        Listener = 40 { program: &'a [u8], flags: u32, learn: u32 }
        /// The other way to be a supervisor, without a PID namespace: every program enters the Landlock domain by itself
        /// (the supervisor stays outside, where none of them can reach it), and what they leave behind is ours to end.
        LandlockEach = 41 {} "let every program enter the Landlock domain"
        /// Starts a Landlock ruleset.
        LandlockRules = 25 { files: u64, network: u64, scoped: u64 } "make a Landlock ruleset"
        /// A rule of it: what is allowed beneath a path inside.
        /// `file_rights`: what of it makes sense where the path is no directory.
        LandlockPath = 26 { path: &'a CStr, access: u64, file_rights: u64 }
        /// Tells the library that all is ready, with a descriptor of the overlay's upper where it keeps one.
        Announce = 27 {} "hand the upper directory to the caller"
        /// Ends everything when the file that came third with the Plan tells more CPU time than this, in nanoseconds.
        /// `scale`: nanoseconds per unit of its number.
        CpuTime = 29 { limit: u64, scale: u64 }
        /// Takes a mount that came with the Plan: the caller's files, idmapped.
        TakeTree = 30 { slot: u32, index: u32, path: &'a CStr }
        /// Attaches such a mount to a directory of base, so that an overlay can use it.
        AttachTree = 31 { slot: u32, path: &'a CStr }
        /// Opens a directory in such a mount.
        OpenIn = 32 { slot: u32, tree: u32, path: &'a CStr, make: u32 }
        /// Enters the Landlock domain: init itself, so that all programs of a cell are in the same one.
        LandlockEnter = 28 {} "enter the Landlock domain"
        /// A whole system lives here: see `Ask::System`. Init keeps the right to enter its namespaces.
        System = 65 {} "keep what it takes to start an init, and programs beside it"
    }
}

records! {
    /// One part of a request for a program.
    Ask {
        /// Always first. Times in milliseconds, sizes in bytes; 0 is none.
        Settings = 1 { flags: u32, umask: u32, timeout: u64, grace: u64, output_limit: u64 }
        /// A path to try to execute, in order.
        Program = 2 { path: &'a CStr }
        Argument = 3 { text: &'a CStr }
        Variable = 4 { text: &'a CStr }
        WorkDir = 5 { path: &'a CStr }
        Rlimit = 6 { resource: u32, soft: u64, hard: u64 }
        /// The descriptor at `index` of the message becomes `number` inside.
        Descriptor = 7 { index: u32, number: u32 }
        /// Standard stream `number` is /dev/null.
        Null = 8 { number: u32 }
        /// Outputs that init carries through a pipe of the sandbox's own, whether or not anything is counted: `RELAY_` bits.
        Relay = 9 { streams: u32 }
        /// Signals that the program ignores from the start: bit n - 1 is signal n.
        Ignore = 10 { signals: u64 }
        /// A terminal of the sandbox's own, which is the program's controlling terminal. `streams`: bit n is set where standard
        /// stream n is it. `size`: rows, columns, and the same in pixels, 16 bits each, as in struct winsize. `modes`: the
        /// kernel's struct termios, or nothing for its defaults. `flags`: `TERMINAL_` bits.
        Terminal = 11 { streams: u32, flags: u32, size: u64, modes: &'a [u8] }
        /// The program is the init of a system: PID 1 of a namespace of its own, which programs enter that start after it. The
        /// descriptor at `index`, if there is one: the group of which it sees no more than what lies beneath. What is `masked` or
        /// `restricted` in /proc is so in its own as well; each path has its NUL.
        System = 12 { index: u32, masked: &'a [u8], restricted: &'a [u8] }
    }
}

/// The library is told when the program is stopped, and lets it go on; otherwise it goes on at once.
pub const TERMINAL_STOPS: u32 = 1;
/// Bytes of the kernel's struct termios, as TCGETS has it.
pub const TERMIOS_BYTES: usize = 36;

/// Standard output goes to a regular file.
pub const RELAY_STDOUT: u32 = 1;
/// Standard error goes to a regular file.
pub const RELAY_STDERR: u32 = 2;
/// Both go to the same place: where they are carried, one pipe keeps their order.
pub const RELAY_SAME: u32 = 4;

/// The sandbox ends with this program.
pub const ASK_ONE_SHOT: u32 = 1;
/// Carry stdout and stderr and count what passes, even without a limit.
pub const ASK_COUNT: u32 = 2;
/// List the processes that are alive when the program ends.
pub const ASK_LEFTOVERS: u32 = 4;
/// No limit counts the processes of the supervisor's own: some may be ready for the next command, and one may be there a
/// moment longer than its program.
pub const ASK_UNCOUNTED: u32 = 8;

/// From the library to init, on the control socket.
pub mod control {
    /// With descriptors: the Plan, a pidfd of the caller, perhaps a file that tells the CPU time of the sandbox, and
    /// mounts, whose number is the `value`.
    pub const SETUP: u32 = 1;
    /// With descriptors: the request, the command's own socket, then those named in it.
    pub const SPAWN: u32 = 2;
    /// With descriptors: the file that thaws the sandbox's group, and a socket for the answer. Until then init was told of
    /// no freezing: from now on it thaws what it ends. `value`: `FREEZER_V1`, or else v2.
    pub const FREEZE: u32 = 3;
}

pub const FREEZER_V1: u32 = 1;
pub const FREEZER_V2: u32 = 2;

/// From the library to init, on a command's socket.
pub mod command {
    /// `value`: the signal for the program.
    pub const SIGNAL: u32 = 1;
    /// Ends the program and all that it started, as far as init can tell.
    pub const KILL: u32 = 2;
    /// `value`: the signal for the program's process group.
    pub const SIGNAL_GROUP: u32 = 3;
    /// Asks whether something waits for the program's standard input.
    pub const READING: u32 = 4;
}

/// Every message of the library has this form; a Plan or a request may follow.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Message {
    pub kind: u32,
    pub value: u32,
    /// Bytes in the memory file that is then the first descriptor. 0: they are in the message itself.
    pub length: u64,
}

/// What is longer than this comes in a memory file: a message in one piece takes as much of the kernel's memory.
pub const MOST_INLINE: usize = 32 * 1024;

/// From init to the library.
pub mod reply {
    /// The Plan is carried out. With `keep`: a descriptor of the upper directory.
    pub const READY: u32 = 1;
    /// A step failed: `step` is its index, `stage` what in it.
    pub const FAILED: u32 = 2;
    /// The program runs: `pid` inside.
    pub const STARTED: u32 = 3;
    /// The program could not be started.
    pub const NOT_STARTED: u32 = 4;
    /// The program ended.
    pub const ENDED: u32 = 5;
    /// A process that was alive at the end; text follows.
    pub const LEFTOVER: u32 = 6;
    /// The calls that a learning run has made: `CALL_WORDS` 64-bit numbers follow, a bit for each call.
    pub const CALLS: u32 = 7;
    /// A request to end a program, or to be ready for freezing, has come.
    pub const HEARD: u32 = 8;
    /// A step is over, where that is traced: `step` is its index, `wall_ns` how long it took.
    pub const STEP: u32 = 9;
    /// The other end of the program's terminal, as a descriptor: comes before `STARTED`.
    pub const TERMINAL: u32 = 10;
    /// The program was stopped by the signal `value`. Only where that was asked for.
    pub const STOPPED: u32 = 11;
    /// Something waits for the program's standard input, where `value` is not 0.
    pub const READING: u32 = 12;
}

pub const ENDED_TIMED_OUT: u32 = 1;
pub const ENDED_OUTPUT_LIMIT: u32 = 2;
pub const ENDED_KILLED: u32 = 4;
/// The filter ended it: `call` tells which call.
pub const ENDED_DENIED: u32 = 8;
/// wait4(2) has lost its status (ECHILD).
pub const ENDED_UNKNOWN: u32 = 16;
/// With `ENDED_TIMED_OUT`: what ran out was CPU time.
pub const ENDED_CPU_TIME: u32 = 32;

/// Room for 1,024 system calls; the newest kernels have 470.
pub const CALL_WORDS: usize = 16;

/// Every message of init has this form; a text may follow.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Reply {
    pub kind: u32,
    /// `FAILED`, `STEP`: index of the step. `STARTED`, `LEFTOVER`: the pid inside. `ENDED`: wait status.
    pub value: u32,
    /// `FAILED`, `NOT_STARTED`: see `stage`. `ENDED`: flags.
    pub detail: u32,
    /// `ENDED`: why output was lost.
    pub errno: i32,
    pub wall_ns: u64,
    pub user_us: u64,
    pub system_us: u64,
    pub max_rss_kb: u64,
    pub output: u64,
    /// `ENDED_DENIED`: the call's architecture (upper half, an `AUDIT_ARCH_*`) and number.
    pub call: u64,
}

#[cfg(feature = "write")]
impl Message {
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.kind.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.value.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.length.to_ne_bytes());
        bytes
    }
}

#[cfg(feature = "write")]
impl Reply {
    pub const SIZE: usize = size_of::<Reply>();

    /// The reply at the start of a message; the text is what follows.
    pub fn from_bytes(bytes: &[u8]) -> Option<(Reply, &[u8])> {
        let (head, text) = bytes.split_at_checked(Reply::SIZE)?;
        let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let reply = Reply {
            kind: word(0),
            value: word(4),
            detail: word(8),
            errno: word(12).cast_signed(),
            wall_ns: long(16),
            user_us: long(24),
            system_us: long(32),
            max_rss_kb: long(40),
            output: long(48),
            call: long(56),
        };
        Some((reply, text))
    }

    /// As `from_bytes` reads it.
    #[cfg(feature = "write")]
    pub fn to_bytes(&self) -> Vec<u8> {
        let words = [self.kind, self.value, self.detail, self.errno.cast_unsigned()];
        let longs = [self.wall_ns, self.user_us, self.system_us, self.max_rss_kb, self.output, self.call];
        let words = words.into_iter().flat_map(u32::to_ne_bytes);
        words.chain(longs.into_iter().flat_map(u64::to_ne_bytes)).collect()
    }
}

pub mod keeper;

mod stages;
pub use stages::stage;
