"""The kernel provisioner: notebooks' kernels in sandboxes, driven by jupyter_client as a server does it."""

import json
import os
import pathlib
import socket
import sys
import time
from importlib.metadata import entry_points

import pytest

client = pytest.importorskip("jupyter_client", reason="jupyter_client is not installed: nothing of Jupyter is tested")
pytest.importorskip("ipykernel", reason="ipykernel is not installed: nothing of Jupyter is tested")

import sandcell  # noqa: E402

#: Where this Python has them, if not among its own packages.
PACKAGES = [entry for entry in sys.path if any(os.path.isdir(f"{entry}/{name}") for name in ("ipykernel", "zmq"))]
GROUP, NAME = "jupyter_client.kernel_provisioners", "sandcell-provisioner"


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    """A function that makes a manager of kernels with this configuration."""
    if not entry_points(group=GROUP, name=NAME):  # in a checkout, where nothing is installed
        about = tmp_path / "packages" / "here-1.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: here\nVersion: 1\n")
        (about / "entry_points.txt").write_text(f"[{GROUP}]\n{NAME} = sandcell.jupyter:Provisioner\n")
        monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    from jupyter_client.provisioning import KernelProvisionerFactory

    KernelProvisionerFactory.clear_instance()
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "secret")
    made = []

    def manager(**config):
        config["ro"] = PACKAGES
        config["env"] = {"PYTHONPATH": os.pathsep.join(PACKAGES), **config.get("env", {})}
        kernel = tmp_path / "kernels" / "boxed"
        kernel.mkdir(parents=True, exist_ok=True)
        (kernel / "kernel.json").write_text(
            json.dumps(
                {
                    "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                    "display_name": "boxed",
                    "language": "python",
                    "env": {"NAMED": "here"},
                    "metadata": {"kernel_provisioner": {"provisioner_name": NAME, "config": config}},
                }
            )
        )
        specs = client.kernelspec.KernelSpecManager(kernel_dirs=[str(tmp_path / "kernels")])
        made.append(client.KernelManager(kernel_name="boxed", kernel_spec_manager=specs))
        return made[-1]

    yield manager
    for one in made:
        if one.has_kernel:
            one.shutdown_kernel(now=True)
    KernelProvisionerFactory.clear_instance()


def opened(manager):
    talk = manager.client()
    talk.start_channels()
    talk.wait_for_ready(timeout=120)
    return talk


def run(talk, code):
    """The value's text, or the error's name."""
    told = []

    def hook(message):
        content = message["content"]
        if message["msg_type"] == "execute_result":
            told.append(content["data"]["text/plain"])
        elif message["msg_type"] == "error":
            told.append(content["ename"])

    talk.execute_interactive(code, output_hook=hook, timeout=120)
    return told[-1] if told else None


def test_a_kernel_runs_in_a_sandbox_is_interrupted_restarted_and_leaves_nothing(kernels, tmp_path):
    manager = kernels(network="none")
    manager.start_kernel()
    process = manager.provisioner.process
    assert isinstance(process, sandcell.Popen)
    talk = opened(manager)
    try:
        assert run(talk, "x = 6 * 7; x") == "42"
        # A sandbox: no file, no variable and no process of the server's.
        (tmp_path / "of-the-server").write_text("here")
        assert run(talk, f"import os; os.path.exists({str(tmp_path / 'of-the-server')!r})") == "False"
        assert run(talk, "os.environ.get('SECRET_OF_THE_SERVER'), os.environ['NAMED']") == "(None, 'here')"
        assert run(talk, f"os.getpid() == {process.pid}") == "False"
        # An interrupt.
        request = talk.execute("import time\nprint('began', flush=True)\ntime.sleep(1000)")
        while talk.get_iopub_msg(timeout=120)["msg_type"] != "stream":
            pass
        manager.interrupt_kernel()
        reply = talk.get_shell_msg(timeout=120)
        assert reply["parent_header"]["msg_id"] == request and reply["content"]["ename"] == "KeyboardInterrupt"
        assert run(talk, "x") == "42"
        # A restart.
        manager.restart_kernel(now=True)
        assert process.outcome.kind == "killed"
        talk.wait_for_ready(timeout=120)
        assert run(talk, "x") == "NameError"
    finally:
        talk.stop_channels()
    process = manager.provisioner.process
    manager.shutdown_kernel()
    assert process.poll() is not None
    assert [path for path in tmp_path.iterdir() if path.name.startswith("sandcell-")] == []


def test_a_kernel_that_ends_at_once_is_an_error_and_leaves_nothing(kernels, tmp_path):
    manager = kernels(env={"PYTHONHOME": "/nowhere"})
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="ended before it had its sockets: exited 1"):
        manager.start_kernel()
    assert time.monotonic() - began < 120
    manager.cleanup_resources()
    assert [path for path in tmp_path.iterdir() if path.name.startswith("sandcell-")] == []


def test_a_link_where_a_socket_should_be_is_never_followed(tmp_path):
    from sandcell.jupyter import Provisioner

    made = Provisioner()
    made._private, made._shared = str(tmp_path), str(tmp_path / "shared")
    os.mkdir(made._shared)
    with socket.socket(socket.AF_UNIX) as true:
        true.bind(f"{made._shared}/k-1")
        os.symlink(f"{made._shared}/k-1", f"{made._shared}/k-2")
        pathlib.Path(f"{made._shared}/k-3").write_text("no socket")
        assert made._link(1) and not made._link(4)
        for port in (2, 3):
            with pytest.raises(RuntimeError, match="something else"):
                made._link(port)
            assert not os.path.lexists(tmp_path / f"k-{port}")


def test_options_that_the_provisioner_needs_itself_are_refused():
    from sandcell.jupyter import Provisioner

    with pytest.raises(sandcell.PolicyError, match="keep_id"):
        Provisioner(keep_id=False)
