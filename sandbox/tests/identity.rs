//! Who the program is: numbers, names and home.

mod common;

use common::{run, sandbox, shell, text, told};
use sandcell::{Outcome, Sandbox, User};

fn user(user: User) -> sandcell::Builder {
    Sandbox::builder().user(user)
}

#[test]
fn every_run_has_another_random_uid_and_the_report_names_it() {
    let sandbox = sandbox();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let output = shell(&sandbox, "id -u; id -g").output().unwrap();
        let words: Vec<u32> = text(&output.stdout).lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(words, [output.identity.uid, 0]);
        assert_eq!(output.identity.gid, 0);
        assert!(words[0] > 65536, "{} could be somebody's UID", words[0]);
        seen.insert(words[0]);
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
}

#[test]
fn programs_find_their_name_and_a_writable_home() {
    let said = told(Sandbox::builder(), "whoami; echo $USER; echo $HOME; echo ~; pwd; echo x > ~/file && cat ~/file");
    assert_eq!(said.lines().collect::<Vec<_>>(), ["cell", "cell", "/home/cell", "/home/cell", "/home/cell", "x"]);
}

#[test]
fn the_account_files_name_the_program_and_nobody_of_the_host() {
    let said = told(Sandbox::builder(), "getent passwd $(id -u); cut -d: -f1 /etc/passwd; id -gn");
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].starts_with("cell:x:") && lines[0].contains(":/home/cell:"), "{said}");
    assert_eq!(lines[1..], ["root", "nobody", "cell", "root"]);
    let host = std::fs::read_to_string("/etc/passwd").unwrap();
    assert!(host.lines().any(|line| line.starts_with("daemon:")), "the host has more accounts than that");
}

#[test]
fn root_inside_is_zero_without_capabilities() {
    let said = told(user(User::Root), "id -u; id -g; whoami; echo $HOME; grep CapEff /proc/self/status");
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..4], ["0", "0", "root", "/root"]);
    assert!(lines[4].ends_with("\t0000000000000000"), "{said}");
}

#[test]
fn the_caller_keeps_its_own_numbers_on_request() {
    let output = run(user(User::Caller), "id -u; id -g; id -un");
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let name = nix::unistd::User::from_uid(uid).unwrap().unwrap().name;
    assert_eq!(text(&output.stdout), format!("{uid}\n{gid}\n{name}"));
    assert_eq!(output.identity.uid, uid.as_raw());
}

#[test]
fn a_fixed_uid_and_gid_are_taken_as_they_are() {
    for (uid, gid) in [(1234, 5678), (65534, 65534), (4294967294, 1)] {
        let said = told(user(User::fixed(uid, gid)), "id -u; id -g; test -w ~ && echo writable");
        assert_eq!(said, format!("{uid}\n{gid}\nwritable"));
    }
}

#[test]
fn ids_that_the_kernel_reads_as_no_change_are_refused() {
    for (uid, gid) in [(u32::MAX, 0), (0, u32::MAX)] {
        let error = user(User::fixed(uid, gid)).build().unwrap_err();
        assert_eq!((error.kind(), error.subject()), ("config", "user"));
    }
}

#[test]
fn supplementary_groups_give_no_rights_inside() {
    // A group that is not mapped shows as 65534 and cannot be dropped without a range; it is never named.
    let output = run(Sandbox::builder(), "id -G");
    assert_eq!(output.outcome, Outcome::Exited(0));
    let groups = text(&output.stdout);
    assert!(groups.split(' ').all(|group| group == "0" || group == "65534"), "{groups}");
}

#[test]
fn nobody_inside_can_become_somebody_else() {
    let said = told(Sandbox::builder(), "setpriv --reuid $(id -u) id -u; setpriv --reuid 12345 id -u 2>&1 || echo no");
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].parse::<u32>().is_ok(), "its own number may be set: {said}");
    assert_eq!(lines.last(), Some(&"no"), "{said}");
}
