//! docs/report.md has a row for each key of the JSON, and says what null means where a key can be null.

use std::collections::BTreeMap;

const SOURCE: &str = include_str!("../src/report/json.rs");
const PAGE: &str = include_str!("../../docs/report.md");

/// The fields of each type that is written, with their own types.
fn types() -> BTreeMap<String, Vec<(String, String)>> {
    let mut found = BTreeMap::<String, Vec<(String, String)>>::new();
    let mut inside = None;
    for line in SOURCE.lines() {
        let word = |text: &str| text.split(['<', ' ', '{']).next().unwrap_or_default().to_owned();
        match (line.strip_prefix("struct ").or_else(|| line.strip_prefix("enum ")), &inside) {
            (Some(name), _) => inside = Some(word(name)),
            (None, Some(_)) if line == "}" => inside = None,
            (None, Some(name)) => {
                let fields = line.split_once('{').map_or(line, |(_, fields)| fields.trim_end_matches([' ', '}', ',']));
                let fields = fields.split(", ").filter_map(|field| field.trim().trim_end_matches(',').split_once(": "));
                found.entry(name.clone()).or_default().extend(fields.map(|(key, of)| (key.to_owned(), of.to_owned())));
            }
            (None, None) => {}
        }
    }
    found
}

/// Each key by its path, and whether it can be null.
fn keys(of: &str, before: &str, types: &BTreeMap<String, Vec<(String, String)>>, all: &mut BTreeMap<String, bool>) {
    for (key, kind) in types.get(of).into_iter().flatten() {
        // `skip_serializing_if`: left out, and never null.
        let is_left_out = of == "Line" && ["why", "host_uid", "disjoint"].contains(&key.as_str());
        let path = format!("{before}{key}");
        let inner = kind.trim_start_matches("Option<").trim_start_matches("Vec<");
        let next = if kind.contains("Vec<") { format!("{path}[].") } else { format!("{path}.") };
        all.insert(path, kind.starts_with("Option<") && !is_left_out);
        keys(inner.split(['<', '>']).next().unwrap_or_default(), &next, types, all);
    }
}

#[test]
fn each_key_of_a_report_has_its_row_with_the_meaning_of_null() {
    let mut said = BTreeMap::new();
    for row in PAGE.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches(['|', ' ']).split(" | ").collect();
        let [key, what, null] = cells[..] else { panic!("three cells: {row}") };
        assert!(!what.is_empty(), "{row}");
        said.insert(key.trim_matches('`').to_owned(), !null.starts_with("never"));
    }
    let mut made = BTreeMap::from([("outcome.kind".to_owned(), false)]);
    keys("Document", "", &types(), &mut made);
    assert!(made.len() > 60, "{made:?}");
    assert_eq!(said, made);
}

/// What the page says of one that was written.
#[test]
#[cfg(feature = "cli")]
fn a_real_report_has_no_key_but_those() {
    let run = |words: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_sandcell"))
            .args(["run", "--report", "fd:1"])
            .args(words)
            .output()
            .expect("the program starts");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
    };
    for words in [
        &["--timeout", "50ms", "--", "sleep", "60"] as &[&str],
        &["--", "sh", "-c", "kill $$"],
        &["--leftovers", "report", "--", "sh", "-c", "sleep 60 & exit 3"],
        &["--ro", "/nowhere/at/all", "--", "true"],
    ] {
        let mut paths = Vec::new();
        paths_in(&run(words), "", &mut paths);
        for path in paths {
            assert!(PAGE.contains(&format!("| `{path}` |")), "{path} of {words:?}");
        }
    }
}

#[cfg(feature = "cli")]
fn paths_in(value: &serde_json::Value, before: &str, all: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                let path = if before.is_empty() { key.clone() } else { format!("{before}.{key}") };
                paths_in(value, &path, all);
                all.push(path);
            }
        }
        serde_json::Value::Array(values) => {
            values.iter().for_each(|value| paths_in(value, &format!("{before}[]"), all));
        }
        _ => {}
    }
}
