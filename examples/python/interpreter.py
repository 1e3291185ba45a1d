"""A code interpreter: JSON lines in, JSON lines out, one session in a sandbox. For an agent's tool, or a web page.

    {"run": "x = 2\\nx + 1", "timeout": 5}      {"put": "a.csv", "data": "BASE64"}      {"get": "out.png"}
    {"files": true}                            {"reset": true}

Each line is answered by one line: what came of it, or {"failed": "why"}. Bytes are base64.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from typing import Any

import sandcell


def shown(result: sandcell.RunResult) -> dict[str, Any]:
    """The result as JSON. The value is left as text: JSON does not have all of them."""
    return {
        "stdout": result.stdout,
        "stderr": result.stderr,
        "truncated": result.stdout_truncated or result.stderr_truncated,
        "result": result.repr,
        "error": None if result.error is None else vars(result.error),
        "displays": [
            {kind: part if isinstance(part, str) else text(part) for kind, part in display.data.items()}
            for display in result.displays
        ],
        "ended": None if result.outcome is None else str(result.outcome),
        "fresh": result.fresh,
    }


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def answer(session: sandcell.Session, request: dict[str, Any]) -> dict[str, Any]:
    if "run" in request:
        try:
            return shown(session.run(request["run"], timeout=request.get("timeout")))
        except sandcell.SessionTimeout as expired:
            return {**shown(expired.run), "timed_out": True}
    if "put" in request:
        session.put(request["put"], base64.b64decode(request["data"], validate=True))
        return {"put": request["put"]}
    if "get" in request:
        return {"data": text(session.get(request["get"]))}
    if "files" in request:
        return {"files": session.files()}
    if "reset" in request:
        session.reset()
        return {"reset": True}
    raise ValueError("say run, put, get, files or reset")


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs Python code that comes as JSON lines, in one sandbox.")
    parser.add_argument("--memory", help="for example 512M")
    parser.add_argument("--timeout", default="30s", help="of each run")
    options = parser.parse_args()
    limits: dict[str, Any] = {"memory": options.memory} if options.memory else {}
    with sandcell.Session(timeout=options.timeout, network="none", **limits) as session:
        for line in sys.stdin:
            try:
                told = answer(session, json.loads(line))
            except (ValueError, TypeError, KeyError, OSError, sandcell.TaskError) as error:
                told = {"failed": f"{type(error).__name__}: {error}"}
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
