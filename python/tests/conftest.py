"""What several files of tests need."""

import gc
import shutil

import pytest

import sandcell

BUSYBOX = shutil.which("busybox") or "/bin/busybox"


@pytest.fixture
def store(tmp_path):
    """A store with an image of busybox, app:1."""
    # Runs of many ids want all of the caller's: sandboxes that earlier tests only forgot must be gone.
    gc.collect()
    store = sandcell.Store(tmp_path / "store")
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "etc").mkdir()
    shutil.copy(BUSYBOX, root / "bin" / "sh")
    (root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    assert store.load(root, name="app:1", format="rootfs") == ["app:1"]
    yield store
    # What runs of many ids may have left is not shutil's to remove.
    for image in store.images():
        for name in image["Names"] or [image["Id"]]:
            store.remove(name)

