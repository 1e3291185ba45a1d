"""Refuses system calls as some place does, and executes a program: `imitation.py RULES PROGRAM...`.

RULES are words such as `mount=EPERM`; `clone+newuser=EPERM` refuses it with CLONE_NEWUSER only.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

X86_64 = dict(
    clone=56, chmod=90, pivot_root=155, mount=165, umount2=166, setxattr=188, add_key=248, request_key=249, keyctl=250,
    unshare=272, setns=308, seccomp=317, bpf=321,
)
AARCH64 = dict(
    clone=220, pivot_root=41, mount=40, umount2=39, setxattr=5, add_key=217, request_key=218, keyctl=219, unshare=97,
    setns=268, seccomp=277, bpf=280,
)
BOTH = dict(
    open_tree=428, move_mount=429, fsopen=430, fsconfig=431, fsmount=432, fspick=433, pidfd_open=434, clone3=435,
    mount_setattr=442, landlock_create_ruleset=444, landlock_add_rule=445, landlock_restrict_self=446,
)
NUMBERS = {**BOTH, **(X86_64 if platform.machine() == "x86_64" else AARCH64)}
NEWUSER = 0x10000000
LOAD, EQUAL, HAS, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000

program = []
for rule in sys.argv[1].split():
    call, answer = rule.split("=")
    call, _, newuser = call.partition("+")
    if call not in NUMBERS:
        continue
    answer = ERRNO | getattr(errno, answer)
    program += [(LOAD, 0, 0, 0), (EQUAL, 0, 3 if newuser else 1, NUMBERS[call])]
    if newuser:
        program += [(LOAD, 0, 0, 16), (HAS, 0, 1, NEWUSER)]
    program += [(RETURN, 0, 0, answer)]
program.append((RETURN, 0, 0, ALLOW))

filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
whole = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(filters)))
libc = ctypes.CDLL(None, use_errno=True)
for words in [(38, 1, 0, 0, 0), (22, 2, ctypes.byref(whole), 0, 0)]:
    if libc.prctl(*words):
        sys.exit(f"prctl {words[0]}: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[2], sys.argv[2:])
