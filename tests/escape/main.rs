//! The careless caller as a program.
//!
//!     escape run [--user] [--json] LAUNCHER [CHECK…]   one run; --user: as an ordinary user, when root
//!     escape launchers                                 their names
//!     escape table                                     write the comparison into results.md

use sandcell_tests::escape::scene::Caller;
use sandcell_tests::escape::{Row, build, judge, launchers, run, table};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("run") => one_run(&arguments[1..]),
        Some("launchers") => {
            launchers::ALL.iter().for_each(|l| println!("{:22} {}", l.name, l.about));
            Ok(true)
        }
        Some("table") => table_for_document(),
        _ => Err("usage: escape run [--user] [--json] LAUNCHER [CHECK...] | escape launchers | escape table".into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("escape: {message}");
            ExitCode::from(2)
        }
    }
}

fn one_run(arguments: &[String]) -> Result<bool, String> {
    // The secret must stand in this process's own environment and the place in its arguments, as a careless
    // caller's would: both are read from /proc, which shows what a program was started with.
    let (Ok(secret), Some(place)) = (std::env::var(SECRET), place(arguments)) else {
        let (secret, place) = (format!("hush-{}", random()?), format!("place-{}", random()?));
        let exe = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut command = Command::new(exe);
        command.arg("run").arg(format!("--place={place}")).args(arguments).env(SECRET, secret);
        return Err(format!("exec: {}", command.exec()));
    };
    let has = |option: &str| arguments.iter().any(|a| a == option);
    let mut words = arguments.iter().filter(|a| !a.starts_with("--"));
    let name = words.next().ok_or("no launcher named")?;
    let only: Vec<String> = words.cloned().collect();
    let launcher = launchers::named(name).ok_or_else(|| format!("no launcher {name}"))?;
    if let Some(why) = launcher.unavailable() {
        return Err(why);
    }
    let caller = if has("--user") { Caller::ordinary().map_err(|e| e.to_string())? } else { Caller::current() };
    let run = run::run(launcher, caller, &secret, &place, &only).map_err(|e| format!("setting the stage: {e}"))?;
    if has("--json") {
        run.rows.iter().for_each(|row| println!("{}", row.to_json()));
        println!(
            "{}",
            serde_json::json!({"event": "end", "wall_ms": run.wall.as_millis() as u64, "complete": run.complete,
                "complaint": run.complaint})
        );
    } else {
        run.rows.iter().for_each(show);
        let count = |result: &str| run.rows.iter().filter(|row| row.result == result).count();
        println!("{} held, {} open, {} n/a in {} ms", count("held"), count("open"), count("n/a"), run.wall.as_millis());
        if !run.complaint.is_empty() {
            println!("the log: {}", run.complaint);
        }
    }
    Ok(run.complete)
}

/// Writes the comparison into results.md. Root only: the stage needs mounts; the runs are an ordinary user's.
fn table_for_document() -> Result<bool, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let entries = build::catalogue(&build::probe()?)?;
    let mut reports = vec![];
    for name in ["sandcell", "bwrap", "unshare"] {
        reports.push(judge::gather(&own, launchers::named(name).ok_or(name)?, true)?);
    }
    table::write(&table::render(&entries, &reports))?;
    Ok(true)
}

const SECRET: &str = "SANDCELL_ESCAPE_CALLER_SECRET";

fn place(arguments: &[String]) -> Option<String> {
    arguments.iter().find_map(|a| a.strip_prefix("--place=")).map(str::to_string)
}

fn random() -> Result<String, String> {
    use std::io::Read;
    let mut bytes = [0; 6];
    let mut file = std::fs::File::open("/dev/urandom").map_err(|e| e.to_string())?;
    file.read_exact(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

fn show(row: &Row) {
    println!("{:5} P{} {:28} {}", row.result, row.priority, row.id, row.detail);
}
