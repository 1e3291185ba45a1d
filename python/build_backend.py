"""maturin, and the program `sandcell` beside the extension module: it goes into the wheel as a script.

A program of Rust and not an entry point of Python, which would take longer to start than the sandbox.
"""

import json
import pathlib
import shutil
import subprocess
from typing import Any

import maturin
from maturin import *  # noqa: F403 (the other hooks as they are)

HERE = pathlib.Path(__file__).parent
SCRIPTS = HERE / "sandcell.data" / "scripts"
# maturin wants to see it, whatever is to be built.
SCRIPTS.mkdir(parents=True, exist_ok=True)


def _build_program() -> None:
    build = ["cargo", "build", "--release", "--package", "sandcell", "--features", "cli", "--bin", "sandcell"]
    told = subprocess.run(
        [*build, "--message-format", "json-render-diagnostics"], cwd=HERE, check=True, stdout=subprocess.PIPE
    )
    messages = map(json.loads, told.stdout.splitlines())
    (program,) = [message["executable"] for message in messages if message.get("executable")]
    shutil.copy2(program, SCRIPTS / "sandcell")


def build_wheel(*args: Any, **keywords: Any) -> str:
    _build_program()
    return maturin.build_wheel(*args, **keywords)


def build_editable(*args: Any, **keywords: Any) -> str:
    _build_program()
    return maturin.build_editable(*args, **keywords)
