"""What is not a Rust test binary: checks of the sources, steps that prepare, and the scripts beside."""

import os

import results
import rust
import vm
from jobs import Job
from rust import HARNESS, become, caller, users


def checks(build: rust.Build) -> list[Job]:
    """Needs nothing but the sources and cargo. The lints use what the build has, so they do not begin together."""
    top = build.top
    return [
        Job("check", "format", [str(top / "tests/lint"), "format"], cwd=top, read=None),
        Job("check", "dependencies", [str(top / "tests/lint"), "dependencies"], cwd=top, read=None),
        Job("check", "links", ["python3", str(top / "tests/links.py")], cwd=top),
        Job("check", "lints", [str(top / "tests/lint"), "lints"], cwd=top, read=None, timeout=1800),
    ]


def quick_tests(build: rust.Build) -> list[Job]:
    """Unit tests, and integration tests that are over within seconds (.config/nextest.toml, profile `quick`)."""
    who = caller()
    if build.nextest:
        return [rust.nextest(build, who, "tests", "default()", (), "quick")]
    # Without nextest there is no list of slow tests: the unit tests, and what is quickest to show that a sandbox works.
    chosen = ("sandcell", "sandcell::bin/sandcell", "sandcell::running", "sandcell::cells", "sandcell::cli", "sandcell::mounts")
    return [rust.libtest(build, who, binary, [], ()) for binary in build.binaries if binary.id in chosen]


def steps(build: rust.Build) -> list[Job]:
    """What tests need besides the build."""
    # The escape suite's probe is linked static, so that it runs in a root without any library.
    probe = ["cargo", "rustc", "--quiet", "--locked", "--package", "sandcell-tests", "--bin", "escape-probe", "--target-dir", str(build.target / "escape")]
    probe += ["--", "-C", "target-feature=+crt-static"]
    # libsandcell as a release, with images and as it is by default; paths with a blank on purpose.
    script = 'ffi/install --with-images --prefix "$0" && ffi/install --prefix "$1"'
    return [
        Job("build", "probe", probe, cwd=build.top, read=None),
        Job("build", "c-library", ["nice", "bash", "-ec", script, str(build.c_prefix), str(build.c_small)], cwd=build.top, read=None, timeout=1800),
    ]


def beside(build: rust.Build) -> list[Job]:
    """The scripts of tests/, each a job."""
    top, found = build.top, []
    env = {"SANDCELL_BIN": str(build.program)}
    who_can = users()
    found.append(Job(caller(), "python", [str(top / "tests/python")], cwd=top, timeout=3600, many_lines=True))
    for who in who_can:
        found.append(Job(who, "programs", [*become(who), "env", f"SANDCELL_BIN={build.program}", str(top / "tests/programs/run"), "--quick"], timeout=1800))
        found.append(Job(who, "terminals", [*become(who), "env", f"SANDCELL_BIN={build.program}", str(top / "tests/terminals")], timeout=900))
        found.append(Job(who, "runners", [*become(who), str(top / "tests/runners"), str(build.program)], timeout=1800))
    if os.geteuid() == 0:
        found += vm.jobs(build)
        found += images(build, who_can)
    found.append(Job(caller(), "documentation", ["cargo", "test", "-q", *HARNESS, "--doc"], cwd=top, timeout=1800, many_lines=True))
    found.append(Job(caller(), "suites", [str(top / "tests/suites")], (f"{caller()}/python",), cwd=top, env=env, timeout=3600))
    return found


def images(build: rust.Build, who_can: list[str]) -> list[Job]:
    """An image in real use: a Debian root file system, which root makes."""
    rootfs = build.scratch / "debian.tar"
    script = 'mmdebstrap --quiet --variant=minbase bookworm "$0" && chmod 644 "$0"'
    found = [Job("build", "debian", ["bash", "-ec", script, str(rootfs)], read=None)]
    for who in who_can:
        command = [str(build.runner(who)), "env", "TMPDIR=/var/tmp", str(build.top / "tests/images/apt"), str(build.program), str(rootfs)]
        found.append(Job(who, "images/apt", command, ("build/debian",), timeout=1200))
    return found


def long(build: rust.Build) -> list[Job]:
    """What takes tens of minutes: by hand, and before a release."""
    top = build.top
    program = {"SANDCELL_BIN": str(build.program)}
    faults = next(binary for binary in build.binaries if binary.id == "sandcell-tests::faults")
    found = [
        Job(caller(), "faults in full", ["env", "SANDCELL_FAULTS=all", str(build.runner(caller())), faults.path], ("build/probe",), timeout=3 * 3600),
        Job(caller(), "programs in full", [str(top / "tests/programs/run")], env=program, timeout=2 * 3600),
        Job(caller(), "suites in full", [str(top / "tests/suites"), "all"], (f"{caller()}/python",), cwd=top, env=program, timeout=4 * 3600),
        Job(caller(), "fuzz", [str(top / "tests/fuzz/run"), "60"], cwd=top, read=results.status, timeout=2 * 3600),
        Job(caller(), "features", [str(top / "tests/lint"), "features"], cwd=top, read=None, timeout=2 * 3600),
        Job(caller(), "book", [str(top / "tests/lint"), "book"], cwd=top, read=None, timeout=1800),
    ]
    return [*found, *(vm.long(build) if os.geteuid() == 0 else [])]
