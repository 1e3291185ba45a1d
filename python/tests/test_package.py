"""What is installed: the import, the program, the examples."""

import html.parser
import os
import re
import shutil
import subprocess
import sys

import pytest

import sandcell

HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLES = next(
    path
    for path in (os.path.join(HERE, "../examples"), os.path.join(HERE, "../../examples/python"))
    if os.path.isdir(path)
)


def python(*words, **keywords):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, **keywords)


def program():
    found = shutil.which("sandcell") or shutil.which("sandcell", path=os.path.dirname(sys.executable))
    assert found, "the wheel's program is not on PATH"
    return found


def test_the_import_says_nothing_and_starts_nothing():
    code = "import sys, threading, sandcell; print(threading.active_count(), 'asyncio' in sys.modules)"
    told = python("-X", "dev", "-c", code)
    assert (told.stdout, told.stderr) == ("1 False\n", "")


def test_another_system_is_told_so_at_once():
    told = python("-c", "import sys; sys.platform = 'darwin'; import sandcell")
    assert told.returncode == 1
    assert told.stderr.splitlines()[-1].startswith("ImportError: sandcell needs Linux")


def test_every_public_name_is_there_and_says_what_it_is():
    for name in sandcell.__all__:
        thing = getattr(sandcell, name)
        assert not callable(thing) or thing.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sandcell.nothing  # noqa: B018


def test_the_program_comes_along():
    told = subprocess.run([program(), "run", "--", "sh", "-c", "exit 3"])
    assert told.returncode == 3
    assert subprocess.run([program(), "--version"], capture_output=True, text=True).stdout == (
        f"sandcell {sandcell.__version__}\n"
    )


def privileged(paths):
    """Those that give rights to whoever executes them."""
    return [path for path in paths if os.stat(path).st_mode & 0o6000 or "security.capability" in os.listxattr(path)]


def test_nothing_that_is_installed_gives_rights_to_whoever_executes_it(tmp_path):
    package = os.path.dirname(sandcell.__file__)
    files = [os.path.join(place, name) for place, _, names in os.walk(package) for name in names]
    assert len(files) > 3 and privileged([*files, program()]) == []
    twin = tmp_path / "program"
    twin.touch()
    twin.chmod(0o2755)
    assert privileged([twin]) == [twin]


def test_the_doctor_tells_what_works():
    told = python("-m", "sandcell", "doctor")
    assert told.returncode == 0 and "sandbox" in told.stdout, told.stdout + told.stderr
    assert {finding.name: finding.ok for finding in sandcell.doctor()}["sandbox"]
    assert python("-m", "sandcell", "cure").returncode not in (0, 1)


def test_the_keywords_are_the_programs_options():
    shown = subprocess.run([program(), "run", "--help"], capture_output=True, text=True).stdout
    options = {name.replace("-", "_") for name in re.findall(r"^ +(?:-\w, )?--([a-z-]+)", shown, re.MULTILINE)}
    keywords = set(sandcell.Policy.__annotations__) | {"timeout", "env"}
    # A file of variables and one for the report are a shell's ways; `layer`, `volume` and `file` are repeated there, and
    # lists or mappings here, as rules are; an entry point is what `image_argv` makes of it. A terminal is Popen's.
    repeated = {"layer", "volume", "file", "allow_host", "deny_host", "allow_net", "deny_net", "host_port", "device", "socket"}
    shells = {"env_file", "report", "help", "entrypoint", "interactive", "tty", "trace", "gpu", "cdi_dir"}
    missing = options - keywords - repeated - shells
    assert not missing
    assert "layers" in keywords


def test_what_comes_of_a_run_is_shown_in_notebooks():
    class Tags(html.parser.HTMLParser):
        depth = 0

        def handle_starttag(self, tag, attributes):
            assert tag in ("table", "tr", "th", "td", "span", "pre")
            self.depth += 1

        def handle_endtag(self, tag):
            self.depth -= 1

    r = sandcell.run(["sh", "-c", "echo '<script>'; exit 3"], capture_output=True)
    text = r._repr_html_()
    tags = Tags()
    tags.feed(text)
    assert tags.depth == 0
    assert "&lt;script&gt;" in text and "exited 3" in text and "identity" in text
    assert "crimson" in r.outcome._repr_html_() and "wall_seconds" in r.usage._repr_html_()


def test_the_steps_of_a_run_can_be_read_without_running_it():
    steps = sandcell.Sandbox(ro=[("/etc/passwd", "/data")]).explain()
    assert "/data" in [step.subject for step in steps]
    assert all(step.name and step.words for step in steps)


@pytest.mark.parametrize(
    "example, wanted",
    [
        ("snippet.py", "a good one: exited 0"),
        ("grade.py 10", "right"),
        ("notebook.py report.html", "report.html: exited 3"),
        ("numpy_job.py", "the job exited 0"),
        ("dask_cluster.py", "and the next one: 6"),
    ],
)
def test_the_examples_run(example, wanted, tmp_path):
    name, *words = example.split()
    told = python(os.path.join(EXAMPLES, name), *words, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert wanted in told.stdout
