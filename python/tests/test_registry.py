"""Images from a registry, and long work on images that is watched or ended."""

import hashlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import sandcell

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Registry(http.server.BaseHTTPRequestHandler):
    """Serves one OCI directory; what is asked for under /v2/silent/ is never answered."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.startswith("/v2/silent/"):
            self.server.asked.set()
            self.server.over.wait()
            return
        *_, kind, name = self.path.split("/")
        data = b"{}"
        if kind in ("manifests", "blobs"):
            digest = name if name.startswith("sha256:") else self.server.manifest
            data = (self.server.blobs / digest.removeprefix("sha256:")).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        if kind == "manifests":
            self.send_header("Content-Type", MANIFEST)
            self.send_header("Docker-Content-Digest", "sha256:" + hashlib.sha256(data).hexdigest())
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def registry(store, tmp_path):
    """The address of one on the loopback interface that has app:1; `asked` is set when the silent one was asked."""
    store.save("app:1", tmp_path / "oci", format="oci-dir")
    index = json.loads((tmp_path / "oci/index.json").read_text())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    server.blobs = tmp_path / "oci/blobs/sha256"
    server.manifest = index["manifests"][0]["digest"]
    server.asked, server.over = threading.Event(), threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def address(server):
    return f"127.0.0.1:{server.server_port}"


def test_an_image_is_pulled_and_run_and_its_progress_told(registry, tmp_path):
    store = sandcell.Store(tmp_path / "pulled")
    told = []
    image = store.pull(
        f"{address(registry)}/team/app:1", name="mine", plain_http=True, progress=lambda *bytes: told.append(bytes)
    )
    assert store.inspect("mine")["Id"] in image
    assert told and told[-1][0] == told[-1][1] > 0
    ran = sandcell.run(["/bin/sh", "-c", "echo ran"], image="mine", store=store.path, capture_output=True)
    assert ran.stdout == b"ran\n"
    again = []
    assert store.pull(f"{address(registry)}/team/app:1", plain_http=True, progress=again.append) == image
    assert again == []
    store.remove("mine")


def test_a_pull_that_cannot_be_says_why(registry, tmp_path):
    store = sandcell.Store(tmp_path / "pulled")
    with pytest.raises(sandcell.PolicyError):
        store.pull("a b")
    with pytest.raises(sandcell.PolicyError, match="auth_file"):
        store.pull("app", auth_file=7)
    with pytest.raises(sandcell.PolicyError, match="credentials"):
        store.pull("app", credentials="me")
    digest = "sha256:" + "0" * 64
    registry.blobs.joinpath(digest.removeprefix("sha256:")).write_bytes(b"{}")
    with pytest.raises(sandcell.SetupError):
        store.pull(f"{address(registry)}/app@{digest}", plain_http=True)
    assert store.images() == []


def test_a_callback_that_raises_ends_the_work_and_leaves_the_store_as_it_was(registry, tmp_path):
    def refuse(*_):
        raise LookupError("enough")

    store = sandcell.Store(tmp_path / "pulled")
    with pytest.raises(LookupError, match="enough"):
        store.pull(f"{address(registry)}/app:1", plain_http=True, progress=refuse)
    with pytest.raises(LookupError, match="enough"):
        store.load(tmp_path / "oci", progress=refuse)
    assert store.images() == []
    assert store.load(tmp_path / "oci")


INTERRUPTED = """
import sandcell, sys, time
store = sandcell.Store(sys.argv[1])
print("ready", flush=True)
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def interrupted(store, call, begun):
    """Runs it in a Python of its own, and interrupts that when `begun` is over."""
    words = [sys.executable, "-c", INTERRUPTED.format(call=call), store.path]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as python:
        assert python.stdout.readline() == "ready\n"
        begun()
        python.send_signal(signal.SIGINT)
        assert python.stdout.readline() == "interrupted\n"
    return python.returncode


def test_an_interrupt_ends_a_load_and_leaves_the_store_as_it_was(store, tmp_path):
    root = tmp_path / "large"
    root.mkdir()
    for number in range(8):
        (root / str(number)).write_bytes(os.urandom(1 << 20) * 16)
    begun = tmp_path / "begun"
    call = f"store.load({str(root)!r}, name='large', format='rootfs', progress=lambda *_: open({str(begun)!r}, 'w').close())"

    def some_bytes():
        while not begun.exists():
            time.sleep(0.001)

    assert interrupted(store, call, some_bytes) == 0
    assert [image["Names"] for image in store.images()] == [["app:1"]]
    # What it had no time to remove before its process was gone, the next one does.
    store.load(tmp_path / "root", name="app:1", format="rootfs")
    assert os.listdir(os.path.join(store.path, "tmp")) == []


def test_an_interrupt_ends_a_pull_from_a_server_that_is_silent(registry, store):
    call = f"store.pull('{address(registry)}/silent/app:1', plain_http=True)"
    assert interrupted(store, call, lambda: registry.asked.wait(60)) == 0


def test_an_interrupt_ends_a_build_and_the_program_of_its_step(store, tmp_path):
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM app:1\nRUN echo begun && /bin/sh -c 'while :; do :; done'\n")
    step = context / "step"
    call = (
        f"store.build({str(context)!r}, network='none',"
        f" progress=lambda number, *_: number == 2 and open({str(step)!r}, 'w').close())"
    )

    def begun():
        while not step.exists():
            time.sleep(0.01)

    assert interrupted(store, call, begun) == 0
    assert [image["Names"] for image in store.images()] == [["app:1"]]
