"""Ports that are published on the host, and those of the host that are shown inside."""

import socket
import time

import pytest
import sandcell

SERVER = """
import socket
listener = socket.create_server(("0.0.0.0", 8000))
while True:
    one, peer = listener.accept()
    one.sendall(peer[0].encode())
    one.close()
"""


def said(port):
    """What a server says; it may only be starting."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            with socket.create_connection((port.address, port.host_port), 5) as one:
                if told := one.recv(100):
                    return told.decode()
        except OSError:
            time.sleep(0.01)
    raise AssertionError("nobody answers")


@pytest.mark.parametrize("publish", [{0: 8000}, ["0:8000"], [("127.0.0.1:0", 8000)]])
def test_a_published_port_is_told_while_the_program_runs(publish):
    with sandcell.Popen(["python3", "-c", SERVER], publish=publish) as server:
        (port,) = server.published
        assert (port.address, port.cell_port, port.protocol) == ("127.0.0.1", 8000, "tcp") and port.host_port
        assert said(port) == "169.254.1.2"
        server.kill()
    (counted,) = server.result.network.published
    assert counted.host_port == port.host_port and counted.connections >= 1 and counted.bytes_sent >= 11


def test_a_cell_tells_its_ports_and_one_that_is_taken_is_an_error():
    with sandcell.Sandbox(publish={0: 8000}).start() as cell:
        (port,) = cell.published
        with pytest.raises(sandcell.SetupError) as raised:
            sandcell.run(["true"], publish={port.host_port: 80})
        assert "cannot listen" in str(raised.value)
    assert sandcell.run(["true"], publish={port.host_port: 80}).returncode == 0, "the twin"


@pytest.mark.parametrize("wrong", [{"a": 80}, {80: 0}, {80: 65536}, ["80"], {-1: 80}])
def test_what_is_no_port_is_an_error_before_anything_runs(wrong):
    with pytest.raises(sandcell.PolicyError):
        sandcell.Sandbox(publish=wrong)


def test_a_port_of_the_host_is_reached_by_its_name():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        reach = f"import socket; socket.create_connection(('host.containers.internal', {port}), 5)"
        assert sandcell.run(["python3", "-c", reach], host_ports=[port]).returncode == 0
        assert sandcell.run(["python3", "-c", reach], host_ports=[port, "53/udp"]).returncode == 0
        assert sandcell.run(["python3", "-c", reach], capture_output=True).returncode != 0
