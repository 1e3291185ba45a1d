//! `sandcell doctor`: what this host allows, where that is, and what to say to have more.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use sandcell::printable;
use serde_json::Value;

use crate::{fix, places, printed};

#[derive(Args)]
pub struct Doctor {
    /// As a JSON array
    #[arg(long)]
    json: bool,
    /// List the places that are known, with the line that each of them takes; the host is not asked
    #[arg(long)]
    places: bool,
    /// As root: make the changes that sandboxes need here (sub-ids, settings, delegation, AppArmor), after showing and asking
    #[arg(long, conflicts_with_all = ["json", "places"])]
    fix: bool,
    /// As root: take back what --fix has changed
    #[arg(long, conflicts_with_all = ["json", "places", "fix"])]
    unfix: bool,
    /// With --fix or --unfix: only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// With --fix or --unfix: do not ask
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// With --fix: who is to have sub-ids [default: SUDO_USER]
    #[arg(long, value_name = "NAME", requires = "fix")]
    user: Option<String>,
    #[arg(long, hide = true, value_name = "DIR")]
    root: Option<PathBuf>,
    #[arg(long, hide = true, value_name = "FILE", requires = "fix")]
    program: Option<PathBuf>,
}

/// Ends with 1 where nothing can run here: neither with namespaces nor with Landlock alone.
pub fn run(what: &Doctor) -> ExitCode {
    if what.fix || what.unfix {
        return fix::run(&fix::Fix {
            undo: what.unfix,
            dry_run: what.dry_run,
            yes: what.yes,
            user: what.user.as_deref(),
            root: what.root.as_deref(),
            program: what.program.as_deref(),
        });
    }
    if what.dry_run || what.yes {
        complain!("sandcell: doctor: --dry-run and --yes go with --fix or --unfix");
        return crate::FAILED.into();
    }
    if what.places {
        let table = if what.json { places::table_as_json() } else { places::table() };
        return printed(Ok(table.into()));
    }
    let json = sandcell::report::findings_to_json(&sandcell::doctor());
    let mut findings: Vec<Value> = serde_json::from_str(&json).expect("it was just made");
    findings.push(places::here(&findings));
    let runs =
        |finding: &Value| finding["ok"] == true && ["sandbox", "landlock-only"].iter().any(|n| finding["name"] == *n);
    let can_run = findings.iter().any(runs);
    let text = match what.json {
        true => Value::from(findings).to_string() + "\n",
        false => in_words(&findings),
    };
    printed(Ok(text.into()));
    if can_run { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn in_words(findings: &[Value]) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = |key: &str| printable(finding[key].as_str().unwrap_or_default());
        let mark = if finding["ok"] == true { "yes" } else { "no " };
        text += &format!("{mark} {:<16} {}\n", word("name"), crate::in_own_words(&word("detail")));
        if finding["remedy"] != "" {
            text += &format!("    {:<16} remedy: {}\n", "", crate::in_own_words(&word("remedy")));
        }
        if finding["name"] == "place" {
            text += &places::more_in_words(finding);
        }
    }
    text
}
