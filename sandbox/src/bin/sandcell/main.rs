//! The `sandcell` program: a sandbox from the command line.

/// A line on standard error. A reader that has gone must not turn the program's status into a panic's.
macro_rules! complain {
    ($($words:tt)*) => { $crate::late::complain(&(format!($($words)*) + "\n")); };
}

mod background;
mod cdi;
mod cells;
mod doctor;
mod files;
mod fix;
mod images;
mod late;
mod named;
mod options;
mod places;
mod run;
mod shell;
mod sys;
mod terminal;
mod test;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, CommandFactory};

use options::{Action, Cli, Options};
use sandcell::{Error, Failure, Policy, options as table, printable, printable_json, printable_lines};

/// The sandbox failed, or was asked for wrongly.
const FAILED: u8 = 125;

fn main() -> ExitCode {
    // A file that grows beyond RLIMIT_FSIZE is an error that is told; programs start with no signal blocked.
    let _ = sys::block_file_size_signal();
    let words: Vec<_> = std::env::args_os().collect();
    if let [_, word] = &words[..]
        && ["--version", "-V"].iter().any(|version| word == version)
    {
        let _ = writeln!(std::io::stdout(), "sandcell {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let cli = match options::understood(words) {
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
        Action::Run(options::Run { options, terminal, report, trace, program }) => {
            let sandbox = || match trace {
                true => options.builder()?.on_start_stage(run::tell_stage).build(),
                false => options.sandbox(),
            };
            let run = run::Run { report: report.as_deref(), tty: terminal.tty };
            run.run(sandbox, |sandbox| options.command(sandbox, &program.words)).status()
        }
        Action::Shell { options, report, image } => shell::run(*options, report.as_deref(), image).status(),
        Action::Test { options, source, build, report, program } => {
            let sandbox = || test::sandbox(&options, source.as_deref(), &build, program.words.first());
            let run = run::Run { report: report.as_deref(), tty: false };
            run.run(sandbox, |sandbox| options.command(sandbox, &program.words)).same()
        }
        Action::Explain { options, syscalls: true, .. } => printed(options.syscalls().map(String::into_bytes)),
        Action::Explain { options, only_options: true, .. } => printed(lines_of_options(&options)),
        Action::Explain { options, terminal, json, program, .. } => {
            printed(explain(&options, terminal.tty, json, &program.words))
        }
        Action::Learn { options, output, program } => run::learn(&options, &output, &program.words),
        Action::Doctor(what) => doctor::run(&what),
        Action::Files(what) => printed(files::run(&what)),
        Action::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sandcell", &mut script);
            printed(Ok(script))
        }
        Action::Man => printed(manual()),
        Action::Cell(action) => cells::act(action),
        Action::Image(action) => {
            let mut status = FAILED;
            let what = images::act(&action, &mut status);
            printed_or(what, status)
        }
    }
}

/// A report is written of a command line that makes no sense, too, where it can be told that one was asked for: it is
/// read once more, with any word taken for a value, as far as its options are known.
fn report_mistake(error: &clap::Error) {
    let any_value = |arg: Arg| match arg.get_action() {
        ArgAction::Set | ArgAction::Append => arg.value_parser(ValueParser::os_string()),
        _ => arg,
    };
    let command = ["run", "shell", "test"].into_iter().fold(Cli::command().ignore_errors(true), |command, name| {
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

/// What was asked for beyond the defaults.
fn lines_of_options(options: &Options) -> Result<Vec<u8>, Error> {
    let builder = options.builder()?;
    let given = builder.policy().options();
    let lines = given.iter().flat_map(|(name, values)| values.iter().map(move |value| format!("{name}={value}\n")));
    Ok(lines.collect::<String>().into())
}

/// What a run would be, and the steps that it would take; refused where the run would be.
fn explain(options: &Options, tty: bool, json: bool, words: &[OsString]) -> Result<Vec<u8>, Error> {
    let builder = options.builder()?;
    let mut summary = summary(builder.policy());
    if tty {
        summary += TERMINAL;
    }
    let sandbox = builder.build()?;
    let argv = options.argv(&sandbox, words)?;
    let steps = sandbox.explain()?;
    if json {
        return Ok((printable_json(&sandcell::report::steps_to_json(&steps)) + "\n").into());
    }
    let argv: Vec<_> = argv.iter().map(|word| format!("{:?}", word.to_string_lossy())).collect();
    let mut text = format!("{:<16} {}\n{summary}\n", "program", argv.join(" "));
    for (number, step) in (1..).zip(&steps) {
        let subject = if step.subject.is_empty() { String::new() } else { printable(&step.subject) + ": " };
        text += &format!("{number:3}  {:<18} {subject}{}\n", step.name, printable(&step.words));
    }
    Ok(text.into())
}

/// Of the program's start, which is no step of building the sandbox.
const TERMINAL: &str = "tty              a terminal in the sandbox's own devpts, opened when the program starts\n";

/// What holds for every run, and what was asked for: limits, times, outputs, files.
fn summary(policy: &Policy) -> String {
    const ALWAYS: [&str; 7] = ["root", "user", "network", "seccomp", "landlock", "grace", "leftovers"];
    let given = policy.options();
    let asked = |spec: &&table::Spec| ALWAYS.contains(&spec.name) || given.iter().any(|(name, _)| *name == spec.name);
    // As the policy has it: an allow rule or a port makes the private loopback the network of the rules.
    const RULES: [&str; 5] = ["allow_host", "allow_net", "publish", "publish_all", "host_port"];
    let is_by_rules = given.iter().any(|(name, _)| RULES.contains(name));
    let line = |(spec, value): (&table::Spec, String)| match (spec.name, value.as_str()) {
        ("network", "loopback") if is_by_rules => format!("{:<16} user\n", spec.name),
        _ => format!("{:<16} {}\n", spec.name, printable(&value)),
    };
    table::all()
        .filter(asked)
        .flat_map(|spec| spec.shown(policy).into_iter().map(move |value| (spec, value)))
        .map(line)
        .collect()
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
    printed_or(what, FAILED)
}

/// The same with a status of its own for an error.
fn printed_or(what: Result<Vec<u8>, Error>, status: u8) -> ExitCode {
    match what {
        Ok(bytes) => {
            let _ = std::io::stdout().write_all(&bytes);
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(&error);
            status.into()
        }
    }
}

/// One line of what went wrong, and one of what to do.
fn tell(error: &Error) {
    complain!("sandcell: {error}");
    if !error.hint().is_empty() {
        complain!("hint: {}", printable_lines(&in_own_words(error.hint()), "    "));
    }
}

/// What the library says to those who call it, and what a user of the program can do instead.
const OF_CALLERS: [(&str, &str); 6] = [
    ("best effort for ", "`best_effort` with "),
    ("`thaw()`", "`sandcell resume NAME`"),
    (" (or `doctor()`)", ""),
    ("`chdir`", "`-C DIR`"),
    (
        "start the program with `systemd-run --user --scope -p Delegate=yes PROGRAM` and let it call \
         sandcell::adopt_cgroup(), or name a delegated group with `cgroup`, or build with the feature `systemd`",
        "start a shell by `systemd-run --user --scope -p Delegate=yes bash`, move it into a group of its own (`mkdir G/shell; \
         echo $$ > G/shell/cgroup.procs`, where G is /sys/fs/cgroup and what /proc/self/cgroup says) and run it there; or \
         name a delegated group with `cgroup`",
    ),
    (
        "call sandcell::adopt_cgroup() once, early: it moves the caller into a group of its own below that one; or have \
         systemd do it (DelegateSubgroup=)",
        "move the shell into a group of its own below that one: `mkdir G/shell; echo $$ > G/shell/cgroup.procs`; or have \
         systemd do it (DelegateSubgroup=)",
    ),
];

/// A hint of the library, which knows options by their names, in the words of the command line.
fn in_own_words(hint: &str) -> String {
    let hint = OF_CALLERS.iter().fold(hint.to_owned(), |hint, (library, program)| hint.replace(library, program));
    table::all().fold(hint, |hint, spec| {
        hint.replace(&format!("`{}`", spec.name), &format!("`--{}`", spec.name.replace('_', "-")))
    })
}
