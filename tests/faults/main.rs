//! Fault injection by hand.
//!
//!     faults list SCENARIO [--user]
//!     faults one SCENARIO PROCESS CALL OCCURRENCE ERRNO [--user]
//!     faults all SCENARIO [--user] [--first] [--part=K/N]
//!
//! K of N (from 1) is a share of the calls, for a long campaign in pieces.

use sandcell_tests::faults::campaign::{Breadth, Campaign};
use sandcell_tests::faults::errnos;
use sandcell_tests::faults::tracer::{Fault, Site, User};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("faults: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let (options, words): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|word| word.starts_with("--"));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let option = |name: &str| options.iter().any(|word| word == name);
    let user =
        if option("--user") { Some(User::of_the_tests().ok_or("there is no user sandcell-test")?) } else { None };
    let here = std::env::current_exe().map_err(|e| e.to_string())?;
    let victim = here.with_file_name("faults-victim");
    let campaign = |scenario: &str| Campaign::new(&victim, scenario, user);
    match words.as_slice() {
        ["list", scenario] => {
            let (said, sites) = campaign(scenario)?.usual()?;
            for (site, arguments) in sites {
                println!("{site} {arguments:x?}");
            }
            println!("{}", said["first"]["posture"].as_str().unwrap_or_default());
            println!("{}", said["first"]["enforced"]);
        }
        ["one", scenario, process, call, occurrence, errno] => {
            let call = errnos::number(call).ok_or(format!("{call} is not in the table"))?;
            let occurrence = occurrence.parse().map_err(|e| format!("{occurrence}: {e}"))?;
            let errno = errnos::errno_number(errno).ok_or(format!("{errno} is not in the table"))?;
            let fault = Fault { site: Site { process: process.to_string(), call, occurrence }, errno };
            let campaign = campaign(scenario)?;
            let (usual, _) = campaign.usual()?;
            let trace = campaign.run(Some(&fault))?;
            println!("{trace:#?}");
            println!("{:?}", campaign.one(&usual, &fault));
        }
        ["all", scenario] => {
            let breadth = if option("--first") { Breadth::EachCall } else { Breadth::All };
            let part = options.iter().find_map(|word| word.strip_prefix("--part="));
            let results = campaign(scenario)?.all(breadth, part.map_or(Ok((0, 1)), share)?)?;
            for ((process, call), row) in &results.rows {
                let names: Vec<String> = row.errnos.iter().map(|errno| errnos::errno_name(*errno)).collect();
                let (sites, errors, same) = (row.sites.len(), row.errors, row.same);
                println!("{process:12} {call:24} {sites:4} sites {errors:4} errors {same:4} same  {}", names.join(" "));
            }
            println!("{} runs, {} wrong, not reached {:?}", results.runs, results.wrong.len(), results.missed);
            println!("stages {}", Vec::from_iter(results.stages).join(" "));
            results.wrong.iter().for_each(|wrong| println!("{wrong}"));
        }
        _ => return Err("see the first lines of tests/faults/main.rs".into()),
    }
    Ok(())
}

/// `3/40` as the third of forty.
fn share(word: &str) -> Result<(usize, usize), String> {
    let numbers = word.split_once('/').and_then(|(k, n)| Some((k.parse::<usize>().ok()?, n.parse::<usize>().ok()?)));
    let share = numbers.filter(|(k, n)| (1..=*n).contains(k));
    share.map(|(k, n)| (k - 1, n)).ok_or(format!("{word}: not a share like 3/40"))
}
