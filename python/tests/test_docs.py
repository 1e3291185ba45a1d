"""What README and docs/python.md show is a program: the parts in Python, run from top to bottom, each page in a directory
that has what its text speaks of.

Not run: the `pull` (a registry of the world's) and the tasks of an Executor in python-engines.md (engines, clusters).
"""

import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = next((path for path in (f"{HERE}/..", f"{HERE}/../..") if os.path.exists(f"{path}/README.md")), None)

#: What a page takes as given.
GIVEN = """
import asyncio, dataclasses, enum, os, pathlib, sandcell, sys
PACKAGES = [entry for entry in sys.path if os.path.isdir(os.path.join(entry, "joblib"))]
@dataclasses.dataclass
class Point:
    x: int
class Colour(enum.Enum):
    RED = 1
def work(n):
    return n
box = sandcell.Sandbox()
profile = pathlib.Path("profile.json")
"""


def parts(page):
    with open(os.path.join(ROOT, page), encoding="utf-8") as file:
        found = re.findall(r"^```python\n(.*?)^```", file.read(), re.DOTALL | re.MULTILINE)
    assert found, page
    return found


def runs(code, directory):
    file = directory / "page.py"
    file.write_text(code, encoding="utf-8")
    told = subprocess.run([sys.executable, file], cwd=directory, capture_output=True, text=True, timeout=100)
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_what_the_readme_shows_in_python_is_a_program(tmp_path):
    (code,) = parts("README.md")
    # There is no Makefile in the root of a sandbox.
    assert code.count('["make", "test"]') == 1
    told = runs(code.replace('["make", "test"]', '["true"]'), tmp_path)
    assert re.fullmatch(r"\d+\n exited\n", told)


def test_what_the_python_page_shows_is_a_program(tmp_path, store):
    (tmp_path / "Dockerfile").write_text("FROM app:1\nRUN echo made >/made\n")
    code = "\n".join(parts("docs/python.md"))
    for shown, given in (
        ('sandcell.run(["app"], files', 'sandcell.run(["true"], best_effort=["all"], files'),
        ('["make", "test"]', '["true"]'),
        ('["make"]', '["true"]'),
        ("store = sandcell.Store()", f"store = sandcell.Store({store.path!r})"),
        ('store.pull("debian:12", progress=lambda done, total: print(done, total))', "pass"),
        ('sandcell.run(["id"], image="app:1", upper="changed")',
         f'sandcell.run(["/bin/sh", "-c", "echo >/new"], image="app:1", store={store.path!r}, upper="changed")'),
        # The page's trees are one: what the run of the image changed.
        ('owned.list("upper")', 'owned.list("changed")'),
        ('owned.copy_out("upper/upper"', 'owned.copy_out("changed/upper"'),
        ('owned.remove("upper")', 'owned.remove("changed")'),
        ("pool.map(work, inputs)", "pool.map(abs, [-1, 2])"),
        ('memory="512M", ', ""),
        ("n_jobs=4, ", "n_jobs=2, path=PACKAGES, "),
        ('memory="64M", pids=32, ', 'memory="64M", pids=32, best_effort=["memory", "pids", "swap"], '),
    ):
        assert shown in code, f"{shown!r} is no longer in docs/python.md"
        code = code.replace(shown, given)
    lines = code.split("\n")
    # What is awaited, in a function that can.
    first = next(number for number, line in enumerate(lines) if "await" in line)
    last = max(number for number, line in enumerate(lines) if "await" in line)
    lines[first : last + 1] = ["async def main():"] + ["    " + line for line in lines[first : last + 1]] + [
        "    p.stdin.close(); await p.wait()", "asyncio.run(main())"
    ]
    runs(GIVEN + "\n".join(lines), tmp_path)
    assert not os.path.exists(tmp_path / "changed") and os.path.exists(tmp_path / "copy")
    # `app:2` is what the page committed.
    assert any("app:2" in image["Names"] for image in store.images())
