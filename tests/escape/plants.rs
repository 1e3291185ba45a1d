//! Things of the caller that are no files: listeners, IPC objects, a terminal, another process.

use super::scene::{Scene, c, check, mode};
use std::fs::File;
use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::chown;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};

pub struct Plants {
    /// Kept open while the probe runs.
    pub listener: TcpListener,
    _others: Vec<OwnedFd>,
    pub terminal: OwnedFd,
    pub terminal_slave: OwnedFd,
    pub victim: i32,
    pub victim_name: String,
    pub daemon_name: String,
    _objects: Objects,
}

/// What must be removed by name.
struct Objects {
    shm: i32,
    sem: i32,
    msg: i32,
    posix: String,
}

impl Plants {
    pub fn new(scene: &mut Scene) -> io::Result<Plants> {
        let short: String = scene.place.chars().rev().take(4).collect();
        let listener = TcpListener::bind("127.0.0.1:0")?;
        scene.fact("tcp_loopback", listener.local_addr()?);
        let mut others: Vec<OwnedFd> = vec![];
        if let Ok(six) = TcpListener::bind("[::1]:0") {
            scene.fact("tcp_loopback6", six.local_addr()?);
            others.push(six.into());
        }
        if let Some(own) = own_address().and_then(|address| TcpListener::bind((address, 0)).ok()) {
            scene.fact("tcp_host", own.local_addr()?);
            others.push(own.into());
        }
        let datagrams = UdpSocket::bind("127.0.0.1:0")?;
        scene.fact("udp_loopback", datagrams.local_addr()?);
        others.push(datagrams.into());

        let (stream, datagram) = (format!("{}-stream", scene.place), format!("{}-datagram", scene.place));
        others.push(UnixListener::bind_addr(&SocketAddr::from_abstract_name(&stream)?)?.into());
        others.push(UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&datagram)?)?.into());
        scene.fact("abstract", stream);
        scene.fact("abstract_datagram", datagram);
        let mut by_path = vec![("home_socket", scene.home.join("socket")), ("tmp_socket", scene.tmp.join("socket"))];
        by_path.extend(scene.run.as_ref().map(|run| ("run_socket", run.join("bus"))));
        for (name, path) in by_path {
            others.push(UnixListener::bind(&path)?.into());
            mode(&path, 0o777)?;
            scene.fact(name, path.display());
        }

        let objects = Objects::new(scene, &short)?;
        let (terminal, terminal_slave) = terminal(scene)?;
        let victim_name = format!("vic{short}");
        let victim = victim(scene, &victim_name)?;
        scene.fact("victim", victim);
        scene.fact("victim_name", &victim_name);
        let daemon_name = format!("esc{short}");
        scene.fact("daemon_name", &daemon_name);
        Ok(Plants {
            listener,
            _others: others,
            terminal,
            terminal_slave,
            victim,
            victim_name,
            daemon_name,
            _objects: objects,
        })
    }

    pub fn victim_lives(&self) -> bool {
        // SAFETY: a child of this process; the status is not asked for and nothing blocks.
        unsafe { libc::waitpid(self.victim, std::ptr::null_mut(), libc::WNOHANG) == 0 }
    }

    /// Bytes that wait to be read from the terminal: key presses that somebody pushed.
    pub fn typed(&self) -> io::Result<i32> {
        let mut count = 0;
        // SAFETY: `count` outlives the call.
        check(unsafe { libc::ioctl(self.terminal_slave.as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
        Ok(count)
    }
}

impl Drop for Plants {
    fn drop(&mut self) {
        // SAFETY: a child of this process that was not waited for, or a number that nobody else can have taken yet.
        unsafe {
            libc::kill(self.victim, libc::SIGKILL);
            libc::waitpid(self.victim, std::ptr::null_mut(), 0);
        }
    }
}

impl Objects {
    fn new(scene: &mut Scene, short: &str) -> io::Result<Objects> {
        let key = i32::from_str_radix(short, 16).unwrap_or(0x4321) | 0x5ce1_0000;
        let flags = 0o666 | libc::IPC_CREAT;
        // SAFETY: three calls without memory.
        let (shm, sem, msg) =
            unsafe { (libc::shmget(key, 4096, flags), libc::semget(key, 1, flags), libc::msgget(key, flags)) };
        check(shm.min(sem).min(msg))?;
        scene.fact("sysv_key", key);
        let posix = format!("{}-shared", scene.place);
        let named = c(&format!("/{posix}"))?;
        // SAFETY: a live string; null attributes are the defaults.
        unsafe {
            let memory = libc::shm_open(named.as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o666);
            check(memory)?;
            libc::fchmod(memory, 0o666);
            libc::close(memory);
            let no_attributes = std::ptr::null::<libc::mq_attr>();
            let queue =
                libc::mq_open(named.as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o666 as libc::mode_t, no_attributes);
            if queue != -1 {
                libc::fchmod(queue, 0o666);
                libc::close(queue);
                // The call itself takes the name without its slash.
                scene.fact("posix_mq", &posix);
            }
        }
        scene.fact("posix_shm", &posix);
        Ok(Objects { shm, sem, msg, posix })
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        let Ok(named) = c(&format!("/{}", self.posix)) else { return };
        // SAFETY: ids and names of objects made by this process.
        unsafe {
            libc::shmctl(self.shm, libc::IPC_RMID, std::ptr::null_mut());
            libc::semctl(self.sem, 0, libc::IPC_RMID);
            libc::msgctl(self.msg, libc::IPC_RMID, std::ptr::null_mut());
            libc::shm_unlink(named.as_ptr());
            libc::mq_unlink(named.as_ptr());
        }
    }
}

/// The address that the host would use for the outside; nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("198.51.100.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then_some(address)
}

fn terminal(scene: &mut Scene) -> io::Result<(OwnedFd, OwnedFd)> {
    let (mut master, mut slave) = (0, 0);
    // SAFETY: two live integers; name, attributes and size may be null. Raw mode: a byte counts without its newline.
    let (master, slave) = unsafe {
        check(libc::openpty(
            &raw mut master,
            &raw mut slave,
            std::ptr::null_mut(),
            std::ptr::null(),
            std::ptr::null(),
        ))?;
        let mut attributes: libc::termios = std::mem::zeroed();
        libc::tcgetattr(slave, &raw mut attributes);
        libc::cfmakeraw(&raw mut attributes);
        libc::tcsetattr(slave, libc::TCSANOW, &raw const attributes);
        libc::fcntl(master, libc::F_SETFD, libc::FD_CLOEXEC);
        libc::fcntl(slave, libc::F_SETFD, libc::FD_CLOEXEC);
        (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
    };
    let path = std::fs::read_link(format!("/proc/self/fd/{}", slave.as_raw_fd()))?;
    let _ = chown(&path, Some(scene.caller.uid), None);
    scene.fact("tty_device", std::os::unix::fs::MetadataExt::dev(&File::from(slave.try_clone()?).metadata()?));
    scene.fact("tty", path.display());
    Ok((master, slave))
}

/// A process of the caller that does nothing: whoever can signal, trace or see it got out.
fn victim(scene: &Scene, name: &str) -> io::Result<i32> {
    let name = c(name)?;
    // SAFETY: this process has one thread; the child makes system calls only and never returns.
    unsafe {
        let pid = libc::fork();
        check(pid)?;
        if pid == 0 {
            if scene.privileged {
                libc::setgid(scene.caller.gid);
                libc::setuid(scene.caller.uid);
            }
            libc::prctl(libc::PR_SET_DUMPABLE, 1);
            libc::prctl(libc::PR_SET_NAME, name.as_ptr());
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            loop {
                libc::pause();
            }
        }
        Ok(pid)
    }
}
