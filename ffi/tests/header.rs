//! The committed header is what the code says.

mod common;

use std::fs;
use std::path::Path;

/// The types of src/text.rs as the pointers that they are in C.
fn with_pointers(code: String) -> String {
    let plain = [
        ("Texts<'_>", "*const *const c_char"),
        ("Text<'_>", "*const c_char"),
        ("Text<'a>", "*const c_char"),
        ("Bytes<'_>", "*const c_char"),
        ("Bytes<'_, c_void>", "*const c_void"),
        ("Room<'_>", "*mut c_char"),
        ("LoadOptions<'_>", "LoadOptions"),
    ];
    let code = plain.iter().fold(code, |code, (name, pointer)| code.replace(name, pointer));
    let of = [("Place<'_, ", "*mut "), ("Answer<'_, ", "*mut "), ("Given<'_, ", "*const ")];
    of.iter().fold(code, |code, (name, pointer)| {
        let mut parts = code.split(name);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |before, part| {
            let (pointee, rest) = part.split_once('>').unwrap();
            before + pointer + pointee + rest
        })
    })
}

#[test]
fn the_header_is_the_one_that_the_code_makes() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut config = cbindgen::Config::from_file(here.join("cbindgen.toml")).unwrap();
    config.after_includes = Some(format!("\n#define SANDCELL_VERSION \"{}\"", env!("CARGO_PKG_VERSION")));
    let rooms = [
        "error", "policy", "setters", "filter", "files", "image", "load", "make", "limits", "network", "command",
        "run", "child", "terminal", "cell", "pool", "named", "entry", "result", "usage", "changes", "owned", "text",
    ];
    // In this order, with the features that lib.rs says.
    let lib = fs::read_to_string(here.join("src/lib.rs")).unwrap();
    let scratch = common::Scratch::new("header");
    let room = |name| {
        let declaration = format!("mod {name};\n");
        let images = lib.contains(&format!("#[cfg(feature = \"image\")]\n{declaration}"));
        let cfg = if images { "#[cfg(feature = \"image\")]\n" } else { "" };
        let copy = scratch.path(&format!("{name}.rs"));
        fs::write(&copy, with_pointers(fs::read_to_string(here.join(format!("src/{name}.rs"))).unwrap())).unwrap();
        format!("{cfg}#[path = {copy:?}]\n{declaration}")
    };
    let order = scratch.path("order.rs");
    fs::write(&order, rooms.map(room).concat()).unwrap();
    let mut made = Vec::new();
    let builder = cbindgen::Builder::new().with_config(config).with_src(order);
    builder.generate().unwrap().write(&mut made);
    // One condition for what stands together.
    let made = String::from_utf8(made).unwrap().replace("#endif\n\n#if defined(SANDCELL_IMAGES)\n", "\n");

    let path = here.join("../include/sandcell.h");
    if std::env::var_os("SANDCELL_WRITE_HEADER").is_some() {
        fs::write(&path, &made).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == made,
        "include/sandcell.h is out of date; mend it with: SANDCELL_WRITE_HEADER=1 cargo test -p sandcell-ffi --test header"
    );
}

#[test]
fn the_c_plus_plus_header_has_a_place_for_every_function_of_c() {
    let read = |name| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../include").join(name)).unwrap();
    let (c, cpp) =
        (read("sandcell.h"), read("sandcell.hpp") + &read("sandcell_images.hpp") + &read("sandcell_options.hpp"));
    let words = |text: &str| -> std::collections::BTreeSet<String> {
        let all = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        all.filter(|word| word.starts_with("sandcell_") && !word.ends_with("_t")).map(str::to_owned).collect()
    };
    let code: String = c.lines().filter(|line| !line.starts_with("//") && !line.starts_with(" *")).collect();
    let missing: Vec<String> = words(&code).difference(&words(&cpp)).cloned().collect();
    // C++ never had a method of that old name; what runs an argv alone is the other with a command made of it.
    assert_eq!(missing, ["sandcell_policy_set_id_wait_ms", "sandcell_run"]);
}
