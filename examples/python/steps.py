"""A CI step runner: the steps of a file, one after another, each in a sandbox of its own.

    steps.py STEPS.json [--workspace .] [--logs logs] [--cache ~/.cache/steps]

    {"env": {"CI": "1"},
     "steps": [{"name": "test", "run": "make test", "timeout": "5m", "memory": "1G", "network": "none",
                "cache": ["pip:/home/cell/.cache/pip"], "allow_failure": false}]}

A step sees the workspace, which it may write, its own caches, and nothing else of the caller's. What it prints goes into
a log of its own, of at most 10 MB. The first step that fails ends the run. A TOML file of the same form works from Python
3.11 on.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import sys
import time
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

import sandcell

LOG = 10 << 20
#: Of a step that ran too long, as timeout(1) has it.
TIMED_OUT = 124


@dataclass
class Step:
    name: str
    run: str
    timeout: str = "10m"
    network: Literal["none", "loopback", "host"] = "none"
    memory: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    #: NAME:DIRECTORY: kept from run to run, shared by the steps that name it.
    cache: list[str] = field(default_factory=list)
    allow_failure: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w][\w .-]*", self.name):
            raise ValueError(f"{self.name!r} is no name of a step: it names the log too")
        for entry in self.cache:
            if not re.fullmatch(r"[\w][\w.-]*:/.+", entry):
                raise ValueError(f"step {self.name}: {entry!r} is no cache: write NAME:/DIRECTORY")


def read(file: pathlib.Path) -> list[Step]:
    """The steps of a file. Raises ValueError for what makes no sense, before anything runs."""
    if file.suffix == ".toml":
        told = import_module("tomllib").loads(file.read_text(encoding="utf-8"))
    else:
        told = json.loads(file.read_text(encoding="utf-8"))
    shared = told.get("env", {})
    steps = []
    for entry in told.get("steps", []):
        unknown = entry.keys() - Step.__dataclass_fields__.keys()
        if unknown:
            raise ValueError(f"step {entry.get('name')}: there is no {min(unknown)!r}")
        steps.append(Step(**{**entry, "env": {**shared, **entry.get("env", {})}}))
    if not steps:
        raise ValueError("there are no steps")
    return steps


def sandbox(step: Step, workspace: pathlib.Path, caches: pathlib.Path) -> sandcell.Sandbox:
    rw: list[Any] = [(workspace, "/workspace")]
    for entry in step.cache:
        name, _, place = entry.partition(":")
        (caches / name).mkdir(parents=True, exist_ok=True)
        rw.append((caches / name, place))
    options: sandcell.Policy = {
        "rw": rw,
        # What the steps write belongs to the caller.
        "keep_id": True,
        "chdir": "/workspace",
        "network": step.network,
        "output_limit": LOG,
    }
    if step.memory:
        options["memory"], options["swap"] = step.memory, 0
    return sandcell.Sandbox(timeout=step.timeout, env=step.env, **options)


def run(step: Step, box: sandcell.Sandbox, log: pathlib.Path) -> tuple[int, str]:
    """The status, and how it ended. The output goes to the log by a pipe: the step has no descriptor of the log's."""
    try:
        r = box.run(["/bin/sh", "-ec", step.run], stdout=sandcell.PIPE, stderr=sandcell.STDOUT)
    except sandcell.TimeoutExpired as expired:
        assert expired.result is not None
        log.write_bytes(expired.output or b"")
        return TIMED_OUT, f"timed out after {step.timeout}"
    log.write_bytes(r.stdout)
    status = r.returncode if r.returncode >= 0 else 128 - r.returncode
    return status, str(r.outcome)


def tail(log: pathlib.Path, lines: int = 10) -> str:
    """For a terminal: nothing that it acts on."""
    text = log.read_bytes()[-8192:].decode("utf-8", "replace").splitlines()[-lines:]
    return "\n".join("    " + "".join(c if c.isprintable() or c == "\t" else "?" for c in line) for line in text)


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs the steps of a file, each in a sandbox.")
    parser.add_argument("steps", type=pathlib.Path)
    parser.add_argument("--workspace", type=pathlib.Path, default=pathlib.Path("."))
    parser.add_argument("--logs", type=pathlib.Path, default=pathlib.Path("logs"))
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path("~/.cache/steps"))
    options = parser.parse_args()
    workspace, caches = options.workspace.resolve(), options.cache.expanduser().resolve()
    try:
        steps = read(options.steps)
        boxes = [sandbox(step, workspace, caches) for step in steps]
    except (ValueError, TypeError, OSError) as error:
        sys.exit(f"steps: {options.steps}: {error}")
    options.logs.mkdir(parents=True, exist_ok=True)
    for number, (step, box) in enumerate(zip(steps, boxes), 1):
        log = options.logs / f"{number:02}-{step.name.replace(' ', '-')}.log"
        began = time.monotonic()
        try:
            status, how = run(step, box, log)
        except sandcell.SandboxError as error:
            sys.exit(f"steps: {step.name}: {error}")
        mark = "ok" if status == 0 else "failed, allowed" if step.allow_failure else "FAILED"
        took = time.monotonic() - began
        print(f"[{number}/{len(steps)}] {step.name}: {mark} ({how}, {took:.1f} s)  {log}", flush=True)
        if status:
            print(tail(log), flush=True)
            if not step.allow_failure:
                sys.exit(status)


if __name__ == "__main__":
    main()
