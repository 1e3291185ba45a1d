//! What is missing on this host, and the changes that make it good.

use super::changes::{Change, setting};
use super::state::relative;
use super::{Fix, Host, Result, files};

#[derive(Default)]
pub struct Plan {
    pub changes: Vec<Change>,
    /// What is missing and cannot be made good here.
    pub notes: Vec<String>,
}

const PROFILE: &str = "/etc/apparmor.d/sandcell";
const SETTINGS: &str = "/etc/sysctl.d/99-zz-sandcell.conf";
const DELEGATION: &str = "/etc/systemd/system/user@.service.d/sandcell.conf";
const MARK: &str = "# Written by `sandcell doctor --fix`; `sandcell doctor --unfix` removes it.\n";
/// As many as one user is given by useradd(8).
const COUNT: u64 = 65536;
/// The first and last that login.defs(5) has for them.
const FIRST: u64 = 100_000;
const LAST: u64 = 600_100_000;

pub fn of(host: &Host, what: &Fix) -> Result<Plan> {
    let mut plan = Plan::default();
    let user = what.user.map(str::to_owned).or_else(|| std::env::var("SUDO_USER").ok()).filter(|name| name != "root");
    match &user {
        Some(user) => sub_ids(host, user, &mut plan)?,
        None => {
            plan.notes.push("no lines of sub-ids: say --user NAME, whose sandboxes are to have ids of their own".into())
        }
    }
    settings(host, &mut plan)?;
    delegation(host, &mut plan)?;
    profile(host, what, &mut plan)?;
    Ok(plan)
}

impl Plan {
    /// A new file, with the directories that it needs. What stands there already is somebody's: the same, or in the way.
    fn file(&mut self, host: &Host, path: &str, text: String) -> Result<bool> {
        match files::read(&host.path(path))? {
            Some(bytes) if bytes == text.as_bytes() => Ok(false),
            Some(_) => {
                self.notes.push(format!("{path} is there with other content, and is left alone"));
                Ok(false)
            }
            None => {
                let missing = files::missing_directories(&host.path(path));
                self.changes.extend(missing.iter().map(|dir| Change::Directory { path: relative(host, dir) }));
                self.changes.push(Change::File { path: path.to_owned(), text });
                Ok(true)
            }
        }
    }

    fn command(&mut self, what: &str, does: &[&str], undoes: &[&str]) {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        self.changes.push(Change::Command { what: what.to_owned(), does: words(does), undoes: words(undoes) });
    }
}

/// The number of a user; the name has to be one that can stand in the file.
fn number_of(host: &Host, user: &str) -> Result<u32> {
    let passwd = files::read(&host.path("/etc/passwd"))?.unwrap_or_default();
    let passwd = String::from_utf8_lossy(&passwd);
    let of_line = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(user)).then(|| fields.nth(1)?.parse().ok())?
    };
    let of_host = || nix::unistd::User::from_name(user).ok().flatten().map(|user| user.uid.as_raw());
    let number = passwd.lines().find_map(of_line).or_else(|| if host.is_real() { of_host() } else { None });
    match number {
        Some(number) if !user.is_empty() && !user.contains([':', '\n']) => Ok(number),
        _ => Err(format!("there is no user {user:?}")),
    }
}

/// Whose line it is, and from where to where.
fn range(line: &str) -> Option<(&str, u64, u64)> {
    let mut fields = line.split(':');
    let (owner, start, count) =
        (fields.next()?, fields.next()?.trim().parse().ok()?, fields.next()?.trim().parse().ok()?);
    Some((owner, start, count))
}

/// A range that nobody has, the same in both files.
fn sub_ids(host: &Host, user: &str, plan: &mut Plan) -> Result<()> {
    let number = number_of(host, user)?;
    let names = [user.to_owned(), number.to_string()];
    let paths = ["/etc/subuid", "/etc/subgid"];
    let mut texts = Vec::new();
    for path in paths {
        texts.push(files::read(&host.path(path))?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
    }
    let lines = || texts.iter().flatten().flat_map(|text| text.lines().filter_map(range));
    let ends = lines().map(|(_, start, count)| start.saturating_add(count));
    let start = ends.filter(|end| *end <= LAST).max().unwrap_or(0).max(FIRST);
    let overlaps = |(_, first, count): (&str, u64, u64)| first < start + COUNT && first.saturating_add(count) > start;
    if start + COUNT > LAST || lines().any(overlaps) {
        plan.notes.push("no range of ids is left for /etc/subuid and /etc/subgid".to_owned());
        return Ok(());
    }
    for (path, text) in paths.into_iter().zip(&texts) {
        let own = |(owner, _, count): (&str, u64, u64)| names.iter().any(|name| name == owner) && count > 0;
        if text.as_deref().is_some_and(|text| text.lines().filter_map(range).any(own)) {
            continue;
        }
        let lacks_newline = text.as_deref().is_some_and(|text| !text.is_empty() && !text.ends_with('\n'));
        plan.changes.push(Change::Line {
            path: path.to_owned(),
            line: format!("{user}:{start}:{COUNT}"),
            before: if lacks_newline { "\n" } else { "" }.to_owned(),
            made: text.is_none(),
        });
    }
    if !["/usr/bin/newuidmap", "/bin/newuidmap"].iter().any(|program| host.path(program).exists()) {
        plan.notes.push(
            "newuidmap is not installed, and sub-ids need it: install uidmap (shadow-utils, shadow-uidmap)".into(),
        );
    }
    Ok(())
}

/// Settings that forbid user namespaces altogether. AppArmor's restriction stays: a profile is what it asks for.
fn settings(host: &Host, plan: &mut Plan) -> Result<()> {
    let mut text = String::new();
    let mut live = Vec::new();
    for (name, value) in [("kernel.unprivileged_userns_clone", "1"), ("user.max_user_namespaces", "15000")] {
        if let Some(before) = setting(host, name).filter(|before| before.trim() == "0") {
            text += &format!("{name} = {value}\n");
            live.push(Change::Setting { name: name.to_owned(), value: value.to_owned(), before });
        }
    }
    if !text.is_empty() {
        plan.file(host, SETTINGS, format!("{MARK}{text}"))?;
        plan.changes.extend(live);
    }
    Ok(())
}

/// Where systemd runs, users have memory and pids; the rest is delegated by a drop-in.
fn delegation(host: &Host, plan: &mut Plan) -> Result<()> {
    if !host.path("/run/systemd/system").exists() || !host.path("/sys/fs/cgroup/cgroup.controllers").exists() {
        return Ok(());
    }
    let dir = host.path(DELEGATION).parent().map(std::path::Path::to_owned).unwrap_or_default();
    let delegates = |text: String| {
        let mut lines = text.lines().filter_map(|line| line.trim().strip_prefix("Delegate=").map(str::to_owned));
        lines.next_back().is_some_and(|words| {
            let has = |name: &str| words.split(' ').any(|word| word == name);
            words == "yes" || ["cpu", "cpuset", "io", "memory", "pids"].into_iter().all(has)
        })
    };
    let others = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut others =
        others.filter(|path| *path != host.path(DELEGATION) && path.extension().is_some_and(|e| e == "conf"));
    if others.any(|path| std::fs::read_to_string(path).is_ok_and(delegates)) {
        return Ok(());
    }
    let reload = ["/usr/bin/systemctl", "daemon-reload"];
    let at = plan.changes.len();
    if plan.file(host, DELEGATION, format!("{MARK}[Service]\nDelegate=cpu cpuset io memory pids\n"))? {
        plan.command("systemd reads its files again", &reload, &[]);
        // Taken back in the other direction: this one comes last.
        plan.command("systemd reads its files again", &[], &reload);
        let last = plan.changes.pop().expect("it has just been put there");
        plan.changes.insert(at, last);
    }
    Ok(())
}

/// A profile that lets this program make user namespaces, where AppArmor keeps them from all others.
fn profile(host: &Host, what: &Fix, plan: &mut Plan) -> Result<()> {
    if setting(host, "kernel.apparmor_restrict_unprivileged_userns").is_none_or(|value| value.trim() == "0") {
        return Ok(());
    }
    let program = match what.program {
        Some(program) => program.to_owned(),
        None => std::fs::read_link("/proc/self/exe").map_err(|error| format!("/proc/self/exe: {error}"))?,
    };
    let Some(text) =
        program.to_str().filter(|path| path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c)))
    else {
        plan.notes.push(format!("no AppArmor profile: {} is no path that one can name", program.display()));
        return Ok(());
    };
    // Who can change the program, or put another one in its place, would have what the profile gives.
    if !files::is_safe(&host.root, &host.path(text)) {
        plan.notes.push(format!(
            "no AppArmor profile: others than root can change {text}; install the program in /usr/local/bin, and run it from there"
        ));
        return Ok(());
    }
    let abi = if host.path("/etc/apparmor.d/abi/4.0").exists() { "abi <abi/4.0>,\n" } else { "" };
    let text = format!(
        "{MARK}{abi}include <tunables/global>\n\nprofile sandcell {text} flags=(unconfined) {{\n  userns,\n\n  \
         include if exists <local/sandcell>\n}}\n"
    );
    let parser = "/usr/sbin/apparmor_parser";
    if !host.path(parser).exists() {
        plan.notes.push("apparmor_parser is not installed, and a profile takes it: install apparmor".to_owned());
        return Ok(());
    }
    if plan.file(host, PROFILE, text)? {
        plan.command("AppArmor loads the profile", &[parser, "-r", PROFILE], &[parser, "-R", PROFILE]);
    }
    Ok(())
}
