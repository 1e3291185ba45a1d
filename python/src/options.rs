//! The keywords of `sandcell.Sandbox`, as the Python half has checked and normalised them, to a [`Builder`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::resource::Resource;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sandcell::syscalls::Profile;
use sandcell::{Builder, Error, Landlock, Leftovers, Network, Root, Sandbox, Seccomp, Upper, User};

use crate::raise;

/// Sizes are bytes and durations are seconds by now. A keyword that is not there keeps its default.
pub fn builder(options: &Bound<'_, PyDict>) -> PyResult<Builder> {
    let mut builder = Sandbox::builder();
    for (key, value) in options {
        let key: String = key.extract()?;
        builder = set(builder, &key, &value)?;
    }
    Ok(builder)
}

fn set(builder: Builder, key: &str, value: &Bound<'_, PyAny>) -> PyResult<Builder> {
    Ok(match key {
        "root" => builder.root(match value.extract::<PathBuf>()? {
            word if word.as_os_str() == "host" => Root::Host,
            word if word.as_os_str() == "empty" => Root::Empty,
            dir => Root::Dir(dir),
        }),
        "layers" => value.extract::<Vec<PathBuf>>()?.into_iter().fold(builder, Builder::layer),
        "upper" => builder.upper(match value.extract::<PathBuf>()? {
            word if word.as_os_str() == "tmpfs" => Upper::Tmpfs,
            dir => Upper::Dir(dir),
        }),
        "ro" => binds(value)?.into_iter().fold(builder, |builder, (source, dest)| builder.ro(source, dest)),
        "rw" => binds(value)?.into_iter().fold(builder, |builder, (source, dest)| builder.rw(source, dest)),
        "tmpfs" => {
            let list: Vec<(PathBuf, Option<u64>)> = value.extract()?;
            list.into_iter().fold(builder, |builder, (dest, size)| builder.tmpfs(dest, size))
        }
        "user" => builder.user(user(value)?),
        "hostname" => builder.hostname(value.extract::<String>()?),
        "memory" => builder.memory(value.extract()?),
        "swap" => builder.swap(value.extract()?),
        "pids" => builder.pids(value.extract()?),
        "cpus" => builder.cpus(value.extract()?),
        "cpuset" => builder.cpuset(value.extract::<String>()?),
        "disk" => builder.disk(value.extract()?),
        "rlimit" => {
            let list: Vec<(String, u64, u64)> = value.extract()?;
            list.into_iter().try_fold(builder, |builder, (name, soft, hard)| {
                Ok::<_, PyErr>(builder.rlimit(resource(&name)?, soft, hard))
            })?
        }
        "timeout" => builder.timeout(seconds(key, value)?),
        "grace" => builder.grace(seconds(key, value)?),
        "output_limit" => builder.output_limit(value.extract()?),
        "network" => builder.network(match value.extract::<String>()?.as_str() {
            "none" => Network::None,
            "loopback" => Network::Loopback,
            "host" => Network::Host,
            word => return Err(unknown(key, word, "none, loopback or host")),
        }),
        "seccomp" => builder.seccomp(seccomp(value)?),
        "landlock" => builder.landlock(match value.extract::<String>()?.as_str() {
            "default" => Landlock::Default,
            "off" => Landlock::Off,
            word => return Err(unknown(key, word, "default or off")),
        }),
        "cap_add" => value.extract::<Vec<String>>()?.into_iter().try_fold(builder, |builder, name| {
            let full = if name.starts_with("CAP_") { name.clone() } else { format!("CAP_{name}") };
            let capability =
                full.to_uppercase().parse().map_err(|_| unknown(key, &name, "the name of a capability"))?;
            Ok::<_, PyErr>(builder.cap_add(capability))
        })?,
        "env" => {
            let list: Vec<(OsString, OsString)> = value.extract()?;
            list.into_iter().fold(builder, |builder, (key, value)| builder.env(key, value))
        }
        "keep_env" => builder.keep_env(value.extract()?),
        "chdir" => builder.current_dir(value.extract::<PathBuf>()?),
        "umask" => builder.umask(value.extract()?),
        "best_effort" => {
            value.extract::<Vec<String>>()?.iter().fold(builder, |builder, item| builder.best_effort(item))
        }
        "leftovers" => builder.leftovers(match value.extract::<String>()?.as_str() {
            "kill" => Leftovers::Kill,
            "report" => Leftovers::Report,
            "fail" => Leftovers::Fail,
            word => return Err(unknown(key, word, "kill, report or fail")),
        }),
        _ => return Err(raise(Error::option(key, "no such keyword"))),
    })
}

fn unknown(key: &str, word: &str, wanted: &str) -> PyErr {
    raise(Error::option(key, format!("{word:?} is not {wanted}")))
}

/// A number of seconds that is a duration.
pub fn seconds(key: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let number: f64 = value.extract()?;
    Duration::try_from_secs_f64(number).map_err(|error| raise(Error::option(key, format!("{number}: {error}"))))
}

fn binds(value: &Bound<'_, PyAny>) -> PyResult<Vec<(PathBuf, PathBuf)>> {
    value.extract()
}

fn user(value: &Bound<'_, PyAny>) -> PyResult<User> {
    if let Ok((uid, gid)) = value.extract::<(u32, u32)>() {
        return Ok(User::fixed(uid, gid));
    }
    Ok(match value.extract::<String>()?.as_str() {
        "random" => User::Random,
        "root" => User::Root,
        "caller" => User::Caller,
        word => return Err(unknown("user", word, "random, root, caller, a UID or (UID, GID)")),
    })
}

fn seccomp(value: &Bound<'_, PyAny>) -> PyResult<Seccomp> {
    let path: PathBuf = value.extract()?;
    Ok(match path.to_str() {
        Some("default") => Seccomp::Default,
        Some("off") => Seccomp::Off,
        _ => {
            let text = std::fs::read_to_string(&path).map_err(|error| {
                raise(Error::option("seccomp", format!("{} cannot be read: {error}", path.display())))
            })?;
            Seccomp::Profile(Profile::from_json(&text).map_err(raise)?)
        }
    })
}

fn resource(name: &str) -> PyResult<Resource> {
    Ok(match name {
        "as" => Resource::RLIMIT_AS,
        "core" => Resource::RLIMIT_CORE,
        "cpu" => Resource::RLIMIT_CPU,
        "data" => Resource::RLIMIT_DATA,
        "fsize" => Resource::RLIMIT_FSIZE,
        "memlock" => Resource::RLIMIT_MEMLOCK,
        "nofile" => Resource::RLIMIT_NOFILE,
        "nproc" => Resource::RLIMIT_NPROC,
        "stack" => Resource::RLIMIT_STACK,
        _ => {
            return Err(unknown("rlimit", name, "as, core, cpu, data, fsize, memlock, nofile, nproc or stack"));
        }
    })
}
