"""What a job says of its tests, whichever program ran them: counts, failures, skips and times."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

# Tests that this kind of machine need not be able to run. Every other test must have run for one of the users.
MAY_SKIP = (
    "controllers can be taken away on v2 only",
    "needs a systemd that the caller may ask",
    "no FUSE here",
)


@dataclass
class Result:
    passed: int = 0
    failed: int = 0
    # Each with the arguments of `tests/run only` that run it alone, and what it said.
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    # Test and reason.
    skips: list[tuple[str, str]] = field(default_factory=list)
    ran: set[str] = field(default_factory=set)
    seconds: list[tuple[float, str]] = field(default_factory=list)

    def fail(self, name: str, alone: str, said: str) -> None:
        self.failed += 1
        self.failures.append((name, alone, said))


def skip_reason(text: str) -> str | None:
    found = re.search(r"^SKIPPED: (.*)$", text, re.MULTILINE)
    return found[1] if found else None


def lines(job, log: Path, status: int) -> Result:
    """Lines `test result: … N passed; N failed; N ignored`, of libtest or of our own scripts. An ignored test is a
    failure, and so is a job without such a line, or with a bad status and nothing that failed."""
    text = log.read_text(errors="replace")
    found = re.findall(r"^test result: .*?(\d+) passed; (\d+) failed; (\d+) ignored", text, re.MULTILINE)
    # What a test prints may look the same: of a test binary only the last line counts.
    counts = [tuple(map(int, one)) for one in (found if job.many_lines else found[-1:])]
    result = Result(passed=sum(good for good, _, _ in counts))
    bad = sum(failed + ignored for _, failed, ignored in counts)
    if not counts or (status != 0 and bad == 0):
        bad = 1
    if bad:
        result.failed = bad
        names = re.findall(r"^test (.*) \.\.\. FAILED", text, re.MULTILINE)
        names += re.findall(r"^FAILED:? (.*)$", text, re.MULTILINE)
        names += re.findall(r"^(SKIPPED.*)$", text, re.MULTILINE) if any(ignored for _, _, ignored in counts) else []
        what = "; ".join(name[:200] for name in names[:10]) or f"status {status}"
        result.failures.append((f"{job.title}: {what}", job.alone, text[-20000:]))
    # pytest's --durations.
    slow = re.findall(r"^([\d.]+)s (?:call|setup|teardown) +(\S+)", text, re.MULTILINE)
    result.seconds = [(float(seconds), f"{job.title} {name}") for seconds, name in slow]
    # The sections of libtest's --show-output, else a line each.
    test = job.title
    for line in text.splitlines():
        if section := re.match(r"---- (.*) stdout ----$", line):
            test = f"{job.title} {section[1]}"
        elif line.startswith("SKIPPED"):
            result.skips.append((test, line.removeprefix("SKIPPED").lstrip(": ")))
        elif line.startswith("not run: "):
            result.skips.append((test, line))
        elif ok := re.match(r"test (\S+) \.\.\. ok$", line):
            result.ran.add(f"{job.title} {ok[1]}")
    return result


def status(job, log: Path, status: int) -> Result:
    """A script that is one test, by its exit status."""
    if status == 0:
        return Result(passed=1)
    return Result(failed=1, failures=[(job.title, job.alone, log.read_text(errors="replace")[-20000:])])


def junit(job, log: Path, status: int) -> Result:
    """nextest's report of every test."""
    result = Result()
    said = log.read_text(errors="replace")
    cases = ElementTree.parse(job.report).iter("testcase") if job.report.exists() else []
    for case in cases:
        binary, test = case.get("classname", ""), case.get("name", "")
        name = f"{binary} {test}"
        output = "".join(child.text or "" for child in case.iter() if child.tag.startswith("system-"))
        result.seconds.append((float(case.get("time", "0")), f"{job.who}: {name}"))
        bad = [child for child in case if child.tag in ("failure", "error", "skipped")]
        if bad:
            why = f"{bad[0].get('message', '')} {bad[0].get('type', '')}".strip()
            result.fail(name, f"{job.who} {binary} {test}", f"{why}\n{output or bad[0].text or ''}"[-20000:])
            continue
        result.passed += 1
        result.ran.add(name)
        if reason := skip_reason(output):
            result.skips.append((name, reason))
    if not result.passed and not result.failed or (status != 0 and not result.failed):
        result.fail(job.title, job.alone, said[-20000:])
    return result


def nobody_ran(results: list[Result]) -> list[tuple[str, str]]:
    """Tests that were skipped wherever they were run, with the reason."""
    skipped = {test: reason for result in results for test, reason in result.skips}
    really_ran: set[str] = set()
    for result in results:
        really_ran |= result.ran - {test for test, _ in result.skips}
    return [
        (test, reason)
        for test, reason in sorted(skipped.items())
        if test not in really_ran and " " in test and not reason.startswith("not run: ")
        and not any(allowed in reason for allowed in MAY_SKIP)
    ]
