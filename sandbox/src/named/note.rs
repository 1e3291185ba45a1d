//! What a client needs to know of a named cell: written beside it by who starts it, read by everybody else.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use crate::kernel_names::Resource;

use crate::api::shared::Shared;
use crate::cgroup::{GroupRecord, Rlimit};
use crate::ids::{Assigned, IdMap};
use crate::plan::{Given, Plan};
use crate::policy::{Isolation, Leftovers, Network, Policy, Seccomp};
use crate::report::{Enforced, Mechanism, Published, Requested};
use crate::resolve::Resolved;
use crate::resolve::git;
use crate::schedule::Schedule;
use crate::supervise::init::Init;
use crate::wire::keeper::{
    NOTE_KEEP_ENV, NOTE_KEEP_ID, NOTE_LOOPBACK, NOTE_OWN_NETWORK, NOTE_SECCOMP, NOTE_VERSION, NOTE_WITHOUT_NAMESPACES,
    Note as Record,
};
use crate::wire::{Malformed, Reader};

/// The name of the file.
pub(crate) const FILE: &str = "cell";
const SCHEDULE: &[u8] = b"schedule";
/// The name of the relay's table.
pub(crate) const NETWORK: &str = "network";
/// A plan of a thousand layers is shorter.
pub(crate) const MOST: u64 = 16 << 20;

/// All of it, read.
#[derive(Debug)]
pub(crate) struct Note {
    /// What of the policy the cell's programs are made by.
    pub policy: Policy,
    /// The layers of its root, where that is an overlay.
    pub layers: Vec<PathBuf>,
    pub env: Vec<(OsString, OsString)>,
    pub identity: Assigned,
    pub plan: Plan,
    pub enforced: Vec<Enforced>,
    pub rlimits: Vec<Rlimit>,
    pub groups: Vec<GroupRecord>,
    pub started: SystemTime,
    pub since: Instant,
    /// The image's name, where there is one.
    pub image: Option<String>,
    pub network: String,
    /// The rules of the network by their numbers, and what is published.
    pub rules: Vec<String>,
    pub published: Vec<Published>,
    /// The main program and its arguments.
    pub words: Vec<OsString>,
    /// What was asked for beyond the defaults, as `explain --options` has it.
    pub options: Vec<(String, String)>,
}

fn millis(time: Option<Duration>) -> u64 {
    time.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Who the cell is, how it was made, and when.
fn write_cell(policy: &Policy, identity: &Assigned, out: &mut Vec<u8>) {
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let leftovers = leftovers_number(policy.leftovers);
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Record::Cell {
        version: NOTE_VERSION,
        uid: identity.uid,
        gid: identity.gid,
        host_uid: identity.host_uid,
        host_gid: identity.host_gid,
        flags: flag(policy.seccomp != Seccomp::Off, NOTE_SECCOMP)
            | flag(policy.keep_env, NOTE_KEEP_ENV)
            | flag(policy.identity.keep_caller, NOTE_KEEP_ID)
            | flag(!policy.isolation.has_namespaces(), NOTE_WITHOUT_NAMESPACES)
            | flag(policy.network_in_effect().has_own_namespace(), NOTE_OWN_NETWORK)
            | flag(policy.network_in_effect().brings_loopback_up(), NOTE_LOOPBACK),
        umask: policy.umask,
        leftovers,
        started: u64::try_from(started.as_nanos()).unwrap_or_default(),
        clock: monotonic(),
    }
    .write(out);
}

/// Puts it together for a cell that has just been started.
pub(crate) fn write(shared: &Shared, init: &Init, plan: &Plan, groups: &[GroupRecord], words: &[OsString]) -> Vec<u8> {
    let mut out = Vec::new();
    let (policy, identity) = (shared.policy(), &init.identity);
    write_cell(policy, identity, &mut out);
    Record::Limits {
        timeout: millis(policy.timeout.filter(|time| *time != Duration::MAX)),
        grace: millis(Some(policy.grace)),
        output_limit: policy.output_limit.unwrap_or(0),
        pids: policy.limits.pids.unwrap_or(0),
    }
    .write(&mut out);
    let image = shared.image_name();
    Record::Names {
        user: plan.user.as_bytes(),
        home: plan.home.as_os_str().as_bytes(),
        chdir: shared.resolved.dir.as_deref().map_or(OsStr::new(""), Path::as_os_str).as_bytes(),
        image: image.as_deref().unwrap_or("").as_bytes(),
        network: policy.network_in_effect().word().as_bytes(),
    }
    .write(&mut out);
    let (uids, gids) = (identity.uid_map.to_string(), identity.gid_map.to_string());
    Record::Maps { uids: uids.as_bytes(), gids: gids.as_bytes() }.write(&mut out);
    write_programs(&shared.resolved, init, words, &mut out);
    init.enforced.iter().for_each(|line| write_enforced(line, &mut out));
    for GroupRecord { version, controllers, path } in groups {
        let path = path.as_os_str().as_bytes();
        Record::Group { version: *version, controllers: controllers.as_bytes(), path }.write(&mut out);
    }
    if let Some(layers) = shared.resolved.files.layers() {
        layers.iter().for_each(|layer| Record::Layer { path: layer.as_os_str().as_bytes() }.write(&mut out));
    }
    for (name, values) in policy.options() {
        for value in values {
            Record::Option { name: name.as_bytes(), value: value.as_bytes() }.write(&mut out);
        }
    }
    if let Some(relay) = init.relay() {
        relay.rules().iter().for_each(|rule| Record::Rule { text: rule.as_bytes() }.write(&mut out));
        for port in relay.published() {
            let address = port.address.to_string();
            let (host, cell) = (port.host_port.into(), port.cell_port.into());
            Record::Published { address: address.as_bytes(), host, cell, udp: (port.protocol == "udp").into() }
                .write(&mut out);
        }
    }
    Record::Plan { bytes: &plan.bytes }.write(&mut out);
    out
}

fn leftovers_number(leftovers: Leftovers) -> u32 {
    match leftovers {
        Leftovers::Kill => 0,
        Leftovers::Report => 1,
        Leftovers::Fail => 2,
    }
}

/// When its program runs.
pub(crate) fn write_schedule(schedule: &Schedule, overlap: bool, out: &mut Vec<u8>) {
    Record::Option { name: SCHEDULE, value: schedule.as_str().as_bytes() }.write(out);
    if overlap {
        Record::Option { name: b"schedule-overlap", value: b"yes" }.write(out);
    }
}

/// What the programs of the cell are started with.
fn write_programs(resolved: &Resolved, init: &Init, words: &[OsString], out: &mut Vec<u8>) {
    // Which repositories are shown, only who starts the cell can tell.
    let named = resolved.env.iter().any(|(key, _)| key == "GIT_CONFIG_COUNT");
    let left_out = named || resolved.policy.identity.keep_caller;
    let git = if left_out { Vec::new() } else { git::variables(&resolved.files.mounts) };
    for (key, value) in git.iter().chain(&resolved.env) {
        Record::Variable { key: key.as_bytes(), value: value.as_bytes() }.write(out);
    }
    for word in words {
        Record::Word { text: word.as_bytes() }.write(out);
    }
    for (instead, list) in [(0, &resolved.policy.rlimits), (1, &init.rlimits)] {
        for (resource, soft, hard) in list {
            Record::Rlimit { instead, resource: *resource as u32, soft: *soft, hard: *hard }.write(out);
        }
    }
}

fn write_enforced(line: &Enforced, out: &mut Vec<u8>) {
    let (kind, number, word) = match &line.requested {
        Requested::Number(number) => (0, *number, ""),
        Requested::Fraction(fraction) => (1, fraction.to_bits(), ""),
        Requested::Word(word) => (2, 0, word.as_str()),
    };
    Record::Enforced {
        item: line.item.as_bytes(),
        by: line.by.as_str().as_bytes(),
        kind,
        number,
        word: word.as_bytes(),
        why: line.why.as_deref().unwrap_or("").as_bytes(),
        host_uid: line.host_uid.unwrap_or(u32::MAX),
        disjoint: line.disjoint.map_or(2, u32::from),
    }
    .write(out);
}

/// Reads it. Another version's is `Malformed`.
pub(crate) fn read(bytes: &[u8]) -> Result<Note, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut note = match Record::next(&mut reader)? {
        Some(Record::Cell {
            version: NOTE_VERSION,
            uid,
            gid,
            host_uid,
            host_gid,
            flags,
            umask,
            leftovers,
            started,
            clock,
        }) => begin([uid, gid, host_uid, host_gid], flags, umask, leftovers, (started, clock))?,
        _ => return Err(Malformed),
    };
    while let Some(record) = Record::next(&mut reader)? {
        note.take_in(record)?;
    }
    Ok(note)
}

fn begin(ids: [u32; 4], flags: u32, umask: u32, leftovers: u32, times: (u64, u64)) -> Result<Note, Malformed> {
    let has = |flag| flags & flag != 0;
    let mut policy = Policy {
        seccomp: if has(NOTE_SECCOMP) { Seccomp::Default } else { Seccomp::Off },
        isolation: if has(NOTE_WITHOUT_NAMESPACES) { Isolation::Landlock } else { Isolation::Namespaces },
        keep_env: has(NOTE_KEEP_ENV),
        network: match (has(NOTE_OWN_NETWORK), has(NOTE_LOOPBACK)) {
            (false, _) => Network::Host,
            (true, true) => Network::Loopback,
            (true, false) => Network::None,
        },
        umask,
        leftovers: match leftovers {
            0 => Leftovers::Kill,
            1 => Leftovers::Report,
            _ => Leftovers::Fail,
        },
        ..Policy::default()
    };
    policy.identity.keep_caller = has(NOTE_KEEP_ID);
    let one = IdMap::one(ids[0], ids[2]);
    let lived = Duration::from_nanos(monotonic().saturating_sub(times.1));
    Ok(Note {
        policy,
        layers: Vec::new(),
        env: Vec::new(),
        identity: Assigned::of_keeper(ids, one.clone(), one, has(NOTE_WITHOUT_NAMESPACES)),
        plan: Plan { bytes: Vec::new(), user: String::new(), home: PathBuf::new(), given: Given::default() },
        enforced: Vec::new(),
        rlimits: Vec::new(),
        groups: Vec::new(),
        started: SystemTime::UNIX_EPOCH + Duration::from_nanos(times.0),
        since: Instant::now().checked_sub(lived).ok_or(Malformed)?,
        image: None,
        network: String::new(),
        rules: Vec::new(),
        published: Vec::new(),
        words: Vec::new(),
        options: Vec::new(),
    })
}

impl Note {
    /// When its program runs, where that is at certain times.
    pub(crate) fn schedule(&self) -> Option<Schedule> {
        let told = self.options.iter().find(|(name, _)| name.as_bytes() == SCHEDULE)?;
        Schedule::parse(&told.1).ok()
    }

    fn take_in(&mut self, record: Record<'_>) -> Result<(), Malformed> {
        let (policy, plan) = (&mut self.policy, &mut self.plan);
        match record {
            Record::Cell { .. } => return Err(Malformed),
            Record::Limits { timeout, grace, output_limit, pids } => {
                let some = |number: u64| Some(number).filter(|number| *number != 0);
                policy.timeout = some(timeout).map(Duration::from_millis);
                policy.grace = Duration::from_millis(grace);
                policy.output_limit = some(output_limit);
                policy.limits.pids = some(pids);
            }
            Record::Names { user, home, chdir, image, network } => {
                (plan.user, plan.home) = (text(user)?, path(home));
                policy.chdir = Some(path(chdir)).filter(|dir| !dir.as_os_str().is_empty());
                self.image = Some(text(image)?).filter(|image| !image.is_empty());
                self.network = text(network)?;
            }
            Record::Maps { uids, gids } => {
                self.identity.uid_map = IdMap::parse(text(uids)?.lines()).ok_or(Malformed)?;
                self.identity.gid_map = IdMap::parse(text(gids)?.lines()).ok_or(Malformed)?;
            }
            Record::Variable { key, value } => self.env.push((os(key), os(value))),
            Record::Word { text } => self.words.push(os(text)),
            Record::Rlimit { instead, resource, soft, hard } => {
                let limit = (self::resource(resource)?, soft, hard);
                if instead == 0 { policy.rlimits.push(limit) } else { self.rlimits.push(limit) }
            }
            Record::Enforced { item, by, kind, number, word, why, host_uid, disjoint } => {
                let requested = match kind {
                    0 => Requested::Number(number),
                    1 => Requested::Fraction(f64::from_bits(number)),
                    _ => Requested::Word(text(word)?),
                };
                let mut line = Enforced::new(interned(text(item)?), requested, mechanism(&text(by)?)?);
                line.why = Some(text(why)?).filter(|why| !why.is_empty());
                line.host_uid = Some(host_uid).filter(|uid| *uid != u32::MAX);
                line.disjoint = Some(disjoint).filter(|it| *it < 2).map(|it| it == 1);
                self.enforced.push(line);
            }
            Record::Group { version, controllers, path: dir } => {
                self.groups.push(GroupRecord { version, controllers: text(controllers)?, path: path(dir) });
            }
            Record::Layer { path: dir } => self.layers.push(path(dir)),
            Record::Plan { bytes } => plan.bytes = bytes.to_vec(),
            Record::Rule { text: rule } => self.rules.push(text(rule)?),
            Record::Published { address, host, cell, udp } => self.published.push(Published {
                address: text(address)?.parse().map_err(|_| Malformed)?,
                host_port: u16::try_from(host).map_err(|_| Malformed)?,
                cell_port: u16::try_from(cell).map_err(|_| Malformed)?,
                protocol: if udp != 0 { "udp" } else { "tcp" },
                connections: 0,
                bytes_sent: 0,
                bytes_received: 0,
            }),
            Record::Option { name, value } => self.options.push((text(name)?, text(value)?)),
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed)
}

fn os(bytes: &[u8]) -> OsString {
    OsStr::from_bytes(bytes).to_owned()
}

fn path(bytes: &[u8]) -> PathBuf {
    OsStr::from_bytes(bytes).into()
}

fn resource(number: u32) -> Result<Resource, Malformed> {
    Resource::from_number(number).ok_or(Malformed)
}

fn mechanism(word: &str) -> Result<Mechanism, Malformed> {
    use Mechanism::{Cgroup1, Cgroup2, Landlock, Namespace, Nothing, Rlimit, Seccomp, Supervisor, Tmpfs};
    let all = [Namespace, Cgroup2, Cgroup1, Rlimit, Tmpfs, Seccomp, Landlock, Supervisor, Nothing];
    all.into_iter().find(|by| by.as_str() == word).ok_or(Malformed)
}

/// The same text for as long as the process lives: each is kept once, and there are only so many items.
fn interned(item: String) -> &'static str {
    static KNOWN: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(same) = known.iter().find(|same| **same == item) {
        return same;
    }
    let kept: &'static str = Box::leak(item.into_boxed_str());
    known.push(kept);
    kept
}

/// Nanoseconds of the clock that goes on while a cell lives, whatever happens to the time of day.
fn monotonic() -> u64 {
    let now = nix::time::ClockId::CLOCK_MONOTONIC.now().unwrap_or(nix::sys::time::TimeSpec::new(0, 0));
    u64::try_from(Duration::from(now).as_nanos()).unwrap_or_default()
}
