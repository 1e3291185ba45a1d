"""What a policy can say beyond files and streams: isolation, ids, limits, Landlock, files of its own, learning."""

import json
import os

import pytest

import sandcell


def shell(line, **keywords):
    return sandcell.run(["/bin/sh", "-c", line], capture_output=True, text=True, **keywords)


def disk():
    """A block device of this machine, as MAJOR:MINOR."""
    for name in sorted(os.listdir("/sys/block")):
        with open(f"/sys/block/{name}/dev") as file:
            return file.read().strip()


def by(result, item):
    return [line.by for line in result.enforced if line.item == item]


def test_isolation_by_landlock_alone_is_asked_for_and_told():
    there = os.readlink("/proc/self/ns/mnt")
    told = shell("readlink /proc/self/ns/mnt; grep NoNewPrivs /proc/self/status; ls /root", isolation="landlock")
    assert told.stdout.splitlines()[:2] == [there, "NoNewPrivs:\t1"]
    assert told.returncode != 0 and "nothing" in by(told, "isolation")
    apart = shell("readlink /proc/self/ns/mnt", isolation="namespaces")
    assert apart.stdout.strip() != there and by(apart, "isolation") == []
    with pytest.raises(sandcell.PolicyError, match="isolation.*namespaces or landlock"):
        sandcell.Sandbox(isolation="none")


def test_landlock_may_be_required_and_is_refused_where_a_rule_is_missing():
    rules = [f"landlock:{rule}" for rule in ("TCP ports", "UDP ports", "device commands", "signals", "abstract sockets")]
    accepted = sandcell.Sandbox(landlock="required", network="none", best_effort=[*rules, "landlock:files", "landlock:truncate"])
    assert accepted.run(["true"]).returncode == 0
    # Whether this kernel has every rule is its business: then it runs, else the rule is named.
    try:
        sandbox = sandcell.Sandbox(landlock="required")
    except sandcell.UnsupportedError as error:
        assert "andlock" in str(error)
    else:
        assert "landlock" in by(sandbox.run(["true"]), "landlock")
    assert "landlock" not in by(sandcell.run(["true"], landlock="off"), "landlock")
    with pytest.raises(sandcell.PolicyError, match="landlock.*default, required or off"):
        sandcell.Sandbox(landlock="please")


def test_shared_ids_are_the_callers_own_on_the_host():
    assert sandcell.run(["true"], host_ids="shared").identity.host_uid == os.geteuid()
    with pytest.raises(sandcell.PolicyError, match="host_ids"):
        sandcell.Sandbox(host_ids="mine")


def test_files_of_the_policy_are_there_and_read_only():
    files = {"/run/app.conf": "a = ä\n", b"/srv/data": b"\xff"}
    told = shell("cat /run/app.conf; wc -c </srv/data; echo x >/run/app.conf", files=files)
    assert told.stdout == "a = ä\n1\n" and "ead-only" in told.stderr and told.returncode != 0
    for mistake in ("/x", {"/x": 7}, {7: "x"}):
        with pytest.raises(sandcell.PolicyError, match="files"):
            sandcell.Sandbox(files=mistake)


def test_files_of_the_policy_have_the_mode_that_was_asked_for():
    files = {"/run/script": ("#!/bin/sh\necho ran\n", 0o755), "/run/plain": b"#!/bin/sh\n", "/run/quiet": (b"", 0o400)}
    told = shell("/run/script; /run/plain 2>/dev/null || echo no; stat -c %a /run/plain /run/quiet", files=files)
    assert told.stdout == "ran\nno\n644\n400\n"
    for mode in (0o4755, -1, "755", None):
        with pytest.raises(sandcell.PolicyError, match="files"):
            sandcell.Sandbox(files={"/run/x": ("", mode)})


def test_the_number_of_files_can_be_limited():
    line = "cd /tmp; for n in $(seq 200); do : >$n || exit 9; done; echo all"
    assert shell(line).stdout == "all\n"
    limited = shell(line, inodes=16)
    assert limited.returncode != 0 and by(limited, "inodes") == ["tmpfs"]


def test_cpu_time_ends_a_program_that_spins():
    spins = ["/bin/sh", "-c", "while :; do :; done"]
    ended = sandcell.run(spins, cpu_time="200ms", best_effort=["cpu_time"])
    assert ended.outcome.kind in ("timed_out", "signaled") and by(ended, "cpu_time") not in ([], ["nothing"])
    assert shell("echo x", cpu_time=60, best_effort=["cpu_time"]).stdout == "x\n"


@pytest.mark.parametrize(
    "keyword, value, good",
    [
        ("memory_high", "much", "1G"),
        ("cpu_weight", 0, 200),
        ("io_weight", 20_000, 100),
        ("io_max", {"8:0": {"bytes": 1}}, {disk(): {"read_bytes": "1M", "write_ops": 100}}),
    ],
)
def test_shares_are_checked_and_enforced_refused_or_told(keyword, value, good):
    with pytest.raises(sandcell.PolicyError, match=keyword):
        sandcell.Sandbox(**{keyword: value})
    told = sandcell.run(["true"], best_effort=[keyword], **{keyword: good})
    assert by(told, keyword)
    if by(told, keyword) == ["nothing"]:
        with pytest.raises(sandcell.UnsupportedError):
            sandcell.run(["true"], **{keyword: good})


def test_a_cgroup_that_is_none_is_refused(tmp_path):
    with pytest.raises((sandcell.PolicyError, sandcell.UnsupportedError)):
        sandcell.run(["true"], cgroup=tmp_path, pids=8)


def test_changes_are_listed_where_that_was_asked_for(tmp_path):
    layer = tmp_path / "layer"
    (layer / "d").mkdir(parents=True)
    (layer / "gone").touch()
    (layer / "kept").touch()
    os.chmod(tmp_path, 0o755)
    shown = ["/usr", *(path for path in ("/bin", "/lib", "/lib64") if os.path.exists(path))]
    box = sandcell.Sandbox(layers=[layer], ro=shown)
    line = ["/bin/sh", "-c", "echo x >/d/new; rm /gone; echo x >/kept"]
    wanted = {"/d/new": "added", "/gone": "deleted", "/kept": "modified"}

    def found(changes):
        return {change.path: change.kind for change in changes if change.path in wanted}

    assert found(box.run(line, track_changes=True).changes) == wanted
    assert not box.run(line, track_changes=True).changes_truncated
    assert box.run(line).changes is None
    with box.Popen(line, track_changes=True) as p:
        p.wait()
    assert found(p.result.changes) == wanted
    with box.start() as cell:
        assert found(cell.changes()) == {}
        cell.run(line)
        assert found(cell.changes()) == wanted


def test_a_run_that_changes_more_than_a_list_holds_has_its_outcome(tmp_path):
    (tmp_path / "layer").mkdir()
    os.chmod(tmp_path, 0o755)
    shown = ["/usr", *(path for path in ("/bin", "/lib", "/lib64") if os.path.exists(path))]
    box = sandcell.Sandbox(layers=[tmp_path / "layer"], ro=shown)
    script = f"""
mkdir /d; cd /d
for d in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do mkdir {"n" * 240}; cd {"n" * 240}; done
i=0; while [ $i -lt 12000 ]; do : >$i; i=$((i+1)); done; exit 7"""
    result = box.run(["/bin/sh", "-c", script], track_changes=True)
    assert result.outcome.kind == "exited" and result.returncode == 7, result.stderr
    assert result.changes_truncated and result.report["changes_truncated"] and len(result.changes) > 5000


def test_a_learned_profile_runs_the_same_program_and_no_other(tmp_path):
    learned = sandcell.run(["/bin/echo", "hello"], learn=True, stdout=sandcell.DEVNULL).learned
    assert json.loads(learned)["syscalls"]
    profile = tmp_path / "profile.json"
    profile.write_text(learned)
    assert sandcell.run(["/bin/echo", "x"], seccomp=profile, capture_output=True).stdout == b"x\n"
    assert sandcell.run(["/bin/mkdir", "/tmp/a"], capture_output=True).returncode == 0
    assert sandcell.run(["/bin/mkdir", "/tmp/a"], seccomp=profile, capture_output=True).returncode != 0
    assert sandcell.run(["true"]).learned is None
    with sandcell.Sandbox().start() as cell, pytest.raises(sandcell.PolicyError, match="learn"):
        cell.run(["true"], learn=True)
