//! What travels between the library and the keeper of a named cell. A keeper passes on to init what is meant for it
//! (`control::SPAWN`, `control::FREEZE`), so that whoever has a connection to it can talk as if it were init.

#[cfg(feature = "write")]
use super::Vec;
use super::{CStr, Field, Malformed, Reader};

records! {
    /// What a keeper is told of its cell. Indices are those of the descriptors that come along.
    Keep {
        /// Always first. `main`: the number of the main program inside; 0 where there is none. `pids`: what the limit of
        /// processes is, without those of ours; 0 where there is none.
        Cell = 1 { main: u32, pids: u64, log_size: u64, log_files: u32 }
        /// One of `role`.
        Descriptor = 2 { index: u32, role: u32 }
        /// A file whose content is copied into the outcome when all is over.
        Figure = 3 { index: u32, name: &'a CStr }
        /// A group to be removed in the end: its name in the directory at `index`.
        Group = 4 { index: u32, name: &'a CStr }
        /// How the main program is started again: the request, as init takes it, with descriptors 0, 1 and 2 only.
        Restart = 5 { request: &'a [u8], always: u32 }
        /// What tells the main program to end, if not SIGTERM.
        StopSignal = 6 { signal: u32 }
    }
}

records! {
    /// What a client needs to know of a cell, in a file beside it.
    Note {
        /// Always first. `ids`: inside and on the host, UID and GID. `started`: nanoseconds since 1970; `clock`: of the
        /// monotonic clock.
        Cell = 1 { version: u32, uid: u32, gid: u32, host_uid: u32, host_gid: u32, flags: u32, umask: u32, leftovers: u32,
                   started: u64, clock: u64 }
        /// Milliseconds, and bytes; 0 is none.
        Limits = 2 { timeout: u64, grace: u64, output_limit: u64, pids: u64 }
        Names = 3 { user: &'a [u8], home: &'a [u8], chdir: &'a [u8], image: &'a [u8], network: &'a [u8] }
        /// As the kernel shows them.
        Maps = 4 { uids: &'a [u8], gids: &'a [u8] }
        Variable = 5 { key: &'a [u8], value: &'a [u8] }
        Word = 6 { text: &'a [u8] }
        /// Of the policy (0), or in place of a group's limit (1).
        Rlimit = 7 { instead: u32, resource: u32, soft: u64, hard: u64 }
        /// `kind`: 0 a number, 1 the bits of a fraction, 2 a word. `host_uid`: none where it is `u32::MAX`; `disjoint`: 0 and
        /// 1, 2 for none.
        Enforced = 8 { item: &'a [u8], by: &'a [u8], kind: u32, number: u64, word: &'a [u8], why: &'a [u8], host_uid: u32,
                       disjoint: u32 }
        Group = 9 { version: u32, controllers: &'a [u8], path: &'a [u8] }
        Layer = 10 { path: &'a [u8] }
        Plan = 11 { bytes: &'a [u8] }
        Option = 12 { name: &'a [u8], value: &'a [u8] }
        /// A rule of the network in words; by their numbers.
        Rule = 13 { text: &'a [u8] }
        Published = 14 { address: &'a [u8], host: u32, cell: u32, udp: u32 }
    }
}

/// Of `Note::Cell`.
pub const NOTE_SECCOMP: u32 = 1;
pub const NOTE_KEEP_ENV: u32 = 2;
pub const NOTE_WITHOUT_NAMESPACES: u32 = 4;
pub const NOTE_LOOPBACK: u32 = 8;
pub const NOTE_OWN_NETWORK: u32 = 16;
pub const NOTE_KEEP_ID: u32 = 32;
/// Whoever reads another one knows nothing of the cell.
pub const NOTE_VERSION: u32 = 1;

/// What a descriptor is.
pub mod role {
    /// The control socket of init.
    pub const CONTROL: u32 = 1;
    /// A pidfd of init.
    pub const INIT: u32 = 2;
    /// The socket for clients, bound and not listening yet.
    pub const LISTENER: u32 = 3;
    /// The directory of the cell.
    pub const DIR: u32 = 4;
    /// The directory of its log.
    pub const LOG_DIR: u32 = 5;
    /// The main program's own socket.
    pub const MAIN: u32 = 6;
    /// Pipes of the main program.
    pub const STDIN: u32 = 7;
    pub const STDOUT: u32 = 8;
    pub const STDERR: u32 = 9;
    /// The upper of the overlay, for clients.
    pub const UPPER: u32 = 10;
    /// The file with the limit of processes.
    pub const PIDS: u32 = 11;
    /// A lock: kept open, and nothing else.
    pub const LOCK: u32 = 12;
    /// The relay's control socket: the same, and the relay is in the cell's groups.
    pub const RELAY: u32 = 13;
}

/// What a keeper is asked for, besides `control::SPAWN` and `control::FREEZE`.
pub mod ask {
    /// Before all else, from whoever has made the keeper: `Keep` records.
    pub const HOLD: u32 = 16;
    /// How it stands: answered with `answer::STATUS` and a pidfd of init.
    pub const STATUS: u32 = 17;
    /// SIGTERM for the main program, and the end of the cell so many milliseconds later.
    pub const STOP: u32 = 18;
    /// The end of the cell, now.
    pub const KILL: u32 = 19;
    /// A signal for the main program.
    pub const SIGNAL: u32 = 20;
    /// So many more, or less, processes of ours for which the limit of processes must have room.
    pub const PLACES: u32 = 21;
    /// The main program's standard input, for one client at a time. `value`: 1 takes it away from another.
    pub const ATTACH: u32 = 22;
    /// Closes it for good.
    pub const CLOSE_STDIN: u32 = 23;
    /// A descriptor of the overlay's upper.
    pub const UPPER: u32 = 24;
    /// From now on the cell is about to be frozen, and no program is started (1); it goes on (0). With 2: where the supervisor
    /// is meanwhile, by the name in the text and the descriptor of the directory; to be removed in the end.
    pub const PAUSE: u32 = 25;
    /// The limit of processes has changed.
    pub const PIDS: u32 = 26;
}

/// Answers have the form of init's: `Reply`.
pub mod answer {
    /// Done.
    pub const DONE: u32 = 32;
    /// `errno` tells why not.
    pub const REFUSED: u32 = 33;
    /// `value`: the main program inside, 0 where there is none. `detail`: flags. `errno`: why the log cannot be written.
    /// `output`: bytes of the log. `wall_ns`: how long the keeper has held the cell. `call`: how often the main program was
    /// started again.
    pub const STATUS: u32 = 34;
}

/// Flags of `answer::STATUS`.
pub const STATUS_PAUSED: u32 = 1;
pub const STATUS_STDIN: u32 = 2;
pub const STATUS_STOPPING: u32 = 4;
pub const STATUS_ATTACHED: u32 = 8;

/// Names in the directory of a cell. The lock has two bytes: who starts the cell holds the first, its keeper the second.
pub const LOCK: &CStr = c"lock";
pub const SOCKET: &CStr = c"socket";
pub const OUTCOME: &CStr = c"outcome";
/// Made ahead, so that there is room for it in the end.
pub const OUTCOME_NEW: &CStr = c"outcome.new";

/// Why a cell is over, in the outcome.
pub const BY_MAIN: u64 = 0;
pub const BY_STOP: u64 = 1;
pub const BY_KILL: u64 = 2;
pub const BY_INIT: u64 = 3;

/// The longest note of where the supervisor is.
pub const MOST_NAME: usize = 64;
