//! The options of builds and commits, each declared once: name, form of its text, help, and what it sets. The program's options are
//! made from these rows, and so is what C sets by name.

use super::{Build, Commit};
use crate::error::{Error, Failure, Result};
use crate::images::pack::Owners;

/// One thing that can be said of a build or of a commit.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ImageOption<T: 'static> {
    /// With `_`; the program has `-`.
    pub name: &'static str,
    /// The form of its text.
    pub form: &'static str,
    /// A sentence without its full stop.
    pub help: &'static str,
    /// It may be said more than once, and adds each time.
    pub repeats: bool,
    set: fn(T, &str) -> Result<T>,
}

macro_rules! options {
    ($what:ident, $($help:literal $name:ident: $form:literal $([$repeats:ident])? => $set:expr;)+) => {
        impl $what {
            /// What can be said by name and text.
            pub const OPTIONS: &'static [ImageOption<$what>] = &[$(ImageOption {
                name: stringify!($name),
                form: $form,
                help: $help,
                repeats: false $(|| stringify!($repeats).len() > 0)?,
                set: $set,
            }),+];

            /// Says one of [`OPTIONS`](Self::OPTIONS), with `_` or `-` in its name.
            ///
            /// # Errors
            /// `Config` where there is none of that name, or the text is not of its form.
            pub fn option(self, name: &str, text: &str) -> Result<$what> {
                let known = || $what::OPTIONS.iter();
                match known().find(|option| option.name == name.replace('-', "_")) {
                    Some(option) => (option.set)(self, text),
                    None => {
                        let names: Vec<_> = known().map(|option| option.name).collect();
                        let failure = Failure::new("option", name.escape_debug().to_string(), "there is no option of that name");
                        Err(failure.hint(format!("They are {}.", names.join(", "))).config())
                    }
                }
            }
        }
    };
}

options! {
    Build,
    "The image's name" name: "NAME[:TAG]" => |build, text| Ok(build.name(text.parse()?));
    "The directory that COPY copies from" context: "DIR" => |build, text| Ok(build.context(text));
    "The value of an ARG" arg: "KEY=VALUE" [repeats] => |build, text| match text.split_once('=') {
        Some((key, value)) => Ok(build.arg(key, value)),
        None => Err(wrong("arg", text, "KEY=VALUE")),
    };
    "What the image is for [default: this host]; RUN needs programs of this host" platform: "OS/ARCHITECTURE"
        => |build, text| Ok(build.platform(text.parse()?));
    "The stage that becomes the image, by name or number [default: the last]" target: "STAGE" => |build, text| Ok(build.target(text));
    "A secret for RUN --mount=type=secret, which is in no layer; without src or env, the variable of its name"
    secret: "id=NAME[,src=FILE|,env=VARIABLE]" [repeats] => secret;
    "An ssh agent for RUN --mount=type=ssh: `default` is the one in SSH_AUTH_SOCK" ssh: "ID[=SOCKET]" [repeats] => ssh;
    "The network of RUN; `loopback` is a private one" network: "none|loopback|host" => |mut build, text| {
        build.sandbox = build.sandbox.set("network", text)?;
        Ok(build)
    };
    "Whether layers that were made before are taken as they are [default: true]" cache: "true|false"
        => |build, text| Ok(build.cache(flag("cache", text)?));
    "Date of the image, and latest date of its new files, in seconds since 1970" timestamp: "SECONDS"
        => |build, text| match text.parse() {
            Ok(seconds) => Ok(build.timestamp(seconds)),
            Err(_) => Err(wrong("timestamp", text, "SECONDS")),
        };
    "Whether programs write to the caller's own output" show_output: "true|false"
        => |build, text| Ok(build.show_output(flag("show_output", text)?));
}

options! {
    Commit,
    "The image that it lies on [default: the one that was run]" base: "IMAGE" => |commit, text| Ok(commit.base(text));
    "The new image's name" name: "NAME[:TAG]" => |commit, text| Ok(commit.name(text.parse()?));
    "Change the configuration: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR" change: "INSTRUCTION" [repeats]
        => |commit, text| commit.change(text);
    "A text for the history" comment: "TEXT" => |commit, text| Ok(commit.comment(text));
    "Who, for the history" author: "NAME" => |commit, text| Ok(commit.author(text));
    "The command, for the history" created_by: "COMMAND" => |commit, text| Ok(commit.created_by(text));
    "The date, RFC 3339; none otherwise, so that the same changes make the same image" created: "DATE"
        => |commit, text| Ok(commit.created(text));
    "Whom the files belong to: as the run noted it, to root, or as they are on the disk" owners: "noted|root|kept"
        => |commit, text| match text {
            "noted" => Ok(commit.owners_noted()),
            "root" => Ok(commit.owners(Owners::root())),
            "kept" => Ok(commit.owners(Owners::as_they_are())),
            _ => Err(wrong("owners", text, "noted, root or kept")),
        };
}

fn wrong(option: &str, text: &str, form: &str) -> Error {
    let failure = Failure::new("option", option, format!("{text:?} is not of its form"));
    failure.hint(format!("Write {form}.")).config()
}

fn flag(option: &str, text: &str) -> Result<bool> {
    text.parse().map_err(|_| wrong(option, text, "true or false"))
}

/// As docker and podman have it.
fn secret(build: Build, text: &str) -> Result<Build> {
    const FORM: &str = "id=NAME,src=FILE or id=NAME,env=VARIABLE";
    let (mut id, mut file, mut variable) = (None, None, None);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("id", value)) if !value.is_empty() => id = Some(value),
            Some(("src" | "source", value)) => file = Some(value),
            Some(("env", value)) => variable = Some(value),
            Some(("type", "file" | "env")) => {}
            _ => return Err(wrong("secret", text, FORM)),
        }
    }
    let id = id.ok_or_else(|| wrong("secret", text, FORM))?;
    match (file, variable) {
        (Some(file), _) => Ok(build.secret_file(id, file)),
        (None, name) => match std::env::var_os(name.unwrap_or(id)) {
            Some(value) => Ok(build.secret(id, std::os::unix::ffi::OsStringExt::into_vec(value))),
            None => {
                let failure = Failure::new("option", "secret", format!("{text:?} has no src, and is in no variable"));
                Err(failure.hint(format!("Write {FORM}.")).config())
            }
        },
    }
}

/// `default`, or `ID=SOCKET`.
fn ssh(build: Build, text: &str) -> Result<Build> {
    match (text.split_once('='), std::env::var_os("SSH_AUTH_SOCK")) {
        (Some((id, socket)), _) => Ok(build.ssh_agent(id, socket)),
        (None, Some(socket)) => Ok(build.ssh_agent(text, socket)),
        (None, None) => {
            let failure =
                Failure::new("option", "ssh", format!("{text:?} names no socket, and SSH_AUTH_SOCK is not set"));
            Err(failure.hint("Start an ssh agent, or write ID=SOCKET.").config())
        }
    }
}
