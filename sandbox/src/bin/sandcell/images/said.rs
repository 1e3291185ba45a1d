//! Options of builds and commits, made from the library's tables.

use std::marker::PhantomData;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};
use sandcell::Error;
use sandcell::image::{Build, Commit, ImageOption};

/// What has a table.
pub trait Table: Sized + Clone + Send + Sync + 'static {
    const OPTIONS: &'static [ImageOption<Self>];
    /// How the program spells an option, with its letter: as docker and podman do. `None` for what it says in another way.
    fn spelled(name: &'static str) -> Option<(String, Option<char>)>;
    fn option(self, name: &str, text: &str) -> Result<Self, Error>;
}

impl Table for Build {
    const OPTIONS: &'static [ImageOption<Build>] = Build::OPTIONS;

    fn spelled(name: &'static str) -> Option<(String, Option<char>)> {
        match name {
            "name" => Some(("tag".to_owned(), Some('t'))),
            "arg" => Some(("build-arg".to_owned(), None)),
            // `--no-cache`, `--quiet`, and the directory.
            "cache" | "show_output" | "context" => None,
            other => Some((other.replace('_', "-"), None)),
        }
    }

    fn option(self, name: &str, text: &str) -> Result<Build, Error> {
        // The value of a variable of that name, as elsewhere.
        match (name, text.contains('='), std::env::var(text)) {
            ("arg", false, Ok(value)) => self.option(name, &format!("{text}={value}")),
            _ => self.option(name, text),
        }
    }
}

impl Table for Commit {
    const OPTIONS: &'static [ImageOption<Commit>] = Commit::OPTIONS;

    fn spelled(name: &'static str) -> Option<(String, Option<char>)> {
        match name {
            "comment" => Some(("message".to_owned(), Some('m'))),
            "change" => Some((name.to_owned(), Some('c'))),
            "author" => Some((name.to_owned(), Some('a'))),
            // It comes last, without an option.
            "name" => None,
            other => Some((other.replace('_', "-"), None)),
        }
    }

    fn option(self, name: &str, text: &str) -> Result<Commit, Error> {
        self.option(name, text)
    }
}

/// What was said, in the order of the table.
#[derive(Debug, Clone)]
pub struct Said<T> {
    given: Vec<(&'static str, String)>,
    of: PhantomData<fn() -> T>,
}

impl<T: Table> Said<T> {
    /// Sets all of it.
    pub fn say(&self, what: T) -> Result<T, Error> {
        self.given.iter().try_fold(what, |what, (name, text)| T::option(what, name, text))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(given, _)| *given == name).map(|(_, text)| text.as_str())
    }
}

fn id(name: &str) -> String {
    format!("image_{name}")
}

impl<T: Table> Args for Said<T> {
    fn augment_args(command: clap::Command) -> clap::Command {
        T::OPTIONS.iter().fold(command, |command, option| {
            let Some((long, short)) = T::spelled(option.name) else { return command };
            let argument = Arg::new(id(option.name))
                .long(long)
                .value_name(option.form)
                .action(if option.repeats { ArgAction::Append } else { ArgAction::Set })
                .help(option.help);
            let argument = match option.name {
                "timestamp" => argument.env("SOURCE_DATE_EPOCH").hide_env_values(true),
                _ => argument,
            };
            command.arg(short.into_iter().fold(argument, Arg::short))
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl<T: Table> FromArgMatches for Said<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Said<T>, clap::Error> {
        let values = |option: &'static ImageOption<T>| {
            let values = matches.try_get_many::<String>(&id(option.name)).ok().flatten();
            values.into_iter().flatten().map(|text| (option.name, text.clone()))
        };
        Ok(Said { given: T::OPTIONS.iter().flat_map(values).collect(), of: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
