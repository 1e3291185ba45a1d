"""What differs on an older kernel (6.1) with cgroup v2 only: limits above all. See tests/vm/run."""

import platform
import re
import shlex
from pathlib import Path

import results
from jobs import Job

# Test binaries, with the part of them that is run, and by whom.
SAMPLE = (("root", "sandcell", "cgroup::"), ("user", "sandcell", "cgroup::"), ("user", "sandcell::identity", ""))
REST = tuple((who, f"sandcell::{name}", "") for name in ("cells", "running", "root") for who in ("root", "user")) + (
    ("root", "sandcell::identity", ""),
)
# What behaves badly takes its time under emulation: once. Without two: under the limit the emulator reads the programs'
# own pages from the host over and over, and it cannot keep up with 3,000 timers.
OUTCOMES = "--skip memory_counts_however_it_is_taken --skip a_storm_of_timers"


def command(build, who: str, identity: str, arguments: str, directory: str = "/tmp") -> list[str]:
    binary = next((binary for binary in build.binaries if binary.id == identity), None)
    if binary is None:
        raise SystemExit(f"tests/run: there is no test binary {identity} for the second kernel")
    words = f"cd {shlex.quote(binary.directory)} && TMPDIR={directory} {shlex.quote(binary.path)} {arguments}"
    return [f"--{who}", f"{words} --color never --test-threads 1"]


def machine(build, name: str, parts: list[list[str]]) -> Job:
    words = [str(build.top / "tests/vm/run"), "--timeout", "1500", *(word for part in parts for word in part)]
    return Job("vm", name, words, ("build/probe",), timeout=1600, read=reader(len(parts)))


def reader(expected: int):
    """Each command has one result: the last line before the next command, since a test that runs itself again prints one
    of its own."""

    def read(job: Job, log: Path, status: int) -> results.Result:
        text = log.read_text(errors="replace").replace("\r", "")
        # The machine says of each when it began, and when all was over.
        parts = re.split(r"^(?=== [\d.]+ s, )", text, flags=re.MULTILINE)
        result = results.Result()
        for part in parts[1:]:
            found = re.findall(r"^test result: .*?(\d+) passed; (\d+) failed; (\d+) ignored", part, re.MULTILINE)
            if found:
                good, failed, ignored = map(int, found[-1])
                result.passed, result.failed = result.passed + good, result.failed + failed + ignored
                expected_left[0] -= 1
        names = re.findall(r"^test (.*) \.\.\. FAILED", text, re.MULTILINE)
        if status != 0 or expected_left[0] or result.failed:
            result.failed = max(result.failed, 1)
            what = ", ".join(names) or f"status {status}, {expected_left[0]} commands without a result"
            result.failures.append((f"{job.name}: {what}", job.alone, text[-30000:]))
        return result

    expected_left = [expected]
    return read


def jobs(build) -> list[Job]:
    """The sample of every change, one boot; and the table of docs/limits.md."""
    parts = [command(build, who, binary, part, "/var/tmp") for who, binary, part in SAMPLE]
    scopes = [command(build, who, "sandcell::systemd", "") for who in ("session", "system")]
    return [machine(build, "second kernel", parts + scopes), table(build)]


def long(build) -> list[Job]:
    parts = [command(build, who, binary, part, "/var/tmp") for who, binary, part in REST]
    rest = machine(build, "second kernel, the rest", [*parts, command(build, "user", "sandcell::outcomes", OUTCOMES)])
    return [rest, *other_architecture(build)]


# The commands of `tests/vm/aarch64 tests`.
OTHER_COMMANDS = 23


def other_architecture(build) -> list[Job]:
    """Cross-built and run in an emulated machine. Nothing that a machine of another kind could do."""
    if platform.machine() != "x86_64":
        return []
    words = [str(build.top / "tests/vm/aarch64"), "tests"]
    return [Job("vm", "aarch64", words, timeout=3 * 3600, read=reader(OTHER_COMMANDS))]


def table(build) -> Job:
    library = next(binary for binary in build.binaries if binary.id == "sandcell")
    words = [str(build.top / "tests/vm/limits-table"), library.path, "--check"]
    return Job("vm", "limits table", words, ("build/probe",), timeout=900, read=results.status)
