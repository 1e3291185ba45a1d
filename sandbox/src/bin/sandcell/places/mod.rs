//! Where this is: `doctor` names the place, and the smallest line that makes sandboxes work there.

mod facts;
mod table;

use facts::Facts;
use serde_json::{Value, json};
use table::{PLACES, Place, Tried, Verdict, Weaker};

/// The findings of the library about this host, as it has them in JSON.
fn finding<'a>(findings: &'a [Value], name: &str) -> Option<&'a Value> {
    findings.iter().find(|finding| finding["name"] == name)
}

fn works(findings: &[Value], name: &str) -> bool {
    finding(findings, name).is_some_and(|finding| finding["ok"] == true)
}

/// The place that this is. Where the kernel refused namespaces and nothing tells why, the root was changed.
fn recognised(facts: &Facts, findings: &[Value]) -> &'static Place {
    let detail = finding(findings, "sandbox").and_then(|finding| finding["detail"].as_str()).unwrap_or_default();
    let refused = detail.contains("EPERM") && ["[clone]", "[user-namespace]"].iter().any(|at| detail.contains(at));
    let works = works(findings, "sandbox");
    let fits =
        |place: &&Place| (place.is_here)(facts) && !(works && place.is_setting()) && (refused || place.id != "chroot");
    PLACES.iter().find(fits).expect("the last one is everywhere")
}

/// One more finding, with keys of its own behind those that every finding has.
pub fn here(findings: &[Value]) -> Value {
    let facts = Facts::here();
    let place = recognised(&facts, findings);
    let ok = works(findings, "sandbox");
    let said =
        |name: &str| finding(findings, name).map_or("", |finding| finding["detail"].as_str().unwrap_or_default());
    let remedy = match (ok, place.line) {
        (true, _) => "",
        (false, "") => {
            finding(findings, "sandbox").map_or("", |finding| finding["remedy"].as_str().unwrap_or_default())
        }
        (false, line) => line,
    };
    let weaker = match works(findings, "landlock-only") {
        true => LANDLOCK.to_owned(),
        false => format!("nothing: {}", said("landlock-only")),
    };
    json!({
        "name": "place",
        "ok": ok,
        "detail": format!("{} ({})", place.name, facts.seen().join(", ")),
        "remedy": remedy,
        "place": place.id,
        "facts": facts.seen(),
        "without_namespaces": weaker,
        "never": place.never,
    })
}

const LANDLOCK: &str = "`--isolation landlock` keeps files, TCP, signals and system calls from programs; \
    no ids, processes, network or mounts of their own";

/// The lines behind the finding in words: only where something is missing.
pub fn more_in_words(place: &Value) -> String {
    if place["ok"] == true {
        return String::new();
    }
    let line = |name, what: &Value| format!("    {:<16} {name}: {}\n", "", what.as_str().unwrap_or_default());
    line("without namespaces", &place["without_namespaces"]) + &line("in no way", &place["never"])
}

/// All places, as the table of docs/hosts.md.
pub fn table() -> String {
    let mut text = "| place | a sandbox | the line, or what to do instead | without namespaces | what no line gives | known by |\n\
                    |---|---|---|---|---|---|\n"
        .to_owned();
    for place in PLACES {
        let verdict = match place.verdict {
            Verdict::Works => "works",
            Verdict::WithLine => "with this line",
            Verdict::Refused => "refused",
        };
        // A remark behind the line is no part of it.
        let (line, remark) = place.line.split_once("    # ").unwrap_or((place.line, ""));
        let line = match (line, place.verdict, remark) {
            ("", ..) => String::new(),
            (line, Verdict::Refused, "") => line.to_owned(),
            (line, _, "") => format!("`{line}`"),
            (line, _, remark) => format!("`{line}` ({remark})"),
        };
        let weaker = match place.weaker {
            Weaker::Runs => "runs".to_owned(),
            Weaker::Refused(why) => format!("refused: {why}"),
        };
        let tried = match place.tried {
            Tried::Run => "run".to_owned(),
            Tried::Imitated(by) => format!("imitation: {by}"),
        };
        text += &format!("| {} | {verdict} | {line} | {weaker} | {} | {tried} |\n", place.name, place.never);
    }
    text
}

/// The same for programs.
pub fn table_as_json() -> String {
    let rows = PLACES.iter().map(|place| {
        json!({
            "place": place.id,
            "name": place.name,
            "verdict": match place.verdict {
                Verdict::Works => "works",
                Verdict::WithLine => "with-line",
                Verdict::Refused => "refused",
            },
            "line": place.line,
            "landlock": place.weaker == Weaker::Runs,
            "never": place.never,
            "imitation": matches!(place.tried, Tried::Imitated(_)),
            "test": place.test,
        })
    });
    Value::from_iter(rows).to_string() + "\n"
}
