//! What no layer may do, one archive a case.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::Want::{Inside, Refused};
use super::*;

/// `canary` is what attacks aim at; `up` leads to it from a layer's root, from wherever that is.
pub fn cases(canary: &Path) -> Vec<Case> {
    let absolute = canary.to_str().unwrap().to_owned();
    let up = format!("{}{}", "../".repeat(12), absolute.trim_start_matches('/'));
    let to = |name: &str| format!("{absolute}/{name}");
    let up_to = |name: &str| format!("{up}/{name}");
    let short_up = "../../../../canary/file";
    let mut cases = vec![
        // Names.
        case("name_dotdot", &[file(short_up, "x")], Refused("../../../../canary/file")),
        case("name_dotdot_inside", &[dir("a"), file("a/../../b", "x")], Refused("a/../../b")),
        case("name_dotdot_end", &[dir("a/..")], Refused("a/..")),
        case("name_dotdot_pax", &[file("x", "x").pax("path", up_to("file"))], Refused("..")),
        case("name_dotdot_gnu", &[file("././@LongLink", up_to("file")).kind(b'L'), file("x", "x")], Refused("..")),
        case(
            "name_dotdot_prefix",
            &[file("file", "x").patch(|h| h[345..353].copy_from_slice(b"../../.."))],
            Refused(".."),
        ),
        case(
            "name_absolute",
            &[file(&to("new")[..], "x").pax("path", to("new"))],
            Inside(|root| assert!(!has(root, "new"))),
        ),
        case("name_absolute_short", &[file("/etc/passwd", "x")], Inside(|root| assert!(has(root, "etc/passwd")))),
        case("name_double_slash", &[file("//a///b", "x")], Inside(|root| assert!(has(root, "a/b")))),
        case("name_empty", &[file("", "x")], Refused("an empty name")),
        case("name_dot_file", &[file(".", "x")], Refused("must be a directory")),
        case("name_root_symlink", &[symlink(".", &absolute), file("file", "x")], Refused("must be a directory")),
        case("name_root_symlink_slash", &[symlink("./", &absolute)], Refused("slash")),
        case("name_root_hard", &[hard("./.", "x")], Refused("must be a directory")),
        case("name_root_mode", &[dir("./").mode(0), file("a", "x")], Inside(|root| assert!(has(root, "a")))),
        case("name_zero_pax", &[file("x", "x").pax("path", b"a\0b")], Refused("zero byte")),
        case("name_newline", &[file("a\nb", "x")], Inside(|root| assert!(has(root, "a\nb")))),
        case(
            "name_not_utf8",
            &[file(b"a\xff", "x")],
            Inside(|root| assert_eq!(fs::read_dir(root).unwrap().count(), 1)),
        ),
        case("name_long_part", &[file("x", "x").pax("path", long("n", 256))], Refused("more than 255")),
        case("name_long_path", &[file("x", "x").pax("path", long("a/", 2100) + "f")], Refused("4095")),
        case(
            "name_deep",
            &[file("x", "x").pax("path", long("a/", 1000) + "f")],
            Inside(|root| assert!(has(root, "a/a/a/a"))),
        ),
        case("name_slash_file", &[file("a/", "x")], Refused("slash")),
        case("name_dash", &[file("--help", "x"), file("-rf", "x")], Inside(|root| assert!(has(root, "-rf")))),
        // Symbolic links.
        case(
            "sym_absolute_write",
            &[symlink("l", to("file")), file("l", "pwned")],
            Inside(|root| {
                assert!(!root.join("l").symlink_metadata().unwrap().is_symlink());
            }),
        ),
        case("sym_parent_absolute", &[symlink("d", &absolute), file("d/new", "x")], Refused("d/new")),
        case("sym_parent_up", &[symlink("d", &up), file("d/new", "x")], Refused("d/new")),
        case("sym_parent_root", &[symlink("d", "/"), file("d/new", "x")], Inside(|root| assert!(has(root, "new")))),
        case(
            "sym_parent_dotdot",
            &[symlink("d", "../../.."), file("d/new", "x")],
            Inside(|root| assert!(has(root, "new"))),
        ),
        case(
            "sym_parent_inside",
            &[dir("usr/lib"), symlink("lib", "usr/lib"), file("lib/a", "x")],
            Inside(|root| assert!(has(root, "usr/lib/a"))),
        ),
        case("sym_chain", &[symlink("a", "b"), symlink("b", &absolute), file("a/new", "x")], Refused("a/new")),
        case("sym_loop", &[symlink("a", "b"), symlink("b", "a"), file("a/new", "x")], Refused("a/new")),
        case("sym_swap", &[dir("d"), file("d/a", "x"), symlink("d", &absolute)], Refused("not empty")),
        case("sym_swap_empty", &[dir("d"), symlink("d", &absolute), file("d/new", "x")], Refused("d/new")),
        case(
            "sym_swap_back",
            &[symlink("d", &absolute), dir("d"), file("d/new", "x")],
            Inside(|root| assert!(has(root, "d/new"))),
        ),
        case(
            "sym_dir_chmod",
            &[symlink("d", &absolute), dir("d").mode(0o777)],
            Inside(|root| {
                assert!(root.join("d").symlink_metadata().unwrap().is_dir());
            }),
        ),
        case(
            "sym_cached_parent",
            &[dir("d"), file("d/a", "x"), symlink("d/s", &absolute), file("d/s/new", "x")],
            Refused("d/s/new"),
        ),
        case(
            "sym_repointed",
            &[dir("a"), dir("b"), symlink("s", "a"), file("s/f", ""), symlink("s", "b"), file("s/g", "")],
            Inside(|root| assert!(has(root, "a/f") && has(root, "b/g"))),
        ),
        case("sym_proc_self", &[symlink("p", "/proc/self/root"), file("p/tmp/new", "x")], Refused("p/tmp/new")),
        case("sym_proc_fd", &[symlink("p", "/proc/self/fd/0"), file("p/x", "x")], Refused("p/x")),
        case("sym_etc_passwd", &[symlink("etc", &absolute), file("etc/passwd", "x")], Refused("etc/passwd")),
        case("sym_dev", &[symlink("dev", &absolute), dir("dev/pts")], Refused("dev/pts")),
        case("sym_time", &[symlink("l", to("file"))], Inside(|root| assert!(root.join("l").is_symlink()))),
        case("sym_empty", &[symlink("l", "")], Refused("l")),
        case("sym_long", &[symlink("l", "x").pax("linkpath", long("x", 5000))], Refused("l")),
        case(
            "sym_xattr",
            &[symlink("l", to("file")).pax("SCHILY.xattr.user.pwned", "1")],
            Inside(|root| assert!(has(root, "l"))),
        ),
        case(
            "sym_fifo_chmod",
            &[symlink("f", to("file")), file("f", "").kind(b'6').mode(0o777)],
            Inside(|root| {
                assert!(root.join("f").symlink_metadata().unwrap().file_type().is_fifo());
            }),
        ),
        // Hard links.
        case("hard_absolute", &[hard("l", to("file"))], Refused("l")),
        case("hard_up", &[hard("l", short_up)], Refused("l")),
        case("hard_through_symlink", &[symlink("d", &absolute), hard("l", "d/file")], Refused("l")),
        case(
            "hard_to_symlink",
            &[symlink("s", to("file")), hard("l", "s"), file("l", "pwned")],
            Inside(|root| {
                assert_eq!(fs::read(root.join("l")).unwrap(), b"pwned");
            }),
        ),
        case(
            "hard_to_symlink_mode",
            &[symlink("s", to("file")), hard("l", "s").mode(0o777)],
            Inside(|root| assert!(has(root, "l"))),
        ),
        case("hard_missing", &[hard("l", "nowhere")], Refused("nowhere")),
        case("hard_itself", &[file("l", "x"), hard("l", "l")], Refused("itself")),
        case("hard_to_dir", &[dir("d"), hard("l", "d")], Refused("no file")),
        case("hard_to_root", &[hard("l", "/")], Refused("l")),
        case("hard_to_whiteout", &[file(".wh.x", ""), hard("l", "x")], Refused("no file")),
        case("hard_to_whiteout_name", &[file(".wh.x", ""), hard("l", ".wh.x")], Refused("no file")),
        case("hard_with_size", &[file("a", "x"), hard("l", "a").size(512)], Refused("size")),
        case(
            "hard_over_file",
            &[file("a", "1"), file("b", "2"), hard("b", "a")],
            Inside(|root| assert_eq!(fs::read(root.join("b")).unwrap(), b"1")),
        ),
        // Whiteouts.
        case("wh_plain", &[file("d/.wh.x", "")], Inside(|root| assert!(is_whiteout(&root.join("d/x"))))),
        case("wh_dotdot", &[dir("d"), file("d/.wh...", "")], Refused("d/.wh...")),
        case("wh_dot", &[file("d/.wh..", "")], Refused("d/.wh..")),
        case("wh_empty", &[file("d/.wh.", "")], Refused("d/.wh.")),
        case("wh_symlink", &[symlink(".wh.x", &absolute)], Inside(|root| assert!(is_whiteout(&root.join("x"))))),
        case("wh_hard", &[file("a", ""), hard(".wh.x", "a")], Inside(|root| assert!(is_whiteout(&root.join("x"))))),
        case("wh_dir", &[dir(".wh.x")], Inside(|root| assert!(is_whiteout(&root.join("x"))))),
        case("wh_parent", &[file(".wh.d/x", "")], Refused("beneath a whiteout")),
        case("wh_content", &[file(".wh.x", "content")], Inside(|root| assert!(is_whiteout(&root.join("x"))))),
        case("wh_through_link", &[symlink("d", &absolute), file("d/.wh.file", "")], Refused("d/.wh.file")),
        case(
            "wh_own_file",
            &[file("x", "mine"), file(".wh.x", "")],
            Inside(|root| assert_eq!(fs::read(root.join("x")).unwrap(), b"mine")),
        ),
        case(
            "wh_then_file",
            &[file(".wh.x", ""), file("x", "mine")],
            Inside(|root| assert_eq!(fs::read(root.join("x")).unwrap(), b"mine")),
        ),
        case(
            "wh_then_dir",
            &[file(".wh.x", ""), dir("x")],
            Inside(|root| assert_eq!(xattr(&root.join("x"), "user.overlay.opaque").unwrap(), b"y")),
        ),
        case(
            "wh_beneath_whiteout",
            &[file(".wh.x", ""), file("x/y", "")],
            Inside(|root| assert!(has(root, "x/y") && xattr(&root.join("x"), "user.overlay.opaque").is_some())),
        ),
        case("wh_beneath_link", &[file(".wh.x", ""), symlink("x", &absolute), file("x/y", "")], Refused("x/y")),
        case("plnk_link", &[symlink(".wh..wh.plnk", &absolute), hard("l", ".wh..wh.plnk/file")], Refused("l")),
        case(
            "plnk_member_link",
            &[symlink(".wh..wh.plnk/1", to("file")), file(".wh..wh.plnk/2", "x"), hard("l", ".wh..wh.plnk/1")],
            Refused("l"),
        ),
        case(
            "plnk_up",
            &[file(".wh..wh.plnk/../up", "x"), hard("l", ".wh..wh.plnk/../up")],
            Inside(|root| assert!(has(root, "up") && !has(root, ".wh..wh.plnk"))),
        ),
        case(
            "plnk_dir",
            &[dir(".wh..wh.plnk/d"), file(".wh..wh.plnk/d/x", "x")],
            Inside(|root| {
                assert_eq!(fs::read_dir(root).unwrap().count(), 0);
            }),
        ),
        case(
            "opq_plain",
            &[dir("d"), file("d/.wh..wh..opq", "")],
            Inside(|root| assert_eq!(xattr(&root.join("d"), "user.overlay.opaque").unwrap(), b"y")),
        ),
        case("opq_through_link", &[symlink("d", &absolute), file("d/.wh..wh..opq", "")], Refused("d/.wh..wh..opq")),
        case(
            "opq_symlink",
            &[symlink("d/.wh..wh..opq", &absolute)],
            Inside(|root| assert!(!has(root, "d/.wh..wh..opq"))),
        ),
        case(
            "opq_aufs",
            &[dir(".wh..wh.plnk").kind(b'0'), file(".wh..wh.aufs", "")],
            Inside(|root| assert_eq!(fs::read_dir(root).unwrap().count(), 0)),
        ),
        // Devices and other kinds.
        case("dev_char", &[file("sda", "").kind(b'3').mode(0o666)], Inside(|root| assert!(!has(root, "sda")))),
        case("dev_block", &[file("sda", "").kind(b'4').mode(0o666)], Inside(|root| assert!(!has(root, "sda")))),
        case("dev_whiteout", &[file("x", "").kind(b'3')], Inside(|root| assert!(!has(root, "x")))),
        case(
            "kind_fifo",
            &[file("etc/passwd", "").kind(b'6')],
            Inside(|root| assert!(root.join("etc/passwd").symlink_metadata().unwrap().file_type().is_fifo())),
        ),
        case("kind_contiguous", &[file("x", "x").kind(b'7')], Inside(|root| assert!(has(root, "x")))),
        case("kind_old", &[file("x", "x").kind(0)], Inside(|root| assert!(has(root, "x")))),
        case("kind_unknown", &[file("x", "x").kind(b'Z')], Refused("unknown kind")),
        case("kind_volume", &[file("x", "").kind(b'V')], Refused("unknown kind")),
        case("kind_multivolume", &[file("x", "x").kind(b'M')], Refused("unknown kind")),
        case("kind_sparse", &[file("x", "x").kind(b'S')], Refused("sparse")),
        case("kind_sparse_pax", &[file("x", "x").pax("GNU.sparse.major", "1")], Refused("sparse")),
        // Attributes.
        case("meta_setuid", &[file("su", "x").mode(0o4755)], Inside(|root| assert_eq!(mode(root, "su"), 0o755))),
        case("meta_setgid_dir", &[dir("d").mode(0o2775)], Inside(|root| assert_eq!(mode(root, "d"), 0o775))),
        case("meta_sticky", &[dir("tmp").mode(0o1777)], Inside(|root| assert_eq!(mode(root, "tmp"), 0o1777))),
        case(
            "meta_mode_000",
            &[dir("d").mode(0), file("d/f", "x").mode(0)],
            Inside(|root| assert_eq!(mode(root, "d"), 0o700)),
        ),
        case(
            "meta_fcap",
            &[file("ping", "x")
                .pax("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0")],
            Inside(no_xattrs_of_ping),
        ),
        case(
            "meta_overlay_xattr",
            &[dir("ping")
                .pax("SCHILY.xattr.user.overlay.opaque", "y")
                .pax("SCHILY.xattr.user.overlay.redirect", "/etc")
                .pax("SCHILY.xattr.trusted.overlay.opaque", "y")],
            Inside(no_xattrs_of_ping),
        ),
        case(
            "meta_implied",
            &[dir("ping").pax("SCHILY.xattr.user.overlay.sandcell.implied", "y")],
            Inside(no_xattrs_of_ping),
        ),
        case(
            "meta_overlay_nested",
            &[file("ping", "x").pax("SCHILY.xattr.user.overlay.overlay.whiteout", "")],
            Inside(no_xattrs_of_ping),
        ),
        case(
            "meta_acl",
            &[file("ping", "x").pax("SCHILY.xattr.system.posix_acl_access", "x")],
            Inside(no_xattrs_of_ping),
        ),
        case(
            "meta_user_xattr",
            &[file("a", "x").pax("SCHILY.xattr.user.note", "hello")],
            Inside(|root| assert_eq!(xattr(&root.join("a"), "user.note").unwrap(), b"hello")),
        ),
        case(
            "meta_xattr_huge",
            &[file("a", "x").pax("SCHILY.xattr.user.note", vec![b'x'; 200_000])],
            Refused("user.note"),
        ),
        case(
            "meta_xattr_name",
            &[file("a", "x").pax(&format!("SCHILY.xattr.user.{}", long("n", 300)), "x")],
            Refused("attribute"),
        ),
        case("meta_uid_huge", &[file("a", "x").pax("uid", "4294967296")], Refused("user id")),
        case("meta_uid_minus_one", &[file("a", "x").pax("uid", "4294967295")], Refused("user id")),
        case("meta_gid_negative", &[file("a", "x").pax("gid", "-1")], Refused("gid")),
        case("meta_uid_binary", &[file("a", "x").patch(|h| h[108..116].fill(0xff))], Refused("user id")),
        case("meta_uid_text", &[file("a", "x").pax("uid", "0x0")], Refused("uid")),
        case(
            "meta_time_before",
            &[file("a", "x").pax("mtime", "-100.5")],
            Inside(|root| assert_eq!(root.join("a").metadata().unwrap().mtime(), -101)),
        ),
        case("meta_time_text", &[file("a", "x").pax("mtime", "yesterday")], Refused("mtime")),
        case("meta_mode_bits", &[file("a", "x").mode(0o100644)], Inside(|root| assert_eq!(mode(root, "a"), 0o644))),
        // Sizes.
        case(
            "size_negative",
            &[file("a", "").patch(|h| {
                h[124] = 0xff;
                h[125..136].fill(0xff)
            })],
            Refused("negative"),
        ),
        case(
            "size_huge_binary",
            &[file("a", "").patch(|h| {
                h[124] = 0x80;
                h[125..136].fill(0xff)
            })],
            Refused("too large"),
        ),
        case("size_huge_octal", &[file("a", "").size(0o77777777777)], Refused("a")),
        case("size_huge_pax", &[file("a", "").pax("size", "9223372036854775807")], Refused("a")),
        case("size_over_u64_pax", &[file("a", "").pax("size", "99999999999999999999999")], Refused("size")),
        case("size_text", &[file("a", "").patch(|h| h[124..130].copy_from_slice(b"12x456"))], Refused("number")),
        case(
            "size_pax_vs_ustar",
            &[file("outer", tar(&[file("inner", "smuggled")])).size(0).pax("size", "2048")],
            Inside(|root| {
                assert!(has(root, "outer") && !has(root, "inner"));
            }),
        ),
        case(
            "size_pax_smaller",
            &[file("outer", tar(&[file("inner", "smuggled")])).pax("size", "0")],
            Inside(|root| {
                // As POSIX and GNU tar have it: the extended header counts, so what follows is a member.
                assert!(has(root, "outer") && has(root, "inner"));
            }),
        ),
        case("size_on_dir", &[Member { data: tar(&[file("inner", "x")]), ..dir("d") }], Refused("size")),
        case("size_on_symlink", &[Member { data: tar(&[file("inner", "x")]), ..symlink("s", "x") }], Refused("size")),
        case("size_on_fifo", &[file("f", "data").kind(b'6')], Refused("size")),
        case("size_beyond_end", &[file("a", "").size(4096)], Refused("a")),
        // Extended headers.
        case(
            "pax_twice",
            &[
                file("p", pax_record("path", b"a")).kind(b'x'),
                file("p", pax_record("path", b"b")).kind(b'x'),
                file("c", ""),
            ],
            Refused("two extended"),
        ),
        case("pax_and_gnu", &[file("L", "a").kind(b'L'), file("x", "").pax("path", "b")], Refused("long name")),
        case("pax_global_path", &[file("g", pax_record("path", b"a")).kind(b'g'), file("c", "")], Refused("global")),
        case(
            "pax_global_comment",
            &[file("g", pax_record("comment", b"a")).kind(b'g'), file("c", "")],
            Inside(|root| assert!(has(root, "c"))),
        ),
        case("pax_garbage", &[file("p", "no record at all").kind(b'x'), file("c", "")], Refused("does not parse")),
        case("pax_length_zero", &[file("p", "0 path=a\n").kind(b'x'), file("c", "")], Refused("does not parse")),
        case("pax_length_long", &[file("p", "999 path=a\n").kind(b'x'), file("c", "")], Refused("does not parse")),
        case("pax_length_negative", &[file("p", "-9 path=a\n").kind(b'x'), file("c", "")], Refused("does not parse")),
        case("pax_huge", &[file("p", vec![b'x'; 2 << 20]).kind(b'x'), file("c", "")], Refused("1 MiB")),
        case("pax_huge_claimed", &[file("p", "").size(0o77777777777).kind(b'x')], Refused("1 MiB")),
        case("pax_at_end", &[file("p", pax_record("path", b"a")).kind(b'x')], Refused("ends behind")),
        case("gnu_long_huge", &[file("L", vec![b'x'; 2 << 20]).kind(b'L'), file("c", "")], Refused("1 MiB")),
        case(
            "gnu_long_twice",
            &[file("L", "a").kind(b'L'), file("L", "b").kind(b'L'), file("c", "")],
            Refused("two long names"),
        ),
        // Duplicates.
        case(
            "dup_file",
            &[file("a", "1"), file("a", "2")],
            Inside(|root| assert_eq!(fs::read(root.join("a")).unwrap(), b"2")),
        ),
        case(
            "dup_file_over_hard",
            &[file("a", "1"), hard("b", "a"), file("a", "2")],
            Inside(|root| assert_eq!(fs::read(root.join("b")).unwrap(), b"1")),
        ),
        case(
            "dup_dir_over_file",
            &[file("a", "1"), dir("a"), file("a/b", "2")],
            Inside(|root| assert!(has(root, "a/b"))),
        ),
        case("dup_file_over_dir", &[dir("a"), file("a/b", "1"), file("a", "2")], Refused("not empty")),
        case(
            "dup_dir_mode",
            &[dir("a").mode(0o777), dir("a").mode(0o700)],
            Inside(|root| assert_eq!(mode(root, "a"), 0o700)),
        ),
        case("dup_file_as_parent", &[file("a", "1"), file("a/b", "2")], Refused("a/b")),
    ];
    // Whole archives.
    let good = tar(&[file("a", "x")]);
    let mut raw = |id, archive: Vec<u8>, want| cases.push(Case { id, archive, want });
    raw("raw_cut_header", good[..300].to_vec(), Refused("cut off"));
    raw("raw_cut_content", open_tar(&[file("a", vec![b'x'; 5000])])[..2000].to_vec(), Refused("ends inside"));
    raw("raw_no_end", open_tar(&[file("a", "x")]), Inside(|root| assert!(has(root, "a"))));
    raw("raw_empty", Vec::new(), Inside(|root| assert_eq!(fs::read_dir(root).unwrap().count(), 0)));
    raw(
        "raw_trailing",
        [&good[..], &tar(&[file("hidden", "x")])].concat(),
        Inside(|root| assert!(has(root, "a") && !has(root, "hidden"))),
    );
    let single = [&good[..good.len() - 512], &tar(&[file("hidden", "x")])].concat();
    raw("raw_trailing_single", single, Refused("a single empty block"));
    raw(
        "raw_checksum",
        {
            let mut t = good.clone();
            t[0] ^= 1;
            t
        },
        Refused("checksum"),
    );
    raw("raw_noise", (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(), Refused("checksum"));
    raw("raw_gzip_cut", gzip(&good)[..20].to_vec(), Refused("reading the layer"));
    raw(
        "raw_gzip_crc",
        {
            let mut g = gzip(&good);
            let at = g.len() - 6;
            g[at] ^= 1;
            g
        },
        Refused("reading the layer"),
    );
    raw("raw_gzip_trailing", [gzip(&good), b"garbage".to_vec()].concat(), Refused("reading the layer"));
    raw(
        "raw_gzip_two_members",
        [gzip(&good[..700]), gzip(&good[700..])].concat(),
        Inside(|root| assert!(has(root, "a"))),
    );
    raw("raw_zstd", zstd(&good), Inside(|root| assert!(has(root, "a"))));
    raw("raw_zstd_cut", zstd(&good)[..20].to_vec(), Refused("reading the layer"));
    raw(
        "raw_zstd_skippable",
        [&b"\x50\x2a\x4d\x18\x03\0\0\0abc"[..], &zstd(&good)].concat(),
        Inside(|root| assert!(has(root, "a"))),
    );
    raw("raw_zstd_window", b"\x28\xb5\x2f\xfd\x00\xf8\x01\x00\x00".to_vec(), Refused("reading the layer"));
    // A run-length block of 128 KiB, again and again: 4 bytes each.
    let rle: Vec<u8> = (0..4000).flat_map(|_| [0x02, 0x00, 0x10, 0x00]).collect();
    raw("bomb_zstd", [&b"\x28\xb5\x2f\xfd\x00\x58"[..], &rle].concat(), Refused("reading the layer"));
    raw("bomb_gzip", zeros_in_gzip(), Refused("grows to more than"));
    let many: Vec<Member> = (0..3000).map(|n| file(format!("f{n}"), "")).collect();
    raw("bomb_members", tar(&many), Refused("more than 2000 members"));
    let deep = |n| file("x", "").pax("path", format!("{n}/{}f", "d/".repeat(1500)));
    raw("bomb_directories", tar(&[deep(1), deep(2)]), Refused("more than 2000 members"));
    raw("bomb_bytes", open_tar(&[file("big", "").size(3 << 30)]), Refused("big"));
    cases
}
