//! What a sandbox is assigned: from the caller's real sub-ids where the host has them, and from fixtures.

use std::path::Path;

use super::Scratch;
use crate::ids::lease::Places;
use crate::ids::source::Host;
use crate::ids::{IdMap, IdPool, UserNamespace};
use crate::policy::{HostIds, Identity, User};

/// The real host with fixtures for its files, and no help from being root.
fn host(dir: &Scratch, lines: &str) -> Host {
    for file in ["subuid", "subgid"] {
        std::fs::write(dir.join(file), lines).expect("write a fixture");
    }
    let host = Host::new().expect("the caller");
    Host {
        uid: 1000,
        gid: 1000,
        name: Some("alice".to_owned()),
        may_write_maps: false,
        own_proc: true,
        subuid: dir.join("subuid"),
        subgid: dir.join("subgid"),
        nsswitch: dir.join("nsswitch.conf"),
        places: Places { candidates: vec![(dir.to_path_buf(), "leases".to_owned())], uid: host.uid },
        ..host
    }
}

/// As if by root: no helper program and no namespace is needed for looking at what is assigned.
fn as_root(dir: &Scratch, lines: &str) -> Host {
    Host { may_write_maps: true, ..host(dir, lines) }
}

fn pool(identity: Identity, host: Host) -> IdPool {
    IdPool::on(&identity, host).expect("a sensible request")
}

const LINES: &str = "bob:1:1\nalice:300000:1000\n";

#[test]
fn two_sandboxes_of_one_pool_have_different_ids_on_the_host() {
    let dir = Scratch::new();
    let pool = pool(Identity::default(), as_root(&dir, LINES));
    let (a, b) = (pool.assign().expect("a"), pool.assign().expect("b"));
    assert_ne!(a.host_uid, b.host_uid);
    assert_ne!(a.host_gid, b.host_gid);
    for it in [&a, &b] {
        assert!((300_000..301_000).contains(&it.host_uid) && it.disjoint && it.groups_dropped, "{it:?}");
        assert_eq!((it.gid, &it.why_shared), (0, &None));
        assert!((1_000_000..2_097_152).contains(&it.uid));
        assert_eq!(it.uid_map, IdMap::one(it.uid, it.host_uid));
        assert_eq!(it.gid_map.to_string(), format!("0 {} 1\n", it.host_gid));
    }
}

#[test]
fn the_program_is_who_the_caller_said() {
    let dir = Scratch::new();
    for (user, ids) in
        [(User::Root, (0, 0)), (User::Caller, (1000, 1000)), (User::Fixed { uid: 33, gid: 44 }, (33, 44))]
    {
        let it = pool(Identity { user, ..Identity::default() }, as_root(&dir, LINES)).assign().expect("assigned");
        assert_eq!((it.uid, it.gid), ids);
        assert_eq!(it.uid_map.host(it.uid), Some(it.host_uid));
    }
}

#[test]
fn a_whole_range_maps_from_zero_with_the_program_among_it() {
    let dir = Scratch::new();
    let identity = |user| Identity { user, count: 100, ..Identity::default() };
    let it = pool(identity(User::Fixed { uid: 33, gid: 0 }), as_root(&dir, LINES)).assign().expect("assigned");
    assert_eq!(it.uid_map.to_string(), format!("0 {} 100\n", it.host_uid - 33));
    let it = pool(identity(User::Random), as_root(&dir, LINES)).assign().expect("assigned");
    let first = it.host_uid - 99;
    assert_eq!(it.uid_map.to_string(), format!("0 {first} 99\n{} {} 1\n", it.uid, it.host_uid));
}

#[test]
fn keeping_the_caller_makes_a_hole_in_the_range() {
    let dir = Scratch::new();
    let user = User::Fixed { uid: 33, gid: 0 };
    let identity = Identity { user, count: 100, keep_caller: true, ..Identity::default() };
    let it = pool(identity.clone(), as_root(&dir, LINES)).assign().expect("assigned");
    assert_eq!((it.host_uid, it.host_gid, it.disjoint), (1000, 1000, false));
    assert!(it.why_shared.as_ref().is_some_and(|why| why.contains("keep_caller")));
    let start = it.uid_map.host(0).expect("mapped");
    assert_eq!(it.uid_map.to_string(), format!("0 {start} 33\n33 1000 1\n34 {} 66\n", start + 34));
    let gids = it.gid_map.host(1).expect("mapped");
    assert_eq!(it.gid_map.to_string(), format!("0 1000 1\n1 {gids} 99\n"));
    let one = pool(Identity { count: 1, ..identity }, as_root(&dir, LINES)).assign().expect("assigned");
    assert_eq!(one.uid_map, IdMap::one(33, 1000));
}

#[test]
fn without_sub_ids_the_callers_uid_is_shared_and_the_reason_and_remedy_are_told() {
    let dir = Scratch::new();
    let it = pool(Identity::default(), host(&dir, "bob:1:1\n")).assign().expect("falls back");
    assert_eq!((it.host_uid, it.disjoint), (1000, false));
    let why = it.why_shared.expect("told");
    assert!(why.contains("no sub-UIDs for alice") && why.contains("usermod --add-subuids"), "{why}");
    assert!(matches!(it.namespace, UserNamespace::OneId));

    let disjoint = Identity { host_ids: HostIds::Disjoint, ..Identity::default() };
    let error = pool(disjoint, host(&dir, "")).assign().expect_err("must be refused");
    assert_eq!(error.kind(), "unsupported");
    assert!(error.hint().contains("usermod --add-subuids"), "{error:?}");
    let many = Identity { count: 10, ..Identity::default() };
    let error = pool(many, host(&dir, "")).assign().expect_err("must be refused");
    assert_eq!(error.kind(), "unsupported");
    assert!(error.to_string().contains("10 ids were asked for"), "{error}");
}

#[test]
fn a_missing_gid_line_is_told_apart() {
    let dir = Scratch::new();
    let host = host(&dir, LINES);
    std::fs::write(dir.join("subgid"), "").expect("write a fixture");
    let why = pool(Identity::default(), host).assign().expect("falls back").why_shared.expect("told");
    assert!(why.contains("no sub-GIDs for alice") && why.contains("--add-subgids"), "{why}");
}

#[test]
fn supplementary_groups_of_a_shared_id_are_reported() {
    let dir = Scratch::new();
    let dropped = |has_groups| {
        let host = Host { has_groups, ..host(&dir, "") };
        pool(Identity::default(), host).assign().expect("assigned").groups_dropped
    };
    assert!(!dropped(true));
    assert!(dropped(false));
}

#[test]
fn a_malformed_line_is_an_error_even_where_sharing_would_do() {
    let dir = Scratch::new();
    let error = pool(Identity::default(), host(&dir, "alice:x:1\n")).assign().expect_err("must be refused");
    assert!(error.to_string().contains("subuid:1"), "{error}");
}

#[test]
fn a_range_too_small_for_the_count_is_an_error_that_names_it() {
    let dir = Scratch::new();
    let many = Identity { count: 65_536, ..Identity::default() };
    let error = pool(many, as_root(&dir, LINES)).assign().expect_err("must be refused");
    assert_eq!(error.kind(), "unsupported");
    assert!(error.to_string().contains("300000-300999"), "{error}");
}

#[test]
fn other_sources_than_the_files_are_asked_through_getsubids() {
    let dir = Scratch::new();
    let fixture = as_root(&dir, "");
    std::fs::write(dir.join("nsswitch.conf"), "passwd: files\nsubid: files sss # both\n").expect("write a fixture");
    super::script(&dir.join("getsubids"), "echo '0: alice 700000 10'");
    let mut host = fixture;
    host.programs.directories = vec![dir.to_path_buf()];
    let it = pool(Identity::default(), host).assign().expect("assigned");
    assert!((700_000..700_010).contains(&it.host_uid), "{it:?}");
}

#[test]
fn root_without_lines_gets_ids_far_from_real_users_and_never_those_of_others() {
    let dir = Scratch::new();
    let lines = format!("bob:{}:100000000\n", 0x7800_0000u32);
    let it = pool(Identity::default(), as_root(&dir, &lines)).assign();
    if !Path::new("/proc/self/uid_map").exists() || !all_ids_exist() {
        // In a container these ids do not exist; then there is a reason instead.
        return assert!(it.is_ok_and(|it| it.why_shared.is_some()) || nix::unistd::geteuid().is_root());
    }
    let it = it.expect("assigned");
    assert!((0x7800_0000 + 100_000_000..0x7FFE_0000).contains(&it.host_uid), "{it:?}");
}

fn all_ids_exist() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.contains("4294967295"))
}

#[test]
fn nonsense_is_refused_before_anything_is_looked_up() {
    let dir = Scratch::new();
    for identity in [
        Identity { count: 0, ..Identity::default() },
        Identity { user: User::Fixed { uid: u32::MAX, gid: 0 }, ..Identity::default() },
        Identity { keep_caller: true, host_ids: HostIds::Disjoint, ..Identity::default() },
        Identity { count: 2, host_ids: HostIds::Shared, ..Identity::default() },
    ] {
        let error = IdPool::on(&identity, host(&dir, "")).map(|_| ()).expect_err("must be refused");
        assert_eq!(error.kind(), "config", "{identity:?}");
        assert!(!error.hint().is_empty());
    }
}

#[test]
fn the_real_sub_ids_of_this_user_are_mapped_in_a_namespace_that_is_made_once() {
    if !super::has_sub_ids() {
        return;
    }
    let pool = IdPool::new(&Identity { host_ids: HostIds::Disjoint, ..Identity::default() }).expect("sensible");
    let (a, b) = (pool.assign().expect("a"), pool.assign().expect("b"));
    let (UserNamespace::Nested(first), UserNamespace::Nested(second)) = (&a.namespace, &b.namespace) else {
        panic!("{a:?}");
    };
    assert!(std::sync::Arc::ptr_eq(first, second), "the namespace is kept");
    assert_ne!(a.host_uid, b.host_uid);
    let inside = crate::ids::namespace::Proxy::in_namespace(&**first).expect("entered");
    let map = std::fs::read_to_string(format!("/proc/{}/uid_map", inside.pid())).expect("its map");
    let numbers: Vec<Vec<u32>> =
        map.lines().map(|l| l.split_whitespace().map(|n| n.parse().expect("a number")).collect()).collect();
    assert!(numbers.iter().all(|l| l[0] == l[1]), "{map}");
    assert!(numbers.iter().any(|l| a.host_uid >= l[1] && a.host_uid - l[1] < l[2]), "{map}");
}

#[test]
fn with_the_proc_of_others_only_the_callers_own_id_can_be_mapped_and_by_the_sandbox_itself() {
    let dir = Scratch::new();
    let pool = |own_proc| IdPool::on(&Identity::default(), Host { own_proc, ..as_root(&dir, "alice:100000:1000\n") });
    let own = pool(true).unwrap().assign().unwrap();
    assert!(own.disjoint && matches!(own.namespace, UserNamespace::Written));
    let others = pool(false).unwrap().assign().unwrap();
    assert!(!others.disjoint && matches!(others.namespace, UserNamespace::OneId));
    assert!(others.why_shared.unwrap().contains("/proc"));
}

#[test]
#[cfg(feature = "image")]
fn sandboxes_leave_the_ids_of_images_to_their_runs_while_there_are_others() {
    let dir = Scratch::new();
    let lines = "alice:300000:65566\n";
    let single = pool(Identity::default(), as_root(&dir, lines));
    let beside: Vec<_> = (0..30).map(|_| single.assign().expect("one of the others")).collect();
    assert!(beside.iter().all(|it| it.host_uid >= 365_536 && it.host_gid >= 365_536), "{beside:?}");
    // Nobody waits for anybody.
    let mut images = pool(Identity { count: 65_536, ..Identity::default() }, as_root(&dir, lines));
    let ids = images.store_ids().expect("a slice");
    assert_eq!((ids.uid, ids.gid), (300_000, 300_000));
    images.use_store(ids);
    drop(images.on_store(ids, None).expect("its ids are free"));
    // Then those of the images, too: and a run of one has to wait.
    let last = single.assign().expect("one of the images'");
    assert!(last.host_uid < 365_536, "{last:?}");
    let error = images.on_store(ids, None).expect_err("one of its ids is taken");
    assert!(error.hint().contains("--add-subuids"), "{error}");
}
