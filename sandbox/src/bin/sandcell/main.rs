//! The `sandcell` program: a sandbox from the command line.

/// A line on standard error. A reader that has gone must not turn the program's status into a panic's.
macro_rules! complain {
    ($($words:tt)*) => { let _ = writeln!(std::io::stderr(), $($words)*); };
}

mod files;
mod images;
mod options;
mod run;
mod sys;
mod test;
mod values;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, CommandFactory, Parser};

use options::{Action, Cli, Options};
use sandcell::{Error, Failure};

/// The sandbox failed, or was asked for wrongly.
const FAILED: u8 = 125;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are no errors; everything else must not look like a status of the program.
        Err(error) => {
            let _ = error.print();
            if !error.use_stderr() {
                return ExitCode::SUCCESS;
            }
            report_mistake(&error);
            return FAILED.into();
        }
    };
    match cli.action {
        Action::Run { options, report, program } => {
            run::run(&options, || options.sandbox(), report.as_deref(), &program.words).status()
        }
        Action::Test { options, source, build, report, program } => {
            let sandbox = || test::sandbox(&options, source.as_deref(), &build, program.words.first());
            run::run(&options, sandbox, report.as_deref(), &program.words).same()
        }
        Action::Explain { options, syscalls: true, .. } => printed(options.syscalls().map(String::into_bytes)),
        Action::Explain { options, json, .. } => printed(explain(&options, json)),
        Action::Learn { options, output, program } => run::learn(&options, &output, &program.words),
        Action::Doctor { json } => printed(Ok(doctor(json))),
        Action::Files(what) => printed(files::run(&what)),
        Action::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sandcell", &mut script);
            printed(Ok(script))
        }
        Action::Man => printed(manual()),
        Action::Image(action) => printed(images::act(&action)),
    }
}

/// A report is written of a command line that makes no sense, too, where it can be told that one was asked for: it is
/// read once more, with any word taken for a value, as far as its options are known.
fn report_mistake(error: &clap::Error) {
    let any_value = |arg: Arg| match arg.get_action() {
        ArgAction::Set | ArgAction::Append => arg.value_parser(ValueParser::os_string()),
        _ => arg,
    };
    let command = ["run", "test"].into_iter().fold(Cli::command().ignore_errors(true), |command, name| {
        command.mut_subcommand(name, |command| command.mut_args(any_value))
    });
    let Ok(understood) = command.try_get_matches() else { return };
    let words = understood.subcommand().map(|(_, words)| words);
    let place = words.and_then(|words| words.try_get_one::<OsString>("report").ok().flatten());
    // The first paragraph: what is wrong, without the usage.
    let text = error.render().to_string();
    let lines: Vec<_> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let message = lines.join(" ");
    if let Some(place) = place {
        let mistake = Error::option("command line", message.trim_start_matches("error: "));
        let hint = |failure: &mut Failure| failure.hint = "`--help` lists what can be said".to_owned();
        run::report_mistake(place, &options::amended(mistake, hint));
    }
}

fn explain(options: &Options, json: bool) -> Result<Vec<u8>, Error> {
    let steps = options.sandbox()?.explain()?;
    if json {
        return Ok((sandcell::report::steps_to_json(&steps) + "\n").into());
    }
    let mut text = String::new();
    for (number, step) in (1..).zip(&steps) {
        let subject = if step.subject.is_empty() { String::new() } else { format!("{}: ", step.subject) };
        text += &format!("{number:3}  {:<18} {subject}{}\n", step.name, step.words);
    }
    Ok(text.into())
}

fn doctor(json: bool) -> Vec<u8> {
    let findings = sandcell::doctor();
    if json {
        return (sandcell::report::findings_to_json(&findings) + "\n").into();
    }
    let mut text = String::new();
    for finding in &findings {
        let mark = if finding.ok { "yes" } else { "no " };
        text += &format!("{mark} {:<16} {}\n", finding.name, finding.detail);
        if !finding.remedy.is_empty() {
            text += &format!("    {:<16} remedy: {}\n", "", finding.remedy);
        }
    }
    text.into()
}

fn manual() -> Result<Vec<u8>, Error> {
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    for part in std::iter::once(&command).chain(command.get_subcommands().filter(|c| c.get_name() != "help")) {
        clap_mangen::Man::new(part.clone()).render(&mut page).expect("writing to memory does not fail");
    }
    Ok(page)
}

/// Prints what was asked for. A reader that has seen enough (`| head`) is no error.
fn printed(what: Result<Vec<u8>, Error>) -> ExitCode {
    match what {
        Ok(bytes) => {
            let _ = std::io::stdout().write_all(&bytes);
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(&error);
            FAILED.into()
        }
    }
}

/// One line of what went wrong, and one of what to do.
fn tell(error: &Error) {
    complain!("sandcell: {error}");
    if !error.hint().is_empty() {
        complain!("hint: {}", error.hint());
    }
}
