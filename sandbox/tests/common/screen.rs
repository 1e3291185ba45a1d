//! A terminal of the test's own, with a program at it that leads its session: what somebody types and sees.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};

/// The end of patience, not a measure.
const PATIENCE: Duration = Duration::from_secs(60);
pub const PROMPT: &str = "OUT> ";

pub struct Screen {
    master: Option<File>,
    pub child: Child,
    /// What was shown and is not looked at yet.
    pub shown: String,
}

impl Screen {
    /// A program at a terminal of 24 lines of 80 characters.
    pub fn of(program: &[&str]) -> Screen {
        Screen::closed(program, 0o620)
    }

    /// The same with this mode for the terminal.
    pub fn closed(program: &[&str], mode: u32) -> Screen {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        fcntl(&pty.master, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).unwrap();
        fcntl(&pty.master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK)).unwrap();
        File::from(pty.slave.try_clone().unwrap()).set_permissions(Permissions::from_mode(mode)).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut command = Command::new("setsid");
        command.arg("--ctty").args(program).stdin(end()).stdout(end()).stderr(end());
        command.env("TERM", "xterm").env("PS1", PROMPT).env("LC_ALL", "C.UTF-8").env_remove("ENV");
        command.env("SANDCELL", super::SANDCELL);
        let child = command.spawn().unwrap();
        Screen { master: Some(File::from(pty.master)), child, shown: String::new() }
    }

    /// An interactive bash; `$SANDCELL` is the program.
    pub fn shell() -> Screen {
        let mut screen = Screen::of(&["bash", "--norc", "--noediting", "-i"]);
        screen.expect(PROMPT);
        screen
    }

    pub fn send(&mut self, text: &str) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match self.master.as_mut().unwrap().write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLOUT | PollFlags::POLLIN)
                }
                Err(error) => panic!("{error}"),
            }
            self.read();
        }
    }

    /// Types until nothing takes any more: half a second without room is the end.
    pub fn fill(&mut self) {
        let mut master = self.master.as_ref().unwrap();
        loop {
            let mut polls = [PollFd::new(master.as_fd(), PollFlags::POLLOUT)];
            if poll(&mut polls, PollTimeout::from(500u16)).unwrap() == 0 {
                return;
            }
            let _ = master.write(&[b'x'; 4096]);
        }
    }

    /// Waits for a text; what came until then, that included.
    pub fn expect(&mut self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            assert!(Instant::now() < until, "{text:?} does not come: {:?}", self.shown);
            self.wait(PollFlags::POLLIN);
            let more = self.read();
            assert!(more || self.shown.contains(text), "{text:?} did not come: {:?}", self.shown);
        }
    }

    /// A line for the shell; what it shows before the next prompt, without the line itself.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(&format!("{line}\n"));
        let shown = self.expect(PROMPT).replace('\r', "");
        let shown = shown.strip_suffix(PROMPT).unwrap();
        shown.split_once('\n').map_or("", |(_, rest)| rest).to_owned()
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let size = sandcell::TerminalSize::new(rows, columns);
        // A Terminal is only for those of sandboxes; stty sets the size of any.
        let mut stty = Command::new("stty");
        stty.args(["rows", &size.rows.to_string(), "columns", &size.columns.to_string()]);
        assert!(stty.stdin(self.master.as_ref().unwrap().try_clone().unwrap()).status().unwrap().success());
    }

    /// The terminal is gone, as where its window is closed.
    pub fn hang_up(&mut self) {
        self.master = None;
    }

    fn wait(&self, flags: PollFlags) {
        let mut polls = [PollFd::new(self.master.as_ref().unwrap().as_fd(), flags)];
        poll(&mut polls, PollTimeout::from(1000u16)).unwrap();
    }

    /// Reads what is there; whether there may be more.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 65536];
        loop {
            match self.master.as_mut().unwrap().read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.shown += &String::from_utf8_lossy(&buffer[..count]),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.hang_up();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
