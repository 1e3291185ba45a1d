"""The Rust side: one build, its test binaries, and who runs which of them."""

import json
import os
import pwd
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import results
from jobs import Job

USER = "sandcell-test"
HARNESS = ["--locked", "--workspace", "--all-features"]

# Tests of these share what is expensive to find out within one process: the escape suite's runs. All others get a process
# each from nextest.
WHOLE = ("sandcell-tests::escape",)
# Needs the release of libsandcell.
C_PACKAGE = "sandcell-ffi"

# What is the same for every user, because it starts no sandbox and asks for no right: it runs once, as the ordinary user.
ONCE = (
    "(package(sandcell) & kind(lib) & test(/^(seccomp|policy|report|error|printable|fuzz::decode"
    "|images::(reference|date|config|manifest|pull)|build::(dockerfile|words))(::|$)/))"
    " | package(/^sandcell-(init|protocol|raw)$/) | binary_id(sandcell::bin/sandcell) | binary_id(sandcell::image_fuzz)"
    " | binary_id(/^sandcell-ffi::(header|docs|nulls|compilers|install|symbols)$/)"
)

# Where the machine has certificates of its own: a package of npm's is fetched over TLS.
CERTIFICATES = ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR")

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Binary:
    id: str
    path: str
    directory: str

    @property
    def name(self) -> str:
        return self.id.rsplit("::", 1)[-1]


class Build:
    """What cargo has built for the tests, and where this run puts its own things."""

    def __init__(self, top: Path, target: Path, scratch: Path):
        self.top, self.target, self.scratch = top, target, scratch
        self.c_prefix, self.c_small = scratch / "c prefix", scratch / "c small"
        self.program = target / "debug" / "sandcell"
        self.probe = target / "escape" / "debug" / "escape-probe"
        self.binaries: list[Binary] = []
        self.nextest = shutil.which("cargo-nextest")

    def build(self) -> None:
        """Everything in one go; what cannot be built ends the run."""
        self.binaries = list(self._binaries(cargo("test", *HARNESS, "--no-run", "--message-format=json")))
        if not self.binaries:
            raise SystemExit("tests/run: found no test binary in what cargo built")
        if self.nextest:
            listed = cargo("nextest", "list", *HARNESS, "--list-type", "binaries-only", "--message-format", "json")
            (self.scratch / "binaries.json").write_text(listed)
            metadata = cargo("metadata", "--locked", "--format-version", "1", "--all-features")
            (self.scratch / "metadata.json").write_text(metadata)

    @staticmethod
    def _binaries(messages: str):
        for line in messages.splitlines():
            message = json.loads(line)
            if message.get("reason") != "compiler-artifact" or not message["profile"]["test"] or not message["executable"]:
                continue
            directory = os.path.dirname(message["manifest_path"])
            package = message["package_id"].rsplit("#", 1)[-1].split("@")[0]
            if package[0].isdigit():  # path+file:///…/sandbox#0.1.0
                package = os.path.basename(directory)
            kind, name = message["target"]["kind"][0], message["target"]["name"]
            identity = {"bin": f"{package}::bin/{name}", "test": f"{package}::{name}"}.get(kind, package)
            yield Binary(identity, message["executable"], directory)

    def runner(self, who: str) -> Path:
        """A program that runs another as this user, in a clean environment: what the machine's owner has set must not decide
        a test. Its path has no blank, because cargo and nextest split it there."""
        path = self.scratch / f"as-{who}"
        account = pwd.getpwnam(who)
        env = {
            **{name: os.environ[name] for name in CERTIFICATES if name in os.environ},
            "HOME": account.pw_dir, "USER": who, "LOGNAME": who, "TMPDIR": "/tmp", "PATH": PATH, "CI": os.environ.get("CI", ""),
            "RUST_BACKTRACE": "1", "SANDCELL_ESCAPE_PROBE": str(self.probe), "SANDCELL_BIN": str(self.program),
            "SANDCELL_C_PREFIX": str(self.c_prefix), "SANDCELL_C_SMALL": str(self.c_small),
        }
        words = [*become(who), "env", "-i", *(f"{key}={value}" for key, value in env.items())]
        path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        path.chmod(0o755)
        return path


def cargo(*arguments: str) -> str:
    answer = subprocess.run(["cargo", *arguments], stdout=subprocess.PIPE, text=True)
    if answer.returncode != 0:
        raise SystemExit(f"tests/run: this failed: cargo {shlex.join(arguments)}")
    return answer.stdout


def caller() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def become(who: str) -> list[str]:
    """How a command is run as this user."""
    if who == caller():
        return []
    return ["runuser", "-u", who, "--"] if os.geteuid() == 0 else ["sudo", "-n", "-u", who]


def users() -> list[str]:
    """The ordinary user first: what runs once, runs as that one."""
    if os.geteuid() == 0:
        return [USER, "root"]
    with_sudo = subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0 if shutil.which("sudo") else False
    return [caller(), "root"] if with_sudo else [caller()]


def without_once(expression: str, who: str, everyone: list[str]) -> str:
    return expression if who == everyone[0] else f"({expression}) - ({ONCE})"


def nextest(build: Build, who: str, name: str, expression: str, after: tuple[str, ...], profile: str = "ci") -> Job:
    """Tests that the expression selects, a process each."""
    key = f"{who}-{name}"
    config = build.scratch / f"nextest-{key}.toml"
    ours = (build.top / ".config" / "nextest.toml").read_text()
    config.write_text(f'{ours}\n[store]\ndir = "{build.scratch}/{key}"\n')
    command = ["cargo", "nextest", "run", "--profile", profile, "--no-fail-fast", "--color", "never", "--config-file", str(config)]
    command += ["--cargo-metadata", str(build.scratch / "metadata.json"), "-E", expression]
    command += ["--binaries-metadata", str(build.scratch / "binaries.json")]
    report = build.scratch / key / profile / "junit.xml"
    env = {f"CARGO_TARGET_{triple()}_RUNNER": str(build.runner(who))}
    return Job(who, name, command, after, env=env, read=results.junit, report=report, timeout=3600)


def triple() -> str:
    answer = subprocess.run(["rustc", "-vV"], stdout=subprocess.PIPE, text=True, check=True).stdout
    host = next(line.split()[1] for line in answer.splitlines() if line.startswith("host: "))
    return host.upper().replace("-", "_")


def libtest(build: Build, who: str, binary: Binary, arguments: list[str], after: tuple[str, ...]) -> Job:
    """A whole test binary in one process."""
    command = [str(build.runner(who)), binary.path, "--show-output", *arguments]
    return Job(who, binary.id, command, after, cwd=Path(binary.directory), timeout=1800)


def test_jobs(build: Build) -> list[Job]:
    """All test binaries, for each user what differs by user."""
    everyone, jobs = users(), []
    for who in everyone:
        whole = [binary for binary in build.binaries if binary.id in WHOLE]
        if build.nextest:
            rest = " - ".join(["all()", f"package({C_PACKAGE})", *(f"binary_id({id})" for id in WHOLE)])
            jobs.append(nextest(build, who, "tests", without_once(rest, who, everyone), ("build/probe",)))
            c_tests = without_once(f"package({C_PACKAGE})", who, everyone)
            jobs.append(nextest(build, who, "C", c_tests, ("build/c-library",)))
        else:
            whole = build.binaries
        for binary in whole:
            needs = ("build/c-library",) if binary.id.startswith(C_PACKAGE) else ("build/probe",)
            jobs.append(libtest(build, who, binary, [], needs))
    return jobs


def one(build: Build, who: str, identity: str, test: str | None) -> Job:
    """One binary, or one test of it."""
    binary = next((binary for binary in build.binaries if identity in (binary.id, binary.name)), None)
    if binary is None:
        raise SystemExit(f"tests/run: there is no test binary {identity}")
    needs = ("build/c-library",) if binary.id.startswith(C_PACKAGE) else ("build/probe",)
    return libtest(build, who, binary, ["--exact", test] if test else [], needs)
