"""Trees whose files belong to leased ids."""

import os
import shutil

import pytest

import sandcell


@pytest.fixture
def upper(tmp_path):
    """A kept upper with a file that a sandbox wrote."""
    layer = tmp_path / "layer"
    layer.mkdir()
    os.chmod(tmp_path, 0o755)
    shown = ["/usr", *(path for path in ("/bin", "/lib", "/lib64") if os.path.exists(path))]
    script = "umask 077; mkdir -p /made/deep; echo content >/made/deep/file; ln -s file /made/deep/link; mkfifo /made/pipe"
    upper = tmp_path / "upper"
    ran = sandcell.run(["/bin/sh", "-c", script], layers=[layer], upper=upper, ro=shown, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    yield upper / "upper"
    if upper.exists():
        sandcell.owned.remove(upper)


def test_a_tree_is_listed_with_kinds_modes_and_owners(upper):
    found = {entry.path: entry for entry in sandcell.owned.list(upper)}
    file = found["made/deep/file"]
    assert (file.kind, file.mode, file.size) == ("file", 0o600, 8)
    assert [found[path].kind for path in ("made", "made/deep/link", "made/pipe")] == ["directory", "symlink", "other"]
    assert list(found).index("made") < list(found).index("made/deep") < list(found).index("made/deep/file")


def test_what_is_copied_out_is_the_callers(upper, tmp_path):
    assert sandcell.owned.copy_out(upper / "made", tmp_path / "copy") == ["pipe"]
    assert (tmp_path / "copy/deep/file").read_text() == "content\n"
    assert os.readlink(tmp_path / "copy/deep/link") == "file"
    assert os.lstat(tmp_path / "copy/deep/file").st_uid == os.geteuid()
    with pytest.raises(sandcell.SandboxError, match="copy"):
        sandcell.owned.copy_out(upper / "made", tmp_path / "copy")


def test_a_reclaimed_tree_needs_none_of_this_any_more(upper):
    sandcell.owned.reclaim(upper)
    assert (upper / "made/deep/file").read_text() == "content\n"
    assert {entry.host_uid for entry in sandcell.owned.list(upper)} <= {os.geteuid()}
    shutil.rmtree(upper)


def test_a_tree_is_removed_and_one_that_is_none_is_an_error(upper):
    os.mkdir(upper / "shut", 0)
    sandcell.owned.remove(upper)
    assert not upper.exists()
    for call in (sandcell.owned.list, sandcell.owned.reclaim, sandcell.owned.remove):
        with pytest.raises(OSError, match="upper"):
            call(upper)
