"""tests/run, once the machine is set up: which jobs a tier has, and what is told of them. See CONTRIBUTING.md."""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import jobs  # noqa: E402
import others  # noqa: E402
import results  # noqa: E402
import rust  # noqa: E402
from jobs import Job  # noqa: E402

TOP = Path(__file__).resolve().parents[2]


def quick(build: rust.Build) -> list[Job]:
    """As the caller, what is over within seconds."""
    return [*others.checks(build), *others.quick_tests(build)]


def ci(build: rust.Build) -> list[Job]:
    return [*others.checks(build), *others.steps(build), *rust.test_jobs(build), *others.beside(build)]


def everything(build: rust.Build) -> list[Job]:
    return [*ci(build), *others.long(build)]


TIERS = {"quick": quick, "ci": ci, "all": everything}


def only(build: rust.Build, who: str, name: str, test: str | None) -> list[Job]:
    """One job by its name, or one test of a binary; with what it needs."""
    known = everything(build)
    by_key = {job.key: job for job in known}
    return with_needs([by_key.get(f"{who}/{name}") or rust.one(build, who, name, test)], known)


def with_needs(wanted: list[Job], known: list[Job]) -> list[Job]:
    """These jobs and those that they need, in the order of the tier."""
    by_key = {job.key: job for job in known}
    keys, open_ends = set[str](), list(wanted)
    while open_ends:
        job = open_ends.pop()
        if job.key not in keys:
            keys.add(job.key)
            open_ends += [by_key[need] for need in job.after if need in by_key]
    return [job for job in known if job.key in keys] + [job for job in wanted if job.key not in by_key]


def shard(known: list[Job], text: str) -> list[Job]:
    """`2/3`: the second third of a tier, for machines that share it. What both users run stays together, since a test
    that nobody could run is a failure."""
    number, count = map(int, text.split("/"))
    needed = {need for job in known for need in job.after}
    names = list(dict.fromkeys(job.name for job in known if job.key not in needed))
    mine = set(names[number - 1 :: count])
    return with_needs([job for job in known if job.name in mine], known)


def tell(job: Job) -> None:
    """A line for each job; of what failed, all that it said."""
    result = job.result
    counts = f"{result.passed:4d} passed, {result.failed} failed" if job.read or result.failed else "done"
    print(f"{job.who:13} {job.name:20} {counts:26} {job.wall:6.0f} s, {job.cpu:5.0f} s of processor time", flush=True)
    for name, alone, said in result.failures:
        print(f"\nFAILED: {job.who}: {name}\n{said.rstrip()}\nalone: tests/run only {alone}\n", flush=True)


def close(done: list[Job], one_user: bool) -> bool:
    """What was skipped, what took longest, and the last line."""
    started = [job.result for job in done]
    passed, failed = sum(result.passed for result in started), sum(result.failed for result in started)
    skips = sorted({(test, reason, job.who) for job in done for test, reason in job.result.skips})
    if skips:
        print("\n== skipped")
    for test, reason, who in skips:
        print(f"{who}: {test}: {reason}")
    for test, reason in [] if one_user else results.nobody_ran(started):
        print(f"FAILED: nobody could run {test}: {reason}")
        passed, failed = passed - 1, failed + 1

    print("\n== the slowest ten")
    times = [(job.wall, f"{job.key} (all of it)") for job in done if not job.report]
    times += [one for job in done for one in job.result.seconds]
    for seconds, name in sorted(times, reverse=True)[:10]:
        print(f"{seconds:7.1f} s  {name}")
    again = [(name, alone) for result in started for name, alone, _ in result.failures]
    if again:
        print("\n== failed; alone:")
    for name, alone in again:
        print(f"tests/run only {alone}")
    print(f"\n{passed} passed, {failed} failed")
    return failed == 0 and passed > 0


def main(arguments: list[str]) -> int:
    tier, rest = (arguments[0], arguments[1:]) if arguments else ("ci", [])
    target = Path(os.environ.get("CARGO_TARGET_DIR") or TOP / "target").resolve()
    os.environ["CARGO_TARGET_DIR"] = str(target)
    scratch = Path(tempfile.mkdtemp(prefix="sandcell-tests.", dir="/var/tmp"))
    scratch.chmod(0o755)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    try:
        build = rust.Build(TOP, target, scratch)
        (scratch / "logs").mkdir()
        print("== build", flush=True)
        build.build()
        if tier == "only":
            chosen = only(build, rest[0], rest[1], rest[2] if len(rest) > 2 else None)
        else:
            chosen = TIERS[tier](build)
        if tier != "only" and (part := os.environ.get("SANDCELL_SHARD")):
            chosen = shard(chosen, part)
        print(f"== {len(chosen)} jobs", flush=True)
        jobs.run(chosen, os.cpu_count() or 2, scratch / "logs", tell)
        return 0 if close(chosen, tier in ("quick", "only")) else 1
    finally:
        jobs.end_all()
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
