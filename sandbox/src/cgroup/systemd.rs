//! A transient scope of systemd with `Delegate=yes`: a cgroup that the caller may divide as it likes.
//!
//! One D-Bus call over the manager's own socket, as systemd-run(1) makes it: no bus daemon is needed. The library zbus
//! writes the message; its connections are not used, for they bring threads that outlive the call.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use zbus::wire::serialized::Context;
use zbus::wire::{LE, Variant, to_bytes};

use super::delegation::{self, Base};
use super::hierarchy::Host;
use super::settings::Cannot;
use super::sys::Idle;

/// For a manager that is busy.
const PATIENCE: Duration = Duration::from_secs(10);
const SERVICE: &str = "org.freedesktop.systemd1";
const METHOD_CALL: u8 = 1;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
/// Nothing that a manager says is longer: paths, numbers, sentences.
const MOST: usize = 64 * 1024;

/// A scope for the sandboxes of one [`Sandbox`](crate::Sandbox), as long as the value lives. A process without a task
/// keeps it, because systemd makes no scope without one.
#[derive(Debug)]
pub(super) struct Scope {
    _holder: Idle,
}

impl Scope {
    /// Makes one, and the group beneath which sandboxes get theirs. The caller stays where it is.
    pub(super) fn start(host: &Host) -> Result<(Scope, Base), Cannot> {
        let cannot = |e: &dyn std::fmt::Display| Cannot::new(format!("systemd gives no scope: {e}"), ADOPT);
        let mount = host.v2().map(|v2| v2.mount.clone()).unwrap_or_default();
        let holder = Idle::start().map_err(|e| cannot(&e))?;
        let name = start_scope(&socket(host), holder.pid()).map_err(|e| cannot(&e))?;
        let path = wait_for(holder.pid(), &name).map_err(|e| cannot(&e))?;
        let dir = mount.join(path.strip_prefix("/").unwrap_or(&path));
        let leaf = dir.join("sandcell-holder");
        fs::create_dir(&leaf)
            .and_then(|()| fs::write(leaf.join("cgroup.procs"), holder.pid().to_string()))
            .map_err(|e| cannot(&e))?;
        // Starting a process from outside takes more than a right to the scope itself.
        let base = delegation::find(host, Some(&dir)).map_err(|inner| Cannot::new(inner.why, ADOPT))?;
        Ok((Scope { _holder: holder }, base))
    }
}

const ADOPT: &str =
    "call sandcell::adopt_cgroup() once, early: it asks systemd to put the caller into a scope of its own";

/// Whether systemd runs this host and has controllers of v2 to hand out.
pub(super) fn has_groups(host: &Host) -> bool {
    host.systemd() && host.v2().is_some_and(|v2| !v2.controllers.is_empty())
}

/// The socket of the manager that may make scopes for the caller: the system's for root, otherwise the user's.
pub(super) fn socket(host: &Host) -> PathBuf {
    let uid = nix::unistd::geteuid();
    match uid.is_root() {
        true => host.root.join("run/systemd/private"),
        false => host.root.join(format!("run/user/{uid}/systemd/private")),
    }
}

/// Has systemd move the calling process into a scope of its own.
pub(super) fn move_caller(host: &Host) -> io::Result<()> {
    let pid = std::process::id();
    let name = start_scope(&socket(host), pid)?;
    wait_for(pid, &name).map(drop)
}

/// Makes a scope with that process in it; the name of the scope. It ends with the last process in it and beneath it.
pub(super) fn start_scope(socket: &Path, pid: u32) -> io::Result<String> {
    let random = u32::from_ne_bytes(crate::sys::random::<4>()?);
    let name = format!("sandcell-{}-{random:08x}.scope", std::process::id());
    let properties = vec![
        ("Description", Variant::from("Sandboxes of one caller")),
        ("Delegate", Variant::from(true)),
        ("CollectMode", Variant::from("inactive-or-failed")),
        ("PIDs", Variant::from(vec![pid])),
    ];
    let auxiliary: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
    let context = Context::new(LE, 0);
    let body = to_bytes(context, &(name.as_str(), "fail", properties, auxiliary)).map_err(io::Error::other)?;
    let mut stream = connect(socket)?;
    stream.write_all(&call("StartTransientUnit", "ssa(sv)a(sa(sv))", &body)?)?;
    finished(&mut stream, &name)?;
    Ok(name)
}

/// Waits until a process is in a group of that name; the group's directory.
pub(super) fn wait_for(pid: u32, scope: &str) -> io::Result<PathBuf> {
    let until = Instant::now() + PATIENCE;
    loop {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let path = groups.lines().find_map(|line| line.strip_prefix("0::")).map(Path::new);
        if let Some(path) = path.filter(|path| path.ends_with(scope)) {
            return Ok(path.to_owned());
        }
        if Instant::now() >= until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("systemd made no {scope}")));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Connects and says who we are; the kernel tells the other side the same.
fn connect(socket: &Path) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let uid: String = nix::unistd::geteuid().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
    stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") && line.len() < 512 {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    if !line.starts_with(b"OK ") {
        let said = String::from_utf8_lossy(&line).trim().to_owned();
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("systemd did not let us in: {said}")));
    }
    stream.write_all(b"BEGIN\r\n")?;
    Ok(stream)
}

/// A message of the D-Bus specification: fixed part, fields, body.
fn call(member: &str, signature: &str, body: &[u8]) -> io::Result<Vec<u8>> {
    let path = zbus::ObjectPath::try_from("/org/freedesktop/systemd1").map_err(io::Error::other)?;
    let fields: Vec<(u8, Variant<'_>)> = vec![
        (1, Variant::from(path)),
        (2, Variant::from("org.freedesktop.systemd1.Manager")),
        (3, Variant::from(member)),
        (6, Variant::from(SERVICE)),
    ];
    let mut message = vec![b'l', METHOD_CALL, 0, 1];
    message.extend((body.len() as u32).to_le_bytes());
    message.extend(1_u32.to_le_bytes());
    let length = message.len();
    let fields = to_bytes(Context::new(LE, length), &fields).map_err(io::Error::other)?;
    message.extend_from_slice(&fields);
    // The last field by hand: zbus's signatures are those of one value, in brackets, and this one is of several.
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend([8, 1, b'g', 0, signature.len() as u8]);
    message.extend_from_slice(signature.as_bytes());
    message.push(0);
    let all = (message.len() - length - 4) as u32;
    message[length..length + 4].copy_from_slice(&all.to_le_bytes());
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend_from_slice(body);
    Ok(message)
}

/// Reads until the one call that was made has done its work: its answer comes first, then, unasked over this kind of
/// socket, the signal that the job is over. Before that systemd may still take back what is in the group.
fn finished(stream: &mut UnixStream, unit: &str) -> io::Result<()> {
    let contains = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    loop {
        let mut fixed = [0; 16];
        stream.read_exact(&mut fixed)?;
        let word = |at: usize| {
            let bytes = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
            (if fixed[0] == b'l' { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }) as usize
        };
        let (body, fields) = (word(4), word(12));
        if body > MOST || fields > MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "systemd's answer makes no sense"));
        }
        let fields = fields.next_multiple_of(8);
        let mut rest = vec![0; fields + body];
        stream.read_exact(&mut rest)?;
        let (fields, body) = rest.split_at(fields);
        match fixed[1] {
            // The arguments of the error begin with a sentence: a length, then the text.
            ERROR => {
                let text = body.get(4..).unwrap_or_default().split(|byte| *byte == 0).next();
                return Err(io::Error::other(String::from_utf8_lossy(text.unwrap_or_default()).into_owned()));
            }
            // Number and path of the job, the unit, the result.
            SIGNAL if contains(fields, "JobRemoved") && contains(body, unit) => {
                return match body.ends_with(b"done\0") {
                    true => Ok(()),
                    false => Err(io::Error::other(format!("systemd could not start {unit}"))),
                };
            }
            _ => {}
        }
    }
}
