//! `sandcell doctor`: what this host allows, where that is, and what to say to have more.

use std::process::ExitCode;

use clap::Args;
use sandcell::printable;
use serde_json::Value;

use crate::{places, printed};

#[derive(Args)]
pub struct Doctor {
    /// As a JSON array
    #[arg(long)]
    json: bool,
    /// List the places that are known, with the line that each of them takes; the host is not asked
    #[arg(long)]
    places: bool,
}

/// Ends with 1 where nothing can run here: neither with namespaces nor with Landlock alone.
pub fn run(what: &Doctor) -> ExitCode {
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
        text += &format!("{mark} {:<16} {}\n", word("name"), crate::in_own_words(word("detail")));
        if finding["remedy"] != "" {
            text += &format!("    {:<16} remedy: {}\n", "", crate::in_own_words(word("remedy")));
        }
        if finding["name"] == "place" {
            text += &places::more_in_words(finding);
        }
    }
    text
}
