"""Runs a program in a sandbox and says how it ended: the C library without the Python package.

    SANDCELL_LIBRARY=/usr/local/lib/libsandcell.so.0 python3 run.py /bin/sh -c 'id; echo hello'
"""

import ctypes
import os
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint64, c_void_p

lib = ctypes.CDLL(os.environ.get("SANDCELL_LIBRARY", "libsandcell.so.0"))


def function(name, answer, *arguments):
    found = getattr(lib, f"sandcell_{name}")
    found.restype, found.argtypes = answer, arguments
    return found


policy_new = function("policy_new", c_void_p)
set_timeout_ms = function("policy_set_timeout_ms", c_int, c_void_p, c_uint64)
run = function("run", c_int, c_void_p, POINTER(c_char_p), POINTER(c_void_p), POINTER(c_void_p))
error_message = function("error_message", c_char_p, c_void_p)
error_hint = function("error_hint", c_char_p, c_void_p)
stdout = function("result_stdout", c_void_p, c_void_p, POINTER(c_size_t))
outcome = function("result_outcome", c_char_p, c_void_p)
exit_code = function("result_exit_code", c_int, c_void_p)
frees = {name: function(f"{name}_free", None, c_void_p) for name in ("policy", "error", "result")}

policy, result, error, length = policy_new(), c_void_p(), c_void_p(), c_size_t()
set_timeout_ms(policy, 10000)
argv = [arg.encode() for arg in sys.argv[1:]]
if run(policy, (c_char_p * (len(argv) + 1))(*argv, None), byref(result), byref(error)) != 0:
    print(error_message(error).decode(), f"hint: {error_hint(error).decode()}", sep="\n", file=sys.stderr)
    status = 125
else:
    output = stdout(result, byref(length))
    sys.stdout.buffer.write(ctypes.string_at(output, length.value))
    if outcome(result) != b"exited":
        print(outcome(result).decode(), file=sys.stderr)
    status = exit_code(result)
for name, handle in (("result", result), ("error", error), ("policy", policy)):
    frees[name](handle)
sys.exit(status)
