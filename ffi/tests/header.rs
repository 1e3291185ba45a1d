//! The committed header is what the code says.

mod common;

use std::fs;
use std::path::Path;

#[test]
fn the_header_is_the_one_that_the_code_makes() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut config = cbindgen::Config::from_file(here.join("cbindgen.toml")).unwrap();
    config.after_includes = Some(format!("\n#define SANDCELL_VERSION \"{}\"", env!("CARGO_PKG_VERSION")));
    let rooms = [
        "error", "policy", "filter", "files", "image", "load", "make", "limits", "command", "run", "child", "cell",
        "entry", "result", "usage", "changes", "owned", "text",
    ];
    // In this order, with the features that lib.rs says.
    let lib = fs::read_to_string(here.join("src/lib.rs")).unwrap();
    let room = |name| {
        let declaration = format!("mod {name};\n");
        let images = lib.contains(&format!("#[cfg(feature = \"image\")]\n{declaration}"));
        let cfg = if images { "#[cfg(feature = \"image\")]\n" } else { "" };
        format!("{cfg}#[path = {:?}]\n{declaration}", here.join(format!("src/{name}.rs")))
    };
    let scratch = common::Scratch::new("header");
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
    let (c, cpp) = (read("sandcell.h"), read("sandcell.hpp") + &read("sandcell_images.hpp"));
    let words = |text: &str| -> std::collections::BTreeSet<String> {
        let all = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        all.filter(|word| word.starts_with("sandcell_") && !word.ends_with("_t")).map(str::to_owned).collect()
    };
    let code: String = c.lines().filter(|line| !line.starts_with("//") && !line.starts_with(" *")).collect();
    let missing: Vec<String> = words(&code).difference(&words(&cpp)).cloned().collect();
    // What runs an argv alone is the other with a command made of it.
    assert_eq!(missing, ["sandcell_run"]);
}
