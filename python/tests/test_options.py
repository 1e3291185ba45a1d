"""Every option of the table, by text and by value: Python takes it as the library does. The cases are made by sandbox/tests/options."""

import json
import os
import warnings

import pytest

import sandcell
from sandcell import _native
from sandcell._options import Policy, checked

with open(os.path.join(os.path.dirname(__file__), "options.json"), encoding="utf-8") as file:
    CASES = json.load(file)

#: Sandbox and run name these themselves.
OWN = {"timeout", "env", "cwd"}


def made(keyword, value):
    """The options that differ from the defaults, or the error."""
    try:
        # Variables are a mapping in Python; the library reads them as text all the same.
        as_text = keyword == "env" and isinstance(value, list)
        values = {keyword: value} if as_text else checked({keyword: value})
        with sandcell._errors.translating():
            return {"options": dict(_native.options_of(values))}
    except sandcell.PolicyError as error:
        return {"subject": error.subject, "message": str(error).removeprefix(f"{error.subject}: "), "hint": error.hint}


def expected(case):
    wanted = dict(case["expected"])
    if wanted.get("subject") == case["name"]:
        wanted["subject"] = case["keyword"]
    return wanted


def test_every_text_is_what_it_is_in_the_library():
    assert len(CASES) > 200
    for case in CASES:
        value = [case["text"]] if case["repeats"] else case["text"]
        assert made(case["keyword"], value) == expected(case), case


def test_every_value_is_what_its_text_is():
    typed = [case for case in CASES if case["typed"] is not None]
    assert len({case["keyword"] for case in typed}) > 15
    for case in typed:
        assert made(case["keyword"], case["typed"]) == expected(case), case


def test_every_option_is_a_keyword_with_a_type():
    keywords = {case["keyword"] for case in CASES}
    assert keywords - OWN == Policy.__annotations__.keys() - {"chdir", "keep_caller"}


@pytest.mark.parametrize(
    "keyword, text, value",
    [
        ("ro", r"/a\:b:/c", ("/a:b", "/c")),
        ("ro", "/usr:/x", (b"/usr", b"/x")),
        ("tmpfs", "/x:64M", ("/x", "64m")),
        ("tmpfs", "/x:64M", ("/x", 64 << 20)),
        ("volumes", "data:/data:ro", ("data", "/data", "ro")),
        ("user", "7:8", (7, 8)),
        ("user", "7:7", 7),
    ],
)
def test_several_values_are_what_their_text_is(keyword, text, value):
    several = keyword not in ("user",)
    assert made(keyword, [text] if several else text) == made(keyword, [value] if several else value)


def test_mappings_are_what_their_texts_are():
    for keyword, texts, mapping in [
        ("rlimit", ["nofile=256:512"], {"nofile": (256, "512")}),
        ("rlimit", ["stack=unlimited"], {"stack": "unlimited"}),
        ("files", ["/x:755=#!"], {"/x": ("#!", 0o755)}),
        ("env", ["A=b"], {"A": "b"}),
        ("io_max", ["8:0,read_bytes=1M,write_ops=5"], {"8:0": {"read_bytes": "1M", "write_ops": 5}}),
    ]:
        assert "options" in made(keyword, texts)
        assert made(keyword, texts) == made(keyword, mapping)


def test_values_of_other_types_are_refused_with_the_keyword():
    for keyword, value in [
        ("memory", 1.5),
        ("memory", True),
        ("pids", -1),
        ("pids", 1 << 64),
        ("cpus", True),
        ("timeout", True),
        ("timeout", -1),
        ("grace", float("nan")),
        ("keep_env", 1),
        ("network", 7),
        ("root", True),
        ("ro", "/usr"),
        ("ro", [("/a", "/b", "/c")]),
        ("ro", [7.5]),
        ("volumes", [("data", "/data", "no")]),
        ("user", (1, 2, 3)),
        ("rlimit", "nofile=1"),
        ("rlimit", {"nofile": None}),
        ("io_max", {"8:0": 7}),
        ("env", "A=b"),
        ("hostname", b"box"),
        ("memory", object()),
    ]:
        assert made(keyword, value).get("subject") == keyword, (keyword, value, made(keyword, value))


def test_names_from_before_still_hold_and_say_what_is_said_now():
    for old, new, value in [("keep_caller", "keep_id", True), ("chdir", "cwd", "/usr")]:
        with pytest.warns(DeprecationWarning, match=new):
            assert checked({old: value}) == {new: value}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert checked({new: value}) == {new: value}
    with pytest.warns(DeprecationWarning), pytest.raises(sandcell.PolicyError, match="cwd"):
        sandcell.Sandbox(chdir="/usr", cwd="/")


def test_the_working_directory_of_a_policy_is_that_of_runs_that_say_none():
    box = sandcell.Sandbox(cwd="/usr")
    assert box.run(["pwd"], capture_output=True, text=True).stdout == "/usr\n"
    assert box.run(["pwd"], cwd="/", capture_output=True, text=True).stdout == "/\n"


def test_set_limits_has_every_limit_that_a_cell_can_change():
    assert {"memory", "memory_high", "swap", "pids", "cpus", "cpu_weight", "cpuset", "io_weight", "io_max"} == set(
        sandcell._options.Limits.__annotations__
    )
    with sandcell.Sandbox().start() as cell, pytest.raises(TypeError, match="disk"):
        cell.set_limits(disk=1 << 20)
