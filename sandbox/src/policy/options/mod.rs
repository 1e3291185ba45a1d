//! The options of a sandbox: what can be asked for, in every language, declared once.
//!
//! `table.rs` has one declaration for each option: name, type, range, default and a line of help. From it come the methods
//! of [`Builder`], the options of the program `sandcell`, the setters of C and C++, the keywords of Python, what
//! `best_effort` accepts, and `docs/options.md`. [`Builder::set`] takes any of them by its name; all languages read text by
//! the grammar of [`Kind`].

pub(crate) mod forms;
mod grammar;
mod table;
#[cfg(test)]
mod tests;
pub(crate) mod words;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

pub use forms::from_here;
pub use grammar::duration_text;
pub use table::Limits;
pub use words::{capability, resource};

use crate::error::{Error, Failure, Result};
use crate::policy::Policy;
use crate::policy::builder::Builder;
pub(crate) use grammar::{Wrong, decimal};

/// The type of an option, which is the grammar of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Bytes: digits, then nothing, `B`, or a power of 1024: `K`, `M`, `G`, `T`, `KiB`, `MiB`, `GiB`, `TiB`, in either case.
    /// `4096`, `512k`, `64M`, `2GiB`. Not `KB`, which is 1000 for some, and no fractions.
    Size,
    /// A whole number without a sign.
    Count,
    /// The same within 32 bits.
    SmallCount,
    /// A decimal number without sign and exponent: `0.5`, `2`.
    Fraction,
    /// A decimal number with at most six decimals and a unit: `ms`, `s`, `m` or `h`. `500ms`, `1.5s`. Never without unit.
    Duration,
    /// `true` or `false`.
    Flag,
    /// Permission bits, octal: `022`, `0o755`.
    Mode,
    /// UTF-8.
    Text,
    /// A path, any bytes but NUL, not empty.
    Path,
    /// One of these words.
    Words(&'static [&'static str]),
    /// A form of its own, as [`Spec::form`] tells. `\:` is a colon of a path, and so are `\=` and `\,` where `=` and `,`
    /// separate; any other backslash is itself.
    Form,
}

/// What an option is set to: text, which is read by the grammar of its [`Kind`], or the value itself.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// To be read.
    Text(OsString),
    /// A size, a count or permission bits.
    Number(u64),
    /// A number of CPUs.
    Fraction(f64),
    /// A time.
    Duration(Duration),
    /// Yes or no.
    Flag(bool),
}

macro_rules! from {
    ($($type:ty => $variant:ident($convert:expr)),+ $(,)?) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Value {
                Value::$variant($convert(value))
            }
        })+
    };
}

from! {
    &str => Text(OsString::from),
    String => Text(OsString::from),
    &OsStr => Text(OsString::from),
    OsString => Text(OsString::from),
    PathBuf => Text(OsString::from),
    u32 => Number(u64::from),
    u64 => Number(u64::from),
    f64 => Fraction(f64::from),
    Duration => Duration(Duration::from),
    bool => Flag(bool::from),
}

/// One option.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Spec {
    /// Its name; the program writes `-` for `_`.
    pub name: &'static str,
    /// Names that it had before.
    pub deprecated: &'static [&'static str],
    /// Its keyword in Python, where that differs.
    pub python: &'static str,
    /// The method of [`Builder`], where that differs.
    pub rust: &'static str,
    /// The setter of C behind `sandcell_policy_`, where that is written by hand.
    pub c: &'static str,
    /// How its text is read.
    pub kind: Kind,
    /// What stands for its text in help: `SIZE`.
    pub form: &'static str,
    /// What holds where it is not given.
    pub default: &'static str,
    /// What it is for, one line.
    pub help: &'static str,
    /// The least and the largest number: bytes, counts, milliseconds, or hundredths of a fraction.
    pub range: (u64, u64),
    /// Given several times, it adds up.
    pub repeats: bool,
    /// It limits what a sandbox may use.
    pub limit: bool,
    /// `best_effort` accepts its name.
    pub best_effort: bool,
    /// [`Cell::set_limits`](crate::Cell::set_limits) changes it.
    pub cell: bool,
    put: fn(Builder, Value) -> Result<Builder>,
    get: fn(&Policy) -> Vec<Value>,
}

/// All options, in the order of the help.
pub fn all() -> impl Iterator<Item = &'static Spec> {
    table::TABLES.iter().copied().flatten()
}

/// The option of this name; `-` is `_`, and names from before are known.
pub fn find(name: &str) -> Option<&'static Spec> {
    let name = name.replace('-', "_");
    all().find(|spec| spec.name == name || spec.deprecated.contains(&name.as_str()))
}

/// The items that [`Builder::best_effort`] accepts: each is asked wherever the host may be unable to enforce it.
pub fn best_effort_items() -> impl Iterator<Item = &'static str> {
    let limits = all().filter(|spec| spec.best_effort).map(|spec| spec.name);
    ["all"].into_iter().chain(limits).chain(forms::LANDLOCK_ITEMS)
}

impl Spec {
    const fn new(
        name: &'static str,
        kind: Kind,
        help: &'static str,
        put: fn(Builder, Value) -> Result<Builder>,
        get: fn(&Policy) -> Vec<Value>,
    ) -> Spec {
        let form = match kind {
            Kind::Size => "SIZE",
            Kind::Count | Kind::SmallCount => "N",
            Kind::Fraction => "F",
            Kind::Duration => "DUR",
            Kind::Flag => "true|false",
            Kind::Mode => "MODE",
            Kind::Text => "NAME",
            Kind::Path => "DIR",
            Kind::Words(_) | Kind::Form => "",
        };
        Spec {
            name,
            deprecated: &[],
            python: name,
            rust: name,
            c: "",
            kind,
            form,
            default: "none",
            help,
            range: (0, u64::MAX),
            repeats: false,
            limit: false,
            best_effort: false,
            cell: false,
            put,
            get,
        }
    }

    /// Sets it, or says what is wrong with the value.
    pub fn apply(&self, builder: Builder, value: impl Into<Value>) -> Result<Builder> {
        let value = self.read(value)?;
        (self.put)(builder, value)
    }

    /// The value itself: text is read, the range checked.
    pub fn read(&self, value: impl Into<Value>) -> Result<Value> {
        let value = self.kind.read(value.into()).map_err(|wrong| self.wrong(wrong))?;
        self.check(&value)?;
        Ok(value)
    }

    /// What a policy has, as text. Values of variables and contents of files are not shown.
    pub fn shown(&self, policy: &Policy) -> Vec<String> {
        (self.get)(policy).iter().map(|value| self.kind.show(value)).collect()
    }

    /// The line of `--help` and of the documents, without a full stop.
    pub fn summary(&self) -> &'static str {
        let help = self.help.trim_start();
        help.strip_suffix('.').unwrap_or(help)
    }

    /// Whether each face's setter is made from the table; the others take several values, or have a type of their own.
    pub fn is_plain(&self) -> bool {
        self.c.is_empty()
    }

    fn wrong(&self, Wrong { message, hint }: Wrong) -> Error {
        Failure::new("option", self.name, message).hint(hint).config()
    }

    fn check(&self, value: &Value) -> Result<()> {
        let (least, most) = self.range;
        let below = match value {
            Value::Number(number) => (least..=most).contains(number).then_some(()).ok_or(*number < least),
            Value::Fraction(number) if !number.is_finite() => {
                return Err(self.wrong(Wrong::new(format!("{number} is not a number"), "Write 0.5 or 2.")));
            }
            Value::Fraction(number) => {
                let (least, most) = (least as f64 / 100.0, most as f64 / 100.0);
                (least..=most).contains(number).then_some(()).ok_or(*number < least)
            }
            // It is no limit.
            Value::Duration(Duration::MAX) => Ok(()),
            Value::Duration(time) => {
                let millis = u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
                (least..=most).contains(&millis).then_some(()).ok_or(millis < least)
            }
            Value::Text(_) | Value::Flag(_) => Ok(()),
        };
        let Err(below) = below else { return Ok(()) };
        let (name, shown) = (self.name, self.kind.show(value));
        let bound = |bound| match self.kind {
            Kind::Fraction => (bound as f64 / 100.0).to_string(),
            Kind::Duration => duration_text(Duration::from_millis(bound)),
            kind => kind.show(&Value::Number(bound)),
        };
        // A share of 0 is too small like any other.
        let stops_all = self.limit && self.kind != Kind::SmallCount;
        Err(self.wrong(match (below, stops_all, is_zero(value)) {
            (true, true, true) => {
                Wrong::new("a limit of 0 lets nothing run", format!("Leave `{name}` out for no limit."))
            }
            (true, ..) => Wrong::new(
                format!("{shown} is less than the smallest possible, {}", bound(least)),
                format!("Raise `{name}` to {} or more.", bound(least)),
            ),
            (false, ..) => Wrong::new(
                format!("{shown} is more than the largest possible, {}", bound(most)),
                format!("Lower `{name}` to {} or less.", bound(most)),
            ),
        }))
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Number(number) => *number == 0,
        Value::Fraction(number) => *number == 0.0,
        Value::Duration(time) => time.is_zero(),
        Value::Text(_) | Value::Flag(_) => false,
    }
}

impl Kind {
    /// A value of this kind, for what is no option of a sandbox: text is read. `name` is what an error is about.
    pub fn value(self, name: &str, value: impl Into<Value>) -> Result<Value> {
        self.read(value.into())
            .map_err(|Wrong { message, hint }| Failure::new("option", name, message).hint(hint).config())
    }
}

impl Builder {
    /// Sets an option by its name, as the program and the other languages do: `set("memory", "64M")`,
    /// `set("cpu-time", Duration::from_secs(3))`, `set("ro", "/src:/code")`. `docs/options.md` lists them.
    ///
    /// # Errors
    /// [`Error::Config`] where there is no such option, or the value is not one of it.
    pub fn set(self, option: &str, value: impl Into<Value>) -> Result<Builder> {
        let Some(spec) = find(option) else {
            let names: Vec<_> = all().map(|spec| spec.name).collect();
            return Err(Failure::new("option", option, "is not an option of this library")
                .hint(format!("Use one of {}.", names.join(", ")))
                .config());
        };
        spec.apply(self, value)
    }
}

impl Policy {
    /// What differs from the defaults: each option with its values as text. Values of variables and contents of files are
    /// not among them.
    pub fn options(&self) -> Vec<(&'static str, Vec<String>)> {
        let default = Policy::default();
        let given = |spec: &'static Spec| (spec.name, spec.shown(self), spec.shown(&default));
        all().map(given).filter(|(_, now, before)| now != before).map(|(name, now, _)| (name, now)).collect()
    }
}

/// The numbers of a policy, whoever set them, are within their ranges.
pub(crate) fn check(policy: &Policy) -> Result<()> {
    all().try_for_each(|spec| (spec.get)(policy).iter().try_for_each(|value| spec.check(value)))
}

/// The same for limits alone.
pub(crate) fn check_limits(limits: &Limits) -> Result<()> {
    check(&Policy { limits: limits.clone(), ..Policy::default() })
}

/// Limits that a started sandbox cannot change any more are refused, not passed over.
pub(crate) fn check_changeable(limits: &Limits) -> Result<()> {
    let policy = Policy { limits: limits.clone(), ..Policy::default() };
    let fixed = |spec: &&Spec| !spec.cell && !(spec.get)(&policy).is_empty() && spec.is_of_limits();
    match all().find(fixed) {
        Some(spec) => {
            let names: Vec<_> = all().filter(|spec| spec.cell).map(|spec| spec.name).collect();
            Err(Failure::new("option", spec.name, "cannot be changed once the sandbox has started")
                .hint(format!("Set it before the start. Change only {}.", names.join(", ")))
                .config())
        }
        None => Ok(()),
    }
}

/// A duration, as options of this kind take it: `500ms`, `30s`, `5m`.
///
/// # Errors
/// `Config`, with the option's name.
pub fn duration(option: &str, text: &str) -> Result<std::time::Duration> {
    grammar::duration(text).map_err(|e| words::wrong(option, e))
}

/// Bytes, as options of this kind take them: `512K`, `64M`, `2G`.
///
/// # Errors
/// `Config`, with the option's name.
pub fn size(option: &str, text: &str) -> Result<u64> {
    grammar::size(text).map_err(|e| words::wrong(option, e))
}

impl Spec {
    /// Its value is a field of [`Limits`].
    fn is_of_limits(&self) -> bool {
        table::LIMITS.iter().any(|spec| spec.name == self.name)
    }
}
