//! All calls of one way of building a sandbox, one after another.

use super::judge::{self, Verdict};
use super::tracer::{self, Fault, Site, Trace, User};
use super::{errnos, judge::judge};
use crate::escape::build;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Ways of building a sandbox; see `victim::set`. `named` and `system` are for runs by hand.
pub const SCENARIOS: &[&str] =
    &["shared", "leased", "cell", "pool", "layers", "kept", "limits", "learned", "tier", "terminal", "named", "system"];

pub struct Campaign {
    victim: PathBuf,
    scenario: String,
    user: Option<User>,
    place: PathBuf,
}

/// The calls of a run with their arguments.
pub type Sites = Vec<(Site, [u64; 6])>;

/// How much of a campaign is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breadth {
    /// Every call with every errno.
    All,
    /// Every call, with the first of its errnos.
    EachCall,
    /// The same for ten calls of each kind in each process: one in a loop stands for its neighbours.
    Sample,
}

fn chosen(sites: &Sites, breadth: Breadth) -> Vec<&Site> {
    const MOST: u32 = 10;
    let mut counts: BTreeMap<(&str, i64), u32> = BTreeMap::new();
    for (site, _) in sites {
        *counts.entry((site.process.as_str(), site.call)).or_default() += 1;
    }
    let wanted = |site: &&Site| {
        let count = counts[&(site.process.as_str(), site.call)];
        let stride = count.div_ceil(MOST);
        breadth != Breadth::Sample || site.occurrence % stride == 1 % stride || site.occurrence == count
    };
    sites.iter().map(|(site, _)| site).filter(wanted).collect()
}

/// What came of all failures of a campaign.
#[derive(Default)]
pub struct Results {
    /// For each call of each process: sites, errnos tried, errors, runs as strong as ever.
    pub rows: BTreeMap<(String, String), Row>,
    pub wrong: Vec<String>,
    /// Sites that were not reached again.
    pub missed: Vec<String>,
    /// What the errors named.
    pub stages: BTreeSet<String>,
    pub runs: usize,
}

#[derive(Default)]
pub struct Row {
    pub sites: BTreeSet<u32>,
    pub errnos: BTreeSet<i32>,
    pub errors: usize,
    pub same: usize,
    pub reported: usize,
}

impl Campaign {
    /// `victim` is the program; its files are made in a directory of their own.
    pub fn new(victim: &Path, scenario: &str, user: Option<User>) -> Result<Campaign, String> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let place = PathBuf::from(format!("/var/tmp/sandcell-faults.{}.{number}", std::process::id()));
        let campaign = Campaign { victim: place.join("victim"), scenario: scenario.into(), user, place };
        campaign.prepare(victim).map_err(|e| format!("{}: {e}", campaign.place.display()))?;
        Ok(campaign)
    }

    fn prepare(&self, victim: &Path) -> std::io::Result<()> {
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        for name in ["", "bin", "layer", "layer/etc", "rw", "upper", "tmp", "run", "state"] {
            let path = self.place.join(name);
            fs::create_dir(&path)?;
            mode(&path, if name == "rw" { 0o777 } else { 0o755 })?;
            if let Some(user) = self.user {
                chown(&path, Some(user.uid), Some(user.gid))?;
            }
        }
        mode(&self.place.join("run"), 0o700)?;
        let probe = build::probe().map_err(std::io::Error::other)?;
        // Not by this process: another thread's child could hold it open for writing while it is executed (ETXTBSY).
        let copied = |from: &Path, to: &Path| Command::new("cp").arg(from).arg(to).status().is_ok_and(|s| s.success());
        if copied(&probe, &self.place.join("bin/escape-probe")) && copied(victim, &self.victim) {
            return Ok(());
        }
        Err(std::io::Error::other("cp failed"))
    }

    /// Runs the victim once.
    pub fn run(&self, fault: Option<&Fault>) -> Result<Trace, String> {
        let mut command = Command::new(&self.victim);
        command.arg(&self.scenario).arg(&self.place).env_clear().current_dir(&self.place);
        command.env("PATH", "/usr/bin:/bin").env("TMPDIR", self.place.join("tmp"));
        command.env("XDG_RUNTIME_DIR", self.place.join("run")).env("XDG_STATE_HOME", self.place.join("state"));
        tracer::run(command, self.user, fault).map_err(|e| format!("{}: {e}", self.victim.display()))
    }

    /// What the victim says where nothing fails. Where the host cannot do it at all, why.
    pub fn usual(&self) -> Result<(Value, Sites), String> {
        let trace = self.run(None)?;
        if let Some((site, _)) = trace.sites.iter().find(|(site, _)| site.process.is_empty()) {
            return Err(format!("a process without a name made the call {site}"));
        }
        let said = judge::said(&trace)?;
        for run in ["first", "again"] {
            if let Some(error) = said[run]["error"].as_str() {
                return Err(error.to_string());
            }
        }
        if said["changed"] != Value::Array(vec![]) {
            return Err(format!("something of the caller has changed: {}", said["changed"]));
        }
        Ok((said, trace.sites))
    }

    /// Lets one call fail: the verdict, and the stage that the error named. A call that was not made this time (which locks were free, who was quicker) is given more
    /// chances.
    pub fn one(&self, usual: &Value, fault: &Fault) -> Result<Option<(Verdict, Option<String>)>, String> {
        for _ in 0..4 {
            let trace = self.run(Some(fault))?;
            if !trace.injected {
                continue;
            }
            let left = self.left_behind();
            let verdict = judge(usual, &trace, fault)?;
            let stage = judge::said(&trace)?["first"]["stage"].as_str().map(str::to_owned);
            return left.map_or(Ok(Some((verdict, stage))), |left| Err(format!("left behind: {left}")));
        }
        Ok(None)
    }

    /// Lets calls fail, one after another; of `parts` equal shares the one with the number `part`, from 0.
    pub fn all(&self, breadth: Breadth, (part, parts): (usize, usize)) -> Result<Results, String> {
        let (usual, sites) = self.usual()?;
        let mut results = Results::default();
        let all_errnos = breadth == Breadth::All;
        for site in chosen(&sites, breadth).into_iter().skip(part).step_by(parts) {
            let Some(errnos) = errnos::of(site) else {
                results.wrong.push(format!("{site}: how can it fail? It is not in tests/faults/errnos.rs"));
                continue;
            };
            let row = results.rows.entry((site.process.clone(), errnos::name(site.call))).or_default();
            row.sites.insert(site.occurrence);
            for &errno in errnos.iter().take(if all_errnos { usize::MAX } else { 1 }) {
                row.errnos.insert(errno);
                results.runs += 1;
                match self.one(&usual, &Fault { site: site.clone(), errno }) {
                    Ok(Some((verdict, stage))) => {
                        results.stages.extend(stage);
                        *match verdict {
                            Verdict::Error => &mut row.errors,
                            Verdict::Same => &mut row.same,
                            Verdict::Reported => &mut row.reported,
                        } += 1;
                    }
                    Ok(None) => results.missed.push(site.to_string()),
                    Err(wrong) => results.wrong.push(format!("{site} {}: {wrong}", errnos::errno_name(errno))),
                }
            }
        }
        Ok(results)
    }

    /// Files and mounts that should not be there.
    fn left_behind(&self) -> Option<String> {
        let list = |name: &str| -> Vec<String> {
            let entries = fs::read_dir(self.place.join(name)).into_iter().flatten().flatten();
            entries.map(|entry| format!("{name}/{}", entry.file_name().to_string_lossy())).collect()
        };
        let mut left: Vec<String> = ["rw", "tmp", "layer", "run/sandcell/cells", "state/sandcell/cells"]
            .iter()
            .flat_map(|name| list(name))
            .collect();
        // The lock of the whole directory stays: whoever is next takes it.
        left.retain(|name| !matches!(name.as_str(), "layer/etc" | "run/sandcell/cells/.lock"));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let here = self.place.to_string_lossy();
        left.extend(mounts.lines().filter(|line| line.contains(&*here)).map(str::to_string));
        // What one run leaves is not held against the next one.
        for name in ["run/sandcell", "state/sandcell"] {
            let _ = fs::remove_dir_all(self.place.join(name));
        }
        (!left.is_empty()).then(|| left.join(", "))
    }
}

impl Drop for Campaign {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.place);
    }
}
