//! What is listed of cells.

use sandcell::cells_to_json;
use sandcell::{CellInfo, CellState, Error, cells, printable_json};

use super::{infos, short};
use crate::images::table::{Table, size};

pub fn list(all: bool, json: bool) -> Result<Vec<u8>, Error> {
    let infos = living(all);
    if json {
        return Ok((printable_json(&cells_to_json(&infos)) + "\n").into());
    }
    let mut table =
        Table::new(&["NAME", "STATE", "UPTIME", "MEMORY", "CPU", "PIDS", "NETWORK", "PORTS", "IMAGE", "PROGRAM"]);
    for info in &infos {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let words: Vec<_> = info.words.iter().map(|word| word.to_string_lossy()).collect();
        let ports: Vec<_> = info.published.iter().map(ToString::to_string).collect();
        let mut program: String = words.join(" ").chars().take(60).collect();
        if program.is_empty() {
            program.push('-');
        }
        table.row(&[
            &info.name,
            &state(info),
            &short(info.lived),
            &or_dash(info.memory_bytes.map(size)),
            &or_dash(cpu(info)),
            &or_dash(info.pids.map(|pids| pids.to_string())),
            &info.network,
            &or_dash((!ports.is_empty()).then(|| ports.join(","))),
            info.image.as_deref().unwrap_or("-"),
            &program,
        ]);
    }
    Ok(table.text())
}

/// Those that can be told of: one that is just being removed is not.
fn living(all: bool) -> Vec<CellInfo> {
    let infos = cells().into_iter().filter_map(|cell| cell.info().ok());
    infos.filter(|info| all || info.state != CellState::Ended).collect()
}

/// The state, with how it ended, or what is wrong with it.
fn state(info: &CellInfo) -> String {
    match (&info.outcome, info.log_errno) {
        (Some(Ok(report)), _) => report.outcome.to_string(),
        (Some(Err(error)), _) => error.to_string(),
        (None, Some(errno)) => format!("{}, log: {}", info.state.as_str(), nix::errno::Errno::from_raw(errno)),
        (None, None) if info.state == CellState::Waiting => {
            let left = info.next_run.and_then(|next| next.duration_since(std::time::SystemTime::now()).ok());
            left.map_or_else(|| "waiting".to_owned(), |left| format!("waiting, {} left", short(left)))
        }
        (None, None) => info.state.as_str().to_owned(),
    }
}

fn cpu(info: &CellInfo) -> Option<String> {
    let time = info.usage.user? + info.usage.system.unwrap_or_default();
    Some(format!("{:.2}s", time.as_secs_f64()))
}

pub fn stats(names: &[String], json: bool) -> Result<Vec<u8>, Error> {
    let infos = if names.is_empty() { living(false) } else { infos(names)? };
    if json {
        return Ok((printable_json(&cells_to_json(&infos)) + "\n").into());
    }
    let mut table = Table::new(&["NAME", "MEMORY", "PEAK", "CPU", "PIDS", "READ", "WRITTEN", "LOG", "RESTARTS"]);
    for info in &infos {
        let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), size);
        table.row(&[
            &info.name,
            &bytes(info.memory_bytes),
            &bytes(info.usage.memory_peak_bytes),
            &cpu(info).unwrap_or_else(|| "-".to_owned()),
            &info.pids.map_or_else(|| "-".to_owned(), |pids| pids.to_string()),
            &bytes(info.usage.io_read_bytes),
            &bytes(info.usage.io_write_bytes),
            &size(info.log_bytes),
            &info.restarts.to_string(),
        ]);
    }
    Ok(table.text())
}
