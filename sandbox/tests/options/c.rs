//! Setters of C, methods of C++.

use sandcell::options::{Kind, Spec};

use crate::{described, plain, wrapped};

/// Names from before that only C had.
const BEFORE: [(&str, &str); 1] = [("wait_for_ids", "id_wait")];

fn names_before(spec: &Spec) -> impl Iterator<Item = &'static str> {
    let only_c = BEFORE.iter().filter(|(now, _)| *now == spec.name).map(|(_, before)| *before);
    spec.deprecated.iter().copied().chain(only_c)
}

/// Name and type of the argument, and how it becomes a value.
fn argument(spec: &Spec) -> (&'static str, &'static str, &'static str) {
    match spec.kind {
        Kind::Size => ("bytes", "u64", "bytes.into()"),
        Kind::Count => ("count", "u64", "count.into()"),
        Kind::SmallCount => ("count", "u32", "count.into()"),
        Kind::Fraction => ("number", "f64", "number.into()"),
        Kind::Duration => ("milliseconds", "u64", "crate::text::milliseconds(milliseconds).into()"),
        Kind::Flag => ("enable", "bool", "enable.into()"),
        Kind::Mode => ("mode", "u32", "mode.into()"),
        Kind::Path => ("path", "Text<'_>", "path"),
        _ => ("text", "Text<'_>", "text"),
    }
}

/// `sandcell_policy_set_timeout_ms`.
pub fn setter(spec: &Spec, name: &str) -> String {
    let unit = if spec.kind == Kind::Duration { "_ms" } else { "" };
    format!("sandcell_policy_set_{name}{unit}")
}

/// `ffi/src/setters.rs`.
pub fn setters() -> String {
    let mut made = String::from(
        "//! Setters of options that have one value. Made from the options table by sandbox/tests/options: change\n\
         //! sandbox/src/policy/options/table.rs instead.\n\n\
         use std::ffi::c_int;\n\nuse crate::policy::{Policy, set_text, set_value};\nuse crate::text::Text;\n",
    );
    for spec in plain() {
        let (name, type_, value) = argument(spec);
        let set = if type_ == "Text<'_>" { "set_text" } else { "set_value" };
        let unit = if spec.kind == Kind::Duration { " Milliseconds; SANDCELL_UNLIMITED has no end." } else { "" };
        let mut function = |function: &str, words: &str| {
            made += "\n";
            wrapped(words, 116).iter().for_each(|line| made += &format!("/// {line}\n"));
            made += &format!(
                "#[unsafe(no_mangle)]\npub extern \"C\" fn {function}(policy: Option<&mut Policy>, {name}: {type_}) -> c_int {{\n    \
                 {set}(policy, \"{}\", {value})\n}}\n",
                spec.name
            );
        };
        function(&setter(spec, spec.name), &format!("{}{unit}", described(spec)));
        for old in names_before(spec) {
            function(&setter(spec, old), &format!("Deprecated: use {}.", setter(spec, spec.name)));
        }
    }
    made
}

const HEAD: &str = "\
/*
 * Methods of sandcell::Policy for options that have one value; sandcell.hpp includes this. Made from the options table by
 * sandbox/tests/options: change sandbox/src/policy/options/table.rs instead.
 */
#ifndef SANDCELL_OPTIONS_HPP
#define SANDCELL_OPTIONS_HPP

#include <chrono>
#include <cstdint>
#include <string>

#include \"sandcell.h\"

namespace sandcell::detail {

/// The part of `Policy` that is made from the table.
template <typename Policy>
class Options {
public:
";

const TAIL: &str = "
private:
    Policy &self() noexcept { return static_cast<Policy &>(*this); }
    sandcell_policy_t *handle() noexcept { return self().get(); }
};

} // namespace sandcell::detail

#endif /* SANDCELL_OPTIONS_HPP */
";

/// `include/sandcell_options.hpp`.
pub fn methods() -> String {
    let mut made = HEAD.to_owned();
    for spec in plain() {
        for name in [spec.name].iter().chain(spec.deprecated) {
            let setter = setter(spec, name);
            if *name == spec.name {
                wrapped(&described(spec), 114).iter().for_each(|line| made += &format!("    /// {line}\n"));
            } else {
                made += &format!("    [[deprecated(\"use {}\")]]\n", spec.name);
            }
            let method = |argument: &str, value: &str| {
                format!("    Policy &{name}({argument}) {{ return {setter}(handle(), {value}), self(); }}\n")
            };
            made += &match spec.kind {
                Kind::Size => method("std::uint64_t bytes", "bytes"),
                Kind::Count => method("std::uint64_t count", "count"),
                Kind::SmallCount => method("std::uint32_t count", "count"),
                Kind::Fraction => method("double number", "number"),
                Kind::Duration => {
                    let method = method("std::chrono::duration<Rep, Period> time", "milliseconds(time)");
                    format!("    template <typename Rep, typename Period>\n{method}")
                }
                Kind::Flag => method("bool enable = true", "enable"),
                Kind::Mode => method("std::uint32_t mode", "mode"),
                Kind::Path => method("const std::string &path", "c_str(path)"),
                _ => method("const std::string &text", "c_str(text)"),
            };
        }
    }
    made + TAIL
}
