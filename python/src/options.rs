//! The keywords of `sandcell.Sandbox` to a [`Builder`]: text is read by the library's own grammar, other values are taken
//! by the type that the options table says.

use std::ffi::OsString;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use sandcell::options::{self, Kind, Spec, Value};
use sandcell::{Builder, Error, Sandbox, User};

use crate::raise;

/// An option as Python names it: keyword, name, names from before, whether it repeats, whether it is a limit.
type Row = (&'static str, &'static str, Vec<&'static str>, bool, bool);

/// The options that there are.
#[pyfunction]
pub fn options_table() -> Vec<Row> {
    let row = |spec: &Spec| (spec.python, spec.name, spec.deprecated.to_vec(), spec.repeats, spec.limit);
    options::all().map(row).collect()
}

/// The value of a keyword that is no option of a sandbox, as `duration` (seconds), `size` or `count`.
#[pyfunction]
pub fn read(py: Python<'_>, kind: &str, keyword: &str, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    let kind = match kind {
        "duration" => Kind::Duration,
        "size" => Kind::Size,
        _ => Kind::Count,
    };
    let value = kind.value(keyword, plain(kind, keyword, value)?).map_err(raise)?;
    Ok(match value {
        Value::Duration(time) => time.as_secs_f64().into_pyobject(py)?.into_any().unbind(),
        Value::Number(number) => number.into_pyobject(py)?.into_any().unbind(),
        _ => py.None(),
    })
}

/// What differs from the defaults, by the names of the table.
#[pyfunction]
pub fn options_of(options: &Bound<'_, PyDict>) -> PyResult<Vec<(&'static str, Vec<String>)>> {
    Ok(builder(options)?.policy().options())
}

/// A keyword that is not there keeps its default.
pub fn builder(options: &Bound<'_, PyDict>) -> PyResult<Builder> {
    let mut given = Vec::new();
    for (key, value) in options {
        let key: String = key.extract()?;
        let spec = options::all().find(|spec| spec.python == key);
        given.push((spec.ok_or_else(|| raise(Error::option(key, "no such keyword")))?, value));
    }
    // In the order of the call, but for those that change what another one says.
    given.sort_by_key(|(spec, _)| matches!(spec.name, "env" | "seccomp_with" | "seccomp_without"));
    given.iter().try_fold(Sandbox::builder(), |builder, (spec, value)| match value.cast::<PyList>() {
        Ok(items) => items.iter().try_fold(builder, |builder, item| set(builder, spec, &item)),
        Err(_) => set(builder, spec, value),
    })
}

/// The same error by the name that the option has in Python.
pub fn raise_option(error: Error) -> PyErr {
    match options::all().find(|spec| spec.name == error.subject() && spec.python != spec.name) {
        Some(spec) if matches!(error, Error::Config(_)) => {
            let failure = error.failure();
            crate::NativeError::new_err((
                error.kind(),
                failure.stage,
                failure.errno,
                spec.python,
                failure.message.clone(),
                failure.hint.clone(),
            ))
        }
        _ => raise(error),
    }
}

/// One value of one option.
fn set(builder: Builder, spec: &Spec, value: &Bound<'_, PyAny>) -> PyResult<Builder> {
    if let Ok(parts) = value.cast::<PyTuple>() {
        let parts: Vec<_> = parts.iter().collect();
        return several(builder, spec, &parts, value);
    }
    spec.apply(builder, plain(spec.kind, spec.python, value)?).map_err(raise_option)
}

/// A value of its own type, or text.
fn plain(kind: Kind, keyword: &str, value: &Bound<'_, PyAny>) -> PyResult<Value> {
    let not = |what: &str| Ok::<_, PyErr>(raise(Error::option(keyword, format!("{} is not {what}", value.repr()?))));
    let is_bool = value.is_instance_of::<PyBool>();
    if value.is_instance_of::<PyString>()
        || (value.is_instance_of::<PyBytes>() && matches!(kind, Kind::Path | Kind::Form))
    {
        return Ok(text(value)?.into());
    }
    match kind {
        Kind::Size | Kind::Count | Kind::SmallCount | Kind::Mode if value.is_instance_of::<PyInt>() && !is_bool => {
            let text = value.str()?.to_string();
            // By the grammar of numbers: it says what is wrong with one that is too large, or negative.
            let kind = if kind == Kind::Mode { Kind::Count } else { kind };
            kind.value(keyword, text).map_err(raise)
        }
        Kind::Fraction if !is_bool && (value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>()) => {
            Ok(value.extract::<f64>()?.into())
        }
        Kind::Duration if !is_bool && (value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>()) => {
            seconds(keyword, value).map(Value::from)
        }
        Kind::Flag if is_bool => Ok(value.extract::<bool>()?.into()),
        // A user by a number.
        Kind::Form if value.is_instance_of::<PyInt>() && !is_bool => Ok(value.str()?.to_string().into()),
        Kind::Size => Err(not("a size; write 4096, '512K', '64M' or '2G'")?),
        Kind::Count | Kind::SmallCount | Kind::Mode => Err(not("a whole number")?),
        Kind::Fraction => Err(not("a number")?),
        Kind::Duration => Err(not("a duration; write seconds, or '500ms', '30s', '5m'")?),
        Kind::Flag => Err(not("True or False")?),
        _ => Err(not("text")?),
    }
}

fn text(value: &Bound<'_, PyAny>) -> PyResult<OsString> {
    use std::os::unix::ffi::OsStringExt;
    match value.cast::<PyBytes>() {
        Ok(bytes) => Ok(OsString::from_vec(bytes.as_bytes().to_vec())),
        Err(_) => value.extract(),
    }
}

/// A number of seconds that is a duration.
pub fn seconds(key: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let number: f64 = value.extract()?;
    if number < 0.0 {
        return Err(raise(Error::option(key, format!("{number} is negative"))));
    }
    Duration::try_from_secs_f64(number).map_err(|error| raise(Error::option(key, format!("{number}: {error}"))))
}

/// What other languages say in several arguments: a path that stands alone needs no escapes.
fn several(builder: Builder, spec: &Spec, parts: &[Bound<'_, PyAny>], given: &Bound<'_, PyAny>) -> PyResult<Builder> {
    let not = || Ok::<_, PyErr>(raise(Error::option(spec.python, format!("{} is not {}", given.repr()?, spec.form))));
    let path = |at: usize| match parts[at].is_instance_of::<PyString>() || parts[at].is_instance_of::<PyBytes>() {
        true => text(&parts[at]),
        false => Err(not()?),
    };
    let number = |kind: Kind, at: usize| {
        let value = plain(kind, spec.python, &parts[at])?;
        match kind.value(spec.python, value).map_err(raise)? {
            Value::Number(number) => Ok(number),
            _ => Err(not()?),
        }
    };
    Ok(match (spec.name, parts.len()) {
        ("ro", 2) => builder.ro(path(0)?, path(1)?),
        ("rw", 2) => builder.rw(path(0)?, path(1)?),
        ("env", 2) => builder.env(path(0)?, path(1)?),
        ("tmpfs", 2) => builder.tmpfs(path(0)?, Some(number(Kind::Size, 1)?)),
        ("file", 3) => {
            let mode = number(Kind::Mode, 2)?;
            let mode = u32::try_from(mode).unwrap_or(u32::MAX);
            builder.file_mode(path(0)?, parts[1].extract::<Vec<u8>>().or_else(|_| Err(not()?))?, mode)
        }
        ("volume", 2 | 3) => {
            let Some(writable) = parts.get(2).map_or(Ok(Some(true)), is_writable)? else { return Err(not()?) };
            let name = path(0)?.into_string().or_else(|_| Err(not()?))?;
            builder.volume(name, path(1)?, writable)
        }
        ("user", 2) => {
            let id = |at| u32::try_from(number(Kind::SmallCount, at)?).or_else(|_| Err(not()?));
            builder.user(User::fixed(id(0)?, id(1)?))
        }
        ("publish", 2) => {
            let port = |at: usize| parts[at].str().and_then(|text| text.extract::<String>());
            spec.apply(builder, format!("{}:{}", port(0)?, port(1)?)).map_err(raise_option)?
        }
        ("rlimit", 3) => {
            let limit = |at: usize| match parts[at].is_instance_of::<PyString>() {
                true => parts[at].extract::<String>(),
                false => number(Kind::Size, at).map(|number| number.to_string()),
            };
            let name: String = parts[0].extract().or_else(|_| Err(not()?))?;
            let text = format!("{name}={}:{}", limit(1)?, limit(2)?);
            spec.apply(builder, text).map_err(raise_option)?
        }
        ("io_max", 2) => {
            let device: String = parts[0].extract().or_else(|_| Err(not()?))?;
            let mut text = device.replace(',', "\\,");
            let figures: Vec<(String, Bound<'_, PyAny>)> = parts[1].extract().or_else(|_| Err(not()?))?;
            for (key, value) in figures {
                let Value::Number(number) = spec_size(spec, &value)? else { return Err(not()?) };
                text += &format!(",{key}={number}");
            }
            spec.apply(builder, text).map_err(raise_option)?
        }
        _ => return Err(not()?),
    })
}

/// `rw` or `ro`.
fn is_writable(word: &Bound<'_, PyAny>) -> PyResult<Option<bool>> {
    Ok(match text(word)?.to_str() {
        Some("rw") => Some(true),
        Some("ro") => Some(false),
        _ => None,
    })
}

fn spec_size(spec: &Spec, value: &Bound<'_, PyAny>) -> PyResult<Value> {
    Kind::Size.value(spec.python, plain(Kind::Size, spec.python, value)?).map_err(raise)
}
