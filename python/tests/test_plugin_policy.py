"""Settings, marks and the fixture sandbox_policy: what a test's cell is, and that it is never a weaker one in silence."""

import json
import os
import socket
import subprocess
import sys

from plugin_runs import outcomes, project, run  # noqa: F401 (a fixture)


def test_marks_and_the_policy_fixture_reach_the_cell(project):
    where = project(
        conftest="""
import pytest
@pytest.fixture(scope="session")
def sandbox_policy(): return {"rlimit": {"nofile": 77}}
""",
        test_policy="""
import errno, resource, socket, time
import pytest
def test_fixture(sandbox_policy):
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 77 and sandbox_policy["rlimit"]
@pytest.mark.sandbox(network="none")
def test_none():
    with pytest.raises(OSError) as raised: socket.create_connection(("127.0.0.1", 1), timeout=1)
    assert raised.value.errno in (errno.ENETUNREACH, errno.EACCES)
def test_loopback():
    with pytest.raises(ConnectionRefusedError): socket.create_connection(("127.0.0.1", 1), timeout=1)
@pytest.mark.sandbox(timeout=0.5)
def test_short(): time.sleep(60)
@pytest.mark.sandbox(no_such_thing=1)
def test_wrong(): pass
@pytest.mark.sandbox(memory="x")
def test_wrong_value(): pass
""",
    )
    _, found, said = outcomes(where, "--sandbox=test")
    kinds = {name: kind for name, (kind, _) in found.items()}
    assert kinds == {
        "test_fixture": "passed", "test_none": "passed", "test_loopback": "passed", "test_short": "failure", "test_wrong": "error",
        "test_wrong_value": "error",
    }, said
    assert "no_such_thing" in found["test_wrong"][1] and "is not a size" in found["test_wrong_value"][1]


def test_hosts_that_tests_may_reach_are_settings_and_marks(project):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    where = project(
        test_hosts=f"""
import errno, socket
import pytest
def refused():
    with pytest.raises(OSError) as raised: socket.create_connection(("192.0.2.1", 443), timeout=5)
    return raised.value.errno
def test_by_the_setting(): assert refused() == errno.EHOSTUNREACH
def test_a_name_that_is_not_listed():
    with pytest.raises(socket.gaierror): socket.getaddrinfo("other.example", 443)
@pytest.mark.sandbox(network="loopback")
def test_a_mark_goes_over_it(): assert refused() == errno.ENETUNREACH
@pytest.mark.sandbox(host_ports=[{port}])
def test_a_port_of_the_host(): socket.create_connection(("host.containers.internal", {port}), timeout=5).close()
@pytest.mark.sandbox(allow_hosts=["a b"])
def test_no_name(): pass
""",
    )
    _, found, said = outcomes(where, "--sandbox=test", "-o", "sandbox_allow_hosts=listed.example")
    kinds = {name: kind for name, (kind, _) in found.items()}
    assert kinds.pop("test_no_name") == "error" and "not the name of a host" in found["test_no_name"][1], said
    assert set(kinds.values()) == {"passed"} and len(kinds) == 4, said
    _, found, said = outcomes(where, "--sandbox=test", "-k", "by_the_setting")
    assert found["test_by_the_setting"][0] == "failure", "without the setting the network is a loopback"
    listener.close()


def test_the_header_says_what_is_enforced_and_pdb_turns_it_off(project):
    where = project(test_a="def test_a(): pass\n")
    _, said = run(where, "--sandbox", status=0)
    assert "sandbox: a cell for each test; identity=" in said and "network=loopback by namespace" in said
    assert "off under --pdb" in run(where, "--sandbox", "--pdb", status=0)[1]
    assert "no sandboxes under --pdb" in run(where, "--sandbox", "--pdb", "--sandbox-require", status=4)[1]
    assert "sandbox" not in run(where, status=0)[1].split("plugins")[0]
    _, said = run(where, "--sandbox", "--sandbox-require", "-o", "sandbox_memory=1P", "-o", "sandbox_best_effort=memory")
    assert "not enforced here: memory" in said or "is not a size" in said, said


def test_a_cell_that_cannot_be_made_is_an_error_and_never_an_open_door(project):
    where = project(test_a="def test_a(): open('made', 'w')\n")
    _, said = run(where, "--sandbox", "-o", "sandbox_ro=/no/such/place", status=4)
    assert "/no/such/place" in said and not (where / "made").exists()


def test_roots_tests_read_nothing_that_only_root_may_and_what_a_test_writes_is_its_callers(project):
    where = project(
        test_files="""
import pytest
def test_secret(): assert open("secret").read() == "secret"
@pytest.mark.sandbox(keep_id=True)
def test_secret_of_the_callers(): assert open("secret").read() == "secret"
def test_source(tmp_path):
    assert open(__file__).read()
    (tmp_path / "made").write_text("x")
"""
    )
    secret = where / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    # A directory that others may not enter would be shown with all its files as the test's own.
    where.chmod(0o755)
    _, found, said = outcomes(where, "--sandbox=test", f"--basetemp={where / 'base'}")
    kinds = {name: kind for name, (kind, _) in found.items()}
    denied = "failure" if os.geteuid() == 0 else "passed"
    assert kinds == {"test_secret": denied, "test_secret_of_the_callers": "passed", "test_source": "passed"}, said
    assert denied == "passed" or "PermissionError" in found["test_secret"][1]
    # Beside it a link to the directory of the last one.
    made = where / "base" / "test_source0" / "made"
    assert made.stat().st_uid == os.geteuid()
    # The twin: without the sandbox the same test reads it.
    _, found, _ = outcomes(where, "--sandbox=off")
    assert found["test_secret"][0] == "passed"


def test_a_weaker_cell_of_one_test_is_an_error_where_nothing_may_be_weak(project):
    where = project(
        test_a="import pytest\n@pytest.mark.sandbox(keep_id=True)\ndef test_weak(): pass\ndef test_strong(): pass\n"
    )
    _, found, said = outcomes(where, "--sandbox=test", "--sandbox-require")
    assert found["test_strong"][0] == "passed", said
    if os.geteuid() == 0:
        assert found["test_weak"][0] == "error" and "not enforced here: identity" in found["test_weak"][1], said
    else:
        # Nobody else's tests can read what the caller cannot.
        assert found["test_weak"][0] == "passed", said


def test_settings_of_the_ini_file_hold(project):
    where = project(test_a="import os\ndef test_a(): assert os.getpid() < 100; open('out/made', 'w')\n")
    (where / "out").mkdir()
    (where / "pytest.ini").write_text("[pytest]\nsandbox = test\nsandbox_rw = out\n")
    run(where, status=0)
    assert (where / "out" / "made").exists()


def test_importing_the_plugin_is_light():
    code = "import sys, json; before = set(sys.modules); import sandcell.pytest_plugin; print(json.dumps(sorted(set(sys.modules) - before)))"
    imported = json.loads(subprocess.run([sys.executable, "-c", "import pytest\n" + code], capture_output=True, text=True).stdout)
    assert not {"asyncio", "sandcell._pytest_cells", "sandcell._pytest_child"} & set(imported), imported
