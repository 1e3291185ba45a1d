//! The keywords of `sandcell.Sandbox`, as the Python half has checked and normalised them, to a [`Builder`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use sandcell::syscalls::Profile;
use sandcell::{Builder, Error, IoMax, Root, Sandbox, Seccomp, Upper, User, words};

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
        "image" => builder.root(Root::image(value.extract::<String>()?)),
        "store" => builder.store(value.extract::<PathBuf>()?),
        "volumes" => {
            let list: Vec<(String, PathBuf, bool)> = value.extract()?;
            list.into_iter().fold(builder, |builder, (name, dest, writable)| builder.volume(name, dest, writable))
        }
        "id_count" => builder.id_count(value.extract()?),
        "wait_for_ids" => builder.wait_for_ids(seconds(key, value)?),
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
        "files" => {
            let list: Vec<(PathBuf, Vec<u8>, u32)> = value.extract()?;
            list.into_iter().fold(builder, |builder, (dest, content, mode)| builder.file_mode(dest, content, mode))
        }
        "user" => builder.user(user(value)?),
        "host_ids" => builder.host_ids(parsed(value)?),
        "hostname" => builder.hostname(value.extract::<String>()?),
        "memory" => builder.memory(value.extract()?),
        "memory_high" => builder.memory_high(value.extract()?),
        "swap" => builder.swap(value.extract()?),
        "pids" => builder.pids(value.extract()?),
        "cpus" => builder.cpus(value.extract()?),
        "cpu_weight" => builder.cpu_weight(value.extract()?),
        "cpu_time" => builder.cpu_time(seconds(key, value)?),
        "cpuset" => builder.cpuset(value.extract::<String>()?),
        "disk" => builder.disk(value.extract()?),
        "inodes" => builder.inodes(value.extract()?),
        "io_weight" => builder.io_weight(value.extract()?),
        "io_max" => value.extract::<Vec<DeviceLimits>>()?.into_iter().fold(builder, |builder, limits| {
            let mut io_max = IoMax::default();
            (io_max.device, io_max.read_bytes, io_max.write_bytes, io_max.read_ops, io_max.write_ops) = limits;
            builder.io_max(io_max)
        }),
        "cgroup" => builder.cgroup(value.extract::<PathBuf>()?),
        "rlimit" => {
            let list: Vec<(String, u64, u64)> = value.extract()?;
            list.into_iter().try_fold(builder, |builder, (name, soft, hard)| {
                Ok::<_, PyErr>(builder.rlimit(words::resource(&name).map_err(raise)?, soft, hard))
            })?
        }
        "timeout" => builder.timeout(seconds(key, value)?),
        "grace" => builder.grace(seconds(key, value)?),
        "output_limit" => builder.output_limit(value.extract()?),
        "isolation" => builder.isolation(parsed(value)?),
        "network" => builder.network(parsed(value)?),
        "seccomp" => builder.seccomp(seccomp(value)?),
        "landlock" => builder.landlock(parsed(value)?),
        "cap_add" => value.extract::<Vec<String>>()?.into_iter().try_fold(builder, |builder, name| {
            let capability = words::capability(&name).map_err(raise)?;
            Ok::<_, PyErr>(builder.cap_add(capability))
        })?,
        "env" => {
            let list: Vec<(OsString, OsString)> = value.extract()?;
            list.into_iter().fold(builder, |builder, (key, value)| builder.env(key, value))
        }
        "keep_caller" => builder.keep_caller(value.extract()?),
        "keep_env" => builder.keep_env(value.extract()?),
        "chdir" => builder.current_dir(value.extract::<PathBuf>()?),
        "umask" => builder.umask(value.extract()?),
        "best_effort" => {
            value.extract::<Vec<String>>()?.iter().fold(builder, |builder, item| builder.best_effort(item))
        }
        "leftovers" => builder.leftovers(parsed(value)?),
        _ => return Err(raise(Error::option(key, "no such keyword"))),
    })
}

/// The device; bytes read and written, reads and writes, each per second.
type DeviceLimits = (String, Option<u64>, Option<u64>, Option<u64>, Option<u64>);

/// One of the words of an option.
fn parsed<T: FromStr<Err = Error>>(value: &Bound<'_, PyAny>) -> PyResult<T> {
    value.extract::<String>()?.parse().map_err(raise)
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
    parsed(value)
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
