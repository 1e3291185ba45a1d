"""Runs CPython's own test_subprocess.py with sandcell in subprocess's place, and tells what came of each test as JSON.

    python adapter.py DIRECTORY     a writable one, in which the tests make their files

What subprocess inherits and a sandbox does not is granted, so that the tests meet what they expect: the caller's
environment, directory and user, the interpreter's files, and the directory.
"""

import functools
import json
import os
import sys
import sysconfig
import types
import unittest

import subprocess as original

import sandcell


class Shim(types.ModuleType):
    """The module subprocess, in which tests choose the selector of communicate."""

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name == "_PopenSelector":
            # sandcell's communicate is the standard library's own, which looks there.
            original._PopenSelector = value


def shim(directory):
    """The module subprocess, with its Popen and run replaced, and its other functions made to use them."""
    shown = [*sandcell.interpreter_paths(), sysconfig.get_path("stdlib")]
    shown = [path for path in shown if not path.startswith("/usr/")]
    policy = {"keep_env": True, "user": "caller", "ro": shown, "rw": [directory]}
    box = sandcell.Sandbox(**policy)

    def with_cwd(keywords):
        keywords["cwd"] = os.path.join(os.getcwdb(), os.fsencode(keywords.get("cwd") or b""))
        return keywords

    class Popen(sandcell.Popen):
        def __init__(self, *args, umask=-1, **keywords):
            # With sandcell it is the policy's.
            chosen = box if umask == -1 else sandcell.Sandbox(**policy, umask=umask)
            super().__init__(*args, sandbox=chosen, **with_cwd(keywords))

    def run(*args, **keywords):
        # Only what subprocess.run takes and sandcell.run does not say goes by way of Popen.
        if keywords.keys() - known or len(args) > 1:
            return rebound.run(*args, **keywords)
        return box.run(*args, **with_cwd(keywords))

    known = set(sandcell.Sandbox.run.__kwdefaults__)
    module = Shim("subprocess", original.__doc__)
    module.__dict__.update(original.__dict__)
    module.Popen = Popen
    rebound = types.SimpleNamespace()
    for name, function in vars(original).items():
        if isinstance(function, types.FunctionType):
            copy = types.FunctionType(function.__code__, module.__dict__, name, function.__defaults__)
            copy.__kwdefaults__ = function.__kwdefaults__
            setattr(rebound, name, functools.wraps(function)(copy))
    module.__dict__.update(vars(rebound))
    module.run = run
    return module


class Result(unittest.TextTestResult):
    def __init__(self, *args, **keywords):
        super().__init__(*args, **keywords)
        self.told = {}

    def tell(self, test, word):
        self.told[test.id().removeprefix("test.test_subprocess.")] = word

    def addSuccess(self, test):
        super().addSuccess(test)
        self.tell(test, "passed")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.tell(test, "skipped")

    def addError(self, test, error):
        super().addError(test, error)
        self.tell(test, "failed")

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.tell(test, "failed")

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.tell(test, "failed")


def every(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from every(item)
        else:
            yield item


def main(directory, left_out):
    os.chdir(directory)
    os.environ["TMPDIR"] = directory
    sys.modules["subprocess"] = shim(directory)
    from test import test_subprocess

    found = unittest.defaultTestLoader.loadTestsFromModule(test_subprocess)
    wanted = [test for test in every(found) if not left_out(test.id().removeprefix("test.test_subprocess."))]
    result = unittest.TextTestRunner(sys.stderr, verbosity=2, resultclass=Result).run(unittest.TestSuite(wanted))
    json.dump(result.told, sys.stdout)


if __name__ == "__main__":
    names = sys.argv[2:]
    main(sys.argv[1], lambda name: any(name == n or name.endswith("." + n) or name.startswith(n + ".") for n in names))
