//! Docker's own profile, every field of the form, and every way to get it wrong.

use crate::kernel_names::Capability;

use super::*;
use crate::seccomp::compile::tests::{agrees, interesting, naive, numbers};
use crate::seccomp::sets::tests::ask;

const MOBY: &str = include_str!("../../tests/data/moby-default-seccomp.json");
const EPERM: Action = Action::Errno(1);

fn wrong(json: &str) -> (String, String) {
    let error = Profile::from_json(json).expect_err("this profile is wrong");
    assert_eq!((error.kind(), error.stage()), ("config", STAGE));
    (error.subject().to_owned(), error.failure().message.clone())
}

/// A profile with these entries, the first of which is on line 3.
fn with_entries(entries: &str) -> String {
    format!("{{\"defaultAction\": \"SCMP_ACT_ERRNO\",\n\"syscalls\": [\n{entries}\n]}}")
}

#[test]
fn mobys_default_profile_is_what_its_entries_say_for_every_number() {
    for profile in table::ALL.map(|arch| Profile::from_json_of(arch, MOBY).unwrap()) {
        for caps in [&[][..], &[Capability::CAP_SYS_ADMIN], &[Capability::CAP_SYS_PTRACE, Capability::CAP_BPF]] {
            agrees(&profile, caps);
        }
    }
}

/// The same question put to the JSON itself, in the words of Docker's documentation.
#[test]
fn mobys_default_profile_is_read_as_docker_reads_it() {
    table::ALL.into_iter().for_each(is_read_as_docker_reads_it);
}

fn is_read_as_docker_reads_it(arch: &'static Arch) {
    let json: serde_json::Value = serde_json::from_str(MOBY).unwrap();
    let profile = Profile::from_json_of(arch, MOBY).unwrap();
    let words = |v: &serde_json::Value| -> Vec<String> {
        v.as_array().into_iter().flatten().map(|w| w.as_str().unwrap().to_owned()).collect()
    };
    for caps in [&[][..], &["CAP_SYS_ADMIN"], &["CAP_SYS_PTRACE"], &["CAP_SYS_NICE", "CAP_SYS_TIME"]] {
        let kept: Vec<Capability> = caps.iter().map(|c| c.parse().unwrap()).collect();
        let counts = |entry: &serde_json::Value| {
            let (includes, excludes) = (&entry["includes"], &entry["excludes"]);
            let arches = words(&includes["arches"]);
            (arches.is_empty() || arches.contains(&arch.docker.into()))
                && !words(&excludes["arches"]).contains(&arch.docker.into())
                && words(&includes["caps"]).iter().all(|c| caps.contains(&c.as_str()))
                && !words(&excludes["caps"]).iter().any(|c| caps.contains(&c.as_str()))
        };
        let entries: Vec<_> = json["syscalls"].as_array().unwrap().iter().filter(|e| counts(e)).collect();
        let newest = entries.iter().flat_map(|e| words(&e["names"])).filter_map(|n| match arch.look_up(&n) {
            Name::Here(number) => Some(number),
            _ => None,
        });
        let newest = newest.max().unwrap();
        for nr in numbers() {
            let name = arch.name_of(nr);
            let about: Vec<_> =
                entries.iter().filter(|e| name.is_some_and(|n| words(&e["names"]).contains(&n.into()))).collect();
            for args in interesting(&profile, nr) {
                let holds = |a: &serde_json::Value| {
                    let (value, two) = (a["value"].as_u64().unwrap(), a["valueTwo"].as_u64().unwrap_or(0));
                    let argument = args[a["index"].as_u64().unwrap() as usize];
                    match a["op"].as_str().unwrap() {
                        "SCMP_CMP_EQ" => argument == value,
                        "SCMP_CMP_LT" => argument < value,
                        "SCMP_CMP_GT" => argument > value,
                        "SCMP_CMP_MASKED_EQ" => argument & value == two,
                        other => panic!("{other} is new in Moby's profile"),
                    }
                };
                let found = about.iter().find(|e| e["args"].as_array().into_iter().flatten().all(holds));
                let want = match found {
                    _ if nr > newest => Action::Errno(38),
                    Some(entry) if entry["action"] == "SCMP_ACT_ALLOW" => Action::Allow,
                    Some(entry) => Action::Errno(entry["errnoRet"].as_u64().unwrap() as u16),
                    None => EPERM,
                };
                assert_eq!(naive(&profile, &kept, nr, args), want, "{name:?} {nr} {args:x?} with {caps:?}");
            }
        }
    }
}

#[test]
fn the_built_in_profile_allows_nothing_that_docker_refuses() {
    table::ALL.into_iter().for_each(allows_nothing_that_docker_refuses);
}

fn allows_nothing_that_docker_refuses(arch: &'static Arch) {
    let (ours, docker) = (Profile::built_in(arch), Profile::from_json_of(arch, MOBY).unwrap());
    let mut allowed = 0;
    for nr in numbers() {
        // Docker compares families and personalities with 64 bits, so only what fits into 32 can be compared.
        let small = |args: &[u64; 6]| args.iter().all(|a| *a <= u32::MAX.into());
        for args in interesting(&ours, nr).into_iter().chain(interesting(&docker, nr)).filter(small) {
            if naive(&ours, &[], nr, args) == Action::Allow {
                allowed += 1;
                assert_eq!(naive(&docker, &[], nr, args), Action::Allow, "{nr} {:?} {args:x?}", arch.name_of(nr));
            }
        }
    }
    assert!(allowed > 1000);
}

#[test]
fn operators_actions_and_error_numbers_are_all_read() {
    for (op, below, at, above) in [
        ("SCMP_CMP_EQ", false, true, false),
        ("SCMP_CMP_NE", true, false, true),
        ("SCMP_CMP_LT", true, false, false),
        ("SCMP_CMP_LE", true, true, false),
        ("SCMP_CMP_GT", false, false, true),
        ("SCMP_CMP_GE", false, true, true),
    ] {
        let args = format!(r#"[{{"index": 1, "value": 4294967296, "op": "{op}"}}]"#);
        let json = with_entries(&format!(r#"{{"names": ["lseek"], "action": "SCMP_ACT_ALLOW", "args": {args}}}"#));
        let profile = Profile::from_json(&json).unwrap();
        for (value, want) in [(0xffff_ffff, below), (1 << 32, at), ((1 << 32) + 1, above)] {
            assert_eq!(ask(&profile, &[], "lseek", &[0, value]) == Action::Allow, want, "{op} {value:x}");
        }
    }
    for (rule, want) in [
        (r#""action": "SCMP_ACT_ALLOW""#, Action::Allow),
        (r#""action": "SCMP_ACT_LOG""#, Action::Log),
        (r#""action": "SCMP_ACT_TRAP""#, Action::Trap),
        (r#""action": "SCMP_ACT_KILL""#, Action::KillThread),
        (r#""action": "SCMP_ACT_KILL_THREAD""#, Action::KillThread),
        (r#""action": "SCMP_ACT_KILL_PROCESS""#, Action::KillProcess),
        (r#""action": "SCMP_ACT_ERRNO", "errnoRet": 22"#, Action::Errno(22)),
        (r#""action": "SCMP_ACT_ERRNO", "errnoRet": 0"#, Action::Errno(0)),
        (r#""action": "SCMP_ACT_ERRNO", "errnoRet": 1, "errno": "EINVAL""#, Action::Errno(22)),
    ] {
        let profile = Profile::from_json(&with_entries(&format!(r#"{{"names": ["read"], {rule}}}"#))).unwrap();
        assert_eq!(ask(&profile, &[], "read", &[]), want, "{rule}");
    }
    let json = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "flags": ["SECCOMP_FILTER_FLAG_LOG"]}"#;
    let profile = Profile::from_json(json).unwrap();
    assert_eq!((profile.default, profile.flags), (Action::Errno(38), FilterFlags::LOG));
}

#[test]
fn conditions_join_as_in_docker() {
    let two = |a: u8, b: u8| {
        let json = with_entries(&format!(
            r#"{{"names": ["lseek"], "action": "SCMP_ACT_ALLOW", "args": [
                {{"index": {a}, "value": 1, "op": "SCMP_CMP_EQ"}}, {{"index": {b}, "value": 2, "op": "SCMP_CMP_EQ"}}]}}"#
        ));
        Profile::from_json(&json).unwrap()
    };
    // On two arguments both must hold, on one either.
    assert_eq!(ask(&two(0, 1), &[], "lseek", &[1, 2]), Action::Allow);
    assert_eq!(ask(&two(0, 1), &[], "lseek", &[1, 1]), EPERM);
    assert_eq!(ask(&two(0, 0), &[], "lseek", &[1]), Action::Allow);
    assert_eq!(ask(&two(0, 0), &[], "lseek", &[2]), Action::Allow);
    assert_eq!(ask(&two(0, 0), &[], "lseek", &[3]), EPERM);
    // Entries for one call add up.
    let entry = |v| {
        format!(
            r#"{{"names": ["lseek"], "action": "SCMP_ACT_ALLOW", "args": [{{"index": 0, "value": {v}, "op": "SCMP_CMP_EQ"}}]}}"#
        )
    };
    let either = Profile::from_json(&with_entries(&format!("{}, {}", entry(5), entry(6)))).unwrap();
    assert_eq!([5, 6, 7].map(|v| ask(&either, &[], "lseek", &[v])), [Action::Allow, Action::Allow, EPERM]);
}

#[test]
fn entries_for_other_machines_kernels_and_capabilities_do_not_count() {
    let rule = |condition: &str| {
        let json =
            with_entries(&format!(r#"{{"names": ["read", "socketcall"], "action": "SCMP_ACT_ALLOW", {condition}}}"#));
        Profile::from_json_of(&table::X86_64, &json).unwrap()
    };
    let allows = |condition, caps: &[Capability]| {
        let resolved = rule(condition).resolve(caps, (6, 18));
        resolved.calls.contains_key(&0)
    };
    assert!(allows(r#""includes": {"arches": ["arm64", "amd64"]}"#, &[]));
    assert!(!allows(r#""includes": {"arches": ["arm64", "x86"]}"#, &[]));
    assert!(!allows(r#""excludes": {"arches": ["amd64"]}"#, &[]));
    assert!(allows(r#""includes": {"minKernel": "6.18"}, "excludes": {"minKernel": "6.19"}"#, &[]));
    assert!(!allows(r#""includes": {"minKernel": "6.19"}"#, &[]));
    assert!(!allows(r#""excludes": {"minKernel": "4.8"}"#, &[]));
    assert!(allows(r#""includes": {"caps": ["CAP_KILL"]}"#, &[Capability::CAP_KILL]));
    assert!(!allows(r#""includes": {"caps": ["CAP_KILL"]}"#, &[]));
    assert!(!allows(r#""excludes": {"caps": ["CAP_KILL"]}"#, &[Capability::CAP_KILL]));
    assert!(allows(r#""includes": null, "excludes": {}, "args": null, "comment": "", "whatIsThis": [1]"#, &[]));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let on_line_4 =
        |entry: &str| with_entries(&format!("{{\"names\": [\"write\"], \"action\": \"SCMP_ACT_ALLOW\"}},\n{entry}"));
    for (entry, subject, text) in [
        (r#"{"names": ["read", "raed"], "action": "SCMP_ACT_ALLOW"}"#, "raed", "no architecture has"),
        (r#"{"names": ["read"], "action": "SCMP_ACT_PERMIT"}"#, "JSON", "SCMP_ACT_PERMIT"),
        (r#"{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}"#, "JSON", "SCMP_ACT_NOTIFY"),
        (r#"{"names": ["read"], "action": "SCMP_ACT_TRACE"}"#, "JSON", "SCMP_ACT_TRACE"),
        (r#"{"names": ["read"]}"#, "JSON", "action"),
        (r#"{"names": "read", "action": "SCMP_ACT_ALLOW"}"#, "JSON", "invalid type"),
        (r#"{"name": "read", "names": ["open"], "action": "SCMP_ACT_ALLOW"}"#, "read", "both"),
        (r#"{"names": ["write"], "action": "SCMP_ACT_KILL"}"#, "write", "conflicting rules"),
        (r#"{"names": ["write"], "action": "SCMP_ACT_ERRNO"}"#, "write", "conflicting rules"),
        (r#"{"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096}"#, "errno 4096", "4095"),
        (r#"{"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": -1}"#, "JSON", "invalid value"),
        (r#"{"names": ["read"], "action": "SCMP_ACT_ERRNO", "errno": "EWHAT"}"#, "JSON", "EWHAT"),
        (r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_ALL"]}}"#, "JSON", "CAP_ALL"),
        (
            r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "x"}}"#,
            "JSON",
            "kernel version",
        ),
        (
            r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}"#,
            "argument 6",
            "0 to 5",
        ),
        (
            r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_IN"}]}"#,
            "JSON",
            "SCMP_CMP_IN",
        ),
    ] {
        let (named, message) = wrong(&on_line_4(entry));
        assert_eq!(named, subject, "{message}");
        assert!(message.starts_with("line 4: ") && message.contains(text), "{message}");
    }
}

#[test]
fn errors_inside_a_long_entry_have_their_own_line() {
    let json = with_entries("{\n  \"names\": [\"read\"],\n  \"action\": \"SCMP_ACT_PERMIT\"\n}");
    assert!(wrong(&json).1.starts_with("line 5: "), "{:?}", wrong(&json));
    let json = MOBY.replace("\"defaultErrnoRet\": 1", "\"defaultErrnoRet\": 1 \"x\"");
    assert!(wrong(&json).1.starts_with("line 3: "), "{:?}", wrong(&json));
}

#[test]
fn what_is_no_profile_at_all_is_refused() {
    for json in
        ["", "null", "[]", "{", "{}", r#"{"syscalls": []}"#, r#"{"defaultAction": 1}"#, "{\"defaultAction\"\n:}"]
    {
        assert_eq!(wrong(json).0, "JSON", "{json}");
    }
    let both = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "archMap": [{}]}"#;
    assert_eq!(wrong(both).0, "architectures");
    let flag = r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NEW"]}"#;
    assert!(wrong(flag).1.contains("SECCOMP_FILTER_FLAG_NEW"));
    assert!(Profile::from_json(r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": null, "syscalls": null}"#).is_ok());
}

#[test]
fn five_thousand_rules_are_too_many_and_the_line_is_told() {
    let entries = |n| {
        let one = |v| {
            format!(
                r#"{{"names": ["lseek"], "action": "SCMP_ACT_ALLOW", "args": [{{"index": 0, "value": {v}, "op": "SCMP_CMP_EQ"}}]}}"#
            )
        };
        with_entries(&(0..n).map(one).collect::<Vec<_>>().join(",\n"))
    };
    let (subject, message) = wrong(&entries(5000));
    assert_eq!(subject, "syscalls");
    assert!(message.starts_with(&format!("line {}: too many rules", 3 + MOST_ENTRIES)), "{message}");
    assert!(Profile::from_json(&entries(200)).unwrap().to_bpf(&[]).is_ok());
}

#[test]
fn a_profile_that_is_written_reads_as_the_same_rules() {
    for profile in [Profile::from_json(MOBY).unwrap(), Profile::from_calls([0, 1, 60, 231])] {
        let json = profile.to_json().unwrap();
        assert_eq!(Profile::from_json(&json).unwrap().to_bpf(&[]).unwrap(), profile.to_bpf(&[]).unwrap(), "{json}");
    }
    // The numbers that no call ever had cannot be written, so the built-in profile is compared call by call.
    let (built_in, caps) = (Profile::default(), [Capability::CAP_SYS_ADMIN]);
    let read = Profile::from_json(&built_in.to_json().unwrap()).unwrap();
    for nr in numbers().filter(|n| table::HERE.name_of(*n).is_some()) {
        for args in interesting(&built_in, nr) {
            assert_eq!(naive(&read, &[], nr, args), naive(&built_in, &[], nr, args), "{nr} {args:x?}");
            assert_eq!(naive(&read, &caps, nr, args), naive(&built_in, &caps, nr, args), "{nr} {args:x?}");
        }
    }
}

#[test]
fn a_rule_that_dockers_form_cannot_say_is_not_written_in_another_meaning() {
    let range = [Condition::new(1, Compare::Greater, 1).unwrap(), Condition::new(1, Compare::Less, 9).unwrap()];
    let profile = Profile::new(EPERM).rule(&["lseek"], Action::Allow, &range).unwrap();
    assert_eq!(profile.to_json().unwrap_err().subject(), "lseek");
    let one = Profile::new(EPERM).rule(&["lseek"], Action::Allow, &range[..1]).unwrap();
    assert!(one.to_json().unwrap().contains("SCMP_CMP_GT"));
}
