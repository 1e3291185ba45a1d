//! `sandcell logs` and `attach`: the log as it is, and as it comes.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use sandcell::{Cell, Error, LogLine, LogReader, NamedCell, options as table, printable_lines};

use super::ended;
use crate::options::amended;

/// Where to begin.
pub struct From<'a> {
    pub since: Option<&'a str>,
    pub tail: Option<usize>,
    pub offset: Option<u64>,
}

pub fn logs(name: &str, from: &From<'_>, follow: bool, timestamps: bool) -> Result<(), Error> {
    let since = from.since.map(time).transpose()?;
    let cell = Cell::find(name)?;
    let mut reader = cell.log()?;
    if let Some(count) = from.tail {
        reader.tail(count)?;
    }
    if let Some(offset) = from.offset {
        reader.seek(offset);
    }
    let mut begun = [false; 2];
    loop {
        while let Some(line) = reader.next_line()? {
            if since.is_some_and(|since| line.time < since) {
                continue;
            }
            if show(&line, timestamps, &mut begun).is_err() {
                // A reader that has seen enough (`| head`) is no error.
                return Ok(());
            }
        }
        let _ = io::stdout().flush();
        if !follow || !reader.wait(None)? {
            break;
        }
    }
    if reader.skipped() > 0 {
        complain!("sandcell: {} bytes of the log were not there any more", reader.skipped());
    }
    Ok(())
}

/// To the stream from which it came. On a terminal without what would change the screen.
fn show(line: &LogLine, timestamps: bool, begun: &mut [bool; 2]) -> io::Result<()> {
    let error = line.stream == 2;
    let at = usize::from(error);
    let mut text = Vec::new();
    if timestamps && !begun[at] {
        text.extend_from_slice(format!("{} {} ", line.stamp, if error { "stderr" } else { "stdout" }).as_bytes());
    }
    begun[at] = line.partial;
    if is_terminal(error) {
        text.extend_from_slice(printable_lines(&String::from_utf8_lossy(&line.text), "").as_bytes());
    } else {
        text.extend_from_slice(&line.text);
    }
    if !line.partial {
        text.push(b'\n');
    }
    if error { io::stderr().write_all(&text) } else { io::stdout().lock().write_all(&text) }
}

fn is_terminal(error: bool) -> bool {
    use io::IsTerminal;
    if error { io::stderr().is_terminal() } else { io::stdout().is_terminal() }
}

/// `10m` for ten minutes ago, or a time as logs have it.
fn time(text: &str) -> Result<SystemTime, Error> {
    if let Some(time) = sandcell::LogLine::parse_time(text) {
        return Ok(time);
    }
    let ago = table::duration("since", text).map_err(|error| {
        amended(error, |failure| {
            failure.message = format!("{text:?} is neither a time nor a duration");
            failure.hint = "Write 10m for ten minutes ago, or 2026-11-30T01:14:44Z.".to_owned();
        })
    })?;
    Ok(SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH))
}

/// Shows what comes, feeds what is typed, and ends as the cell does.
pub fn attach(name: &str, takeover: bool, feed: bool) -> Result<ExitCode, Error> {
    let cell = Cell::find(name)?;
    attach_to(&cell, takeover, feed).map_err(|error| match Cell::find(name) {
        Ok(_) => error,
        // Whatever of it was missed first.
        Err(_) => super::inside::mistake(
            name,
            "the cell was removed meanwhile",
            "`sandcell ps -a` lists those that are there.",
        ),
    })
}

fn attach_to(cell: &NamedCell, takeover: bool, feed: bool) -> Result<ExitCode, Error> {
    let mut reader = cell.log()?;
    // What was there before, `logs` shows.
    reader.tail(0)?;
    match feed.then(|| input(cell, takeover)) {
        // It may wait for a terminal when the cell has ended: nobody waits for it.
        Some(Ok(Some(input))) => drop(std::thread::Builder::new().spawn(move || copy_in(input))),
        // It ends: how, is told in the end.
        Some(Err(error)) if error.errno() == Some(nix::libc::ESRCH) => {}
        Some(Err(error)) => return Err(error),
        Some(Ok(None)) | None => {}
    }
    show_all(&mut reader)?;
    cell.wait().map(|report| ended(&report))
}

/// The main program's standard input, where it has one.
fn input(cell: &NamedCell, takeover: bool) -> Result<Option<sandcell::Attached>, Error> {
    if cell.info()?.stdin { cell.attach(takeover).map(Some) } else { Ok(None) }
}

fn show_all(reader: &mut LogReader) -> Result<(), Error> {
    loop {
        while let Some(line) = reader.next_line()? {
            let mut text = line.text;
            if !line.partial {
                text.push(b'\n');
            }
            let written = if line.stream == 2 { io::stderr().write_all(&text) } else { io::stdout().write_all(&text) };
            if written.is_err() {
                return Ok(());
            }
        }
        let _ = io::stdout().flush();
        if !reader.wait(None)? {
            return Ok(());
        }
    }
}

/// Standard input for the main program; its end is the program's, too.
fn copy_in(mut input: sandcell::Attached) {
    let mut stdin = io::stdin().lock();
    let mut buffer = [0; 16 * 1024];
    loop {
        match io::Read::read(&mut stdin, &mut buffer) {
            Ok(0) => {
                let _ = input.close();
                return;
            }
            Ok(length) => match input.write_all(&buffer[..length]) {
                Ok(()) => {}
                Err(error) => {
                    if error.kind() == io::ErrorKind::ConnectionAborted {
                        complain!("sandcell: {error}; what is typed here goes nowhere");
                    }
                    return;
                }
            },
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}
